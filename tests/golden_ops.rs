//! Single operations against values computed by PyTorch in float64 (tests/golden/ops/make.py): a check of the rooms that does not rest on
//! our own formulas; on every device that answers.

#![cfg(feature = "models")] // for the reader of the fixture

#[path = "common/devices.rs"]
mod devices;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/tensors.rs"]
mod tensors;

use couplet::engine::ops::activation::Activation;
use couplet::engine::ops::batch_norm::{BatchNormState, Running};
use couplet::engine::ops::ledger::Ledger;
use couplet::engine::ops::losses::MissingIn;
use couplet::engine::ops::small::Smallest;
use couplet::engine::optim::{Adam, AdamSettings};
use couplet::engine::{Precision, Step, Var, Weight};
use devices::devices;
use std::collections::BTreeMap;

/// The fixture: matrices by name.
struct Golden(BTreeMap<String, ([usize; 2], Vec<f32>)>);

impl Golden {
    fn read() -> Golden {
        let matrix = |(name, (shape, values)): (String, (Vec<usize>, Vec<f64>))| {
            let dims = match shape[..] {
                [n] => [1, n],
                [rows, cols] => [rows, cols],
                _ => panic!("{name} is {shape:?}"),
            };
            (name, (dims, values.into_iter().map(|v| v as f32).collect()))
        };
        Golden(tensors::read("ops", "ops").0.into_iter().map(matrix).collect())
    }

    fn get(&self, key: &str) -> &([usize; 2], Vec<f32>) {
        self.0.get(key).unwrap_or_else(|| panic!("no tensor {key}"))
    }

    /// The matrix as a constant of the step.
    fn constant(&self, s: &mut Step, key: &str) -> Var {
        let (dims, values) = self.get(key);
        s.constant(*dims, values)
    }
}

/// `f` on every device, with a step that has not begun.
fn everywhere(mut f: impl FnMut(&str, &mut Step)) {
    for (name, device) in devices() {
        f(name, &mut Step::new(device, 0, Precision::F32).expect("a step"));
    }
}

/// The value of an operation, and its gradients for the upstream gradient `dy`, in the room's names: `inputs` want gradients.
/// `tolerance` is relative to the largest magnitude.
fn check(golden: &Golden, room: &str, inputs: &[&str], tolerance: f64, mut op: impl FnMut(&mut Step, &[Var]) -> Var) {
    everywhere(|device, s| {
        s.begin(true, 1, 0).expect("begin");
        let vars: Vec<Var> = inputs
            .iter()
            .map(|name| {
                let (dims, values) = golden.get(&format!("{room}/{name}"));
                s.leaf(*dims, values)
            })
            .collect();
        let y = op(s, &vars);
        compare(&format!("{device}: {room}/y"), &s.download(y).expect("y"), &golden.get(&format!("{room}/y")).1, tolerance);
        let dy = s.constant(s.dims(y), &golden.get(&format!("{room}/dy")).1);
        s.backward_from(y, dy);
        for (name, &v) in inputs.iter().zip(&vars) {
            let gradient = s.grad(v).unwrap_or_else(|| panic!("{device}: {room}: no gradient of {name}"));
            let got = s.download(gradient).expect("a gradient");
            compare(&format!("{device}: {room}/d{name}"), &got, &golden.get(&format!("{room}/d{name}")).1, tolerance);
        }
    });
}

#[track_caller]
fn compare(what: &str, got: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(0.0f64, |m, &v| m.max((v as f64).abs()));
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let error = (g as f64 - e as f64).abs();
        assert!(error <= tolerance * largest, "{what}[{i}] is {g}, expected {e}: off by {:.1e} of the largest", error / largest);
    }
}

#[test]
fn linear_with_every_activation_matches_pytorch() {
    let golden = Golden::read();
    for (name, f) in [
        ("linear", Activation::Identity),
        ("relu", Activation::Relu),
        ("elu", Activation::Elu),
        ("leaky_relu_0.01", Activation::LeakyRelu(0.01)),
        ("leaky_relu_0.2", Activation::LeakyRelu(0.2)),
        ("sigmoid", Activation::Sigmoid),
        ("tanh", Activation::Tanh),
    ] {
        check(&golden, &format!("linear.{name}"), &["x", "w", "b"], 2e-6, |s, v| s.linear(v[0], v[1], v[2], f));
    }
}

fn batch_norm_state(golden: &Golden, s: &mut Step, room: &str, [scale, shift]: [Var; 2], running: Running) -> BatchNormState {
    let (mean, variance) = (golden.constant(s, &format!("{room}/mean")), golden.constant(s, &format!("{room}/var")));
    BatchNormState { scale, shift, mean, variance, epsilon: 1e-5, keep: 0.9, running }
}

#[test]
fn batch_norm_in_training_matches_pytorch() {
    let golden = Golden::read();
    for (room, inputs) in [("batch_norm.train", &["x"][..]), ("batch_norm.train_affine", &["x", "gamma", "beta"])] {
        for (running, variance) in [(Running::Biased, "var_after"), (Running::Unbiased, "var_after_unbiased")] {
            // The column that is nearly constant keeps 12 of its 24 bits when its mean is taken away.
            check(&golden, room, inputs, 2e-4, |s, v| {
                let at = |i: usize| v.get(i).copied().unwrap_or(Var::NONE);
                let state = batch_norm_state(&golden, s, room, [at(1), at(2)], running);
                let y = s.batch_norm(v[0], &state, Activation::Identity);
                for (state, key) in [(state.mean, "mean_after"), (state.variance, variance)] {
                    let got = s.download(state).expect("a statistic");
                    compare(&format!("{room}/{key}"), &got, &golden.get(&format!("{room}/{key}")).1, 1e-6);
                }
                y
            });
        }
    }
}

#[test]
fn batch_norm_in_evaluation_matches_pytorch() {
    let golden = Golden::read();
    for (room, affine) in [("batch_norm.eval", false), ("batch_norm.eval_affine", true)] {
        everywhere(|device, s| {
            s.begin(false, 1, 0).expect("begin");
            let x = golden.constant(s, &format!("{room}/x"));
            let affine = ["gamma", "beta"].map(|name| if affine { golden.constant(s, &format!("{room}/{name}")) } else { Var::NONE });
            let state = batch_norm_state(&golden, s, room, affine, Running::Biased);
            let y = s.batch_norm(x, &state, Activation::Identity);
            compare(&format!("{device}: {room}"), &s.download(y).expect("y"), &golden.get(&format!("{room}/y")).1, 1e-6);
        });
    }
}

#[test]
fn masked_and_weighted_error_match_pytorch() {
    let golden = Golden::read();
    for (room, weighted) in [("mse.masked", false), ("mse.weighted", true)] {
        check(&golden, room, &["x"], 1e-6, |s, v| {
            let target = golden.constant(s, &format!("{room}/target"));
            let weights = if weighted { s.constant([6, 1], &golden.get(&format!("{room}/w")).1) } else { Var::NONE };
            s.masked_mse(v[0], target, weights, MissingIn::Observed)
        });
    }
}

#[test]
fn the_smallest_eigenvalue_and_its_gradient_match_pytorch_even_where_the_code_has_collapsed() {
    let golden = Golden::read();
    for method in [Smallest::Power, Smallest::Jacobi] {
        // f64 inside. The gradient is (zc·v)·vᵀ with v rounded to f32: of a collapsed code, zc·v cancels to a thousandth of zc.
        for (room, tolerance) in [("smallest.random", 1e-6), ("smallest.collapsed", 1e-4)] {
            check(&golden, room, &["z"], tolerance, |s, v| {
                let warm = s.constant([1, 3], &[0.6, 0.0, 0.8]);
                s.smallest_eigenvalue(v[0], warm, method)
            });
        }
    }
}

#[test]
fn whitening_matches_pytorch_even_where_eigenvalues_are_equal_or_nearly_zero() {
    let golden = Golden::read();
    for room in ["whiten.random", "whiten.repeated", "whiten.collapsed"] {
        // The collapsed code's smallest eigenvalue is all ridge: its root is 32, and multiplies the rounding of 6e-8.
        let tolerance = if room == "whiten.collapsed" { 2e-5 } else { 2e-6 };
        check(&golden, room, &["z"], tolerance, |s, v| s.whiten(v[0], 1e-3));
    }
}

#[test]
fn five_steps_of_adam_match_pytorch() {
    let golden = Golden::read();
    let plain = AdamSettings { rate: 1e-3, epsilon: 1e-7, ..AdamSettings::default() };
    let decay = AdamSettings { rate: 1e-2, beta1: 0.5, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1, l2: 0.0 };
    for (room, settings) in [("adam.plain", plain), ("adam.decay", decay)] {
        everywhere(|device, s| {
            let (dims, start) = golden.get(&format!("{room}/p_0"));
            let p = s.parameter("p", 0, *dims, start.clone());
            let mut adam = Adam::new(s, 0, settings).expect("Adam");
            let ledger = Ledger::new(s, 1).expect("a ledger");
            for t in 1..=5 {
                adam.set_step(s, t, 1.0);
                s.begin(true, t, 0).expect("begin");
                // The gradient of g·pᵀ is g.
                let g = golden.constant(s, &format!("{room}/g_{t}"));
                let loss = s.linear(g, p, Var::NONE, Activation::Identity);
                ledger.add(s, &[loss]);
                s.backward(&[(loss, Weight::Fixed(1.0))]);
                adam.step(s, &ledger);
                let (got, expected) = (s.download(p).expect("p"), &golden.get(&format!("{room}/p_{t}")).1);
                for (i, ((got, expected), start)) in got.iter().zip(expected).zip(start).enumerate() {
                    // An ulp of p a step, and 1e-5 of what a step can move.
                    let allowed = t as f64 * (1.2e-7 * start.abs() as f64 + 1e-5 * settings.rate);
                    let error = (*got as f64 - *expected as f64).abs();
                    assert!(error <= allowed, "{device}: {room}: p[{i}] is {got} after step {t}, expected {expected}: off by {error:.1e}");
                }
            }
        });
    }
}
