//! The kernels that were launched so far: their files loaded, their functions found, their parameters known.

use super::code::Code;
use super::driver;
use crate::device::launch::Arg;
use crate::device::sources;
use crate::error::{Error, Result};
use cudarc::driver::DriverError;
use cudarc::driver::result::{function, module};
use cudarc::driver::sys;
use std::collections::BTreeMap;
use std::ffi::{CString, c_int};

/// The most arguments that a kernel takes.
pub const MAX_ARGS: usize = 48;
/// Dynamic shared memory above this must be asked for, a kernel at a time.
const SHARED_UNASKED: u32 = 48 << 10;
/// From this driver on the sizes of a kernel's parameters can be asked for.
const TELLS_PARAMETERS: i32 = 12_040;

/// The loaded files and found kernels of one context.
pub struct Loaded {
    id: String,
    driver: i32,
    code: Code,
    modules: BTreeMap<&'static str, sys::CUmodule>,
    functions: BTreeMap<&'static str, Function>,
}

/// A kernel that was found.
pub struct Function {
    raw: sys::CUfunction,
    /// The sizes of its parameters in bytes, where the driver tells.
    sizes: Option<Vec<usize>>,
    /// Dynamic shared memory it may use.
    shared: u32,
}

impl Loaded {
    /// Nothing is loaded yet. `id` is the device's name in messages.
    pub fn new(id: &str, code: Code, driver: i32) -> Loaded {
        Loaded { id: id.into(), driver, code, modules: BTreeMap::new(), functions: BTreeMap::new() }
    }

    /// Where the code comes from.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// The names of the kernels that were found.
    #[cfg(test)]
    pub fn names(&self) -> Vec<&'static str> {
        self.functions.keys().copied().collect()
    }

    /// The kernel `name`, its file loaded if this is the file's first, allowed `shared` bytes of dynamic shared memory. The context
    /// is current.
    pub fn find(&mut self, name: &'static str, shared: u32) -> Result<&Function> {
        if self.functions.get(name).is_none_or(|f| f.shared < shared) {
            let function = self.outside_recording(|loaded| loaded.load(name, shared))?;
            self.functions.insert(name, function);
        }
        Ok(&self.functions[name])
    }

    /// Loading is no part of a recording, and the driver refuses it during one unless this thread's mode is relaxed meanwhile.
    fn outside_recording<T>(&mut self, f: impl FnOnce(&mut Loaded) -> Result<T>) -> Result<T> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: exchanges this thread's mode for the one in `mode`.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result().map_err(|e| self.failure("loading a kernel", e))?;
        let result = f(self);
        // SAFETY: puts back what the call above took out.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result().map_err(|e| self.failure("loading a kernel", e))?;
        result
    }

    fn load(&mut self, name: &'static str, shared: u32) -> Result<Function> {
        let Some(stem) = sources::stem_of(name) else {
            return Err(Error::Internal(format!("{}: kernels/ has no kernel {name}", self.id)));
        };
        let module = match self.modules.get(stem) {
            Some(module) => *module,
            None => {
                let failed = |message| Error::Device { device: self.id.clone(), message, asked: false };
                let image = self.code.image(stem).map_err(failed)?;
                // SAFETY: the image is machine code, or PTX with a zero byte behind it; the driver copies what it keeps.
                let module = unsafe { module::load_data(image.as_ptr().cast()) };
                let module = module.map_err(|e| self.failure(&format!("loading kernels/{stem}.cu"), e))?;
                self.modules.insert(stem, module);
                module
            }
        };
        let symbol = CString::new(name).map_err(|_| Error::Internal(format!("{name:?} is no kernel's name")))?;
        // SAFETY: the module is live until `unload`.
        let raw = unsafe { module::get_function(module, symbol) };
        let raw = raw.map_err(|e| self.failure(&format!("finding {name} in kernels/{stem}.cu"), e))?;
        if shared > SHARED_UNASKED {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is live; the driver checks the size.
            unsafe { function::set_function_attribute(raw, attribute, c_int::try_from(shared).unwrap_or(c_int::MAX)) }
                .map_err(|e| self.failure(&format!("asking for {shared} bytes of shared memory for {name}"), e))?;
        }
        Ok(Function { raw, sizes: self.parameter_sizes(raw), shared: shared.max(SHARED_UNASKED) })
    }

    fn parameter_sizes(&self, function: sys::CUfunction) -> Option<Vec<usize>> {
        if self.driver < TELLS_PARAMETERS {
            return None;
        }
        let mut sizes = Vec::new();
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is live; one past the last parameter the driver answers with an error.
        while unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size) } == sys::CUresult::CUDA_SUCCESS {
            sizes.push(size);
        }
        Some(sizes)
    }

    fn failure(&self, doing: &str, e: DriverError) -> Error {
        driver::failure(&self.id, doing, e)
    }

    /// Unloads everything.
    ///
    /// # Safety
    /// The context is current and none of the kernels is queued or running.
    pub unsafe fn unload(&mut self) {
        self.functions.clear();
        for module in std::mem::take(&mut self.modules).into_values() {
            // SAFETY: loaded by `load` and unloaded once; the functions that point into it are gone.
            let _ = unsafe { module::unload(module) };
        }
    }
}

impl Function {
    /// The handle.
    pub fn raw(&self) -> sys::CUfunction {
        self.raw
    }

    /// Whether the arguments are as many and as wide as the parameters; the error continues a sentence that begins with the
    /// kernel's name.
    pub fn check(&self, args: &[Arg]) -> std::result::Result<(), String> {
        check_arguments(args, self.sizes.as_deref())
    }
}

fn check_arguments(args: &[Arg], sizes: Option<&[usize]>) -> std::result::Result<(), String> {
    if args.len() > MAX_ARGS {
        return Err(format!("is launched with {} arguments, {MAX_ARGS} is the most", args.len()));
    }
    let Some(sizes) = sizes else { return Ok(()) };
    if args.len() != sizes.len() {
        return Err(format!("takes {} arguments and is launched with {}", sizes.len(), args.len()));
    }
    for (i, (arg, &size)) in args.iter().zip(sizes).enumerate() {
        let wide = if matches!(arg, Arg::Ptr(_)) { 8 } else { 4 };
        if wide != size {
            return Err(format!("takes {size} bytes as argument {i} and is launched with {arg:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_against_the_kernels_parameters() {
        let args = [Arg::Ptr(256), Arg::I32(7), Arg::F32(0.5)];
        assert_eq!(check_arguments(&args, Some(&[8, 4, 4])), Ok(()));
        assert_eq!(check_arguments(&args, None), Ok(()));
        assert!(check_arguments(&args, Some(&[8, 4])).unwrap_err().contains("takes 2 arguments and is launched with 3"));
        assert!(check_arguments(&args, Some(&[8, 8, 4])).unwrap_err().contains("8 bytes as argument 1"));
        assert!(check_arguments(&[Arg::I32(0); MAX_ARGS + 1], None).is_err());
    }
}
