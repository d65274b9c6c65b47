//! Centre loss on classes that a head is sure of (after Wen et al. 2016): what it takes for one class is to lie close together.
//!
//!   p_r = softmax(u_r),  k(r) its largest, counted where p_{r k(r)} > sure
//!   L   = mean over counted rows of |h_r - c_{k(r)}|², 0 if none is counted
//!   backward    dh_r = dL · 2/N (h_r - c_{k(r)}),  dc_k = -Σ of its rows'; the logits get no gradient
//!   shapes      h [B, D], u [B, C], c [C, D], L [1, 1]
//!   kernels     centre_rows, centre_bwd, centre_sum (kernels/centres.cu), error_total

use super::reduce::sum_f64;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static CENTRE: Op = Op { name: "centre_distance", backward };

impl Step {
    /// How far codes are from the centres of the classes that their logits are sure of. h [B, D], logits [B, C], centres [C, D];
    /// result [1, 1].
    #[track_caller]
    pub fn centre_distance(&mut self, h: Var, logits: Var, centres: Var, sure: f32) -> Var {
        let ([rows, cols], [n, classes]) = (self.dims(h), self.dims(logits));
        assert!(n == rows && self.dims(centres) == [classes, cols], "centre_distance: h [{rows}, {cols}], logits [{n}, {classes}]");
        // class: of the row as f32, -1 where it is not counted
        let (loss, totals, partial, class) = (self.alloc([1, 1]), self.alloc([1, 2]), self.alloc([rows, 2]), self.alloc([rows, 1]));
        if self.on_cpu() {
            let ([loss, totals, partial, class], [h, u, c]) = self.views([loss, totals, partial, class], [h, logits, centres]);
            for r in 0..rows {
                let (h, u) = (&h[r * cols..(r + 1) * cols], &u[r * classes..(r + 1) * classes]);
                let best = (0..classes).reduce(|a, b| if u[b] > u[a] { b } else { a }).unwrap_or(0);
                let whole: f32 = u.iter().map(|v| (v - u[best]).exp()).sum();
                let counted = 1.0 / whole > sure;
                class[r] = if counted { best as f32 } else { -1.0 };
                let c = &c[best * cols..(best + 1) * cols];
                let square: f32 = h.iter().zip(c).map(|(h, c)| (h - c) * (h - c)).sum();
                partial[2 * r..2 * r + 2].copy_from_slice(&if counted { [square, 1.0] } else { [0.0; 2] });
            }
            let sum = sum_f64(partial.chunks_exact(2).map(|p| f64::from(p[0])));
            let n = sum_f64(partial.chunks_exact(2).map(|p| f64::from(p[1])));
            totals.copy_from_slice(&[sum as f32, n as f32]);
            loss[0] = if n > 0.0 { (sum / n) as f32 } else { 0.0 };
        } else {
            let [partial_, class, h, u, c] = [partial, class, h, logits, centres].map(|v| self.ptr(v));
            self.launch(
                "centre_rows",
                Grid::blocks(rows, 128),
                &[partial_, class, h, u, c, rows.into(), cols.into(), classes.into(), sure.into()],
            );
            self.error_total(loss, totals, partial);
        }
        self.record(&CENTRE, [h, centres, class, totals], loss, [0.0; 4], [0; 4]);
        loss
    }
}

fn backward(s: &mut Step, node: &Node) {
    let [h, centres, class, totals, ..] = node.x;
    let dl = s.grad(node.y).expect("the gradient has arrived");
    let ([rows, cols], classes) = (s.dims(h), s.dims(centres)[0]);
    let ((dh, add_h), (dc, add_c)) = (s.slot_if_wanted(h), s.slot_if_wanted(centres));
    if s.on_cpu() {
        let (dh, dc) = (s.or_empty(dh), s.or_empty(dc));
        let ([dh, dc], [h, c, class, totals, dl]) = s.views([dh, dc], [h, centres, class, totals, dl]);
        let scale = if totals[1] > 0.0 { 2.0 * dl[0] / totals[1] } else { 0.0 };
        if !add_h {
            dh.fill(0.0);
        }
        if !add_c {
            dc.fill(0.0);
        }
        for (r, h) in h.chunks_exact(cols).enumerate().filter(|(r, _)| class[*r] >= 0.0) {
            let k = class[r] as usize;
            for (i, (h, c)) in h.iter().zip(&c[k * cols..(k + 1) * cols]).enumerate() {
                let g = scale * (h - c);
                if let Some(d) = dh.get_mut(r * cols + i) {
                    *d += g;
                }
                if let Some(d) = dc.get_mut(k * cols + i) {
                    *d -= g;
                }
            }
        }
    } else {
        let [h, c, class, totals, dl] = [h, centres, class, totals, dl].map(|v| s.ptr(v));
        if !dh.is_none() {
            let args = [s.ptr(dh), h, c, class, totals, dl, rows.into(), cols.into(), add_h.into()];
            s.launch("centre_bwd", Grid::over(rows * cols), &args);
        }
        if !dc.is_none() {
            let args = [s.ptr(dc), h, c, class, totals, dl, rows.into(), cols.into(), classes.into(), add_c.into()];
            s.launch("centre_sum", Grid::over(classes * cols), &args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn centre_distance_counts_sure_rows_alone() {
        for [rows, cols, classes] in [[1, 1, 2], [13, 3, 3], [33, 130, 5]] {
            // Logits of 3 and -3: sure of two classes, but not of one among others.
            let logits: Vec<f32> =
                (0..rows * classes).map(|i| if (i * 7 + i / classes) % (classes + 1) == 0 { 5.0 } else { -3.0 }).collect();
            let sure_of = |r: usize| {
                let u: Vec<f64> = logits[r * classes..(r + 1) * classes].iter().map(|&u| f64::from(u)).collect();
                let whole: f64 = u.iter().map(|u| u.exp()).sum();
                (0..classes).find(|&k| u[k].exp() / whole > 0.8)
            };
            prove(
                &[operand([rows, cols], 1), operand([classes, cols], 2), fixed([rows, classes], logits.clone())],
                1e-5,
                |s, v| s.centre_distance(v[0], v[2], v[1], 0.8),
                |x| {
                    let (mut sum, mut n) = (0.0, 0.0);
                    for r in 0..rows {
                        if let Some(k) = sure_of(r) {
                            sum += (0..cols).map(|i| (x[0][r * cols + i] - x[1][k * cols + i]).powi(2)).sum::<f64>();
                            n += 1.0;
                        }
                    }
                    vec![if n > 0.0 { sum / n } else { 0.0 }]
                },
            );
        }
    }
}
