//! Dense linear algebra in f64 for what must be exact: the spectrum of a latent covariance, whitening, and the closed-form
//! baselines. Slices are row-major; a matrix of eigenvectors holds them as **columns** and A = Q·diag(w)·Qᵀ with w ascending.
//!
//! `small` allocates nothing and suits the at most 64 latent dimensions of a model: the engine calls it inside a step.
//! `symmetric` takes matrices up to a few thousand rows; `product` multiplies anything, over the cores.
//!
//! Results never depend on the number of threads: work is cut by size alone and every sum has one fixed order.

mod product;
mod small;
mod symmetric;

pub use product::{View, product};
pub use small::{cholesky, cholesky_solve, jacobi_eigen, ldl_all_positive, lower_solve, lower_transposed_solve, singular_values};
pub use symmetric::symmetric_eigen;

/// Σ xᵢ·yᵢ, in eight interleaved partial sums so that it vectorises; the order depends on the length alone.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let tail: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in xs.zip(ys) {
        for l in 0..8 {
            lanes[l] += a[l] * b[l];
        }
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])) + tail
}

/// y += c·x.
pub fn axpy(c: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += c * x;
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::rng::uniform;

    /// A symmetric matrix of uniform numbers on [-1, 1).
    pub(super) fn random_symmetric(n: usize, seed: u64) -> Vec<f64> {
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let v = 2.0 * f64::from(uniform(seed, 0, 0, (i * n + j) as u32)) - 1.0;
                a[i * n + j] = v;
                a[j * n + i] = v;
            }
        }
        a
    }

    /// Q·diag(w)·Qᵀ.
    pub(super) fn recompose(q: &[f64], w: &[f64]) -> Vec<f64> {
        let n = w.len();
        let entry = |i: usize, j: usize| (0..n).map(|k| q[i * n + k] * w[k] * q[j * n + k]).sum();
        (0..n * n).map(|x| entry(x / n, x % n)).collect()
    }

    pub(super) fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn dot_adds_every_entry_of_any_length() {
        for n in [0, 1, 7, 8, 9, 31, 257] {
            let x: Vec<f64> = (0..n).map(f64::from).collect();
            assert_eq!(super::dot(&x, &vec![1.0; n as usize]), f64::from(n) * (f64::from(n) - 1.0) / 2.0);
        }
    }
}
