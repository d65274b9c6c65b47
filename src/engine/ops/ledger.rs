//! The ledger of a run's loss terms: their sums over an epoch stay on the device and are read once, and the first term that is not
//! a finite number stops every optimiser on the spot.
//!
//!   sums_k += term_k (f64, as two f32: high and low), count += 1, while not stopped
//!   stop   = the step's number and the term's, once a term is not finite
//!   shapes terms [1, 1] each, sums [1, 2·terms], stop [1, 2] of u32
//!   kernels ledger_add                                                              (kernels/ledger.cu)
//!
//! After a stop the parameters are those that gave the loss that is not finite, so that the step can be played again to name the
//! operation (`Step::first_not_finite`), and no later step has touched them.

use crate::device::launch::{Arg, Grid};
use crate::engine::{Step, Var};
use crate::error::Result;

/// As many terms as one ledger follows.
pub const MAX_TERMS: usize = 64;

/// Sums of loss terms on the device.
pub struct Ledger {
    terms: usize,
    sums: Var,
    stop: Var,
}

impl Ledger {
    /// For `terms` loss terms.
    pub fn new(s: &mut Step, terms: usize) -> Result<Ledger> {
        assert!(terms <= MAX_TERMS, "a ledger of {terms} terms");
        s.end();
        let (sums, stop) = (s.resident([1, 2 * terms.max(1)])?, s.resident([1, 2])?);
        Ok(Ledger { terms, sums, stop })
    }

    /// How many terms it follows.
    pub fn terms(&self) -> usize {
        self.terms
    }

    /// Adds this step's terms, in order; call it after they are computed and before the optimiser moves. A term that is not there is left out.
    #[track_caller]
    pub fn add(&self, s: &mut Step, terms: &[Var]) {
        assert_eq!(terms.len(), self.terms, "ledger: terms");
        for (k, &term) in terms.iter().enumerate().filter(|(_, t)| !t.is_none()) {
            if s.on_cpu() {
                let step = s.step_number();
                let ([sums, stop], [term]) = s.views([self.sums, self.stop], [term]);
                let stop: &mut [u32] = bytemuck::cast_slice_mut(stop);
                if stop[0] == 0 {
                    if term[0].is_finite() {
                        let sum = sums[2 * k] as f64 + sums[2 * k + 1] as f64 + term[0] as f64;
                        (sums[2 * k], sums[2 * k + 1]) = (sum as f32, (sum - (sum as f32) as f64) as f32);
                    } else {
                        (stop[0], stop[1]) = (step, k as u32);
                    }
                }
            } else {
                let args = [s.ptr(self.sums), s.ptr(self.stop), s.ptr(term), s.clock_ptr(), k.into()];
                s.launch("ledger_add", Grid::blocks(1, 1), &args);
            }
        }
    }

    /// Whether a term was not finite; on the CPU only, where looking costs nothing.
    pub(in crate::engine) fn stopped(&self, s: &mut Step) -> bool {
        let ([], [stop]) = s.views([], [self.stop]);
        stop[0].to_bits() != 0
    }

    pub(in crate::engine) fn stop_ptr(&self, s: &Step) -> Arg {
        s.ptr(self.stop)
    }

    /// The step and the term that were not finite, if any; waits for the device.
    pub fn stop(&self, s: &mut Step) -> Result<Option<(u64, usize)>> {
        let mut stop = [0u32; 2];
        s.download_into(self.stop, &mut stop)?;
        Ok((stop[0] != 0).then_some((stop[0] as u64, stop[1] as usize)))
    }

    /// The sums so far; waits for the device.
    pub fn sums(&self, s: &mut Step) -> Result<Vec<f64>> {
        let raw = s.download(self.sums)?;
        Ok(raw.chunks_exact(2).take(self.terms).map(|p| p[0] as f64 + p[1] as f64).collect())
    }

    /// Sets the sums, to zero at the start of an epoch or to a checkpoint's.
    pub fn set_sums(&self, s: &mut Step, sums: &[f64]) -> Result<()> {
        let mut raw = vec![0.0f32; s.size(self.sums)];
        for (pair, &sum) in raw.chunks_exact_mut(2).zip(sums) {
            (pair[0], pair[1]) = (sum as f32, (sum - (sum as f32) as f64) as f32);
        }
        s.upload(self.sums, &raw)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn sums_add_up_and_the_first_term_that_is_not_finite_stops_the_ledger() {
        for (device, mut s) in steps() {
            let ledger = Ledger::new(&mut s, 2).unwrap();
            for step in 1..=3 {
                s.begin(true, step, 0).unwrap();
                let terms = [s.constant([1, 1], &[0.5]), s.constant([1, 1], &[1e8 + 1.0])];
                ledger.add(&mut s, &terms);
            }
            assert_eq!(ledger.sums(&mut s).unwrap(), [1.5, 3e8], "{device}: f32 holds 1e8 + 1 as 1e8");
            assert_eq!(ledger.stop(&mut s).unwrap(), None, "{device}");
            s.begin(true, 4, 0).unwrap();
            let terms = [s.constant([1, 1], &[1.0]), s.constant([1, 1], &[f32::NAN])];
            ledger.add(&mut s, &terms);
            s.begin(true, 5, 0).unwrap();
            let terms = [s.constant([1, 1], &[f32::INFINITY]), s.constant([1, 1], &[1.0])];
            ledger.add(&mut s, &terms);
            assert_eq!(ledger.stop(&mut s).unwrap(), Some((4, 1)), "{device}");
        }
    }
}
