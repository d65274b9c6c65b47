//! Products of a minibatch of sparse rows X [rows, columns] with a dense W [outs, columns]: y = X·Wᵀ and dW = dyᵀ·X.
//!
//! The minibatch is cut into panels of [`COLS`] columns, the outputs into blocks of [`OUTS`]. Forwards, a panel of a block of W is copied,
//! transposed, to the stack (64 KB) and the rows run past it, a row's sums of the block in registers:
//!
//!   y[b, block] += v · Wᵀ[c, block]     for the entries (c, v) of row b in the panel, by panels, then by entries
//!
//! Backwards, the block of dy is copied together (256 KB of 1,024 cells, the second-level cache) and the columns run past it:
//!
//!   dWᵀ[c, block] = Σ v · dy[b, block]  over the entries (b, v) of column c, by rows
//!
//! So the entries are wanted in two orders: by panel and row ([`Panels::rows`]), and by column ([`Panels::columns`]). Both are made once a
//! minibatch, by counting; W and dW stay row-major. Every element is one chain of multiply-adds in an order that neither blocks, nor threads,
//! nor vectors change.
//!
//! The floor, for n entries: 2·n·outs operations at the rate of a dense product, or reading W (writing dW) once, 4·outs·columns bytes. A
//! 1,024 x 2,000 minibatch of 10 % by 1,024 outputs: 0.42 GFLOP and 8 MB; 512 x 58,170 of 5 % by 1,024: 3.0 GFLOP and 238 MB.
//! Measured on one loaded core (AVX-512, dense products at 97 GFLOP/s: 43 ms each): the first 7.2 and 9.7 ms, at 5 % 4.6 and 5.4; the second 81
//! and 95 ms. The entries of a row in a panel are few, and every such run costs a mispredicted branch and a passage of its sums: panels of 64
//! columns, which fit the first-level cache, took 9.9 ms for 7.2. What sorting takes was not measured apart.

mod panels;

pub use panels::{Panels, Row, starts_by_row};

use super::{Machine, Plain, Vector};
use rayon::prelude::*;
use std::cell::RefCell;

/// Columns of a panel.
pub const COLS: usize = 256;
/// Outputs of a block.
pub const OUTS: usize = 64;
/// Entries times outputs below which a second thread is not asked.
const ALONE: usize = 1 << 17;

thread_local! {
    /// A block's sums of all rows, or its part of dy: made when a thread first needs it and kept.
    static BLOCK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

#[repr(align(64))]
struct Panel([f32; COLS * OUTS]);

/// y[rows, outs] = X·Wᵀ (+ base·Wᵀ in every row), then `finish(first column, part of a row)` once for every element. W `[outs, columns]`; base
/// `[columns]` or empty.
#[track_caller]
pub fn forward(x: Panels, y: &mut [f32], w: &[f32], base: &[f32], outs: usize, threads: usize, finish: impl Fn(usize, &mut [f32]) + Sync) {
    let [rows, columns] = x.shape;
    assert!(y.len() == rows * outs && w.len() == outs * columns, "sparse product: y of {}, W of {} for {:?}", y.len(), w.len(), x.shape);
    assert!(base.is_empty() || base.len() == columns, "sparse product: a base of {} for {columns} columns", base.len());
    x.check(columns.div_ceil(COLS) * rows, COLS.min(columns));
    let blocks = outs.div_ceil(OUTS);
    let threads = if x.at.len() * outs < ALONE { 1 } else { threads };
    // Fewer blocks than threads: rows are shared out too, and each part copies W for itself.
    let parts = if blocks >= threads { 1 } else { threads.div_ceil(blocks.max(1)).min(rows.div_ceil(64)).max(1) };
    let y = Shared(y.as_mut_ptr());
    let task = |t: usize| {
        let (block, part) = (t / parts, t % parts);
        let job = Forward { x, w, base, outs, first: block * OUTS, rows: [part * rows / parts, (part + 1) * rows / parts] };
        // SAFETY: tasks write disjoint blocks or disjoint rows of y, which has as many as the assertion above says.
        unsafe { with_vectors(Job::Forward(job, y.get()), &finish) }
    };
    over(blocks * parts, threads, &task);
}

/// dW (+)= dyᵀ·X + (Σ_b dy)·baseᵀ. X by column, dy `[rows, outs]`, dW `[outs, columns]`; `sums` `[outs]` is Σ_b dy, both it and base are empty
/// where there is no base.
#[track_caller]
#[allow(clippy::too_many_arguments)] // a product's own
pub fn gradient(x: Panels, dw: &mut [f32], dy: &[f32], base: &[f32], sums: &[f32], outs: usize, add: bool, threads: usize) {
    let [rows, columns] = x.shape;
    assert!(dy.len() == rows * outs && dw.len() == outs * columns, "sparse gradient: dy of {}, dW of {}", dy.len(), dw.len());
    assert!(base.is_empty() || (base.len() == columns && sums.len() == outs), "sparse gradient: base and sums");
    x.check(columns, rows);
    let (blocks, panels) = (outs.div_ceil(OUTS), columns.div_ceil(COLS));
    let threads = if (x.at.len() + columns) * outs < ALONE { 1 } else { threads };
    let parts = if blocks >= threads { 1 } else { threads.div_ceil(blocks.max(1)).min(panels).max(1) };
    let dw = Shared(dw.as_mut_ptr());
    let task = |t: usize| {
        let (block, part) = (t / parts, t % parts);
        let panels = [part * panels / parts, (part + 1) * panels / parts];
        let job = Gradient { x, dy, base, sums, outs, first: block * OUTS, panels, add };
        // SAFETY: tasks write disjoint blocks or panels of dW.
        unsafe { with_vectors(Job::Gradient(job, dw.get()), &|_, _| {}) }
    };
    over(blocks * parts, threads, &task);
}

fn over(tasks: usize, threads: usize, task: &(impl Fn(usize) + Sync)) {
    if threads <= 1 || tasks <= 1 {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Carries the start of an output to several threads.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: those who share it write disjoint parts.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
impl Shared {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

#[derive(Clone, Copy)]
struct Forward<'a> {
    x: Panels<'a>,
    w: &'a [f32],
    base: &'a [f32],
    outs: usize,
    /// The block's first output.
    first: usize,
    /// From this row to before that.
    rows: [usize; 2],
}

#[derive(Clone, Copy)]
struct Gradient<'a> {
    x: Panels<'a>,
    dy: &'a [f32],
    base: &'a [f32],
    sums: &'a [f32],
    outs: usize,
    first: usize,
    /// From this panel to before that.
    panels: [usize; 2],
    add: bool,
}

#[derive(Clone, Copy)]
enum Job<'a> {
    Forward(Forward<'a>, *mut f32),
    Gradient(Gradient<'a>, *mut f32),
}

/// A job as compiled for the widest vectors that the processor has.
unsafe fn with_vectors(job: Job, finish: &impl Fn(usize, &mut [f32])) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86::{Avx2, Avx512};
        use std::arch::x86_64::{__m256, __m512};
        #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
        unsafe fn wide(job: Job, finish: &impl Fn(usize, &mut [f32])) {
            unsafe { work::<Avx512, __m512, { OUTS / 16 }>(job, finish) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn half(job: Job, finish: &impl Fn(usize, &mut [f32])) {
            unsafe { work::<Avx2, __m256, { OUTS / 8 }>(job, finish) }
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor was just asked for these instructions; the job is the caller's promise.
            return unsafe { wide(job, finish) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { half(job, finish) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { work::<Plain, [f32; 4], { OUTS / 4 }>(job, finish) }
}

/// N vectors are a block.
#[inline(always)]
unsafe fn work<M: Machine, V: Vector, const N: usize>(job: Job, finish: &impl Fn(usize, &mut [f32])) {
    // Taken out, not borrowed: a closure would be compiled for any processor.
    let mut kept = BLOCK.take();
    let rows = match &job {
        Job::Forward(f, _) => f.rows[1] - f.rows[0],
        Job::Gradient(g, _) => g.x.shape[0],
    };
    kept.resize((rows * OUTS + 16).max(kept.len()), 0.0);
    let block = kept.as_mut_ptr();
    // SAFETY: room for the rows and the alignment.
    unsafe {
        let block = block.add(block.align_offset(64));
        match job {
            Job::Forward(f, y) => forward_block::<M, V, N>(f, block, y, finish),
            Job::Gradient(g, dw) => gradient_block::<M, V, N>(g, block, dw),
        }
    }
    BLOCK.set(kept);
}

#[inline(always)]
unsafe fn forward_block<M: Machine, V: Vector, const N: usize>(
    f: Forward,
    block: *mut f32,
    y: *mut f32,
    finish: &impl Fn(usize, &mut [f32]),
) {
    let [rows, columns] = f.x.shape;
    let ([top, bottom], width) = (f.rows, OUTS.min(f.outs - f.first));
    let mut panel = Panel([0.0; COLS * OUTS]);
    let packed = panel.0.as_mut_ptr();
    unsafe {
        std::ptr::write_bytes(block, 0, (bottom - top) * OUTS);
        let mut offset = [V::splat(0.0); N];
        for p in 0..columns.div_ceil(COLS) {
            let (c, cols) = (p * COLS, COLS.min(columns - p * COLS));
            M::transpose(packed, OUTS, f.w.as_ptr().add(f.first * columns + c), columns, cols, width);
            if !f.base.is_empty() {
                for k in 0..cols {
                    let v = V::splat(*f.base.get_unchecked(c + k));
                    for (n, sum) in offset.iter_mut().enumerate() {
                        *sum = v.mul_add(V::load(packed.add(k * OUTS + n * V::LANES)), *sum);
                    }
                }
            }
            // `at` is below COLS and starts ascend, as `Panels::rows` made them.
            let starts = f.x.starts.as_ptr().add(p * rows);
            let (at, values) = (f.x.at.as_ptr(), f.x.values.as_ptr());
            for b in top..bottom {
                let (e, end) = (*starts.add(b) as usize, *starts.add(b + 1) as usize);
                if e == end {
                    continue;
                }
                let to = block.add((b - top) * OUTS);
                let mut sums: [V; N] = std::array::from_fn(|n| V::load(to.add(n * V::LANES)));
                for e in e..end {
                    let (v, from) = (V::splat(*values.add(e)), packed.add(*at.add(e) as usize * OUTS));
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = v.mul_add(V::load(from.add(n * V::LANES)), *sum);
                    }
                }
                for (n, sum) in sums.iter().enumerate() {
                    sum.store(to.add(n * V::LANES));
                }
            }
        }
        let one = V::splat(1.0);
        for b in top..bottom {
            let from = block.add((b - top) * OUTS);
            for (n, offset) in offset.iter().enumerate() {
                one.mul_add(*offset, V::load(from.add(n * V::LANES))).store(from.add(n * V::LANES));
            }
            let row = std::slice::from_raw_parts_mut(y.add(b * f.outs + f.first), width);
            row.copy_from_slice(std::slice::from_raw_parts(from, width));
            finish(f.first, row);
        }
    }
}

#[inline(always)]
unsafe fn gradient_block<M: Machine, V: Vector, const N: usize>(g: Gradient, block: *mut f32, dw: *mut f32) {
    let [rows, columns] = g.x.shape;
    let width = OUTS.min(g.outs - g.first);
    let (mut panel, mut turned) = (Panel([0.0; COLS * OUTS]), Panel([0.0; COLS * OUTS]));
    let (tile, turned) = (panel.0.as_mut_ptr(), turned.0.as_mut_ptr());
    unsafe {
        for b in 0..rows {
            let to = block.add(b * OUTS);
            std::ptr::copy_nonoverlapping(g.dy.as_ptr().add(b * g.outs + g.first), to, width);
            std::ptr::write_bytes(to.add(width), 0, OUTS - width);
        }
        // Rows are below `rows` and starts ascend, as `Panels::columns` made them.
        let (starts, at, values) = (g.x.starts.as_ptr(), g.x.at.as_ptr(), g.x.values.as_ptr());
        for p in g.panels[0]..g.panels[1] {
            let (c, cols) = (p * COLS, COLS.min(columns - p * COLS));
            for k in 0..cols {
                let mut sums = [V::splat(0.0); N];
                for e in *starts.add(c + k) as usize..*starts.add(c + k + 1) as usize {
                    let (v, from) = (V::splat(*values.add(e)), block.add(*at.add(e) as usize * OUTS));
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = v.mul_add(V::load(from.add(n * V::LANES)), *sum);
                    }
                }
                for (n, sum) in sums.iter().enumerate() {
                    sum.store(tile.add(k * OUTS + n * V::LANES));
                }
            }
            M::transpose(turned, COLS, tile, OUTS, OUTS, cols);
            for h in 0..width {
                let to = std::slice::from_raw_parts_mut(dw.add((g.first + h) * columns + c), cols);
                let from = std::slice::from_raw_parts(turned.add(h * COLS), cols);
                match (g.base.get(c..c + cols), g.add) {
                    (None, false) => to.copy_from_slice(from),
                    (None, true) => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                    (Some(base), add) => {
                        let sum = *g.sums.get_unchecked(g.first + h);
                        for ((to, from), base) in to.iter_mut().zip(from).zip(base) {
                            *to = if add { *to } else { 0.0 } + (from + sum * base);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
