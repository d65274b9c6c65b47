//! Losses over a minibatch: one scalar each, no weights between terms.
//!
//!   masked_mse   L = Σ_rc w_r m_rc (y_rc - t_rc)² / N,   m_rc = 0 where the target is missing (NaN), else 1
//!   masked_mae   the same of |y_rc - t_rc|
//!                N = Σ_rc w_r m_rc  (`MissingIn::Observed`), or w's sum times the features (`MissingIn::All`)
//!                with a sigmoid or other output activation applied before, in the layer
//!   backward     dy_rc = dL · 2 w_r m_rc (y_rc - t_rc) / N, or dL · w_r m_rc sign(y_rc - t_rc) / N with sign(0) = 0;
//!                dt = -dy for a target that is computed (its entries are all there)
//!   square_from  L = mean (x - c)² of all entries,  dx = dL · 2 (x - c)/n: what least-squares discriminators are judged by
//!   shapes       y, t [B cells, D features], w [B, 1] or none, L [1, 1]; N = 0 gives L = 0 and no gradient
//!   kernels      error_rows, error_total, error_bwd, square_from_fwd, square_from_bwd   (kernels/losses.cu)

use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static MSE: Op = Op { name: "masked_mse", backward: error_backward };
static MAE: Op = Op { name: "masked_mae", backward: error_backward };
static SQUARE_FROM: Op = Op { name: "square_from", backward: square_from_backward };

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
        self.masked_error(&MSE, y, target, weights, divide_by)
    }

    /// The mean absolute error, as [`Step::masked_mse`]; with gradients to both where the target is computed.
    #[track_caller]
    pub fn masked_mae(&mut self, y: Var, target: Var, weights: Var, divide_by: MissingIn) -> Var {
        self.masked_error(&MAE, y, target, weights, divide_by)
    }

    #[track_caller]
    fn masked_error(&mut self, op: &'static Op, y: Var, target: Var, weights: Var, divide_by: MissingIn) -> Var {
        let ([rows, cols], name) = (self.dims(y), op.name);
        assert_eq!(self.dims(target), [rows, cols], "{name}: y is [{rows}, {cols}], the target is {:?}", self.dims(target));
        assert!(weights.is_none() || self.size(weights) == rows, "{name}: one weight a row");
        let target = self.dense(target);
        let absolute = std::ptr::eq(op, &MAE);
        // loss [1, 1]; totals: Σ of squares, N; partial: the same a row
        let (loss, totals) = (self.alloc([1, 1]), self.alloc([1, 2]));
        let partial = self.alloc([rows, 2]);
        let all = divide_by == MissingIn::All;
        if self.on_cpu() {
            let w = if weights.is_none() { self.alloc([0, 1]) } else { weights };
            let ([loss, totals, partial], [y, t, w]) = self.views([loss, totals, partial], [y, target, w]);
            let work = |r: usize, out: &mut [f32]| {
                let weight = w.get(r).copied().unwrap_or(1.0);
                let (y, t) = (&y[r * cols..(r + 1) * cols], &t[r * cols..(r + 1) * cols]);
                let (sum, seen) = if absolute { errors(y, t, f32::abs) } else { errors(y, t, |d| d * d) };
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
            let args = [
                self.ptr(partial),
                self.ptr(y),
                self.ptr(target),
                self.ptr(weights),
                rows.into(),
                cols.into(),
                all.into(),
                absolute.into(),
            ];
            self.launch("error_rows", Grid::blocks(rows, 256), &args);
            self.error_total(loss, totals, partial);
        }
        self.record(op, [y, target, weights, totals], loss, [0.0; 4], [u32::from(absolute), 0, 0, 0]);
        loss
    }

    /// On a device with kernels: loss = Σ partial's first column / Σ its second, and both sums.
    pub(super) fn error_total(&mut self, loss: Var, totals: Var, partial: Var) {
        let rows = self.dims(partial)[0];
        let args = [self.ptr(loss), self.ptr(totals), self.ptr(partial), rows.into()];
        self.launch("error_total", Grid::blocks(1, 256), &args);
    }

    /// The mean of (x - c)² over all entries. x any, result [1, 1].
    pub fn square_from(&mut self, x: Var, c: f32) -> Var {
        let loss = self.alloc([1, 1]);
        let n = self.size(x);
        if self.on_cpu() {
            let ([loss], [x]) = self.views([loss], [x]);
            let sum = sum_f64(x.iter().map(|&x| f64::from(x - c) * f64::from(x - c)));
            loss[0] = if n > 0 { (sum / n as f64) as f32 } else { 0.0 };
        } else {
            let args = [self.ptr(loss), self.ptr(x), n.into(), c.into()];
            self.launch("square_from_fwd", Grid::blocks(1, 256), &args);
        }
        self.record(&SQUARE_FROM, [x], loss, [c, 0.0, 0.0, 0.0], [0; 4]);
        loss
    }
}

fn square_from_backward(s: &mut Step, node: &Node) {
    let (x, c, dl) = (node.x[0], node.k[0], s.grad(node.y).expect("the gradient has arrived"));
    let (dx, add) = s.grad_slot(x);
    let n = s.size(x);
    if s.on_cpu() {
        let ([dx], [x, dl]) = s.views([dx], [x, dl]);
        let scale = 2.0 * dl[0] / n.max(1) as f32;
        dx.iter_mut().zip(x).for_each(|(d, x)| *d = if add { *d } else { 0.0 } + scale * (x - c));
    } else {
        let args = [s.ptr(dx), s.ptr(x), s.ptr(dl), n.into(), c.into(), add.into()];
        s.launch("square_from_bwd", Grid::over(n), &args);
    }
}

/// Σ f(y - t) over the observed entries of a row, and how many there are. Not compiled for wider vectors: that took three times as long.
#[inline(always)]
fn errors(y: &[f32], t: &[f32], f: impl Fn(f32) -> f32) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut sum, mut seen) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut add = |k: usize, y: f32, t: f32| {
        let observed = !t.is_nan();
        let d = if observed { y - t } else { 0.0 };
        sum[k] += f(d);
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

fn error_backward(s: &mut Step, node: &Node) {
    let [y, target, weights, totals, ..] = node.x;
    let absolute = node.n[0] == 1;
    // The same from either side: with y and the target exchanged, the gradient is the target's.
    for (y, target) in [(y, target), (target, y)] {
        if s.wants(y) {
            error_gradient(s, node.y, [y, target, weights, totals], absolute);
        }
    }
}

fn error_gradient(s: &mut Step, loss: Var, [y, target, weights, totals]: [Var; 4], absolute: bool) {
    let dl = s.grad(loss).expect("the gradient has arrived");
    let [rows, cols] = s.dims(y);
    let (dy, add) = s.grad_slot(y);
    if s.on_cpu() {
        let w = if weights.is_none() { s.alloc([0, 1]) } else { weights };
        let ([dy], [y, t, w, totals, dl]) = s.views([dy], [y, target, w, totals, dl]);
        let slope = if absolute { 1.0 } else { 2.0 };
        let scale = if totals[1] > 0.0 { slope * dl[0] / totals[1] } else { 0.0 };
        cpu::rows(dy, cols, |r, dy| {
            let g = scale * w.get(r).copied().unwrap_or(1.0);
            let (y, t) = (&y[r * cols..(r + 1) * cols], &t[r * cols..(r + 1) * cols]);
            vectorised(
                #[inline(always)]
                || {
                    for ((d, &y), &t) in dy.iter_mut().zip(y).zip(t) {
                        let e = y - t;
                        // Also a missing target's difference compares to nothing.
                        let sign = f32::from(e > 0.0) - f32::from(e < 0.0);
                        let e = if absolute {
                            g * sign
                        } else if t.is_nan() {
                            0.0
                        } else {
                            g * e
                        };
                        *d = if add { *d + e } else { e };
                    }
                },
            );
        });
    } else {
        let args = [
            s.ptr(dy),
            s.ptr(y),
            s.ptr(target),
            s.ptr(weights),
            s.ptr(totals),
            s.ptr(dl),
            rows.into(),
            cols.into(),
            absolute.into(),
            add.into(),
        ];
        s.launch("error_bwd", Grid::over(rows * cols), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(y: &[f64], t: &[f32], w: &[f32], cols: usize, by: MissingIn) -> Vec<f64> {
        of_errors(y, t, w, cols, by, |d| d * d)
    }

    fn of_errors(y: &[f64], t: &[f32], w: &[f32], cols: usize, by: MissingIn, f: impl Fn(f64) -> f64) -> Vec<f64> {
        let (mut sum, mut n) = (0.0, 0.0);
        for (i, y) in y.iter().enumerate() {
            let w = w.get(i / cols).map_or(1.0, |&w| w as f64);
            if !t[i].is_nan() {
                sum += w * f(y - t[i] as f64);
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
    fn absolute_errors_match_the_reference_and_zero_has_no_slope() {
        for ([rows, cols], salt) in [([1, 1], 1), ([13, 31], 2), ([3, 257], 3)] {
            let mut t = values(rows * cols, 10 + salt);
            t.iter_mut().step_by(3).skip(1).for_each(|t| *t = f32::NAN);
            let w: Vec<f32> = values(rows, 20 + salt).iter().map(|w| w.abs() + 0.1).collect();
            let operands = [operand([rows, cols], salt), fixed([rows, cols], t.clone()), fixed([rows, 1], w.clone())];
            for by in [MissingIn::Observed, MissingIn::All] {
                prove(&operands, 1e-5, |s, v| s.masked_mae(v[0], v[1], v[2], by), |x| of_errors(&x[0], &t, &w, cols, by, f64::abs));
            }
        }
        let both = |x: &[Vec<f64>]| vec![x[0].iter().zip(&x[1]).map(|(a, b)| (a - b).abs()).sum::<f64>() / 12.0];
        prove(&[operand([3, 4], 1), operand([3, 4], 2)], 1e-5, |s, v| s.masked_mae(v[0], v[1], Var::NONE, MissingIn::All), both);
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let y = s.leaf([1, 3], &[1.0, 2.0, 3.0]);
            let t = s.constant([1, 3], &[1.0, 3.0, 2.0]);
            let l = s.masked_mae(y, t, Var::NONE, MissingIn::All);
            s.backward(&[(l, crate::engine::Weight::Fixed(3.0))]);
            let g = s.grad(y).unwrap();
            assert_eq!(s.download(g).unwrap(), [0.0, -1.0, 1.0], "{device}");
        }
    }

    #[test]
    fn squares_from_a_number_match_the_reference() {
        for dims in [[1, 1], [32, 1], [7, 100]] {
            let mean = |x: &[Vec<f64>]| vec![x[0].iter().map(|x| (x - 1.0).powi(2)).sum::<f64>() / x[0].len() as f64];
            prove(&[operand(dims, 3)], 1e-5, |s, v| s.square_from(v[0], 1.0), mean);
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
