//! Matrices of at most some dozens of rows, without allocation: cyclic Jacobi, Cholesky, the pivots of LDLᵀ, one-sided Jacobi.
//!
//! Jacobi rather than QL here because it finds small eigenvalues of a nearly singular covariance to a small error relative to
//! themselves in practice, needs three to eight sweeps, and is a page that a kernel can repeat line by line.

use super::{axpy, dot};

/// Convergence is quadratic: three to nine sweeps. This cap is only reached when the input is not finite.
const MAX_SWEEPS: usize = 60;

/// Eigenvalues (ascending, into `w`) and eigenvectors (columns of `q`, n x n) of the symmetric matrix `a` (n x n, destroyed), by
/// cyclic Jacobi until the off-diagonal Frobenius norm is at most 1e-12 of the matrix's. Returns the number of sweeps.
///
/// A matrix that is not finite ends after a bounded number of sweeps with values that are not finite.
#[track_caller]
pub fn jacobi_eigen(a: &mut [f64], n: usize, q: &mut [f64], w: &mut [f64]) -> usize {
    assert!(
        a.len() == n * n && q.len() == n * n && w.len() == n,
        "jacobi_eigen: n is {n}, got a {}, q {}, w {}",
        a.len(),
        q.len(),
        w.len()
    );
    // While it works, row k of q is eigenvector k: rotations then run over contiguous memory.
    q.fill(0.0);
    for i in 0..n {
        q[i * n + i] = 1.0;
    }
    let target = 1e-12 * dot(a, a).sqrt();
    let mut sweeps = 0;
    while sweeps < MAX_SWEEPS && off_diagonal(a, n) > target {
        sweeps += 1;
        for i in 0..n {
            for j in i + 1..n {
                rotate(a, n, q, i, j);
            }
        }
    }
    for i in 0..n {
        w[i] = a[i * n + i];
    }
    // Selection sort: at most n swaps of rows, no memory.
    for i in 0..n {
        let least = (i..n).fold(i, |m, j| if w[j] < w[m] { j } else { m });
        if least != i {
            w.swap(i, least);
            let (head, tail) = q.split_at_mut(least * n);
            head[i * n..(i + 1) * n].swap_with_slice(&mut tail[..n]);
        }
    }
    for i in 0..n {
        for j in i + 1..n {
            q.swap(i * n + j, j * n + i);
        }
    }
    sweeps
}

/// Frobenius norm of what is off the diagonal.
fn off_diagonal(a: &[f64], n: usize) -> f64 {
    let mut sum = 0.0;
    for i in 0..n {
        for j in 0..i {
            sum += 2.0 * a[i * n + j] * a[i * n + j];
        }
    }
    sum.sqrt()
}

/// The rotation of the plane (i, j), i < j, that makes a[i][j] zero; the smaller of the two angles, for convergence.
fn rotate(a: &mut [f64], n: usize, q: &mut [f64], i: usize, j: usize) {
    let off = a[i * n + j];
    if off == 0.0 {
        return;
    }
    let (di, dj) = (a[i * n + i], a[j * n + j]);
    let t = tangent(off, di, dj);
    let (c, s) = cosine_sine(t);
    turn(a, n, i, j, c, s);
    for k in 0..n {
        a[k * n + i] = a[i * n + k];
        a[k * n + j] = a[j * n + k];
    }
    a[i * n + i] = di - t * off;
    a[j * n + j] = dj + t * off;
    a[i * n + j] = 0.0;
    a[j * n + i] = 0.0;
    turn(q, n, i, j, c, s);
}

/// tan of the angle that diagonalises [[di, off], [off, dj]], in [-1, 1].
fn tangent(off: f64, di: f64, dj: f64) -> f64 {
    let theta = (dj - di) / (2.0 * off);
    theta.signum() / (theta.abs() + theta.hypot(1.0))
}

fn cosine_sine(t: f64) -> (f64, f64) {
    let c = 1.0 / t.hypot(1.0);
    (c, t * c)
}

/// Rows i < j of `m` (rows of length n): rᵢ ← c·rᵢ - s·rⱼ, rⱼ ← s·rᵢ + c·rⱼ.
fn turn(m: &mut [f64], n: usize, i: usize, j: usize, c: f64, s: f64) {
    let (head, tail) = m.split_at_mut(j * n);
    for (x, y) in head[i * n..(i + 1) * n].iter_mut().zip(&mut tail[..n]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

/// A = L·Lᵀ in place: L into the lower triangle of `a` (n x n), what is above the diagonal stays. `None` if a pivot is not positive.
#[track_caller]
pub fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    assert_eq!(a.len(), n * n, "cholesky: n is {n}");
    for i in 0..n {
        let (done, rest) = a.split_at_mut(i * n);
        let row = &mut rest[..n];
        for j in 0..i {
            row[j] = (row[j] - dot(&row[..j], &done[j * n..j * n + j])) / done[j * n + j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if pivot.is_nan() || pivot <= 0.0 || pivot.is_infinite() {
            return None;
        }
        row[i] = pivot.sqrt();
    }
    Some(())
}

/// x ← L⁻¹·x, L the lower triangle of `l` (n x n). |x|² is then the Mahalanobis distance of x under L·Lᵀ.
#[track_caller]
pub fn lower_solve(l: &[f64], n: usize, x: &mut [f64]) {
    assert!(l.len() == n * n && x.len() == n, "lower_solve: n is {n}, got l {}, x {}", l.len(), x.len());
    for i in 0..n {
        x[i] = (x[i] - dot(&l[i * n..i * n + i], &x[..i])) / l[i * n + i];
    }
}

/// x ← L⁻ᵀ·x, L the lower triangle of `l` (n x n). Columns so solved whiten: L⁻ᵀ·Lᵀ = I.
#[track_caller]
pub fn lower_transposed_solve(l: &[f64], n: usize, x: &mut [f64]) {
    assert!(l.len() == n * n && x.len() == n, "lower_transposed_solve: n is {n}, got l {}, x {}", l.len(), x.len());
    for i in (0..n).rev() {
        let (before, at) = x.split_at_mut(i);
        at[0] /= l[i * n + i];
        axpy(-at[0], &l[i * n..i * n + i], before);
    }
}

/// x ← (L·Lᵀ)⁻¹·x, L as [`cholesky`] leaves it.
#[track_caller]
pub fn cholesky_solve(l: &[f64], n: usize, x: &mut [f64]) {
    lower_solve(l, n, x);
    lower_transposed_solve(l, n, x);
}

/// Whether every pivot of A = L·D·Lᵀ is positive; `a` (n x n) is destroyed, only its lower triangle is read.
///
/// By Sylvester's law of inertia this certifies, for A = C - shift·I, that C has no eigenvalue at or below the shift.
#[track_caller]
pub fn ldl_all_positive(a: &mut [f64], n: usize) -> bool {
    assert_eq!(a.len(), n * n, "ldl_all_positive: n is {n}");
    for k in 0..n {
        let pivot = a[k * n + k];
        if pivot.is_nan() || pivot <= 0.0 || pivot.is_infinite() {
            return false;
        }
        for i in k + 1..n {
            let factor = a[i * n + k] / pivot;
            for j in k + 1..=i {
                a[i * n + j] -= factor * a[j * n + k];
            }
        }
    }
    true
}

/// Singular value decomposition of a wide or square matrix given by its rows: `a` (rows x cols, rows <= cols) = U·diag(s)·Vᵀ.
///
/// One-sided Jacobi: rows are rotated until they are orthogonal, so that small singular values keep their relative accuracy
/// (nothing is squared). On return row k of `a` is s\[k\]·v_kᵀ, row k of `u` (rows x rows) is u_kᵀ, and `s` is descending.
#[track_caller]
pub fn singular_values(a: &mut [f64], rows: usize, cols: usize, u: &mut [f64], s: &mut [f64]) -> usize {
    assert!(rows <= cols || a.is_empty(), "singular_values: {rows} rows, {cols} columns: transpose it");
    assert!(a.len() == rows * cols && u.len() == rows * rows && s.len() == rows, "singular_values: buffers do not fit {rows} x {cols}");
    u.fill(0.0);
    for i in 0..rows {
        u[i * rows + i] = 1.0;
    }
    let mut sweeps = 0;
    let mut turned = true;
    while turned && sweeps < MAX_SWEEPS {
        turned = false;
        sweeps += 1;
        for i in 0..rows {
            for j in i + 1..rows {
                let (x, y) = (&a[i * cols..(i + 1) * cols], &a[j * cols..(j + 1) * cols]);
                let (xx, yy, xy) = (dot(x, x), dot(y, y), dot(x, y));
                // Rows this close to orthogonal differ from exactly orthogonal ones by rounding alone.
                if xy.abs() > 1e-15 * (xx * yy).sqrt() {
                    let (c, sine) = cosine_sine(tangent(xy, xx, yy));
                    turn(a, cols, i, j, c, sine);
                    turn(u, rows, i, j, c, sine);
                    turned = true;
                }
            }
        }
    }
    for i in 0..rows {
        s[i] = dot(&a[i * cols..(i + 1) * cols], &a[i * cols..(i + 1) * cols]).sqrt();
    }
    for i in 0..rows {
        let most = (i..rows).fold(i, |m, j| if s[j] > s[m] { j } else { m });
        if most != i {
            s.swap(i, most);
            for (m, width) in [(&mut *a, cols), (&mut *u, rows)] {
                let (head, tail) = m.split_at_mut(most * width);
                head[i * width..(i + 1) * width].swap_with_slice(&mut tail[..width]);
            }
        }
    }
    sweeps
}

#[cfg(test)]
mod tests {
    use super::super::tests::{largest_difference, random_symmetric, recompose};
    use super::*;

    #[test]
    fn jacobi_finds_the_spectrum_of_a_known_matrix() {
        // [[2,1],[1,2]] has 1 and 3, with vectors (1,-1)/√2 and (1,1)/√2.
        let (mut q, mut w) = ([0.0; 4], [0.0; 2]);
        jacobi_eigen(&mut [2.0, 1.0, 1.0, 2.0], 2, &mut q, &mut w);
        assert!((w[0] - 1.0).abs() < 1e-15 && (w[1] - 3.0).abs() < 1e-15);
        assert!((q[0] + q[2]).abs() < 1e-15 && (q[1] - q[3]).abs() < 1e-15);
        // Second differences: 2 - 2 cos(kπ/(n+1)).
        let n = 10;
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            a[i * n + i] = 2.0;
            if i > 0 {
                a[i * n + i - 1] = -1.0;
                a[(i - 1) * n + i] = -1.0;
            }
        }
        let (mut q, mut w) = (vec![0.0; n * n], vec![0.0; n]);
        let sweeps = jacobi_eigen(&mut a, n, &mut q, &mut w);
        assert!(sweeps <= 8, "{sweeps} sweeps");
        for (k, w) in w.iter().enumerate() {
            let want = 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (n + 1) as f64).cos();
            assert!((w - want).abs() < 1e-14, "{w} {want}");
        }
    }

    #[test]
    fn jacobi_reconstructs_random_matrices_to_twelve_digits() {
        for n in [0, 1, 2, 3, 10, 31, 64] {
            let a = random_symmetric(n, 7);
            let (mut q, mut w) = (vec![0.0; n * n], vec![0.0; n]);
            let sweeps = jacobi_eigen(&mut a.clone(), n, &mut q, &mut w);
            assert!(sweeps <= 9, "n {n}: {sweeps} sweeps");
            assert!(w.windows(2).all(|p| p[0] <= p[1]));
            assert!(largest_difference(&recompose(&q, &w), &a) < 1e-12, "n {n}");
            let identity: Vec<f64> = (0..n * n).map(|x| f64::from(u8::from(n > 0 && x / n == x % n))).collect();
            assert!(largest_difference(&recompose(&q, &vec![1.0; n]), &identity) < 1e-13, "n {n}");
        }
    }

    #[test]
    fn jacobi_resolves_an_eigenvalue_a_millionth_of_the_largest() {
        // A rotated diag(1e-6, 0.5, 1): the smallest must be right to 1e-6 of itself, and in a few sweeps.
        let (mut q, mut w) = (vec![0.0; 9], vec![0.0; 3]);
        jacobi_eigen(&mut random_symmetric(3, 1), 3, &mut q, &mut w);
        let mut a = recompose(&q, &[1e-6, 0.5, 1.0]);
        let sweeps = jacobi_eigen(&mut a, 3, &mut q, &mut w);
        assert!((w[0] - 1e-6).abs() < 1e-12 && sweeps <= 5, "{w:?} {sweeps}");
    }

    #[test]
    fn jacobi_ends_on_a_matrix_that_is_not_finite() {
        let (mut q, mut w) = ([0.0; 4], [0.0; 2]);
        jacobi_eigen(&mut [f64::NAN, 1.0, 1.0, 2.0], 2, &mut q, &mut w);
        assert!(w.iter().any(|w| w.is_nan()));
    }

    #[test]
    fn cholesky_factors_and_solves_and_refuses_what_is_not_positive() {
        let a = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let mut l = a;
        cholesky(&mut l, 3).expect("positive definite");
        assert_eq!((l[0], l[3], l[4]), (2.0, 1.0, 2.0));
        let mut x = [1.0, -2.0, 3.0];
        cholesky_solve(&l, 3, &mut x);
        for (i, want) in [1.0, -2.0, 3.0].into_iter().enumerate() {
            assert!((dot(&a[3 * i..3 * i + 3], &x) - want).abs() < 1e-14);
        }
        assert!(cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(cholesky(&mut [f64::NAN], 1).is_none());
    }

    #[test]
    fn pivots_certify_that_no_eigenvalue_lies_below_a_shift() {
        let a = random_symmetric(12, 3);
        let (mut q, mut w) = (vec![0.0; 144], vec![0.0; 12]);
        jacobi_eigen(&mut a.clone(), 12, &mut q, &mut w);
        for (shift, certified) in [(w[0] - 1e-9, true), (w[0] + 1e-9, false), (w[3] + 1e-3, false)] {
            let mut shifted = a.clone();
            (0..12).for_each(|i| shifted[13 * i] -= shift);
            assert_eq!(ldl_all_positive(&mut shifted, 12), certified);
        }
    }

    #[test]
    fn singular_values_keep_their_relative_accuracy() {
        // Rows of an orthogonal matrix, scaled: singular values are the scales even ten orders apart.
        let (mut q, mut w) = (vec![0.0; 25], vec![0.0; 5]);
        jacobi_eigen(&mut random_symmetric(5, 2), 5, &mut q, &mut w);
        let scales = [3.0, 1.0, 1e-3, 1e-10];
        // M = U0·diag(s)·V0ᵀ with U0 = rotation of rows 0 and 3.
        let (c, s) = (0.6, 0.8);
        let mut a = vec![0.0; 20];
        for k in 0..4 {
            for j in 0..5 {
                a[k * 5 + j] = scales[k] * q[j * 5 + k];
            }
        }
        turn(&mut a, 5, 1, 2, c, s);
        let original = a.clone();
        let (mut u, mut sv) = (vec![0.0; 16], vec![0.0; 4]);
        singular_values(&mut a, 4, 5, &mut u, &mut sv);
        for k in 0..4 {
            assert!((sv[k] / scales[k] - 1.0).abs() < 1e-12, "{sv:?}");
        }
        for i in 0..4 {
            for j in 0..5 {
                let back: f64 = (0..4).map(|k| u[k * 4 + i] * a[k * 5 + j]).sum();
                assert!((back - original[i * 5 + j]).abs() < 1e-14);
            }
        }
    }
}
