//! Metrics of values that one modality's codes predict for another, and of the baselines they are held against.
//!
//! All values are in the standardised units of the training cells, so that a cross_mse of 1 is what predicting the mean scores.

use super::Metrics;
use super::baselines::{PcCca, knn};
use super::comparison::{compare, js_distance};
use super::imputation::{Imputation, auroc_by_feature, summarise};
use super::matrix::Matrix;

/// Neighbours of the kNN baseline.
pub const K: usize = 5;
/// Principal components of each modality that the PC-CCA baseline keeps at most; the cross errors change little beyond ten.
pub const COMPONENTS: usize = 20;

/// One value a feature; no feature where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ByFeature {
    /// Correlations.
    pub pearson: Vec<Option<f64>>,
    /// Areas under the curve.
    pub auroc: Vec<Option<f64>>,
}

/// Sets `cross_mse`, `pearson` and `auroc` of `direction` ("A_to_B") from imputed and measured values of the same cells; each key ends
/// in `suffix` ("", ".knn"), medians of the last two stand beside their means.
#[track_caller]
pub fn translation_metrics(out: &mut Metrics, direction: &str, suffix: &str, imputed: Matrix<'_>, measured: Matrix<'_>) -> ByFeature {
    let mut sums = Imputation::new(measured.cols());
    sums.add(imputed, measured);
    out.set_some(format!("cross_mse.{direction}{suffix}"), sums.mse());
    let by_feature = ByFeature { pearson: sums.pearson_by_feature(), auroc: auroc_by_feature(imputed, measured) };
    for (key, values) in [("pearson", &by_feature.pearson), ("auroc", &by_feature.auroc)] {
        if let Some(s) = summarise(values) {
            out.set(format!("{key}.{direction}{suffix}"), s.mean);
            out.set(format!("{key}.{direction}{suffix}.median"), s.median);
        }
    }
    by_feature
}

/// Sets `binomial_p` of a direction: the model's features against the neighbours'.
fn compared(out: &mut Metrics, direction: &str, model: &ByFeature, knn: &ByFeature) {
    for (key, ours, theirs) in [("pearson", &model.pearson, &knn.pearson), ("auroc", &model.auroc, &knn.auroc)] {
        if let Some(c) = compare(ours, theirs) {
            let key = format!("binomial_p.{key}.{direction}");
            out.set(key.as_str(), c.p);
            out.set(format!("{key}.wins"), c.wins);
            out.set(format!("{key}.losses"), c.losses);
        }
    }
}

/// Sets `js_distance` of a direction; `classes` one a cell.
#[track_caller]
pub fn distribution_metrics(out: &mut Metrics, direction: &str, imputed: Matrix<'_>, measured: Matrix<'_>, classes: &[Option<u32>]) {
    if let Some(js) = js_distance(imputed, measured, classes) {
        out.set(format!("js_distance.{direction}"), js.mean);
        out.set(format!("js_distance.{direction}.deviation"), js.deviation);
    }
}

/// Sets the baselines of a direction on the `test` pairs: `.knn` of all three metrics, the comparison of `model` with it, and
/// `cross_mse.*.pc_cca`. Both learn from
/// `train`, pairs (row of a, row of b) like `test`; `a` and `b` are standardised by the training cells, NaN where missing. What the
/// neighbours reach of each feature comes back.
#[allow(clippy::too_many_arguments)]
pub fn baseline_metrics(
    out: &mut Metrics,
    direction: &str,
    model: &ByFeature,
    a: Matrix<'_>,
    b: Matrix<'_>,
    train: &[(u32, u32)],
    test: &[(u32, u32)],
    latent: usize,
    seed: u64,
) -> ByFeature {
    let mut by_neighbours = ByFeature::default();
    if test.is_empty() {
        return by_neighbours;
    }
    let rows: Vec<u32> = test.iter().map(|t| t.1).collect();
    let measured = b.gather(&rows);
    let measured = Matrix::new(&measured, rows.len(), b.cols());
    if let Some(predicted) = knn(a, b, train, test, K) {
        by_neighbours = translation_metrics(out, direction, ".knn", predicted.matrix(), measured);
        compared(out, direction, model, &by_neighbours);
    }
    let linear = PcCca::fit(a, b, train, (COMPONENTS, COMPONENTS), latent, seed).and_then(|fit| fit.translate(a, b, train, test));
    if let Some(predicted) = linear {
        out.set_some(format!("cross_mse.{direction}.pc_cca"), predicted.against(b, test).mse());
    }
    by_neighbours
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;
    use crate::metrics::describe;

    #[test]
    fn baselines_fill_their_keys_and_beat_the_mean_where_there_is_something_to_learn() {
        let mut draws = Sequence::new(7, 0, 0);
        let (n, mut a, mut b) = (120, Vec::new(), Vec::new());
        for _ in 0..n {
            let z = [draws.next_normal(), draws.next_normal()];
            a.extend((0..6).map(|j| 0.7 * z[j % 2] + 0.5 * draws.next_normal()));
            b.extend((0..4).map(|j| 0.7 * z[(j + 1) % 2] + 0.5 * draws.next_normal()));
        }
        let (a, b) = (Matrix::new(&a, n, 6), Matrix::new(&b, n, 4));
        let pairs: Vec<(u32, u32)> = (0..n as u32).map(|i| (i, i)).collect();
        let (train, test) = pairs.split_at(90);
        let mut m = Metrics::new();
        let ours = ByFeature { pearson: vec![Some(1.0); 4], auroc: vec![Some(1.0); 4] };
        let neighbours = baseline_metrics(&mut m, "x_to_y", &ours, a, b, train, test, 2, 0);
        let (knn, linear) = (m.number("cross_mse.x_to_y.knn").expect("fits"), m.number("cross_mse.x_to_y.pc_cca").expect("fits"));
        assert!(knn < 0.7 && linear < knn, "{knn} {linear}");
        assert!(m.number("pearson.x_to_y.knn").expect("varies") > 0.4 && m.number("auroc.x_to_y.knn.median").expect("both sides") > 0.6);
        assert_eq!(m.number("binomial_p.pearson.x_to_y.wins"), Some(4.0));
        assert_eq!(neighbours.pearson.len(), 4);
        assert!((m.number("binomial_p.pearson.x_to_y").expect("wins") - 0.125).abs() < 1e-12, "two of sixteen");
        assert!(m.iter().all(|(key, _)| describe(key).is_some()));
        let mut empty = Metrics::new();
        baseline_metrics(&mut empty, "x_to_y", &ours, a, b, train, &[], 2, 0);
        baseline_metrics(&mut empty, "x_to_y", &ours, a, b, &[], test, 2, 0);
        assert_eq!(empty, Metrics::new());
    }
}
