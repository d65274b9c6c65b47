//! Principal components of the training cells, in closed form.
//!
//!   C = Xcᵀ·Xc / (n - 1) = V·Λ·Vᵀ       scores = (x - mean)·V_k
//!
//! Of cells in memory here, of cells that pass by in [`streaming`].
//! Exact through whichever is smaller, the covariance (features x features) or the Gram matrix (cells x cells); where both exceed
//! [`EXACT`], by subspace iteration from a seeded random start (Halko, Martinsson and Tropp 2011) with 10 extra directions and 7 rounds.
//! Centring is never done in memory: means are taken out of the products. The loading of greatest size of a component is positive.

pub mod streaming;

use super::matrix::{Matrix, stream};
use crate::engine::linalg::{View, axpy, dot, product, singular_values, symmetric_eigen};
use crate::engine::rng::Sequence;
use rayon::prelude::*;

/// The largest matrix that is diagonalised.
pub const EXACT: usize = 2000;
/// Directions beyond those asked for, and rounds, of the subspace iteration.
const EXTRA: usize = 10;
const ROUNDS: usize = 7;
/// Components whose variance is below this fraction of the first one's are rounding errors, and dropped.
const NEGLIGIBLE: f64 = 1e-12;

/// A fitted projection.
#[derive(Clone, Debug)]
pub struct Pca {
    /// Mean of each feature over the training cells.
    pub mean: Vec<f64>,
    /// Components x features, orthonormal rows, by descending variance.
    pub components: Vec<f64>,
    /// Variance of the training scores along each component.
    pub variance: Vec<f64>,
}

impl Pca {
    /// At most `k` components of `rows` of `cells`; fewer where the cells span fewer. `None` if fewer than one (or two cells) are
    /// left, or a value is not finite: replace missing values by the mean first.
    pub fn fit(cells: Matrix<'_>, rows: &[u32], k: usize, seed: u64) -> Option<Pca> {
        Pca::fit_exactly_below(cells, rows, k, seed, EXACT)
    }

    fn fit_exactly_below(cells: Matrix<'_>, rows: &[u32], k: usize, seed: u64, exact: usize) -> Option<Pca> {
        let (n, d) = (rows.len(), cells.cols());
        let k = k.min(n.saturating_sub(1)).min(d);
        if k == 0 {
            return None;
        }
        let data = Training { x: cells.gather(rows), n, d };
        if data.x.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let mean = data.mean();
        let (components, sums) = if n.min(d) > exact {
            data.by_iteration(&mean, k, seed)
        } else if d <= n {
            data.by_covariance(&mean, k)?
        } else {
            data.by_gram(&mean, k)?
        };
        // Against what was squared too: of cells that are all the same only the rounding of their squares is left.
        let squares: f64 = data.x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let floor = (NEGLIGIBLE * sums[0]).max(1e-14 * squares);
        Pca::of(mean, &components, &sums, n, floor)
    }

    /// The components [.., features] of n cells with sums of squares above a floor, at length 1 and with their signs fixed.
    fn of(mean: Vec<f64>, components: &[f64], sums: &[f64], n: usize, floor: f64) -> Option<Pca> {
        let d = mean.len();
        let kept = sums.iter().take_while(|&&s| s > floor && s.is_finite()).count();
        if kept == 0 {
            return None;
        }
        let mut components = components[..kept * d].to_vec();
        for v in components.chunks_exact_mut(d) {
            let length = dot(v, v).sqrt() * v.iter().fold(0.0f64, |m, x| if x.abs() > m.abs() { *x } else { m }).signum();
            v.iter_mut().for_each(|x| *x /= length);
        }
        Some(Pca { mean, components, variance: sums[..kept].iter().map(|s| s / (n - 1) as f64).collect() })
    }

    /// Number of components.
    pub fn len(&self) -> usize {
        self.variance.len()
    }

    /// Whether there is no component; [`Pca::fit`] never gives such a one.
    pub fn is_empty(&self) -> bool {
        self.variance.is_empty()
    }

    /// Scores of all cells, [cells, components].
    #[track_caller]
    pub fn scores(&self, cells: Matrix<'_>) -> Vec<f64> {
        let (n, d, k) = (cells.rows(), self.mean.len(), self.len());
        let mut scores = vec![0.0; n * k];
        product(View::new(cells.values(), n, d), View::new(&self.components, k, d).t(), &mut scores);
        let offset: Vec<f64> = self.components.chunks_exact(d).map(|v| dot(v, &self.mean)).collect();
        scores.chunks_exact_mut(k).for_each(|row| axpy(-1.0, &offset, row));
        scores
    }
}

/// The training cells, n x d.
struct Training {
    x: Vec<f32>,
    n: usize,
    d: usize,
}

/// Components (rows, of any length) and their sums of squares, descending.
type Found = (Vec<f64>, Vec<f64>);

impl Training {
    fn view(&self) -> View<'_, f32> {
        View::new(&self.x, self.n, self.d)
    }

    fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.d];
        for row in self.x.chunks_exact(self.d) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= self.n as f64);
        mean
    }

    fn by_covariance(&self, mean: &[f64], k: usize) -> Option<Found> {
        let d = self.d;
        let mut c = vec![0.0; d * d];
        product(self.view().t(), self.view(), &mut c);
        c.chunks_exact_mut(d).zip(mean).for_each(|(row, m)| axpy(-m * self.n as f64, mean, row));
        let (w, q) = symmetric_eigen(&mut c, d)?;
        let components = (0..k).flat_map(|j| (0..d).map(move |i| (i, d - 1 - j))).map(|(i, j)| q[i * d + j]).collect();
        Some((components, w.iter().rev().take(k).copied().collect()))
    }

    fn by_gram(&self, mean: &[f64], k: usize) -> Option<Found> {
        let n = self.n;
        let mut g = vec![0.0; n * n];
        product(self.view(), self.view().t(), &mut g);
        // (x - m)·(y - m) = x·y - x·m - y·m + m·m
        let with_mean: Vec<f64> =
            self.x.chunks_exact(self.d).map(|row| row.iter().zip(mean).map(|(&x, m)| f64::from(x) * m).sum()).collect();
        let square = dot(mean, mean);
        for (row, a) in g.chunks_exact_mut(n).zip(&with_mean) {
            row.iter_mut().zip(&with_mean).for_each(|(g, b)| *g += square - a - b);
        }
        let (w, q) = symmetric_eigen(&mut g, n)?;
        let top: Vec<f64> = (0..n * k).map(|at| q[at / k * n + n - 1 - at % k]).collect();
        Some((transposed(&self.onto_features(&top, k, mean), self.d, k), w.iter().rev().take(k).copied().collect()))
    }

    /// Xc·v for `k` columns v: [cells, k].
    fn onto_cells(&self, v: &[f64], k: usize, mean: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; self.n * k];
        product(self.view(), View::new(v, self.d, k), &mut y);
        let mut offset = vec![0.0; k];
        v.chunks_exact(k).zip(mean).for_each(|(row, m)| axpy(*m, row, &mut offset));
        y.chunks_exact_mut(k).for_each(|row| axpy(-1.0, &offset, row));
        y
    }

    /// Xcᵀ·u for `k` columns u: [features, k].
    fn onto_features(&self, u: &[f64], k: usize, mean: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; self.d * k];
        product(self.view().t(), View::new(u, self.n, k), &mut y);
        let mut sums = vec![0.0; k];
        u.chunks_exact(k).for_each(|row| axpy(1.0, row, &mut sums));
        y.chunks_exact_mut(k).zip(mean).for_each(|(row, m)| axpy(-m, &sums, row));
        y
    }

    fn by_iteration(&self, mean: &[f64], k: usize, seed: u64) -> Found {
        let l = (k + EXTRA).min(self.n).min(self.d);
        let mut draws = Sequence::new(seed, stream::PCA, 0);
        let mut v: Vec<f64> = (0..self.d * l).map(|_| f64::from(draws.next_normal())).collect();
        for round in 0..=ROUNDS {
            let u = orthonormal(&self.onto_cells(&v, l, mean), self.n, l);
            v = self.onto_features(&u, l, mean);
            if round < ROUNDS {
                v = orthonormal(&v, self.d, l);
            }
        }
        let mut rows = transposed(&v, self.d, l);
        let mut s = vec![0.0; l];
        singular_values(&mut rows, l, self.d, &mut vec![0.0; l * l], &mut s);
        (rows, s.iter().take(k).map(|s| s * s).collect())
    }
}

/// The transpose of a rows x cols matrix.
fn transposed(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows * cols];
    if rows > 0 {
        out.par_chunks_mut(rows).enumerate().for_each(|(j, line)| line.iter_mut().enumerate().for_each(|(i, v)| *v = a[i * cols + j]));
    }
    out
}

/// An orthonormal basis of the `cols` columns of `a` (rows x cols): modified Gram-Schmidt, twice for orthogonality to rounding.
/// A column that depends on those before becomes zero.
fn orthonormal(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut lines = transposed(a, rows, cols);
    for _ in 0..2 {
        for i in 0..cols {
            let (head, tail) = lines.split_at_mut((i + 1) * rows);
            let line = &mut head[i * rows..];
            let length = dot(line, line).sqrt();
            line.iter_mut().for_each(|x| *x = if length > 1e-300 { *x / length } else { 0.0 });
            let line = &*line;
            tail.par_chunks_exact_mut(rows).for_each(|other| axpy(-dot(line, other), line, other));
        }
    }
    transposed(&lines, cols, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// n cells of d features: three strong directions in noise, and an offset.
    pub(super) fn data(n: usize, d: usize) -> Vec<f32> {
        let mut draws = Sequence::new(6, 0, 0);
        let directions: Vec<f64> = (0..3 * d).map(|_| f64::from(draws.next_normal())).collect();
        let mut values = Vec::with_capacity(n * d);
        for _ in 0..n {
            let z = [5.0 * f64::from(draws.next_normal()), 3.0 * f64::from(draws.next_normal()), 2.0 * f64::from(draws.next_normal())];
            values.extend(
                (0..d).map(|j| {
                    (7.0 + (0..3).map(|k| z[k] * directions[k * d + j]).sum::<f64>() + 0.1 * f64::from(draws.next_normal())) as f32
                }),
            );
        }
        values
    }

    #[test]
    fn covariance_gram_and_iteration_agree() {
        for (n, d) in [(60, 40), (40, 60)] {
            let values = data(n, d);
            let m = Matrix::new(&values, n, d);
            let training = Training { x: values.clone(), n, d };
            let mean = training.mean();
            let (vc, wc) = training.by_covariance(&mean, 3).expect("finite");
            let (vg, wg) = training.by_gram(&mean, 3).expect("finite");
            let (vi, wi) = training.by_iteration(&mean, 3, 1);
            for k in 0..3 {
                assert!((wc[k] / wg[k] - 1.0).abs() < 1e-10 && (wc[k] / wi[k] - 1.0).abs() < 1e-10);
                for v in [&vg, &vi] {
                    let (x, y) = (&vc[k * d..(k + 1) * d], &v[k * d..(k + 1) * d]);
                    assert!((dot(x, y).abs() / (dot(x, x) * dot(y, y)).sqrt() - 1.0).abs() < 1e-10);
                }
            }
            // Training scores are centred, uncorrelated and have the variances announced.
            let pca = Pca::fit(m, &m.all_rows(), 3, 0).expect("finite");
            let scores = pca.scores(m);
            for a in 0..3 {
                assert!(scores.iter().skip(a).step_by(3).sum::<f64>().abs() < 1e-8);
                for b in 0..3 {
                    let c = scores.chunks_exact(3).map(|r| r[a] * r[b]).sum::<f64>() / (n - 1) as f64;
                    assert!((c - if a == b { pca.variance[a] } else { 0.0 }).abs() < 1e-9 * pca.variance[0]);
                }
            }
            let rough = Pca::fit_exactly_below(m, &m.all_rows(), 3, 0, 10).expect("finite");
            assert!(rough.components.iter().zip(&pca.components).all(|(a, b)| (a - b).abs() < 1e-8));
        }
    }

    #[test]
    fn cells_in_a_plane_of_many_features_have_two_components() {
        // As the simulations of UnionCom are: what the Gram matrix holds besides is rounding errors of f32.
        for (n, d) in [(300, 1000), (250, 500), (500, 250)] {
            let mut draws = Sequence::new(3, 0, 0);
            let mut normal = |count: usize| -> Vec<f32> { (0..count).map(|_| draws.next_normal()).collect() };
            let (place, plane) = (normal(2 * n), normal(2 * d));
            let values: Vec<f32> =
                (0..n * d).map(|e| place[e / d * 2] * plane[e % d] + 0.3 * place[e / d * 2 + 1] * plane[d + e % d]).collect();
            let m = Matrix::new(&values, n, d);
            let pca = Pca::fit(m, &m.all_rows(), 32, 0).expect("a plane");
            assert!(pca.variance[1] > 1e6 * pca.variance.get(2).copied().unwrap_or(0.0), "{:?}", pca.variance);
        }
    }

    #[test]
    fn pca_gives_no_more_components_than_the_cells_span() {
        let values = [1.0, 2.0, 2.0, 4.0, 3.0, 6.0, 4.0, 8.0];
        let m = Matrix::new(&values, 4, 2);
        let pca = Pca::fit(m, &m.all_rows(), 2, 0).expect("a line");
        assert_eq!(pca.len(), 1);
        assert!((pca.components[1] - 2.0 / 5f64.sqrt()).abs() < 1e-12);
        assert!(Pca::fit(m, &[1], 2, 0).is_none() && Pca::fit(m, &[], 2, 0).is_none());
        assert!(Pca::fit(Matrix::new(&[3.0; 8], 4, 2), &[0, 1, 2, 3], 2, 0).is_none());
        assert!(Pca::fit(Matrix::new(&[f32::NAN; 8], 4, 2), &[0, 1, 2, 3], 2, 0).is_none());
    }
}
