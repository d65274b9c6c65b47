//! `dataset.json`: what a DATASET holds, so that it opens without reading any matrix.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::in_place::InPlace;
use crate::error::{Error, Result};

/// The version of the layout that this program writes and reads.
pub const VERSION: u32 = 1;

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// `couplet dataset`, so that another `dataset.json` is recognised as such.
    pub format: String,
    /// [`VERSION`]
    pub version: u32,
    /// Program and version that wrote it.
    pub made_by: String,
    /// The modalities in the order typed; the first is A.
    pub modalities: Vec<ModalityEntry>,
    /// The label columns of `cells.csv`.
    pub labels: Vec<LabelColumn>,
    /// The label column that is meant when none is named: the first, or what `FILE#COLUMN` named.
    pub default_label: Option<String>,
    /// Lines of `cells.csv`, the header aside.
    pub cells: u64,
    /// Which rows are the same cell.
    pub pairs: PairsEntry,
    /// Files of no modality.
    pub files: Vec<FileEntry>,
}

/// One modality.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModalityEntry {
    /// Its name and folder.
    pub name: String,
    /// Rows.
    pub cells: u64,
    /// Columns.
    pub features: u64,
    /// Shape of one cell: `[features]`, or `[channels, height, width]` for images.
    pub shape: Vec<u64>,
    /// `dense` (values.npy) or `sparse` (indptr.npy, indices.npy, data.npy).
    pub layout: String,
    /// Element type of the values: f32, u8 or u16.
    pub dtype: String,
    /// Element type of indptr, for a sparse one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub indptr: Option<String>,
    /// Label-free facts of the whole matrix.
    pub facts: Facts,
    /// Where the cell ids came from: `file`, `labels`, `paired modality` or `row numbers`.
    pub ids: String,
    /// Where the values came from.
    pub source: Provenance,
    /// The values, where they stayed in the file they came in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub in_place: Option<InPlace>,
    /// The folder's files.
    pub files: Vec<FileEntry>,
}

/// Sums over all values of a modality; those that a sparse one does not store are zeros.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Sum of the values that are not missing.
    pub sum: f64,
    /// Smallest value; none if all are missing.
    pub min: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
    /// Values that are neither zero nor missing.
    pub nonzeros: u64,
    /// Missing values.
    pub missing: u64,
    /// Every value that is there is an integer and not negative.
    pub all_integers_nonnegative: bool,
}

impl Facts {
    /// Of no values.
    pub fn new() -> Facts {
        Facts { sum: 0.0, min: None, max: None, nonzeros: 0, missing: 0, all_integers_nonnegative: true }
    }

    /// Adds a row's stored values.
    pub fn add(&mut self, values: &[f32]) {
        let (mut low, mut high, mut seen) = (f32::INFINITY, f32::NEG_INFINITY, false);
        for &v in values {
            if v.is_nan() {
                self.missing += 1;
                continue;
            }
            seen = true;
            low = low.min(v);
            high = high.max(v);
            self.sum += v as f64;
            self.nonzeros += u64::from(v != 0.0);
            self.all_integers_nonnegative &= v >= 0.0 && v.fract() == 0.0;
        }
        if seen {
            self.widen(low as f64, high as f64);
        }
    }

    /// Accounts for zeros that are not stored.
    pub fn add_zeros(&mut self, count: u64) {
        if count > 0 {
            self.widen(0.0, 0.0);
        }
    }

    fn widen(&mut self, low: f64, high: f64) {
        self.min = Some(self.min.map_or(low, |m| m.min(low)));
        self.max = Some(self.max.map_or(high, |m| m.max(high)));
    }
}

impl Default for Facts {
    fn default() -> Facts {
        Facts::new()
    }
}

/// Where something came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The file as it was named, or `simulate RECIPE`.
    pub file: String,
    /// What stood after `#`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The file's size then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<u64>,
    /// What was made of the file's columns, where they are no longer its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made: Option<String>,
}

/// A label column of `cells.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelColumn {
    /// Its name.
    pub name: String,
    /// The modalities that it labels; all if none are named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub modalities: Option<Vec<String>>,
    /// The table it came from.
    pub source: String,
}

/// `pairs.npy` in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairsEntry {
    /// `by-row`, `by-name`, `none`, or the file.
    pub rule: String,
    /// Rows of `pairs.npy`: cells with rows in two modalities or more.
    pub units: u64,
    /// Whether `pairs_confidence.npy` is there.
    pub weighted: bool,
}

/// A file and its CRC-32, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name inside its folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Checksum of the whole file.
    pub crc32: String,
}

impl FileEntry {
    /// An entry from the checksum as a number.
    pub fn new(name: &str, bytes: u64, crc32: u32) -> FileEntry {
        FileEntry { name: name.to_string(), bytes, crc32: format!("{crc32:08x}") }
    }
}

impl Manifest {
    /// Reads `DIR/dataset.json`.
    pub fn read(dir: &Path) -> Result<Manifest> {
        let path = dir.join("dataset.json");
        if !dir.is_dir() {
            let what = if dir.exists() { "it is a file, a DATASET is a directory" } else { "there is no such directory" };
            return Err(Error::input(dir, "", format!("{what}: couplet import makes one")));
        }
        if !path.is_file() {
            return Err(Error::input(dir, "", "not a DATASET, it has no dataset.json: couplet import makes one"));
        }
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| Error::input(&path, "", format!("not JSON: {e}")))?;
        if value.get("format").and_then(|f| f.as_str()) != Some("couplet dataset") {
            return Err(Error::input(&path, "", "not the description of a couplet dataset: couplet import makes one"));
        }
        match value.get("version").and_then(|v| v.as_u64()) {
            Some(v) if v == VERSION as u64 => {}
            Some(v) => {
                return Err(Error::input(
                    &path,
                    "key version",
                    format!("version {v} is unknown, {VERSION} is read: import the dataset again"),
                ));
            }
            None => return Err(Error::input(&path, "key version", "missing")),
        }
        serde_json::from_value(value).map_err(|e| Error::input(&path, "", format!("damaged: {e}: import the dataset again")))
    }

    /// The file's text.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Internal(format!("dataset.json: {e}")))?;
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_skip_missing_values_and_know_counts() {
        let mut f = Facts::new();
        f.add(&[2.0, f32::NAN, 0.0]);
        assert_eq!((f.sum, f.min, f.max, f.nonzeros, f.missing, f.all_integers_nonnegative), (2.0, Some(0.0), Some(2.0), 1, 1, true));
        f.add(&[0.5]);
        assert!(!f.all_integers_nonnegative);
        let mut f = Facts::new();
        f.add(&[f32::NAN]);
        assert_eq!((f.min, f.max), (None, None));
        f.add(&[3.0]);
        f.add_zeros(1);
        assert_eq!((f.min, f.max), (Some(0.0), Some(3.0)));
        f.add(&[-1.0]);
        assert!(!f.all_integers_nonnegative);
    }
}
