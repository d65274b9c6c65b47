//! A moving average of parameters: the teacher of a consistency loss (Tarvainen and Valpola 2017).
//!
//!   θ' ← κ θ' + (1 - κ) θ after each step of θ, θ' being θ at first
//!   shapes    the group's flat buffer
//!   kernel    average_towards                                                          (kernels/optim.cu)
//!
//! θ' is a state: checkpoints have it, no gradient moves it. Nothing moves in a step whose loss was not finite.

use super::ops::ledger::Ledger;
use super::params::Group;
use super::step::{Step, Var};
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::error::Result;

/// The average of a group of parameters.
#[derive(Clone, Copy, Debug)]
pub struct MovingAverage {
    values: Var,
    average: Var,
    keep: f32,
    take: f32,
}

impl MovingAverage {
    /// Of the group, all parameters of which, and of every other group, have been made. The state is `average.NAME`, laid out as the group is.
    pub fn new(s: &mut Step, name: &str, group: Group, keep: f64) -> Result<MovingAverage> {
        s.seal()?;
        let values = s.params().group(group).map_or(crate::device::Mem::EMPTY, |(values, _)| values);
        let dims = [1, values.len()];
        let values = s.borrowed(values, dims);
        let initial = s.download(values)?;
        let average = s.state(format!("average.{name}"), dims, &initial)?;
        Ok(MovingAverage { values, average, keep: keep as f32, take: (1.0 - keep) as f32 })
    }

    /// The average of a parameter of the group: a variable of the step under way, without gradient.
    #[track_caller]
    pub fn of(&self, s: &mut Step, parameter: Var) -> Var {
        let dims = s.dims(parameter);
        let first = s.words_between(self.values, parameter);
        let flat = s.part(self.average, first, dims[0] * dims[1]);
        s.reshaped(flat, dims)
    }

    /// Follows the parameters by a step.
    pub fn step(&self, s: &mut Step, ledger: &Ledger) {
        let (keep, take) = (self.keep, self.take);
        if s.on_cpu() {
            if ledger.stopped(s) {
                return;
            }
            let ([average], [values]) = s.views([self.average], [self.values]);
            cpu::chunks(average, |start, average| {
                vectorised(
                    #[inline(always)]
                    || average.iter_mut().zip(&values[start..]).for_each(|(a, &v)| *a = keep * *a + take * v),
                );
            });
        } else {
            let n = s.size(self.values);
            let args = [s.ptr(self.average), s.ptr(self.values), ledger.stop_ptr(s), n.into(), keep.into(), take.into()];
            s.launch("average_towards", Grid::over(n), &args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::testing::*;
    use super::*;

    #[test]
    fn the_average_follows_its_own_parameter_by_its_share() {
        for (device, mut s) in steps() {
            s.parameter("other", 1, [1, 3], vec![9.0; 3]);
            let first = s.parameter("first", 0, [1, 3], vec![1.0, 2.0, 3.0]);
            let second = s.parameter("second", 0, [2, 1], vec![10.0, 20.0]);
            let average = MovingAverage::new(&mut s, "0", 0, 0.75).unwrap();
            let ledger = Ledger::new(&mut s, 1).unwrap();
            s.begin(true, 1, 0).unwrap();
            s.upload(second, &[14.0f32, 12.0]).unwrap();
            average.step(&mut s, &ledger);
            let (a, b) = (average.of(&mut s, first), average.of(&mut s, second));
            assert_eq!((s.dims(a), s.dims(b)), ([1, 3], [2, 1]), "{device}");
            assert_eq!((s.download(a).unwrap(), s.download(b).unwrap()), (vec![1.0, 2.0, 3.0], vec![11.0, 18.0]), "{device}");
            assert!(!s.wants(b), "{device}");
        }
    }
}
