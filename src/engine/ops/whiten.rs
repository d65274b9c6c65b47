//! Full-covariance couplings (Gala et al. 2019, eq. 5, and the form that its code used).
//!
//!   whiten        ẑ = zc·S,  S = (C + ε I)^(-1/2), the symmetric root
//!     backward    dz_r = (G_r - mean G)·S + (2/(n-1)) zc_r·P,   P as in `small::whitening_gradient_matrix`
//!   mahalanobis   L = (1/2W) Σ_r w_r d_r (A_a + A_b) d_rᵀ,  d = a - b,  A_q = (C_q + ε I)^(-1),  W = Σ w
//!     backward    da_r = (dL/W) w_r d_r (A_a + A_b) + (2/(n-1)) ac_r N_a,   db_r likewise with -d,
//!                 N_q = -(dL/2W) A_q (Σ_r w_r d_rᵀ d_r) A_q
//!   shapes        z, a, b [n cells, p latent ≤ 64], w [n, 1] or none; n > p
//!   kernels       inverse_power, two_products, whiten_matrix, mahalanobis_fwd, mahalanobis_bwd     (kernels/whiten.cu)
//!
//! The covariances are over all rows, the distance over the paired ones.

use super::small::{self, MAX_LATENT};
use super::spectrum::block;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static WHITEN: Op = Op { name: "whiten", backward: whiten_backward };
static MAHALANOBIS: Op = Op { name: "mahalanobis", backward: mahalanobis_backward };

const SQUARE: usize = MAX_LATENT * MAX_LATENT;

impl Step {
    /// The code with its covariance made the identity. z [n, p], n > p; result [n, p].
    #[track_caller]
    pub fn whiten(&mut self, z: Var, epsilon: f32) -> Var {
        let [n, p] = self.check_code("whiten", z);
        let y = self.alloc([n, p]);
        let saved = self.inverse_power(z, epsilon, -0.5);
        if self.on_cpu() {
            let ([y], [z, saved]) = self.views([y], [z, saved]);
            let (mean, s) = (&saved[..p], &saved[2 * p..2 * p + p * p]);
            for (y, z) in y.chunks_exact_mut(p).zip(z.chunks_exact(p)) {
                for (j, y) in y.iter_mut().enumerate() {
                    *y = (0..p).map(|k| (z[k] - mean[k]) as f64 * s[k * p + j] as f64).sum::<f64>() as f32;
                }
            }
        } else {
            let none = self.ptr(Var::NONE);
            let s = self.part(saved, 2 * p, p * p);
            let args =
                [self.ptr(y), self.ptr(z), self.ptr(saved), self.ptr(s), none, none, none, 0.0f32.into(), n.into(), p.into(), false.into()];
            self.launch("two_products", Grid::over(n * p), &args);
        }
        self.record(&WHITEN, [z, saved], y, [0.0; 4], [0; 4]);
        y
    }

    /// The mean squared Mahalanobis distance of a's rows to b's, under each one's covariance, averaged. a, b [n, p],
    /// weights [n, 1] or [`Var::NONE`]; result [1, 1].
    #[track_caller]
    pub fn mahalanobis(&mut self, a: Var, b: Var, weights: Var, epsilon: f32) -> Var {
        let [n, p] = self.check_code("mahalanobis", a);
        assert_eq!(self.dims(b), [n, p], "mahalanobis: a is [{n}, {p}], b is {:?}", self.dims(b));
        let (saved_a, saved_b) = (self.inverse_power(a, epsilon, -1.0), self.inverse_power(b, epsilon, -1.0));
        let (l, scatter) = (self.alloc([1, 1]), self.alloc([1, p * p + 1])); // Σ w dᵀd, then W
        if self.on_cpu() {
            let w = self.or_empty(weights);
            let ([l, scatter], [a, b, w, sa, sb]) = self.views([l, scatter], [a, b, w, saved_a, saved_b]);
            let (mut e, mut total) = ([0.0f64; SQUARE], 0.0f64);
            for (r, (a, b)) in a.chunks_exact(p).zip(b.chunks_exact(p)).enumerate() {
                let weight = w.get(r).copied().unwrap_or(1.0) as f64;
                total += weight;
                for i in 0..p {
                    for j in 0..p {
                        e[i * p + j] += weight * (a[i] - b[i]) as f64 * (a[j] - b[j]) as f64;
                    }
                }
            }
            // Σ_r w_r d_r A d_rᵀ = Σ_ij A_ij E_ij
            let (a_inv, b_inv) = (&sa[2 * p..], &sb[2 * p..]);
            let sum: f64 = (0..p * p).map(|i| (a_inv[i] as f64 + b_inv[i] as f64) * e[i]).sum();
            l[0] = if total > 0.0 { (0.5 * sum / total) as f32 } else { 0.0 };
            (0..p * p).for_each(|i| scatter[i] = e[i] as f32);
            scatter[p * p] = total as f32;
        } else {
            let args = [
                self.ptr(l),
                self.ptr(scatter),
                self.ptr(a),
                self.ptr(b),
                self.ptr(weights),
                self.ptr(saved_a),
                self.ptr(saved_b),
                n.into(),
                p.into(),
            ];
            self.launch("mahalanobis_fwd", block(p, 1), &args);
        }
        self.record(&MAHALANOBIS, [a, b, weights, saved_a, saved_b, scatter], l, [0.0; 4], [0; 4]);
        l
    }

    #[track_caller]
    fn check_code(&self, op: &str, z: Var) -> [usize; 2] {
        let [n, p] = self.dims(z);
        assert!(
            (1..=MAX_LATENT).contains(&p) && n > p,
            "{op}: z is [cells {n}, latent {p}]: the covariance needs more cells than dimensions"
        );
        [n, p]
    }

    /// Of z's covariance: mean [p], eigenvalues of C + ε I [p], (C + ε I)^exponent [p, p], eigenvectors [p, p], one after the other.
    fn inverse_power(&mut self, z: Var, epsilon: f32, exponent: f32) -> Var {
        let [n, p] = self.dims(z);
        let saved = self.alloc([1, 2 * p + 2 * p * p]);
        if self.on_cpu() {
            let ([saved], [z]) = self.views([saved], [z]);
            let (mut mean, mut c) = ([0.0; MAX_LATENT], [0.0; SQUARE]);
            let (mut s, mut q, mut w) = ([0.0; SQUARE], [0.0; SQUARE], [0.0; MAX_LATENT]);
            small::covariance(z, n, p, &mut mean, &mut c);
            small::inverse_power(&c, p, epsilon as f64, exponent as f64, &mut s[..p * p], &mut q[..p * p], &mut w[..p]);
            let all = mean[..p].iter().chain(&w[..p]).chain(&s[..p * p]).chain(&q[..p * p]);
            saved.iter_mut().zip(all).for_each(|(d, &v)| *d = v as f32);
        } else {
            let args = [self.ptr(saved), self.ptr(z), n.into(), p.into(), epsilon.into(), exponent.into()];
            self.launch("inverse_power", block(p, 2), &args);
        }
        saved
    }
}

fn whiten_backward(s: &mut Step, node: &Node) {
    let [z, saved, ..] = node.x;
    let g = s.grad(node.y).expect("the gradient has arrived");
    let [n, p] = s.dims(z);
    let (dz, add) = s.grad_slot(z);
    let k = 2.0 / (n as f32 - 1.0);
    if s.on_cpu() {
        let ([dz], [z, saved, g]) = s.views([dz], [z, saved, g]);
        let (mean, root, q) = (&saved[..p], &saved[2 * p..2 * p + p * p], &saved[2 * p + p * p..]);
        let (mut w, mut q64) = ([0.0; MAX_LATENT], [0.0; SQUARE]);
        (0..p).for_each(|i| w[i] = saved[p + i] as f64);
        (0..p * p).for_each(|i| q64[i] = q[i] as f64);
        let (mut m, mut mean_g) = ([0.0; SQUARE], [0.0; MAX_LATENT]);
        for (z, g) in z.chunks_exact(p).zip(g.chunks_exact(p)) {
            for i in 0..p {
                mean_g[i] += g[i] as f64 / n as f64;
                for j in 0..p {
                    m[i * p + j] += (z[i] - mean[i]) as f64 * g[j] as f64;
                }
            }
        }
        small::whitening_gradient_matrix(&mut m[..p * p], p, &q64, &w);
        for (r, (z, g)) in z.chunks_exact(p).zip(g.chunks_exact(p)).enumerate() {
            for j in 0..p {
                let through: f64 = (0..p).map(|i| (g[i] as f64 - mean_g[i]) * root[i * p + j] as f64).sum();
                let spread: f64 = (0..p).map(|i| (z[i] - mean[i]) as f64 * m[i * p + j]).sum();
                let d = (through + k as f64 * spread) as f32;
                dz[r * p + j] = if add { dz[r * p + j] + d } else { d };
            }
        }
    } else {
        let matrix = s.alloc([1, p + p * p]); // mean of G, then P
        let args = [s.ptr(matrix), s.ptr(z), s.ptr(g), s.ptr(saved), n.into(), p.into()];
        s.launch("whiten_matrix", block(p, 2), &args);
        let (root, spread) = (s.part(saved, 2 * p, p * p), s.part(matrix, p, p * p));
        let args = [
            s.ptr(dz),
            s.ptr(g),
            s.ptr(matrix),
            s.ptr(root),
            s.ptr(z),
            s.ptr(saved),
            s.ptr(spread),
            k.into(),
            n.into(),
            p.into(),
            add.into(),
        ];
        s.launch("two_products", Grid::over(n * p), &args);
    }
}

fn mahalanobis_backward(s: &mut Step, node: &Node) {
    let [a, b, weights, saved_a, saved_b, scatter, ..] = node.x;
    let dl = s.grad(node.y).expect("the gradient has arrived");
    let [n, p] = s.dims(a);
    // Each side in turn; the distance's part has the opposite sign for b.
    for (own, other, saved_own, saved_other) in [(a, b, saved_a, saved_b), (b, a, saved_b, saved_a)] {
        if !s.wants(own) {
            continue;
        }
        let (d_own, add) = s.grad_slot(own);
        if s.on_cpu() {
            let w = s.or_empty(weights);
            let ([d_own], [own, other, w, so, st, scatter, dl]) = s.views([d_own], [own, other, w, saved_own, saved_other, scatter, dl]);
            let (mean, inv, inv_other) = (&so[..p], &so[2 * p..2 * p + p * p], &st[2 * p..2 * p + p * p]);
            let total = scatter[p * p] as f64;
            let g = if total > 0.0 { dl[0] as f64 / total } else { 0.0 };
            let (mut t, mut spread) = ([0.0f64; SQUARE], [0.0f64; SQUARE]);
            for i in 0..p {
                for j in 0..p {
                    t[i * p + j] = (0..p).map(|k| scatter[i * p + k] as f64 * inv[k * p + j] as f64).sum();
                }
            }
            for i in 0..p {
                for j in 0..p {
                    spread[i * p + j] = -0.5 * g * (0..p).map(|k| inv[i * p + k] as f64 * t[k * p + j]).sum::<f64>();
                }
            }
            for r in 0..n {
                let (x, y) = (&own[r * p..(r + 1) * p], &other[r * p..(r + 1) * p]);
                let weight = g * w.get(r).copied().unwrap_or(1.0) as f64;
                for j in 0..p {
                    let near: f64 = (0..p).map(|i| (x[i] - y[i]) as f64 * (inv[i * p + j] as f64 + inv_other[i * p + j] as f64)).sum();
                    let far: f64 = (0..p).map(|i| (x[i] - mean[i]) as f64 * spread[i * p + j]).sum();
                    let d = (weight * near + 2.0 / (n as f64 - 1.0) * far) as f32;
                    d_own[r * p + j] = if add { d_own[r * p + j] + d } else { d };
                }
            }
        } else {
            let args = [
                s.ptr(d_own),
                s.ptr(own),
                s.ptr(other),
                s.ptr(weights),
                s.ptr(saved_own),
                s.ptr(saved_other),
                s.ptr(scatter),
                s.ptr(dl),
                n.into(),
                p.into(),
                add.into(),
            ];
            s.launch("mahalanobis_bwd", block(p, 2), &args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn whitened(z: &[f64], n: usize, p: usize, eps: f64) -> Vec<f64> {
        let (mut mean, mut c) = (vec![0.0; p], vec![0.0; p * p]);
        small::covariance(z, n, p, &mut mean, &mut c);
        let (mut s, mut q, mut w) = (vec![0.0; p * p], vec![0.0; p * p], vec![0.0; p]);
        small::inverse_power(&c, p, eps, -0.5, &mut s, &mut q, &mut w);
        (0..n * p).map(|i| (0..p).map(|k| (z[i / p * p + k] - mean[k]) * s[k * p + i % p]).sum()).collect()
    }

    fn distance(a: &[f64], b: &[f64], w: &[f32], n: usize, p: usize, eps: f64) -> f64 {
        let weight = |r: usize| w.get(r).map_or(1.0, |&w| w as f64);
        let total: f64 = (0..n).map(weight).sum();
        let mut sum = 0.0;
        for side in [a, b] {
            let (mut mean, mut c) = (vec![0.0; p], vec![0.0; p * p]);
            small::covariance(side, n, p, &mut mean, &mut c);
            let (mut s, mut q, mut l) = (vec![0.0; p * p], vec![0.0; p * p], vec![0.0; p]);
            small::inverse_power(&c, p, eps, -1.0, &mut s, &mut q, &mut l);
            for r in 0..n {
                let d: Vec<f64> = (0..p).map(|k| a[r * p + k] - b[r * p + k]).collect();
                sum += weight(r) * (0..p * p).map(|i| d[i / p] * s[i] * d[i % p]).sum::<f64>();
            }
        }
        0.5 * sum / total
    }

    #[test]
    fn whitening_matches_the_reference_and_its_gradient() {
        for (n, p) in [(3, 1), (13, 3), (100, 3), (40, 10), (24, 19)] {
            prove(&[operand([n, p], p as u32)], 1e-3, |s, v| s.whiten(v[0], 1e-3), |x| whitened(&x[0], n, p, 1e-3));
        }
    }

    #[test]
    fn whitening_a_code_with_repeated_eigenvalues_has_a_finite_right_gradient() {
        // C is a multiple of the identity: fourfold eigenvalue
        let mut z = vec![0.0f32; 8 * 4];
        for k in 0..4 {
            (z[2 * k * 4 + k], z[(2 * k + 1) * 4 + k]) = (1.0, -1.0);
        }
        let operand = Operand { dims: [8, 4], values: z, differentiate: true };
        prove(&[operand], 1e-3, |s, v| s.whiten(v[0], 1e-3), |x| whitened(&x[0], 8, 4, 1e-3));
    }

    #[test]
    fn a_whitened_code_has_the_identity_for_covariance() {
        let z = values(200 * 5, 9);
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let z = s.constant([200, 5], &z);
            let y = s.whiten(z, 0.0);
            let y = s.download(y).unwrap();
            let (mut mean, mut c) = (vec![0.0; 5], vec![0.0; 25]);
            small::covariance(&y, 200, 5, &mut mean, &mut c);
            let identity: Vec<f64> = (0..25).map(|i| if i % 6 == 0 { 1.0 } else { 0.0 }).collect();
            compare(device, &c.iter().map(|&c| c as f32).collect::<Vec<_>>(), &identity, 1e-5);
        }
    }

    #[test]
    fn mahalanobis_matches_the_reference_and_its_gradient() {
        for (n, p) in [(3, 1), (13, 3), (40, 10), (24, 19)] {
            let (a, b) = (operand([n, p], p as u32), operand([n, p], 50 + p as u32));
            prove(
                &[a.clone(), b.clone()],
                1e-3,
                |s, v| s.mahalanobis(v[0], v[1], Var::NONE, 1e-3),
                |x| vec![distance(&x[0], &x[1], &[], n, p, 1e-3)],
            );
            let mut w: Vec<f32> = values(n, 3).iter().map(|w| w.abs()).collect();
            w[n / 2] = 0.0;
            prove(
                &[a, b, fixed([n, 1], w.clone())],
                1e-3,
                |s, v| s.mahalanobis(v[0], v[1], v[2], 1e-3),
                |x| vec![distance(&x[0], &x[1], &w, n, p, 1e-3)],
            );
        }
    }
}
