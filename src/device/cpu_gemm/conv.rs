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

mod gather;
mod phases;
mod scatter;
mod weight;

pub use gather::gather;
pub use scatter::scatter;
pub use weight::weight;

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

#[track_caller]
fn check(g: &Geometry, small: usize, large: usize, w: usize) {
    let fits = small == g.batch * g.small_size() && large == g.batch * g.large_size() && w == g.small[0] * g.depth();
    assert!(fits, "convolution: operands of {small}, {large}, {w} for {g:?}");
}
