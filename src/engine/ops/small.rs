//! Mathematics of one minibatch's code on the host, in f64: what the CPU arms of `spectrum`, `whiten` and `distance` compute
//! with, and what the f32 kernels are checked against.
//!
//! A code is z [n cells, p latent], p ≤ [`MAX_LATENT`]; zc its centred form, C = zcᵀ·zc/(n-1). A function takes f32 or f64
//! values and works in f64 on the stack: nothing is allocated. Gradients are handed to a sink, element by element, so that the
//! caller stores them as it needs. Formulas: Gala et al. 2019, equations 4 to 6, and the calculus of a symmetric eigenproblem.

use crate::engine::linalg;

/// The widest code these functions take: one thread block holds its matrices.
pub const MAX_LATENT: usize = 64;
const SQUARE: usize = MAX_LATENT * MAX_LATENT;

/// How the smallest eigenvalue is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Smallest {
    /// Power iteration on the inverse with Rayleigh shifts, certified by the pivots of C - (ρ - δ)I; Jacobi where that fails.
    #[default]
    Power,
    /// Cyclic Jacobi: exact.
    Jacobi,
    /// Power iteration on c·I - C, for comparison: slow exactly where the code is close to collapse.
    ShiftedPower,
}

/// Steps of plain inverse iteration before the Rayleigh shifts; the same in the kernel.
const INVERSE_STEPS: usize = 4;
/// Rayleigh-quotient steps before giving up on the certificate.
const RAYLEIGH_STEPS: usize = 6;
/// Iterations of the shifted power method, its published failing included.
const SHIFTED_STEPS: usize = 2000;

/// z's column means and covariance (divided by n - 1), both overwritten. `mean [p]`, `c [p, p]`.
pub fn covariance<T: Copy + Into<f64>>(z: &[T], n: usize, p: usize, mean: &mut [f64], c: &mut [f64]) {
    assert!(p <= MAX_LATENT, "a code of {p} dimensions: up to {MAX_LATENT} fit");
    mean[..p].fill(0.0);
    c[..p * p].fill(0.0);
    for row in z.chunks_exact(p) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += v.into());
    }
    mean[..p].iter_mut().for_each(|m| *m /= n as f64);
    let mut centred = [0.0; MAX_LATENT];
    for row in z.chunks_exact(p) {
        for k in 0..p {
            centred[k] = row[k].into() - mean[k];
        }
        for a in 0..p {
            for b in a..p {
                c[a * p + b] += centred[a] * centred[b];
            }
        }
    }
    for a in 0..p {
        for b in a..p {
            c[a * p + b] /= (n as f64 - 1.0).max(1.0);
            c[b * p + a] = c[a * p + b];
        }
    }
}

/// Where iterations start: no symmetry of a code is likely to be orthogonal to it. `v [p]`, of unit length.
pub fn start_vector(v: &mut [f64]) {
    for (i, v) in v.iter_mut().enumerate() {
        *v = 0.5 + (i as f64 * 0.618_033_988_749_895).fract();
    }
    normalise(v);
}

/// The smallest eigenvalue of C [p, p] with a unit eigenvector. `v` enters as the start of the iterations.
pub fn smallest_eigenvalue(c: &[f64], p: usize, method: Smallest, v: &mut [f64]) -> f64 {
    let v = &mut v[..p];
    if !v.iter().all(|x| x.is_finite()) || !normalise(v) {
        start_vector(v);
    }
    match method {
        Smallest::Jacobi => jacobi_smallest(c, p, v),
        Smallest::Power => power_smallest(c, p, v).unwrap_or_else(|| jacobi_smallest(c, p, v)),
        Smallest::ShiftedPower => shifted_smallest(c, p, v),
    }
}

fn power_smallest(c: &[f64], p: usize, v: &mut [f64]) -> Option<f64> {
    let size = trace(c, p) / p as f64;
    if !(size.is_finite() && size > 0.0) {
        return None;
    }
    let mut work = [0.0; SQUARE];
    let factor = &mut work[..p * p];
    factor.copy_from_slice(&c[..p * p]);
    for i in 0..p {
        factor[i * p + i] += 1e-12 * size;
    }
    linalg::cholesky(factor, p)?;
    for _ in 0..INVERSE_STEPS {
        linalg::cholesky_solve(factor, p, v);
        if !normalise(v) {
            return None;
        }
    }
    let mut rho = quotient(c, p, v);
    let delta = 1e-9 * size;
    for _ in 0..RAYLEIGH_STEPS {
        if residual(c, p, v, rho) <= 1e-11 * size {
            break;
        }
        let mut shifted = [0.0; SQUARE];
        let shifted = &mut shifted[..p * p];
        shifted.copy_from_slice(&c[..p * p]);
        for i in 0..p {
            shifted[i * p + i] -= rho;
        }
        let mut w = [0.0; MAX_LATENT];
        w[..p].copy_from_slice(v);
        // A vanishing pivot means that rho is an eigenvalue already: keep v.
        if !solve_pivoted(shifted, p, &mut w[..p]) || !normalise(&mut w[..p]) {
            break;
        }
        v.copy_from_slice(&w[..p]);
        rho = quotient(c, p, v);
    }
    if residual(c, p, v, rho) > 1e-8 * size {
        return None;
    }
    factor.copy_from_slice(&c[..p * p]);
    for i in 0..p {
        factor[i * p + i] -= rho - delta;
    }
    linalg::ldl_all_positive(factor, p).then_some(rho)
}

fn jacobi_smallest(c: &[f64], p: usize, v: &mut [f64]) -> f64 {
    let (mut a, mut q, mut w) = ([0.0; SQUARE], [0.0; SQUARE], [0.0; MAX_LATENT]);
    a[..p * p].copy_from_slice(&c[..p * p]);
    linalg::jacobi_eigen(&mut a[..p * p], p, &mut q[..p * p], &mut w[..p]);
    for i in 0..p {
        v[i] = q[i * p]; // ascending: the first column
    }
    w[0]
}

fn shifted_smallest(c: &[f64], p: usize, v: &mut [f64]) -> f64 {
    let shift = (0..p).map(|i| c[i * p..(i + 1) * p].iter().map(|x| x.abs()).sum::<f64>()).fold(0.0, f64::max);
    let mut rho = quotient(c, p, v);
    for _ in 0..SHIFTED_STEPS {
        let mut w = [0.0; MAX_LATENT];
        for i in 0..p {
            w[i] = shift * v[i] - (0..p).map(|j| c[i * p + j] * v[j]).sum::<f64>();
        }
        if !normalise(&mut w[..p]) {
            break;
        }
        v.copy_from_slice(&w[..p]);
        let next = quotient(c, p, v);
        let done = (next - rho).abs() <= 1e-8 * next.abs();
        rho = next;
        if done {
            break;
        }
    }
    rho
}

/// The gradient of the smallest eigenvalue with respect to z: g·(2/(n-1))·(zc·v)·vᵀ.
pub fn smallest_gradient<T: Copy + Into<f64>>(
    z: &[T],
    n: usize,
    p: usize,
    mean: &[f64],
    v: &[f64],
    g: f64,
    mut sink: impl FnMut(usize, f64),
) {
    let k = 2.0 * g / (n as f64 - 1.0).max(1.0);
    for (r, row) in z.chunks_exact(p).enumerate() {
        let along: f64 = (0..p).map(|j| (row[j].into() - mean[j]) * v[j]).sum();
        for (j, v) in v[..p].iter().enumerate() {
            sink(r * p + j, k * along * v);
        }
    }
}

/// (C + ε I) to the power -1/2 or -1 by its eigenvectors: `s, q [p, p]` and `w [p]`, all overwritten.
pub fn inverse_power(c: &[f64], p: usize, epsilon: f64, exponent: f64, s: &mut [f64], q: &mut [f64], w: &mut [f64]) {
    let mut a = [0.0; SQUARE];
    a[..p * p].copy_from_slice(&c[..p * p]);
    for i in 0..p {
        a[i * p + i] += epsilon;
    }
    linalg::jacobi_eigen(&mut a[..p * p], p, q, w);
    for i in 0..p {
        for j in 0..p {
            s[i * p + j] = (0..p).map(|k| q[i * p + k] * w[k].powf(exponent) * q[j * p + k]).sum();
        }
    }
}

/// P of the whitening's gradient: Q (K ∘ (Qᵀ·M·Q)) Qᵀ with M = sym(zcᵀ·G), K_ab = -1/(r_a r_b (r_a + r_b)), r = √w.
/// No difference of eigenvalues appears: repeated ones are no special case. m enters as zcᵀ·G and leaves as P.
pub fn whitening_gradient_matrix(m: &mut [f64], p: usize, q: &[f64], w: &[f64]) {
    let (mut t, mut u) = ([0.0; SQUARE], [0.0; SQUARE]);
    for a in 0..p {
        for b in 0..p {
            t[a * p + b] = (0..p).map(|k| 0.5 * (m[a * p + k] + m[k * p + a]) * q[k * p + b]).sum();
        }
    }
    for a in 0..p {
        for b in 0..p {
            let (ra, rb) = (w[a].sqrt(), w[b].sqrt());
            u[a * p + b] = (0..p).map(|k| q[k * p + a] * t[k * p + b]).sum::<f64>() * (-1.0 / (ra * rb * (ra + rb)));
        }
    }
    for a in 0..p {
        for b in 0..p {
            t[a * p + b] = (0..p).map(|k| u[a * p + k] * q[b * p + k]).sum();
        }
    }
    for a in 0..p {
        for b in 0..p {
            m[a * p + b] = (0..p).map(|k| q[a * p + k] * t[k * p + b]).sum();
        }
    }
}

/// Scales v to unit length; false if that cannot be done.
fn normalise(v: &mut [f64]) -> bool {
    let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return false;
    }
    v.iter_mut().for_each(|x| *x /= length);
    true
}

fn trace(c: &[f64], p: usize) -> f64 {
    (0..p).map(|i| c[i * p + i]).sum()
}

fn quotient(c: &[f64], p: usize, v: &[f64]) -> f64 {
    (0..p).map(|i| v[i] * (0..p).map(|j| c[i * p + j] * v[j]).sum::<f64>()).sum()
}

/// |C v - ρ v|
fn residual(c: &[f64], p: usize, v: &[f64], rho: f64) -> f64 {
    (0..p).map(|i| ((0..p).map(|j| c[i * p + j] * v[j]).sum::<f64>() - rho * v[i]).powi(2)).sum::<f64>().sqrt()
}

/// a·x = b by elimination with row pivots; `b` becomes x. False when a pivot vanishes.
fn solve_pivoted(a: &mut [f64], p: usize, b: &mut [f64]) -> bool {
    for k in 0..p {
        let pivot = (k..p).max_by(|&i, &j| a[i * p + k].abs().total_cmp(&a[j * p + k].abs())).unwrap_or(k);
        if a[pivot * p + k] == 0.0 || !a[pivot * p + k].is_finite() {
            return false;
        }
        if pivot != k {
            (0..p).for_each(|j| a.swap(k * p + j, pivot * p + j));
            b.swap(k, pivot);
        }
        for i in k + 1..p {
            let f = a[i * p + k] / a[k * p + k];
            for j in k..p {
                a[i * p + j] -= f * a[k * p + j];
            }
            b[i] -= f * b[k];
        }
    }
    for k in (0..p).rev() {
        for j in k + 1..p {
            b[k] -= a[k * p + j] * b[j];
        }
        b[k] /= a[k * p + k];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::testing::values;
    use super::*;

    fn code(n: usize, p: usize, salt: u32, collapse: f64) -> Vec<f64> {
        let v = values(n * p, salt);
        // All but the first dimension become `collapse` times themselves plus the first: the state that batch norm alone ends in.
        (0..n * p).map(|i| if i % p == 0 { v[i] as f64 } else { v[i - i % p] as f64 + collapse * v[i] as f64 }).collect()
    }

    #[test]
    fn power_and_jacobi_agree_on_white_and_collapsed_codes() {
        for (n, p) in [(13, 1), (150, 2), (100, 3), (100, 10), (400, 50), (800, 64)] {
            for collapse in [1.0, 1e-1, 1e-3] {
                let z = code(n, p, 3 + p as u32, collapse);
                let (mut mean, mut c) = (vec![0.0; p], vec![0.0; p * p]);
                covariance(&z, n, p, &mut mean, &mut c);
                let mut v = vec![0.0; p];
                let exact = smallest_eigenvalue(&c, p, Smallest::Jacobi, &mut v);
                let mut v = vec![0.0; p];
                let power = smallest_eigenvalue(&c, p, Smallest::Power, &mut v);
                // C in f64 is good to 1e-16 of its largest eigenvalue, p at most here
                assert!(
                    (power - exact).abs() <= 1e-6 * exact + 1e-15 * p as f64,
                    "n {n} p {p} collapse {collapse}: {power} against {exact}"
                );
                assert!(residual(&c, p, &v, power) <= 1e-7, "n {n} p {p} collapse {collapse}");
            }
        }
    }

    #[test]
    fn the_shifted_iteration_fails_where_the_code_is_close_to_collapse() {
        // Copies of one dimension, but for 1e-3 of a second and 1e-5 of a third: eigenvalues near 1, 1e-6 and 1e-10. The shifted
        // iteration cannot tell the last two apart, since beside the largest they differ by 1e-6; iterating on the inverse can.
        let v: Vec<f64> = values(300, 60).into_iter().map(f64::from).collect();
        let z: Vec<f64> = v.chunks_exact(3).flat_map(|v| [v[0], v[0] + 1e-3 * v[1], v[0] - 1e-3 * v[1] + 1e-5 * v[2]]).collect();
        let (mut mean, mut c) = ([0.0; 3], [0.0; 9]);
        covariance(&z, 100, 3, &mut mean, &mut c);
        let [exact, shifted, power] = [Smallest::Jacobi, Smallest::ShiftedPower, Smallest::Power]
            .map(|method| smallest_eigenvalue(&c, 3, method, &mut [0.0, 1.0, 0.0]));
        assert!(shifted > 100.0 * exact, "{shifted} against {exact}");
        assert!((power - exact).abs() <= 1e-4 * exact, "{power} against {exact}");
    }

    #[test]
    fn a_singular_or_empty_spread_is_zero_and_not_nan() {
        for method in [Smallest::Power, Smallest::Jacobi, Smallest::ShiftedPower] {
            let mut v = [0.0; 3];
            assert_eq!(smallest_eigenvalue(&[0.0; 9], 3, method, &mut v), 0.0, "{method:?}");
            let rank_one = [1.0, 1.0, 1.0, 1.0];
            let mut v = [f64::NAN; 2];
            let l = smallest_eigenvalue(&rank_one, 2, method, &mut v);
            assert!(l.abs() < 1e-9, "{method:?}: {l}");
        }
    }

    #[test]
    fn the_smallest_eigenvalues_gradient_matches_central_differences_in_f64() {
        for (n, p) in [(25, 3), (100, 3), (100, 10)] {
            let z = code(n, p, 40 + p as u32, 0.5);
            let l = |z: &[f64]| {
                let (mut mean, mut c, mut v) = (vec![0.0; p], vec![0.0; p * p], vec![0.0; p]);
                covariance(z, n, p, &mut mean, &mut c);
                smallest_eigenvalue(&c, p, Smallest::Jacobi, &mut v)
            };
            let (mut mean, mut c, mut v) = (vec![0.0; p], vec![0.0; p * p], vec![0.0; p]);
            covariance(&z, n, p, &mut mean, &mut c);
            smallest_eigenvalue(&c, p, Smallest::Power, &mut v);
            let mut gradient = vec![0.0; n * p];
            smallest_gradient(&z, n, p, &mean, &v, 1.0, |i, g| gradient[i] = g);
            for salt in 0..4 {
                let direction: Vec<f64> = values(n * p, 70 + salt).iter().map(|&d| d as f64).collect();
                let along = |h: f64| l(&z.iter().zip(&direction).map(|(z, d)| z + h * d).collect::<Vec<_>>());
                let numeric = (along(1e-6) - along(-1e-6)) / 2e-6;
                let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
                assert!((numeric - exact).abs() <= 1e-5 * exact.abs().max(1e-3), "n {n} p {p}: {numeric} against {exact}");
            }
        }
    }
}
