//! What the cases of every model have in common: each has a test, and how near its numbers must be is said in lengths.

use super::folder::golden;
use std::fmt::Debug;

/// Every case of the folder is named by a line `..._pytorch "CASE"` of the source, and there are no more such lines.
pub fn all_are_used(folder: &str, source: &str) {
    let mut seen = 0;
    for path in std::fs::read_dir(golden(folder)).expect("the folder of fixtures").map(|e| e.expect("an entry").path()) {
        if path.extension().is_some_and(|e| e == "safetensors") {
            let name = path.file_stem().and_then(|s| s.to_str()).expect("a name");
            assert!(source.contains(&format!("_pytorch \"{name}\"")), "{name}.safetensors is not tested");
            seen += 1;
        }
    }
    assert_eq!(seen, source.matches("_pytorch \"").count(), "fixtures");
}

pub fn norm(v: impl IntoIterator<Item = f64>) -> f64 {
    v.into_iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The length of the difference is at most `allowed`.
#[track_caller]
pub fn close<T: Copy + Into<f64> + Debug>(what: &str, got: &[T], expected: &[f64], allowed: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let error = norm(got.iter().zip(expected).map(|(&g, e)| g.into() - e));
    assert!(error <= allowed, "{what}: off by {error:.2e}, allowed {allowed:.2e}\n got      {got:?}\n expected {expected:?}");
}
