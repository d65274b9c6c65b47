//! The options of both instances, and what is worked out from the data.

use crate::engine::ops::losses::MissingIn;
use crate::engine::{Step, Var};
use crate::error::{Error, Result};
use crate::models::options::{Kind, MIN_DETECTED, OptionSpec, POSITIVE, Per, TOP_GENES, TOP_GENES_BY, Value, option};
use crate::models::settings::Settings;
use crate::models::{Facts, Labels, Stopping, inference};

pub(super) static OPTIONS: &[OptionSpec] = &[
    option("instance", Per::Run, Kind::Choice(&["fc", "image"]), "auto", "networks and losses: auto is image where there are images"),
    option("latent", Per::Run, Kind::Int { min: 1, max: 4096 }, "auto", "dimensions of the code: 50 (image 128)"),
    option(
        "width",
        Per::Modality,
        Kind::Int { min: 0, max: 1 << 20 },
        "auto",
        "units of a hidden layer of features: 0, as many as there are features (image 1024)",
    ),
    option("hidden", Per::Run, Kind::Int { min: 1, max: 1 << 20 }, "auto", "fc: units of the layer before the shared one, 100"),
    option("channels", Per::Run, Kind::Ints(1), "auto", "image: channels of the five convolutions, 128,256,512,1024,1024"),
    option(
        "disc_width",
        Per::Run,
        Kind::Int { min: 1, max: 1 << 20 },
        "auto",
        "units of the discriminators' hidden layers: 100 (image 1024)",
    ),
    option("recon", Per::Modality, Kind::Choice(&["l1", "l2"]), "auto", "absolute or squared error of the reconstruction: l1 (image l2)"),
    option("gan", Per::Run, Kind::Choice(&["lsgan", "log"]), "auto", "the adversarial loss: least squares (image log: cross-entropy)"),
    option(
        "class",
        Per::Run,
        Kind::Choice(&["none", "head", "conditional", "marker"]),
        "auto",
        "what labels are for: a class head, the discriminator's condition, the same by a number; auto: head (image conditional) where there are labels",
    ),
    option("classes", Per::Run, Kind::Int { min: 0, max: 1 << 16 }, "auto", "how many classes there are: those of the label column"),
    option(
        "class_weights",
        Per::Run,
        Kind::Floats(0.0),
        "auto",
        "image: weights of the classes in pretraining, in the order of their names; auto: all 1",
    ),
    option("w_rec", Per::Run, POSITIVE, "auto", "weight of the reconstruction: 10 (image 0.1)"),
    option("w_gan", Per::Run, POSITIVE, "auto", "weight of the adversarial loss, the discriminator's own too: 10 (image 1)"),
    option("w_cls", Per::Run, POSITIVE, "auto", "weight of the class head's loss: 10 (image 1)"),
    option("w_kl", Per::Run, POSITIVE, "auto", "image: weight of the Kullback-Leibler divergence, summed over code and cells, 1e-8"),
    option("w_anch", Per::Run, POSITIVE, "auto", "weight of the distance of known pairs: 0.1 where there are any (image 0)"),
    option(
        "anchor",
        Per::Run,
        Kind::Choice(&["l1", "l2", "mse"]),
        "l1",
        "distance of known pairs: mean absolute difference, the paper's mean Euclidean distance, mean squared difference",
    ),
    option(
        "anchor_pairs",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "auto",
        "known pairs of a step, drawn afresh; 0: all of them; auto: 128 (image 32)",
    ),
    option(
        "w_cross",
        Per::Run,
        POSITIVE,
        "auto",
        "image: weight of the error of known pairs translated both ways, 0; not in the paper, whose pairs meet in the code alone",
    ),
    option("noise", Per::Run, Kind::Bool, "auto", "fc: decode the code with standard normal noise in training, false"),
    option(
        "input_dropout",
        Per::Modality,
        Kind::Float { min: 0.0, max: 0.99 },
        "auto",
        "fc: share of the features hidden from an encoder in training, of all cells and pairs alike, 0; with a heavy w_anch it makes known pairs teach instead of being learnt by heart",
    ),
    option(
        "train_image",
        Per::Run,
        Kind::Bool,
        "auto",
        "image: whether image networks go on learning after pretraining, false (true where all are images)",
    ),
    option(
        "augment",
        Per::Run,
        Kind::Choice(&["none", "dihedral"]),
        "auto",
        "image: dihedral turns and mirrors every image at random in training, eight ways, for square images with no up and down; none",
    ),
    option(
        "pretrain_epochs",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "auto",
        "image: passes over an image modality before the integration, 850",
    ),
    option("pretrain_batch", Per::Run, Kind::Int { min: 2, max: 1 << 20 }, "auto", "image: cells of a minibatch of the pretraining, 128"),
    option("pretrain_lr", Per::Run, POSITIVE, "auto", "image: learning rate of the pretraining, 0.001"),
    option("pretrain_kl", Per::Run, POSITIVE, "auto", "image: weight of the divergence in pretraining, 1e-7"),
    option("pretrain_cls", Per::Run, POSITIVE, "auto", "image: weight of a class head in pretraining, 0.001 where there are labels"),
    option("lr", Per::Run, POSITIVE, "0.0001", "Adam's learning rate"),
    option("beta1", Per::Run, Kind::Float { min: 0.0, max: 0.999 }, "auto", "decay of Adam's first moment: 0.5 (image 0.9)"),
    option("weight_decay", Per::Run, POSITIVE, "auto", "added to the gradient, times the weight: 0.0001 (image 0)"),
    option(
        "halve_every",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 40 },
        "auto",
        "fc: steps after which the learning rate halves, 100000; 0: never",
    ),
    option("shuffle", Per::Run, Kind::Bool, "true", "whether cells are shuffled; false: minibatches are the same in every epoch"),
    option("batch_size", Per::Run, Kind::Int { min: 1, max: 1 << 20 }, "32", "cells of each modality in a minibatch"),
    option(
        "epochs",
        Per::Run,
        Kind::Int { min: 1, max: 1 << 30 },
        "auto",
        "passes over the largest modality, after any pretraining: 4000 (image 1000)",
    ),
    option(
        "patience",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "0",
        "epochs without a better held-out loss, all terms as they are weighted, before it stops, with the best one's weights; 0: the last epoch's, as published",
    ),
    option("select", Per::Run, Kind::Choice(&["total", "sum"]), "total", "the held-out loss that is told: weighted, or plain sum of terms"),
    inference::PREPROCESS,
    inference::SPARSE,
    MIN_DETECTED,
    TOP_GENES,
    TOP_GENES_BY,
];

/// When training ends.
pub(super) fn stopping(settings: &Settings) -> Result<Stopping> {
    Ok(if settings.get("patience")?.count()? > 0 { Stopping::HeldOut } else { Stopping::LastEpoch })
}

/// The instance's own, and `None` for what it has no use for: fc, image.
type PerInstance = [Option<Value>; 2];

fn defaults() -> Vec<(&'static str, PerInstance)> {
    let float = |a: f64, b: f64| [Some(Value::Float(a)), Some(Value::Float(b))];
    let int = |a: i64, b: i64| [Some(Value::Int(a)), Some(Value::Int(b))];
    let word = |a: &str, b: &str| [Some(Value::Word(a.into())), Some(Value::Word(b.into()))];
    vec![
        ("latent", int(50, 128)),
        ("width", int(0, 1024)),
        ("hidden", [Some(Value::Int(100)), None]),
        ("channels", [None, Some(Value::Ints(vec![128, 256, 512, 1024, 1024]))]),
        ("disc_width", int(100, 1024)),
        ("recon", word("l1", "l2")),
        ("gan", word("lsgan", "log")),
        ("class_weights", [None, Some(Value::Floats(Vec::new()))]),
        ("w_rec", float(10.0, 0.1)),
        ("w_gan", float(10.0, 1.0)),
        ("w_cls", float(10.0, 1.0)),
        ("w_kl", [None, Some(Value::Float(1e-8))]),
        ("anchor_pairs", int(128, 32)),
        ("w_cross", [None, Some(Value::Float(0.0))]),
        ("augment", [None, Some(Value::Word("none".into()))]),
        ("noise", [Some(Value::Bool(false)), None]),
        ("input_dropout", [Some(Value::Float(0.0)), None]),
        ("train_image", [None, Some(Value::Bool(false))]),
        ("pretrain_epochs", [None, Some(Value::Int(850))]),
        ("pretrain_batch", [None, Some(Value::Int(128))]),
        ("pretrain_lr", [None, Some(Value::Float(1e-3))]),
        ("pretrain_kl", [None, Some(Value::Float(1e-7))]),
        ("pretrain_cls", [None, Some(Value::Float(1e-3))]),
        ("beta1", float(0.5, 0.9)),
        ("weight_decay", float(1e-4, 0.0)),
        ("halve_every", [Some(Value::Int(100_000)), None]),
        ("epochs", int(4000, 1000)),
    ]
}

/// How far known pairs are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Anchor {
    Absolute,
    Euclidean,
    Squared,
}

impl Anchor {
    pub(super) fn of_settings(settings: &Settings) -> Result<Anchor> {
        Ok(match settings.get("anchor")?.word()? {
            "l2" => Anchor::Euclidean,
            "mse" => Anchor::Squared,
            _ => Anchor::Absolute,
        })
    }

    /// Of codes a, b [pairs, latent], weighted by the pairs' [pairs, 1].
    pub(super) fn of(self, s: &mut Step, a: Var, b: Var, weights: Var) -> Var {
        match self {
            Anchor::Absolute => s.masked_mae(a, b, weights, MissingIn::All),
            Anchor::Euclidean => s.pair_length(a, b, weights),
            Anchor::Squared => s.masked_mse(a, b, weights, MissingIn::All),
        }
    }
}

/// What labels are for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Class {
    None,
    Head,
    Conditional,
    Marker,
}

/// `None` where it is still to be worked out.
pub(super) fn class_of(settings: &Settings) -> Result<Option<Class>> {
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

pub(super) fn labels(settings: &Settings) -> Result<Labels> {
    Ok(match class_of(settings)? {
        Some(Class::None) => Labels::Unused,
        Some(Class::Marker) => Labels::Numbers,
        _ => Labels::Classes,
    })
}

/// Image sides are halved once a convolution.
pub(super) fn image_sides(settings: &Settings) -> Result<Option<usize>> {
    let instance = settings.get("instance")?;
    if !instance.is_auto() && instance.word()? == "fc" {
        return Ok(None);
    }
    let channels = settings.get("channels")?;
    let layers = if channels.is_auto() { 5 } else { channels.counts()?.len() };
    if !(1..=10).contains(&layers) {
        return Err(Error::usage(format!("channels = {} layers: an image network has 1 to 10", layers)));
    }
    Ok(Some(1 << layers))
}

pub(super) fn is_image(settings: &Settings) -> Result<bool> {
    Ok(settings.get("instance")?.word()? == "image")
}

pub(super) fn resolve(settings: &mut Settings, facts: &Facts) -> Result<()> {
    if settings.get("patience")?.count()? > 0 && !facts.holds_out {
        return Err(Error::usage("patience counts epochs without a better held-out loss: hold cells out with --holdout, or leave it 0"));
    }
    let images = facts.modalities.iter().filter(|m| m.image.is_some()).count();
    settings.fill("instance", "", Value::Word(if images > 0 { "image" } else { "fc" }.into()));
    let image = is_image(settings)?;
    if image && images == 0 {
        return Err(Error::usage(
            "instance = image, and no modality is of images: import a .npy of cells x channels x height x width, or a folder of PNG or TIFF",
        ));
    }
    if image && images == facts.modalities.len() {
        // Frozen, all of them would leave nothing to integrate.
        settings.fill("train_image", "", Value::Bool(true));
    }
    for (name, of) in defaults() {
        let [fc, images] = of;
        let (mine, instance, other) = if image { (images, "image", "fc") } else { (fc, "fc", "image") };
        let per_modality = matches!(name, "width" | "recon" | "input_dropout");
        match mine {
            Some(value) if per_modality => facts.modalities.iter().for_each(|m| settings.fill(name, &m.name, value.clone())),
            Some(value) => settings.fill(name, "", value),
            None => {
                let of: Vec<&str> = if per_modality { facts.modalities.iter().map(|m| m.name.as_str()).collect() } else { vec![""] };
                for of in of {
                    if !settings.of(name, of)?.is_auto() {
                        return Err(Error::usage(format!(
                            "{name} is an option of instance = {other}, and this is {instance}: leave it out"
                        )));
                    }
                }
            }
        }
    }
    settings.fill("w_anch", "", Value::Float(if facts.pairs > 0 && !image { 0.1 } else { 0.0 }));
    if facts.pairs == 0 && settings.get("w_anch")?.float()? > 0.0 {
        return Err(Error::usage("w_anch weighs known pairs, and there are none: import them with --pairs, or leave w_anch out"));
    }
    if image && facts.pairs == 0 && settings.get("w_cross")?.float()? > 0.0 {
        return Err(Error::usage("w_cross weighs known pairs, and there are none: import them with --pairs, or leave w_cross out"));
    }
    if image && settings.get("augment")?.word()? == "dihedral" {
        let oblong = facts.modalities.iter().find_map(|m| m.image.filter(|[_, h, w]| h != w).map(|image| (&m.name, image)));
        if let Some((name, [_, h, w])) = oblong {
            return Err(Error::usage(format!(
                "augment = dihedral turns squares, and images of {name} are {h} x {w} as the network sees them: set augment=none"
            )));
        }
    }
    settings.fill("classes", "", Value::Int(facts.classes as i64));
    let classes = settings.get("classes")?.count()?;
    let chosen = class_of(settings)?;
    if chosen.is_none() {
        // As many classes as cells are no classes: names, or a number.
        let few = classes > 1 && 2 * classes <= facts.cells;
        let used = if image { "conditional" } else { "head" };
        settings.fill("class", "", Value::Word(if few { used } else { "none" }.into()));
    } else if matches!(chosen, Some(Class::Head | Class::Conditional)) && classes < 2 {
        return Err(Error::usage(format!(
            "class = {} needs labels of two classes or more, there {}: name a column by --labels, or train with --set class=none",
            settings.get("class")?.word()?,
            if classes == 0 { "are none" } else { "is one" }
        )));
    } else if chosen == Some(Class::Marker) && facts.classes == 0 {
        return Err(Error::usage("class = marker needs a column of numbers: name it by --labels"));
    }
    if image {
        let weights = settings.get("class_weights")?.numbers()?;
        if !weights.is_empty() && weights.len() != classes {
            return Err(Error::usage(format!("class_weights has {} numbers, and there are {classes} classes", weights.len())));
        }
        if !weights.is_empty() && class_of(settings)? != Some(Class::Head) {
            return Err(Error::usage("class_weights weigh a class head's loss: set class=head, or class_weights=auto"));
        }
    }
    Ok(())
}
