//! NumPy's `.npy`: a header of one Python dictionary, then the array.
//!
//!   file    `\x93NUMPY`, version, header length (u16 in version 1, u32 in 2 and 3), dictionary padded with blanks, body
//!   read    versions 1 to 3, any alignment of the body, either byte order, C and Fortran order; every element becomes an f32 or i64
//!   write   version 1, little-endian, C order, body at a multiple of 64 bytes, the number of rows patched in at the end
//!   source  NumPy Enhancement Proposal 1 and `numpy/lib/format.py` (for the limits: three keys, exactly)

mod header;
mod writer;

pub use header::{Header, RawHeader, read_header, read_raw_header};
pub(crate) use writer::header_of;
pub use writer::{NpyWriter, Written};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
