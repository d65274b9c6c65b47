//! A model on a device, with what turns a modality's raw rows into its input: what training, embedding and translation share.

use super::ahead::{Ahead, Rows, Source};
use super::feed;
use super::input::Input;
use super::sparse::SparseInput;
use crate::data::dataset::{Dataset, Modality};
use crate::engine::ops::batch_norm::BatchNormState;
use crate::engine::{SparseRows, Step, Var};
use crate::error::{Error, Result};
use crate::models::Model;

/// Rows that pass through the device at once outside training, for a model that bears as many.
pub const CHUNK: usize = 1024;
/// As many training cells give batch norm its statistics, spaced evenly where there are more: a mean is then off by a 360th of a deviation.
const CALIBRATED: usize = 1 << 17;

/// Receives rows in order: the row's number and its values.
pub type Sink<'a> = dyn FnMut(usize, &[f32]) -> Result<()> + 'a;

/// A model on a device.
pub struct Session {
    /// The engine.
    pub step: Step,
    /// The model.
    pub model: Box<dyn Model>,
    /// One a modality, fitted on the training cells.
    pub inputs: Vec<Input>,
    /// By modality: staging on the device for dense rows that pass through, made when first needed.
    stages: Vec<Option<Var>>,
    /// The same for rows of non-zeros, as far as the model takes the modality so.
    sparse_stages: Vec<Option<SparseRows>>,
    /// By modality, whether its rows pass through as non-zeros alone.
    sparse: Vec<bool>,
    /// Rows that pass through at once.
    chunk: usize,
    /// By modality and row, for a model that is told its cells' conditions.
    conditions: Vec<Vec<f32>>,
    /// The one that all cells are taken to be of.
    as_if: Option<f32>,
}

impl Session {
    /// From its parts: of each modality what it goes through and whether the model takes its non-zeros alone, and for a model that is told
    /// them the conditions of the dataset's cells, by modality and row.
    pub fn new(step: Step, model: Box<dyn Model>, inputs: Vec<Input>, sparse: Vec<bool>, conditions: Vec<Vec<f32>>) -> Session {
        let (stages, sparse_stages) = (vec![None; inputs.len()], vec![None; inputs.len()]);
        let chunk = model.rows_at_once().clamp(1, CHUNK);
        Session { step, model, inputs, stages, sparse_stages, sparse, chunk, conditions, as_if: None }
    }

    /// Takes every cell to be of this condition, whatever it was seen under.
    pub fn take_as(&mut self, condition: Option<u32>) {
        self.as_if = condition.map(|c| c as f32);
    }

    /// Tells the model, if it is to be told, the conditions of these rows of a modality.
    fn tell_conditions(&mut self, modality: usize, rows: &[u32]) -> Result<()> {
        let Some(given) = self.model.conditions() else { return Ok(()) };
        let numbers: Vec<f32> = match self.as_if {
            Some(number) => vec![number; rows.len()],
            None => rows.iter().map(|&r| self.conditions[modality][r as usize]).collect(),
        };
        self.step.upload(given, &numbers)
    }

    /// Begins an evaluation step on rows [rows, width] of a modality; at most `chunk` of them.
    fn begin_dense(&mut self, modality: usize, values: &[f32]) -> Result<Var> {
        let width = self.inputs[modality].width();
        let rows = values.len() / width;
        let stage = match self.stages[modality] {
            Some(v) => v,
            None => {
                self.step.end();
                *self.stages[modality].insert(self.step.resident([self.chunk, width])?)
            }
        };
        self.step.upload(stage, values)?;
        self.step.begin(false, 0, 0)?;
        let x = self.step.part(stage, 0, rows * width);
        Ok(self.step.reshaped(x, [rows, width]))
    }

    /// The same on `rows` of a dataset as they were read.
    fn begin_on(&mut self, modality: usize, rows: &[u32], read: &Rows) -> Result<Var> {
        self.tell_conditions(modality, rows)?;
        match (read, self.sparse_stages[modality]) {
            (Rows::Dense(values), _) => self.begin_dense(modality, values),
            (Rows::Sparse(csr), Some(mut stage)) => {
                let most = csr.starts.windows(2).map(|row| (row[1] - row[0]) as usize).max().unwrap_or(0);
                if most > stage.most {
                    // The place was made for another dataset, whose rows are not as full.
                    self.step.end();
                    let larger = self.step.sparse_resident([self.chunk, stage.features], self.chunk * most, most)?;
                    stage = SparseRows { base: stage.base, ..larger };
                    self.sparse_stages[modality] = Some(stage);
                }
                self.step.write_sparse(&stage, [0, 0], &csr.starts, &csr.columns, &csr.values)?;
                self.step.begin(false, 0, 0)?;
                Ok(self.step.sparse(&stage, rows.len()))
            }
            (Rows::Sparse(_), None) => Err(Error::Internal("non-zeros were read without a place for them".into())),
        }
    }

    /// What reads a modality's rows, and on the device the place that they go to if they go as non-zeros.
    fn source(&mut self, modality: &Modality, m: usize) -> Result<Source> {
        let sparse = if self.sparse[m] { SparseInput::of(&self.inputs[m], modality) } else { None };
        let Some(sparse) = sparse else { return Ok(Source::dense(modality, &self.inputs[m])) };
        if self.sparse_stages[m].is_none() {
            self.step.end();
            self.sparse_stages[m] = Some(feed::sparse_stage(&mut self.step, modality, &sparse, self.chunk)?);
        }
        Ok(Source::sparse(modality, sparse))
    }

    /// Runs `f` on cells that were made of others, x [rows, features] after the modality's preprocessing steps, as many as there may be;
    /// `values` becomes its result. Cell i was made of row `of[i % of.len()]` of the modality, whose condition it has.
    fn each_made(
        &mut self,
        modality: usize,
        x: &[f32],
        of: &[u32],
        f: impl Fn(&dyn Model, &mut Step, Var) -> Var,
        values: &mut Vec<f32>,
    ) -> Result<()> {
        let (features, width) = (self.inputs[modality].preprocess().features(), self.inputs[modality].width());
        values.clear();
        let (mut given, mut rows) = (Vec::new(), of.iter().copied().cycle());
        for x in x.chunks(self.chunk * features) {
            given.resize(x.len() / features * width, 0.0);
            self.tell_conditions(modality, &rows.by_ref().take(x.len() / features).collect::<Vec<u32>>())?;
            self.inputs[modality].project(x, &mut given);
            let x = self.begin_dense(modality, &given)?;
            let y = f(&*self.model, &mut self.step, x);
            let done = values.len();
            values.resize(done + self.step.size(y), 0.0);
            self.step.download_into(y, &mut values[done..])?;
            self.step.finish()?;
        }
        Ok(())
    }

    /// The codes [rows, latent] of cells x [rows, features] of preprocessed values, cell i made of row `of[i % of.len()]` of the modality.
    pub fn embed_made(&mut self, modality: usize, x: &[f32], of: &[u32], codes: &mut Vec<f32>) -> Result<()> {
        self.each_made(modality, x, of, |m, s, x| shown(m, s, modality, x), codes)
    }

    /// Feature `feature` of `to`, one value a row in the model's units, for cells x [rows, features of `from`] as above.
    pub fn impute_made(&mut self, [from, to]: [usize; 2], feature: usize, x: &[f32], of: &[u32], imputed: &mut Vec<f32>) -> Result<()> {
        self.check_decodes(to)?;
        let decode = |m: &dyn Model, s: &mut Step, x: Var| {
            let z = m.encode(s, from, x);
            if from == to { m.decode(s, to, z) } else { m.decode_other(s, to, z) }
        };
        let mut y = Vec::new();
        self.each_made(from, x, of, decode, &mut y)?;
        let back = &self.inputs[to];
        imputed.clear();
        imputed.extend(y.chunks_exact(back.width()).map(|y| back.feature(y, feature)));
        Ok(())
    }

    /// Runs `f` on every chunk of `rows`, the next ones being read meanwhile, and hands its result's rows to `sink`.
    fn each_chunk(
        &mut self,
        dataset: &Dataset,
        modality: usize,
        rows: &[u32],
        f: impl Fn(&dyn Model, &mut Step, Var) -> Var,
        sink: &mut Sink,
    ) -> Result<()> {
        let mut values = Vec::new();
        let at_once = self.chunk;
        let mut ahead = Ahead::new(vec![self.source(dataset.modality(modality), modality)?])?;
        ahead.begin_epoch(vec![rows.to_vec()], Some(at_once));
        for (c, chunk) in rows.chunks(at_once).enumerate() {
            let mut x = Var::NONE;
            ahead.take([c * at_once, chunk.len()], |read| {
                x = self.begin_on(modality, chunk, &read[0])?;
                Ok(())
            })?;
            let y = f(&*self.model, &mut self.step, x);
            let width = self.step.dims(y)[1];
            values.resize(chunk.len() * width, 0.0);
            self.step.download_into(y, &mut values)?;
            self.step.finish()?;
            for (r, row) in values.chunks_exact(width).enumerate() {
                sink(c * at_once + r, row)?;
            }
        }
        Ok(())
    }

    /// The embedding of a modality's rows: `sink` gets each row's position in `rows` and what is shown of its code `[latent]`.
    pub fn embed(&mut self, dataset: &Dataset, modality: usize, rows: &[u32], sink: &mut Sink) -> Result<()> {
        self.each_chunk(dataset, modality, rows, |m, s, x| shown(m, s, modality, x), sink)
    }

    /// A sentence if the model makes nothing of modality `to`.
    fn check_decodes(&self, to: usize) -> Result<()> {
        if self.model.decodes(to) {
            return Ok(());
        }
        let place = ["first", "second", "third"].get(to).copied().unwrap_or("last");
        Err(Error::usage(format!("the model of this run makes no features of its {place} modality: translate to another one")))
    }

    /// The features of `to` for the rows of `from`, in the model's units (after `to`'s preprocessing).
    pub fn translate(&mut self, dataset: &Dataset, [from, to]: [usize; 2], rows: &[u32], sink: &mut Sink) -> Result<()> {
        self.check_decodes(to)?;
        let decode = |m: &dyn Model, s: &mut Step, x: Var| {
            let z = m.encode(s, from, x);
            if from == to { m.decode(s, to, z) } else { m.decode_other(s, to, z) }
        };
        let back = self.inputs[to].clone();
        let mut features = Vec::new();
        self.each_chunk(dataset, from, rows, decode, &mut |row, y| {
            back.features(y, &mut features);
            sink(row, &features)
        })
    }

    /// The class that the model's head gives each of these codes [n, latent]; `None` where it has no head.
    pub fn classes(&mut self, codes: &[f32]) -> Result<Option<Vec<u32>>> {
        let Some((classes, p)) = self.class_probabilities(codes)? else { return Ok(None) };
        Ok(Some(p.chunks_exact(classes).map(|p| most_likely(p) as u32).collect()))
    }

    /// The number of classes that the model's head knows, and the probabilities [n, classes] that it gives to codes [n, latent]; `None`
    /// where it has no head.
    pub fn class_probabilities(&mut self, codes: &[f32]) -> Result<Option<(usize, Vec<f32>)>> {
        let latent = self.model.latent();
        let (mut classes, mut out) = (0, Vec::new());
        for chunk in codes.chunks(self.chunk * latent) {
            self.step.begin(false, 0, 0)?;
            let z = self.step.constant([chunk.len() / latent, latent], chunk);
            let Some(logits) = self.model.classify(&mut self.step, z) else { return Ok(None) };
            classes = self.step.dims(logits)[1];
            let mut logits = self.step.download(logits)?;
            logits.chunks_exact_mut(classes).for_each(softmax);
            out.append(&mut logits);
        }
        Ok((classes > 0).then_some((classes, out)))
    }

    /// Replaces batch norm's statistics by those of the training `rows` of every modality, of 131,072 of them at most, layer by layer,
    /// with nothing dropped and no noise: embeddings then do not depend on the momentum or on the last minibatches.
    pub fn calibrate(&mut self, dataset: &Dataset, rows: &[Vec<u32>]) -> Result<()> {
        let rows: Vec<Vec<u32>> = rows.iter().map(|rows| spaced(rows, CALIBRATED)).collect();
        for layer in 0.. {
            // A norm that several modalities share is given to the rows of all of them, one modality after the other.
            let mut norms: Vec<(BatchNormState, Spread)> = Vec::new();
            for (modality, rows) in rows.iter().enumerate() {
                self.step.begin(false, 0, 0)?;
                let none = self.step.alloc([0, self.inputs[modality].width()]);
                let Some((_, state)) = self.model.before_norm(&mut self.step, modality, layer, none) else { continue };
                let width = self.step.dims(state.mean)[1];
                let at = norms.iter().position(|(s, _)| s.mean == state.mean).unwrap_or_else(|| {
                    norms.push((state, Spread::new(width)));
                    norms.len() - 1
                });
                let spread = &mut norms[at].1;
                let before = |m: &dyn Model, s: &mut Step, x: Var| m.before_norm(s, modality, layer, x).map_or(x, |(h, _)| h);
                self.each_chunk(dataset, modality, rows, before, &mut |_, h| {
                    spread.add(h);
                    Ok(())
                })?;
            }
            if norms.is_empty() {
                break;
            }
            for (state, spread) in norms.iter().filter(|(_, spread)| spread.n > 0.0) {
                let narrow = |v: &[f64], by: f64| v.iter().map(|v| (v / by) as f32).collect::<Vec<f32>>();
                self.step.upload(state.mean, &narrow(&spread.mean, 1.0))?;
                self.step.upload(state.variance, &narrow(&spread.square, spread.n))?;
            }
        }
        Ok(())
    }
}

/// What is shown of the codes of a modality's cells.
fn shown(model: &dyn Model, s: &mut Step, modality: usize, x: Var) -> Var {
    let z = model.encode(s, modality, x);
    model.shown(s, z)
}

/// At most so many of the rows, evenly spaced.
fn spaced(rows: &[u32], most: usize) -> Vec<u32> {
    let n = rows.len().min(most);
    (0..n).map(|i| rows[(i as u128 * rows.len() as u128 / n as u128) as usize]).collect()
}

/// The place of the largest, the first of several.
pub(crate) fn most_likely(p: &[f32]) -> usize {
    (0..p.len()).reduce(|a, b| if p[b] > p[a] { b } else { a }).unwrap_or(0)
}

/// Logits become probabilities.
fn softmax(row: &mut [f32]) {
    let top = row.iter().fold(f32::NEG_INFINITY, |m, &u| m.max(u));
    row.iter_mut().for_each(|u| *u = (*u - top).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|p| *p /= sum);
}

/// Means and sums of squares about them, row by row in f64 (Welford's recurrence).
struct Spread {
    mean: Vec<f64>,
    square: Vec<f64>,
    n: f64,
}

impl Spread {
    fn new(width: usize) -> Spread {
        Spread { mean: vec![0.0; width], square: vec![0.0; width], n: 0.0 }
    }

    fn add(&mut self, row: &[f32]) {
        self.n += 1.0;
        for ((m, s), &h) in self.mean.iter_mut().zip(&mut self.square).zip(row) {
            let d = h as f64 - *m;
            *m += d / self.n;
            *s += d * (h as f64 - *m);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::spaced;

    #[test]
    fn rows_are_taken_evenly_and_all_where_they_are_few() {
        assert_eq!(spaced(&[3, 1, 4, 1, 5, 9, 2], 3), [3, 4, 5]);
        assert_eq!(spaced(&[3, 1], 3), [3, 1]);
        assert!(spaced(&[], 3).is_empty());
    }
}
