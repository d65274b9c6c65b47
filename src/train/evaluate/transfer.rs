//! What carrying labels over by an embedding is to be compared with: the same machine on the features as the model is given them.
//!
//!   `f1.*.genes`    learnt from the first modality's training cells, told of the second's: without any alignment
//!   `f1.*.cca`      the same on [`VARIABLES`] canonical variables of the training cells of both, rows of length 1: alignment in closed form
//!   `f1.*.within`   learnt from the second modality's own labels: held-out cells from its training cells, those by [`FOLDS`] folds among
//!                   themselves. No bound: who learns from the first modality's cells, too, may do better

use super::{Labels, MOST, Result, Session, at_most};
use crate::data::Dataset;
use crate::data::split::Split;
use crate::metrics::alignment::Labelled;
use crate::metrics::diagonal::{Diagonal, VARIABLES};
use crate::metrics::pca::EXACT;
use crate::metrics::transfer::{F1, cross_validated, f1};
use crate::metrics::{Matrix, Metrics, label_transfer};

/// As many cells of a modality and of a part take part.
const CELLS: usize = 20_000;
/// Folds of a modality's own training cells.
const FOLDS: usize = 5;

/// Cells of a part of a modality.
struct Part {
    /// [cells, width].
    values: Vec<f32>,
    width: usize,
    rows: Vec<u32>,
    labels: Vec<Option<u32>>,
}

impl Part {
    fn cells(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.rows.len(), self.width)
    }

    /// The same cells by other values.
    fn by(&self, values: Vec<f32>, width: usize) -> Part {
        Part { values, width, rows: self.rows.clone(), labels: self.labels.clone() }
    }

    fn labelled(&self) -> Labelled<'_> {
        Labelled { cells: self.cells(), rows: &self.rows, labels: &self.labels }
    }
}

/// Adds the three where both modalities have labels.
pub(super) fn without_model(
    session: &mut Session,
    dataset: &Dataset,
    labels: &Labels,
    split: &Split,
    seed: u64,
    metrics: &mut Metrics,
) -> Result<()> {
    let mut part = |m: usize, held_out: bool| -> Result<Part> {
        let rows = at_most(CELLS, &if held_out { split.held_out(m) } else { split.training(m) });
        let width = session.inputs[m].width();
        let mut values = vec![0.0; rows.len() * width];
        session.inputs[m].rows(dataset.modality(m), &rows, &mut values)?;
        let labels = rows.iter().map(|&r| labels.rows[m][r as usize]).collect();
        Ok(Part { values, width, rows: (0..rows.len() as u32).collect(), labels })
    };
    let held = if split.holds_out() { Some(part(1, true)?) } else { None };
    let (first, second) = (part(0, false)?, part(1, false)?);
    let most = dataset.modalities().iter().map(|m| m.cells()).max().unwrap_or(0);
    if most > CELLS {
        metrics.note(format!("f1.*.genes and f1.*.cca are of {CELLS} of a modality's cells, drawn evenly"));
    }
    let tests: Vec<(&Part, &str)> = held.iter().map(|h| (h, "")).chain([(&second, if held.is_some() { ".train" } else { "" })]).collect();
    for &(told, suffix) in &tests {
        let f = label_transfer(first.labelled(), told.labelled(), seed, metrics);
        set(metrics, "genes", suffix, f);
    }
    let known = |part: &Part| part.labels.iter().any(Option::is_some);
    if known(&first) && tests.iter().any(|(told, _)| known(told)) {
        canonical(&first, &second, &tests, seed, metrics);
    }
    if let Some(held) = &held {
        let f = label_transfer(second.labelled(), held.labelled(), seed, metrics);
        set(metrics, "within", "", f);
    }
    let all: Vec<(u32, u32)> = second.rows.iter().zip(&second.labels).filter_map(|(&r, label)| Some((r, (*label)?))).collect();
    let some = at_most(MOST, &all);
    if some.len() < all.len() {
        metrics.note(format!("f1.*.within{} are of {MOST} cells, drawn evenly", tests.last().map_or("", |t| t.1)));
    }
    let f = f1(cross_validated(second.cells(), &some, FOLDS, seed));
    set(metrics, "within", tests.last().map_or("", |t| t.1), f);
    Ok(())
}

fn set(metrics: &mut Metrics, of: &str, suffix: &str, f: Option<F1>) {
    if let Some(f) = f {
        metrics.set(format!("f1.macro.{of}{suffix}"), f.of_classes);
        metrics.set(format!("f1.weighted.{of}{suffix}"), f.of_cells);
    }
}

/// `f1.*.cca`, if there are variables.
fn canonical(first: &Part, second: &Part, tests: &[(&Part, &str)], seed: u64, metrics: &mut Metrics) {
    if first.width > EXACT {
        metrics.note(format!("f1.*.cca wants {EXACT} features at most, there are {}: n_top_genes chooses as many", first.width));
        return;
    }
    let Some(variables) = Diagonal::fit(first.cells(), second.cells(), VARIABLES) else { return };
    let by = |m: usize, part: &Part| part.by(variables.of(m, part.cells()), variables.variables());
    let learn = by(0, first);
    for (told, suffix) in tests {
        let f = label_transfer(learn.labelled(), by(1, told).labelled(), seed, metrics);
        set(metrics, "cca", suffix, f);
    }
}
