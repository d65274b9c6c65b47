//! Batch normalisation of images: the statistics of a channel are over the cells of a minibatch and the channel's pixels.
//!
//!   mathematics  that of `batch_norm`, with B·P values for its B: unbiased variance v·B·P/(B·P - 1)
//!   shapes       x, y [B cells, C·P] (channel by channel); γ, β [1, C] or none; running mean and variance [1, C]
//!   kernels      batch_norm_images_fwd, batch_norm_images_bwd                          (kernels/batch_norm_images.cu)
//!
//! Sums are in f64: on the processor in the order of the cells, eight running sums side by side along the pixels.

use super::activation::Activation;
use super::batch_norm::{BatchNormState, Running};
use super::images::{channel_sums, each_channel};
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static BATCH_NORM_IMAGES: Op = Op { name: "batch_norm_images", backward };

impl Step {
    /// f(batch norm of the channels of x). x [B, C·P], C that of the state; result [B, C·P]. Training needs B·P ≥ 2.
    #[track_caller]
    pub fn batch_norm_images(&mut self, x: Var, state: &BatchNormState, activation: Activation) -> Var {
        let ([rows, cols], [one, channels]) = (self.dims(x), self.dims(state.mean));
        assert!(
            one == 1 && channels > 0 && cols % channels == 0,
            "batch_norm_images: x is [cells {rows}, {cols}], the state is for {:?}",
            self.dims(state.mean)
        );
        let pixels = cols / channels;
        let (training, count) = (self.training(), rows * pixels);
        assert!(!training || count >= 2, "batch_norm_images: statistics of {count} values a channel");
        let (y, saved) = (self.alloc([rows, cols]), self.alloc([2, channels])); // saved: mean, 1/√(v + ε)
        let unbiased = if state.running == Running::Unbiased { count as f32 / (count as f32 - 1.0).max(1.0) } else { 1.0 };
        let (keep, take) = (state.keep as f32, (1.0 - state.keep) as f32);
        if self.on_cpu() {
            if training {
                let moments = self.alloc([channels, 2]); // mean, variance
                let ([moments, saved, mean, variance], [x]) = self.views([moments, saved, state.mean, state.variance], [x]);
                statistics(moments, x, cols, pixels);
                for c in 0..channels {
                    let [mu, v] = [moments[2 * c], moments[2 * c + 1]];
                    saved[c] = mu;
                    saved[channels + c] = (1.0 / (v as f64 + state.epsilon as f64).sqrt()) as f32;
                    mean[c] = keep * mean[c] + take * mu;
                    variance[c] = keep * variance[c] + take * (v * unbiased);
                }
            } else {
                let ([saved], [mean, variance]) = self.views([saved], [state.mean, state.variance]);
                saved[..channels].copy_from_slice(mean);
                saved[channels..].iter_mut().zip(variance).for_each(|(s, v)| *s = 1.0 / (v + state.epsilon).sqrt());
            }
            let (scale, shift) = (self.or_empty(state.scale), self.or_empty(state.shift));
            let ([y], [x, saved, scale, shift]) = self.views([y], [x, saved, scale, shift]);
            channels_of(y, cols, pixels, |start, c, y| {
                let (mean, inverse) = (saved[c], saved[channels + c]);
                let (g, b) = (scale.get(c).copied().unwrap_or(1.0), shift.get(c).copied().unwrap_or(0.0));
                y.iter_mut().zip(&x[start..]).for_each(|(y, x)| *y = (x - mean) * inverse * g + b);
                activation.apply(y);
            });
        } else {
            let args = [
                self.ptr(y),
                self.ptr(saved),
                self.ptr(state.mean),
                self.ptr(state.variance),
                self.ptr(x),
                self.ptr(state.scale),
                self.ptr(state.shift),
                rows.into(),
                channels.into(),
                pixels.into(),
                state.epsilon.into(),
                keep.into(),
                take.into(),
                unbiased.into(),
                training.into(),
                activation.code().into(),
                activation.parameter().into(),
            ];
            self.launch("batch_norm_images_fwd", Grid::blocks(channels, 256), &args);
        }
        let n = [activation.code() as u32, training as u32, 0, 0];
        self.record(&BATCH_NORM_IMAGES, [x, state.scale, state.shift, saved], y, [activation.parameter(), 0.0, 0.0, 0.0], n);
        y
    }
}

/// Calls `f(where it begins, channel, its pixels)` for every channel of every cell of y [B, C·P], over the cores.
fn channels_of(y: &mut [f32], cols: usize, pixels: usize, f: impl Fn(usize, usize, &mut [f32]) + Sync + Send) {
    cpu::rows(y, cols, |r, y| {
        vectorised(
            #[inline(always)]
            || y.chunks_exact_mut(pixels).enumerate().for_each(|(c, y)| f(r * cols + c * pixels, c, y)),
        )
    });
}

/// Mean and biased variance of every channel of x, into `moments` [C, 2]; in two passes: the statistics decide everything after them.
fn statistics(moments: &mut [f32], x: &[f32], cols: usize, pixels: usize) {
    let count = (x.len() / cols.max(1) * pixels) as f64;
    each_channel(moments.as_chunks_mut::<2>().0, x.len(), |c, m| {
        let [sum] = channel_sums([x], cols, c, pixels, |[x]| [x as f64]);
        let mean = sum / count;
        let [squares] = channel_sums([x], cols, c, pixels, |[x]| [(x as f64 - mean) * (x as f64 - mean)]);
        *m = [mean as f32, (squares / count) as f32];
    });
}

fn backward(s: &mut Step, node: &Node) {
    let [x, scale, shift, saved, ..] = node.x;
    let ([rows, cols], [_, channels]) = (s.dims(x), s.dims(saved));
    let pixels = cols / channels;
    let (activation, training) = (Activation::from_code(node.n[0] as i32, node.k[0]), node.n[1] != 0);
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let du = s.activation_backward(activation, node.y, dy);
    let mut slot = |v: Var| if s.wants(v) { s.grad_slot(v) } else { (Var::NONE, false) };
    let ((dx, add), (d_scale, add_scale), (d_shift, add_shift)) = (slot(x), slot(scale), slot(shift));
    if s.on_cpu() {
        let sums = s.alloc([channels, 2]); // Σ du, Σ du·x̂
        let ([out], [du_, x_, saved_]) = s.views([sums], [du, x, saved]);
        each_channel(out.as_chunks_mut::<2>().0, rows * cols, |c, out| {
            let (mean, inverse) = (saved_[c], saved_[channels + c]);
            let term = |[du, x]: [f32; 2]| [du as f64, (du * ((x - mean) * inverse)) as f64];
            *out = channel_sums([du_, x_], cols, c, pixels, term).map(|sum| sum as f32);
        });
        for (which, (slot, add)) in [(0, (d_shift, add_shift)), (1, (d_scale, add_scale))] {
            let slot = s.or_empty(slot);
            let ([slot], [sums]) = s.views([slot], [sums]);
            slot.iter_mut().zip(sums.as_chunks::<2>().0).for_each(|(d, sums)| *d = if add { *d } else { 0.0 } + sums[which]);
        }
        if !dx.is_none() {
            let scale = s.or_empty(scale);
            let ([dx], [du, x, saved, scale, sums]) = s.views([dx], [du, x, saved, scale, sums]);
            let over = if training { 1.0 / (rows * pixels) as f32 } else { 0.0 };
            channels_of(dx, cols, pixels, |start, c, dx| {
                let (mean, inverse) = (saved[c], saved[channels + c]);
                let (sum, dot) = (sums[2 * c] * over, sums[2 * c + 1] * over);
                let g = inverse * scale.get(c).copied().unwrap_or(1.0);
                for ((dx, du), x) in dx.iter_mut().zip(&du[start..]).zip(&x[start..]) {
                    let d = g * (du - sum - (x - mean) * inverse * dot);
                    *dx = if add { *dx + d } else { d };
                }
            });
        }
    } else {
        let args = [
            s.ptr(dx),
            s.ptr(d_scale),
            s.ptr(d_shift),
            s.ptr(du),
            s.ptr(x),
            s.ptr(saved),
            s.ptr(scale),
            rows.into(),
            channels.into(),
            pixels.into(),
            training.into(),
            add.into(),
            add_scale.into(),
            add_shift.into(),
        ];
        s.launch("batch_norm_images_bwd", Grid::blocks(channels, 256), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// Batch norm of columns, of x with the pixels of a channel laid below one another.
    fn reference(x: &[f64], [gamma, beta]: [&[f64]; 2], [rows, channels, pixels]: [usize; 3], f: Activation) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for c in 0..channels {
            let at: Vec<usize> = (0..rows * pixels).map(|i| (i / pixels * channels + c) * pixels + i % pixels).collect();
            let mean = at.iter().map(|&i| x[i]).sum::<f64>() / at.len() as f64;
            let variance = at.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f64>() / at.len() as f64;
            for i in at {
                y[i] = f.exact((x[i] - mean) / (variance + 1e-5).sqrt() * gamma[c] + beta[c]);
            }
        }
        y
    }

    fn state(s: &mut Step, channels: usize, scale: Var, shift: Var) -> BatchNormState {
        let (mean, variance) = (s.constant([1, channels], &vec![0.0; channels]), s.constant([1, channels], &vec![1.0; channels]));
        BatchNormState { scale, shift, mean, variance, epsilon: 1e-5, keep: 0.9, running: Running::Unbiased }
    }

    #[test]
    fn value_and_gradient_match_the_reference_in_training() {
        for size @ [rows, channels, pixels] in [[2, 3, 1], [1, 2, 9], [5, 3, 4], [3, 33, 7], [4, 2, 64]] {
            for f in [Activation::Identity, Activation::LeakyRelu(0.2)] {
                prove(
                    &[operand([rows, channels * pixels], 1), operand([1, channels], 2), operand([1, channels], 3)],
                    1e-4, // channels of two values amplify rounding by 1/√v
                    |s, v| {
                        let st = state(s, channels, v[1], v[2]);
                        s.batch_norm_images(v[0], &st, f)
                    },
                    |x| reference(&x[0], [&x[1], &x[2]], size, f),
                );
            }
        }
    }

    #[test]
    fn one_pixel_a_channel_is_batch_norm_of_columns() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let x = s.constant([9, 5], &values(45, 1));
            let (a, b) = (state(&mut s, 5, Var::NONE, Var::NONE), state(&mut s, 5, Var::NONE, Var::NONE));
            let (y, z) = (s.batch_norm_images(x, &a, Activation::Elu), s.batch_norm(x, &b, Activation::Elu));
            for (what, y, z) in [("value", y, z), ("mean", a.mean, b.mean), ("variance", a.variance, b.variance)] {
                let (y, z) = (s.download(y).unwrap(), s.download(z).unwrap());
                compare(&format!("{device}: {what}"), &y, &z.iter().map(|&v| v as f64).collect::<Vec<_>>(), 1e-6);
            }
        }
    }

    #[test]
    fn evaluation_uses_the_running_statistics_and_leaves_them() {
        for (device, mut s) in steps() {
            let mean = s.state("m", [1, 2], &[1.0, 2.0]).unwrap();
            let variance = s.state("v", [1, 2], &[4.0, 0.25]).unwrap();
            let st =
                BatchNormState { scale: Var::NONE, shift: Var::NONE, mean, variance, epsilon: 0.0, keep: 0.75, running: Running::Unbiased };
            s.begin(false, 1, 0).unwrap();
            let x = s.constant([1, 4], &[1.0, 5.0, 1.0, 2.5]);
            let y = s.batch_norm_images(x, &st, Activation::Identity);
            compare(device, &s.download(y).unwrap(), &[0.0, 2.0, -2.0, 1.0], 1e-6);
            s.begin(true, 2, 0).unwrap();
            let x = s.constant([1, 4], &[1.0, 5.0, 1.0, 2.0]); // means 3 and 1.5, unbiased variances 8 and 0.5
            s.batch_norm_images(x, &st, Activation::Identity);
            compare(device, &s.download(mean).unwrap(), &[1.5, 1.875], 1e-6);
            compare(device, &s.download(variance).unwrap(), &[5.0, 0.3125], 1e-6);
        }
    }

    #[test]
    #[should_panic(expected = "batch_norm_images: x is [cells 2, 7], the state is for [1, 2]")]
    fn channels_that_do_not_divide_the_columns_panic() {
        let mut s = Step::new(crate::device::Device::cpu(), 0, crate::engine::Precision::F32).unwrap();
        s.begin(true, 1, 0).unwrap();
        let x = s.alloc([2, 7]);
        let st = state(&mut s, 2, Var::NONE, Var::NONE);
        s.batch_norm_images(x, &st, Activation::Identity);
    }
}
