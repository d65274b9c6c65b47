//! Coupled autoencoders (Gala et al., NeurIPS 2019; Gala et al., Nature Computational Science 2021).
//!
//! One autoencoder a modality; the codes of cells measured in several are pulled together:
//!
//!   L = Σ_i α_i R_i + Σ_{i<j} λ_ij C_ij(Z_i, Z_j) + Σ_{i≠j} α_j R_{i→j}
//!
//! | symbol | meaning | here |
//! | --- | --- | --- |
//! | E_i, D_i | encoder and decoder of modality i | `Arm::encoder`, `Arm::decoder` |
//! | Z_i | code [cells, p], batch-normalised but for `plain` | `Coupled::code` |
//! | R_i | mean squared error over observed entries | term `recon.NAME` |
//! | C_ij | coupling, one of five forms | term `coupling.A_B` |
//! | R_{i→j} | decoder j applied to the code of i, held constant | term `cross.A_to_B` |
//! | p | latent dimensions | `latent` |
//! | α, λ | weights | `alpha`, `lambda` |
//!
//! | form | C_ij | what becomes of the codes |
//! | --- | --- | --- |
//! | `plain` | M_ij | they shrink: the decoder undoes any scale |
//! | `batch-norm` | M_ij of normalised codes | their dimensions become copies of one |
//! | `full-covariance` | M_ij of whitened codes (eq. 5) | stay whole |
//! | `full-covariance-pair` | Mahalanobis distance, both directions (the published code) | stay whole |
//! | `min-singular-value` | M_ij / max(min(l_i, l_j), floor) (eq. 6) | stay whole; the default |
//!
//! M_ij is the weighted mean squared distance over the paired rows, summed over the latent dimensions; l_i the smallest eigenvalue of
//! Z_i's covariance over all rows. Where paper and published code differ: errors are means, not sums, over cells and features (so α
//! has the published meaning); C is summed over dimensions, counted once, and divided by the smaller l; the covariance is divided
//! by n - 1, so λ does not depend on the size of the minibatch; momentum 0.99 is Keras's, and after training the running statistics
//! are replaced by those of all training cells.
//!
//! Limitations: cells without any partner only shape their own modality; the code's dimensions are defined up to a common rotation.

use super::options::{Kind, OptionSpec, POSITIVE, Per, TOP_GENES, TOP_GENES_BY, Value, option};
use super::settings::Settings;
use super::{Facts, Labels, Losses, MOST_MODALITIES, Minibatch, Modality, Model, ModelSpec, Phase, pair_index};
use crate::engine::nn::{BatchNorm, Mlp};
use crate::engine::ops::activation::Activation;
use crate::engine::ops::batch_norm::{BatchNormState, Running};
use crate::engine::ops::losses::MissingIn;
use crate::engine::ops::small::{self, MAX_LATENT, Smallest};
use crate::engine::optim::AdamSettings;
use crate::engine::params::init;
use crate::engine::{Step, Var, Weight};
use crate::error::{Error, Result};

/// The row of [`MODELS`](super::MODELS).
pub const SPEC: ModelSpec = ModelSpec {
    name: "coupled",
    summary: "coupled autoencoders (Gala 2019): one code for the same cells in two or more modalities, missing entries allowed",
    options: OPTIONS,
    count_recipe: "counts10k-log1p,standardise",
    image_sides: |_| Ok(None),
    takes_missing: true,
    resolve,
    inference: |_, _| Ok(Vec::new()),
    labels: |_| Ok(Labels::Unused),
    imputation_remark: |_| None,
    build: |s, settings, modalities| Ok(Box::new(Coupled::new(s, settings, modalities)?)),
};

const UNIT: Kind = Kind::Float { min: 0.0, max: 0.999 };
const ACTIVATIONS: &[&str] = &["none", "relu", "leaky-relu", "elu", "sigmoid", "tanh"];

/// The options of section 7 of the paper's supplement and its published code, with this program's defaults.
static OPTIONS: &[OptionSpec] = &[
    option("coupling", Per::Run, Kind::Choice(FORMS), "min-singular-value", "how the codes of a pair are held together"),
    option("lambda", Per::Pair, POSITIVE, "1", "weight of the coupling; 0 trains the modalities alone"),
    option("alpha", Per::Modality, POSITIVE, "1", "weight of a modality's reconstruction, a mean over cells and features"),
    option("latent", Per::Run, Kind::Int { min: 1, max: MAX_LATENT as i64 }, "3", "dimensions of the code"),
    option("hidden", Per::Modality, Kind::Ints(1), "50,50,50,50", "widths of the encoder's layers, and of the decoder's in reverse"),
    option("activation", Per::Modality, Kind::Choice(ACTIVATIONS), "relu", "of the hidden layers"),
    option("output_activation", Per::Modality, Kind::Choice(ACTIVATIONS), "none", "of the decoder's output"),
    option("input_dropout", Per::Modality, UNIT, "auto", "share of input values set to 0 in training: 0.5 above 200 features, else 0.1"),
    option("noise_sd", Per::Modality, POSITIVE, "auto", "input noise in each feature's own deviations: 0.05 up to 200 features, else 0"),
    option("decoder_dropout", Per::Modality, UNIT, "0", "dropout before the decoder's last layer"),
    option("cross_modal", Per::Run, Kind::Bool, "auto", "train decoders on the other modalities' codes too: on where lambda > 0"),
    option("smallest", Per::Run, Kind::Choice(&["power", "jacobi", "shifted-power"]), "power", "how the smallest eigenvalue is found"),
    option("floor", Per::Run, POSITIVE, "0.01", "the smallest divisor of min-singular-value"),
    option("ridge", Per::Run, POSITIVE, "0.001", "added to the covariance's diagonal by the two full-covariance forms"),
    option(
        "masked_mean",
        Per::Run,
        Kind::Choice(&["observed", "all"]),
        "observed",
        "what a reconstruction with missing entries is divided by",
    ),
    option("bn_keep", Per::Run, Kind::Float { min: 0.0, max: 1.0 }, "0.99", "share of batch norm's running statistics kept at a step"),
    option("lr", Per::Run, POSITIVE, "0.001", "Adam's learning rate"),
    option("batch_size", Per::Run, Kind::Int { min: 2, max: 1 << 20 }, "auto", "cells of a minibatch: 100, or all if there are fewer"),
    option("epochs", Per::Run, Kind::Int { min: 1, max: 1 << 30 }, "300", "most passes over the cells"),
    option(
        "patience",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "30",
        "passes without a better held-out loss before stopping; 0: never stop",
    ),
    option(
        "select",
        Per::Run,
        Kind::Choice(&["total", "sum"]),
        "total",
        "the held-out loss that chooses the weights: weighted, or plain sum of terms",
    ),
    option("preprocess", Per::Modality, Kind::Words(crate::data::preprocess::STEPS), "auto", "steps before the encoder"),
    super::inference::SPARSE,
    TOP_GENES,
    TOP_GENES_BY,
];

const FORMS: &[&str] = &["plain", "batch-norm", "full-covariance", "full-covariance-pair", "min-singular-value"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coupling {
    Plain,
    BatchNorm,
    FullCovariance,
    FullCovariancePair,
    MinSingularValue,
}

struct Arm {
    encoder: Mlp,
    norm: Option<BatchNorm>,
    decoder: Mlp,
    alpha: f32,
    dropout: f32,
    decoder_dropout: f32,
    /// Standard deviation of the input noise, one a feature; none for 0.
    noise: Var,
    /// Streams of the input's noise and mask (two), and of the decoder's mask for its own code and each other's.
    stream: u32,
    decoder_stream: u32,
    /// Where the search for the smallest eigenvector starts: the last step's answer.
    warm: Var,
}

struct Pair {
    i: usize,
    j: usize,
    lambda: f32,
    cross: bool,
}

/// The model, built.
pub struct Coupled {
    arms: Vec<Arm>,
    pairs: Vec<Pair>,
    coupling: Coupling,
    latent: usize,
    smallest: Smallest,
    floor: f32,
    ridge: f32,
    missing_in: MissingIn,
    terms: Vec<String>,
    phases: Vec<Phase>,
}

/// Fills in what is `auto`.
fn resolve(settings: &mut Settings, &Facts { modalities, cells, .. }: &Facts) -> Result<()> {
    let mut any = false;
    for i in 0..modalities.len() {
        for j in i + 1..modalities.len() {
            any |= settings.pair("lambda", i, j)?.float()? > 0.0;
        }
    }
    for m in modalities {
        let wide = m.features > 200;
        settings.fill("input_dropout", &m.name, Value::Float(if wide { 0.5 } else { 0.1 }));
        settings.fill("noise_sd", &m.name, Value::Float(if wide { 0.0 } else { 0.05 }));
    }
    settings.fill("cross_modal", "", Value::Bool(any));
    settings.fill("batch_size", "", Value::Int(100.min(cells.max(2)) as i64));
    Ok(())
}

fn activation(name: &str) -> Activation {
    match name {
        "relu" => Activation::Relu,
        "leaky-relu" => Activation::LeakyRelu(0.01),
        "elu" => Activation::Elu,
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        _ => Activation::Identity,
    }
}

impl Coupled {
    /// Builds the networks. Parameters are `enc.NAME.L.weight`, `dec.NAME.L.bias` and so on, the last `L` of an encoder being the code.
    pub fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<Coupled> {
        let coupling = match settings.get("coupling")?.word()? {
            "plain" => Coupling::Plain,
            "batch-norm" => Coupling::BatchNorm,
            "full-covariance" => Coupling::FullCovariance,
            "full-covariance-pair" => Coupling::FullCovariancePair,
            _ => Coupling::MinSingularValue,
        };
        let smallest = match settings.get("smallest")?.word()? {
            "jacobi" => Smallest::Jacobi,
            "shifted-power" => Smallest::ShiftedPower,
            _ => Smallest::Power,
        };
        let latent = settings.get("latent")?.count()?;
        let keep = settings.get("bn_keep")?.float()?;
        let batch = settings.get("batch_size")?.count()?;
        let needs = smallest_batch(coupling, latent);
        if batch < needs {
            return Err(Error::usage(format!(
                "--batch-size {batch}: {} coupling of a code of {latent} dimensions needs minibatches of at least {needs} cells; use fewer --latent dimensions or more cells",
                settings.get("coupling")?.word()?
            )));
        }
        let mut arms = Vec::with_capacity(modalities.len());
        for m in modalities {
            arms.push(Arm::new(s, settings, m, coupling, latent, keep)?);
        }
        let cross_modal = settings.get("cross_modal")?.flag()?;
        let mut pairs = Vec::new();
        for i in 0..arms.len() {
            for j in i + 1..arms.len() {
                let lambda = settings.pair("lambda", i, j)?.float()? as f32;
                if lambda > 0.0 {
                    pairs.push(Pair { i, j, lambda, cross: cross_modal });
                }
            }
        }
        let name = |i: usize| &modalities[i].name;
        let mut terms: Vec<String> = modalities.iter().map(|m| format!("recon.{}", m.name)).collect();
        terms.extend(pairs.iter().map(|p| format!("coupling.{}_{}", name(p.i), name(p.j))));
        for p in pairs.iter().filter(|p| p.cross) {
            terms.extend([format!("cross.{}_to_{}", name(p.i), name(p.j)), format!("cross.{}_to_{}", name(p.j), name(p.i))]);
        }
        // ε: Keras's value
        let optimiser = AdamSettings { rate: settings.get("lr")?.float()?, epsilon: 1e-7, ..AdamSettings::default() };
        Ok(Coupled {
            arms,
            pairs,
            coupling,
            latent,
            smallest,
            floor: settings.get("floor")?.float()? as f32,
            ridge: settings.get("ridge")?.float()? as f32,
            missing_in: if settings.get("masked_mean")?.word()? == "all" { MissingIn::All } else { MissingIn::Observed },
            terms,
            phases: vec![Phase::of(0, optimiser)],
        })
    }

    /// What enters batch norm: the encoder's last layer.
    fn before(&self, s: &mut Step, i: usize, x: Var) -> Var {
        let arm = &self.arms[i];
        let input = s.corrupt(x, arm.noise, arm.dropout, arm.stream);
        arm.encoder.forward(s, input)
    }

    /// Z_i [B, p].
    fn code(&self, s: &mut Step, i: usize, x: Var) -> Var {
        let h = self.before(s, i, x);
        match &self.arms[i].norm {
            Some(norm) => norm.forward(s, h, Activation::Identity),
            None => h,
        }
    }

    /// D_i of a code; `from` says whose, so that each gets a dropout mask of its own.
    fn reconstruct(&self, s: &mut Step, i: usize, z: Var, from: usize) -> Var {
        let arm = &self.arms[i];
        let Some((last, hidden)) = arm.decoder.layers.split_last() else { return z };
        let h = hidden.iter().fold(z, |h, layer| layer.forward(s, h));
        let h = if arm.decoder_dropout > 0.0 { s.dropout(h, arm.decoder_dropout, arm.decoder_stream.wrapping_add(from as u32)) } else { h };
        last.forward(s, h)
    }

    /// C_ij of two codes; `l` are the smallest eigenvalues, where the form asks for them.
    fn couple(&self, s: &mut Step, [a, b]: [Var; 2], l: [Var; 2], weights: Var) -> Var {
        match self.coupling {
            Coupling::Plain | Coupling::BatchNorm | Coupling::FullCovariance => s.pair_distance(a, b, weights),
            Coupling::FullCovariancePair => s.mahalanobis(a, b, weights, self.ridge),
            Coupling::MinSingularValue => {
                let m = s.pair_distance(a, b, weights);
                s.over_smallest(m, l[0], l[1], self.floor)
            }
        }
    }
}

/// The fewest cells a minibatch may have: two for a variance, more than p for a covariance that has an inverse.
fn smallest_batch(coupling: Coupling, latent: usize) -> usize {
    match coupling {
        Coupling::Plain | Coupling::BatchNorm => 2,
        _ => latent + 2,
    }
}

impl Arm {
    fn new(s: &mut Step, settings: &Settings, m: &Modality, coupling: Coupling, latent: usize, keep: f64) -> Result<Arm> {
        let name = &m.name;
        let hidden = settings.of("hidden", name)?.counts()?;
        let f = activation(settings.of("activation", name)?.word()?);
        let output = activation(settings.of("output_activation", name)?.word()?);
        let widths: Vec<usize> = [m.features].into_iter().chain(hidden.iter().copied()).chain([latent]).collect();
        let back: Vec<usize> = widths.iter().rev().copied().collect();
        let noise_sd = settings.of("noise_sd", name)?.float()? as f32;
        let noise = if noise_sd > 0.0 {
            let v = s.resident([1, m.features])?;
            s.upload(v, &m.deviations.iter().map(|d| d * noise_sd).collect::<Vec<f32>>())?;
            v
        } else {
            Var::NONE
        };
        let mut start = [0.0; MAX_LATENT];
        small::start_vector(&mut start[..latent]);
        let warm = s.state(format!("warm.{name}"), [1, latent], &start[..latent].iter().map(|&v| v as f32).collect::<Vec<_>>())?;
        let norm = match coupling {
            Coupling::Plain => None,
            _ => Some(BatchNorm::plain(s, &format!("bn.{name}"), latent, 1e-10, keep, Running::Biased)?),
        };
        Ok(Arm {
            encoder: Mlp::new(s, &format!("enc.{name}"), 0, &widths, f, Activation::Identity),
            norm,
            decoder: Mlp::new(s, &format!("dec.{name}"), 0, &back, f, output),
            alpha: settings.of("alpha", name)?.float()? as f32,
            dropout: settings.of("input_dropout", name)?.float()? as f32,
            decoder_dropout: settings.of("decoder_dropout", name)?.float()? as f32,
            noise,
            // By name, so that a modality's noise does not depend on which others there are.
            stream: init::stream_of(&format!("corrupt.{name}")),
            decoder_stream: init::stream_of(&format!("decoder.{name}")),
            warm,
        })
    }
}

impl Model for Coupled {
    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn terms(&self, _phase: usize) -> &[String] {
        &self.terms
    }

    fn losses(&self, s: &mut Step, _phase: usize, cells: &Minibatch, losses: &mut Losses) {
        // k is a handful: the codes of a step stand in arrays, so that a warm step allocates nothing.
        let k = self.arms.len();
        let (mut z, mut coupled, mut l) = ([Var::NONE; MOST_MODALITIES], [Var::NONE; MOST_MODALITIES], [Var::NONE; MOST_MODALITIES]);
        for (i, arm) in self.arms.iter().enumerate() {
            z[i] = self.code(s, i, cells.x[i]);
            let y = self.reconstruct(s, i, z[i], i);
            let r = s.masked_mse(y, cells.x[i], Var::NONE, self.missing_in);
            losses.push((r, Weight::Fixed(arm.alpha)));
        }
        for i in 0..k {
            if !self.pairs.iter().any(|p| p.i == i || p.j == i) {
                continue;
            }
            coupled[i] = if self.coupling == Coupling::FullCovariance { s.whiten(z[i], self.ridge) } else { z[i] };
            if self.coupling == Coupling::MinSingularValue {
                l[i] = s.smallest_eigenvalue(z[i], self.arms[i].warm, self.smallest);
            }
        }
        for p in &self.pairs {
            let weights = cells.pairs[pair_index(k, p.i, p.j)];
            let c = self.couple(s, [coupled[p.i], coupled[p.j]], [l[p.i], l[p.j]], weights);
            losses.push((c, Weight::Fixed(p.lambda)));
        }
        for p in self.pairs.iter().filter(|p| p.cross) {
            let weights = cells.pairs[pair_index(k, p.i, p.j)];
            for (from, to) in [(p.i, p.j), (p.j, p.i)] {
                let constant = s.reshaped(z[from], s.dims(z[from])); // only decoder `to` learns
                let y = self.reconstruct(s, to, constant, from);
                let r = s.masked_mse(y, cells.x[to], weights, self.missing_in);
                losses.push((r, Weight::Fixed(self.arms[to].alpha)));
            }
        }
    }

    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        self.code(s, modality, x)
    }

    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        self.reconstruct(s, modality, z, modality)
    }

    fn before_norm(&self, s: &mut Step, modality: usize, layer: usize, x: Var) -> Option<(Var, BatchNormState)> {
        let state = self.arms[modality].norm.filter(|_| layer == 0)?.state;
        Some((self.before(s, modality, x), state))
    }

    fn latent(&self) -> usize {
        self.latent
    }

    fn smallest_batch(&self) -> usize {
        smallest_batch(self.coupling, self.latent)
    }
}
