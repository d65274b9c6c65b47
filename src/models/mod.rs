//! The models: one file a paper, and what they have in common.
//!
//! A model is its paper: options with the published defaults, layers, `encode`, `decode`, and named loss terms in the paper's order.
//! It knows no file, no loop and no device; [`crate::train`] drives all of them by the [`Model`] trait.

pub mod apollo;
pub mod coupled;
pub mod cross_modal;
pub mod inference;
pub mod jamie;
pub mod options;
pub mod scican;
pub mod settings;

use crate::correspondence::Inference;
use crate::data::plan::{Plan, Unit};
use crate::engine::ops::batch_norm::BatchNormState;
use crate::engine::ops::ledger::Ledger;
use crate::engine::optim::Rule;
use crate::engine::{Step, Var, Weight};
use crate::error::{Error, Result, nearest};
use options::OptionSpec;
use settings::Settings;

/// As many modalities as a model may have: what a step needs of them stands in arrays, so that a warm step allocates nothing.
pub const MOST_MODALITIES: usize = 16;
/// As many pairs of them.
pub const MOST_PAIRS: usize = MOST_MODALITIES * (MOST_MODALITIES - 1) / 2;

/// A modality as a model sees it.
#[derive(Clone, Debug)]
pub struct Modality {
    /// Its name.
    pub name: String,
    /// Its features, after preprocessing.
    pub features: usize,
    /// The features' standard deviations over the training cells, after preprocessing.
    pub deviations: Vec<f32>,
    /// Channels, height and width, where the model takes images and this modality is of images.
    pub image: Option<[usize; 3]>,
}

/// A minibatch on the device: the rows of slot r are one cell where the pair's weight says so.
pub struct Minibatch<'a> {
    /// One matrix [B, features] a modality; a missing value is NaN.
    pub x: &'a [Var],
    /// The weights [B, 1] of the pairs of modalities (0,1), (0,2), .. (1,2), ..; [`Var::NONE`] where every slot is a pair.
    pub pairs: &'a [Var],
    /// The inferred correspondences [B, B] of the pairs of modalities, in the order of `pairs`, for a model that asks for them; [`Var::NONE`]
    /// where there is none: of held-out cells, and where known pairs contradict it.
    pub inferred: &'a [Var],
    /// What is known of the cells [B, 1], a modality each: their class's number, or a marker's value; NaN where nothing is known.
    /// Empty for a model that learns from no labels.
    pub labels: &'a [Var],
    /// How many rows at the end are known pairs, each a cell seen in both modalities where the pair's weight is above 0; the rows before
    /// were drawn from each modality by itself. Only where [`Sampling::Separate`] asked for them.
    pub anchors: usize,
    /// What [`Model::begin_step`] left for all phases.
    pub shared: &'a [Var],
    /// The epoch's order of the first modality's rows [1, slots]; the minibatch begins where the clock says (see [`Step::table_rows`]).
    pub cells: Var,
    /// The stage under way.
    pub stage: usize,
}

/// The loss terms of a step, in the order of [`Model::terms`].
pub type Losses = Vec<(Var, Weight)>;

/// Parameters that step on losses of their own; models that train everything at once have one.
#[derive(Clone, Debug)]
pub struct Phase {
    /// The groups of parameters that move, and by which optimiser. Those of two phases are two.
    pub moves: Vec<(usize, Rule)>,
    /// The longest that the gradient of a group may be; longer ones are shortened to it. 0: as it comes.
    pub clip: f32,
}

impl Phase {
    /// One group, gradients as they come.
    pub fn of(group: usize, optimiser: impl Into<Rule>) -> Phase {
        Phase { moves: vec![(group, optimiser.into())], clip: 0.0 }
    }
}

/// A part of a training that comes before or after others: which phases step, on what, for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Its name, for a person.
    pub name: &'static str,
    /// The phases that step in it.
    pub phases: std::ops::Range<usize>,
    /// Passes over the data.
    pub epochs: usize,
    /// Cells of a minibatch.
    pub batch: usize,
    /// How minibatches are made.
    pub sampling: Sampling,
    /// The one modality that it is about, if it is about one: an epoch is a pass over that.
    pub only: Option<usize>,
}

/// How minibatches are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// An epoch is a pass over the cells in a shuffled order.
    Passes,
    /// Every minibatch is drawn afresh; a slot is a known pair with this probability.
    Draws {
        /// The probability.
        pair_fraction: f64,
    },
    /// An epoch is a pass over one modality; each modality's cells are shuffled by themselves (or kept in their order), and so many known
    /// pairs are drawn besides for every minibatch.
    Separate {
        /// Pairs of a minibatch, at most as many as are known.
        anchors: usize,
        /// Whether cells are shuffled.
        shuffle: bool,
        /// Over which modality.
        over: PassOver,
    },
    /// An epoch is a pass over the cells that are seen in every modality; the others are left out.
    Complete {
        /// Whether every epoch has an order of its own, or goes on where the last one ended in the first one's.
        reshuffle: bool,
    },
}

impl Sampling {
    /// The epochs of the rows of each modality, with the known pairs among them.
    pub fn plan(self, seed: u64, batch: usize, rows: Vec<Vec<u32>>, units: Vec<Unit>) -> Plan {
        match self {
            Sampling::Passes => Plan::new(seed, batch, rows, units),
            Sampling::Draws { pair_fraction } => Plan::drawn(seed, batch, rows, units, pair_fraction),
            Sampling::Separate { anchors, shuffle, over } => Plan::separate(seed, batch, rows, units, anchors, shuffle, over),
            Sampling::Complete { reshuffle } => Plan::complete(seed, batch, units, reshuffle),
        }
    }
}

pub use crate::data::separate::PassOver;

/// When a training ends before its last epoch, and which weights it leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stopping {
    /// Never; the last weights.
    LastEpoch,
    /// When the held-out loss of the last stage has not improved for `patience` epochs; its best weights.
    HeldOut,
    /// When, after `min_epochs`, the smallest minibatch loss of an epoch has not fallen by more than `min_increment` for `patience`
    /// epochs; the last weights.
    LeastLoss {
        /// Epochs before it is looked at.
        min_epochs: usize,
        /// What counts as an improvement.
        min_increment: f64,
    },
}

/// A model, built for a data set.
pub trait Model: Send {
    /// The phases of a step, in order.
    fn phases(&self) -> &[Phase];

    /// The names of a phase's loss terms: the columns of `history.csv`.
    fn terms(&self, phase: usize) -> &[String];

    /// Computes, once a step and before its phases, what several of them start from; the phases find it in [`Minibatch::shared`], with
    /// its gradients' way back.
    fn begin_step(&self, _s: &mut Step, _cells: &Minibatch, _shared: &mut Vec<Var>) {}

    /// Computes the loss terms of a phase for a minibatch and appends them to `losses`, with their weights; a term that needs a
    /// correspondence which is not there is [`Var::NONE`].
    fn losses(&self, s: &mut Step, phase: usize, cells: &Minibatch, losses: &mut Losses);

    /// The code [B, latent] of a modality's cells x [B, features]; missing values are NaN.
    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var;

    /// A modality's features [B, features] from a code [B, latent].
    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var;

    /// A modality's features [B, features] from the code [B, latent] of another one.
    fn decode_other(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        self.decode(s, modality, z)
    }

    /// Where it reads the conditions [n, 1] of the cells that it is asked to encode or decode, numbered as in the option `conditions`, NaN
    /// where none is known; n at least [`Model::rows_at_once`]. `None` for a model that is told none; in training they are the labels.
    fn conditions(&self) -> Option<Var> {
        None
    }

    /// Whether it makes a modality's features of codes at all; [`Model::decode`] is not asked for the others.
    fn decodes(&self, _modality: usize) -> bool {
        true
    }

    /// What is shown of codes [B, latent] as the embedding: the codes, unless the paper makes something else of them.
    fn shown(&self, _s: &mut Step, z: Var) -> Var {
        z
    }

    /// Whether only the direction of an embedding's rows says something: its measures are taken of rows of length 1.
    fn directions(&self) -> bool {
        false
    }

    /// Where batch norm's statistics are to be replaced, after training, by those of all training cells, layer by layer (from 0): what
    /// enters the modality's `layer`-th such norm [B, width], and the norm's state; modalities that share a state share the statistics.
    /// `None` past the last such layer, and for a model that keeps its running statistics.
    fn before_norm(&self, _s: &mut Step, _modality: usize, _layer: usize, _x: Var) -> Option<(Var, BatchNormState)> {
        None
    }

    /// The width of the code.
    fn latent(&self) -> usize;

    /// The spaces that the code is put together of, as named ranges of its columns; none where it is one.
    fn spaces(&self) -> Vec<(&'static str, std::ops::Range<usize>)> {
        Vec::new()
    }

    /// The fewest cells that a minibatch may have.
    fn smallest_batch(&self) -> usize;

    /// Rows that pass through it at once outside training: a bound on its activations' memory.
    fn rows_at_once(&self) -> usize {
        usize::MAX
    }

    /// How minibatches are made.
    fn sampling(&self) -> Sampling {
        Sampling::Passes
    }

    /// The stages of a training, in order. None: all phases as long as `epochs` says, in minibatches of `batch_size`, sampled as
    /// [`Model::sampling`] says.
    fn stages(&self) -> Vec<Stage> {
        Vec::new()
    }

    /// When training ends.
    fn stopping(&self) -> Stopping {
        Stopping::HeldOut
    }

    /// The logits of the classes [B, classes] from a code [B, latent], where the model has a class head.
    fn classify(&self, _s: &mut Step, _z: Var) -> Option<Var> {
        None
    }

    /// What the learning rate of a stage's step (from 1) is multiplied by.
    fn rate(&self, _step: u64) -> f64 {
        1.0
    }

    /// Whether an epoch goes through its minibatches once for each phase, instead of taking all phases at every minibatch.
    fn phase_by_phase(&self) -> bool {
        false
    }

    /// Called before a step, with how often its phases have been taken in this stage, this time included: knobs of the step are turned here.
    fn before_step(&self, _s: &mut Step, _turn: u64) {}

    /// Called before each epoch (from 1): annealed weights are turned here.
    fn begin_epoch(&self, _s: &mut Step, _epoch: usize) {}

    /// Called after the optimiser has moved a phase's parameters, in the same step: bounds on parameters are kept here.
    fn after_step(&self, _s: &mut Step, _phase: usize, _ledger: &Ledger) {}
}

/// What [`ModelSpec::resolve`] may look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The modalities.
    pub modalities: &'a [Modality],
    /// Training cells of the largest.
    pub cells: usize,
    /// Training cells of the smallest.
    pub fewest: usize,
    /// Cells of the first modality, held-out ones too.
    pub rows: usize,
    /// Values of each modality's training cells as they are stored: how many, their sum, how many are not zero. Only for models with an
    /// option `pos_weight`.
    pub totals: &'a [[f64; 3]],
    /// Known pairs that training may use.
    pub pairs: usize,
    /// Whether cells are held out.
    pub holds_out: bool,
    /// The classes of the label column, 0 without one.
    pub classes: usize,
    /// Training cells of the first modality in each class.
    pub class_counts: &'a [usize],
}

/// What a model is told of its cells' labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Nothing.
    Unused,
    /// The number of the class.
    Classes,
    /// The label as a number, standardised over the training cells.
    Numbers,
    /// The number, among those that the option `conditions` lists, of the class in the column that the option `condition` names.
    Conditions,
}

/// Builds a model on an engine for the modalities of a data set.
pub type Build = fn(&mut Step, &Settings, &[Modality]) -> Result<Box<dyn Model>>;

/// A row of [`MODELS`].
pub struct ModelSpec {
    /// As typed.
    pub name: &'static str,
    /// One line: the paper and what it is for.
    pub summary: &'static str,
    /// Its options.
    pub options: &'static [OptionSpec],
    /// What `preprocess = auto` means for counts.
    pub count_recipe: &'static str,
    /// What sides of an image must be a multiple of, for settings that take images as such; `None` where pixels are features like any.
    pub image_sides: fn(&Settings) -> Result<Option<usize>>,
    /// Whether it takes modalities with missing values.
    pub takes_missing: bool,
    /// Works out what is `auto` from the data.
    pub resolve: fn(&mut Settings, &Facts) -> Result<()>,
    /// Whether and how the model learns from labels, where there are any.
    pub labels: fn(&Settings) -> Result<Labels>,
    /// How the correspondences of the pairs of modalities, (0,1), (0,2), .. (1,2), .., are to be inferred; none where the model learns from
    /// none.
    pub inference: fn(&Settings, &[Modality]) -> Result<Vec<Inference>>,
    /// What somebody who imputes with a run of these settings should know, in a line.
    pub imputation_remark: fn(&Settings) -> Option<&'static str>,
    /// Builds the model.
    pub build: Build,
}

/// The models there are.
pub static MODELS: &[ModelSpec] = &[coupled::SPEC, jamie::SPEC, cross_modal::SPEC, scican::SPEC, apollo::SPEC];

/// The model of that name; the error lists them.
pub fn by_name(name: &str) -> Result<&'static ModelSpec> {
    MODELS.iter().find(|m| m.name == name).ok_or_else(|| {
        let names: Vec<&str> = MODELS.iter().map(|m| m.name).collect();
        let hint = nearest(name, names.iter().copied()).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        Error::usage(format!("there is no model {name:?}; there is {}{hint}", names.join(", ")))
    })
}

/// The position of the pair (i, j), i < j, among the pairs of k modalities.
pub fn pair_index(k: usize, i: usize, j: usize) -> usize {
    debug_assert!(i < j && j < k);
    i * (2 * k - i - 1) / 2 + (j - i - 1)
}
