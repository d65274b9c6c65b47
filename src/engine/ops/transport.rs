//! Codes carried from one modality's cells to the other's by the correspondence of a minibatch: what an inferred correspondence does
//! to JAMIE's codes (Kalafut et al. 2023).
//!
//!   block       F_rs = F[rows[start + r], columns[start + s]]: the minibatch's part of the whole correspondence; no gradient
//!   inverses    u_r = 1/Σ_s F_rs,  v_s = 1/Σ_r F_rs, 0 where the sum is 0: what makes weighted means of the rows of F and of Fᵀ
//!   transport   y = u ⊙ (F c), or v ⊙ (Fᵀ c)                                           backward  dc = Fᵀ (u ⊙ dy), or F (v ⊙ dy)
//!   blend       q_r = 1 where u_r > 0, else 0;  w_r = ρ p_r + (1-ρ) q_r,  y_r = (ρ p_r z_r + (1-ρ) q_r t_r)/w_r, 0 where w_r is: known partners z of
//!               confidence p and carried codes t as one mean and its weight       backward  dz, dt = their shares of dy
//!   shapes      F [B cells, B cells], whole [m, n], rows and columns [1, ≥ start + B] of u32, u, v, p, w [B, 1], c, y, z, t [B, latent]
//!   kernels     gather_block, inverse_row_sums, inverses, scale_rows, blend_fwd, blend_bwd (kernels/transport.cu), column_sum, gemm

use super::gemm::Layout;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static TRANSPORT: Op = Op { name: "transport", backward: transport_backward };
static BLEND: Op = Op { name: "blend", backward: blend_backward };

/// Which way codes are carried by a correspondence F [rows, columns].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// F c: to the cells of the rows, from those of the columns.
    Rows,
    /// Fᵀ c: the other way.
    Columns,
}

impl Step {
    /// A minibatch's square block [size, size] of a correspondence [m, n] on the device; rows and columns in the epoch's order,
    /// which is checked when it is uploaded, not here.
    #[track_caller]
    pub fn gather_block(&mut self, whole: Var, orders: [Var; 2], size: usize) -> Var {
        let [m, n] = self.dims(whole);
        for order in orders {
            assert!(self.start() + size <= self.size(order), "gather_block: {size} places of an order of {}", self.size(order));
        }
        let block = self.alloc([size, size]);
        if self.on_cpu() {
            let start = self.start();
            let ([block], [whole, rows, columns]) = self.views([block], [whole, orders[0], orders[1]]);
            let [rows, columns]: [&[u32]; 2] = [rows, columns].map(|o| &bytemuck::cast_slice(o)[start..]);
            cpu::rows(block, size, |r, out| {
                let row = rows[r] as usize;
                assert!(row < m, "gather_block: row {row} of {m}");
                let row = &whole[row * n..(row + 1) * n];
                out.iter_mut().zip(columns).for_each(|(out, &c)| *out = row[c as usize]);
            });
        } else {
            let [rows, columns] = orders.map(|o| self.ptr(o));
            let args = [self.ptr(block), self.ptr(whole), rows, columns, self.clock_ptr(), n.into(), size.into()];
            self.launch("gather_block", Grid::blocks(size, 256), &args);
        }
        block
    }

    /// The inverse sums of the rows [B, 1] and of the columns [B', 1] of a correspondence [B, B']; 0 where a sum is 0.
    pub fn inverse_sums(&mut self, block: Var) -> [Var; 2] {
        let [rows, cols] = self.dims(block);
        let [u, v] = [self.alloc([rows, 1]), self.alloc([cols, 1])];
        let sums = self.alloc([1, cols]);
        self.column_sum(sums, block, false);
        let inverse = |sum: f32| if sum > 0.0 { 1.0 / sum } else { 0.0 };
        if self.on_cpu() {
            let ([u, v], [block, sums]) = self.views([u, v], [block, sums]);
            u.iter_mut().zip(block.chunks_exact(cols.max(1))).for_each(|(u, row)| *u = inverse(lane_sum(row)));
            v.iter_mut().zip(sums).for_each(|(v, &sum)| *v = inverse(sum));
        } else {
            let args = [self.ptr(u), self.ptr(block), rows.into(), cols.into()];
            self.launch("inverse_row_sums", Grid::blocks(rows, 128), &args);
            let args = [self.ptr(v), self.ptr(sums), cols.into()];
            self.launch("inverses", Grid::over(cols), &args);
        }
        [u, v]
    }

    /// Codes carried over as weighted means. block [B, B'] constant, its inverse sums from [`Step::inverse_sums`], c [B', latent]
    /// towards the rows, [B, latent] towards the columns; result a code for each of the others, 0 where nothing corresponds.
    #[track_caller]
    pub fn transport(&mut self, block: Var, inverses: [Var; 2], c: Var, towards: Towards) -> Var {
        let ([rows, cols], latent) = (self.dims(block), self.dims(c)[1]);
        let (layout, out, inverse) = match towards {
            Towards::Rows => (Layout::NN, rows, inverses[0]),
            Towards::Columns => (Layout::TN, cols, inverses[1]),
        };
        let y = self.alloc([out, latent]);
        self.gemm(layout, y, block, c, false, None);
        self.scale_rows(y, y, inverse);
        self.record(&TRANSPORT, [c, block, inverse], y, [0.0; 4], [u32::from(towards == Towards::Columns), 0, 0, 0]);
        y
    }

    /// Known partners and carried codes as one: the mean [B, latent] and its weight [B, 1]. z, t [B, latent]; p [B, 1], the partners'
    /// confidence, or [`Var::NONE`] for 1; u [B, 1], the inverse sums of t's rows; `share` ρ from 0 to 1 is the partners'.
    #[track_caller]
    pub fn blend(&mut self, [z, t]: [Var; 2], p: Var, u: Var, share: f32) -> [Var; 2] {
        let dims @ [rows, cols] = self.dims(z);
        assert_eq!(self.dims(t), dims, "blend: the two codes");
        assert!(self.size(u) == rows && (p.is_none() || self.size(p) == rows), "blend: one weight a row");
        let (y, w, part) = (self.alloc(dims), self.alloc([rows, 1]), self.alloc([rows, 2]));
        if self.on_cpu() {
            let p = self.or_empty(p);
            let ([y, w, part], [z, t, p, u]) = self.views([y, w, part], [z, t, p, u]);
            for (r, part) in part.chunks_exact_mut(2).enumerate() {
                let known = share * p.get(r).copied().unwrap_or(1.0);
                let carried = if u[r] > 0.0 { 1.0 - share } else { 0.0 };
                w[r] = known + carried;
                let over = if w[r] > 0.0 { 1.0 / w[r] } else { 0.0 };
                part.copy_from_slice(&[known * over, carried * over]);
            }
            for (i, y) in y.iter_mut().enumerate() {
                *y = part[i / cols * 2] * z[i] + part[i / cols * 2 + 1] * t[i];
            }
        } else {
            let [pw, pu] = [p, u].map(|v| self.ptr(v));
            let [y, w, part, z, t] = [y, w, part, z, t].map(|v| self.ptr(v));
            self.launch("blend_fwd", Grid::over(rows * cols), &[y, w, part, z, t, pw, pu, share.into(), rows.into(), cols.into()]);
        }
        self.record(&BLEND, [z, t, part], y, [0.0; 4], [0; 4]);
        [y, w]
    }

    /// y_r = w_r x_r; y may be x.
    fn scale_rows(&mut self, y: Var, x: Var, w: Var) {
        let [rows, cols] = self.dims(x);
        if !self.on_cpu() {
            let args = [self.ptr(y), self.ptr(x), self.ptr(w), rows.into(), cols.into()];
            self.launch("scale_rows", Grid::over(rows * cols), &args);
            return;
        }
        if y != x {
            self.copy(y, x);
        }
        let ([y], [w]) = self.views([y], [w]);
        y.chunks_exact_mut(cols.max(1)).zip(w).for_each(|(y, w)| y.iter_mut().for_each(|y| *y *= w));
    }
}

fn transport_backward(s: &mut Step, node: &Node) {
    let [c, block, inverse, ..] = node.x;
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let dims = s.dims(dy);
    let scaled = s.alloc(dims);
    s.scale_rows(scaled, dy, inverse);
    let (dc, add) = s.grad_slot(c);
    let layout = if node.n[0] == 1 { Layout::NN } else { Layout::TN };
    s.gemm(layout, dc, block, scaled, add, None);
}

fn blend_backward(s: &mut Step, node: &Node) {
    let [z, t, part, ..] = node.x;
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let [rows, cols] = s.dims(dy);
    for (which, v) in [z, t].into_iter().enumerate() {
        let (d, add) = s.slot_if_wanted(v);
        if s.on_cpu() {
            let d = s.or_empty(d);
            let ([d], [dy, part]) = s.views([d], [dy, part]);
            for (i, (d, dy)) in d.iter_mut().zip(dy).enumerate() {
                *d = if add { *d } else { 0.0 } + part[i / cols * 2 + which] * dy;
            }
        } else if !d.is_none() {
            let args = [s.ptr(d), s.ptr(dy), s.ptr(part), which.into(), rows.into(), cols.into(), add.into()];
            s.launch("blend_bwd", Grid::over(rows * cols), &args);
        }
    }
}

/// Σ of a row in eight running sums.
fn lane_sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let whole = row.chunks_exact(8);
    let rest: f32 = whole.remainder().iter().sum();
    whole.for_each(|part| lanes.iter_mut().zip(part).for_each(|(l, v)| *l += v));
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// Not negative, with one row and one column of zeros.
    fn correspondence([rows, cols]: [usize; 2]) -> Vec<f32> {
        let mut f: Vec<f32> = values(rows * cols, 5).iter().map(|v| v.max(0.0)).collect();
        f[..cols].fill(0.0);
        f.iter_mut().skip(cols - 1).step_by(cols).for_each(|f| *f = 0.0);
        f
    }

    #[test]
    fn carried_codes_and_their_gradients_match_the_reference() {
        for (size @ [rows, cols], latent) in [([1, 1], 1), ([5, 9], 3), ([33, 7], 32), ([40, 70], 2)] {
            let f = correspondence(size);
            let mean = |c: &[f64], outs: usize, ins: usize, at: &dyn Fn(usize, usize) -> f64| {
                let row = |o: usize| (0..ins).map(|i| at(o, i)).sum::<f64>();
                (0..outs * latent)
                    .map(|e| {
                        let (o, l) = (e / latent, e % latent);
                        let sum: f64 = (0..ins).map(|i| at(o, i) * c[i * latent + l]).sum();
                        if row(o) > 0.0 { sum / row(o) } else { 0.0 }
                    })
                    .collect::<Vec<f64>>()
            };
            let block = fixed(size, f.clone());
            let carry = |towards| {
                move |s: &mut Step, v: &[Var]| {
                    let inverses = s.inverse_sums(v[1]);
                    s.transport(v[1], inverses, v[0], towards)
                }
            };
            prove(&[operand([cols, latent], 1), block.clone()], 1e-5, carry(Towards::Rows), |x| {
                mean(&x[0], rows, cols, &|o, i| x[1][o * cols + i])
            });
            prove(&[operand([rows, latent], 2), block], 1e-5, carry(Towards::Columns), |x| {
                mean(&x[0], cols, rows, &|o, i| x[1][i * cols + o])
            });
        }
    }

    #[test]
    fn partners_and_carried_codes_blend_by_their_weights() {
        let (rows, cols, share) = (5, 3, 0.25f32);
        let (p, u) = (vec![1.0, 0.0, 0.5, 0.0, 1.0f32], vec![2.0, 2.0, 0.1, 0.0, 0.0f32]);
        let weight = |r: usize| {
            let (known, carried) = (f64::from(share * p[r]), if u[r] > 0.0 { f64::from(1.0 - share) } else { 0.0 });
            [known, carried, (known + carried).max(1e-30)]
        };
        let operands = [operand([rows, cols], 1), operand([rows, cols], 2), fixed([rows, 1], p.clone()), fixed([rows, 1], u.clone())];
        let mean = |x: &[Vec<f64>]| {
            let at = |i: usize| {
                let [known, carried, all] = weight(i / cols);
                (known * x[0][i] + carried * x[1][i]) / all
            };
            (0..rows * cols).map(at).collect()
        };
        prove(&operands, 1e-6, |s, v| s.blend([v[0], v[1]], v[2], v[3], share)[0], mean);
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let codes = s.constant([rows, cols], &values(rows * cols, 1));
            let (p, u) = (s.constant([rows, 1], &p), s.constant([rows, 1], &u));
            for (p, want) in [(p, [1.0, 0.75, 0.875, 0.0, 0.25]), (Var::NONE, [1.0, 1.0, 1.0, 0.25, 0.25])] {
                let [_, w] = s.blend([codes, codes], p, u, share);
                assert_eq!(s.download(w).unwrap(), want, "{device}");
            }
        }
    }

    #[test]
    fn a_block_follows_both_orders_from_the_clocks_start() {
        for (device, mut s) in steps() {
            let whole = s.resident([3, 4]).unwrap();
            s.upload(whole, &(0..12).map(|v| v as f32).collect::<Vec<_>>()).unwrap();
            let orders = [s.resident([1, 4]).unwrap(), s.resident([1, 4]).unwrap()];
            s.upload(orders[0], &[0u32, 2, 1, 0]).unwrap();
            s.upload(orders[1], &[0u32, 3, 3, 1]).unwrap();
            s.begin(true, 1, 1).unwrap();
            let block = s.gather_block(whole, orders, 3);
            assert_eq!(s.download(block).unwrap(), [11.0, 11.0, 9.0, 7.0, 7.0, 5.0, 3.0, 3.0, 1.0], "{device}");
        }
    }
}
