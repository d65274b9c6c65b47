//! What the spaces of a code say of the label columns: silhouettes of classes, linear R² of numbers.
//!
//! | space | what |
//! | --- | --- |
//! | `shared.A`, `specific.A` | the columns of A's encoder that are the space's |
//! | `shared` | the mean of `shared.A` over the modalities |
//! | `table.shared`, `table.specific.A` | the learned tables of a model with latent optimisation: training cells alone |
//!
//! A column of at most [`MOST_CLASSES`] labels is classes, a column of numbers is numbers; one of few numbers is both, and so is one of two
//! classes, which count as 0 and 1.

use super::Trained;
use crate::data::Dataset;
use crate::data::labels::Labels;
use crate::data::split::{self, Role, Split};
use crate::error::Result;
use crate::metrics::silhouette::{EXACT, silhouette};
use crate::metrics::{Matrix, Metrics, linear};

/// More different labels than this are no classes here.
const MOST_CLASSES: usize = 50;
/// Of a dataset with more label columns than this, the first so many are told unless one is named.
const MOST_COLUMNS: usize = 20;
/// The space that all modalities have in common.
const SHARED: &str = "shared";

/// Codes of cells in one space.
struct Code {
    /// Its name in keys.
    name: String,
    modality: usize,
    width: usize,
    /// Row by row, `[cells, width]`.
    values: Vec<f32>,
    /// The row of the modality that each is of.
    cells: Vec<u32>,
}

impl Trained {
    /// Adds `silhouette.LABEL.SPACE` and `r2.LABEL.SPACE` for a model whose code has spaces; `column` names the one column, else all.
    pub(super) fn measure_spaces(
        &mut self,
        dataset: &Dataset,
        column: Option<&str>,
        embeddings: &[Vec<f32>],
        split: &Split,
        metrics: &mut Metrics,
    ) -> Result<()> {
        let (spaces, latent, seed) = (self.spaces(dataset)?, self.latent(dataset)?, self.config.seed);
        if spaces.is_empty() || dataset.label_columns().is_empty() {
            return Ok(());
        }
        let mut codes = Vec::new();
        for (m, modality) in dataset.modalities().iter().enumerate() {
            for (space, range) in &spaces {
                let values = embeddings[m].chunks_exact(latent).flat_map(|z| z[range.clone()].iter().copied()).collect();
                let cells = (0..modality.cells() as u32).collect();
                codes.push(Code { name: format!("{space}.{}", modality.name()), modality: m, width: range.len(), values, cells });
            }
        }
        codes.extend(self.tables(dataset, split, metrics));
        let columns: Vec<Labels> = match column {
            Some(column) => vec![dataset.label(column)?],
            None => dataset.labels()?.take(MOST_COLUMNS).collect(),
        };
        if column.is_none() && dataset.label_columns().len() > MOST_COLUMNS {
            metrics.note(format!("spaces are compared by the first {MOST_COLUMNS} label columns; --labels names another"));
        }
        let any_held = split.holds_out();
        for (held_out, suffix) in [(any_held, ""), (false, ".train")].into_iter().take(1 + usize::from(any_held)) {
            for labels in &columns {
                // Of the shared space: sums over modalities, and how many.
                let mut shared = [(0.0, 0usize); 2];
                for code in &codes {
                    let values = measured(code, labels, &split.roles[code.modality], held_out, seed, metrics);
                    for ((kind, value), sum) in ["silhouette", "r2"].into_iter().zip(values).zip(&mut shared) {
                        let Some(value) = value else { continue };
                        metrics.set(format!("{kind}.{}.{}{suffix}", labels.column, code.name), value);
                        if code.name.strip_prefix(SHARED).is_some_and(|rest| rest.starts_with('.')) {
                            *sum = (sum.0 + value, sum.1 + 1);
                        }
                    }
                }
                for (kind, (sum, n)) in ["silhouette", "r2"].into_iter().zip(shared) {
                    metrics.set_some(format!("{kind}.{}.{SHARED}{suffix}", labels.column), (n > 0).then(|| sum / n as f64));
                }
            }
        }
        Ok(())
    }

    /// The learned tables of the run, where it keeps any and the dataset is its own: a row a cell of the first modality, of which those have
    /// learnt that training saw in every modality.
    fn tables(&self, dataset: &Dataset, split: &Split, metrics: &mut Metrics) -> Vec<Code> {
        let (links, k) = (dataset.links(), dataset.modalities().len());
        let used = split::keep_pairs(&split.training_units(dataset), self.config.paired, self.config.seed);
        let whole = used.into_iter().filter(|&u| links.confidence(u) > 0.0 && (0..k).all(|m| links.row(u, m).is_some()));
        let cells: Vec<u32> = whole.filter_map(|u| links.row(u, 0)).collect();
        let own = dataset.modalities().iter().map(|d| (d.name(), format!("table.specific.{}", d.name())));
        let mut codes = Vec::new();
        for (tensor, name) in std::iter::once((SHARED, format!("table.{SHARED}"))).chain(own) {
            let Some(([rows, width], values)) = self.tensor(&format!("table.{tensor}")) else { continue };
            if rows != dataset.modality(0).cells() {
                metrics.note(format!("the {rows} rows of the run's {tensor} table are not of this dataset's cells: left out"));
                continue;
            }
            let values = Matrix::new(values, rows, width).gather(&cells);
            codes.push(Code { name, modality: 0, width, values, cells: cells.clone() });
        }
        codes
    }
}

/// The silhouette of the classes and R² of the numbers, on the cells of a part.
fn measured(code: &Code, labels: &Labels, roles: &[Role], held_out: bool, seed: u64, metrics: &mut Metrics) -> [Option<f64>; 2] {
    // A table has no rows of cells that training never saw.
    if held_out && code.name.starts_with("table.") {
        return [None, None];
    }
    let cells = Matrix::new(&code.values, code.cells.len(), code.width);
    let of_part = code.cells.iter().zip(0u32..).filter(|(cell, _)| roles[**cell as usize].is(held_out));
    let classes: Vec<(u32, u32)> = of_part.filter_map(|(&cell, row)| Some((row, labels.rows[code.modality][cell as usize]?))).collect();
    let apart = (labels.classes.len() <= MOST_CLASSES).then(|| silhouette(cells, &classes, seed)).flatten();
    if apart.is_some_and(|s| s.sampled) {
        metrics.note(format!("silhouettes of spaces are of {EXACT} cells, drawn by the seed"));
    }
    let numbers: Option<Vec<f32>> = match labels.classes.len() {
        2 => Some(vec![0.0, 1.0]),
        _ => labels.classes.iter().map(|c| c.parse::<f32>().ok().filter(|v| v.is_finite())).collect(),
    };
    let explained = numbers.and_then(|n| linear::r2(cells, &classes.iter().map(|&(row, c)| (row, n[c as usize])).collect::<Vec<_>>()));
    [apart.map(|s| s.value), explained]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_classes_numbers_or_both() {
        let n = 200usize;
        let code = Code {
            name: "specific.a".into(),
            modality: 0,
            width: 1,
            values: (0..n).map(|i| (i % 2) as f32 + 0.001 * i as f32).collect(),
            cells: (0..n as u32).collect(),
        };
        let rows: Vec<Option<u32>> = (0..n).map(|i| (i != 7).then_some((i % 2) as u32)).collect();
        let column = |classes: &[&str]| Labels {
            column: "t".into(),
            classes: classes.iter().map(|c| c.to_string()).collect(),
            rows: vec![rows.clone()],
        };
        let (roles, mut notes) = (vec![Role::Trained; n], Metrics::new());
        let mut told = |code: &Code, labels: &Labels, held_out| measured(code, labels, &roles, held_out, 0, &mut notes);
        let [apart, explained] = told(&code, &column(&["-1", "1"]), false);
        assert!(apart.unwrap() > 0.8 && explained.unwrap() > 0.95, "{apart:?} {explained:?}");
        assert_eq!(told(&code, &column(&["x", "y"]), false)[1], explained, "two classes are numbers");
        assert!(matches!(told(&code, &column(&["x", "y", "z"]), false), [Some(_), None]));
        assert_eq!(told(&code, &column(&["-1", "1"]), true), [None, None], "nothing is held out");
        let many =
            Labels { column: "t".into(), classes: (0..n).map(|i| i.to_string()).collect(), rows: vec![(0..n as u32).map(Some).collect()] };
        assert!(matches!(told(&code, &many, false), [None, Some(_)]));
    }
}
