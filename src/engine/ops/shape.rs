//! Parts of a matrix, matrices side by side, multiples.
//!
//!   detached    y = x, through which no gradient passes
//!   rows_part   y_r = x_{first + r}                        dx_{first + r} += dy_r; y lies where x does, nothing is copied
//!   beside      y = (a | b)                                da, db: their columns of dy
//!   columns     y_c = x_{first + c} of every row             dx_{first + c} += dy_c
//!   stacked     y = (a; b; ..)                             da, db, ..: their rows of dy
//!   transposed  y = xᵀ                                     dx = dyᵀ
//!   scaled      y = c x                                    dx = c dy
//!   shapes      x [B, D], y [rows, D]; a [B, p], b [B, q], y [B, p + q]; a [m, D], b [n, D], y [m + n + .., D]; x [B, D], y [D, B]
//!   kernels     add_to, beside_fwd, take_columns, columns_bwd, transpose, scale_to                                     (kernels/shape.cu)

use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static ROWS_PART: Op = Op { name: "rows_part", backward: rows_part_backward };
static BESIDE: Op = Op { name: "beside", backward: beside_backward };
static COLUMNS_PART: Op = Op { name: "columns_part", backward: columns_part_backward };
static STACKED: Op = Op { name: "stacked", backward: stacked_backward };
static SCALED: Op = Op { name: "scaled", backward: scaled_backward };
static TRANSPOSED: Op = Op { name: "transposed", backward: transposed_backward };

impl Step {
    /// The same values as a constant.
    pub fn detached(&mut self, x: Var) -> Var {
        self.reshaped(x, self.dims(x))
    }

    /// Rows `first..first + rows` of x.
    #[track_caller]
    pub fn rows_part(&mut self, x: Var, first: usize, rows: usize) -> Var {
        let [all, cols] = self.dims(x);
        assert!(first + rows <= all, "rows_part: rows {first}..{} of {all}", first + rows);
        if rows == all && self.is_sparse(x) {
            return x;
        }
        let x = self.dense(x);
        let flat = self.part(x, first * cols, rows * cols);
        let y = self.reshaped(flat, [rows, cols]);
        self.record(&ROWS_PART, [x], y, [0.0; 4], [first as u32, 0, 0, 0]);
        y
    }

    /// Columns `first..first + cols` of x, copied: [B, cols].
    #[track_caller]
    pub fn columns_part(&mut self, x: Var, first: usize, cols: usize) -> Var {
        let [rows, all] = self.dims(x);
        assert!(first + cols <= all, "columns_part: columns {first}..{} of {all}", first + cols);
        let y = self.alloc([rows, cols]);
        take_columns(self, y, x, first, false);
        self.record(&COLUMNS_PART, [x], y, [0.0; 4], [first as u32, 0, 0, 0]);
        y
    }

    /// The rows of all parts, one part after the other: at most eight, as wide as the first. One part is itself.
    #[track_caller]
    pub fn stacked(&mut self, parts: &[Var]) -> Var {
        if let [one] = parts {
            return *one;
        }
        let cols = self.dims(parts[0])[1];
        let rows: usize = parts.iter().map(|&p| self.dims(p)[0]).sum();
        let y = self.alloc([rows, cols]);
        let mut x = [Var::NONE; 8];
        let mut first = 0;
        for (x, &part) in x.iter_mut().zip(parts) {
            assert_eq!(self.dims(part)[1], cols, "stacked: parts of one width");
            let (n, part) = (self.size(part), self.dense(part));
            let to = self.part(y, first, n);
            self.copy(to, part);
            (*x, first) = (part, first + n);
        }
        assert_eq!(first, rows * cols, "stacked: at most eight parts");
        self.record(&STACKED, x, y, [0.0; 4], [0; 4]);
        y
    }

    /// xᵀ. x [B, D]; result [D, B].
    pub fn transposed(&mut self, x: Var) -> Var {
        let [rows, cols] = self.dims(x);
        let y = self.alloc([cols, rows]);
        self.transpose(y, x, false);
        self.record(&TRANSPOSED, [x], y, [0.0; 4], [0; 4]);
        y
    }

    /// c x.
    pub fn scaled(&mut self, x: Var, c: f32) -> Var {
        let y = self.alloc(self.dims(x));
        scale_to(self, y, x, c, false);
        self.record(&SCALED, [x], y, [c, 0.0, 0.0, 0.0], [0; 4]);
        y
    }

    /// y += x
    fn add_to(&mut self, y: Var, x: Var) {
        let n = self.size(x);
        if self.on_cpu() {
            let ([y], [x]) = self.views([y], [x]);
            cpu::chunks(y, |start, y| y.iter_mut().zip(&x[start..]).for_each(|(y, x)| *y += x));
        } else {
            let args = [self.ptr(y), self.ptr(x), n.into()];
            self.launch("add_to", Grid::over(n), &args);
        }
    }

    /// y (+)= xᵀ
    fn transpose(&mut self, y: Var, x: Var, add: bool) {
        let [rows, cols] = self.dims(x);
        if self.on_cpu() {
            let ([y], [x]) = self.views([y], [x]);
            cpu::rows(y, rows, |c, y| {
                y.iter_mut().enumerate().for_each(|(r, y)| *y = if add { *y } else { 0.0 } + x[r * cols + c]);
            });
        } else {
            let args = [self.ptr(y), self.ptr(x), rows.into(), cols.into(), add.into()];
            self.launch("transpose", Grid::over(rows * cols), &args);
        }
    }

    /// a's columns, then b's. a [B, p], b [B, q]; result [B, p + q].
    #[track_caller]
    pub fn beside(&mut self, a: Var, b: Var) -> Var {
        let ([rows, p], [rows_b, q]) = (self.dims(a), self.dims(b));
        assert_eq!(rows, rows_b, "beside: a is [{rows}, {p}], b is [{rows_b}, {q}]");
        let y = self.alloc([rows, p + q]);
        if self.on_cpu() {
            let ([y], [a, b]) = self.views([y], [a, b]);
            for (r, y) in y.chunks_exact_mut((p + q).max(1)).enumerate() {
                y[..p].copy_from_slice(&a[r * p..(r + 1) * p]);
                y[p..].copy_from_slice(&b[r * q..(r + 1) * q]);
            }
        } else {
            let args = [self.ptr(y), self.ptr(a), self.ptr(b), rows.into(), p.into(), q.into()];
            self.launch("beside_fwd", Grid::over(rows * (p + q)), &args);
        }
        self.record(&BESIDE, [a, b], y, [0.0; 4], [0; 4]);
        y
    }
}

/// y (+)= c x
fn scale_to(s: &mut Step, y: Var, x: Var, c: f32, add: bool) {
    let n = s.size(x);
    if s.on_cpu() {
        let ([y], [x]) = s.views([y], [x]);
        cpu::chunks(y, |start, y| y.iter_mut().zip(&x[start..]).for_each(|(y, x)| *y = if add { *y } else { 0.0 } + c * x));
    } else {
        let args = [s.ptr(y), s.ptr(x), n.into(), c.into(), add.into()];
        s.launch("scale_to", Grid::over(n), &args);
    }
}

fn scaled_backward(s: &mut Step, node: &Node) {
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let (dx, add) = s.grad_slot(node.x[0]);
    scale_to(s, dx, dy, node.k[0], add);
}

fn rows_part_backward(s: &mut Step, node: &Node) {
    let (x, first) = (node.x[0], node.n[0] as usize);
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let (dx, add) = s.grad_slot(x);
    if !add {
        s.zero(dx);
    }
    let (cols, n) = (s.dims(x)[1], s.size(dy));
    let part = s.part(dx, first * cols, n);
    s.add_to(part, dy);
}

fn columns_part_backward(s: &mut Step, node: &Node) {
    let (x, first, dy) = (node.x[0], node.n[0] as usize, s.grad(node.y).expect("the gradient has arrived"));
    let (dx, add) = s.grad_slot(x);
    if !add {
        s.zero(dx);
    }
    let ([rows, cols], all) = (s.dims(dy), s.dims(x)[1]);
    if s.on_cpu() {
        let ([dx], [dy]) = s.views([dx], [dy]);
        for (dx, dy) in dx.chunks_exact_mut(all.max(1)).zip(dy.chunks_exact(cols.max(1))) {
            dx[first..first + cols].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
        }
    } else {
        let args = [s.ptr(dx), s.ptr(dy), rows.into(), cols.into(), first.into(), all.into()];
        s.launch("columns_bwd", Grid::over(rows * cols), &args);
    }
}

fn stacked_backward(s: &mut Step, node: &Node) {
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let mut first = 0;
    for &x in node.x.iter().take_while(|x| !x.is_none()) {
        let n = s.size(x);
        if s.wants(x) {
            let from = s.part(dy, first, n);
            let (dx, add) = s.grad_slot(x);
            if add { s.add_to(dx, from) } else { s.copy(dx, from) }
        }
        first += n;
    }
}

fn transposed_backward(s: &mut Step, node: &Node) {
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let (dx, add) = s.grad_slot(node.x[0]);
    s.transpose(dx, dy, add);
}

fn beside_backward(s: &mut Step, node: &Node) {
    let [a, b, ..] = node.x;
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let p = s.dims(a)[1];
    for (v, first) in [(a, 0), (b, p)] {
        if !s.wants(v) {
            continue;
        }
        let (d, add) = s.grad_slot(v);
        take_columns(s, d, dy, first, add);
    }
}

/// y (+)= x's columns from `first` on, as many as y has
fn take_columns(s: &mut Step, y: Var, x: Var, first: usize, add: bool) {
    let ([rows, cols], all) = (s.dims(y), s.dims(x)[1]);
    if s.on_cpu() {
        let ([y], [x]) = s.views([y], [x]);
        for (y, x) in y.chunks_exact_mut(cols.max(1)).zip(x.chunks_exact(all.max(1))) {
            y.iter_mut().zip(&x[first..]).for_each(|(y, x)| *y = if add { *y + x } else { *x });
        }
    } else {
        let args = [s.ptr(y), s.ptr(x), rows.into(), cols.into(), first.into(), all.into(), add.into()];
        s.launch("take_columns", Grid::over(rows * cols), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn parts_of_rows_pass_their_gradients_to_their_place() {
        prove(&[operand([7, 3], 1)], 1e-6, |s, v| s.rows_part(v[0], 2, 4), |x| x[0][6..18].to_vec());
        // Two parts that overlap: what one leaves out stays 0, what both have is added.
        prove(
            &[operand([5, 2], 1)],
            1e-6,
            |s, v| {
                let (a, b) = (s.rows_part(v[0], 0, 3), s.rows_part(v[0], 1, 3));
                s.beside(a, b)
            },
            |x| (0..3).flat_map(|r| [x[0][2 * r], x[0][2 * r + 1], x[0][2 * r + 2], x[0][2 * r + 3]]).collect(),
        );
    }

    #[test]
    fn matrices_one_after_the_other_share_the_gradient_and_a_part_may_come_twice() {
        for [m, n, cols] in [[1, 1, 1], [5, 3, 2], [0, 4, 3], [33, 7, 20]] {
            prove(
                &[operand([m, cols], 1), operand([n, cols], 2), fixed([2, cols], values(2 * cols, 3))],
                1e-6,
                |s, v| s.stacked(&[v[0], v[1], v[2], v[0]]),
                |x| [&x[0][..], &x[1], &x[2], &x[0]].concat(),
            );
        }
    }

    #[test]
    fn a_transposed_matrix_passes_its_gradient_back_transposed() {
        for [rows, cols] in [[1, 1], [3, 7], [33, 31]] {
            let turned = |x: &[f64]| (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect::<Vec<f64>>();
            prove(&[operand([rows, cols], 1)], 1e-6, |s, v| s.transposed(v[0]), |x| turned(&x[0]));
            // Twice the same operand: the second contribution is added.
            prove(
                &[operand([rows, cols], 1)],
                1e-6,
                |s, v| {
                    let parts = [s.transposed(v[0]), s.transposed(v[0])];
                    s.stacked(&parts)
                },
                |x| [turned(&x[0]), turned(&x[0])].concat(),
            );
        }
    }

    #[test]
    fn a_multiple_passes_its_multiple_back() {
        prove(
            &[operand([5, 3], 1)],
            1e-6,
            |s, v| {
                let (a, b) = (s.scaled(v[0], -0.5), s.scaled(v[0], 3.0));
                s.beside(a, b)
            },
            |x| x[0].chunks_exact(3).flat_map(|x| [-0.5, 3.0].map(|c| x.iter().map(move |x| c * x).collect::<Vec<_>>()).concat()).collect(),
        );
    }

    #[test]
    fn columns_pass_their_gradients_to_their_place() {
        for [rows, all, first, cols] in [[1, 1, 0, 1], [5, 7, 2, 3], [33, 20, 0, 19], [4, 6, 5, 1]] {
            prove(
                &[operand([rows, all], 1)],
                1e-6,
                |s, v| {
                    let (a, b) = (s.columns_part(v[0], first, cols), s.columns_part(v[0], 0, all));
                    s.beside(a, b)
                },
                |x| x[0].chunks_exact(all).flat_map(|x| [&x[first..first + cols], x].concat()).collect(),
            );
        }
    }

    #[test]
    fn matrices_side_by_side_share_the_gradient() {
        for [rows, p, q] in [[1, 1, 1], [5, 3, 2], [33, 7, 20], [4, 0, 3]] {
            let row = |x: &[Vec<f64>], r: usize| [&x[0][r * p..(r + 1) * p], &x[1][r * q..(r + 1) * q]].concat();
            prove(
                &[operand([rows, p], 1), operand([rows, q], 2)],
                1e-6,
                |s, v| s.beside(v[0], v[1]),
                |x| (0..rows).flat_map(|r| row(x, r)).collect(),
            );
        }
    }

    #[test]
    fn nothing_passes_through_what_is_detached() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let x = s.leaf([2, 2], &[1.0, 2.0, 3.0, 4.0]);
            let y = s.detached(x);
            assert!(!s.wants(y), "{device}");
            assert_eq!(s.download(y).unwrap(), [1.0, 2.0, 3.0, 4.0], "{device}");
        }
    }
}
