//! A whole training, asked for as the tests do: seed 5, full precision.

use couplet::data::Dataset;
use couplet::device::Device;
use couplet::engine::Precision;
use couplet::error::Result;
use couplet::models::{self, settings::Settings};
use couplet::train::{CHECKPOINT_EVERY, TrainRequest, TrainSummary, train};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub struct Training<'a> {
    pub model: &'a str,
    pub dataset: &'a Dataset,
    pub device: Device,
    pub out: &'a Path,
    /// As a user types them.
    pub options: &'a [&'a str],
    /// As `--holdout` has it.
    pub holdout: Option<&'a str>,
    pub labels: Option<&'a str>,
    pub resume: bool,
    pub checkpoint_every: Duration,
    /// Whether to stop in an epoch, after so many steps; before the first both are 0.
    pub stop: &'a (dyn Fn(usize, u64) -> bool + Sync),
}

impl<'a> Training<'a> {
    /// All cells, to the end.
    pub fn new(model: &'a str, dataset: &'a Dataset, device: Device, out: &'a Path, options: &'a [&'a str]) -> Training<'a> {
        Training {
            model,
            dataset,
            device,
            out,
            options,
            holdout: None,
            labels: None,
            resume: false,
            checkpoint_every: CHECKPOINT_EVERY,
            stop: &|_, _| false,
        }
    }

    /// What it came to, and which modalities it was fed without their zeros.
    pub fn run(self) -> Result<(TrainSummary, Vec<bool>)> {
        let model = models::by_name(self.model)?;
        let names: Vec<String> = self.dataset.modalities().iter().map(|m| m.name().to_string()).collect();
        let mut settings = Settings::new(model.name, model.options, &names)?;
        settings.apply_flags(&self.options.iter().map(|o| o.to_string()).collect::<Vec<_>>())?;
        let (stopped, mut sparse) = (AtomicBool::new((self.stop)(0, 0)), Vec::new());
        let summary = train(TrainRequest {
            model,
            dataset: self.dataset,
            settings: &settings,
            device: self.device,
            precision: Precision::F32,
            seed: 5,
            holdout: self.holdout.map(|h| h.parse().expect("a share to hold out")),
            paired: 1.0,
            shuffle: Default::default(),
            labels: self.labels.map(str::to_string),
            run_dir: self.out.to_path_buf(),
            resume: self.resume,
            stop: &stopped,
            checkpoint_every: self.checkpoint_every,
            inferring: &mut |_| {},
            prepared: &mut |p| sparse = p.modalities.iter().map(|m| m.sparse).collect(),
            progress: &mut |p| stopped.store((self.stop)(p.epoch, p.step), Ordering::Relaxed),
        })?;
        Ok((summary, sparse))
    }
}
