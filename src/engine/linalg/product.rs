//! C = A·B in f64 over the cores, of views with any strides and of f32 or f64 entries (widened as they are packed).
//!
//! Rows of C are cut into bands of [`BAND`]; a band packs what it needs of A and B into tiles of 4 and multiplies 4 x 4 in
//! registers. Every entry is a sum over the inner axis in steps of [`DEPTH`], ascending: the same on any number of threads.

use rayon::prelude::*;

/// Rows of the result that a task computes.
const BAND: usize = 64;
/// Inner axis entries packed at a time: a 4-wide strip of them is 8 kB.
const DEPTH: usize = 256;
/// Columns packed at a time: with DEPTH it is 512 kB, a share of the second-level cache.
const WIDTH: usize = 256;
const TILE: usize = 4;

/// A matrix somebody else owns: entry (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Copy + Into<f64>> View<'a, T> {
    /// A row-major matrix.
    #[track_caller]
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a view of {rows} x {cols}");
        View { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Its transpose.
    pub fn t(self) -> Self {
        View { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.row_stride + j * self.col_stride].into()
    }
}

/// `c` (a.rows x b.cols, overwritten) = A·B.
#[track_caller]
pub fn product<T, U>(a: View<'_, T>, b: View<'_, U>, c: &mut [f64])
where
    T: Copy + Into<f64> + Sync,
    U: Copy + Into<f64> + Sync,
{
    assert_eq!(a.cols, b.rows, "product: inner sizes differ: A is {} x {}, B is {} x {}", a.rows, a.cols, b.rows, b.cols);
    assert_eq!(c.len(), a.rows * b.cols, "product: C is {} x {}", a.rows, b.cols);
    c.fill(0.0);
    if c.is_empty() || a.cols == 0 {
        return;
    }
    let n = b.cols;
    c.par_chunks_mut(BAND * n).enumerate().for_each(|(band, c)| {
        let (first, rows) = (band * BAND, c.len() / n);
        let mut left = vec![0.0f64; rows.next_multiple_of(TILE) * DEPTH];
        let mut right = vec![0.0f64; WIDTH.min(n).next_multiple_of(TILE) * DEPTH];
        for k0 in (0..a.cols).step_by(DEPTH) {
            let depth = DEPTH.min(a.cols - k0);
            pack(&mut left, rows, depth, |i, k| a.at(first + i, k0 + k));
            for j0 in (0..n).step_by(WIDTH) {
                let width = WIDTH.min(n - j0);
                pack(&mut right, width, depth, |j, k| b.at(k0 + k, j0 + j));
                for i in (0..rows).step_by(TILE) {
                    for j in (0..width).step_by(TILE) {
                        let tile = multiply(&left[i * depth..][..TILE * depth], &right[j * depth..][..TILE * depth]);
                        for (r, values) in tile.iter().enumerate().take(rows - i) {
                            let at = (i + r) * n + j0 + j;
                            for (c, v) in c[at..at + TILE.min(width - j)].iter_mut().zip(values) {
                                *c += v;
                            }
                        }
                    }
                }
            }
        }
    });
}

/// Strips of TILE lines (zeros past the last), each strip depth x TILE.
fn pack(into: &mut [f64], lines: usize, depth: usize, at: impl Fn(usize, usize) -> f64) {
    for (strip, out) in into.chunks_mut(TILE * depth).enumerate().take(lines.div_ceil(TILE)) {
        for k in 0..depth {
            for l in 0..TILE {
                let line = strip * TILE + l;
                out[k * TILE + l] = if line < lines { at(line, k) } else { 0.0 };
            }
        }
    }
}

/// The 4 x 4 product of two strips, in registers.
fn multiply(left: &[f64], right: &[f64]) -> [[f64; TILE]; TILE] {
    let mut sums = [[0.0; TILE]; TILE];
    for (l, r) in left.chunks_exact(TILE).zip(right.chunks_exact(TILE)) {
        for i in 0..TILE {
            for j in 0..TILE {
                sums[i][j] += l[i] * r[j];
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::uniform;

    #[test]
    fn product_matches_the_definition_at_sizes_past_every_block() {
        for (m, k, n) in [(1, 1, 1), (0, 3, 2), (3, 0, 2), (5, 7, 3), (67, 259, 261), (4, 257, 5), (65, 2, 64)] {
            let a: Vec<f32> = (0..m * k).map(|i| uniform(1, 0, 0, i as u32) - 0.5).collect();
            let b: Vec<f64> = (0..k * n).map(|i| f64::from(uniform(2, 0, 0, i as u32)) - 0.5).collect();
            let (mut c, mut d) = (vec![1.0; m * n], vec![1.0; n * m]);
            product(View::new(&a, m, k), View::new(&b, k, n), &mut c);
            product(View::new(&b, k, n).t(), View::new(&a, m, k).t(), &mut d);
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k).map(|x| f64::from(a[i * k + x]) * b[x * n + j]).sum();
                    assert!((c[i * n + j] - want).abs() < 1e-12, "{m} {k} {n}");
                    assert_eq!(c[i * n + j].to_bits(), d[j * m + i].to_bits(), "the transposed product adds in the same order");
                }
            }
        }
    }
}
