//! Principal components of cells that pass by in blocks and are never held together: what a modality larger than memory is projected by.
//!
//!   features ≤ EXACT   one pass:   C = Σ (x - m)(x - m)ᵀ, then diagonalised                 operations 2 n d², memory 16 d²
//!   else               one pass for m, then ROUNDS + 1 over C·V, V orthonormal [d, l] between them, from a seeded random start;
//!                      the eigenpairs of Vᵀ C V at the end (Rayleigh-Ritz)                  operations 4 n d l a pass, memory 24 d l
//!
//! l is ten directions more than asked for. Products of a block are f32, sums over blocks f64: entries of C are good to 10⁻⁶ of its largest,
//! so components below 10⁻⁷ of the first's variance are dropped.
//! Source: Halko, Martinsson and Tropp, SIAM Review 53 (2011) 217-288, with the iteration on C so that nothing grows with the cells.

use super::{EXACT, EXTRA, Found, Pca, ROUNDS, orthonormal, stream, transposed};
use crate::device::cpu_gemm::{Layout, gemm};
use crate::engine::linalg::{View, axpy, dot, product, symmetric_eigen};
use crate::engine::rng::Sequence;
use crate::error::Result;
use crate::metrics::matrix::Matrix;

/// Values that may be held at once, 256 MiB of f32: fewer are decomposed exactly, in f64.
const HELD: usize = 1 << 26;
/// Values of a block, 16 MiB of f32: a sum over its cells is then worth adding to a matrix of features x features.
const BLOCK: usize = 1 << 22;
/// What rounding leaves of the variance, relative to the first component's.
const NEGLIGIBLE: f64 = 1e-7;

/// Cells that pass by.
pub trait Rows {
    /// How many cells and features.
    fn shape(&self) -> [usize; 2];
    /// Cells `first..first + out.len() / features` in their order, finite values.
    fn read(&mut self, first: usize, out: &mut [f32]) -> Result<()>;
}

impl Rows for Matrix<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    fn read(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        let d = self.cols();
        out.copy_from_slice(&self.values()[first * d..][..out.len()]);
        Ok(())
    }
}

/// XᵀX of cells as they are, [features, features], in one pass.
pub fn gram(cells: &mut dyn Rows) -> Result<Vec<f64>> {
    let [n, d] = cells.shape();
    if n == 0 || d == 0 {
        return Ok(vec![0.0; d * d]);
    }
    Blocks::of(cells).squares(None)
}

impl Pca {
    /// As [`Pca::fit`], of cells that need not fit in memory.
    pub fn fit_streaming(cells: &mut dyn Rows, k: usize, seed: u64) -> Result<Option<Pca>> {
        Pca::fit_streaming_above(cells, k, seed, HELD, EXACT)
    }

    fn fit_streaming_above(cells: &mut dyn Rows, k: usize, seed: u64, held: usize, exact: usize) -> Result<Option<Pca>> {
        let [n, d] = cells.shape();
        if n.saturating_mul(d) <= held && n.min(d) <= exact {
            let mut x = vec![0.0; n * d];
            cells.read(0, &mut x)?;
            let matrix = Matrix::new(&x, n, d);
            return Ok(Pca::fit(matrix, &matrix.all_rows(), k, seed));
        }
        let k = k.min(n.saturating_sub(1)).min(d);
        if k == 0 {
            return Ok(None);
        }
        let mut blocks = Blocks::of(cells);
        let mean = blocks.mean()?;
        let found = if d <= exact { blocks.by_covariance(&mean, k)? } else { Some(blocks.by_iteration(&mean, k, seed)?) };
        Ok(found.and_then(|(components, sums)| Pca::of(mean, &components, &sums, n, NEGLIGIBLE * sums[0])))
    }
}

struct Blocks<'a> {
    cells: &'a mut dyn Rows,
    /// Cells of a block.
    rows: usize,
    x: Vec<f32>,
    product: Vec<f32>,
}

impl<'a> Blocks<'a> {
    /// Of one cell and one feature at least.
    fn of(cells: &'a mut dyn Rows) -> Self {
        let [n, d] = cells.shape();
        Blocks { rows: (BLOCK / d).clamp(1, n), x: Vec::new(), product: Vec::new(), cells }
    }

    /// The mean is taken off every cell where there is one.
    fn each(&mut self, mean: Option<&[f64]>, mut visit: impl FnMut(&[f32], usize, &mut Vec<f32>)) -> Result<()> {
        let [n, d] = self.cells.shape();
        for first in (0..n).step_by(self.rows) {
            let rows = self.rows.min(n - first);
            self.x.resize(rows * d, 0.0);
            self.cells.read(first, &mut self.x)?;
            if let Some(mean) = mean {
                self.x.chunks_exact_mut(d).for_each(|x| x.iter_mut().zip(mean).for_each(|(x, m)| *x = (f64::from(*x) - m) as f32));
            }
            visit(&self.x, rows, &mut self.product);
        }
        Ok(())
    }

    fn mean(&mut self) -> Result<Vec<f64>> {
        let [n, d] = self.cells.shape();
        let mut mean = vec![0.0; d];
        self.each(None, |x, _, _| x.chunks_exact(d).for_each(|x| mean.iter_mut().zip(x).for_each(|(m, &x)| *m += f64::from(x))))?;
        mean.iter_mut().for_each(|m| *m /= n as f64);
        Ok(mean)
    }

    /// Σ (x - m)(x - m)ᵀ.
    fn squares(&mut self, mean: Option<&[f64]>) -> Result<Vec<f64>> {
        let [_, d] = self.cells.shape();
        let mut c = vec![0.0f64; d * d];
        self.each(mean, |x, rows, product| {
            product.resize(d * d, 0.0);
            multiply(Layout::TN, [d, d, rows], product, x, x);
            add(&mut c, product);
        })?;
        Ok(c)
    }

    fn by_covariance(&mut self, mean: &[f64], k: usize) -> Result<Option<Found>> {
        let d = mean.len();
        let mut c = self.squares(Some(mean))?;
        let Some((w, q)) = symmetric_eigen(&mut c, d) else { return Ok(None) };
        let components = (0..k).flat_map(|j| (0..d).map(move |i| (i, d - 1 - j))).map(|(i, j)| q[i * d + j]).collect();
        Ok(Some((components, w.iter().rev().take(k).copied().collect())))
    }

    fn by_iteration(&mut self, mean: &[f64], k: usize, seed: u64) -> Result<Found> {
        let ([n, _], d) = (self.cells.shape(), mean.len());
        let l = (k + EXTRA).min(n).min(d);
        let mut draws = Sequence::new(seed, stream::PCA, 0);
        let start: Vec<f64> = (0..d * l).map(|_| f64::from(draws.next_normal())).collect();
        let mut v = orthonormal(&start, d, l);
        let (mut y, mut z) = (Vec::new(), vec![0.0f64; d * l]);
        for round in 0..=ROUNDS {
            let v32: Vec<f32> = v.iter().map(|&v| v as f32).collect();
            z.fill(0.0);
            self.each(Some(mean), |x, rows, product| {
                y.resize(rows * l, 0.0);
                multiply(Layout::NN, [rows, l, d], &mut y, x, &v32);
                product.resize(d * l, 0.0);
                multiply(Layout::TN, [d, l, rows], product, x, &y);
                add(&mut z, product);
            })?;
            if round < ROUNDS {
                v = orthonormal(&z, d, l);
            }
        }
        // C in the basis V, made symmetric against rounding; its eigenvectors turn V.
        let mut h = vec![0.0; l * l];
        product(View::new(&v, d, l).t(), View::new(&z, d, l), &mut h);
        let mut h: Vec<f64> = (0..l * l).map(|e| 0.5 * (h[e] + h[e % l * l + e / l])).collect();
        let Some((w, q)) = symmetric_eigen(&mut h, l) else { return Ok((transposed(&v, d, l), vec![0.0; l])) };
        let turn: Vec<f64> = (0..l * k).map(|e| q[e / k * l + l - 1 - e % k]).collect();
        let mut top = vec![0.0; d * k];
        product(View::new(&v, d, l), View::new(&turn, l, k), &mut top);
        let mut rows = transposed(&top, d, k);
        rows.chunks_exact_mut(d).for_each(|row| {
            let length = dot(row, row).sqrt();
            let own = row.to_vec();
            row.fill(0.0);
            axpy(1.0 / length.max(1e-300), &own, row);
        });
        Ok((rows, w.iter().rev().take(k).map(|w| w.max(0.0)).collect()))
    }
}

fn multiply(layout: Layout, sizes: [usize; 3], out: &mut [f32], a: &[f32], b: &[f32]) {
    gemm(layout, sizes, out, a, b, false, rayon::current_num_threads(), |_, _| {});
}

fn add(sum: &mut [f64], part: &[f32]) {
    use rayon::prelude::*;
    sum.par_chunks_mut(1 << 14).zip(part.par_chunks(1 << 14)).for_each(|(sum, part)| {
        sum.iter_mut().zip(part).for_each(|(s, &p)| *s += f64::from(p));
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::data;
    use super::*;

    #[test]
    fn what_passes_by_gives_the_components_of_what_is_held() {
        // More than one block each way: 2^22 values are 26,214 cells of 160 features.
        for (n, d) in [(27_000, 160), (300, 90)] {
            let values = data(n, d);
            let m = Matrix::new(&values, n, d);
            let want = Pca::fit(m, &m.all_rows(), 5, 0).expect("finite");
            for exact in [2000, 10] {
                let got = Pca::fit_streaming_above(&mut { m }, 5, 1, 0, exact).unwrap().expect("finite");
                assert_eq!(got.len(), 5);
                // The three directions that are in the data; the rest is noise of nearly equal size, whose directions mean nothing.
                for k in 0..3 {
                    assert!((got.variance[k] / want.variance[k] - 1.0).abs() < 1e-5, "{exact}: {:?} {:?}", got.variance, want.variance);
                    let cosine = dot(&got.components[k * d..][..d], &want.components[k * d..][..d]);
                    assert!((cosine - 1.0).abs() < 1e-5, "{exact}: {cosine}");
                }
                assert!(got.variance[4] / want.variance[4] > if exact > 10 { 0.999 } else { 0.9 });
            }
        }
    }

    #[test]
    fn few_values_are_decomposed_as_if_they_had_been_held() {
        let values = data(60, 40);
        let m = Matrix::new(&values, 60, 40);
        let (a, b) = (Pca::fit(m, &m.all_rows(), 3, 0).unwrap(), Pca::fit_streaming(&mut { m }, 3, 0).unwrap().unwrap());
        assert_eq!(a.components, b.components);
        assert!(Pca::fit_streaming_above(&mut Matrix::new(&[3.0; 8], 4, 2), 2, 0, 0, 2000).unwrap().is_none());
    }
}
