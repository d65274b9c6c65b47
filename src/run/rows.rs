//! A matrix written row by row, cells by features, as the ending of the file's name says: `.npy`, `.csv` or `.h5ad`.

use crate::data::atomic::AtomicFile;
use crate::data::npy::{Dtype, NpyWriter};
use crate::error::{Error, Result};
#[cfg(feature = "hdf5")]
use crate::run::h5ad::{Cells, H5adWriter, Matrix};
use std::path::Path;

/// The endings that [`RowsWriter`] knows.
pub const ENDINGS: &str = if cfg!(feature = "hdf5") { ".npy, .csv and .h5ad" } else { ".npy and .csv" };

/// What kind of file a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One f32 array; no ids.
    Npy,
    /// A header, then a row a cell that begins with the cell's id.
    Csv,
    /// AnnData: the matrix with the cells' ids and labels.
    #[cfg(feature = "hdf5")]
    H5ad,
}

impl Format {
    /// By the ending of the name.
    pub fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
            Some("npy") => Ok(Format::Npy),
            Some("csv") => Ok(Format::Csv),
            #[cfg(feature = "hdf5")]
            Some("h5ad") => Ok(Format::H5ad),
            _ => Err(Error::usage(format!("{}: the ending says what is written, and it is none of {ENDINGS}", path.display()))),
        }
    }
}

/// A matrix on its way into a file; nothing is there under its name before [`RowsWriter::commit`].
pub struct RowsWriter {
    file: Pending,
    columns: usize,
    left: usize,
    line: Vec<u8>,
}

enum Pending {
    Npy(NpyWriter),
    Csv(AtomicFile),
    #[cfg(feature = "hdf5")]
    H5ad(H5adWriter),
}

impl RowsWriter {
    /// Starts a matrix of `rows` rows. `leading` names the columns before the numbers (the cell's id first), `columns` those of
    /// the numbers; an `.npy` holds the numbers alone.
    pub fn create(path: &Path, rows: usize, leading: &[&str], columns: &[impl AsRef<str>]) -> Result<RowsWriter> {
        RowsWriter::shaped(path, rows, leading, columns, &[columns.len()])
    }

    /// The same for cells of a shape, an image's say, whose numbers are the columns: the axes of an `.npy`.
    #[track_caller]
    pub fn shaped(path: &Path, rows: usize, leading: &[&str], columns: &[impl AsRef<str>], shape: &[usize]) -> Result<RowsWriter> {
        assert_eq!(shape.iter().product::<usize>(), columns.len(), "shaped: {shape:?} for {} columns", columns.len());
        let mut line = Vec::new();
        let file = match Format::of(path)? {
            Format::Npy => Pending::Npy(NpyWriter::create(path, Dtype::F32, shape)?),
            Format::Csv => {
                let mut file = AtomicFile::create(path)?;
                for (i, name) in leading.iter().copied().chain(columns.iter().map(AsRef::as_ref)).enumerate() {
                    push_field(&mut line, i, name);
                }
                line.push(b'\n');
                file.write(&line)?;
                Pending::Csv(file)
            }
            #[cfg(feature = "hdf5")]
            Format::H5ad => return Err(Error::Internal(format!("{}: an .h5ad wants its cells", path.display()))),
        };
        Ok(RowsWriter { file, columns: columns.len(), left: rows, line })
    }

    /// Starts an `.h5ad` of a matrix with a row a cell. Its rows are given without leading columns, or with: the cells have them.
    #[cfg(feature = "hdf5")]
    pub fn annotated(path: &Path, cells: &Cells, matrix: &Matrix) -> Result<RowsWriter> {
        let file = Pending::H5ad(H5adWriter::create(path, cells, matrix)?);
        Ok(RowsWriter { file, columns: matrix.width(), left: cells.len(), line: Vec::new() })
    }

    /// The next row.
    pub fn row(&mut self, leading: &[&str], values: &[f32]) -> Result<()> {
        if values.len() != self.columns || self.left == 0 {
            return Err(Error::Internal(format!("a row of {} values for {} columns, {} rows left", values.len(), self.columns, self.left)));
        }
        self.left -= 1;
        match &mut self.file {
            Pending::Npy(file) => file.write(values),
            #[cfg(feature = "hdf5")]
            Pending::H5ad(file) => file.row(values),
            Pending::Csv(file) => {
                self.line.clear();
                for (i, field) in leading.iter().enumerate() {
                    push_field(&mut self.line, i, field);
                }
                for v in values {
                    self.line.extend(format!(",{v}").bytes());
                }
                self.line.push(b'\n');
                file.write(&self.line)
            }
        }
    }

    /// Gives the file its name; every row must have been written.
    pub fn commit(self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::Internal(format!("{} rows were not written", self.left)));
        }
        match self.file {
            Pending::Npy(file) => file.finish().map(|_| ()),
            Pending::Csv(file) => file.commit(),
            #[cfg(feature = "hdf5")]
            Pending::H5ad(file) => file.commit(),
        }
    }
}

/// A CSV field, quoted where it must be.
pub(super) fn push_field(line: &mut Vec<u8>, position: usize, field: &str) {
    if position > 0 {
        line.push(b',');
    }
    if field.contains(['"', ',', '\n', '\r']) {
        line.push(b'"');
        line.extend(field.replace('"', "\"\"").bytes());
        line.push(b'"');
    } else {
        line.extend(field.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_has_a_header_and_quotes_what_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("z.csv");
        let mut w = RowsWriter::create(&path, 2, &["cell"], &["Z1", "a,b"]).unwrap();
        w.row(&["c\"1"], &[0.1, -2.0]).unwrap();
        assert!(w.row(&["c2"], &[1.0]).is_err());
        w.row(&["c2"], &[1.0, f32::NAN]).unwrap();
        assert!(w.row(&["c3"], &[1.0, 1.0]).is_err());
        w.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cell,Z1,\"a,b\"\n\"c\"\"1\",0.1,-2\nc2,1,NaN\n");
    }

    #[test]
    fn an_npy_is_an_aligned_header_and_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("z.npy");
        let mut w = RowsWriter::create(&path, 1, &["cell"], &["Z1", "Z2"]).unwrap();
        w.row(&["c"], &[1.5, 2.5]).unwrap();
        w.commit().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let body = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        assert_eq!(body % 64, 0);
        assert_eq!(&bytes[body..], bytemuck::cast_slice::<f32, u8>(&[1.5, 2.5]));
        assert!(std::str::from_utf8(&bytes[10..body]).unwrap().contains("'shape': (1, 2)"));
    }

    #[test]
    fn an_unfinished_matrix_and_an_unknown_ending_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("z.npy");
        assert!(RowsWriter::create(&path, 2, &[], &["Z1"]).unwrap().commit().is_err());
        assert!(!path.exists());
        for name in ["z.xlsx", "z"] {
            let e = Format::of(Path::new(name)).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains(ENDINGS), "{e}");
        }
    }
}
