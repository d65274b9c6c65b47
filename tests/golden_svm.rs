//! Linear support vector machines and F1 against scikit-learn: `tests/golden/svm/golden.json`, made by the script beside it.
#![cfg(feature = "models")]

use couplet::metrics::Matrix;
use couplet::metrics::transfer::{LinearSvm, f1};
use serde_json::Value;

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn machines_and_f1_match_scikit_learn() {
    let all: Value = serde_json::from_str(include_str!("golden/svm/golden.json")).expect("the fixture is JSON");
    for (i, case) in all["cases"].as_array().expect("cases").iter().enumerate() {
        let floats = |key: &str| numbers(&case[key]).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let classes = |key: &str| numbers(&case[key]).into_iter().map(|v| v as u32).collect::<Vec<u32>>();
        let (x, t, d) = (floats("x"), floats("t"), case["features"].as_u64().expect("a count") as usize);
        let (y, z, said) = (classes("y"), classes("z"), classes("said"));
        let cells: Vec<(u32, u32)> = (0..).zip(y).collect();
        let svm = LinearSvm::fit(Matrix::new(&x, cells.len(), d), &cells, 0).expect("two classes");
        let score: Vec<f64> = t.chunks_exact(d).flat_map(|t| svm.decision(t)).collect();
        let wanted = numbers(&case["score"]);
        // A projected gradient of 1e-3 moves a decision by about as much; scikit-learn's was solved to 1e-9.
        for (at, (got, want)) in score.iter().zip(&wanted).enumerate() {
            assert!((got - want).abs() < 5e-3 * want.abs().max(1.0), "case {i}, decision {at}: {got}, wanted {want}");
        }
        assert_eq!(score.len(), wanted.len());
        let own: Vec<u32> = t.chunks_exact(d).map(|t| svm.predict(t)).collect();
        assert_eq!(own, said, "case {i}");
        let f = f1(z.into_iter().zip(own)).expect("cells");
        for (got, key) in [(f.of_classes, "f1_macro"), (f.of_cells, "f1_weighted")] {
            let want = case[key].as_f64().expect("a number");
            assert!((got - want).abs() < 1e-12, "case {i}, {key}: {got}, wanted {want}");
        }
    }
}
