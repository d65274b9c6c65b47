//! `history.csv`: a row an epoch. The first row fixes the columns.

use crate::data::atomic;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The growing `history.csv` of a run.
pub struct History {
    path: PathBuf,
    file: Option<File>,
    columns: Vec<String>,
}

impl History {
    /// Continues the history in `path` after `epoch`: later rows, and a row that a crash cut short, are dropped. With 0 it starts anew.
    pub fn after(path: &Path, epoch: usize) -> Result<History> {
        let mut history = History { path: path.to_path_buf(), file: None, columns: Vec::new() };
        if epoch == 0 {
            match fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("write", path, e)),
                _ => return Ok(history),
            }
        }
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let mut lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        let header = lines.next().unwrap_or_default();
        history.columns = header.trim_end().split(',').map(str::to_string).collect();
        if history.columns.first().map(String::as_str) != Some("epoch") {
            return Err(Error::input(path, "line 1", "the header does not begin with \"epoch\": this is no history of a run"));
        }
        let kept: Vec<&str> =
            lines.filter(|l| l.split(',').next().and_then(|e| e.parse().ok()).is_some_and(|e: usize| e <= epoch)).collect();
        atomic::write_file(path, (header.to_string() + &kept.concat()).as_bytes())?;
        Ok(history)
    }

    /// Appends the row of an epoch. A term that the first row did not have, or lacks one that it had, is a mistake of the program; that
    /// a file which is continued has other columns, one of whoever changed it.
    pub fn append(&mut self, epoch: usize, seconds: f64, terms: &[(&str, f64)]) -> Result<()> {
        let names = ["epoch", "seconds"].into_iter().chain(terms.iter().map(|t| t.0));
        let mut text = String::new();
        if self.columns.is_empty() {
            self.columns = names.map(str::to_string).collect();
            text = self.columns.join(",") + "\n";
        } else if !names.eq(self.columns.iter().map(String::as_str)) {
            let given: Vec<&str> = terms.iter().map(|t| t.0).collect();
            let (found, given) = (self.columns.join(","), given.join(","));
            // The columns are a file's until something has been appended.
            return Err(match self.file {
                None => Error::input(
                    &self.path,
                    "line 1",
                    format!(
                        "the columns are {found}, this training writes epoch,seconds,{given}: mend the header, or start a new run with another --out"
                    ),
                ),
                Some(_) => Error::Internal(format!("{}: columns {found} and terms {given}", self.path.display())),
            });
        }
        text += &format!("{epoch},{seconds:.3}");
        for (_, value) in terms {
            text += &format!(",{value}");
        }
        text.push('\n');
        let failed = |e| Error::io("write", &self.path, e);
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed)?);
        }
        // One write a row: a reader sees whole rows, and a crash costs at most the last one, which `after` drops.
        self.file.as_mut().map_or(Ok(()), |f| f.write_all(text.as_bytes())).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_history_is_cut_back_to_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.csv");
        let mut h = History::after(&path, 0).unwrap();
        for epoch in 1..=3 {
            h.append(epoch, 0.5, &[("loss", 1.0 / epoch as f64), ("loss.held_out", f64::NAN)]).unwrap();
        }
        drop(h);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("4,0.5,0.2"); // a crash while writing
        fs::write(&path, text).unwrap();
        let mut h = History::after(&path, 2).unwrap();
        h.append(3, 0.25, &[("loss", 0.125), ("loss.held_out", 2.0)]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "epoch,seconds,loss,loss.held_out\n1,0.500,1,NaN\n2,0.500,0.5,NaN\n3,0.250,0.125,2\n");
        assert_eq!(h.append(4, 0.1, &[("other", 0.0)]).unwrap_err().exit_code(), 1);
        let e = History::after(&path, 2).unwrap().append(3, 0.1, &[("other", 0.0)]).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("line 1: the columns are epoch,seconds,loss"), "{e}");
    }

    #[test]
    fn a_history_that_starts_anew_forgets_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.csv");
        fs::write(&path, "epoch,seconds\n1,1\n").unwrap();
        History::after(&path, 0).unwrap().append(1, 0.0, &[("a", 1.0)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "epoch,seconds,a\n1,0.000,1\n");
    }
}
