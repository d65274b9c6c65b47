//! Sinkhorn's iteration on logarithms: what an entropic optimal transport solver alternates. No operation of the tape.
//!
//!   rows      l_i = log Σ_j exp((g_j - C_ij)/ε)                       C [m, n]; f, log a [1, m]; g, log b [1, n]
//!             f_i = ε log a_i - d ε l_i                               d = 1 exact, ρ/(ρ+ε) relaxed
//!             f_i = min(0, ε log a_i - ε l_i)                         at most
//!             moved_i = |exp(f_i/ε + l_i) - exp(f_i before/ε + l_i)|  for exact masses what row i of P was away from a_i
//!   columns   the same with the roles exchanged, C as it lies
//!   plan      P_ij = exp((f_i + g_j - C_ij)/ε)                        P [m, n]; its row sums, |P - P before| and
//!                                                                     P log(P/(a bᵀ)) summed over each row, [1, m]
//!
//! At the fixed point P minimises <C, P> + ε KL(P | a bᵀ) + ρ KL(P 1 | a) + ρ KL(Pᵀ 1 | b), ε KL alone under exact masses, and under P 1 ≤ a
//! where a side is to be at most. A sum of exponentials is its largest term's logarithm and the rest beside it, so no ε underflows; what f32
//! leaves of an exponent x is |x| · 6e-8 of P. Sums are cut by size alone (64 rows, on a GPU 128 columns too) and meet in order.
//!
//!   sources   Cuturi, "Sinkhorn distances", NIPS 2013; Chizat, Peyré, Schmitzer and Vialard, "Scaling algorithms for unbalanced optimal
//!             transport problems", Math. Comp. 87 (2018) 2563-2609 (relaxed); Benamou, Carlier, Cuturi, Nenna and Peyré, "Iterative Bregman
//!             projections for regularized transportation problems", SIAM J. Sci. Comput. 37 (2015) A1111-A1138, section 5 (at most)
//!   kernels   sinkhorn_{rows,cols_parts,cols,plan}                                               (kernels/sinkhorn.cu)

use super::activation::exp;
use crate::device::cpu::SERIAL;
use crate::device::launch::{Arg, Grid};
use crate::device::vector::vectorised;
use crate::engine::{Step, Var};
use crate::error::Result;
use rayon::prelude::*;

/// As in the kernels.
const TILE_ROWS: usize = 64;
const TILE_COLS: usize = 128;
const LOWEST: f32 = -3.0e38;

/// What is asked of the sums of a plan along one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Masses {
    /// They are a.
    Exact,
    /// Away from a they cost so much times the Kullback-Leibler divergence.
    Relaxed(f32),
    /// They are a or less.
    AtMost,
}

impl Masses {
    /// The damping of a potential, and whether it stays below 0.
    fn rule(self, epsilon: f32) -> (f32, bool) {
        match self {
            Masses::Exact => (1.0, false),
            Masses::Relaxed(rho) => (rho / (rho + epsilon), false),
            Masses::AtMost => (1.0, true),
        }
    }
}

/// Two potentials with what they are moved by. Resident: it outlives the steps.
#[derive(Clone, Copy, Debug)]
pub struct SinkhornState {
    /// Of the rows [1, m].
    pub f: Var,
    /// Of the columns [1, n].
    pub g: Var,
    /// Mass that the last move of f moved, a row [1, m].
    pub rows_moved: Var,
    /// Mass that the last move of g moved, a column [1, n].
    pub cols_moved: Var,
    /// Row sums of the last plan [1, m].
    pub row_sums: Var,
    /// By how much the last plan differs from the one it replaced, a row [1, m].
    pub changes: Var,
    /// Σ P log(P / (a bᵀ)) of the last plan, a row [1, m].
    pub entropies: Var,
    log_a: Var,
    log_b: Var,
    part_tops: Var,
    part_sums: Var,
}

impl Step {
    /// Potentials of 0 for masses a and b, given by their logarithms.
    pub fn sinkhorn_state(&mut self, log_a: &[f32], log_b: &[f32]) -> Result<SinkhornState> {
        let (m, n) = (log_a.len(), log_b.len());
        let tiles = m.div_ceil(TILE_ROWS);
        let s = SinkhornState {
            f: self.resident([1, m])?,
            g: self.resident([1, n])?,
            rows_moved: self.resident([1, m])?,
            cols_moved: self.resident([1, n])?,
            row_sums: self.resident([1, m])?,
            changes: self.resident([1, m])?,
            entropies: self.resident([1, m])?,
            log_a: self.resident([1, m])?,
            log_b: self.resident([1, n])?,
            part_tops: self.resident([tiles, n])?,
            part_sums: self.resident([tiles, n])?,
        };
        self.upload(s.log_a, log_a)?;
        self.upload(s.log_b, log_b)?;
        Ok(s)
    }

    /// The columns' potential, then the rows'. c [m, n].
    #[track_caller]
    pub fn sinkhorn_round(&mut self, s: &SinkhornState, c: Var, epsilon: f32, rows: Masses, cols: Masses) {
        self.sinkhorn_cols(s, c, epsilon, cols);
        self.sinkhorn_rows(s, c, epsilon, rows);
    }

    /// Half a round: f.
    #[track_caller]
    pub fn sinkhorn_rows(&mut self, s: &SinkhornState, c: Var, epsilon: f32, masses: Masses) {
        let [m, n] = self.check_sinkhorn(s, c);
        let (damp, capped) = masses.rule(epsilon);
        if !self.on_cpu() {
            let args = [s.f, s.rows_moved, c, s.g, s.log_a].map(|v| self.ptr(v));
            let scalars: [Arg; 4] = [n.into(), epsilon.into(), damp.into(), capped.into()];
            self.launch("sinkhorn_rows", Grid::blocks(m, 256), &[&args[..], &scalars].concat());
            return;
        }
        let ([f, moved], [c, g, log_a]) = self.views([s.f, s.rows_moved], [c, s.g, s.log_a]);
        let by = 1.0 / epsilon;
        let rows = c.par_chunks_exact(n).with_min_len((SERIAL / n).max(1));
        f.par_iter_mut().zip(moved).zip(log_a).zip(rows).for_each(|(((f, moved), &log_a), c)| {
            let log_sum = vectorised(
                #[inline(always)]
                || row_log_sum(c, g, by),
            );
            move_potential(f, moved, log_sum, log_a, epsilon, damp, capped);
        });
    }

    /// Half a round: g.
    #[track_caller]
    pub fn sinkhorn_cols(&mut self, s: &SinkhornState, c: Var, epsilon: f32, masses: Masses) {
        let [m, n] = self.check_sinkhorn(s, c);
        let (damp, capped) = masses.rule(epsilon);
        let tiles = m.div_ceil(TILE_ROWS);
        if !self.on_cpu() {
            let [tops, sums, c, f, g, moved, log_b] = [s.part_tops, s.part_sums, c, s.f, s.g, s.cols_moved, s.log_b].map(|v| self.ptr(v));
            let grid = Grid { blocks: [n.div_ceil(TILE_COLS) as u32, tiles as u32, 1], threads: [256, 1, 1], shared: 0 };
            self.launch("sinkhorn_cols_parts", grid, &[tops, sums, c, f, m.into(), n.into(), epsilon.into()]);
            let scalars: [Arg; 5] = [n.into(), tiles.into(), epsilon.into(), damp.into(), capped.into()];
            self.launch("sinkhorn_cols", Grid::over(n), &[&[g, moved, tops, sums, log_b][..], &scalars].concat());
            return;
        }
        let by = 1.0 / epsilon;
        let ([tops, sums], [c, f]) = self.views([s.part_tops, s.part_sums], [c, s.f]);
        let blocks = c.par_chunks(TILE_ROWS * n).zip(f.par_chunks(TILE_ROWS)).with_min_len((SERIAL / (TILE_ROWS * n)).max(1));
        tops.par_chunks_exact_mut(n).zip(sums.par_chunks_exact_mut(n)).zip(blocks).for_each(|((tops, sums), (c, f))| {
            tops.fill(LOWEST);
            sums.fill(0.0);
            vectorised(
                #[inline(always)]
                || c.chunks_exact(n).zip(f).for_each(|(c, &f)| take_row(tops, sums, c, f, by)),
            )
        });
        let ([tops, sums, g, moved], [log_b]) = self.views([s.part_tops, s.part_sums, s.g, s.cols_moved], [s.log_b]);
        let ((top, tops), (sum, sums)) = (tops.split_at_mut(n), sums.split_at_mut(n));
        for (tops, sums) in tops.chunks_exact(n).zip(sums.chunks_exact(n)) {
            vectorised(
                #[inline(always)]
                || meet_row(top, sum, tops, sums),
            );
        }
        for ((((g, moved), &log_b), top), sum) in g.iter_mut().zip(moved).zip(log_b).zip(top).zip(sum) {
            move_potential(g, moved, *top + sum.ln(), log_b, epsilon, damp, capped);
        }
    }

    /// The plan of the potentials in place of what `p` held, and the sums over its rows. p, c [m, n].
    #[track_caller]
    pub fn sinkhorn_plan(&mut self, s: &SinkhornState, p: Var, c: Var, epsilon: f32) {
        let [m, n] = self.check_sinkhorn(s, c);
        assert_eq!(self.dims(p), [m, n], "sinkhorn_plan: a plan [{m}, {n}]");
        if !self.on_cpu() {
            let args = [p, s.row_sums, s.changes, s.entropies, c, s.f, s.g, s.log_a, s.log_b].map(|v| self.ptr(v));
            self.launch("sinkhorn_plan", Grid::blocks(m, 256), &[&args[..], &[n.into(), epsilon.into()]].concat());
            return;
        }
        let by = 1.0 / epsilon;
        let ([p, sums, changes, entropies], [c, f, g, log_a, log_b]) =
            self.views([p, s.row_sums, s.changes, s.entropies], [c, s.f, s.g, s.log_a, s.log_b]);
        let outs = sums.par_iter_mut().zip(changes).zip(entropies);
        let rows = p.par_chunks_exact_mut(n).zip(c.par_chunks_exact(n)).with_min_len((SERIAL / n).max(1));
        outs.zip(f).zip(log_a).zip(rows).for_each(|(((((sum, change), entropy), &f), &log_a), (p, c))| {
            let all = vectorised(
                #[inline(always)]
                || plan_row(p, c, g, log_b, [f, log_a, by]),
            );
            [*sum, *change, *entropy] = all.map(|v| v as f32);
        });
    }

    #[track_caller]
    fn check_sinkhorn(&self, s: &SinkhornState, c: Var) -> [usize; 2] {
        let [m, n] = self.dims(c);
        assert_eq!([self.size(s.f), self.size(s.g)], [m, n], "sinkhorn: a cost [{m}, {n}]");
        [m, n]
    }
}

fn move_potential(potential: &mut f32, moved: &mut f32, log_sum: f32, log_mass: f32, epsilon: f32, damp: f32, capped: bool) {
    let mut now = epsilon * log_mass - damp * (epsilon * log_sum);
    if capped && now > 0.0 {
        now = 0.0;
    }
    *moved = ((now / epsilon + log_sum).exp() - (*potential / epsilon + log_sum).exp()).abs();
    *potential = now;
}

/// log Σ exp((g - c)/ε): the largest exponent first, while the row is on its way into the cache, then the sum, both in 16 lanes.
#[inline(always)]
fn row_log_sum(c: &[f32], g: &[f32], by: f32) -> f32 {
    let mut tops = [LOWEST; 16];
    let (whole, rest) = c.split_at(c.len() / 16 * 16);
    for (c, g) in whole.chunks_exact(16).zip(g.chunks_exact(16)) {
        for ((t, c), g) in tops.iter_mut().zip(c).zip(g) {
            let x = (g - c) * by;
            *t = if x < *t { *t } else { x }; // a NaN wins, or the sum is one
        }
    }
    let mut top = tops.iter().fold(LOWEST, |m, &t| if t < m { m } else { t });
    let rest = || rest.iter().zip(&g[whole.len()..]).map(|(c, g)| (g - c) * by);
    rest().for_each(|x| top = if x < top { top } else { x });
    let mut sums = [0.0f32; 16];
    for (c, g) in whole.chunks_exact(16).zip(g.chunks_exact(16)) {
        for ((s, c), g) in sums.iter_mut().zip(c).zip(g) {
            *s += exp((g - c) * by - top);
        }
    }
    let sum = sums.iter().sum::<f32>() + rest().map(|x| exp(x - top)).sum::<f32>();
    top + sum.ln()
}

/// One more row of terms (f - c)/ε to the columns' sums.
#[inline(always)]
fn take_row(tops: &mut [f32], sums: &mut [f32], c: &[f32], f: f32, by: f32) {
    for ((top, sum), c) in tops.iter_mut().zip(sums).zip(c) {
        let x = (f - c) * by;
        let over = x - *top;
        let e = exp(-over.abs());
        *sum = if over > 0.0 { *sum * e + 1.0 } else { *sum + e };
        *top = if x < *top { *top } else { x };
    }
}

#[inline(always)]
fn meet_row(tops: &mut [f32], sums: &mut [f32], other_tops: &[f32], other_sums: &[f32]) {
    for (((top, sum), other_top), other_sum) in tops.iter_mut().zip(sums).zip(other_tops).zip(other_sums) {
        let over = other_top - *top;
        let e = exp(-over.abs());
        *sum = if over > 0.0 { *sum * e + other_sum } else { *sum + other_sum * e };
        *top = if other_top < top { *top } else { *other_top };
    }
}

/// Row sum, change and Σ P log(P/(a b)) of one row, in f64.
#[inline(always)]
fn plan_row(p: &mut [f32], c: &[f32], g: &[f32], log_b: &[f32], [f, log_a, by]: [f32; 3]) -> [f64; 3] {
    let mut lanes = [[0.0f64; 8]; 3];
    for (j, (((p, c), g), log_b)) in p.iter_mut().zip(c).zip(g).zip(log_b).enumerate() {
        let log_p = ((f + g) - c) * by;
        let now = exp(log_p);
        lanes[0][j % 8] += f64::from(now);
        lanes[1][j % 8] += f64::from((now - *p).abs());
        lanes[2][j % 8] += f64::from(now * ((log_p - log_a) - log_b));
        *p = now;
    }
    lanes.map(|l| l.iter().sum())
}

#[cfg(test)]
mod tests;
