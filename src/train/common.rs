//! Which features a model is given: those that all modalities have, for a model that reads them by one encoder (sciCAN); those that enough
//! training cells show at all, where `min_detected` says how many; and of these, where `n_top_genes` asks for so many, those that vary most.
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

/// Those features of a modality that are detected in enough training cells (`min_detected`), and of them those that vary most, as many as
/// its `n_top_genes` says, ascending; `None` where it is given all of them.
pub fn chosen_features(modality: &Modality, rows: &[u32], recipe: &Recipe, settings: &Settings) -> Result<Option<Vec<u32>>> {
    let (name, of) = (modality.name(), modality.features());
    let wanted = if settings.has("n_top_genes") { settings.of("n_top_genes", name)?.count()? } else { 0 };
    let least = if settings.has("min_detected") { settings.of("min_detected", name)?.float()? } else { 0.0 };
    let option = if least > 0.0 { "min_detected" } else { "n_top_genes" };
    if (least > 0.0 || (1..of).contains(&wanted)) && modality.is_image() {
        return Err(Error::usage(format!("{name} is of images, whose pixels are not chosen among: leave {option}.{name} at 0")));
    }
    let kept = if least > 0.0 { detected(modality, rows, least)? } else { (0..of as u32).collect() };
    if kept.is_empty() {
        return Err(Error::usage(format!(
            "min_detected.{name} = {least}: no feature of {name} is detected in more than {:.4} % of the training cells, so lower it",
            100.0 * least
        )));
    }
    if wanted == 0 || wanted >= kept.len() {
        return Ok((kept.len() < of).then_some(kept));
    }
    let by = By::named(settings.of("top_genes_by", name)?.word()?, modality)?;
    let places = selection::choose(modality, rows, recipe, by, &kept, wanted)?;
    Ok(Some(places.into_iter().map(|i| kept[i]).collect()))
}

/// The features that are neither 0 nor missing in more than a share of the rows.
fn detected(modality: &Modality, rows: &[u32], share: f64) -> Result<Vec<u32>> {
    let mut cells = vec![0u32; modality.features()];
    let mut values = vec![0.0f32; if modality.is_sparse() { 0 } else { modality.features() }];
    let there = |v: f32| u32::from(v != 0.0 && !v.is_nan());
    for &row in rows {
        if let Some((columns, values)) = modality.sparse_row(row as usize)? {
            columns.iter().zip(values).for_each(|(&c, &v)| cells[c as usize] += there(v));
        } else {
            modality.row_into(row as usize, &mut values)?;
            cells.iter_mut().zip(&values).for_each(|(n, &v)| *n += there(v));
        }
    }
    let more = |n: u32| f64::from(n) > share * rows.len() as f64;
    Ok((0u32..).zip(cells).filter(|&(_, n)| more(n)).map(|(feature, _)| feature).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Hooks;
    use crate::data::simulate::{SimulateSpec, simulate};
    use crate::models::cross_modal::SPEC;

    #[test]
    fn features_that_too_few_training_cells_show_are_left_out_before_any_are_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let spec = SimulateSpec { recipe: "atlas", cells: Some(80), seed: 4, like: Some("multiome"), features: &[60, 50] };
        simulate(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let d = Dataset::open(&dir.path().join("d")).unwrap();
        let (names, rows) = ([d.modality(0), d.modality(1)].map(|m| m.name().to_string()), (0..40).collect::<Vec<u32>>());
        let chosen = |m: usize, flags: &[String]| {
            let mut settings = Settings::new(SPEC.name, SPEC.options, &names).unwrap();
            settings.apply_flags(flags).unwrap();
            resolve(&d, &mut settings).unwrap();
            chosen_features(d.modality(m), &rows, &Recipe::parse("log1p,standardise").unwrap(), &settings)
        };
        for (m, modality) in d.modalities().iter().enumerate() {
            let features = modality.features();
            let mut seen = vec![0; features];
            let mut values = vec![0.0; features];
            for &row in &rows {
                match modality.sparse_row(row as usize).unwrap() {
                    Some((columns, _)) => columns.iter().for_each(|&c| seen[c as usize] += 1),
                    None => {
                        modality.row_into(row as usize, &mut values).unwrap();
                        seen.iter_mut().zip(&values).for_each(|(n, v)| *n += usize::from(*v != 0.0));
                    }
                }
            }
            // The rarest of those that are seen at all, and as rare ones, go: as many or fewer than the share.
            let rarest = *seen.iter().filter(|n| **n > 0).min().unwrap();
            let expected: Vec<u32> = (0u32..).zip(&seen).filter(|(_, n)| **n > rarest).map(|(f, _)| f).collect();
            assert!((1..features).contains(&expected.len()), "some go and some stay: {seen:?}");
            let flag = format!("min_detected.{}={}", names[m], rarest as f64 / 40.0);
            assert_eq!(chosen(m, std::slice::from_ref(&flag)).unwrap(), Some(expected.clone()));
            assert_eq!(chosen(1 - m, std::slice::from_ref(&flag)).unwrap(), None, "the other modality keeps all");
            let top = chosen(m, &[flag, format!("n_top_genes.{}=5", names[m])]).unwrap().unwrap();
            assert!(top.len() == 5 && top.iter().all(|f| expected.contains(f)) && top.is_sorted(), "{top:?}");
        }
        let e = chosen(0, &["min_detected=1".to_string()]).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("lower it"), "{e}");
        assert_eq!(chosen(0, &[]).unwrap(), None);
    }
}
