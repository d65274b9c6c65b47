//! Cross-modal autoencoders (Yang et al., Nature Communications 12:31, 2021), for feature matrices.
//!
//! One autoencoder a modality, all into one latent space, h_m = E_m(x_m). A discriminator F_mn for each two modalities tells their codes
//! apart and the encoders make it fail; a class head C makes cells of a class meet; known pairs s are pulled together. A step is two:
//!
//!   1  L_F = w_gan [ mean F(h_a)² + mean (F(h_b) - 1)² ]                            moves F alone, h being constants
//!   2  L_G = w_rec Σ mean|D_m(h_m) - x_m| + w_gan [ mean (F(h_a) - 1)² + mean F(h_b)² ] + w_cls Σ CE(C(h_m), y_m)
//!            + w_anch mean|E_a(s_a) - E_b(s_b)|                                    moves everything else, F being constant
//!
//! | symbol | meaning | here |
//! | --- | --- | --- |
//! | E_m, D_m | n-W-W-W-100 and back, leaky ReLU of slope 0.2 after every layer, the last included | `enc.NAME`, `dec.NAME` |
//! | S_e, S_d | the layers next to the code, one each for all modalities | `enc.shared`, `dec.shared` |
//! | F | L-L-100-1, leaky ReLU after every layer | `disc.A_B` |
//! | C | one linear layer, logits | `class` |
//! | terms of 1 | the two means | `disc.A_B.A`, `disc.A_B.B` |
//! | terms of 2 | reconstruction, deceived discriminator, classes, anchors | `recon.NAME`, `fool.A_B.A`, `class.NAME`, `anchor.A_B` |
//!
//! `gan=log` gives F two logits and both steps half cross-entropies of a modality each, with the labels exchanged in step 2.
//! `class=conditional` appends the class to what F sees, ten times over (0 or 1 of two classes, else one-hot); `class=marker` a
//! standardised number in its place. Cells without a label drop out of the class loss.
//!
//! Where paper and released program differ this follows the program (mean absolute reconstruction, least squares, one step over both
//! domains), but shuffles each modality by itself, moves the shared layers once a step, draws anchors afresh (`anchor_pairs=0` takes
//! all of them in every step), and fills an epoch's last minibatch up instead of shortening it.
//! With labels of both modalities the class accuracy is a supervised classifier's: `class=none` is the run without labels.
//!
//! Limitations: no missing values; images are not yet taken.

use super::options::{Kind, OptionSpec, Per, Value};
use super::settings::Settings;
use super::{Facts, Labels, Losses, Minibatch, Modality, Model, ModelSpec, PassOver, Phase, Sampling, Stopping, inference, pair_index};
use crate::engine::nn::Linear;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::batch_norm::BatchNormState;
use crate::engine::ops::classes::Target;
use crate::engine::ops::losses::MissingIn;
use crate::engine::optim::AdamSettings;
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var, Weight};
use crate::error::{Error, Result};

/// The row of [`MODELS`](super::MODELS).
pub const SPEC: ModelSpec = ModelSpec {
    name: "cross-modal",
    summary: "cross-modal autoencoders (Yang 2021): translation between modalities whose codes an adversary cannot tell apart",
    options: OPTIONS,
    count_recipe: "log1p,standardise",
    takes_missing: false,
    resolve,
    labels,
    inference: |_, _| Ok(None),
    imputation_remark: |_| None,
    build: |s, settings, modalities| Ok(Box::new(CrossModal::new(s, settings, modalities)?)),
};

const POSITIVE: Kind = Kind::Float { min: 0.0, max: f64::MAX };

const fn option(name: &'static str, per: Per, kind: Kind, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, per, kind, default, help }
}

static OPTIONS: &[OptionSpec] = &[
    option("latent", Per::Run, Kind::Int { min: 1, max: 4096 }, "50", "dimensions of the code"),
    option("width", Per::Modality, Kind::Int { min: 0, max: 1 << 20 }, "0", "units of a hidden layer; 0: as many as there are features"),
    option("hidden", Per::Run, Kind::Int { min: 1, max: 1 << 20 }, "100", "units of the layer before the shared one"),
    option("recon", Per::Modality, Kind::Choice(&["l1", "l2"]), "l1", "absolute or squared error of the reconstruction"),
    option("gan", Per::Run, Kind::Choice(&["lsgan", "log"]), "lsgan", "the adversarial loss: least squares, or cross-entropy"),
    option(
        "class",
        Per::Run,
        Kind::Choice(&["none", "head", "conditional", "marker"]),
        "auto",
        "what labels are for: a class head, the discriminator's condition, the same by a number; auto: a head where there are labels",
    ),
    option("classes", Per::Run, Kind::Int { min: 0, max: 1 << 16 }, "auto", "how many classes there are: those of the label column"),
    option("w_rec", Per::Run, POSITIVE, "10", "weight of the reconstruction"),
    option("w_gan", Per::Run, POSITIVE, "10", "weight of the adversarial loss, the discriminator's own too"),
    option("w_cls", Per::Run, POSITIVE, "10", "weight of the class head's loss"),
    option("w_anch", Per::Run, POSITIVE, "auto", "weight of the distance of known pairs: 0.1 where there are any"),
    option("anchor", Per::Run, Kind::Choice(&["l1", "l2"]), "l1", "mean absolute or mean squared distance of known pairs"),
    option("anchor_pairs", Per::Run, Kind::Int { min: 0, max: 1 << 30 }, "128", "known pairs of a step, drawn afresh; 0: all of them"),
    option("noise", Per::Run, Kind::Bool, "false", "decode the code with standard normal noise in training"),
    option("lr", Per::Run, POSITIVE, "0.0001", "Adam's learning rate"),
    option("beta1", Per::Run, Kind::Float { min: 0.0, max: 0.999 }, "0.5", "decay of Adam's first moment"),
    option("weight_decay", Per::Run, POSITIVE, "0.0001", "added to the gradient, times the weight"),
    option("halve_every", Per::Run, Kind::Int { min: 0, max: 1 << 40 }, "100000", "steps after which the learning rate halves; 0: never"),
    option("shuffle", Per::Run, Kind::Bool, "true", "whether cells are shuffled; false: minibatches are the same in every epoch"),
    option("batch_size", Per::Run, Kind::Int { min: 1, max: 1 << 20 }, "32", "cells of each modality in a minibatch"),
    option("epochs", Per::Run, Kind::Int { min: 1, max: 1 << 30 }, "4000", "passes over the largest modality"),
    option("select", Per::Run, Kind::Choice(&["total", "sum"]), "total", "the held-out loss that is told: weighted, or plain sum of terms"),
    inference::PREPROCESS,
];

/// After every layer but the class head's.
const LEAKY: Activation = Activation::LeakyRelu(0.2);
/// The discriminators' parameters, which step by themselves.
const DISCRIMINATORS: Group = 1;
/// How often a class is written beside the code that a discriminator sees.
const REPEAT: usize = 10;

#[derive(Clone, Copy, PartialEq)]
enum Class {
    None,
    Head,
    Conditional,
    Marker,
}

struct Arm {
    encoder: Vec<Linear>,
    decoder: Vec<Linear>,
    absolute: bool,
    noise: u32,
}

struct Discriminator {
    layers: Vec<Linear>,
    i: usize,
    j: usize,
}

/// The model, built.
pub struct CrossModal {
    arms: Vec<Arm>,
    shared: [Linear; 2],
    head: Option<Linear>,
    discriminators: Vec<Discriminator>,
    class: Class,
    classes: usize,
    log: bool,
    squared_anchors: bool,
    noise: bool,
    latent: usize,
    /// Of reconstruction, adversary, classes, anchors.
    weights: [f32; 4],
    anchors: usize,
    shuffle: bool,
    halve_every: usize,
    terms: [Vec<String>; 2],
    phases: Vec<Phase>,
}

fn class_of(settings: &Settings) -> Result<Option<Class>> {
    let chosen = settings.get("class")?;
    if chosen.is_auto() {
        return Ok(None);
    }
    Ok(match chosen.word()? {
        "none" => Some(Class::None),
        "head" => Some(Class::Head),
        "conditional" => Some(Class::Conditional),
        "marker" => Some(Class::Marker),
        _ => None,
    })
}

fn labels(settings: &Settings) -> Result<Labels> {
    Ok(match class_of(settings)? {
        Some(Class::None) => Labels::Unused,
        Some(Class::Marker) => Labels::Numbers,
        _ => Labels::Classes,
    })
}

fn resolve(settings: &mut Settings, facts: &Facts) -> Result<()> {
    settings.fill("w_anch", "", Value::Float(if facts.pairs > 0 { 0.1 } else { 0.0 }));
    if facts.pairs == 0 && settings.get("w_anch")?.float()? > 0.0 {
        return Err(Error::usage("w_anch weighs known pairs, and there are none: import them with --pairs, or leave w_anch out"));
    }
    settings.fill("classes", "", Value::Int(facts.classes as i64));
    let classes = settings.get("classes")?.count()?;
    let chosen = class_of(settings)?;
    if chosen.is_none() {
        // As many classes as cells are no classes: names, or a number.
        let few = classes > 1 && 2 * classes <= facts.cells;
        settings.fill("class", "", Value::Word(if few { "head" } else { "none" }.into()));
    } else if matches!(chosen, Some(Class::Head | Class::Conditional)) && classes < 2 {
        return Err(Error::usage(format!(
            "class = {} needs labels of two classes or more, there {}: name a column by --labels, or train with --set class=none",
            settings.get("class")?.word()?,
            if classes == 0 { "are none" } else { "is one" }
        )));
    } else if chosen == Some(Class::Marker) && facts.classes == 0 {
        return Err(Error::usage("class = marker needs a column of numbers: name it by --labels"));
    }
    Ok(())
}

fn he(s: &mut Step, name: &str, [inputs, outputs]: [usize; 2], activation: Activation) -> Linear {
    Linear::normal(s, name, 0, [inputs, outputs], (2.0 / inputs.max(1) as f32).sqrt(), activation)
}

fn chain(layers: &[Linear], s: &mut Step, x: Var) -> Var {
    layers.iter().fold(x, |x, layer| layer.forward(s, x))
}

impl CrossModal {
    /// Builds the networks; the discriminators are a group of parameters of their own.
    pub fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<CrossModal> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let (latent, hidden, classes) = (count("latent")?, count("hidden")?, count("classes")?);
        let class = class_of(settings)?.unwrap_or(Class::None);
        let log = settings.get("gan")?.word()? == "log";
        let mut arms = Vec::with_capacity(modalities.len());
        for m in modalities {
            let (name, n) = (&m.name, m.features);
            let width = settings.of("width", name)?.count()?;
            let w = if width == 0 { n } else { width };
            let widths = [n, w, w, w, hidden];
            let layer = |s: &mut Step, part: &str, l: usize, sizes: [usize; 2]| he(s, &format!("{part}.{name}.{l}"), sizes, LEAKY);
            let encoder = (0..4).map(|l| layer(s, "enc", l, [widths[l], widths[l + 1]])).collect();
            let decoder = (0..4).map(|l| layer(s, "dec", l, [widths[4 - l], widths[3 - l]])).collect();
            let absolute = settings.of("recon", name)?.word()? == "l1";
            arms.push(Arm { encoder, decoder, absolute, noise: init::stream_of(&format!("noise.{name}")) });
        }
        let shared = [he(s, "enc.shared", [hidden, latent], LEAKY), he(s, "dec.shared", [latent, hidden], LEAKY)];
        let head = (class == Class::Head).then(|| he(s, "class", [latent, classes], Activation::Identity));
        let beside = match class {
            Class::Conditional if classes > 2 => REPEAT * classes,
            Class::Conditional | Class::Marker => REPEAT,
            _ => 0,
        };
        let mut discriminators = Vec::new();
        for i in 0..modalities.len() {
            for j in i + 1..modalities.len() {
                let name = format!("disc.{}_{}", modalities[i].name, modalities[j].name);
                let (out, last) = if log { (2, Activation::Identity) } else { (1, LEAKY) };
                let sizes = [([latent + beside, latent], LEAKY), ([latent, 100], LEAKY), ([100, out], last)];
                let layer = |(l, (sizes, f)): (usize, ([usize; 2], Activation))| {
                    Linear::normal(s, &format!("{name}.{l}"), DISCRIMINATORS, sizes, 0.02, f)
                };
                discriminators.push(Discriminator { layers: sizes.into_iter().enumerate().map(layer).collect(), i, j });
            }
        }
        let name = |i: usize| &modalities[i].name;
        let of_pairs = |what: &str| -> Vec<String> {
            let both = |d: &Discriminator| [d.i, d.j].map(|side| format!("{what}.{}_{}.{}", name(d.i), name(d.j), name(side)));
            discriminators.iter().flat_map(both).collect()
        };
        let weights = [float("w_rec")? as f32, float("w_gan")? as f32, float("w_cls")? as f32, float("w_anch")? as f32];
        let wanted = count("anchor_pairs")?;
        let anchors = if weights[3] == 0.0 {
            0
        } else if wanted == 0 {
            usize::MAX
        } else {
            wanted
        };
        let mut generator: Vec<String> = modalities.iter().map(|m| format!("recon.{}", m.name)).collect();
        generator.extend(of_pairs("fool"));
        if head.is_some() {
            generator.extend(modalities.iter().map(|m| format!("class.{}", m.name)));
        }
        if anchors > 0 {
            generator.extend(discriminators.iter().map(|d| format!("anchor.{}_{}", name(d.i), name(d.j))));
        }
        let optimiser = AdamSettings { rate: float("lr")?, beta1: float("beta1")?, l2: float("weight_decay")?, ..AdamSettings::default() };
        Ok(CrossModal {
            terms: [of_pairs("disc"), generator],
            arms,
            shared,
            head,
            discriminators,
            class,
            classes,
            log,
            squared_anchors: settings.get("anchor")?.word()? == "l2",
            noise: settings.get("noise")?.flag()?,
            latent,
            weights,
            anchors,
            shuffle: settings.get("shuffle")?.flag()?,
            halve_every: count("halve_every")?,
            phases: [DISCRIMINATORS, 0].map(|group| Phase::of(group, optimiser)).to_vec(),
        })
    }

    /// What a discriminator says of codes [B, latent] of cells with these labels.
    fn judge(&self, s: &mut Step, d: &Discriminator, h: Var, labels: Option<Var>) -> Var {
        let seen = match (self.class, labels) {
            (Class::Conditional, Some(y)) if self.classes > 2 => s.one_hot(y, self.classes, REPEAT),
            (Class::Conditional | Class::Marker, Some(y)) => s.repeated(y, REPEAT),
            _ => return chain(&d.layers, s, h),
        };
        let h = s.beside(h, seen);
        chain(&d.layers, s, h)
    }

    /// How far F is from saying that codes are of side 0 or 1.
    fn verdict(&self, s: &mut Step, d: &Discriminator, h: Var, labels: Option<Var>, side: usize) -> Var {
        let said = self.judge(s, d, h, labels);
        if self.log { s.cross_entropy(said, Target::Class(side), Var::NONE) } else { s.square_from(said, side as f32) }
    }

    /// The first `rows` rows of a modality's labels.
    fn labels_of(s: &mut Step, cells: &Minibatch, modality: usize, rows: usize) -> Option<Var> {
        cells.labels.get(modality).map(|&y| s.rows_part(y, 0, rows))
    }
}

impl Model for CrossModal {
    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn terms(&self, phase: usize) -> &[String] {
        &self.terms[phase]
    }

    fn begin_step(&self, s: &mut Step, cells: &Minibatch, shared: &mut Vec<Var>) {
        for (m, &x) in cells.x.iter().enumerate() {
            let h = self.encode(s, m, x);
            shared.push(h);
        }
    }

    fn losses(&self, s: &mut Step, phase: usize, cells: &Minibatch, losses: &mut Losses) {
        let all = s.dims(cells.x[0])[0];
        let rows = all - cells.anchors;
        let [rec, gan, cls, anch] = self.weights;
        let gan = Weight::Fixed(if self.log { 0.5 * gan } else { gan });
        for (side, d) in self.discriminators.iter().flat_map(|d| [(0, d), (1, d)]).filter(|_| phase == 0) {
            let m = [d.i, d.j][side];
            let h = s.rows_part(cells.shared[m], 0, rows);
            let (h, y) = (s.detached(h), Self::labels_of(s, cells, m, rows));
            losses.push((self.verdict(s, d, h, y, side), gan));
        }
        if phase == 0 {
            return;
        }
        for (m, arm) in self.arms.iter().enumerate() {
            let mut h = s.rows_part(cells.shared[m], 0, rows);
            if self.noise {
                let zeros = s.alloc([rows, self.latent]);
                s.zero(zeros);
                h = s.sample_latent(h, zeros, arm.noise);
            }
            let (y, x) = (self.decode(s, m, h), s.rows_part(cells.x[m], 0, rows));
            let error =
                if arm.absolute { s.masked_mae(y, x, Var::NONE, MissingIn::All) } else { s.masked_mse(y, x, Var::NONE, MissingIn::All) };
            losses.push((error, Weight::Fixed(rec)));
        }
        for (side, d) in self.discriminators.iter().flat_map(|d| [(0, d), (1, d)]) {
            let m = [d.i, d.j][side];
            let (h, y) = (s.rows_part(cells.shared[m], 0, rows), Self::labels_of(s, cells, m, rows));
            losses.push((self.verdict(s, d, h, y, 1 - side), gan));
        }
        if let Some(head) = self.head {
            for m in 0..self.arms.len() {
                let h = s.rows_part(cells.shared[m], 0, rows);
                let logits = head.forward(s, h);
                let term = match Self::labels_of(s, cells, m, rows) {
                    Some(y) => s.cross_entropy(logits, Target::Labels(y), Var::NONE),
                    None => Var::NONE,
                };
                losses.push((term, Weight::Fixed(cls)));
            }
        }
        for d in self.discriminators.iter().filter(|_| self.anchors > 0) {
            let pair = cells.pairs[pair_index(self.arms.len(), d.i, d.j)];
            let term = if cells.anchors == 0 || pair.is_none() {
                Var::NONE
            } else {
                let [a, b] = [d.i, d.j].map(|m| s.rows_part(cells.shared[m], rows, cells.anchors));
                let w = s.rows_part(pair, rows, cells.anchors);
                if self.squared_anchors { s.masked_mse(a, b, w, MissingIn::All) } else { s.masked_mae(a, b, w, MissingIn::All) }
            };
            losses.push((term, Weight::Fixed(anch)));
        }
    }

    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        let h = chain(&self.arms[modality].encoder, s, x);
        self.shared[0].forward(s, h)
    }

    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        let h = self.shared[1].forward(s, z);
        chain(&self.arms[modality].decoder, s, h)
    }

    fn classify(&self, s: &mut Step, z: Var) -> Option<Var> {
        self.head.map(|head| head.forward(s, z))
    }

    fn before_norm(&self, _s: &mut Step, _modality: usize, _layer: usize, _x: Var) -> Option<(Var, BatchNormState)> {
        None
    }

    fn latent(&self) -> usize {
        self.latent
    }

    fn smallest_batch(&self) -> usize {
        1
    }

    fn sampling(&self) -> Sampling {
        Sampling::Separate { anchors: self.anchors, shuffle: self.shuffle, over: PassOver::Largest }
    }

    fn stopping(&self) -> Stopping {
        Stopping::LastEpoch
    }

    fn rate(&self, step: u64) -> f64 {
        let halvings = if self.halve_every == 0 { 0 } else { (step - 1) / self.halve_every as u64 };
        0.5f64.powi(halvings.min(1000) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::engine::Precision;

    fn built(features: [usize; 2], classes: usize, flags: &[&str]) -> Result<(Step, CrossModal)> {
        let names = ["a", "b"].map(str::to_string);
        let modalities: Vec<Modality> =
            names.iter().zip(features).map(|(n, f)| Modality { name: n.clone(), features: f, deviations: vec![1.0; f] }).collect();
        let mut settings = Settings::new(SPEC.name, SPEC.options, &names)?;
        settings.apply_flags(&flags.iter().map(|f| f.to_string()).collect::<Vec<_>>())?;
        resolve(&mut settings, &Facts { modalities: &modalities, cells: 1000, pairs: 100, classes, ..Facts::default() })?;
        let mut s = Step::new(Device::cpu(), 3, Precision::F32)?;
        let model = CrossModal::new(&mut s, &settings, &modalities)?;
        Ok((s, model))
    }

    #[test]
    fn parameters_are_as_many_as_the_program_has() {
        let (s, model) = built([815, 2613], 3, &["width=256"]).unwrap();
        let of = |group: usize| s.params().group_size(group);
        assert_eq!((of(0), of(1)), (2_398_827, 7_751));
        assert_eq!(model.terms(0), ["disc.a_b.a", "disc.a_b.b"]);
        let expected = ["recon.a", "recon.b", "fool.a_b.a", "fool.a_b.b", "class.a", "class.b", "anchor.a_b"];
        assert_eq!(model.terms(1), expected);
    }

    #[test]
    fn classes_decide_what_labels_are_for() {
        assert!(built([5, 4], 0, &[]).unwrap().1.head.is_none());
        assert!(built([5, 4], 900, &[]).unwrap().1.head.is_none(), "as many classes as cells");
        let e = built([5, 4], 0, &["class=head"]).err().unwrap();
        assert!(e.exit_code() == 2 && e.to_string().contains("--labels"), "{e}");
        let (s, model) = built([5, 4], 3, &["class=conditional"]).unwrap();
        assert_eq!(s.dims(model.discriminators[0].layers[0].weight), [50, 50 + 30]);
        let (s, model) = built([5, 4], 2, &["class=conditional"]).unwrap();
        assert_eq!(s.dims(model.discriminators[0].layers[0].weight), [50, 60]);
    }

    #[test]
    fn the_rate_halves() {
        let (_, model) = built([5, 4], 0, &["halve_every=10"]).unwrap();
        assert_eq!([1, 10, 11, 21].map(|t| model.rate(t)), [1.0, 1.0, 0.5, 0.25]);
    }
}
