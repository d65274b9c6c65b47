//! The one training loop, for every model: epochs, held-out loss, early stopping, checkpoints, and what a run leaves behind.
//!
//! In reading order: [`feed`] brings the modalities' rows to the device, [`ahead`] reads them meanwhile, [`stepper`] is one step, [`train`] the loop, [`session`] passes
//! rows through a model outside training, [`Trained`] is a finished run that embeds and translates.
//!
//! The same seed on the same device gives the same bits, whatever the number of threads, and whether or not the run was stopped and
//! resumed: everything that a step depends on (weights, moments, running statistics, warm starts, the step's number) is in the
//! checkpoint, and everything random is a function of the seed and that number.

pub mod ahead;
pub mod canvas;
pub mod common;
pub mod conditions;
pub mod correspondence;
pub mod evaluate;
pub mod feed;
mod filter;
pub mod input;
pub mod labels;
pub mod prepare;
pub mod session;
pub mod sparse;
pub mod stepper;
pub mod trained;
mod training;

pub use prepare::{Prepared, PreparedModality};
pub use trained::{Space, Trained};

use crate::correspondence::Inferring;
use crate::data::Dataset;
use crate::data::shuffle::Shuffle;
use crate::data::split::Holdout;
use crate::device::Device;
use crate::engine::Precision;
use crate::error::Result;
use crate::models::ModelSpec;
use crate::models::settings::Settings;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A process that is killed loses so much of its work, or thirty times what writing a checkpoint takes if that is more.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// What to train.
pub struct TrainRequest<'a> {
    /// The model.
    pub model: &'static ModelSpec,
    /// The data.
    pub dataset: &'a Dataset,
    /// The model's options; what is `auto` is worked out from the data.
    pub settings: &'a Settings,
    /// Where to compute.
    pub device: Device,
    /// What matrix products are computed in.
    pub precision: Precision,
    /// All random numbers derive from it.
    pub seed: u64,
    /// Cells that training never sees.
    pub holdout: Option<Holdout>,
    /// The fraction of the known training pairs that training may see.
    pub paired: f64,
    /// How rows are shuffled.
    pub shuffle: Shuffle,
    /// The label column that the run is about.
    pub labels: Option<String>,
    /// The directory of the run.
    pub run_dir: PathBuf,
    /// Whether to continue from the run's checkpoint.
    pub resume: bool,
    /// After any step, a checkpoint is written if the last one is so old; [`CHECKPOINT_EVERY`] for most.
    pub checkpoint_every: Duration,
    /// Set from outside to stop at the next step.
    pub stop: &'a AtomicBool,
    /// Told how far the correspondence is, where a model learns from an inferred one: before the first step.
    pub inferring: &'a mut (dyn FnMut(Inferring) + Send),
    /// Told once what will be trained on what.
    pub prepared: &'a mut (dyn FnMut(&Prepared) + Send),
    /// Told how far the training is.
    pub progress: &'a mut (dyn FnMut(&TrainProgress) + Send),
}

/// How far a training is.
#[derive(Clone, Copy, Debug)]
pub struct TrainProgress {
    /// The epoch under way, from 1.
    pub epoch: usize,
    /// The most epochs.
    pub epochs: usize,
    /// Steps done.
    pub step: u64,
    /// The most steps.
    pub steps: u64,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// The last held-out loss.
    pub held_out: Option<f64>,
}

/// Why a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All epochs were done.
    Finished,
    /// The loss that is watched had not improved for `patience` epochs.
    Early {
        /// The epoch with the best loss.
        best: usize,
        /// Whether its weights are the run's; else the last epoch's are.
        kept: bool,
    },
    /// By the user; a checkpoint has been written.
    Interrupted,
}

/// How a training ended.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// Epochs done.
    pub epochs: usize,
    /// Steps done.
    pub steps: u64,
    /// Why it ended.
    pub stopped: Stopped,
    /// Seconds of training, those before a resume included.
    pub seconds: f64,
    /// Columns and values of the last row of `history.csv`.
    pub last: Vec<(String, f64)>,
}

/// Trains, and leaves a run that can be embedded, translated, evaluated and resumed.
pub fn train(request: TrainRequest) -> Result<TrainSummary> {
    // On a worker of the pool: what it shares with the other workers costs it no wake-up of its own.
    rayon::scope(|_| training::Training::new(request)?.run())
}
