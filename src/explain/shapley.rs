//! Shapley values: what each feature of a cell adds to one imputed feature, compared with the mean cell.
//!
//! The game ([`super::game`]): the imputed feature of a cell that has its own values in the features of a coalition and the means
//! elsewhere. A player is a feature or a set of features. What the means are: [`super`]. The values sum to the difference between what
//! is imputed of the cell and of the mean cell.

use super::Group;
use super::game::{self, evaluations};
use crate::data::{Dataset, Hooks};
use crate::error::{Error, Result};
use crate::train::session::{CHUNK, Session};
use crate::train::{Space, Trained};
use rayon::prelude::*;
use std::path::Path;

/// What to explain.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// The modality that is read.
    pub from: usize,
    /// The modality that is imputed.
    pub to: usize,
    /// The feature of it that is explained.
    pub feature: usize,
    /// The cell: a row of `from`.
    pub row: usize,
    /// The players; features in none of them are one more, so that the values still sum to the whole difference.
    pub groups: &'a [Group],
    /// Only so many players by themselves, those without which the imputed value changes most; the others are one.
    pub top: Option<usize>,
    /// Orders that are drawn.
    pub permutations: usize,
    /// They derive from it.
    pub seed: u64,
    /// In which units the imputed value is taken.
    pub space: Space,
}

/// What a player adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The feature's or set's name.
    pub name: String,
    /// How many features that is.
    pub features: usize,
    /// The cell's value as imported, where the player is a single feature that was measured.
    pub value: Option<f32>,
    /// The Shapley value, in the units of the imputed feature.
    pub shapley: f64,
    /// Its standard error.
    pub error: Option<f64>,
}

/// An explained cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The imputed value of the cell.
    pub full: f64,
    /// Of the mean cell.
    pub empty: f64,
    /// Orders that were walked, both ways each; 0 where the values are exact.
    pub permutations: usize,
    /// The largest first; equal ones in the order they were given.
    pub contributions: Vec<Contribution>,
}

impl Explained {
    /// Writes the table as CSV: name, features, value, shapley, error; an absent value or error is an empty field.
    pub fn write(&self, path: &Path) -> Result<()> {
        let some = |x: Option<String>| x.unwrap_or_default();
        let row = |c: &Contribution| {
            let [value, error] = [c.value.map(|v| v.to_string()), c.error.map(|e| e.to_string())];
            vec![c.name.clone(), c.features.to_string(), some(value), c.shapley.to_string(), some(error)]
        };
        super::write_table(path, &["name", "features", "value", "shapley", "error"], self.contributions.iter().map(row))
    }

    /// The figure of the `most` largest contributions; the others are one bar. `words` are its title, what is under it, and the
    /// axis with its unit.
    #[cfg(feature = "plots")]
    pub fn waterfall(&self, most: usize, [title, remark, axis]: [String; 3]) -> crate::plot::waterfall::Waterfall {
        use crate::plot::axis::number;
        use crate::plot::waterfall::{Bar, Waterfall};
        let several = |features: usize| if features > 1 { format!(" ({features} features)") } else { String::new() };
        // One that is left over is shown by itself.
        let shown = if self.contributions.len() <= most + 1 { self.contributions.len() } else { most };
        let (large, small) = self.contributions.split_at(shown);
        let bar = |c: &Contribution| Bar {
            name: c.name.clone() + &several(c.features),
            value: c.value.map(|v| number(v.into())),
            change: c.shapley,
            error: c.error.filter(|&e| e > 0.0),
        };
        let rest = (!small.is_empty()).then(|| Bar {
            name: format!("{} others, each smaller", small.len()),
            value: None,
            change: small.iter().map(|c| c.shapley).sum(),
            error: None,
        });
        let [start, end] = [(self.empty, "the mean cell".to_string()), (self.full, "this cell".to_string())];
        Waterfall { title, remark, axis, start, end, bars: large.iter().map(bar).chain(rest).collect() }
    }
}

impl Trained {
    /// Shapley values of one imputed feature of one cell. Each asked coalition is a cell that passes through the model:
    /// [`evaluations`] of them, and with `top` one more a player; a batch of 1,024 is held.
    pub fn shapley(&mut self, dataset: &Dataset, spec: &Spec, hooks: &mut Hooks) -> Result<Explained> {
        let session = self.session(dataset)?;
        let modality = dataset.modality(spec.from);
        let mut players = with_rest(spec.groups, modality.features(), modality.feature_names())?;
        let mut imputer = Imputer::new(session, dataset, spec)?;
        if let Some(top) = spec.top.filter(|&t| t < players.len()) {
            players = imputer.most_telling(players, top, hooks)?;
        }
        let (total, _) = evaluations(players.len(), spec.permutations.max(1));
        let mut done = 0;
        let estimate = game::shapley(players.len(), spec.permutations, spec.seed, &mut |coalitions| {
            hooks.tick("shapley values, cells passed", done, Some(total as u64))?;
            done += coalitions.len() as u64;
            imputer.coalitions(coalitions, &players)
        })?;
        let mut raw = vec![0.0; modality.features()];
        modality.row_into(spec.row, &mut raw)?;
        let mut contributions: Vec<Contribution> = (0..players.len())
            .map(|i| Contribution {
                name: players[i].name.clone(),
                features: players[i].features.len(),
                value: match players[i].features[..] {
                    [one] => Some(raw[one as usize]).filter(|v| !v.is_nan()),
                    _ => None,
                },
                shapley: estimate.values[i],
                error: estimate.errors.as_ref().map(|e| e[i]),
            })
            .collect();
        contributions.sort_by(|a, b| b.shapley.abs().total_cmp(&a.shapley.abs()));
        Ok(Explained { full: estimate.full, empty: estimate.empty, permutations: estimate.permutations, contributions })
    }
}

/// The groups, and what is in none of them as one more; an error if a feature is in two.
fn with_rest(groups: &[Group], features: usize, names: &[String]) -> Result<Vec<Group>> {
    let mut owner: Vec<Option<usize>> = vec![None; features];
    for (g, group) in groups.iter().enumerate() {
        for &f in &group.features {
            if let Some(first) = owner[f as usize].replace(g) {
                return Err(Error::usage(format!(
                    "feature {} is in the sets {} and {}: for Shapley values a feature is in one set at most",
                    names[f as usize], groups[first].name, group.name
                )));
            }
        }
    }
    let free: Vec<u32> = (0..features as u32).filter(|&f| owner[f as usize].is_none()).collect();
    let mut all = groups.to_vec();
    if !free.is_empty() {
        all.push(Group { name: "features in no set".into(), features: free });
    }
    Ok(all)
}

/// Imputes the feature for made-up cells.
struct Imputer<'a> {
    session: &'a mut Session,
    spec: &'a Spec<'a>,
    /// The cell and the mean cell, preprocessed, [features].
    x: Vec<f32>,
    mean: Vec<f32>,
    packed: Vec<f32>,
    imputed: Vec<f32>,
}

impl<'a> Imputer<'a> {
    fn new(session: &'a mut Session, dataset: &Dataset, spec: &'a Spec<'a>) -> Result<Imputer<'a>> {
        let p = session.inputs[spec.from].preprocess();
        let (mut x, mean) = (vec![0.0; p.features()], p.unit_mean().to_vec());
        p.row(dataset.modality(spec.from), spec.row, &mut x)?;
        Ok(Imputer { session, spec, x, mean, packed: Vec::new(), imputed: Vec::new() })
    }

    /// The imputed feature of so many cells, which `fill` writes.
    fn impute(&mut self, cells: usize, fill: impl Fn(usize, &mut [f32], &[f32], &[f32]) + Sync) -> Result<Vec<f64>> {
        let features = self.x.len();
        let Spec { from, to, feature, space, .. } = *self.spec;
        self.packed.resize(cells * features, 0.0);
        let (x, mean) = (&self.x, &self.mean);
        self.packed.par_chunks_exact_mut(features).enumerate().for_each(|(i, out)| fill(i, out, x, mean));
        self.session.impute_made([from, to], feature, &self.packed, &[self.spec.row as u32], &mut self.imputed)?;
        if space == Space::Input {
            let undo = self.session.inputs[to].preprocess();
            let mut row = vec![0.0; undo.features()];
            for y in &mut self.imputed {
                row.fill(0.0); // every step that can be undone is undone a feature at a time
                row[feature] = *y;
                undo.undo(&mut row);
                *y = row[feature];
            }
        }
        match self.imputed.iter().all(|y| y.is_finite()) {
            true => Ok(self.imputed.iter().map(|&y| f64::from(y)).collect()),
            false => Err(Error::usage("an imputed value leaves the range of numbers when preprocessing is undone: use --space model")),
        }
    }

    /// The game: cells that have their own values in the members' features, the means elsewhere.
    fn coalitions(&mut self, coalitions: &[&[u32]], players: &[Group]) -> Result<Vec<f64>> {
        self.impute(coalitions.len(), |i, out, x, mean| {
            out.copy_from_slice(mean);
            let features = coalitions[i].iter().flat_map(|&p| &players[p as usize].features);
            features.for_each(|&f| out[f as usize] = x[f as usize]);
        })
    }

    /// The `top` players without which the value changes most, in their order, and the others as one.
    fn most_telling(&mut self, players: Vec<Group>, top: usize, hooks: &mut Hooks) -> Result<Vec<Group>> {
        let whole = self.impute(1, |_, out, x, _| out.copy_from_slice(x))?[0];
        let mut change = Vec::with_capacity(players.len());
        for batch in players.chunks(CHUNK) {
            hooks.tick("choosing features, cells passed", change.len() as u64, Some(players.len() as u64))?;
            let values = self.impute(batch.len(), |i, out, x, mean| {
                out.copy_from_slice(x);
                batch[i].features.iter().for_each(|&f| out[f as usize] = mean[f as usize]);
            })?;
            change.extend(values.iter().map(|v| (v - whole).abs()));
        }
        let mut order: Vec<usize> = (0..players.len()).collect();
        order.sort_by(|&a, &b| change[b].total_cmp(&change[a]));
        let mut chosen = vec![false; players.len()];
        order[..top].iter().for_each(|&i| chosen[i] = true);
        let (mut kept, mut rest) = (Vec::with_capacity(top + 1), Vec::new());
        for (player, chosen) in players.into_iter().zip(chosen) {
            if chosen { kept.push(player) } else { rest.extend(player.features) }
        }
        rest.sort_unstable();
        kept.push(Group { name: "all other features".into(), features: rest });
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_in_two_sets_is_refused_and_one_in_none_joins_the_rest() {
        let names: Vec<String> = (0..4).map(|i| format!("f{i}")).collect();
        let group = |name: &str, features: &[u32]| Group { name: name.into(), features: features.to_vec() };
        let e = with_rest(&[group("a", &[0, 1]), group("b", &[1])], 4, &names).unwrap_err();
        assert!(e.to_string().contains("feature f1 is in the sets a and b"), "{e}");
        let all = with_rest(&[group("a", &[2])], 4, &names).unwrap();
        assert_eq!(all[1].features, [0, 1, 3]);
    }

    #[cfg(feature = "plots")]
    #[test]
    fn the_waterfall_leads_from_the_mean_cell_to_the_cell() {
        let one = |i: usize| Contribution {
            name: format!("g{i}"),
            features: 1,
            value: Some(i as f32),
            shapley: 1.0 / (i + 1) as f64,
            error: Some(0.0),
        };
        let contributions: Vec<Contribution> = (0..10).map(one).collect();
        let sum: f64 = contributions.iter().map(|c| c.shapley).sum();
        let explained = Explained { full: 2.0 + sum, empty: 2.0, permutations: 0, contributions };
        let words = || ["t", "r", "a"].map(str::to_string);
        let w = explained.waterfall(4, words());
        assert_eq!((w.bars.len(), w.bars[4].name.as_str()), (5, "6 others, each smaller"));
        assert!((w.bars.iter().map(|b| b.change).sum::<f64>() - sum).abs() < 1e-12);
        assert_eq!(explained.waterfall(9, words()).bars.len(), 10);
    }
}
