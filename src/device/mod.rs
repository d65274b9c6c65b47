//! Devices: where memory lies and kernels run.
//!
//! [`Device`] is either [`Cpu`], whose arms of the operations are Rust loops over slices, or
//! [`Kernels`], which launches the kernels of `kernels/` through one of two implementers of
//! `launch::Launch`: the CUDA driver or the emulator. Nothing above this module can tell those two apart.
//!
//! Memory is counted in f32 words. [`Mem`] is a range of it; on the CPU (and on the emulator) its address is a host
//! address, on CUDA a device address. Allocating, writing and launching are for this crate alone: an address in the wrong
//! hands is undefined behaviour, so a program that embeds the engine goes through [`Step`](crate::engine::Step), whose
//! variables always lie in live memory. `unsafe` lives in this module only.

pub mod cpu;
pub mod cpu_gemm;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "emulated")]
pub(crate) mod emulated;
pub(crate) mod launch;
pub mod probe;
pub mod random;
pub mod sources;
pub mod vector;

use crate::error::{Error, Result};
use cpu::Cpu;
#[cfg(feature = "cuda")]
pub use cuda::{Cuda, Raw};
use launch::Launch;

/// A range of device memory, in f32 words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    pub(crate) addr: u64,
    pub(crate) len: usize,
}

impl Mem {
    /// No memory: aligned and dangling, so that an empty slice may be made of it.
    pub const EMPTY: Mem = Mem { addr: 256, len: 0 };

    /// Words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part `start .. start + len`.
    pub fn part(&self, start: usize, len: usize) -> Mem {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of a memory of {} words", self.len);
        Mem { addr: self.addr + 4 * start as u64, len }
    }

    fn overlaps(&self, other: &Mem) -> bool {
        self.len > 0 && other.len > 0 && self.addr < other.addr + 4 * other.len as u64 && other.addr < self.addr + 4 * self.len as u64
    }
}

/// A device that runs the kernels of `kernels/`.
pub struct Kernels(pub(crate) Box<dyn Launch>);

/// Where a run computes.
pub enum Device {
    /// The processor: Rust loops.
    Cpu(Cpu),
    /// A device that runs the kernels of `kernels/`.
    Kernels(Kernels),
}

impl Device {
    /// The processor. It computes on the rayon pool in which the engine is called: `rayon::ThreadPool::install` chooses the threads,
    /// and no result depends on their number.
    pub fn cpu() -> Device {
        Device::Cpu(Cpu::default())
    }

    /// The emulator, its threads run in an order shuffled by `seed`.
    #[cfg(feature = "emulated")]
    pub fn emulated(seed: u64) -> Device {
        Device::Kernels(Kernels(Box::new(emulated::Emulated::new(seed))))
    }

    /// The GPU of that ordinal.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize) -> Result<Device> {
        Ok(Device::Kernels(Kernels(Box::new(cuda::Cuda::new(ordinal)?))))
    }

    /// The device of that name, and a line to show the user if it is not quite what was asked for:
    /// `auto` (a GPU if one answers, else the processor), `cpu`, `cuda`, `cuda:N`, `emulated`.
    pub fn by_name(name: &str) -> Result<(Device, Option<String>)> {
        match name {
            "cpu" => Ok((Device::cpu(), None)),
            "auto" => {
                #[cfg(feature = "cuda")]
                if let Ok(device) = Device::cuda(0) {
                    return Ok((device, None));
                }
                Ok((Device::cpu(), Some("no GPU answers, running on the cpu; couplet devices says why".into())))
            }
            #[cfg(feature = "emulated")]
            "emulated" => Ok((Device::emulated(0), None)),
            #[cfg(not(feature = "emulated"))]
            "emulated" => Err(asked(name, "this build has no emulated device: build with --features emulated")),
            _ => {
                match name.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').map_or(rest.is_empty().then_some(0), |n| n.parse().ok()))
                {
                    #[cfg(feature = "cuda")]
                    Some(Some(n)) => Ok((Device::cuda(n)?, None)),
                    #[cfg(not(feature = "cuda"))]
                    Some(Some(_)) => Err(asked(name, "this build has no CUDA: build with --features cuda")),
                    _ => Err(Error::usage(format!("--device {name}: there is auto, cpu, cuda, cuda:N and emulated"))),
                }
            }
        }
    }

    /// What a person calls this device.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(c) => format!("cpu, {} thread{}", c.threads(), if c.threads() == 1 { "" } else { "s" }),
            Device::Kernels(k) => k.0.describe(),
        }
    }

    /// Allocates `words` zeroed f32 words, aligned to 256 bytes.
    pub(crate) fn alloc(&mut self, words: usize) -> Result<Mem> {
        let addr = match self {
            Device::Cpu(c) => c.alloc(4 * words)?,
            Device::Kernels(k) => k.0.alloc(4 * words)?,
        };
        Ok(Mem { addr, len: words })
    }

    /// Frees what [`Device::alloc`] returned.
    pub(crate) fn free(&mut self, mem: Mem) {
        match self {
            Device::Cpu(c) => c.free(mem.addr, 4 * mem.len),
            Device::Kernels(k) => k.0.free(mem.addr, 4 * mem.len),
        }
    }

    /// Host to device: the start of `dst` becomes `src`.
    pub(crate) fn upload<T: bytemuck::Pod>(&mut self, dst: Mem, src: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(src);
        assert!(bytes.len() <= 4 * dst.len, "upload of {} bytes into {}", bytes.len(), 4 * dst.len);
        match self {
            Device::Cpu(c) => {
                c.bytes_mut(dst)[..bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
            Device::Kernels(k) => k.0.upload(dst.addr, bytes),
        }
    }

    /// Device to host: `dst` becomes the start of `src`.
    pub(crate) fn download<T: bytemuck::Pod>(&mut self, dst: &mut [T], src: Mem) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(dst);
        assert!(bytes.len() <= 4 * src.len, "download of {} bytes from {}", bytes.len(), 4 * src.len);
        match self {
            Device::Cpu(c) => {
                bytes.copy_from_slice(&c.bytes_mut(src)[..bytes.len()]);
                Ok(())
            }
            Device::Kernels(k) => k.0.download(bytes, src.addr),
        }
    }

    /// Sets memory to zero.
    pub(crate) fn zero(&mut self, mem: Mem) {
        match self {
            Device::Cpu(c) => c.bytes_mut(mem).fill(0),
            Device::Kernels(k) => k.0.zero(mem.addr, 4 * mem.len),
        }
    }

    /// Copies within the device; both have the same length and do not overlap.
    pub(crate) fn copy(&mut self, dst: Mem, src: Mem) {
        assert_eq!(dst.len, src.len, "copy: lengths differ");
        match self {
            Device::Cpu(c) => {
                let ([d], [s]) = c.views([dst], [src]);
                d.copy_from_slice(s);
            }
            Device::Kernels(k) => k.0.copy(dst.addr, src.addr, 4 * src.len),
        }
    }

    /// Waits for queued work and reports its first error.
    pub(crate) fn finish(&mut self) -> Result<()> {
        match self {
            Device::Cpu(_) => Ok(()),
            Device::Kernels(k) => k.0.finish(),
        }
    }

    /// Bytes of memory that the device still has; `None` on the processor, whose memory the system shares out.
    pub fn free_memory(&self) -> Option<usize> {
        match self {
            Device::Cpu(_) => None,
            Device::Kernels(k) => Some(k.0.free_memory()),
        }
    }

    /// Bytes of device memory in use and their peak.
    pub fn memory(&self) -> (usize, usize) {
        match self {
            Device::Cpu(c) => c.memory(),
            Device::Kernels(k) => k.0.memory(),
        }
    }
}

#[cfg(any(not(feature = "emulated"), not(feature = "cuda")))]
fn asked(device: &str, message: &str) -> Error {
    Error::Device { device: device.into(), message: message.into(), asked: true }
}
