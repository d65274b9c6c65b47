//! Which cells training never sees, and which pairs it may know.
//!
//! A held-out cell is held out in every modality in which it appears: the draw is over cells (lines of `cells.csv`), separately for
//! each set of modalities a cell appears in, so that paired cells and the unpaired ones of each modality all give their fraction.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::dataset::Dataset;
use super::labels::number;
use crate::engine::rng;
use crate::error::{Error, Result};

/// Streams of random numbers: the bytes of "hold" and "pair".
const HOLDOUT_STREAM: u32 = 0x686f_6c64;
const PAIRED_STREAM: u32 = 0x7061_6972;

/// `--holdout`
#[derive(Debug, Clone, PartialEq)]
pub enum Holdout {
    /// This fraction of the cells, drawn by the seed.
    Fraction(f64),
    /// The cells whose label in a column has a value.
    Column {
        /// The label column.
        column: String,
        /// The value; numbers compare as numbers.
        value: String,
    },
}

impl Holdout {
    /// Reads `0.2` or `COLUMN=VALUE`.
    pub fn parse(text: &str) -> Result<Holdout> {
        if let Some((column, value)) = text.split_once('=') {
            if column.is_empty() || value.is_empty() {
                return Err(Error::usage(format!("--holdout \"{text}\": COLUMN=VALUE is wanted, as in test=1")));
            }
            return Ok(Holdout::Column { column: column.to_string(), value: value.to_string() });
        }
        match text.parse::<f64>() {
            Ok(f) if f > 0.0 && f < 1.0 => Ok(Holdout::Fraction(f)),
            _ => Err(Error::usage(format!(
                "--holdout \"{text}\": a fraction between 0 and 1 or COLUMN=VALUE is wanted, as in 0.2 or test=1"
            ))),
        }
    }
}

/// As it is typed.
impl std::fmt::Display for Holdout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holdout::Fraction(x) => write!(f, "{x}"),
            Holdout::Column { column, value } => write!(f, "{column}={value}"),
        }
    }
}

impl FromStr for Holdout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Holdout> {
        Holdout::parse(text)
    }
}

/// What a cell is to a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is trained on.
    Trained,
    /// It is kept out of training, to measure on.
    HeldOut,
    /// It shows too little to be trained on, and nobody asked to measure on it.
    LeftOut,
}

impl Role {
    /// Whether it belongs to the held-out cells (or, not `held_out`, to those that are trained on).
    pub fn is(self, held_out: bool) -> bool {
        self == Role::from(held_out)
    }
}

impl From<bool> for Role {
    fn from(held_out: bool) -> Role {
        if held_out { Role::HeldOut } else { Role::Trained }
    }
}

/// What the rows of each modality are to a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// For each modality, each row's role.
    pub roles: Vec<Vec<Role>>,
}

impl Split {
    /// Everything is trained on.
    pub fn none(dataset: &Dataset) -> Split {
        Split::all(dataset, Role::Trained)
    }

    /// Every cell is the same to it.
    pub fn all(dataset: &Dataset, role: Role) -> Split {
        Split { roles: dataset.modalities().iter().map(|m| vec![role; m.cells()]).collect() }
    }

    /// Whether any cell is held out.
    pub fn holds_out(&self) -> bool {
        self.roles.iter().flatten().any(|&r| r == Role::HeldOut)
    }

    /// Leaves out what is trained on here and is not among the ascending `rows` of each modality.
    pub fn keep(&mut self, rows: &[Vec<u32>]) {
        for (roles, kept) in self.roles.iter_mut().zip(rows) {
            let left_out = |(row, role): &(u32, &mut Role)| **role == Role::Trained && kept.binary_search(row).is_err();
            (0u32..).zip(roles).filter(left_out).for_each(|(_, role)| *role = Role::LeftOut);
        }
    }

    /// Row numbers of a modality that are trained on.
    pub fn training(&self, modality: usize) -> Vec<u32> {
        self.rows(modality, false)
    }

    /// Row numbers of a modality that are held out.
    pub fn held_out(&self, modality: usize) -> Vec<u32> {
        self.rows(modality, true)
    }

    fn rows(&self, modality: usize, held: bool) -> Vec<u32> {
        self.roles[modality].iter().zip(0u32..).filter(|(role, _)| role.is(held)).map(|(_, row)| row).collect()
    }

    /// The units of the dataset that are trained on; since a cell is the same everywhere, its first row decides.
    pub fn training_units(&self, dataset: &Dataset) -> Vec<usize> {
        self.units(dataset, false)
    }

    /// The units of the dataset that are held out.
    pub fn held_out_units(&self, dataset: &Dataset) -> Vec<usize> {
        self.units(dataset, true)
    }

    fn units(&self, dataset: &Dataset, held: bool) -> Vec<usize> {
        let links = dataset.links();
        let role = |unit| (0..self.roles.len()).find_map(|m| links.row(unit, m).map(|row| self.roles[m][row as usize]));
        (0..links.len()).filter(|&u| role(u).unwrap_or(Role::Trained).is(held)).collect()
    }
}

/// Decides which rows are held out; an error if that leaves a modality without training cells, or holds out nothing.
pub fn split(dataset: &Dataset, holdout: &Holdout, seed: u64) -> Result<Split> {
    let cells = match holdout {
        Holdout::Fraction(f) => draw(dataset, *f, seed),
        Holdout::Column { column, value } => matching(dataset, column, value)?,
    };
    let roles = dataset.modalities().iter().map(|m| m.lines().iter().map(|&l| Role::from(cells[l as usize])).collect());
    let split = Split { roles: roles.collect() };
    if !cells.contains(&true) {
        let Holdout::Fraction(f) = holdout else { return Ok(split) };
        return Err(Error::usage(format!("--holdout {f}: that fraction of {} cells is none, take a larger one", cells.len())));
    }
    for (m, roles) in dataset.modalities().iter().zip(&split.roles) {
        if !roles.contains(&Role::Trained) {
            return Err(Error::usage(format!(
                "--holdout keeps out all {} cells of \"{}\": none is left to train on",
                roles.len(),
                m.name()
            )));
        }
    }
    Ok(split)
}

/// A number for (stream, element) by which elements are put in random order.
fn draw_key(seed: u64, stream: u32, element: usize) -> u64 {
    let [a, b, ..] = rng::philox([element as u32, 0, 0, stream], [seed as u32, (seed >> 32) as u32]);
    (a as u64) << 32 | b as u64
}

/// For each cell whether it is held out: round(f n) of the n cells of each set of modalities.
fn draw(dataset: &Dataset, fraction: f64, seed: u64) -> Vec<bool> {
    let mut appears: Vec<Vec<u16>> = vec![Vec::new(); dataset.cells()];
    for (m, modality) in dataset.modalities().iter().enumerate() {
        for &line in modality.lines() {
            appears[line as usize].push(m as u16);
        }
    }
    let mut strata: BTreeMap<&[u16], Vec<usize>> = BTreeMap::new();
    for (line, set) in appears.iter().enumerate() {
        strata.entry(set).or_default().push(line);
    }
    let mut held = vec![false; appears.len()];
    for lines in strata.values_mut() {
        lines.sort_by_cached_key(|&line| (draw_key(seed, HOLDOUT_STREAM, line), line));
        let n = (fraction * lines.len() as f64).round() as usize;
        for &line in &lines[..n] {
            held[line] = true;
        }
    }
    held
}

fn matching(dataset: &Dataset, column: &str, value: &str) -> Result<Vec<bool>> {
    let labels = dataset.label(column)?;
    let same = |class: &String| class == value || number(class).is_some_and(|n| number(value) == Some(n));
    let Some(wanted) = labels.classes.iter().position(same) else {
        let mut have: Vec<&str> = labels.classes.iter().take(20).map(String::as_str).collect();
        if labels.classes.len() > have.len() {
            have.push("...");
        }
        return Err(Error::usage(format!("--holdout {column}={value}: no cell has that value; there are: {}", have.join(", "))));
    };
    let mut held = vec![false; dataset.cells()];
    for (m, rows) in dataset.modalities().iter().zip(&labels.rows) {
        for (&line, class) in m.lines().iter().zip(rows) {
            held[line as usize] |= *class == Some(wanted as u32);
        }
    }
    Ok(held)
}

/// `--paired`: floor(f n) of the units, drawn by the seed, ascending.
pub fn keep_pairs(units: &[usize], fraction: f64, seed: u64) -> Vec<usize> {
    // The small term keeps 0.29 x 100 at 29, which f64 computes as 28.999999999999996.
    let n = ((fraction * units.len() as f64 + 1e-9).floor() as usize).min(units.len());
    let mut order = units.to_vec();
    order.sort_by_cached_key(|&unit| (draw_key(seed, PAIRED_STREAM, unit), unit));
    order.truncate(n);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::ModalitySource;
    use crate::data::hooks::Hooks;
    use crate::data::import::{ImportSpec, LabelSource, import};

    /// 40 cells in both modalities, 20 only in a, 10 only in b, with a label `test` that is 1 for every fifth.
    fn dataset() -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, ids: std::ops::Range<usize>| {
            let rows: String = ids.map(|i| format!("c{i},{i}\n")).collect();
            std::fs::write(dir.path().join(name), format!("cell,x\n{rows}")).unwrap();
        };
        write("a.csv", 0..60);
        write("b.csv", 20..70);
        let rows: String = (0..70).map(|i| format!("c{i},{}\n", usize::from(i % 5 == 0))).collect();
        std::fs::write(dir.path().join("labels.csv"), format!("cell,test\n{rows}")).unwrap();
        let modality = |name: &str| ModalitySource { name: name.into(), file: dir.path().join(format!("{name}.csv")), key: None };
        let labels = vec![LabelSource { modality: None, file: dir.path().join("labels.csv"), column: None }];
        let spec = ImportSpec { modalities: vec![modality("a"), modality("b")], labels, ..Default::default() };
        import(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let dataset = Dataset::open(&dir.path().join("d")).unwrap();
        (dir, dataset)
    }

    #[test]
    fn a_held_out_cell_is_held_out_wherever_it_appears() {
        let (_dir, dataset) = dataset();
        assert_eq!(dataset.links().len(), 40);
        for seed in 0..20 {
            let split = split(&dataset, &Holdout::Fraction(0.2), seed).unwrap();
            for (a, b, _) in dataset.links().pairs(0, 1) {
                assert_eq!(split.roles[0][a as usize], split.roles[1][b as usize]);
            }
            assert_eq!((split.held_out(0).len(), split.held_out(1).len()), (8 + 4, 8 + 2));
            assert_eq!(split.held_out_units(&dataset).len() + split.training_units(&dataset).len(), 40);
        }
    }

    #[test]
    fn what_is_not_kept_belongs_to_neither_part() {
        let (_dir, dataset) = dataset();
        let mut split = split(&dataset, &Holdout::Fraction(0.2), 1).unwrap();
        let (held_out, trained) = (split.held_out(0), split.training(0));
        split.keep(&[trained[3..].to_vec(), split.training(1)]);
        assert_eq!((split.held_out(0), split.training(0)), (held_out, trained[3..].to_vec()));
        assert_eq!(split.roles[0].iter().filter(|&&r| r == Role::LeftOut).count(), 3);
        assert!(split.holds_out() && !Split::none(&dataset).holds_out());
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let (_dir, dataset) = dataset();
        let draw = |seed| split(&dataset, &Holdout::Fraction(0.5), seed).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_column_decides_by_value_and_a_missing_value_lists_the_others() {
        let (_dir, dataset) = dataset();
        let split_by = |text: &str| split(&dataset, &Holdout::parse(text).unwrap(), 0);
        assert_eq!(split_by("test=1.0").unwrap().held_out(0), (0..60).step_by(5).collect::<Vec<u32>>());
        assert!(split_by("test=7").unwrap_err().to_string().contains("there are: 0, 1"));
        assert!(split_by("tset=1").unwrap_err().to_string().contains("there are: test"));
        assert!(split_by("0.001").unwrap_err().to_string().contains("is none"));
    }

    #[test]
    fn what_is_no_holdout_is_refused() {
        for bad in ["0", "1", "-0.1", "nan", "x", "=1", "a="] {
            assert_eq!(Holdout::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn pairs_are_kept_by_fraction_and_seed() {
        let units: Vec<usize> = (0..100).map(|u| 2 * u).collect();
        for (f, n) in [(0.0, 0), (0.29, 29), (0.999, 99), (1.0, 100)] {
            let kept = keep_pairs(&units, f, 3);
            assert!(kept.len() == n && kept.is_sorted() && kept.iter().all(|u| units.contains(u)));
        }
        assert_ne!(keep_pairs(&units, 0.5, 1), keep_pairs(&units, 0.5, 2));
    }
}
