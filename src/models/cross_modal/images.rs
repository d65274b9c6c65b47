//! The image instance: convolutional and fully connected variational autoencoders, the image networks trained first and then frozen.
//!
//!   stage `pretraining`, one for each image modality, alone    phase `pretrain`
//!     L = mean (x̂ - x)² + w_p KL + w_c CE_v(C(z), y)           moves its network and the class head
//!   stage `integration`                                        phases `autoencoders`, then `discriminators`
//!     L = Σ w_rec mean (x̂_m - x_m)² + w_gan ½ [ CE(F(z_a), b) + CE(F(z_b), a) ] + w_kl Σ KL_m + w_cls ½ Σ CE(C(z_m), y_m)
//!         + w_anch mean|μ_a - μ_b|                             moves feature networks, class head, and with `train_image` image networks
//!         + w_cross Σ mean (D_m(μ_n) - x_m)²                   ours, off: of known pairs (m, n), what translation is to make of them
//!     L_F = w_gan ½ [ CE(F(z_a), a) + CE(F(z_b), b) ]          moves F; all other networks as in evaluation, z drawn again
//!   KL = -½ Σ (1 + log-variance - μ² - exp(log-variance)) over code and cells; the history's column is its mean instead
//!
//! A frozen image network runs as in evaluation, and what nothing can move is not computed: its reconstruction and its KL.
//! `augment=dihedral`, ours and off, turns and mirrors every image of a training minibatch afresh ([`Step::turned`]); of a known pair the
//! image alone, as features measured on a cell do not know how it lay.

use super::adversary::{self, Adversaries, DISCRIMINATORS, labels_of};
use super::settings::{Anchor, Class, class_of, stopping};
use super::variational::{FeatureNet, ImageNet, Net};
use crate::engine::nn::Linear;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::classes::Target;
use crate::engine::ops::losses::MissingIn;
use crate::engine::optim::AdamSettings;
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var, Weight};
use crate::error::Result;
use crate::models::settings::Settings;
use crate::models::{Losses, Minibatch, Modality, Model, PassOver, Phase, Sampling, Stage, Stopping, pair_index};

const FEATURES: Group = 0;
const HEAD: Group = 2;
/// The first image modality's group; the next ones' follow.
const IMAGES: Group = 3;
/// Cells whose activations are held at once outside training: a megabyte each at 64 x 64.
const AT_ONCE: usize = 64;

struct Arm {
    net: Net,
    /// Whether the integration moves it.
    moves: bool,
    absolute: bool,
    /// Random numbers of the two drawings of z.
    draws: [u32; 2],
    /// Images that are turned in training, and the random numbers that say how.
    turns: Option<([usize; 3], u32)>,
}

/// The model, built.
pub struct Variational {
    arms: Vec<Arm>,
    /// Modalities that are pretrained, in order: phase p is of `pretrained[p]`.
    pretrained: Vec<usize>,
    head: Option<Linear>,
    class_weights: Var,
    adversaries: Adversaries,
    latent: usize,
    /// Of reconstruction, adversary, classes, divergence, anchors, translation; of divergence and classes in pretraining.
    weights: [f32; 6],
    pretraining: [f32; 2],
    anchor: Anchor,
    anchors: usize,
    terms: Vec<Vec<String>>,
    phases: Vec<Phase>,
    stages: Vec<Stage>,
    stopping: Stopping,
}

impl Variational {
    /// Builds the networks.
    pub fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<Variational> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let (latent, classes, channels) = (count("latent")?, count("classes")?, settings.get("channels")?.counts()?);
        let class = class_of(settings)?.unwrap_or(Class::None);
        let train_image = settings.get("train_image")?.flag()?;
        let augment = settings.get("augment")?.word()? == "dihedral";
        let (mut arms, mut pretrained) = (Vec::new(), Vec::new());
        for (m, modality) in modalities.iter().enumerate() {
            let name = &modality.name;
            let (net, moves) = match modality.image {
                Some(image) => {
                    pretrained.push(m);
                    let group = IMAGES + pretrained.len() - 1;
                    (Net::Image(ImageNet::new(s, name, group, image, &channels, latent)?), train_image)
                }
                None => {
                    let width = settings.of("width", name)?.count()?;
                    let width = if width == 0 { modality.features } else { width };
                    (Net::Features(FeatureNet::new(s, name, FEATURES, modality.features, width, latent)?), true)
                }
            };
            let draws = ["first", "again"].map(|d| init::stream_of(&format!("{d}.{name}")));
            let turns = modality.image.filter(|_| augment).map(|image| (image, init::stream_of(&format!("turned.{name}"))));
            arms.push(Arm { net, moves, absolute: settings.of("recon", name)?.word()? == "l1", draws, turns });
        }
        let head = (class == Class::Head).then(|| Linear::fan_in(s, "class", HEAD, [latent, classes], Activation::Identity));
        let log = settings.get("gan")?.word()? == "log";
        let width = count("disc_width")?;
        let adversaries = Adversaries::new(s, modalities, (class, classes, log), latent, |s, name, [seen, said]| {
            adversary::layers(&[seen, width, width, width, said], [Activation::Relu, Activation::Identity], |l, sizes, f| {
                Linear::fan_in(s, &format!("{name}.{l}"), DISCRIMINATORS, sizes, f)
            })
        });
        let class_weights: Vec<f32> = settings.get("class_weights")?.numbers()?.iter().map(|&w| w as f32).collect();
        let class_weights = if class_weights.is_empty() {
            Var::NONE
        } else {
            s.state("class.weights".to_string(), [1, class_weights.len()], &class_weights)?
        };
        let weights = [float("w_rec")?, float("w_gan")?, float("w_cls")?, float("w_kl")?, float("w_anch")?, float("w_cross")?];
        let anchors = match (weights[4] + weights[5], count("anchor_pairs")?) {
            (0.0, _) => 0,
            (_, 0) => usize::MAX,
            (_, n) => n,
        };
        let weights = weights.map(|w| w as f32);
        let mut model = Variational {
            arms,
            pretrained,
            head,
            class_weights,
            adversaries,
            latent,
            weights,
            pretraining: [float("pretrain_kl")? as f32, float("pretrain_cls")? as f32],
            anchor: Anchor::of_settings(settings)?,
            anchors,
            terms: Vec::new(),
            phases: Vec::new(),
            stages: Vec::new(),
            stopping: stopping(settings)?,
        };
        model.name_terms(modalities);
        model.plan(settings)?;
        Ok(model)
    }

    fn name_terms(&mut self, modalities: &[Modality]) {
        let name = |m: usize| &modalities[m].name;
        let classes = |of: &str, m: usize| self.head.map(|_| format!("{of}class.{}", name(m)));
        let mut terms: Vec<Vec<String>> = Vec::new();
        for &m in &self.pretrained {
            let own = ["recon", "kl"].map(|what| format!("pretrain.{what}.{}", name(m)));
            terms.push(own.into_iter().chain(classes("pretrain.", m)).collect());
        }
        let moving = || (0..self.arms.len()).filter(|&m| self.arms[m].moves);
        let mut all: Vec<String> = moving().map(|m| format!("recon.{}", name(m))).collect();
        all.extend(moving().map(|m| format!("kl.{}", name(m))));
        all.extend(self.adversaries.terms("fool", modalities));
        all.extend((0..self.arms.len()).filter_map(|m| classes("", m)));
        let pairs = || self.adversaries.list.iter().map(|d| (name(d.i), name(d.j)));
        if self.weights[4] > 0.0 {
            all.extend(pairs().map(|(a, b)| format!("anchor.{a}_{b}")));
        }
        if self.weights[5] > 0.0 {
            all.extend(pairs().flat_map(|(a, b)| [format!("cross.{a}_to_{b}"), format!("cross.{b}_to_{a}")]));
        }
        terms.push(all);
        terms.push(self.adversaries.terms("disc", modalities));
        self.terms = terms;
    }

    fn plan(&mut self, settings: &Settings) -> Result<()> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let adam = |rate: f64| Ok(AdamSettings { rate, beta1: float("beta1")?, l2: float("weight_decay")?, ..AdamSettings::default() });
        let (early, late) = (adam(float("pretrain_lr")?)?, adam(float("lr")?)?);
        let shuffle = settings.get("shuffle")?.flag()?;
        let head = self.head.map(|_| HEAD);
        let before = self.pretrained.len();
        for (p, &m) in self.pretrained.iter().enumerate() {
            let groups = [IMAGES + p].into_iter().chain(head);
            self.phases.push(Phase { moves: groups.map(|g| (g, early.into())).collect(), clip: 0.0 });
            self.stages.push(Stage {
                name: "pretraining",
                phases: p..p + 1,
                epochs: count("pretrain_epochs")?,
                batch: count("pretrain_batch")?,
                sampling: Sampling::Separate { anchors: 0, shuffle, over: PassOver::Largest },
                only: Some(m),
            });
        }
        let images = (0..before).filter(|&p| self.arms[self.pretrained[p]].moves).map(|p| IMAGES + p);
        let features = (before < self.arms.len()).then_some(FEATURES);
        let groups = features.into_iter().chain(head).chain(images);
        self.phases.push(Phase { moves: groups.map(|g| (g, late.into())).collect(), clip: 0.0 });
        self.phases.push(Phase::of(DISCRIMINATORS, late));
        self.stages.push(Stage {
            name: "integration",
            phases: before..before + 2,
            epochs: count("epochs")?,
            batch: count("batch_size")?,
            sampling: Sampling::Separate { anchors: self.anchors, shuffle, over: PassOver::Largest },
            only: None,
        });
        self.stages.retain(|stage| stage.epochs > 0);
        Ok(())
    }

    /// μ and the log-variance of a modality's cells in the integration; frozen networks run as in evaluation, for no gradient.
    fn code(&self, s: &mut Step, m: usize, x: Var) -> [Var; 2] {
        let arm = &self.arms[m];
        if arm.moves { arm.net.encode(s, x) } else { s.without_gradient(|s| s.evaluating(|s| arm.net.encode(s, x))) }
    }

    /// What a decoder makes of codes [cells, latent], and what it was to make; the weights of the cells [cells, 1], if they have any.
    fn reconstruction(&self, s: &mut Step, m: usize, z: Var, x: Var, weights: Var) -> Var {
        let arm = &self.arms[m];
        let y = arm.net.decode(s, z);
        if arm.absolute { s.masked_mae(y, x, weights, MissingIn::All) } else { s.masked_mse(y, x, weights, MissingIn::All) }
    }

    /// [`Step::kl`] is a mean, the paper's a sum.
    fn divergence(&self, s: &mut Step, [mu, logvar]: [Var; 2], weight: f32) -> (Var, Weight) {
        (s.kl(mu, logvar), Weight::Fixed(weight * s.size(mu) as f32))
    }

    fn class_loss(&self, s: &mut Step, head: Linear, z: Var, labels: Option<Var>, weights: Var) -> Var {
        let logits = head.forward(s, z);
        labels.map_or(Var::NONE, |y| s.cross_entropy(logits, Target::Labels(y), weights))
    }

    fn pretrain(&self, s: &mut Step, m: usize, cells: &Minibatch, losses: &mut Losses) {
        let x = cells.shared[m];
        let rows = s.dims(x)[0] - cells.anchors;
        let x = s.rows_part(x, 0, rows);
        let [mu, logvar] = self.arms[m].net.encode(s, x);
        let z = s.sample_latent(mu, logvar, self.arms[m].draws[0]);
        losses.push((self.reconstruction(s, m, z, x, Var::NONE), Weight::Fixed(1.0)));
        losses.push(self.divergence(s, [mu, logvar], self.pretraining[0]));
        if let Some(head) = self.head {
            let y = labels_of(s, cells, m, rows);
            losses.push((self.class_loss(s, head, z, y, self.class_weights), Weight::Fixed(self.pretraining[1])));
        }
    }

    fn autoencoders(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        let [rec, gan, cls, kl, anch, cross] = self.weights;
        let rows = s.dims(cells.x[0])[0] - cells.anchors;
        let codes: Vec<[Var; 2]> = (0..self.arms.len()).map(|m| self.code(s, m, cells.shared[m])).collect();
        let own: Vec<[Var; 2]> = codes.iter().map(|c| c.map(|v| s.rows_part(v, 0, rows))).collect();
        let z: Vec<Var> = own.iter().zip(&self.arms).map(|(&[mu, logvar], arm)| s.sample_latent(mu, logvar, arm.draws[0])).collect();
        let moving = || (0..self.arms.len()).filter(|&m| self.arms[m].moves);
        for m in moving() {
            let x = s.rows_part(cells.shared[m], 0, rows);
            losses.push((self.reconstruction(s, m, z[m], x, Var::NONE), Weight::Fixed(rec)));
        }
        losses.extend(moving().map(|m| self.divergence(s, own[m], kl)));
        for (d, side, m) in self.adversaries.sides() {
            let y = labels_of(s, cells, m, rows);
            losses.push((self.adversaries.verdict(s, d, z[m], y, 1 - side), self.adversaries.weight(gan)));
        }
        if let Some(head) = self.head {
            for (m, &z) in z.iter().enumerate() {
                let y = labels_of(s, cells, m, rows);
                losses.push((self.class_loss(s, head, z, y, Var::NONE), Weight::Fixed(0.5 * cls)));
            }
        }
        for d in self.adversaries.list.iter().filter(|_| anch > 0.0) {
            let term = self.known(s, cells, [d.i, d.j]).map_or(Var::NONE, |w| {
                let [a, b] = [d.i, d.j].map(|m| s.rows_part(codes[m][0], rows, cells.anchors));
                self.anchor.of(s, a, b, w)
            });
            losses.push((term, Weight::Fixed(anch)));
        }
        for d in self.adversaries.list.iter().filter(|_| cross > 0.0) {
            let w = self.known(s, cells, [d.i, d.j]);
            for (from, to) in [(d.i, d.j), (d.j, d.i)] {
                // Nothing would move: neither the encoder nor the decoder.
                let term = w.filter(|_| self.arms[from].moves || self.arms[to].moves).map_or(Var::NONE, |w| {
                    let [mu, x] = [codes[from][0], cells.shared[to]].map(|v| s.rows_part(v, rows, cells.anchors));
                    if self.arms[to].moves {
                        self.reconstruction(s, to, mu, x, w)
                    } else {
                        s.evaluating(|s| self.reconstruction(s, to, mu, x, w))
                    }
                });
                losses.push((term, Weight::Fixed(cross)));
            }
        }
    }

    /// The weights of a minibatch's known pairs of two modalities, if it has any.
    fn known(&self, s: &mut Step, cells: &Minibatch, [i, j]: [usize; 2]) -> Option<Var> {
        let pair = cells.pairs[pair_index(self.arms.len(), i, j)];
        let rows = s.dims(cells.x[0])[0] - cells.anchors;
        (cells.anchors > 0 && !pair.is_none()).then(|| s.rows_part(pair, rows, cells.anchors))
    }

    fn discriminate(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        let rows = s.dims(cells.x[0])[0] - cells.anchors;
        let z: Vec<Var> = (0..self.arms.len())
            .map(|m| {
                let arm = &self.arms[m];
                let x = s.rows_part(cells.shared[m], 0, rows);
                s.without_gradient(|s| {
                    let [mu, logvar] = s.evaluating(|s| arm.net.encode(s, x));
                    s.sample_latent(mu, logvar, arm.draws[1])
                })
            })
            .collect();
        for (d, side, m) in self.adversaries.sides() {
            let y = labels_of(s, cells, m, rows);
            losses.push((self.adversaries.verdict(s, d, z[m], y, side), self.adversaries.weight(self.weights[1])));
        }
    }
}

impl Model for Variational {
    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn terms(&self, phase: usize) -> &[String] {
        &self.terms[phase]
    }

    /// The cells as the networks see them.
    fn begin_step(&self, s: &mut Step, cells: &Minibatch, shared: &mut Vec<Var>) {
        let only = self.stages.get(cells.stage).and_then(|stage| stage.only);
        shared.extend(self.arms.iter().zip(cells.x).enumerate().map(|(m, (arm, &x))| match arm.turns {
            Some((image, stream)) if only.is_none_or(|only| only == m) => s.turned(x, image, stream),
            _ => x,
        }));
    }

    fn losses(&self, s: &mut Step, phase: usize, cells: &Minibatch, losses: &mut Losses) {
        let before = self.pretrained.len();
        match self.pretrained.get(phase) {
            Some(&m) => self.pretrain(s, m, cells, losses),
            None if phase == before => self.autoencoders(s, cells, losses),
            None => self.discriminate(s, cells, losses),
        }
    }

    /// μ.
    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        self.arms[modality].net.encode(s, x)[0]
    }

    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        self.arms[modality].net.decode(s, z)
    }

    fn classify(&self, s: &mut Step, z: Var) -> Option<Var> {
        self.head.map(|head| head.forward(s, z))
    }

    fn latent(&self) -> usize {
        self.latent
    }

    fn smallest_batch(&self) -> usize {
        2
    }

    fn rows_at_once(&self) -> usize {
        AT_ONCE
    }

    fn stages(&self) -> Vec<Stage> {
        self.stages.clone()
    }

    fn stopping(&self) -> Stopping {
        self.stopping
    }
}
