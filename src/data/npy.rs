//! NumPy's `.npy`: a header of one Python dictionary, then the array.
//!
//!   file    `\x93NUMPY`, version, header length (u16 in version 1, u32 in 2 and 3), dictionary padded with blanks, body
//!   read    versions 1 to 3, any alignment of the body, either byte order, C and Fortran order; every element becomes an f32 or i64
//!   write   version 1, little-endian, C order, body at a multiple of 64 bytes, the number of rows patched in at the end
//!   source  NumPy Enhancement Proposal 1 and `numpy/lib/format.py` (for the limits: three keys, exactly)

use std::io::Read;
use std::path::Path;

use flate2::Crc;

use super::atomic::AtomicFile;
use crate::error::{Error, Result};

/// The element types that are read; [`Dtype::F32`], [`Dtype::U8`], [`Dtype::U16`], [`Dtype::I32`] and [`Dtype::I64`] are also written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// 8-bit integer.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// 16-bit float.
    F16,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

/// Type, NumPy's letters after the byte-order mark, our name, bytes.
const DTYPES: [(Dtype, &str, &str, usize); 12] = [
    (Dtype::Bool, "b1", "bool", 1),
    (Dtype::I8, "i1", "i8", 1),
    (Dtype::I16, "i2", "i16", 2),
    (Dtype::I32, "i4", "i32", 4),
    (Dtype::I64, "i8", "i64", 8),
    (Dtype::U8, "u1", "u8", 1),
    (Dtype::U16, "u2", "u16", 2),
    (Dtype::U32, "u4", "u32", 4),
    (Dtype::U64, "u8", "u64", 8),
    (Dtype::F16, "f2", "f16", 2),
    (Dtype::F32, "f4", "f32", 4),
    (Dtype::F64, "f8", "f64", 8),
];

impl Dtype {
    fn row(self) -> &'static (Dtype, &'static str, &'static str, usize) {
        DTYPES.iter().find(|row| row.0 == self).unwrap_or(&DTYPES[0])
    }

    /// Bytes an element.
    pub fn size(self) -> usize {
        self.row().3
    }

    /// The name in `dataset.json` and in messages: `f32`, `u8`, ...
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        DTYPES.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    fn descr(self) -> String {
        let (_, letters, _, size) = *self.row();
        format!("{}{letters}", if size == 1 { '|' } else { '<' })
    }
}

/// A header as written in the file, before anybody asks what the element type means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawHeader {
    /// NumPy's type string, `<f4`; a structured type is given as its text.
    pub descr: String,
    /// The first axis varies fastest.
    pub fortran: bool,
    /// Length of each axis; none for a scalar.
    pub shape: Vec<usize>,
    /// Where the body begins.
    pub body: u64,
}

/// A header of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub dtype: Dtype,
    /// Whether elements lie most significant byte first.
    pub big_endian: bool,
    /// The first axis varies fastest.
    pub fortran: bool,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Where the body begins.
    pub body: u64,
    /// Bytes of the body, checked not to overflow.
    pub body_len: u64,
}

/// More than any header of numbers needs; NumPy itself distrusts headers above 10,000 bytes.
const LONGEST_HEADER: usize = 1 << 16;

/// Reads the header at the beginning of `reader` and leaves the reader at the body. `place` names an entry of an archive, or is empty.
pub fn read_raw_header(reader: &mut impl Read, file: &Path, place: &str) -> Result<RawHeader> {
    let bad = |message: String| Error::input(file, place, message);
    let mut take = |bytes: &mut [u8]| {
        reader.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => bad("the file ends inside the .npy header".into()),
            _ => Error::io("read", file, e),
        })
    };
    let mut start = [0u8; 8];
    take(&mut start)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(bad("not a .npy array (its first bytes are not \\x93NUMPY)".into()));
    }
    let (length, before) = match start[6] {
        1 => {
            let mut n = [0u8; 2];
            take(&mut n)?;
            (u16::from_le_bytes(n) as usize, 10)
        }
        2 | 3 => {
            let mut n = [0u8; 4];
            take(&mut n)?;
            (u32::from_le_bytes(n) as usize, 12)
        }
        other => return Err(bad(format!(".npy format version {other} is unknown, versions 1 to 3 are read"))),
    };
    if length > LONGEST_HEADER {
        return Err(bad(format!("the .npy header claims {length} bytes: the file is damaged")));
    }
    let mut text = vec![0u8; length];
    take(&mut text)?;
    let text = std::str::from_utf8(&text).map_err(|_| bad("the .npy header is not text: the file is damaged".into()))?;
    let mut header = Parser { text, at: 0 }.header().map_err(|m| bad(format!("the .npy header is damaged: {m}")))?;
    header.body = before + length as u64;
    Ok(header)
}

/// Reads a header and refuses element types that are not numbers.
pub fn read_header(reader: &mut impl Read, file: &Path, place: &str) -> Result<Header> {
    let raw = read_raw_header(reader, file, place)?;
    let known = raw.descr.get(1..).and_then(|letters| DTYPES.iter().find(|row| row.1 == letters));
    let (dtype, big_endian) = match (known, raw.descr.as_bytes().first()) {
        (Some(row), Some(b'<' | b'|' | b'=')) => (row.0, false),
        (Some(row), Some(b'>')) => (row.0, row.3 > 1),
        _ => {
            let what = if raw.descr.contains('O') { " (Python objects)" } else { "" };
            return Err(Error::input(
                file,
                place,
                format!(
                    "the elements are of type {}{what}, wanted are floats, integers or booleans: convert with NumPy's astype",
                    raw.descr
                ),
            ));
        }
    };
    let body_len = raw.shape.iter().try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d as u64));
    let body_len =
        body_len.filter(|&n| n < 1 << 62).ok_or_else(|| Error::input(file, place, format!("the shape {:?} is impossible", raw.shape)))?;
    Ok(Header { dtype, big_endian, fortran: raw.fortran, shape: raw.shape, body: raw.body, body_len })
}

/// A parser of the one dictionary that a header may be.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn header(&mut self) -> Result<RawHeader, String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.accept('}') {
            let key = self.string()?;
            self.expect(':')?;
            match key.as_str() {
                "descr" => descr = Some(self.descr()?),
                "fortran_order" => fortran = Some(self.boolean()?),
                "shape" => shape = Some(self.tuple()?),
                other => return Err(format!("unknown key {other:?}")),
            }
            if !self.accept(',') {
                self.expect('}')?;
                break;
            }
        }
        self.blanks();
        if self.at != self.text.len() {
            return Err("text after the dictionary".into());
        }
        let missing = |key: &str| format!("the key {key:?} is missing");
        Ok(RawHeader {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran: fortran.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            body: 0,
        })
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\n', '\t', '\r', '\0']).len();
    }

    fn accept(&mut self, c: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.accept(c) { Ok(()) } else { Err(format!("{c:?} is missing at position {}", self.at)) }
    }

    fn string(&mut self) -> Result<String, String> {
        self.blanks();
        let quote = self.rest().chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("a quoted word is missing")?;
        let inside = &self.rest()[1..];
        let end = inside.find(quote).ok_or("a quoted word does not end")?;
        let word = inside[..end].to_string();
        self.at += end + 2;
        Ok(word)
    }

    /// A type string, or the text of a structured type up to its closing bracket (to be shown in the refusal).
    fn descr(&mut self) -> Result<String, String> {
        self.blanks();
        if !self.rest().starts_with('[') {
            return self.string();
        }
        let mut depth = 0;
        for (i, c) in self.rest().char_indices() {
            depth += i32::from(c == '[') - i32::from(c == ']');
            if depth == 0 {
                let text = self.rest()[..=i].to_string();
                self.at += i + 1;
                return Ok(text);
            }
        }
        Err("a bracket does not close".into())
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.blanks();
        for (word, value) in [("True", true), ("False", false)] {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err("fortran_order is neither True nor False".into())
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut axes = Vec::new();
        while !self.accept(')') {
            self.blanks();
            let rest = self.rest();
            let digits = &rest[..rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len()];
            let n: usize = digits.parse().map_err(|_| "the shape holds something that is not a size".to_string())?;
            let long = usize::from(rest[digits.len()..].starts_with('L')); // Python 2 wrote 3L
            self.at += digits.len() + long;
            axes.push(n);
            if axes.len() > 32 {
                return Err("the shape has more than 32 axes".into());
            }
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(axes)
    }
}

/// Appends elements to `out` as f32. `Err` is the position of the first f64 too large for an f32 (infinity in the file passes).
pub fn decode_f32(dtype: Dtype, big_endian: bool, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), usize> {
    macro_rules! push {
        ($t:ty, $convert:expr) => {{
            let convert = $convert;
            let elements = bytes.chunks_exact(size_of::<$t>()).map(|b| {
                let b = b.try_into().unwrap_or_default();
                if big_endian { <$t>::from_be_bytes(b) } else { <$t>::from_le_bytes(b) }
            });
            out.extend(elements.map(convert));
        }};
    }
    match dtype {
        Dtype::Bool => out.extend(bytes.iter().map(|&b| f32::from(b != 0))),
        Dtype::I8 => push!(i8, |x| x as f32),
        Dtype::I16 => push!(i16, |x| x as f32),
        Dtype::I32 => push!(i32, |x| x as f32),
        Dtype::I64 => push!(i64, |x| x as f32),
        Dtype::U8 => push!(u8, |x| x as f32),
        Dtype::U16 => push!(u16, |x| x as f32),
        Dtype::U32 => push!(u32, |x| x as f32),
        Dtype::U64 => push!(u64, |x| x as f32),
        Dtype::F16 => push!(u16, |x| half::f16::from_bits(x).to_f32()),
        Dtype::F32 => push!(f32, |x| x),
        Dtype::F64 => {
            let mut too_large = None;
            let start = out.len();
            push!(f64, |x: f64| x as f32);
            for (i, b) in bytes.chunks_exact(8).enumerate() {
                if out[start + i].is_infinite() {
                    let b = b.try_into().unwrap_or_default();
                    let x = if big_endian { f64::from_be_bytes(b) } else { f64::from_le_bytes(b) };
                    if x.is_finite() && too_large.is_none() {
                        too_large = Some(i);
                    }
                }
            }
            return too_large.map_or(Ok(()), Err);
        }
    }
    Ok(())
}

/// Appends integer elements to `out`; false when the type is not an integer type (or a value does not fit an i64).
pub fn decode_i64(dtype: Dtype, big_endian: bool, bytes: &[u8], out: &mut Vec<i64>) -> bool {
    macro_rules! push {
        ($t:ty) => {{
            for b in bytes.chunks_exact(size_of::<$t>()) {
                let b = b.try_into().unwrap_or_default();
                let x = if big_endian { <$t>::from_be_bytes(b) } else { <$t>::from_le_bytes(b) };
                match i64::try_from(x) {
                    Ok(x) => out.push(x),
                    Err(_) => return false,
                }
            }
        }};
    }
    match dtype {
        Dtype::I8 => push!(i8),
        Dtype::I16 => push!(i16),
        Dtype::I32 => push!(i32),
        Dtype::I64 => push!(i64),
        Dtype::U8 => push!(u8),
        Dtype::U16 => push!(u16),
        Dtype::U32 => push!(u32),
        Dtype::U64 => push!(u64),
        Dtype::Bool | Dtype::F16 | Dtype::F32 | Dtype::F64 => return false,
    }
    true
}

/// What a finished array file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Length of the first axis.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// CRC-32 of the file.
    pub crc32: u32,
}

/// Writes an array row by row; the number of rows need not be known before the end.
pub struct NpyWriter {
    file: AtomicFile,
    dtype: Dtype,
    row: Vec<usize>,
    row_bytes: u64,
    body_bytes: u64,
    header_len: usize,
    crc: Crc,
}

impl NpyWriter {
    /// An array of shape `[rows, row...]`, or of one axis when `row` is empty.
    pub fn create(path: &Path, dtype: Dtype, row: &[usize]) -> Result<NpyWriter> {
        // Room for the longest count of rows, so that the patched header has the length of this one.
        let placeholder = header_bytes(dtype, u64::MAX, row, 0);
        let mut file = AtomicFile::create(path)?;
        AtomicFile::write(&mut file, &placeholder)?;
        let row_bytes = row.iter().product::<usize>() as u64 * dtype.size() as u64;
        Ok(NpyWriter { file, dtype, row: row.to_vec(), row_bytes, body_bytes: 0, header_len: placeholder.len(), crc: Crc::new() })
    }

    /// Appends little-endian elements; together the calls must make whole rows.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.body_bytes += bytes.len() as u64;
        AtomicFile::write(&mut self.file, bytes)
    }

    /// Appends elements of the array's own type.
    #[track_caller]
    pub fn write<T: bytemuck::Pod>(&mut self, elements: &[T]) -> Result<()> {
        assert_eq!(size_of::<T>(), self.dtype.size(), "an array of {} cannot take these elements", self.dtype.name());
        self.write_bytes(bytemuck::cast_slice(elements))
    }

    /// Patches the number of rows, syncs and renames.
    pub fn finish(mut self) -> Result<Written> {
        let rows = if self.row_bytes == 0 { 0 } else { self.body_bytes / self.row_bytes };
        assert_eq!(rows * self.row_bytes, self.body_bytes, "an array file must end with a whole row");
        let header = header_bytes(self.dtype, rows, &self.row, self.header_len);
        self.file.overwrite_start(&header)?;
        let mut crc = Crc::new();
        crc.update(&header);
        crc.combine(&self.crc);
        let bytes = header.len() as u64 + self.body_bytes;
        self.file.commit()?;
        Ok(Written { rows, bytes, crc32: crc.sum() })
    }
}

/// A version-1 header, padded to a multiple of 64 bytes and at least `least`.
fn header_bytes(dtype: Dtype, rows: u64, row: &[usize], least: usize) -> Vec<u8> {
    let axes: String = row.iter().map(|d| format!(" {d},")).collect();
    let shape = if row.is_empty() { format!("({rows},)") } else { format!("({rows},{})", axes.trim_end_matches(',')) };
    let text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}", dtype.descr());
    let total = (10 + text.len() + 1).next_multiple_of(64).max(least);
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&((total - 10) as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(total - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<Header> {
        read_header(&mut &bytes[..], Path::new("x.npy"), "")
    }

    fn v1(dictionary: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
        bytes.extend_from_slice(dictionary.as_bytes());
        bytes
    }

    #[test]
    fn headers_of_all_versions_and_spellings_are_read() {
        let h = parse(&v1("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }   \n")).unwrap();
        assert_eq!((h.dtype, h.big_endian, h.fortran, h.shape.as_slice(), h.body_len), (Dtype::F64, false, false, &[3, 4][..], 96));
        let h = parse(&v1("{\"shape\":(5L,),\"descr\":\">u2\",\"fortran_order\":True}")).unwrap();
        assert_eq!((h.dtype, h.big_endian, h.fortran, h.shape.as_slice()), (Dtype::U16, true, true, &[5][..]));
        let mut v2 = b"\x93NUMPY\x02\x00".to_vec();
        let dictionary = b"{'descr': '|b1', 'fortran_order': False, 'shape': ()}";
        v2.extend_from_slice(&(dictionary.len() as u32).to_le_bytes());
        v2.extend_from_slice(dictionary);
        let h = parse(&v2).unwrap();
        assert_eq!((h.dtype, h.shape.len(), h.body, h.body_len), (Dtype::Bool, 0, 65, 1));
    }

    #[test]
    fn what_is_not_an_array_of_numbers_is_refused_in_words() {
        for (bytes, words) in [
            (v1("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "Python objects"),
            (v1("{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (1,)}"), "convert with"),
            (v1("{'descr': '<f4', 'fortran_order': False}"), "\"shape\" is missing"),
            (v1("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "not a size"),
            (v1("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 16)}"), "impossible"),
            (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "ends inside"),
            (b"PK\x03\x04    ".to_vec(), "not a .npy"),
            (b"\x93NUMPY\x07\x00    ".to_vec(), "version 7"),
            (b"".to_vec(), "ends inside"),
        ] {
            let message = parse(&bytes).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn written_header_is_aligned_and_says_the_rows_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut writer = NpyWriter::create(&path, Dtype::F32, &[3]).unwrap();
        writer.write(&[1f32, 2.0, 3.0]).unwrap();
        writer.write(&[4f32, 5.0, 6.0]).unwrap();
        let written = writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let h = parse(&bytes).unwrap();
        assert_eq!((h.shape.as_slice(), h.body % 64, written.rows), (&[2, 3][..], 0, 2));
        assert_eq!(h.body + h.body_len, bytes.len() as u64);
        let mut crc = Crc::new();
        crc.update(&bytes);
        assert_eq!((written.bytes, written.crc32), (bytes.len() as u64, crc.sum()));
    }

    #[test]
    fn every_type_decodes_in_both_byte_orders() {
        for (dtype, le) in [
            (Dtype::I8, 7i8.to_le_bytes().to_vec()),
            (Dtype::I16, 7i16.to_le_bytes().to_vec()),
            (Dtype::I32, 7i32.to_le_bytes().to_vec()),
            (Dtype::I64, 7i64.to_le_bytes().to_vec()),
            (Dtype::U8, vec![7]),
            (Dtype::U16, 7u16.to_le_bytes().to_vec()),
            (Dtype::U32, 7u32.to_le_bytes().to_vec()),
            (Dtype::U64, 7u64.to_le_bytes().to_vec()),
            (Dtype::F16, half::f16::from_f32(7.0).to_le_bytes().to_vec()),
            (Dtype::F32, 7f32.to_le_bytes().to_vec()),
            (Dtype::F64, 7f64.to_le_bytes().to_vec()),
        ] {
            let be: Vec<u8> = le.iter().rev().copied().collect();
            let mut out = Vec::new();
            decode_f32(dtype, false, &le, &mut out).unwrap();
            decode_f32(dtype, true, &be, &mut out).unwrap();
            assert_eq!(out, [7.0, 7.0], "{}", dtype.name());
        }
        assert_eq!(decode_f32(Dtype::F64, false, bytemuck::cast_slice(&[1.0, f64::INFINITY, 1e300]), &mut Vec::new()), Err(2));
        assert!(!decode_i64(Dtype::U64, false, &u64::MAX.to_le_bytes(), &mut Vec::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_text_in_the_dictionary_gives_a_header_or_an_error(text in "[{}()\\[\\]',:a-z<>0-9 L]{0,80}") {
            let _ = parse(&v1(&text));
        }

        #[test]
        fn what_is_written_is_read_back(shape in proptest::collection::vec(0usize..2000, 0..4), rows in any::<u64>()) {
            let rows = rows >> 40;
            let bytes = header_bytes(Dtype::U16, rows, &shape, 0);
            let h = parse(&bytes).unwrap();
            prop_assert_eq!(h.shape[0] as u64, rows);
            prop_assert_eq!(&h.shape[1..], &shape[..]);
            prop_assert_eq!(h.body as usize, bytes.len());
            prop_assert_eq!(bytes.len() % 64, 0);
        }
    }
}
