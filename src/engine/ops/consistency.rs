//! Interpolation consistency (Verma et al. 2019): between two cells a classifier should say what lies between what is said of them.
//!
//!   mix           y = λ a + (1 - λ) b, of data: no gradient; λ is a word of the clock
//!   consistency   L = mean over cells of Σ_c (p_c - q_c)²,  p = softmax(u),  q = λ softmax(v) + (1 - λ) softmax(w) without gradient
//!                 du_c = dL · 2/B · p_c ((p_c - q_c) - Σ_k p_k (p_k - q_k))
//!   shapes        a, b, y [B, D]; u, v, w [B, C] logits; L [1, 1]
//!   kernels       mix_fwd, consistency_rows, consistency_bwd (kernels/consistency.cu), error_total

use super::activation::exp;
use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::tape::{Node, Op};
use crate::engine::{Knob, Step, Var};

static CONSISTENCY: Op = Op { name: "consistency", backward };

impl Step {
    /// λ a + (1 - λ) b of two minibatches, cells matched by their place; sparse if both are. a, b [B, D]; result [B, D].
    #[track_caller]
    pub fn mix(&mut self, a: Var, b: Var, lambda: Knob) -> Var {
        assert_eq!(self.dims(a), self.dims(b), "mix: two minibatches of one size");
        if let Some(mixed) = self.mixed_sparse(a, b, lambda) {
            return mixed;
        }
        let [a, b] = [a, b].map(|v| self.dense(v));
        let y = self.alloc(self.dims(a));
        if self.on_cpu() {
            let lambda = self.value(lambda);
            let ([y], [a, b]) = self.views([y], [a, b]);
            cpu::chunks(y, |start, y| {
                vectorised(
                    #[inline(always)]
                    || {
                        for ((y, a), b) in y.iter_mut().zip(&a[start..]).zip(&b[start..]) {
                            *y = lambda * a + (1.0 - lambda) * b;
                        }
                    },
                );
            });
        } else {
            let n = self.size(a);
            let args = [self.ptr(y), self.ptr(a), self.ptr(b), self.clock_ptr(), n.into(), self.knob_index(lambda)];
            self.launch("mix_fwd", Grid::over(n), &args);
        }
        y
    }

    /// How far the classes of mixed cells, by `logits`, are from the mixed classes of the cells, by the logits `ends`, which get no
    /// gradient. All [B, C]; result [1, 1].
    #[track_caller]
    pub fn consistency(&mut self, logits: Var, ends: [Var; 2], lambda: Knob) -> Var {
        let [rows, classes] = self.dims(logits);
        assert!(ends.iter().all(|&e| self.dims(e) == [rows, classes]), "consistency: logits of one size, [{rows}, {classes}]");
        let (loss, totals, partial) = (self.alloc([1, 1]), self.alloc([1, 2]), self.alloc([rows, 2]));
        let (p, off) = (self.alloc([rows, classes]), self.alloc([rows, classes]));
        if self.on_cpu() {
            let lambda = self.value(lambda);
            let target = self.alloc([1, classes]);
            let (outs, [u, v, w]) = self.views([loss, partial, p, off, target], [logits, ends[0], ends[1]]);
            let [loss, partial, p, off, target] = outs;
            for r in 0..rows {
                let row = r * classes..(r + 1) * classes;
                let (p, off) = (&mut p[row.clone()], &mut off[row.clone()]);
                softmax(p, &u[row.clone()]);
                softmax(off, &v[row.clone()]);
                softmax(target, &w[row]);
                let mut sum = 0.0f32;
                for ((off, p), t) in off.iter_mut().zip(&*p).zip(&*target) {
                    *off = p - (lambda * *off + (1.0 - lambda) * t);
                    sum += *off * *off;
                }
                (partial[2 * r], partial[2 * r + 1]) = (sum, 1.0);
            }
            let sum = sum_f64(partial.chunks_exact(2).map(|p| f64::from(p[0])));
            loss[0] = if rows > 0 { (sum / rows as f64) as f32 } else { 0.0 };
        } else {
            let [v, w] = ends.map(|e| self.ptr(e));
            let args = [
                self.ptr(partial),
                self.ptr(p),
                self.ptr(off),
                self.ptr(logits),
                v,
                w,
                self.clock_ptr(),
                rows.into(),
                classes.into(),
                self.knob_index(lambda),
            ];
            self.launch("consistency_rows", Grid::over(rows), &args);
            self.error_total(loss, totals, partial);
        }
        self.record(&CONSISTENCY, [logits, p, off], loss, [0.0; 4], [0; 4]);
        loss
    }
}

/// p = softmax(u), of a row.
fn softmax(p: &mut [f32], u: &[f32]) {
    let top = u.iter().fold(f32::NEG_INFINITY, |m, &u| m.max(u));
    p.iter_mut().zip(u).for_each(|(p, &u)| *p = exp(u - top));
    let sum: f32 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
}

fn backward(s: &mut Step, node: &Node) {
    let [logits, p, off, ..] = node.x;
    let dl = s.grad(node.y).expect("the gradient has arrived");
    let [rows, classes] = s.dims(logits);
    let (du, add) = s.grad_slot(logits);
    if s.on_cpu() {
        let ([du], [p, off, dl]) = s.views([du], [p, off, dl]);
        let scale = 2.0 * dl[0] / rows.max(1) as f32;
        let width = classes.max(1);
        for ((du, p), off) in du.chunks_exact_mut(width).zip(p.chunks_exact(width)).zip(off.chunks_exact(width)) {
            let dot: f32 = p.iter().zip(off).map(|(p, o)| p * o).sum();
            for ((du, p), o) in du.iter_mut().zip(p).zip(off) {
                let g = scale * p * (o - dot);
                *du = if add { *du + g } else { g };
            }
        }
    } else {
        let args = [s.ptr(du), s.ptr(p), s.ptr(off), s.ptr(dl), rows.into(), classes.into(), add.into()];
        s.launch("consistency_bwd", Grid::over(rows), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn shares(u: &[f64]) -> Vec<f64> {
        let top = u.iter().fold(f64::NEG_INFINITY, |m, &u| m.max(u));
        let sum: f64 = u.iter().map(|u| (u - top).exp()).sum();
        u.iter().map(|u| (u - top).exp() / sum).collect()
    }

    #[test]
    fn consistency_matches_the_reference_and_only_the_mixed_cells_move() {
        for [rows, classes] in [[1, 2], [13, 3], [33, 22], [5, 70]] {
            for lambda in [0.0, 0.3, 1.0] {
                let scaled = |salt| values(rows * classes, salt).iter().map(|v| 4.0 * v).collect::<Vec<f32>>();
                let u = Operand { values: scaled(1), ..operand([rows, classes], 1) };
                let ends = [2, 3].map(|salt| fixed([rows, classes], scaled(salt)));
                let f = f64::from(lambda as f32);
                prove(
                    &[u, ends[0].clone(), ends[1].clone()],
                    1e-5,
                    |s, v| {
                        let lambda = s.knob(lambda as f32);
                        s.write_clock(1, 0).unwrap();
                        s.consistency(v[0], [v[1], v[2]], lambda)
                    },
                    |x| {
                        let rows_of = |i: usize| x[i].chunks_exact(classes).map(shares).collect::<Vec<_>>();
                        let (p, a, b) = (rows_of(0), rows_of(1), rows_of(2));
                        let one = |r: usize| (0..classes).map(|c| (p[r][c] - f * a[r][c] - (1.0 - f) * b[r][c]).powi(2)).sum::<f64>();
                        vec![(0..rows).map(one).sum::<f64>() / rows as f64]
                    },
                );
            }
        }
    }

    #[test]
    fn mixed_cells_lie_between_by_lambda() {
        for [rows, cols] in [[1, 1], [7, 109], [33, 1009]] {
            let (a, b) = (values(rows * cols, 1), values(rows * cols, 2));
            let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| 0.25 * f64::from(*a) + 0.75 * f64::from(*b)).collect();
            for (device, mut s) in steps() {
                let lambda = s.knob(0.25);
                s.begin(true, 1, 0).unwrap();
                let [a, b] = [&a, &b].map(|v| s.constant([rows, cols], v));
                let y = s.mix(a, b, lambda);
                compare(device, &s.download(y).unwrap(), &expected, 1e-6);
                assert!(!s.wants(y));
            }
        }
    }
}
