//! MatrixMarket (`.mtx`, `.mtx.gz`), with the barcodes and features of 10x beside it or alone.
//!
//!   with names   features x cells, as 10x writes it; `features.tsv` is id, name, type a line (`genes.tsv`: id, name)
//!   alone        `--rows` says what a row is
//!   read         coordinate real, integer or pattern, general; array real or integer (column after column)
//!   source       Boisvert, Pozo, Remington: The Matrix Market exchange formats (NIST IR 5935); 1-based, `%` begins a comment

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::text::{open_text, read_error, read_lines};
use super::triplets::{Entries, Entry, Triplets};
use super::{Head, Layout, Opening, Row, Rows, RowsAre, Source, check_promise, finite, no_such_key};
use crate::data::hooks::Hooks;
use crate::error::{Error, Result};

pub(super) fn open_folder(opening: &Opening) -> Result<Source> {
    let folder = opening.file;
    let listing = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.map_err(|e| Error::io("read", folder, e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".mtx") || name.ends_with(".mtx.gz") {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => open(&Opening { file: one, ..*opening }),
        [] => Err(Error::input(folder, "", "the folder has no matrix.mtx or matrix.mtx.gz: name the file to read")),
        several => {
            let names: Vec<_> = several.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect();
            Err(Error::input(folder, "", format!("the folder has several matrices ({}): name the file to read", names.join(", "))))
        }
    }
}

pub(super) fn open(opening: &Opening) -> Result<Source> {
    let file = opening.file;
    let size = Reader::open(file)?.size;
    let names = Names::beside(file)?;
    let rows_are = match (opening.rows, &names) {
        (Some(rows), _) => rows,
        (None, Some(_)) => RowsAre::Features,
        (None, None) => {
            let message = format!(
                "no barcodes.tsv and features.tsv (or genes.tsv) beside it: say what its {} rows are with --rows cells or --rows features",
                size.rows
            );
            return Err(Error::input(file, "", message));
        }
    };
    let (cells, features) = match rows_are {
        RowsAre::Cells => (size.rows, size.columns),
        RowsAre::Features => (size.columns, size.rows),
    };
    let mut head = Head { cells: Some(cells as u64), shape: vec![features], layout: Layout::Sparse, features: None, cell_ids: None };
    let mut keep = None;
    match names {
        Some(names) => {
            names.check(file, cells, features)?;
            let (kept, map) = names.select(opening.key)?;
            head.shape = vec![kept.len()];
            head.features = Some(kept);
            head.cell_ids = Some(names.barcodes);
            keep = map;
        }
        None => {
            check_promise(file, cells as u64, features as u64)?;
            if let Some(key) = opening.key {
                return Err(Error::input(
                    file,
                    "",
                    format!("\"#{key}\" chooses a feature type, but there is no features.tsv beside the file"),
                ));
            }
        }
    }
    let (path, missing_nan) = (file.to_path_buf(), opening.missing_nan);
    let reopen = Box::new(move || {
        let reader = Reader::open(&path)?;
        Ok(Box::new(Oriented { reader, rows_are, keep: keep.clone(), missing_nan }) as Box<dyn Entries>)
    });
    let barcodes = head.cell_ids.is_some();
    let triplets = Triplets::new(reopen, cells, size.entries, opening.scratch.to_path_buf());
    Ok(Source { head, rows: Box::new(MtxRows { triplets, barcodes }) })
}

/// [`Triplets`] that know where a cell's name stands.
struct MtxRows {
    triplets: Triplets,
    barcodes: bool,
}

impl Rows for MtxRows {
    fn prepare(&mut self, stage: &str, hooks: &mut Hooks) -> Result<()> {
        self.triplets.prepare(stage, hooks)
    }

    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        self.triplets.next_row(row)
    }

    fn place(&self, row: usize) -> String {
        if self.barcodes { format!("line {} of the barcodes", row + 1) } else { format!("cell {row}") }
    }
}

/// The names that 10x keeps beside a matrix.
struct Names {
    barcodes: Vec<String>,
    barcodes_file: PathBuf,
    features: Vec<Vec<String>>,
    features_file: PathBuf,
}

impl Names {
    /// Looks for `PREFIXbarcodes.tsv` and `PREFIXfeatures.tsv` beside `PREFIXmatrix.mtx`; none if neither is there.
    fn beside(matrix: &Path) -> Result<Option<Names>> {
        let name = matrix.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = name.trim_end_matches(".gz").trim_end_matches(".mtx");
        let prefix = stem.strip_suffix("matrix").unwrap_or("");
        let find = |kinds: &[&str]| {
            let names = kinds.iter().flat_map(|kind| [format!("{prefix}{kind}.tsv"), format!("{prefix}{kind}.tsv.gz")]);
            names.map(|n| matrix.with_file_name(n)).find(|p| p.is_file())
        };
        match (find(&["barcodes"]), find(&["features", "genes"])) {
            (None, None) => Ok(None),
            (Some(b), None) => Err(Error::input(matrix, "", format!("{} is beside it, but no features.tsv or genes.tsv", b.display()))),
            (None, Some(f)) => Err(Error::input(matrix, "", format!("{} is beside it, but no barcodes.tsv", f.display()))),
            (Some(barcodes_file), Some(features_file)) => {
                let barcodes = read_lines(&barcodes_file)?.into_iter().map(|mut fields| fields.swap_remove(0)).collect();
                let features = read_lines(&features_file)?;
                Ok(Some(Names { barcodes, barcodes_file, features, features_file }))
            }
        }
    }

    fn check(&self, matrix: &Path, cells: usize, features: usize) -> Result<()> {
        let (b, f) = (self.barcodes.len(), self.features.len());
        if (b, f) == (cells, features) {
            return Ok(());
        }
        let hint = if (b, f) == (features, cells) { ": the matrix is the other way round, say --rows cells (or features)" } else { "" };
        let message = format!(
            "it has {cells} cells and {features} features, but {} has {b} lines and {} has {f}{hint}",
            self.barcodes_file.display(),
            self.features_file.display()
        );
        Err(Error::input(matrix, "", message))
    }

    /// Names of the features of the wanted type, and where each feature of the file goes (-1: left out); no map when all stay.
    fn select(&self, key: Option<&str>) -> Result<(Vec<String>, Option<Vec<i32>>)> {
        let kind = |fields: &[String]| fields.get(2).map_or("", |k| k.trim()).to_string();
        let mut kinds: Vec<String> = Vec::new();
        for fields in &self.features {
            let k = kind(fields);
            if !kinds.contains(&k) {
                kinds.push(k);
            }
        }
        match key {
            None if kinds.len() > 1 => {
                let counted = kinds.iter().map(|k| format!("{k} ({})", self.features.iter().filter(|f| kind(f) == *k).count()));
                let message =
                    format!("the features are of several types: {}; choose one with FILE#TYPE", counted.collect::<Vec<_>>().join(", "));
                return Err(Error::input(&self.features_file, "", message));
            }
            Some(key) if !kinds.iter().any(|k| k == key) => return Err(no_such_key(&self.features_file, key, "feature type", &kinds)),
            _ => {}
        }
        // The second column is the name that people use, the first a stable id; older files may have one column.
        let name = |fields: &[String]| fields.get(1).or(fields.first()).cloned().unwrap_or_default();
        let wanted = |fields: &[String]| key.is_none_or(|key| kind(fields) == key);
        let names: Vec<String> = self.features.iter().filter(|f| wanted(f)).map(|f| name(f)).collect();
        if names.len() == self.features.len() {
            return Ok((names, None));
        }
        let mut next = 0;
        let map = self.features.iter().map(|f| if wanted(f) { (next, next += 1).0 } else { -1 });
        Ok((names, Some(map.collect())))
    }
}

/// Entries as cells and features.
struct Oriented {
    reader: Reader,
    rows_are: RowsAre,
    keep: Option<Vec<i32>>,
    missing_nan: bool,
}

impl Entries for Oriented {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        while let Some((row, column, value)) = self.reader.next_element()? {
            let (cell, mut feature) = match self.rows_are {
                RowsAre::Cells => (row, column),
                RowsAre::Features => (column, row),
            };
            if let Some(keep) = &self.keep {
                match u32::try_from(keep[feature as usize]) {
                    Ok(kept) => feature = kept,
                    Err(_) => continue,
                }
            }
            let (file, line) = (&self.reader.file, self.reader.line);
            let value = finite(value, self.missing_nan, file, || format!("line {line}"))?;
            return Ok(Some(Entry { cell, feature, value }));
        }
        Ok(None)
    }
}

#[derive(Debug, Clone, Copy)]
struct Size {
    rows: usize,
    columns: usize,
    entries: u64,
}

/// The elements of a file in its order, 0-based and inside the matrix.
struct Reader {
    text: Box<dyn BufRead>,
    file: PathBuf,
    line: u64,
    buffer: Vec<u8>,
    size: Size,
    coordinate: bool,
    pattern: bool,
    read: u64,
}

impl Reader {
    fn open(file: &Path) -> Result<Reader> {
        let size = Size { rows: 0, columns: 0, entries: 0 };
        let (text, buffer) = (open_text(file)?, Vec::new());
        let mut reader = Reader { text, file: file.to_path_buf(), line: 0, buffer, size, coordinate: true, pattern: false, read: 0 };
        reader.banner()?;
        reader.size_line()?;
        Ok(reader)
    }

    fn bad(&self, message: impl Into<String>) -> Error {
        Error::input(&self.file, format!("line {}", self.line), message)
    }

    /// Reads a line that is neither blank nor a comment; false at the end.
    fn data_line(&mut self) -> Result<bool> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let n = self.text.read_until(b'\n', &mut self.buffer).map_err(|e| read_error(&self.file, format!("line {}", self.line), e))?;
            if n == 0 {
                return Ok(false);
            }
            let line = self.buffer.trim_ascii_start();
            if !line.is_empty() && line[0] != b'%' {
                return Ok(true);
            }
        }
    }

    fn banner(&mut self) -> Result<()> {
        self.line = 1;
        self.text.read_until(b'\n', &mut self.buffer).map_err(|e| read_error(&self.file, "line 1", e))?;
        let banner = String::from_utf8_lossy(&self.buffer).to_lowercase();
        let words: Vec<&str> = banner.split_ascii_whitespace().collect();
        let ["%%matrixmarket", "matrix", form, field, symmetry] = words.as_slice() else {
            return Err(
                self.bad("not a MatrixMarket file: its first line must be like \"%%MatrixMarket matrix coordinate integer general\"")
            );
        };
        self.coordinate = match *form {
            "coordinate" => true,
            "array" => false,
            other => return Err(self.bad(format!("the form \"{other}\" is unknown: coordinate or array is wanted"))),
        };
        self.pattern = *field == "pattern";
        if !matches!(*field, "real" | "integer" | "pattern" | "double") || (self.pattern && !self.coordinate) {
            return Err(
                self.bad(format!("values of kind \"{field}\" cannot be read: real, integer or (in coordinate form) pattern is wanted"))
            );
        }
        if *symmetry != "general" {
            return Err(self.bad(format!("a {symmetry} matrix cannot be cells x features: \"general\" is wanted")));
        }
        Ok(())
    }

    fn size_line(&mut self) -> Result<()> {
        if !self.data_line()? {
            return Err(self.bad("the file ends before the sizes of the matrix"));
        }
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        let numbers: Option<Vec<u64>> = text.split_ascii_whitespace().map(|w| w.parse().ok()).collect();
        let (rows, columns, entries) = match (numbers.as_deref(), self.coordinate) {
            (Some(&[rows, columns, entries]), true) => (rows, columns, entries),
            (Some(&[rows, columns]), false) => (rows, columns, rows.saturating_mul(columns)),
            _ => return Err(self.bad(format!("\"{}\" is not the size of a matrix: rows, columns and entries are wanted", text.trim()))),
        };
        if rows.max(columns) > i32::MAX as u64 {
            return Err(self.bad(format!("{rows} x {columns} is too large: at most 2147483647 rows and columns are read")));
        }
        self.size = Size { rows: rows as usize, columns: columns as usize, entries };
        Ok(())
    }

    fn next_element(&mut self) -> Result<Option<(u32, u32, f32)>> {
        if !self.data_line()? {
            if self.read < self.size.entries {
                return Err(self.bad(format!("the file ends after {} of its {} entries: it is cut off", self.read, self.size.entries)));
            }
            return Ok(None);
        }
        if self.read == self.size.entries {
            return Err(self.bad(format!("there are more entries than the {} of the size line", self.size.entries)));
        }
        let mut words = self.buffer.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
        let Size { rows, columns, .. } = self.size;
        let (row, column) = if self.coordinate {
            let (Some(row), Some(column)) = (words.next().and_then(integer), words.next().and_then(integer)) else {
                return Err(self.bad(format!("\"{}\" is not an entry: row, column and value are wanted", self.shown())));
            };
            if row < 1 || column < 1 || row > rows as u64 || column > columns as u64 {
                return Err(self
                    .bad(format!("the entry at row {row}, column {column} lies outside the {rows} x {columns} matrix (counting from 1)")));
            }
            ((row - 1) as u32, (column - 1) as u32)
        } else {
            ((self.read % rows as u64) as u32, (self.read / rows as u64) as u32)
        };
        let value = if self.pattern {
            Some(1.0)
        } else {
            words.next().and_then(|w| std::str::from_utf8(w).ok()).and_then(|w| w.parse::<f32>().ok())
        };
        let (Some(value), None) = (value, words.next()) else {
            return Err(self.bad(format!(
                "\"{}\" is not an entry: {}",
                self.shown(),
                if self.coordinate { "row, column and value are wanted" } else { "one value is wanted" }
            )));
        };
        if value.is_infinite() && self.buffer.trim_ascii_end().last().is_some_and(u8::is_ascii_digit) {
            return Err(self.bad(format!("\"{}\": the value is too large for a 32-bit float", self.shown())));
        }
        self.read += 1;
        Ok(Some((row, column, value)))
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(60)]).trim().to_string()
    }
}

/// Digits as a number; anything else, or one too long, is none.
fn integer(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > 18 {
        return None;
    }
    word.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| 10 * n + (b - b'0') as u64))
}

#[cfg(test)]
mod tests;
