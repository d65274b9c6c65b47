//! What `couplet evaluate` measures: the embeddings, each modality from its own code, and each from the others'.
//!
//! Errors are in the standardised units of the training cells, so that predicting the mean scores 1. The metrics themselves are in
//! [`crate::metrics`]; here is which cells, pairs and values they are computed on.

mod classifier;
mod phenotype;
mod spaces;
mod transfer;

use super::filter;
use super::input::Input;
use super::session::Session;
use super::trained::Trained;
use crate::data::Dataset;
use crate::data::labels::Labels;
use crate::data::split::{self, Holdout, Role, Split};
use crate::error::Result;
use crate::metrics::imputation::Imputation;
use crate::metrics::transfer::f1;
use crate::metrics::{
    ByFeature, Evaluated, Evaluation, FeatureRow, Matrix, Metrics, PairSet, baseline_metrics, distribution_metrics, embedding_metrics,
    translation_metrics,
};
use std::path::Path;

/// As many cells of a part, held out or trained on, enter the errors of a modality or a direction; more are drawn evenly.
pub(crate) const MOST: usize = 4096;

impl Trained {
    /// Measures the run on a dataset; `labels` names a column, else the run's, else the dataset's default.
    pub fn evaluate(&mut self, dataset: &Dataset, labels: Option<&str>) -> Result<Metrics> {
        let split = self.split(dataset)?;
        let latent = self.latent(dataset)?;
        let asked = labels;
        let column = labels.or(self.config.labels.as_deref()).or(dataset.default_label());
        let labels = column.map(|c| dataset.label(c)).transpose()?;
        let seed = self.config.seed;
        let learnt = self.classes_learnt(column);
        // The model's features are the same in both modalities.
        let common = super::common::applies(self.settings());
        let session = self.session(dataset)?;
        let mut embeddings = Vec::new();
        for (m, modality) in dataset.modalities().iter().enumerate() {
            let rows: Vec<u32> = (0..modality.cells() as u32).collect();
            let mut z = Vec::with_capacity(rows.len() * latent);
            session.embed(dataset, m, &rows, &mut |_, row| {
                z.extend_from_slice(row);
                Ok(())
            })?;
            embeddings.push(z);
        }
        let links = links(dataset);
        let directions = session.model.directions().then(|| embeddings.iter().map(|e| unit_rows(e, latent)).collect::<Vec<_>>());
        let mut metrics = embedding_metrics(&Evaluation {
            modalities: evaluated(dataset, directions.as_deref().unwrap_or(&embeddings), &split, labels.as_ref()),
            links: links.clone(),
            classes: labels.as_ref().map_or(&[], |l| l.classes.as_slice()),
            latent,
            seed,
        });
        if let Some(labels) = &labels {
            metrics.note(format!("labels: column {}", labels.column));
            // The head knows classes by their number among those it was trained on.
            if learnt.as_ref() == Some(&labels.classes) {
                head_accuracy(session, dataset, labels, &embeddings, &split, &mut metrics)?;
            }
            if common {
                transfer::without_model(session, dataset, labels, &split, seed, &mut metrics)?;
            }
        }
        self.measure_spaces(dataset, asked, &embeddings, &split, &mut metrics)?;
        let session = self.session(dataset)?;
        let held_out = split.holds_out();
        for (wanted, suffix) in [(held_out, ""), (false, ".train")].into_iter().take(1 + usize::from(held_out)) {
            let mut part =
                Errors { session: &mut *session, dataset, split: &split, labels: labels.as_ref(), held_out: wanted, out: Metrics::new() };
            for m in 0..dataset.modalities().len() {
                if part.session.model.decodes(m) {
                    part.own(m)?;
                }
            }
            part.classes_kept(seed)?;
            for link in &links {
                let turned: Vec<(u32, u32)> = link.pairs.iter().map(|&(a, b)| (b, a)).collect();
                for (from, to, pairs) in [(link.a, link.b, &link.pairs), (link.b, link.a, &turned)] {
                    if part.session.model.decodes(to) {
                        part.cross(from, to, pairs, latent, seed)?;
                    }
                }
            }
            let part = part.out;
            part.features().iter().for_each(|row| metrics.add_feature(row.clone()));
            part.iter().for_each(|(key, value)| metrics.set(format!("{key}{suffix}"), value));
            part.notes().iter().for_each(|note| metrics.note(note));
        }
        Ok(metrics)
    }

    /// The classes of a column as the run was trained on them, if it was that column.
    fn classes_learnt(&self, column: Option<&str>) -> Option<Vec<String>> {
        let own = Dataset::open(&self.config.dataset_from(self.dir())).ok()?;
        let learnt = self.config.labels.as_deref().or(own.default_label())?;
        (column == Some(learnt)).then(|| own.label(learnt).ok().map(|l| l.classes))?
    }

    /// What the cells were to the training: those that the run held out, or every cell of another dataset, it never saw; those that show
    /// too little, by the run's `min_features`, it left out.
    pub(crate) fn split(&self, dataset: &Dataset) -> Result<Split> {
        let own = self.config.dataset_from(self.dir());
        if !same_values(dataset, &own) {
            return Ok(Split::all(dataset, Role::HeldOut));
        }
        let mut split = match self.config.holdout.as_deref() {
            None => Split::none(dataset),
            Some(text) => split::split(dataset, &Holdout::parse(text)?, self.config.seed)?,
        };
        if filter::leaves_out(dataset, self.settings())? {
            let mut rows: Vec<Vec<u32>> = (0..dataset.modalities().len()).map(|m| split.training(m)).collect();
            filter::filter(dataset, &mut rows, &mut split.training_units(dataset), self.settings())?;
            split.keep(&rows);
        }
        Ok(split)
    }
}

/// Rows divided by their length.
fn unit_rows(rows: &[f32], width: usize) -> Vec<f32> {
    let mut out = rows.to_vec();
    for row in out.chunks_exact_mut(width.max(1)) {
        let length = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
    out
}

/// `head_accuracy.A`: how often the model's own class head is right, on held-out and on training cells; `head_f1.macro`: the mean F1 of its
/// classes on the second modality.
fn head_accuracy(
    session: &mut Session,
    dataset: &Dataset,
    labels: &Labels,
    embeddings: &[Vec<f32>],
    split: &Split,
    metrics: &mut Metrics,
) -> Result<()> {
    let any_held = split.holds_out();
    for (m, modality) in dataset.modalities().iter().enumerate() {
        let Some(said) = session.classes(&embeddings[m])? else { return Ok(()) };
        for (held_out, suffix) in [(any_held, ""), (false, ".train")].into_iter().take(1 + usize::from(any_held)) {
            let (mut right, mut of) = (0usize, 0usize);
            for ((said, label), role) in said.iter().zip(&labels.rows[m]).zip(&split.roles[m]) {
                if let Some(label) = label.filter(|_| role.is(held_out)) {
                    of += 1;
                    right += usize::from(*said == label);
                }
            }
            metrics.set_some(format!("head_accuracy.{}{suffix}", modality.name()), (of > 0).then(|| right as f64 / of as f64));
            if m == 1 {
                let cells = said.iter().zip(&labels.rows[m]).zip(&split.roles[m]).filter(|(_, role)| role.is(held_out));
                let f = f1(cells.filter_map(|((said, label), _)| Some(((*label)?, *said))));
                metrics.set_some(format!("head_f1.macro{suffix}"), f.map(|f| f.of_classes));
            }
        }
    }
    Ok(())
}

/// Whether a dataset is the one in `own`, or holds the same values in the same order.
fn same_values(dataset: &Dataset, own: &Path) -> bool {
    let canonical = |p: &Path| std::fs::canonicalize(p).ok();
    if canonical(dataset.dir()) == canonical(own) {
        return true;
    }
    let files = |d: &Dataset| -> Vec<_> { d.manifest().modalities.iter().map(|m| (m.name.clone(), value_files(m))).collect() };
    Dataset::open(own).is_ok_and(|own| files(&own) == files(dataset) && own.links() == dataset.links())
}

/// The arrays of a modality with their checksums; names of cells and features do not matter.
fn value_files(m: &crate::data::manifest::ModalityEntry) -> Vec<crate::data::manifest::FileEntry> {
    let values = ["values.npy", "indptr.npy", "indices.npy", "data.npy"];
    m.files.iter().filter(|f| values.contains(&f.name.as_str())).cloned().collect()
}

/// The known pairs of every two modalities.
fn links(dataset: &Dataset) -> Vec<PairSet> {
    let k = dataset.modalities().len();
    let pairs = |a, b| dataset.links().pairs(a, b).map(|(x, y, _)| (x, y)).collect();
    (0..k).flat_map(|a| (a + 1..k).map(move |b| (a, b))).map(|(a, b)| PairSet { a, b, pairs: pairs(a, b) }).collect()
}

fn evaluated<'a>(dataset: &'a Dataset, embeddings: &'a [Vec<f32>], split: &'a Split, labels: Option<&'a Labels>) -> Vec<Evaluated<'a>> {
    let parts = dataset.modalities().iter().zip(embeddings).zip(&split.roles).enumerate();
    parts
        .map(|(m, ((modality, embedding), roles))| {
            let classes = labels.map(|l| l.rows[m].as_slice()).filter(|rows| rows.iter().any(Option::is_some));
            Evaluated { name: modality.name(), embedding, roles, labels: classes }
        })
        .collect()
}

/// The errors of one part of the cells.
struct Errors<'a> {
    session: &'a mut Session,
    dataset: &'a Dataset,
    split: &'a Split,
    labels: Option<&'a Labels>,
    held_out: bool,
    out: Metrics,
}

impl Errors<'_> {
    /// `recon_mse.A`: a modality from its own code.
    fn own(&mut self, m: usize) -> Result<()> {
        let all = if self.held_out { self.split.held_out(m) } else { self.split.training(m) };
        let rows = self.some(&all);
        let (imputed, measured) = (self.imputed(m, m, &rows)?, self.measured(m, &rows)?);
        let modality = self.dataset.modality(m);
        let features = self.features(m);
        let mut sums = Imputation::new(features);
        let matrix = |v| Matrix::new(v, rows.len(), features);
        sums.add(matrix(&imputed), matrix(&measured));
        self.out.set_some(format!("recon_mse.{}", modality.name()), sums.mse());
        Ok(())
    }

    /// What is imputed of `to` from `from`, over the pairs (row of from, row of to), with the baselines that learn from training pairs.
    fn cross(&mut self, from: usize, to: usize, pairs: &[(u32, u32)], latent: usize, seed: u64) -> Result<()> {
        let roles = &self.split.roles;
        let both = |p: &(u32, u32), held_out: bool| roles[from][p.0 as usize].is(held_out) && roles[to][p.1 as usize].is(held_out);
        let inside: Vec<_> = pairs.iter().copied().filter(|p| both(p, self.held_out)).collect();
        let test = self.some(&inside);
        if test.is_empty() {
            return Ok(());
        }
        let direction = format!("{}_to_{}", self.dataset.modality(from).name(), self.dataset.modality(to).name());
        let (sources, targets): (Vec<u32>, Vec<u32>) = test.iter().copied().unzip();
        let (imputed, measured) = (self.imputed(from, to, &sources)?, self.measured(to, &targets)?);
        let features = self.features(to);
        let matrix = |v| Matrix::new(v, test.len(), features);
        let by_feature = translation_metrics(&mut self.out, &direction, "", matrix(&imputed), matrix(&measured));
        if let Some(labels) = self.labels {
            let classes: Vec<Option<u32>> = targets.iter().map(|&r| labels.rows[to][r as usize]).collect();
            distribution_metrics(&mut self.out, &direction, matrix(&imputed), matrix(&measured), &classes);
        }
        if !self.held_out {
            self.each_feature(to, &direction, &by_feature, &ByFeature::default());
            return Ok(()); // a neighbour that learnt a cell finds the cell itself
        }
        let known: Vec<_> = pairs.iter().copied().filter(|p| both(p, false)).collect();
        let train = self.some(&known);
        let rows: Vec<(u32, u32)> = train.iter().chain(&test).copied().collect();
        let (a, b): (Vec<u32>, Vec<u32>) = rows.iter().copied().unzip();
        let (a, b) = (self.measured(from, &a)?, self.measured(to, &b)?);
        let place = |range: std::ops::Range<usize>| range.map(|i| (i as u32, i as u32)).collect::<Vec<_>>();
        let (a, b) = (Matrix::new(&a, rows.len(), self.features(from)), Matrix::new(&b, rows.len(), features));
        let by_neighbours = baseline_metrics(
            &mut self.out,
            &direction,
            &by_feature,
            a,
            b,
            &place(0..train.len()),
            &place(train.len()..rows.len()),
            latent,
            seed,
        );
        self.each_feature(to, &direction, &by_feature, &by_neighbours);
        Ok(())
    }

    /// The rows of a direction's features; pixels are none to look at one by one.
    fn each_feature(&mut self, to: usize, direction: &str, model: &ByFeature, neighbours: &ByFeature) {
        let (modality, columns) = (self.dataset.modality(to), self.session.inputs[to].columns());
        if modality.is_image() {
            return;
        }
        let value = |values: &[Option<f64>], i: usize| values.get(i).copied().flatten();
        for i in 0..model.pearson.len() {
            let at = columns.map_or(i, |columns| columns[i] as usize);
            self.out.add_feature(FeatureRow {
                direction: direction.to_string(),
                cells: if self.held_out { "held-out" } else { "train" },
                feature: modality.feature_names()[at].clone(),
                pearson: value(&model.pearson, i),
                auroc: value(&model.auroc, i),
                pearson_knn: value(&neighbours.pearson, i),
                auroc_knn: value(&neighbours.auroc, i),
            });
        }
    }

    /// At most [`MOST`] of `all`, evenly.
    fn some<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        if all.len() > MOST {
            self.out.note(format!("errors, correlations and baselines are of {MOST} of the cells, drawn evenly"));
        }
        at_most(MOST, all)
    }

    /// How many features errors are measured on: those that the model is given.
    fn features(&self, m: usize) -> usize {
        self.session.inputs[m].columns().map_or(self.dataset.modality(m).features(), <[u32]>::len)
    }

    /// Rows of a modality in standardised units; missing values are NaN.
    fn measured(&self, m: usize, rows: &[u32]) -> Result<Vec<f32>> {
        let (modality, input) = (self.dataset.modality(m), &self.session.inputs[m]);
        let mut values = Vec::with_capacity(rows.len() * self.features(m));
        let mut whole = vec![0.0; modality.features()];
        for &row in rows {
            input.preprocess().row(modality, row as usize, &mut whole)?;
            push_standardised(input, &mut whole, &mut values);
        }
        Ok(values)
    }

    /// What the model makes of `to` from rows of `from`, in standardised units.
    fn imputed(&mut self, from: usize, to: usize, rows: &[u32]) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(rows.len() * self.features(to));
        let (input, mut whole) = (self.session.inputs[to].clone(), Vec::new());
        self.session.translate(self.dataset, [from, to], rows, &mut |_, x| {
            whole.clear();
            whole.extend_from_slice(x);
            push_standardised(&input, &mut whole, &mut values);
            Ok(())
        })?;
        Ok(values)
    }
}

/// Appends those preprocessed features of a cell that the model is given, in standardised units.
fn push_standardised(input: &Input, whole: &mut [f32], out: &mut Vec<f32>) {
    let p = input.preprocess();
    standardise(whole, p.unit_mean(), p.unit_sd());
    match input.columns() {
        None => out.extend_from_slice(whole),
        Some(columns) => out.extend(columns.iter().map(|&c| whole[c as usize])),
    }
}

/// At most so many of `all`, evenly.
pub(crate) fn at_most<T: Copy>(most: usize, all: &[T]) -> Vec<T> {
    if all.len() <= most { all.to_vec() } else { (0..most).map(|i| all[i * all.len() / most]).collect() }
}

fn standardise(row: &mut [f32], mean: &[f32], sd: &[f32]) {
    for ((x, m), s) in row.iter_mut().zip(mean).zip(sd) {
        *x = (*x - m) / s;
    }
}
