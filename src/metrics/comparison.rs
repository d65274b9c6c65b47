//! Is one imputation better than another, feature by feature, and does it have the right distribution?
//!
//!   binomial   wins w and losses v over the features where both have a value, ties dropped: p = min(1, 2·P(X ≥ max(w, v))), X ~ Bin(w + v, ½)
//!   JS         √(½ KL(p‖m) + ½ KL(q‖m)), m = (p + q)/2, logarithms to base 2: 0 is the same distribution, 1 is none in common;
//!              p and q are histograms of a feature's measured and imputed values among the cells of one class, over ⌈√cells⌉ equal bins
//!              that span both; classes of one cell and spans of no width are left out
//!
//! The number of bins matters: with many more bins than cells every distance is near 1, whatever the model does.

use super::matrix::Matrix;
use std::collections::BTreeMap;

/// Features in which one is better, and the test of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Features where the first is greater.
    pub wins: usize,
    /// Features where the second is.
    pub losses: usize,
    /// Two-sided p of the binomial test at ½.
    pub p: f64,
}

/// Compares two values a feature; greater is better. `None` if no feature has two different ones.
#[track_caller]
pub fn compare(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<Comparison> {
    assert_eq!(ours.len(), theirs.len(), "compare: one value a feature");
    let both = || ours.iter().zip(theirs).filter_map(|(a, b)| Some(((*a)?, (*b)?)));
    let (wins, losses) = (both().filter(|(a, b)| a > b).count(), both().filter(|(a, b)| a < b).count());
    (wins + losses > 0).then(|| Comparison { wins, losses, p: binomial_p(wins.max(losses), wins + losses) })
}

/// min(1, 2·P(X ≥ k)) for X ~ Bin(n, ½), summed from the smallest term up in logarithms: n may be 10⁵ and p 10⁻³⁰⁰.
fn binomial_p(k: usize, n: usize) -> f64 {
    if 2 * k <= n {
        return 1.0;
    }
    // ln C(n, i) for i = n, n - 1, ..: each from the last by i / (n - i + 1).
    let mut log = -(n as f64) * std::f64::consts::LN_2;
    let mut logs = vec![log];
    for i in (k..n).rev() {
        log += ((i + 1) as f64 / (n - i) as f64).ln();
        logs.push(log);
    }
    let most = logs.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = logs.iter().map(|l| (l - most).exp()).sum();
    (std::f64::consts::LN_2 + most + sum.ln()).exp().min(1.0)
}

/// Mean and standard deviation over features and classes, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JsDistance {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, divided by the count.
    pub deviation: f64,
    /// Features times classes that had a distance.
    pub count: usize,
}

/// The Jensen-Shannon distances of imputed and measured values, both cells x features; `classes` one a cell. Missing measurements are
/// left out. `None` if nothing could be measured.
#[track_caller]
pub fn js_distance(imputed: Matrix<'_>, measured: Matrix<'_>, classes: &[Option<u32>]) -> Option<JsDistance> {
    let (n, d) = (measured.rows(), measured.cols());
    assert!((imputed.rows(), imputed.cols(), classes.len()) == (n, d, n), "js_distance: operands of different sizes");
    let mut of_class: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (class, row) in classes.iter().zip(0u32..) {
        class.iter().for_each(|&c| of_class.entry(c).or_default().push(row));
    }
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0usize);
    let mut pairs = Vec::new();
    for rows in of_class.values() {
        for f in 0..d {
            pairs.clear();
            let values = rows.iter().map(|&r| (imputed.row(r as usize)[f] as f64, measured.row(r as usize)[f] as f64));
            pairs.extend(values.filter(|(i, m)| i.is_finite() && m.is_finite()));
            if let Some(js) = distance(&pairs) {
                (sum, squares, count) = (sum + js, squares + js * js, count + 1);
            }
        }
    }
    let (n, mean) = (count as f64, sum / count as f64);
    (count > 0).then(|| JsDistance { mean, deviation: (squares / n - mean * mean).max(0.0).sqrt(), count })
}

fn distance(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 2 {
        return None;
    }
    let both = || pairs.iter().flat_map(|&(a, b)| [a, b]);
    let (low, high) = (both().fold(f64::MAX, f64::min), both().fold(f64::MIN, f64::max));
    if high <= low {
        return None;
    }
    let bins = (pairs.len() as f64).sqrt().ceil() as usize;
    let bin = |v: f64| (((v - low) / (high - low) * bins as f64) as usize).min(bins - 1);
    let (mut p, mut q) = (vec![0.0; bins], vec![0.0; bins]);
    let one = 1.0 / pairs.len() as f64;
    for &(a, b) in pairs {
        p[bin(a)] += one;
        q[bin(b)] += one;
    }
    let kl = |x: f64, m: f64| if x > 0.0 { x * (x / m).log2() } else { 0.0 };
    let js: f64 = p.iter().zip(&q).map(|(&p, &q)| 0.5 * (kl(p, (p + q) / 2.0) + kl(q, (p + q) / 2.0))).sum();
    Some(js.max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binomial_test_matches_exact_values() {
        // scipy.stats.binomtest(k, n).pvalue
        for (k, n, want) in [
            (1, 1, 1.0),
            (8, 10, 0.109375),
            (10, 10, 0.001953125),
            (21, 29, 0.024_119_544_774_293_9),
            (891, 1285, 1.219_506_350_679_594_5e-44),
        ] {
            let p = binomial_p(k, n);
            assert!((p - want).abs() <= 1e-10 * want, "{k} of {n}: {p}, want {want}");
        }
        assert_eq!(binomial_p(5, 10), 1.0);
        assert!(binomial_p(100_000, 100_000) < 1e-300);
    }

    #[test]
    fn wins_and_losses_leave_ties_and_missing_features_out() {
        let c = compare(&[Some(0.5), Some(0.1), None, Some(0.3), Some(0.9)], &[Some(0.4), Some(0.2), Some(1.0), Some(0.3), Some(0.1)]);
        assert_eq!(c.map(|c| (c.wins, c.losses, c.p)), Some((2, 1, 1.0)));
        assert_eq!(compare(&[None, Some(1.0)], &[Some(1.0), Some(1.0)]), None);
    }

    #[test]
    fn js_is_0_for_the_same_values_and_1_for_disjoint_ones() {
        let a = [0.0f32, 1.0, 2.0, 3.0];
        let (classes, far) = ([Some(0); 4], a.map(|v| v + 100.0));
        let js = |x: &[f32], y: &[f32], c: &[Option<u32>]| js_distance(Matrix::new(x, 4, 1), Matrix::new(y, 4, 1), c);
        assert_eq!(js(&a, &a, &classes).map(|j| (j.mean, j.deviation, j.count)), Some((0.0, 0.0, 1)));
        assert_eq!(js(&a, &far, &classes).map(|j| j.mean), Some(1.0));
        // 2 bins of width 1.5 over 0..3: measured 2 and 2, imputed 3 and 1: scipy.spatial.distance.jensenshannon([.75, .25], [.5, .5], 2)
        let half = js(&[0.0, 0.1, 0.2, 3.0], &a, &classes).unwrap().mean;
        assert!((half - 0.220_895_77).abs() < 1e-6, "{half}");
        assert_eq!(js(&a, &a, &[Some(0), Some(1), None, Some(2)]), None, "classes of one cell");
        assert_eq!(js(&[1.0; 4], &[1.0; 4], &classes), None, "no width");
    }
}
