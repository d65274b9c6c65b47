//! Convolutions and batch norm over images against values computed by PyTorch in float64 (tests/golden/conv/make.py), on every device
//! that answers.

#![cfg(feature = "models")] // for the reader of the fixture

#[path = "common/devices.rs"]
mod devices;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/tensors.rs"]
mod tensors;

use couplet::engine::ops::activation::Activation;
use couplet::engine::ops::batch_norm::{BatchNormState, Running};
use couplet::engine::ops::conv::ConvShape;
use couplet::engine::{Precision, Step, Var};
use devices::devices;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use tensors::Tensors;

const LEAKY: Activation = Activation::LeakyRelu(0.2);

fn matrix(name: &str) -> ([usize; 2], Vec<f32>) {
    static GOLDEN: LazyLock<Tensors> = LazyLock::new(|| tensors::read("conv", "conv").0);
    let (shape, values) = GOLDEN.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
    let dims = shape[..].try_into().unwrap_or_else(|_| panic!("{name} is {shape:?}"));
    (dims, values.iter().map(|&v| v as f32).collect())
}

fn leaf(s: &mut Step, name: &str) -> Var {
    let (dims, values) = matrix(name);
    s.leaf(dims, &values)
}

#[track_caller]
fn check(s: &mut Step, device: &str, v: Option<Var>, name: &str) {
    let v = v.unwrap_or_else(|| panic!("{device}: no gradient for {name}"));
    let (dims, want) = matrix(name);
    assert_eq!(s.dims(v), dims, "{device}: {name}");
    let got = s.download(v).unwrap();
    let scale = want.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        // ε·√k of sums of at most two hundred terms
        assert!((g - w).abs() <= 3e-6 * scale, "{device}: {name}, element {i}: {g} for {w}");
    }
}

/// `f` on every device, in a training step.
fn everywhere(mut f: impl FnMut(&str, &mut Step)) {
    for (name, device) in devices() {
        let mut s = Step::new(device, 1, Precision::F32).unwrap();
        s.begin(true, 1, 0).unwrap();
        f(name, &mut s);
        s.finish().unwrap();
    }
}

#[test]
fn convolutions_match_pytorch() {
    let cases: BTreeMap<String, [usize; 9]> = serde_json::from_value(tensors::read("conv", "conv").1).unwrap();
    assert_eq!(cases.len(), 7);
    everywhere(|device, s| {
        for (case, &[transposed, _, channels_in, channels_out, height, width, kernel, stride, padding]) in &cases {
            let shape = ConvShape { channels_in, channels_out, height, width, kernel, stride, padding };
            let [x, w, b] = ["x", "w", "b"].map(|what| leaf(s, &format!("{case}/{what}")));
            let y = if transposed == 1 { s.conv_transpose2d(x, w, b, shape, LEAKY) } else { s.conv2d(x, w, b, shape, LEAKY) };
            check(s, device, Some(y), &format!("{case}/y"));
            let (dims, upstream) = matrix(&format!("{case}/dy"));
            let dy = s.constant(dims, &upstream);
            s.backward_from(y, dy);
            for (v, what) in [(x, "dx"), (w, "dw"), (b, "db")] {
                let gradient = s.grad(v);
                check(s, device, gradient, &format!("{case}/{what}"));
            }
            s.forget_gradients();
        }
    });
}

#[test]
fn batch_norm_over_images_matches_pytorch() {
    everywhere(|device, s| {
        let [x, scale, shift] = ["x", "gamma", "beta"].map(|what| leaf(s, &format!("norm/{what}")));
        let [mean, variance] = [0.0, 1.0].map(|v| s.constant([1, 3], &[v; 3]));
        let state = BatchNormState { scale, shift, mean, variance, epsilon: 1e-5, keep: 0.9, running: Running::Unbiased };
        let y = s.batch_norm_images(x, &state, LEAKY);
        let (dims, upstream) = matrix("norm/dy");
        let dy = s.constant(dims, &upstream);
        s.backward_from(y, dy);
        for (v, what) in [(y, "y"), (mean, "mean"), (variance, "var")] {
            check(s, device, Some(v), &format!("norm/{what}"));
        }
        for (v, what) in [(x, "dx"), (scale, "dgamma"), (shift, "dbeta")] {
            let gradient = s.grad(v);
            check(s, device, gradient, &format!("norm/{what}"));
        }
    });
    // Evaluation is another kind of step.
    everywhere(|device, s| {
        let [scale, shift, mean, variance] = ["gamma", "beta", "mean", "var"].map(|what| matrix(&format!("norm/{what}")));
        s.begin(false, 2, 0).unwrap();
        let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(|(dims, v)| s.constant(dims, &v));
        let x = leaf(s, "norm/x");
        let state = BatchNormState { scale, shift, mean, variance, epsilon: 1e-5, keep: 0.9, running: Running::Unbiased };
        let y = s.batch_norm_images(x, &state, LEAKY);
        check(s, device, Some(y), "norm/eval");
    });
}
