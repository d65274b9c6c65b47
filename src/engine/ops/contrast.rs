//! The contrastive loss of two views of the same cells (NT-Xent: Chen et al. 2020).
//!
//!   unit_rows   y_r = x_r / |x_r|,  dx_r = (dy_r - y_r (y_r · dy_r)) / |x_r|; a row shorter than 10⁻¹² is divided by that, and has no gradient
//!   nt_xent     s_ij = u_i · u_j / τ,  u the unit rows of (a; b), j(i) the other view of row i's cell;
//!               L = mean over i of log Σ_{k≠i} exp s_ik - s_{i j(i)}
//!               with P_ik = exp s_ik / Σ_{k≠i} exp s_ik, P_ii = 0:  du = dL/(n τ) · ((P + Pᵀ) u - 2 u_{j(i)})
//!   shapes      a, b [B, D], u [n, D], n = 2 B, P [n, n], L [1, 1]
//!   kernels     unit_rows_fwd, unit_rows_bwd, contrast_rows, contrast_bwd (kernels/contrast.cu), gemm, error_total

use super::activation::exp;
use super::gemm::Layout;
use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};
use rayon::prelude::*;

static UNIT_ROWS: Op = Op { name: "unit_rows", backward: unit_backward };
static NT_XENT: Op = Op { name: "nt_xent", backward: contrast_backward };

/// No row is divided by less.
const FLOOR: f32 = 1e-12;
/// Running sums and maxima side by side.
const LANES: usize = 16;

impl Step {
    /// Rows of length 1. x [B, D]; result [B, D].
    pub fn unit_rows(&mut self, x: Var) -> Var {
        let [rows, cols] = self.dims(x);
        // inverse: 1/|x|, 0 where nothing is to pass back
        let (y, inverse) = (self.alloc([rows, cols]), self.alloc([rows, 1]));
        if self.on_cpu() {
            let ([y, inverse], [x]) = self.views([y, inverse], [x]);
            for ((y, x), inverse) in y.chunks_exact_mut(cols.max(1)).zip(x.chunks_exact(cols.max(1))).zip(inverse) {
                let length = sum_f64(x.iter().map(|&x| f64::from(x) * f64::from(x))).sqrt() as f32;
                *inverse = if length < FLOOR { 0.0 } else { 1.0 / length };
                // Not max, which loses a NaN.
                let by = if length < FLOOR { FLOOR } else { length };
                y.iter_mut().zip(x).for_each(|(y, x)| *y = x / by);
            }
        } else {
            let args = [self.ptr(y), self.ptr(inverse), self.ptr(x), rows.into(), cols.into()];
            self.launch("unit_rows_fwd", Grid::blocks(rows, 128), &args);
        }
        self.record(&UNIT_ROWS, [x, inverse], y, [0.0; 4], [0; 4]);
        y
    }

    /// How badly each cell's two views find one another among all others. a, b [B, D], row r of both the same cell; result [1, 1].
    #[track_caller]
    pub fn nt_xent(&mut self, a: Var, b: Var, tau: f32) -> Var {
        assert_eq!(self.dims(a), self.dims(b), "nt_xent: two views of the same cells");
        assert!(tau > 0.0, "nt_xent: a temperature of {tau}");
        let both = self.stacked(&[a, b]);
        let u = self.unit_rows(both);
        let n = self.dims(u)[0];
        let (p, partial) = (self.alloc([n, n]), self.alloc([n, 2]));
        let (loss, totals) = (self.alloc([1, 1]), self.alloc([1, 2]));
        self.gemm(Layout::NT, p, u, u, false, None);
        if self.on_cpu() {
            let ([p, partial, loss], []) = self.views([p, partial, loss], []);
            let rows = p.par_chunks_exact_mut(n.max(1)).zip(partial.par_chunks_exact_mut(2)).enumerate();
            rows.with_min_len((cpu::SERIAL / 4).div_ceil(n.max(1))).for_each(|(i, (p, out))| {
                (out[0], out[1]) = (shares(p, i, other_view(i, n), 1.0 / tau), 1.0);
            });
            let sum = sum_f64(partial.chunks_exact(2).map(|p| f64::from(p[0])));
            loss[0] = if n > 0 { (sum / n as f64) as f32 } else { 0.0 };
        } else {
            let args = [self.ptr(partial), self.ptr(p), n.into(), (1.0 / tau).into()];
            self.launch("contrast_rows", Grid::blocks(n, 256), &args);
            self.error_total(loss, totals, partial);
        }
        self.record(&NT_XENT, [u, p], loss, [tau, 0.0, 0.0, 0.0], [0; 4]);
        loss
    }
}

fn other_view(i: usize, n: usize) -> usize {
    if i < n / 2 { i + n / 2 } else { i - n / 2 }
}

/// A row of products becomes a row of shares, its own place 0; returns its cost.
fn shares(row: &mut [f32], own: usize, other: usize, inverse_tau: f32) -> f32 {
    let mut cost = 0.0;
    vectorised(
        #[inline(always)]
        || {
            row[own] = f32::NEG_INFINITY;
            let mut tops = [f32::NEG_INFINITY; LANES];
            let chunks = row.chunks_exact(LANES);
            let mut top = chunks.remainder().iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
            chunks.for_each(|c| tops.iter_mut().zip(c).for_each(|(t, &v)| *t = if v > *t { v } else { *t }));
            top = tops.iter().fold(top, |m, &v| m.max(v));
            let wanted = (row[other] - top) * inverse_tau;
            let mut sums = [0.0f32; LANES];
            let mut chunks = row.chunks_exact_mut(LANES);
            for c in &mut chunks {
                for (v, sum) in c.iter_mut().zip(&mut sums) {
                    *v = exp((*v - top) * inverse_tau);
                    *sum += *v;
                }
            }
            let mut sum = 0.0f32;
            for v in chunks.into_remainder() {
                *v = exp((*v - top) * inverse_tau);
                sum += *v;
            }
            sum += sums.iter().sum::<f32>();
            row[own] = 0.0;
            let scale = 1.0 / sum;
            row.iter_mut().for_each(|v| *v *= scale);
            cost = sum.ln() - wanted;
        },
    );
    cost
}

fn unit_backward(s: &mut Step, node: &Node) {
    let [x, inverse, ..] = node.x;
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let [rows, cols] = s.dims(x);
    let (dx, add) = s.grad_slot(x);
    if s.on_cpu() {
        let ([dx], [y, inverse, dy]) = s.views([dx], [node.y, inverse, dy]);
        cpu::rows(dx, cols, |r, dx| {
            let (y, dy) = (&y[r * cols..(r + 1) * cols], &dy[r * cols..(r + 1) * cols]);
            let along: f32 = sum_f64(y.iter().zip(dy).map(|(y, d)| f64::from(y * d))) as f32;
            for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                let g = (dy - y * along) * inverse[r];
                *dx = if add { *dx + g } else { g };
            }
        });
    } else {
        let args = [s.ptr(dx), s.ptr(node.y), s.ptr(inverse), s.ptr(dy), rows.into(), cols.into(), add.into()];
        s.launch("unit_rows_bwd", Grid::blocks(rows, 128), &args);
    }
}

fn contrast_backward(s: &mut Step, node: &Node) {
    let ([u, p, ..], tau) = (node.x, node.k[0]);
    let dl = s.grad(node.y).expect("the gradient has arrived");
    let [n, cols] = s.dims(u);
    let pulled = s.alloc([n, cols]);
    s.gemm(Layout::NN, pulled, p, u, false, None);
    s.gemm(Layout::TN, pulled, p, u, true, None);
    let (du, add) = s.grad_slot(u);
    let scale = 1.0 / (n.max(1) as f32 * tau);
    if s.on_cpu() {
        let ([du], [pulled, u, dl]) = s.views([du], [pulled, u, dl]);
        let scale = dl[0] * scale;
        cpu::rows(du, cols, |i, du| {
            let j = other_view(i, n);
            for ((du, pulled), u) in du.iter_mut().zip(&pulled[i * cols..]).zip(&u[j * cols..(j + 1) * cols]) {
                let g = scale * (pulled - 2.0 * u);
                *du = if add { *du + g } else { g };
            }
        });
    } else {
        let args = [s.ptr(du), s.ptr(pulled), s.ptr(u), s.ptr(dl), n.into(), cols.into(), scale.into(), add.into()];
        s.launch("contrast_bwd", Grid::over(n * cols), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(a: &[f64], b: &[f64], cols: usize, tau: f64) -> Vec<f64> {
        let unit = |x: &[f64]| {
            let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            x.iter().map(|x| x / length).collect::<Vec<f64>>()
        };
        let u: Vec<Vec<f64>> = a.chunks_exact(cols).chain(b.chunks_exact(cols)).map(unit).collect();
        let n = u.len();
        let s = |i: usize, j: usize| u[i].iter().zip(&u[j]).map(|(a, b)| a * b).sum::<f64>() / tau;
        let cost = |i: usize| (0..n).filter(|&k| k != i).map(|k| s(i, k).exp()).sum::<f64>().ln() - s(i, other_view(i, n));
        vec![(0..n).map(cost).sum::<f64>() / n as f64]
    }

    #[test]
    fn nt_xent_matches_the_reference_at_every_edge_and_temperature() {
        for [cells, cols] in [[1, 3], [2, 1], [5, 7], [17, 33]] {
            for tau in [0.15, 0.5] {
                let (a, b) = (operand([cells, cols], 1), operand([cells, cols], 2));
                // One cell has one other view to be found among: the loss is 0, and so are its gradients.
                prove(&[a, b], 2e-5, |s, v| s.nt_xent(v[0], v[1], tau as f32), |x| reference(&x[0], &x[1], cols, f64::from(tau as f32)));
            }
        }
    }

    #[test]
    fn unit_rows_have_length_one_and_a_gradient_across_them() {
        for [rows, cols] in [[1, 1], [13, 3], [33, 130]] {
            let reference = |x: &[Vec<f64>]| {
                let row = |x: &[f64]| x.iter().map(|v| v / x.iter().map(|x| x * x).sum::<f64>().sqrt()).collect::<Vec<f64>>();
                x[0].chunks_exact(cols).flat_map(row).collect()
            };
            prove(&[operand([rows, cols], 1)], 1e-5, |s, v| s.unit_rows(v[0]), reference);
        }
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let x = s.leaf([2, 2], &[0.0, 0.0, 3.0, 4.0]);
            let y = s.unit_rows(x);
            compare(device, &s.download(y).unwrap(), &[0.0, 0.0, 0.6, 0.8], 1e-6);
            let dy = s.constant([2, 2], &[1.0, 1.0, 0.6, 0.8]);
            s.backward_from(y, dy);
            let g = s.grad(x).unwrap();
            assert!(s.download(g).unwrap().iter().all(|g| g.abs() < 1e-7), "{device}: nothing along the row, and nothing of an empty one");
        }
    }

    #[test]
    fn views_that_coincide_in_opposite_pairs_cost_what_is_computed_by_hand() {
        // Two cells in opposite directions, both views alike, τ = 1: each row's cost is log(e + 2/e) - 1.
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (a, b) = (s.constant([2, 1], &[2.0, -0.5]), s.constant([2, 1], &[7.0, -3.0]));
            let l = s.nt_xent(a, b, 1.0);
            let e = std::f64::consts::E;
            compare(device, &s.download(l).unwrap(), &[(e + 2.0 / e).ln() - 1.0], 1e-6);
        }
    }
}
