//! mean_norm: how long a minibatch's latent vectors are, as a penalty.
//!
//!   L = 1/(B·d) Σ_r |z_r|           dz_r = dL/(B·d) · z_r/|z_r|, 0 at z_r = 0       (the published code's: Euclidean, not squared)
//!   L = 1/(B·d) Σ_r |z_r|²          dz_r = dL/(B·d) · 2 z_r                         (`squared`, which does bound their growth)
//!   shapes    z [B cells, d], L [1, 1]
//!   kernels   norm_rows, norm_bwd (kernels/norms.cu), error_total (kernels/losses.cu)
//!
//! Source: APOLLO (Zhang 2026), equation 1, with the division by the width that its program has.

use super::reduce::sum_f64;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static MEAN_NORM: Op = Op { name: "mean_norm", backward };

impl Step {
    /// The mean over rows of a row's Euclidean length (or its square), divided by the width. z [B, d]; result [1, 1].
    pub fn mean_norm(&mut self, z: Var, squared: bool) -> Var {
        let [rows, cols] = self.dims(z);
        // partial: a row's length or its square, and the width
        let (loss, totals, partial) = (self.alloc([1, 1]), self.alloc([1, 2]), self.alloc([rows, 2]));
        if self.on_cpu() {
            let ([loss, partial], [z]) = self.views([loss, partial], [z]);
            for (p, z) in partial.chunks_exact_mut(2).zip(z.chunks_exact(cols.max(1))) {
                let square = sum_f64(z.iter().map(|&z| z as f64 * z as f64));
                (p[0], p[1]) = (if squared { square } else { square.sqrt() } as f32, cols as f32);
            }
            loss[0] = (sum_f64(partial.chunks_exact(2).map(|p| p[0] as f64)) / (rows * cols).max(1) as f64) as f32;
        } else {
            let args = [self.ptr(partial), self.ptr(z), rows.into(), cols.into(), squared.into()];
            self.launch("norm_rows", Grid::blocks(rows, 128), &args);
            self.error_total(loss, totals, partial);
        }
        self.record(&MEAN_NORM, [z, partial], loss, [0.0; 4], [squared.into(), 0, 0, 0]);
        loss
    }
}

fn backward(s: &mut Step, node: &Node) {
    let ([z, partial, ..], dl) = (node.x, s.grad(node.y).expect("the gradient has arrived"));
    let ([rows, cols], squared) = (s.dims(z), node.n[0] == 1);
    let (dz, add) = s.grad_slot(z);
    if s.on_cpu() {
        let ([dz], [z, partial, dl]) = s.views([dz], [z, partial, dl]);
        let over = dl[0] / (rows * cols).max(1) as f32;
        let each = dz.chunks_exact_mut(cols.max(1)).zip(z.chunks_exact(cols.max(1))).zip(partial.chunks_exact(2));
        for ((dz, z), p) in each {
            let scale = match p[0] {
                _ if squared => 2.0 * over,
                0.0 => 0.0,
                length => over / length,
            };
            dz.iter_mut().zip(z).for_each(|(d, z)| *d = if add { *d } else { 0.0 } + scale * z);
        }
    } else {
        let args = [s.ptr(dz), s.ptr(z), s.ptr(partial), s.ptr(dl), rows.into(), cols.into(), squared.into(), add.into()];
        s.launch("norm_bwd", Grid::over(rows * cols), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn value_and_gradient_match_f64() {
        for squared in [false, true] {
            for [rows, cols] in [[1, 1], [5, 3], [17, 50], [2, 1024]] {
                let reference = |z: &[Vec<f64>]| {
                    let norms = z[0].chunks_exact(cols).map(|z| {
                        let square: f64 = z.iter().map(|z| z * z).sum();
                        if squared { square } else { square.sqrt() }
                    });
                    vec![norms.sum::<f64>() / (rows * cols) as f64]
                };
                prove(&[operand([rows, cols], 1)], 2e-6, |s, v| s.mean_norm(v[0], squared), reference);
            }
        }
    }

    #[test]
    fn a_row_of_zeros_has_no_gradient() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let z = s.leaf([2, 2], &[0.0, 0.0, 3.0, 4.0]);
            let loss = s.mean_norm(z, false);
            assert_eq!(s.download(loss).unwrap(), [1.25], "{device}");
            let dl = s.constant([1, 1], &[1.0]);
            s.backward_from(loss, dl);
            let g = s.grad(z).unwrap();
            compare(device, &s.download(g).unwrap(), &[0.0, 0.0, 0.15, 0.2], 1e-7);
        }
    }
}
