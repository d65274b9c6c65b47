//! The smallest eigenvalue of a minibatch's code, with its gradient (Gala et al. 2019, eq. 6: the minimum singular value, squared).
//!
//!   l = smallest eigenvalue of C = zcᵀ·zc/(n-1),  v its unit eigenvector,  zc the centred code
//!   backward  dz = dl · (2/(n-1)) (zc·v) vᵀ              (already centred; no division by the singular value)
//!   shapes    z [n cells, p latent ≤ 64], warm start [1, p] (a state: the last step's v), l [1, 1]
//!   kernels   smallest_fwd (one block a matrix, f64 inside), smallest_bwd                  (kernels/spectrum.cu)
//!
//! Forming C squares the condition number: l is good to about 1e-16 of the largest eigenvalue, far below any useful floor.
//! At a repeated smallest eigenvalue any unit v of its space gives a valid subgradient; the warm start decides which.

use super::small::{self, MAX_LATENT, Smallest};
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static SMALLEST: Op = Op { name: "smallest_eigenvalue", backward };

impl Step {
    /// The smallest eigenvalue of the covariance of `z` [n, p]; result [1, 1]. `warm` [1, p] holds the start of the
    /// iterations and is left holding v (give it [`small::start_vector`]'s values at first). n ≥ 2, p ≤ 64.
    #[track_caller]
    pub fn smallest_eigenvalue(&mut self, z: Var, warm: Var, method: Smallest) -> Var {
        let [n, p] = self.dims(z);
        assert!(n >= 2 && (1..=MAX_LATENT).contains(&p), "smallest_eigenvalue: z is [cells {n}, latent {p}]");
        assert_eq!(self.dims(warm), [1, p], "smallest_eigenvalue: the warm start");
        let (l, saved) = (self.alloc([1, 1]), self.alloc([2, p])); // saved: mean, v
        // Evaluation starts where training left off and leaves no trace.
        let warm = if self.training() {
            warm
        } else {
            let copy = self.alloc([1, p]);
            self.copy(copy, warm);
            copy
        };
        if self.on_cpu() {
            let ([l, saved, warm], [z]) = self.views([l, saved, warm], [z]);
            let (mut mean, mut c, mut v) = ([0.0; MAX_LATENT], [0.0; MAX_LATENT * MAX_LATENT], [0.0; MAX_LATENT]);
            small::covariance(z, n, p, &mut mean, &mut c);
            v.iter_mut().zip(warm.iter()).for_each(|(v, &w)| *v = w as f64);
            l[0] = small::smallest_eigenvalue(&c, p, method, &mut v) as f32;
            for i in 0..p {
                (saved[i], saved[p + i], warm[i]) = (mean[i] as f32, v[i] as f32, v[i] as f32);
            }
        } else {
            let args = [self.ptr(l), self.ptr(saved), self.ptr(warm), self.ptr(z), n.into(), p.into(), (method as i32).into()];
            self.launch("smallest_fwd", block(p, 3), &args);
        }
        self.record(&SMALLEST, [z, saved], l, [0.0; 4], [0; 4]);
        l
    }
}

/// One block of 256 threads with `matrices` p × p matrices of f64 in shared memory, and room for vectors.
pub(super) fn block(p: usize, matrices: usize) -> Grid {
    Grid { shared: (8 * (matrices * p * p + 8 * MAX_LATENT)) as u32, ..Grid::blocks(1, 256) }
}

fn backward(s: &mut Step, node: &Node) {
    let [z, saved, ..] = node.x;
    let dl = s.grad(node.y).expect("the gradient has arrived");
    let [n, p] = s.dims(z);
    let (dz, add) = s.grad_slot(z);
    if s.on_cpu() {
        let ([dz], [z, saved, dl]) = s.views([dz], [z, saved, dl]);
        let (mut mean, mut v) = ([0.0; MAX_LATENT], [0.0; MAX_LATENT]);
        for i in 0..p {
            (mean[i], v[i]) = (saved[i] as f64, saved[p + i] as f64);
        }
        small::smallest_gradient(z, n, p, &mean, &v, dl[0] as f64, |i, g| dz[i] = if add { dz[i] } else { 0.0 } + g as f32);
    } else {
        let args = [s.ptr(dz), s.ptr(z), s.ptr(saved), s.ptr(dl), n.into(), p.into(), add.into()];
        s.launch("smallest_bwd", Grid::over(n), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(z: &[f64], n: usize, p: usize) -> f64 {
        let (mut mean, mut c, mut v) = (vec![0.0; p], vec![0.0; p * p], vec![0.0; p]);
        small::covariance(z, n, p, &mut mean, &mut c);
        small::smallest_eigenvalue(&c, p, Smallest::Jacobi, &mut v)
    }

    fn warm(s: &mut Step, p: usize) -> Var {
        let mut v = [0.0; MAX_LATENT];
        small::start_vector(&mut v[..p]);
        s.constant([1, p], &v[..p].iter().map(|&v| v as f32).collect::<Vec<_>>())
    }

    #[test]
    fn value_and_gradient_match_the_reference_for_both_methods() {
        for method in [Smallest::Power, Smallest::Jacobi] {
            for (n, p) in [(2, 1), (13, 3), (100, 3), (33, 10), (40, 33)] {
                prove(
                    &[operand([n, p], p as u32)],
                    1e-4,
                    |s, v| {
                        let w = warm(s, p);
                        s.smallest_eigenvalue(v[0], w, method)
                    },
                    |x| vec![reference(&x[0], n, p)],
                );
            }
        }
    }

    #[test]
    fn the_widest_latent_fits_on_every_device() {
        let z = values(200 * 64, 8);
        let exact = reference(&z.iter().map(|&v| v as f64).collect::<Vec<_>>(), 200, 64);
        for (device, mut s) in steps() {
            for method in [Smallest::Power, Smallest::Jacobi] {
                s.begin(true, 1, 0).unwrap();
                let (z, w) = (s.constant([200, 64], &z), warm(&mut s, 64));
                let l = s.smallest_eigenvalue(z, w, method);
                compare(device, &s.download(l).unwrap(), &[exact], 1e-6);
            }
        }
    }

    #[test]
    fn the_shifted_iteration_agrees_where_the_code_is_far_from_collapse() {
        let z = [2.0, 0.0, -2.0, 0.0, 0.0, 1.0, 0.0, -1.0]; // C = diag(8/3, 2/3)
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (z, w) = (s.constant([4, 2], &z), warm(&mut s, 2));
            let l = s.smallest_eigenvalue(z, w, Smallest::ShiftedPower);
            compare(device, &s.download(l).unwrap(), &[2.0 / 3.0], 1e-5);
        }
    }

    #[test]
    fn a_warm_start_that_is_not_finite_is_replaced() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (z, w) = (s.constant([4, 2], &[2.0, 0.0, -2.0, 0.0, 0.0, 1.0, 0.0, -1.0]), s.constant([1, 2], &[f32::NAN; 2]));
            let l = s.smallest_eigenvalue(z, w, Smallest::Power);
            compare(device, &s.download(l).unwrap(), &[2.0 / 3.0], 1e-6);
        }
    }
}
