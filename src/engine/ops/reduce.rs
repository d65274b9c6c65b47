//! Sums in a fixed order: over the rows of a matrix (one sum a column), and over everything.
//!
//!   column_sum   s_c = Σ_r x_rc          x [rows, cols], s [1, cols]
//!   sum          s   = Σ_r Σ_c x_rc      s [1, 1]
//!   mean         s   = sum / (rows·cols)
//! kernels: column_sum, total_sum, spread (the gradient of the two scalars)          (kernels/reduce.cu)
//!
//! The order depends on the shape alone. On the CPU `sum` and `mean` are accumulated in f64, a column's sum in f32, row by row.

use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static SUM: Op = Op { name: "sum", backward: sum_backward };

impl Step {
    /// s (+)= the sums of the columns of x: no operation of the tape, but what the backward passes of biases and scales are made of.
    #[track_caller]
    pub fn column_sum(&mut self, s: Var, x: Var, add: bool) {
        let [rows, cols] = self.dims(x);
        assert_eq!(self.dims(s), [1, cols], "column_sum: one sum a column");
        if self.on_cpu() {
            let ([s], [x]) = self.views([s], [x]);
            if !add {
                s.fill(0.0);
            }
            column_sum(s, x);
        } else {
            let args = [self.ptr(s), self.ptr(x), rows.into(), cols.into(), add.into()];
            self.launch("column_sum", Grid { blocks: [cols.div_ceil(32).max(1) as u32, 1, 1], threads: [32, 8, 1], shared: 0 }, &args);
        }
    }

    /// The sum of all elements. x any, result [1, 1].
    pub fn sum(&mut self, x: Var) -> Var {
        self.scaled_sum(x, 1.0)
    }

    /// The mean of all elements. x not empty, result [1, 1].
    #[track_caller]
    pub fn mean(&mut self, x: Var) -> Var {
        assert!(self.size(x) > 0, "mean of nothing");
        self.scaled_sum(x, 1.0 / self.size(x) as f32)
    }

    fn scaled_sum(&mut self, x: Var, scale: f32) -> Var {
        let y = self.alloc([1, 1]);
        let n = self.size(x);
        if self.on_cpu() {
            let ([y], [x]) = self.views([y], [x]);
            y[0] = (sum_f64(x.iter().map(|&v| v as f64)) * scale as f64) as f32;
        } else {
            let args = [self.ptr(y), self.ptr(x), n.into(), scale.into()];
            self.launch("total_sum", Grid::blocks(1, 1024), &args);
        }
        self.record(&SUM, [x], y, [scale, 0.0, 0.0, 0.0], [0; 4]);
        y
    }
}

fn sum_backward(s: &mut Step, node: &Node) {
    let (x, dy) = (node.x[0], s.grad(node.y).expect("the gradient has arrived"));
    let (dx, add) = s.grad_slot(x);
    let n = s.size(x);
    if s.on_cpu() {
        let ([dx], [dy]) = s.views([dx], [dy]);
        let g = dy[0] * node.k[0];
        dx.iter_mut().for_each(|d| *d = if add { *d + g } else { g });
    } else {
        let args = [s.ptr(dx), s.ptr(dy), n.into(), node.k[0].into(), add.into()];
        s.launch("spread", Grid::over(n), &args);
    }
}

/// s += the rows of x, one after the other; wide rows are cut over the cores.
fn column_sum(s: &mut [f32], x: &[f32]) {
    let cols = s.len();
    if cols == 0 {
        return;
    }
    cpu::chunks(s, |start, part| {
        for row in x.chunks_exact(cols) {
            part.iter_mut().zip(&row[start..]).for_each(|(s, v)| *s += v);
        }
    });
}

/// A sum in f64, eight running sums side by side so that it vectorises; the order depends on the length alone.
pub fn sum_f64(values: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0f64; 8];
    for (i, v) in values.enumerate() {
        lanes[i & 7] += v;
    }
    (lanes[0] + lanes[4]) + (lanes[1] + lanes[5]) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::engine::Step;

    #[test]
    fn sum_and_mean_match_the_reference_at_every_edge() {
        for n in [1, 31, 33, 257, 1025] {
            let f32_sum = 1e-6;
            prove(&[operand([n, 3], 1)], f32_sum, |s, x| s.sum(x[0]), |x| vec![x[0].iter().sum()]);
            prove(&[operand([3, n], 1)], f32_sum, |s, x| s.mean(x[0]), |x| vec![x[0].iter().sum::<f64>() / x[0].len() as f64]);
        }
    }

    #[test]
    fn column_sum_matches_the_reference_and_adds_when_asked() {
        for [rows, cols] in [[0, 3], [1, 1], [33, 31], [100, 257], [1031, 5]] {
            let x = values(rows * cols, 3);
            let once: Vec<f64> = (0..cols).map(|c| (0..rows).map(|r| x[r * cols + c] as f64).sum()).collect();
            for (device, mut s) in steps() {
                s.begin(true, 1, 0).unwrap();
                let (vx, vs) = (s.constant([rows, cols], &x), s.constant([1, cols], &vec![9.0; cols]));
                s.column_sum(vs, vx, false);
                check(&mut s, device, vs, &once);
                s.column_sum(vs, vx, true);
                check(&mut s, device, vs, &once.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
            }
        }
        fn check(s: &mut Step, device: &str, v: crate::engine::Var, expected: &[f64]) {
            let got = s.download(v).unwrap();
            compare(device, &got, expected, 1e-5); // ε·√1031 of values below 1 is 4e-6
        }
    }
}
