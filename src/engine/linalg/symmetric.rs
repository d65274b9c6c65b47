//! All eigenvalues and eigenvectors of a symmetric matrix of up to a few thousand rows.
//!
//!   1  A = H·T·Hᵀ     Householder reflections to a tridiagonal T; updating the matrix and the next matrix-vector product are one pass
//!   2  T = S·W·Sᵀ     implicit QL with Wilkinson's shift; rotations are queued and played on panels of S that stay in the cache
//!   3  Q = H·S         reflections applied to each eigenvector
//!
//! Source: Golub and Van Loan, Matrix Computations, sections 8.3 (tridiagonalisation, implicit shifts). Some 9·n³ operations.

use super::{axpy, dot};
use rayon::prelude::*;

/// Rows of S in a panel: one vector of eight lanes a rotation.
const LANES: usize = 8;
/// Rotations that are queued before the panels are turned.
const QUEUE: usize = 1 << 14;
/// Tries for one eigenvalue; two or three are usual, and only a matrix that is not finite needs more.
const MAX_TRIES: usize = 60;

/// Eigenvalues (ascending) and eigenvectors (columns of an n x n matrix) of the symmetric `a` (n x n, destroyed).
/// `None` if `a` is not finite.
#[track_caller]
pub fn symmetric_eigen(a: &mut [f64], n: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    assert_eq!(a.len(), n * n, "symmetric_eigen: n is {n}");
    if a.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let (mut diagonal, mut beside, scale) = tridiagonalise(a, n);
    let mut panels = Panels::identity(n);
    implicit_ql(&mut diagonal, &mut beside, &mut panels)?;

    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| diagonal[i].total_cmp(&diagonal[j]));
    let mut vectors = vec![0.0; n * n]; // row r: the r-th smallest eigenvalue's vector
    if n > 0 {
        vectors.par_chunks_mut(LANES * n).zip(order.par_chunks(LANES)).for_each(|(block, order)| {
            for (v, &k) in block.chunks_exact_mut(n).zip(order) {
                (0..n).for_each(|i| v[i] = panels.at(i, k));
            }
            // Reflections in the outer loop: each is read once for the whole block.
            for k in (0..n.saturating_sub(2)).rev() {
                let reflector = &a[k * n + k + 1..(k + 1) * n];
                for v in block.chunks_exact_mut(n) {
                    let tail = &mut v[k + 1..];
                    axpy(-scale[k] * dot(reflector, tail), reflector, tail);
                }
            }
        });
    }
    let mut q = vec![0.0; n * n];
    if n > 0 {
        q.par_chunks_mut(n).enumerate().for_each(|(i, row)| (0..n).for_each(|k| row[k] = vectors[k * n + i]));
    }
    Some((order.into_iter().map(|k| diagonal[k]).collect(), q))
}

/// Diagonal and off-diagonal (first n - 1 entries) of T. Row k of `a` past its diagonal becomes reflector k, v, with
/// H_k = I - scale[k]·v·vᵀ on the coordinates past k.
fn tridiagonalise(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside, mut scale) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    // The rank-two update A - v·wᵀ - w·vᵀ still owed to the rows past k, from the reflection before.
    let (mut v, mut w) = (vec![0.0; n], vec![0.0; n]);
    let mut next = vec![0.0; n];
    for k in 0..n {
        let (head, rest) = a.split_at_mut((k + 1) * n);
        let row = &mut head[k * n..];
        let (vk, wk) = (v[k], w[k]);
        for j in k..n {
            row[j] -= vk * w[j] + wk * v[j];
        }
        diagonal[k] = row[k];
        if k + 1 == n {
            break;
        }
        let x = &mut row[k + 1..];
        let (alpha, tau) = if k + 2 < n { reflector(x) } else { (x[0], 0.0) };
        beside[k] = alpha;
        scale[k] = tau;
        next.fill(0.0);
        next[k + 1..].copy_from_slice(x);
        // One pass over the rows past k: pay the update, then take the row's product with the new reflector.
        let mut p = vec![0.0; n - k - 1];
        let (v0, w0, x) = (&v, &w, &next);
        rest.par_chunks_mut(BLOCK * n).zip(p.par_chunks_mut(BLOCK)).enumerate().for_each(|(b, (rows, p))| {
            for (r, (row, p)) in rows.chunks_exact_mut(n).zip(p).enumerate() {
                let i = k + 1 + b * BLOCK + r;
                let (vi, wi) = (v0[i], w0[i]);
                let tail = &mut row[k + 1..];
                for ((t, v), w) in tail.iter_mut().zip(&v0[k + 1..]).zip(&w0[k + 1..]) {
                    *t -= vi * w + wi * v;
                }
                *p = dot(tail, &x[k + 1..]);
            }
        });
        // H·A·H = A - v·wᵀ - w·vᵀ with w = τ·p - (τ²/2)(pᵀv)·v.
        let half = 0.5 * tau * tau * dot(&p, &next[k + 1..]);
        v.copy_from_slice(&next);
        w.fill(0.0);
        for j in k + 1..n {
            w[j] = tau * p[j - k - 1] - half * v[j];
        }
        if tau == 0.0 {
            v.fill(0.0);
        }
    }
    (diagonal, beside, scale)
}

/// Rows that a task of the tridiagonalisation takes.
const BLOCK: usize = 32;

/// Turns x into v such that (I - τ·v·vᵀ)·x = α·e₁; returns (α, τ).
fn reflector(x: &mut [f64]) -> (f64, f64) {
    let largest = x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if x[1..].iter().all(|&v| v == 0.0) {
        let alpha = x[0];
        x.fill(0.0);
        return (alpha, 0.0);
    }
    // Scaled by the largest entry so that squares neither overflow nor vanish; v has no length of its own.
    x.iter_mut().for_each(|v| *v /= largest);
    let norm = dot(x, x).sqrt();
    let alpha = if x[0] > 0.0 { -norm } else { norm };
    x[0] -= alpha; // the signs differ, so nothing cancels
    (alpha * largest, 2.0 / dot(x, x))
}

/// Diagonalises the tridiagonal (diagonal d, off-diagonal e) in place. `None` if it does not converge.
fn implicit_ql(d: &mut [f64], e: &mut [f64], panels: &mut Panels) -> Option<()> {
    let n = d.len();
    // What the tridiagonalisation has rounded away already. Beside it small neighbours must not ask for more: in a matrix of low rank
    // the rest of the diagonal is rounding errors, whose off-diagonal entries never fall below a fraction of themselves.
    let rounded = f64::EPSILON * d.iter().zip(&*e).fold(0.0f64, |most, (d, e)| most.max(d.abs() + e.abs()));
    for l in 0..n {
        let mut tries = 0;
        loop {
            // The first negligible off-diagonal entry splits the matrix.
            let small = |m: usize| e[m].abs() <= rounded.max(f64::EPSILON * (d[m].abs() + d[m + 1].abs()));
            let m = (l..n.saturating_sub(1)).find(|&m| small(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            tries += 1;
            if tries > MAX_TRIES {
                return None;
            }
            let slope = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut g = d[m] - d[l] + e[l] / (slope + slope.hypot(1.0).copysign(slope));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    split = true;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let t = (d[i] - g) * s + 2.0 * c * b;
                p = s * t;
                d[i + 1] = g + p;
                g = c * t - b;
                panels.queue(i, c, s);
            }
            if !split {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    panels.play();
    Some(())
}

/// S in panels of [`LANES`] rows, a panel column by column, and the rotations of columns (k, k + 1) not yet applied to it.
struct Panels {
    n: usize,
    data: Vec<f64>, // [panels, n columns, LANES]
    queued: Vec<(usize, f64, f64)>,
}

impl Panels {
    fn identity(n: usize) -> Panels {
        let mut data = vec![0.0; n.div_ceil(LANES) * n * LANES];
        for i in 0..n {
            data[(i / LANES * n + i) * LANES + i % LANES] = 1.0;
        }
        Panels { n, data, queued: Vec::with_capacity(QUEUE) }
    }

    fn at(&self, row: usize, col: usize) -> f64 {
        self.data[(row / LANES * self.n + col) * LANES + row % LANES]
    }

    fn queue(&mut self, k: usize, c: f64, s: f64) {
        if self.queued.len() == QUEUE {
            self.play();
        }
        self.queued.push((k, c, s));
    }

    fn play(&mut self) {
        let queued = &self.queued;
        self.data.par_chunks_mut(self.n.max(1) * LANES).for_each(|panel| {
            for &(k, c, s) in queued {
                let (x, y) = panel[k * LANES..(k + 2) * LANES].split_at_mut(LANES);
                for l in 0..LANES {
                    (x[l], y[l]) = (c * x[l] - s * y[l], s * x[l] + c * y[l]);
                }
            }
        });
        self.queued.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{largest_difference, random_symmetric, recompose};
    use super::super::{View, jacobi_eigen, product};
    use super::*;

    #[test]
    fn eigen_reconstructs_random_matrices_to_twelve_digits() {
        for n in [0, 1, 2, 3, 4, 9, 33, 100, 257] {
            let a = random_symmetric(n, 11);
            let (w, q) = symmetric_eigen(&mut a.clone(), n).expect("finite");
            assert!(largest_difference(&recompose(&q, &w), &a) < 1e-12, "n {n}");
            let identity: Vec<f64> = (0..n * n).map(|x| f64::from(u8::from(x / n == x % n))).collect();
            assert!(largest_difference(&recompose(&q, &vec![1.0; n]), &identity) < 1e-12, "n {n}");
        }
    }

    #[test]
    fn eigen_agrees_with_jacobi() {
        let a = random_symmetric(40, 5);
        let (w, _) = symmetric_eigen(&mut a.clone(), 40).expect("finite");
        let (mut q, mut v) = (vec![0.0; 1600], vec![0.0; 40]);
        jacobi_eigen(&mut a.clone(), 40, &mut q, &mut v);
        assert!(largest_difference(&w, &v) < 1e-12);
    }

    #[test]
    fn eigen_takes_low_rank_diagonal_and_collapsed_matrices() {
        // Rank 2 of 30, diagonal, zero, and a spectrum that spans six orders.
        let n = 30;
        let x: Vec<f64> = random_symmetric(n, 4)[..2 * n].to_vec();
        let mut low = vec![0.0; n * n];
        product(View::new(&x, 2, n).t(), View::new(&x, 2, n), &mut low);
        let mut diagonal = vec![0.0; n * n];
        (0..n).for_each(|i| diagonal[i * n + i] = (n - i) as f64);
        let (_, q) = symmetric_eigen(&mut random_symmetric(n, 6), n).expect("finite");
        let spectrum: Vec<f64> = (0..n).map(|k| 10f64.powf(-6.0 * (1.0 - k as f64 / (n - 1) as f64))).collect();
        let collapsed = recompose(&q, &spectrum);
        for a in [low, diagonal, vec![0.0; n * n], collapsed.clone()] {
            let (w, q) = symmetric_eigen(&mut a.clone(), n).expect("finite");
            assert!(largest_difference(&recompose(&q, &w), &a) < 1e-12);
        }
        // The same rank with rounding errors of f32 in place of zeros.
        let n = 300;
        let x: Vec<f32> = random_symmetric(n, 4)[..5 * n].iter().map(|&v| v as f32).collect();
        let noisy: Vec<f32> = (0..n * 400).map(|e| x[e % n] * x[n + e / n] + x[2 * n + e % n] * x[3 * n + e / n % n]).collect();
        let mut low = vec![0.0; n * n];
        product(View::new(&noisy, 400, n).t(), View::new(&noisy, 400, n), &mut low);
        let (w, q) = symmetric_eigen(&mut low.clone(), n).expect("finite");
        assert!(largest_difference(&recompose(&q, &w), &low) < 1e-12 * w[n - 1]);
        let n = 30;
        let (w, _) = symmetric_eigen(&mut collapsed.clone(), n).expect("finite");
        assert!((w[0] / 1e-6 - 1.0).abs() < 1e-8 && (w[29] - 1.0).abs() < 1e-14);
        assert!(symmetric_eigen(&mut [f64::INFINITY], 1).is_none());
    }
}
