//! `.npy` as a modality: 2-D is cells x features, 4-D is images, cells x channels x height x width.
//!
//! The file is mapped, so Fortran order costs no second copy: rows are gathered a block at a time.
//! u8, u16 and bool stay bytes in the dataset, everything else becomes f32.

use std::path::Path;

use super::{Head, Layout, Opening, Row, Rows, Source, finite};
use crate::data::in_place::Place;
use crate::data::mapped::MappedArray;
use crate::data::npy::{Dtype, Header, decode_f32};
use crate::error::{Error, Result};

pub(super) fn open(opening: &Opening) -> Result<Source> {
    let file = opening.file;
    if let Some(key) = opening.key {
        return Err(Error::input(file, "", format!("an .npy file holds one array, so \"#{key}\" names nothing in it: leave it away")));
    }
    let array = MappedArray::open(file)?;
    let (cells, shape) = cells_and_shape(array.header(), file, "")?;
    let head = Head { cells: Some(cells as u64), shape, layout: stored_as(array.header().dtype), features: None, cell_ids: None };
    // Fortran order touches a page a feature: a block of rows is gathered at once, about 8 MiB of it.
    let block = (1 << 21) / head.width().max(1);
    let fortran_columns = if array.header().fortran { fortran_columns(&head.shape) } else { Vec::new() };
    let (missing_nan, width) = (opening.missing_nan, head.width());
    let rows = NpyRows { array, cells, width, next: 0, missing_nan, block: block.max(1), fortran_columns, gathered: Vec::new() };
    Ok(Source { head, rows: Box::new(rows) })
}

/// Splits the axes into cells and the shape of one, whose features must be countable in an int32.
pub(super) fn cells_and_shape(header: &Header, file: &Path, place: &str) -> Result<(usize, Vec<usize>)> {
    let axes = header.shape.as_slice();
    let (cells, shape) = match *axes {
        [cells, features] => (cells, vec![features]),
        [cells, channels, height, width] => (cells, vec![channels, height, width]),
        _ => {
            let wanted = "two (cells x features) or four (cells x channels x height x width) are wanted";
            return Err(Error::input(file, place, format!("the array has {} axes {axes:?}: {wanted}", axes.len())));
        }
    };
    if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_none_or(|n| n > i32::MAX as usize) {
        return Err(Error::input(file, place, format!("a cell of shape {shape:?} is too large: at most 2147483647 features are read")));
    }
    Ok((cells, shape))
}

/// The type in which values are kept.
pub(super) fn stored_as(dtype: Dtype) -> Layout {
    Layout::Dense(kept_as(dtype))
}

pub(super) fn kept_as(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::U8 | Dtype::Bool => Dtype::U8,
        Dtype::U16 => Dtype::U16,
        _ => Dtype::F32,
    }
}

struct NpyRows {
    array: MappedArray,
    cells: usize,
    width: usize,
    next: usize,
    missing_nan: bool,
    block: usize,
    fortran_columns: Vec<usize>,
    /// Rows of the current block in C order, for Fortran files.
    gathered: Vec<u8>,
}

impl NpyRows {
    /// Copies rows `first..` of a Fortran-order array (first axis fastest: a column of cells for each feature) into C order.
    fn gather(&mut self, first: usize) {
        let (size, rows) = (self.array.header().dtype.size(), self.block.min(self.cells - first));
        self.gathered.resize(rows * self.width * size, 0);
        let body = self.array.bytes();
        for (column, &stored) in self.fortran_columns.iter().enumerate() {
            let from = (stored * self.cells + first) * size;
            for row in 0..rows {
                let to = (row * self.width + column) * size;
                self.gathered[to..to + size].copy_from_slice(&body[from + row * size..from + (row + 1) * size]);
            }
        }
    }
}

/// For each feature in C order of a cell's axes, its place in Fortran order.
fn fortran_columns(shape: &[usize]) -> Vec<usize> {
    let place = |feature: usize| {
        let mut rest = feature;
        let digits: Vec<usize> = shape.iter().rev().map(|&d| (rest % d, rest /= d).0).collect();
        let mut stride = 1;
        shape.iter().zip(digits.iter().rev()).map(|(&d, &digit)| (digit * stride, stride *= d).0).sum()
    };
    (0..shape.iter().product()).map(place).collect()
}

impl Rows for NpyRows {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let number = self.next;
        let header = self.array.header();
        let (dtype, big_endian) = (header.dtype, header.big_endian);
        let bytes = self.width * dtype.size();
        let body = if header.fortran {
            if number.is_multiple_of(self.block) {
                self.gather(number);
            }
            let at = number % self.block * bytes;
            &self.gathered[at..at + bytes]
        } else {
            &self.array.bytes()[number * bytes..(number + 1) * bytes]
        };
        decode_row(dtype, big_endian, body, self.missing_nan, self.array.file(), "", number, row)?;
        self.next += 1;
        Ok(true)
    }

    fn in_place(&self) -> Result<Place, &'static str> {
        let header = self.array.header();
        mappable(header.dtype, header.big_endian)?;
        if header.fortran && header.shape.iter().filter(|&&d| d > 1).count() > 1 {
            return Err("its array is in Fortran order");
        }
        Ok(Place { file: self.array.file().to_path_buf(), offset: header.body, dtype: kept_as(header.dtype) })
    }
}

/// Whether elements are kept as they are.
pub(super) fn mappable(dtype: Dtype, big_endian: bool) -> Result<(), &'static str> {
    match dtype {
        _ if big_endian && dtype.size() > 1 => Err("its numbers are big-endian"),
        Dtype::F32 | Dtype::U8 | Dtype::U16 | Dtype::Bool => Ok(()),
        _ => Err("its numbers are none of f32, u8, u16"),
    }
}

/// Decodes one dense row and applies the rule for values that are not finite.
#[allow(clippy::too_many_arguments, reason = "a row's bytes, how to read them, and where they stand for the message")]
pub(super) fn decode_row(
    dtype: Dtype,
    big_endian: bool,
    bytes: &[u8],
    missing_nan: bool,
    file: &Path,
    entry: &str,
    number: usize,
    row: &mut Row,
) -> Result<()> {
    let place = |column: usize| {
        let entry = if entry.is_empty() { String::new() } else { format!("{entry}, ") };
        format!("{entry}row {number}, column {column}")
    };
    row.id = None;
    row.indices.clear();
    row.values.clear();
    decode_f32(dtype, big_endian, bytes, &mut row.values)
        .map_err(|column| Error::input(file, place(column), "the value is too large for a 32-bit float"))?;
    for (column, value) in row.values.iter_mut().enumerate() {
        if !value.is_finite() {
            *value = finite(*value, missing_nan, file, || place(column))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(dir: &Path, dictionary: &str, body: &[u8]) -> PathBuf {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
        bytes.extend_from_slice(dictionary.as_bytes());
        bytes.extend_from_slice(body);
        let path = dir.join("a.npy");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn read(path: &Path, missing_nan: bool) -> Result<(Head, Vec<Vec<f32>>)> {
        let mut source = super::super::open(&Opening { file: path, key: None, rows: None, missing_nan, scratch: path })?;
        let (mut rows, mut row) = (Vec::new(), Row::default());
        while source.rows.next_row(&mut row)? {
            rows.push(row.values.clone());
        }
        Ok((source.head, rows))
    }

    #[test]
    fn fortran_order_and_big_endian_give_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let c: Vec<u8> = [1i16, 2, 3, 4, 5, 6].iter().flat_map(|x| x.to_le_bytes()).collect();
        let f: Vec<u8> = [1i16, 4, 2, 5, 3, 6].iter().flat_map(|x| x.to_be_bytes()).collect();
        let wanted = vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]];
        let path = file(dir.path(), "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3)}", &c);
        assert_eq!(read(&path, false).unwrap().1, wanted);
        let path = file(dir.path(), "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3)}", &f);
        assert_eq!(read(&path, false).unwrap().1, wanted);
    }

    #[test]
    fn fortran_images_unfold_in_c_order() {
        let dir = tempfile::tempdir().unwrap();
        // element [n, c, h, w] = 100 n + 10 h + w, one channel, 2 x 3 pixels
        let (mut body, mut wanted) = (Vec::new(), vec![Vec::new(); 2]);
        for w in 0..3u8 {
            for h in 0..2u8 {
                for n in 0..2u8 {
                    body.push(100 * n + 10 * h + w);
                }
            }
        }
        for (n, image) in wanted.iter_mut().enumerate() {
            for h in 0..2 {
                for w in 0..3 {
                    image.push((100 * n + 10 * h + w) as f32);
                }
            }
        }
        let path = file(dir.path(), "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 1, 2, 3)}", &body);
        let (head, rows) = read(&path, false).unwrap();
        assert_eq!(rows, wanted);
        assert_eq!((head.shape.as_slice(), head.layout), (&[1, 2, 3][..], Layout::Dense(Dtype::U8)));
    }

    #[test]
    fn nan_and_wrong_shapes_are_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let nan: Vec<u8> = [1f64, f64::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        let path = file(dir.path(), "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2)}", &nan);
        assert!(read(&path, false).unwrap_err().to_string().contains("row 0, column 1: the value is nan"));
        assert!(read(&path, true).unwrap().1[0][1].is_nan());
        let path = file(dir.path(), "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", &nan);
        assert!(read(&path, false).unwrap_err().to_string().contains("1 axes"));
        let huge = "{'descr': '<f8', 'fortran_order': True, 'shape': (0, 4611686018427387904, 16, 1)}";
        assert!(read(&file(dir.path(), huge, &[]), false).unwrap_err().to_string().contains("too large"));
        let path = file(dir.path(), "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 5)}", &[]);
        assert!(read(&path, false).unwrap_err().to_string().contains("no cells"));
        let path = file(dir.path(), "{'descr': '<f8', 'fortran_order': False, 'shape': (5, 0)}", &[]);
        assert!(read(&path, false).unwrap_err().to_string().contains("no features"));
    }
}
