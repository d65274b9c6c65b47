//! Which features a model is given: those that all modalities have, for a model that reads them by one encoder (sciCAN), and of those, or of
//! the ones that `filter` leaves, the ones that vary most, where `n_top_genes` asks for so many.
//!
//! Features are the same where their names are; the order is the first modality's, whose training cells then say which vary most.

use super::input::Input;
use crate::data::preprocess::selection::{self, By};
use crate::data::preprocess::{Preprocess, Recipe};
use crate::data::{Dataset, Modality};
use crate::error::{Error, Result};
use crate::models::options::Value;
use crate::models::settings::Settings;
use std::collections::BTreeMap;

/// One [`Input`] a modality: fitted, and narrowed to the features that all of them have, as many as `n_top_genes` says.
pub fn inputs(dataset: &Dataset, training: &[Vec<u32>], recipes: &[Recipe], settings: &Settings) -> Result<Vec<Input>> {
    let same = places(dataset)?;
    let given: Vec<_> =
        dataset.modalities().iter().zip(training).zip(recipes).map(|((m, rows), recipe)| (m, rows.as_slice(), recipe)).collect();
    let fitted = if settings.get("scaling")?.word()? == "pooled" {
        Preprocess::fit_together(&given, &same)?
    } else {
        given.iter().map(|&(m, rows, recipe)| Preprocess::fit(m, rows, recipe)).collect::<Result<Vec<_>>>()?
    };
    let (wanted, all) = (settings.get("n_top_genes")?.count()?, same[0].len());
    let chosen = if wanted > 0 && wanted < all {
        let (m, rows, recipe) = given[0];
        selection::choose(m, rows, recipe, By::named(settings.get("top_genes_by")?.word()?, m)?, &same[0], wanted)?
    } else {
        (0..all).collect()
    };
    let input = |(preprocess, places): (Preprocess, &Vec<u32>)| {
        let columns: Vec<u32> = chosen.iter().map(|&k| places[k]).collect();
        let all = columns.len() == preprocess.features() && columns.iter().enumerate().all(|(i, &c)| c as usize == i);
        Input::of(preprocess, (!all).then_some(columns))
    };
    Ok(fitted.into_iter().zip(&same).map(input).collect())
}

/// Whether the model's features are the same in all modalities.
pub fn applies(settings: &Settings) -> bool {
    settings.has("scaling")
}

/// Writes out how features are chosen, where that is left to the data.
pub fn resolve(dataset: &Dataset, settings: &mut Settings) -> Result<()> {
    if !settings.has("top_genes_by") {
        return Ok(());
    }
    let of: Vec<(&str, &Modality)> =
        if applies(settings) { vec![("", dataset.modality(0))] } else { dataset.modalities().iter().map(|m| (m.name(), m)).collect() };
    for (name, modality) in of {
        // A run says it even where all features are taken: nothing in its configuration is left to be worked out.
        if settings.of("top_genes_by", name)?.is_auto() {
            settings.fill("top_genes_by", name, Value::Word(By::named("auto", modality)?.word().into()));
        }
    }
    Ok(())
}

/// Of these features of a modality those that vary most, as many as its `n_top_genes` says, ascending; `None` where it is given all there are.
pub fn chosen_features(
    modality: &Modality,
    rows: &[u32],
    kept: Vec<u32>,
    recipe: &Recipe,
    settings: &Settings,
) -> Result<Option<Vec<u32>>> {
    let (name, of) = (modality.name(), modality.features());
    let wanted = if settings.has("n_top_genes") { settings.of("n_top_genes", name)?.count()? } else { 0 };
    if (1..of).contains(&wanted) && modality.is_image() {
        return Err(Error::usage(format!("{name} is of images, whose pixels are not chosen among: leave n_top_genes.{name} at 0")));
    }
    if wanted == 0 || wanted >= kept.len() {
        return Ok((kept.len() < of).then_some(kept));
    }
    let by = By::named(settings.of("top_genes_by", name)?.word()?, modality)?;
    let places = selection::choose(modality, rows, recipe, by, &kept, wanted)?;
    Ok(Some(places.into_iter().map(|i| kept[i]).collect()))
}

/// For every modality the places of the features that all have, in the order of the first.
fn places(dataset: &Dataset) -> Result<Vec<Vec<u32>>> {
    let place_of: Vec<BTreeMap<&str, u32>> = dataset
        .modalities()
        .iter()
        // Of a name that comes twice the first counts.
        .map(|m| m.feature_names().iter().enumerate().rev().map(|(i, name)| (name.as_str(), i as u32)).collect())
        .collect();
    let mut same = vec![Vec::new(); place_of.len()];
    for (i, name) in dataset.modality(0).feature_names().iter().enumerate() {
        let found: Vec<Option<u32>> = place_of.iter().map(|of| of.get(name.as_str()).copied()).collect();
        if found[0] == Some(i as u32) && found.iter().all(Option::is_some) {
            same.iter_mut().zip(found).for_each(|(same, place)| same.extend(place));
        }
    }
    if same[0].is_empty() {
        let name = |m: usize| dataset.modality(m).feature_names().first().map_or("none", String::as_str);
        return Err(Error::input(
            dataset.dir(),
            "features",
            format!(
                "{} and {} have no feature of the same name (theirs begin with {:?} and {:?}): one encoder reads both, so give both by gene",
                dataset.modality(0).name(),
                dataset.modality(1).name(),
                name(0),
                name(1)
            ),
        ));
    }
    Ok(same)
}
