//! Matrices of HDF5 files: dense arrays, and compressed rows (CSR) or columns (CSC), as rows of cells.
//!
//!   dense   [cells, features], read by windows of rows
//!   CSR     `indptr` [cells + 1], `indices` and `data` [non-zeros], read front to back; what 10x writes is the same
//!   CSC     `indptr` [features + 1]: entries in the order of features, sorted into rows on disk (see [`Triplets`])
//!   limits  `indptr` is in memory, 8 bytes a row; indices may be in any order and may repeat (then values add up, as in SciPy)

use std::path::PathBuf;
use std::sync::Arc;

use super::super::npy::{decode_row, kept_as, mappable, stored_as};
use super::super::triplets::{Entries, Entry, Triplets, canonical};
use super::super::{Layout, Opening, Row, Rows};
use super::array::Array;
use super::file::H5;
use super::stream::{Indices, Values};
use crate::data::hooks::Hooks;
use crate::data::in_place::Place;
use crate::data::npy::Dtype;
use crate::error::Result;

/// Entries of a CSC matrix that are sorted at once: 64 million, 512 MiB.
const BUDGET: u64 = 1 << 26;
/// So often the entries of one are read before it is quicker to write them to files, in the order in which they are needed.
const REREADS: usize = 4;

/// A matrix whose shape is known and checked.
pub(super) struct Matrix {
    pub cells: usize,
    pub features: usize,
    stored: Stored,
}

enum Stored {
    Dense(Box<Array>),
    /// Which of the axes is compressed: the rows (CSR) or the columns.
    Sparse {
        path: String,
        by_cells: bool,
    },
}

/// How the rows are to be read.
pub(super) struct Reading<'a> {
    pub h5: Arc<H5>,
    pub opening: &'a Opening<'a>,
    /// Where each feature goes, -1 where it is left out; none: all stay.
    pub keep: Option<Vec<i32>>,
}

impl Matrix {
    /// Opens an array, or a group with `indptr`, `indices` and `data`.
    pub fn open(h5: &H5, path: &str) -> Result<Matrix> {
        if h5.is_array(path)? {
            let array = h5.array(path)?;
            let &[cells, features] = array.shape() else {
                return Err(array.bad(format!("two axes (cells x features) are wanted, the shape is {:?}", array.shape())));
            };
            array.number()?;
            let (cells, features) = sizes(h5, path, cells, features)?;
            return Ok(Matrix { cells, features, stored: Stored::Dense(Box::new(array)) });
        }
        let kind = match h5.text(path, "encoding-type")? {
            Some(kind) => kind,
            None => h5.text(path, "h5sparse_format")?.unwrap_or_default(),
        };
        let by_cells = match kind.trim_end_matches("_matrix") {
            "csr" => true,
            "csc" => false,
            _ => return Err(h5.bad(path, format!("a dense, CSR or CSC matrix is wanted, it is called \"{kind}\""))),
        };
        let shape = match h5.numbers(path, "shape")? {
            Some(shape) => Some(shape),
            None => h5.numbers(path, "h5sparse_shape")?,
        };
        let Some(&[cells, features]) = shape.as_deref() else {
            return Err(h5.bad(path, "its attribute \"shape\" is not two numbers: the file is damaged"));
        };
        let size = |n: i64| u64::try_from(n).map_err(|_| h5.bad(path, format!("its shape has the negative size {n}: the file is damaged")));
        let (cells, features) = sizes(h5, path, size(cells)?, size(features)?)?;
        Ok(Matrix { cells, features, stored: Stored::Sparse { path: path.to_string(), by_cells } })
    }

    /// What 10x writes: a group of columns that are cells.
    pub fn of_10x(h5: &H5, path: &str, cells: u64, features: u64) -> Result<Matrix> {
        let (cells, features) = sizes(h5, path, cells, features)?;
        Ok(Matrix { cells, features, stored: Stored::Sparse { path: path.to_string(), by_cells: true } })
    }

    pub fn layout(&self) -> Result<Layout> {
        match &self.stored {
            Stored::Dense(array) => Ok(stored_as(array.number()?.0)),
            Stored::Sparse { .. } => Ok(Layout::Sparse),
        }
    }

    /// The rows, from the first.
    pub fn rows(self, reading: Reading) -> Result<Box<dyn Rows>> {
        let Reading { h5, opening, keep } = reading;
        let (cells, features, missing_nan) = (self.cells, self.features, opening.missing_nan);
        match self.stored {
            Stored::Dense(array) => {
                let (dtype, big_endian) = array.number()?;
                let file = h5.path().to_path_buf();
                Ok(Box::new(DenseRows {
                    array: *array,
                    file,
                    dtype,
                    big_endian,
                    cells,
                    missing_nan,
                    next: 0,
                    window: Vec::new(),
                    first: 0,
                }))
            }
            Stored::Sparse { path, by_cells } => {
                let major = if by_cells { cells } else { features };
                let indptr = Arc::new(pointers(&h5, &path, major)?);
                let open = move |h5: &H5| Compressed::open(h5, &path, indptr.clone(), if by_cells { features } else { cells }, missing_nan);
                let rows = open(&h5)?;
                if by_cells {
                    return Ok(Box::new(CsrRows { rows, keep, next: 0, cells, pairs: Vec::new() }));
                }
                let stored = rows.stored();
                let reopen = Box::new(move || Ok(Box::new(Columns { columns: open(&h5)?, column: 0 }) as Box<dyn Entries>));
                let triplets = Triplets::new(reopen, cells, stored, opening.scratch.to_path_buf()).reading_again(REREADS, BUDGET);
                Ok(Box::new(CscRows { triplets, columns: rows, cells }))
            }
        }
    }
}

fn sizes(h5: &H5, path: &str, cells: u64, features: u64) -> Result<(usize, usize)> {
    if cells.max(features) > i32::MAX as u64 {
        return Err(h5.bad(path, format!("{cells} x {features} is too large: at most 2147483647 cells and features are read")));
    }
    Ok((cells as usize, features as usize))
}

/// `indptr`, checked: from 0, never falling, to the number of stored values.
fn pointers(h5: &H5, path: &str, major: usize) -> Result<Vec<u64>> {
    let array = h5.array(&format!("{path}/indptr"))?;
    let pointers = array.integers()?;
    if pointers.len() != major + 1 {
        return Err(
            array.bad(format!("it has {} elements for {major} rows or columns, one more is wanted: the file is damaged", pointers.len()))
        );
    }
    let stored = h5.array(&format!("{path}/data"))?.length()?;
    let indices = h5.array(&format!("{path}/indices"))?.length()?;
    if indices != stored {
        return Err(h5.bad(path, format!("there are {indices} indices and {stored} values: the file is damaged")));
    }
    let mut last = 0;
    for (at, &p) in pointers.iter().enumerate() {
        let right = if at == 0 { p == 0 } else { p >= last && p as u64 <= stored };
        if !right || (at == major && p as u64 != stored) {
            let message = format!("element {at} is {p}: pointers begin at 0, never fall and end at {stored}, so the file is damaged");
            return Err(array.bad(message));
        }
        last = p;
    }
    Ok(pointers.into_iter().map(|p| p as u64).collect())
}

struct DenseRows {
    array: Array,
    file: PathBuf,
    dtype: Dtype,
    big_endian: bool,
    cells: usize,
    missing_nan: bool,
    next: usize,
    window: Vec<u8>,
    /// The row with which the window begins.
    first: usize,
}

impl Rows for DenseRows {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let bytes = self.array.shape()[1] as usize * self.dtype.size();
        if (self.next - self.first) * bytes >= self.window.len() {
            let count = self.array.window().min((self.cells - self.next) as u64);
            self.window = self.array.rows(self.next as u64, count)?;
            self.first = self.next;
        }
        let at = (self.next - self.first) * bytes;
        let body = &self.window[at..at + bytes];
        decode_row(self.dtype, self.big_endian, body, self.missing_nan, &self.file, self.array.name(), self.next, row)?;
        self.next += 1;
        Ok(true)
    }

    fn place(&self, row: usize) -> String {
        format!("row {row} of obs")
    }

    fn in_place(&self) -> Result<Place, &'static str> {
        mappable(self.dtype, self.big_endian)?;
        let offset = self.array.contiguous().ok_or("its array is compressed or in chunks")?;
        Ok(Place { file: self.file.clone(), offset, dtype: kept_as(self.dtype) })
    }
}

/// The three arrays of a sparse matrix, read along the compressed axis.
struct Compressed {
    indptr: Arc<Vec<u64>>,
    indices: Indices,
    values: Values,
}

impl Compressed {
    fn open(h5: &H5, path: &str, indptr: Arc<Vec<u64>>, minor: usize, missing_nan: bool) -> Result<Compressed> {
        let indices = Indices::new(h5.array(&format!("{path}/indices"))?, minor)?;
        let values = Values::new(h5.array(&format!("{path}/data"))?, h5.path(), missing_nan)?;
        Ok(Compressed { indptr, indices, values })
    }

    fn stored(&self) -> u64 {
        self.indptr.last().copied().unwrap_or(0)
    }

    /// Appends the next `n` entries.
    fn take(&mut self, n: u64, indices: &mut Vec<i32>, values: &mut Vec<f32>) -> Result<()> {
        self.indices.take(n, indices)?;
        self.values.take(n, values)
    }
}

struct CsrRows {
    rows: Compressed,
    keep: Option<Vec<i32>>,
    next: usize,
    cells: usize,
    pairs: Vec<(u32, f32)>,
}

impl Rows for CsrRows {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let n = self.rows.indptr[self.next + 1] - self.rows.indptr[self.next];
        self.next += 1;
        row.id = None;
        row.indices.clear();
        row.values.clear();
        self.rows.take(n, &mut row.indices, &mut row.values)?;
        if let Some(keep) = &self.keep {
            let entries = row.indices.iter().zip(&row.values).filter_map(|(&i, &v)| Some((u32::try_from(keep[i as usize]).ok()?, v)));
            self.pairs.clear();
            self.pairs.extend(entries);
        } else if row.indices.is_sorted_by(|a, b| a < b) && row.values.iter().all(|&v| v != 0.0) {
            return Ok(true);
        } else {
            self.pairs.clear();
            self.pairs.extend(row.indices.iter().zip(&row.values).map(|(&i, &v)| (i as u32, v)));
        }
        canonical(&mut self.pairs, row);
        Ok(true)
    }

    fn in_place(&self) -> Result<Place, &'static str> {
        Err("its matrix is sparse")
    }

    fn place(&self, row: usize) -> String {
        place_of_cell(row)
    }
}

fn place_of_cell(row: usize) -> String {
    format!("row {row} of the cells' names")
}

/// The entries of compressed columns; `column` is the one that the next entry is in, or a later one.
struct Columns {
    columns: Compressed,
    column: usize,
}

impl Entries for Columns {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        let at = self.columns.values.position();
        if at == self.columns.stored() {
            return Ok(None);
        }
        while self.columns.indptr[self.column + 1] <= at {
            self.column += 1;
        }
        let (cell, value) = (self.columns.indices.one()?, self.columns.values.one()?);
        Ok(Some(Entry { cell: cell as u32, feature: self.column as u32, value }))
    }
}

struct CscRows {
    triplets: Triplets,
    columns: Compressed,
    cells: usize,
}

impl Rows for CscRows {
    fn prepare(&mut self, stage: &str, hooks: &mut Hooks) -> Result<()> {
        let mut counts = vec![0; self.cells];
        let counting = format!("{stage}: counting");
        let total = self.columns.stored();
        self.columns.indices.count(&mut counts, &mut |done| hooks.tick(&counting, done, Some(total)))?;
        self.triplets.counted(counts);
        self.triplets.prepare(stage, hooks)
    }

    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        self.triplets.next_row(row)
    }

    fn in_place(&self) -> Result<Place, &'static str> {
        Err("its matrix is sparse")
    }

    fn place(&self, row: usize) -> String {
        place_of_cell(row)
    }
}
