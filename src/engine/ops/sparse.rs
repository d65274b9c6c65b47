//! Products of a sparse minibatch x = 1·baseᵀ + Δ (`engine/sparse.rs`), and the same values densely.
//!
//!   forward   y = f(Δ·Wᵀ + W·base + b)                  what [`Step::linear`] computes of a sparse x
//!   backward  dW = duᵀ·Δ + (Σ_b du)·baseᵀ               x itself is data and gets none
//!   dense     x_b = base, then + λ v at every entry (column, v) of row b, a term after the other
//!   shapes    x [B cells, D features], W [H hidden, D], base [1, D] or none, b [1, H] or none, y [B, H]
//!   kernels   sparse_linear_fwd, sparse_linear_bwd, sparse_dense, sparse_dropped (see `dropout`)          (kernels/sparse.cu)
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
            let x = panels([rows, cols], [starts, at, values]);
            return forward(
                x,
                y,
                w,
                base,
                outs,
                rayon::current_num_threads(),
                #[inline(always)]
                |first, row| {
                    if !bias.is_empty() {
                        row.iter_mut().zip(&bias[first..]).for_each(|(y, b)| *y += b);
                    }
                    activation.apply(row);
                },
            );
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
    pub(crate) fn sparse_weight_gradient(&mut self, dw: Var, du: Var, x: Var, add: bool) {
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
            let x = panels([rows, cols], [starts, at, values]);
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
            let (vars, start) = (self.term_vars(sparse), self.start());
            let scales = self.scales(sparse);
            let base = self.or_empty(sparse.base);
            let ([y], [s, c, v, o, s2, c2, v2, o2, base]) = self.views([y], with(vars, base));
            let terms = views_of([[s, c, v, o], [s2, c2, v2, o2]], scales, start);
            cpu::rows(y, cols, |b, y| {
                if base.is_empty() {
                    y.fill(0.0)
                } else {
                    y.copy_from_slice(base)
                }
                for term in terms.iter().flatten() {
                    let (columns, values, scale) = term.row(b);
                    columns.iter().zip(values).for_each(|(&c, v)| y[c as usize] += scale * v);
                }
            });
        } else if rows > 0 {
            for (t, term) in sparse.terms.iter().flatten().enumerate() {
                let rest = [self.ptr(sparse.base), rows.into(), cols.into()];
                let args = [&[self.ptr(y)], &self.term_args(term)[..], &rest, &self.scale_args(term), &[(t > 0).into()]].concat();
                self.launch("sparse_dense", Grid::blocks(rows, 128), &args);
            }
        }
        y
    }

    /// The entries of a sparse variable in an order, sorted when first asked for: starts, places, values.
    fn sorted(&mut self, x: Var, by: By) -> [Var; 3] {
        let (sparse, [rows, cols]) = (self.sparse_of(x).expect("asked before"), self.dims(x));
        if let Some(sorted) = sparse.sorted[by as usize] {
            return sorted;
        }
        let made = match by {
            By::Row => {
                let (vars, start, scales) = (self.term_vars(&sparse), self.start(), self.scales(&sparse));
                // As much as any minibatch may need, so that every step sees the same addresses.
                let n = rows * sparse.terms.iter().flatten().map(|t| t.rows.most).sum::<usize>();
                let made = [starts_by_row([rows, cols]), n, n].map(|n| self.alloc([1, n]));
                let ([starts, at, values], [s, c, v, o, s2, c2, v2, o2]) = self.views(made, vars);
                let terms = views_of([[s, c, v, o], [s2, c2, v2, o2]], scales, start);
                let row = |b: usize, t: usize| terms[t].as_ref().map_or((&[][..], &[][..], 1.0), |term| term.row(b));
                let [starts, at] = [starts, at].map(bytemuck::cast_slice_mut);
                let n = terms.iter().flatten().map(|t| (0..rows).map(|b| t.row(b).0.len()).sum::<usize>()).sum();
                Panels::rows([rows, cols], terms.iter().flatten().count(), &row, starts, &mut at[..n], &mut values[..n]);
                made
            }
            By::Column => {
                let from = self.sorted(x, By::Row);
                let n = self.size(from[1]);
                let made = [cols + 1, n, n].map(|n| self.alloc([1, n]));
                let ([to, at, values], [starts, places, entries]) = self.views(made, from);
                let by_row = panels([rows, cols], [starts, places, entries]);
                let n = by_row.at.len();
                let [to, at] = [to, at].map(bytemuck::cast_slice_mut);
                Panels::columns(by_row, to, &mut at[..n], &mut values[..n]);
                made
            }
        };
        if let Some(sparse) = self.sparse_mut(x) {
            sparse.sorted[by as usize] = Some(made);
        }
        made
    }

    /// Starts, columns, values and order of both terms; what is not there is empty.
    fn term_vars(&mut self, sparse: &Sparse) -> [Var; 8] {
        let none = self.alloc([0, 0]);
        let of = |term: &Option<Term>| term.map_or([none; 4], |Term { rows: r, .. }| [r.starts, r.columns, r.values, r.order]);
        let [[s, c, v, o], [s2, c2, v2, o2]] = [of(&sparse.terms[0]), of(&sparse.terms[1])];
        [s, c, v, o, s2, c2, v2, o2].map(|v| if v.is_none() { none } else { v })
    }

    /// What the terms are multiplied by in this step.
    fn scales(&self, sparse: &Sparse) -> [Option<f32>; 2] {
        let of = |term: Term| match term.scale {
            Scale::One => 1.0,
            Scale::Knob(k) => self.value(k),
            Scale::Rest(k) => 1.0 - self.value(k),
        };
        sparse.terms.map(|term| term.map(of))
    }

    fn term_args(&self, Term { rows, .. }: &Term) -> [Arg; 5] {
        [self.ptr(rows.starts), self.ptr(rows.columns), self.ptr(rows.values), self.ptr(rows.order), self.clock_ptr()]
    }

    /// The knob or -1, and whether what is left of it to 1 is meant.
    fn scale_args(&self, term: &Term) -> [Arg; 2] {
        match term.scale {
            Scale::One => [Arg::I32(-1), false.into()],
            Scale::Knob(k) => [self.knob_index(k), false.into()],
            Scale::Rest(k) => [self.knob_index(k), true.into()],
        }
    }
}

fn with([a, b, c, d, e, f, g, h]: [Var; 8], more: Var) -> [Var; 9] {
    [a, b, c, d, e, f, g, h, more]
}

/// Sorted entries as the products take them.
fn panels<'a>(shape: [usize; 2], [starts, at, values]: [&'a [f32]; 3]) -> Panels<'a> {
    let starts: &[u32] = bytemuck::cast_slice(starts);
    let n = starts.last().map_or(0, |n| *n as usize);
    Panels { shape, starts, at: &bytemuck::cast_slice(at)[..n], values: &values[..n] }
}

fn views_of<'a>(parts: [[&'a [f32]; 4]; 2], scales: [Option<f32>; 2], start: usize) -> [Option<View<'a>>; 2] {
    [0, 1].map(|t| {
        let [starts, columns, values, order] = parts[t];
        let order: &[u32] = bytemuck::cast_slice(order);
        let (starts, columns, order) = (bytemuck::cast_slice(starts), bytemuck::cast_slice(columns), order.get(start..).unwrap_or(&[]));
        scales[t].map(|scale| View { starts, columns, values, order, scale })
    })
}

mod dropout;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
