//! JAMIE: joint variational autoencoders for imputation and embedding (Kalafut, Huang and Wang, Nature Machine Intelligence 5, 2023).
//!
//! One variational autoencoder a modality; the latent vectors of cells known to correspond are averaged before they are decoded:
//!
//!   z_i = μ_i + (exp(½ logvar_i) + 10⁻⁷) e                    c_i = (σ_i z_i + Σ_j σ_j W_ij z_j) / (σ_i + Σ_j σ_j W_ij 1),  j ≠ i
//!   L   = β w_KL Σ KL_i + w_rec Σ |D_i(c_i) - x_i|² + w_comb Σ |z_i - c_i|² + ½ w_align/(k-1) Σ_i Σ_j |c_i - F_ij c_j|²
//!                                                                                     (means over cells and columns)
//!
//! | symbol | meaning | here |
//! | --- | --- | --- |
//! | E_i, D_i | encoder and decoder: d → 2d → d → latent, and back; batch norm, leaky ReLU, dropout | `Arm` |
//! | μ_i, logvar_i | heads of the encoder | `Arm::mu`, `Arm::logvar` |
//! | σ_i | a learned weight a modality, at least 10⁻⁴ | `sigma.NAME` |
//! | W_ij | which cells of the minibatch are the same in modalities i and j | weights of the slots |
//! | F_ij | the correspondence of i and j inferred from the distances within each, rows normalised in a minibatch | `inferred` |
//! | β | annealing, 1/(1 + exp(-5 (e - h)/h)), h half of `min_epochs` | `Jamie::begin_epoch` |
//! | KL_i, |D_i(c_i) - x_i|², |z_i - c_i|² | loss terms | `kl.NAME`, `recon.NAME`, `comb.NAME` |
//! | |c_i - F_ij c_j|² | loss term | `align.NAME` of two modalities, `align.NAME_OTHER` of more |
//!
//! Where paper and released program differ: each modality's own log-variance enters its KL; the released scale of the losses, for which
//! clipping and early stopping are stated; the encoder's depth of the program; correspondences are normalised along the axis that is
//! summed and the alignment counts both ways, so that exchanging the modalities changes nothing (`align_sides=one` is the program's);
//! `align=0` leaves F out altogether, and one that known pairs contradict, such as a mirror image, is left out unasked (`train::correspondence`).
//! A known pair counts with its confidence. Embedding is μ; imputation decodes μ directly.
//!
//! The paper has two modalities, here are k: a code is averaged with those of all modalities in which its cell is known, every pair of
//! modalities has an inferred correspondence of its own, and the k - 1 others that a code is aligned with count together as the one of two.
//!
//! Limitations: no missing values. F is inferred of the training cells alone: held-out cells have no alignment loss.

mod options;

use super::settings::Settings;
use super::{Labels, Losses, MOST_MODALITIES, MOST_PAIRS, Minibatch, Modality, Model, ModelSpec, Phase, Sampling, Stopping, pair_index};
use crate::engine::nn::{BatchNorm, Linear};
use crate::engine::ops::activation::Activation;
use crate::engine::ops::aggregate::Other;
use crate::engine::ops::batch_norm::Running;
use crate::engine::ops::ledger::Ledger;
use crate::engine::ops::transport::Towards;
use crate::engine::optim::AdamSettings;
use crate::engine::params::init;
use crate::engine::{Knob, Step, Var, Weight};
use crate::error::Result;
use options::{OPTIONS, asked, imputation_remark, resolve};

/// The row of [`MODELS`](super::MODELS).
pub const SPEC: ModelSpec = ModelSpec {
    name: "jamie",
    summary: "JAMIE (Kalafut 2023): variational autoencoders that share the latent vectors of corresponding cells",
    options: OPTIONS,
    count_recipe: "counts10k-log1p,standardise",
    image_sides: |_| Ok(None),
    takes_missing: false,
    resolve,
    inference: asked,
    labels: |_| Ok(Labels::Unused),
    imputation_remark,
    build: |s, settings, modalities| Ok(Box::new(Jamie::new(s, settings, modalities)?)),
};

/// Slope of the leaky ReLU below 0.
const HIDDEN: Activation = Activation::LeakyRelu(0.01);
/// The smallest weight of a modality.
const LEAST_SIGMA: f32 = 1e-4;

/// A linear layer, batch norm, leaky ReLU and dropout.
struct Block {
    linear: Linear,
    norm: BatchNorm,
    stream: u32,
}

struct Arm {
    encoder: [Block; 2],
    mu: Linear,
    logvar: Linear,
    decoder: [Block; 2],
    out: Linear,
    sigma: Var,
    noise: u32,
}

/// The model, built.
pub struct Jamie {
    arms: Vec<Arm>,
    latent: usize,
    dropout: f32,
    weights: [f32; 2],
    align: f32,
    both_sides: bool,
    pf_ratio: f32,
    kl: f64,
    annealing: Knob,
    half: f64,
    pair_fraction: f64,
    stopping: Stopping,
    terms: Vec<String>,
    phases: Vec<Phase>,
}

impl Block {
    fn new(s: &mut Step, name: &str, [inputs, outputs]: [usize; 2]) -> Result<Block> {
        let linear = Linear::fan_in(s, &format!("{name}.linear"), 0, [inputs, outputs], Activation::Identity);
        let norm = BatchNorm::affine(s, &format!("{name}.norm"), 0, outputs, 1e-5, 0.9, Running::Unbiased)?;
        Ok(Block { linear, norm, stream: init::stream_of(&format!("{name}.dropout")) })
    }

    fn forward(&self, s: &mut Step, x: Var, dropout: f32) -> Var {
        let u = self.linear.forward(s, x);
        let h = self.norm.forward(s, u, HIDDEN);
        s.dropout(h, dropout, self.stream)
    }
}

impl Arm {
    fn new(s: &mut Step, m: &Modality, latent: usize) -> Result<Arm> {
        let (name, d) = (&m.name, m.features);
        let enc = |i: usize| format!("enc.{name}.{i}");
        let dec = |i: usize| format!("dec.{name}.{i}");
        let encoder = [Block::new(s, &enc(0), [d, 2 * d])?, Block::new(s, &enc(1), [2 * d, d])?];
        let mu = Linear::fan_in(s, &format!("enc.{name}.mu"), 0, [d, latent], Activation::Identity);
        let logvar = Linear::fan_in(s, &format!("enc.{name}.logvar"), 0, [d, latent], Activation::Identity);
        let decoder = [Block::new(s, &dec(0), [latent, d])?, Block::new(s, &dec(1), [d, 2 * d])?];
        let out = Linear::fan_in(s, &format!("dec.{name}.2"), 0, [2 * d, d], Activation::Identity);
        let sigma_name = format!("sigma.{name}");
        let mut start = init::uniform(s.seed(), &sigma_name, 1, 1.0);
        start[0] = 0.5 * (start[0] + 1.0);
        let sigma = s.parameter(sigma_name, 0, [1, 1], start);
        Ok(Arm { encoder, mu, logvar, decoder, out, sigma, noise: init::stream_of(&format!("sample.{name}")) })
    }
}

impl Jamie {
    /// Builds the networks: `8 d² + 3 d l + 19 d + 2 l` numbers a modality and one weight each.
    pub fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<Jamie> {
        let latent = settings.get("latent")?.count()?;
        let arms = modalities.iter().map(|m| Arm::new(s, m, latent)).collect::<Result<Vec<Arm>>>()?;
        let epochs = settings.get("epochs")?.count()?;
        let min_epochs = settings.get("min_epochs")?.count()?;
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let name = |what: &str, m: &Modality| format!("{what}.{}", m.name);
        let (align, both_sides) = (float("align")? as f32, settings.get("align_sides")?.word()? == "both");
        let mut terms: Vec<String> = ["kl", "recon", "comb"].iter().flat_map(|what| modalities.iter().map(|m| name(what, m))).collect();
        if align > 0.0 {
            let k = modalities.len();
            let term = |[i, j]: [usize; 2]| {
                let own = name("align", &modalities[i]);
                if k > 2 { format!("{own}_{}", modalities[j].name) } else { own }
            };
            terms.extend(aligned(k, both_sides).map(term));
        }
        let optimiser = AdamSettings { rate: float("lr")?, ..AdamSettings::default() };
        Ok(Jamie {
            arms,
            latent,
            dropout: float("dropout")? as f32,
            weights: [float("recon")? as f32, float("comb")? as f32],
            align,
            both_sides,
            pf_ratio: float("pf_ratio")? as f32,
            kl: float("kl")?,
            annealing: s.knob(0.0),
            half: if min_epochs > 0 { min_epochs as f64 / 2.0 } else { epochs as f64 / 2.0 },
            pair_fraction: float("pair_fraction")?,
            stopping: Stopping::LeastLoss { min_epochs, min_increment: float("min_increment")? },
            terms,
            phases: vec![Phase { clip: float("clip")? as f32, ..Phase::of(0, optimiser) }],
        })
    }

    /// μ and logvar, [B, latent] each.
    fn heads(&self, s: &mut Step, modality: usize, x: Var) -> [Var; 2] {
        let arm = &self.arms[modality];
        let h = arm.encoder.iter().fold(x, |x, block| block.forward(s, x, self.dropout));
        [arm.mu.forward(s, h), arm.logvar.forward(s, h)]
    }
}

/// Whose codes are compared with whose, carried over: of each pair of k modalities the first's with the second's, or both.
fn aligned(k: usize, both_sides: bool) -> impl Iterator<Item = [usize; 2]> {
    (0..k).flat_map(move |i| (0..k).map(move |j| [i, j])).filter(move |[i, j]| i != j && (both_sides || i < j))
}

impl Model for Jamie {
    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn terms(&self, _phase: usize) -> &[String] {
        &self.terms
    }

    fn losses(&self, s: &mut Step, _phase: usize, cells: &Minibatch, losses: &mut Losses) {
        let k = self.arms.len();
        let (mut z, mut c) = ([Var::NONE; MOST_MODALITIES], [Var::NONE; MOST_MODALITIES]);
        for (i, arm) in self.arms.iter().enumerate() {
            let [mu, logvar] = self.heads(s, i, cells.x[i]);
            z[i] = s.sample_latent(mu, logvar, arm.noise);
            losses.push((s.kl(mu, logvar), Weight::Knob(self.annealing)));
        }
        let mut inverses = [[Var::NONE; 2]; MOST_PAIRS];
        for (inverses, &f) in inverses.iter_mut().zip(cells.inferred).filter(|(_, f)| !f.is_none()) {
            *inverses = s.inverse_sums(f);
        }
        let inferred = |from: usize, to: usize| {
            let pair = pair_index(k, from.min(to), from.max(to));
            let f = cells.inferred.get(pair).copied().unwrap_or(Var::NONE);
            (!f.is_none()).then_some((f, inverses[pair], if to < from { Towards::Rows } else { Towards::Columns }))
        };
        let mut others = [Other::NONE; MOST_MODALITIES];
        for i in 0..k {
            for (other, j) in others.iter_mut().zip((0..k).filter(|j| *j != i)) {
                *other = Other { z: z[j], sigma: self.arms[j].sigma, weights: cells.pairs[pair_index(k, i.min(j), i.max(j))] };
                if let Some((f, inverses, towards)) = inferred(j, i).filter(|_| self.pf_ratio < 1.0) {
                    let carried = s.transport(f, inverses, z[j], towards);
                    let sums = inverses[usize::from(towards == Towards::Columns)];
                    [other.z, other.weights] = s.blend([z[j], carried], other.weights, sums, self.pf_ratio);
                }
            }
            c[i] = s.aggregate(z[i], self.arms[i].sigma, &others[..k - 1]);
        }
        let [recon, comb] = self.weights.map(Weight::Fixed);
        for (i, (&c, &x)) in c.iter().zip(cells.x).enumerate() {
            let y = self.decode(s, i, c);
            losses.push((s.mean_square(y, x), recon));
        }
        for (&z, &c) in z.iter().zip(&c).take(k) {
            losses.push((s.mean_square(z, c), comb));
        }
        if self.align > 0.0 {
            let weight = if self.both_sides { 0.5 * self.align } else { self.align } / (k - 1) as f32;
            for [i, j] in aligned(k, self.both_sides) {
                let term = inferred(j, i).map_or(Var::NONE, |(f, inverses, towards)| {
                    let carried = s.transport(f, inverses, c[j], towards);
                    s.mean_square(c[i], carried)
                });
                losses.push((term, Weight::Fixed(weight)));
            }
        }
    }

    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        self.heads(s, modality, x)[0]
    }

    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        let arm = &self.arms[modality];
        let h = arm.decoder.iter().fold(z, |z, block| block.forward(s, z, self.dropout));
        arm.out.forward(s, h)
    }

    fn latent(&self) -> usize {
        self.latent
    }

    fn smallest_batch(&self) -> usize {
        2
    }

    fn sampling(&self) -> Sampling {
        Sampling::Draws { pair_fraction: self.pair_fraction }
    }

    fn stopping(&self) -> Stopping {
        self.stopping
    }

    fn begin_epoch(&self, s: &mut Step, epoch: usize) {
        let e = epoch as f64 - 1.0;
        s.turn(self.annealing, (self.kl / (1.0 + (-5.0 * (e - self.half) / self.half).exp())) as f32);
    }

    fn after_step(&self, s: &mut Step, _phase: usize, ledger: &Ledger) {
        for arm in &self.arms {
            s.clamp_min(arm.sigma, LEAST_SIGMA, ledger);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Facts;
    use super::*;
    use crate::device::Device;
    use crate::engine::Precision;

    fn built(features: [usize; 2], flags: &[&str]) -> (Step, Box<dyn Model>) {
        let names = ["a", "b"].map(str::to_string);
        let modalities: Vec<Modality> = names
            .iter()
            .zip(features)
            .map(|(n, f)| Modality { name: n.clone(), features: f, deviations: vec![1.0; f], image: None })
            .collect();
        let mut settings = Settings::new(SPEC.name, SPEC.options, &names).unwrap();
        settings.apply_flags(&flags.iter().map(|f| f.to_string()).collect::<Vec<_>>()).unwrap();
        resolve(&mut settings, &Facts { modalities: &modalities, cells: 1000, pairs: 1000, ..Facts::default() }).unwrap();
        let mut s = Step::new(Device::cpu(), 3, Precision::F32).unwrap();
        let model = (SPEC.build)(&mut s, &settings, &modalities).unwrap();
        (s, model)
    }

    #[test]
    fn parameters_are_as_many_as_the_paper_has() {
        let (s, _) = built([512, 512], &[]);
        assert_eq!(s.params().count(), 2 * 2_156_096 + 2);
    }

    #[test]
    fn the_first_steps_combination_term_is_the_sampling_noise_alone() {
        // Heads of zeros: both codes are pure noise of unit variance, and c is their mean, so |z - c|² is ½ on average.
        let (mut s, model) = built([20, 20], &["latent=64"]);
        for name in ["mu", "logvar"] {
            for (arm, part) in [("a", "weight"), ("a", "bias"), ("b", "weight"), ("b", "bias")] {
                let full = format!("enc.{arm}.{name}.{part}");
                s.seal().unwrap();
                let v = s.params().parameters().find(|(n, _, _)| *n == full).unwrap().1;
                s.zero(v);
            }
        }
        for sigma in ["sigma.a", "sigma.b"] {
            let v = s.params().parameters().find(|(n, _, _)| *n == sigma).unwrap().1;
            s.upload(v, &[0.5f32]).unwrap();
        }
        s.begin(true, 1, 0).unwrap();
        let x = ["a", "b"].map(|n| init::uniform(1, n, 400 * 20, 1.0)).map(|v| s.constant([400, 20], &v));
        let mut losses = Vec::new();
        model.losses(
            &mut s,
            0,
            &Minibatch { x: &x, pairs: &[Var::NONE], inferred: &[], labels: &[], anchors: 0, shared: &[], cells: Var::NONE, stage: 0 },
            &mut losses,
        );
        assert_eq!(losses.len(), model.terms(0).len());
        let value = |s: &mut Step, term: &str| {
            let at = model.terms(0).iter().position(|t| t == term).unwrap();
            s.download(losses[at].0).unwrap()[0]
        };
        for term in ["comb.a", "comb.b"] {
            let v = value(&mut s, term);
            assert!((v - 0.5).abs() < 0.02, "{term}: {v}");
        }
        assert_eq!(value(&mut s, "kl.a"), 0.0, "a standard normal has no divergence from itself");
    }
}
