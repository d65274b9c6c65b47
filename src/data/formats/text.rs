//! Text, plain or gzip: opened by its content, read by line or by field, with the file and line in every complaint.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::data::mapped::open_regular;
use crate::data::texts::{Texts, TextsBuilder};
use crate::error::{Error, Result};

/// Opens a text file, through gzip if its first two bytes say so, whatever it is called.
pub fn open_text(path: &Path) -> Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(1 << 17, open_regular(path)?);
    let start = file.fill_buf().map_err(|e| Error::io("read", path, e))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::with_capacity(1 << 17, MultiGzDecoder::new(file))))
    } else {
        Ok(Box::new(file))
    }
}

/// A failed read: damaged compression is the file's fault, the rest the system's.
pub fn read_error(path: &Path, place: impl Into<String>, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Error::input(path, place, format!("the compressed data are damaged or cut off ({e}): copy the file again"))
        }
        _ => Error::io("read", path, e),
    }
}

/// The field separator that a file's ending says: a tab for `.tsv`, else a comma.
pub fn delimiter_of(path: &Path) -> u8 {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    if name.trim_end_matches(".gz").ends_with(".tsv") { b'\t' } else { b',' }
}

/// The non-empty lines of a small text file, as fields between tabs.
pub fn read_lines(path: &Path) -> Result<Vec<Vec<String>>> {
    let mut reader = open_text(path)?;
    let (mut lines, mut buffer) = (Vec::new(), Vec::new());
    loop {
        buffer.clear();
        let place = || format!("line {}", lines.len() + 1);
        if reader.read_until(b'\n', &mut buffer).map_err(|e| read_error(path, place(), e))? == 0 {
            break;
        }
        let line = std::str::from_utf8(&buffer).map_err(|_| Error::input(path, place(), "not UTF-8 text"))?;
        lines.push(line.trim_end_matches(['\n', '\r']).split('\t').map(str::to_string).collect());
    }
    while lines.last().is_some_and(|l: &Vec<String>| l.iter().all(|f| f.trim().is_empty())) {
        lines.pop();
    }
    Ok(lines)
}

/// A delimited table read record by record; quoting is the `csv` crate's business.
pub struct TableReader {
    reader: csv::Reader<Box<dyn Read>>,
    record: csv::ByteRecord,
    path: PathBuf,
    line: u64,
}

impl TableReader {
    /// Opens a table; the first record is not treated differently.
    pub fn open(path: &Path) -> Result<TableReader> {
        let text: Box<dyn Read> = Box::new(open_text(path)?);
        // Records end at line feeds, and a carriage return before one is trimmed off with the blanks: the crate's own treatment of
        // the pair counts a record's line from the line feed before it.
        let end = csv::Terminator::Any(b'\n');
        let reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter_of(path)).terminator(end).from_reader(text);
        Ok(TableReader { reader, record: csv::ByteRecord::new(), path: path.to_path_buf(), line: 0 })
    }

    /// Reads the next record; false at the end. Blank lines are skipped.
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            let before = self.reader.position().line();
            let more = self.reader.read_byte_record(&mut self.record).map_err(|e| match e.into_kind() {
                csv::ErrorKind::Io(e) => read_error(&self.path, format!("line {before}"), e),
                other => Error::input(&self.path, format!("line {before}"), format!("{other:?}")),
            })?;
            // The reader stands after the record's line feed (if the last line has one) and skips blank lines before a record.
            let inside: u64 = self.record.iter().flatten().map(|&b| u64::from(b == b'\n')).sum();
            self.line = self.reader.position().line().saturating_sub(1 + inside).max(before);
            let blank = self.record.len() == 1 && self.record.iter().all(|f| f.trim_ascii().is_empty());
            if !more || !blank {
                return Ok(more);
            }
        }
    }

    /// The fields of the current record; the last may end in a carriage return.
    pub fn fields(&self) -> &csv::ByteRecord {
        &self.record
    }

    /// The line at which the current record begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Field `i` as text, without blanks around it.
    pub fn text(&self, i: usize) -> Result<&str> {
        let bad = |message: String| Error::input(&self.path, format!("line {}", self.line), message);
        let field = self.record.get(i).unwrap_or(&[]).trim_ascii();
        if field.contains(&b'\r') && !field.contains(&b'\n') {
            return Err(bad("the lines end in carriage returns alone: save the file with line feeds".into()));
        }
        std::str::from_utf8(field).map_err(|_| bad(format!("field {} is not UTF-8 text: save the file as UTF-8", i + 1)))
    }

    /// All fields from `first` on, as text.
    pub fn texts(&self, first: usize) -> Result<Vec<String>> {
        (first..self.record.len()).map(|i| self.text(i).map(str::to_string)).collect()
    }
}

/// A table of text in memory: a header, ids in the first column, columns of fields. For labels and pairs, not for matrices.
#[derive(Debug, Clone)]
pub struct Table {
    /// The file.
    pub file: PathBuf,
    /// The first column.
    pub ids: Vec<String>,
    /// The line of each row.
    pub lines: Vec<u64>,
    /// Names of the other columns.
    pub columns: Vec<String>,
    /// Values by column, then row.
    pub values: Vec<Texts>,
}

impl Table {
    /// Reads a table whose ids and column names must not repeat.
    pub fn read(path: &Path) -> Result<Table> {
        let mut reader = TableReader::open(path)?;
        if !reader.advance()? {
            return Err(Error::input(path, "", "the file is empty: a header and one line a cell are wanted"));
        }
        let columns = reader.texts(1)?;
        if columns.is_empty() {
            return Err(Error::input(path, "line 1", "the header has one column: cell ids in the first and labels in the next are wanted"));
        }
        if let Some((first, _)) = first_repeat(&columns) {
            return Err(Error::input(path, "line 1", format!("the column \"{}\" stands there twice: rename one", columns[first])));
        }
        let mut values: Vec<TextsBuilder> = columns.iter().map(|_| TextsBuilder::default()).collect();
        let mut table = Table { file: path.to_path_buf(), ids: Vec::new(), lines: Vec::new(), values: Vec::new(), columns };
        while reader.advance()? {
            let found = reader.fields().len();
            if found != table.columns.len() + 1 {
                let message = format!("{found} fields, the header has {}", table.columns.len() + 1);
                return Err(Error::input(path, format!("line {}", reader.line()), message));
            }
            table.ids.push(reader.text(0)?.to_string());
            table.lines.push(reader.line());
            for (i, column) in values.iter_mut().enumerate() {
                column.push(reader.text(i + 1)?);
            }
        }
        table.values = values.into_iter().map(TextsBuilder::finish).collect();
        if let Some((a, b)) = first_repeat(&table.ids) {
            let message = format!("the cell \"{}\" stands on lines {} and {}: keep one", table.ids[a], table.lines[a], table.lines[b]);
            return Err(Error::input(path, "", message));
        }
        Ok(table)
    }
}

/// The earliest two positions of equal text, the later one being the first that repeats anything.
pub fn first_repeat(texts: &[String]) -> Option<(usize, usize)> {
    let mut order: Vec<u32> = (0..texts.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| texts[a as usize].cmp(&texts[b as usize]).then(a.cmp(&b)));
    let repeats = order.windows(2).filter(|w| texts[w[0] as usize] == texts[w[1] as usize]);
    repeats.map(|w| (w[0] as usize, w[1] as usize)).min_by_key(|&(_, later)| later)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    #[test]
    fn gzip_is_recognised_by_content_and_a_cut_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.csv");
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        let body: String = (0..500).map(|i| format!("c{i},{}\n", i * 7919 % 1013)).collect();
        gz.write_all(format!("cell,type\n{body}").as_bytes()).unwrap();
        let bytes = gz.finish().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let table = Table::read(&path).unwrap();
        assert_eq!((table.ids.len(), table.columns.as_slice(), table.lines[0]), (500, &["type".to_string()][..], 2));
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let message = Table::read(&path).unwrap_err().to_string();
        assert!(message.contains("damaged or cut off"), "{message}");
    }

    #[test]
    fn a_repeated_id_names_both_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.csv");
        std::fs::write(&path, "cell,type\r\na,1\r\nb,2\r\na,3\r\n").unwrap();
        let message = Table::read(&path).unwrap_err().to_string();
        assert!(message.contains("\"a\" stands on lines 2 and 4"), "{message}");
    }

    #[test]
    fn lines_are_counted_over_blank_ones_and_line_breaks_in_quotes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        for end in ["\n", "\r\n"] {
            let text = ["h,x", "", "\"a", "b\",1", "c,2", "", "", "d,3"].join(end);
            for text in [text.clone() + end, text] {
                std::fs::write(&path, &text).unwrap();
                let mut reader = TableReader::open(&path).unwrap();
                let mut lines = Vec::new();
                while reader.advance().unwrap() {
                    lines.push(reader.line());
                }
                // A last line without a line feed counts one too few for the empty lines before it.
                let last = if text.ends_with('\n') || end == "\r\n" { 8 } else { 7 };
                assert_eq!(lines, [1, 3, 5, last], "{text:?}");
            }
        }
        std::fs::write(&path, "h,x\ra,1\r").unwrap();
        let message = Table::read(&path).unwrap_err().to_string();
        assert!(message.contains("carriage returns alone"), "{message}");
    }

    #[test]
    fn the_first_repeat_is_the_earliest_in_the_file() {
        let texts: Vec<String> = ["z", "b", "z", "a", "a"].map(String::from).to_vec();
        assert_eq!(first_repeat(&texts), Some((0, 2)));
        assert_eq!(first_repeat(&texts[..2]), None);
    }
}
