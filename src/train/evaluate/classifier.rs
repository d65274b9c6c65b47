//! A small network that tells classes from codes: how much of a label a space holds, non-linearly too.
//!
//!   network    d → 128 → 128 → 128 → classes; a block is dropout (0.1), a linear map without bias, batch norm, LeakyReLU 0.01; the last is
//!              dropout and a linear map: the block of APOLLO's decoders (Zhang, Shivashankar and Uhler 2026)
//!   training   Adam on the cross-entropy in minibatches of about 256, up to 1,100 epochs; ended after 100 epochs (in total, not in a row) whose
//!              validation loss was not below that of 50 epochs before
//!   cells      with held-out cells: trained on the training cells, of which one in 18 validates, and told of the held-out ones, the mean
//!              of 3 networks. Without: 3 random splits into 85 % training, 5 % validation and 10 % test, the mean of the test cells
//!   chance     the same with the labels of the training cells shuffled
//!
//! Adam's rate is 1e-3; the published one, 1e-5, is for a hundred minibatches an epoch. Codes enter with the training cells' mean taken off,
//! divided by the root mean square of all their coordinates.

use super::Trained;
use crate::data::Dataset;
use crate::data::labels::Labels;
use crate::data::split::{Role, Split};
use crate::device::Device;
use crate::engine::nn::{BatchNorm, Linear};
use crate::engine::ops::activation::Activation;
use crate::engine::ops::batch_norm::Running;
use crate::engine::ops::classes::Target;
use crate::engine::ops::ledger::Ledger;
use crate::engine::optim::{Adam, AdamSettings};
use crate::engine::params::init;
use crate::engine::rng::{self, Sequence};
use crate::engine::{Precision, Step, Var, Weight};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::train::session::most_likely;

const WIDTH: usize = 128;
const DROPOUT: f32 = 0.1;
const BATCH: usize = 256;
const EPOCHS: usize = 1100;
/// Epochs without a fall that end it, and how far back a fall is measured.
const PATIENCE: usize = 100;
const BACK: usize = 50;
const RATE: f64 = 1e-3;
/// Networks or splits whose accuracies are averaged.
const REPEATS: u32 = 3;
/// Fewer training cells than this teach nothing.
const FEWEST: usize = 20;
/// Rows that are asked at once.
const ASKED: usize = 4096;
/// Streams: which cells validate and test, the order of an epoch, shuffled labels ("cl").
const SPLITS: u32 = 0x636c_0000;
const ORDER: u32 = 0x636c_0001;
const CHANCE: u32 = 0x636c_0002;

/// Codes of cells with their classes.
struct Known {
    /// [cells, width]
    codes: Vec<f32>,
    width: usize,
    classes: Vec<u32>,
    held_out: Vec<bool>,
}

impl Trained {
    /// Measures `classifier_accuracy.SPACE.A` for every space of every modality's code, and of the whole code as `full.A`; `labels` names
    /// a column, else the run's, else the dataset's default.
    pub fn classify_spaces(&mut self, dataset: &Dataset, labels: Option<&str>) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        let own = self.config.labels.clone();
        let Some(column) = labels.or(own.as_deref()).or(dataset.default_label()) else { return Ok(metrics) };
        let labels = dataset.label(column)?;
        let split = self.split(dataset)?;
        let (latent, mut spaces, seed) = (self.latent(dataset)?, self.spaces(dataset)?, self.config.seed);
        spaces.push(("full", 0..latent));
        let mut chance = None;
        for (m, modality) in dataset.modalities().iter().enumerate() {
            let counts = |r: usize| labels.rows[m][r].is_some() && split.roles[m][r] != Role::LeftOut;
            let rows: Vec<u32> = (0..modality.cells() as u32).filter(|&r| counts(r as usize)).collect();
            let mut codes = Vec::with_capacity(rows.len() * latent);
            self.session(dataset)?.embed(dataset, m, &rows, &mut |_, z| {
                codes.extend_from_slice(z);
                Ok(())
            })?;
            for (space, range) in &spaces {
                let part = codes.chunks_exact(latent).flat_map(|z| z[range.clone()].iter().copied()).collect();
                let known = Known::of(part, range.len(), &rows, m, &labels, &split);
                let accuracy = known.accuracy(labels.classes.len(), seed, false)?;
                metrics.set_some(format!("classifier_accuracy.{space}.{}", modality.name()), accuracy);
                if *space == "full" && chance.is_none() {
                    chance = known.accuracy(labels.classes.len(), seed, true)?;
                }
            }
        }
        metrics.set_some("classifier_accuracy.chance", chance);
        metrics.note(format!("classifier_accuracy.*: networks that learn column {}, the mean of {REPEATS}", labels.column));
        Ok(metrics)
    }
}

impl Known {
    fn of(codes: Vec<f32>, width: usize, rows: &[u32], m: usize, labels: &Labels, split: &Split) -> Known {
        let classes = rows.iter().map(|&r| labels.rows[m][r as usize].unwrap_or(0)).collect();
        Known { codes, width, classes, held_out: rows.iter().map(|&r| split.roles[m][r as usize].is(true)).collect() }
    }

    /// The mean accuracy on cells that a network did not learn from; `None` with too few cells or one class.
    fn accuracy(&self, classes: usize, seed: u64, shuffled: bool) -> Result<Option<f64>> {
        let any_held = self.held_out.contains(&true);
        let mut sum = 0.0;
        for repeat in 0..REPEATS {
            let order = rng::permutation(self.classes.len(), seed, SPLITS, repeat);
            let mut free: Vec<u32> = order.into_iter().filter(|&r| !self.held_out[r as usize]).collect();
            let tested: Vec<u32> = if any_held {
                (0..self.classes.len() as u32).filter(|&r| self.held_out[r as usize]).collect()
            } else {
                free.split_off(free.len() - free.len() / 10)
            };
            let validated = free.split_off(free.len() - (free.len() / 18).max(1).min(free.len()));
            let seen = |c: u32| free.iter().any(|&r| self.classes[r as usize] == c);
            if free.len() < FEWEST || tested.is_empty() || (0..classes as u32).filter(|&c| seen(c)).count() < 2 {
                return Ok(None);
            }
            let mut labels: Vec<u32> = self.classes.clone();
            if shuffled {
                let mut of_training: Vec<u32> = free.iter().map(|&r| labels[r as usize]).collect();
                Sequence::new(seed, CHANCE, repeat).shuffle(&mut of_training);
                free.iter().zip(of_training).for_each(|(&r, c)| labels[r as usize] = c);
            }
            let said = self.learn(classes, &labels, [&free, &validated, &tested], seed.wrapping_add(u64::from(repeat)))?;
            let right = said.iter().zip(&tested).filter(|(said, row)| **said == self.classes[**row as usize]).count();
            sum += right as f64 / tested.len() as f64;
        }
        Ok(Some(sum / f64::from(REPEATS)))
    }

    /// Trains a network and asks it about the tested cells.
    fn learn(&self, classes: usize, labels: &[u32], [training, validated, tested]: [&[u32]; 3], seed: u64) -> Result<Vec<u32>> {
        let codes = self.scaled(training);
        let mut s = Step::new(Device::cpu(), seed, Precision::F32)?;
        let (x, y) = (s.resident([training.len(), self.width])?, s.resident([training.len(), 1])?);
        let of = |rows: &[u32]| -> Vec<f32> {
            rows.iter().flat_map(|&r| codes[r as usize * self.width..][..self.width].iter().copied()).collect()
        };
        let class_of = |rows: &[u32]| -> Vec<f32> { rows.iter().map(|&r| labels[r as usize] as f32).collect() };
        s.upload(x, &of(training))?;
        s.upload(y, &class_of(training))?;
        let order = s.resident([1, training.len()])?;
        let network = Network::new(&mut s, self.width, classes)?;
        let mut adam = Adam::new(&mut s, 0, AdamSettings { rate: RATE, ..AdamSettings::default() })?;
        let ledger = Ledger::new(&mut s, 1)?;
        let (n, parts) = (training.len(), (training.len() / BATCH).max(1));
        let (to_validate, wanted) = (of(validated), class_of(validated));
        let (mut losses, mut no_fall, mut number) = (Vec::with_capacity(EPOCHS), 0, 0u64);
        for epoch in 0..EPOCHS {
            s.upload(order, &rng::permutation(n, seed, ORDER, epoch as u32))?;
            for part in 0..parts {
                let (start, end) = (n * part / parts, n * (part + 1) / parts);
                number += 1;
                adam.set_step(&mut s, number, 1.0);
                s.begin(true, number, start)?;
                let cells = s.gather(x, order, end - start, Var::NONE, Var::NONE);
                let known = s.gather(y, order, end - start, Var::NONE, Var::NONE);
                let logits = network.forward(&mut s, cells);
                let loss = s.cross_entropy(logits, Target::Labels(known), Var::NONE);
                ledger.add(&mut s, &[loss]);
                s.backward(&[(loss, Weight::Fixed(1.0))]);
                adam.step(&mut s, &ledger);
            }
            s.finish()?;
            s.begin(false, 0, 0)?;
            let (cells, known) = (s.constant([validated.len(), self.width], &to_validate), s.constant([validated.len(), 1], &wanted));
            let logits = network.forward(&mut s, cells);
            let loss = s.cross_entropy(logits, Target::Labels(known), Var::NONE);
            let loss = s.download(loss)?[0];
            losses.push(loss);
            // A loss that is no number has not fallen.
            if epoch >= BACK && loss.partial_cmp(&losses[epoch - BACK]).is_none_or(|order| order.is_ge()) {
                no_fall += 1;
                if no_fall == PATIENCE {
                    break;
                }
            }
        }
        let mut said = Vec::with_capacity(tested.len());
        for rows in tested.chunks(ASKED) {
            s.begin(false, 0, 0)?;
            let cells = s.constant([rows.len(), self.width], &of(rows));
            let logits = network.forward(&mut s, cells);
            said.extend(s.download(logits)?.chunks_exact(classes).map(|u| most_likely(u) as u32));
        }
        Ok(said)
    }

    /// All codes, the training cells' mean taken off, over the root mean square of their coordinates.
    fn scaled(&self, training: &[u32]) -> Vec<f32> {
        let row = |r: u32| &self.codes[r as usize * self.width..][..self.width];
        let n = training.len() as f64;
        let mut mean = vec![0.0; self.width];
        training.iter().for_each(|&r| mean.iter_mut().zip(row(r)).for_each(|(m, &z)| *m += f64::from(z) / n));
        let square = |r: &u32| row(*r).iter().zip(&mean).map(|(&z, m)| (f64::from(z) - m).powi(2)).sum::<f64>();
        let rms = (training.iter().map(square).sum::<f64>() / (n * self.width as f64)).sqrt();
        let over = if rms > 0.0 { 1.0 / rms } else { 1.0 };
        self.codes.chunks_exact(self.width).flat_map(|z| z.iter().zip(&mean).map(|(&z, m)| ((f64::from(z) - m) * over) as f32)).collect()
    }
}

/// The network.
struct Network {
    blocks: Vec<(Linear, BatchNorm, u32)>,
    last: (Linear, u32),
}

impl Network {
    fn new(s: &mut Step, inputs: usize, classes: usize) -> Result<Network> {
        let mut blocks = Vec::new();
        for (i, width) in [inputs, WIDTH, WIDTH].into_iter().enumerate() {
            let linear = without_bias(s, &format!("{i}.linear"), [width, WIDTH]);
            let norm = BatchNorm::affine(s, &format!("{i}.norm"), 0, WIDTH, 1e-5, 0.9, Running::Unbiased)?;
            blocks.push((linear, norm, s.stream()));
        }
        let last = (without_bias(s, "last", [WIDTH, classes]), s.stream());
        Ok(Network { blocks, last })
    }

    fn forward(&self, s: &mut Step, x: Var) -> Var {
        let h = self.blocks.iter().fold(x, |x, (linear, norm, stream)| {
            let x = s.dropout(x, DROPOUT, *stream);
            let u = linear.forward(s, x);
            norm.forward(s, u, Activation::LeakyRelu(0.01))
        });
        let h = s.dropout(h, DROPOUT, self.last.1);
        self.last.0.forward(s, h)
    }
}

/// Weights uniform on ±1/√inputs.
fn without_bias(s: &mut Step, name: &str, [inputs, outputs]: [usize; 2]) -> Linear {
    let values = init::fan_in_uniform(s.seed(), name, outputs * inputs, inputs);
    let weight = s.parameter(name.to_string(), 0, [outputs, inputs], values);
    Linear { weight, bias: Var::NONE, activation: Activation::Identity }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rings, one inside the other: apart, but by no line.
    fn rings(n: usize, held: bool) -> Known {
        let mut draw = Sequence::new(4, 1, 0);
        let (mut codes, mut classes) = (Vec::new(), Vec::new());
        for i in 0..n {
            let class = (i % 2) as u32;
            let (angle, radius) = (draw.next_f32() * std::f32::consts::TAU, 1.0 + 2.0 * class as f32 + 0.2 * draw.next_normal());
            codes.extend([5.0 + radius * angle.cos(), radius * angle.sin()]);
            classes.push(class);
        }
        Known { codes, width: 2, classes, held_out: (0..n).map(|i| held && i % 5 < 2).collect() }
    }

    #[test]
    fn rings_are_told_apart_and_shuffled_labels_are_not() {
        let known = rings(300, true);
        let told = known.accuracy(2, 1, false).unwrap().unwrap();
        assert!(told > 0.95, "{told}");
        let chance = known.accuracy(2, 1, true).unwrap().unwrap();
        assert!((0.3..0.7).contains(&chance), "{chance}");
    }

    #[test]
    fn too_few_cells_or_one_class_have_no_accuracy() {
        assert_eq!(rings(10, false).accuracy(2, 1, false).unwrap(), None);
        let mut one = rings(60, false);
        one.classes.fill(0);
        assert_eq!(one.accuracy(2, 1, false).unwrap(), None);
    }
}
