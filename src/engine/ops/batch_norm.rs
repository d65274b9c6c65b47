//! Batch normalisation over the cells of a minibatch, with scale, shift and activation fused in.
//!
//!   training     m_c = mean over cells, v_c = mean of squares about it (biased), x̂ = (x - m)/√(v + ε), y = f(γ x̂ + β)
//!                running ← keep · running + (1 - keep) · (m, v or v·B/(B-1))
//!   evaluation   the same with the running statistics; they do not change
//!   backward     du = dy ⊙ f'(·),  dβ = Σ du,  dγ = Σ du x̂,
//!                dx = γ/√(v + ε) · (du - mean(du) - x̂ mean(du x̂))                (training)
//!                dx = γ/√(v + ε) · du                                              (evaluation)
//!   shapes       x, y [B cells, D features]; γ, β [1, D] or none; running mean and variance [1, D]
//!   kernels      batch_norm_fwd, batch_norm_bwd                                      (kernels/batch_norm.cu)
//!
//! Two conventions that bite: `keep` is Keras's momentum (PyTorch's is 1 - keep), and PyTorch puts the unbiased variance
//! into the running one (`Running::Unbiased`), Keras the biased one.

mod host;

use super::activation::Activation;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};
use host::BLOCK;

static BATCH_NORM: Op = Op { name: "batch_norm", backward };

/// Which variance the running statistics follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// Divided by B: Keras, the coupled autoencoder.
    Biased,
    /// Divided by B - 1: PyTorch.
    Unbiased,
}

/// What a batch norm keeps and how.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormState {
    /// γ [1, D], or [`Var::NONE`] for 1.
    pub scale: Var,
    /// β [1, D], or [`Var::NONE`] for 0.
    pub shift: Var,
    /// Running mean, a state [1, D].
    pub mean: Var,
    /// Running variance, a state [1, D].
    pub variance: Var,
    /// ε.
    pub epsilon: f32,
    /// The share of the running statistics that a step keeps.
    pub keep: f64,
    /// Which variance runs.
    pub running: Running,
}

impl Step {
    /// f(batch norm of x). x [B, D]; result [B, D]. Training needs B ≥ 2.
    #[track_caller]
    pub fn batch_norm(&mut self, x: Var, state: &BatchNormState, activation: Activation) -> Var {
        let [rows, cols] = self.dims(x);
        assert_eq!(
            self.dims(state.mean),
            [1, cols],
            "batch_norm: x is [cells {rows}, features {cols}], the state is for {:?}",
            self.dims(state.mean)
        );
        let training = self.training();
        assert!(!training || rows >= 2, "batch_norm: statistics of {rows} cells");
        let (y, saved) = (self.alloc([rows, cols]), self.alloc([2, cols])); // saved: mean, 1/√(v + ε)
        let unbiased = if state.running == Running::Unbiased { rows as f32 / (rows as f32 - 1.0).max(1.0) } else { 1.0 };
        let (keep, take) = (state.keep as f32, (1.0 - state.keep) as f32);
        if self.on_cpu() {
            if training {
                let ([saved, mean, variance], [x]) = self.views([saved, state.mean, state.variance], [x]);
                let (m, inverse) = saved.split_at_mut(cols);
                host::statistics(x, cols, m, inverse, host::Move { mean, variance, keep, take, unbiased }, state.epsilon as f64);
            } else {
                let ([saved], [mean, variance]) = self.views([saved], [state.mean, state.variance]);
                saved[..cols].copy_from_slice(mean);
                saved[cols..].iter_mut().zip(variance).for_each(|(s, v)| *s = 1.0 / (v + state.epsilon).sqrt());
            }
            let (scale, shift) = (self.or_empty(state.scale), self.or_empty(state.shift));
            let ([y], [x, saved, scale, shift]) = self.views([y], [x, saved, scale, shift]);
            let (m, inverse) = saved.split_at(cols);
            host::normalise(y, x, [m, inverse, scale, shift], activation);
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
                cols.into(),
                state.epsilon.into(),
                keep.into(),
                take.into(),
                unbiased.into(),
                training.into(),
                activation.code().into(),
                activation.parameter().into(),
            ];
            self.launch("batch_norm_fwd", grid(cols), &args);
        }
        let n = [activation.code() as u32, training as u32, 0, 0];
        self.record(&BATCH_NORM, [x, state.scale, state.shift, saved], y, [activation.parameter(), 0.0, 0.0, 0.0], n);
        y
    }

    /// `v`, or an empty matrix for [`Var::NONE`]: what a view of an absent operand is.
    pub(super) fn or_empty(&mut self, v: Var) -> Var {
        if v.is_none() { self.alloc([0, 0]) } else { v }
    }
}

fn grid(cols: usize) -> Grid {
    Grid { blocks: [cols.div_ceil(32).max(1) as u32, 1, 1], threads: [32, 8, 1], shared: 0 }
}

fn backward(s: &mut Step, node: &Node) {
    let [x, scale, shift, saved, ..] = node.x;
    let [rows, cols] = s.dims(x);
    let (activation, training) = (Activation::from_code(node.n[0] as i32, node.k[0]), node.n[1] != 0);
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let du = s.activation_backward(activation, node.y, dy);
    let mut slot = |v: Var| if s.wants(v) { s.grad_slot(v) } else { (Var::NONE, false) };
    let ((dx, add), (d_scale, add_scale), (d_shift, add_shift)) = (slot(x), slot(scale), slot(shift));
    if s.on_cpu() {
        let sums = s.alloc([cols.div_ceil(BLOCK), 2 * BLOCK]);
        let ([out], [du_, x_, saved_]) = s.views([sums], [du, x, saved]);
        host::sums(out, du_, x_, &saved_[..cols], &saved_[cols..]);
        for (which, (slot, add)) in [(0, (d_shift, add_shift)), (1, (d_scale, add_scale))] {
            let slot = s.or_empty(slot);
            let ([slot], [sums]) = s.views([slot], [sums]);
            for (c, d) in slot.iter_mut().enumerate() {
                *d = if add { *d } else { 0.0 } + sums[(2 * (c / BLOCK) + which) * BLOCK + c % BLOCK];
            }
        }
        if !dx.is_none() {
            let scale = s.or_empty(scale);
            let ([dx], [du, x, saved, scale, sums]) = s.views([dx], [du, x, saved, scale, sums]);
            host::input_gradient(dx, add, training, [du, x, &saved[..cols], &saved[cols..], scale, sums]);
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
            cols.into(),
            training.into(),
            add.into(),
            add_scale.into(),
            add_shift.into(),
        ];
        s.launch("batch_norm_bwd", grid(cols), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(x: &[f64], gamma: Option<&[f64]>, beta: Option<&[f64]>, [rows, cols]: [usize; 2], eps: f64, f: Activation) -> Vec<f64> {
        let mut y = vec![0.0; rows * cols];
        for c in 0..cols {
            let mean = (0..rows).map(|r| x[r * cols + c]).sum::<f64>() / rows as f64;
            let var = (0..rows).map(|r| (x[r * cols + c] - mean).powi(2)).sum::<f64>() / rows as f64;
            for r in 0..rows {
                let x_hat = (x[r * cols + c] - mean) / (var + eps).sqrt();
                y[r * cols + c] = f.exact(x_hat * gamma.map_or(1.0, |g| g[c]) + beta.map_or(0.0, |b| b[c]));
            }
        }
        y
    }

    /// Running statistics of the step, made by hand because `prove` starts the step itself.
    fn state(s: &mut Step, cols: usize, scale: Var, shift: Var) -> BatchNormState {
        let (mean, variance) = (s.constant([1, cols], &vec![0.0; cols]), s.constant([1, cols], &vec![1.0; cols]));
        BatchNormState { scale, shift, mean, variance, epsilon: 1e-5, keep: 0.9, running: Running::Unbiased }
    }

    #[test]
    fn value_and_gradient_match_the_reference_in_training() {
        for [rows, cols] in [[2, 1], [13, 3], [33, 31], [100, 33], [7, 65]] {
            for f in [Activation::Identity, Activation::LeakyRelu(0.2)] {
                prove(
                    &[operand([rows, cols], 1), operand([1, cols], 2), operand([1, cols], 3)],
                    2e-4, // near-constant columns of two cells amplify rounding by 1/√v
                    |s, v| {
                        let st = state(s, cols, v[1], v[2]);
                        s.batch_norm(v[0], &st, f)
                    },
                    |x| reference(&x[0], Some(&x[1]), Some(&x[2]), [rows, cols], 1e-5, f),
                );
            }
            prove(
                &[operand([rows, cols], 4)],
                2e-4,
                |s, v| {
                    let st = state(s, cols, Var::NONE, Var::NONE);
                    s.batch_norm(v[0], &st, Activation::Identity)
                },
                |x| reference(&x[0], None, None, [rows, cols], 1e-5, Activation::Identity),
            );
        }
    }

    #[test]
    fn running_statistics_follow_the_minibatch_and_are_used_in_evaluation() {
        for (device, mut s) in steps() {
            let mean = s.state("m", [1, 1], &[0.0]).unwrap();
            let variance = s.state("v", [1, 1], &[1.0]).unwrap();
            let st = |running| BatchNormState { scale: Var::NONE, shift: Var::NONE, mean, variance, epsilon: 0.0, keep: 0.75, running };
            s.begin(true, 1, 0).unwrap();
            let x = s.constant([3, 1], &[1.0, 3.0, 8.0]); // mean 4, biased variance 26/3, unbiased 13
            s.batch_norm(x, &st(Running::Unbiased), Activation::Identity);
            compare(device, &s.download(mean).unwrap(), &[1.0], 1e-6);
            compare(device, &s.download(variance).unwrap(), &[0.75 + 13.0 / 4.0], 1e-6);
            s.begin(false, 2, 0).unwrap();
            let x = s.constant([2, 1], &[1.0, 3.0]);
            let y = s.batch_norm(x, &st(Running::Biased), Activation::Identity);
            compare(device, &s.download(y).unwrap(), &[0.0, 1.0], 1e-6);
            compare(device, &s.download(mean).unwrap(), &[1.0], 1e-6);
        }
    }

    #[test]
    fn a_constant_column_gives_zeros_and_a_finite_gradient() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let x = s.leaf([4, 1], &[3.0; 4]);
            let st = state(&mut s, 1, Var::NONE, Var::NONE);
            let y = s.batch_norm(x, &BatchNormState { epsilon: 1e-10, ..st }, Activation::Identity);
            assert_eq!(s.download(y).unwrap(), [0.0; 4], "{device}");
            let dy = s.constant([4, 1], &[1.0, -1.0, 0.5, 2.0]);
            s.backward_from(y, dy);
            let g = s.grad(x).unwrap();
            assert!(s.download(g).unwrap().iter().all(|g| g.is_finite()), "{device}");
        }
    }
}
