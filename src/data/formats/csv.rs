//! Comma- and tab-separated tables: the first row names the features, the first column the cells, an empty field is a missing value.

use std::path::{Path, PathBuf};

use super::text::TableReader;
use super::{Head, Layout, Opening, Row, Rows, Source, finite};
use crate::data::npy::Dtype;
use crate::error::{Error, Result};

pub(super) fn open(opening: &Opening) -> Result<Source> {
    let file = opening.file;
    if let Some(key) = opening.key {
        return Err(Error::input(file, "", format!("a table holds one modality, so \"#{key}\" names nothing in it: leave it away")));
    }
    let mut reader = TableReader::open(file)?;
    if !reader.advance()? {
        return Err(Error::input(file, "", "the file is empty: a row of feature names and one row a cell are wanted"));
    }
    let features = reader.texts(1)?;
    if features.is_empty() {
        let first = reader.text(0)?;
        let hint = [(';', "semicolons"), ('\t', "tabs: call it .tsv"), (',', "commas: call it .csv")];
        let hint = hint.iter().find(|(c, _)| first.contains(*c)).map(|(_, name)| format!("; the fields seem to be separated by {name}"));
        return Err(Error::input(file, "line 1", format!("one field, no feature names{}", hint.unwrap_or_default())));
    }
    let head = Head {
        cells: None,
        shape: vec![features.len()],
        layout: Layout::Dense(Dtype::F32),
        features: Some(features.clone()),
        cell_ids: None,
    };
    let rows = CsvRows { reader, features, file: file.to_path_buf(), missing_nan: opening.missing_nan, lines: Vec::new() };
    Ok(Source { head, rows: Box::new(rows) })
}

struct CsvRows {
    reader: TableReader,
    features: Vec<String>,
    file: PathBuf,
    missing_nan: bool,
    lines: Vec<u64>,
}

impl Rows for CsvRows {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if !self.reader.advance()? {
            return Ok(false);
        }
        let line = self.reader.line();
        let (found, wanted) = (self.reader.fields().len(), self.features.len() + 1);
        if found != wanted {
            let hint =
                if self.lines.is_empty() && found == wanted + 1 { "; the header needs a name for the column of cell ids" } else { "" };
            return Err(Error::input(&self.file, format!("line {line}"), format!("{found} fields, the header has {wanted}{hint}")));
        }
        let id = self.reader.text(0)?;
        if id.is_empty() {
            return Err(Error::input(&self.file, format!("line {line}"), "the cell id (the first field) is empty"));
        }
        row.id = Some(id.to_string());
        row.indices.clear();
        row.values.clear();
        for (field, name) in self.reader.fields().iter().skip(1).zip(&self.features) {
            row.values.push(number(field, self.missing_nan, &self.file, || format!("line {line}, column \"{name}\""))?);
        }
        self.lines.push(line);
        Ok(true)
    }

    fn place(&self, row: usize) -> String {
        format!("line {}", self.lines.get(row).copied().unwrap_or(0))
    }
}

/// A field as a number: empty is missing; the words nan and inf are values that are not finite.
fn number(field: &[u8], missing_nan: bool, file: &Path, place: impl Fn() -> String) -> Result<f32> {
    let field = field.trim_ascii();
    if field.is_empty() {
        return Ok(f32::NAN);
    }
    let text = std::str::from_utf8(field).unwrap_or("");
    let Ok(value) = text.parse::<f32>() else {
        let shown = String::from_utf8_lossy(&field[..field.len().min(40)]).into_owned();
        return Err(Error::input(file, place(), format!("\"{shown}\" is not a number; an empty field is a missing value")));
    };
    if value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
        return Err(Error::input(file, place(), format!("{text} is too large for a 32-bit float")));
    }
    finite(value, missing_nan, file, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str, content: &[u8], missing_nan: bool) -> Result<(Vec<String>, Vec<Vec<f32>>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut source = open(&Opening { file: &path, key: None, rows: None, missing_nan, scratch: dir.path() })?;
        let (mut ids, mut rows, mut row) = (Vec::new(), Vec::new(), Row::default());
        while source.rows.next_row(&mut row)? {
            ids.push(row.id.clone().unwrap());
            rows.push(row.values.clone());
        }
        Ok((ids, rows))
    }

    fn complaint(content: &[u8]) -> String {
        read("a.csv", content, false).unwrap_err().to_string()
    }

    #[test]
    fn ids_values_quotes_and_missing_fields_are_read() {
        let (ids, rows) = read("a.csv", b"\xef\xbb\xbf,\"g,1\",g2\r\n\"c 1\",1.5, -2e3\r\nc2,,+.5\r\n", false).unwrap();
        assert_eq!(ids, ["c 1", "c2"]);
        assert_eq!(rows[0], [1.5, -2000.0]);
        assert!(rows[1][0].is_nan() && rows[1][1] == 0.5);
        let (ids, rows) = read("a.tsv", b"cell\tg1\nx\t3", false).unwrap();
        assert_eq!((ids[0].as_str(), rows[0][0]), ("x", 3.0));
    }

    #[test]
    fn complaints_name_line_and_column() {
        assert!(complaint(b"cell,a,b\nx,1,2\ny,1\n").ends_with("line 3: 2 fields, the header has 3"));
        assert!(complaint(b"cell,a,b\nx,1,two\n").contains("line 2, column \"b\": \"two\" is not a number"));
        assert!(complaint(b"cell,a\nx,nan\n").contains("--missing nan"));
        assert!(complaint(b"cell,a\nx,-inf\n").contains("infinite"));
        assert!(complaint(b"cell,a\nx,1e60\n").contains("too large"));
        assert!(complaint(b"cell,a\n,1\n").contains("cell id"));
        assert!(complaint(b"a,b\nx,1,2\n").contains("name for the column of cell ids"));
        assert!(complaint(b"cell;a\nx;1\n").contains("semicolons"));
        assert!(complaint(b"").contains("empty"));
        assert!(complaint(b"cell,g\xff\nx,1\n").contains("UTF-8"));
        assert!(complaint(b"cell,a\nx,\xff\xfe\n").contains("not a number"));
    }

    #[test]
    fn nan_and_inf_are_missing_if_told() {
        let (_, rows) = read("a.csv", b"cell,a,b,c\nx,nan,-inf,3\n", true).unwrap();
        assert!(rows[0][0].is_nan() && rows[0][1].is_nan() && rows[0][2] == 3.0);
    }

    proptest! {
        #[test]
        fn any_bytes_give_rows_or_an_error(bytes in proptest::collection::vec(prop_oneof![Just(b','), Just(b'\n'), Just(b'"'), any::<u8>()], 0..120)) {
            let _ = read("a.csv", &bytes, false);
        }

        #[test]
        fn printed_floats_are_read_back_exactly(values in proptest::collection::vec(-1e30f32..1e30, 1..20)) {
            let header: String = (0..values.len()).map(|i| format!(",f{i}")).collect();
            let body: String = values.iter().map(|v| format!(",{v}")).collect();
            let (_, rows) = read("a.csv", format!("cell{header}\nx{body}\n").as_bytes(), false).unwrap();
            prop_assert_eq!(&rows[0], &values);
        }
    }
}
