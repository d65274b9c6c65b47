//! The metrics against scikit-learn, SciPy and NumPy: `tests/golden/metrics/golden.json`, made by the script beside it.
#![cfg(feature = "models")]

use couplet::metrics::alignment::{Labelled, class_accuracy, foscttm, knn_accuracy, lta};
use couplet::metrics::cca::Cca;
use couplet::metrics::clustering::{Mixture, MixtureSettings};
use couplet::metrics::imputation::{Imputation, auroc_by_feature};
use couplet::metrics::neighbours::Distance;
use couplet::metrics::pca::Pca;
use couplet::metrics::silhouette::silhouette;
use couplet::metrics::transfer::{Qda, Settings};
use couplet::metrics::unshared::kolmogorov_smirnov;
use couplet::metrics::{Matrix, agreement, baselines, collapse};
use serde_json::Value;

fn golden(section: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("golden/metrics/golden.json")).expect("the fixture is JSON");
    all[section].clone()
}

fn number(v: &Value) -> f64 {
    v.as_f64().expect("a number")
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("a list").iter().map(number).collect()
}

fn floats(v: &Value) -> Vec<f32> {
    numbers(v).into_iter().map(|v| v as f32).collect()
}

fn integers(v: &Value) -> Vec<u32> {
    numbers(v).into_iter().map(|v| v as u32).collect()
}

#[track_caller]
fn close(got: f64, want: &Value, tolerance: f64) {
    let want = number(want);
    assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got}, wanted {want}");
}

#[track_caller]
fn all_close(got: &[f64], want: &Value, tolerance: f64) {
    let want = want.as_array().expect("a list");
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).for_each(|(g, w)| close(*g, w, tolerance));
}

fn same_cells(n: u32) -> Vec<(u32, u32)> {
    (0..n).map(|i| (i, i)).collect()
}

#[test]
fn alignment_of_two_embeddings_with_ties() {
    let g = golden("pair");
    let (a, b) = (floats(&g["a"]), floats(&g["b"]));
    let labels: Vec<Option<u32>> = integers(&g["labels"]).into_iter().map(Some).collect();
    let (n, p) = (labels.len(), 3);
    let (a, b) = (Matrix::new(&a, n, p), Matrix::new(&b, n, p));
    let pairs = same_cells(n as u32);
    close(foscttm(a, b, &pairs, Distance::Euclidean).expect("pairs"), &g["foscttm"], 1e-15);
    close(foscttm(a, b, &pairs, Distance::L1).expect("pairs"), &g["foscttm_l1"], 1e-15);
    let near = knn_accuracy(a, b, &pairs, [1, 5, 10, 50]).expect("pairs");
    ["1", "5", "10", "50"].iter().zip(near).for_each(|(k, v)| close(v, &g["knn"][k], 1e-15));
    let (train, test) = (integers(&g["train"]), integers(&g["test"]));
    let (learn, asked) = (Labelled { cells: b, rows: &train, labels: &labels }, Labelled { cells: a, rows: &test, labels: &labels });
    close(lta(learn, asked).expect("labels"), &g["lta"], 1e-15);
    close(class_accuracy(learn, asked).expect("labels"), &g["class_accuracy"], 1e-15);
}

#[test]
fn silhouettes_and_spread() {
    let g = golden("pair");
    let mut joint = floats(&g["a"]);
    let labels = integers(&g["labels"]);
    let n = labels.len();
    let spread = collapse::spread(Matrix::new(&joint, n, 3), &(0..n as u32).collect::<Vec<_>>()).expect("cells");
    all_close(&spread.singular, &g["singular"], 1e-12);
    close(spread.rms, &g["rms"], 1e-12);
    joint.extend(floats(&g["b"]));
    let joint = Matrix::new(&joint, 2 * n, 3);
    let points = |label: &dyn Fn(usize) -> u32| -> Vec<(u32, u32)> { (0..2 * n).map(|i| (i as u32, label(i))).collect() };
    close(silhouette(joint, &points(&|i| labels[i % n]), 0).expect("classes").value, &g["silhouette_labels"], 1e-12);
    close(silhouette(joint, &points(&|i| u32::from(i < n)), 0).expect("classes").value, &g["silhouette_modality"], 1e-12);
}

#[test]
fn qda_densities() {
    let g = golden("qda");
    let codes = floats(&g["codes"]);
    let cells: Vec<(u32, u32)> = (0..).zip(integers(&g["labels"])).collect();
    let codes = Matrix::new(&codes, cells.len(), 3);
    let densities = |settings| -> Vec<f64> {
        let qda = Qda::fit(codes, &cells, settings).expect("three classes");
        (0..cells.len()).flat_map(|i| qda.log_densities(codes.row(i))).collect()
    };
    all_close(&densities(Settings::default()), &g["log_density"], 1e-9);
    all_close(&densities(Settings::blended()), &g["blended"], 1e-9);
}

#[test]
fn adjusted_mutual_information() {
    let g = golden("ami");
    let of = |x: &str, y: &str| agreement::adjusted_mutual_information(&integers(&g[x]), &integers(&g[y])).expect("cells");
    close(of("u", "v"), &g["uv"], 1e-12);
    close(of("u", "w"), &g["uw"], 1e-12);
    close(of("w", "v"), &g["vw"], 1e-12);
}

#[test]
fn mixture_reaches_the_best_likelihood_of_fifty_starts() {
    let g = golden("mixture");
    let codes = floats(&g["codes"]);
    let codes = Matrix::new(&codes, codes.len() / 2, 2);
    let settings = MixtureSettings { tolerance: 1e-9, steps: 2000, ..MixtureSettings::default() };
    let mixture = Mixture::fit(codes, &codes.all_rows(), 3, settings).expect("fits");
    close(mixture.log_likelihood, &g["log_likelihood"], 1e-6);
    let ami = agreement::adjusted_mutual_information(&mixture.labels(codes, &codes.all_rows()), &integers(&g["labels"]));
    assert!(ami.expect("cells") > 1.0 - 1e-12);
}

#[test]
fn principal_components_correlations_and_baselines() {
    let g = golden("linear");
    let (a, b) = (floats(&g["a"]), floats(&g["b"]));
    let (a, b) = (Matrix::new(&a, 50, 8), Matrix::new(&b, 50, 6));
    let pca = Pca::fit(a, &a.all_rows(), 3, 0).expect("varies");
    all_close(&pca.components, &g["components"], 1e-10);
    all_close(&pca.variance, &g["variance"], 1e-10);
    let wide = |m: Matrix<'_>| -> Vec<f64> { m.values().iter().map(|&v| f64::from(v)).collect() };
    let cca = Cca::fit(&wide(a), &wide(b), 50, 6).expect("full rank");
    all_close(&cca.correlations, &g["correlations"], 1e-10);
    let pairs = same_cells(50);
    let (train, test) = pairs.split_at(40);
    let values =
        |p: Option<baselines::Predicted>| -> Vec<f64> { p.expect("training cells").values.iter().map(|&v| f64::from(v)).collect() };
    // Predictions are kept in f32: 2^-24 of a value of a few units.
    all_close(&values(baselines::knn(a, b, train, test, 5)), &g["knn"], 1e-6);
    all_close(&values(baselines::least_squares(a, b, train, test)), &g["least_squares"], 1e-6);
}

#[test]
fn kolmogorov_smirnov_tests() {
    for case in golden("ks").as_array().expect("cases") {
        let ks = kolmogorov_smirnov(&numbers(&case["x"]), &numbers(&case["y"])).expect("two samples");
        close(ks.statistic, &case["statistic"], 1e-12);
        assert!((ks.p / number(&case["p"]) - 1.0).abs() < 1e-9, "{} {}", ks.p, case["p"]);
    }
}

#[test]
fn imputation_scores() {
    let g = golden("imputation");
    let (imputed, measured) = (floats(&g["imputed"]), floats(&g["measured"]));
    let (imputed, measured) = (Matrix::new(&imputed, 40, 5), Matrix::new(&measured, 40, 5));
    let mut sums = Imputation::new(5);
    sums.add(imputed, measured);
    let known = |v: Vec<Option<f64>>| -> Vec<f64> { v.into_iter().map(|v| v.expect("varies")).collect() };
    close(sums.mse().expect("cells"), &g["mse"], 1e-12);
    all_close(&known(sums.pearson_by_feature()), &g["pearson"], 1e-12);
    all_close(&known(sums.r2_by_feature()), &g["r2"], 1e-12);
    all_close(&known(auroc_by_feature(imputed, measured)), &g["auroc"], 1e-15);
}
