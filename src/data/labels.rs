//! What is known of cells beside their values: the columns of `cells.csv`.
//!
//! `cells.csv` has one line a cell: its id, then the label columns. A row finds its line by `NAME/lines.npy`, int32 [cells of NAME],
//! because ids need not be unique across modalities that are not paired.

use std::collections::HashMap;
use std::path::Path;

use super::formats::{Table, TableReader};
use super::manifest::LabelColumn;
use super::texts::{Texts, TextsBuilder};
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
    pub fn new(column: &str, texts: &Texts, lines: &[&[i32]], scope: &[bool]) -> Labels {
        let (classes, codes) = texts.classes();
        let mut order: Vec<u32> = (0..classes.len() as u32).collect();
        match classes.iter().map(|c| number(c)).collect::<Option<Vec<f64>>>() {
            Some(numbers) => order.sort_by(|&a, &b| {
                let by_number = numbers[a as usize].total_cmp(&numbers[b as usize]);
                by_number.then_with(|| classes[a as usize].cmp(classes[b as usize]))
            }),
            None => order.sort_by_key(|&c| classes[c as usize]),
        }
        let mut rank = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &c)| rank[c as usize] = i as u32);
        let code = |line: &i32| codes.get(*line as usize).copied().flatten().map(|c| rank[c as usize]);
        let rows = lines.iter().zip(scope);
        let rows = rows.map(|(lines, &labelled)| lines.iter().map(|line| if labelled { code(line) } else { None }).collect()).collect();
        let classes = order.iter().map(|&c| classes[c as usize].to_string()).collect();
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

/// Reads columns (0 is the id) of `cells.csv`, checking the number of lines.
pub(super) fn read_columns(file: &Path, columns: &[usize], lines: u64) -> Result<Vec<Texts>> {
    let mut reader = TableReader::open(file)?;
    reader.advance()?;
    let mut texts: Vec<TextsBuilder> = columns.iter().map(|_| TextsBuilder::default()).collect();
    let mut found = 0;
    while reader.advance()? {
        for (texts, &at) in texts.iter_mut().zip(columns) {
            if reader.fields().len() <= at {
                return Err(Error::input(file, format!("line {}", reader.line()), format!("column {} is missing", at + 1)));
            }
            texts.push(reader.text(at)?);
        }
        found += 1;
    }
    if found != lines {
        return Err(Error::input(file, "", format!("it has {found} cells, dataset.json says {lines}: import the dataset again")));
    }
    Ok(texts.into_iter().map(TextsBuilder::finish).collect())
}

/// A label table and the modality it is for.
pub struct Given {
    /// One modality alone, or all.
    pub modality: Option<usize>,
    /// The table.
    pub table: Table,
}

/// Label tables joined to cells. Texts stay in their tables: a cell's is looked up there.
pub struct Joined<'a> {
    /// Columns, in the order in which tables and columns were given.
    pub columns: Vec<LabelColumn>,
    /// Sentences for the user.
    pub notes: Vec<String>,
    tables: &'a [Given],
    /// For each column, the (table, column) that it is put together of; the first that has a text for a cell gives it.
    parts: Vec<Vec<(usize, usize)>>,
    /// For each table, its row of each line of `cells.csv`, or [`NO_ROW`].
    rows: Vec<Vec<u32>>,
}

const NO_ROW: u32 = u32::MAX;

/// Joins tables to cells. `cells` has, for each line of `cells.csv`, the (modality, id) of each of its rows, in the order of modalities.
pub fn join<'a>(tables: &'a [Given], names: &[&str], cells: &[Vec<(usize, &str)>]) -> Result<Joined<'a>> {
    let mut joined = Joined { columns: Vec::new(), notes: Vec::new(), tables, parts: Vec::new(), rows: Vec::new() };
    for (t, given) in tables.iter().enumerate() {
        let table = &given.table;
        let index: HashMap<&str, usize> = table.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
        let mut used = vec![false; table.ids.len()];
        let matching = |rows: &[(usize, &str)]| {
            rows.iter().filter(|(m, _)| given.modality.is_none_or(|g| g == *m)).find_map(|(_, id)| index.get(id)).copied()
        };
        let rows: Vec<u32> = cells.iter().map(|rows| matching(rows).map_or(NO_ROW, |row| row as u32)).collect();
        rows.iter().filter(|&&row| row != NO_ROW).for_each(|&row| used[row as usize] = true);
        joined.rows.push(rows);
        let scope = given.modality.map(|m| vec![names[m].to_string()]);
        for (column, name) in table.columns.iter().enumerate() {
            let place = joined.column(name, &scope, &table.file);
            joined.check(place, (t, column))?;
            joined.parts[place].push((t, column));
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

impl Joined<'_> {
    /// The text of a line of `cells.csv`, empty where the cell is unlabelled.
    pub fn text(&self, column: usize, line: usize) -> &str {
        self.parts[column].iter().map(|&part| self.part(part, line)).find(|text| !text.is_empty()).unwrap_or("")
    }

    /// What one table says of a line.
    fn part(&self, (table, column): (usize, usize), line: usize) -> &str {
        match self.rows[table][line] {
            NO_ROW => "",
            row => self.tables[table].table.values[column].get(row as usize),
        }
    }

    /// An error if a table contradicts what earlier ones say of some cell.
    fn check(&self, place: usize, part: (usize, usize)) -> Result<()> {
        if self.parts[place].is_empty() {
            return Ok(());
        }
        for line in 0..self.rows[part.0].len() {
            let (old, new) = (self.text(place, line), self.part(part, line));
            if !old.is_empty() && !new.is_empty() && old != new {
                let (table, row) = (&self.tables[part.0].table, self.rows[part.0][line] as usize);
                let message =
                    format!("the cell \"{}\" is \"{new}\" here and \"{old}\" in another table of labels: mend one of them", table.ids[row]);
                return Err(Error::input(
                    &table.file,
                    format!("line {}, column \"{}\"", table.lines[row], self.columns[place].name),
                    message,
                ));
            }
        }
        Ok(())
    }

    /// The place of a column, made if new; a column given for several modalities, or for all, labels them together.
    fn column(&mut self, name: &str, scope: &Option<Vec<String>>, file: &Path) -> usize {
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
        self.parts.push(Vec::new());
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
            values: vec![values.iter().collect()],
        }
    }

    #[test]
    fn classes_sort_as_numbers_if_all_are_and_empty_is_unlabelled() {
        let texts: Texts = ["10", "9", "", "9"].into_iter().collect();
        let labels = Labels::new("type", &texts, &[&[0, 1, 2, 3], &[3]], &[true, false]);
        assert_eq!(labels.classes, ["9", "10"]);
        assert_eq!(labels.rows, [vec![Some(1), Some(0), None, Some(0)], vec![None]]);
        assert!(labels.numbers(Path::new("x")).unwrap()[0][2].is_nan());
        let texts: Texts = ["b", "10", "9"].into_iter().collect();
        assert_eq!(Labels::new("type", &texts, &[], &[]).classes, ["10", "9", "b"]);
        assert!(Labels::new("type", &texts, &[], &[]).numbers(Path::new("x")).is_err());
    }

    #[test]
    fn a_row_without_a_cell_is_counted_and_a_table_without_any_is_an_error() {
        let cells = [vec![(0, "x"), (1, "p")], vec![(0, "y")]];
        let given = [Given { modality: None, table: table(&["p", "z"], "t", &["1", "2"]) }];
        let joined = join(&given, &["a", "b"], &cells).unwrap();
        assert_eq!([joined.text(0, 0), joined.text(0, 1)], ["1", ""]);
        assert!(joined.notes[0].contains("1 of 2 rows"));
        let given = [Given { modality: None, table: table(&["u"], "t", &["1"]) }];
        assert!(join(&given, &["a", "b"], &cells).err().unwrap().to_string().contains("none of its 1 cells"));
    }

    #[test]
    fn tables_for_one_modality_label_it_alone_and_contradictions_are_named() {
        let cells = [vec![(0, "x"), (1, "x")]];
        let given = |m, v| Given { modality: Some(m), table: table(&["x"], "t", &[v]) };
        let one = [given(0, "1")];
        let joined = join(&one, &["a", "b"], &cells).unwrap();
        assert_eq!(joined.columns[0].modalities.as_deref(), Some(&["a".to_string()][..]));
        let two = [given(0, "1"), given(1, "1")];
        let joined = join(&two, &["a", "b"], &cells).unwrap();
        assert_eq!(joined.columns[0].modalities.as_ref().unwrap().len(), 2);
        let message = join(&[given(0, "1"), given(1, "2")], &["a", "b"], &cells).err().unwrap().to_string();
        assert!(message.contains("\"2\" here and \"1\""), "{message}");
    }
}
