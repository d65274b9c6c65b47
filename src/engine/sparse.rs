//! Sparse minibatches: a variable [B, features] of which only the non-zeros exist.
//!
//!   x_b = base + Σ_terms λ_t · row_{order[start + b]} of the term's rows     base [1, features] or none (zeros), λ_t = 1, λ or 1 - λ
//!   rows     CSR on the device: starts [1, rows + 1] and columns [1, n] of u32, values [1, n]; columns of a row ascend
//!   base     of standardised data: what a zero has become; the rows then hold the difference from it
//!
//! [`Step::sparse`] makes one, without copying anything; [`Step::linear`] multiplies it as it is (`ops/sparse.rs`), [`Step::mix`] mixes two.
//! Everything else takes [`Step::dense`] of it: the same values as an ordinary variable, made on the device when first asked for
//! and kept until the step ends. An operation that reads a sparse variable as if it were dense panics.

use super::step::{Knob, Step, Var};
use crate::error::Result;

/// Rows of non-zeros on the device, which outlive steps.
#[derive(Clone, Copy, Debug)]
pub struct SparseRows {
    /// [1, rows + 1] of u32: where each row begins.
    pub starts: Var,
    /// [1, n] of u32.
    pub columns: Var,
    /// [1, n]
    pub values: Var,
    /// [1, slots] of u32: the rows of an epoch's slots, from the clock's start on; [`Var::NONE`]: row b is slot b.
    pub order: Var,
    /// [1, features] or [`Var::NONE`].
    pub base: Var,
    /// Columns.
    pub features: usize,
    /// Entries of the fullest row, or more: what room a minibatch may need, whichever rows are in it.
    pub most: usize,
}

/// What a term's values are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    One,
    Knob(Knob),
    Rest(Knob),
}

#[derive(Clone, Copy)]
pub(super) struct Term {
    pub rows: SparseRows,
    pub scale: Scale,
}

/// A sparse variable of the step.
#[derive(Clone, Copy)]
pub(super) struct Sparse {
    pub var: Var,
    /// One, or two.
    pub terms: [Option<Term>; 2],
    pub base: Var,
    /// The same values densely, once somebody has asked.
    pub dense: Var,
    /// On the processor the entries in the two orders of the products (`cpu_gemm::sparse`): starts, places, values, once asked for.
    pub sorted: [Option<[Var; 3]>; 2],
}

impl Step {
    /// Room for rows with up to `entries` non-zeros in all and `most` in one, to be written by [`Step::write_sparse`].
    pub fn sparse_resident(&mut self, [rows, features]: [usize; 2], entries: usize, most: usize) -> Result<SparseRows> {
        let starts = self.resident([1, rows + 1])?;
        // One more: what is empty has no address.
        let (columns, values) = (self.resident([1, entries + 1])?, self.resident([1, entries + 1])?);
        Ok(SparseRows { starts, columns, values, order: Var::NONE, base: Var::NONE, features, most })
    }

    /// Writes non-zeros from row `row` and entry `entry` on; `starts` counts from entry 0 of all and has an end besides.
    #[track_caller]
    pub fn write_sparse(
        &mut self,
        to: &SparseRows,
        [row, entry]: [usize; 2],
        starts: &[u32],
        columns: &[u32],
        values: &[f32],
    ) -> Result<()> {
        assert!(columns.len() == values.len() && starts.is_sorted(), "write_sparse: a column and a value an entry, starts ascending");
        // All of them in any case: without a way out of the loop it is vectorised.
        assert!(
            columns.iter().fold(true, |so_far, &c| so_far & ((c as usize) < to.features)),
            "write_sparse: columns below {}",
            to.features
        );
        self.upload_at(to.starts, row, starts)?;
        self.upload_at(to.columns, entry, columns)?;
        self.upload_at(to.values, entry, values)
    }

    /// A minibatch of `rows` rows, in the epoch's order from the clock's start on where the rows have one.
    #[track_caller]
    pub fn sparse(&mut self, of: &SparseRows, rows: usize) -> Var {
        if of.order.is_none() {
            assert!(rows < self.size(of.starts), "sparse: {rows} of {} rows", self.size(of.starts) - 1);
        } else {
            let (start, slots) = (self.start(), self.size(of.order));
            assert!(start + rows <= slots, "sparse: rows {start}..{} of an order of {slots}", start + rows);
        }
        self.push_sparse([rows, of.features], [Some(Term { rows: *of, scale: Scale::One }), None], of.base)
    }

    /// λ a + (1 - λ) b of two sparse minibatches of one term each.
    pub(super) fn mixed_sparse(&mut self, a: Var, b: Var, lambda: Knob) -> Option<Var> {
        let ((a, dims), b) = ((self.sparse_of(a)?, self.dims(a)), self.sparse_of(b)?);
        let ([Some(x), None], [Some(y), None]) = (a.terms, b.terms) else { return None };
        if [x.scale, y.scale] != [Scale::One; 2] {
            return None;
        }
        let base = if a.base.is_none() && b.base.is_none() {
            Var::NONE
        } else {
            let [from, to] = [a.base, b.base].map(|base| if base.is_none() { self.zeros([1, dims[1]]) } else { base });
            self.mix(from, to, lambda)
        };
        let terms = [Some(Term { scale: Scale::Knob(lambda), ..x }), Some(Term { scale: Scale::Rest(lambda), ..y })];
        Some(self.push_sparse(dims, terms, base))
    }

    fn zeros(&mut self, dims: [usize; 2]) -> Var {
        let v = self.alloc(dims);
        self.zero(v);
        v
    }

    fn push_sparse(&mut self, dims: [usize; 2], terms: [Option<Term>; 2], base: Var) -> Var {
        let var = self.without_memory(dims);
        self.sparse.push(Sparse { var, terms, base, dense: Var::NONE, sorted: [None; 2] });
        var
    }

    /// Whether only non-zeros of `v` exist.
    pub fn is_sparse(&self, v: Var) -> bool {
        self.sparse_of(v).is_some()
    }

    pub(super) fn sparse_of(&self, v: Var) -> Option<Sparse> {
        // A handful a step.
        self.sparse.iter().find(|s| s.var == v).copied()
    }

    pub(super) fn sparse_mut(&mut self, v: Var) -> Option<&mut Sparse> {
        self.sparse.iter_mut().find(|s| s.var == v)
    }

    /// The same values as an ordinary variable: `v` itself unless it is sparse. A sparse one is written out once a step.
    pub fn dense(&mut self, v: Var) -> Var {
        let Some(sparse) = self.sparse_of(v) else { return v };
        if !sparse.dense.is_none() {
            return sparse.dense;
        }
        let dense = self.densified(v, &sparse);
        if let Some(s) = self.sparse_mut(v) {
            s.dense = dense;
        }
        dense
    }
}
