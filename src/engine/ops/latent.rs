//! The latent variable of a variational autoencoder: drawn, and held to the standard normal (Kingma and Welling 2014).
//!
//!   sample_latent   training     z = μ + (exp(½ v) + 10⁻⁷) e,  e standard normal by (seed, stream, step, element)
//!                   evaluation   z = μ
//!                   backward     dμ = dz,  dv = dz · e · ½ exp(½ v); e is drawn again, not kept
//!   kl              L = mean of -½ (1 + v - μ² - eᵛ) over cells and dimensions,  dμ = dL μ/N,  dv = dL ½ (eᵛ - 1)/N
//!   shapes          μ, v = log-variance, z [B cells, latent], L [1, 1]
//!   kernels         sample_fwd, sample_bwd, kl_fwd, kl_bwd                             (kernels/latent.cu)
//!
//! The 10⁻⁷ keeps the deviation from being exactly zero; it is no part of the divergence.

use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::rng;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static SAMPLE: Op = Op { name: "sample_latent", backward: sample_backward };
static KL: Op = Op { name: "kl", backward: kl_backward };

/// Elements of a thread of the kernels.
const QUAD: usize = 4;
/// Normal numbers drawn at once.
const BLOCK: usize = 256;

impl Step {
    /// A draw from N(μ, exp(logvar)) in training, μ itself in evaluation. mu, logvar [B, latent]; `stream` is from [`Step::stream`].
    #[track_caller]
    pub fn sample_latent(&mut self, mu: Var, logvar: Var, stream: u32) -> Var {
        assert_eq!(self.dims(mu), self.dims(logvar), "sample_latent: μ and the log-variance");
        if !self.training() {
            return mu;
        }
        let z = self.alloc(self.dims(mu));
        let n = self.size(mu);
        if self.on_cpu() {
            let (seed, step) = (self.seed(), self.step_number());
            let ([z], [mu, logvar]) = self.views([z], [mu, logvar]);
            cpu::chunks(z, |start, z| {
                each_draw(start, z, [seed as u32, (seed >> 32) as u32, stream, step], |i, z, e| {
                    *z = mu[i] + ((0.5 * logvar[i]).exp() + 1e-7) * e;
                });
            });
        } else {
            let [low, high] = self.seed_args();
            let args = [self.ptr(z), self.ptr(mu), self.ptr(logvar), self.clock_ptr(), n.into(), stream.into(), low, high];
            self.launch("sample_fwd", Grid::over(n.div_ceil(QUAD)), &args);
        }
        self.record(&SAMPLE, [mu, logvar], z, [0.0; 4], [stream, 0, 0, 0]);
        z
    }

    /// The divergence of N(μ, exp(logvar)) from the standard normal, a mean. mu, logvar [B, latent]; result [1, 1].
    #[track_caller]
    pub fn kl(&mut self, mu: Var, logvar: Var) -> Var {
        assert_eq!(self.dims(mu), self.dims(logvar), "kl: μ and the log-variance");
        let loss = self.alloc([1, 1]);
        let n = self.size(mu);
        if self.on_cpu() {
            let ([loss], [mu, logvar]) = self.views([loss], [mu, logvar]);
            let sum = sum_f64(mu.iter().zip(logvar).map(|(m, v)| (-0.5 * (1.0 + v - m * m - v.exp())) as f64));
            loss[0] = if n > 0 { (sum / n as f64) as f32 } else { 0.0 };
        } else {
            let args = [self.ptr(loss), self.ptr(mu), self.ptr(logvar), n.into()];
            self.launch("kl_fwd", Grid::blocks(1, 1024), &args);
        }
        self.record(&KL, [mu, logvar], loss, [0.0; 4], [0; 4]);
        loss
    }
}

/// Calls `f(element, its place in out, its normal number)` for a chunk that starts at element `start`.
fn each_draw(start: usize, out: &mut [f32], [low, high, stream, step]: [u32; 4], f: impl Fn(usize, &mut f32, f32)) {
    let seed = (high as u64) << 32 | low as u64;
    let mut e = [0.0; BLOCK];
    for (b, part) in out.chunks_mut(BLOCK).enumerate() {
        let first = start + b * BLOCK;
        rng::fill_normal(&mut e[..part.len()], seed, stream, step, first);
        part.iter_mut().zip(&e).enumerate().for_each(|(i, (out, &e))| f(first + i, out, e));
    }
}

fn sample_backward(s: &mut Step, node: &Node) {
    let ([mu, logvar, ..], stream) = (node.x, node.n[0]);
    let dz = s.grad(node.y).expect("the gradient has arrived");
    let n = s.size(mu);
    let ((dmu, add_mu), (dv, add_v)) = (s.slot_if_wanted(mu), s.slot_if_wanted(logvar));
    if s.on_cpu() {
        let (seed, step) = (s.seed(), s.step_number());
        let (dmu, dv) = (s.or_empty(dmu), s.or_empty(dv));
        let ([dmu, dv], [dz, logvar]) = s.views([dmu, dv], [dz, logvar]);
        for (d, &g) in dmu.iter_mut().zip(dz) {
            *d = if add_mu { *d + g } else { g };
        }
        cpu::chunks(dv, |start, dv| {
            each_draw(start, dv, [seed as u32, (seed >> 32) as u32, stream, step], |i, d, e| {
                let g = dz[i] * e * (0.5 * (0.5 * logvar[i]).exp());
                *d = if add_v { *d + g } else { g };
            });
        });
    } else {
        let [low, high] = s.seed_args();
        let args = [
            s.ptr(dmu),
            s.ptr(dv),
            s.ptr(dz),
            s.ptr(logvar),
            s.clock_ptr(),
            n.into(),
            stream.into(),
            low,
            high,
            add_mu.into(),
            add_v.into(),
        ];
        s.launch("sample_bwd", Grid::over(n.div_ceil(QUAD)), &args);
    }
}

fn kl_backward(s: &mut Step, node: &Node) {
    let [mu, logvar, ..] = node.x;
    let dl = s.grad(node.y).expect("the gradient has arrived");
    let n = s.size(mu);
    let ((dmu, add_mu), (dv, add_v)) = (s.slot_if_wanted(mu), s.slot_if_wanted(logvar));
    if s.on_cpu() {
        let (dmu, dv) = (s.or_empty(dmu), s.or_empty(dv));
        let ([dmu, dv], [dl, mu, logvar]) = s.views([dmu, dv], [dl, mu, logvar]);
        let g = dl[0] / n as f32;
        for (d, m) in dmu.iter_mut().zip(mu) {
            *d = if add_mu { *d } else { 0.0 } + g * m;
        }
        for (d, v) in dv.iter_mut().zip(logvar) {
            *d = if add_v { *d } else { 0.0 } + g * 0.5 * (v.exp() - 1.0);
        }
    } else {
        let args = [s.ptr(dmu), s.ptr(dv), s.ptr(dl), s.ptr(mu), s.ptr(logvar), n.into(), add_mu.into(), add_v.into()];
        s.launch("kl_bwd", Grid::over(n), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_sample_and_its_gradient_match_the_reference() {
        for [rows, cols] in [[1, 1], [3, 5], [33, 31], [2, 257]] {
            // The normal numbers of the step that `prove` makes: seed 7, step 1.
            let e: Vec<f64> = (0..rows * cols).map(|i| rng::normal(7, 11, 1, i as u32) as f64).collect();
            prove(
                &[operand([rows, cols], 1), operand([rows, cols], 2)],
                1e-5,
                |s, v| s.sample_latent(v[0], v[1], 11),
                |x| x[0].iter().zip(&x[1]).zip(&e).map(|((m, v), e)| m + ((0.5 * v).exp() + 1e-7) * e).collect(),
            );
        }
    }

    #[test]
    fn the_divergence_and_its_gradient_match_the_reference() {
        for [rows, cols] in [[1, 1], [3, 5], [33, 31]] {
            prove(
                &[operand([rows, cols], 3), operand([rows, cols], 4)],
                1e-5,
                |s, v| s.kl(v[0], v[1]),
                |x| vec![x[0].iter().zip(&x[1]).map(|(m, v)| -0.5 * (1.0 + v - m * m - v.exp())).sum::<f64>() / x[0].len() as f64],
            );
        }
    }

    #[test]
    fn evaluation_takes_the_mean_and_steps_draw_anew() {
        for (device, mut s) in steps() {
            let draw = |s: &mut Step, step| {
                s.begin(true, step, 0).unwrap();
                let (mu, v) = (s.constant([2, 3], &[1.0; 6]), s.constant([2, 3], &[0.0; 6]));
                let z = s.sample_latent(mu, v, 4);
                s.download(z).unwrap()
            };
            assert_eq!(draw(&mut s, 1), draw(&mut s, 1), "{device}");
            assert_ne!(draw(&mut s, 1), draw(&mut s, 2), "{device}");
            s.begin(false, 1, 0).unwrap();
            let (mu, v) = (s.constant([2, 3], &[1.0; 6]), s.constant([2, 3], &[0.0; 6]));
            assert_eq!(s.sample_latent(mu, v, 4), mu, "{device}");
        }
    }
}
