//! The aggregation of JAMIE: a code averaged with the codes of the same cell in the other modalities (Kalafut et al. 2023).
//!
//!   c_r = (σ z_r + Σ_j σ_j w_jr z_jr) / D_r,   D_r = σ + Σ_j σ_j w_jr       w_jr: how sure it is that slot r of j is the same cell; where
//!                                                                           all are 0, z_r stays as it is
//!   backward   dz_r = σ dc_r / D_r,   dz_jr = σ_j w_jr dc_r / D_r,   dσ = Σ dc_r·(z_r - c_r)/D_r,   dσ_j = Σ w_jr dc_r·(z_jr - c_r)/D_r
//!   shapes     z (own), z_j (the others'), c [B cells, latent]; σ, σ_j [1, 1]; w_j [B, 1] or none for 1; D [B, 1]
//!   kernels    aggregate_fwd, aggregate_more, aggregate_bwd, aggregate_sums            (kernels/aggregate.cu)
//!
//! The others are folded into the mean one by one. Backward the codes are alike once c and D are there: a record passes the gradient on to
//! two of them, the first to the own code and the first other.

use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static AGGREGATE: Op = Op { name: "aggregate", backward };

/// The codes of another modality.
#[derive(Clone, Copy, Debug)]
pub struct Other {
    /// z_j [B, latent].
    pub z: Var,
    /// σ_j [1, 1].
    pub sigma: Var,
    /// w_j [B, 1]; [`Var::NONE`] for 1.
    pub weights: Var,
}

impl Other {
    /// No codes at all.
    pub const NONE: Other = Other { z: Var::NONE, sigma: Var::NONE, weights: Var::NONE };
}

impl Step {
    /// The weighted mean of the own code [B, latent], of weight `sigma` [1, 1], and those of other modalities, at least one; result [B, latent].
    #[track_caller]
    pub fn aggregate(&mut self, z: Var, sigma: Var, others: &[Other]) -> Var {
        let dims @ [rows, cols] = self.dims(z);
        let (first, more) = others.split_first().expect("aggregate: codes of another modality");
        for other in others {
            assert_eq!(self.dims(other.z), dims, "aggregate: all codes");
            assert!(other.weights.is_none() || self.size(other.weights) == rows, "aggregate: one weight a row");
        }
        let (c, mut mass) = (self.alloc(dims), self.alloc([rows, 1]));
        if self.on_cpu() {
            let w = self.or_empty(first.weights);
            let ([c, mass], [own, other, s_own, s_other, w]) = self.views([c, mass], [z, first.z, sigma, first.sigma, w]);
            let (here, there) = (s_own[0], s_other[0]);
            mass.iter_mut().enumerate().for_each(|(r, mass)| *mass = here + there * w.get(r).copied().unwrap_or(1.0));
            cpu::rows(c, cols, |r, c| {
                let there = there * w.get(r).copied().unwrap_or(1.0);
                let part = r * cols..(r + 1) * cols;
                for ((c, a), b) in c.iter_mut().zip(&own[part.clone()]).zip(&other[part]) {
                    // From the own code, so that a cell without a partner keeps it to the bit.
                    *c = a + there * (b - a) / mass[r];
                }
            });
        } else {
            let [pc, pmass, own, theirs] = [c, mass, z, first.z].map(|v| self.ptr(v));
            let [here, there, w] = [sigma, first.sigma, first.weights].map(|v| self.ptr(v));
            self.launch("aggregate_fwd", Grid::over(rows * cols), &[pc, pmass, own, theirs, here, there, w, rows.into(), cols.into()]);
        }
        for other in more {
            mass = self.fold(c, mass, other);
        }
        let own = Other { z, sigma, weights: Var::NONE };
        self.record_pair(own, *first, mass, c);
        for pair in more.chunks(2) {
            self.record_pair(pair[0], pair.get(1).copied().unwrap_or(Other::NONE), mass, c);
        }
        c
    }

    /// Folds another modality's codes into the mean c of the given mass; the new mass.
    fn fold(&mut self, c: Var, mass: Var, other: &Other) -> Var {
        let [rows, cols] = self.dims(c);
        let all = self.alloc([rows, 1]);
        if self.on_cpu() {
            let w = self.or_empty(other.weights);
            let ([c, all], [mass, z, sigma, w]) = self.views([c, all], [mass, other.z, other.sigma, w]);
            let there = |r: usize| sigma[0] * w.get(r).copied().unwrap_or(1.0);
            all.iter_mut().zip(mass).enumerate().for_each(|(r, (all, mass))| *all = mass + there(r));
            cpu::rows(c, cols, |r, c| {
                for (c, z) in c.iter_mut().zip(&z[r * cols..]) {
                    *c += there(r) * (z - *c) / all[r];
                }
            });
        } else {
            let args = [c, all, mass, other.z, other.sigma, other.weights].map(|v| self.ptr(v));
            let [c, all, mass, z, sigma, w] = args;
            self.launch("aggregate_more", Grid::over(rows * cols), &[c, all, mass, z, sigma, w, rows.into(), cols.into()]);
        }
        all
    }

    fn record_pair(&mut self, a: Other, b: Other, mass: Var, c: Var) {
        self.record(&AGGREGATE, [a.z, b.z, a.sigma, b.sigma, a.weights, b.weights, mass], c, [0.0; 4], [0; 4]);
    }
}

fn backward(s: &mut Step, node: &Node) {
    let [za, zb, sa, sb, wa, wb, mass, _] = node.x;
    let (c, dc) = (node.y, s.grad(node.y).expect("the gradient has arrived"));
    let [rows, cols] = s.dims(c);
    let [(d_a, add_a), (d_b, add_b), (d_sa, add_sa), (d_sb, add_sb)] = [za, zb, sa, sb].map(|v| s.slot_if_wanted(v));
    if s.on_cpu() {
        for (z, sigma, w, (d, add), (d_s, add_s)) in
            [(za, sa, wa, (d_a, add_a), (d_sa, add_sa)), (zb, sb, wb, (d_b, add_b), (d_sb, add_sb))]
        {
            if z.is_none() {
                continue;
            }
            let [d, d_s, w] = [d, d_s, w].map(|v| s.or_empty(v));
            let ([d, d_s], [dc, c, z, sigma, w, mass]) = s.views([d, d_s], [dc, c, z, sigma, w, mass]);
            let weight = |r: usize| w.get(r).copied().unwrap_or(1.0);
            cpu::rows(d, cols, |r, d| {
                let g = sigma[0] * weight(r) / mass[r];
                for (d, dc) in d.iter_mut().zip(&dc[r * cols..(r + 1) * cols]) {
                    *d = if add { *d } else { 0.0 } + g * dc;
                }
            });
            if let Some(d) = d_s.first_mut() {
                let each = |i: usize| (weight(i / cols) * dc[i] / mass[i / cols] * (z[i] - c[i])) as f64;
                *d = if add_s { *d } else { 0.0 } + sum_f64((0..dc.len()).map(each)) as f32;
            }
        }
    } else {
        let sizes = [rows.into(), cols.into()];
        let [pa, pb, psa, psb] = [d_a, d_b, d_sa, d_sb].map(|v| s.ptr(v));
        let [dc, c, za, zb, sa, sb, wa, wb, mass] = [dc, c, za, zb, sa, sb, wa, wb, mass].map(|v| s.ptr(v));
        let args = [pa, pb, dc, mass, sa, sb, wa, wb, sizes[0], sizes[1], add_a.into(), add_b.into()];
        s.launch("aggregate_bwd", Grid::over(rows * cols), &args);
        let args = [psa, psb, dc, c, mass, za, zb, wa, wb, sizes[0], sizes[1], add_sa.into(), add_sb.into()];
        s.launch("aggregate_sums", Grid::blocks(1, 1024), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn scalar(v: f32) -> Operand {
        Operand { dims: [1, 1], values: vec![v], differentiate: true }
    }

    fn other(z: Var, sigma: Var, weights: Var) -> Other {
        Other { z, sigma, weights }
    }

    /// x: own code, others' codes, own sigma, others' sigmas; w(j, r) of the other j.
    fn mean(x: &[Vec<f64>], others: usize, cols: usize, w: &dyn Fn(usize, usize) -> f64) -> Vec<f64> {
        let sigma = |j: usize| x[others + 1 + j][0];
        let at = |i: usize| {
            let weight = |j: usize| sigma(j + 1) * w(j, i / cols);
            let sum: f64 = (0..others).map(|j| weight(j) * x[j + 1][i]).sum();
            (sigma(0) * x[0][i] + sum) / (sigma(0) + (0..others).map(weight).sum::<f64>())
        };
        (0..x[0].len()).map(at).collect()
    }

    #[test]
    fn the_aggregate_and_its_four_gradients_match_the_reference() {
        for [rows, cols] in [[1, 1], [13, 3], [33, 32], [5, 257]] {
            let mut w: Vec<f32> = values(rows, 9).iter().map(|w| w.abs()).collect();
            w[rows / 2] = 0.0;
            let z = [operand([rows, cols], 1), operand([rows, cols], 2)];
            let operands = [z[0].clone(), z[1].clone(), scalar(0.7), scalar(0.4)];
            prove(&operands, 1e-4, |s, v| s.aggregate(v[0], v[2], &[other(v[1], v[3], Var::NONE)]), |x| mean(x, 1, cols, &|_, _| 1.0));
            let with = [&operands[..], &[fixed([rows, 1], w.clone())]].concat();
            prove(&with, 1e-4, |s, v| s.aggregate(v[0], v[2], &[other(v[1], v[3], v[4])]), |x| mean(x, 1, cols, &|_, r| w[r] as f64));
        }
    }

    #[test]
    fn several_modalities_aggregate_to_one_weighted_mean() {
        for (others, [rows, cols]) in [(2, [13, 3]), (3, [33, 32]), (4, [5, 70])] {
            // Every other modality but the second has weights of its own, some of them 0.
            let w: Vec<Vec<f32>> =
                (0..others).map(|j| values(rows, 9 + j as u32).iter().map(|w| (w.abs() - 0.2).max(0.0)).collect()).collect();
            let codes = (0..=others).map(|j| operand([rows, cols], 1 + j as u32));
            let sigmas = (0..=others).map(|j| scalar(0.7 - 0.1 * j as f32));
            let weights = w.iter().map(|w| fixed([rows, 1], w.clone()));
            let operands: Vec<Operand> = codes.chain(sigmas).chain(weights).collect();
            let aggregate = |s: &mut Step, v: &[Var]| {
                let of = |j: usize| other(v[j + 1], v[others + 2 + j], if j == 1 { Var::NONE } else { v[2 * others + 2 + j] });
                s.aggregate(v[0], v[others + 1], &(0..others).map(of).collect::<Vec<_>>())
            };
            prove(&operands, 1e-4, aggregate, |x| mean(x, others, cols, &|j, r| if j == 1 { 1.0 } else { w[j][r] as f64 }));
        }
    }

    #[test]
    fn a_cell_without_a_partner_keeps_its_code_and_gives_the_weights_nothing() {
        for (device, mut s) in steps() {
            for others in [1, 2] {
                s.begin(true, 1, 0).unwrap();
                let (a, b) = (s.leaf([2, 3], &values(6, 1)), s.leaf([2, 3], &values(6, 2)));
                let (sigma, tau) = (s.leaf([1, 1], &[0.3]), s.leaf([1, 1], &[0.9]));
                let w = s.constant([2, 1], &[0.0; 2]);
                let c = s.aggregate(a, sigma, &vec![other(b, tau, w); others]);
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
}
