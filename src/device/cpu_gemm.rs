//! The matrix product of the processor: C = op(A)·op(B), or added to C; best at products as small as a model's layers.
//!
//! A panel of B (a few vectors wide, `DEPTH` deep) is copied, transposed if need be, to the stack; tiles of up to eight rows of C then
//! run down the panel with their sums in registers. Nothing is allocated. A is read where it lies: its rows as they are, or its
//! columns when it is transposed; a large A is copied to the second-level cache block by block (`blocks`), and where few rows meet a wide
//! transposed B it is B that is read where it lies (`few`).
//!
//! Every element of C is one chain of fused multiply-adds over k = 0, 1, 2, ..., whatever the layout, the tile it falls into and the number of
//! threads: those change no bit. A processor without fma rounds twice, and there alone the results are others.
//!
//! Measured with `cargo test --release --lib times_beside -- --ignored --nocapture` on one core of an AVX-512 EPYC (118 GFLOP/s in fma alone): a
//! patchseq step's products (100x50x1252 and its transposes) 95 to 107 GFLOP/s, 100x50x50 91 to 94, 512x1024x1024 106, 256x1024x9153 102; the gemm
//! crate 80 to 101, 71 to 78, 86 and 104. Two threads: 1.6 to 1.8 times as fast on the first, 2.0 on the last two.

use std::mem::MaybeUninit;

/// op(A) and op(B): N as it lies in memory, T transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A is [m, k], B is [k, n].
    NN,
    /// A is [m, k], B is [n, k].
    NT,
    /// A is [k, m], B is [k, n].
    TN,
}

/// How much of k a panel of B covers: 32 columns of it fill the first-level cache, and are read once a row tile.
const DEPTH: usize = 256;
/// Columns of a panel, at most.
const PANEL: usize = 32;
/// Multiply-adds below which a second thread is not asked: 3 µs of one core. On a worker of the pool, as in training, the others are awake
/// and a join costs less than one.
const ALONE: usize = 1 << 17;
/// The same from outside the pool, where the caller has to wake a worker and sleep itself: 20 µs.
const ALONE_OUTSIDE: usize = 1 << 20;

/// Part of a product: all of k, some rows and columns of C.
#[derive(Clone, Copy)]
struct Piece {
    rows: usize,
    cols: usize,
    k: usize,
    /// First column of this piece in C.
    first: usize,
    c: *mut f32,
    c_row: usize,
    a: *const f32,
    a_row: usize,
    a_step: usize,
    b: *const f32,
    b_step: usize,
    b_col: usize,
    add: bool,
}

// SAFETY: pieces that run at once write disjoint rows or columns of C and only read A and B.
unsafe impl Send for Piece {}

/// c[m, n] (+)= op(a)·op(b), on at most `threads` threads; then `finish(first column, part of a row)` once for every element of C.
#[track_caller]
#[allow(clippy::too_many_arguments)] // a matrix product's own
pub fn gemm(
    layout: Layout,
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    a: &[f32],
    b: &[f32],
    add: bool,
    threads: usize,
    finish: impl Fn(usize, &mut [f32]) + Sync,
) {
    assert!(
        c.len() == m * n && a.len() == m * k && b.len() == k * n,
        "gemm: operands of {}, {}, {} for [{m}, {n}, {k}]",
        c.len(),
        a.len(),
        b.len()
    );
    let (a_row, a_step) = if layout == Layout::TN { (1, m) } else { (k, 1) };
    let (b_step, b_col) = if layout == Layout::NT { (1, k) } else { (n, 1) };
    let (c, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
    let whole = Piece { rows: m, cols: n, k, first: 0, c, c_row: n, a, a_row, a_step, b, b_step, b_col, add };
    let alone = if rayon::current_thread_index().is_some() { ALONE } else { ALONE_OUTSIDE };
    divide(whole, if m * n * k < alone { 1 } else { threads }, &finish);
}

/// Halves the piece for the threads, along columns as long as each gets whole panels enough, else along rows.
fn divide(p: Piece, threads: usize, finish: &(impl Fn(usize, &mut [f32]) + Sync)) {
    if threads <= 1 || p.rows * p.cols * p.k < ALONE / 2 {
        return run(p, finish);
    }
    let left = threads / 2;
    let (mut x, mut y) = (p, p);
    // SAFETY: both offsets stay inside the operands: the parts are not longer than the whole.
    unsafe {
        if p.cols >= 4 * PANEL * threads || p.cols > 2 * p.rows {
            x.cols = (p.cols * left / threads).next_multiple_of(PANEL).min(p.cols);
            y.cols = p.cols - x.cols;
            y.first += x.cols;
            y.c = p.c.add(x.cols);
            y.b = p.b.add(x.cols * p.b_col);
        } else {
            x.rows = p.rows * left / threads;
            y.rows = p.rows - x.rows;
            y.c = p.c.add(x.rows * p.c_row);
            y.a = p.a.add(x.rows * p.a_row);
        }
    }
    let (x, y) = (Whole(x), Whole(y));
    rayon::join(move || divide(x.get(), left, finish), move || divide(y.get(), threads - left, finish));
}

/// Carries a piece into a closure as one value (a closure would otherwise capture its pointers one by one).
struct Whole(Piece);
// SAFETY: as for `Piece`.
unsafe impl Send for Whole {}
impl Whole {
    fn get(self) -> Piece {
        self.0
    }
}

fn run(p: Piece, finish: &impl Fn(usize, &mut [f32])) {
    #[cfg(target_arch = "x86_64")]
    {
        use x86::{Avx2, Avx512};
        #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
        unsafe fn wide(p: Piece, finish: &impl Fn(usize, &mut [f32])) {
            unsafe { panels::<Avx512>(p, finish) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn half(p: Piece, finish: &impl Fn(usize, &mut [f32])) {
            unsafe { panels::<Avx2>(p, finish) }
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor was just asked for these instructions (AVX-512 comes with AVX2 and fma); the piece is in bounds.
            return unsafe { wide(p, finish) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { half(p, finish) };
        }
    }
    // SAFETY: the piece is in bounds.
    unsafe { panels::<Plain>(p, finish) }
}

/// A tile of C: `rows` by `cols`, its sums over `k` steps of a packed panel of B.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    cols: usize,
    k: usize,
    c: *mut f32,
    c_row: usize,
    a: *const f32,
    a_row: usize,
    a_step: usize,
    b: *const f32,
    add: bool,
}

/// What a processor offers: vectors, and how many registers of them.
///
/// The methods are functions of their own, compiled once: in line they would be in every product with an epilogue of its own, which made
/// the compiler ten times as slow and no product faster.
trait Machine {
    /// Columns of a panel; the last one is rounded up to a multiple of `NARROW`.
    const WIDE: usize;
    /// See `WIDE`.
    const NARROW: usize;
    /// Rows of a tile, at most 8.
    const ROWS: usize;
    /// Computes a tile whose panel is `cols` rounded up to `NARROW` wide.
    unsafe fn tile(t: Tile);
    /// to[p][j] = from[p·step + j] for p < k, j < cols; the rest of each row of `width` is zero.
    #[inline(never)]
    unsafe fn copy(to: *mut f32, width: usize, from: *const f32, step: usize, k: usize, cols: usize) {
        unsafe { copy_by::<[f32; 4]>(to, width, from, step, k, cols) }
    }
    /// to[p][j] = from[j·col + p] for p < k, j < cols; the rest of each row of `width` is zero.
    #[inline(never)]
    unsafe fn transpose(to: *mut f32, width: usize, from: *const f32, col: usize, k: usize, cols: usize) {
        unsafe { clear(to, width, k, cols) }
        unsafe { transpose_part(to, width, from, col, 0..k, 0..cols) }
    }
}

/// `Machine::copy` by vectors: rows of at most `PANEL` values are too short to be worth a call each.
#[inline(always)]
unsafe fn copy_by<V: Vector>(to: *mut f32, width: usize, from: *const f32, step: usize, k: usize, cols: usize) {
    for p in 0..k {
        let (to, from) = (unsafe { to.add(p * width) }, from.wrapping_add(p * step));
        for j in (0..width).step_by(V::LANES) {
            unsafe { V::load_part(from.wrapping_add(j), cols.saturating_sub(j).min(V::LANES)).store(to.add(j)) };
        }
    }
}

#[inline(always)]
unsafe fn transpose_part(
    to: *mut f32,
    width: usize,
    from: *const f32,
    col: usize,
    steps: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
) {
    for j in cols {
        for p in steps.clone() {
            unsafe { *to.add(p * width + j) = *from.add(j * col + p) };
        }
    }
}

/// Zeros throughout a panel that has columns which C does not have: cheaper than a few zeros a row.
#[inline(always)]
unsafe fn clear(to: *mut f32, width: usize, k: usize, cols: usize) {
    if cols < width {
        unsafe { std::ptr::write_bytes(to, 0, k * width) };
    }
}

#[repr(align(64))]
struct Panel([MaybeUninit<f32>; DEPTH * PANEL]);

/// The piece, panel by panel.
#[inline(always)]
unsafe fn panels<M: Machine>(p: Piece, finish: &impl Fn(usize, &mut [f32])) {
    if few::wanted(&p) {
        // SAFETY: the piece is in bounds, its A as it lies and its B transposed.
        return unsafe { few::few::<M>(p, finish) };
    }
    if blocks::wanted::<M>(&p) {
        // SAFETY: the piece is in bounds, and large.
        return unsafe { blocks::blocks::<M>(p, finish) };
    }
    let mut panel = Panel([const { MaybeUninit::uninit() }; DEPTH * PANEL]);
    let packed = panel.0.as_mut_ptr().cast::<f32>();
    let tiles = p.rows.div_ceil(M::ROWS);
    for j in (0..p.cols).step_by(M::WIDE) {
        let cols = M::WIDE.min(p.cols - j);
        let width = cols.next_multiple_of(M::NARROW);
        let c = unsafe { p.c.add(j) };
        // k = 0 still writes C once.
        for start in (0..p.k.max(1)).step_by(DEPTH) {
            let k = DEPTH.min(p.k - start);
            unsafe {
                let from = p.b.wrapping_add(start * p.b_step + j * p.b_col);
                if p.b_col == 1 {
                    M::copy(packed, width, from, p.b_step, k, cols);
                } else {
                    M::transpose(packed, width, from, p.b_col, k, cols);
                }
                for t in 0..tiles {
                    // Tiles of equal height, give or take one row: a low last tile would leave registers idle.
                    let (top, bottom) = (t * p.rows / tiles, (t + 1) * p.rows / tiles);
                    M::tile(Tile {
                        rows: bottom - top,
                        cols,
                        k,
                        c: c.add(top * p.c_row),
                        c_row: p.c_row,
                        a: p.a.wrapping_add(top * p.a_row + start * p.a_step),
                        a_row: p.a_row,
                        a_step: p.a_step,
                        b: packed,
                        add: p.add || start > 0,
                    });
                }
            }
        }
        for i in 0..p.rows {
            // SAFETY: row i of this panel of C, which nobody else writes.
            finish(p.first + j, unsafe { std::slice::from_raw_parts_mut(c.add(i * p.c_row), cols) });
        }
    }
}

/// A vector of f32.
trait Vector: Copy {
    const LANES: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// The first n ≤ LANES values at `p`, and zeros; nothing behind them is touched.
    unsafe fn load_part(p: *const f32, n: usize) -> Self;
    /// The first n ≤ LANES values to `p`.
    unsafe fn store_part(self, p: *mut f32, n: usize);
    /// self·b + c
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

/// R rows by N vectors of C. With `ACROSS`, rows of A are neighbours in memory (it is transposed), else steps are.
#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const N: usize, const ACROSS: bool>(t: Tile) {
    unsafe {
        let (row, step) = if ACROSS { (1, t.a_step) } else { (t.a_row, 1) };
        let whole = t.cols == N * V::LANES;
        // How many of a vector's values are C's.
        let part = |v: usize| t.cols.saturating_sub(v * V::LANES).min(V::LANES);
        let mut sums = [[V::splat(0.0); N]; R];
        if t.add {
            for (i, sum) in sums.iter_mut().enumerate() {
                for (v, s) in sum.iter_mut().enumerate() {
                    let from = t.c.wrapping_add(i * t.c_row + v * V::LANES).cast_const();
                    *s = if whole { V::load(from) } else { V::load_part(from, part(v)) };
                }
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.k {
            let mut columns = [V::splat(0.0); N];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = V::load(b.add(v * V::LANES));
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = V::splat(*a.add(i * row));
                for (s, column) in sum.iter_mut().zip(&columns) {
                    *s = x.mul_add(*column, *s);
                }
            }
            a = a.wrapping_add(step);
            b = b.add(N * V::LANES);
        }
        for (i, sum) in sums.iter().enumerate() {
            for (v, s) in sum.iter().enumerate() {
                let to = t.c.wrapping_add(i * t.c_row + v * V::LANES);
                if whole { s.store(to) } else { s.store_part(to, part(v)) }
            }
        }
    }
}

/// The tile of N vectors with as many rows as `t` has.
#[inline(always)]
unsafe fn tile_of_rows<V: Vector, const N: usize>(t: Tile) {
    macro_rules! rows {
        ($($r:literal)*) => {
            match (t.rows, t.a_row == 1) {
                $(($r, false) => unsafe { tile::<V, $r, N, false>(t) },
                ($r, true) => unsafe { tile::<V, $r, N, true>(t) },)*
                _ => {}
            }
        };
    }
    rows!(1 2 3 4 5 6 7 8);
}

/// Any processor: four lanes, which the compiler finds vectors for.
struct Plain;

impl Machine for Plain {
    const WIDE: usize = 8;
    const NARROW: usize = 8;
    const ROWS: usize = 4;
    #[inline(never)]
    unsafe fn tile(t: Tile) {
        unsafe { tile_of_rows::<[f32; 4], 2>(t) }
    }
}

impl Vector for [f32; 4] {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        std::array::from_fn(|l| if l < n { unsafe { *p.add(l) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        for (l, v) in self.into_iter().enumerate().take(n) {
            unsafe { *p.add(l) = v };
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // Only where fma is an instruction: as a function it would be slower than all the rest.
        #[cfg(any(target_arch = "aarch64", target_feature = "fma"))]
        return std::array::from_fn(|l| self[l].mul_add(b[l], c[l]));
        #[cfg(not(any(target_arch = "aarch64", target_feature = "fma")))]
        return std::array::from_fn(|l| self[l] * b[l] + c[l]);
    }
}

mod blocks;
mod few;
#[cfg(target_arch = "x86_64")]
mod x86;

pub mod conv;
pub mod sparse;

#[cfg(test)]
mod tests;
