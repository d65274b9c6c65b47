//! Convolution on the processor: implicit products over the tiles of [`super`]; the patches of an image are packed panel by panel and
//! never stand in memory as a whole.
//!
//! A convolution ties a *large* image L [C, H, W] to a *small* one S [OC, OH, OW] by W [OC, C·k·k]. Its three products are those of the
//! transposed convolution too, whose input is the small image:
//!
//!   gather    S_b = W · patches(L_b)                       M = OC, K = C·k·k, columns: pixels of S
//!   scatter   L_b = overlap-add of Wᵀ · S_b                 M = C·k·k, K = OC, columns: pixels of S
//!   weight    W    = Σ over b of S_b · patches(L_b)ᵀ        M = OC, K = B·OH·OW, columns: taps
//!
//! A tap (ky, kx) reads rows and columns of L that are `stride` apart. `gather` and `scatter` therefore work on L cut into its
//! stride·stride *phases*, padding included, where what a tap reads of a row of S is contiguous.
//!
//! Every element is one chain of multiply-adds in a fixed order (gather: channels, then taps; weight: cells, then pixels), or, in
//! `scatter`, one such chain a tap, added in the order of the taps: neither the cut into tasks nor the number of threads changes a bit.

use super::*;
use crate::device::cpu;
use rayon::prelude::*;
use std::sync::Mutex;

/// The sizes that a convolution ties together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// B.
    pub batch: usize,
    /// C, H, W of the large image.
    pub large: [usize; 3],
    /// OC, OH, OW of the small one.
    pub small: [usize; 3],
    /// k.
    pub kernel: usize,
    /// Pixels of L between neighbours of S.
    pub stride: usize,
    /// Rows and columns of zeros around L.
    pub padding: usize,
}

/// What a task's C may take of the second-level cache, in words.
const BLOCK: usize = 1 << 17;
/// Rows of Wᵀ that `scatter` packs at once.
const ROWS_AT_ONCE: usize = 64;
/// Pixels of an image below which `weight` wants S turned (cells beside one another), so that its chains are long enough.
const SHORT: usize = 64;

impl Geometry {
    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }
    /// C·k·k.
    fn depth(&self) -> usize {
        self.large[0] * self.taps()
    }
    /// OH·OW.
    fn pixels(&self) -> usize {
        self.small[1] * self.small[2]
    }
    fn large_size(&self) -> usize {
        self.large.iter().product()
    }
    fn small_size(&self) -> usize {
        self.small.iter().product()
    }
    /// Phases along an axis that some tap reads.
    fn phases(&self) -> usize {
        self.kernel.min(self.stride)
    }
    /// Rows and columns of a phase.
    fn phase(&self) -> [usize; 2] {
        let beyond = (self.kernel - 1) / self.stride;
        [self.small[1] + beyond, self.small[2] + beyond]
    }
    /// Words of a channel, cut into phases.
    fn plane(&self) -> usize {
        let [h, w] = self.phase();
        self.phases() * self.phases() * h * w
    }
    fn macs(&self) -> usize {
        self.batch * self.pixels() * self.small[0] * self.depth()
    }
}

/// Walks the taps of a plane cut into phases: where each begins.
struct Taps {
    kernel: usize,
    stride: usize,
    phases: usize,
    phase: [usize; 2],
    plane: usize,
    /// ky, kx; their phases; their shifts.
    at: [usize; 6],
    channel: usize,
}

impl Taps {
    #[inline(always)]
    fn new(g: &Geometry, first: usize) -> Taps {
        let (c, tap) = (first / g.taps(), first % g.taps());
        let (ky, kx) = (tap / g.kernel, tap % g.kernel);
        let at = [ky, kx, ky % g.stride, kx % g.stride, ky / g.stride, kx / g.stride];
        Taps { kernel: g.kernel, stride: g.stride, phases: g.phases(), phase: g.phase(), plane: g.plane(), at, channel: c }
    }
    /// Of this tap, then on to the next.
    #[inline(always)]
    fn step(&mut self) -> usize {
        let [ky, kx, py, px, sy, sx] = &mut self.at;
        let here = self.channel * self.plane + ((*py * self.phases + *px) * self.phase[0] + *sy) * self.phase[1] + *sx;
        (*kx, *px) = (*kx + 1, *px + 1);
        if *px == self.stride {
            (*px, *sx) = (0, *sx + 1);
        }
        if *kx == self.kernel {
            (*kx, *px, *sx, *ky, *py) = (0, 0, 0, *ky + 1, *py + 1);
            if *py == self.stride {
                (*py, *sy) = (0, *sy + 1);
            }
            if *ky == self.kernel {
                (*ky, *py, *sy) = (0, 0, 0);
                self.channel += 1;
            }
        }
        here
    }
}

/// Neighbouring columns of a panel that are neighbours in memory, too.
#[derive(Clone, Copy, Default)]
struct Run {
    to: usize,
    from: usize,
    len: usize,
}

/// The runs of columns `first..first + cols` of images of `size` words (`row` of them neighbours, rows `pitch` apart, `rows` an image).
struct Runs {
    runs: [Run; PANEL],
    count: usize,
    /// The length of all, or 0 if they differ.
    each: usize,
}

impl Runs {
    #[inline(always)]
    fn new(first: usize, cols: usize, [rows, row]: [usize; 2], pitch: usize, size: usize) -> Runs {
        let mut r = Runs { runs: [Run::default(); PANEL], count: 0, each: 0 };
        let (mut line, mut x) = (first / row, first % row);
        let mut to = 0;
        while to < cols {
            let len = (row - x).min(cols - to);
            r.runs[r.count] = Run { to, from: line / rows * size + line % rows * pitch + x, len };
            r.each = if r.count == 0 || r.each == len { len } else { 0 };
            r.count += 1;
            (to, line, x) = (to + len, line + 1, 0);
        }
        r
    }

    /// to[p][column] = from[next() + column] for p < k.
    #[inline(always)]
    unsafe fn pack(&self, to: *mut f32, width: usize, k: usize, from: *const f32, next: impl FnMut() -> usize) {
        unsafe {
            match self.each {
                2 => self.pack_each::<2>(to, width, k, from, next),
                4 => self.pack_each::<4>(to, width, k, from, next),
                8 => self.pack_each::<8>(to, width, k, from, next),
                16 => self.pack_each::<16>(to, width, k, from, next),
                32 => self.pack_each::<32>(to, width, k, from, next),
                _ => self.pack_any(to, width, k, from, next),
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_each<const LEN: usize>(&self, to: *mut f32, width: usize, k: usize, from: *const f32, mut next: impl FnMut() -> usize) {
        for p in 0..k {
            let at = next();
            for r in &self.runs[..self.count] {
                unsafe {
                    let values = from.add(at + r.from).cast::<[f32; LEN]>().read_unaligned();
                    to.add(p * width + r.to).cast::<[f32; LEN]>().write_unaligned(values);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_any(&self, to: *mut f32, width: usize, k: usize, from: *const f32, mut next: impl FnMut() -> usize) {
        for p in 0..k {
            let at = next();
            for r in &self.runs[..self.count] {
                for l in 0..r.len {
                    unsafe { *to.add(p * width + r.to + l) = *from.add(at + r.from + l) };
                }
            }
        }
    }
}

/// A pointer that tasks share; they write disjoint parts of what it points to, or only read.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: see above; every use says which part is its own.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
impl Shared {
    fn add(self, words: usize) -> *mut f32 {
        self.0.wrapping_add(words)
    }
    /// This thread's slot of the scratch memory: a thread works on one task at a time, and no task waits for another.
    fn slot(self, words: usize, slots: usize) -> *mut f32 {
        let mine = rayon::current_thread_index().unwrap_or(0);
        assert!(mine < slots, "convolution: thread {mine} of {slots}");
        self.add(mine * words)
    }
}

/// A cache line.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [f32; LINE]); // read through a pointer
const LINE: usize = 16;

/// Scratch memory between uses. A product takes a buffer out, and so never waits for another one; a warm step allocates nothing.
static SCRATCH: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// Calls `f` with `words` of scratch memory, whatever they hold.
fn with_scratch<R>(words: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let pool = || SCRATCH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut lines = pool().pop().unwrap_or_default();
    if lines.len() < words.div_ceil(LINE) {
        lines.resize(words.div_ceil(LINE), Line([0.0; LINE]));
    }
    // SAFETY: lines are f32 without gaps, and there are enough of them.
    let r = f(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), words) });
    pool().push(lines);
    r
}

/// Work that is compiled for each machine.
trait Job {
    unsafe fn run<M: Machine>(&self);
}

fn on_this_machine(job: &impl Job) {
    #[cfg(target_arch = "x86_64")]
    {
        use x86::{Avx2, Avx512};
        #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
        unsafe fn wide(job: &impl Job) {
            unsafe { job.run::<Avx512>() }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn half(job: &impl Job) {
            unsafe { job.run::<Avx2>() }
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor was just asked for these instructions; jobs stay inside their operands.
            return unsafe { wide(job) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { half(job) };
        }
    }
    // SAFETY: jobs stay inside their operands.
    unsafe { job.run::<Plain>() }
}

/// Runs `count` tasks on the pool, or here if they are little work.
fn tasks(count: usize, macs: usize, run: impl Fn(usize) + Sync + Send) {
    if macs < ALONE || count == 1 {
        (0..count).for_each(run);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(run);
    }
}

/// Part i of `of` nearly equal parts of 0..size, cut at multiples of `unit`.
fn cut(size: usize, unit: usize, i: usize, of: usize) -> [usize; 2] {
    let units = size.div_ceil(unit);
    [i * units / of, (i + 1) * units / of].map(|u| (u * unit).min(size))
}

// ---- gather ------------------------------------------------------------------------------------------

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

/// A channel of L into its phases, with zeros for the padding.
#[inline(always)]
unsafe fn split(g: &Geometry, to: *mut f32, from: *const f32) {
    let ([h, w], [_, height, width], s, p) = (g.phase(), g.large, g.stride, g.padding);
    let mut to = to;
    for py in 0..g.phases() {
        for px in 0..g.phases() {
            let [lo, hi] = inside(px, w, width, s, p);
            for i in 0..h {
                let y = (s * i + py).wrapping_sub(p);
                unsafe {
                    if y >= height || lo >= hi {
                        std::ptr::write_bytes(to, 0, w);
                    } else {
                        let row = from.add(y * width + s * lo + px - p);
                        (0..lo).for_each(|j| *to.add(j) = 0.0);
                        match s {
                            1 => strided::<1>(to.add(lo), row, hi - lo),
                            2 => strided::<2>(to.add(lo), row, hi - lo),
                            _ => (0..hi - lo).for_each(|j| *to.add(lo + j) = *row.add(j * s)),
                        }
                        (hi..w).for_each(|j| *to.add(j) = 0.0);
                    }
                    to = to.add(w);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn strided<const S: usize>(to: *mut f32, from: *const f32, count: usize) {
    for j in 0..count {
        unsafe { *to.add(j) = *from.add(j * S) };
    }
}

/// Which columns j < `w` of phase `px` lie inside an image `width` wide: s·j + px - p in 0..width. An empty range has lo ≥ hi.
#[inline(always)]
fn inside(px: usize, w: usize, width: usize, s: usize, p: usize) -> [usize; 2] {
    let lo = p.saturating_sub(px).div_ceil(s);
    let hi = (width + p).saturating_sub(px).div_ceil(s).min(w);
    [lo, hi]
}

// ---- scatter -----------------------------------------------------------------------------------------

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

/// A channel of L from its phases; what no tap reaches is zero.
#[inline(always)]
unsafe fn join(g: &Geometry, to: &mut [f32], plane: *const f32, add: bool) {
    let ([h, w], [_, height, width], s, p) = (g.phase(), g.large, g.stride, g.padding);
    if !add {
        to.fill(0.0);
    }
    if s == 2 && g.phases() == 2 && !add {
        // Both phases of a row at once: neighbours are written together.
        for y in 0..height {
            let (py, i) = ((y + p) % 2, (y + p) / 2);
            if i < h {
                let even = unsafe { plane.add((2 * py * h + i) * w) };
                unsafe { zip_two(&mut to[y * width..(y + 1) * width], even, even.add(h * w), w, p) };
            }
        }
        return;
    }
    for py in 0..g.phases() {
        for px in 0..g.phases() {
            let [lo, hi] = inside(px, w, width, s, p);
            for i in 0..h {
                let y = (s * i + py).wrapping_sub(p);
                if y < height && lo < hi {
                    let from = unsafe { plane.add(((py * g.phases() + px) * h + i) * w) };
                    let row = &mut to[y * width..(y + 1) * width];
                    for j in lo..hi {
                        let (y, v) = (&mut row[s * j + px - p], unsafe { *from.add(j) });
                        *y = if add { *y + v } else { v };
                    }
                }
            }
        }
    }
}

/// to[x] = the value of phase (x + p) mod 2 at (x + p)/2, for two phases of w values; zero behind them.
#[inline(always)]
unsafe fn zip_two(to: &mut [f32], even: *const f32, odd: *const f32, w: usize, p: usize) {
    let n = to.len().min(2 * w - p.min(2 * w));
    // From the first x with x + p even.
    let first = p % 2;
    if first == 1 && n > 0 {
        to[0] = unsafe { *odd.add(p / 2) };
    }
    let pairs = n.saturating_sub(first) / 2;
    let at = (first + p) / 2;
    for (j, pair) in to[first.min(n)..].chunks_exact_mut(2).take(pairs).enumerate() {
        unsafe { (pair[0], pair[1]) = (*even.add(at + j), *odd.add(at + j)) };
    }
    if first + 2 * pairs < n {
        to[n - 1] = unsafe { *even.add(at + pairs) };
    }
}

// ---- weight ------------------------------------------------------------------------------------------

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

#[track_caller]
fn check(g: &Geometry, small: usize, large: usize, w: usize) {
    let fits = small == g.batch * g.small_size() && large == g.batch * g.large_size() && w == g.small[0] * g.depth();
    assert!(fits, "convolution: operands of {small}, {large}, {w} for {g:?}");
}
