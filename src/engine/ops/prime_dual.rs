//! What a step of the correspondence solver does besides its matrix products: F and its moments moved in one pass, the duals moved by
//! F's sums, the scale, and the residual. No operation of the tape; `correspondence/prime_dual.rs` puts the step together.
//!
//!   move       g  = 4 T + (row 1ᵀ + 1 colᵀ)                          T [m, n]; row, col: what the duals and the penalty add
//!              M1 = 0.9 M1 + 0.1 g,   M2 = 0.999 M2 + 0.001 g²
//!              u  = M1/(1-0.9ᵗ) / (√(M2/(1-0.999ᵗ)) + 1e-7)
//!              F  = (1-ε) F + ε max(0, F - u)                          F, M1, M2 [m, n]
//!   duals      h  = F 1,  c = Fᵀ 1                                     h, mu, row [1, m]; c, lambda, s, col [1, n]
//!              s  = (1-ε) s + ε max(0, s - (lambda + ρ (c - 1 + s)))
//!              mu += ε (h - 1),  lambda += ε (c - 1 + s)
//!              row = mu + ρ (h - 1),  col = lambda + ρ (c - 1 + s)     for the next move
//!   inner      y  = <A, B> / by                                       A, B of one size; y, by [1, 1]
//!   residual   W  = W - a K,  y = <W, W>                              W, K of one size; a, y [1, 1]
//!   source     Cao et al., Bioinformatics 36 (2020) i48-i56, section 2.2: the primal-dual method of UnionCom
//!   kernels    prime_dual_{move,duals,inner,residual,total}                                            (kernels/prime_dual.cu)
//!
//! Sums are cut by size alone (64 rows, 128 columns on a GPU; slices of 2^14 elements in f64) and the cuts are added in order.

use crate::device::cpu::SERIAL;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::{Step, Var};
use crate::error::Result;
use rayon::prelude::*;

/// As in the kernels.
const TILE_ROWS: usize = 64;
const TILE_COLS: usize = 128;
const SLICE: usize = 1 << 14;

/// The numbers that a move depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// ε: how far F and both duals go in a step.
    pub step: f32,
    /// ρ: how hard the sums are enforced.
    pub penalty: f32,
}

/// F with its moments and duals. Resident: it outlives the steps.
#[derive(Clone, Copy, Debug)]
pub struct PrimeDualState {
    /// The correspondence [m, n].
    pub f: Var,
    /// Row sums of F [1, m], after a move.
    pub row_sums: Var,
    /// Column sums of F [1, n], after a move.
    pub col_sums: Var,
    m1: Var,
    m2: Var,
    mu: Var,
    row_term: Var,
    lambda: Var,
    slack: Var,
    col_term: Var,
    row_parts: Var,
    col_parts: Var,
    slices: Var,
}

impl Step {
    /// F = 0 and duals of 0, for m ≤ n.
    pub fn prime_dual_state(&mut self, [m, n]: [usize; 2], pace: Pace) -> Result<PrimeDualState> {
        let s = PrimeDualState {
            f: self.resident([m, n])?,
            row_sums: self.resident([1, m])?,
            col_sums: self.resident([1, n])?,
            m1: self.resident([m, n])?,
            m2: self.resident([m, n])?,
            mu: self.resident([1, m])?,
            row_term: self.resident([1, m])?,
            lambda: self.resident([1, n])?,
            slack: self.resident([1, n])?,
            col_term: self.resident([1, n])?,
            row_parts: self.resident([n.div_ceil(TILE_COLS), m])?,
            col_parts: self.resident([m.div_ceil(TILE_ROWS), n])?,
            slices: self.resident([1, (m * m).max(n * n).div_ceil(SLICE)])?,
        };
        self.upload(s.row_term, &vec![-pace.penalty; m])?;
        self.upload(s.col_term, &vec![-pace.penalty; n])?;
        Ok(s)
    }

    /// Step `t` (from 1) of F, then of the duals. `products` is T [m, n]: a quarter of what the objective adds to the gradient.
    #[track_caller]
    pub fn prime_dual_move(&mut self, s: &PrimeDualState, products: Var, t: u64, pace: Pace) {
        let [m, n] = self.dims(s.f);
        assert_eq!(self.dims(products), [m, n], "prime_dual_move: the gradient of F [{m}, {n}]");
        let correct = |keep: f64| (1.0 / (1.0 - keep.powi(t.min(1 << 20) as i32))) as f32;
        let (correct1, correct2) = (correct(0.9), correct(0.999));
        let col_tiles = m.div_ceil(TILE_ROWS);
        if !self.on_cpu() {
            let row_tiles = n.div_ceil(TILE_COLS);
            let [f, m1, m2, row_parts, col_parts, products] = [s.f, s.m1, s.m2, s.row_parts, s.col_parts, products].map(|v| self.ptr(v));
            let [mu, h, row, lambda, slack, c, col] =
                [s.mu, s.row_sums, s.row_term, s.lambda, s.slack, s.col_sums, s.col_term].map(|v| self.ptr(v));
            let grid = Grid { blocks: [row_tiles as u32, col_tiles as u32, 1], threads: [256, 1, 1], shared: 0 };
            let args = [f, m1, m2, row_parts, col_parts, products, row, col, m.into(), n.into()];
            let scalars = [correct1.into(), correct2.into(), pace.step.into()];
            self.launch("prime_dual_move", grid, &[&args[..], &scalars].concat());
            let args = [mu, h, row, lambda, slack, c, col, row_parts, col_parts];
            let sizes = [m.into(), n.into(), row_tiles.into(), col_tiles.into(), pace.penalty.into(), pace.step.into()];
            self.launch("prime_dual_duals", Grid::over(m + n), &[&args[..], &sizes].concat());
            return;
        }
        let outs = [s.f, s.m1, s.m2, s.row_sums, s.col_parts];
        let ([f, m1, m2, h, parts], [products, row, col]) = self.views(outs, [products, s.row_term, s.col_term]);
        let block = |i: usize, f: &mut [f32], m1: &mut [f32], m2: &mut [f32], h: &mut [f32], sums: &mut [f32], products: &[f32]| {
            sums.fill(0.0);
            for (r, h) in h.iter_mut().enumerate() {
                let at = r * n..(r + 1) * n;
                let (f, m1, m2) = (&mut f[at.clone()], &mut m1[at.clone()], &mut m2[at.clone()]);
                let of_row = row[i * TILE_ROWS + r];
                vectorised(
                    #[inline(always)]
                    || move_row(f, m1, m2, sums, &products[at], of_row, col, [correct1, correct2, pace.step]),
                );
                *h = lanes_sum(f);
            }
        };
        let tile = TILE_ROWS * n;
        if m * n < SERIAL {
            for i in 0..col_tiles {
                let (from, to) = (i * tile, ((i + 1) * tile).min(m * n));
                let h = &mut h[i * TILE_ROWS..m.min((i + 1) * TILE_ROWS)];
                let sums = &mut parts[i * n..][..n];
                block(i, &mut f[from..to], &mut m1[from..to], &mut m2[from..to], h, sums, &products[from..to]);
            }
        } else {
            let tables = f.par_chunks_mut(tile).zip(m1.par_chunks_mut(tile)).zip(m2.par_chunks_mut(tile)).zip(products.par_chunks(tile));
            let sums = h.par_chunks_mut(TILE_ROWS).zip(parts.par_chunks_mut(n));
            tables.zip(sums).enumerate().for_each(|(i, ((((f, m1), m2), products), (h, sums)))| block(i, f, m1, m2, h, sums, products));
        }
        self.duals_on_cpu(s, pace);
    }

    fn duals_on_cpu(&mut self, s: &PrimeDualState, Pace { step, penalty }: Pace) {
        let n = self.size(s.col_sums);
        let ([mu, row], [h]) = self.views([s.mu, s.row_term], [s.row_sums]);
        for ((mu, row), &h) in mu.iter_mut().zip(row).zip(h) {
            *mu += step * (h - 1.0);
            *row = *mu + penalty * (h - 1.0);
        }
        let ([c, lambda, slack, col], [parts]) = self.views([s.col_sums, s.lambda, s.slack, s.col_term], [s.col_parts]);
        c.fill(0.0);
        for part in parts.chunks_exact(n) {
            c.iter_mut().zip(part).for_each(|(c, p)| *c += p);
        }
        for (((c, lambda), s), col) in c.iter().zip(lambda).zip(slack).zip(col) {
            let over = c - 1.0;
            *s = (1.0 - step) * *s + step * (*s - (*lambda + penalty * (over + *s))).max(0.0);
            *lambda += step * (over + *s);
            *col = *lambda + penalty * (over + *s);
        }
    }

    /// y = <a, b> / by, or <a, b> without a divisor; a divisor of 0 leaves y as it is. `s` lends its slices.
    #[track_caller]
    pub fn inner_product(&mut self, s: &PrimeDualState, y: Var, a: Var, b: Var, by: Var) {
        let n = self.size(a);
        assert_eq!(self.size(b), n, "inner_product: two of one size");
        let slices = self.part(s.slices, 0, n.div_ceil(SLICE));
        if self.on_cpu() {
            let ([slices], [a, b]) = self.views([slices], [a, b]);
            let pairs = a.par_chunks(SLICE).zip(b.par_chunks(SLICE));
            slices.par_iter_mut().zip(pairs).for_each(|(sum, (a, b))| {
                *sum = vectorised(
                    #[inline(always)]
                    || lanes_sum_f64(a, b),
                ) as f32;
            });
        } else {
            let args = [self.ptr(slices), self.ptr(a), self.ptr(b), n.into()];
            self.launch("prime_dual_inner", Grid::blocks(n.div_ceil(SLICE), 256), &args);
        }
        self.total_of(y, slices, by);
    }

    /// w -= a k, and y = <w, w> of what comes out. a, y [1, 1].
    #[track_caller]
    pub fn scaled_residual(&mut self, s: &PrimeDualState, w: Var, y: Var, k: Var, a: Var) {
        let n = self.size(w);
        assert_eq!(self.size(k), n, "scaled_residual: two of one size");
        let slices = self.part(s.slices, 0, n.div_ceil(SLICE));
        if self.on_cpu() {
            let ([w, slices], [k, a]) = self.views([w, slices], [k, a]);
            let a = a[0];
            slices.par_iter_mut().zip(w.par_chunks_mut(SLICE)).zip(k.par_chunks(SLICE)).for_each(|((sum, w), k)| {
                *sum = vectorised(
                    #[inline(always)]
                    || {
                        w.iter_mut().zip(k).for_each(|(w, k)| *w -= a * k);
                        lanes_sum_f64(w, w)
                    },
                ) as f32;
            });
        } else {
            let args = [self.ptr(w), self.ptr(slices), self.ptr(k), self.ptr(a), n.into()];
            self.launch("prime_dual_residual", Grid::blocks(n.div_ceil(SLICE), 256), &args);
        }
        self.total_of(y, slices, Var::NONE);
    }

    fn total_of(&mut self, y: Var, slices: Var, by: Var) {
        if self.on_cpu() {
            let by = self.or_empty(by);
            let ([y], [slices, by]) = self.views([y], [slices, by]);
            let sum: f64 = slices.iter().map(|&v| f64::from(v)).sum();
            match by.first() {
                None => y[0] = sum as f32,
                Some(&by) if by > 0.0 => y[0] = (sum / f64::from(by)) as f32,
                Some(_) => {}
            }
        } else {
            let args = [self.ptr(y), self.ptr(slices), self.ptr(by), self.size(slices).into()];
            self.launch("prime_dual_total", Grid::blocks(1, 256), &args);
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)] // one row of everything
fn move_row(
    f: &mut [f32],
    m1: &mut [f32],
    m2: &mut [f32],
    sums: &mut [f32],
    products: &[f32],
    of_row: f32,
    col: &[f32],
    [correct1, correct2, step]: [f32; 3],
) {
    for (((((f, m1), m2), sum), t), c) in f.iter_mut().zip(m1).zip(m2).zip(sums).zip(products).zip(col) {
        let g = 4.0 * t + (of_row + c);
        *m1 = 0.9 * *m1 + 0.1 * g;
        *m2 = 0.999 * *m2 + 0.001 * (g * g);
        let u = (*m1 * correct1) / ((*m2 * correct2).sqrt() + 1e-7);
        *f = (1.0 - step) * *f + step * (*f - u).max(0.0);
        *sum += *f;
    }
}

/// Σ x in 16 running sums, so that it vectorises in an order of its own.
fn lanes_sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = x.chunks_exact(16);
    let rest: f32 = whole.remainder().iter().sum();
    whole.for_each(|x| lanes.iter_mut().zip(x).for_each(|(l, x)| *l += x));
    lanes.iter().sum::<f32>() + rest
}

/// Σ a b in f64, in 8 running sums.
#[inline(always)]
fn lanes_sum_f64(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (whole_a, whole_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = whole_a.remainder().iter().zip(whole_b.remainder()).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    for (a, b) in whole_a.zip(whole_b) {
        for (l, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *l += f64::from(a) * f64::from(b);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const PACE: Pace = Pace { step: 0.01, penalty: 10.0 };

    /// The formulas above, written plainly, three steps with a gradient that changes: more rows than a tile, odd widths.
    #[test]
    fn moves_match_a_plain_restatement_in_f64() {
        for [m, n] in [[1, 1], [3, 5], [65, 131], [130, 300]] {
            let gradients: Vec<Vec<f32>> = (1..4).map(|t| values(m * n, t).iter().map(|v| 30.0 * v).collect()).collect();
            let (mut f, mut m1, mut m2) = (vec![0.0f64; m * n], vec![0.0f64; m * n], vec![0.0f64; m * n]);
            let (mut mu, mut lambda, mut s) = (vec![0.0f64; m], vec![0.0f64; n], vec![0.0f64; n]);
            let (mut h, mut c) = (vec![0.0f64; m], vec![0.0f64; n]);
            for (t, products) in (1..).zip(&gradients) {
                for e in 0..m * n {
                    let (i, j) = (e / n, e % n);
                    let g = 4.0 * f64::from(products[e]) + mu[i] + lambda[j] + 10.0 * (h[i] + c[j] + s[j] - 2.0);
                    m1[e] = 0.9 * m1[e] + 0.1 * g;
                    m2[e] = 0.999 * m2[e] + 0.001 * g * g;
                    let u = m1[e] / (1.0 - 0.9f64.powi(t)) / ((m2[e] / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-7);
                    f[e] = 0.99 * f[e] + 0.01 * (f[e] - u).max(0.0);
                }
                h = f.chunks(n).map(|row| row.iter().sum()).collect();
                c = (0..n).map(|j| (0..m).map(|i| f[i * n + j]).sum()).collect();
                for j in 0..n {
                    s[j] = 0.99 * s[j] + 0.01 * (s[j] - (lambda[j] + 10.0 * (c[j] - 1.0 + s[j]))).max(0.0);
                    lambda[j] += 0.01 * (c[j] - 1.0 + s[j]);
                }
                mu.iter_mut().zip(&h).for_each(|(mu, h)| *mu += 0.01 * (h - 1.0));
            }
            for (device, mut step) in steps() {
                let state = step.prime_dual_state([m, n], PACE).unwrap();
                for (t, products) in (1..).zip(&gradients) {
                    step.begin(false, t, 0).unwrap();
                    let products = step.constant([m, n], products);
                    step.prime_dual_move(&state, products, t, PACE);
                }
                let seen = [
                    (state.f, &f),
                    (state.row_sums, &h),
                    (state.col_sums, &c),
                    (state.mu, &mu),
                    (state.lambda, &lambda),
                    (state.slack, &s),
                ];
                for (i, (v, want)) in seen.into_iter().enumerate() {
                    let got = step.download(v).unwrap();
                    compare(&format!("{device} [{m}, {n}], table {i}"), &got, want, 2e-6);
                }
                step.finish().unwrap();
            }
        }
    }

    #[test]
    fn scale_and_residual_match_f64_past_a_slice() {
        for side in [1, 7, 200] {
            let n = side * side;
            let (w, k) = (values(n, 1), values(n, 2));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let [w64, k64] = [&w, &k].map(|x| x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
            let a = dot(&w64, &k64) / dot(&k64, &k64);
            let left: Vec<f64> = w64.iter().zip(&k64).map(|(w, k)| w - a * k).collect();
            for (device, mut s) in steps() {
                let state = s.prime_dual_state([side, side], PACE).unwrap();
                s.begin(false, 1, 0).unwrap();
                let (w, k, none) = (s.constant([side, side], &w), s.constant([side, side], &k), s.constant([1, 1], &[0.0]));
                let [square, scale, error] = [0; 3].map(|_| s.constant([1, 1], &[7.0]));
                s.inner_product(&state, square, k, k, Var::NONE);
                s.inner_product(&state, scale, w, k, none);
                assert_eq!(s.download(scale).unwrap(), [7.0], "{device}: no scale, so none is set");
                s.inner_product(&state, scale, w, k, square);
                s.scaled_residual(&state, w, error, k, scale);
                for (v, want) in [(scale, vec![a]), (w, left.clone()), (error, vec![dot(&left, &left)])] {
                    let got = s.download(v).unwrap();
                    compare(device, &got, &want, 3e-7 * 10.0);
                }
                s.finish().unwrap();
            }
        }
    }
}
