//! An embedding on its way into files: the whole, and beside it each named range of its columns, for a model whose code has spaces.
//!
//!   embedding.rna.npy      [cells, 70]      the whole
//!   embedding.rna.shared.npy [cells, 50], embedding.rna.specific.npy [cells, 20]      its parts

use super::rows::RowsWriter;
use crate::error::Result;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A named range of a code's columns.
pub type CodeSpace = (&'static str, Range<usize>);

/// Writes rows whole and in parts; nothing is there under its name before [`PartsWriter::commit`].
pub struct PartsWriter {
    whole: RowsWriter,
    parts: Vec<(Range<usize>, RowsWriter)>,
}

impl PartsWriter {
    /// The whole goes to `path`, the parts [`beside`] it; `create` starts a file for some of the columns.
    pub fn create(
        path: &Path,
        columns: &[String],
        spaces: &[CodeSpace],
        create: impl Fn(&Path, &[String]) -> Result<RowsWriter>,
    ) -> Result<PartsWriter> {
        let part = |(name, range): &CodeSpace| Ok((range.clone(), create(&beside(path, name), &columns[range.clone()])?));
        Ok(PartsWriter { whole: create(path, columns)?, parts: spaces.iter().map(part).collect::<Result<_>>()? })
    }

    /// The next row, as [`RowsWriter::row`] takes it.
    pub fn row(&mut self, leading: &[&str], values: &[f32]) -> Result<()> {
        self.whole.row(leading, values)?;
        self.parts.iter_mut().try_for_each(|(range, part)| part.row(leading, &values[range.clone()]))
    }

    /// Gives the files their names.
    pub fn commit(self) -> Result<()> {
        self.parts.into_iter().try_for_each(|(_, part)| part.commit())?;
        self.whole.commit()
    }
}

/// Where a part of a file lies: its name before the ending, as `z.shared.npy` of `z.npy`.
pub fn beside(path: &Path, part: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!(".{part}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_columns_of_the_whole_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("z.x.csv");
        let columns: Vec<String> = (1..=3).map(|i| format!("Z{i}")).collect();
        let spaces = [("shared", 0..2), ("specific", 2..3)];
        let mut w = PartsWriter::create(&path, &columns, &spaces, |p, c| RowsWriter::create(p, 1, &["cell"], c)).unwrap();
        w.row(&["a"], &[1.0, 2.0, 3.0]).unwrap();
        assert!(!path.exists() && !beside(&path, "shared").exists());
        w.commit().unwrap();
        let read = |p: &Path| std::fs::read_to_string(p).unwrap();
        assert_eq!(read(&path), "cell,Z1,Z2,Z3\na,1,2,3\n");
        assert_eq!(read(&dir.path().join("z.x.shared.csv")), "cell,Z1,Z2\na,1,2\n");
        assert_eq!(read(&dir.path().join("z.x.specific.csv")), "cell,Z3\na,3\n");
    }
}
