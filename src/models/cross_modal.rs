//! Cross-modal autoencoders (Yang et al., Nature Communications 12:31, 2021).
//!
//! This file is the instance for feature matrices; `images` is the one with images, `settings` the options of both.
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
//! Limitations: no missing values.

mod adversary;
mod images;
mod settings;
mod variational;

use self::settings::{Anchor, Class, class_of, stopping};
use super::settings::Settings;
use super::{Losses, Minibatch, Modality, Model, ModelSpec, PassOver, Phase, Sampling, Stopping, pair_index};
use crate::engine::nn::Linear;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::classes::Target;
use crate::engine::ops::losses::MissingIn;
use crate::engine::optim::AdamSettings;
use crate::engine::params::init;
use crate::engine::{Step, Var, Weight};
use crate::error::Result;
use adversary::{Adversaries, DISCRIMINATORS, labels_of};
pub use images::Variational;

/// The row of [`MODELS`](super::MODELS).
pub const SPEC: ModelSpec = ModelSpec {
    name: "cross-modal",
    summary: "cross-modal autoencoders (Yang 2021): translation between modalities whose codes an adversary cannot tell apart",
    options: settings::OPTIONS,
    count_recipe: "log1p,standardise",
    image_sides: settings::image_sides,
    takes_missing: false,
    resolve: settings::resolve,
    labels: settings::labels,
    inference: |_, _| Ok(Vec::new()),
    imputation_remark: |_| None,
    build: |s, settings, modalities| {
        Ok(if settings::is_image(settings)? {
            Box::new(Variational::new(s, settings, modalities)?)
        } else {
            Box::new(CrossModal::new(s, settings, modalities)?)
        })
    },
};

/// After every layer but the class head's.
const LEAKY: Activation = Activation::LeakyRelu(0.2);
struct Arm {
    encoder: Vec<Linear>,
    decoder: Vec<Linear>,
    absolute: bool,
    noise: u32,
    /// The share of its features that is hidden in training, and random numbers.
    hidden: (f32, u32),
}

/// The model, built.
pub struct CrossModal {
    arms: Vec<Arm>,
    shared: [Linear; 2],
    head: Option<Linear>,
    adversaries: Adversaries,
    anchor: Anchor,
    noise: bool,
    latent: usize,
    /// Of reconstruction, adversary, classes, anchors.
    weights: [f32; 4],
    anchors: usize,
    shuffle: bool,
    halve_every: usize,
    stopping: Stopping,
    terms: [Vec<String>; 2],
    phases: Vec<Phase>,
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
            let [noise, hidden] = ["noise", "hidden"].map(|what| init::stream_of(&format!("{what}.{name}")));
            let hidden = (settings.of("input_dropout", name)?.float()? as f32, hidden);
            arms.push(Arm { encoder, decoder, absolute, noise, hidden });
        }
        let shared = [he(s, "enc.shared", [hidden, latent], LEAKY), he(s, "dec.shared", [latent, hidden], LEAKY)];
        let head = (class == Class::Head).then(|| he(s, "class", [latent, classes], Activation::Identity));
        let log = settings.get("gan")?.word()? == "log";
        let (wide, last) = (count("disc_width")?, if log { Activation::Identity } else { LEAKY });
        let adversaries = Adversaries::new(s, modalities, (class, classes, log), latent, |s, name, [seen, said]| {
            adversary::layers(&[seen, latent, wide, said], [LEAKY, last], |l, sizes, f| {
                Linear::normal(s, &format!("{name}.{l}"), DISCRIMINATORS, sizes, 0.02, f)
            })
        });
        let name = |i: usize| &modalities[i].name;
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
        generator.extend(adversaries.terms("fool", modalities));
        if head.is_some() {
            generator.extend(modalities.iter().map(|m| format!("class.{}", m.name)));
        }
        if anchors > 0 {
            generator.extend(adversaries.list.iter().map(|d| format!("anchor.{}_{}", name(d.i), name(d.j))));
        }
        let optimiser = AdamSettings { rate: float("lr")?, beta1: float("beta1")?, l2: float("weight_decay")?, ..AdamSettings::default() };
        Ok(CrossModal {
            terms: [adversaries.terms("disc", modalities), generator],
            arms,
            shared,
            head,
            adversaries,
            anchor: Anchor::of_settings(settings)?,
            noise: settings.get("noise")?.flag()?,
            latent,
            weights,
            anchors,
            shuffle: settings.get("shuffle")?.flag()?,
            halve_every: count("halve_every")?,
            stopping: stopping(settings)?,
            phases: [DISCRIMINATORS, 0].map(|group| Phase::of(group, optimiser)).to_vec(),
        })
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
            let (share, stream) = self.arms[m].hidden;
            let x = s.dropout(x, share, stream);
            let h = self.encode(s, m, x);
            shared.push(h);
        }
    }

    fn losses(&self, s: &mut Step, phase: usize, cells: &Minibatch, losses: &mut Losses) {
        let all = s.dims(cells.x[0])[0];
        let rows = all - cells.anchors;
        let [rec, gan, cls, anch] = self.weights;
        let gan = self.adversaries.weight(gan);
        for (d, side, m) in self.adversaries.sides().filter(|_| phase == 0) {
            let h = s.rows_part(cells.shared[m], 0, rows);
            let (h, y) = (s.detached(h), labels_of(s, cells, m, rows));
            losses.push((self.adversaries.verdict(s, d, h, y, side), gan));
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
        for (d, side, m) in self.adversaries.sides() {
            let (h, y) = (s.rows_part(cells.shared[m], 0, rows), labels_of(s, cells, m, rows));
            losses.push((self.adversaries.verdict(s, d, h, y, 1 - side), gan));
        }
        if let Some(head) = self.head {
            for m in 0..self.arms.len() {
                let h = s.rows_part(cells.shared[m], 0, rows);
                let logits = head.forward(s, h);
                let term = match labels_of(s, cells, m, rows) {
                    Some(y) => s.cross_entropy(logits, Target::Labels(y), Var::NONE),
                    None => Var::NONE,
                };
                losses.push((term, Weight::Fixed(cls)));
            }
        }
        for d in self.adversaries.list.iter().filter(|_| self.anchors > 0) {
            let pair = cells.pairs[pair_index(self.arms.len(), d.i, d.j)];
            let term = if cells.anchors == 0 || pair.is_none() {
                Var::NONE
            } else {
                let [a, b] = [d.i, d.j].map(|m| s.rows_part(cells.shared[m], rows, cells.anchors));
                let w = s.rows_part(pair, rows, cells.anchors);
                self.anchor.of(s, a, b, w)
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
        self.stopping
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
    use crate::models::Facts;

    fn prepared(
        features: [usize; 2],
        classes: usize,
        image: Option<[usize; 3]>,
        flags: &[&str],
    ) -> Result<(Step, Settings, Vec<Modality>)> {
        let names = ["a", "b"].map(str::to_string);
        let modality = |(m, (n, f)): (usize, (&String, usize))| Modality {
            name: n.clone(),
            features: f,
            deviations: vec![1.0; f],
            image: image.filter(|_| m == 0),
        };
        let modalities: Vec<Modality> = names.iter().zip(features).enumerate().map(modality).collect();
        let mut settings = Settings::new(SPEC.name, SPEC.options, &names)?;
        settings.apply_flags(&flags.iter().map(|f| f.to_string()).collect::<Vec<_>>())?;
        (SPEC.resolve)(&mut settings, &Facts { modalities: &modalities, cells: 1000, pairs: 100, classes, ..Facts::default() })?;
        Ok((Step::new(Device::cpu(), 3, Precision::F32)?, settings, modalities))
    }

    fn built(features: [usize; 2], classes: usize, flags: &[&str]) -> Result<(Step, CrossModal)> {
        let (mut s, settings, modalities) = prepared(features, classes, None, flags)?;
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
    fn the_image_instance_has_as_many_parameters_and_trains_images_first() {
        let built = |flags: &[&str]| {
            let (mut s, settings, modalities) = prepared([4096, 7633], 2, Some([1, 64, 64]), flags).unwrap();
            let model = Variational::new(&mut s, &settings, &modalities).unwrap();
            (s, model)
        };
        let (s, model) = built(&[]);
        // Feature network, conditional discriminator, class head, image network.
        assert_eq!([0, 1, 2, 3].map(|g| s.params().group_size(g)), [23_399_121, 2_243_586, 0, 57_165_568]);
        let stages: Vec<_> = model.stages().iter().map(|s| (s.name, s.phases.clone(), s.epochs, s.batch, s.only)).collect();
        assert_eq!(stages, [("pretraining", 0..1, 850, 128, Some(0)), ("integration", 1..3, 1000, 32, None)]);
        assert_eq!(model.terms(0), ["pretrain.recon.a", "pretrain.kl.a"]);
        assert_eq!(model.terms(1), ["recon.b", "kl.b", "fool.a_b.a", "fool.a_b.b"]);
        let (s, model) = built(&["class=head", "train_image=true", "pretrain_epochs=0"]);
        assert_eq!([1, 2].map(|g| s.params().group_size(g)), [2_233_346, 258]);
        assert_eq!(model.stages().len(), 1);
        assert_eq!(model.terms(1)[..4], ["recon.a", "recon.b", "kl.a", "kl.b"]);
        let groups: Vec<usize> = model.phases()[1].moves.iter().map(|m| m.0).collect();
        assert_eq!(groups, [0, 2, 3]);
    }

    #[test]
    fn an_option_of_the_other_instance_is_refused() {
        for (image, flag, says) in [
            (None, "pretrain_epochs=3", "pretrain_epochs is an option of instance = image"),
            (Some([1, 32, 32]), "hidden=7", "hidden is an option of instance = fc"),
            (Some([1, 32, 32]), "class_weights=1,2,3", "there are 2 classes"),
            (None, "instance=image", "no modality is of images"),
            (None, "augment=dihedral", "augment is an option of instance = image"),
            (None, "w_cross=1", "w_cross is an option of instance = image"),
            (Some([1, 32, 64]), "augment=dihedral", "images of a are 32 x 64"),
        ] {
            let e = prepared([1024, 9], 2, image, &[flag]).err().unwrap();
            assert!(e.exit_code() == 2 && e.to_string().contains(says), "{e}");
        }
        let (_, settings, _) = prepared([1024, 9], 0, Some([1, 32, 32]), &["instance=fc"]).unwrap();
        assert_eq!(settings.get("gan").unwrap().word().unwrap(), "lsgan", "images as features");
    }

    #[test]
    fn classes_decide_what_labels_are_for() {
        assert!(built([5, 4], 0, &[]).unwrap().1.head.is_none());
        assert!(built([5, 4], 900, &[]).unwrap().1.head.is_none(), "as many classes as cells");
        let e = built([5, 4], 0, &["class=head"]).err().unwrap();
        assert!(e.exit_code() == 2 && e.to_string().contains("--labels"), "{e}");
        let (s, model) = built([5, 4], 3, &["class=conditional"]).unwrap();
        assert_eq!(s.dims(model.adversaries.list[0].layers[0].weight), [50, 50 + 30]);
        let (s, model) = built([5, 4], 2, &["class=conditional"]).unwrap();
        assert_eq!(s.dims(model.adversaries.list[0].layers[0].weight), [50, 60]);
    }

    #[test]
    fn the_rate_halves() {
        let (_, model) = built([5, 4], 0, &["halve_every=10"]).unwrap();
        assert_eq!([1, 10, 11, 21].map(|t| model.rate(t)), [1.0, 1.0, 0.5, 0.25]);
    }
}
