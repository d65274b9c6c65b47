//! AnnData, MuData and 10x files, as other programs wrote them: tests/golden/hdf5/make.py made those that are kept here, the ones
//! under `shared` come from the projects' own archives. Then damaged ones: one sentence, exit status 2, nothing left behind. Then our own.
#![cfg(feature = "hdf5")]

mod damaged;
#[path = "../common/folder.rs"]
mod folder;
#[path = "../common/matrix.rs"]
mod matrix;
mod reading;
#[path = "../common/shared.rs"]
mod shared;
mod writing;

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportReport, ImportSpec, import};
use couplet::data::{Dataset, Hooks};
use couplet::error::Result;
use std::path::Path;

const CELLS: usize = 7;
const FEATURES: usize = 5;

/// What make.py writes: cell c, feature f.
fn expected() -> Vec<Vec<f32>> {
    let value = |c: usize, f: usize| if c == 2 { 0.0 } else { (((3 * c + 2 * f) % 7) as f32 - 3.0).max(0.0) };
    (0..CELLS).map(|c| (0..FEATURES).map(|f| value(c, f)).collect()).collect()
}

fn golden(name: &str) -> String {
    folder::golden("hdf5").join(name).display().to_string()
}

/// Imports `NAME=FILE[#KEY]`, and looks after what a failed import leaves.
fn imported(dir: &Path, modalities: &[String], missing_nan: bool) -> Result<(ImportReport, Dataset)> {
    let out = dir.join("dataset");
    let _ = std::fs::remove_dir_all(&out);
    let modalities = modalities.iter().map(|m| ModalitySource::parse(m)).collect::<Result<_>>()?;
    let report = import(&ImportSpec { modalities, missing_nan, ..Default::default() }, &out, &mut Hooks::default());
    if report.is_err() {
        let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| !n.to_string_lossy().contains("dataset")), "a failed import left {left:?}");
    }
    Ok((report?, Dataset::open(&out)?))
}

fn import_golden(name: &str) -> (tempfile::TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    let (_, dataset) = imported(dir.path(), &[format!("rna={}", golden(name))], false).unwrap_or_else(|e| panic!("{name}: {e}"));
    (dir, dataset)
}

/// The sentence about a file that must be refused.
fn complaint(file: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let error = imported(dir.path(), &[format!("rna={file}")], false).err().unwrap_or_else(|| panic!("{file} must be refused"));
    let message = error.to_string();
    assert_eq!(error.exit_code(), 2, "{message}");
    assert!(!message.contains('\n'), "{message}");
    message
}

fn label(dataset: &Dataset, modality: usize, column: &str) -> Vec<String> {
    let labels = dataset.label(column).unwrap();
    (0..dataset.modality(modality).cells()).map(|row| labels.text(modality, row).unwrap_or("").to_string()).collect()
}

fn numbered(prefix: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("{prefix}{i}")).collect()
}
