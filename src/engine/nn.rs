//! Layers: parameters and a forward pass, no kernel and no loss.

use super::ops::activation::Activation;
use super::ops::batch_norm::{BatchNormState, Running};
use super::ops::conv::ConvShape;
use super::params::{Group, init};
use super::step::{Step, Var};
use crate::error::Result;

/// y = f(x·Wᵀ + b).
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// W [out, in].
    pub weight: Var,
    /// b [1, out], or [`Var::NONE`].
    pub bias: Var,
    /// f.
    pub activation: Activation,
}

impl Linear {
    /// Glorot-uniform weights, zero biases; the parameters are `NAME.weight` and `NAME.bias`.
    pub fn glorot(s: &mut Step, name: &str, group: Group, [inputs, outputs]: [usize; 2], activation: Activation) -> Linear {
        let weight_name = format!("{name}.weight");
        let values = init::glorot_uniform(s.seed(), &weight_name, [outputs, inputs]);
        let weight = s.parameter(weight_name, group, [outputs, inputs], values);
        let bias = s.parameter(format!("{name}.bias"), group, [1, outputs], vec![0.0; outputs]);
        Linear { weight, bias, activation }
    }

    /// Weights and biases uniform on ±1/√inputs, as PyTorch has them; the parameters are `NAME.weight` and `NAME.bias`.
    pub fn fan_in(s: &mut Step, name: &str, group: Group, [inputs, outputs]: [usize; 2], activation: Activation) -> Linear {
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let values = init::fan_in_uniform(s.seed(), &weight_name, outputs * inputs, inputs);
        let weight = s.parameter(weight_name, group, [outputs, inputs], values);
        let values = init::fan_in_uniform(s.seed(), &bias_name, outputs, inputs);
        let bias = s.parameter(bias_name, group, [1, outputs], values);
        Linear { weight, bias, activation }
    }

    /// Weights normal with mean 0 and this deviation, zero biases; the parameters are `NAME.weight` and `NAME.bias`.
    pub fn normal(s: &mut Step, name: &str, group: Group, [inputs, outputs]: [usize; 2], deviation: f32, activation: Activation) -> Linear {
        let weight_name = format!("{name}.weight");
        let values = init::normal(s.seed(), &weight_name, outputs * inputs, deviation);
        let weight = s.parameter(weight_name, group, [outputs, inputs], values);
        let bias = s.parameter(format!("{name}.bias"), group, [1, outputs], vec![0.0; outputs]);
        Linear { weight, bias, activation }
    }

    /// x [B, in], result [B, out].
    #[track_caller]
    pub fn forward(&self, s: &mut Step, x: Var) -> Var {
        s.linear(x, self.weight, self.bias, self.activation)
    }
}

/// Linear layers one after the other.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// The layers in order; the last has an activation of its own.
    pub layers: Vec<Linear>,
}

impl Mlp {
    /// Layers of the widths given (inputs first, outputs last): `hidden` between them and `last` at the end. Named `NAME.0`, `NAME.1`, ...
    pub fn new(s: &mut Step, name: &str, group: Group, widths: &[usize], hidden: Activation, last: Activation) -> Mlp {
        assert!(widths.len() >= 2, "{name}: a network needs an input and an output");
        let end = widths.len() - 2;
        let layer = |l: usize| {
            let f = if l == end { last } else { hidden };
            Linear::glorot(s, &format!("{name}.{l}"), group, [widths[l], widths[l + 1]], f)
        };
        Mlp { layers: (0..=end).map(layer).collect() }
    }

    /// x [B, first width], result [B, last width].
    #[track_caller]
    pub fn forward(&self, s: &mut Step, x: Var) -> Var {
        self.layers.iter().fold(x, |x, layer| layer.forward(s, x))
    }
}

/// A convolution of images, f(W ⋆ x + b).
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// W [out, in·k·k].
    pub weight: Var,
    /// b [1, out], or [`Var::NONE`].
    pub bias: Var,
    /// Channels, the input's height and width, kernel, stride, padding.
    pub shape: ConvShape,
    /// f.
    pub activation: Activation,
}

impl Conv {
    /// Weights, and biases if asked for, uniform on ±1/√(in·k·k), as PyTorch has them; the parameters are `NAME.weight` and `NAME.bias`.
    pub fn fan_in(s: &mut Step, name: &str, group: Group, shape: ConvShape, bias: bool, activation: Activation) -> Conv {
        let taps = shape.kernel * shape.kernel;
        let [weight, bias] = weight_and_bias(s, name, group, [shape.channels_out, shape.channels_in * taps], (shape.channels_out, bias));
        Conv { weight, bias, shape, activation }
    }

    /// x [B, in·H·W], result [B, out·H'·W'].
    #[track_caller]
    pub fn forward(&self, s: &mut Step, x: Var) -> Var {
        s.conv2d(x, self.weight, self.bias, self.shape, self.activation)
    }
}

/// A transposed convolution of images with bias and activation.
#[derive(Clone, Copy, Debug)]
pub struct ConvTranspose {
    /// W [in, out·k·k].
    pub weight: Var,
    /// b [1, out], or [`Var::NONE`].
    pub bias: Var,
    /// Channels, the input's height and width, kernel, stride, padding.
    pub shape: ConvShape,
    /// f.
    pub activation: Activation,
}

impl ConvTranspose {
    /// Weights, and biases if asked for, uniform on ±1/√(out·k·k): PyTorch counts the outputs here. Parameters as those of [`Conv`].
    pub fn fan_in(s: &mut Step, name: &str, group: Group, shape: ConvShape, bias: bool, activation: Activation) -> ConvTranspose {
        let taps = shape.kernel * shape.kernel;
        let [weight, bias] = weight_and_bias(s, name, group, [shape.channels_in, shape.channels_out * taps], (shape.channels_out, bias));
        ConvTranspose { weight, bias, shape, activation }
    }

    /// x [B, in·H·W], result [B, out·H'·W'].
    #[track_caller]
    pub fn forward(&self, s: &mut Step, x: Var) -> Var {
        s.conv_transpose2d(x, self.weight, self.bias, self.shape, self.activation)
    }
}

/// W [rows, cols] and, if asked for, as many biases, uniform on ±1/√cols.
fn weight_and_bias(s: &mut Step, name: &str, group: Group, [rows, cols]: [usize; 2], (biases, wanted): (usize, bool)) -> [Var; 2] {
    let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
    let values = init::fan_in_uniform(s.seed(), &weight_name, rows * cols, cols);
    let weight = s.parameter(weight_name, group, [rows, cols], values);
    if !wanted {
        return [weight, Var::NONE];
    }
    let values = init::fan_in_uniform(s.seed(), &bias_name, biases, cols);
    [weight, s.parameter(bias_name, group, [1, biases], values)]
}

/// Batch normalisation with its running statistics.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// Parameters, states and conventions.
    pub state: BatchNormState,
}

impl BatchNorm {
    /// Without scale and shift; the states are `NAME.mean` and `NAME.var`.
    pub fn plain(s: &mut Step, name: &str, width: usize, epsilon: f32, keep: f64, running: Running) -> Result<BatchNorm> {
        let mean = s.state(format!("{name}.mean"), [1, width], &vec![0.0; width])?;
        let variance = s.state(format!("{name}.var"), [1, width], &vec![1.0; width])?;
        Ok(BatchNorm { state: BatchNormState { scale: Var::NONE, shift: Var::NONE, mean, variance, epsilon, keep, running } })
    }

    /// With a learned scale (1 at first) and shift (0): `NAME.weight` and `NAME.bias`, as PyTorch calls them.
    pub fn affine(s: &mut Step, name: &str, group: Group, width: usize, epsilon: f32, keep: f64, running: Running) -> Result<BatchNorm> {
        let mut plain = BatchNorm::plain(s, name, width, epsilon, keep, running)?;
        plain.state.scale = s.parameter(format!("{name}.weight"), group, [1, width], vec![1.0; width]);
        plain.state.shift = s.parameter(format!("{name}.bias"), group, [1, width], vec![0.0; width]);
        Ok(plain)
    }

    /// x [B, width], result [B, width].
    #[track_caller]
    pub fn forward(&self, s: &mut Step, x: Var, activation: Activation) -> Var {
        s.batch_norm(x, &self.state, activation)
    }

    /// x [B, width·P]: images of `width` channels, each normalised over cells and pixels. Result [B, width·P].
    #[track_caller]
    pub fn forward_images(&self, s: &mut Step, x: Var, activation: Activation) -> Var {
        s.batch_norm_images(x, &self.state, activation)
    }
}
