//! Array files written row by row, the number of rows patched into the header at the end.

use std::path::Path;

use flate2::Crc;

use super::Dtype;
use crate::data::atomic::AtomicFile;
use crate::error::Result;

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
        let rows = self.body_bytes.checked_div(self.row_bytes).unwrap_or(0);
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

fn header_bytes(dtype: Dtype, rows: u64, row: &[usize], least: usize) -> Vec<u8> {
    header_of(&dtype.descr(), rows, row, least)
}

/// A version-1 header of an array `[rows, row...]` of a NumPy type, padded to a multiple of 64 bytes and at least `least`.
pub(crate) fn header_of(descr: &str, rows: u64, row: &[usize], least: usize) -> Vec<u8> {
    let axes: String = row.iter().map(|d| format!(" {d},")).collect();
    let shape = if row.is_empty() { format!("({rows},)") } else { format!("({rows},{})", axes.trim_end_matches(',')) };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
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
    use super::super::read_header;
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<super::super::Header> {
        read_header(&mut &bytes[..], Path::new("x.npy"), "")
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

    proptest! {
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
