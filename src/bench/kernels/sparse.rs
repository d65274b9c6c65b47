//! First layers of sparse minibatches: the product with its bias and the gradient of the weights, sorting of the entries included.

use super::{Case, filled};
use crate::engine::ops::activation::Activation;
use crate::engine::{SparseRows, Step, Var, rng};
use crate::error::Result;

/// Appends them to `all`: genes and gene activity (scican's `skin`), peaks (SHARE-seq).
pub fn cases(s: &mut Step, all: &mut Vec<Case>) -> Result<()> {
    for ([rows, cols, outs], percent) in [([1024, 2000, 1024], 10), ([1024, 2000, 1024], 5), ([512, 58_170, 1024], 5)] {
        let x = filled_sparse(s, [rows, cols], percent)?;
        let entries = s.size(x.values) - 1;
        let (w, bias) = (filled(s, [outs, cols], "w")?, filled(s, [1, outs], "bias")?);
        let (dw, du) = (s.resident([outs, cols])?, filled(s, [rows, outs], "du")?);
        let mut case = |kernel, run: Box<dyn FnMut(&mut Step)>| {
            let shape = format!("{rows}x{cols} by {outs}, {percent} %");
            let (flops, bytes) = (2.0 * (entries * outs) as f64, 4.0 * (outs * cols + rows * outs + 2 * entries) as f64);
            all.push(Case { kernel, shape, flops, bytes, run });
        };
        case(
            "sparse_linear_fwd",
            Box::new(move |s| {
                let x = s.sparse(&x, rows);
                s.linear(x, w, bias, Activation::Identity);
            }),
        );
        case(
            "sparse_linear_bwd",
            Box::new(move |s| {
                let x = s.sparse(&x, rows);
                s.sparse_weight_gradient(dw, du, x, false);
            }),
        );
    }
    Ok(())
}

/// Rows of which so many of a hundred values are not zero.
fn filled_sparse(s: &mut Step, [rows, cols]: [usize; 2], percent: u32) -> Result<SparseRows> {
    s.end();
    let (mut starts, mut columns) = (vec![0u32], Vec::new());
    for b in 0..rows {
        let there = |c: &u32| rng::uniform(3, b as u32, 0, *c) < percent as f32 / 100.0;
        columns.extend((0..cols as u32).filter(there));
        starts.push(columns.len() as u32);
    }
    let most = starts.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    let to = s.sparse_resident([rows, cols], columns.len(), most)?;
    s.write_sparse(&to, [0, 0], &starts, &columns, &vec![0.5; columns.len()])?;
    Ok(SparseRows { order: Var::NONE, ..to })
}
