//! linear: y = f(x·Wᵀ + b) for a minibatch of cells, f an activation that is fused into the product.
//!
//!   with  du = dy ⊙ f'(u), read off y itself:
//!   backward  dx = du·W,  dW = duᵀ·x,  db = Σ over cells of du
//!   shapes    x [B cells, D features], W [H hidden, D], b [1, H] or none, y [B, H]
//!   kernels   gemm_nt_*, gemm_nn_*, gemm_tn_* (kernels/gemm.cu), activation_bwd (kernels/linear.cu), column_sum (kernels/reduce.cu)

use super::activation::Activation;
use super::gemm::{Epilogue, Layout};
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static LINEAR: Op = Op { name: "linear", backward };

impl Step {
    /// f(x·Wᵀ + b), of a sparse x without making it dense (`ops/sparse.rs`). x [B, D], w [H, D], b [1, H] or [`Var::NONE`]; result [B, H].
    #[track_caller]
    pub fn linear(&mut self, x: Var, w: Var, b: Var, activation: Activation) -> Var {
        let ([n, d], [h, cols]) = (self.dims(x), self.dims(w));
        assert_eq!(d, cols, "linear: inner sizes differ: x is [cells {n}, features {d}], W is [hidden {h}, features {cols}]");
        let y = self.alloc([n, h]);
        if self.is_sparse(x) {
            self.sparse_linear(y, x, w, b, activation);
        } else {
            self.gemm(Layout::NT, y, x, w, false, Some(Epilogue { bias: b, activation }));
        }
        self.record(&LINEAR, [x, w, b], y, [activation.parameter(), 0.0, 0.0, 0.0], [activation.code() as u32, 0, 0, 0]);
        y
    }

    /// The gradient before the activation: dy ⊙ f'(u), from the activation's output y. Returns dy itself for the identity.
    pub(super) fn activation_backward(&mut self, activation: Activation, y: Var, dy: Var) -> Var {
        if activation == Activation::Identity {
            return dy;
        }
        let du = self.alloc(self.dims(y));
        let n = self.size(y);
        if self.on_cpu() {
            let ([du], [y, dy]) = self.views([du], [y, dy]);
            cpu::chunks(du, |start, du| {
                let (y, dy) = (&y[start..start + du.len()], &dy[start..start + du.len()]);
                activation.backward_into(du, y, dy);
            });
        } else {
            let args = [self.ptr(du), self.ptr(y), self.ptr(dy), n.into(), activation.code().into(), activation.parameter().into()];
            self.launch("activation_bwd", Grid::over(n), &args);
        }
        du
    }
}

fn backward(s: &mut Step, node: &Node) {
    let [x, w, b, ..] = node.x;
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let du = s.activation_backward(Activation::from_code(node.n[0] as i32, node.k[0]), node.y, dy);
    if s.wants(w) {
        let (dw, add) = s.grad_slot(w);
        if s.is_sparse(x) {
            s.sparse_weight_gradient(dw, du, x, add);
        } else {
            s.gemm(Layout::TN, dw, du, x, add, None);
        }
    }
    if s.wants(b) {
        let (db, add) = s.grad_slot(b);
        s.column_sum(db, du, add);
    }
    // Not for the first layer, where D is largest: data want no gradient.
    if s.wants(x) {
        let (dx, add) = s.grad_slot(x);
        s.gemm(Layout::NN, dx, du, w, add, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(x: &[Vec<f64>], [n, d, h]: [usize; 3], f: Activation) -> Vec<f64> {
        let mut y = vec![0.0; n * h];
        for i in 0..n {
            for j in 0..h {
                let u: f64 = x[2][j] + (0..d).map(|k| x[0][i * d + k] * x[1][j * d + k]).sum::<f64>();
                y[i * h + j] = f.exact(u);
            }
        }
        y
    }

    #[test]
    fn value_matches_hand_computed() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (x, w) = (s.constant([1, 2], &[1.0, 2.0]), s.constant([2, 2], &[3.0, 4.0, -5.0, 1.0]));
            let b = s.constant([1, 2], &[0.5, 1.0]);
            let y = s.linear(x, w, b, Activation::Relu);
            assert_eq!(s.download(y).unwrap(), [11.5, 0.0], "{device}");
        }
    }

    #[test]
    fn gradient_matches_central_difference_for_every_activation_and_size() {
        let f = |n: usize, d: usize, h: usize, a: Activation| {
            let tolerance = 2e-6 * (d.max(n).max(h) as f64).sqrt().max(4.0); // ε·√k for sums of k terms, and the activation's own rounding
            prove(
                &[operand([n, d], 1), operand([h, d], 2), operand([1, h], 3)],
                tolerance,
                |s, v| s.linear(v[0], v[1], v[2], a),
                |x| reference(x, [n, d, h], a),
            );
        };
        for a in Activation::EXAMPLES {
            f(5, 7, 3, a);
        }
        for [n, d, h] in [[1, 1, 1], [33, 31, 2], [2, 65, 33], [13, 3, 50]] {
            f(n, d, h, Activation::Elu);
        }
    }

    #[test]
    fn fused_agrees_with_a_product_followed_by_bias_and_activation() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (x, w, b) = (values(33 * 17, 1), values(5 * 17, 2), values(5, 3));
            let (vx, vw, vb) = (s.constant([33, 17], &x), s.constant([5, 17], &w), s.constant([1, 5], &b));
            let fused = s.linear(vx, vw, vb, Activation::Tanh);
            let plain = s.linear(vx, vw, Var::NONE, Activation::Identity);
            let (fused, plain) = (s.download(fused).unwrap(), s.download(plain).unwrap());
            let unfused: Vec<f64> = plain.iter().enumerate().map(|(i, u)| ((u + b[i % 5]) as f64).tanh()).collect();
            compare(device, &fused, &unfused, 2e-6);
        }
    }
}
