//! The large images from the small ones: the overlap-add of Wᵀ · S.

use super::phases::join;
use super::*;

/// Tasks are so many cells of the batch by so many parts of the large channels.
#[derive(Clone, Copy)]
struct ScatterPlan {
    groups: usize,
    parts: usize,
    /// Channels of L at once.
    channels: usize,
    /// Columns, in whole panels.
    columns: usize,
    /// Words of S packed, of Wᵀ packed, of the products, of a plane.
    words: [usize; 4],
}

impl ScatterPlan {
    fn new(g: &Geometry, threads: usize) -> ScatterPlan {
        let (columns, oc) = (512usize, g.small[0]);
        let wanted = columns.div_ceil(g.pixels().max(1)).min(g.batch.div_ceil(threads.max(1))).max(1);
        let wanted = if g.batch * g.pixels() <= columns { g.batch } else { wanted };
        let groups = g.batch.div_ceil(wanted.max(1)).max(1);
        let cells = g.batch.div_ceil(groups);
        let parts = if groups < threads { threads.div_ceil(groups).min(g.large[0]).max(1) } else { 1 };
        let channels = (ROWS_AT_ONCE / g.taps().max(1)).clamp(1, g.large[0].max(1));
        let columns = (cells * g.pixels()).next_multiple_of(PANEL);
        let rows = channels * g.taps();
        let words = [oc * columns, DEPTH * rows.next_multiple_of(8).next_multiple_of(6), rows * columns, g.plane()];
        ScatterPlan { groups, parts, channels, columns, words: words.map(|w| w.next_multiple_of(64)) }
    }
    fn slot(&self) -> usize {
        self.words.iter().sum()
    }
}

struct Scatter<'a, F> {
    g: &'a Geometry,
    plan: &'a ScatterPlan,
    large: Shared,
    small: &'a [f32],
    w: &'a [f32],
    add: bool,
    finish: &'a F,
    cells: [usize; 2],
    channels: [usize; 2],
    slot: *mut f32,
}

/// large (+)= overlap-add of Wᵀ·small; then `finish(channel, rows of pixels)` once for every element. Sizes as for [`gather`].
pub fn scatter(g: &Geometry, large: &mut [f32], small: &[f32], w: &[f32], add: bool, finish: impl Fn(usize, &mut [f32]) + Sync) {
    check(g, small.len(), large.len(), w.len());
    let threads = rayon::current_num_threads();
    let plan = ScatterPlan::new(g, threads);
    let large = Shared(large.as_mut_ptr());
    with_scratch(threads * plan.slot(), |scratch| {
        let scratch = Shared(scratch.as_mut_ptr());
        tasks(plan.groups * plan.parts, g.macs(), |task| {
            on_this_machine(&Scatter {
                g,
                plan: &plan,
                large,
                small,
                w,
                add,
                finish: &finish,
                cells: cut(g.batch, 1, task / plan.parts, plan.groups),
                channels: cut(g.large[0], 1, task % plan.parts, plan.parts),
                slot: scratch.slot(plan.slot(), threads),
            });
        });
    });
}

impl<F: Fn(usize, &mut [f32])> Job for Scatter<'_, F> {
    #[inline(always)]
    unsafe fn run<M: Machine>(&self) {
        let (g, plan) = (self.g, self.plan);
        let (cells, [oc, ..]) = (self.cells[1] - self.cells[0], g.small);
        let (pixels, taps, depth) = (g.pixels(), g.taps(), g.depth());
        let columns = cells * pixels;
        if cells * g.large_size() == 0 {
            return;
        }
        unsafe {
            let [packed, weights, products] = [0, plan.words[0], plan.words[0] + plan.words[1]].map(|words| self.slot.add(words));
            let plane = products.add(plan.words[2]);
            // S in panels, one after the other, each all of its channels deep.
            for first in (0..columns).step_by(M::WIDE) {
                let cols = M::WIDE.min(columns - first);
                let width = cols.next_multiple_of(M::NARROW);
                let to = packed.add(first * oc);
                clear(to, width, oc, cols);
                let mut channel = 0;
                let runs = Runs::new(first, cols, [1, pixels], 0, g.small_size());
                runs.pack(to, width, oc, self.small.as_ptr().add(self.cells[0] * g.small_size()), || {
                    channel += 1;
                    (channel - 1) * pixels
                });
            }
            for c in (self.channels[0]..self.channels[1]).step_by(plan.channels) {
                let channels = plan.channels.min(self.channels[1] - c);
                let rows = channels * taps;
                for start in (0..oc.max(1)).step_by(DEPTH) {
                    let k = DEPTH.min(oc - start);
                    turn_rows::<M>(weights, self.w.as_ptr().wrapping_add(start * depth + c * taps), depth, k, rows);
                    for first in (0..columns).step_by(M::WIDE) {
                        let cols = M::WIDE.min(columns - first);
                        let width = cols.next_multiple_of(M::NARROW);
                        for top in (0..rows).step_by(M::ROWS) {
                            M::tile(Tile {
                                rows: M::ROWS.min(rows - top),
                                cols,
                                k,
                                c: products.add(top * plan.columns + first),
                                c_row: plan.columns,
                                a: weights.add(top * k),
                                a_row: 1,
                                a_step: M::ROWS,
                                b: packed.add(first * oc + start * width),
                                add: start > 0,
                            });
                        }
                    }
                }
                for channel in 0..channels {
                    for cell in 0..cells {
                        self.overlap(plane, products.add(channel * taps * plan.columns + cell * pixels), plan.columns);
                        let size = g.large[1] * g.large[2];
                        let to = self.large.add((self.cells[0] + cell) * g.large_size() + (c + channel) * size);
                        // SAFETY: this channel of this cell, which nobody else writes.
                        let to = std::slice::from_raw_parts_mut(to, size);
                        join(g, to, plane, self.add);
                        (self.finish)(c + channel, to);
                    }
                }
            }
        }
    }
}

/// Tiles of `M::ROWS` rows, one after the other: to[tile][p][i] = from[p·step + tile·ROWS + i].
#[inline(always)]
unsafe fn turn_rows<M: Machine>(to: *mut f32, from: *const f32, step: usize, k: usize, rows: usize) {
    for p in 0..k {
        let from = from.wrapping_add(p * step);
        let whole = rows / M::ROWS * M::ROWS;
        for top in (0..whole).step_by(M::ROWS) {
            for i in 0..M::ROWS {
                unsafe { *to.add(top * k + p * M::ROWS + i) = *from.add(top + i) };
            }
        }
        for i in whole..rows {
            unsafe { *to.add(whole * k + p * M::ROWS + i - whole) = *from.add(i) };
        }
    }
}

impl<F> Scatter<'_, F> {
    /// The taps' products of one channel of one cell, each where it belongs in the channel's phases.
    #[inline(always)]
    unsafe fn overlap(&self, plane: *mut f32, products: *const f32, row: usize) {
        let g = self.g;
        let ([oh, ow], pitch) = ([g.small[1], g.small[2]], g.phase()[1]);
        unsafe {
            std::ptr::write_bytes(plane, 0, g.plane());
            let mut taps = Taps::new(g, 0);
            for tap in 0..g.taps() {
                let (to, from) = (plane.add(taps.step()), products.add(tap * row));
                match ow {
                    2 => add_rows::<2>(to, from, pitch, oh),
                    4 => add_rows::<4>(to, from, pitch, oh),
                    8 => add_rows::<8>(to, from, pitch, oh),
                    16 => add_rows::<16>(to, from, pitch, oh),
                    32 => add_rows::<32>(to, from, pitch, oh),
                    _ => {
                        for i in 0..oh {
                            for j in 0..ow {
                                *to.add(i * pitch + j) += *from.add(i * ow + j);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn add_rows<const N: usize>(to: *mut f32, from: *const f32, pitch: usize, rows: usize) {
    for i in 0..rows {
        unsafe {
            let at = to.add(i * pitch).cast::<[f32; N]>();
            let (mut sums, more) = (at.read_unaligned(), from.add(i * N).cast::<[f32; N]>().read_unaligned());
            for (s, m) in sums.iter_mut().zip(more) {
                *s += m;
            }
            at.write_unaligned(sums);
        }
    }
}
