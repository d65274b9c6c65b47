//! How well imputed values agree with measured ones, a feature at a time and overall; missing measurements (NaN) are skipped.
//!
//!   mse       mean squared difference, in the units given (standardised: predicting the training mean scores about 1)
//!   r2        1 - Σ(imputed - measured)² / Σ(measured - its mean)²
//!   pearson   correlation over cells; absent where either is constant
//!   auroc     measured above its median (of two values: the larger) against the imputed value; ties count half
//!
//! [`Imputation`] streams rows: a feature's sums depend on the order of its cells alone, not on chunks or threads.
//! Rules of the AUROC as in the JAMIE paper's evaluation, with the feature's own median.

use super::matrix::Matrix;
use rayon::prelude::*;

/// Features that a task takes.
const FEATURES: usize = 64;

/// Streaming sums over cells of one direction of imputation.
pub struct Imputation {
    sums: Vec<Sums>,
}

/// One feature's running moments (Welford), of imputed x and measured y.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: u64,
    mean_x: f64,
    mean_y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
    error: f64,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        self.n += 1;
        let n = self.n as f64;
        let (dx, dy) = (x - self.mean_x, y - self.mean_y);
        self.mean_x += dx / n;
        self.mean_y += dy / n;
        self.xx += dx * (x - self.mean_x);
        self.yy += dy * (y - self.mean_y);
        self.xy += dx * (y - self.mean_y);
        self.error += (x - y) * (x - y);
    }
}

impl Imputation {
    /// For so many features.
    pub fn new(features: usize) -> Imputation {
        Imputation { sums: vec![Sums::default(); features] }
    }

    /// Takes the next cells: `imputed` and `measured` hold the same cells, all features.
    #[track_caller]
    pub fn add(&mut self, imputed: Matrix<'_>, measured: Matrix<'_>) {
        let cols = self.sums.len();
        assert!(
            imputed.cols() == cols && measured.cols() == cols && imputed.rows() == measured.rows(),
            "imputation of {cols} features: imputed is {} x {}, measured {} x {}",
            imputed.rows(),
            imputed.cols(),
            measured.rows(),
            measured.cols()
        );
        self.sums.par_chunks_mut(FEATURES).enumerate().for_each(|(block, sums)| {
            let first = block * FEATURES;
            for i in 0..imputed.rows() {
                let (x, y) = (&imputed.row(i)[first..], &measured.row(i)[first..]);
                for ((s, &x), &y) in sums.iter_mut().zip(x).zip(y) {
                    if !y.is_nan() {
                        s.add(f64::from(x), f64::from(y));
                    }
                }
            }
        });
    }

    /// Mean squared difference over all measured entries. `None` if there is none.
    pub fn mse(&self) -> Option<f64> {
        let n: u64 = self.sums.iter().map(|s| s.n).sum();
        (n > 0).then(|| self.sums.iter().map(|s| s.error).sum::<f64>() / n as f64)
    }

    /// Mean squared difference of each feature.
    pub fn mse_by_feature(&self) -> Vec<Option<f64>> {
        self.sums.iter().map(|s| (s.n > 0).then(|| s.error / s.n as f64)).collect()
    }

    /// Coefficient of determination over all entries, each feature about its own measured mean. `None` if all are constant.
    pub fn r2(&self) -> Option<f64> {
        let total: f64 = self.sums.iter().map(|s| s.yy).sum();
        (total > 0.0).then(|| 1.0 - self.sums.iter().map(|s| s.error).sum::<f64>() / total)
    }

    /// Coefficient of determination of each feature; `None` where the measured values are constant.
    pub fn r2_by_feature(&self) -> Vec<Option<f64>> {
        self.sums.iter().map(|s| (s.yy > 0.0).then(|| 1.0 - s.error / s.yy)).collect()
    }

    /// Standard deviation of the imputed values of each feature.
    pub fn imputed_deviation(&self) -> Vec<f64> {
        self.sums.iter().map(|s| (s.xx / s.n.max(1) as f64).sqrt()).collect()
    }

    /// Pearson's correlation of each feature; `None` where either side is constant.
    pub fn pearson_by_feature(&self) -> Vec<Option<f64>> {
        self.sums.iter().map(|s| (s.xx > 0.0 && s.yy > 0.0).then(|| (s.xy / (s.xx.sqrt() * s.yy.sqrt())).clamp(-1.0, 1.0))).collect()
    }
}

/// Mean, median and number of the features that have a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean over the features used.
    pub mean: f64,
    /// Median over the features used.
    pub median: f64,
    /// How many features had a value.
    pub features: usize,
}

/// Summarises one value a feature; `None` if no feature has one.
pub fn summarise(values: &[Option<f64>]) -> Option<Summary> {
    let mut known: Vec<f64> = values.iter().flatten().copied().filter(|v| v.is_finite()).collect();
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    known.sort_by(f64::total_cmp);
    Some(Summary { mean, median: median(&known)?, features: known.len() })
}

/// The middle of sorted values, or the mean of the two middle ones.
fn median(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    let upper = *sorted.get(n / 2)?;
    Some(if n % 2 == 1 { upper } else { (sorted[n / 2 - 1] + upper) / 2.0 })
}

/// Area under the ROC curve of one feature: a cell is positive if its measured value is above the median, or is the larger one
/// where the feature has exactly two values. `None` if all cells fall on one side. Missing measurements are skipped.
#[track_caller]
pub fn auroc(imputed: &[f32], measured: &[f32]) -> Option<f64> {
    assert_eq!(imputed.len(), measured.len(), "one imputed value a measured one");
    let known = || imputed.iter().zip(measured).filter(|(_, m)| !m.is_nan());
    let mut sorted: Vec<f64> = known().map(|(_, &m)| f64::from(m)).collect();
    sorted.sort_by(f64::total_cmp);
    let (&least, &greatest) = (sorted.first()?, sorted.last()?);
    let two_values = least < greatest && sorted.iter().all(|&v| v == least || v == greatest);
    let limit = if two_values { least } else { median(&sorted)? };
    let mut scored: Vec<(f32, bool)> = known().map(|(&x, &m)| (x, f64::from(m) > limit)).collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scored.iter().filter(|s| s.1).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    // Twice the number of (positive, negative) pairs in the right order, ties counting half, in integers.
    let (mut below, mut twice) = (0u64, 0u64);
    let mut at = 0;
    while at < scored.len() {
        let score = scored[at].0;
        let tied = scored[at..].iter().take_while(|s| s.0 == score || (s.0.is_nan() && score.is_nan())).count();
        let up = scored[at..at + tied].iter().filter(|s| s.1).count() as u64;
        let down = tied as u64 - up;
        twice += up * (2 * below + down);
        below += down;
        at += tied;
    }
    Some(twice as f64 / (2.0 * positives as f64 * negatives as f64))
}

/// [`auroc`] of each feature.
#[track_caller]
pub fn auroc_by_feature(imputed: Matrix<'_>, measured: Matrix<'_>) -> Vec<Option<f64>> {
    assert!(imputed.rows() == measured.rows() && imputed.cols() == measured.cols(), "auroc: imputed and measured have different shapes");
    let column = |m: Matrix<'_>, j: usize| -> Vec<f32> { (0..m.rows()).map(|i| m.row(i)[j]).collect() };
    (0..measured.cols()).into_par_iter().map(|j| auroc(&column(imputed, j), &column(measured, j))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_match_values_worked_out_by_hand() {
        // Feature 0: imputed 1 2 3 4, measured 2 4 6 9; feature 1 constant; feature 2 never measured; feature 3 once missing.
        let nan = f32::NAN;
        let imputed = [1.0, 5.0, 0.0, 1.0, 2.0, 5.0, 0.0, 2.0, 3.0, 5.0, 0.0, 3.0, 4.0, 5.0, 0.0, 9.0];
        let measured = [2.0, 1.0, nan, 3.0, 4.0, 1.0, nan, 2.0, 6.0, 1.0, nan, 1.0, 9.0, 1.0, nan, nan];
        let mut sums = Imputation::new(4);
        sums.add(Matrix::new(&imputed[..4], 1, 4), Matrix::new(&measured[..4], 1, 4));
        sums.add(Matrix::new(&imputed[4..], 3, 4), Matrix::new(&measured[4..], 3, 4));
        let mse = sums.mse_by_feature();
        assert_eq!(mse, [Some((1.0 + 4.0 + 9.0 + 25.0) / 4.0), Some(16.0), None, Some((4.0 + 0.0 + 4.0) / 3.0)]);
        let overall = (39.0 + 64.0 + 8.0) / 11.0;
        assert!((sums.mse().expect("entries") - overall).abs() < 1e-14);
        let pearson = sums.pearson_by_feature();
        // Centred: (-1.5 -.5 .5 1.5)·(-3.25 -1.25 .75 3.75) = 11.5; 5; 26.75.
        assert!((pearson[0].expect("varies") - 11.5 / (5.0f64 * 26.75).sqrt()).abs() < 1e-15);
        assert_eq!((pearson[1], pearson[2]), (None, None));
        assert!((pearson[3].expect("varies") + 1.0).abs() < 1e-15);
        let r2 = sums.r2_by_feature();
        assert!((r2[0].expect("varies") - (1.0 - 39.0 / 26.75)).abs() < 1e-14 && r2[1].is_none());
        assert!((sums.r2().expect("varies") - (1.0 - 111.0 / 28.75)).abs() < 1e-13);
        assert_eq!(Imputation::new(0).mse(), None);
    }

    #[test]
    fn pearson_survives_a_large_offset() {
        let mut sums = Imputation::new(1);
        for i in 0..100u8 {
            let x = 1e6 + f32::from(i % 10);
            sums.add(Matrix::new(&[x], 1, 1), Matrix::new(&[-x], 1, 1));
        }
        assert!((sums.pearson_by_feature()[0].expect("varies") + 1.0).abs() < 1e-12);
    }

    #[test]
    fn auroc_counts_ordered_pairs() {
        // Median of 1 2 3 4 is 2.5: positives score 0.3 and 0.9, negatives 0.3 and 0.1: 3.5 of 4 pairs.
        assert_eq!(auroc(&[0.3, 0.1, 0.3, 0.9], &[1.0, 2.0, 3.0, 4.0]), Some(3.5 / 4.0));
        // Two values: the larger is positive although the median is 1.
        assert_eq!(auroc(&[0.5, 0.6, 0.7, 0.1], &[1.0, 1.0, 1.0, 0.0]), Some(1.0));
        // Most are at the least value: the others are positive. Constant, empty, missing: absent.
        assert_eq!(auroc(&[0.0, 0.0, 1.0, 1.0], &[0.0, 0.0, 3.0, f32::NAN]), Some(1.0));
        assert_eq!(auroc(&[0.0, 1.0], &[2.0, 2.0]), None);
        assert_eq!(auroc(&[], &[]), None);
        assert_eq!(auroc(&[1.0, 1.0], &[0.0, 1.0]), Some(0.5));
        // A feature whose greatest value is its median has no positives.
        assert_eq!(auroc(&[0.1, 0.2, 0.3, 0.4, 0.5], &[0.0, 1.0, 2.0, 2.0, 2.0]), None);
    }

    #[test]
    fn summary_skips_features_without_a_value() {
        let s = summarise(&[Some(1.0), None, Some(4.0), Some(2.0), Some(f64::NAN), Some(9.0)]).expect("values");
        assert_eq!((s.mean, s.median, s.features), (4.0, 3.0, 4));
        assert_eq!(summarise(&[None]), None);
    }
}
