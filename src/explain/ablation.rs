//! Ablation: how far a score falls when a feature, or a set of features, is replaced by its mean in every evaluated cell.
//!
//!   drop    baseline - score; above 0 the model used the feature
//!   keep    the other way round: everything but the feature is replaced; the smaller the drop, the more the feature says alone
//!
//! The cells are those that training never saw, if the run held some out, else the training cells; this is as `couplet evaluate`
//! has it, and so are the scores: the baseline is its `lta`, or the feature's part of its `pearson.A_to_B`.
//! The method is that of JAMIE (Kalafut et al. 2023, section on feature importance). What replacing means: [`super`].

use super::Group;
use crate::data::labels::Labels;
use crate::data::split::Split;
use crate::data::{Dataset, Hooks};
use crate::error::{Error, Result};
use crate::metrics::Matrix;
use crate::metrics::imputation::Imputation;
use crate::metrics::neighbours::{Classifier, Distance, Ties};
use crate::train::Trained;
use crate::train::evaluate::{MOST, at_most};
use crate::train::session::{CHUNK, Session};
use rayon::prelude::*;
use std::path::Path;

/// Cells that are preprocessed together; so many ablations as fill a chunk pass through the model with them.
const BLOCK: usize = 64;
/// An imputed feature that varies less than this, in standardised units, is constant but for rounding.
const CONSTANT: f64 = 1e-6;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// Label transfer accuracy of the embedding of the ablated modality: kNN (k = 5) that learns from another modality.
    LabelTransfer {
        /// The label column; else the run's, else the dataset's default.
        column: Option<String>,
        /// The modality that the classifier learns from; else the second, or the first for the second.
        from: Option<usize>,
    },
    /// Pearson's correlation of one feature, imputed from the ablated modality, with what was measured, over the known pairs.
    Pearson {
        /// The imputed modality.
        to: usize,
        /// The feature's place in it.
        feature: usize,
    },
}

/// What to ablate.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// The modality whose features are replaced.
    pub of: usize,
    /// What is measured.
    pub score: Score,
    /// The features or sets, one after another.
    pub groups: &'a [Group],
    /// Whether to replace everything but the group.
    pub keep: bool,
}

/// One ablation.
#[derive(Clone, Debug, PartialEq)]
pub struct Ablated {
    /// The feature's or set's name.
    pub name: String,
    /// How many features that is.
    pub features: usize,
    /// The score.
    pub score: f64,
    /// Baseline minus score.
    pub drop: f64,
}

/// All of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ablations {
    /// What was measured, for a person.
    pub score: String,
    /// With nothing replaced.
    pub baseline: f64,
    /// With every feature replaced: what needs no input.
    pub floor: f64,
    /// Evaluated cells.
    pub cells: usize,
    /// Whether training never saw these cells.
    pub held_out: bool,
    /// Whether all but the group was replaced.
    pub keep: bool,
    /// The most telling first: the greatest drop, with `keep` the least; equal ones in the order they were given.
    pub rows: Vec<Ablated>,
}

impl Ablations {
    /// Writes the table as CSV: name, features, score, baseline, drop.
    pub fn write(&self, path: &Path) -> Result<()> {
        let baseline = self.baseline.to_string();
        let row = |a: &Ablated| vec![a.name.clone(), a.features.to_string(), a.score.to_string(), baseline.clone(), a.drop.to_string()];
        super::write_table(path, &["name", "features", "score", "baseline", "drop"], self.rows.iter().map(row))
    }
}

/// What is done to a cell before it passes.
#[derive(Clone, Copy)]
enum Change<'a> {
    Nothing,
    Everything,
    Without(&'a [u32]),
    Only(&'a [u32]),
}

impl Change<'_> {
    fn apply(self, x: &[f32], mean: &[f32], out: &mut [f32]) {
        let (under, features, over) = match self {
            Change::Nothing => (x, &[][..], mean),
            Change::Everything => (mean, &[][..], x),
            Change::Without(features) => (x, features, mean),
            Change::Only(features) => (mean, features, x),
        };
        out.copy_from_slice(under);
        features.iter().for_each(|&f| out[f as usize] = over[f as usize]);
    }
}

impl Trained {
    /// Measures the baseline and every ablation. Holds [`CHUNK`] cells of the modality, and for a label transfer the codes of
    /// the evaluated cells for some 16 ablations. Each ablation costs a pass of the evaluated cells.
    pub fn ablate(&mut self, dataset: &Dataset, spec: &Spec, hooks: &mut Hooks) -> Result<Ablations> {
        let split = self.split(dataset)?;
        let held_out = split.holds_out();
        let default = self.config.labels.clone();
        let session = self.session(dataset)?;
        let (mut measure, rows) = match &spec.score {
            Score::LabelTransfer { column, from } => {
                let column = column.as_deref().or(default.as_deref()).or(dataset.default_label());
                let Some(column) = column else {
                    return Err(Error::usage("there are no labels to transfer: name a feature to impute, or import the data with labels"));
                };
                Measure::transfer(session, dataset, &split, held_out, [spec.of, other(dataset, spec.of, *from)?], &dataset.label(column)?)?
            }
            Score::Pearson { to, feature } => Measure::correlation(session, dataset, &split, held_out, [spec.of, *to], *feature)?,
        };
        let group = |g| if spec.keep { Change::Only(g) } else { Change::Without(g) };
        let changes: Vec<Change> =
            [Change::Nothing, Change::Everything].into_iter().chain(spec.groups.iter().map(|g| group(&g.features))).collect();
        let scores = sweep(session, dataset, spec.of, &rows, &changes, &mut measure, hooks)?;
        let baseline = scores[0];
        let ablated =
            |(g, &score): (&Group, &f64)| Ablated { name: g.name.clone(), features: g.features.len(), score, drop: baseline - score };
        let mut table: Vec<Ablated> = spec.groups.iter().zip(&scores[2..]).map(ablated).collect();
        table.sort_by(|a, b| if spec.keep { a.drop.total_cmp(&b.drop) } else { b.drop.total_cmp(&a.drop) });
        let score = measure.describe(dataset, spec.of);
        Ok(Ablations { score, baseline, floor: scores[1], cells: rows.len(), held_out, keep: spec.keep, rows: table })
    }
}

/// The modality that a classifier of `of` learns from.
fn other(dataset: &Dataset, of: usize, chosen: Option<usize>) -> Result<usize> {
    let other = chosen.unwrap_or(usize::from(of == 0));
    if other == of || other >= dataset.modalities().len() {
        return Err(Error::usage(format!(
            "labels are transferred to {} from another modality: name one by --to",
            dataset.modality(of).name()
        )));
    }
    Ok(other)
}

/// The scores of every change, in order.
fn sweep(
    session: &mut Session,
    dataset: &Dataset,
    of: usize,
    rows: &[u32],
    changes: &[Change],
    measure: &mut Measure,
    hooks: &mut Hooks,
) -> Result<Vec<f64>> {
    let modality = dataset.modality(of);
    let preprocess = session.inputs[of].preprocess().clone();
    let (features, mean) = (preprocess.features(), preprocess.unit_mean());
    let block = rows.len().clamp(1, BLOCK);
    let (mut x, mut packed, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    let total = (changes.len() * rows.len()) as u64;
    for (c, changes) in changes.chunks(CHUNK / block).enumerate() {
        measure.begin(changes.len());
        for (b, rows) in rows.chunks(block).enumerate() {
            x.resize(rows.len() * features, 0.0);
            for (x, &row) in x.chunks_exact_mut(features).zip(rows) {
                preprocess.row(modality, row as usize, x)?;
            }
            packed.resize(changes.len() * x.len(), 0.0);
            packed.par_chunks_exact_mut(x.len()).zip(changes).for_each(|(packed, change)| {
                packed.chunks_exact_mut(features).zip(x.chunks_exact(features)).for_each(|(out, x)| change.apply(x, mean, out));
            });
            measure.take(session, of, &packed, b * block, rows)?;
            let done = c * (CHUNK / block) * measure.cells() + (b * block + rows.len()) * changes.len();
            hooks.tick("ablations, cells passed", done as u64, Some(total))?;
        }
        measure.finish(&mut scores);
    }
    Ok(scores)
}

/// A score in the making, of several ablations at once.
enum Measure {
    Transfer {
        classifier: Classifier,
        /// Of the evaluated cells, all labelled.
        labels: Vec<Option<u32>>,
        latent: usize,
        /// One an ablation, [cells, latent].
        codes: Vec<Vec<f32>>,
        passed: Vec<f32>,
        from: usize,
        column: String,
    },
    Correlation {
        to: usize,
        feature: usize,
        /// Of the evaluated cells, in standardised units.
        measured: Vec<f32>,
        /// Mean and deviation of the feature.
        unit: [f32; 2],
        /// One column an ablation.
        sums: Imputation,
        passed: Vec<f32>,
    },
}

impl Measure {
    /// A classifier that has learnt, and the rows of `of` that it is asked about.
    fn transfer(
        session: &mut Session,
        dataset: &Dataset,
        split: &Split,
        held_out: bool,
        [of, from]: [usize; 2],
        labels: &Labels,
    ) -> Result<(Measure, Vec<u32>)> {
        let labelled = |m: usize, held: bool| -> Vec<u32> {
            let rows = if held { split.held_out(m) } else { split.training(m) };
            rows.into_iter().filter(|&r| labels.rows[m][r as usize].is_some()).collect()
        };
        let (learnt, asked) = (labelled(from, false), labelled(of, held_out));
        let none = |m: usize, what: &str| {
            let (name, column) = (dataset.modality(m).name(), &labels.column);
            Error::usage(format!("no {what} cell of {name} has a label in column {column}: nothing can be transferred"))
        };
        match (learnt.is_empty(), asked.is_empty()) {
            (true, _) if split.training(from).is_empty() => {
                let name = dataset.modality(from).name();
                return Err(Error::usage(format!(
                    "the run was trained on no cell of {name} in this dataset, a classifier has nothing to learn from: name a feature to impute"
                )));
            }
            (true, _) => return Err(none(from, "training")),
            (_, true) => return Err(none(of, "evaluated")),
            _ => {}
        }
        let latent = session.model.latent();
        let mut codes = Vec::with_capacity(learnt.len() * latent);
        session.embed(dataset, from, &learnt, &mut |_, z| {
            codes.extend_from_slice(z);
            Ok(())
        })?;
        let of_rows = |m: usize, rows: &[u32]| -> Vec<Option<u32>> { rows.iter().map(|&r| labels.rows[m][r as usize]).collect() };
        let matrix = Matrix::new(&codes, learnt.len(), latent);
        let known = of_rows(from, &learnt);
        let classifier = Classifier::new(matrix, &matrix.all_rows(), &known, 5, Distance::Euclidean, Ties::Smallest);
        let (labels, column) = (of_rows(of, &asked), labels.column.clone());
        Ok((Measure::Transfer { classifier, labels, latent, codes: Vec::new(), passed: Vec::new(), from, column }, asked))
    }

    /// What was measured of the feature, and the rows of `of` that it is imputed from.
    fn correlation(
        session: &mut Session,
        dataset: &Dataset,
        split: &Split,
        held_out: bool,
        [of, to]: [usize; 2],
        feature: usize,
    ) -> Result<(Measure, Vec<u32>)> {
        let inside = |&(a, b): &(u32, u32)| split.roles[of][a as usize].is(held_out) && split.roles[to][b as usize].is(held_out);
        let pairs: Vec<(u32, u32)> = if of == to {
            (0..dataset.modality(of).cells() as u32).map(|r| (r, r)).filter(inside).collect()
        } else {
            dataset.links().pairs(of, to).map(|(a, b, _)| (a, b)).filter(inside).collect()
        };
        let (modality, p) = (dataset.modality(to), session.inputs[to].preprocess());
        let unit = [p.unit_mean()[feature], p.unit_sd()[feature]];
        let (mut row, mut measured) = (vec![0.0; modality.features()], Vec::new());
        let (rows, targets): (Vec<u32>, Vec<u32>) = at_most(MOST, &pairs).into_iter().unzip();
        for &target in &targets {
            p.row(modality, target as usize, &mut row)?;
            measured.push((row[feature] - unit[0]) / unit[1]);
        }
        if rows.is_empty() {
            let [a, b] = [of, to].map(|m| dataset.modality(m).name());
            return Err(Error::usage(format!("no evaluated cell of {a} is known to be a cell of {b}: nothing can be compared")));
        }
        let known: Vec<f32> = measured.iter().copied().filter(|m| !m.is_nan()).collect();
        if known.iter().all(|m| Some(m) == known.first()) {
            return Err(Error::usage(format!(
                "feature {} of {} has the same value in all {} evaluated pairs: it correlates with nothing, choose another",
                modality.feature_names()[feature],
                modality.name(),
                known.len()
            )));
        }
        Ok((Measure::Correlation { to, feature, measured, unit, sums: Imputation::new(0), passed: Vec::new() }, rows))
    }

    /// How many cells are evaluated.
    fn cells(&self) -> usize {
        match self {
            Measure::Transfer { labels, .. } => labels.len(),
            Measure::Correlation { measured, .. } => measured.len(),
        }
    }

    fn begin(&mut self, ablations: usize) {
        match self {
            Measure::Transfer { codes, .. } => {
                codes.resize(ablations, Vec::new());
                codes.iter_mut().for_each(Vec::clear);
            }
            Measure::Correlation { sums, .. } => *sums = Imputation::new(ablations),
        }
    }

    /// Passes cells `first ..`, which are these rows, through the model, `packed` [ablations, cells, features].
    fn take(&mut self, session: &mut Session, of: usize, packed: &[f32], first: usize, rows: &[u32]) -> Result<()> {
        let cells = rows.len();
        match self {
            Measure::Transfer { codes, passed, latent, .. } => {
                session.embed_made(of, packed, rows, passed)?;
                codes.iter_mut().zip(passed.chunks_exact(cells * *latent)).for_each(|(all, z)| all.extend_from_slice(z));
            }
            Measure::Correlation { to, feature, measured, unit: [mean, sd], sums, passed } => {
                session.impute_made([of, *to], *feature, packed, rows, passed)?;
                let ablations = passed.len() / cells;
                let mut by_cell = vec![0.0; passed.len()];
                for (a, imputed) in passed.chunks_exact(cells).enumerate() {
                    imputed.iter().enumerate().for_each(|(i, y)| by_cell[i * ablations + a] = (y - *mean) / *sd);
                }
                let same: Vec<f32> = measured[first..first + cells].iter().flat_map(|&m| std::iter::repeat_n(m, ablations)).collect();
                sums.add(Matrix::new(&by_cell, cells, ablations), Matrix::new(&same, cells, ablations));
            }
        }
        Ok(())
    }

    /// The scores of the ablations that have passed.
    fn finish(&mut self, scores: &mut Vec<f64>) {
        match self {
            Measure::Transfer { classifier, labels, latent, codes, .. } => {
                for z in codes {
                    let matrix = Matrix::new(z, labels.len(), *latent);
                    scores.push(classifier.accuracy(matrix, &matrix.all_rows(), labels).unwrap_or(0.0));
                }
            }
            // What is imputed alike for every cell agrees with nothing.
            Measure::Correlation { sums, .. } => {
                let each = sums.pearson_by_feature().into_iter().zip(sums.imputed_deviation());
                scores.extend(each.map(|(r, deviation)| if deviation > CONSTANT { r.unwrap_or(0.0) } else { 0.0 }));
            }
        }
    }

    fn describe(&self, dataset: &Dataset, of: usize) -> String {
        let name = |m: usize| dataset.modality(m).name();
        match self {
            Measure::Transfer { from, column, .. } => {
                format!("lta: {column} of {} by kNN (k=5) that learnt from {}", name(of), name(*from))
            }
            Measure::Correlation { to, feature, .. } => {
                format!("pearson: {} of {} imputed from {}", dataset.modality(*to).feature_names()[*feature], name(*to), name(of))
            }
        }
    }
}
