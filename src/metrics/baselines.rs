//! What needs no training: baselines that a model's translation and embedding are held against.
//!
//!   PC-CCA    principal components of each modality, canonical correlation to the latent width, least squares from A's scores to B's
//!             features: the linear model of the same shape (Gala et al. 2019, section 4)
//!   kNN       the unweighted mean of the k nearest training cells' B values, neighbours being sought in A
//!
//! Both take standardised matrices (training cells' mean 0, deviation 1), pairs (row of a, row of b) of the training cells, which alone
//! are learned from, and predict standardised B values. A missing value (NaN) of A counts as 0, the mean; of B it is skipped.

use super::cca::Cca;
use super::imputation::Imputation;
use super::matrix::Matrix;
use super::neighbours::{Distance, Pool};
use super::pca::Pca;
use crate::engine::linalg::{View, axpy, cholesky, cholesky_solve, product};
use rayon::prelude::*;

/// Values predicted for some cells, [cells, features of b].
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// Row after row, in the order of the cells asked for.
    pub values: Vec<f32>,
    /// Features of b.
    pub features: usize,
}

impl Predicted {
    /// As a matrix.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.values.len() / self.features.max(1), self.features)
    }

    /// Streaming sums against the measured values of the cells they were predicted for; mse, pearson and r2 come from these.
    pub fn against(&self, b: Matrix<'_>, test: &[(u32, u32)]) -> Imputation {
        let rows: Vec<u32> = test.iter().map(|t| t.1).collect();
        let mut sums = Imputation::new(self.features);
        sums.add(self.matrix(), Matrix::new(&b.gather(&rows), rows.len(), b.cols()));
        sums
    }
}

/// The kNN baseline: for each of `test` (row of a, row of b; only a's is used), the mean of b over its k nearest training cells in a
/// (Euclidean). Missing values of b do not count; if all neighbours lack one, it is 0, the mean. `None` without training pairs.
pub fn knn(a: Matrix<'_>, b: Matrix<'_>, train: &[(u32, u32)], test: &[(u32, u32)], k: usize) -> Option<Predicted> {
    if train.is_empty() || k == 0 {
        return None;
    }
    let filled = without_missing(a);
    let a = Matrix::new(&filled, a.rows(), a.cols());
    let rows: Vec<u32> = train.iter().map(|t| t.0).collect();
    let queries: Vec<u32> = test.iter().map(|t| t.0).collect();
    let near = Pool::new(a, &rows).nearest(Distance::Euclidean, a, &queries, k);
    let d = b.cols();
    let mut values = vec![0.0f32; test.len() * d];
    if d > 0 {
        values.par_chunks_mut(d).enumerate().for_each(|(i, out)| {
            let (mut sums, mut counts) = (vec![0.0f64; d], vec![0u32; d]);
            for position in near.of(i) {
                for (j, &v) in b.row(train[position].1 as usize).iter().enumerate().filter(|v| !v.1.is_nan()) {
                    sums[j] += f64::from(v);
                    counts[j] += 1;
                }
            }
            out.iter_mut().zip(sums.iter().zip(&counts)).for_each(|(o, (s, &n))| *o = if n > 0 { (s / f64::from(n)) as f32 } else { 0.0 });
        });
    }
    Some(Predicted { values, features: d })
}

/// The PC-CCA baseline, fitted.
#[derive(Clone, Debug)]
pub struct PcCca {
    pca_a: Pca,
    pca_b: Pca,
    cca: Cca,
}

impl PcCca {
    /// At most `components` principal components of each modality, then canonical correlation to `latent` dimensions, on training pairs.
    /// `None` if a modality has no direction that varies, or there are too few pairs.
    pub fn fit(a: Matrix<'_>, b: Matrix<'_>, train: &[(u32, u32)], components: (usize, usize), latent: usize, seed: u64) -> Option<PcCca> {
        let (rows_a, rows_b): (Vec<u32>, Vec<u32>) = train.iter().copied().unzip();
        let (xa, xb) = (without_missing(a), without_missing(b));
        let (a, b) = (Matrix::new(&xa, a.rows(), a.cols()), Matrix::new(&xb, b.rows(), b.cols()));
        let (pca_a, pca_b) = (Pca::fit(a, &rows_a, components.0, seed)?, Pca::fit(b, &rows_b, components.1, seed)?);
        let of_train = |pca: &Pca, m: Matrix<'_>, rows: &[u32]| pca.scores(Matrix::new(&m.gather(rows), rows.len(), m.cols()));
        let cca = Cca::fit(&of_train(&pca_a, a, &rows_a), &of_train(&pca_b, b, &rows_b), train.len(), latent)?;
        Some(PcCca { pca_a, pca_b, cca })
    }

    /// Canonical correlations over the training cells.
    pub fn correlations(&self) -> &[f64] {
        &self.cca.correlations
    }

    /// Embedding of all cells of the first modality, [cells, [`PcCca::latent`]].
    pub fn embed_a(&self, a: Matrix<'_>) -> Vec<f32> {
        narrow(&self.cca.a.scores(&self.pca_a.scores(Matrix::new(&without_missing(a), a.rows(), a.cols()))))
    }

    /// Embedding of all cells of the second modality.
    pub fn embed_b(&self, b: Matrix<'_>) -> Vec<f32> {
        narrow(&self.cca.b.scores(&self.pca_b.scores(Matrix::new(&without_missing(b), b.rows(), b.cols()))))
    }

    /// Latent dimensions.
    pub fn latent(&self) -> usize {
        self.cca.correlations.len()
    }

    /// b predicted for `test` by least squares, with an intercept, from a's scores; the coefficients come from `train`.
    pub fn translate(&self, a: Matrix<'_>, b: Matrix<'_>, train: &[(u32, u32)], test: &[(u32, u32)]) -> Option<Predicted> {
        let z = self.embed_a(a);
        least_squares(Matrix::new(&z, a.rows(), self.latent()), b, train, test)
    }
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&v| v as f32).collect()
}

fn without_missing(m: Matrix<'_>) -> Vec<f32> {
    m.values().iter().map(|&v| if v.is_nan() { 0.0 } else { v }).collect()
}

/// b predicted for `test` from the codes `z` by least squares with an intercept, fitted on `train`. A feature with missing values is
/// fitted on the cells that have it. `None` without training pairs; a feature that no training cell has is predicted as 0.
pub fn least_squares(z: Matrix<'_>, b: Matrix<'_>, train: &[(u32, u32)], test: &[(u32, u32)]) -> Option<Predicted> {
    if train.is_empty() {
        return None;
    }
    let (p, d) = (z.cols() + 1, b.cols());
    let design = |pairs: &[(u32, u32)]| -> Vec<f64> {
        pairs.iter().flat_map(|t| std::iter::once(1.0).chain(z.row(t.0 as usize).iter().map(|&v| f64::from(v)))).collect()
    };
    let x = design(train);
    let normal = |keep: &(dyn Fn(usize) -> bool + Sync)| {
        let mut gram = vec![0.0; p * p];
        for (_, row) in x.chunks_exact(p).enumerate().filter(|(i, _)| keep(*i)) {
            gram.chunks_exact_mut(p).zip(row).for_each(|(g, r)| axpy(*r, row, g));
        }
        factor(&gram, p)
    };
    let complete = normal(&|_| true);
    // Coefficients, a feature a row.
    let mut weights = vec![0.0; d * p];
    weights.par_chunks_mut(p).enumerate().for_each(|(j, w)| {
        let y = |i: usize| f64::from(b.row(train[i].1 as usize)[j]);
        let mut missing = false;
        for (i, row) in x.chunks_exact(p).enumerate() {
            if y(i).is_nan() {
                missing = true;
            } else {
                axpy(y(i), row, w);
            }
        }
        let own = if missing { normal(&|i| !y(i).is_nan()) } else { None };
        match if missing { &own } else { &complete } {
            Some(l) => cholesky_solve(l, p, w),
            None => w.fill(0.0),
        }
    });
    let mut out = vec![0.0; test.len() * d];
    product(View::new(&design(test), test.len(), p), View::new(&weights, d, p).t(), &mut out);
    Some(Predicted { values: narrow(&out), features: d })
}

/// Cholesky of the normal equations; fewer cells than coefficients get a ridge of a billionth.
fn factor(gram: &[f64], p: usize) -> Option<Vec<f64>> {
    let scale = (0..p).map(|i| gram[i * p + i]).sum::<f64>() / p as f64;
    [0.0, 1e-9, 1e-6].into_iter().find_map(|ridge| {
        let mut l = gram.to_vec();
        (0..p).for_each(|i| l[i * p + i] += ridge * scale);
        cholesky(&mut l, p).map(|()| l)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn knn_averages_the_neighbours_and_skips_what_is_missing() {
        let a = [0.0, 1.0, 2.0, 10.0, 0.4];
        let b = [1.0, 5.0, 3.0, f32::NAN, 8.0, 7.0, 100.0, 100.0, 0.0, 0.0];
        let train = [(0, 0), (1, 1), (2, 2), (3, 3)];
        let got = knn(Matrix::new(&a, 5, 1), Matrix::new(&b, 5, 2), &train, &[(4, 4)], 3).expect("training cells");
        assert_eq!(got.values, [4.0, 6.0]);
        assert!(knn(Matrix::new(&a, 5, 1), Matrix::new(&b, 5, 2), &[], &[(4, 4)], 3).is_none());
        assert_eq!(got.against(Matrix::new(&b, 5, 2), &[(4, 4)]).mse(), Some((16.0 + 36.0) / 2.0));
    }

    #[test]
    fn least_squares_recovers_a_line_with_gaps() {
        // y = 2 + 3x on the cells that have it; the second feature is never measured.
        let z = [0.0, 1.0, 2.0, 3.0, 4.0];
        let b: Vec<f32> = z.iter().flat_map(|x| [if *x == 1.0 { f32::NAN } else { 2.0 + 3.0 * x }, f32::NAN]).collect();
        let train = [(0, 0), (1, 1), (2, 2), (3, 3)];
        let got = least_squares(Matrix::new(&z, 5, 1), Matrix::new(&b, 5, 2), &train, &[(4, 4), (1, 1)]).expect("training cells");
        for (v, want) in got.values.iter().zip([14.0, 0.0, 5.0, 0.0]) {
            assert!((v - want).abs() < 1e-5, "{v} {want}");
        }
    }

    #[test]
    fn pc_cca_translates_what_is_linear() {
        let mut draws = Sequence::new(2, 2, 0);
        let (n, da, db) = (200, 12, 7);
        let wa: Vec<f64> = (0..2 * da).map(|_| f64::from(draws.next_normal())).collect();
        let wb: Vec<f64> = (0..2 * db).map(|_| f64::from(draws.next_normal())).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let z = [f64::from(draws.next_normal()), f64::from(draws.next_normal())];
            a.extend((0..da).map(|j| (z[0] * wa[j] + z[1] * wa[da + j] + 0.01 * f64::from(draws.next_normal())) as f32));
            b.extend((0..db).map(|j| (z[0] * wb[j] + z[1] * wb[db + j] + 0.01 * f64::from(draws.next_normal())) as f32));
        }
        let (a, b) = (Matrix::new(&a, n, da), Matrix::new(&b, n, db));
        let pairs: Vec<(u32, u32)> = (0..n as u32).map(|i| (i, i)).collect();
        let (train, test) = pairs.split_at(150);
        let fit = PcCca::fit(a, b, train, (5, 5), 2, 0).expect("varies");
        assert!(fit.latent() == 2 && fit.correlations()[1] > 0.99);
        let mse = fit.translate(a, b, train, test).expect("training cells").against(b, test).mse().expect("entries");
        assert!(mse < 0.01, "{mse}");
        let (x, y) = (fit.embed_a(a), fit.embed_b(b));
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 0.2));
        assert!(PcCca::fit(a, b, &[], (5, 5), 2, 0).is_none());
    }
}
