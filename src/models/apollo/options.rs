//! APOLLO's options, and what of them follows from the data.

use crate::error::{Error, Result};
use crate::models::options::{Kind, MIN_CELLS, MIN_FEATURES, OptionSpec, POSITIVE, Per, TOP_GENES, TOP_GENES_BY, Value, option};
use crate::models::settings::{Settings, Source};
use crate::models::{Facts, Labels, inference};

const WIDTH: Kind = Kind::Int { min: 1, max: 1 << 16 };
const COUNT: Kind = Kind::Int { min: 1, max: 1 << 30 };
const LAYERS: usize = 10;
const SHARE: Kind = Kind::Float { min: 0.0, max: 0.99 };

pub(super) static OPTIONS: &[OptionSpec] = &[
    option("latent", Per::Run, WIDTH, "auto", "dimensions of the shared space: 50 (images 1024)"),
    option("latent_specific", Per::Run, WIDTH, "auto", "dimensions of each modality's own space: 20 (images 200)"),
    option("width", Per::Run, WIDTH, "1024", "units of a hidden layer"),
    option(
        "convolutions",
        Per::Run,
        Kind::Bool,
        "true",
        "whether images pass through convolutions; false: their pixels are features like any",
    ),
    option(
        "channels",
        Per::Run,
        Kind::Ints(1),
        "64,128,256,256,96",
        "images: channels of the convolutions, each of which halves the sides",
    ),
    option(
        "channels_specific",
        Per::Run,
        WIDTH,
        "16",
        "images: how many of the last channels the modality's own space is made of; the others are the shared one's",
    ),
    option("dropout", Per::Run, SHARE, "0.01", "share of every layer's inputs that is dropped in training"),
    option("noise", Per::Run, POSITIVE, "1", "deviation of the normal noise that latent vectors are decoded with in training"),
    option("penalty", Per::Run, POSITIVE, "0.001", "weight of the latent vectors' length"),
    option(
        "norm",
        Per::Run,
        Kind::Choice(&["length", "squared"]),
        "length",
        "what the penalty takes of a vector: its length, or its square, which bounds its growth and is another model than the published one",
    ),
    option(
        "redundancy",
        Per::Run,
        POSITIVE,
        "0",
        "weight of the squared correlations between the spaces' latent vectors: against copies of what is shared in a modality's own space",
    ),
    option(
        "specific",
        Per::Run,
        Kind::Bool,
        "true",
        "false: no space of a modality's own; the shared one is as wide as both were together",
    ),
    option(
        "shared_decoders",
        Per::Run,
        Kind::Bool,
        "true",
        "false: no decoder of the shared space alone; a translation then decodes it beside zeros",
    ),
    option(
        "loss",
        Per::Modality,
        Kind::Choice(&["bce", "mse"]),
        "auto",
        "cross-entropy of logits with targets in [0, 1], or squared error: auto is bce after minmax-cell and for images",
    ),
    option(
        "pos_weight",
        Per::Modality,
        Kind::Float { min: f64::MIN_POSITIVE, max: f64::MAX },
        "auto",
        "bce: weight of what is there, (n - S)/S of n values with the sum S, or with S of them not zero where the sum is above n; images 1",
    ),
    option(
        "condition",
        Per::Run,
        Kind::Name,
        "none",
        "label column that says under which condition a cell was seen, as which protein its image shows: decoders and encoders are told it",
    ),
    option("conditions", Per::Run, Kind::Names, "auto", "the conditions there are: the classes of that column"),
    option("condition_width", Per::Run, WIDTH, "64", "dimensions of a condition's vector"),
    option(
        "encoder_ids",
        Per::Run,
        Kind::Choice(&["shared", "own"]),
        "shared",
        "whether encoders are given the vectors that the decoders found, or each finds its own, as in the published program",
    ),
    option("untouched", Per::Run, Kind::Choice(&["dense", "lazy"]), "dense", "whether rows outside a minibatch go on by their momentum"),
    option("lr_tables", Per::Run, POSITIVE, "0.001", "learning rate of the latent vectors"),
    option("lr", Per::Run, POSITIVE, "0.0001", "learning rate of the decoders"),
    option("lr_encoders", Per::Run, POSITIVE, "auto", "learning rate of the encoders: that of the decoders (images 0.001)"),
    option(
        "single_step",
        Per::Run,
        Kind::Bool,
        "false",
        "the paper's ablation: variational autoencoders trained at once, without latent tables and without a second step",
    ),
    option("lr_single", Per::Run, POSITIVE, "0.00001", "single_step: learning rate"),
    option("w_match", Per::Run, POSITIVE, "1", "single_step: weight of the distance to the other modalities' shared codes"),
    option("w_kl", Per::Run, POSITIVE, "0.0000001", "single_step: weight of the divergence from the standard normal"),
    option("batch_size", Per::Run, Kind::Int { min: 2, max: 1 << 20 }, "auto", "cells of a minibatch: 512 (images 256)"),
    option("batch_size2", Per::Run, Kind::Int { min: 2, max: 1 << 20 }, "auto", "the same of the second step: as in the first"),
    option("epochs", Per::Run, COUNT, "5000", "passes of the first step, which finds latent vectors and decoders"),
    option("epochs2", Per::Run, COUNT, "auto", "passes of the second step, which finds encoders: twice as many (images the same)"),
    option(
        "patience",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "0",
        "passes of the last step without a better held-out loss before it ends; 0: it goes on to the end",
    ),
    option("reshuffle", Per::Run, Kind::Bool, "true", "false: minibatches are put together once, as in the published program"),
    option("cells", Per::Run, COUNT, "auto", "rows of the latent tables: the cells of the first modality"),
    option("select", Per::Run, Kind::Choice(&["total", "sum"]), "total", "the held-out loss that is told: weighted, or plain sum of terms"),
    inference::PREPROCESS,
    inference::SPARSE,
    MIN_CELLS,
    MIN_FEATURES,
    TOP_GENES,
    TOP_GENES_BY,
];

pub(super) fn image_sides(settings: &Settings) -> Result<Option<usize>> {
    if !settings.get("convolutions")?.flag()? {
        return Ok(None);
    }
    let channels = settings.get("channels")?.counts()?;
    if !(1..=LAYERS).contains(&channels.len()) {
        return Err(Error::usage(format!("channels: {} layers, and an image network has 1 to {LAYERS}", channels.len())));
    }
    let (last, own) = (channels[channels.len() - 1], settings.get("channels_specific")?.count()?);
    if own >= last {
        return Err(Error::usage(format!(
            "channels_specific={own}: the last layer has {last} channels, of which the shared space needs some"
        )));
    }
    Ok(Some(1 << channels.len()))
}

pub(super) fn labels(settings: &Settings) -> Result<Labels> {
    Ok(if settings.get("condition")?.word()? == "none" { Labels::Unused } else { Labels::Conditions })
}

/// Whether a modality's targets are in [0, 1] after these preprocessing steps.
fn in_unit_range(settings: &Settings, modality: &str) -> Result<bool> {
    let steps = settings.of("preprocess", modality)?.words()?;
    Ok(steps.last().is_some_and(|s| s == "minmax-cell" || s.starts_with("divide")))
}

/// Options of latent optimisation, and of the ablation.
const TWO_STAGES: &[&str] =
    &["noise", "penalty", "norm", "redundancy", "encoder_ids", "untouched", "lr_tables", "lr", "lr_encoders", "batch_size2", "epochs2"];
const ONE_STAGE: &[&str] = &["lr_single", "w_match", "w_kl"];

pub(super) fn resolve(settings: &mut Settings, facts: &Facts) -> Result<()> {
    let single = settings.get("single_step")?.flag()?;
    let foreign = if single { TWO_STAGES } else { ONE_STAGE };
    // What a recipe or a file says holds for either; who types an option means it.
    let typed = settings.from_source(Source::Flag);
    if let Some(key) = typed.iter().filter_map(|line| line.split(' ').next()).find(|key| foreign.contains(key)) {
        return Err(Error::usage(format!("{key} says nothing with single_step={single}: leave it out")));
    }
    if facts.modalities.iter().any(|m| m.name == "shared") {
        return Err(Error::usage("a modality is called shared, which is what the space of all is called: give it another name"));
    }
    let images = facts.modalities.iter().all(|m| m.image.is_some());
    let fill = |settings: &mut Settings, key: &str, n: i64| {
        if settings.get(key).is_ok_and(|s| s.is_auto()) {
            settings.fill(key, "", Value::Int(n));
        }
    };
    let (epochs, of_images) = (settings.get("epochs")?.count()? as i64, |a: i64, b: i64| if images { b } else { a });
    fill(settings, "latent", of_images(50, 1024));
    fill(settings, "latent_specific", of_images(20, 200));
    fill(settings, "batch_size", of_images(512, 256));
    let batch = settings.get("batch_size")?.count()? as i64;
    fill(settings, "batch_size2", batch);
    fill(settings, "epochs2", of_images(2 * epochs, epochs));
    if settings.get("lr_encoders")?.is_auto() {
        let rate = if images { 1e-3 } else { settings.get("lr")?.float()? };
        settings.fill("lr_encoders", "", Value::Float(rate));
    }
    let cells = facts.rows as i64;
    if !settings.get("cells")?.is_auto() && settings.get("cells")?.int()? != cells {
        return Err(Error::usage(format!("cells: there are {cells} of the first modality, and as many rows the latent tables have")));
    }
    settings.fill("cells", "", Value::Int(cells));
    for (m, modality) in facts.modalities.iter().enumerate() {
        let name = &modality.name;
        let (unit, image) = (in_unit_range(settings, name)?, modality.image.is_some());
        if settings.of("loss", name)?.is_auto() {
            settings.fill("loss", name, Value::Word(if unit || image { "bce" } else { "mse" }.into()));
        }
        let bce = settings.of("loss", name)?.word()? == "bce";
        if bce && !unit && !image {
            return Err(Error::usage(format!(
                "loss.{name}=bce wants values in [0, 1], and the preprocessing {} does not end there: end it with minmax-cell, or set loss.{name}=mse",
                settings.of("preprocess", name)?.words()?.join(",")
            )));
        }
        if settings.of("pos_weight", name)?.is_auto() {
            let weight = facts.totals.get(m).filter(|_| bce && !image).map_or(1.0, |t| pos_weight(*t));
            settings.fill("pos_weight", name, Value::Float(weight));
        }
    }
    Ok(())
}

/// (n - S)/S of the raw sum S, or of the number of values that are not zero where the sum says nothing of how many are.
fn pos_weight([values, sum, not_zero]: [f64; 3]) -> f64 {
    let s = if sum > 0.0 && sum < values { sum } else { not_zero };
    if s > 0.0 && s < values { (values - s) / s } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_of_what_is_there_is_of_counts_or_of_their_number() {
        assert_eq!(pos_weight([100.0, 20.0, 10.0]), 4.0);
        assert_eq!(pos_weight([100.0, 700.0, 25.0]), 3.0, "deep counts");
        assert_eq!(pos_weight([100.0, 0.0, 0.0]), 1.0, "nothing there");
        assert_eq!(pos_weight([100.0, -5.0, 100.0]), 1.0);
    }
}
