//! Products of a sparse minibatch x = 1·baseᵀ + Δ (`engine/sparse.rs`), and the same values densely.
//!
//!   forward   y = f(Δ·Wᵀ + W·base + b)                  what [`Step::linear`] computes of a sparse x
//!   backward  dW = duᵀ·Δ + (Σ_b du)·baseᵀ               x itself is data and gets none
//!   dense     x_b = base, then + λ v at every entry (column, v) of row b, a term after the other
//!   shapes    x [B cells, D features], W [H hidden, D], base [1, D] or none, b [1, H] or none, y [B, H]
//!   kernels   sparse_linear_fwd, sparse_linear_bwd, sparse_dense                                        (kernels/sparse.cu)
//!
//! On the processor the entries are first sorted for the products (`device/cpu_gemm/sparse.rs`), once a minibatch; W·base comes out of
//! the same passage over W. On a GPU the rows are read where they lie, and W·base is a product of its own. Sums run by columns (forward)
//! or cells (backward) in their order, so that no bit depends on threads.

use super::activation::Activation;
use super::gemm::Layout;
use crate::device::cpu;
use crate::device::cpu_gemm::sparse::{Panels, Row, forward, gradient, starts_by_row};
use crate::device::launch::{Arg, Grid};
use crate::engine::sparse::{Scale, Sparse, Term};
use crate::engine::{Step, Var};

/// Rows and outputs of a block of `sparse_linear_fwd`; columns and outputs of one of `sparse_linear_bwd`.
const FORWARD: [usize; 2] = [32, 128];
const BACKWARD: [usize; 2] = [64, 128];

/// An order of the entries.
#[derive(Clone, Copy)]
enum By {
    Row = 0,
    Column = 1,
}

/// A term's rows as the processor sees them.
struct View<'a> {
    starts: &'a [u32],
    columns: &'a [u32],
    values: &'a [f32],
    order: &'a [u32],
    scale: f32,
}

impl<'a> View<'a> {
    fn row(&self, b: usize) -> Row<'a> {
        let row = self.order.get(b).map_or(b, |r| *r as usize);
        let part = self.starts[row] as usize..self.starts[row + 1] as usize;
        (&self.columns[part.clone()], &self.values[part], self.scale)
    }
}

impl Step {
    /// y = f(x·Wᵀ + b) for a sparse x.
    pub(super) fn sparse_linear(&mut self, y: Var, x: Var, w: Var, b: Var, activation: Activation) {
        let sparse = self.sparse_of(x).expect("asked before");
        let ([rows, cols], [outs, _]) = (self.dims(x), self.dims(w));
        if !b.is_none() {
            assert_eq!(self.dims(b), [1, outs], "linear: the bias of y [{rows}, {outs}]");
        }
        if rows * outs == 0 {
            return;
        }
        if self.on_cpu() {
            let [starts, at, values] = self.sorted(x, By::Row);
            let (base, bias) = (self.or_empty(sparse.base), self.or_empty(b));
            let ([y], [starts, at, values, w, base, bias]) = self.views([y], [starts, at, values, w, base, bias]);
            let x = Panels { shape: [rows, cols], starts: bytemuck::cast_slice(starts), at: bytemuck::cast_slice(at), values };
            let finish = #[inline(always)]
            |first: usize, row: &mut [f32]| {
                if !bias.is_empty() {
                    row.iter_mut().zip(&bias[first..]).for_each(|(y, b)| *y += b);
                }
                activation.apply(row);
            };
            return forward(x, y, w, base, outs, rayon::current_num_threads(), finish);
        }
        let offset = if sparse.base.is_none() {
            Var::NONE
        } else {
            let offset = self.alloc([1, outs]);
            self.gemm(Layout::NT, offset, sparse.base, w, false, None);
            offset
        };
        let terms = sparse.terms.iter().flatten().count();
        for (t, term) in sparse.terms.iter().flatten().enumerate() {
            let rest = [self.ptr(w), self.ptr(b), self.ptr(offset), rows.into(), cols.into(), outs.into()];
            let last = t + 1 == terms;
            let finish = [(t > 0).into(), last.into(), activation.code().into(), activation.parameter().into()];
            let args = [&[self.ptr(y)], &self.term_args(term)[..], &rest, &self.scale_args(term), &finish].concat();
            let blocks = [outs.div_ceil(FORWARD[1]) as u32, rows.div_ceil(FORWARD[0]) as u32, 1];
            self.launch("sparse_linear_fwd", Grid { blocks, threads: [256, 1, 1], shared: 0 }, &args);
        }
    }

    /// dW (+)= duᵀ·x for a sparse x.
    pub(super) fn sparse_weight_gradient(&mut self, dw: Var, du: Var, x: Var, add: bool) {
        let sparse = self.sparse_of(x).expect("asked before");
        let ([rows, cols], [_, outs]) = (self.dims(x), self.dims(du));
        let sums = if sparse.base.is_none() {
            Var::NONE
        } else {
            let sums = self.alloc([1, outs]);
            self.column_sum(sums, du, false);
            sums
        };
        if self.on_cpu() {
            let [starts, at, values] = self.sorted(x, By::Column);
            let (base, sums) = (self.or_empty(sparse.base), self.or_empty(sums));
            let ([dw], [starts, at, values, du, base, sums]) = self.views([dw], [starts, at, values, du, base, sums]);
            let x = Panels { shape: [rows, cols], starts: bytemuck::cast_slice(starts), at: bytemuck::cast_slice(at), values };
            return gradient(x, dw, du, base, sums, outs, add, rayon::current_num_threads());
        }
        for (t, term) in sparse.terms.iter().flatten().enumerate() {
            // The base is the first term's business.
            let [base, sums] = [sparse.base, sums].map(|v| self.ptr(if t == 0 { v } else { Var::NONE }));
            let rest = [self.ptr(du), base, sums, rows.into(), cols.into(), outs.into()];
            let args = [&[self.ptr(dw)], &self.term_args(term)[..], &rest, &self.scale_args(term), &[(add || t > 0).into()]].concat();
            let blocks = [cols.div_ceil(BACKWARD[0]) as u32, outs.div_ceil(BACKWARD[1]) as u32, 1];
            self.launch("sparse_linear_bwd", Grid { blocks, threads: [128, 1, 1], shared: 0 }, &args);
        }
    }

    /// All of a sparse variable's values.
    pub(in crate::engine) fn densified(&mut self, x: Var, sparse: &Sparse) -> Var {
        let [rows, cols] = self.dims(x);
        let y = self.alloc([rows, cols]);
        if self.on_cpu() {
            self.with_terms(sparse, rows, &[y, sparse.base], |s, terms, [y, base]| {
                let base = s.or_empty(base);
                let _ = (terms, y, base);
            });
            return y;
        }
        for (t, term) in sparse.terms.iter().flatten().enumerate() {
            let rest = [self.ptr(sparse.base), rows.into(), cols.into()];
            let args = [&[self.ptr(y)], &self.term_args(term)[..], &rest, &self.scale_args(term), &[(t > 0).into()]].concat();
            self.launch("sparse_dense", Grid::blocks(rows, 128), &args);
        }
        y
    }
}
