//! The reading of a dataset as training reads it when it does not fit the device: rows in the shuffled order of an epoch, preprocessed,
//! minibatch by minibatch. What `couplet bench load` prints.

use super::anonymous_memory;
use crate::data::Dataset;
use crate::data::plan::Plan;
use crate::data::preprocess::{Preprocess, Recipe};
use crate::device::Device;
use crate::engine::{Precision, Step};
use crate::error::{Error, Result};
use crate::train::feed::Feed;
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
    /// The process's anonymous memory at its peak; mapped pages are not in it.
    pub peak_rss_bytes: u64,
    /// Cells of a minibatch.
    pub batch: usize,
    /// Cells read.
    pub cells: u64,
}

/// Reads whole epochs until `atleast` has passed, in minibatches of `batch` cells.
pub fn run(dataset: &Dataset, count_recipe: &str, batch: usize, atleast: Duration, seed: u64, stop: &AtomicBool) -> Result<LoadFigure> {
    let mut step = Step::new(Device::cpu(), seed, Precision::F32)?;
    let modalities = dataset.modalities();
    let rows: Vec<Vec<u32>> = modalities.iter().map(|m| (0..m.cells() as u32).collect()).collect();
    let mut plan = Plan::new(seed, batch, rows.clone(), Vec::new());
    let (mut preprocess, mut feeds) = (Vec::new(), Vec::new());
    for (m, rows) in rows.iter().enumerate() {
        let recipe = Recipe::parse("auto")?.resolve(&modalities[m], count_recipe)?;
        let fitted = Preprocess::fit(&modalities[m], rows, &recipe)?;
        feeds.push(Feed::new(&mut step, dataset, m, &fitted, plan.slots(), plan.batch(), false)?);
        preprocess.push(fitted);
    }
    let row_bytes: f64 = modalities.iter().map(|m| m.stored_bytes() as f64 / m.cells().max(1) as f64).sum();
    let (mut cells, mut peak) = (0u64, anonymous_memory());
    let started = Instant::now();
    for epoch in 1.. {
        plan.shuffle(epoch);
        for start in (0..plan.steps()).map(|i| i * plan.batch()) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted("interrupted: nothing was measured".into()));
            }
            for (feed, p) in feeds.iter_mut().zip(&preprocess) {
                feed.stage(&mut step, dataset, p, &plan, start, plan.batch())?;
            }
            cells += plan.batch() as u64;
        }
        peak = peak.max(anonymous_memory());
        if started.elapsed() >= atleast {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(LoadFigure {
        bench: "load",
        cells_per_s: cells as f64 / seconds,
        bytes_per_s: cells as f64 * row_bytes / seconds,
        peak_rss_bytes: peak,
        batch: plan.batch(),
        cells,
    })
}
