//! What is done to a cell's values before a model sees them, fitted on the training cells and applied as rows are read.
//!
//! Besides what its steps need, a [`Preprocess`] knows the mean and deviation of every preprocessed feature over the training
//! cells, whatever the recipe: errors are reported in these units, so that predicting the mean scores 1.
//!
//!   shapes   a row `[features]`; means, scales, unit_mean, unit_sd `[features]`, the first two empty without `standardise`

mod logarithm;
mod moments;
mod recipe;
pub mod selection;
mod sparse;

use super::dataset::Modality;
use crate::error::{Error, Result};
use moments::Moments;
use recipe::Refused;

pub use recipe::{Recipe, STEPS, Step};

/// A fitted recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    recipe: Recipe,
    features: usize,
    means: Vec<f32>,
    scales: Vec<f32>,
    unit_mean: Vec<f32>,
    unit_sd: Vec<f32>,
}

impl Preprocess {
    /// Fits a recipe on the training rows of a modality: one pass over them, two if steps follow `standardise`.
    #[track_caller]
    pub fn fit(modality: &Modality, rows: &[u32], recipe: &Recipe) -> Result<Preprocess> {
        let mut fitted = Preprocess::unfitted(modality, rows, recipe)?;
        let features = modality.features();
        let steps = recipe.steps();
        let at = steps.iter().position(|&s| s == Step::Standardise);
        if let Some(at) = at {
            (fitted.means, fitted.scales) = narrow(&fitted.moments(modality, rows, &steps[..at])?);
        }
        (fitted.unit_mean, fitted.unit_sd) = match at {
            Some(at) if at + 1 == steps.len() => (vec![0.0; features], vec![1.0; features]),
            _ => narrow(&fitted.moments(modality, rows, steps)?),
        };
        if modality.is_image() && at.is_none() {
            // A pixel at the edge that hardly varies is no feature to be standardised by itself: one deviation for all.
            let deviations = fitted.moments(modality, rows, steps)?.deviations();
            let square = deviations.iter().map(|sd| sd * sd).sum::<f64>() / features.max(1) as f64;
            fitted.unit_sd.fill(if square > 0.0 { square.sqrt() as f32 } else { 1.0 });
        }
        Ok(fitted)
    }

    /// The same for several modalities whose common features are standardised by mean and deviation over the cells of all of them, so that
    /// what the modalities differ in stays in. `same[m][k]` is the `k`-th common feature's place in modality m.
    #[track_caller]
    pub fn fit_together(given: &[(&Modality, &[u32], &Recipe)], same: &[Vec<u32>]) -> Result<Vec<Preprocess>> {
        let (mut all, mut before) = (Vec::new(), Vec::new());
        for &(modality, rows, recipe) in given {
            let fitted = Preprocess::unfitted(modality, rows, recipe)?;
            let Some(at) = recipe.steps().iter().position(|&s| s == Step::Standardise) else {
                return Err(Error::usage(format!(
                    "standardising modalities together needs the step standardise: preprocess.{} is \"{recipe}\"",
                    modality.name()
                )));
            };
            before.push(fitted.moments(modality, rows, &recipe.steps()[..at])?);
            all.push(fitted);
        }
        let alone = before.clone();
        for (m, own) in before.iter_mut().enumerate() {
            for (other, places) in alone.iter().zip(same).enumerate().filter(|(o, _)| *o != m).map(|(_, other)| other) {
                same[m].iter().zip(places).for_each(|(&to, &from)| own.join_feature(to as usize, other, from as usize));
            }
        }
        for ((fitted, own), &(modality, rows, recipe)) in all.iter_mut().zip(&before).zip(given) {
            (fitted.means, fitted.scales) = narrow(own);
            (fitted.unit_mean, fitted.unit_sd) = narrow(&fitted.moments(modality, rows, recipe.steps())?);
        }
        Ok(all)
    }

    #[track_caller]
    fn unfitted(modality: &Modality, rows: &[u32], recipe: &Recipe) -> Result<Preprocess> {
        assert!(*recipe != Recipe::Auto, "fit: the recipe must be resolved first");
        if rows.is_empty() {
            return Err(Error::usage(format!("there are no training cells in \"{}\"", modality.name())));
        }
        let (means, scales, unit_mean, unit_sd) = (vec![], vec![], vec![], vec![]);
        Ok(Preprocess { recipe: recipe.clone(), features: modality.features(), means, scales, unit_mean, unit_sd })
    }

    /// Puts a fitted recipe together again from what was stored with a run.
    pub fn from_parts(recipe: &str, means: Vec<f32>, scales: Vec<f32>, unit_mean: Vec<f32>, unit_sd: Vec<f32>) -> Result<Preprocess> {
        let recipe = Recipe::parse(recipe)?;
        let features = unit_mean.len();
        let wanted = if recipe.steps().contains(&Step::Standardise) { features } else { 0 };
        if recipe == Recipe::Auto || unit_sd.len() != features || means.len() != wanted || scales.len() != wanted {
            let sizes = [means.len(), scales.len(), features, unit_sd.len()];
            return Err(Error::usage(format!(
                "the recipe \"{recipe}\" does not go with vectors of sizes {sizes:?}: the run is damaged, train it again"
            )));
        }
        Ok(Preprocess { recipe, features, means, scales, unit_mean, unit_sd })
    }

    /// The recipe, `auto` decided.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.features
    }

    /// What `standardise` subtracts; empty without that step.
    pub fn means(&self) -> &[f32] {
        &self.means
    }

    /// What `standardise` divides by (1 for a constant feature); empty without that step.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Mean of each preprocessed feature over the training cells.
    pub fn unit_mean(&self) -> &[f32] {
        &self.unit_mean
    }

    /// Deviation of each preprocessed feature over the training cells, 1 for a constant one.
    pub fn unit_sd(&self) -> &[f32] {
        &self.unit_sd
    }

    /// A row of a modality, preprocessed; an error names the cell and the feature.
    #[track_caller]
    pub fn row(&self, modality: &Modality, row: usize, out: &mut [f32]) -> Result<()> {
        let steps = self.recipe.steps();
        let alone = if modality.is_sparse() { steps.iter().take_while(|s| s.keeps_zeros()).count() } else { 0 };
        let (of_stored, of_all) = steps.split_at(alone);
        match if alone > 0 { modality.sparse_row(row)? } else { None } {
            None => modality.row_into(row, out)?,
            Some((columns, stored)) => {
                assert_eq!(out.len(), self.features, "row: a row has {} features", self.features);
                out[..stored.len()].copy_from_slice(stored);
                let done = self.steps(of_stored, &mut out[..stored.len()]);
                done.map_err(|r| refused(modality, row, columns.get(r.at).map_or(0, |&c| c as usize), r))?;
                spread(columns, out);
            }
        }
        self.steps(of_all, out).map_err(|r| refused(modality, row, r.at, r))
    }

    /// Preprocesses raw values in place; missing ones stay missing. [`row`](Preprocess::row) gives errors with names.
    #[track_caller]
    pub fn apply(&self, raw: &mut [f32]) -> Result<()> {
        assert_eq!(raw.len(), self.features, "apply: a row has {} features", self.features);
        self.steps(self.recipe.steps(), raw).map_err(|r| Error::usage(format!("feature {}: {}", r.at, sentence(r))))
    }

    /// Undoes all steps that can be undone, the last first: what remains of `counts10k-log1p` is counts per 10,000, of `minmax-cell` 0..1.
    #[track_caller]
    pub fn undo(&self, values: &mut [f32]) {
        assert_eq!(values.len(), self.features, "undo: a row has {} features", self.features);
        for &step in self.recipe.steps().iter().rev() {
            if step == Step::Standardise {
                for ((x, mean), sd) in values.iter_mut().zip(&self.means).zip(&self.scales) {
                    *x = *x * sd + mean;
                }
            } else {
                recipe::undo(step, values);
            }
        }
    }

    fn steps(&self, steps: &[Step], values: &mut [f32]) -> Result<(), Refused> {
        for &step in steps {
            if step == Step::Standardise {
                for ((x, mean), sd) in values.iter_mut().zip(&self.means).zip(&self.scales) {
                    *x = (*x - mean) / sd;
                }
            } else {
                recipe::apply(step, values)?;
            }
        }
        Ok(())
    }

    /// Means and deviations of the training rows after some steps.
    fn moments(&self, modality: &Modality, rows: &[u32], steps: &[Step]) -> Result<Moments> {
        column_moments(modality, rows, steps.iter().all(|s| s.keeps_zeros()), |row, indices, values| {
            self.steps(steps, values).map_err(|r| refused(modality, row, indices.map_or(r.at, |i| i[r.at] as usize), r))
        })
    }
}

/// Puts the values at the start of `out` to their ascending columns, and zeros between them: the last first, so that none is overwritten.
fn spread(columns: &[i32], out: &mut [f32]) {
    let mut end = out.len();
    for (i, &column) in columns.iter().enumerate().rev() {
        let value = out[i];
        out[column as usize + 1..end].fill(0.0);
        out[column as usize] = value;
        end = column as usize;
    }
    out[..end].fill(0.0);
}

/// Means and deviations of every feature over some rows, after `change` of each: it is given the row's number, its values, and their
/// features where those are not all. Of a sparse modality they are the non-zeros alone if `keeps_zeros`; the zeros are added at the end.
fn column_moments(
    modality: &Modality,
    rows: &[u32],
    keeps_zeros: bool,
    change: impl Fn(usize, Option<&[i32]>, &mut [f32]) -> Result<()> + Sync,
) -> Result<Moments> {
    if !(modality.is_sparse() && keeps_zeros) {
        return Moments::over(modality.features(), rows, |row, values, block| {
            modality.row_into(row, values)?;
            change(row, None, values)?;
            for (feature, &value) in values.iter().enumerate() {
                block.add(feature, value);
            }
            Ok(())
        });
    }
    let mut moments = Moments::over(modality.features(), rows, |row, values, block| {
        let Some((indices, stored)) = modality.sparse_row(row)? else { return Ok(()) };
        let values = &mut values[..stored.len()];
        values.copy_from_slice(stored);
        change(row, Some(indices), values)?;
        for (&feature, &value) in indices.iter().zip(values.iter()) {
            block.add(feature as usize, value);
        }
        Ok(())
    })?;
    let mut stored = moments.counts().to_vec();
    if modality.facts().missing > 0 {
        // A stored missing value was not counted above, and is no zero either.
        stored.fill(0);
        for &row in rows {
            if let Some((indices, _)) = modality.sparse_row(row as usize)? {
                indices.iter().for_each(|&i| stored[i as usize] += 1);
            }
        }
    }
    moments.add_zeros(rows.len() as u64, &stored);
    Ok(moments)
}

/// Means and deviations as they are stored.
fn narrow(m: &Moments) -> (Vec<f32>, Vec<f32>) {
    let f32s = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    // A deviation too small for an f32 could not divide.
    let sd = f32s(m.deviations()).into_iter().map(|sd| if sd > 0.0 { sd } else { 1.0 }).collect();
    (f32s(m.means()), sd)
}

fn sentence(r: Refused) -> String {
    format!("the step {} cannot take the negative value {}: choose other steps with --set preprocess.NAME=...", r.step.name(), r.value)
}

fn refused(modality: &Modality, row: usize, feature: usize, r: Refused) -> Error {
    let place = format!("cell \"{}\", feature \"{}\"", modality.cell_id(row), modality.feature_names()[feature]);
    Error::input(&modality.entry().source.file, place, sentence(r).replace("NAME", modality.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;
    use crate::data::formats::{ModalitySource, RowsAre};
    use crate::data::hooks::Hooks;
    use crate::data::import::{ImportSpec, import};

    pub(super) fn dataset(name: &str, content: &str) -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, content).unwrap();
        let modalities = vec![ModalitySource { name: "x".into(), file, key: None }];
        let spec = ImportSpec { modalities, rows: Some(RowsAre::Cells), ..Default::default() };
        import(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let dataset = Dataset::open(&dir.path().join("d")).unwrap();
        (dir, dataset)
    }

    fn fit(dataset: &Dataset, rows: &[u32], recipe: &str) -> Preprocess {
        Preprocess::fit(dataset.modality(0), rows, &Recipe::parse(recipe).unwrap()).unwrap()
    }

    #[test]
    fn statistics_are_the_training_rows_alone_and_undo_returns() {
        let (_dir, d) = dataset("x.csv", "cell,a,b,c\nu,1,5,\nv,3,5,2\nw,100,9,4\n");
        let p = fit(&d, &[0, 1], "standardise");
        assert_eq!((p.means(), p.scales()), (&[2.0, 5.0, 2.0][..], &[1.0, 1.0, 1.0][..]));
        let mut row = [0.0; 3];
        p.row(d.modality(0), 0, &mut row).unwrap();
        assert!(row[0] == -1.0 && row[1] == 0.0 && row[2].is_nan());
        p.row(d.modality(0), 2, &mut row).unwrap();
        p.undo(&mut row);
        assert_eq!(row, [100.0, 9.0, 4.0]);
    }

    #[test]
    fn every_recipe_has_units_in_which_the_training_cells_have_mean_0_and_deviation_1() {
        let (_dir, d) = dataset("x.csv", "cell,a,b\nu,1,5\nv,3,5\nw,8,6\nt,0,2\n");
        for recipe in ["none", "log1p", "log2p1,standardise", "counts10k-log1p", "cpm-log1p", "standardise,minmax-cell", "minmax-cell"] {
            let p = fit(&d, &[0, 1, 2, 3], recipe);
            for f in 0..2 {
                let column: Vec<f64> = (0..4)
                    .map(|r| {
                        let mut row = [0.0; 2];
                        p.row(d.modality(0), r, &mut row).unwrap();
                        ((row[f] - p.unit_mean()[f]) / p.unit_sd()[f]) as f64
                    })
                    .collect();
                let mean = column.iter().sum::<f64>() / 4.0;
                let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0;
                assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{recipe}: {mean} {variance}");
            }
            let again = Preprocess::from_parts(
                &p.recipe().to_string(),
                p.means().into(),
                p.scales().into(),
                p.unit_mean().into(),
                p.unit_sd().into(),
            );
            assert_eq!(again.unwrap(), p);
        }
        assert!(Preprocess::from_parts("standardise", vec![], vec![], vec![0.0], vec![1.0]).is_err());
    }

    #[test]
    fn together_common_features_are_standardised_over_all_cells_and_the_difference_stays() {
        let (_a, x) = dataset("x.csv", "cell,a,b,own\nu,1,5,1\nv,3,5,3\n");
        let (_b, y) = dataset("x.csv", "cell,b,a\ns,9,7\nt,9,9\n");
        let recipe = Recipe::parse("standardise,clip10").unwrap();
        let rows = [0, 1];
        let given = [(x.modality(0), &rows[..], &recipe), (y.modality(0), &rows[..], &recipe)];
        let fitted = Preprocess::fit_together(&given, &[vec![0, 1], vec![1, 0]]).unwrap();
        // a: 1, 3, 7, 9 have mean 5 and deviation √10; b: 5, 5, 9, 9; own: of x alone.
        assert_eq!((fitted[0].means(), fitted[0].scales()), (&[5.0, 7.0, 2.0][..], &[10f32.sqrt(), 2.0, 1.0][..]));
        assert_eq!((fitted[1].means(), fitted[1].scales()), (&[7.0, 5.0][..], &[2.0, 10f32.sqrt()][..]));
        let mut row = [0.0; 2];
        fitted[1].row(y.modality(0), 0, &mut row).unwrap();
        assert_eq!(row, [1.0, 2.0 / 10f32.sqrt()]);
        let plain = Recipe::parse("log1p").unwrap();
        let given = [(x.modality(0), &rows[..], &recipe), (y.modality(0), &rows[..], &plain)];
        assert_eq!(Preprocess::fit_together(&given, &[vec![], vec![]]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn sparse_and_dense_rows_give_the_same_statistics() {
        let (_a, sparse) = dataset("x.mtx", "%%MatrixMarket matrix coordinate integer general\n3 3 4\n1 1 4\n1 3 2\n2 3 2\n3 3 7\n");
        let (_b, dense) = dataset("x.csv", "cell,a,b,c\nu,4,0,2\nv,0,0,2\nw,0,0,7\n");
        assert!(sparse.modality(0).is_sparse() && !dense.modality(0).is_sparse());
        for recipe in ["none", "counts10k-log1p,standardise", "minmax-cell,standardise", "standardise"] {
            let (s, d) = (fit(&sparse, &[0, 1, 2], recipe), fit(&dense, &[0, 1, 2], recipe));
            let close = |x: &[f32], y: &[f32]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| (x - y).abs() <= 1e-6 * y.abs());
            assert!(close(s.means(), d.means()) && close(s.scales(), d.scales()), "{recipe}");
            assert!(close(s.unit_mean(), d.unit_mean()) && close(s.unit_sd(), d.unit_sd()), "{recipe}");
        }
    }

    #[test]
    fn a_value_that_a_step_cannot_take_is_named() {
        let (_dir, d) = dataset("x.csv", "cell,a,b\nu,1,5\nv,3,-5\n");
        let error = Preprocess::fit(d.modality(0), &[0, 1], &Recipe::parse("log1p").unwrap()).unwrap_err();
        assert!(error.to_string().contains("cell \"v\", feature \"b\"") && error.to_string().contains("-5"), "{error}");
        assert_eq!(error.exit_code(), 2);
        let p = fit(&d, &[0], "log1p");
        assert!(p.row(d.modality(0), 1, &mut [0.0; 2]).is_err() && p.apply(&mut [0.0, -1.0]).is_err());
    }

    #[test]
    fn auto_takes_counts_for_counts_and_nothing_else() {
        for (content, wanted) in [
            ("cell,a\nu,0\nv,7\n", "counts10k-log1p,standardise"),
            ("cell,a\nu,0\nv,1\n", "standardise"),
            ("cell,a\nu,0\nv,1.5\n", "standardise"),
            ("cell,a\nu,-2\nv,7\n", "standardise"),
        ] {
            let (_dir, d) = dataset("x.csv", content);
            assert_eq!(Recipe::Auto.resolve(d.modality(0), "counts10k-log1p,standardise", false).unwrap().to_string(), wanted);
            assert_eq!(Recipe::parse("none").unwrap().resolve(d.modality(0), "log1p", false).unwrap().to_string(), "none");
        }
    }
}
