//! sciCAN (Xu, Begoli and McCord, npj Systems Biology and Applications 8:33, 2022; preprint arXiv 2104.12320, 2021).
//!
//! One encoder E reads the cells of two modalities by the same genes: `r` expression, with classes y, and `t` gene activity. A step is two:
//!
//!   1  L1 = w_class CE(C(E r), y) + w_nce NCE(E t', E t'') + w_ict ICT                              moves E, C
//!   2  L2 = w_adv [b(1, D R z) + b(0, D R a)] + w_back [b(1, D R z') + b(0, D R a)]
//!         + w_gen [b(1, F t) + b(0, F R g)] + w_cycle mean (z' - z)²                               moves E, G, D, F
//!      with z = E r, a = E t, g = G z, z' = E g, and the stepped E
//!
//! | symbol | meaning | here |
//! | --- | --- | --- |
//! | E | n - 1024 - 128, batch norm and ReLU | `enc` |
//! | C | one linear layer, logits | `class` |
//! | G | 128 - 1024 - n | `gen` |
//! | D, F | discriminators of codes and of profiles, with dropout | `disc.code`, `disc.profile` |
//! | t', t'' | t with standard normal noise, twice | `corrupt` |
//! | NCE | the contrastive loss of the two | `contrast.NAME` |
//! | ICT | interpolation consistency: what is said of λ r + (1 - λ) t, λ ~ Beta(0.2, 0.2), and λ of what the averaged E', C' say of each | `consistency` |
//! | R | gradient reversal, turned up by 2/(1 + exp(-10 s/10⁴)) - 1, s the discriminator's calls so far | `Scican::before_step` |
//! | b(l, d) | cross-entropy of a discriminator's logit with the label l; `adv=mean`: -/+ the mean probability | `tell.*` |
//!
//! Classes are weighed by (1 - 0.9999) / (1 - 0.9999ⁿ), n their cells. E is moved by two optimisers with momenta of their own.
//!
//! `mode=unlabelled` is the released program: no C and no ICT, both modalities contrasted through a head of 32 units, and a head of 25
//! clusters whose columns are contrasted. Every weight can be set in either mode; what only a term of weight 0 needs is left out.
//!
//! Where preprint and program differ: cosines are divided by τ and a cell is none of its own negatives; the averaged network gives the
//! interpolation's target; both sides of a discriminator move, by reversal; gradients are cleared between the two steps; the classifier's
//! loss is of logits; the learning rate is constant. Batch norm goes by each pass's own statistics, as the program's (`bn`), and the
//! embedding by those of each modality's training cells (`embed_bn`). `alternate=epoch` is the preprint's order of steps.
//!
//! `noise_class` is ours, 0 by default: r in CE and the mixed cells in ICT are seen with noise, so that classes are learnt from what many genes
//! say together, as they must be told where the second modality's signals are fainter than the first's. `evaluate` tells what it is worth.
//!
//! Limitations: two modalities with features of the same names; no missing values; of codes only the second modality is generated.

mod align;
mod networks;
mod options;
mod represent;

use super::settings::Settings;
use super::{Losses, Minibatch, Modality, Model, ModelSpec, PassOver, Phase, Sampling, Stopping};
use crate::engine::average::MovingAverage;
use crate::engine::nn::Linear;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::batch_norm::BatchNormState;
use crate::engine::ops::ledger::Ledger;
use crate::engine::optim::{Rule, SgdSettings};
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var};
use crate::error::Result;
use align::Align;
use networks::{Encoder, Network, Statistics};
use represent::Represent;

/// The row of [`MODELS`](super::MODELS).
pub const SPEC: ModelSpec = ModelSpec {
    name: "scican",
    summary: "sciCAN (Xu 2022): one encoder for expression and gene activity, classes carried over, aligned by adversaries and a cycle",
    options: options::OPTIONS,
    count_recipe: "counts10k-log1p,standardise,clip10",
    image_sides: |_| Ok(None),
    takes_missing: false,
    resolve: options::resolve,
    labels: options::labels,
    inference: |_, _| Ok(Vec::new()),
    imputation_remark: |_| None,
    build: |s, settings, modalities| Ok(Box::new(Scican::new(s, settings, modalities)?)),
};

/// The groups of parameters.
const ENCODER: Group = 0;
const HEADS: Group = 1;
const GENERATOR: Group = 2;
const CODES: Group = 3;
const PROFILES: Group = 4;

/// The model, built.
pub struct Scican {
    encoder: Encoder,
    represent: Option<Represent>,
    align: Option<Align>,
    /// Which statistics the norms take for a modality's embedding, if not the running ones.
    embedding: Option<[[Statistics; 2]; 2]>,
    /// Rows of the embedding are shown with length 1.
    unit: bool,
    latent: usize,
    phase_by_phase: bool,
    terms: Vec<Vec<String>>,
    phases: Vec<Phase>,
}

/// How the passes of a network that a step makes in one place share batch norm's statistics.
#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    Joint,
    Apart,
}

impl Sharing {
    /// The network's outputs for all inputs, in their order.
    fn pass<const N: usize>(self, s: &mut Step, inputs: [Var; N], net: &impl Network) -> [Var; N] {
        let inputs = inputs.map(|x| net.first(s, x));
        if self == Sharing::Apart || N < 2 {
            let mut pass = 0;
            return inputs.map(|u| {
                pass += 1;
                net.rest(s, pass - 1, u)
            });
        }
        let u = s.stacked(&inputs);
        let y = net.rest(s, 0, u);
        let mut first = 0;
        inputs.map(|x| {
            let rows = s.dims(x)[0];
            first += rows;
            s.rows_part(y, first - rows, rows)
        })
    }
}

impl Scican {
    /// Builds the networks that the weights ask for.
    pub fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<Scican> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let features = modalities[0].features;
        let (hidden, latent) = (count("hidden")?, count("latent")?);
        let last = if settings.get("latent_act")?.word()? == "tanh" { Activation::Tanh } else { Activation::Relu };
        let sharing = if settings.get("bn")?.word()? == "joint" { Sharing::Joint } else { Sharing::Apart };
        let encoder = Encoder::new(s, ENCODER, [features, hidden, latent], last)?;
        let mut represent = Represent::new(s, settings, modalities, encoder, sharing)?;
        let align = Align::new(s, settings, encoder, sharing, [features, hidden, latent])?;
        let embedding = match settings.get("embed_bn")?.word()? {
            "per-modality" => {
                let of = |s: &mut Step, m: usize| encoder.statistics(s, &format!("enc.{}", modalities[m].name));
                Some([of(s, 0)?, of(s, 1)?])
            }
            "all-cells" => {
                let both = encoder.statistics(s, "enc.all")?;
                Some([both, both])
            }
            _ => None,
        };
        // After every parameter: the averages lie as the parameters do.
        if let Some(represent) = &mut represent {
            represent.follow(s, float("teacher")?)?;
        }
        let epochs = count("epochs")?;
        let rate = float("lr")? * (1.0 + 0.001 * epochs as f64).powf(-0.75);
        let (momentum, l2) = (float("momentum")?, float("weight_decay")?);
        let faster = float("lr_disc")?;
        let rule = |by: f64| Rule::Sgd(SgdSettings { rate: by * rate, momentum, l2 });
        let moved = |groups: &[Group]| {
            let moves = groups.iter().map(|&g| (g, rule(if g == CODES || g == PROFILES { faster } else { 1.0 }))).collect();
            Phase { moves, clip: 0.0 }
        };
        let (mut terms, mut phases) = (Vec::new(), Vec::new());
        if let Some(represent) = &represent {
            terms.push(represent.terms().to_vec());
            phases.push(moved(&[ENCODER, HEADS]));
        }
        if let Some(align) = &align {
            terms.push(align.terms().to_vec());
            phases.push(moved(&align.groups()));
        }
        Ok(Scican {
            encoder,
            represent,
            align,
            embedding,
            unit: !options::is_labelled(settings)?,
            latent,
            phase_by_phase: settings.get("alternate")?.word()? == "epoch",
            terms,
            phases,
        })
    }

    fn embedder(&self, modality: usize) -> Encoder {
        self.embedding.map_or(self.encoder, |of| self.encoder.with(of[modality]))
    }
}

impl Model for Scican {
    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn terms(&self, phase: usize) -> &[String] {
        &self.terms[phase]
    }

    fn losses(&self, s: &mut Step, phase: usize, cells: &Minibatch, losses: &mut Losses) {
        match (&self.represent, &self.align) {
            (Some(represent), _) if phase == 0 => represent.losses(s, cells, losses),
            (_, Some(align)) => align.losses(s, cells, losses),
            _ => {}
        }
    }

    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        self.embedder(modality).forward(s, x)
    }

    fn decode(&self, s: &mut Step, _modality: usize, z: Var) -> Var {
        let generator = self.align.as_ref().and_then(Align::generator).expect("decodes() was asked before");
        generator.forward(s, z)
    }

    fn decodes(&self, modality: usize) -> bool {
        modality == 1 && self.align.as_ref().is_some_and(|a| a.generator().is_some())
    }

    fn shown(&self, s: &mut Step, z: Var) -> Var {
        if self.unit { s.unit_rows(z) } else { z }
    }

    fn directions(&self) -> bool {
        true
    }

    fn classify(&self, s: &mut Step, z: Var) -> Option<Var> {
        self.represent.as_ref()?.classifier().map(|c| c.forward(s, z))
    }

    fn before_norm(&self, s: &mut Step, modality: usize, layer: usize, x: Var) -> Option<(Var, BatchNormState)> {
        self.embedding?;
        self.embedder(modality).before_norm(s, layer, x)
    }

    fn latent(&self) -> usize {
        self.latent
    }

    fn smallest_batch(&self) -> usize {
        2
    }

    fn sampling(&self) -> Sampling {
        Sampling::Separate { anchors: 0, shuffle: true, over: PassOver::Smallest }
    }

    fn stopping(&self) -> Stopping {
        Stopping::LastEpoch
    }

    fn phase_by_phase(&self) -> bool {
        self.phase_by_phase
    }

    fn before_step(&self, s: &mut Step, turn: u64) {
        if let Some(represent) = &self.represent {
            represent.before_step(s, turn);
        }
        if let Some(align) = &self.align {
            align.before_step(s, turn);
        }
    }

    fn after_step(&self, s: &mut Step, phase: usize, ledger: &Ledger) {
        if let Some(represent) = self.represent.as_ref().filter(|_| phase == 0) {
            represent.after_step(s, ledger);
        }
    }
}
