//! Losses over a minibatch: one scalar each, no weights between terms.
//!
//!   masked_mse   L = Σ_rc w_r m_rc (y_rc - t_rc)² / N,   m_rc = 0 where the target is missing (NaN), else 1
//!                N = Σ_rc w_r m_rc  (`MissingIn::Observed`), or w's sum times the features (`MissingIn::All`)
//!                with a sigmoid or other output activation applied before, in the layer
//!   backward     dy_rc = dL · 2 w_r m_rc (y_rc - t_rc) / N, and dt = -dy for a target that is computed (its entries are all there)
//!   shapes       y, t [B cells, D features], w [B, 1] or none, L [1, 1]; N = 0 gives L = 0 and no gradient
//!   kernels      mse_rows, mse_total, mse_bwd                                        (kernels/losses.cu)

use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static MSE: Op = Op { name: "masked_mse", backward: mse_backward };

/// What the mean of a masked loss divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingIn {
    /// The observed entries: a cell with few of them counts less.
    Observed,
    /// All entries, missing ones too: the published code of the coupled autoencoder.
    All,
}

impl Step {
    /// The mean of (a - b)² over all entries, with gradients to both. a, b [B, D]; result [1, 1].
    #[track_caller]
    pub fn mean_square(&mut self, a: Var, b: Var) -> Var {
        self.masked_mse(a, b, Var::NONE, MissingIn::All)
    }

    /// The mean squared error over the observed entries of `target`, rows weighted by `weights`.
    /// y, target [B, D]; weights [B, 1] or [`Var::NONE`]; result [1, 1].
    #[track_caller]
    pub fn masked_mse(&mut self, y: Var, target: Var, weights: Var, divide_by: MissingIn) -> Var {
        let [rows, cols] = self.dims(y);
        assert_eq!(self.dims(target), [rows, cols], "masked_mse: y is [{rows}, {cols}], the target is {:?}", self.dims(target));
        assert!(weights.is_none() || self.size(weights) == rows, "masked_mse: one weight a row");
        // loss [1, 1]; totals: Σ of squares, N; partial: the same a row
        let (loss, totals) = (self.alloc([1, 1]), self.alloc([1, 2]));
        let partial = self.alloc([rows, 2]);
        let all = divide_by == MissingIn::All;
        if self.on_cpu() {
            let w = if weights.is_none() { self.alloc([0, 1]) } else { weights };
            let ([loss, totals, partial], [y, t, w]) = self.views([loss, totals, partial], [y, target, w]);
            let work = |r: usize, out: &mut [f32]| {
                let weight = w.get(r).copied().unwrap_or(1.0);
                let (sum, seen) = squares(&y[r * cols..(r + 1) * cols], &t[r * cols..(r + 1) * cols]);
                (out[0], out[1]) = (weight * sum, weight * if all { cols as f32 } else { seen });
            };
            if rows * cols < cpu::SERIAL {
                partial.chunks_exact_mut(2).enumerate().for_each(|(r, out)| work(r, out));
            } else {
                use rayon::prelude::*;
                partial
                    .par_chunks_exact_mut(2)
                    .enumerate()
                    .with_min_len((cpu::SERIAL / 4).div_ceil(cols.max(1)))
                    .for_each(|(r, out)| work(r, out));
            }
            let sum = sum_f64(partial.chunks_exact(2).map(|p| p[0] as f64));
            let n = sum_f64(partial.chunks_exact(2).map(|p| p[1] as f64));
            (totals[0], totals[1]) = (sum as f32, n as f32);
            loss[0] = if n > 0.0 { (sum / n) as f32 } else { 0.0 };
        } else {
            let args = [self.ptr(partial), self.ptr(y), self.ptr(target), self.ptr(weights), rows.into(), cols.into(), all.into()];
            self.launch("mse_rows", Grid::blocks(rows, 256), &args);
            let args = [self.ptr(loss), self.ptr(totals), self.ptr(partial), rows.into()];
            self.launch("mse_total", Grid::blocks(1, 256), &args);
        }
        self.record(&MSE, [y, target, weights, totals], loss, [0.0; 4], [0; 4]);
        loss
    }
}

/// Σ (y - t)² over the observed entries of a row, and how many there are. Not compiled for wider vectors: that took three times as long.
fn squares(y: &[f32], t: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut sum, mut seen) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut add = |k: usize, y: f32, t: f32| {
        let observed = !t.is_nan();
        let d = if observed { y - t } else { 0.0 };
        sum[k] += d * d;
        seen[k] += observed as u32 as f32;
    };
    let (ys, ts) = (y.chunks_exact(LANES), t.chunks_exact(LANES));
    let rest = ys.remainder().iter().zip(ts.remainder());
    for (y, t) in ys.zip(ts) {
        for k in 0..LANES {
            add(k, y[k], t[k]);
        }
    }
    rest.enumerate().for_each(|(k, (&y, &t))| add(k, y, t));
    (sum.iter().sum(), seen.iter().sum())
}

fn mse_backward(s: &mut Step, node: &Node) {
    let [y, target, weights, totals, ..] = node.x;
    // The same from either side: with y and the target exchanged, the gradient is the target's.
    for (y, target) in [(y, target), (target, y)] {
        if s.wants(y) {
            mse_gradient(s, node.y, [y, target, weights, totals]);
        }
    }
}

fn mse_gradient(s: &mut Step, loss: Var, [y, target, weights, totals]: [Var; 4]) {
    let dl = s.grad(loss).expect("the gradient has arrived");
    let [rows, cols] = s.dims(y);
    let (dy, add) = s.grad_slot(y);
    if s.on_cpu() {
        let w = if weights.is_none() { s.alloc([0, 1]) } else { weights };
        let ([dy], [y, t, w, totals, dl]) = s.views([dy], [y, target, w, totals, dl]);
        let scale = if totals[1] > 0.0 { 2.0 * dl[0] / totals[1] } else { 0.0 };
        cpu::rows(dy, cols, |r, dy| {
            let g = scale * w.get(r).copied().unwrap_or(1.0);
            let (y, t) = (&y[r * cols..(r + 1) * cols], &t[r * cols..(r + 1) * cols]);
            vectorised(
                #[inline(always)]
                || {
                    for ((d, &y), &t) in dy.iter_mut().zip(y).zip(t) {
                        let e = if t.is_nan() { 0.0 } else { g * (y - t) };
                        *d = if add { *d + e } else { e };
                    }
                },
            );
        });
    } else {
        let args = [s.ptr(dy), s.ptr(y), s.ptr(target), s.ptr(weights), s.ptr(totals), s.ptr(dl), rows.into(), cols.into(), add.into()];
        s.launch("mse_bwd", Grid::over(rows * cols), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(y: &[f64], t: &[f32], w: &[f32], cols: usize, by: MissingIn) -> Vec<f64> {
        let (mut sum, mut n) = (0.0, 0.0);
        for (i, y) in y.iter().enumerate() {
            let w = w.get(i / cols).map_or(1.0, |&w| w as f64);
            if !t[i].is_nan() {
                sum += w * (y - t[i] as f64).powi(2);
            }
            n += if by == MissingIn::All || !t[i].is_nan() { w } else { 0.0 };
        }
        vec![if n > 0.0 { sum / n } else { 0.0 }]
    }

    #[test]
    fn value_and_gradient_match_the_reference_with_missing_entries_and_weights() {
        for ([rows, cols], salt) in [([1, 1], 1), ([13, 31], 2), ([5, 257], 3), ([33, 7], 4), ([150, 1252], 5)] {
            let mut t = values(rows * cols, 10 + salt);
            t.iter_mut().step_by(3).skip(1).for_each(|t| *t = f32::NAN);
            let mut weights: Vec<f32> = values(rows, 20 + salt).iter().map(|w| w.abs()).collect();
            weights[rows / 2] = if rows > 1 { 0.0 } else { 0.5 };
            // the largest size has too many elements for central differences of each: its values are checked, and its gradient by hand below
            let y = Operand { differentiate: rows * cols < 1000, ..operand([rows, cols], salt) };
            for by in [MissingIn::Observed, MissingIn::All] {
                prove(
                    &[y.clone(), fixed([rows, cols], t.clone())],
                    1e-5,
                    |s, v| s.masked_mse(v[0], v[1], Var::NONE, by),
                    |x| reference(&x[0], &t, &[], cols, by),
                );
                prove(
                    &[y.clone(), fixed([rows, cols], t.clone()), fixed([rows, 1], weights.clone())],
                    1e-5,
                    |s, v| s.masked_mse(v[0], v[1], v[2], by),
                    |x| reference(&x[0], &t, &weights, cols, by),
                );
            }
        }
    }

    #[test]
    fn mean_square_gives_both_sides_their_gradient() {
        for dims in [[1, 1], [13, 31], [3, 257]] {
            let reference = |x: &[Vec<f64>]| vec![x[0].iter().zip(&x[1]).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / x[0].len() as f64];
            prove(&[operand(dims, 1), operand(dims, 2)], 1e-5, |s, v| s.mean_square(v[0], v[1]), reference);
        }
    }

    #[test]
    fn nothing_observed_gives_zero_and_no_gradient() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let y = s.leaf([2, 3], &[1.0; 6]);
            let t = s.constant([2, 3], &[f32::NAN; 6]);
            let l = s.masked_mse(y, t, Var::NONE, MissingIn::Observed);
            s.backward(&[(l, crate::engine::Weight::Fixed(1.0))]);
            let g = s.grad(y).unwrap();
            assert_eq!((s.download(l).unwrap(), s.download(g).unwrap()), (vec![0.0], vec![0.0; 6]), "{device}");
        }
    }
}
