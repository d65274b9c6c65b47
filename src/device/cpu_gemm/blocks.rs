//! Products whose A does not fit the second-level cache: the same tiles, block by block of A.
//!
//! Going down A for every panel of B would bring all of A from memory as often as there are panels, and of a transposed A a few bytes a
//! page at a time. Here a block of [`ROWS`] rows by [`DEPTH`] steps of A is copied once, tile after tile as the tiles read it, and stays in
//! the second-level cache while every panel of B passes it. B is copied again for every block: a thirtieth of the work of its products.
//!
//! An element of C is still one chain of multiply-adds over k = 0, 1, 2, ...: no bit differs from the other way.

use super::{DEPTH, Machine, Panel, Piece, Tile};
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Rows of a block.
const ROWS: usize = 512;
/// Columns of a tile of A as copied: the highest tile, and whole vectors.
const WIDTH: usize = 8;
/// From so many numbers of A on: a quarter of the second-level cache that most processors have.
const LARGE: usize = 1 << 16;
/// From so many panels on: fewer do not pay for the copy.
const PANELS: usize = 4;

thread_local! {
    /// A block of A, made when a thread first needs it and kept. A product of one piece calls no other, so it is never needed twice at once.
    static BLOCK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Whether a piece is one for [`blocks`].
pub(super) fn wanted<M: Machine>(p: &Piece) -> bool {
    p.rows * p.k >= LARGE && p.rows >= 4 * M::ROWS && p.cols >= PANELS * M::WIDE
}

/// The piece, block by block of A. `p.k` is not 0.
#[inline(always)]
pub(super) unsafe fn blocks<M: Machine>(p: Piece, finish: &impl Fn(usize, &mut [f32])) {
    // Taken out, not borrowed: a closure would be compiled for any processor, and all that it calls with it.
    let mut kept = BLOCK.take();
    // Tiles of a block, each WIDTH wide, in whole cache lines.
    kept.resize((ROWS / M::ROWS + 1) * WIDTH * DEPTH + 16, 0.0);
    let block = kept.as_mut_ptr();
    let block = unsafe { block.add(block.align_offset(64)) };
    for top in (0..p.rows).step_by(ROWS) {
        let rows = ROWS.min(p.rows - top);
        for start in (0..p.k).step_by(DEPTH) {
            // SAFETY: rows and steps lie in the piece; the block has room for all tiles of them.
            unsafe { pass::<M>(&p, block, [top, rows], [start, DEPTH.min(p.k - start)], finish) }
        }
    }
    BLOCK.set(kept);
}

/// Every panel of B against rows `top ..` and steps `start ..` of A.
#[inline(always)]
unsafe fn pass<M: Machine>(
    p: &Piece,
    block: *mut f32,
    [top, rows]: [usize; 2],
    [start, k]: [usize; 2],
    finish: &impl Fn(usize, &mut [f32]),
) {
    let tiles = rows.div_ceil(M::ROWS);
    // Tiles of equal height, give or take one row.
    let of = |t: usize| (t * rows / tiles, (t + 1) * rows / tiles);
    let place = |t: usize| t * WIDTH * DEPTH;
    for t in 0..tiles {
        let (first, end) = of(t);
        unsafe {
            let from = p.a.wrapping_add((top + first) * p.a_row + start * p.a_step);
            let to = block.add(place(t));
            if p.a_row == 1 {
                M::copy(to, WIDTH, from, p.a_step, k, end - first);
            } else {
                M::transpose(to, WIDTH, from, p.a_row, k, end - first);
            }
        }
    }
    let mut panel = Panel([const { MaybeUninit::uninit() }; DEPTH * super::PANEL]);
    let packed = panel.0.as_mut_ptr().cast::<f32>();
    for j in (0..p.cols).step_by(M::WIDE) {
        let cols = M::WIDE.min(p.cols - j);
        let width = cols.next_multiple_of(M::NARROW);
        unsafe {
            let from = p.b.wrapping_add(start * p.b_step + j * p.b_col);
            if p.b_col == 1 {
                M::copy(packed, width, from, p.b_step, k, cols);
            } else {
                M::transpose(packed, width, from, p.b_col, k, cols);
            }
            let c = p.c.add(top * p.c_row + j);
            for t in 0..tiles {
                let (first, end) = of(t);
                let (c, a) = (c.add(first * p.c_row), block.add(place(t)).cast_const());
                let add = p.add || start > 0;
                M::tile(Tile { rows: end - first, cols, k, c, c_row: p.c_row, a, a_row: 1, a_step: WIDTH, b: packed, add });
            }
            if start + k == p.k {
                for i in 0..rows {
                    // SAFETY: a row of this panel of C, which nobody else writes.
                    finish(p.first + j, std::slice::from_raw_parts_mut(c.add(i * p.c_row), cols));
                }
            }
        }
    }
}
