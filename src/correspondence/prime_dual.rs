//! The correspondence F of two modalities from their tables of distances: UnionCom's primal-dual solver, "prime dual" in its sources.
//!
//!   minimise   ‖a KA - F KB Fᵀ‖²  over  F ≥ 0, F 1 = 1, Fᵀ 1 ≤ 1          KA [m, m], KB [n, n]: distances over max(m, n); F [m, n], m ≤ n
//!   start      F = 0, duals 0, a = √(q/p) of the feature counts p, q
//!   a step     move F by its moments, then the duals, by T                 (engine/ops/prime_dual.rs; T = 0 in the first step)
//!              G = F KB,   W = G Fᵀ
//!              a = <KA, W> / <KA, KA>                                      from step `delay` on
//!              D = W - a KA                                                ‖D‖ is the error that is reported
//!              T = D G                                                     the objective's gradient is 4 T
//!
//! The sources compute 4 G (Fᵀ G) - 4 a KA G; with the products in the order above this is 4 (G Fᵀ - a KA) G, one matrix product fewer: 6 n³
//! operations a step for m = n instead of 8 n³. Memory: F, its two moments, G, T, W and the two K, 32 n² bytes for m = n, and sums.
//! With m > n the rows cannot all sum to 1: the roles are exchanged and F is transposed at the end; reports then speak of the exchanged problem.
//!
//! F comes out with rows that sum to 1 within about a hundredth, and is not projected. There is no test of convergence; the error is not monotone.
//! Everything is f32, sums that decide a and the error in f64. The same tables give the same bits whatever the number of threads.
//! Source: Cao et al., Bioinformatics 36 (2020) i48-i56, with its corrigendum, and the released program for the constants.
//!
//! Measured (`scripts/match-figures.py SCRATCH solver`, two cores of an AVX-512 EPYC, medians of three rounds, in turn with PyTorch on two threads): a
//! step at 1,000 cells 34 ms, 0.56 of the same step with 8 n³ operations in PyTorch and 0.24 of the sources' order of products (16 n³); at 3,000 cells
//! 0.91 s, 0.56 and 0.26: 180 thousand million operations a second at either size. The program's own memory is 1.15 times 32 n² bytes at 3,000 cells. On a GPU: not yet measured.

use crate::device::Device;
use crate::engine::ops::gemm::Layout;
use crate::engine::ops::prime_dual::{Pace, PrimeDualState};
use crate::engine::{Precision, Step, Var};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Steps between two looks at the stop flag on a device that runs behind: what is queued has to drain before it is heeded.
const DRAIN: u64 = 16;

/// The solver's settings; the defaults are the published ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// T: how many steps.
    pub iterations: u64,
    /// ε: how far a step goes.
    pub step: f32,
    /// ρ: how hard the sums are enforced.
    pub penalty: f32,
    /// The scale a stays where it starts before this step.
    pub delay: u64,
    /// Steps between two reports; 0 for none but the last.
    pub report_every: u64,
    /// p and q, the feature counts of A and B, for the first a.
    pub features: [usize; 2],
    /// Which matrix product.
    pub precision: Precision,
}

impl Options {
    /// The published settings for modalities of so many features.
    pub fn new(features: [usize; 2]) -> Options {
        Options { iterations: 2000, step: 0.01, penalty: 10.0, delay: 0, report_every: 100, features, precision: Precision::F32 }
    }
}

/// How the solver stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// After this step.
    pub step: u64,
    /// ‖a KA - F KB Fᵀ‖.
    pub error: f64,
    /// a.
    pub scale: f64,
    /// Mean of |h - 1| over the rows.
    pub row_deviation: f64,
    /// max(c - 1, 0) over the columns.
    pub column_excess: f64,
}

/// What [`solve`] found.
#[derive(Clone, Debug)]
pub struct Solution {
    /// F [m, n], row after row.
    pub correspondence: Vec<f32>,
    /// At the end.
    pub last: Report,
}

/// A problem on a device, between steps.
pub struct Solver {
    step: Step,
    options: Options,
    pace: Pace,
    state: PrimeDualState,
    tables: [Var; 2],
    /// G and T.
    products: [Var; 2],
    /// W, then D.
    middle: Var,
    /// a, <KA, KA>, ‖D‖².
    scale: Var,
    square: Var,
    error: Var,
    exchanged: bool,
    done: u64,
}

impl Solver {
    /// Tables of distances [m, m] and [n, n] of A and B, not yet divided. They are taken, so that nothing else is held beside the solver's own.
    pub fn new(device: Device, a: Vec<f32>, b: Vec<f32>, options: Options) -> Result<Solver> {
        let (m, n) = (side(&a, "first")?, side(&b, "second")?);
        let [p, q] = options.features;
        if p == 0 || q == 0 {
            return Err(Error::usage("the correspondence solver needs modalities with features"));
        }
        if !(options.step > 0.0 && options.step <= 1.0 && options.penalty >= 0.0 && options.penalty.is_finite()) {
            let (step, penalty) = (options.step, options.penalty);
            return Err(Error::usage(format!(
                "the solver's step is in (0, 1] and its penalty not negative, these are {step} and {penalty}"
            )));
        }
        let exchanged = m > n;
        let (a, b, m, n, ratio) = if exchanged { (b, a, n, m, p as f64 / q as f64) } else { (a, b, m, n, q as f64 / p as f64) };
        let mut step = Step::new(device, 0, options.precision)?;
        let pace = Pace { step: options.step, penalty: options.penalty };
        let tables = [step.resident([m, m])?, step.resident([n, n])?];
        for (v, mut table) in tables.into_iter().zip([a, b]) {
            table.iter_mut().for_each(|d| *d /= n as f32);
            step.upload(v, &table)?;
        }
        let state = step.prime_dual_state([m, n], pace)?;
        let products = [step.resident([m, n])?, step.resident([m, n])?];
        let middle = step.resident([m, m])?;
        let [scale, square, error] = [step.resident([1, 1])?, step.resident([1, 1])?, step.resident([1, 1])?];
        step.upload(scale, &[ratio.sqrt() as f32])?;
        step.begin(false, 0, 0)?;
        step.inner_product(&state, square, tables[0], tables[0], Var::NONE);
        Ok(Solver { step, options, pace, state, tables, products, middle, scale, square, error, exchanged, done: 0 })
    }

    /// One step.
    pub fn advance(&mut self) -> Result<()> {
        let t = self.done + 1;
        let ([ka, kb], [g, t_var], s) = (self.tables, self.products, &mut self.step);
        s.begin(false, t, 0)?;
        s.prime_dual_move(&self.state, t_var, t, self.pace);
        s.gemm(Layout::NN, g, self.state.f, kb, false, None);
        s.gemm(Layout::NT, self.middle, g, self.state.f, false, None);
        if t >= self.options.delay {
            s.inner_product(&self.state, self.scale, self.middle, ka, self.square);
        }
        s.scaled_residual(&self.state, self.middle, self.error, ka, self.scale);
        if t < self.options.iterations {
            s.gemm(Layout::NN, t_var, self.middle, g, false, None);
        }
        self.done = t;
        Ok(())
    }

    /// How it stands after the last step; waits for the device.
    pub fn report(&mut self) -> Result<Report> {
        let s = &mut self.step;
        let [scale, error] = [s.download(self.scale)?[0], s.download(self.error)?[0]].map(f64::from);
        let (h, c) = (s.download(self.state.row_sums)?, s.download(self.state.col_sums)?);
        s.finish()?;
        let row_deviation = h.iter().map(|&h| (f64::from(h) - 1.0).abs()).sum::<f64>() / h.len() as f64;
        let column_excess = c.iter().fold(0.0, |m, &c| (f64::from(c) - 1.0).max(m));
        let report = Report { step: self.done, error: error.sqrt(), scale, row_deviation, column_excess };
        if !(report.error.is_finite() && report.row_deviation.is_finite()) {
            return Err(Error::Diverged { step: self.done, term: "correspondence".into(), op: "prime_dual".into() });
        }
        Ok(report)
    }

    /// F as it is now, [m, n] of the modalities as they were given.
    pub fn correspondence(&mut self) -> Result<Vec<f32>> {
        let [rows, cols] = self.step.dims(self.state.f);
        let f = self.step.download(self.state.f)?;
        if !self.exchanged {
            return Ok(f);
        }
        let mut turned = vec![0.0; f.len()];
        for (i, row) in f.chunks_exact(cols).enumerate() {
            row.iter().enumerate().for_each(|(j, &v)| turned[j * rows + i] = v);
        }
        Ok(turned)
    }

    /// How many steps have been made.
    pub fn steps(&self) -> u64 {
        self.done
    }

    /// Gives the device back, empty.
    pub fn into_device(self) -> Device {
        self.step.into_device()
    }

    /// The device's memory in use and its peak, in bytes.
    pub fn memory(&self) -> (usize, usize) {
        self.step.memory()
    }
}

/// All steps; the device comes back. `progress` hears every report; a set `stop` ends it with [`Error::Interrupted`].
pub fn solve(
    device: Device,
    a: Vec<f32>,
    b: Vec<f32>,
    options: Options,
    stop: Option<&AtomicBool>,
    mut progress: impl FnMut(Report),
) -> Result<(Solution, Device)> {
    let mut solver = Solver::new(device, a, b, options)?;
    while solver.done < options.iterations {
        if stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
            let (done, all) = (solver.done, options.iterations);
            return Err(Error::Interrupted(format!("interrupted: the correspondence was at step {done} of {all}")));
        }
        solver.advance()?;
        if options.report_every > 0 && solver.done % options.report_every == 0 && solver.done < options.iterations {
            progress(solver.report()?);
        } else if solver.done % DRAIN == 0 {
            solver.step.finish()?;
        }
    }
    let last = solver.report()?;
    progress(last);
    Ok((Solution { correspondence: solver.correspondence()?, last }, solver.into_device()))
}

/// The side of a square table that a device can index.
pub(super) fn side(table: &[f32], which: &str) -> Result<usize> {
    let n = table.len().isqrt();
    if n == 0 || n * n != table.len() {
        return Err(Error::usage(format!("the {which} table of distances has {} values: cells x cells are wanted", table.len())));
    }
    if i32::try_from(table.len()).is_err() {
        return Err(Error::usage(format!("the {which} modality has {n} cells: a correspondence is computed of at most 46340")));
    }
    match table.iter().position(|d| !d.is_finite() || *d < 0.0) {
        Some(at) => Err(Error::usage(format!(
            "the {which} table of distances has {} at cells {}, {}: distances are finite and not negative",
            table[at],
            at / n,
            at % n
        ))),
        None => Ok(n),
    }
}

#[cfg(test)]
mod tests;
