//! Which rows are the same cell: a table of units, built by one of the rules of `--pairs`.
//!
//!   unit    a cell with rows in two modalities or more: one row number a modality, -1 where it has none, and a confidence in [0, 1]
//!   table   `pairs.npy`, int32 `[units, modalities]`; `pairs_confidence.npy`, f32 `[units]`, only if some confidence is not 1
//!
//! A row is in at most one unit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::formats::TableReader;
use crate::error::{Error, Result, nearest};

/// `--pairs`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairsRule {
    /// Equal cell ids are the same cell.
    ByName,
    /// Row i of every modality is the same cell.
    ByRow,
    /// No cell is known to be another.
    None,
    /// An id a modality, and perhaps a confidence; of the first two modalities, or of those that the first line names.
    File(PathBuf),
}

impl PairsRule {
    /// Reads the value of `--pairs`.
    pub fn parse(text: &str) -> PairsRule {
        match text {
            "by-name" => PairsRule::ByName,
            "by-row" => PairsRule::ByRow,
            "none" => PairsRule::None,
            file => PairsRule::File(PathBuf::from(file)),
        }
    }
}

/// The units of a dataset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Links {
    modalities: usize,
    rows: Vec<i32>,
    confidence: Option<Vec<f32>>,
}

impl Links {
    /// No units among `modalities`.
    pub fn none(modalities: usize) -> Links {
        Links { modalities, rows: Vec::new(), confidence: None }
    }

    /// From a table of rows [units, modalities], checked against the modalities' numbers of cells.
    pub fn new(modalities: usize, rows: Vec<i32>, confidence: Option<Vec<f32>>, cells: &[usize], file: &Path) -> Result<Links> {
        let links = Links { modalities, rows, confidence };
        let mut taken: Vec<Vec<bool>> = cells.iter().map(|&n| vec![false; n]).collect();
        for unit in 0..links.len() {
            let wrong = |message: String| Err(Error::input(file, format!("row {unit}"), message));
            let mut present = 0;
            for (m, taken) in taken.iter_mut().enumerate() {
                let stored = links.rows[unit * modalities + m];
                let Some(row) = links.row(unit, m) else {
                    if stored == -1 {
                        continue;
                    }
                    return wrong(format!("{stored} is neither a row number nor -1"));
                };
                match taken.get_mut(row as usize) {
                    None => return wrong(format!("row {row} of modality {m} does not exist, it has {} cells", taken.len())),
                    Some(true) => return wrong(format!("row {row} of modality {m} is paired twice")),
                    Some(free) => *free = true,
                }
                present += 1;
            }
            if present < 2 {
                return wrong("fewer than two modalities: that pairs nothing".into());
            }
            if !(0.0..=1.0).contains(&links.confidence(unit)) {
                return wrong(format!("the confidence {} lies outside 0..1", links.confidence(unit)));
            }
        }
        Ok(links)
    }

    /// Number of units.
    pub fn len(&self) -> usize {
        self.rows.len().checked_div(self.modalities).unwrap_or(0)
    }

    /// Whether nothing is paired.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row of a unit in a modality.
    pub fn row(&self, unit: usize, modality: usize) -> Option<u32> {
        u32::try_from(*self.rows.get(unit * self.modalities + modality)?).ok()
    }

    /// How sure the pairing of a unit is.
    pub fn confidence(&self, unit: usize) -> f32 {
        self.confidence.as_ref().and_then(|c| c.get(unit)).copied().unwrap_or(1.0)
    }

    /// Whether some confidence is not 1.
    pub fn weighted(&self) -> bool {
        self.confidence.is_some()
    }

    /// The table [units, modalities] as stored.
    pub fn table(&self) -> &[i32] {
        &self.rows
    }

    /// The confidences as stored, if any is not 1.
    pub fn confidences(&self) -> Option<&[f32]> {
        self.confidence.as_deref()
    }

    /// (row in a, row in b, confidence) of the units that are in both.
    pub fn pairs(&self, a: usize, b: usize) -> impl Iterator<Item = (u32, u32, f32)> {
        (0..self.len()).filter_map(move |u| Some((self.row(u, a)?, self.row(u, b)?, self.confidence(u))))
    }
}

/// Whether ids are just 0..N-1, which says nothing about which cells they are.
pub fn are_row_numbers<S: AsRef<str>>(ids: &[S]) -> bool {
    ids.iter().enumerate().all(|(i, id)| id.as_ref().parse::<usize>().is_ok_and(|n| n == i) && !id.as_ref().starts_with('+'))
}

/// A modality's name and cell ids, as pairing sees it.
pub struct Ids<'a> {
    /// The modality's name.
    pub name: &'a str,
    /// Id of each row.
    pub ids: &'a [String],
}

/// `by-row`: every row is a unit. All modalities must have the same number of cells.
pub fn by_row(modalities: &[Ids]) -> Result<Links> {
    let Some(first) = modalities.first() else { return Ok(Links::none(0)) };
    for other in modalities {
        if other.ids.len() != first.ids.len() {
            return Err(Error::usage(format!(
                "--pairs by-row: \"{}\" has {} cells and \"{}\" has {}: rows are the same cells only if there are equally many",
                first.name,
                first.ids.len(),
                other.name,
                other.ids.len()
            )));
        }
    }
    if modalities.len() < 2 {
        return Ok(Links::none(modalities.len()));
    }
    let rows = (0..first.ids.len() as i32).flat_map(|row| std::iter::repeat_n(row, modalities.len())).collect();
    Ok(Links { modalities: modalities.len(), rows, confidence: None })
}

/// `by-name`: an id in two modalities or more is a unit. Modalities whose ids are row numbers take no part.
pub fn by_name(modalities: &[Ids]) -> Links {
    let k = modalities.len();
    let mut units: HashMap<&str, usize> = HashMap::new();
    let mut table: Vec<Vec<i32>> = Vec::new();
    for (m, modality) in modalities.iter().enumerate().filter(|(_, m)| !are_row_numbers(m.ids)) {
        for (row, id) in modality.ids.iter().enumerate() {
            let unit = *units.entry(id).or_insert_with(|| {
                table.push(vec![-1; k]);
                table.len() - 1
            });
            table[unit][m] = row as i32;
        }
    }
    let rows = table.into_iter().filter(|unit| unit.iter().filter(|&&r| r >= 0).count() > 1).flatten().collect();
    Links { modalities: k, rows, confidence: None }
}

/// A file of pairs: an id a modality, and perhaps a confidence. A first line that names modalities says which ones, two or more, and an id may
/// then be missing; else the first two are meant, and a first line whose ids no modality has is a header.
pub fn from_file(file: &Path, modalities: &[Ids]) -> Result<Links> {
    let k = modalities.len();
    if k < 2 {
        return Err(Error::usage("--pairs names pairs of cells, but there is one modality: give two --modality"));
    }
    let mut of = vec![0, 1];
    let mut reader = TableReader::open(file)?;
    let mut seen: Vec<HashMap<u32, u64>> = vec![HashMap::new(); k];
    let (mut rows, mut confidence, mut first) = (Vec::new(), Vec::new(), true);
    let mut lookup: Vec<HashMap<&str, u32>> = of.iter().map(|&m| index(modalities[m].ids)).collect();
    while reader.advance()? {
        let place = format!("line {}", reader.line());
        let bad = |message: String| Err(Error::input(file, place.clone(), message));
        let fields = reader.texts(0)?;
        if std::mem::take(&mut first) {
            let named: Vec<usize> = fields.iter().map_while(|f| modalities.iter().position(|m| m.name == *f)).collect();
            let none = fields.iter().zip(&lookup).all(|(field, lookup)| !lookup.contains_key(field.as_str()));
            let number = fields.get(named.len().max(2)).is_some_and(|f| f.parse::<f32>().is_ok());
            // Beside names of modalities one that is nearly another's is not passed over.
            let names = || modalities.iter().map(|m| m.name);
            let is_name = |f: &&String| names().any(|n| n == f.as_str());
            let stray = fields.iter().find(|f| !is_name(f)).filter(|_| k > 2 && none && !number && fields.iter().any(|f| is_name(&f)));
            if let Some((field, meant)) = stray.and_then(|f| Some((f, nearest(f, names())?))) {
                return bad(format!("no modality is named \"{field}\" (did you mean \"{meant}\"?)"));
            }
            if (2..=named.len() + 1).contains(&fields.len()) && named.len() >= 2 && none && !number {
                if let Some(twice) = named.iter().enumerate().find(|(i, m)| named[..*i].contains(m)) {
                    return bad(format!("two columns are of \"{}\": a pair is of different modalities", modalities[*twice.1].name));
                }
                lookup = named.iter().map(|&m| index(modalities[m].ids)).collect();
                of = named;
                continue;
            }
            if (2..=3).contains(&fields.len()) && none && !number {
                continue;
            }
        }
        let n = of.len();
        if !(n..=n + 1).contains(&fields.len()) {
            let wanted = if n == 2 { "two".to_string() } else { n.to_string() };
            return bad(format!("{} fields: {wanted} cell ids and perhaps a confidence are wanted", fields.len()));
        }
        let mut unit = vec![-1; k];
        for (side, &m) in of.iter().enumerate() {
            if fields[side].is_empty() {
                continue;
            }
            let Some(&row) = lookup[side].get(fields[side].as_str()) else {
                let hint = nearest(&fields[side], modalities[m].ids.iter().map(String::as_str).take(10_000));
                let hint = hint.map(|h| format!(" (did you mean \"{h}\"?)")).unwrap_or_default();
                return bad(format!("\"{}\" is no cell of \"{}\"{hint}", fields[side], modalities[m].name));
            };
            if let Some(earlier) = seen[side].insert(row, reader.line()) {
                return bad(format!("the cell \"{}\" of \"{}\" is paired already on line {earlier}", fields[side], modalities[m].name));
            }
            unit[m] = row as i32;
        }
        if unit.iter().filter(|&&row| row >= 0).count() < 2 {
            return bad("fewer than two cell ids: a pair is of two modalities or more".to_string());
        }
        let sure = match fields.get(n).map(String::as_str) {
            None | Some("") => 1.0,
            Some(text) => match text.parse::<f32>() {
                Ok(c) if (0.0..=1.0).contains(&c) => c,
                _ if k > 2 && n == 2 => {
                    return bad(format!(
                        "the confidence \"{text}\" is not a number from 0 to 1; more than two ids want a first line that names the modalities"
                    ));
                }
                _ => return bad(format!("the confidence \"{text}\" is not a number from 0 to 1")),
            },
        };
        rows.extend(unit);
        confidence.push(sure);
    }
    if rows.is_empty() {
        return Err(Error::input(file, "", "there are no pairs in it: columns of cell ids are wanted, one a modality"));
    }
    let confidence = confidence.iter().any(|&c| c != 1.0).then_some(confidence);
    Ok(Links { modalities: k, rows, confidence })
}

fn index(ids: &[String]) -> HashMap<&str, u32> {
    ids.iter().enumerate().map(|(row, id)| (id.as_str(), row as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| t.to_string()).collect()
    }

    #[test]
    fn equal_names_pair_across_any_number_of_modalities() {
        let (a, b, c) = (ids(&["x", "y", "z"]), ids(&["z", "x"]), ids(&["q", "z"]));
        let links = by_name(&[Ids { name: "a", ids: &a }, Ids { name: "b", ids: &b }, Ids { name: "c", ids: &c }]);
        assert_eq!(links.table(), [0, 1, -1, 2, 0, 1]);
        assert_eq!(links.pairs(1, 2).collect::<Vec<_>>(), [(0, 1, 1.0)]);
    }

    #[test]
    fn row_numbers_never_pair_by_name() {
        let a = ids(&["0", "1", "2"]);
        assert!(are_row_numbers(&a) && !are_row_numbers(&ids(&["1", "0"])) && !are_row_numbers(&ids(&["+0"])));
        assert!(by_name(&[Ids { name: "a", ids: &a }, Ids { name: "b", ids: &a }]).is_empty());
    }

    #[test]
    fn by_row_names_both_counts() {
        let (a, b) = (ids(&["x", "y"]), ids(&["z"]));
        let message = by_row(&[Ids { name: "a", ids: &a }, Ids { name: "b", ids: &b }]).unwrap_err().to_string();
        assert!(message.contains("\"a\" has 2 cells and \"b\" has 1"), "{message}");
    }

    #[test]
    fn a_file_of_pairs_with_header_and_confidence_is_read_and_its_faults_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.csv");
        let (a, b) = (ids(&["x", "y"]), ids(&["p", "q"]));
        let modalities = [Ids { name: "rna", ids: &a }, Ids { name: "atac", ids: &b }];
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            from_file(&path, &modalities)
        };
        let links = read("first,second,confidence\nx,q,0.5\ny,p,\n").unwrap();
        assert_eq!((links.table(), links.confidences()), (&[0, 1, 1, 0][..], Some(&[0.5, 1.0][..])));
        assert_eq!(read("atac,rna\nq,x\n").unwrap().table(), [0, 1]);
        assert_eq!(read("x,p\n").unwrap().confidences(), None);
        for (text, words) in [
            ("x,p\nx,q\n", "line 2: the cell \"x\" of \"rna\" is paired already on line 1"),
            ("x,p\ny,r\n", "line 2: \"r\" is no cell of \"atac\""),
            ("x,p,1.5\n", "confidence \"1.5\""),
            ("x\n", "1 fields"),
            ("a,b\n", "no pairs"),
            ("rna,rna\nx,y\n", "two columns are of \"rna\""),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_file_of_several_modalities_names_them_and_may_leave_cells_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.csv");
        let (a, b, c) = (ids(&["x", "y"]), ids(&["p", "q"]), ids(&["u", "v"]));
        let modalities = [Ids { name: "rna", ids: &a }, Ids { name: "atac", ids: &b }, Ids { name: "protein", ids: &c }];
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            from_file(&path, &modalities)
        };
        let links = read("protein,rna,atac\nu,x,\nv,y,p\n").unwrap();
        assert_eq!((links.table(), links.confidences()), (&[0, -1, 0, 1, 0, 1][..], None));
        let links = read("rna,atac,protein,sure\n,q,u,0.5\nx,,v,\n").unwrap();
        assert_eq!((links.table(), links.confidences()), (&[-1, 1, 0, 0, -1, 1][..], Some(&[0.5, 1.0][..])));
        assert_eq!(read("protein,rna\nu,x\n").unwrap().table(), [0, -1, 0]);
        for (text, words) in [
            ("rna,atac,protein\nx,,\n", "line 2: fewer than two cell ids"),
            ("rna,atac,protein\nx,p\n", "line 2: 2 fields: 3 cell ids"),
            ("rna,atac,protein\nx,p,u\ny,,u\n", "\"u\" of \"protein\" is paired already on line 2"),
            ("rna,atac,protein,sure,more\n", "5 fields"),
            ("rna,atac,rna\nx,p,y\n", "two columns are of \"rna\""),
            ("rna,atac,proteins\nx,p,u\n", "no modality is named \"proteins\" (did you mean \"protein\"?)"),
            ("rna,protien\nx,u\n", "did you mean \"protein\"?"),
            ("x,p,u\n", "names the modalities"),
            ("rna,atac,0.5\n", "\"rna\" is no cell"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_damaged_table_is_an_error() {
        let file = Path::new("pairs.npy");
        let new = |rows: Vec<i32>| Links::new(2, rows, None, &[2, 2], file);
        assert!(new(vec![0, 1, 1, 0]).is_ok());
        for rows in [vec![0, 2], vec![0, -2], vec![0, -1], vec![0, 0, 0, 1]] {
            assert!(new(rows).is_err());
        }
        assert!(Links::new(2, vec![0, 0], Some(vec![f32::NAN]), &[1, 1], file).is_err());
    }
}
