//! What a round of the Gromov-Wasserstein solver does besides its matrix products and Sinkhorn. No operation of the tape.
//!
//!   row_products   y_i = Σ_k A_ik B_ik w_k                             A, B [m, n]; w [1, n] or none (1); y [1, m]
//!   gromov_cost    C_ij = 2 (u_i + s² v_j - 2 s C_ij) + shift          C [m, n]: KA T KB before, the objective's gradient after;
//!                                                                      u = (KA ∘ KA) T 1 [1, m], v = (KB ∘ KB) Tᵀ 1 [1, n]
//!   source     Peyré, Cuturi and Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016, proposition 1
//!   kernels    gromov_{row_products,cost}                                                         (kernels/gromov.cu)

use crate::device::cpu::SERIAL;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::{Step, Var};
use rayon::prelude::*;

impl Step {
    /// Sums over the rows of a ∘ b, weighted by `weights` [1, n] or [`Var::NONE`]. a, b [m, n], y [1, m]; summed in f64.
    #[track_caller]
    pub fn row_products(&mut self, y: Var, a: Var, b: Var, weights: Var) {
        let [m, n] = self.dims(a);
        assert_eq!(self.dims(b), [m, n], "row_products: a is [{m}, {n}], b is {:?}", self.dims(b));
        assert_eq!(self.size(y), m, "row_products: a sum a row");
        if !self.on_cpu() {
            let args = [self.ptr(y), self.ptr(a), self.ptr(b), self.ptr(weights), n.into()];
            self.launch("gromov_row_products", Grid::blocks(m, 256), &args);
            return;
        }
        let weights = self.or_empty(weights);
        let ([y], [a, b, w]) = self.views([y], [a, b, weights]);
        let rows = a.par_chunks_exact(n).zip(b.par_chunks_exact(n)).with_min_len((SERIAL / n).max(1));
        y.par_iter_mut().zip(rows).for_each(|(y, (a, b))| {
            *y = vectorised(
                #[inline(always)]
                || weighted(a, b, w),
            ) as f32;
        });
    }

    /// c becomes the gradient of the objective at a plan, from KA T KB and the two sums of squares; see the module.
    #[track_caller]
    pub fn gromov_cost(&mut self, c: Var, u: Var, v: Var, scale: f32, shift: f32) {
        let [m, n] = self.dims(c);
        assert_eq!([self.size(u), self.size(v)], [m, n], "gromov_cost: a sum a row and a column");
        if !self.on_cpu() {
            let args = [self.ptr(c), self.ptr(u), self.ptr(v), m.into(), n.into(), scale.into(), shift.into()];
            self.launch("gromov_cost", Grid::over(m * n), &args);
            return;
        }
        let ([c], [u, v]) = self.views([c], [u, v]);
        let rows = c.par_chunks_exact_mut(n).with_min_len((SERIAL / n).max(1));
        rows.zip(u).for_each(|(c, &u)| {
            vectorised(
                #[inline(always)]
                || c.iter_mut().zip(v).for_each(|(c, v)| *c = shift + 2.0 * ((u + (scale * scale) * v) - (2.0 * scale) * *c)),
            )
        });
    }
}

/// Σ a b w in f64, in 8 running sums.
#[inline(always)]
fn weighted(a: &[f32], b: &[f32], w: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    if w.is_empty() {
        a.iter().zip(b).enumerate().for_each(|(j, (a, b))| lanes[j % 8] += f64::from(a * b));
    } else {
        a.iter().zip(b).zip(w).enumerate().for_each(|(j, ((a, b), w))| lanes[j % 8] += f64::from(a * b * w));
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn sums_and_costs_match_f64() {
        for [m, n] in [[1, 1], [3, 5], [65, 131], [7, 700]] {
            let (a, b) = (values(m * n, 1), values(m * n, 2));
            let (u, w) = (values(m, 3), values(n, 4));
            let sums = |w: &dyn Fn(usize) -> f64| -> Vec<f64> {
                (0..m).map(|i| (0..n).map(|j| f64::from(a[i * n + j]) * f64::from(b[i * n + j]) * w(j)).sum()).collect()
            };
            let cost: Vec<f64> =
                (0..m * n).map(|e| 0.25 + 2.0 * (f64::from(u[e / n]) + 0.49 * f64::from(w[e % n]) - 1.4 * f64::from(a[e]))).collect();
            for (device, mut s) in steps() {
                s.begin(false, 1, 0).unwrap();
                let ([av, bv], [uv, wv]) = ([&a, &b].map(|x| s.constant([m, n], x)), [s.constant([1, m], &u), s.constant([1, n], &w)]);
                let y = s.alloc([1, m]);
                s.row_products(y, av, bv, Var::NONE);
                compare(device, &s.download(y).unwrap(), &sums(&|_| 1.0), 1e-6);
                s.row_products(y, av, bv, wv);
                compare(device, &s.download(y).unwrap(), &sums(&|j| f64::from(w[j])), 1e-6);
                s.gromov_cost(av, uv, wv, 0.7, 0.25);
                compare(device, &s.download(av).unwrap(), &cost, 1e-6);
                s.finish().unwrap();
            }
        }
    }
}
