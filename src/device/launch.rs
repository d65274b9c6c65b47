//! The launcher: one trait, two implementers (`cuda`, `emulated`), and the vocabulary of a kernel launch.
//!
//! A kernel's Rust side names the kernel, its grid and its arguments, and cannot tell which of the two it
//! talks to. Launches are asynchronous and return nothing: the first error sticks and [`Launch::finish`]
//! reports it. What changes from step to step is read by the kernels from device memory, so a recorded
//! sequence of launches can be replayed as it is ([`Launch::begin_capture`]).

// Without the features `cuda` and `emulated` nothing launches.
#![cfg_attr(not(any(feature = "cuda", feature = "emulated")), allow(dead_code))]

use crate::error::Result;

/// One argument of a kernel, passed by value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A device address.
    Ptr(u64),
    /// `int`
    I32(i32),
    /// `unsigned`
    U32(u32),
    /// `float`
    F32(f32),
}

impl Arg {
    /// The argument's bytes, little-endian in the low end of a word: a kernel parameter is read through a pointer to it.
    pub fn to_word(self) -> u64 {
        match self {
            Arg::Ptr(p) => p,
            Arg::I32(v) => v as u32 as u64,
            Arg::U32(v) => v as u64,
            Arg::F32(v) => v.to_bits() as u64,
        }
    }
}

impl From<i32> for Arg {
    fn from(v: i32) -> Arg {
        Arg::I32(v)
    }
}
impl From<u32> for Arg {
    fn from(v: u32) -> Arg {
        Arg::U32(v)
    }
}
impl From<f32> for Arg {
    fn from(v: f32) -> Arg {
        Arg::F32(v)
    }
}
/// Sizes go to kernels as `int`.
impl From<usize> for Arg {
    fn from(v: usize) -> Arg {
        Arg::I32(i32::try_from(v).expect("a kernel size is below 2^31"))
    }
}
/// Switches go to kernels as `int` 0 or 1.
impl From<bool> for Arg {
    fn from(v: bool) -> Arg {
        Arg::I32(v as i32)
    }
}

/// Launch geometry: blocks, threads of a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y, z.
    pub blocks: [u32; 3],
    /// Threads of a block along x, y, z; at most 1,024 together.
    pub threads: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Grid {
    /// One thread an element, blocks of 256.
    pub fn over(elements: usize) -> Grid {
        Grid { blocks: [(elements.div_ceil(256)).max(1) as u32, 1, 1], threads: [256, 1, 1], shared: 0 }
    }

    /// One block of `threads` threads an item.
    pub fn blocks(items: usize, threads: u32) -> Grid {
        Grid { blocks: [items.max(1) as u32, 1, 1], threads: [threads, 1, 1], shared: 0 }
    }
}

/// A recorded sequence of launches that can be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphId(pub usize);

/// Something that runs the kernels of `kernels/`: the CUDA driver, or the emulator.
///
/// Addresses are opaque to callers; they are only offset and handed back. Memory operations are ordered with the
/// launches, as if in one queue.
pub trait Launch: Send {
    /// What a person calls this device, for example "NVIDIA H200, compute capability 9.0".
    fn describe(&self) -> String;

    /// Allocates `bytes` (aligned to at least 256), zeroed. Of 0 bytes any aligned address will do; it is handed back to `free`.
    fn alloc(&mut self, bytes: usize) -> Result<u64>;
    /// Frees what `alloc` returned.
    fn free(&mut self, addr: u64, bytes: usize);
    /// Host to device.
    fn upload(&mut self, dst: u64, src: &[u8]) -> Result<()>;
    /// Device to host; waits for everything queued before.
    fn download(&mut self, dst: &mut [u8], src: u64) -> Result<()>;
    /// Sets bytes to zero.
    fn zero(&mut self, dst: u64, bytes: usize);
    /// Copies within the device; the ranges do not overlap.
    fn copy(&mut self, dst: u64, src: u64, bytes: usize);

    /// Queues a kernel of `kernels/` by name.
    fn launch(&mut self, kernel: &'static str, grid: Grid, args: &[Arg]);

    /// Waits for the queue to drain and returns the first error since the last call.
    fn finish(&mut self) -> Result<()>;

    /// From here to [`Launch::end_capture`], `launch`, `zero` and `copy` are recorded and not run.
    fn begin_capture(&mut self) -> Result<()>;
    /// Ends the recording.
    fn end_capture(&mut self) -> Result<GraphId>;
    /// Runs a recording as it was recorded.
    fn replay(&mut self, graph: GraphId);

    /// The names of the kernels launched so far, in no order: what a test compares with the list of `kernels/`.
    #[cfg(test)]
    fn launched(&self) -> Vec<&'static str>;
    /// Device memory in use and its peak, in bytes.
    fn memory(&self) -> (usize, usize);
    /// Free device memory, in bytes.
    fn free_memory(&self) -> usize;
    /// Whether `mma.sync` on tf32 and bf16 exists here.
    fn has_tensor_cores(&self) -> bool;
    /// How many blocks run at once; kernels that size their grid by it ask.
    fn multiprocessors(&self) -> usize;
}
