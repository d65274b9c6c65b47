//! A model on a device, with what turns a modality's raw rows into its input: what training, embedding and translation share.

use super::input::Input;
use crate::data::dataset::Dataset;
use crate::engine::{Step, Var};
use crate::error::Result;
use crate::models::Model;

/// Rows that pass through the device at once outside training, for a model that bears as many.
pub const CHUNK: usize = 1024;

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
    /// Staging on the device for rows that pass through, one a modality, made when first needed.
    stages: Vec<Option<Var>>,
    host: Vec<f32>,
    /// Rows that pass through at once.
    chunk: usize,
}

impl Session {
    /// From its parts.
    pub fn new(step: Step, model: Box<dyn Model>, inputs: Vec<Input>) -> Session {
        let stages = vec![None; inputs.len()];
        let chunk = model.rows_at_once().clamp(1, CHUNK);
        Session { step, model, inputs, stages, host: Vec::new(), chunk }
    }

    /// Puts `rows` of a modality on the device and begins an evaluation step on them; x [rows, features]. At most `chunk` rows.
    fn begin_on(&mut self, dataset: &Dataset, modality: usize, rows: &[u32]) -> Result<Var> {
        self.host.resize(rows.len() * self.inputs[modality].width(), 0.0);
        self.inputs[modality].rows(dataset.modality(modality), rows, &mut self.host)?;
        self.begin_on_host(modality)
    }

    /// The same with the model's inputs in `self.host`.
    fn begin_on_host(&mut self, modality: usize) -> Result<Var> {
        let width = self.inputs[modality].width();
        let rows = self.host.len() / width;
        let stage = match self.stages[modality] {
            Some(v) => v,
            None => {
                self.step.end();
                let v = self.step.resident([self.chunk, width])?;
                self.stages[modality] = Some(v);
                v
            }
        };
        self.step.upload(stage, &self.host)?;
        self.step.begin(false, 0, 0)?;
        let x = self.step.part(stage, 0, rows * width);
        Ok(self.step.reshaped(x, [rows, width]))
    }

    /// Runs `f` on cells that need not be in a dataset, x [rows, features] after the modality's preprocessing steps; `values`
    /// becomes its result. Any number of rows.
    fn each_made(
        &mut self,
        modality: usize,
        x: &[f32],
        f: impl Fn(&dyn Model, &mut Step, Var) -> Var,
        values: &mut Vec<f32>,
    ) -> Result<()> {
        let (features, width) = (self.inputs[modality].preprocess().features(), self.inputs[modality].width());
        values.clear();
        for x in x.chunks(self.chunk * features) {
            self.host.resize(x.len() / features * width, 0.0);
            self.inputs[modality].project(x, &mut self.host);
            let x = self.begin_on_host(modality)?;
            let y = f(&*self.model, &mut self.step, x);
            let done = values.len();
            values.resize(done + self.step.size(y), 0.0);
            self.step.download_into(y, &mut values[done..])?;
            self.step.finish()?;
        }
        Ok(())
    }

    /// The codes [rows, latent] of cells x [rows, features], which are preprocessed values and need not be in a dataset.
    pub fn embed_made(&mut self, modality: usize, x: &[f32], codes: &mut Vec<f32>) -> Result<()> {
        self.each_made(modality, x, |m, s, x| m.encode(s, modality, x), codes)
    }

    /// Feature `feature` of `to`, one value a row in the model's units, for cells x [rows, features of `from`] as above.
    pub fn impute_made(&mut self, [from, to]: [usize; 2], feature: usize, x: &[f32], imputed: &mut Vec<f32>) -> Result<()> {
        let decode = |m: &dyn Model, s: &mut Step, x: Var| {
            let z = m.encode(s, from, x);
            m.decode(s, to, z)
        };
        let mut y = Vec::new();
        self.each_made(from, x, decode, &mut y)?;
        let back = &self.inputs[to];
        imputed.clear();
        imputed.extend(y.chunks_exact(back.width()).map(|y| back.feature(y, feature)));
        Ok(())
    }

    /// Runs `f` on every chunk of `rows` and hands its result's rows to `sink`.
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
        for (c, chunk) in rows.chunks(at_once).enumerate() {
            let x = self.begin_on(dataset, modality, chunk)?;
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

    /// The codes of a modality's rows: `sink` gets each row's position in `rows` and its code `[latent]`.
    pub fn embed(&mut self, dataset: &Dataset, modality: usize, rows: &[u32], sink: &mut Sink) -> Result<()> {
        self.each_chunk(dataset, modality, rows, |m, s, x| m.encode(s, modality, x), sink)
    }

    /// The features of `to` for the rows of `from`, in the model's units (after `to`'s preprocessing).
    pub fn translate(&mut self, dataset: &Dataset, [from, to]: [usize; 2], rows: &[u32], sink: &mut Sink) -> Result<()> {
        let decode = |m: &dyn Model, s: &mut Step, x: Var| {
            let z = m.encode(s, from, x);
            m.decode(s, to, z)
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
        let latent = self.model.latent();
        let mut out = Vec::with_capacity(codes.len() / latent.max(1));
        for chunk in codes.chunks(self.chunk * latent) {
            self.step.begin(false, 0, 0)?;
            let z = self.step.constant([chunk.len() / latent, latent], chunk);
            let Some(logits) = self.model.classify(&mut self.step, z) else { return Ok(None) };
            let classes = self.step.dims(logits)[1];
            let logits = self.step.download(logits)?;
            let best = |row: &[f32]| (0..classes).reduce(|a, b| if row[b] > row[a] { b } else { a }).unwrap_or(0) as u32;
            out.extend(logits.chunks_exact(classes).map(best));
        }
        Ok(Some(out))
    }

    /// Replaces batch norm's running statistics by those of `rows`, with nothing dropped and no noise: embeddings then do not
    /// depend on the momentum or on the last minibatches.
    pub fn calibrate(&mut self, dataset: &Dataset, modality: usize, rows: &[u32]) -> Result<()> {
        self.step.begin(false, 0, 0)?;
        let none = self.step.alloc([0, self.inputs[modality].width()]);
        let Some((_, state)) = self.model.before_norm(&mut self.step, modality, none) else { return Ok(()) };
        let width = self.step.dims(state.mean)[1];
        // Welford's recurrence, row by row in f64
        let (mut mean, mut spread, mut n) = (vec![0.0f64; width], vec![0.0f64; width], 0.0f64);
        let before = |m: &dyn Model, s: &mut Step, x: Var| m.before_norm(s, modality, x).map_or(x, |(h, _)| h);
        self.each_chunk(dataset, modality, rows, before, &mut |_, h| {
            n += 1.0;
            for ((m, s), &h) in mean.iter_mut().zip(&mut spread).zip(h) {
                let d = h as f64 - *m;
                *m += d / n;
                *s += d * (h as f64 - *m);
            }
            Ok(())
        })?;
        if n > 0.0 {
            let variance: Vec<f32> = spread.iter().map(|s| (s / n) as f32).collect();
            self.step.upload(state.mean, &mean.iter().map(|&m| m as f32).collect::<Vec<f32>>())?;
            self.step.upload(state.variance, &variance)?;
        }
        Ok(())
    }
}
