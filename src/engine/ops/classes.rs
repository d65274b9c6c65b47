//! Classes: the cross-entropy of a head's logits, and a cell's class as numbers that a network can be given.
//!
//!   cross_entropy   L = Σ_r v_r (log Σ_c exp u_rc - u_{r,y_r}) / Σ_r v_r       y_r the class of row r, v_r = w_{y_r}, or 1 without w;
//!                   a row without a class (NaN) has v_r = 0; L = 0 if no row has one
//!   backward        du_rc = dL · v_r (exp u_rc / Σ exp u - [c = y_r]) / Σ v
//!   softmax         p_rc = exp u_rc / Σ_k exp u_rk;  du_rc = p_rc (dp_rc - Σ_k p_rk dp_rk)
//!   one_hot         h_{r, k C + y_r} = 1 for k < repeat, else 0; a row without a class is all 0; no gradient
//!   repeated        h_{rk} = y_r, 0 where it is NaN; no gradient
//!   shapes          u [B, C], y [B, 1] of class numbers as f32, w [1, C] or none, L [1, 1], h [B, repeat·C]
//!   kernels         class_rows, class_bwd, softmax_fwd, softmax_bwd, one_hot (kernels/classes.cu), error_total

use super::activation::exp;
use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::{Arg, Grid};
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static SOFTMAX: Op = Op { name: "softmax", backward: softmax_backward };
static CROSS_ENTROPY: Op = Op { name: "cross_entropy", backward };

/// What the rows of logits should say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Each row its own class: [B, 1], NaN where it has none.
    Labels(Var),
    /// All rows the same class.
    Class(usize),
}

impl Step {
    /// The mean cross-entropy, natural logarithm, of the rows that have a class. logits [B, C]; weights of the classes [1, C] or
    /// [`Var::NONE`]; result [1, 1].
    #[track_caller]
    pub fn cross_entropy(&mut self, logits: Var, target: Target, weights: Var) -> Var {
        let [rows, classes] = self.dims(logits);
        let (labels, fixed) = match target {
            Target::Labels(labels) => {
                assert_eq!(self.size(labels), rows, "cross_entropy: one class a row, logits are [{rows}, {classes}]");
                (labels, 0)
            }
            Target::Class(class) => {
                assert!(class < classes, "cross_entropy: class {class} of {classes}");
                (Var::NONE, class)
            }
        };
        assert!(weights.is_none() || self.size(weights) == classes, "cross_entropy: one weight a class");
        let (loss, totals) = (self.alloc([1, 1]), self.alloc([1, 2]));
        let (partial, p) = (self.alloc([rows, 2]), self.alloc([rows, classes]));
        if self.on_cpu() {
            let [y, w] = [labels, weights].map(|v| self.or_empty(v));
            let ([loss, totals, partial, p], [u, y, w]) = self.views([loss, totals, partial, p], [logits, y, w]);
            let width = classes.max(1);
            for (r, ((p, u), part)) in p.chunks_exact_mut(width).zip(u.chunks_exact(width)).zip(partial.chunks_exact_mut(2)).enumerate() {
                let top = u.iter().fold(f32::NEG_INFINITY, |m, &u| m.max(u));
                p.iter_mut().zip(u).for_each(|(p, &u)| *p = (u - top).exp());
                let sum: f32 = p.iter().sum();
                p.iter_mut().for_each(|p| *p /= sum);
                let class = y.get(r).map_or(Some(fixed), |&y| class_of(y, classes));
                let weight = class.map_or(0.0, |c| w.get(c).copied().unwrap_or(1.0));
                part.copy_from_slice(&[class.map_or(0.0, |c| weight * (top + sum.ln() - u[c])), weight]);
            }
            let sum = sum_f64(partial.chunks_exact(2).map(|p| f64::from(p[0])));
            let n = sum_f64(partial.chunks_exact(2).map(|p| f64::from(p[1])));
            totals.copy_from_slice(&[sum as f32, n as f32]);
            loss[0] = if n > 0.0 { (sum / n) as f32 } else { 0.0 };
        } else {
            let [y, w] = [labels, weights].map(|v| self.ptr(v));
            let sizes: [Arg; 3] = [rows.into(), classes.into(), fixed.into()];
            let args = [self.ptr(partial), self.ptr(p), self.ptr(logits), y, w, sizes[0], sizes[1], sizes[2]];
            self.launch("class_rows", Grid::over(rows), &args);
            self.error_total(loss, totals, partial);
        }
        self.record(&CROSS_ENTROPY, [logits, labels, partial, p, totals], loss, [0.0; 4], [fixed as u32, 0, 0, 0]);
        loss
    }

    /// The probabilities of the classes, row by row. logits [B, C]; result [B, C].
    pub fn softmax(&mut self, logits: Var) -> Var {
        let [rows, classes] = self.dims(logits);
        let p = self.alloc([rows, classes]);
        if self.on_cpu() {
            let ([p], [u]) = self.views([p], [logits]);
            cpu::rows(p, classes, |r, p| {
                let u = &u[r * classes..(r + 1) * classes];
                let top = u.iter().fold(f32::NEG_INFINITY, |m, &u| m.max(u));
                p.iter_mut().zip(u).for_each(|(p, &u)| *p = exp(u - top));
                let sum: f32 = p.iter().sum();
                p.iter_mut().for_each(|p| *p /= sum);
            });
        } else {
            let args = [self.ptr(p), self.ptr(logits), rows.into(), classes.into()];
            self.launch("softmax_fwd", Grid::over(rows), &args);
        }
        self.record(&SOFTMAX, [logits], p, [0.0; 4], [0; 4]);
        p
    }

    /// A number of each cell for a network, `times` side by side. labels [B, 1], 0 in place of NaN; result [B, times].
    pub fn repeated(&mut self, labels: Var, times: usize) -> Var {
        self.coded(labels, 1, times)
    }

    /// Classes as numbers for a network. labels [B, 1], NaN where there is none; result [B, repeat·classes].
    #[track_caller]
    pub fn one_hot(&mut self, labels: Var, classes: usize, repeat: usize) -> Var {
        assert!(classes > 1, "one_hot: {classes} classes");
        self.coded(labels, classes, repeat)
    }

    /// With one class, the number itself.
    fn coded(&mut self, labels: Var, classes: usize, repeat: usize) -> Var {
        let (rows, cols) = (self.size(labels), classes * repeat);
        let h = self.alloc([rows, cols]);
        if self.on_cpu() {
            let ([h], [y]) = self.views([h], [labels]);
            for (h, &y) in h.chunks_exact_mut(cols.max(1)).zip(y) {
                if classes == 1 {
                    h.fill(if y.is_nan() { 0.0 } else { y });
                    continue;
                }
                let class = class_of(y, classes);
                h.iter_mut().enumerate().for_each(|(i, h)| *h = f32::from(Some(i % classes) == class));
            }
        } else {
            let args = [self.ptr(h), self.ptr(labels), rows.into(), classes.into(), cols.into()];
            self.launch("one_hot", Grid::over(rows * cols), &args);
        }
        h
    }
}

/// The class that a label says, if it says one.
fn class_of(label: f32, classes: usize) -> Option<usize> {
    (label >= 0.0 && label < classes as f32).then_some(label as usize)
}

fn softmax_backward(s: &mut Step, node: &Node) {
    let (logits, p) = (node.x[0], node.y);
    let dp = s.grad(p).expect("the gradient has arrived");
    let [rows, classes] = s.dims(p);
    let (du, add) = s.grad_slot(logits);
    if s.on_cpu() {
        let ([du], [p, dp]) = s.views([du], [p, dp]);
        cpu::rows(du, classes, |r, du| {
            let (p, dp) = (&p[r * classes..(r + 1) * classes], &dp[r * classes..(r + 1) * classes]);
            let dot: f32 = p.iter().zip(dp).map(|(p, d)| p * d).sum();
            for ((du, p), dp) in du.iter_mut().zip(p).zip(dp) {
                let g = p * (dp - dot);
                *du = if add { *du + g } else { g };
            }
        });
    } else {
        let args = [s.ptr(du), s.ptr(p), s.ptr(dp), rows.into(), classes.into(), add.into()];
        s.launch("softmax_bwd", Grid::over(rows), &args);
    }
}

fn backward(s: &mut Step, node: &Node) {
    let [logits, labels, partial, p, totals, ..] = node.x;
    let (fixed, dl) = (node.n[0] as usize, s.grad(node.y).expect("the gradient has arrived"));
    let [rows, classes] = s.dims(logits);
    let (du, add) = s.grad_slot(logits);
    if s.on_cpu() {
        let y = s.or_empty(labels);
        let ([du], [y, partial, p, totals, dl]) = s.views([du], [y, partial, p, totals, dl]);
        let scale = if totals[1] > 0.0 { dl[0] / totals[1] } else { 0.0 };
        for (i, (du, p)) in du.iter_mut().zip(p).enumerate() {
            let (r, c) = (i / classes, i % classes);
            let class = y.get(r).map_or(Some(fixed), |&y| class_of(y, classes));
            let g = scale * partial[2 * r + 1] * (p - f32::from(class == Some(c)));
            *du = if add { *du + g } else { g };
        }
    } else {
        let args = [
            s.ptr(du),
            s.ptr(p),
            s.ptr(labels),
            s.ptr(partial),
            s.ptr(totals),
            s.ptr(dl),
            rows.into(),
            classes.into(),
            fixed.into(),
            add.into(),
        ];
        s.launch("class_bwd", Grid::over(rows * classes), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(u: &[f64], classes: usize, class: &dyn Fn(usize) -> Option<usize>, w: &[f32]) -> Vec<f64> {
        let (mut sum, mut n) = (0.0, 0.0);
        for (r, u) in u.chunks_exact(classes).enumerate() {
            if let Some(c) = class(r) {
                let weight = w.get(c).map_or(1.0, |&w| f64::from(w));
                let top = u.iter().fold(f64::NEG_INFINITY, |m, &u| m.max(u));
                sum += weight * (top + u.iter().map(|u| (u - top).exp()).sum::<f64>().ln() - u[c]);
                n += weight;
            }
        }
        vec![if n > 0.0 { sum / n } else { 0.0 }]
    }

    #[test]
    fn cross_entropy_matches_the_reference_with_labels_missing_and_classes_weighted() {
        for [rows, classes] in [[1, 2], [13, 3], [33, 10], [300, 2]] {
            let labels: Vec<f32> = (0..rows).map(|r| if r % 4 == 3 { f32::NAN } else { (r * 7 % classes) as f32 }).collect();
            let of = |r: usize| (r % 4 != 3).then_some(r * 7 % classes);
            let weights: Vec<f32> = (0..classes).map(|c| 0.5 + c as f32).collect();
            let u = Operand { values: values(rows * classes, 1).iter().map(|v| 4.0 * v).collect(), ..operand([rows, classes], 1) };
            let (y, w) = (fixed([rows, 1], labels), fixed([1, classes], weights.clone()));
            let operands = [u, y, w];
            prove(&operands, 1e-5, |s, v| s.cross_entropy(v[0], Target::Labels(v[1]), v[2]), |x| reference(&x[0], classes, &of, &weights));
            prove(&operands, 1e-5, |s, v| s.cross_entropy(v[0], Target::Labels(v[1]), Var::NONE), |x| reference(&x[0], classes, &of, &[]));
            prove(
                &operands,
                1e-5,
                |s, v| s.cross_entropy(v[0], Target::Class(1), Var::NONE),
                |x| reference(&x[0], classes, &|_| Some(1), &[]),
            );
        }
    }

    #[test]
    fn softmax_matches_the_reference() {
        for [rows, classes] in [[1, 1], [13, 3], [33, 25], [300, 200]] {
            let reference = |x: &[Vec<f64>]| {
                let row = |u: &[f64]| u.iter().map(|v| v.exp() / u.iter().map(|u| u.exp()).sum::<f64>()).collect::<Vec<f64>>();
                x[0].chunks_exact(classes).flat_map(row).collect()
            };
            let u = Operand { differentiate: rows < 100, ..operand([rows, classes], 1) };
            prove(&[u], 1e-5, |s, v| s.softmax(v[0]), reference);
        }
    }

    #[test]
    fn large_logits_do_not_overflow_and_no_label_gives_no_loss() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let u = s.leaf([2, 2], &[1000.0, -1000.0, 1000.0, -1000.0]);
            let y = s.constant([2, 1], &[0.0, 1.0]);
            let l = s.cross_entropy(u, Target::Labels(y), Var::NONE);
            assert_eq!(s.download(l).unwrap(), [1000.0], "{device}");
            let none = s.constant([2, 1], &[f32::NAN, -1.0]);
            let l = s.cross_entropy(u, Target::Labels(none), Var::NONE);
            s.backward(&[(l, crate::engine::Weight::Fixed(1.0))]);
            let g = s.grad(u).unwrap();
            assert_eq!((s.download(l).unwrap(), s.download(g).unwrap()), (vec![0.0], vec![0.0; 4]), "{device}");
        }
    }

    #[test]
    fn one_hot_repeats_the_class_and_leaves_the_unlabelled_empty() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let y = s.constant([3, 1], &[1.0, f32::NAN, 0.0]);
            let h = s.one_hot(y, 2, 2);
            assert_eq!(s.download(h).unwrap(), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0], "{device}");
            let y = s.constant([2, 1], &[-2.5, f32::NAN]);
            let h = s.repeated(y, 2);
            assert_eq!(s.download(h).unwrap(), [-2.5, -2.5, 0.0, 0.0], "{device}");
        }
    }
}
