//! Arrays of an HDF5 file, read a window of rows at a time.
//!
//!   window   rows [start, start + n) of the first axis: whole chunks, about [`WINDOW`] bytes; memory does not grow with the array
//!   opening  what the file claims is compared with what it holds - bytes of a contiguous array, the number of chunks of a chunked
//!            one - so that a lie in a few bytes of a header cannot ask for memory that nothing in the file stands for

use std::path::{Path, PathBuf};

use hdf5_pure::{Dataset, Datatype, DatatypeByteOrder, FixedPointLayout, FloatingPointLayout, Layout};

use super::file::{refused, unreadable_filter};
use super::heap;
use crate::data::npy::{Dtype, decode_f32, decode_i64};
use crate::data::texts::{Texts, TextsBuilder};
use crate::error::{Error, Result};

/// Bytes of a window, where chunks allow it.
const WINDOW: u64 = 8 << 20;
/// A window is larger only where one row of chunks is; beyond this, chunks are decompressed more than once.
const LARGEST_WINDOW: u64 = 128 << 20;
/// A chunk is decompressed whole: a larger one is not read.
const LARGEST_CHUNK: u64 = 1 << 30;
/// Filters that are undone: gzip, shuffle, fletcher32, scale-offset, lzf.
const FILTERS: [u16; 5] = [1, 2, 3, 6, 32000];

/// What an element is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Element {
    /// A number, or a truth value (an enumeration of FALSE and TRUE).
    Number { dtype: Dtype, big_endian: bool },
    /// A text, of fixed or variable length.
    Text,
    /// A row of a table: name, first byte and kind of each field.
    Record(Vec<Field>),
}

/// A field of a [`Element::Record`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub name: String,
    pub start: usize,
    pub kind: FieldKind,
}

/// What a field is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FieldKind {
    Number {
        dtype: Dtype,
        big_endian: bool,
    },
    /// So many bytes, padded with zeros or blanks.
    Fixed(usize),
    /// A reference to a text on the file's heap.
    Heap,
}

/// An open array.
pub(super) struct Array {
    data: Dataset,
    file: PathBuf,
    name: String,
    shape: Vec<u64>,
    element: Element,
    element_bytes: u64,
    chunk_rows: u64,
    /// Where the bytes lie, if they lie in one piece and uncompressed.
    contiguous: Option<u64>,
}

impl Array {
    pub fn open(data: Dataset, file: &Path, name: &str, length: u64) -> Result<Array> {
        let wrong = |e| refused(file, name, e);
        let bad = |message: String| Error::input(file, name, message);
        let shape = data.shape().map_err(wrong)?;
        let datatype = data.datatype().map_err(wrong)?;
        let element = element_of(&datatype)
            .ok_or_else(|| bad(format!("elements of type {datatype} are not read: numbers, truth values and texts are")))?;
        let element_bytes = u64::from(datatype.type_size());
        if element_bytes == 0 {
            return Err(bad("its elements are 0 bytes long, so any number of them would be there: the file is damaged".into()));
        }
        let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let bytes = elements.and_then(|n| n.checked_mul(element_bytes)).filter(|&n| n <= i64::MAX as u64);
        let (Some(elements), Some(bytes)) = (elements, bytes) else {
            return Err(bad(format!("no file can hold an array of shape {shape:?}: the file is damaged, copy it again")));
        };
        let (mut chunk_rows, mut contiguous) = (1, None);
        match data.layout().map_err(wrong)? {
            _ if elements == 0 => {}
            Layout::Compact { .. } => {}
            Layout::Contiguous { address: Some(address), size } => {
                if size != bytes || address.checked_add(bytes).is_none_or(|end| end > length) {
                    return Err(bad(format!(
                        "the array of shape {shape:?} needs {bytes} bytes at byte {address}, but {size} are reserved and the file has {length}: it is damaged, copy it again"
                    )));
                }
                contiguous = Some(address);
            }
            Layout::Contiguous { address: None, .. } => return Err(bad("nothing was ever written into it".into())),
            Layout::Chunked { chunk_shape, .. } => {
                if let Some(filter) = data.filters().into_iter().find(|f| !FILTERS.contains(f)) {
                    return Err(bad(unreadable_filter(filter)));
                }
                let chunk = chunk_shape.iter().try_fold(element_bytes, |n, &d| n.checked_mul(d));
                if chunk.is_none_or(|n| n == 0 || n > LARGEST_CHUNK) || chunk_shape.len() != shape.len() {
                    return Err(bad(format!(
                        "its chunks of shape {chunk_shape:?} are not read: at most 1 GiB is, write the file with smaller ones"
                    )));
                }
                let wanted = shape.iter().zip(&chunk_shape).try_fold(1u64, |n, (&d, &c)| n.checked_mul(d.div_ceil(c)));
                let chunks = data.chunks().map_err(wrong)?;
                // A chunk is read whole into memory before it is decompressed.
                if let Some(chunk) = chunks.iter().find(|c| c.address.checked_add(c.storage_size).is_none_or(|end| end > length)) {
                    return Err(bad(format!(
                        "a chunk of {} bytes at byte {} lies beyond the file's {length}: it is damaged, copy it again",
                        chunk.storage_size, chunk.address
                    )));
                }
                let found = chunks.len() as u64;
                if wanted != Some(found) {
                    return Err(bad(format!(
                        "{found} of the {} chunks of the array of shape {shape:?} are there: the file is damaged or was never written to the end",
                        wanted.map_or("countless".to_string(), |w| w.to_string())
                    )));
                }
                chunk_rows = chunk_shape.first().copied().unwrap_or(1);
            }
            _ => return Err(bad("its values lie in other files: make one file of them, for example with h5repack".into())),
        }
        Ok(Array { data, file: file.to_path_buf(), name: name.to_string(), shape, element, element_bytes, chunk_rows, contiguous })
    }

    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn element(&self) -> &Element {
        &self.element
    }

    /// The first byte of an array that lies in one uncompressed piece.
    pub fn contiguous(&self) -> Option<u64> {
        self.contiguous
    }

    /// An error about the array.
    pub fn bad(&self, message: impl Into<String>) -> Error {
        Error::input(&self.file, &self.name, message)
    }

    /// Length of the only axis.
    pub fn length(&self) -> Result<u64> {
        match self.shape.as_slice() {
            &[n] => Ok(n),
            axes => Err(self.bad(format!("one axis is wanted, the shape is {axes:?}"))),
        }
    }

    /// Type and byte order of numbers.
    pub fn number(&self) -> Result<(Dtype, bool)> {
        match self.element {
            Element::Number { dtype, big_endian } => Ok((dtype, big_endian)),
            _ => Err(self.bad("numbers are wanted, it holds texts or records")),
        }
    }

    /// Bytes of one row.
    fn row_bytes(&self) -> u64 {
        // An array without rows may have any other sizes; with some, the product was checked.
        self.shape.iter().skip(1).fold(self.element_bytes, |n, &d| n.saturating_mul(d))
    }

    /// Rows of a window: whole chunks where they are not too large.
    pub fn window(&self) -> u64 {
        let row = self.row_bytes().max(1);
        let fitting = (WINDOW / row).max(1);
        if fitting >= self.chunk_rows { fitting - fitting % self.chunk_rows } else { self.chunk_rows.min((LARGEST_WINDOW / row).max(1)) }
    }

    /// The bytes of rows `start..start + count`, which must be in the array.
    pub fn rows(&self, start: u64, count: u64) -> Result<Vec<u8>> {
        let bytes = self.data.read_raw_rows(start, count).map_err(|e| refused(&self.file, &self.name, e))?;
        if bytes.len() as u64 != count * self.row_bytes() {
            return Err(self.bad(format!("rows {start}..{} are incomplete: the file is damaged, copy it again", start + count)));
        }
        Ok(bytes)
    }

    /// All whole numbers of a one-axis array.
    pub fn integers(&self) -> Result<Vec<i64>> {
        let ((dtype, big_endian), length) = (self.number()?, self.length()?);
        let mut out = Vec::new();
        self.each_window(length, |bytes| {
            if decode_i64(dtype, big_endian, &bytes, &mut out) {
                Ok(())
            } else {
                Err(self.bad(format!("whole numbers below 2^63 are wanted, it holds {}", dtype.name())))
            }
        })?;
        Ok(out)
    }

    /// All elements of a one-axis array as texts; NaN is the empty text.
    pub fn texts(&self) -> Result<Vec<String>> {
        let mut out = Vec::new();
        self.each_text(&mut |text| out.push(text.to_string()))?;
        Ok(out)
    }

    /// The same as a column.
    pub fn column(&self) -> Result<Texts> {
        let mut out = TextsBuilder::default();
        self.each_text(&mut |text| out.push(text))?;
        Ok(out.finish())
    }

    fn each_text(&self, give: &mut dyn FnMut(&str)) -> Result<()> {
        let length = self.length()?;
        match &self.element {
            Element::Number { dtype, big_endian } => self.each_window(length, |bytes| {
                number_texts(*dtype, *big_endian, &bytes, give).ok_or_else(|| self.bad("a number is too large"))
            }),
            Element::Text => {
                let (step, mut start) = (1 << 16, 0);
                while start < length {
                    let n = step.min(length - start);
                    let texts = self.data.read_string_rows(start, n).map_err(|e| refused(&self.file, &self.name, e))?;
                    if texts.len() as u64 != n {
                        return Err(self.bad(format!("texts {start}..{} are incomplete: the file is damaged, copy it again", start + n)));
                    }
                    // The crate puts this character where bytes are no UTF-8; a name that has it by right is not worth the doubt.
                    if let Some(i) = texts.iter().position(|t| t.contains('\u{fffd}')) {
                        return Err(self.bad(format!("text {} is not UTF-8: write the file again with UTF-8 names", start + i as u64)));
                    }
                    texts.iter().for_each(|text| give(text));
                    start += n;
                }
                Ok(())
            }
            Element::Record(_) => Err(self.bad("one value an element is wanted, it holds records")),
        }
    }

    /// A field of all records as texts; NaN is the empty text.
    pub fn field_texts(&self, field: &Field) -> Result<Texts> {
        let length = self.length()?;
        let mut out = TextsBuilder::default();
        let mut heap = heap::Heap::open(&self.file)?;
        self.each_window(length, |bytes| {
            for record in bytes.chunks_exact(self.element_bytes as usize) {
                let at = record.get(field.start..).unwrap_or(&[]);
                let outside = || self.bad(format!("the field \"{}\" lies outside its record: the file is damaged", field.name));
                match field.kind {
                    FieldKind::Number { dtype, big_endian } => {
                        number_texts(dtype, big_endian, at.get(..dtype.size()).ok_or_else(outside)?, &mut |text| out.push(text))
                            .ok_or_else(outside)?;
                    }
                    FieldKind::Fixed(n) => {
                        let text = at.get(..n).ok_or_else(outside)?;
                        let text = text.split(|&b| b == 0).next().unwrap_or(&[]);
                        let text = std::str::from_utf8(text)
                            .map_err(|_| self.bad(format!("a text of the field \"{}\" is not UTF-8", field.name)))?;
                        out.push(text.trim_end_matches(' '));
                    }
                    FieldKind::Heap => out.push(&heap.text(at).map_err(|e| self.bad(format!("the field \"{}\": {e}", field.name)))?),
                }
            }
            Ok(())
        })?;
        Ok(out.finish())
    }

    fn each_window(&self, length: u64, mut use_bytes: impl FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
        let (step, mut start) = (self.window(), 0);
        while start < length {
            let n = step.min(length - start);
            use_bytes(self.rows(start, n)?)?;
            start += n;
        }
        Ok(())
    }
}

/// Gives numbers as texts, NaN as the empty one, truth as Python writes it; none if a number fits no type here.
fn number_texts(dtype: Dtype, big_endian: bool, bytes: &[u8], give: &mut dyn FnMut(&str)) -> Option<()> {
    match dtype {
        Dtype::Bool => bytes.iter().for_each(|&b| give(if b == 0 { "False" } else { "True" })),
        Dtype::F64 => bytes.chunks_exact(8).for_each(|b| {
            let b = b.try_into().unwrap_or_default();
            let x = if big_endian { f64::from_be_bytes(b) } else { f64::from_le_bytes(b) };
            give(&if x.is_nan() { String::new() } else { x.to_string() });
        }),
        Dtype::F32 | Dtype::F16 => {
            let mut numbers = Vec::new();
            decode_f32(dtype, big_endian, bytes, &mut numbers).ok()?;
            numbers.iter().for_each(|x| give(&if x.is_nan() { String::new() } else { x.to_string() }));
        }
        _ => {
            let mut numbers = Vec::new();
            decode_i64(dtype, big_endian, bytes, &mut numbers).then_some(())?;
            numbers.iter().for_each(|x| give(&x.to_string()));
        }
    }
    Some(())
}

fn element_of(datatype: &Datatype) -> Option<Element> {
    if let Some((dtype, big_endian)) = number_of(datatype) {
        return Some(Element::Number { dtype, big_endian });
    }
    match datatype {
        Datatype::String { .. } => Some(Element::Text),
        Datatype::VariableLength { is_string: true, .. } => Some(Element::Text),
        Datatype::Compound { members, .. } => {
            let fields = members.iter().filter_map(|m| {
                let kind = match &m.datatype {
                    Datatype::String { size, .. } => FieldKind::Fixed(*size as usize),
                    Datatype::VariableLength { is_string: true, .. } => FieldKind::Heap,
                    number => number_of(number).map(|(dtype, big_endian)| FieldKind::Number { dtype, big_endian })?,
                };
                Some(Field { name: m.name.clone(), start: usize::try_from(m.byte_offset).ok()?, kind })
            });
            Some(Element::Record(fields.collect()))
        }
        _ => None,
    }
}

/// Our type for a number that fills its bytes in the standard way.
fn number_of(datatype: &Datatype) -> Option<(Dtype, bool)> {
    match datatype {
        Datatype::FixedPoint { size, byte_order, layout: FixedPointLayout { signed, bit_offset: 0, bit_precision } }
            if Some(u32::from(*bit_precision)) == size.checked_mul(8) =>
        {
            let dtype = match (size, signed) {
                (1, true) => Dtype::I8,
                (2, true) => Dtype::I16,
                (4, true) => Dtype::I32,
                (8, true) => Dtype::I64,
                (1, false) => Dtype::U8,
                (2, false) => Dtype::U16,
                (4, false) => Dtype::U32,
                (8, false) => Dtype::U64,
                _ => return None,
            };
            Some((dtype, big_endian(*byte_order)?))
        }
        Datatype::FloatingPoint { size, byte_order, layout } => {
            let half = FloatingPointLayout {
                bit_offset: 0,
                bit_precision: 16,
                exponent_location: 10,
                exponent_size: 5,
                mantissa_location: 0,
                mantissa_size: 10,
                exponent_bias: 15,
            };
            let dtype = match (size, layout) {
                (2, l) if *l == half => Dtype::F16,
                (4, l) if *l == FloatingPointLayout::IEEE754_BINARY32 => Dtype::F32,
                (8, l) if *l == FloatingPointLayout::IEEE754_BINARY64 => Dtype::F64,
                _ => return None,
            };
            Some((dtype, big_endian(*byte_order)?))
        }
        Datatype::Enumeration { base_type, members, .. } => {
            let base = number_of(base_type)?;
            let truth = members.len() == 2 && members.iter().any(|m| m.name == "FALSE" && m.value == [0]) && base.0.size() == 1;
            Some(if truth { (Dtype::Bool, false) } else { base })
        }
        _ => None,
    }
}

fn big_endian(order: DatatypeByteOrder) -> Option<bool> {
    match order {
        DatatypeByteOrder::LittleEndian => Some(false),
        DatatypeByteOrder::BigEndian => Some(true),
        DatatypeByteOrder::Vax => None,
    }
}
