//! Convolution and transposed convolution of images, with bias and activation fused in.
//!
//!   conv            y[o, i, j] = f(Σ over c, ky, kx of W[o, c, ky, kx] · x[c, s·i + ky - p, s·j + kx - p] + b_o)
//!   transposed      y[o, s·i + ky - p, s·j + kx - p] gathers W[c, o, ky, kx] · x[c, i, j] over c, i, j; then f(· + b_o)
//!   shapes          x [B cells, C·H·W], channel by channel, each row by row (NCHW), y alike; b [1, O] or none;
//!                   W [O, C·k·k] for conv, [C, O·k·k] transposed: PyTorch's weights, flattened
//!   sizes           conv H' = ⌊(H + 2p - k)/s⌋ + 1, transposed H' = (H - 1)·s - 2p + k
//!   backward        du = dy ⊙ f'(·); dx of one is the other without bias; dW[small, large·k·k] = Σ over cells and pixels of the small
//!                   image of small ⊗ patch of the large one, in both; db = Σ of du over cells and pixels
//!   kernels         conv_{gather,scatter,weight}_{f32,tf32,bf16}, each also _k4s2p1_; conv_parts_sum, channel_sum       (kernels/conv.cu)
//!
//! Both are one geometry seen from two sides: conv goes from the large image to the small one (`gather`), transposed from the small one
//! to the large one (`scatter`). On the processor `gather` and `weight` are one chain of multiply-adds an element and `scatter` one a tap
//! (`device::cpu_gemm::conv`); on a GPU the sums are cut into parts that are added in order.

use super::activation::Activation;
use crate::device::cpu_gemm::conv::{self as host, Geometry};
use crate::device::launch::{Arg, Grid};
use crate::engine::tape::{Node, Op};
use crate::engine::{Precision, Step, Var};

mod launch;

static CONV: Op = Op { name: "conv2d", backward: |s, node| backward(s, node, false) };
static CONV_TRANSPOSE: Op = Op { name: "conv_transpose2d", backward: |s, node| backward(s, node, true) };

/// What a convolution, transposed or not, is told of its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// C of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// H of the input.
    pub height: usize,
    /// W of the input.
    pub width: usize,
    /// k, the side of the square kernel.
    pub kernel: usize,
    /// s.
    pub stride: usize,
    /// p, rows and columns of zeros on every side.
    pub padding: usize,
}

impl ConvShape {
    /// Height and width of what `conv2d` makes.
    #[track_caller]
    pub fn output(&self) -> [usize; 2] {
        let ConvShape { kernel: k, stride: s, padding: p, .. } = *self;
        [self.height, self.width].map(|n| {
            assert!(k > 0 && s > 0 && n + 2 * p >= k, "conv2d: a kernel of {k} with stride {s} on {n} pixels with {p} of padding");
            (n + 2 * p - k) / s + 1
        })
    }

    /// Height and width of what `conv_transpose2d` makes.
    #[track_caller]
    pub fn transposed_output(&self) -> [usize; 2] {
        let ConvShape { kernel: k, stride: s, padding: p, .. } = *self;
        [self.height, self.width].map(|n| {
            assert!(
                k > 0 && s > 0 && n > 0 && (n - 1) * s + k > 2 * p,
                "conv_transpose2d: a kernel of {k} with stride {s} and padding {p} on {n} pixels"
            );
            (n - 1) * s + k - 2 * p
        })
    }
}

impl Step {
    /// f(convolution of x with w, plus b). x [B, in·H·W], w [out, in·k·k], b [1, out] or [`Var::NONE`]; result [B, out·H'·W'].
    #[track_caller]
    pub fn conv2d(&mut self, x: Var, w: Var, b: Var, shape: ConvShape, activation: Activation) -> Var {
        let [h, width] = shape.output();
        let large = [shape.channels_in, shape.height, shape.width];
        self.convolution(false, [x, w, b], shape, [shape.channels_out, h, width], large, activation)
    }

    /// f(transposed convolution of x with w, plus b). x [B, in·H·W], w [in, out·k·k], b [1, out] or [`Var::NONE`];
    /// result [B, out·H'·W'].
    #[track_caller]
    pub fn conv_transpose2d(&mut self, x: Var, w: Var, b: Var, shape: ConvShape, activation: Activation) -> Var {
        let [h, width] = shape.transposed_output();
        let small = [shape.channels_in, shape.height, shape.width];
        self.convolution(true, [x, w, b], shape, small, [shape.channels_out, h, width], activation)
    }

    #[track_caller]
    fn convolution(
        &mut self,
        transposed: bool,
        [x, w, b]: [Var; 3],
        shape: ConvShape,
        small: [usize; 3],
        large: [usize; 3],
        activation: Activation,
    ) -> Var {
        let op = if transposed { &CONV_TRANSPOSE } else { &CONV };
        let ([batch, cols], [rows, taps]) = (self.dims(x), self.dims(w));
        let pixels = |image: [usize; 3]| image.iter().product::<usize>();
        let (input, output) = if transposed { (small, large) } else { (large, small) };
        assert!(
            cols == pixels(input) && rows == small[0] && taps == large[0] * shape.kernel * shape.kernel,
            "{}: x is [cells {batch}, {cols}], W is [{rows}, {taps}] for {shape:?}",
            op.name
        );
        if !b.is_none() {
            assert_eq!(self.dims(b), [1, output[0]], "{}: the bias of {shape:?}", op.name);
        }
        let g = Geometry { batch, large, small, kernel: shape.kernel, stride: shape.stride, padding: shape.padding };
        let y = self.alloc([batch, pixels(output)]);
        let product = if transposed { Step::conv_scatter } else { Step::conv_gather };
        product(self, &g, y, x, w, false, b, activation);
        let small_numbers = [shape.kernel, shape.stride, shape.padding, activation.code() as usize];
        assert!(small_numbers.iter().all(|&n| n < 256), "{}: kernel, stride and padding are below 256, not {shape:?}", op.name);
        let packed = small_numbers.iter().fold(0, |all, &n| all << 8 | n as u32);
        // The large image's size says the small one's; the reverse is not so where rows are left over.
        let n = [packed, large[0] as u32, large[1] as u32, large[2] as u32];
        self.record(op, [x, w, b], y, [activation.parameter(), 0.0, 0.0, 0.0], n);
        y
    }

    /// small (+)= W ⋆ large, then bias and activation (not on a sum).
    #[allow(clippy::too_many_arguments)] // a product's own
    fn conv_gather(&mut self, g: &Geometry, small: Var, large: Var, w: Var, add: bool, bias: Var, f: Activation) {
        if self.size(small) == 0 {
            return;
        }
        if self.on_cpu() {
            let bias = self.or_empty(bias);
            let ([small], [large, w, bias]) = self.views([small], [large, w, bias]);
            host::gather(
                g,
                small,
                large,
                w,
                add,
                #[inline(always)]
                |channel, values| finish(channel, values, bias, f),
            );
        } else {
            self.conv_launch(launch::Product::Gather, g, small, [w, large], add, bias, f);
        }
    }

    /// large (+)= overlap-add of Wᵀ·small, then bias and activation (not on a sum).
    #[allow(clippy::too_many_arguments)] // as above
    fn conv_scatter(&mut self, g: &Geometry, large: Var, small: Var, w: Var, add: bool, bias: Var, f: Activation) {
        if self.size(large) == 0 {
            return;
        }
        if self.on_cpu() {
            let bias = self.or_empty(bias);
            let ([large], [small, w, bias]) = self.views([large], [small, w, bias]);
            host::scatter(
                g,
                large,
                small,
                w,
                add,
                #[inline(always)]
                |channel, values| finish(channel, values, bias, f),
            );
        } else {
            self.conv_launch(launch::Product::Scatter, g, large, [w, small], add, bias, f);
        }
    }

    /// dw (+)= Σ small ⊗ patches of large.
    pub(crate) fn conv_weight(&mut self, g: &Geometry, dw: Var, small: Var, large: Var, add: bool) {
        if self.on_cpu() {
            let ([dw], [small, large]) = self.views([dw], [small, large]);
            host::weight(g, dw, small, large, add);
        } else if self.size(dw) > 0 {
            self.conv_launch(launch::Product::Weight, g, dw, [small, large], add, Var::NONE, Activation::Identity);
        }
    }

    /// s (+)= the sums over cells and pixels of the channels of x [B, C·P]; s is [1, C].
    #[track_caller]
    pub fn channel_sum(&mut self, s: Var, x: Var, add: bool) {
        let ([rows, cols], [one, channels]) = (self.dims(x), self.dims(s));
        assert!(one == 1 && channels > 0 && cols % channels == 0, "channel_sum: x is [cells {rows}, {cols}] for {channels} channels");
        let pixels = cols / channels;
        if self.on_cpu() {
            let ([s], [x]) = self.views([s], [x]);
            super::images::each_channel(s, rows * cols, |c, s| {
                let sum = super::images::channel_sums([x], cols, c, pixels, |[x]| [x as f64])[0] as f32;
                *s = if add { *s + sum } else { sum };
            });
        } else {
            let args = [self.ptr(s), self.ptr(x), rows.into(), channels.into(), pixels.into(), add.into()];
            self.launch("channel_sum", Grid::blocks(channels, 256), &args);
        }
    }
}

/// Bias and activation of part of a channel.
#[inline(always)]
fn finish(channel: usize, values: &mut [f32], bias: &[f32], f: Activation) {
    if let Some(b) = bias.get(channel) {
        values.iter_mut().for_each(|v| *v += b);
    }
    f.apply(values);
}

fn backward(s: &mut Step, node: &Node, transposed: bool) {
    let [x, w, b, ..] = node.x;
    let [packed, large @ ..] = node.n;
    let [kernel, stride, padding, code] = [24, 16, 8, 0].map(|shift| (packed >> shift & 255) as usize);
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let du = s.activation_backward(Activation::from_code(code as i32, node.k[0]), node.y, dy);
    let large = large.map(|n| n as usize);
    let [oh, ow] = [large[1], large[2]].map(|n| (n + 2 * padding - kernel) / stride + 1);
    let g = Geometry { batch: s.dims(x)[0], large, small: [s.dims(w)[0], oh, ow], kernel, stride, padding };
    if s.wants(w) {
        let (dw, add) = s.grad_slot(w);
        let (small, large) = if transposed { (x, du) } else { (du, x) };
        s.conv_weight(&g, dw, small, large, add);
    }
    if s.wants(b) {
        let (db, add) = s.grad_slot(b);
        s.channel_sum(db, du, add);
    }
    if s.wants(x) {
        let (dx, add) = s.grad_slot(x);
        let product = if transposed { Step::conv_gather } else { Step::conv_scatter };
        product(s, &g, dx, du, w, add, Var::NONE, Activation::Identity);
    }
}

#[cfg(test)]
mod tests;
