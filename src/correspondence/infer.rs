//! From the cells of two modalities to their correspondence: a table of distances each, then the solver.

use super::geodesic::{Metric, distances};
use super::landmarks::Solver;
use super::{gromov, landmarks, prime_dual};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::Matrix;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a correspondence is inferred; the defaults are JAMIE's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inference {
    /// Distances within A and within B.
    pub metrics: [Metric; 2],
    /// The largest k of a geodesic graph after which another is still tried.
    pub kmax: usize,
    /// Solve between so many cells of each modality instead of all ([`landmarks`]); 0: between all.
    pub landmarks: usize,
    /// By which solver; the feature counts in its settings are those of the cells.
    pub solver: Solver,
}

impl Default for Inference {
    fn default() -> Inference {
        Inference {
            metrics: [Metric::Geodesic; 2],
            kmax: super::geodesic::KMAX,
            landmarks: 0,
            solver: Solver::PrimeDual(prime_dual::Options::new([1, 1])),
        }
    }
}

/// As many cells are solved between directly where nobody says: 2,000 steps of 6 n³ operations, a quarter of an hour on two cores.
const WHOLE: usize = 2000;

impl Inference {
    /// How many landmarks where nobody says and the larger modality has so many cells; 0 for none.
    pub fn landmarks_for(cells: usize) -> usize {
        if cells > WHOLE { landmarks::Options::default().landmarks } else { 0 }
    }

    /// How [`landmarks::solve`] goes about it. Other than geodesic distances are a usage error.
    pub fn by_landmarks(&self) -> Result<landmarks::Options> {
        if self.metrics != [Metric::Geodesic; 2] {
            return Err(Error::usage("landmarks go by geodesic distances: leave distance out, or set landmarks to 0"));
        }
        Ok(landmarks::Options { landmarks: self.landmarks, kmax: self.kmax, solver: self.solver, ..landmarks::Options::default() })
    }
}

/// How far an inference is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inferring {
    /// Of several correspondences the one between these modalities, by their positions in the data set, comes next.
    Between([usize; 2]),
    /// The distances within a modality (0 or 1) are computed next.
    Distances {
        /// Which.
        modality: usize,
        /// Its cells.
        cells: usize,
    },
    /// The primal-dual solver has made some of its steps.
    PrimeDual {
        /// How it stands.
        report: prime_dual::Report,
        /// Of so many steps.
        of: u64,
    },
    /// The transport solver has made a round.
    Gromov {
        /// How it stands.
        report: gromov::Report,
        /// Of so many rounds at most.
        of: u64,
    },
    /// What a solution between landmarks is at.
    Landmarks(landmarks::Report),
    /// What the known pairs say of the correspondence, where there are any.
    Known {
        /// How many were asked.
        pairs: usize,
        /// The share of B's cells that correspond better to a cell of A than its known partner, the mean over pairs: half by chance, 0 at best.
        better: f64,
        /// Whether a training leaves it out, since they are many and it is no better than chance.
        left_out: bool,
    },
}

/// The correspondence F [m, n] between all of A's and B's cells [m, p], [n, q], computed on `device`, which comes back. A set `stop` ends it
/// with [`Error::Interrupted`].
pub fn infer(
    device: Device,
    cells: [Matrix<'_>; 2],
    how: &Inference,
    stop: Option<&AtomicBool>,
    told: &mut dyn FnMut(Inferring),
) -> Result<(Vec<f32>, Device)> {
    let mut table = |modality: usize| {
        told(Inferring::Distances { modality, cells: cells[modality].rows() });
        let table = distances(cells[modality], how.metrics[modality], how.kmax)?;
        if stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted("interrupted before the correspondence was solved".into()));
        }
        Ok(table)
    };
    let (a, b) = (table(0)?, table(1)?);
    match how.solver {
        Solver::PrimeDual(options) => {
            let options = prime_dual::Options { features: cells.map(|c| c.cols()), ..options };
            let of = options.iterations;
            let found = prime_dual::solve(device, a, b, options, stop, |report| told(Inferring::PrimeDual { report, of }))?;
            Ok((found.0.correspondence, found.1))
        }
        Solver::Gromov(options) => {
            let of = options.iterations;
            let found = gromov::solve(device, &a, &b, options, stop, |report| told(Inferring::Gromov { report, of }))?;
            Ok((found.0.correspondence(), found.1))
        }
    }
}
