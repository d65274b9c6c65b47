//! Labels that came with the files of modalities (the `obs` of an `.h5ad`), made to agree with each other and with the tables typed.
//!
//! Columns of one name are one column as long as no cell is labelled differently by two of them. Where one is - `total_counts` of
//! RNA is not that of ATAC - the later one is called `NAME:COLUMN`, as MuData does, and a note says so. A table that was typed
//! comes first, and what contradicts two typed tables is still the error that [`labels::join`](super::labels::join) gives.

use std::collections::HashMap;

use super::formats::Table;
use super::labels::Given;
use super::pairs::Links;
use super::texts::Texts;

/// Appends the tables of the modalities to those typed; sentences for the user.
pub fn append(typed: &mut Vec<Given>, own: Vec<(usize, Table)>, names: &[&str], ids: &[&[String]], links: &Links) -> Vec<String> {
    let mut notes = Vec::new();
    let units: Vec<Vec<Option<usize>>> = (0..names.len()).map(|m| units_of_rows(m, ids[m].len(), links)).collect();
    for (m, mut table) in own {
        for column in 0..table.columns.len() {
            let name = table.columns[column].clone();
            let differs = typed.iter().any(|given| contradicts(given, &name, m, &table.values[column], ids, &units, links));
            if differs {
                let renamed = format!("{}:{name}", names[m]);
                notes.push(format!(
                    "the labels \"{name}\" of {} differ from those of the same cells elsewhere: they are kept as \"{renamed}\"",
                    names[m]
                ));
                table.columns[column] = renamed;
            }
        }
        typed.push(Given { modality: Some(m), table });
    }
    notes
}

fn units_of_rows(m: usize, rows: usize, links: &Links) -> Vec<Option<usize>> {
    let mut units = vec![None; rows];
    for unit in 0..links.len() {
        if let Some(slot) = links.row(unit, m).and_then(|row| units.get_mut(row as usize)) {
            *slot = Some(unit);
        }
    }
    units
}

/// Whether some row of modality `m` is labelled in `texts` otherwise than `given` labels its cell.
fn contradicts(given: &Given, name: &str, m: usize, texts: &Texts, ids: &[&[String]], units: &[Vec<Option<usize>>], links: &Links) -> bool {
    let Some(column) = given.table.columns.iter().position(|c| c == name) else { return false };
    let values = &given.table.values[column];
    let index: HashMap<&str, usize> = given.table.ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let other = |row: usize| {
        let modalities = given.modality.map_or(0..ids.len(), |g| g..g + 1);
        let id_in = |o: usize| {
            let at = if o == m { Some(row) } else { links.row(units[m][row]?, o).map(|r| r as usize) };
            ids[o].get(at?).map(String::as_str)
        };
        modalities.filter_map(id_in).find_map(|id| index.get(id)).map(|&i| values.get(i))
    };
    texts.iter().enumerate().any(|(row, text)| !text.is_empty() && other(row).is_some_and(|o| !o.is_empty() && o != text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pairs::{self, Ids};

    fn table(ids: &[&str], column: &str, values: &[&str]) -> Table {
        let texts = |t: &[&str]| t.iter().map(|x| x.to_string()).collect::<Vec<_>>();
        Table {
            file: "a.h5ad".into(),
            lines: (0..ids.len() as u64).collect(),
            ids: texts(ids),
            columns: vec![column.into()],
            values: vec![values.iter().collect()],
        }
    }

    fn columns(typed: Vec<Given>, a: &[&str], b: &[&str]) -> (Vec<String>, Vec<String>) {
        let names: [Vec<String>; 2] = [["x", "y"].map(String::from).to_vec(), ["y", "z"].map(String::from).to_vec()];
        let links = pairs::by_name(&[Ids { name: "rna", ids: &names[0] }, Ids { name: "atac", ids: &names[1] }]);
        let mut all = typed;
        let own = vec![(0, table(&["x", "y"], "t", a)), (1, table(&["y", "z"], "t", b))];
        let notes = append(&mut all, own, &["rna", "atac"], &[&names[0], &names[1]], &links);
        (all.iter().flat_map(|g| g.table.columns.clone()).collect(), notes)
    }

    #[test]
    fn columns_that_agree_keep_their_name_and_others_are_told_apart() {
        assert_eq!(columns(vec![], &["1", "2"], &["2", "3"]).0, ["t", "t"]);
        assert_eq!(columns(vec![], &["1", ""], &["2", "3"]).0, ["t", "t"]);
        let (names, notes) = columns(vec![], &["1", "2"], &["9", "3"]);
        assert_eq!(names, ["t", "atac:t"]);
        assert!(notes[0].contains("atac:t"), "{notes:?}");
    }

    #[test]
    fn a_typed_table_keeps_its_name() {
        let typed = || vec![Given { modality: None, table: table(&["z"], "t", &["7"]) }];
        assert_eq!(columns(typed(), &["1", "2"], &["2", "3"]).0, ["t", "t", "atac:t"]);
        let typed = || vec![Given { modality: Some(0), table: table(&["y"], "t", &["7"]) }];
        assert_eq!(columns(typed(), &["1", "2"], &["2", "3"]).0, ["t", "rna:t", "atac:t"]);
    }
}
