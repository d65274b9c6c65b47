//! The three proofs of an operation, for the tests in its room: its value against a reference in f64, its gradient against
//! central differences of that reference under a random upstream gradient, and every device that answers against both.

use crate::device::Device;
use crate::engine::rng;
use crate::engine::{Precision, Step, Var};

/// Every device that can be had here: the processor, the emulator in two orders of threads, a GPU.
pub fn devices() -> Vec<(&'static str, Device)> {
    #[allow(unused_mut)]
    let mut all = vec![("cpu", Device::cpu())];
    #[cfg(feature = "emulated")]
    all.extend([("emulated, order 1", Device::emulated(1)), ("emulated, order 2", Device::emulated(2))]);
    #[cfg(feature = "cuda")]
    if let Ok(gpu) = crate::device::cuda::for_tests() {
        all.push(("cuda", gpu.into()));
    }
    all
}

/// A step on each device.
pub fn steps() -> Vec<(&'static str, Step)> {
    devices().into_iter().map(|(name, d)| (name, Step::new(d, 7, Precision::F32).expect("a step"))).collect()
}

/// Uniform on [-1, 1), the same for the same salt.
pub fn values(count: usize, salt: u32) -> Vec<f32> {
    (0..count).map(|i| 2.0 * rng::uniform(99, salt, 0, i as u32) - 1.0).collect()
}

/// One operand: its dimensions and values; `differentiate` asks for its gradient.
#[derive(Clone)]
pub struct Operand {
    pub dims: [usize; 2],
    pub values: Vec<f32>,
    pub differentiate: bool,
}

/// An operand with random values whose gradient is checked.
pub fn operand(dims: [usize; 2], salt: u32) -> Operand {
    Operand { dims, values: values(dims[0] * dims[1], salt), differentiate: true }
}

/// An operand that is a constant to the operation.
pub fn fixed(dims: [usize; 2], values: Vec<f32>) -> Operand {
    Operand { dims, values, differentiate: false }
}

/// Proves `op` against `reference`, which maps the operands' values in f64 to the output's.
/// `tolerance` is relative to the largest magnitude of what is compared (at least 1e-3 of 1), for values and gradients alike.
#[track_caller]
pub fn prove(
    operands: &[Operand],
    tolerance: f64,
    mut op: impl FnMut(&mut Step, &[Var]) -> Var,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let exact: Vec<Vec<f64>> = operands.iter().map(|o| o.values.iter().map(|&v| v as f64).collect()).collect();
    let expected = reference(&exact);
    let upstream = values(expected.len(), 1234);
    let objective = |x: &[Vec<f64>]| reference(x).iter().zip(&upstream).map(|(y, &u)| y * u as f64).sum::<f64>();
    let gradients: Vec<Vec<f64>> = operands
        .iter()
        .enumerate()
        .map(|(i, o)| {
            let mut x = exact.clone();
            let h = 1e-5;
            (0..if o.differentiate { o.values.len() } else { 0 })
                .map(|j| {
                    let at = x[i][j];
                    x[i][j] = at + h;
                    let above = objective(&x);
                    x[i][j] = at - h;
                    let below = objective(&x);
                    x[i][j] = at;
                    (above - below) / (2.0 * h)
                })
                .collect()
        })
        .collect();
    for (device, mut step) in steps() {
        step.begin(true, 1, 0).expect("begin");
        let vars: Vec<Var> = operands
            .iter()
            .map(|o| if o.differentiate { step.leaf(o.dims, &o.values) } else { step.constant(o.dims, &o.values) })
            .collect();
        let y = op(&mut step, &vars);
        let got = step.download(y).expect("download");
        compare(&format!("{device}: value"), &got, &expected, tolerance);
        let dims = step.dims(y);
        let dy = step.constant(dims, &upstream);
        step.backward_from(y, dy);
        for (i, o) in operands.iter().enumerate().filter(|(_, o)| o.differentiate) {
            let got = match step.grad(vars[i]) {
                Some(g) => step.download(g).expect("download"),
                None => vec![0.0; o.values.len()],
            };
            compare(&format!("{device}: gradient of operand {i}"), &got, &gradients[i], tolerance);
        }
        step.finish().expect("no device error");
    }
}

/// Panics unless `got` is `expected` within `tolerance` of the largest magnitude.
#[track_caller]
pub fn compare(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        assert!(((g as f64) - e).abs() <= tolerance * scale, "{what}: element {i} is {g}, expected {e} (scale {scale})");
    }
}
