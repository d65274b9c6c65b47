//! The correspondence as an optimal transport plan: entropic Gromov-Wasserstein, which matches cells whose distances to all others agree.
//!
//!   minimise   E(T) + ε KL(T | a bᵀ),   E(T) = Σ_ijkl (KA_ik - KB_jl)² T_ij T_kl          KA [m, m], KB [n, n]: distances over their mean
//!   a round    C = 2 ((KA∘KA) T 1 1ᵀ + 1 1ᵀ Tᵀ (KB∘KB) - 2 KA T KB), the gradient of E      (engine/ops/gromov.rs, two matrix products)
//!              T = the plan that minimises <C, T> + ε KL(T | a bᵀ), by Sinkhorn from the     (engine/ops/sinkhorn.rs)
//!              potentials of the round before
//!   ends       when Σ|T - T before| < tolerance at the last ε, or after so many rounds
//!
//! What is asked of the sums of T is [`Marginals`]. ε is in squared mean distances, whatever the units of the tables: 0.005 says that distances
//! which differ by √0.005, 7% of the mean, are hardly told apart. Operations a round: 4 n³ for m = n, and 2 n² exponentials an inner round.
//! Memory: both tables, T, C and KA T, 20 n² bytes. The same tables give the same bits whatever the number of threads.
//!
//! E is not convex, and from the constant plan, the usual start, a small ε ends in a poor stationary point. Two remedies are here: a start from
//! the distributions of distances ([`Start::Distributions`]: cells are first matched by their sorted rows, Mémoli's third lower bound), and a
//! falling ε ([`Options::anneal_from`]). Measured (`gromov_figures` in the tests prints it; simu1: 300 cells twice, FOSCTTM the mean fraction of
//! cells that come before the true match; fixture: unioncom-simu2's tables, 200 and 250 cells; own: largest entry of a row on the own type):
//!
//! | problem, ε | constant start | and ε from 0.2 | distributions | and ε from 0.05 |
//! | --- | --- | --- | --- | --- |
//! | simu1, 0.02 | E 0.0236, own 0.947, FOSCTTM 0.013, 14 rounds | the same, 14 | the same, 11 | the same, 11 |
//! | simu1, 0.005 | E 0.106, own 0.647, FOSCTTM 0.080, 38 | E 0.0160, own 0.960, FOSCTTM 0.011, 17 | the same, 33 | the same, 18 |
//! | simu1, 0.002 | E 0.0230, own 0.663, FOSCTTM 0.042, 69 | E 0.0145, own 0.957, FOSCTTM 0.011, 22 | own 0.960, 69 | own 0.957, 27 |
//! | fixture, 0.005, balanced | E 0.0720, own 0.735, 36 | E 0.0610, own 0.705, 23 | E 0.0608, 34 | E 0.0610, 23 |
//! | fixture, 0.005, at most | E 0.0036, own 0.960, 98 | the same, 27 | the same, 33 | the same, 23 |
//! | fixture, 0.005, ρ = 0.1 | E 0.0061, own 0.960, 21, mass 0.85 | the same, 18 | the same, 26 | the same, 21 |
//! | fixture, 0.002, at most | E 0.0023, own 0.960, over 200 | E 0.0022, own 0.965, 44 | own 0.960, 50 | own 0.965, 40 |
//!
//! Hence the defaults: [`Start::Distributions`], ε falling from 0.05 to 0.005, and [`Marginals::AtMost`], which are UnionCom's constraints, and
//! the balanced problem where m = n: under exact uniform marginals the 50 cells of the fixture that have no counterpart are matched all the same.
//! The primal-dual solver's own type is 0.950 on the fixture. Estimating a scale between the tables from T, as that solver does, was tried and
//! left out (a NumPy program, not kept): E falls by 0.5% on the fixture and 4% on unioncom-simu2, whose own type falls with it, 0.925 to 0.915,
//! and the constant start ends in a wrong place at larger ε already.
//!
//! Sources: Peyré, Cuturi and Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016 (the rounds); Mémoli,
//! "Gromov-Wasserstein distances and the metric approach to object matching", Found. Comput. Math. 11 (2011) 417-487 (the start); Séjourné,
//! Vialard and Peyré, "The unbalanced Gromov Wasserstein distance", NeurIPS 2021, algorithm 1 (unbalanced).

use super::prime_dual::side;
use crate::device::Device;
use crate::engine::ops::gemm::Layout;
use crate::engine::ops::sinkhorn::{Masses, SinkhornState};
use crate::engine::{Precision, Step, Var};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Inner rounds between two looks at what they still move, and at the stop flag.
const LOOK: u64 = 10;
/// Points at which a cell's distribution of distances is read.
const QUANTILES: usize = 64;
/// ε of a round over that of the round before, while it falls.
const ANNEAL: f32 = 0.7;

/// What is asked of the sums of T.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Marginals {
    /// Rows sum to 1/m, columns to 1/n.
    Balanced,
    /// Over the smaller side, of k cells, sums are 1/k, over the larger at most 1/k: k T is a correspondence as UnionCom asks for it.
    AtMost,
    /// Sums away from the balanced ones cost this ρ times their divergence: E + ρ/2 KL⊗(T 1 | a) + ρ/2 KL⊗(Tᵀ 1 | b) + ε/2 KL⊗(T | a bᵀ) is
    /// minimised, KL⊗(x | y) = KL(x xᵀ | y yᵀ). The halves are there because KL⊗ counts twice what KL counts: ε keeps its meaning.
    Unbalanced(f32),
}

/// The plan of round 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The same everywhere.
    Uniform,
    /// From what the sorted distances of every cell say.
    Distributions,
}

/// The solver's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// ε, in squared mean distances.
    pub epsilon: f32,
    /// The ε of the first round, if it is to fall to [`Options::epsilon`], by 0.7 a round.
    pub anneal_from: Option<f32>,
    /// The most rounds.
    pub iterations: u64,
    /// Enough if Σ|T - T before| is below this; T sums to 1.
    pub tolerance: f32,
    /// The most Sinkhorn rounds a round.
    pub inner: u64,
    /// Enough of them if one moves less mass than this, of 1.
    pub inner_tolerance: f32,
    /// Where it starts.
    pub start: Start,
    /// What is asked of the sums.
    pub marginals: Marginals,
    /// Which matrix product.
    pub precision: Precision,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            epsilon: 0.005,
            anneal_from: Some(0.05),
            iterations: 200,
            tolerance: 1e-3,
            inner: 50,
            inner_tolerance: 1e-4,
            start: Start::Distributions,
            marginals: Marginals::AtMost,
            precision: Precision::F32,
        }
    }
}

/// How the solver stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// After this round.
    pub iteration: u64,
    /// E(T), in squared mean distances.
    pub objective: f64,
    /// Σ|T - T before|.
    pub change: f64,
    /// By how much the sums miss what is asked of them, both sides added; for [`Marginals::Unbalanced`] how far they are from the balanced ones.
    pub deviation: f64,
    /// Σ T.
    pub mass: f64,
    /// The ε of this round.
    pub epsilon: f32,
    /// Sinkhorn rounds so far.
    pub inner: u64,
}

/// What [`solve`] found.
#[derive(Clone, Debug)]
pub struct Solution {
    /// T [m, n], row after row.
    pub plan: Vec<f32>,
    /// m and n.
    pub dims: [usize; 2],
    /// At the end.
    pub last: Report,
    /// Whether the last change was below the tolerance.
    pub converged: bool,
}

impl Solution {
    /// F [m, n] as `prime_dual` gives it: the plan with every row scaled to sum to 1 if m ≤ n, else every column. What has no mass stays 0.
    pub fn correspondence(&self) -> Vec<f32> {
        let [m, n] = self.dims;
        let mut f = self.plan.clone();
        let inverse = |sum: f64| if sum > 0.0 { (1.0 / sum) as f32 } else { 0.0 };
        if m <= n {
            for row in f.chunks_exact_mut(n) {
                let by = inverse(row.iter().map(|&v| f64::from(v)).sum());
                row.iter_mut().for_each(|v| *v *= by);
            }
        } else {
            let mut sums = vec![0.0f64; n];
            f.chunks_exact(n).for_each(|row| sums.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v)));
            let by: Vec<f32> = sums.into_iter().map(inverse).collect();
            f.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(&by).for_each(|(v, by)| *v *= by));
        }
        f
    }
}

/// A problem on a device, between rounds.
pub struct Solver {
    step: Step,
    options: Options,
    sinkhorn: SinkhornState,
    dims: [usize; 2],
    tables: [Var; 2],
    plan: Var,
    /// KA T KB, then C.
    cost: Var,
    /// KA T, and what else needs [m, n] for a moment.
    product: Var,
    ones: Var,
    cols: Var,
    /// (KA ∘ KA) T 1, (KB ∘ KB) Tᵀ 1, rows of <T, KA T KB>.
    squares: [Var; 2],
    crossed: Var,
    /// Σ T log(T / a bᵀ), and what the sums' own divergences add.
    shift: f64,
    last: Report,
}

impl Solver {
    /// Tables of distances [m, m] and [n, n] of A and B, in any units.
    pub fn new(device: Device, a: &[f32], b: &[f32], options: Options) -> Result<Solver> {
        let dims @ [m, n] = [side(a, "first")?, side(b, "second")?];
        check(&options)?;
        let mut step = Step::new(device, 0, options.precision)?;
        let least = m.min(n);
        let [mass_a, mass_b] = if options.marginals == Marginals::AtMost { [least, least] } else { [m, n] };
        let log = |cells: usize| -(cells as f64).ln() as f32;
        let sinkhorn = step.sinkhorn_state(&vec![log(mass_a); m], &vec![log(mass_b); n])?;
        let tables = [step.resident([m, m])?, step.resident([n, n])?];
        let [plan, cost, product] = [step.resident(dims)?, step.resident(dims)?, step.resident(dims)?];
        let (ones, cols, crossed) = (step.resident([1, m])?, step.resident([1, n])?, step.resident([1, m])?);
        let squares = [step.resident([1, m])?, step.resident([1, n])?];
        step.upload(ones, &vec![1.0f32; m])?;
        let means = [mean(a), mean(b)];
        let mut block = Vec::new();
        for (v, table, side, by) in [(tables[0], a, m, means[0]), (tables[1], b, n, means[1])] {
            // By blocks of rows: no second copy of a table.
            let rows = ((1 << 20) / side).max(1) * side;
            for (i, values) in table.chunks(rows).enumerate() {
                block.clear();
                block.extend(values.iter().map(|&d| (f64::from(d) / by) as f32));
                step.upload_at(v, i * rows, &block)?;
            }
        }
        let even = vec![(1.0 / (m as f64 * n as f64)) as f32; m * n];
        step.upload(plan, &even)?;
        step.upload(sinkhorn.row_sums, &vec![(1.0 / m as f64) as f32; m])?;
        drop(even);
        let last = Report { iteration: 0, objective: 0.0, change: 0.0, deviation: 0.0, mass: 1.0, epsilon: options.epsilon, inner: 0 };
        let mut solver =
            Solver { step, options, sinkhorn, dims, tables, plan, cost, product, ones, cols, squares, crossed, shift: 0.0, last };
        if options.start == Start::Distributions {
            solver.start_from_distributions([a, b], means)?;
        }
        solver.step.begin(false, 0, 0)?;
        solver.evaluate()?;
        Ok(solver)
    }

    /// Sinkhorn on twice the squared distance between the cells' distributions of distances.
    fn start_from_distributions(&mut self, tables: [&[f32]; 2], means: [f64; 2]) -> Result<()> {
        let [m, n] = self.dims;
        let read = [quantiles(tables[0], m, means[0]), quantiles(tables[1], n, means[1])];
        let s = &mut self.step;
        s.begin(false, 0, 0)?;
        let [qa, qb] = [s.constant([m, QUANTILES], &read[0]), s.constant([n, QUANTILES], &read[1])];
        s.gemm(Layout::NT, self.cost, qa, qb, false, None);
        s.row_products(self.squares[0], qa, qa, Var::NONE);
        s.row_products(self.squares[1], qb, qb, Var::NONE);
        s.gromov_cost(self.cost, self.squares[0], self.squares[1], 1.0, 0.0);
        let epsilon = self.options.anneal_from.unwrap_or(0.0).max(self.options.epsilon);
        self.transport(epsilon, 1.0, None)?;
        self.step.sinkhorn_plan(&self.sinkhorn, self.plan, self.cost, epsilon);
        Ok(())
    }

    /// One round. A set `stop` ends it with [`Error::Interrupted`].
    pub fn advance(&mut self, stop: Option<&AtomicBool>) -> Result<Report> {
        let t = self.last.iteration + 1;
        let fall = ANNEAL.powi(t.min(1 << 10) as i32 - 1);
        let epsilon = self.options.anneal_from.map_or(0.0, |from| from * fall).max(self.options.epsilon);
        self.step.begin(false, t, 0)?;
        let before = self.last.mass;
        self.step.gromov_cost(self.cost, self.squares[0], self.squares[1], 1.0, self.shift as f32);
        // Under KL⊗ the plan's mass is a factor of both weights (Séjourné et al., proposition 4).
        let factor = if let Marginals::Unbalanced(_) = self.options.marginals { before } else { 1.0 };
        let inner_epsilon = (f64::from(epsilon) * factor) as f32;
        self.transport(inner_epsilon, factor as f32, stop)?;
        let s = &mut self.step;
        if let Marginals::Unbalanced(_) = self.options.marginals {
            // The two plans of the bilinear form share their mass.
            s.sinkhorn_plan(&self.sinkhorn, self.product, self.cost, inner_epsilon);
            let mass: f64 = s.download(self.sinkhorn.row_sums)?.iter().map(|&v| f64::from(v)).sum();
            if mass.is_nan() || mass <= 0.0 {
                return Err(Error::usage(format!(
                    "the plan has lost all its mass in round {t}: the penalty of the marginals is too small for these distances"
                )));
            }
            let by = (f64::from(inner_epsilon) * 0.5 * (before / mass).ln()) as f32;
            let f: Vec<f32> = s.download(self.sinkhorn.f)?.iter().map(|f| f + by).collect();
            s.upload(self.sinkhorn.f, &f)?;
        }
        s.sinkhorn_plan(&self.sinkhorn, self.plan, self.cost, inner_epsilon);
        self.last.change = s.download(self.sinkhorn.changes)?.iter().map(|&v| f64::from(v)).sum();
        (self.last.iteration, self.last.epsilon) = (t, epsilon);
        self.evaluate()?;
        let r = self.last;
        if !(r.objective.is_finite() && r.change.is_finite() && r.mass.is_finite()) {
            return Err(Error::Diverged { step: t, term: "correspondence".into(), op: "gromov".into() });
        }
        Ok(r)
    }

    /// Sinkhorn on the cost until it moves little. `factor` scales the penalty of relaxed marginals.
    fn transport(&mut self, epsilon: f32, factor: f32, stop: Option<&AtomicBool>) -> Result<()> {
        let [m, n] = self.dims;
        let [rows, cols] = match self.options.marginals {
            Marginals::Balanced => [Masses::Exact; 2],
            Marginals::AtMost if m == n => [Masses::Exact; 2],
            Marginals::AtMost if m < n => [Masses::Exact, Masses::AtMost],
            Marginals::AtMost => [Masses::AtMost, Masses::Exact],
            Marginals::Unbalanced(rho) => [Masses::Relaxed(rho * factor); 2],
        };
        let s = &mut self.step;
        for i in 1..=self.options.inner {
            // The smaller side last: its sums come out exactly.
            let moved = if m <= n {
                s.sinkhorn_round(&self.sinkhorn, self.cost, epsilon, rows, cols);
                self.sinkhorn.rows_moved
            } else {
                s.sinkhorn_rows(&self.sinkhorn, self.cost, epsilon, rows);
                s.sinkhorn_cols(&self.sinkhorn, self.cost, epsilon, cols);
                self.sinkhorn.cols_moved
            };
            self.last.inner += 1;
            if i % LOOK == 0 {
                if stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
                    return Err(self.interrupted());
                }
                let moved: f64 = s.download(moved)?.iter().map(|&v| f64::from(v)).sum();
                if moved < f64::from(self.options.inner_tolerance) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// KA T KB and the sums that C and E need; E, the sums' deviation and the mass of the plan as it is.
    fn evaluate(&mut self) -> Result<()> {
        let [m, n] = self.dims;
        let (s, [ka, kb]) = (&mut self.step, self.tables);
        s.gemm(Layout::NN, self.cols, self.ones, self.plan, false, None);
        s.gemm(Layout::NN, self.product, ka, self.plan, false, None);
        s.gemm(Layout::NN, self.cost, self.product, kb, false, None);
        s.row_products(self.squares[0], ka, ka, self.sinkhorn.row_sums);
        s.row_products(self.squares[1], kb, kb, self.cols);
        s.row_products(self.crossed, self.plan, self.cost, Var::NONE);
        let mut read = |v: Var| -> Result<Vec<f64>> { Ok(s.download(v)?.iter().map(|&v| f64::from(v)).collect()) };
        let (p, q, u, v) = (read(self.sinkhorn.row_sums)?, read(self.cols)?, read(self.squares[0])?, read(self.squares[1])?);
        let (crossed, entropies) = (read(self.crossed)?, read(self.sinkhorn.entropies)?);
        s.finish()?;
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        self.last.mass = p.iter().sum();
        // E is a square: below 0 is rounding.
        self.last.objective = (dot(&p, &u) + dot(&q, &v) - 2.0 * crossed.iter().sum::<f64>()).max(0.0);
        let least = m.min(n) as f64;
        let off = |sums: &[f64], cells: usize| sums.iter().map(|s| (s - 1.0 / cells as f64).abs()).sum::<f64>();
        let over = |sums: &[f64]| sums.iter().map(|s| (s - 1.0 / least).max(0.0)).sum::<f64>();
        self.last.deviation = match self.options.marginals {
            Marginals::AtMost if m < n => off(&p, m) + over(&q),
            Marginals::AtMost if m > n => over(&p) + off(&q, n),
            _ => off(&p, m) + off(&q, n),
        };
        if let Marginals::Unbalanced(rho) = self.options.marginals {
            let divergence = |sums: &[f64]| sums.iter().map(|&s| if s > 0.0 { s * (s * sums.len() as f64).ln() } else { 0.0 }).sum::<f64>();
            let epsilon = f64::from(self.last.epsilon);
            self.shift = f64::from(rho) * (divergence(&p) + divergence(&q)) + epsilon * entropies.iter().sum::<f64>();
        }
        Ok(())
    }

    /// How it stands after the last round.
    pub fn report(&self) -> Report {
        self.last
    }

    /// T as it is now, [m, n].
    pub fn plan(&mut self) -> Result<Vec<f32>> {
        self.step.download(self.plan)
    }

    /// The device's memory in use and its peak, in bytes.
    pub fn memory(&self) -> (usize, usize) {
        self.step.memory()
    }

    fn interrupted(&self) -> Error {
        let (done, all) = (self.last.iteration, self.options.iterations);
        Error::Interrupted(format!("interrupted: the correspondence was at round {done} of at most {all}"))
    }
}

/// Rounds until the plan stays; the device comes back. `progress` hears each; a set `stop` ends it with [`Error::Interrupted`].
pub fn solve(
    device: Device,
    a: &[f32],
    b: &[f32],
    options: Options,
    stop: Option<&AtomicBool>,
    mut progress: impl FnMut(Report),
) -> Result<(Solution, Device)> {
    let mut solver = Solver::new(device, a, b, options)?;
    let mut converged = false;
    while solver.last.iteration < options.iterations && !converged {
        if stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
            return Err(solver.interrupted());
        }
        let report = solver.advance(stop)?;
        progress(report);
        converged = report.epsilon <= options.epsilon && report.change < f64::from(options.tolerance);
    }
    let found = Solution { plan: solver.plan()?, dims: solver.dims, last: solver.last, converged };
    Ok((found, solver.step.into_device()))
}

fn check(o: &Options) -> Result<()> {
    let positive = |v: f32| v > 0.0 && v.is_finite();
    if !positive(o.epsilon) || o.anneal_from.is_some_and(|e| !positive(e)) {
        let shown = o.anneal_from.filter(|_| positive(o.epsilon)).unwrap_or(o.epsilon);
        return Err(Error::usage(format!("the epsilon of Gromov-Wasserstein is a positive number, this is {shown}")));
    }
    if let Marginals::Unbalanced(rho) = o.marginals
        && !positive(rho)
    {
        return Err(Error::usage(format!("the penalty of unbalanced marginals is a positive number, this is {rho}")));
    }
    if o.iterations == 0 || o.inner == 0 {
        return Err(Error::usage("Gromov-Wasserstein needs one round at least, and one inner round"));
    }
    if o.tolerance.is_nan() || o.inner_tolerance.is_nan() {
        return Err(Error::usage("the tolerances of Gromov-Wasserstein are numbers"));
    }
    Ok(())
}

/// Of all distances; 1 for a table of zeros, which has no scale. Summed by rows, then in order.
fn mean(table: &[f32]) -> f64 {
    let n = table.len().isqrt();
    let rows: Vec<f64> = table.par_chunks(n).map(|row| row.iter().map(|&d| f64::from(d)).sum()).collect();
    let mean = rows.iter().sum::<f64>() / table.len() as f64;
    if mean > 0.0 { mean } else { 1.0 }
}

/// Each row sorted and read at evenly spaced places [n, QUANTILES], over `by` and √QUANTILES: the squared distance of two such rows
/// is that of the distributions (Wasserstein, 2).
fn quantiles(table: &[f32], n: usize, by: f64) -> Vec<f32> {
    let mut out = vec![0.0f32; n * QUANTILES];
    let by = by * (QUANTILES as f64).sqrt();
    out.par_chunks_exact_mut(QUANTILES).zip(table.par_chunks_exact(n)).for_each_init(Vec::new, |sorted, (out, row)| {
        sorted.clear();
        sorted.extend_from_slice(row);
        sorted.sort_unstable_by(f32::total_cmp);
        for (q, y) in out.iter_mut().enumerate() {
            let at = ((q as f64 + 0.5) / QUANTILES as f64 * n as f64 - 0.5).clamp(0.0, (n - 1) as f64);
            let (low, part) = (at.floor() as usize, at.fract());
            let high = sorted[(low + 1).min(n - 1)];
            *y = ((f64::from(sorted[low]) * (1.0 - part) + f64::from(high) * part) / by) as f32;
        }
    });
    out
}

#[cfg(test)]
mod tests;
