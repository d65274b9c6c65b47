//! Products of few rows with a wide B that lies transposed: a small minibatch through a wide layer.
//!
//! Copying B into panels pays where many rows pass over them. Here B (a layer's weights [n, k]) is read where it lies, once, as the tiles read
//! an A, and it is the few rows of A that are copied: Cᵀ = B·Aᵀ, tile by tile, each turned as it is written.
//!
//! An element of C is still one chain of multiply-adds over k = 0, 1, 2, ...: no bit differs from the other ways.
//!
//! Measured with `cargo test --release --lib times_beside -- --ignored --nocapture` on one core of an AVX-512 EPYC, weights of 2,613 x 2,613: 32 rows
//! 201 GFLOP/s (the gemm crate 50), 64 rows 213 (84), 128 rows 212 (110). With `MOST` at 0, so that B is copied, it is 119, 154 and
//! 185; at 256 rows 204, and 223 this way.

use super::{Machine, Piece, Tile, transpose_part};
use std::cell::RefCell;

/// As many rows: each panel of them reads B again, from the second-level cache, and at more the copy of B costs as little.
const MOST: usize = 256;
/// Sums shorter than that are done before turning the tiles has paid; of longer ones a panel of A leaves the second-level cache.
const DEPTHS: std::ops::RangeInclusive<usize> = 512..=4096;
/// Columns of C below which copying A costs as much as copying B.
const LEAST: usize = 128;
/// Tiles that are turned together.
const GROUP: usize = 4;

thread_local! {
    /// Aᵀ in panels, made when a thread first needs it and kept.
    static ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Whether a piece is one for [`few`].
pub(super) fn wanted(p: &Piece) -> bool {
    let layout = p.a_step == 1 && p.b_step == 1 && p.b_col != 1;
    layout && (1..=MOST).contains(&p.rows) && DEPTHS.contains(&p.k) && p.cols >= LEAST
}

/// The piece, a few columns of C at a time.
#[inline(always)]
pub(super) unsafe fn few<M: Machine>(p: Piece, finish: &impl Fn(usize, &mut [f32])) {
    // Taken out, not borrowed: see `blocks`.
    let mut kept = ROWS.take();
    let panels = p.rows.div_ceil(M::WIDE);
    // Room for the largest at once, so that a thread allocates the first time alone; its pages are touched as they are needed.
    let room = panels * M::WIDE * p.k + 16;
    if kept.len() < room {
        kept.reserve_exact(MOST * DEPTHS.end() + 16 - kept.len());
        kept.resize(room, 0.0);
    }
    let packed = kept.as_mut_ptr();
    let packed = unsafe { packed.add(packed.align_offset(64)) };
    let panel = |t: usize| unsafe { packed.add(t * M::WIDE * p.k) };
    // Rows of A in a panel, and how wide it is: a power of two, because three narrow vectors take longer than two wide ones.
    let of = |t: usize| {
        let rows = M::WIDE.min(p.rows - t * M::WIDE);
        (rows, rows.next_power_of_two().max(M::NARROW))
    };
    for t in 0..panels {
        let (rows, width) = of(t);
        // SAFETY: the rows are A's, and the panel has room for `k` times the widest.
        unsafe { M::transpose(panel(t), width, p.a.add(t * M::WIDE * p.a_row), p.a_row, p.k, rows) }
    }
    // A group of tiles of Cᵀ.
    let mut turned = [0.0f32; 8 * GROUP * super::PANEL];
    let turned = turned.as_mut_ptr();
    for j in (0..p.cols).step_by(GROUP * M::ROWS) {
        let cols = (GROUP * M::ROWS).min(p.cols - j);
        for t in 0..panels {
            let (rows, width) = of(t);
            // SAFETY: this group's columns of this panel's rows of C.
            unsafe {
                let c = p.c.add(t * M::WIDE * p.c_row + j);
                if p.add {
                    transpose_part(turned, M::WIDE, c, p.c_row, 0..cols, 0..rows);
                }
                for first in (0..cols).step_by(M::ROWS) {
                    M::tile(Tile {
                        rows: M::ROWS.min(cols - first),
                        cols: width,
                        k: p.k,
                        c: turned.add(first * M::WIDE),
                        c_row: M::WIDE,
                        a: p.b.add((j + first) * p.b_col),
                        a_row: p.b_col,
                        a_step: 1,
                        b: panel(t),
                        add: p.add,
                    });
                }
                transpose_part(c, p.c_row, turned, M::WIDE, 0..rows, 0..cols);
                for i in 0..rows {
                    finish(p.first + j, std::slice::from_raw_parts_mut(c.add(i * p.c_row), cols));
                }
            }
        }
    }
    ROWS.set(kept);
}
