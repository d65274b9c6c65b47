//! What a discriminator with one logit makes of a minibatch.
//!
//!   logistic       L = mean of max(d, 0) - l d + ln(1 + e^-|d|)       cross-entropy with the label l: 0, 1 or between
//!                  dd = dL (σ(d) - l) / n
//!   mean_sigmoid   L = mean of σ(d),  dd = dL σ(d) (1 - σ(d)) / n
//!   shapes         d any, n numbers; L [1, 1]
//!   kernels        logistic_fwd, logistic_bwd                                          (kernels/logistic.cu)

use super::reduce::sum_f64;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static LOGISTIC: Op = Op { name: "logistic", backward };
static MEAN_SIGMOID: Op = Op { name: "mean_sigmoid", backward };

impl Step {
    /// The mean cross-entropy of logits with one label for all of them. d any, result [1, 1].
    pub fn logistic(&mut self, d: Var, label: f32) -> Var {
        self.verdict(&LOGISTIC, d, label)
    }

    /// The mean probability that logits say. d any, result [1, 1].
    pub fn mean_sigmoid(&mut self, d: Var) -> Var {
        self.verdict(&MEAN_SIGMOID, d, 0.0)
    }

    fn verdict(&mut self, op: &'static Op, d: Var, label: f32) -> Var {
        let loss = self.alloc([1, 1]);
        let (n, plain) = (self.size(d), std::ptr::eq(op, &MEAN_SIGMOID));
        if self.on_cpu() {
            let ([loss], [d]) = self.views([loss], [d]);
            let cost = |d: f64| if plain { sigmoid(d) } else { d.max(0.0) - f64::from(label) * d + (-d.abs()).exp().ln_1p() };
            let sum = sum_f64(d.iter().map(|&d| cost(f64::from(d))));
            loss[0] = if n > 0 { (sum / n as f64) as f32 } else { 0.0 };
        } else {
            let args = [self.ptr(loss), self.ptr(d), n.into(), label.into(), plain.into()];
            self.launch("logistic_fwd", Grid::blocks(1, 256), &args);
        }
        self.record(op, [d], loss, [label, 0.0, 0.0, 0.0], [u32::from(plain), 0, 0, 0]);
        loss
    }
}

fn sigmoid(d: f64) -> f64 {
    1.0 / (1.0 + (-d).exp())
}

fn backward(s: &mut Step, node: &Node) {
    let (d, label, plain) = (node.x[0], node.k[0], node.n[0] == 1);
    let dl = s.grad(node.y).expect("the gradient has arrived");
    let (dd, add) = s.grad_slot(d);
    let n = s.size(d);
    if s.on_cpu() {
        let ([dd], [d, dl]) = s.views([dd], [d, dl]);
        let scale = dl[0] / n.max(1) as f32;
        for (dd, &d) in dd.iter_mut().zip(d) {
            let p = sigmoid(f64::from(d)) as f32;
            let g = scale * if plain { p * (1.0 - p) } else { p - label };
            *dd = if add { *dd + g } else { g };
        }
    } else {
        let args = [s.ptr(dd), s.ptr(d), s.ptr(dl), n.into(), label.into(), plain.into(), add.into()];
        s.launch("logistic_bwd", Grid::over(n), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn both_match_their_formulas_and_gradients_at_every_size() {
        for dims in [[1, 1], [33, 1], [7, 100]] {
            let d = Operand { values: values(dims[0] * dims[1], 1).iter().map(|v| 9.0 * v).collect(), ..operand(dims, 1) };
            let mean = |x: &[f64], f: &dyn Fn(f64) -> f64| vec![x.iter().map(|&d| f(d)).sum::<f64>() / x.len() as f64];
            for label in [0.0, 1.0, 0.25] {
                let cost = move |d: f64| -label * sigmoid(d).ln() - (1.0 - label) * sigmoid(-d).ln();
                prove(std::slice::from_ref(&d), 1e-5, |s, v| s.logistic(v[0], label as f32), |x| mean(&x[0], &cost));
            }
            prove(&[d], 1e-5, |s, v| s.mean_sigmoid(v[0]), |x| mean(&x[0], &sigmoid));
        }
    }

    #[test]
    fn a_sure_discriminator_costs_its_logit_and_never_infinity() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let d = s.leaf([1, 2], &[500.0, -500.0]);
            let l = s.logistic(d, 1.0);
            assert_eq!(s.download(l).unwrap(), [250.0], "{device}");
            s.backward(&[(l, crate::engine::Weight::Fixed(2.0))]);
            let g = s.grad(d).unwrap();
            assert_eq!(s.download(g).unwrap(), [0.0, -1.0], "{device}");
        }
    }
}
