//! The processor: its memory, its threads, rows over cores, and the matrix product.
//!
//! A result never depends on the number of threads: work is cut into pieces by size alone, and the partial
//! sums of a reduction are added in the order of the pieces.

use super::Mem;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::alloc::Layout;

/// Below this many elements a loop is not worth waking another thread for (a wake-up costs some microseconds).
pub const SERIAL: usize = 1 << 15;

/// The processor.
#[derive(Default)]
pub struct Cpu {
    in_use: usize,
    peak: usize,
}

const ALIGN: usize = 256;

impl Cpu {
    /// How many threads the loops may use: those of the rayon pool that this is called in.
    pub fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    pub(super) fn alloc(&mut self, bytes: usize) -> Result<u64> {
        if bytes == 0 {
            return Ok(Mem::EMPTY.addr);
        }
        let refused = || Error::Device {
            device: "cpu".into(),
            message: format!("out of memory: {bytes} bytes were asked for; a smaller --batch-size needs less"),
            asked: false,
        };
        let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| refused())?;
        // SAFETY: the layout has a non-zero size.
        let p = unsafe { std::alloc::alloc_zeroed(layout) };
        if p.is_null() {
            return Err(refused());
        }
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
        Ok(p as u64)
    }

    pub(super) fn free(&mut self, addr: u64, bytes: usize) {
        if bytes > 0 {
            self.in_use -= bytes;
            // SAFETY: `addr` came from `alloc` with the same size and alignment (only `Device::free` calls this, with the same `Mem`).
            unsafe { std::alloc::dealloc(addr as *mut u8, Layout::from_size_align(bytes, ALIGN).expect("as at alloc")) }
        }
    }

    pub(super) fn memory(&self) -> (usize, usize) {
        (self.in_use, self.peak)
    }

    pub(super) fn bytes_mut(&mut self, mem: Mem) -> &mut [u8] {
        // SAFETY: a `Mem` is a range of a live allocation of this device (its fields are private to the crate and it is only
        // made by `alloc` and `part`); `&mut self` keeps every other view away for as long as this one lives.
        unsafe { std::slice::from_raw_parts_mut(mem.addr as *mut u8, 4 * mem.len) }
    }

    /// Slices of device memory: `outs` to write, `ins` to read. Panics if something written overlaps anything else.
    pub(crate) fn views<const O: usize, const I: usize>(&mut self, outs: [Mem; O], ins: [Mem; I]) -> ([&mut [f32]; O], [&[f32]; I]) {
        for (i, o) in outs.iter().enumerate() {
            assert!(outs[..i].iter().chain(&ins).all(|other| !o.overlaps(other)), "an output overlaps another operand");
        }
        // SAFETY: the ranges are live (see `bytes_mut`), aligned to 4, every bit pattern is an f32, and the outputs were just
        // checked to be disjoint from one another and from the inputs; `&mut self` excludes any other view.
        unsafe {
            (
                outs.map(|m| std::slice::from_raw_parts_mut(m.addr as *mut f32, m.len)),
                ins.map(|m| std::slice::from_raw_parts(m.addr as *const f32, m.len)),
            )
        }
    }
}

/// Calls `f(row index, row)` for every row of `y`, rows of `cols` values, over the cores when that pays.
pub fn rows(y: &mut [f32], cols: usize, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    if cols == 0 {
        return;
    }
    if y.len() < SERIAL {
        y.chunks_exact_mut(cols).enumerate().for_each(|(i, r)| f(i, r));
    } else {
        let at_once = (SERIAL / 4 / cols).max(1);
        y.par_chunks_mut(at_once * cols).enumerate().for_each(|(c, block)| {
            block.chunks_exact_mut(cols).enumerate().for_each(|(i, r)| f(c * at_once + i, r));
        });
    }
}

/// Calls `f(start, chunk)` for chunks of `y` of equal length, over the cores when that pays. The chunks depend on the length alone.
pub fn chunks(y: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    const CHUNK: usize = SERIAL / 4;
    if y.len() < SERIAL {
        f(0, y);
    } else {
        y.par_chunks_mut(CHUNK).enumerate().for_each(|(c, part)| f(c * CHUNK, part));
    }
}

/// As [`chunks`], over two slices of equal length side by side.
pub fn chunks2(a: &mut [f32], b: &mut [f32], f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync + Send) {
    const CHUNK: usize = SERIAL / 4;
    if a.len() < SERIAL {
        f(0, a, b);
    } else {
        a.par_chunks_mut(CHUNK).zip(b.par_chunks_mut(CHUNK)).enumerate().for_each(|(i, (a, b))| f(i * CHUNK, a, b));
    }
}

/// As [`chunks`], over three slices of equal length side by side.
pub fn chunks3(a: &mut [f32], b: &mut [f32], c: &mut [f32], f: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Sync + Send) {
    const CHUNK: usize = SERIAL / 4;
    if a.len() < SERIAL {
        f(0, a, b, c);
    } else {
        a.par_chunks_mut(CHUNK)
            .zip(b.par_chunks_mut(CHUNK))
            .zip(c.par_chunks_mut(CHUNK))
            .enumerate()
            .for_each(|(i, ((a, b), c))| f(i * CHUNK, a, b, c));
    }
}
