//! sciCAN's options, and what of them follows from the data.

use super::super::inference;
use super::super::options::{Kind, OptionSpec, POSITIVE, Per, TOP_GENES_BY, Value, option};
use super::super::settings::Settings;
use super::super::{Facts, Labels};
use crate::error::{Error, Result};

pub(super) static OPTIONS: &[OptionSpec] = &[
    option(
        "mode",
        Per::Run,
        Kind::Choice(&["labelled", "unlabelled"]),
        "labelled",
        "learn classes from the first modality's labels (the preprint), or cluster both without any (the released program)",
    ),
    option("latent", Per::Run, Kind::Int { min: 1, max: 4096 }, "128", "dimensions of the code"),
    option(
        "hidden",
        Per::Run,
        Kind::Int { min: 1, max: 1 << 20 },
        "auto",
        "units of encoder's and generator's hidden layer: 1024; unlabelled: 1000",
    ),
    option("disc_code", Per::Run, Kind::Int { min: 1, max: 1 << 16 }, "64", "units of the hidden layers of the discriminator of codes"),
    option(
        "disc_profile",
        Per::Run,
        Kind::Int { min: 1, max: 1 << 16 },
        "512",
        "units of the hidden layers of the discriminator of profiles",
    ),
    option("latent_act", Per::Run, Kind::Choice(&["relu", "tanh"]), "relu", "the encoder's last activation"),
    option(
        "bn",
        Per::Run,
        Kind::Choice(&["per-modality", "joint"]),
        "per-modality",
        "whose statistics batch norm takes in training: each pass's own, or those of all that passes the same network in the same place",
    ),
    option(
        "embed_bn",
        Per::Run,
        Kind::Choice(&["per-modality", "running", "all-cells"]),
        "per-modality",
        "whose statistics batch norm takes for the embedding: each modality's training cells', the running averages, those of all training cells",
    ),
    option(
        "scaling",
        Per::Run,
        Kind::Choice(&["own", "pooled"]),
        "own",
        "standardise each modality by itself, or both by the mean and deviation of all cells, which leaves the shift between them in",
    ),
    option(
        "n_top_genes",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "0",
        "features that vary most in the first modality; 0: all that both have",
    ),
    OptionSpec { per: Per::Run, ..TOP_GENES_BY },
    option("w_class", Per::Run, POSITIVE, "auto", "weight of the class head's loss: 2; unlabelled: 0"),
    option("w_nce", Per::Modality, POSITIVE, "auto", "weight of the contrastive loss: 0.25 of the second modality; unlabelled: 2 and 0.5"),
    option("w_cluster", Per::Modality, POSITIVE, "auto", "weight of the contrastive loss of clusters: 0; unlabelled: 2 and 0.5"),
    option("w_ict", Per::Run, POSITIVE, "auto", "weight of the interpolation's consistency: 1; unlabelled: 0"),
    option(
        "w_center",
        Per::Run,
        POSITIVE,
        "0",
        "weight of the second modality's distance from the centres of the classes it surely is of; tried: 0.01",
    ),
    option("w_adv", Per::Run, POSITIVE, "auto", "weight of telling the modalities' codes apart: 2; unlabelled: 1.5"),
    option("w_back", Per::Run, POSITIVE, "auto", "weight of telling cycled codes from the second modality's: 3; unlabelled: 2.5"),
    option("w_gen", Per::Run, POSITIVE, "auto", "weight of telling generated cells from measured ones: 4; unlabelled: 3"),
    option("w_cycle", Per::Run, POSITIVE, "auto", "weight of the distance of cycled codes: 4; unlabelled: 3"),
    option(
        "adv",
        Per::Run,
        Kind::Choice(&["bce", "mean"]),
        "auto",
        "the adversarial losses: cross-entropy, or unlabelled the difference of mean probabilities",
    ),
    option("tau", Per::Run, Kind::Float { min: 1e-3, max: 1e3 }, "0.15", "temperature of the contrastive loss"),
    option("cluster_tau", Per::Run, Kind::Float { min: 1e-3, max: 1e3 }, "0.5", "temperature of the contrastive loss of clusters"),
    option(
        "contrast",
        Per::Run,
        Kind::Int { min: 0, max: 4096 },
        "auto",
        "width of the head that is contrasted: 0, the code itself; unlabelled: 32",
    ),
    option("clusters", Per::Run, Kind::Int { min: 2, max: 4096 }, "25", "clusters of the cluster head"),
    option("noise", Per::Run, POSITIVE, "1", "standard deviation of the noise that makes two copies of a cell"),
    option(
        "noise_class",
        Per::Run,
        POSITIVE,
        "0",
        "standard deviation of the noise on cells that classes are learnt from and on mixed ones; carries labels over more surely at 2, where \
         the second modality's signals are faint",
    ),
    option(
        "teacher",
        Per::Run,
        Kind::Float { min: 0.0, max: 0.999999 },
        "0.99",
        "the share of itself that the averaged network keeps a step",
    ),
    option(
        "alternate",
        Per::Run,
        Kind::Choice(&["batch", "epoch"]),
        "batch",
        "represent and align at every minibatch, or an epoch's minibatches once for the one and then for the other",
    ),
    option(
        "ramp",
        Per::Run,
        Kind::Float { min: 1.0, max: f64::MAX },
        "10000",
        "calls of a discriminator in which its reversal is (all but) turned up",
    ),
    option("lr", Per::Run, POSITIVE, "0.001", "learning rate, times (1 + 0.001 epochs)^-0.75"),
    option("lr_disc", Per::Run, POSITIVE, "10", "how many times that the discriminators' is"),
    option("momentum", Per::Run, Kind::Float { min: 0.0, max: 0.9999 }, "0.9", "Nesterov's momentum"),
    option("weight_decay", Per::Run, POSITIVE, "0.001", "added to the gradient, times the weight"),
    option(
        "batch_size",
        Per::Run,
        Kind::Int { min: 2, max: 1 << 20 },
        "auto",
        "cells of each modality in a minibatch: 512, or the largest power of two of which the smaller modality has two",
    ),
    option("epochs", Per::Run, Kind::Int { min: 1, max: 1 << 30 }, "100", "passes over the smaller modality"),
    option(
        "class_counts",
        Per::Run,
        Kind::Ints(0),
        "auto",
        "training cells of the first modality in each class, by which rare classes count more",
    ),
    option("select", Per::Run, Kind::Choice(&["total", "sum"]), "total", "the held-out loss that is told: weighted, or plain sum of terms"),
    inference::PREPROCESS,
    inference::SPARSE,
];

/// Cells of a minibatch where there are enough.
const BATCH: usize = 512;

pub(super) fn is_labelled(settings: &Settings) -> Result<bool> {
    Ok(settings.get("mode")?.word()? == "labelled")
}

pub(super) fn labels(settings: &Settings) -> Result<Labels> {
    Ok(if is_labelled(settings)? { Labels::Classes } else { Labels::Unused })
}

pub(super) fn resolve(settings: &mut Settings, facts: &Facts) -> Result<()> {
    let [first, second] = facts.modalities else {
        return Err(Error::usage(format!(
            "scican aligns two modalities, there are {}: import the two that you want, the labelled one first",
            facts.modalities.len()
        )));
    };
    if first.features != second.features {
        return Err(Error::usage(format!(
            "scican reads both modalities by one encoder: {} has {} features and {} has {}",
            first.name, first.features, second.name, second.features
        )));
    }
    let labelled = is_labelled(settings)?;
    let mut auto = |key: &str, of: &str, labelled_value: f64, unlabelled_value: f64| {
        settings.fill(key, of, Value::Float(if labelled { labelled_value } else { unlabelled_value }));
    };
    for (key, of, l, u) in [
        ("w_class", "", 2.0, 0.0),
        ("w_nce", &*first.name, 0.0, 2.0),
        ("w_nce", &second.name, 0.25, 0.5),
        ("w_cluster", &first.name, 0.0, 2.0),
        ("w_cluster", &second.name, 0.0, 0.5),
        ("w_ict", "", 1.0, 0.0),
        ("w_adv", "", 2.0, 1.5),
        ("w_back", "", 3.0, 2.5),
        ("w_gen", "", 4.0, 3.0),
        ("w_cycle", "", 4.0, 3.0),
    ] {
        auto(key, of, l, u);
    }
    settings.fill("adv", "", Value::Word(if labelled { "bce" } else { "mean" }.into()));
    settings.fill("hidden", "", Value::Int(if labelled { 1024 } else { 1000 }));
    settings.fill("contrast", "", Value::Int(if labelled { 0 } else { 32 }));
    settings.fill("class_counts", "", Value::Ints(facts.class_counts.iter().map(|&n| n as i64).collect()));
    let fewest = facts.fewest.max(2);
    // The largest power of two of which two fit.
    let half = 1usize << (fewest / 2).max(1).ilog2();
    settings.fill("batch_size", "", Value::Int(if fewest < BATCH { half.max(2) } else { BATCH } as i64));
    for key in ["w_class", "w_ict", "w_center", "noise_class"] {
        if !labelled && settings.get(key)?.float()? > 0.0 {
            return Err(Error::usage(format!("{key} needs classes, which mode = unlabelled does not learn: leave it out, or mode")));
        }
    }
    let known = settings.get("class_counts")?.counts()?.iter().filter(|&&n| n > 0).count();
    if labelled && known < 2 {
        return Err(Error::usage(format!(
            "mode = labelled needs labels of two classes or more among {}'s training cells, there {}: name a column by --labels, or train \
             with --set mode=unlabelled",
            first.name,
            match known {
                0 => "are none".to_string(),
                _ => "is one class".to_string(),
            }
        )));
    }
    Ok(())
}
