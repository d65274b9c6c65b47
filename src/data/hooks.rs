//! What a long reading or writing tells its caller, and how the caller stops it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// How far a stage has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What is being done, for a progress bar: `"rna"`, `"rna: sorting"`.
    pub stage: &'a str,
    /// Rows (cells) done, or entries of a matrix that is being sorted.
    pub done: u64,
    /// How many there will be, where the file says so.
    pub total: Option<u64>,
}

/// A caller's two hooks; the default has neither.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Called about once a block of rows.
    pub progress: Option<&'a mut (dyn FnMut(Progress<'_>) + 'a)>,
    /// Set from elsewhere (Ctrl-C) to stop: the work ends with [`Error::Interrupted`] and leaves nothing under a final name.
    pub stop: Option<&'a AtomicBool>,
}

impl Hooks<'_> {
    /// Reports progress and asks whether to stop.
    pub fn tick(&mut self, stage: &str, done: u64, total: Option<u64>) -> Result<()> {
        if self.stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted("interrupted: nothing was written".into()));
        }
        if let Some(progress) = &mut self.progress {
            progress(Progress { stage, done, total });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_flag_stops_at_the_next_tick() {
        let stop = AtomicBool::new(false);
        let mut seen = Vec::new();
        let mut progress = |p: Progress<'_>| seen.push((p.stage.to_string(), p.done));
        let mut hooks = Hooks { progress: Some(&mut progress), stop: Some(&stop) };
        hooks.tick("rna", 1, None).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(hooks.tick("rna", 2, None), Err(Error::Interrupted(_))));
        assert_eq!(seen, [("rna".to_string(), 1)]);
    }
}
