//! Which features of a modality a trained model uses: by taking them away, for every model alike.
//!
//! | file | question | result |
//! | --- | --- | --- |
//! | [`ablation`] | how much worse is the model without this feature, or with nothing but it? | a drop in a score for each |
//! | [`shapley`] | what did each feature add to the imputed value of this cell? | values that sum to the difference from the mean cell |
//! | [`game`] | the mathematics of that, without a model | |
//! | [`pcs`] | what do the principal components of the latent spaces mean? | features that differ along them, cells that stand for them |
//!
//! # What taking away means
//!
//! A feature that is taken away is replaced by its mean **after preprocessing, over the training cells**, which the run keeps. Not by
//! the mean of the raw values: steps such as counts per 10,000 divide by the cell's total, so a raw value that is replaced would change all
//! the others; after preprocessing one feature is one number. After `standardise` the mean is 0. Where the model is given principal
//! components, features are replaced before they are projected. The network is never trained again.
//!
//! A missing value of a feature that is taken away becomes the mean as well; a missing value of a feature that stays is missing,
//! as the model knows it (`coupled` lets the encoder see 0). The mean is of the measured values alone.

pub mod ablation;
pub mod game;
pub mod pcs;
pub mod shapley;

use crate::data::Modality;
use crate::data::atomic;
use crate::error::{Error, Result, nearest};
use std::collections::HashMap;
use std::path::Path;

/// Features that are replaced together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The feature's name, or the set's.
    pub name: String,
    /// Which features, ascending.
    pub features: Vec<u32>,
}

/// Every feature by itself.
pub fn each_feature(modality: &Modality) -> Vec<Group> {
    let one = |(i, name): (usize, &String)| Group { name: name.clone(), features: vec![i as u32] };
    modality.feature_names().iter().enumerate().map(one).collect()
}

/// The place of a feature; the error names the nearest that there is.
pub fn feature(modality: &Modality, name: &str) -> Result<usize> {
    position(modality.feature_names(), name).ok_or_else(|| missing(modality, "feature", name, modality.feature_names()))
}

/// The row of a cell; the error names the nearest id that there is.
pub fn cell(modality: &Modality, id: &str) -> Result<usize> {
    position(modality.cell_ids(), id).ok_or_else(|| missing(modality, "cell", id, modality.cell_ids()))
}

fn position(names: &[String], name: &str) -> Option<usize> {
    names.iter().position(|n| n == name)
}

fn missing(modality: &Modality, what: &str, name: &str, names: &[String]) -> Error {
    let near = nearest(name, names.iter().map(String::as_str));
    let example = names.first().map(|n| format!("; its first of {} is {n}", names.len())).unwrap_or_default();
    let hint = near.map_or(example, |n| format!("; did you mean {n}?"));
    Error::usage(format!("{} has no {what} \"{name}\"{hint}", modality.name()))
}

/// Reads sets of features from a CSV with the columns `set` and `feature`, a row a member; sets come in the order of their first
/// rows. Errors name the line.
pub fn read_sets(path: &Path, modality: &Modality) -> Result<Vec<Group>> {
    let damaged = |place: String, e: String| Error::input(path, place, e);
    let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let header = reader.headers().map_err(|e| damaged("line 1".into(), e.to_string()))?;
    let column = |name: &str| header.iter().position(|h| h.trim_start_matches('\u{feff}') == name);
    let (Some(set), Some(member)) = (column("set"), column("feature")) else {
        return Err(damaged("line 1".into(), "wanted is a header with the columns set and feature".into()));
    };
    let places: HashMap<&str, u32> = modality.feature_names().iter().map(String::as_str).zip(0..).collect();
    let (mut groups, mut by_name): (Vec<Group>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
    for record in reader.records() {
        let record = record.map_err(|e| damaged(String::new(), e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let (name, text) = (&record[set], &record[member]);
        let Some(&at) = places.get(text) else {
            return Err(damaged(format!("line {line}"), missing(modality, "feature", text, modality.feature_names()).to_string()));
        };
        let group = *by_name.entry(name.to_string()).or_insert_with(|| {
            groups.push(Group { name: name.to_string(), features: Vec::new() });
            groups.len() - 1
        });
        groups[group].features.push(at);
    }
    if groups.is_empty() {
        return Err(damaged(String::new(), "there is no set in it: give a row a feature, as in set,feature".into()));
    }
    for group in &mut groups {
        group.features.sort_unstable();
        group.features.dedup();
    }
    Ok(groups)
}

/// Writes a table as CSV, whole or not at all.
fn write_table(path: &Path, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let failed = |e: csv::Error| Error::Internal(format!("{}: {e}", path.display()));
    out.write_record(header).map_err(failed)?;
    for row in rows {
        out.write_record(row).map_err(failed)?;
    }
    let bytes = out.into_inner().map_err(|e| Error::Internal(format!("{}: {e}", path.display())))?;
    atomic::write_file(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::ModalitySource;
    use crate::data::import::{ImportSpec, LabelSource, import};
    use crate::data::pairs::PairsRule;
    use crate::data::{Dataset, Hooks};
    use crate::device::Device;
    use crate::engine::{Precision, init};
    use crate::models::{self, settings::Settings};
    use crate::train::{CHECKPOINT_EVERY, Space, TrainRequest, Trained, train};
    use std::fmt::Write;
    use std::sync::atomic::AtomicBool;

    const CELLS: usize = 90;

    /// Two views of two numbers a cell: a (6 features, a3 constant) and b (3); the label is the sign of the first number.
    fn made(dir: &Path, model: &str, options: &[&str], missing: bool) -> (Dataset, Trained) {
        let truth = init::uniform(3, "truth", 2 * CELLS, 1.0);
        let (mut a, mut b, mut labels) = ("cell,a0,a1,a2,a3,a4,a5".to_string(), "cell,b0,b1,b2".to_string(), "cell,side".to_string());
        for (c, t) in truth.chunks(2).enumerate() {
            let empty = if missing && c % 3 == 0 { String::new() } else { format!("{}", t[0] - t[1]) };
            write!(a, "\nc{c},{},{},{empty},4.5,{},{}", t[0], t[1], t[0] * t[1], (3.0 * t[1]).sin()).unwrap();
            write!(b, "\nc{c},{},{},{}", t[0] + 0.1 * t[1], t[0].powi(2), t[1]).unwrap();
            write!(labels, "\nc{c},{}", if t[0] > 0.0 { "right" } else { "left" }).unwrap();
        }
        for (name, text) in [("a.csv", a), ("b.csv", b), ("labels.csv", labels)] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let modality = |name: &str| ModalitySource { name: name.into(), file: dir.join(format!("{name}.csv")), key: None };
        let modalities = vec![modality("a"), modality("b")];
        let labels = vec![LabelSource::parse(dir.join("labels.csv").to_str().unwrap(), &modalities)];
        let spec = ImportSpec { modalities, labels, pairs: Some(PairsRule::ByName), ..ImportSpec::default() };
        import(&spec, &dir.join("d"), &mut Hooks::default()).unwrap();
        let dataset = Dataset::open(&dir.join("d")).unwrap();
        let model = models::by_name(model).unwrap();
        let mut settings = Settings::new(model.name, model.options, &["a".into(), "b".into()]).unwrap();
        settings.apply_flags(&options.iter().map(|o| o.to_string()).collect::<Vec<_>>()).unwrap();
        train(TrainRequest {
            model,
            dataset: &dataset,
            settings: &settings,
            device: Device::cpu(),
            precision: Precision::F32,
            seed: 5,
            holdout: Some("0.3".parse().unwrap()),
            paired: 1.0,
            shuffle: Default::default(),
            labels: None,
            run_dir: dir.join("run"),
            resume: false,
            stop: &AtomicBool::new(false),
            checkpoint_every: CHECKPOINT_EVERY,
            inferring: &mut |_| {},
            prepared: &mut |_| {},
            progress: &mut |_| {},
        })
        .unwrap();
        (dataset, Trained::open(&dir.join("run"), Device::cpu()).unwrap())
    }

    const COUPLED: &[&str] = &["hidden=16", "latent=2", "epochs=120", "batch_size=30"];
    const JAMIE: &[&str] = &["latent=2", "epochs=60"];

    #[test]
    fn ablations_begin_at_what_evaluate_says_and_a_constant_feature_is_never_missed() {
        for (model, options) in [("coupled", COUPLED), ("jamie", JAMIE)] {
            let dir = tempfile::tempdir().unwrap();
            let (dataset, mut trained) = made(dir.path(), model, options, false);
            let mut groups = each_feature(dataset.modality(0));
            groups.push(Group { name: "all".into(), features: (0..6).collect() });
            let scores = [ablation::Score::LabelTransfer { column: None, from: None }, ablation::Score::Pearson { to: 1, feature: 2 }];
            let lta = trained.evaluate(&dataset, None).unwrap().number("lta").unwrap();
            for score in scores {
                let mut ablate = |keep| {
                    let spec = ablation::Spec { of: 0, score: score.clone(), groups: &groups, keep };
                    trained.ablate(&dataset, &spec, &mut Hooks::default()).unwrap()
                };
                let (without, only) = (ablate(false), ablate(true));
                let row = |a: &ablation::Ablations, name: &str| a.rows.iter().find(|r| r.name == name).unwrap().clone();
                assert!(without.held_out && without.cells == 27 && without.rows.len() == 7, "{without:?}");
                if matches!(score, ablation::Score::LabelTransfer { .. }) {
                    assert_eq!(without.baseline, lta, "{model}");
                } else {
                    assert_eq!(without.floor, 0.0, "{model}: what is the same for all cells correlates with nothing");
                }
                assert_eq!(row(&without, "a3").drop, 0.0, "{model}: a constant feature");
                assert_eq!(row(&only, "a3").score, without.floor, "{model}: nothing but a constant feature");
                assert_eq!(row(&without, "all").score, without.floor, "{model}");
                assert_eq!(row(&only, "all").score, only.baseline, "{model}: everything is kept");
                assert!(without.rows.is_sorted_by(|a, b| a.drop >= b.drop) && only.rows.is_sorted_by(|a, b| a.drop <= b.drop));
                assert_eq!(ablate(false), without, "the same numbers again");
            }
        }
    }

    #[test]
    fn shapley_values_sum_to_the_difference_from_the_mean_cell() {
        for (model, options, missing) in [("coupled", COUPLED, true), ("jamie", JAMIE, false)] {
            let dir = tempfile::tempdir().unwrap();
            let (dataset, mut trained) = made(dir.path(), model, options, missing);
            let groups = each_feature(dataset.modality(0));
            let mut whole = 0.0;
            trained
                .translate(&dataset, 0, 1, Space::Input, &mut |row, y| {
                    if row == 6 {
                        whole = f64::from(y[2]);
                    }
                    Ok(())
                })
                .unwrap();
            // 3 permutations are walked; 1,000 are more than all coalitions, which are enumerated.
            for (permutations, top) in [(3, None), (1000, None), (3, Some(2))] {
                let space = Space::Input;
                let spec = shapley::Spec { from: 0, to: 1, feature: 2, row: 6, groups: &groups, top, permutations, seed: 1, space };
                let e = trained.shapley(&dataset, &spec, &mut Hooks::default()).unwrap();
                let sum: f64 = e.contributions.iter().map(|c| c.shapley).sum();
                assert!((sum - (e.full - e.empty)).abs() < 1e-12, "{model}: {sum} for {} - {}", e.full, e.empty);
                assert!((e.full - whole).abs() < 1e-5, "{model}: {} is what translate says, {whole}", e.full);
                assert_eq!(e.permutations, if permutations == 3 && top.is_none() { 3 } else { 0 });
                let find = |name: &str| e.contributions.iter().find(|c| c.name == name);
                match top {
                    None => {
                        assert_eq!(find("a3").map(|c| (c.shapley, c.value)), Some((0.0, Some(4.5))), "{model}: a constant feature");
                        if missing {
                            assert_eq!(find("a2").map(|c| (c.shapley, c.value)), Some((0.0, None)), "a missing value is the mean");
                        }
                    }
                    Some(_) => assert_eq!((e.contributions.len(), find("all other features").map(|c| c.features)), (3, Some(4))),
                }
            }
        }
    }

    #[test]
    fn ctrl_c_stops_either_method() {
        let dir = tempfile::tempdir().unwrap();
        let (dataset, mut trained) = made(dir.path(), "coupled", &["hidden=4", "epochs=1"], false);
        let (stop, groups) = (AtomicBool::new(true), each_feature(dataset.modality(0)));
        let mut hooks = Hooks { progress: None, stop: Some(&stop) };
        let score = ablation::Score::Pearson { to: 1, feature: 0 };
        let spec = ablation::Spec { of: 0, score, groups: &groups, keep: false };
        assert!(matches!(trained.ablate(&dataset, &spec, &mut hooks), Err(Error::Interrupted(_))));
        let space = Space::Model;
        let spec = shapley::Spec { from: 0, to: 1, feature: 0, row: 0, groups: &groups, top: None, permutations: 9, seed: 0, space };
        assert!(matches!(trained.shapley(&dataset, &spec, &mut hooks), Err(Error::Interrupted(_))));
    }

    #[test]
    fn sets_are_read_in_order_and_mistakes_name_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let (dataset, _) = made(dir.path(), "coupled", &["hidden=4", "epochs=1"], false);
        let (file, m) = (dir.path().join("sets.csv"), dataset.modality(0));
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_sets(&file, m)
        };
        let sets = read("feature,set\na4,late\na0,early\na1,late\na4,late\n").unwrap();
        assert_eq!(
            sets.iter().map(|s| (s.name.as_str(), s.features.as_slice())).collect::<Vec<_>>(),
            [("late", &[1, 4][..]), ("early", &[0])]
        );
        for (text, says) in [
            ("set,feature\nx,a1\nx,a11\n", &["line 3", "a11", "did you mean a1?"][..]),
            ("set,member\nx,a1\n", &["line 1", "set and feature"]),
            ("set,feature\n", &["no set"]),
            ("set,feature\nx\n", &["line: 2"]),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.exit_code() == 2 && says.iter().all(|s| e.to_string().contains(s)), "{e}");
        }
        assert!(feature(m, "A5").unwrap_err().to_string().contains("did you mean a5?"));
        assert!(cell(m, "c333").unwrap_err().to_string().contains("a has no cell \"c333\"; did you mean c33?"));
        assert_eq!((feature(m, "a5").unwrap(), cell(m, "c7").unwrap()), (5, 7));
    }
}
