//! Which features of a modality vary most over the training cells, in one or two streaming passes.
//!
//!   seurat-v3    of counts: ŝ² = 10^loess(log₁₀ mean → log₁₀ variance), span 0.3; then the variance of min(x, mean + ŝ√N) about the mean, over ŝ²
//!   dispersion   of counts per 10,000 of a cell: log(variance / mean), less the mean of its bin and over the bin's deviation; 20 equal bins of
//!                log(1 + mean); alone in its bin a feature has 1, without a value that is not 0 none
//!   variance     of the values that the recipe makes, before they are standardised
//!   N            training cells; variances are those of a sample (N - 1) but for `variance`
//!   source       Stuart et al. 2019, Methods (seurat-v3); Satija et al. 2015 (dispersion); both as scanpy has them

mod loess;

use std::collections::BTreeMap;

use super::moments::Moments;
use super::{Preprocess, Recipe, column_moments};
use crate::data::dataset::Modality;
use crate::error::{Error, Result};

pub use loess::loess;

/// Share of the features that decide the fit at a mean.
const SPAN: f64 = 0.3;
/// Bins of the means.
const BINS: usize = 20;

/// How features are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Variance over what its mean lets expect.
    SeuratV3,
    /// Dispersion among features of similar mean.
    Dispersion,
    /// Plain variance.
    Variance,
}

/// Every way, by the word of the options.
pub const WAYS: [(&str, By); 3] = [("seurat-v3", By::SeuratV3), ("dispersion", By::Dispersion), ("variance", By::Variance)];

impl By {
    /// The way of that name; `auto` is seurat-v3 for counts, else plain variance.
    pub fn named(word: &str, modality: &Modality) -> Result<By> {
        if word == "auto" {
            return Ok(if super::recipe::are_counts(modality) { By::SeuratV3 } else { By::Variance });
        }
        let found = WAYS.iter().find(|w| w.0 == word).map(|w| w.1);
        found.ok_or_else(|| Error::usage(format!("features are not chosen by {word:?}: there is seurat-v3, dispersion and variance")))
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        WAYS.iter().find(|w| w.1 == self).map_or("variance", |w| w.0)
    }
}

/// How much each of the features `among` varies over `rows`, larger is more; NaN where it cannot be said.
#[track_caller]
pub fn scores(modality: &Modality, rows: &[u32], recipe: &Recipe, by: By, among: &[u32]) -> Result<Vec<f64>> {
    let of = |all: Vec<f64>| among.iter().map(|&f| all[f as usize]).collect::<Vec<f64>>();
    let sample = |m: &Moments| {
        let over = |(square, &n): (f64, &u64)| if n > 1 { square / (n - 1) as f64 } else { 0.0 };
        m.squares().iter().copied().zip(m.counts()).map(over).collect::<Vec<f64>>()
    };
    match by {
        By::Variance => {
            let moments = Preprocess::unfitted(modality, rows, recipe)?.moments(modality, rows, recipe.before_standardise().steps())?;
            Ok(of(sample(&moments)))
        }
        By::Dispersion => {
            let per_10k = |row: usize, indices: Option<&[i32]>, values: &mut [f32]| {
                known_and_not_negative(modality, row, indices, values, by)?;
                let total: f64 = values.iter().filter(|v| !v.is_nan()).map(|&v| f64::from(v)).sum();
                let factor = if total > 0.0 { (1e4 / total) as f32 } else { 0.0 };
                values.iter_mut().for_each(|v| *v *= factor);
                Ok(())
            };
            let moments = column_moments(modality, rows, true, per_10k)?;
            Ok(normalised_dispersions(&of(moments.means()), &of(sample(&moments))))
        }
        By::SeuratV3 => {
            let check =
                |row: usize, indices: Option<&[i32]>, values: &mut [f32]| known_and_not_negative(modality, row, indices, values, by);
            let moments = column_moments(modality, rows, true, check)?;
            let (means, variances, counts) = (of(moments.means()), of(sample(&moments)), moments.counts());
            let expected = expected_deviations(&means, &variances);
            let mut most = vec![f64::INFINITY; modality.features()];
            for ((&f, mean), sd) in among.iter().zip(&means).zip(&expected) {
                most[f as usize] = mean + sd * (counts[f as usize] as f64).sqrt();
            }
            let clip = |_: usize, indices: Option<&[i32]>, values: &mut [f32]| {
                for (at, v) in values.iter_mut().enumerate() {
                    let limit = most[indices.map_or(at, |i| i[at] as usize)];
                    if f64::from(*v) > limit {
                        *v = limit as f32;
                    }
                }
                Ok(())
            };
            let clipped = column_moments(modality, rows, true, clip)?;
            let (squares, centres) = (clipped.squares(), clipped.means());
            let score = |((&f, mean), sd): ((&u32, &f64), &f64)| {
                let (f, n) = (f as usize, counts[f as usize] as f64);
                (squares[f] + n * (centres[f] - mean).powi(2)) / ((n - 1.0).max(1.0) * sd * sd)
            };
            Ok(among.iter().zip(&means).zip(&expected).map(score).collect())
        }
    }
}

/// The places in `among` of the `most` features that vary most, ascending; of equal ones the first.
pub fn choose(modality: &Modality, rows: &[u32], recipe: &Recipe, by: By, among: &[u32], most: usize) -> Result<Vec<usize>> {
    let mut chosen: Vec<usize> = (0..among.len()).collect();
    if most < chosen.len() {
        // What cannot be said to vary comes last.
        let scores: Vec<f64> =
            scores(modality, rows, recipe, by, among)?.into_iter().map(|s| if s.is_nan() { f64::NEG_INFINITY } else { s }).collect();
        chosen.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        chosen.truncate(most);
        chosen.sort_unstable();
    }
    Ok(chosen)
}

fn known_and_not_negative(modality: &Modality, row: usize, indices: Option<&[i32]>, values: &[f32], by: By) -> Result<()> {
    let Some(at) = values.iter().position(|&v| v < 0.0) else { return Ok(()) };
    let feature = indices.map_or(at, |i| i[at] as usize);
    let place = format!("cell \"{}\", feature \"{}\"", modality.cell_id(row), modality.feature_names()[feature]);
    let message = format!(
        "features are chosen by {} of counts, which the negative value {} is none: use --set top_genes_by=variance",
        by.word(),
        values[at]
    );
    Err(Error::input(&modality.entry().source.file, place, message))
}

/// The deviation that a feature's mean lets expect; 1 for a constant one.
fn expected_deviations(means: &[f64], variances: &[f64]) -> Vec<f64> {
    let varies: Vec<usize> = (0..means.len()).filter(|&f| variances[f] > 0.0).collect();
    let logs = |of: &[f64]| varies.iter().map(|&f| of[f].log10()).collect::<Vec<f64>>();
    let fitted = loess(&logs(means), &logs(variances), SPAN);
    let mut out = vec![1.0; means.len()];
    varies.into_iter().zip(fitted).for_each(|(f, log)| out[f] = 10f64.powf(log).sqrt());
    out
}

/// Log dispersions in units of the features of similar mean.
fn normalised_dispersions(means: &[f64], variances: &[f64]) -> Vec<f64> {
    let level: Vec<f64> = means.iter().map(|&m| if m == 0.0 { 1e-12 } else { m }).collect();
    let log = |(v, m): (&f64, &f64)| if *v > 0.0 { (v / m).ln() } else { f64::NAN };
    let dispersion: Vec<f64> = variances.iter().zip(&level).map(log).collect();
    let level: Vec<f64> = level.iter().map(|m| m.ln_1p()).collect();
    let bins = bins(&level);
    let mut of_bin: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (&bin, &d) in bins.iter().zip(&dispersion).filter(|(_, d)| !d.is_nan()) {
        of_bin.entry(bin).or_default().push(d);
    }
    let units: BTreeMap<usize, (f64, f64)> = of_bin
        .into_iter()
        .map(|(bin, d)| {
            let mean = d.iter().sum::<f64>() / d.len() as f64;
            let square = d.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            (bin, if d.len() > 1 { (mean, (square / (d.len() - 1) as f64).sqrt()) } else { (0.0, mean) })
        })
        .collect();
    bins.iter().zip(dispersion).map(|(bin, d)| units.get(bin).map_or(f64::NAN, |(mean, unit)| (d - mean) / unit)).collect()
}

/// In which of equal bins each value lies; the bins hold their right ends, the first its left one too.
fn bins(x: &[f64]) -> Vec<usize> {
    let (low, high) = x.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
    let ends: Vec<f64> = (1..BINS).map(|i| low + i as f64 * ((high - low) / BINS as f64)).collect();
    x.iter().map(|&x| ends.partition_point(|&end| end < x)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::dataset;
    use super::*;

    fn scored(d: &crate::data::Dataset, by: By) -> Vec<f64> {
        let m = d.modality(0);
        let (rows, all) = ((0..m.cells() as u32).collect::<Vec<_>>(), (0..m.features() as u32).collect::<Vec<_>>());
        scores(m, &rows, &Recipe::parse("log1p,standardise").unwrap(), by, &all).unwrap()
    }

    /// scripts/make-selection-golden.py: counts by a formula, scores by scanpy.
    #[test]
    fn scores_are_scanpys() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/selection/golden.json");
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (cells, genes) = (golden["cells"].as_u64().unwrap() as usize, golden["genes"].as_u64().unwrap() as usize);
        let count = |c: usize, g: usize| {
            let mix = |mut h: u32| {
                h = (h ^ (h >> 16)).wrapping_mul(0x045d_9f3b);
                h = (h ^ (h >> 16)).wrapping_mul(0x045d_9f3b);
                h ^ (h >> 16)
            };
            let u = f64::from(mix((c * 1009 + g * 9176 + 1) as u32) >> 8) / f64::from(1u32 << 24);
            let absent = if g.is_multiple_of(41) { 0.0 } else { 1.0 };
            let level = absent
                * (8.0 + 0.11 * g as f64)
                * (20.0 + (g % 97) as f64)
                * if (c + g).is_multiple_of(3 + g % 5) { 1.0 + (g % 11) as f64 } else { 1.0 };
            (-level * (1.0 - u).ln()) as u32
        };
        let mut text = String::from("cell");
        (0..genes).for_each(|g| text += &format!(",g{g}"));
        for c in 0..cells {
            text += &format!("\nc{c}");
            (0..genes).for_each(|g| text += &format!(",{}", count(c, g)));
        }
        let (_dir, d) = dataset("x.csv", &(text + "\n"));
        assert_eq!(d.modality(0).facts().sum, golden["sum"].as_f64().unwrap(), "the same counts");
        for (by, key) in [(By::SeuratV3, "seurat_v3"), (By::Dispersion, "dispersion")] {
            let found = scored(&d, by);
            for (g, (found, wanted)) in found.iter().zip(golden[key].as_array().unwrap()).enumerate() {
                // scanpy's expm1 of log1p in f32 is where the dispersions' last digits differ.
                let tolerance = if by == By::SeuratV3 { 1e-6 } else { 1e-3 };
                match wanted.as_f64() {
                    Some(w) => assert!((found - w).abs() <= tolerance * w.abs().max(1.0), "{key} {g}: {found} {w}"),
                    None => assert!(found.is_nan(), "{key} {g}: {found}"),
                }
            }
        }
    }

    #[test]
    fn sparse_and_dense_are_scored_alike_and_a_constant_feature_last() {
        let (_a, sparse) = dataset(
            "x.mtx",
            "%%MatrixMarket matrix coordinate integer general\n4 4 8\n1 1 4\n1 3 2\n2 3 2\n3 3 2\n4 3 2\n3 4 9\n2 2 1\n4 2 1\n",
        );
        let (_b, dense) = dataset("x.csv", "cell,a,b,c,d\nu,4,0,2,0\nv,0,1,2,0\nw,0,0,2,9\nx,0,1,2,0\n");
        for (_, by) in WAYS {
            let (s, d) = (scored(&sparse, by), scored(&dense, by));
            assert!(s.iter().zip(&d).all(|(s, d)| (s - d).abs() <= 1e-9 * d.abs() || (s.is_nan() && d.is_nan())), "{by:?} {s:?} {d:?}");
            let m = dense.modality(0);
            let recipe = Recipe::parse("log1p,standardise").unwrap();
            if by != By::Dispersion {
                assert_eq!(
                    choose(m, &[0, 1, 2, 3], &recipe, by, &[2, 0, 3, 1], 3).unwrap(),
                    [1, 2, 3],
                    "{by:?}: the constant c is left out"
                );
            }
            assert_eq!(choose(m, &[0, 1, 2, 3], &recipe, by, &[2, 0], 5).unwrap(), [0, 1], "all there are");
        }
    }

    #[test]
    fn only_training_cells_count_and_negative_values_are_named() {
        let (_dir, d) = dataset("x.csv", "cell,a,b\nu,1,5\nv,2,5\nw,1,900\nt,2,-3\n");
        let recipe = Recipe::parse("none").unwrap();
        let chosen = |rows: &[u32], by| choose(d.modality(0), rows, &recipe, by, &[0, 1], 1);
        assert_eq!((chosen(&[0, 1], By::Variance).unwrap(), chosen(&[0, 1, 2], By::Variance).unwrap()), (vec![0], vec![1]));
        for by in [By::SeuratV3, By::Dispersion] {
            let e = chosen(&[0, 1, 3], by).unwrap_err();
            assert!(
                e.exit_code() == 2
                    && e.to_string().contains("cell \"t\", feature \"b\"")
                    && e.to_string().contains("top_genes_by=variance"),
                "{e}"
            );
        }
        assert_eq!(By::named("auto", d.modality(0)).unwrap(), By::Variance);
        assert!(By::named("best", d.modality(0)).is_err());
    }
}
