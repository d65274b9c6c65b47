//! What is known of cells beside their values: the columns of `cells.csv`.
//!
//! `cells.csv` has one line a cell: its id, then the label columns. A row finds its line by `NAME/lines.npy`, int32 [cells of NAME],
//! because ids need not be unique across modalities that are not paired.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::formats::{Table, TableReader};
use super::manifest::LabelColumn;
use crate::error::{Error, Result};

/// A label column as classes, by modality and row.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// The column's name.
    pub column: String,
    /// The distinct labels: by number if all are numbers, else by text.
    pub classes: Vec<String>,
    /// For each modality, the class of each row; none where the cell is unlabelled.
    pub rows: Vec<Vec<Option<u32>>>,
}

impl Labels {
    /// Classes from the column's texts by line, for rows given by their lines; `scope` says which modalities the column labels.
    pub fn new(column: &str, texts: &[String], lines: &[&[i32]], scope: &[bool]) -> Labels {
        let distinct: BTreeSet<&str> = texts.iter().map(String::as_str).filter(|t| !t.is_empty()).collect();
        let mut classes: Vec<String> = distinct.into_iter().map(str::to_string).collect();
        if classes.iter().all(|c| number(c).is_some()) {
            classes.sort_by(|a, b| number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)));
        }
        let codes: HashMap<&str, u32> = classes.iter().enumerate().map(|(i, c)| (c.as_str(), i as u32)).collect();
        let code = |line: &i32| codes.get(texts.get(*line as usize)?.as_str()).copied();
        let rows = lines.iter().zip(scope);
        let rows = rows.map(|(lines, &labelled)| lines.iter().map(|line| if labelled { code(line) } else { None }).collect()).collect();
        Labels { column: column.to_string(), classes, rows }
    }

    /// The label of a row as text.
    pub fn text(&self, modality: usize, row: usize) -> Option<&str> {
        let class = (*self.rows.get(modality)?.get(row)?)?;
        self.classes.get(class as usize).map(String::as_str)
    }

    /// The label of a row as a number, NaN where there is none; an error names a label that is not a number.
    pub fn numbers(&self, file: &Path) -> Result<Vec<Vec<f32>>> {
        if let Some(word) = self.classes.iter().find(|c| number(c).is_none()) {
            return Err(Error::input(file, format!("column \"{}\"", self.column), format!("\"{word}\" is not a number")));
        }
        let values: Vec<f32> = self.classes.iter().map(|c| number(c).unwrap_or(f64::NAN) as f32).collect();
        Ok(self.rows.iter().map(|rows| rows.iter().map(|c| c.map_or(f32::NAN, |c| values[c as usize])).collect()).collect())
    }
}

/// A finite number, as labels are compared.
pub(super) fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|x| x.is_finite())
}

/// Reads column `at` (0 is the id) of `cells.csv`, checking the number of lines.
pub(super) fn read_column(file: &Path, at: usize, lines: u64) -> Result<Vec<String>> {
    let mut reader = TableReader::open(file)?;
    reader.advance()?;
    let mut texts = Vec::new();
    while reader.advance()? {
        if reader.fields().len() <= at {
            return Err(Error::input(file, format!("line {}", reader.line()), format!("column {} is missing", at + 1)));
        }
        texts.push(reader.text(at)?.to_string());
    }
    if texts.len() as u64 != lines {
        return Err(Error::input(file, "", format!("it has {} cells, dataset.json says {lines}: import the dataset again", texts.len())));
    }
    Ok(texts)
}

/// A label table and the modality it is for.
pub struct Given {
    /// One modality alone, or all.
    pub modality: Option<usize>,
    /// The table.
    pub table: Table,
}

/// Label tables joined to cells.
#[derive(Debug, Default)]
pub struct Joined {
    /// Columns, in the order in which tables and columns were given.
    pub columns: Vec<LabelColumn>,
    /// Texts by column, then line; empty where unlabelled.
    pub values: Vec<Vec<String>>,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// Joins tables to cells. `cells` has, for each line of `cells.csv`, the (modality, id) of each of its rows, in the order of modalities.
pub fn join(tables: &[Given], names: &[&str], cells: &[Vec<(usize, &str)>]) -> Result<Joined> {
    let mut joined = Joined::default();
    for given in tables {
        let table = &given.table;
        let index: HashMap<&str, usize> = table.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
        let mut used = vec![false; table.ids.len()];
        let scope = given.modality.map(|m| vec![names[m].to_string()]);
        let places: Vec<usize> = table.columns.iter().map(|name| joined.column(name, &scope, &table.file, cells.len())).collect();
        for (line, rows) in cells.iter().enumerate() {
            let matching = rows.iter().filter(|(m, _)| given.modality.is_none_or(|g| g == *m)).find_map(|(_, id)| index.get(id));
            let Some(&row) = matching else { continue };
            used[row] = true;
            for (values, &place) in table.values.iter().zip(&places) {
                let (old, new) = (&mut joined.values[place][line], &values[row]);
                if !old.is_empty() && !new.is_empty() && old != new {
                    let message = format!(
                        "the cell \"{}\" is \"{new}\" here and \"{old}\" in another table of labels: mend one of them",
                        table.ids[row]
                    );
                    return Err(Error::input(&table.file, format!("line {}, column \"{}\"", table.lines[row], joined.columns[place].name), message));
                }
                if old.is_empty() {
                    old.clone_from(new);
                }
            }
        }
        let without = used.iter().filter(|&&u| !u).count();
        if without == used.len() {
            let examples = (table.ids.first(), cells.first().and_then(|c| c.first()));
            let example = match examples {
                (Some(a), Some((_, b))) => format!(" (\"{a}\" here, \"{b}\" there)"),
                _ => String::new(),
            };
            let message = format!("none of its {} cells is in the data{example}: cell ids are wanted in the first column", used.len());
            return Err(Error::input(&table.file, "", message));
        }
        if without > 0 {
            joined.notes.push(format!("{}: {without} of {} rows have no cell in the data", table.file.display(), used.len()));
        }
    }
    Ok(joined)
}

impl Joined {
    /// The place of a column, made if new; a column given for several modalities, or for all, labels them together.
    fn column(&mut self, name: &str, scope: &Option<Vec<String>>, file: &Path, lines: usize) -> usize {
        if let Some(at) = self.columns.iter().position(|c| c.name == name) {
            let column = &mut self.columns[at];
            column.modalities = match (column.modalities.take(), scope) {
                (Some(mut have), Some(new)) => {
                    have.extend(new.iter().filter(|n| !have.contains(n)).cloned().collect::<Vec<_>>());
                    Some(have)
                }
                _ => None,
            };
            return at;
        }
        self.columns.push(LabelColumn { name: name.to_string(), modalities: scope.clone(), source: file.display().to_string() });
        self.values.push(vec![String::new(); lines]);
        self.columns.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ids: &[&str], column: &str, values: &[&str]) -> Table {
        let texts = |t: &[&str]| t.iter().map(|x| x.to_string()).collect::<Vec<_>>();
        Table {
            file: "labels.csv".into(),
            lines: (2..2 + ids.len() as u64).collect(),
            ids: texts(ids),
            columns: vec![column.to_string()],
            values: vec![texts(values)],
        }
    }

    #[test]
    fn classes_sort_as_numbers_if_all_are_and_empty_is_unlabelled() {
        let texts: Vec<String> = ["10", "9", "", "9"].map(String::from).to_vec();
        let labels = Labels::new("type", &texts, &[&[0, 1, 2, 3], &[3]], &[true, false]);
        assert_eq!(labels.classes, ["9", "10"]);
        assert_eq!(labels.rows, [vec![Some(1), Some(0), None, Some(0)], vec![None]]);
        assert!(labels.numbers(Path::new("x")).unwrap()[0][2].is_nan());
        let texts: Vec<String> = ["b", "10", "9"].map(String::from).to_vec();
        assert_eq!(Labels::new("type", &texts, &[], &[]).classes, ["10", "9", "b"]);
        assert!(Labels::new("type", &texts, &[], &[]).numbers(Path::new("x")).is_err());
    }

    #[test]
    fn a_row_without_a_cell_is_counted_and_a_table_without_any_is_an_error() {
        let cells = [vec![(0, "x"), (1, "p")], vec![(0, "y")]];
        let joined = join(&[Given { modality: None, table: table(&["p", "z"], "t", &["1", "2"]) }], &["a", "b"], &cells).unwrap();
        assert_eq!(joined.values, [["1", ""]]);
        assert!(joined.notes[0].contains("1 of 2 rows"));
        let none = join(&[Given { modality: None, table: table(&["u"], "t", &["1"]) }], &["a", "b"], &cells);
        assert!(none.unwrap_err().to_string().contains("none of its 1 cells"));
    }

    #[test]
    fn tables_for_one_modality_label_it_alone_and_contradictions_are_named() {
        let cells = [vec![(0, "x"), (1, "x")]];
        let given = |m, v| Given { modality: Some(m), table: table(&["x"], "t", &[v]) };
        let joined = join(&[given(0, "1")], &["a", "b"], &cells).unwrap();
        assert_eq!(joined.columns[0].modalities.as_deref(), Some(&["a".to_string()][..]));
        let joined = join(&[given(0, "1"), given(1, "1")], &["a", "b"], &cells).unwrap();
        assert_eq!(joined.columns[0].modalities.as_ref().unwrap().len(), 2);
        let message = join(&[given(0, "1"), given(1, "2")], &["a", "b"], &cells).unwrap_err().to_string();
        assert!(message.contains("\"2\" here and \"1\""), "{message}");
    }
}
