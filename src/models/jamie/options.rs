//! JAMIE's options, and what they are where nobody says.

use super::super::inference;
use super::super::options::{Kind, OptionSpec, POSITIVE, Per, TOP_GENES, TOP_GENES_BY, Value, option};
use super::super::settings::Settings;
use super::super::{Facts, Modality};
use crate::correspondence::{Inference, Metric};
use crate::error::Result;

/// As typed.
pub(super) static OPTIONS: &[OptionSpec] = &[
    option("latent", Per::Run, Kind::Int { min: 1, max: 4096 }, "32", "dimensions of the code"),
    option(
        "pca_dim",
        Per::Modality,
        Kind::Int { min: 0, max: 1 << 20 },
        "512",
        "principal components that stand for the features; 0: the features themselves",
    ),
    option(
        "dropout",
        Per::Run,
        Kind::Float { min: 0.0, max: 0.999 },
        "0",
        "after every hidden layer; imputation wants 0.3 (the paper: 0.6), integration 0",
    ),
    option("kl", Per::Run, POSITIVE, "0.032", "weight of the Kullback-Leibler term, annealed"),
    option("comb", Per::Run, POSITIVE, "32", "weight of the distance of a code from its aggregate"),
    option("recon", Per::Run, POSITIVE, "1", "weight of the reconstruction"),
    option(
        "align",
        Per::Run,
        POSITIVE,
        "1",
        "weight of the distance of a code from those that the inferred correspondence says; 0: none is inferred. One that twenty known pairs or more find no better than chance is left out",
    ),
    option("align_sides", Per::Run, Kind::Choice(&["both", "one"]), "both", "whether both codes are compared, or only the first's"),
    option(
        "pf_ratio",
        Per::Run,
        Kind::Float { min: 0.0, max: 1.0 },
        "1",
        "share of the known pairs in the aggregate, the rest is the inferred correspondence's",
    ),
    inference::DISTANCE,
    inference::KMAX,
    inference::LANDMARKS,
    inference::STEPS,
    inference::EPS,
    inference::RHO,
    inference::DELAY,
    inference::SOLVER,
    inference::EPSILON,
    inference::ROUNDS,
    inference::MARGINALS,
    inference::RELAX,
    option(
        "pair_fraction",
        Per::Run,
        Kind::Float { min: 0.0, max: 1.0 },
        "0.8",
        "share of a minibatch that is known pairs, where not all cells are paired",
    ),
    option("clip", Per::Run, POSITIVE, "1", "the longest gradient; 0: any length"),
    option("lr", Per::Run, POSITIVE, "0.001", "Adam's learning rate"),
    option("batch_size", Per::Run, Kind::Int { min: 2, max: 1 << 20 }, "auto", "cells of a minibatch: 512, or all if there are fewer"),
    option("epochs", Per::Run, Kind::Int { min: 1, max: 1 << 30 }, "10000", "most epochs"),
    option(
        "min_epochs",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "auto",
        "epochs before early stopping, twice the annealing's half: 2500, or 3/4 of epochs",
    ),
    option(
        "patience",
        Per::Run,
        Kind::Int { min: 0, max: 1 << 30 },
        "500",
        "epochs without a smaller minibatch loss before stopping; 0: never stop",
    ),
    option("min_increment", Per::Run, POSITIVE, "1e-8", "what counts as a smaller loss"),
    option("select", Per::Run, Kind::Choice(&["total", "sum"]), "total", "the held-out loss that is told: weighted, or plain sum of terms"),
    inference::PREPROCESS,
    inference::SPARSE,
    TOP_GENES,
    TOP_GENES_BY,
];

/// Works out what is `auto`.
pub(super) fn resolve(settings: &mut Settings, &Facts { modalities, cells, .. }: &Facts) -> Result<()> {
    settings.fill("batch_size", "", Value::Int(512.min(cells.max(2)) as i64));
    // Without geodesic distances there is no graph to extend along.
    let geodesic =
        modalities.iter().map(|m| settings.of("distance", &m.name)?.word().map(|w| w == "geodesic")).collect::<Result<Vec<_>>>()?;
    let landmarks = if geodesic.iter().filter(|&&g| g).count() > 1 { Inference::landmarks_for(cells) } else { 0 };
    settings.fill("landmarks", "", Value::Int(landmarks as i64));
    let epochs = settings.get("epochs")?.count()?;
    settings.fill("min_epochs", "", Value::Int(2500.min(epochs * 3 / 4) as i64));
    Ok(())
}

/// A correspondence a pair of modalities, if any is made use of.
pub(super) fn asked(settings: &Settings, modalities: &[Modality]) -> Result<Vec<Inference>> {
    if settings.get("align")?.float()? == 0.0 && settings.get("pf_ratio")?.float()? == 1.0 {
        return Ok(Vec::new());
    }
    let pairs = modalities.iter().enumerate().flat_map(|(i, a)| modalities[i + 1..].iter().map(move |b| [a, b]));
    let mut all = pairs.map(|pair| inference::inference(settings, pair.map(|m| m.name.as_str()))).collect::<Result<Vec<_>>>()?;
    // Other pairs keep their landmarks.
    all.iter_mut().filter(|how| modalities.len() > 2 && how.metrics != [Metric::Geodesic; 2]).for_each(|how| how.landmarks = 0);
    Ok(all)
}

/// Without dropout imputation suffers.
pub(super) fn imputation_remark(settings: &Settings) -> Option<&'static str> {
    let dropout = settings.get("dropout").and_then(|d| d.float()).unwrap_or(0.0);
    (dropout == 0.0)
        .then_some("the run was trained without dropout, from which imputation suffers on few cells: --set dropout=0.3 trains one for it")
}
