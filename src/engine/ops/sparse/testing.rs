//! Sparse rows of given values, for tests and measurements.

use crate::engine::{SparseRows, Step, Var};

/// The non-zeros of `values` [rows, cols] with that base, of the step under way.
pub fn rows_of(s: &mut Step, [rows, cols]: [usize; 2], values: &[f32], base: Var) -> SparseRows {
    let (mut starts, mut columns, mut stored) = (vec![0u32], Vec::new(), Vec::new());
    for row in values.chunks_exact(cols) {
        for (c, &v) in row.iter().enumerate().filter(|(_, v)| **v != 0.0) {
            columns.push(c as u32);
            stored.push(v);
        }
        starts.push(columns.len() as u32);
    }
    let n = stored.len();
    let of = SparseRows {
        starts: s.alloc([1, rows + 1]),
        columns: s.alloc([1, n + 1]),
        values: s.alloc([1, n + 1]),
        order: Var::NONE,
        base,
        features: cols,
        most: starts.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0),
    };
    s.write_sparse(&of, [0, 0], &starts, &columns, &stored).expect("an upload into the arena");
    of
}
