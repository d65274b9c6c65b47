//! The features that all modalities have, for a model that reads them by one encoder (sciCAN).
//!
//! Features are the same where their names are; the order is the first modality's. Of them, if asked, those whose preprocessed values
//! vary most over the first modality's training cells, before they are standardised.

use super::input::Input;
use crate::data::Dataset;
use crate::data::preprocess::{Preprocess, Recipe};
use crate::error::{Error, Result};
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
    let wanted = settings.get("n_top_genes")?.count()?;
    let mut chosen: Vec<usize> = (0..same[0].len()).collect();
    if wanted > 0 && wanted < chosen.len() {
        // Those standardised together vary as the cells of both do: the first's own deviations are wanted.
        let own = Preprocess::fit(given[0].0, given[0].1, &recipes[0].before_standardise())?;
        let spread = |k: usize| own.unit_sd()[same[0][k] as usize];
        chosen.sort_by(|&a, &b| spread(b).total_cmp(&spread(a)).then(a.cmp(&b)));
        chosen.truncate(wanted);
        chosen.sort_unstable();
    }
    let input = |(preprocess, places): (Preprocess, &Vec<u32>)| {
        let columns: Vec<u32> = chosen.iter().map(|&k| places[k]).collect();
        let all = columns.len() == preprocess.features() && columns.iter().enumerate().all(|(i, &c)| c as usize == i);
        Input::of(preprocess, (!all).then_some(columns))
    };
    Ok(fitted.into_iter().zip(&same).map(input).collect())
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
