//! Whether translated cells carry their class: where classes are known and pairs are not (Yang 2021, Fig. 4).
//!
//!   lda_axis           Fisher's direction S_w⁻¹ (m₁ - m₀), S_w the scatter within the classes, a thousandth of its mean variance added
//!                      to the diagonal
//!   area               of the receiver operating characteristic, ties counting half
//!   DE difference      mean over class 1 minus mean over class 0, a feature; `de_pearson` correlates those of measured and translated
//!   markers            of a class: features with Welch's two-sided t-test below 0.05 after Benjamini and Hochberg, the 50 with the
//!                      largest difference of means in its favour

use super::Matrix;
use crate::engine::linalg::{cholesky, cholesky_solve};

/// How many markers a class has at most.
pub const MARKERS: usize = 50;
const LEVEL: f64 = 0.05;

/// The probability that a value of class 1 (`true`) is above one of class 0. `None` without both classes.
pub fn area(values: &[f64], classes: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let ones = classes.iter().filter(|&&c| c).count();
    let zeros = classes.len() - ones;
    // Ranks from 1; a tie gets the mean of its ranks.
    let (mut sum, mut i) = (0.0, 0);
    while i < order.len() {
        let mut j = i;
        while j < order.len() && values[order[j]] == values[order[i]] {
            j += 1;
        }
        let rank = (i + 1 + j) as f64 / 2.0;
        sum += order[i..j].iter().filter(|&&at| classes[at]).count() as f64 * rank;
        i = j.max(i + 1);
    }
    (ones > 0 && zeros > 0).then(|| (sum - (ones * (ones + 1)) as f64 / 2.0) / (ones as f64 * zeros as f64))
}

/// Fisher's direction, by which class 1 lies above class 0. `None` without two rows of each.
pub fn lda_axis(x: Matrix<'_>, classes: &[bool]) -> Option<Vec<f64>> {
    let d = x.cols();
    let (means, n) = class_means(x, classes);
    if n.iter().any(|&n| n < 2.0) || d == 0 {
        return None;
    }
    let mut scatter = vec![0.0; d * d];
    let mut centred = vec![0.0; d];
    for (row, &class) in (0..x.rows()).map(|r| x.row(r)).zip(classes) {
        let mean = &means[usize::from(class)];
        centred.iter_mut().zip(row).zip(mean).for_each(|((c, &v), m)| *c = f64::from(v) - m);
        for (i, a) in centred.iter().enumerate() {
            scatter[i * d..][..=i].iter_mut().zip(&centred).for_each(|(s, b)| *s += a * b);
        }
    }
    let mean_variance = (0..d).map(|i| scatter[i * d + i]).sum::<f64>() / d as f64;
    for i in 0..d {
        scatter[i * d + i] += 1e-3 * mean_variance + f64::MIN_POSITIVE;
        for j in 0..i {
            scatter[j * d + i] = scatter[i * d + j];
        }
    }
    let mut axis: Vec<f64> = means[1].iter().zip(&means[0]).map(|(a, b)| a - b).collect();
    cholesky(&mut scatter, d)?;
    cholesky_solve(&scatter, d, &mut axis);
    Some(axis)
}

/// Positions of rows along an axis.
pub fn along(x: Matrix<'_>, axis: &[f64]) -> Vec<f64> {
    (0..x.rows()).map(|r| x.row(r).iter().zip(axis).map(|(&v, a)| f64::from(v) * a).sum()).collect()
}

/// Means of class 0 and class 1, and their numbers of rows.
fn class_means(x: Matrix<'_>, classes: &[bool]) -> ([Vec<f64>; 2], [f64; 2]) {
    let (mut sums, mut n) = ([vec![0.0; x.cols()], vec![0.0; x.cols()]], [0.0f64; 2]);
    for (r, &class) in classes.iter().enumerate() {
        let c = usize::from(class);
        n[c] += 1.0;
        sums[c].iter_mut().zip(x.row(r)).for_each(|(s, &v)| *s += f64::from(v));
    }
    for c in 0..2 {
        sums[c].iter_mut().for_each(|s| *s /= n[c].max(1.0));
    }
    (sums, n)
}

/// Class 1's mean minus class 0's, by feature. `None` without both classes.
pub fn differences(x: Matrix<'_>, classes: &[bool]) -> Option<Vec<f64>> {
    let (means, n) = class_means(x, classes);
    (n[0] > 0.0 && n[1] > 0.0).then(|| means[1].iter().zip(&means[0]).map(|(a, b)| a - b).collect())
}

/// Pearson's. `None` where one does not vary.
pub fn correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len().min(y.len()) as f64;
    let [mx, my] = [x, y].map(|v| v.iter().sum::<f64>() / n);
    let sums = x.iter().zip(y).fold([0.0; 3], |[xx, xy, yy], (x, y)| {
        let (x, y) = (x - mx, y - my);
        [xx + x * x, xy + x * y, yy + y * y]
    });
    (sums[0] > 0.0 && sums[2] > 0.0).then(|| sums[1] / (sums[0] * sums[2]).sqrt())
}

/// The markers of class 0 and of class 1, strongest first.
pub fn markers(x: Matrix<'_>, classes: &[bool]) -> [Vec<usize>; 2] {
    let (means, n) = class_means(x, classes);
    if n.iter().any(|&n| n < 2.0) {
        return Default::default();
    }
    let mut squares = [vec![0.0; x.cols()], vec![0.0; x.cols()]];
    for (r, &class) in classes.iter().enumerate() {
        let c = usize::from(class);
        for ((s, &v), m) in squares[c].iter_mut().zip(x.row(r)).zip(&means[c]) {
            *s += (f64::from(v) - m).powi(2);
        }
    }
    let p: Vec<f64> = (0..x.cols())
        .map(|f| {
            let error = [0, 1].map(|c| squares[c][f] / (n[c] - 1.0) / n[c]);
            welch(means[1][f] - means[0][f], error, n)
        })
        .collect();
    let q = benjamini_hochberg(&p);
    let best = |sign: f64| {
        let gain = |f: usize| sign * (means[1][f] - means[0][f]);
        let mut of: Vec<usize> = (0..x.cols()).filter(|&f| q[f] < LEVEL && gain(f) > 0.0).collect();
        of.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)).then(a.cmp(&b)));
        of.truncate(MARKERS);
        of
    };
    [best(-1.0), best(1.0)]
}

/// The two-sided p of Welch's t-test, from the difference of two means, their squared standard errors and numbers of values.
pub fn welch(difference: f64, error: [f64; 2], n: [f64; 2]) -> f64 {
    let sum = error[0] + error[1];
    if sum <= 0.0 {
        return if difference == 0.0 { 1.0 } else { 0.0 };
    }
    let t2 = difference * difference / sum;
    let freedom = sum * sum / (error[0] * error[0] / (n[0] - 1.0) + error[1] * error[1] / (n[1] - 1.0));
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t2))
}

/// Smallest false discovery rate at which each hypothesis is rejected (Benjamini and Hochberg 1995).
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut q, mut least) = (vec![1.0; p.len()], 1.0f64);
    for (rank, &at) in order.iter().enumerate().rev() {
        least = least.min(p[at] * p.len() as f64 / (rank + 1) as f64);
        q[at] = least;
    }
    q
}

/// Iₓ(a, b), by Lentz's method for its continued fraction (Numerical Recipes, section 6.4, from which the fraction is).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast on this side of the mean.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let away = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut value = d;
    for m in 1..1000 {
        let m = f64::from(m);
        for numerator in
            [m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)), -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))]
        {
            d = 1.0 / away(1.0 + numerator * d);
            c = away(1.0 + numerator / c);
            value *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (front * value).clamp(0.0, 1.0)
}

/// ln Γ(x), x > 0: Stirling's series after moving x up to where it is exact to the last bits.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 15.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let (y, half_ln_two_pi) = (1.0 / (x * x), 0.918_938_533_204_672_8);
    let series = (1.0 / 12.0 - y * (1.0 / 360.0 - y * (1.0 / 1260.0 - y * (1.0 / 1680.0 - y / 1188.0)))) / x;
    shift + (x - 0.5) * x.ln() - x + half_ln_two_pi + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn the_area_counts_pairs_and_halves_ties() {
        assert_eq!(area(&[1.0, 2.0, 3.0, 4.0], &[false, false, true, true]), Some(1.0));
        assert_eq!(area(&[1.0, 2.0, 2.0, 0.0], &[false, false, true, true]), Some((1.5) / 4.0));
        assert_eq!(area(&[1.0, 1.0], &[true, false]), Some(0.5));
        assert_eq!(area(&[1.0], &[true]), None);
    }

    #[test]
    fn fishers_axis_follows_the_spread_within_the_classes() {
        // Classes differ along (1, 1); the second feature is ten times as noisy.
        let mut draw = Sequence::new(1, 2, 0);
        let classes: Vec<bool> = (0..2000).map(|i| i % 2 == 1).collect();
        let x: Vec<f32> = classes.iter().flat_map(|&c| [1.0, 10.0].map(|sd| f32::from(u8::from(c)) + sd * draw.next_normal())).collect();
        let axis = lda_axis(Matrix::new(&x, 2000, 2), &classes).unwrap();
        assert!(axis[0] > 0.0 && (axis[1] / axis[0] - 0.01).abs() < 0.01, "{axis:?}");
        assert!(area(&along(Matrix::new(&x, 2000, 2), &axis), &classes).unwrap() > 0.7);
        assert_eq!(lda_axis(Matrix::new(&x[..6], 3, 2), &classes[..3]), None, "one row of a class has no spread");
    }

    #[test]
    fn welch_and_benjamini_hochberg_match_scipy() {
        // scipy.stats.ttest_ind([1, 2, 3, 4], [2, 4, 6, 8, 11], equal_var=False).pvalue
        let p = welch(6.2 - 2.5, [5.0 / 3.0 / 4.0, 12.2 / 5.0], [4.0, 5.0]);
        assert!((p - 0.077_330_459_718_477_86).abs() < 1e-12, "{p:.17}");
        assert!((incomplete_beta(2.5, 0.5, 0.3) - 0.018_927_124_071_945_658).abs() < 1e-12, "{:.17}", incomplete_beta(2.5, 0.5, 0.3));
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-14);
        // scipy.stats.false_discovery_control([0.01, 0.04, 0.03, 0.5])
        let q = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.5]);
        assert!(q.iter().zip([0.04, 0.16 / 3.0, 0.16 / 3.0, 0.5]).all(|(q, w)| (q - w).abs() < 1e-15), "{q:?}");
    }

    #[test]
    fn markers_are_the_features_that_differ_and_no_others() {
        let mut draw = Sequence::new(4, 2, 0);
        let classes: Vec<bool> = (0..100).map(|i| i % 2 == 1).collect();
        let gain = |f: usize, c: bool| match f {
            0 => 3.0 * f32::from(u8::from(c)),
            1 => 2.0 * f32::from(u8::from(c)),
            2 => -2.0 * f32::from(u8::from(c)),
            _ => 0.0,
        };
        let x: Vec<f32> = classes.iter().flat_map(|&c| (0..8).map(|f| draw.next_normal() + gain(f, c)).collect::<Vec<_>>()).collect();
        assert_eq!(markers(Matrix::new(&x, 100, 8), &classes), [vec![2], vec![0, 1]]);
        assert_eq!(markers(Matrix::new(&x[..8], 1, 8), &classes[..1]), [const { Vec::<usize>::new() }; 2]);
    }
}
