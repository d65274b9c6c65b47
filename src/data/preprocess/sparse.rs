//! Rows that stay sparse through a recipe: what a zero becomes, and how a row differs from that.
//!
//!   x_row = zero + Δ_row        zero `[features]`, the same for all cells (none where zeros stay zeros); Δ only where a value is stored
//!
//! The steps before `standardise` must keep zeros (`minmax-cell` does where nothing is negative), those after it must treat every feature by
//! itself. Δ is a stored value's own way through all steps, less `zero`.

use super::recipe::{self, Refused, Step};
use super::{Preprocess, refused};
use crate::data::dataset::Modality;
use crate::error::{Error, Result};

impl Preprocess {
    /// What a value that is not stored becomes, empty for zeros that stay; `None` where preprocessed rows are not sparse.
    pub fn zero(&self, modality: &Modality) -> Option<Vec<f32>> {
        let facts = modality.facts();
        if !modality.is_sparse() || facts.missing > 0 {
            return None;
        }
        let (before, after) = self.around_standardise();
        let nonnegative = facts.min.is_some_and(|least| least >= 0.0);
        let keeps = |s: &Step| s.keeps_zeros() || (*s == Step::MinmaxCell && nonnegative);
        if !before.iter().all(keeps) || !after.iter().skip(1).all(|s| matches!(s, Step::Clip10 | Step::Divide(_))) {
            return None;
        }
        let mut zero = if after.is_empty() { Vec::new() } else { vec![0.0; self.features] };
        self.steps(after, &mut zero).ok()?;
        Some(zero)
    }

    /// Appends a row's columns and how its values differ from `zero`, which [`Preprocess::zero`] gave; an error names the cell and feature.
    #[track_caller]
    pub fn sparse_row(&self, modality: &Modality, row: usize, zero: &[f32], columns: &mut Vec<u32>, values: &mut Vec<f32>) -> Result<()> {
        let Some((indices, stored)) = modality.sparse_row(row)? else {
            return Err(Error::Internal(format!("{} is not sparse", modality.name())));
        };
        let first = values.len();
        // None is negative.
        columns.extend_from_slice(bytemuck::cast_slice(indices));
        values.extend_from_slice(stored);
        // One zero stands for all that are not stored: the smallest value of a cell may be theirs.
        let unstored = stored.len() < self.features;
        values.extend(unstored.then_some(0.0));
        let (before, after) = self.around_standardise();
        let named = |r: Refused| refused(modality, row, indices.get(r.at).map_or(0, |&i| i as usize), r);
        for &step in before {
            recipe::apply(step, &mut values[first..]).map_err(named)?;
        }
        values.truncate(first + stored.len());
        let entries = &mut values[first..];
        match after {
            [] => {}
            // (x - m) / s less (0 - m) / s.
            [Step::Standardise] => entries.iter_mut().zip(indices).for_each(|(x, &i)| *x /= self.scales[i as usize]),
            [_, after @ ..] => {
                for (x, &i) in entries.iter_mut().zip(indices) {
                    *x = (*x - self.means[i as usize]) / self.scales[i as usize];
                }
                for &step in after {
                    recipe::apply(step, entries).map_err(named)?;
                }
                entries.iter_mut().zip(indices).for_each(|(x, &i)| *x -= zero[i as usize]);
            }
        }
        Ok(())
    }

    /// The steps before `standardise`, and those from it on.
    fn around_standardise(&self) -> (&[Step], &[Step]) {
        let steps = self.recipe.steps();
        steps.split_at(steps.iter().position(|&s| s == Step::Standardise).unwrap_or(steps.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::preprocess::Recipe;
    use crate::data::preprocess::tests::dataset;

    #[test]
    fn sparse_rows_are_the_dense_ones_for_every_recipe_that_keeps_them() {
        // A row without values, a full one, a stored zero.
        let text = "%%MatrixMarket matrix coordinate real general\n4 3 6\n1 1 4\n1 3 2\n3 1 2\n3 2 7\n3 3 1\n4 2 0.5\n";
        let (_dir, d) = dataset("x.mtx", text);
        let m = d.modality(0);
        let kept = [
            "none",
            "log1p",
            "log2p1,clip10",
            "counts10k-log1p",
            "cpm-log1p,minmax-cell",
            "counts10k-log1p,standardise,clip10",
            "standardise",
            "minmax-cell",
            "divide255,standardise,divide255",
        ];
        for recipe in kept {
            let p = Preprocess::fit(m, &[0, 1, 2, 3], &Recipe::parse(recipe).unwrap()).unwrap();
            let zero = p.zero(m).unwrap_or_else(|| panic!("{recipe}"));
            for row in 0..4 {
                let (mut columns, mut values, mut dense) = (Vec::new(), Vec::new(), vec![0.0; 3]);
                p.sparse_row(m, row, &zero, &mut columns, &mut values).unwrap();
                p.row(m, row, &mut dense).unwrap();
                let mut made = if zero.is_empty() { vec![0.0; 3] } else { zero.clone() };
                columns.iter().zip(&values).for_each(|(&c, v)| made[c as usize] += v);
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
                assert!(made.iter().zip(&dense).all(near), "{recipe}, row {row}: {made:?} for {dense:?}");
            }
        }
        for recipe in ["standardise,log1p", "standardise,minmax-cell"] {
            let p = Preprocess::from_parts(recipe, vec![0.0; 3], vec![1.0; 3], vec![0.0; 3], vec![1.0; 3]).unwrap();
            assert!(p.zero(m).is_none(), "{recipe}");
        }
        let (_dir, negative) = dataset("x.mtx", "%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 -1\n2 1 1\n");
        let p = Preprocess::fit(negative.modality(0), &[0, 1], &Recipe::parse("minmax-cell").unwrap()).unwrap();
        assert!(p.zero(negative.modality(0)).is_none(), "a negative value moves the zeros");
    }
}
