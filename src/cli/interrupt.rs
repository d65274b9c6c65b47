//! Ctrl-C (and SIGTERM): the first asks the work to stop where it can be continued, the second ends the process at once.

use couplet::error::{Error, Result};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The status of a process that Ctrl-C ended, as shells have it: 128 + SIGINT.
const ENDED_BY_CTRL_C: i32 = 130;

/// From here on Ctrl-C sets the flag that is returned; call it once a process. `meanwhile` says what happens then.
pub fn install(meanwhile: &'static str) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(ENDED_BY_CTRL_C);
        }
        let _ = writeln!(std::io::stderr(), "stopping: {meanwhile}; Ctrl-C again ends at once");
    })
    .map_err(|e| Error::Internal(format!("Ctrl-C cannot be caught: {e}")))?;
    Ok(stop)
}
