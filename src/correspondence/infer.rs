//! From the cells of two modalities to their correspondence: a table of distances each, then the solver.

use super::geodesic::{Metric, distances};
use super::prime_dual::{self, Report, Solution};
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
    /// The solver's settings; the feature counts are those of the cells.
    pub solver: prime_dual::Options,
}

impl Default for Inference {
    fn default() -> Inference {
        Inference { metrics: [Metric::Geodesic; 2], kmax: super::geodesic::KMAX, solver: prime_dual::Options::new([1, 1]) }
    }
}

/// How far an inference is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inferring {
    /// The distances within a modality (0 or 1) are computed next.
    Distances {
        /// Which.
        modality: usize,
        /// Its cells.
        cells: usize,
    },
    /// The solver has made some of its steps.
    Solving {
        /// How it stands.
        report: Report,
        /// Of so many steps.
        of: u64,
    },
}

/// The correspondence F [m, n] of A's and B's cells [m, p], [n, q], computed on `device`, which comes back. A set `stop` ends it
/// with [`Error::Interrupted`].
pub fn infer(
    device: Device,
    cells: [Matrix<'_>; 2],
    how: &Inference,
    stop: Option<&AtomicBool>,
    told: &mut dyn FnMut(Inferring),
) -> Result<(Solution, Device)> {
    let mut tables = Vec::with_capacity(2);
    for (modality, cells) in cells.iter().enumerate() {
        told(Inferring::Distances { modality, cells: cells.rows() });
        tables.push(distances(*cells, how.metrics[modality], how.kmax)?);
        if stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted("interrupted before the correspondence was solved".into()));
        }
    }
    let options = prime_dual::Options { features: cells.map(|c| c.cols()), ..how.solver };
    prime_dual::solve(device, &tables[0], &tables[1], options, stop, |report| told(Inferring::Solving { report, of: options.iterations }))
}
