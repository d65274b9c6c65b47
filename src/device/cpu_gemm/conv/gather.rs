//! The small images from the large ones: W · patches(L).

use super::phases::split;
use super::*;

/// Tasks are so many cells of the batch by so many parts of the small channels.
#[derive(Clone, Copy)]
struct GatherPlan {
    groups: usize,
    parts: usize,
    planes: usize,
    sums: usize,
}

impl GatherPlan {
    fn new(g: &Geometry, threads: usize) -> GatherPlan {
        let [oc, ..] = g.small;
        let columns = (BLOCK / oc.max(1)).clamp(128, 1024);
        let wanted = columns.div_ceil(g.pixels().max(1)).min(g.batch.div_ceil(threads.max(1))).max(1);
        // Few columns in all: channels are divided rather than cells, so that a panel is packed for many rows.
        let wanted = if g.batch * g.pixels() <= columns { g.batch } else { wanted };
        let groups = g.batch.div_ceil(wanted.max(1)).max(1);
        let cells = g.batch.div_ceil(groups);
        let parts = if groups < threads { threads.div_ceil(groups).min(oc.div_ceil(32)).max(1) } else { 1 };
        // Small images share a panel, and then have their sums beside one another.
        let sums = if g.pixels() < PANEL { oc * (cells * g.pixels()).next_multiple_of(PANEL) } else { 0 };
        GatherPlan { groups, parts, planes: cells * g.large[0] * g.plane(), sums }
    }
    /// Panel, planes, sums.
    fn slot(&self) -> usize {
        (DEPTH * PANEL + self.planes + self.sums).next_multiple_of(64)
    }
}

struct Gather<'a, F> {
    g: &'a Geometry,
    small: Shared,
    large: &'a [f32],
    w: &'a [f32],
    add: bool,
    finish: &'a F,
    cells: [usize; 2],
    rows: [usize; 2],
    panel: *mut f32,
    planes: *mut f32,
    sums: *mut f32,
}

/// small (+)= W ⋆ large; then `finish(channel, part of a row of pixels)` once for every element.
/// small [B, OC·OH·OW], large [B, C·H·W], w [OC, C·k·k].
pub fn gather(g: &Geometry, small: &mut [f32], large: &[f32], w: &[f32], add: bool, finish: impl Fn(usize, &mut [f32]) + Sync) {
    check(g, small.len(), large.len(), w.len());
    let threads = rayon::current_num_threads();
    let plan = GatherPlan::new(g, threads);
    let small = Shared(small.as_mut_ptr());
    with_scratch(threads * plan.slot(), |scratch| {
        let scratch = Shared(scratch.as_mut_ptr());
        tasks(plan.groups * plan.parts, g.macs(), |task| {
            let panel = scratch.slot(plan.slot(), threads);
            let planes = panel.wrapping_add(DEPTH * PANEL);
            on_this_machine(&Gather {
                g,
                small,
                large,
                w,
                add,
                finish: &finish,
                cells: cut(g.batch, 1, task / plan.parts, plan.groups),
                rows: cut(g.small[0], 8, task % plan.parts, plan.parts),
                panel,
                planes,
                sums: planes.wrapping_add(plan.planes),
            });
        });
    });
}

impl<F: Fn(usize, &mut [f32])> Job for Gather<'_, F> {
    #[inline(always)]
    unsafe fn run<M: Machine>(&self) {
        let g = self.g;
        let [cells, rows] = [self.cells, self.rows].map(|[from, to]| to - from);
        if cells * rows * g.pixels() == 0 {
            return;
        }
        unsafe {
            for cell in 0..cells {
                for c in 0..g.large[0] {
                    let from = self.large.as_ptr().add((self.cells[0] + cell) * g.large_size() + c * g.large[1] * g.large[2]);
                    split(g, self.planes.add((cell * g.large[0] + c) * g.plane()), from);
                }
            }
            // Panels within an image where it fills them, and over the images' pixels side by side where not.
            let (shared, pixels, depth) = (g.pixels() < M::WIDE, g.pixels(), g.depth());
            let (images, columns) = if shared { (1, cells * pixels) } else { (cells, pixels) };
            let c_row = if shared { columns } else { pixels };
            let tiles = rows.div_ceil(M::ROWS);
            for start in (0..depth.max(1)).step_by(DEPTH) {
                let (k, last) = (DEPTH.min(depth - start), start + DEPTH >= depth);
                for image in 0..images {
                    let c = if shared { self.sums } else { self.small.add(((self.cells[0] + image) * g.small[0] + self.rows[0]) * pixels) };
                    let from = self.planes.add(image * g.large[0] * g.plane());
                    for first in (0..columns).step_by(M::WIDE) {
                        let cols = M::WIDE.min(columns - first);
                        let width = cols.next_multiple_of(M::NARROW);
                        clear(self.panel, width, k, cols);
                        let mut taps = Taps::new(g, start);
                        let runs = Runs::new(first, cols, [g.small[1], g.small[2]], g.phase()[1], g.large[0] * g.plane());
                        runs.pack(self.panel, width, k, from, || taps.step());
                        for t in 0..tiles {
                            let (top, bottom) = (t * rows / tiles, (t + 1) * rows / tiles);
                            M::tile(Tile {
                                rows: bottom - top,
                                cols,
                                k,
                                c: c.add(top * c_row + first),
                                c_row,
                                a: self.w.as_ptr().add((self.rows[0] + top) * depth + start),
                                a_row: depth,
                                a_step: 1,
                                b: self.panel,
                                add: start > 0 || (self.add && !shared),
                            });
                        }
                        if last && !shared {
                            for i in 0..rows {
                                // SAFETY: row i of this panel of C, which nobody else writes.
                                (self.finish)(self.rows[0] + i, std::slice::from_raw_parts_mut(c.add(i * c_row + first), cols));
                            }
                        }
                    }
                }
            }
            if shared {
                for cell in 0..cells {
                    for i in 0..rows {
                        let to = self.small.add(((self.cells[0] + cell) * g.small[0] + self.rows[0] + i) * pixels);
                        // SAFETY: as above; and of the sums, which are this task's.
                        let (to, sums) = (
                            std::slice::from_raw_parts_mut(to, pixels),
                            std::slice::from_raw_parts(self.sums.add(i * columns + cell * pixels), pixels),
                        );
                        if self.add {
                            to.iter_mut().zip(sums).for_each(|(y, s)| *y += s);
                        } else {
                            to.copy_from_slice(sums);
                        }
                        (self.finish)(self.rows[0] + i, to);
                    }
                }
            }
        }
    }
}
