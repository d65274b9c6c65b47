//! The aggregation of JAMIE: a code averaged with the code of the same cell in the other modality (Kalafut et al. 2023).
//!
//!   c_r = (σ z_r + σ' w_r z'_r) / (σ + σ' w_r)              w_r: how sure it is that slot r is one cell; 0 leaves z_r as it is
//!   backward, D_r = σ + σ' w_r:   dz_r = σ dc_r / D_r,   dz'_r = σ' w_r dc_r / D_r,
//!                                 dσ = Σ dc_r·(z_r - c_r)/D_r,   dσ' = Σ w_r dc_r·(z'_r - c_r)/D_r
//!   shapes    z (own), z' (the other's), c [B cells, latent]; σ, σ' [1, 1]; w [B, 1] or none for 1
//!   kernels   aggregate_fwd, aggregate_bwd, aggregate_sums                             (kernels/aggregate.cu)

use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static AGGREGATE: Op = Op { name: "aggregate", backward };

impl Step {
    /// The weighted mean of the own code and the other modality's. z: own and other [B, latent]; sigma: own and other [1, 1];
    /// weights [B, 1] or [`Var::NONE`]; result [B, latent].
    #[track_caller]
    pub fn aggregate(&mut self, z: [Var; 2], sigma: [Var; 2], weights: Var) -> Var {
        let dims @ [rows, cols] = self.dims(z[0]);
        assert_eq!(self.dims(z[1]), dims, "aggregate: the two codes");
        assert!(weights.is_none() || self.size(weights) == rows, "aggregate: one weight a row");
        let c = self.alloc(dims);
        if self.on_cpu() {
            let w = self.or_empty(weights);
            let ([c], [own, other, s_own, s_other, w]) = self.views([c], [z[0], z[1], sigma[0], sigma[1], w]);
            let (here, there) = (s_own[0], s_other[0]);
            cpu::rows(c, cols, |r, c| {
                let there = there * w.get(r).copied().unwrap_or(1.0);
                let part = r * cols..(r + 1) * cols;
                for ((c, a), b) in c.iter_mut().zip(&own[part.clone()]).zip(&other[part]) {
                    // From the own code, so that a cell without a partner keeps it to the bit.
                    *c = a + there * (b - a) / (here + there);
                }
            });
        } else {
            let args = [
                self.ptr(c),
                self.ptr(z[0]),
                self.ptr(z[1]),
                self.ptr(sigma[0]),
                self.ptr(sigma[1]),
                self.ptr(weights),
                rows.into(),
                cols.into(),
            ];
            self.launch("aggregate_fwd", Grid::over(rows * cols), &args);
        }
        self.record(&AGGREGATE, [z[0], z[1], sigma[0], sigma[1], weights], c, [0.0; 4], [0; 4]);
        c
    }
}

fn backward(s: &mut Step, node: &Node) {
    let [own, other, s_own, s_other, weights, ..] = node.x;
    let (c, dc) = (node.y, s.grad(node.y).expect("the gradient has arrived"));
    let [rows, cols] = s.dims(c);
    let slots = [own, other, s_own, s_other].map(|v| s.slot_if_wanted(v));
    let [(d_own, add_own), (d_other, add_other), (d_s, add_s), (d_t, add_t)] = slots;
    if s.on_cpu() {
        let [d_own, d_other, d_s, d_t, w] = [d_own, d_other, d_s, d_t, weights].map(|v| s.or_empty(v));
        let ([d_own, d_other, d_s, d_t], [dc, c, own, other, s_own, s_other, w]) =
            s.views([d_own, d_other, d_s, d_t], [dc, c, own, other, s_own, s_other, w]);
        let (here, there) = (s_own[0], s_other[0]);
        let weight = |r: usize| w.get(r).copied().unwrap_or(1.0);
        for (d, add, factor) in [(d_own, add_own, None), (d_other, add_other, Some(there))] {
            cpu::rows(d, cols, |r, d| {
                let numerator = factor.map_or(here, |f| f * weight(r));
                let g = numerator / (here + there * weight(r));
                for (d, dc) in d.iter_mut().zip(&dc[r * cols..(r + 1) * cols]) {
                    *d = if add { *d } else { 0.0 } + g * dc;
                }
            });
        }
        let each = |z: &[f32], i: usize, w: f32| (w * dc[i] / (here + there * weight(i / cols)) * (z[i] - c[i])) as f64;
        if let Some(d) = d_s.first_mut() {
            *d = if add_s { *d } else { 0.0 } + sum_f64((0..dc.len()).map(|i| each(own, i, 1.0))) as f32;
        }
        if let Some(d) = d_t.first_mut() {
            *d = if add_t { *d } else { 0.0 } + sum_f64((0..dc.len()).map(|i| each(other, i, weight(i / cols)))) as f32;
        }
    } else {
        let sizes = [rows.into(), cols.into()];
        let [sigma, tau, w] = [s_own, s_other, weights].map(|v| s.ptr(v));
        let args = [s.ptr(d_own), s.ptr(d_other), s.ptr(dc), sigma, tau, w, sizes[0], sizes[1], add_own.into(), add_other.into()];
        s.launch("aggregate_bwd", Grid::over(rows * cols), &args);
        let args = [
            s.ptr(d_s),
            s.ptr(d_t),
            s.ptr(dc),
            s.ptr(c),
            s.ptr(own),
            s.ptr(other),
            sigma,
            tau,
            w,
            sizes[0],
            sizes[1],
            add_s.into(),
            add_t.into(),
        ];
        s.launch("aggregate_sums", Grid::blocks(1, 1024), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_aggregate_and_its_four_gradients_match_the_reference() {
        for [rows, cols] in [[1, 1], [13, 3], [33, 32], [5, 257]] {
            let mut w: Vec<f32> = values(rows, 9).iter().map(|w| w.abs()).collect();
            w[rows / 2] = 0.0;
            let scalar = |v: f32| Operand { dims: [1, 1], values: vec![v], differentiate: true };
            let z = [operand([rows, cols], 1), operand([rows, cols], 2)];
            let reference = |x: &[Vec<f64>], w: &dyn Fn(usize) -> f64| {
                let (s, t) = (x[2][0], x[3][0]);
                (0..rows * cols).map(|i| (s * x[0][i] + t * w(i / cols) * x[1][i]) / (s + t * w(i / cols))).collect::<Vec<f64>>()
            };
            let sigmas = [scalar(0.7), scalar(0.4)];
            let operands = [z[0].clone(), z[1].clone(), sigmas[0].clone(), sigmas[1].clone()];
            prove(&operands, 1e-4, |s, v| s.aggregate([v[0], v[1]], [v[2], v[3]], Var::NONE), |x| reference(x, &|_| 1.0));
            let with = [&operands[..], &[fixed([rows, 1], w.clone())]].concat();
            prove(&with, 1e-4, |s, v| s.aggregate([v[0], v[1]], [v[2], v[3]], v[4]), |x| reference(x, &|r| w[r] as f64));
        }
    }

    #[test]
    fn a_cell_without_a_partner_keeps_its_code_and_gives_the_weights_nothing() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (a, b) = (s.leaf([2, 3], &values(6, 1)), s.leaf([2, 3], &values(6, 2)));
            let (sigma, tau) = (s.leaf([1, 1], &[0.3]), s.leaf([1, 1], &[0.9]));
            let w = s.constant([2, 1], &[0.0; 2]);
            let c = s.aggregate([a, b], [sigma, tau], w);
            assert_eq!(s.download(c).unwrap(), values(6, 1), "{device}");
            let dc = s.constant([2, 3], &values(6, 3));
            s.backward_from(c, dc);
            for v in [sigma, tau, b] {
                let g = s.grad(v).unwrap();
                assert!(s.download(g).unwrap().iter().all(|&g| g == 0.0), "{device}");
            }
        }
    }
}
