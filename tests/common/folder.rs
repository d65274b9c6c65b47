//! Where the kept data are.

use std::path::PathBuf;

/// A file or folder of `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    // Where the tests run away from the folder that they were built in, the environment says where the data are; cargo says so too.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(root).join("tests/golden").join(name)
}
