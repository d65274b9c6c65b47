//! `.npz`: a zip of arrays. SciPy's sparse matrices (csr, csc, coo) or one dense array; `FILE#KEY` chooses among several.
//!
//! Entries are inflated as they are read, each by its own reader, so nothing is unpacked to memory or disk. SciPy keeps `format`,
//! `shape`, `data` and `indices` + `indptr` (csr, csc) or `row` + `col` (coo) (`scipy/sparse/_matrix_io.py`).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::{Crc, read::DeflateDecoder};
use zip::{CompressionMethod, ZipArchive};

use super::npy::{cells_and_shape, decode_row, stored_as};
use super::text::read_error;
use super::triplets::{Entries, Entry, Triplets, canonical};
use super::{Head, Layout, Opening, Row, Rows, Source, check_promise, finite, no_such_key};
use crate::data::mapped::open_regular;
use crate::data::npy::{self, Dtype, Header, decode_f32, decode_i64};
use crate::error::{Error, Result};

pub(super) fn open(opening: &Opening) -> Result<Source> {
    let file = opening.file;
    let names = array_names(file)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    if has("format") && has("shape") && has("data") && opening.key.is_none() {
        return open_sparse(opening);
    }
    let name = match (opening.key, names.as_slice()) {
        (Some(key), _) if has(key) => key.to_string(),
        (Some(key), _) => return Err(no_such_key(file, key, "array", &names)),
        (None, [one]) => one.clone(),
        (None, []) => return Err(Error::input(file, "", "there are no arrays in it")),
        (None, several) => {
            return Err(Error::input(file, "", format!("it holds several arrays: {}; choose one with FILE#NAME", several.join(", "))));
        }
    };
    let (reader, header) = array(file, &name)?;
    let (cells, shape) = cells_and_shape(&header, file, &name)?;
    if header.fortran && header.shape.iter().filter(|&&d| d > 1).count() > 1 {
        let message = "the array is in Fortran order, which cannot be read from an archive row by row: save it with numpy.save, or numpy.ascontiguousarray first";
        return Err(Error::input(file, name, message));
    }
    let head = Head { cells: Some(cells as u64), shape, layout: stored_as(header.dtype), features: None, cell_ids: None };
    let buffer = Vec::new();
    let width = head.width();
    Ok(Source {
        head,
        rows: Box::new(DenseRows {
            reader,
            header,
            file: file.to_path_buf(),
            name,
            width,
            cells,
            next: 0,
            missing_nan: opening.missing_nan,
            buffer,
        }),
    })
}

fn zip_error(file: &Path, e: zip::result::ZipError) -> Error {
    match e {
        zip::result::ZipError::Io(e) => read_error(file, "", e),
        other => Error::input(file, "", format!("not a readable .npz archive ({other})")),
    }
}

fn archive(file: &Path) -> Result<ZipArchive<BufReader<File>>> {
    ZipArchive::new(BufReader::new(open_regular(file)?)).map_err(|e| zip_error(file, e))
}

/// The arrays of an archive, without `.npy`, in its order.
fn array_names(file: &Path) -> Result<Vec<String>> {
    let archive = archive(file)?;
    let mut names = Vec::new();
    for name in archive.file_names() {
        let name = name.map_err(|e| zip_error(file, e))?;
        names.extend(name.strip_suffix(".npy").map(str::to_string));
    }
    Ok(names)
}

/// Opens one entry as a stream that checks its CRC at the end.
fn entry(file: &Path, name: &str) -> Result<Checked> {
    let mut archive = archive(file)?;
    let entry = archive.by_name(&format!("{name}.npy")).map_err(|e| match e {
        zip::result::ZipError::FileNotFound => Error::input(file, "", format!("the array \"{name}\" is missing")),
        other => zip_error(file, other),
    })?;
    let damaged = || Error::input(file, name, "the archive is damaged: no data found");
    let (start, packed, size, crc, method) =
        (entry.data_start().ok_or_else(damaged)?, entry.compressed_size(), entry.size(), entry.crc32(), entry.compression());
    drop(entry);
    let mut raw = open_regular(file)?;
    raw.seek(SeekFrom::Start(start)).map_err(|e| Error::io("read", file, e))?;
    let raw = BufReader::with_capacity(1 << 16, raw.take(packed));
    let reader: Box<dyn Read> = match method {
        CompressionMethod::Stored => Box::new(raw),
        CompressionMethod::Deflated => Box::new(BufReader::with_capacity(1 << 16, DeflateDecoder::new(raw))),
        other => return Err(Error::input(file, name, format!("compressed by {other}: numpy.savez and savez_compressed are read"))),
    };
    Ok(Checked { reader, crc: Crc::new(), left: size, wanted: crc })
}

/// Opens one entry and reads its array header.
fn array(file: &Path, name: &str) -> Result<(Checked, Header)> {
    let mut reader = entry(file, name)?;
    let header = npy::read_header(&mut reader, file, name)?;
    if reader.left != header.body_len {
        let message = format!("the array of shape {:?} needs {} bytes, {} are there", header.shape, header.body_len, reader.left);
        return Err(Error::input(file, name, message));
    }
    Ok((reader, header))
}

/// An entry's bytes; reading the last one compares the checksum.
struct Checked {
    reader: Box<dyn Read>,
    crc: Crc,
    left: u64,
    wanted: u32,
}

impl Read for Checked {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.reader.read(&mut bytes[..most])?;
        self.crc.update(&bytes[..n]);
        self.left -= n as u64;
        if n > 0 && self.left == 0 && self.crc.sum() != self.wanted {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum does not match"));
        }
        Ok(n)
    }
}

struct DenseRows {
    reader: Checked,
    header: Header,
    file: PathBuf,
    name: String,
    width: usize,
    cells: usize,
    next: usize,
    missing_nan: bool,
    buffer: Vec<u8>,
}

impl Rows for DenseRows {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let h = &self.header;
        // As much memory as there are bytes, not as much as the header wants.
        let wanted = self.width * h.dtype.size();
        self.buffer.clear();
        let read = (&mut self.reader).take(wanted as u64).read_to_end(&mut self.buffer);
        let whole = read.and_then(|n| if n == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) });
        whole.map_err(|e| read_error(&self.file, &self.name, e))?;
        decode_row(h.dtype, h.big_endian, &self.buffer, self.missing_nan, &self.file, &self.name, self.next, row)?;
        self.next += 1;
        Ok(true)
    }
}

/// One-dimensional arrays of an archive, read a chunk at a time.
struct Column {
    reader: Checked,
    dtype: Dtype,
    big_endian: bool,
    file: PathBuf,
    name: &'static str,
    length: u64,
    taken: u64,
    bytes: Vec<u8>,
    integers: Vec<i64>,
    floats: Vec<f32>,
    at: usize,
}

const CHUNK: usize = 1 << 14;

impl Column {
    fn open(file: &Path, name: &'static str) -> Result<Column> {
        let (reader, h) = array(file, name)?;
        let &[length] = h.shape.as_slice() else {
            return Err(Error::input(file, name, format!("one axis is wanted, the shape is {:?}", h.shape)));
        };
        let (bytes, integers, floats) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Column {
            reader,
            dtype: h.dtype,
            big_endian: h.big_endian,
            file: file.to_path_buf(),
            name,
            length: length as u64,
            taken: 0,
            bytes,
            integers,
            floats,
            at: 0,
        })
    }

    fn chunk(&mut self) -> Result<()> {
        let n = (self.length - self.taken).min(CHUNK as u64) as usize;
        self.bytes.resize(n * self.dtype.size(), 0);
        self.reader.read_exact(&mut self.bytes).map_err(|e| read_error(&self.file, self.name, e))?;
        self.at = 0;
        Ok(())
    }

    /// The next integer, none at the end.
    fn integer(&mut self) -> Result<Option<i64>> {
        if self.taken == self.length {
            return Ok(None);
        }
        if self.at == self.integers.len() {
            self.chunk()?;
            self.integers.clear();
            if !decode_i64(self.dtype, self.big_endian, &self.bytes, &mut self.integers) {
                return Err(Error::input(&self.file, self.name, format!("integers are wanted, the elements are {}", self.dtype.name())));
            }
        }
        self.at += 1;
        self.taken += 1;
        Ok(self.integers.get(self.at - 1).copied())
    }

    /// The next value, finite or missing; none at the end.
    fn float(&mut self, missing_nan: bool) -> Result<Option<f32>> {
        if self.taken == self.length {
            return Ok(None);
        }
        if self.at == self.floats.len() {
            self.chunk()?;
            self.floats.clear();
            decode_f32(self.dtype, self.big_endian, &self.bytes, &mut self.floats).map_err(|i| {
                let place = format!("{}, element {}", self.name, self.taken + i as u64);
                Error::input(&self.file, place, "the value is too large for a 32-bit float")
            })?;
        }
        let (name, element) = (self.name, self.taken);
        let value = finite(self.floats[self.at], missing_nan, &self.file, || format!("{name}, element {element}"))?;
        self.at += 1;
        self.taken += 1;
        Ok(Some(value))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Csr,
    Csc,
    Coo,
}

fn open_sparse(opening: &Opening) -> Result<Source> {
    let file = opening.file;
    let form = form(file)?;
    let mut shape = Column::open(file, "shape")?;
    let (rows, columns) = match (shape.length, shape.integer()?, shape.integer()?) {
        (2, Some(r), Some(c)) if (0..=i32::MAX as i64).contains(&r) && (0..=i32::MAX as i64).contains(&c) => (r as usize, c as usize),
        _ => return Err(Error::input(file, "shape", "two sizes (cells, features) below 2147483648 are wanted")),
    };
    check_promise(file, rows as u64, columns as u64)?;
    let head = Head { cells: Some(rows as u64), shape: vec![columns], layout: Layout::Sparse, features: None, cell_ids: None };
    let (path, missing_nan) = (file.to_path_buf(), opening.missing_nan);
    let rows: Box<dyn Rows> = if form == Form::Csr {
        Box::new(CsrRows { compressed: Compressed::open(file, rows, columns)?, missing_nan, pairs: Vec::new() })
    } else {
        let entries = Column::open(file, "data")?.length;
        let reopen = Box::new(move || -> Result<Box<dyn Entries>> {
            Ok(match form {
                Form::Coo => Box::new(CooEntries::open(&path, rows, columns, missing_nan)?),
                _ => Box::new(CscEntries { compressed: Compressed::open(&path, columns, rows)?, left: 0, column: 0, missing_nan }),
            })
        });
        Box::new(Triplets::new(reopen, rows, entries, opening.scratch.to_path_buf()))
    };
    Ok(Source { head, rows })
}

/// SciPy's `format` entry: a scalar of bytes (or, from old versions, of UCS-4).
fn form(file: &Path) -> Result<Form> {
    let mut reader = entry(file, "format")?;
    npy::read_raw_header(&mut reader, file, "format")?;
    let mut bytes = Vec::new();
    (&mut reader).take(64).read_to_end(&mut bytes).map_err(|e| read_error(file, "format", e))?;
    let word: String = bytes.iter().filter(|&&b| b != 0).map(|&b| b as char).collect();
    match word.as_str() {
        "csr" => Ok(Form::Csr),
        "csc" => Ok(Form::Csc),
        "coo" => Ok(Form::Coo),
        other => Err(Error::input(file, "format", format!("the sparse format \"{other}\" is not read: save it as csr, csc or coo"))),
    }
}

/// Column `major` by column (csc) or row by row (csr): three arrays read side by side.
struct Compressed {
    file: PathBuf,
    indptr: Column,
    indices: Column,
    data: Column,
    major: usize,
    minor: usize,
    next: usize,
    reached: i64,
}

impl Compressed {
    fn open(file: &Path, major: usize, minor: usize) -> Result<Compressed> {
        let (mut indptr, indices, data) = (Column::open(file, "indptr")?, Column::open(file, "indices")?, Column::open(file, "data")?);
        if indptr.length != major as u64 + 1 || indices.length != data.length {
            let message = format!(
                "{} indptr, {} indices and {} values do not make a matrix of {major} rows",
                indptr.length, indices.length, data.length
            );
            return Err(Error::input(file, "", message));
        }
        let first = indptr.integer()?;
        if first != Some(0) {
            return Err(Error::input(file, "indptr, element 0", format!("it is {}, 0 is wanted", first.unwrap_or(-1))));
        }
        Ok(Compressed { file: file.to_path_buf(), indptr, indices, data, major, minor, next: 0, reached: 0 })
    }

    /// How many elements the next row (or column) has; none after the last.
    fn count(&mut self) -> Result<Option<u64>> {
        if self.next == self.major {
            return Ok(None);
        }
        self.next += 1;
        let end = self.indptr.integer()?.unwrap_or(-1);
        let total = self.data.length as i64;
        if end < self.reached || end > total || (self.next == self.major && end != total) {
            let wanted = if self.next == self.major { format!("{total}") } else { format!("{} to {total}", self.reached) };
            return Err(Error::input(
                &self.file,
                format!("indptr, element {}", self.next),
                format!("it is {end}, {wanted} is wanted: the file is damaged"),
            ));
        }
        let n = end - self.reached;
        self.reached = end;
        Ok(Some(n as u64))
    }

    fn element(&mut self, missing_nan: bool) -> Result<(u32, f32)> {
        let at = self.indices.taken;
        let index = inside(&self.file, "indices", at, self.indices.integer()?, self.minor)?;
        Ok((index, self.data.float(missing_nan)?.unwrap_or(f32::NAN)))
    }
}

fn inside(file: &Path, name: &str, at: u64, index: Option<i64>, size: usize) -> Result<u32> {
    match index {
        Some(i) if i >= 0 && (i as u64) < size as u64 => Ok(i as u32),
        other => {
            Err(Error::input(file, format!("{name}, element {at}"), format!("the index {} lies outside 0..{size}", other.unwrap_or(-1))))
        }
    }
}

struct CsrRows {
    compressed: Compressed,
    missing_nan: bool,
    pairs: Vec<(u32, f32)>,
}

impl Rows for CsrRows {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        let Some(n) = self.compressed.count()? else { return Ok(false) };
        self.pairs.clear();
        for _ in 0..n {
            self.pairs.push(self.compressed.element(self.missing_nan)?);
        }
        canonical(&mut self.pairs, row);
        Ok(true)
    }
}

struct CscEntries {
    compressed: Compressed,
    left: u64,
    column: u32,
    missing_nan: bool,
}

impl Entries for CscEntries {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        while self.left == 0 {
            match self.compressed.count()? {
                None => return Ok(None),
                Some(n) => (self.left, self.column) = (n, self.compressed.next as u32 - 1),
            }
        }
        self.left -= 1;
        let (cell, value) = self.compressed.element(self.missing_nan)?;
        Ok(Some(Entry { cell, feature: self.column, value }))
    }
}

struct CooEntries {
    file: PathBuf,
    row: Column,
    col: Column,
    data: Column,
    rows: usize,
    columns: usize,
    missing_nan: bool,
}

impl CooEntries {
    fn open(file: &Path, rows: usize, columns: usize, missing_nan: bool) -> Result<CooEntries> {
        let (row, col, data) = (Column::open(file, "row")?, Column::open(file, "col")?, Column::open(file, "data")?);
        if row.length != data.length || col.length != data.length {
            return Err(Error::input(
                file,
                "",
                format!("{} rows, {} columns and {} values do not belong together", row.length, col.length, data.length),
            ));
        }
        Ok(CooEntries { file: file.to_path_buf(), row, col, data, rows, columns, missing_nan })
    }
}

impl Entries for CooEntries {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        let at = self.data.taken;
        let Some(value) = self.data.float(self.missing_nan)? else { return Ok(None) };
        let cell = inside(&self.file, "row", at, self.row.integer()?, self.rows)?;
        let feature = inside(&self.file, "col", at, self.col.integer()?, self.columns)?;
        Ok(Some(Entry { cell, feature, value }))
    }
}
