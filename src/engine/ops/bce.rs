//! bce_with_logits: the binary cross-entropy of logits with a weight for what is there, and its gradient in the same pass.
//!
//!   L = mean over cells and features of (1-y) x + (1 + (w-1) y) softplus(-x),    softplus(-x) = max(-x, 0) + ln(1 + e^-|x|)
//!   dx = dL/N · (σ(x) (1 + (w-1) y) - w y)
//!   shapes    x, y [B cells, F features], w one number, L [1, 1]; targets in [0, 1]
//!   kernels   bce_rows, bce_sparse, bce_scale (kernels/bce.cu), error_total (kernels/losses.cu)
//!
//! With 58,170 peaks the logits of a minibatch are 119 MB, more than the rest of the step's activations together: they are written
//! once, by the product that makes them, and read once, here, where the gradient takes their place. The logits are gone then; what needs
//! them must come before. An upstream gradient other than 1 costs another pass. A sparse target is never written out: all logits are taken for those of
//! zeros, but for the entries, which are few.
//! Floor: 8·B·F bytes (logits, gradient), and 4·B·F of a dense target. Source: APOLLO's weighted likelihood of sequencing data (Zhang 2026, Methods).

use super::activation::exp;
use super::reduce::sum_f64;
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::sparse::{Scale, SparseRows, Term};
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};
use rayon::prelude::*;

static BCE: Op = Op { name: "bce_with_logits", backward };

/// Numbers that are added up in f32 before their sum goes on in f64.
const RUN: usize = 1024;

impl Step {
    /// The mean of the weighted cross-entropy of logits `x` with targets `y` in [0, 1], where `weight` is that of what is there.
    /// x, y [B, F], y may be sparse; result [1, 1]. Where a gradient is recorded, x holds it afterwards and is no logit any more.
    #[track_caller]
    pub fn bce_with_logits(&mut self, x: Var, y: Var, weight: f32) -> Var {
        let [rows, cols] = self.dims(x);
        assert_eq!(self.dims(y), [rows, cols], "bce_with_logits: x is [{rows}, {cols}], y is {:?}", self.dims(y));
        let (loss, totals, partial) = (self.alloc([1, 1]), self.alloc([1, 2]), self.alloc([rows, 2]));
        let over = 1.0 / (rows * cols).max(1) as f32;
        let gradient = self.recording() && self.wants(x);
        if let Some(entries) = self.plain_rows(y) {
            self.bce_sparse([loss, totals, partial, x], entries, [weight, over], gradient);
            return self.bce_done(x, loss, gradient);
        }
        let y = self.dense(y);
        if self.on_cpu() {
            let ([loss, partial, x], [y]) = self.views([loss, partial, x], [y]);
            let work = |((sums, x), y): ((&mut [f32], &mut [f32]), &[f32])| {
                let sum = if gradient { row::<true>(x, y, weight, over) } else { row::<false>(x, y, weight, over) };
                (sums[0], sums[1]) = (sum, cols as f32);
            };
            let each = partial.par_chunks_exact_mut(2).zip(x.par_chunks_exact_mut(cols.max(1))).zip(y.par_chunks_exact(cols.max(1)));
            each.with_min_len((cpu::SERIAL / 16).div_ceil(cols.max(1))).for_each(work);
            loss[0] = (sum_f64(partial.chunks_exact(2).map(|p| p[0] as f64)) / (rows * cols).max(1) as f64) as f32;
        } else {
            let args = [self.ptr(partial), self.ptr(x), self.ptr(y), rows.into(), cols.into(), weight.into(), over.into(), gradient.into()];
            self.launch("bce_rows", Grid::blocks(rows, 256), &args);
            self.error_total(loss, totals, partial);
        }
        self.bce_done(x, loss, gradient)
    }

    fn bce_done(&mut self, x: Var, loss: Var, gradient: bool) -> Var {
        if gradient {
            self.gradient_in_place(x);
        }
        self.record(&BCE, [x], loss, [0.0; 4], [0; 4]);
        loss
    }

    /// The rows of a sparse variable that is nothing but them.
    fn plain_rows(&self, y: Var) -> Option<SparseRows> {
        let sparse = self.sparse_of(y)?;
        match sparse.terms {
            [Some(Term { rows, scale: Scale::One }), None] if sparse.base.is_none() => Some(rows),
            _ => None,
        }
    }

    fn bce_sparse(&mut self, [loss, totals, partial, x]: [Var; 4], y: SparseRows, [weight, over]: [f32; 2], gradient: bool) {
        let [rows, cols] = self.dims(x);
        if self.on_cpu() {
            let (start, order) = (self.start(), self.or_empty(y.order));
            let ([loss, partial, x], [starts, columns, values, order]) =
                self.views([loss, partial, x], [y.starts, y.columns, y.values, order]);
            let (starts, columns): (&[u32], &[u32]) = (bytemuck::cast_slice(starts), bytemuck::cast_slice(columns));
            let order: &[u32] = bytemuck::cast_slice(order);
            let work = |(b, (sums, x)): (usize, (&mut [f32], &mut [f32]))| {
                let row = if order.is_empty() { b } else { order[start + b] as usize };
                let part = starts[row] as usize..starts[row + 1] as usize;
                let entries = (&columns[part.clone()], &values[part]);
                let sum =
                    if gradient { sparse_row::<true>(x, entries, weight, over) } else { sparse_row::<false>(x, entries, weight, over) };
                (sums[0], sums[1]) = (sum, cols as f32);
            };
            let each = partial.par_chunks_exact_mut(2).zip(x.par_chunks_exact_mut(cols.max(1))).enumerate();
            each.with_min_len((cpu::SERIAL / 16).div_ceil(cols.max(1))).for_each(work);
            loss[0] = (sum_f64(partial.chunks_exact(2).map(|p| p[0] as f64)) / (rows * cols).max(1) as f64) as f32;
        } else {
            // The entries' slopes, until every logit has been seen.
            let slopes = self.alloc([rows, y.most.max(1)]);
            let args = [
                self.ptr(partial),
                self.ptr(x),
                self.ptr(slopes),
                self.ptr(y.starts),
                self.ptr(y.columns),
                self.ptr(y.values),
                self.ptr(y.order),
                self.clock_ptr(),
                rows.into(),
                cols.into(),
                y.most.max(1).into(),
                weight.into(),
                over.into(),
                gradient.into(),
            ];
            self.launch("bce_sparse", Grid::blocks(rows, 256), &args);
            self.error_total(loss, totals, partial);
        }
    }
}

fn backward(s: &mut Step, node: &Node) {
    let (x, dl) = (node.x[0], s.grad(node.y).expect("the gradient has arrived"));
    let (dx, add) = s.grad_slot(x);
    assert!(!add, "bce_with_logits: its logits go nowhere else");
    let n = s.size(dx);
    if s.on_cpu() {
        let ([dx], [dl]) = s.views([dx], [dl]);
        if dl[0] != 1.0 {
            cpu::chunks(dx, |_, dx| dx.iter_mut().for_each(|d| *d *= dl[0]));
        }
    } else {
        let args = [s.ptr(dx), s.ptr(dl), n.into()];
        s.launch("bce_scale", Grid::over(n), &args);
    }
}

/// A row's sum; with `GRADIENT` its logits become their gradient.
fn row<const GRADIENT: bool>(x: &mut [f32], y: &[f32], weight: f32, over: f32) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let runs = x.chunks_mut(RUN).zip(y.chunks(RUN));
            runs.map(|(x, y)| run::<GRADIENT>(x, y, weight, over) as f64).sum::<f64>() as f32
        },
    )
}

/// The same where the targets are zero but for entries of ascending columns.
fn sparse_row<const GRADIENT: bool>(x: &mut [f32], (columns, values): (&[u32], &[f32]), weight: f32, over: f32) -> f32 {
    let mut slopes = [0.0f32; RUN];
    let (mut sum, mut entry) = (0.0f64, 0);
    for (r, x) in x.chunks_mut(RUN).enumerate() {
        let (first, begin) = (r * RUN, entry);
        while let Some(&c) = columns.get(entry).filter(|c| (**c as usize) < first + x.len()) {
            let (logit, y) = (x[c as usize - first], values[entry]);
            let ((loss, slope), (without, _)) = (element(logit, y, weight), element(logit, 0.0, weight));
            // A logit that is no number is seen below.
            sum += if logit.is_finite() { f64::from(loss) - f64::from(without) } else { 0.0 };
            slopes[entry - begin] = slope * over;
            entry += 1;
        }
        sum += vectorised(
            #[inline(always)]
            || zeros::<GRADIENT>(x, over),
        ) as f64;
        if GRADIENT {
            columns[begin..entry].iter().zip(&slopes).for_each(|(&c, &slope)| x[c as usize - first] = slope);
        }
    }
    sum as f32
}

/// Of targets that are all zero: Σ softplus(x), and σ(x) in place of x.
#[inline(always)]
fn zeros<const GRADIENT: bool>(x: &mut [f32], over: f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let mut add = |k: usize, x: &mut f32| {
        let e = exp(-x.abs());
        sums[k] += x.max(0.0) + ln_1p(e) + *x * 0.0;
        if GRADIENT {
            let inverse = over / (1.0 + e);
            *x = if *x < 0.0 { e * inverse } else { inverse };
        }
    };
    let mut whole = x.chunks_exact_mut(LANES);
    for x in whole.by_ref() {
        for (k, x) in x.iter_mut().enumerate() {
            add(k, x);
        }
    }
    whole.into_remainder().iter_mut().enumerate().for_each(|(k, x)| add(k, x));
    sums.iter().sum()
}

#[inline(always)]
fn run<const GRADIENT: bool>(x: &mut [f32], y: &[f32], weight: f32, over: f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (mut xs, ys) = (x.chunks_exact_mut(LANES), y.chunks_exact(LANES));
    let rest = ys.remainder();
    for (x, y) in xs.by_ref().zip(ys) {
        for k in 0..LANES {
            let (l, d) = element(x[k], y[k], weight);
            sums[k] += l;
            if GRADIENT {
                x[k] = d * over;
            }
        }
    }
    for (k, (x, &y)) in xs.into_remainder().iter_mut().zip(rest).enumerate() {
        let (l, d) = element(*x, y, weight);
        sums[k] += l;
        if GRADIENT {
            *x = d * over;
        }
    }
    sums.iter().sum()
}

/// The loss of one logit and its slope, from one exponential.
#[inline(always)]
fn element(x: f32, y: f32, weight: f32) -> (f32, f32) {
    let e = exp(-x.abs());
    let over = 1.0 / (1.0 + e);
    let sigmoid = if x < 0.0 { e * over } else { over };
    let softplus = (-x).max(0.0) + ln_1p(e);
    let count = 1.0 + (weight - 1.0) * y;
    // A logit that is no number must be seen in the sum.
    ((1.0 - y) * x + count * softplus + x * 0.0, sigmoid * count - weight * y)
}

/// ln(1 + e) for 0 ≤ e ≤ 1 to 2 units in the last place, in code that vectorises: 2 artanh(e / (2 + e)), the first term left out being
/// below 10⁻⁸ of the sum.
#[inline(always)]
fn ln_1p(e: f32) -> f32 {
    let t = e / (2.0 + e);
    let t2 = t * t;
    let mut p = 1.0 / 15.0;
    for c in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0] {
        p = p * t2 + c;
    }
    2.0 * (t * t2 * p + t)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::engine::Var;

    fn exact(x: f64, y: f64, w: f64) -> f64 {
        (1.0 - y) * x + (1.0 + (w - 1.0) * y) * ((-x).max(0.0) + (-x.abs()).exp().ln_1p())
    }

    #[test]
    fn value_and_gradient_match_f64_for_every_weight_and_size() {
        for weight in [0.3, 1.0, 30.0] {
            for [rows, cols] in [[1, 1], [5, 7], [3, 2100], [33, 16]] {
                let n = rows * cols;
                let x: Vec<f32> = values(n, 1).iter().map(|v| 60.0 * v * v * v).collect();
                let y: Vec<f32> = values(n, 2).iter().map(|v| (2.0 * v).clamp(0.0, 1.0)).collect();
                let mut logits = fixed([rows, cols], x);
                logits.differentiate = true;
                prove(
                    &[logits, fixed([rows, cols], y)],
                    3e-6,
                    |s, v| s.bce_with_logits(v[0], v[1], weight),
                    |v| vec![v[0].iter().zip(&v[1]).map(|(x, y)| exact(*x, *y, weight as f64)).sum::<f64>() / n as f64],
                );
            }
        }
    }

    #[test]
    fn every_logit_and_target_is_right_to_a_millionth() {
        let x: Vec<f32> = (-600..=600).map(|i| i as f32 * 0.1).collect();
        for (device, mut s) in steps() {
            for y in [0.0f32, 0.25, 1.0] {
                for w in [0.3f32, 1.0, 30.0] {
                    s.begin(true, 1, 0).unwrap();
                    let logits = s.leaf([x.len(), 1], &x);
                    let target = s.constant([x.len(), 1], &vec![y; x.len()]);
                    let loss = s.bce_with_logits(logits, target, w);
                    let dl = s.constant([1, 1], &[x.len() as f32]);
                    s.backward_from(loss, dl);
                    let g = s.grad(logits).unwrap();
                    for (&x, g) in x.iter().zip(s.download(g).unwrap()) {
                        let (x, y, w) = (x as f64, y as f64, w as f64);
                        let want = (1.0 + (w - 1.0) * y) / (1.0 + (-x).exp()) - w * y;
                        assert!(
                            (g as f64 - want).abs() <= 1e-6 * want.abs().max(w * y).max(1e-7),
                            "{device}: {x} {y} {w}: {g}, want {want}"
                        );
                    }
                    s.end();
                }
            }
        }
    }

    #[test]
    fn a_sparse_target_gives_what_it_gives_written_out() {
        for [rows, cols] in [[1, 1], [5, 40], [3, 2500]] {
            for share in [0.0, 0.07, 1.0] {
                let (x, there) = (values(rows * cols, 3), values(rows * cols, 4));
                let y: Vec<f32> = there.iter().map(|v| if (v + 1.0) / 2.0 < share { 1.0 - v * v } else { 0.0 }).collect();
                for (device, mut s) in steps() {
                    let full = (0..rows).map(|r| y[r * cols..(r + 1) * cols].iter().filter(|v| **v != 0.0).count()).max().unwrap();
                    let (mut starts, mut columns, mut entries) = (vec![0u32], Vec::new(), Vec::new());
                    for r in 0..rows {
                        for c in (0..cols).filter(|c| y[r * cols + c] != 0.0) {
                            columns.push(c as u32);
                            entries.push(y[r * cols + c]);
                        }
                        starts.push(columns.len() as u32);
                    }
                    let mut made = s.sparse_resident([rows, cols], columns.len(), full).unwrap();
                    s.write_sparse(&made, [0, 0], &starts, &columns, &entries).unwrap();
                    // Backwards, as an epoch's order may have it.
                    made.order = s.resident([1, rows]).unwrap();
                    let order: Vec<u32> = (0..rows as u32).rev().collect();
                    s.upload(made.order, &order).unwrap();
                    s.begin(true, 1, 0).unwrap();
                    let sparse = s.sparse(&made, rows);
                    let dense: Vec<f32> = (0..rows).rev().flat_map(|r| y[r * cols..(r + 1) * cols].to_vec()).collect();
                    let dense = s.constant([rows, cols], &dense);
                    let scaled: Vec<f32> = x.iter().map(|x| 9.0 * x).collect();
                    let [a, b] = [dense, sparse].map(|y| {
                        let logits = s.leaf([rows, cols], &scaled);
                        let loss = s.bce_with_logits(logits, y, 5.0);
                        let dl = s.constant([1, 1], &[2.0]);
                        s.backward_from(loss, dl);
                        let g = s.grad(logits).unwrap();
                        s.forget_gradients();
                        (s.download(loss).unwrap()[0] as f64, s.download(g).unwrap())
                    });
                    compare(device, &[b.0 as f32], &[a.0], 1e-6);
                    compare(device, &b.1, &a.1.iter().map(|v| *v as f64).collect::<Vec<_>>(), 1e-6);
                }
            }
        }
    }

    #[test]
    fn outside_training_the_logits_stay_and_a_logit_that_is_no_number_is_seen() {
        for (device, mut s) in steps() {
            s.begin(false, 1, 0).unwrap();
            let (x, y) = (s.constant([1, 3], &[2.0, -3.0, 0.5]), s.constant([1, 3], &[0.0, 1.0, 0.5]));
            let _: Var = s.bce_with_logits(x, y, 2.0);
            assert_eq!(s.download(x).unwrap(), [2.0, -3.0, 0.5], "{device}");
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let x = s.constant([1, 3], &[2.0, bad, 0.5]);
                let loss = s.bce_with_logits(x, y, 2.0);
                assert!(!s.download(loss).unwrap()[0].is_finite(), "{device}: {bad}");
            }
        }
    }
}
