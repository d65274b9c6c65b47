//! A sparse matrix written row by row, cells by features, as the ending of the file's name says: what is kept of wide rows that no disk
//! would hold for a million cells.
//!
//!   kept       of a row the `top` entries of largest magnitude (the first where they tie) that are not below `least` in magnitude and not 0
//!   .npz       `scipy.sparse.load_npz` opens it as a csr_matrix
//!   .h5ad      X or a layer as CSR, with ids and labels in obs
//!   .csv       a line an entry: cell, feature, value
//!   memory     8 bytes a cell; entries wait in two files without a name beside the target until their number is known

use std::fs::File;
#[cfg(feature = "hdf5")]
use std::io::Read;
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::rows::push_field;
use super::sparse;
use crate::data::atomic::{AtomicFile, nameless};
use crate::error::{Error, Result};
#[cfg(feature = "hdf5")]
use crate::run::h5ad::{Cells, H5adWriter, Matrix};

/// The endings that [`SparseRowsWriter`] knows.
pub const ENDINGS: &str = if cfg!(feature = "hdf5") { ".npz, .csv and .h5ad" } else { ".npz and .csv" };

/// What kind of file a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// SciPy's csr_matrix; no ids.
    Npz,
    /// A line an entry.
    Csv,
    /// AnnData: the matrix with the cells' ids and labels.
    #[cfg(feature = "hdf5")]
    H5ad,
}

impl Format {
    /// By the ending of the name.
    pub fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
            Some("npz") => Ok(Format::Npz),
            Some("csv") => Ok(Format::Csv),
            #[cfg(feature = "hdf5")]
            Some("h5ad") => Ok(Format::H5ad),
            _ => Err(Error::usage(format!(
                "{}: the ending says what is written, and for --top and --threshold it is none of {ENDINGS}",
                path.display()
            ))),
        }
    }
}

/// Which entries of a row are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    /// So many at most.
    pub top: Option<usize>,
    /// None of smaller magnitude.
    pub least: f32,
}

impl Keep {
    /// The columns that are kept, ascending, into `columns`.
    pub fn choose(&self, row: &[f32], columns: &mut Vec<i32>) {
        columns.clear();
        columns.extend((0..).zip(row).filter(|(_, v)| **v != 0.0 && (v.abs() >= self.least || v.is_nan())).map(|(c, _)| c));
        if let Some(top) = self.top.filter(|&top| top < columns.len()) {
            let by_size = |a: &i32, b: &i32| row[*b as usize].abs().total_cmp(&row[*a as usize].abs()).then(a.cmp(b));
            if top > 0 {
                columns.select_nth_unstable_by(top - 1, by_size);
            }
            columns.truncate(top);
            columns.sort_unstable();
        }
    }
}

/// A sparse matrix on its way into a file; nothing is there under its name before [`SparseRowsWriter::commit`].
pub struct SparseRowsWriter {
    path: PathBuf,
    keep: Keep,
    /// The names of the features.
    columns: Vec<String>,
    rows: usize,
    indptr: Vec<i64>,
    chosen: Vec<i32>,
    to: Pending,
}

enum Pending {
    Csv {
        file: AtomicFile,
        line: Vec<u8>,
    },
    Npz(Spool),
    #[cfg(feature = "hdf5")]
    H5ad(Spool, Cells, Option<String>),
}

/// The entries that have passed: columns and values.
struct Spool([BufWriter<File>; 2]);

impl Spool {
    fn create(path: &Path) -> Result<Spool> {
        let file = |part| Ok::<_, Error>(BufWriter::with_capacity(1 << 18, nameless(path, part)?));
        Ok(Spool([file("columns")?, file("values")?]))
    }

    fn read(self, path: &Path) -> Result<[BufReader<File>; 2]> {
        let failed = |e| Error::io("write", path, e);
        let back = |writer: BufWriter<File>| {
            let mut file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            Ok::<_, Error>(BufReader::with_capacity(1 << 18, file))
        };
        let [columns, values] = self.0;
        Ok([back(columns)?, back(values)?])
    }
}

impl SparseRowsWriter {
    /// Starts a matrix of `rows` rows with these features.
    pub fn create(path: &Path, rows: usize, columns: &[String], keep: Keep) -> Result<SparseRowsWriter> {
        let to = match Format::of(path)? {
            Format::Npz => Pending::Npz(Spool::create(path)?),
            Format::Csv => {
                let mut file = AtomicFile::create(path)?;
                AtomicFile::write(&mut file, b"cell,feature,value\n")?;
                Pending::Csv { file, line: Vec::new() }
            }
            #[cfg(feature = "hdf5")]
            Format::H5ad => return Err(Error::Internal(format!("{}: an .h5ad wants its cells", path.display()))),
        };
        Ok(SparseRowsWriter::of(path, rows, columns, keep, to))
    }

    /// Starts an `.h5ad` whose X, or a layer of that name, is the matrix, with a row a cell.
    #[cfg(feature = "hdf5")]
    pub fn annotated(path: &Path, cells: Cells, columns: &[String], layer: Option<&str>, keep: Keep) -> Result<SparseRowsWriter> {
        let rows = cells.len();
        let to = Pending::H5ad(Spool::create(path)?, cells, layer.map(str::to_string));
        Ok(SparseRowsWriter::of(path, rows, columns, keep, to))
    }

    fn of(path: &Path, rows: usize, columns: &[String], keep: Keep, to: Pending) -> SparseRowsWriter {
        SparseRowsWriter { path: path.to_path_buf(), keep, columns: columns.to_vec(), rows, indptr: vec![0], chosen: Vec::new(), to }
    }

    /// The next row, whole; `id` is the cell's.
    pub fn row(&mut self, id: &str, values: &[f32]) -> Result<()> {
        let left = self.rows + 1 - self.indptr.len();
        if values.len() != self.columns.len() || left == 0 {
            return Err(Error::Internal(format!("a row of {} values for {} columns, {left} rows left", values.len(), self.columns.len())));
        }
        self.keep.choose(values, &mut self.chosen);
        self.indptr.push(self.indptr[self.indptr.len() - 1] + self.chosen.len() as i64);
        let spool = match &mut self.to {
            Pending::Csv { file, line } => {
                line.clear();
                for &c in &self.chosen {
                    push_field(line, 0, id);
                    push_field(line, 1, &self.columns[c as usize]);
                    line.extend(format!(",{}\n", values[c as usize]).bytes());
                }
                return AtomicFile::write(file, line);
            }
            Pending::Npz(spool) => spool,
            #[cfg(feature = "hdf5")]
            Pending::H5ad(spool, ..) => spool,
        };
        let [columns, kept] = &mut spool.0;
        let written = columns
            .write_all(bytemuck::cast_slice(&self.chosen))
            .and_then(|()| self.chosen.iter().try_for_each(|&c| kept.write_all(&values[c as usize].to_le_bytes())));
        written.map_err(|e| Error::io("write", &self.path, e))
    }

    /// Entries kept so far.
    pub fn entries(&self) -> u64 {
        self.indptr[self.indptr.len() - 1] as u64
    }

    /// Gives the file its name; every row must have been written.
    pub fn commit(self) -> Result<()> {
        if self.indptr.len() != self.rows + 1 {
            return Err(Error::Internal(format!("{} rows were not written", self.rows + 1 - self.indptr.len())));
        }
        match self.to {
            Pending::Csv { file, .. } => file.commit(),
            Pending::Npz(spool) => {
                let [mut columns, mut values] = spool.read(&self.path)?;
                sparse::save_npz(&self.path, [self.rows, self.columns.len()], &self.indptr, &mut columns, &mut values)
            }
            #[cfg(feature = "hdf5")]
            Pending::H5ad(spool, cells, layer) => {
                let matrix = layer.as_deref().map_or(Matrix::X(&self.columns), |layer| Matrix::Layer(layer, &self.columns));
                let mut out = H5adWriter::create_sparse(&self.path, &cells, &matrix, &self.indptr)?;
                let [columns, values] = spool.read(&self.path)?;
                copy(values, &self.path, &mut out)?;
                out.between(self.indptr[self.rows] as u64)?;
                copy(columns, &self.path, &mut out)?;
                out.commit()
            }
        }
    }
}

#[cfg(feature = "hdf5")]
fn copy(mut from: BufReader<File>, path: &Path, out: &mut H5adWriter) -> Result<()> {
    let mut block = vec![0; 1 << 18];
    loop {
        match from.read(&mut block).map_err(|e| Error::io("write", path, e))? {
            0 => return Ok(()),
            n => out.bytes(&block[..n])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::ModalitySource;
    use crate::data::import::{ImportSpec, import};
    use crate::data::{Dataset, Hooks};

    const ROWS: [[f32; 4]; 3] = [[0.5, -3.0, 0.0, 2.0], [0.0; 4], [1.0, 1.0, 1.0, -0.1]];

    fn names() -> Vec<String> {
        ["a", "b,c", "d", "e"].map(String::from).to_vec()
    }

    fn read_back(path: &Path) -> (Vec<Vec<f32>>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let spec =
            ImportSpec { modalities: vec![ModalitySource { name: "a".into(), file: path.into(), key: None }], ..ImportSpec::default() };
        import(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let d = Dataset::open(&dir.path().join("d")).unwrap();
        let row = |r| {
            let mut out = vec![0.0; 4];
            d.modality(0).row_into(r, &mut out).unwrap();
            out
        };
        ((0..3).map(row).collect(), d.modality(0).is_sparse())
    }

    #[test]
    fn the_largest_in_magnitude_are_kept_and_the_first_of_equal_ones() {
        let chosen = |top, least, row: &[f32]| {
            let mut columns = vec![9];
            Keep { top, least }.choose(row, &mut columns);
            columns
        };
        assert_eq!(chosen(Some(2), 0.0, &ROWS[0]), [1, 3]);
        assert_eq!(chosen(Some(2), 0.0, &ROWS[2]), [0, 1]);
        assert_eq!(chosen(Some(9), 0.0, &ROWS[0]), [0, 1, 3]);
        assert_eq!(chosen(None, 1.0, &ROWS[0]), [1, 3]);
        assert_eq!(chosen(Some(1), 2.5, &ROWS[0]), [1]);
        assert!(chosen(None, 9.0, &ROWS[0]).is_empty() && chosen(Some(3), 0.0, &ROWS[1]).is_empty());
        assert_eq!(chosen(None, 1.0, &[f32::NAN, 0.5]), [0], "what is missing stays missing");
    }

    #[test]
    fn an_npz_and_an_h5ad_are_matrices_that_import_reads_and_a_csv_has_a_line_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        for (top, least, wanted) in [
            (Some(1), 0.0, [[0.0, -3.0, 0.0, 0.0], [0.0; 4], [1.0, 0.0, 0.0, 0.0]]),
            (None, 0.2, [ROWS[0], [0.0; 4], [1.0, 1.0, 1.0, 0.0]]),
        ] {
            let (npz, csv, keep) = (dir.path().join("m.npz"), dir.path().join("m.csv"), Keep { top, least });
            for path in [&npz, &csv] {
                let mut out = SparseRowsWriter::create(path, 3, &names(), keep).unwrap();
                ROWS.iter().enumerate().for_each(|(i, row)| out.row(&format!("c{i}"), row).unwrap());
                assert!(out.row("c3", &ROWS[0]).is_err());
                out.commit().unwrap();
            }
            assert_eq!(read_back(&npz), (wanted.map(Vec::from).to_vec(), true));
            let lines = std::fs::read_to_string(&csv).unwrap();
            assert!(
                lines.starts_with(if top.is_some() {
                    "cell,feature,value\nc0,\"b,c\",-3\nc2,a,1\n"
                } else {
                    "cell,feature,value\nc0,a,0.5\n"
                }),
                "{lines}"
            );
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn an_unfinished_matrix_and_an_unknown_ending_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep { top: Some(1), least: 0.0 };
        for name in ["m.npz", "m.csv"] {
            let path = dir.path().join(name);
            assert!(SparseRowsWriter::create(&path, 2, &names(), keep).unwrap().commit().is_err());
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        let e = Format::of(Path::new("m.npy")).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(ENDINGS), "{e}");
    }
}
