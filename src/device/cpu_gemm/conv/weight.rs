//! The weights' gradient: the sum over the cells of S · patches(L)ᵀ.

use super::*;

/// Tasks are so many taps by so many parts of the small channels.
#[derive(Clone, Copy)]
struct WeightPlan {
    blocks: usize,
    parts: usize,
}

impl WeightPlan {
    fn new(g: &Geometry, threads: usize) -> WeightPlan {
        let (oc, depth) = (g.small[0], g.depth());
        let columns = (BLOCK / oc.max(1)).clamp(64, 1024).next_multiple_of(PANEL);
        let blocks = depth.div_ceil(columns).max(threads.min(depth.div_ceil(4 * PANEL))).max(1);
        let parts = if blocks < threads { threads.div_ceil(blocks).min(oc.div_ceil(16)).max(1) } else { 1 };
        WeightPlan { blocks, parts }
    }
}

struct Weight<'a> {
    g: &'a Geometry,
    dw: Shared,
    /// [B, OC·OH·OW], or [OC, B·OH·OW] if `turned`.
    small: &'a [f32],
    large: &'a [f32],
    add: bool,
    turned: bool,
    cols: [usize; 2],
    rows: [usize; 2],
}

/// dw (+)= Σ over the cells of small · patches(large)ᵀ. Sizes as for [`gather`].
pub fn weight(g: &Geometry, dw: &mut [f32], small: &[f32], large: &[f32], add: bool) {
    check(g, small.len(), large.len(), dw.len());
    let plan = WeightPlan::new(g, rayon::current_num_threads());
    let dw = Shared(dw.as_mut_ptr());
    let run = |small: &[f32], turned| {
        tasks(plan.blocks * plan.parts, g.macs(), |task| {
            on_this_machine(&Weight {
                g,
                dw,
                small,
                large,
                add,
                turned,
                cols: cut(g.depth(), PANEL, task / plan.parts, plan.blocks),
                rows: cut(g.small[0], 8, task % plan.parts, plan.parts),
            });
        })
    };
    if g.pixels() >= SHORT || g.batch <= 1 || small.is_empty() {
        return run(small, false);
    }
    with_scratch(small.len(), |turned| {
        turn(g, turned, small);
        run(turned, true);
    });
}

/// [B, OC·OH·OW] to [OC, B·OH·OW].
fn turn(g: &Geometry, to: &mut [f32], small: &[f32]) {
    let (oc, pixels) = (g.small[0], g.pixels());
    cpu::rows(to, g.batch * pixels, |c, to| {
        for (b, to) in to.chunks_exact_mut(pixels).enumerate() {
            to.copy_from_slice(&small[(b * oc + c) * pixels..][..pixels]);
        }
    });
}

impl Job for Weight<'_> {
    #[inline(always)]
    unsafe fn run<M: Machine>(&self) {
        let (g, [oc, ..]) = (self.g, self.g.small);
        let (pixels, depth, rows) = (g.pixels(), g.depth(), self.rows[1] - self.rows[0]);
        let mut panel = Panel([const { MaybeUninit::uninit() }; DEPTH * PANEL]);
        let packed = panel.0.as_mut_ptr().cast::<f32>();
        // Where a row of A runs on: within an image, or over all of them.
        let (stretches, length) = if self.turned { (1, g.batch * pixels) } else { (g.batch, pixels) };
        let tiles = rows.div_ceil(M::ROWS);
        let mut add = self.add;
        for stretch in 0..stretches.max(1) {
            for start in (0..length.max(1)).step_by(DEPTH) {
                let k = if stretches == 0 { 0 } else { DEPTH.min(length - start) };
                for j in (self.cols[0]..self.cols[1]).step_by(M::WIDE) {
                    let cols = M::WIDE.min(self.cols[1] - j);
                    let width = cols.next_multiple_of(M::NARROW);
                    unsafe {
                        clear(packed, width, k, cols);
                        self.patches(packed, width, stretch * length + start, k, j, cols);
                        for t in 0..tiles {
                            let (top, bottom) = (t * rows / tiles, (t + 1) * rows / tiles);
                            let row = self.rows[0] + top;
                            M::tile(Tile {
                                rows: bottom - top,
                                cols,
                                k,
                                c: self.dw.add(row * depth + j),
                                c_row: depth,
                                a: self.small.as_ptr().wrapping_add((stretch * oc + row) * length + start),
                                a_row: length,
                                a_step: 1,
                                b: packed,
                                add,
                            });
                        }
                    }
                }
                add = true;
            }
        }
    }
}

/// Neighbouring taps of one row of a kernel, as columns of a panel.
#[derive(Clone, Copy, Default)]
struct Segment {
    to: usize,
    /// Where the channel begins in an image.
    channel: usize,
    ky: usize,
    kx: usize,
    len: usize,
}

impl Weight<'_> {
    /// to[p][j] = what tap `first + j` reads for pixel `start + p` of the whole batch.
    #[inline(always)]
    unsafe fn patches(&self, to: *mut f32, width: usize, start: usize, k: usize, first: usize, cols: usize) {
        let (g, [oh, ow]) = (self.g, [self.g.small[1], self.g.small[2]]);
        let mut segments = [Segment::default(); PANEL];
        let (mut count, mut j) = (0, 0);
        while j < cols {
            let (channel, tap) = ((first + j) / g.taps(), (first + j) % g.taps());
            let (ky, kx) = (tap / g.kernel, tap % g.kernel);
            let len = (g.kernel - kx).min(cols - j);
            segments[count] = Segment { to: j, channel: channel * g.large[1] * g.large[2], ky, kx, len };
            (count, j) = (count + 1, j + len);
        }
        // Pixels by rows of S.
        let (mut line, mut x, mut p) = (start / ow.max(1), start % ow.max(1), 0);
        while p < k {
            let len = (ow - x).min(k - p);
            let (cell, oy) = (line / oh, line % oh);
            let image = unsafe { self.large.as_ptr().add(cell * g.large_size()) };
            for s in &segments[..count] {
                let to = unsafe { to.add(p * width + s.to) };
                let y = (oy * g.stride + s.ky).wrapping_sub(g.padding);
                unsafe {
                    if y >= g.large[1] {
                        for i in 0..len {
                            (0..s.len).for_each(|l| *to.add(i * width + l) = 0.0);
                        }
                    } else {
                        let row = image.add(s.channel + y * g.large[2]);
                        match s.len {
                            1 => self.row::<1>(to, width, row, x, len, s),
                            3 => self.row::<3>(to, width, row, x, len, s),
                            4 => self.row::<4>(to, width, row, x, len, s),
                            5 => self.row::<5>(to, width, row, x, len, s),
                            _ => self.row::<0>(to, width, row, x, len, s),
                        }
                    }
                }
            }
            (p, line, x) = (p + len, line + 1, 0);
        }
    }

    /// The taps of a segment for pixels x..x + count of a row of S. LEN is the segment's length, or 0 if that is no constant.
    #[inline(always)]
    unsafe fn row<const LEN: usize>(&self, to: *mut f32, width: usize, row: *const f32, x: usize, count: usize, s: &Segment) {
        let (g, n) = (self.g, if LEN == 0 { s.len } else { LEN });
        let (w, stride, padding) = (g.large[2], g.stride, g.padding);
        // Pixels x + i whose taps all lie inside the row.
        let lo = padding.saturating_sub(s.kx).div_ceil(stride).clamp(x, x + count) - x;
        let end = (w + padding + 1).saturating_sub(s.kx + n).div_ceil(stride);
        let hi = end.clamp(x + lo, x + count) - x;
        for i in (0..lo).chain(hi..count) {
            for l in 0..n {
                let at = ((x + i) * stride + s.kx + l).wrapping_sub(padding);
                unsafe { *to.add(i * width + l) = if at < w { *row.add(at) } else { 0.0 } };
            }
        }
        for i in lo..hi {
            let from = unsafe { row.add((x + i) * stride + s.kx - padding) };
            unsafe {
                if LEN == 0 {
                    (0..n).for_each(|l| *to.add(i * width + l) = *from.add(l));
                } else {
                    to.add(i * width).cast::<[f32; LEN]>().write_unaligned(from.cast::<[f32; LEN]>().read_unaligned());
                }
            }
        }
    }
}
