//! Files in: one file a format, each turning a file into rows of cells, streaming; no normalisation.
//!
//! To add a format: write its file with an `open(&Opening) -> Result<Source>`, and add a row to [`FORMATS`].
//!
//!   Source   what is known before the first row (names, shapes, layout) and the rows
//!   Row      one cell: dense values `[features]`, or indices and values of its non-zeros; NaN is a missing value

mod csv;
#[cfg(feature = "hdf5")]
mod hdf5;
#[cfg(feature = "images")]
mod images;
mod mtx;
mod npy;
mod npz;
mod text;
mod triplets;

use std::path::{Path, PathBuf};

use super::hooks::Hooks;
use super::in_place::Place;
use super::npy::Dtype;
use crate::error::{Error, Result, nearest};

pub use text::{Table, TableReader, delimiter_of, first_repeat};
pub(super) use text::{open_text, read_error};

/// One format: the endings that choose it and the function that opens it.
pub struct Format {
    /// Lower-case endings; `.gz` after one is part of it.
    pub extensions: &'static [&'static str],
    open: fn(&Opening) -> Result<Source>,
}

/// Every format, by extension.
pub static FORMATS: &[Format] = &[
    Format { extensions: &[".csv", ".csv.gz", ".tsv", ".tsv.gz"], open: csv::open },
    Format { extensions: &[".npy"], open: npy::open },
    Format { extensions: &[".npz"], open: npz::open },
    Format { extensions: &[".mtx", ".mtx.gz"], open: mtx::open },
    #[cfg(feature = "hdf5")]
    Format { extensions: &[".h5ad", ".h5mu", ".h5"], open: hdf5::open },
];

/// What a row of a MatrixMarket file without names beside it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsAre {
    /// `--rows cells`
    Cells,
    /// `--rows features`
    Features,
}

impl RowsAre {
    /// Reads the value of `--rows`.
    pub fn parse(word: &str) -> Result<RowsAre> {
        match word {
            "cells" => Ok(RowsAre::Cells),
            "features" => Ok(RowsAre::Features),
            _ => Err(Error::usage(format!("--rows \"{word}\": the rows of the matrix are \"cells\" or \"features\""))),
        }
    }
}

/// How to open a file.
pub struct Opening<'a> {
    /// The file or folder.
    pub file: &'a Path,
    /// What stood after `#`: a 10x feature type, an array of an `.npz`, an AnnData layer, a MuData modality.
    pub key: Option<&'a str>,
    /// `--rows`
    pub rows: Option<RowsAre>,
    /// `--missing nan`: values that are not finite numbers are missing instead of errors.
    pub missing_nan: bool,
    /// A directory for temporary files of matrices that must be sorted.
    pub scratch: &'a Path,
}

/// How a modality is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// All values, of the type in which they are kept: f32, u8 or u16.
    Dense(Dtype),
    /// Non-zeros only.
    Sparse,
}

/// What is known of a file before its first row.
#[derive(Debug, Clone)]
pub struct Head {
    /// Number of cells, where the file says so.
    pub cells: Option<u64>,
    /// Shape of one cell: `[features]`, or `[channels, height, width]`.
    pub shape: Vec<usize>,
    /// Dense or sparse.
    pub layout: Layout,
    /// Feature names, where the file has some.
    pub features: Option<Vec<String>>,
    /// Cell ids, where the file has them apart from the rows.
    pub cell_ids: Option<Vec<String>>,
}

impl Head {
    /// Features of a cell: the product of its shape.
    pub fn width(&self) -> usize {
        self.shape.iter().fold(1, |n: usize, &d| n.saturating_mul(d))
    }
}

/// One cell, reused from row to row.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The cell id, in formats that have it in the row.
    pub id: Option<String>,
    /// Columns of `values` in a sparse layout, strictly ascending; empty in a dense one.
    pub indices: Vec<i32>,
    /// All values (dense) or the non-zeros (sparse); NaN is missing.
    pub values: Vec<f32>,
}

/// The rows of a file, in order.
pub trait Rows {
    /// Work over the whole file that must come before the first row.
    fn prepare(&mut self, _stage: &str, _hooks: &mut Hooks) -> Result<()> {
        Ok(())
    }

    /// Fills `row` with the next cell; false after the last.
    fn next_row(&mut self, row: &mut Row) -> Result<bool>;

    /// Where cell number `row` (from 0) stands, for messages: `line 7`.
    fn place(&self, row: usize) -> String {
        format!("row {row}")
    }

    /// Where the values lie as a dataset would keep them, or why they do not.
    fn in_place(&self) -> Result<Place, &'static str> {
        Err("its format is not mapped")
    }

    /// Labels of the cells that the file itself has; asked for once, after the last row.
    fn labels(&mut self) -> Option<Table> {
        None
    }

    /// What of the file was left out, in sentences.
    fn notes(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// An opened file.
pub struct Source {
    /// What is known before reading.
    pub head: Head,
    /// The rows.
    pub rows: Box<dyn Rows>,
}

/// Opens a file by its ending, or a folder with the three files of 10x or of images.
pub fn open(opening: &Opening) -> Result<Source> {
    let file = opening.file;
    if file.is_dir() {
        #[cfg(feature = "images")]
        if !file.join("matrix.mtx").exists() && !file.join("matrix.mtx.gz").exists() {
            let images = images::files(file)?;
            if !images.is_empty() {
                return images::open(opening, images);
            }
        }
        return mtx::open_folder(opening);
    }
    let name = file.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let Some(format) = FORMATS.iter().find(|f| f.extensions.iter().any(|e| name.ends_with(e))) else {
        if !file.exists() {
            return Err(Error::io("read", file, std::io::Error::from(std::io::ErrorKind::NotFound)));
        }
        let all: Vec<&str> = FORMATS.iter().flat_map(|f| f.extensions).copied().collect();
        return Err(Error::input(
            file,
            "",
            format!(
                "the ending says no format that is read here: {}, or a folder with matrix.mtx, barcodes.tsv and features.tsv",
                all.join(" ")
            ),
        ));
    };
    let source = (format.open)(opening)?;
    if source.head.width() == 0 {
        return Err(Error::input(file, "", "there are no features in it"));
    }
    if source.head.cells == Some(0) {
        return Err(Error::input(file, "", "there are no cells in it"));
    }
    Ok(source)
}

/// A modality as typed: `NAME=FILE` or `NAME=FILE#KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModalitySource {
    /// The modality's name.
    pub name: String,
    /// The file or folder.
    pub file: PathBuf,
    /// What stood after `#`.
    pub key: Option<String>,
}

impl ModalitySource {
    /// Reads `NAME=FILE` or `NAME=FILE#KEY`. A `#` that belongs to an existing file's name is not a key.
    pub fn parse(text: &str) -> Result<ModalitySource> {
        let (name, file) = text
            .split_once('=')
            .filter(|(n, f)| !n.is_empty() && !f.is_empty())
            .ok_or_else(|| Error::usage(format!("--modality \"{text}\": NAME=FILE is wanted, as in rna=counts.csv")))?;
        check_name(name)?;
        let (file, key) = split_key(file);
        Ok(ModalitySource { name: name.to_string(), file, key })
    }
}

/// Splits `FILE#KEY`; a file that exists under the whole text has no key.
pub fn split_key(text: &str) -> (PathBuf, Option<String>) {
    match text.rsplit_once('#') {
        Some((file, key)) if !file.is_empty() && !key.is_empty() && !Path::new(text).exists() => {
            (PathBuf::from(file), Some(key.to_string()))
        }
        _ => (PathBuf::from(text), None),
    }
}

/// A modality's name becomes a folder and a part of keys in `metrics.json`, so it is letters, digits, `_`, `-` and `.`.
pub fn check_name(name: &str) -> Result<()> {
    let fits = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let taken = ["dataset.json", "cells.csv", "pairs.npy", "pairs_confidence.npy", "train.toml"];
    if name.is_empty() || name.starts_with('.') || !fits || taken.contains(&name) {
        return Err(Error::usage(format!("\"{name}\" cannot be the name of a modality: letters, digits, _ and - are wanted, as in rna")));
    }
    Ok(())
}

/// Cells or features that a header may name beyond the bytes of its file.
const UNBACKED: u64 = 1 << 23;

/// An error where a header names so many cells or features that nothing in the file can stand for them: each will have a name and a place
/// in memory, whether it has a value or not.
fn check_promise(file: &Path, cells: u64, features: u64) -> Result<()> {
    let bytes = std::fs::metadata(file).map_err(|e| Error::io("read", file, e))?.len();
    for (n, what) in [(cells, "cells"), (features, "features")] {
        if n > UNBACKED.saturating_add(bytes) {
            let message = format!(
                "{n} {what} are promised in a file of {bytes} bytes: the file is damaged, or {what} without values must be left out"
            );
            return Err(Error::input(file, "", message));
        }
    }
    Ok(())
}

/// Applies the rule for values that are not finite: an error, or missing under `--missing nan`. `place` is asked only for an error.
fn finite(value: f32, missing_nan: bool, file: &Path, place: impl FnOnce() -> String) -> Result<f32> {
    if value.is_finite() {
        Ok(value)
    } else if missing_nan {
        Ok(f32::NAN)
    } else {
        let what = if value.is_nan() { "nan" } else { "infinite" };
        Err(Error::input(file, place(), format!("the value is {what}: mend the file, or count such values as missing with --missing nan")))
    }
}

/// The sentence for a key that a file does not have.
fn no_such_key(file: &Path, key: &str, kind: &str, have: &[String]) -> Error {
    let hint = nearest(key, have.iter().map(String::as_str)).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
    Error::input(file, "", format!("there is no {kind} \"{key}\"{hint}; there are: {}", have.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modality_is_a_name_a_file_and_perhaps_a_key() {
        let m = ModalitySource::parse("rna=a=b.npz#X").unwrap();
        assert_eq!((m.name.as_str(), m.file.to_str().unwrap(), m.key.as_deref()), ("rna", "a=b.npz", Some("X")));
        assert_eq!(ModalitySource::parse("rna=x.csv").unwrap().key, None);
        for bad in ["rna", "=x.csv", "rna=", "../x=a.csv", ".x=a.csv", "a/b=c.csv", "cells.csv=x.csv"] {
            assert_eq!(ModalitySource::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_hash_in_the_name_of_an_existing_file_is_not_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run#1.csv");
        std::fs::write(&path, "cell,a\nx,1\n").unwrap();
        assert_eq!(split_key(path.to_str().unwrap()), (path, None));
    }
}
