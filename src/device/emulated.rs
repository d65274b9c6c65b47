//! The emulated device: the kernels of `kernels/`, compiled by the host's C++ compiler and run on the processor.
//!
//! Everything above the launcher goes the way it goes on a GPU: geometry, argument order, buffers, capture and replay. The runtime
//! (`src/device/emulated/`) runs the blocks of a launch one after the other and the threads of a block as fibers that meet at
//! barriers and within warps, both in an order drawn from the seed, so that a missing barrier shows. What would hang or be
//! undefined on a GPU is an error: a barrier that not all threads reach, arguments of the wrong number or kind, a pointer to no
//! allocation, a write past the end of one. It is for correctness; its speed does not matter.

use super::launch::{Arg, GraphId, Grid, Launch};
use crate::error::{Error, Result};
use std::alloc::Layout;
#[cfg(test)]
use std::collections::HashSet;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_void};

/// The device memory that the emulator has.
const MEMORY: usize = 16 << 30;
const ALIGN: usize = 256;
/// What a GPU allows a block without being asked for more.
const MAX_THREADS: u32 = 1024;
/// Bytes after each allocation whose change shows an overrun. AddressSanitizer watches the end itself, and needs it to be the end.
const GUARD: usize = if cfg!(couplet_asan) { 0 } else { 64 };
const GUARD_BYTE: u8 = 0xa5;

unsafe extern "C" {
    fn couplet_emulator_new(seed: u64) -> *mut c_void;
    fn couplet_emulator_free(emulator: *mut c_void);
    fn couplet_emulator_find(name: *const c_char) -> *const c_void;
    fn couplet_emulator_signature(kernel: *const c_void) -> *const c_char;
    fn couplet_emulator_launch(
        emulator: *mut c_void,
        kernel: *const c_void,
        grid: *const u32,
        block: *const u32,
        shared: u32,
        words: *const u64,
        message: *mut c_char,
        room: usize,
    ) -> usize;
}

#[derive(Clone, Copy)]
struct Kernel {
    address: *const c_void,
    /// One letter a parameter: p pointer, i int, u unsigned, f float.
    signature: &'static str,
}

#[derive(Clone)]
enum Command {
    Launch { kernel: &'static str, grid: Grid, args: Vec<Arg> },
    Zero { dst: u64, bytes: usize },
    Copy { dst: u64, src: u64, bytes: usize },
}

/// The emulated device.
pub struct Emulated {
    runtime: *mut c_void,
    seed: u64,
    kernels: HashMap<&'static str, Kernel>,
    #[cfg(test)]
    launched: HashSet<&'static str>,
    /// Address and bytes of what is allocated.
    allocations: BTreeMap<u64, usize>,
    in_use: usize,
    peak: usize,
    recording: Option<Vec<Command>>,
    graphs: Vec<Vec<Command>>,
    error: Option<Error>,
}

// SAFETY: the runtime keeps nothing that belongs to an operating-system thread between two launches, and `&mut self` keeps launches apart.
unsafe impl Send for Emulated {}

impl Emulated {
    /// The emulated device whose blocks and threads run in an order drawn from `seed`.
    pub fn new(seed: u64) -> Emulated {
        Emulated {
            // SAFETY: no precondition; freed once, in `drop`.
            runtime: unsafe { couplet_emulator_new(seed) },
            seed,
            kernels: HashMap::new(),
            #[cfg(test)]
            launched: HashSet::new(),
            allocations: BTreeMap::new(),
            in_use: 0,
            peak: 0,
            recording: None,
            graphs: Vec::new(),
            error: None,
        }
    }

    fn fail(&mut self, message: impl Into<String>) {
        let message = message.into();
        self.error.get_or_insert(Error::Device { device: "emulated".into(), message, asked: false });
    }

    fn kernel(&mut self, name: &'static str) -> Option<Kernel> {
        if let Some(k) = self.kernels.get(name) {
            return Some(*k);
        }
        let c_name = CString::new(name).ok()?;
        // SAFETY: a string that ends in zero.
        let address = unsafe { couplet_emulator_find(c_name.as_ptr()) };
        if address.is_null() {
            return None;
        }
        // SAFETY: `address` was just found; a signature is a constant of the program that ends in zero.
        let signature = unsafe { CStr::from_ptr(couplet_emulator_signature(address)) }.to_str().ok()?;
        let kernel = Kernel { address, signature };
        self.kernels.insert(name, kernel);
        Some(kernel)
    }

    /// The allocation that `addr` points into or just past: address and bytes.
    fn allocation(&self, addr: u64) -> Option<(u64, usize)> {
        let (&base, &bytes) = self.allocations.range(..=addr).next_back()?;
        (addr <= base + bytes as u64).then_some((base, bytes))
    }

    /// What is wrong with a launch, if anything.
    fn objection(&self, kernel: &str, signature: &str, grid: Grid, args: &[Arg]) -> Option<String> {
        if signature.len() != args.len() {
            return Some(format!("kernel {kernel} takes {} arguments, the launch gives {}", signature.len(), args.len()));
        }
        for (i, (kind, arg)) in signature.chars().zip(args).enumerate() {
            let given = match arg {
                Arg::Ptr(_) => 'p',
                Arg::I32(_) => 'i',
                Arg::U32(_) => 'u',
                Arg::F32(_) => 'f',
            };
            if given != kind {
                let says = |k| match k {
                    'p' => "a pointer",
                    'i' => "int",
                    'u' => "unsigned",
                    _ => "float",
                };
                return Some(format!(
                    "kernel {kernel}, argument {} of {}: it takes {}, the launch gives {arg:?}",
                    i + 1,
                    args.len(),
                    says(kind)
                ));
            }
            if let Arg::Ptr(p) = *arg
                && p != 0
                && p != ALIGN as u64
                && self.allocation(p).is_none()
            {
                return Some(format!(
                    "kernel {kernel}, argument {} of {}: {p:#x} points to no allocation of the device",
                    i + 1,
                    args.len()
                ));
            }
        }
        let threads = grid.threads.iter().product::<u32>();
        if threads == 0 || threads > MAX_THREADS || grid.blocks.contains(&0) || grid.blocks[1].max(grid.blocks[2]) > 65_535 {
            return Some(format!("kernel {kernel}: a grid of {:?} blocks of {:?} threads cannot be launched", grid.blocks, grid.threads));
        }
        None
    }

    fn run_launch(&mut self, name: &'static str, grid: Grid, args: &[Arg]) {
        let Some(kernel) = self.kernel(name) else {
            self.error.get_or_insert(Error::Internal(format!("there is no kernel {name:?} in kernels/")));
            return;
        };
        if let Some(objection) = self.objection(name, kernel.signature, grid, args) {
            self.error.get_or_insert(Error::Internal(objection));
            return;
        }
        #[cfg(test)]
        self.launched.insert(name);
        let words: Vec<u64> = args.iter().map(|a| a.to_word()).collect();
        let mut message = [0u8; 512];
        // SAFETY: the kernel takes exactly these arguments (checked above by number and kind); its pointers are null or lie in live
        // allocations of this device, which are host memory; that it stays inside them is what the emulator is there to find out.
        let failed = unsafe {
            couplet_emulator_launch(
                self.runtime,
                kernel.address,
                grid.blocks.as_ptr(),
                grid.threads.as_ptr(),
                grid.shared,
                words.as_ptr(),
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        if failed > 0 {
            let text = CStr::from_bytes_until_nul(&message).map(|m| m.to_string_lossy().into_owned()).unwrap_or_default();
            self.fail(format!("kernel {name}: {text}"));
        }
        for arg in args {
            if let Arg::Ptr(p) = *arg
                && let Some((base, bytes)) = self.allocation(p)
                && !guard_is_whole(base, bytes)
            {
                self.fail(format!("kernel {name} wrote past the end of an allocation of {bytes} bytes"));
            }
        }
    }

    fn run(&mut self, command: &Command) {
        if self.error.is_some() {
            return; // as on a GPU, nothing runs after the first error until it has been reported
        }
        match *command {
            Command::Launch { kernel, grid, ref args } => self.run_launch(kernel, grid, args),
            Command::Zero { dst, bytes } => {
                if self.inside("zero", dst, bytes) {
                    // SAFETY: the range was just found to lie in a live allocation.
                    unsafe { std::ptr::write_bytes(dst as *mut u8, 0, bytes) }
                }
            }
            Command::Copy { dst, src, bytes } => {
                if self.inside("copy to", dst, bytes) && self.inside("copy from", src, bytes) {
                    // SAFETY: both ranges lie in live allocations; `copy` allows them to overlap.
                    unsafe { std::ptr::copy(src as *const u8, dst as *mut u8, bytes) }
                }
            }
        }
    }

    fn record_or_run(&mut self, command: Command) {
        match &mut self.recording {
            Some(commands) => commands.push(command),
            None => self.run(&command),
        }
    }

    /// Whether the range lies in an allocation; an error if not.
    fn inside(&mut self, doing: &str, addr: u64, bytes: usize) -> bool {
        let inside = bytes == 0 || self.allocation(addr).is_some_and(|(base, size)| addr + bytes as u64 <= base + size as u64);
        if !inside {
            self.error.get_or_insert(Error::Internal(format!("{doing} {bytes} bytes at {addr:#x}: not in an allocation of the device")));
        }
        inside
    }

    fn report(&mut self) -> Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + GUARD, ALIGN).expect("an allocation below isize::MAX")
}

fn guard_is_whole(base: u64, bytes: usize) -> bool {
    // SAFETY: an allocation of `bytes` has GUARD bytes behind it.
    unsafe { std::slice::from_raw_parts((base as usize + bytes) as *const u8, GUARD) }.iter().all(|&b| b == GUARD_BYTE)
}

impl Launch for Emulated {
    fn describe(&self) -> String {
        format!("emulated GPU, threads in the order of seed {}", self.seed)
    }

    fn alloc(&mut self, bytes: usize) -> Result<u64> {
        if bytes == 0 {
            return Ok(ALIGN as u64); // aligned, dangling, never read: the range is empty
        }
        if bytes > self.free_memory() {
            return Err(Error::Device {
                device: "emulated".into(),
                message: format!("out of memory: {bytes} bytes asked for, {} free; try a smaller --batch-size", self.free_memory()),
                asked: false,
            });
        }
        // SAFETY: the layout has a non-zero size; the guard lies inside it.
        let p = unsafe {
            let p = std::alloc::alloc_zeroed(layout(bytes));
            if p.is_null() {
                std::alloc::handle_alloc_error(layout(bytes));
            }
            std::ptr::write_bytes(p.add(bytes), GUARD_BYTE, GUARD);
            p as u64
        };
        self.allocations.insert(p, bytes);
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
        Ok(p)
    }

    fn free(&mut self, addr: u64, bytes: usize) {
        if bytes == 0 {
            return;
        }
        match self.allocations.remove(&addr) {
            Some(size) if size == bytes => {
                self.in_use -= bytes;
                // SAFETY: `addr` came from `alloc` with this size and is freed once: it was still in the list.
                unsafe { std::alloc::dealloc(addr as *mut u8, layout(bytes)) }
            }
            found => {
                if let Some(size) = found {
                    self.allocations.insert(addr, size);
                }
                self.error.get_or_insert(Error::Internal(format!("free of {bytes} bytes at {addr:#x}: allocated were {found:?}")));
            }
        }
    }

    fn upload(&mut self, dst: u64, src: &[u8]) -> Result<()> {
        if self.inside("upload", dst, src.len()) {
            // SAFETY: the range was just found to lie in a live allocation; host slices are never device memory.
            unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), dst as *mut u8, src.len()) }
        }
        self.report()
    }

    fn download(&mut self, dst: &mut [u8], src: u64) -> Result<()> {
        if self.inside("download", src, dst.len()) {
            // SAFETY: as in `upload`.
            unsafe { std::ptr::copy_nonoverlapping(src as *const u8, dst.as_mut_ptr(), dst.len()) }
        }
        self.report()
    }

    fn zero(&mut self, dst: u64, bytes: usize) {
        self.record_or_run(Command::Zero { dst, bytes });
    }

    fn copy(&mut self, dst: u64, src: u64, bytes: usize) {
        self.record_or_run(Command::Copy { dst, src, bytes });
    }

    fn launch(&mut self, kernel: &'static str, grid: Grid, args: &[Arg]) {
        self.record_or_run(Command::Launch { kernel, grid, args: args.to_vec() });
    }

    fn finish(&mut self) -> Result<()> {
        self.report()
    }

    fn begin_capture(&mut self) -> Result<()> {
        if self.recording.is_some() {
            return Err(Error::Internal("a capture begins inside another".into()));
        }
        self.recording = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&mut self) -> Result<GraphId> {
        let commands = self.recording.take().ok_or_else(|| Error::Internal("a capture ends that did not begin".into()))?;
        self.graphs.push(commands);
        Ok(GraphId(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphId) {
        let commands = std::mem::take(&mut self.graphs[graph.0]);
        for command in &commands {
            self.run(command);
        }
        self.graphs[graph.0] = commands;
    }

    #[cfg(test)]
    fn launched(&self) -> Vec<&'static str> {
        self.launched.iter().copied().collect()
    }

    fn memory(&self) -> (usize, usize) {
        (self.in_use, self.peak)
    }

    fn free_memory(&self) -> usize {
        MEMORY - self.in_use
    }

    fn has_tensor_cores(&self) -> bool {
        true
    }

    fn multiprocessors(&self) -> usize {
        // Few, so that kernels which size their grid by it are exercised with several rounds a block.
        4
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        for (&addr, &bytes) in &self.allocations {
            // SAFETY: allocated by `alloc` with this size and not yet freed.
            unsafe { std::alloc::dealloc(addr as *mut u8, layout(bytes)) }
        }
        // SAFETY: made in `new`, freed here alone.
        unsafe { couplet_emulator_free(self.runtime) }
    }
}

#[cfg(test)]
mod tests;
