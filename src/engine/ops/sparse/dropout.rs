//! Dropout of a sparse minibatch, which stays sparse.
//!
//!   y = m ⊙ x / (1 − p)      m Bernoulli(1 − p), the mask that [`Step::dropout`] draws of the same values written out
//!   kernel    sparse_dropped (kernels/sparse.cu)
//!
//! Only entries are drawn for: a thousandth to a tenth of the elements. The result has the entries of x, dropped ones as zeros, in memory of
//! the step: 8 bytes an entry.

use super::views_of;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::rng::uniforms_at;
use crate::engine::sparse::{Scale, SparseRows, Term};
use crate::engine::{Step, Var};

/// Entries drawn for at a time on the processor.
const BLOCK: usize = 256;

impl Step {
    /// Dropout of a sparse x that is nothing but entries, p > 0; `None` of any other, whose zeros are something else or which is mixed.
    pub(in crate::engine::ops) fn sparse_dropout(&mut self, x: Var, p: f32, scale: f32, stream: u32) -> Option<Var> {
        let sparse = self.sparse_of(x)?;
        let [Some(Term { rows: from, scale: Scale::One }), None] = sparse.terms else { return None };
        if !sparse.base.is_none() {
            return None;
        }
        let [rows, cols] = self.dims(x);
        // As much as any minibatch may need, so that every step sees the same addresses.
        let n = (rows * from.most).max(1);
        let [starts, columns, values] = [rows + 1, n, n].map(|n| self.alloc([1, n]));
        if self.on_cpu() {
            let (seed, step, start) = (self.seed(), self.step_number(), self.start());
            let vars = self.term_vars(&sparse);
            let ([starts, columns, values], [s, c, v, o, ..]) = self.views([starts, columns, values], vars);
            let [Some(view), _] = views_of([[s, c, v, o], [&[], &[], &[], &[]]], [Some(1.0), None], start) else { return None };
            let (starts, columns): (&mut [u32], &mut [u32]) = (bytemuck::cast_slice_mut(starts), bytemuck::cast_slice_mut(columns));
            starts[0] = 0;
            for b in 0..rows {
                let (row_columns, row_values, _) = view.row(b);
                let at = starts[b] as usize..starts[b] as usize + row_values.len();
                columns[at.clone()].copy_from_slice(row_columns);
                values[at.clone()].copy_from_slice(row_values);
                starts[b + 1] = at.end as u32;
            }
            let (starts, columns) = (&*starts, &*columns);
            let entries = starts[rows] as usize;
            cpu::chunks(&mut values[..entries], |first, values| {
                let mut row = starts.partition_point(|&s| s as usize <= first) - 1;
                let (mut elements, mut u) = ([0u32; BLOCK], [0.0f32; BLOCK]);
                for (i, values) in values.chunks_mut(BLOCK).enumerate() {
                    let first = first + i * BLOCK;
                    for (e, element) in (first..first + values.len()).zip(&mut elements) {
                        while starts[row + 1] as usize <= e {
                            row += 1;
                        }
                        *element = (row * cols) as u32 + columns[e];
                    }
                    uniforms_at(&mut u, seed, stream, step, &elements);
                    for (v, &u) in values.iter_mut().zip(&u) {
                        *v = if u >= p { *v * scale } else { 0.0 };
                    }
                }
            });
        } else if rows > 0 {
            let from = [from.starts, from.columns, from.values, from.order].map(|v| self.ptr(v));
            let [low, high] = self.seed_args();
            let to = [self.ptr(starts), self.ptr(columns), self.ptr(values)];
            let rest = [self.clock_ptr(), rows.into(), cols.into(), p.into(), scale.into(), stream.into(), low, high];
            self.launch("sparse_dropped", Grid::blocks(rows, 128), &[&to[..], &from, &rest].concat());
        }
        let made = SparseRows { starts, columns, values, order: Var::NONE, base: Var::NONE, features: cols, most: from.most };
        Some(self.sparse(&made, rows))
    }
}
