//! The kernels on an NVIDIA GPU, through the driver's interface (`cudarc`, loaded at run time).
//!
//! One stream, in order. A kernel's file is loaded when its first kernel is launched: machine code built into this program
//! if there is some for this GPU ([`arch`]), else what NVRTC makes of the source (`nvrtc`), kept on disk (`cache`); `code`
//! chooses and `loaded` keeps. Uploads go through pinned memory (`staging`). A launch error sticks and [`Launch::finish`] reports it.

pub mod arch;
mod cache;
mod code;
mod driver;
mod library;
mod loaded;
mod nvrtc;
mod staging;

use super::launch::{Arg, GraphId, Grid, Launch};
use super::{Device, Kernels};
use crate::error::{Error, Result};
use arch::Capability;
use code::Code;
use cudarc::driver::DriverError;
use cudarc::driver::result::{self as call, device, graph, stream};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use driver::{Context, gibibytes};
use loaded::{Loaded, MAX_ARGS};
use staging::Staging;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

/// A GPU.
pub struct Cuda {
    /// `cuda:0`
    id: String,
    name: String,
    capability: Capability,
    multiprocessors: usize,
    /// The CUDA version the driver is for: 12080 is 12.8.
    driver: i32,
    kernels: Loaded,
    graphs: Vec<sys::CUgraphExec>,
    live: BTreeMap<u64, usize>,
    in_use: usize,
    peak: usize,
    failed: Option<Error>,
    capturing: bool,
    last: Option<&'static str>,
    stream: sys::CUstream,
    // Dropped in this order: the ring is given back within the context.
    staging: Staging,
    context: Context,
}

// SAFETY: the driver's handles may be used from any thread on which the context is current, and every entry makes it so
// (`enter`); the pinned ring is reached through `&mut self` alone. (A recording must end on the thread that began it: the driver
// answers with an error otherwise.)
unsafe impl Send for Cuda {}

/// The handles of a device in the driver's own terms, for a program that works on the same memory by other means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    /// `CUcontext`
    pub context: *mut c_void,
    /// `CUstream`: order other work after the engine's with an event recorded here.
    pub stream: *mut c_void,
}

/// How many GPUs the driver shows.
pub fn count() -> Result<usize> {
    driver::start("cuda")?;
    driver::count("cuda")
}

impl Cuda {
    /// The GPU of that ordinal, in its primary context. Fails where there is no driver, no such GPU, or no way to its kernels.
    pub fn new(ordinal: usize) -> Result<Cuda> {
        Cuda::start(ordinal, Context::primary)
    }

    /// The GPU of that ordinal, in a context that the program made. A program that uses the primary context, as most libraries
    /// do, shares it with [`Cuda::new`] and does not need this.
    ///
    /// # Safety
    /// `context` is a `CUcontext` of that GPU and outlives the device.
    pub unsafe fn in_context(ordinal: usize, context: *mut c_void) -> Result<Cuda> {
        Cuda::start(ordinal, |device| Ok(Context::of_program(device, context)))
    }

    fn start(ordinal: usize, context: impl FnOnce(sys::CUdevice) -> Result<Context, DriverError>) -> Result<Cuda> {
        let id = format!("cuda:{ordinal}");
        let failed = |doing: &'static str| {
            let id = id.clone();
            move |e: DriverError| driver::failure(&id, doing, e)
        };
        let driver = driver::start(&id)?;
        let device = driver::gpu(&id, ordinal)?;
        let name = device::get_name(device).map_err(failed("asking for the GPU's name"))?;
        let attribute = |which: Attribute| {
            // SAFETY: the device was just given by the driver.
            unsafe { device::get_attribute(device, which) }.map(c_int::unsigned_abs).map_err(failed("asking for the GPU's properties"))
        };
        let capability = Capability {
            major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        };
        if capability < arch::OLDEST {
            let least = arch::OLDEST;
            return Err(driver::asked(
                &id,
                &format!("{name} has compute capability {capability}, {least} or newer is needed: use --device cpu"),
            ));
        }
        let code = Code::find(capability, u32::try_from(driver / 1000).ok(), &|name| std::env::var_os(name))
            .map_err(|why| driver::asked(&id, &why))?;
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
        let context = context(device).map_err(failed("opening a context"))?;
        context.enter().map_err(failed("opening a context"))?;
        let staging = Staging::new().map_err(failed("allocating pinned memory"))?;
        let stream = stream::create(stream::StreamKind::NonBlocking).map_err(failed("making a stream"))?;
        Ok(Cuda {
            kernels: Loaded::new(&id, code, driver),
            id,
            name,
            capability,
            multiprocessors,
            driver,
            graphs: Vec::new(),
            live: BTreeMap::new(),
            in_use: 0,
            peak: 0,
            failed: None,
            capturing: false,
            last: None,
            stream,
            staging,
            context,
        })
    }

    /// What `couplet devices` shows: name, memory, capability, driver, where the kernels come from.
    pub fn report(&self) -> String {
        let (free, total) = self.context.enter().and_then(|()| call::mem_get_info()).unwrap_or((0, 0));
        format!(
            "{}, {} of memory ({} free), compute capability {}, {} multiprocessors, driver for CUDA {}, {}",
            self.name,
            gibibytes(total),
            gibibytes(free),
            self.capability,
            self.multiprocessors,
            driver::version_text(self.driver),
            self.kernels.code().describe(),
        )
    }

    /// The driver's handles. They live as long as this device.
    pub fn raw(&self) -> Raw {
        Raw { context: self.context.raw().cast(), stream: self.stream.cast() }
    }

    fn failure(&self, doing: &str, e: DriverError) -> Error {
        driver::failure(&self.id, doing, e)
    }

    /// A mistake of the caller's, or of ours.
    fn internal(&self, message: &str) -> Error {
        Error::Internal(format!("{}: {message}", self.id))
    }

    /// Makes the context current on this thread, unless something failed before or `doing` cannot be recorded and a recording is on.
    fn ready(&mut self, doing: &str) -> Result<()> {
        if let Some(e) = self.failed.take() {
            return Err(e);
        }
        if self.capturing {
            return Err(self.internal(&format!("{doing} between begin_capture and end_capture")));
        }
        self.context.enter().map_err(|e| self.failure(doing, e))
    }

    /// Runs `f` in the context unless an earlier call failed; its failure sticks.
    fn queue(&mut self, doing: &str, f: impl FnOnce(&mut Cuda) -> Result<()>) {
        if self.failed.is_none() {
            let entered = self.context.enter().map_err(|e| self.failure(doing, e));
            self.failed = entered.and_then(|()| f(self)).err();
        }
    }

    /// Waits for the stream; an error here is that of a kernel queued before.
    fn drain(&self) -> Result<()> {
        // SAFETY: the stream is live.
        unsafe { stream::synchronize(self.stream) }.map_err(|e| match self.last {
            Some(kernel) => self.failure(&format!("running what was queued, {kernel} last"), e),
            None => self.failure("running what was queued", e),
        })
    }

    fn try_launch(&mut self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let function = self.kernels.find(kernel, grid.shared)?;
        function.check(args).map_err(|what| Error::Internal(format!("{}: {kernel} {what}", self.id)))?;
        // The places behind the last argument point to zeros: a kernel with more parameters than were given, under a driver that does
        // not tell how many, reads no stray memory.
        let mut words = [0u64; MAX_ARGS];
        for (word, arg) in words.iter_mut().zip(args) {
            *word = arg.to_word();
        }
        let mut places: [*mut c_void; MAX_ARGS] = words.each_mut().map(|word| (word as *mut u64).cast());
        let (raw, blocks, threads) = (function.raw(), grid.blocks.into(), grid.threads.into());
        // SAFETY: function and stream are live, and the parameters are copied before the call returns. That kernels stay within the
        // memory they are given is checked in the emulator, launch by launch, under the address sanitizer.
        unsafe { call::launch_kernel(raw, blocks, threads, grid.shared, self.stream, &mut places) }
            .map_err(|e| self.failure(&format!("launching {kernel} on {grid:?}"), e))?;
        self.last = Some(kernel);
        Ok(())
    }
}

impl Launch for Cuda {
    fn describe(&self) -> String {
        format!("{}, compute capability {}", self.name, self.capability)
    }

    fn alloc(&mut self, bytes: usize) -> Result<u64> {
        self.ready("allocating")?;
        if bytes == 0 {
            return Ok(256); // aligned and never read: the range is empty
        }
        // SAFETY: the context is current; what the memory holds is set below, before anything queued later reads it.
        let addr = unsafe { call::malloc_sync(bytes) }.map_err(|e| match e {
            DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {
                let (wanted, used, free) = (gibibytes(bytes), gibibytes(self.in_use), gibibytes(self.free_memory()));
                let message =
                    format!("out of memory: {wanted} more wanted, {used} in use here and {free} free; a smaller --batch-size needs less");
                Error::Device { device: self.id.clone(), message, asked: false }
            }
            e => self.failure(&format!("allocating {bytes} bytes"), e),
        })?;
        self.live.insert(addr, bytes);
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
        self.zero(addr, bytes);
        Ok(addr)
    }

    fn free(&mut self, addr: u64, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if self.capturing || self.live.get(&addr) != Some(&bytes) {
            let e = self.internal(&format!("free of {bytes} bytes that were not allocated so, or while recording"));
            self.failed.get_or_insert(e);
            return;
        }
        self.live.remove(&addr);
        self.in_use -= bytes;
        // Even after an error: memory that nobody uses any more must not stay behind.
        let freed = self.context.enter().and_then(|()| {
            // SAFETY: `alloc` gave it and it is off the list of what is live; the stream is drained, so no kernel still reads it.
            unsafe {
                let drained = stream::synchronize(self.stream);
                call::free_sync(addr).and(drained)
            }
        });
        if let Err(e) = freed {
            let e = self.failure("freeing memory", e);
            self.failed.get_or_insert(e);
        }
    }

    fn upload(&mut self, dst: u64, src: &[u8]) -> Result<()> {
        self.ready("an upload")?;
        // SAFETY: the context is current, the stream is live and not capturing (`ready`), and the caller's range holds `src`.
        unsafe { self.staging.upload(self.stream, dst, src) }.map_err(|e| self.failure("an upload", e))
    }

    fn download(&mut self, dst: &mut [u8], src: u64) -> Result<()> {
        self.ready("a download")?;
        self.drain()?;
        if dst.is_empty() {
            return Ok(());
        }
        // SAFETY: the context is current, nothing is queued, and the caller's range holds as many bytes as `dst`.
        unsafe { call::memcpy_dtoh_sync(dst, src) }.map_err(|e| self.failure("a download", e))
    }

    fn zero(&mut self, dst: u64, bytes: usize) {
        self.queue("setting memory to zero", |c| {
            if bytes == 0 {
                return Ok(());
            }
            // SAFETY: the stream is live and the caller's range is allocated.
            unsafe { call::memset_d8_async(dst, 0, bytes, c.stream) }.map_err(|e| c.failure("setting memory to zero", e))
        });
    }

    fn copy(&mut self, dst: u64, src: u64, bytes: usize) {
        self.queue("copying within the device", |c| {
            if bytes == 0 {
                return Ok(());
            }
            // SAFETY: the stream is live; the caller's ranges are allocated and do not overlap.
            unsafe { call::memcpy_dtod_async(dst, src, bytes, c.stream) }.map_err(|e| c.failure("copying within the device", e))
        });
    }

    fn launch(&mut self, kernel: &'static str, grid: Grid, args: &[Arg]) {
        self.queue("launching a kernel", |c| c.try_launch(kernel, grid, args));
    }

    fn finish(&mut self) -> Result<()> {
        self.ready("waiting for the device")?;
        self.drain()
    }

    fn begin_capture(&mut self) -> Result<()> {
        self.ready("a recording")?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is live and not capturing.
        unsafe { stream::begin_capture(self.stream, mode) }.map_err(|e| self.failure("beginning a recording", e))?;
        self.capturing = true;
        Ok(())
    }

    fn end_capture(&mut self) -> Result<GraphId> {
        if !std::mem::replace(&mut self.capturing, false) {
            return Err(self.internal("end_capture without begin_capture"));
        }
        // The stream must leave its recording state whatever happened meanwhile; what went wrong first is what is reported.
        // SAFETY: the stream is live and capturing.
        let ended = self.context.enter().and_then(|()| unsafe { stream::end_capture(self.stream) });
        let recorded = match (self.failed.take(), ended) {
            (None, Ok(graph)) => graph,
            (None, Err(e)) => return Err(self.failure("ending a recording", e)),
            (Some(first), Ok(graph)) => {
                // SAFETY: live, and not used any more.
                let _ = unsafe { graph::destroy(graph) };
                return Err(first);
            }
            (Some(first), Err(_)) => return Err(first),
        };
        // SAFETY: the graph is live until it is destroyed here; the executable one does not need it.
        let exec = unsafe {
            let exec = graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0));
            let _ = graph::destroy(recorded);
            exec
        };
        self.graphs.push(exec.map_err(|e| self.failure("making a graph of a recording", e))?);
        Ok(GraphId(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphId) {
        self.queue("replaying a recording", |c| {
            let Some(&exec) = c.graphs.get(graph.0).filter(|_| !c.capturing) else {
                return Err(c.internal(&format!("replay of {graph:?}, which is not there or while another is recorded")));
            };
            // SAFETY: graph and stream are live, and the stream is not capturing.
            unsafe { graph::launch(exec, c.stream) }.map_err(|e| c.failure("replaying a recording", e))
        });
    }

    #[cfg(test)]
    fn launched(&self) -> Vec<&'static str> {
        self.kernels.names()
    }

    fn memory(&self) -> (usize, usize) {
        (self.in_use, self.peak)
    }

    fn free_memory(&self) -> usize {
        self.context.enter().and_then(|()| call::mem_get_info()).map_or(0, |(free, _)| free)
    }

    fn has_tensor_cores(&self) -> bool {
        self.capability >= (Capability { major: 8, minor: 0 })
    }

    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.context.enter().is_err() {
            return; // the driver has shut down with the process, and everything with it
        }
        // SAFETY: every handle was made by this value and is given back once, after the stream is drained. After a kernel's error
        // these calls fail as well; that error has been reported, or nobody asked.
        unsafe {
            if self.capturing
                && let Ok(recorded) = stream::end_capture(self.stream)
            {
                let _ = graph::destroy(recorded);
            }
            let _ = stream::synchronize(self.stream);
            for exec in self.graphs.drain(..) {
                let _ = graph::exec_destroy(exec);
            }
            for addr in std::mem::take(&mut self.live).into_keys() {
                let _ = call::free_sync(addr);
            }
            self.kernels.unload();
            let _ = stream::destroy(self.stream);
        }
    }
}

/// For a program that takes [`Cuda::raw`] before it hands the device to the engine.
impl From<Cuda> for Device {
    fn from(cuda: Cuda) -> Device {
        Device::Kernels(Kernels(Box::new(cuda)))
    }
}

/// The first GPU, for a test that runs on one if there is one; else why not. Where `COUPLET_REQUIRE_GPU` is set, it must be there.
#[cfg(test)]
pub(crate) fn for_tests() -> std::result::Result<Cuda, String> {
    let found = Cuda::new(0).map_err(|e| e.to_string());
    if let (Err(why), Some(_)) = (&found, std::env::var_os("COUPLET_REQUIRE_GPU")) {
        panic!("COUPLET_REQUIRE_GPU is set: {why}");
    }
    found
}

#[cfg(test)]
mod tests;
