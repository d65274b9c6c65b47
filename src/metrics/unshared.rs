//! Do cells of a type that one data set lacks lie apart? Distances to the nearest training code of the other set, and the two-sample
//! Kolmogorov-Smirnov test of one type's distances against all remaining cells'.
//!
//!   D = sup |F₁ - F₂|,  P(D ≥ d) under equal distributions
//!
//! Exact by counting lattice paths where m·n is at most [`EXACT`]; otherwise Kolmogorov's series with the small-sample correction
//! of Stephens (1970). Ties make both conservative.

use super::matrix::Matrix;
use super::neighbours::{Distance, Pool};

/// Products of sample sizes up to this are counted exactly.
pub const EXACT: usize = 4_000_000;

/// A two-sample Kolmogorov-Smirnov test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KolmogorovSmirnov {
    /// The largest difference of the two empirical distributions.
    pub statistic: f64,
    /// Two-sided p value.
    pub p: f64,
}

/// Euclidean distance of each of `from_rows` to the nearest of `to_rows`. `None` if `to_rows` is empty.
#[track_caller]
pub fn nearest_distances(from: Matrix<'_>, from_rows: &[u32], to: Matrix<'_>, to_rows: &[u32]) -> Option<Vec<f64>> {
    let near = Pool::new(to, to_rows).nearest(Distance::Euclidean, from, from_rows, 1);
    (0..from_rows.len()).map(|i| near.nearest_distance(i)).collect()
}

/// The two-sample test. `None` if a sample is empty or holds something that is not a number.
pub fn kolmogorov_smirnov(x: &[f64], y: &[f64]) -> Option<KolmogorovSmirnov> {
    let (m, n) = (x.len(), y.len());
    if m == 0 || n == 0 || x.iter().chain(y).any(|v| v.is_nan()) {
        return None;
    }
    let (mut x, mut y) = (x.to_vec(), y.to_vec());
    x.sort_by(f64::total_cmp);
    y.sort_by(f64::total_cmp);
    // |i/m - j/n| = gap / (m·n), in integers so that equal gaps are equal.
    let (mut i, mut j, mut gap) = (0, 0, 0u64);
    while i < m && j < n {
        let at = x[i].min(y[j]);
        while i < m && x[i] <= at {
            i += 1;
        }
        while j < n && y[j] <= at {
            j += 1;
        }
        gap = gap.max((i as u64 * n as u64).abs_diff(j as u64 * m as u64));
    }
    let statistic = gap as f64 / (m as f64 * n as f64);
    let p = if m.saturating_mul(n) <= EXACT { exact(m, n, gap) } else { asymptotic(m, n, statistic) };
    Some(KolmogorovSmirnov { statistic, p })
}

/// Each class's values against all remaining ones: (class, test), classes ascending; `None` labels count among the remaining.
#[track_caller]
pub fn each_against_the_rest(values: &[f64], classes: &[Option<u32>]) -> Vec<(u32, KolmogorovSmirnov)> {
    assert_eq!(values.len(), classes.len(), "one class a value");
    let mut present: Vec<u32> = classes.iter().flatten().copied().collect();
    present.sort_unstable();
    present.dedup();
    let test = |class: u32| {
        let (of, rest): (Vec<_>, Vec<_>) = values.iter().zip(classes).partition(|(_, c)| **c == Some(class));
        let take = |side: Vec<(&f64, &Option<u32>)>| side.into_iter().map(|(v, _)| *v).collect::<Vec<f64>>();
        kolmogorov_smirnov(&take(of), &take(rest)).map(|ks| (class, ks))
    };
    present.into_iter().filter_map(test).collect()
}

/// The fraction of the paths from (0, 0) to (m, n) that somewhere have |i·n - j·m| ≥ gap.
///
/// f(i, j), that fraction among the paths to (i, j), is 1 where the point itself is outside, else it averages over the last step:
/// i in i + j paths came from (i - 1, j). Fractions of what is outside keep the relative precision of small p.
fn exact(m: usize, n: usize, gap: u64) -> f64 {
    if gap == 0 {
        return 1.0;
    }
    let mut f = vec![0.0f64; n + 1];
    for i in 0..=m {
        for j in 0..=n {
            let outside = (i as u64 * n as u64).abs_diff(j as u64 * m as u64) >= gap;
            f[j] = match (i, j) {
                _ if outside => 1.0,
                (0, 0) => 0.0,
                (0, _) => f[j - 1],
                (_, 0) => f[0],
                _ => (f[j] * i as f64 + f[j - 1] * j as f64) / (i + j) as f64,
            };
        }
    }
    f[n].min(1.0)
}

fn asymptotic(m: usize, n: usize, statistic: f64) -> f64 {
    let root = (m as f64 * n as f64 / (m as f64 + n as f64)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * statistic;
    // The alternating series needs its first few terms unless λ is small, where p is 1 to sixteen digits.
    if lambda < 0.2 {
        return 1.0;
    }
    let mut sum = 0.0;
    for k in 1..=100 {
        let term = (-2.0 * f64::from(k * k) * lambda * lambda).exp();
        sum += if k % 2 == 1 { term } else { -term };
        if term < 1e-18 * sum {
            break;
        }
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn exact_p_of_small_samples_is_a_count_of_orders() {
        // 3 against 3 apart: 2 of the 20 orders. 1 against 1: every order has D = 1.
        let ks = kolmogorov_smirnov(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).expect("two samples");
        assert!(ks.statistic == 1.0 && (ks.p - 0.1).abs() < 1e-15);
        let ks = kolmogorov_smirnov(&[1.0], &[4.0]).expect("two samples");
        assert!(ks.statistic == 1.0 && ks.p == 1.0);
        let ks = kolmogorov_smirnov(&[1.0, 1.0], &[1.0]).expect("two samples");
        assert!(ks.statistic == 0.0 && ks.p == 1.0);
        assert_eq!(kolmogorov_smirnov(&[], &[1.0]), None);
        assert_eq!(kolmogorov_smirnov(&[f64::NAN], &[1.0]), None);
    }

    #[test]
    fn the_series_meets_the_count_in_large_samples() {
        for (m, n, gap) in [(400, 500, 14_000), (300, 900, 25_000), (1000, 1001, 90_000)] {
            let (e, a) = (exact(m, n, gap), asymptotic(m, n, gap as f64 / (m * n) as f64));
            assert!((a / e - 1.0).abs() < 0.08, "{m} {n}: {e} {a}");
        }
        assert_eq!(asymptotic(1000, 1000, 0.0), 1.0);
    }

    #[test]
    fn a_type_that_the_other_set_lacks_stands_out() {
        let mut draws = Sequence::new(2, 0, 0);
        let mut code = |offset: f64, n: usize| -> Vec<f32> { (0..n).map(|_| (offset + f64::from(draws.next_normal())) as f32).collect() };
        let train = code(0.0, 200);
        let mut test = code(0.0, 60);
        test.extend(code(8.0, 20));
        let classes: Vec<Option<u32>> = (0..80).map(|i| if i < 60 { Some(0) } else { Some(3) }).collect();
        let (a, b) = (Matrix::new(&test, 80, 1), Matrix::new(&train, 200, 1));
        let d = nearest_distances(a, &a.all_rows(), b, &b.all_rows()).expect("training cells");
        let tests = each_against_the_rest(&d, &classes);
        assert_eq!(tests.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 3]);
        assert!(tests[1].1.p < 1e-10 && tests[1].1.statistic > 0.95);
        assert_eq!(nearest_distances(a, &[0], b, &[]), None);
        assert_eq!(nearest_distances(a, &[], b, &[]), Some(vec![]));
    }
}
