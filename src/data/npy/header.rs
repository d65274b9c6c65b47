//! The header of an array file: a Python dictionary with three keys, exactly, behind a magic word and a length.

use std::io::Read;
use std::path::Path;

use super::{DTYPES, Dtype};
use crate::error::{Error, Result};

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

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_text_in_the_dictionary_gives_a_header_or_an_error(text in "[{}()\\[\\]',:a-z<>0-9 L]{0,80}") {
            let _ = parse(&v1(&text));
        }
    }
}
