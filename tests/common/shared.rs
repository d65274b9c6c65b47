//! Real data, too large to be kept here.

use std::path::{Path, PathBuf};

/// A file or folder of theirs, or none and the reason printed.
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("COUPLET_SHARED_DATA").map(PathBuf::from);
    let path = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).join(name);
    if !path.exists() {
        println!("skipped: {name} of the shared data is not at hand (set COUPLET_SHARED_DATA to the folder it is in)");
        return None;
    }
    Some(path)
}
