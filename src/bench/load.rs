//! The reading of a dataset as training reads it when it does not fit the device: rows in the shuffled order of an epoch, preprocessed,
//! minibatch by minibatch. What `couplet bench load` prints, beside a plain copy of the same rows' bytes, an epoch of either in turn.

use super::anonymous_memory;
use crate::data::Dataset;
use crate::data::plan::Plan;
use crate::data::preprocess::Recipe;
use crate::data::shuffle::Shuffle;
use crate::device::Device;
use crate::engine::{Precision, Step};
use crate::error::{Error, Result};
use crate::train::feed::{Feeds, Way, is_sparse_enough};
use crate::train::input::Input;
use crate::train::sparse::SparseInput;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A line of `couplet bench load --json`.
#[derive(Clone, Debug, Serialize)]
pub struct LoadFigure {
    bench: &'static str,
    /// Cells of the larger modality, each with a row of every other, a second.
    pub cells_per_s: f64,
    /// Bytes of the rows as they are stored, a second.
    pub bytes_per_s: f64,
    /// The same cells copied from the map as they are stored, on one thread and with nothing done to them, a second.
    pub plain_cells_per_s: f64,
    /// The process's anonymous memory at its peak; mapped pages are not in it.
    pub peak_rss_bytes: u64,
    /// Cells of a minibatch.
    pub batch: usize,
    /// Cells read.
    pub cells: u64,
}

/// A dataset that is read minibatch by minibatch.
pub struct Loading<'a> {
    dataset: &'a Dataset,
    feeds: Feeds,
    plan: Plan,
    step: Step,
    epoch: u32,
    copied: Vec<u8>,
}

impl<'a> Loading<'a> {
    /// Fits the preprocessing on all cells (`count_recipe` is what counts get) and makes room for minibatches of `batch` cells, of non-zeros
    /// alone where training would feed them so.
    pub fn new(dataset: &'a Dataset, count_recipe: &str, batch: usize, shuffle: Shuffle, seed: u64) -> Result<Loading<'a>> {
        let mut step = Step::new(Device::cpu(), seed, Precision::F32)?;
        let modalities = dataset.modalities();
        let rows: Vec<Vec<u32>> = modalities.iter().map(|m| (0..m.cells() as u32).collect()).collect();
        let plan = Plan::new(seed, batch, rows.clone(), Vec::new()).shuffled(shuffle);
        let (mut inputs, mut ways) = (Vec::new(), Vec::new());
        for (m, rows) in rows.iter().enumerate() {
            let recipe = Recipe::parse("auto")?.resolve(&modalities[m], count_recipe, false)?;
            let input = Input::fit(&modalities[m], rows, &recipe, None, 0, seed)?;
            ways.push(Way {
                resident: false,
                sparse: SparseInput::of(&input, &modalities[m]).filter(|_| is_sparse_enough(&modalities[m])),
            });
            inputs.push(input);
        }
        let feeds = Feeds::new(&mut step, dataset, &mut inputs, ways, plan.slots(), plan.batch())?;
        Ok(Loading { dataset, feeds, plan, step, epoch: 0, copied: Vec::new() })
    }

    /// Cells of a minibatch, and of an epoch.
    pub fn cells(&self) -> [usize; 2] {
        [self.plan.batch(), self.plan.steps() * self.plan.batch()]
    }

    /// Reads the next epoch; false if `stop` was set before its end.
    pub fn epoch(&mut self, stop: &AtomicBool) -> Result<bool> {
        self.epoch += 1;
        self.plan.shuffle(self.epoch);
        self.feeds.set_order(&mut self.step, &self.plan, true)?;
        for start in (0..self.plan.steps()).map(|i| i * self.plan.batch()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.feeds.stage(&mut self.step, start, self.plan.batch())?;
        }
        Ok(true)
    }

    /// Copies the stored bytes of the epoch's rows, minibatch by minibatch into the same buffer; false if `stop` was set before its end.
    pub fn plain_epoch(&mut self, stop: &AtomicBool) -> Result<bool> {
        for start in (0..self.plan.steps()).map(|i| i * self.plan.batch()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.copied.clear();
            for (m, modality) in self.dataset.modalities().iter().enumerate() {
                for &row in &self.plan.order(m)[start..start + self.plan.batch()] {
                    let parts = modality.stored_row(row as usize);
                    let parts =
                        parts.ok_or_else(|| Error::input(self.dataset.dir(), format!("row {row}"), "a file is shorter than it was"))?;
                    parts.iter().for_each(|part| self.copied.extend_from_slice(part));
                }
            }
            std::hint::black_box(&self.copied);
        }
        Ok(true)
    }
}

/// Reads whole epochs until `atleast` has passed, in minibatches of `batch` cells.
pub fn run(
    dataset: &Dataset,
    count_recipe: &str,
    batch: usize,
    shuffle: Shuffle,
    atleast: Duration,
    seed: u64,
    stop: &AtomicBool,
) -> Result<LoadFigure> {
    let mut loading = Loading::new(dataset, count_recipe, batch, shuffle, seed)?;
    let [batch, in_epoch] = loading.cells();
    let row_bytes: f64 = dataset.modalities().iter().map(|m| m.stored_bytes() as f64 / m.cells().max(1) as f64).sum();
    let (mut cells, mut peak, mut took) = (0u64, anonymous_memory(), [Duration::ZERO; 2]);
    let started = Instant::now();
    while cells == 0 || started.elapsed() < atleast {
        for (took, plain) in took.iter_mut().zip([false, true]) {
            let begun = Instant::now();
            if !(if plain { loading.plain_epoch(stop)? } else { loading.epoch(stop)? }) {
                return Err(Error::Interrupted("interrupted: nothing was measured".into()));
            }
            *took += begun.elapsed();
        }
        cells += in_epoch as u64;
        peak = peak.max(anonymous_memory());
    }
    let [seconds, plain] = took.map(|t| t.as_secs_f64().max(1e-9));
    Ok(LoadFigure {
        bench: "load",
        cells_per_s: cells as f64 / seconds,
        bytes_per_s: cells as f64 * row_bytes / seconds,
        plain_cells_per_s: cells as f64 / plain,
        peak_rss_bytes: peak,
        batch,
        cells,
    })
}
