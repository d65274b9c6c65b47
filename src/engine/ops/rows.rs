//! Rows of resident data: the first operation of a step.
//!
//!   gather   y_r = (x_{order[start + r]} - mean) ⊙ scale: a minibatch of a modality, standardised on the way
//!   window   y_r = x_{start + r}: the minibatch's part of something that is kept an epoch long (weights of pairs)
//! `start` is the clock's: the minibatch's first row in the epoch's order, so that a captured step can be replayed.
//!   shapes   x [cells, D features], order [1, ≥ start + B] of u32 row numbers, mean and scale [1, D] or none, y [B, D]
//!   kernels  gather_rows, window_rows                                                     (kernels/rows.cu)
//! No gradient: data want none. A missing value (NaN) stays missing.

use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::{Step, Var};

impl Step {
    /// A minibatch of `rows` rows of `x`, in the epoch's order. Row numbers are checked when the order is uploaded, not here.
    #[track_caller]
    pub fn gather(&mut self, x: Var, order: Var, rows: usize, mean: Var, scale: Var) -> Var {
        let [cells, cols] = self.dims(x);
        assert!(
            self.start() + rows <= self.size(order),
            "gather: rows {}..{} of an order of {}",
            self.start(),
            self.start() + rows,
            self.size(order)
        );
        let y = self.alloc([rows, cols]);
        if self.on_cpu() {
            let start = self.start();
            let (mean, scale) = (self.or_empty(mean), self.or_empty(scale));
            let ([y], [x, order, mean, scale]) = self.views([y], [x, order, mean, scale]);
            let order: &[u32] = &bytemuck::cast_slice(order)[start..];
            cpu::rows(y, cols, |r, y| {
                let row = order[r] as usize;
                assert!(row < cells, "gather: row {row} of {cells}");
                let x = &x[row * cols..(row + 1) * cols];
                if scale.is_empty() {
                    y.copy_from_slice(x);
                } else {
                    for (((y, x), m), s) in y.iter_mut().zip(x).zip(mean).zip(scale) {
                        *y = (x - m) * s;
                    }
                }
            });
        } else {
            let args =
                [self.ptr(y), self.ptr(x), self.ptr(order), self.clock_ptr(), self.ptr(mean), self.ptr(scale), rows.into(), cols.into()];
            self.launch("gather_rows", Grid::blocks(rows, 128), &args);
        }
        y
    }

    /// Rows `start .. start + rows` of `x`.
    #[track_caller]
    pub fn window(&mut self, x: Var, rows: usize) -> Var {
        let [all, cols] = self.dims(x);
        assert!(self.start() + rows <= all, "window: rows {}..{} of {all}", self.start(), self.start() + rows);
        let y = self.alloc([rows, cols]);
        if self.on_cpu() {
            let start = self.start() * cols;
            let ([y], [x]) = self.views([y], [x]);
            y.copy_from_slice(&x[start..start + y.len()]);
        } else {
            let args = [self.ptr(y), self.ptr(x), self.clock_ptr(), rows.into(), cols.into()];
            self.launch("window_rows", Grid::over(rows * cols), &args);
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::engine::Var;

    #[test]
    fn gather_takes_the_epochs_order_from_the_clocks_start_and_standardises() {
        for (device, mut s) in steps() {
            let x = s.resident([4, 3]).unwrap();
            s.upload(x, &(0..12).map(|v| v as f32).collect::<Vec<_>>()).unwrap();
            let order = s.resident([1, 5]).unwrap();
            s.upload(order, &[0u32, 3, 1, 2, 0]).unwrap();
            s.begin(true, 1, 1).unwrap();
            let y = s.gather(x, order, 3, Var::NONE, Var::NONE);
            assert_eq!(s.download(y).unwrap(), [9.0, 10.0, 11.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], "{device}");
            let (m, k) = (s.constant([1, 3], &[1.0, 1.0, 1.0]), s.constant([1, 3], &[1.0, 2.0, 0.5]));
            let y = s.gather(x, order, 1, m, k);
            assert_eq!(s.download(y).unwrap(), [8.0, 18.0, 5.0], "{device}");
        }
    }

    #[test]
    fn gather_keeps_missing_values_missing_and_works_at_odd_widths() {
        for cols in [1, 31, 33, 257] {
            let data = values(7 * cols, 5);
            for (device, mut s) in steps() {
                let x = s.resident([7, cols]).unwrap();
                let mut with_gap = data.clone();
                with_gap[cols] = f32::NAN;
                s.upload(x, &with_gap).unwrap();
                let order = s.resident([1, 7]).unwrap();
                s.upload(order, &[6u32, 5, 4, 3, 2, 1, 0]).unwrap();
                s.begin(true, 1, 4).unwrap();
                let y = s.gather(x, order, 3, Var::NONE, Var::NONE);
                let y = s.download(y).unwrap();
                assert!(y[cols].is_nan(), "{device}");
                assert_eq!(y[..cols], data[2 * cols..3 * cols], "{device}");
                assert_eq!(y[2 * cols..], data[..cols], "{device}");
            }
        }
    }

    #[test]
    fn window_follows_the_clock() {
        for (device, mut s) in steps() {
            let x = s.resident([5, 2]).unwrap();
            s.upload(x, &(0..10).map(|v| v as f32).collect::<Vec<_>>()).unwrap();
            s.begin(true, 1, 2).unwrap();
            let y = s.window(x, 2);
            assert_eq!(s.download(y).unwrap(), [4.0, 5.0, 6.0, 7.0], "{device}");
        }
    }
}
