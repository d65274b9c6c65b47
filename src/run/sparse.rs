//! A sparse matrix, and how it is written: as `scipy.sparse.load_npz` opens it.

use crate::data::atomic::AtomicFile;
use crate::data::npy::header_of;
use crate::error::{Error, Result};
use std::io::{Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Compressed rows: the entries of row r are `indptr[r]..indptr[r + 1]` of the two lists, by column.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// Number of columns.
    pub columns: usize,
    /// One more than there are rows.
    pub indptr: Vec<i64>,
    /// The columns of the entries.
    pub indices: Vec<i32>,
    /// The entries.
    pub values: Vec<f32>,
}

impl Sparse {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    /// Columns and values of a row.
    pub fn row(&self, r: usize) -> (&[i32], &[f32]) {
        let part = self.indptr[r] as usize..self.indptr[r + 1] as usize;
        (&self.indices[part.clone()], &self.values[part])
    }

    /// The `top` largest entries above 0 of each row of a dense matrix [rows, columns]; the smaller column where entries tie.
    pub fn largest(dense: &[f32], columns: usize, top: usize) -> Sparse {
        let mut out = Sparse { columns, indptr: vec![0], indices: Vec::new(), values: Vec::new() };
        let mut order: Vec<i32> = Vec::new();
        for row in dense.chunks_exact(columns.max(1)) {
            order.clear();
            order.extend((0..).zip(row).filter(|(_, v)| **v > 0.0).map(|(c, _)| c));
            let by_size = |a: &i32, b: &i32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            if order.len() > top {
                order.select_nth_unstable_by(top, by_size);
                order.truncate(top);
            }
            order.sort_unstable();
            out.indices.extend(&order);
            out.values.extend(order.iter().map(|&c| row[c as usize]));
            out.indptr.push(out.indices.len() as i64);
        }
        out
    }

    /// Of rows given as lists of columns and values, in any order.
    pub fn of_rows(columns: usize, rows: impl Iterator<Item = Vec<(usize, f32)>>) -> Sparse {
        let mut out = Sparse { columns, indptr: vec![0], indices: Vec::new(), values: Vec::new() };
        for mut row in rows {
            row.sort_unstable_by_key(|e| e.0);
            out.indices.extend(row.iter().map(|e| e.0 as i32));
            out.values.extend(row.iter().map(|e| e.1));
            out.indptr.push(out.indices.len() as i64);
        }
        out
    }

    /// The column of the largest entry of each row, the first where entries tie; none where no entry is above 0.
    pub fn best_columns(dense: &[f32], columns: usize) -> Vec<Option<usize>> {
        let best = |row: &[f32]| (0..columns).filter(|&c| row[c] > 0.0).reduce(|a, b| if row[b] > row[a] { b } else { a });
        dense.chunks_exact(columns.max(1)).map(best).collect()
    }

    /// Writes an `.npz` of a `csr_matrix`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (mut indices, mut values): (&[u8], &[u8]) = (bytemuck::cast_slice(&self.indices), bytemuck::cast_slice(&self.values));
        save_npz(path, [self.rows(), self.columns], &self.indptr, &mut indices, &mut values)
    }
}

/// Writes an `.npz` of a `csr_matrix` of this shape whose columns (i32) and values (f32) are read from elsewhere, little-endian, as many as
/// the last of `indptr` says.
pub fn save_npz(path: &Path, [rows, columns]: [usize; 2], indptr: &[i64], indices: &mut dyn Read, values: &mut dyn Read) -> Result<()> {
    let internal = |e: zip::result::ZipError| Error::Internal(format!("{}: {e}", path.display()));
    let entries = indptr.last().map_or(0, |&n| n as usize);
    let narrow: Vec<i32> = if i32::try_from(entries).is_ok() { indptr.iter().map(|&p| p as i32).collect() } else { Vec::new() };
    // As narrow as SciPy would choose: it copies arrays of other types.
    let mut pointers: (&str, &[u8]) =
        if narrow.is_empty() { ("<i8", bytemuck::cast_slice(indptr)) } else { ("<i4", bytemuck::cast_slice(&narrow)) };
    let shape = bytemuck::cast::<[i64; 2], [u8; 16]>([rows as i64, columns as i64]);
    let arrays: [(&str, &str, usize, usize, &mut dyn Read); 5] = [
        ("indices", "<i4", entries, 4, indices),
        ("indptr", pointers.0, indptr.len(), 8, &mut pointers.1),
        ("format", "|S3", 1, 3, &mut &b"csr"[..]),
        ("shape", "<i8", 2, 8, &mut &shape[..]),
        ("data", "<f4", entries, 4, values),
    ];
    let mut archive = ZipWriter::new(AtomicFile::create(path)?);
    for (name, descr, length, size, bytes) in arrays {
        let large = (length * size) as u64 + (1 << 16) >= u64::from(u32::MAX);
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).compression_level(Some(1)).large_file(large);
        archive.start_file(format!("{name}.npy"), options).map_err(internal)?;
        let failed = |e| Error::io("write", path, e);
        archive.write_all(&header_of(descr, length as u64, &[], 0)).map_err(failed)?;
        std::io::copy(bytes, &mut archive).map_err(failed)?;
    }
    archive.finish().map_err(internal)?.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_each_row_in_the_order_of_columns() {
        let dense = [0.0, 0.3, 0.1, 0.3, 0.0, 0.0, 0.0, 0.0, 0.2, 0.2, 0.2, 0.0];
        let s = Sparse::largest(&dense, 4, 2);
        assert_eq!((s.rows(), s.indptr.as_slice()), (3, &[0, 2, 2, 4][..]));
        assert_eq!(s.row(0), (&[1, 3][..], &[0.3, 0.3][..]));
        assert_eq!(s.row(2).0, [0, 1]);
        assert_eq!(Sparse::best_columns(&dense, 4), [Some(1), None, Some(0)]);
    }

    #[test]
    fn what_is_saved_is_a_matrix_that_import_reads() {
        use crate::data::formats::ModalitySource;
        use crate::data::import::{ImportSpec, import};
        use crate::data::{Dataset, Hooks};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.npz");
        Sparse::largest(&[0.5, 0.0, 0.0, 0.25, 0.0, 1.0], 3, 3).save(&path).unwrap();
        let source = ModalitySource { name: "a".into(), file: path.clone(), key: None };
        let spec = ImportSpec { modalities: vec![source.clone(), ModalitySource { name: "b".into(), ..source }], ..ImportSpec::default() };
        import(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let d = Dataset::open(&dir.path().join("d")).unwrap();
        let mut row = [0.0; 3];
        d.modality(0).row_into(1, &mut row).unwrap();
        assert_eq!((d.modality(0).is_sparse(), row), (true, [0.25, 0.0, 1.0]));
    }
}
