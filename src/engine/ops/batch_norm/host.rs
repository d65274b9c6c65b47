//! The processor's loops of batch normalisation: statistics by blocks of neighbouring columns, everything else row by row.
//!
//! A column's sums run over the cells in order, in f64, whatever the number of threads.

use crate::device::cpu;
use crate::device::vector::vectorised;
use crate::engine::ops::activation::Activation;
use rayon::prelude::*;

/// Columns whose statistics are gathered at once: four cache lines of a row, and few enough for the stack.
pub const BLOCK: usize = 64;

/// Running mean and variance, and how they move: `keep` of the old, `take` of the new, whose variance is multiplied by `unbiased`.
pub struct Move<'a> {
    pub mean: &'a mut [f32],
    pub variance: &'a mut [f32],
    pub keep: f32,
    pub take: f32,
    pub unbiased: f32,
}

/// Calls `f(column of the block, values)` for every row of the `N` matrices of `cols` columns, in the block that starts at column `first`.
#[inline(always)]
fn each<const N: usize>(x: [&[f32]; N], cols: usize, first: usize, mut f: impl FnMut(usize, [f32; N])) {
    let width = BLOCK.min(cols - first);
    for start in (first..x[0].len()).step_by(cols) {
        let row = x.map(|x| &x[start..start + width]);
        for c in 0..width {
            f(c, row.map(|r| r[c]));
        }
    }
}

/// As few blocks as one thread takes at least.
fn at_least(rows: usize) -> usize {
    (cpu::SERIAL / 2 / (BLOCK * rows).max(1)).max(1)
}

/// Mean and 1/√(v + ε) of the columns of x [rows, cols], and the running statistics moved towards them.
pub fn statistics(x: &[f32], cols: usize, mean: &mut [f32], inverse: &mut [f32], running: Move, epsilon: f64) {
    let rows = x.len() / cols.max(1);
    let Move { keep, take, unbiased, .. } = running;
    let blocks = mean.par_chunks_mut(BLOCK).zip(inverse.par_chunks_mut(BLOCK));
    let moved = running.mean.par_chunks_mut(BLOCK).zip(running.variance.par_chunks_mut(BLOCK));
    blocks.zip(moved).enumerate().with_min_len(at_least(rows)).for_each(|(b, ((m, inv), (running_mean, running_variance)))| {
        let (mut mu, mut var) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
        // Two passes: the statistics decide everything after them.
        vectorised(
            #[inline(always)]
            || {
                each([x], cols, b * BLOCK, |c, [x]| mu[c] += x as f64);
                mu.iter_mut().for_each(|mu| *mu /= rows as f64);
                each([x], cols, b * BLOCK, |c, [x]| var[c] += (x as f64 - mu[c]) * (x as f64 - mu[c]));
            },
        );
        for c in 0..m.len() {
            let var = var[c] / rows as f64;
            m[c] = mu[c] as f32;
            inv[c] = (1.0 / (var + epsilon).sqrt()) as f32;
            running_mean[c] = keep * running_mean[c] + take * mu[c] as f32;
            running_variance[c] = keep * running_variance[c] + take * (var as f32 * unbiased);
        }
    });
}

/// y = f((x - mean)·inverse·scale + shift); empty `scale` and `shift` are 1 and 0.
pub fn normalise(y: &mut [f32], x: &[f32], [mean, inverse, scale, shift]: [&[f32]; 4], f: Activation) {
    let cols = mean.len();
    cpu::rows(y, cols, |r, y| {
        let x = &x[r * cols..(r + 1) * cols];
        vectorised(
            #[inline(always)]
            || {
                for (((y, x), m), inv) in y.iter_mut().zip(x).zip(mean).zip(inverse) {
                    *y = (x - m) * inv;
                }
                y.iter_mut().zip(scale).for_each(|(y, s)| *y *= s);
                y.iter_mut().zip(shift).for_each(|(y, s)| *y += s);
                f.apply(y);
            },
        );
    });
}

/// Σ du and Σ du·x̂ of the columns, into `sums` [blocks, 2, BLOCK].
pub fn sums(sums: &mut [f32], du: &[f32], x: &[f32], mean: &[f32], inverse: &[f32]) {
    let cols = mean.len();
    let rows = x.len() / cols.max(1);
    sums.par_chunks_mut(2 * BLOCK).enumerate().with_min_len(at_least(rows)).for_each(|(b, out)| {
        let first = b * BLOCK;
        let width = BLOCK.min(cols - first);
        let (mut sum, mut dot) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
        let (m, inv) = (&mean[first..first + width], &inverse[first..first + width]);
        vectorised(
            #[inline(always)]
            || {
                each([du, x], cols, first, |c, [du, x]| {
                    sum[c] += du as f64;
                    dot[c] += (du * ((x - m[c]) * inv[c])) as f64;
                })
            },
        );
        for c in 0..width {
            (out[c], out[BLOCK + c]) = (sum[c] as f32, dot[c] as f32);
        }
    });
}

/// dx (+)= scale·inverse·(du - mean of du - x̂·mean of du·x̂), with the sums of [`sums`]; without the two means if `training` is false.
pub fn input_gradient(dx: &mut [f32], add: bool, training: bool, [du, x, mean, inverse, scale, sums]: [&[f32]; 6]) {
    let cols = mean.len();
    let rows = x.len() / cols.max(1);
    let over = if training { 1.0 / rows as f32 } else { 0.0 };
    cpu::rows(dx, cols, |r, dx| {
        for (b, dx) in dx.chunks_mut(BLOCK).enumerate() {
            let (at, here) = (r * cols + b * BLOCK, b * BLOCK..b * BLOCK + dx.len());
            let (du, x, m, inv) = (&du[at..at + dx.len()], &x[at..at + dx.len()], &mean[here.clone()], &inverse[here.clone()]);
            let (sum, dot) = sums[2 * b * BLOCK..2 * (b + 1) * BLOCK].split_at(BLOCK);
            let scale = scale.get(here).unwrap_or(&[1.0; BLOCK]);
            vectorised(
                #[inline(always)]
                || {
                    for c in 0..dx.len() {
                        let d = inv[c] * scale[c] * (du[c] - sum[c] * over - (x[c] - m[c]) * inv[c] * (dot[c] * over));
                        dx[c] = if add { dx[c] + d } else { d };
                    }
                },
            );
        }
    });
}
