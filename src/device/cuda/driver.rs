//! The driver: finding and starting it, its contexts, and its errors in words.
//!
//! `cudarc` panics where the library or one of its functions is missing; [`start`] asks first, and whatever else is
//! called is in every driver that it lets through.

use crate::error::{Error, Result};
use cudarc::driver::DriverError;
use cudarc::driver::result::{self, ctx, device, primary_ctx};
use cudarc::driver::sys;
use std::ffi::{CStr, c_int, c_void};

/// The least driver: graphs, and every function that is called here, are in drivers for CUDA 12.0.
const LEAST: i32 = 12_000;

const NO_DRIVER: &str = "no NVIDIA driver: libcuda.so.1 was not found on the library path; install NVIDIA's driver (in a container, pass \
     the GPU through), or run with --device cpu";
const NO_GPU: &str = "the NVIDIA driver is there and shows no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or run with --device cpu";

/// Finds and starts the driver for the device `name`; the CUDA version it is for (12080 is 12.8). Nothing else of the driver
/// may be called before this has succeeded.
pub fn start(name: &str) -> Result<i32> {
    // SAFETY: opens NVIDIA's library if it is there, which is what this feature is for.
    if !unsafe { sys::is_culib_present() } {
        return Err(asked(name, NO_DRIVER));
    }
    let mut version: c_int = 0;
    // SAFETY: present in every driver; may be called before cuInit.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|e| failure(name, "asking the driver's version", e))?;
    if version < LEAST {
        return Err(asked(name, &too_old(version)));
    }
    match result::init() {
        Ok(()) => Ok(version),
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Err(asked(name, NO_GPU)),
        Err(e) => Err(asked(
            name,
            &format!("the NVIDIA driver does not start: {}; nvidia-smi may say more, --device cpu runs without it", reason(e)),
        )),
    }
}

/// How many GPUs the driver, which was started, shows.
pub fn count(name: &str) -> Result<usize> {
    let n = device::get_count().map_err(|e| failure(name, "counting the GPUs", e))?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// The GPU of that ordinal.
pub fn gpu(name: &str, ordinal: usize) -> Result<sys::CUdevice> {
    let count = count(name)?;
    match c_int::try_from(ordinal) {
        Ok(n) if ordinal < count => device::get(n).map_err(|e| failure(name, "asking for the GPU", e)),
        _ => Err(asked(name, &no_such_gpu(count))),
    }
}

fn too_old(version: i32) -> String {
    let (is, least) = (version_text(version), version_text(LEAST));
    format!("the NVIDIA driver is for CUDA {is}, {least} or newer is needed: update the driver, or run with --device cpu")
}

fn no_such_gpu(count: usize) -> String {
    match count {
        0 => NO_GPU.into(),
        1 => "there is one GPU, cuda:0".into(),
        n => format!("there are {n} GPUs, cuda:0 to cuda:{}", n - 1),
    }
}

/// 12080 is 12.8.
pub fn version_text(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// Memory in words: 1.5 GiB.
pub fn gibibytes(bytes: usize) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// The user asked for what is not there.
pub fn asked(device: &str, message: &str) -> Error {
    Error::Device { device: device.into(), message: message.into(), asked: true }
}

/// A call failed.
pub fn failure(device: &str, doing: &str, e: DriverError) -> Error {
    Error::Device { device: device.into(), message: format!("{doing}: {}", reason(e)), asked: false }
}

/// The driver's name of an error and its sentence.
fn reason(e: DriverError) -> String {
    let text = |s: std::result::Result<&CStr, DriverError>| s.map(|s| s.to_string_lossy().into_owned());
    match (text(e.error_name()), text(e.error_string())) {
        (Ok(name), Ok(sentence)) => format!("{name} ({sentence})"),
        _ => format!("CUDA error {}", e.0 as u32),
    }
}

/// A device's primary context, which other libraries in the process share, or one that the program made.
pub struct Context {
    raw: sys::CUcontext,
    device: sys::CUdevice,
    retained: bool,
}

impl Context {
    /// The primary context of a device that [`gpu`] gave.
    pub fn primary(device: sys::CUdevice) -> std::result::Result<Context, DriverError> {
        // SAFETY: the device is one of the driver's; released once, in `drop`.
        let raw = unsafe { primary_ctx::retain(device) }?;
        Ok(Context { raw, device, retained: true })
    }

    /// One that the program made for that device and keeps.
    pub fn of_program(device: sys::CUdevice, raw: *mut c_void) -> Context {
        Context { raw: raw.cast(), device, retained: false }
    }

    /// Makes it current on the calling thread.
    pub fn enter(&self) -> std::result::Result<(), DriverError> {
        // SAFETY: retained and not yet released, or the program's, which vouched for its life when it gave it.
        unsafe { ctx::set_current(self.raw) }
    }

    /// The handle.
    pub fn raw(&self) -> sys::CUcontext {
        self.raw
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.retained {
            // SAFETY: retained once by `primary`, released once.
            let _ = unsafe { primary_ctx::release(self.device) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_the_message_says_what_was_looked_for_and_what_to_do() {
        // SAFETY: only looks for the library.
        if unsafe { sys::is_culib_present() } {
            println!("skipped: this machine has an NVIDIA driver");
            return;
        }
        let e = start("cuda:0").unwrap_err();
        assert_eq!(e.exit_code(), 2);
        let text = e.to_string();
        assert!(text.starts_with("device cuda:0: no NVIDIA driver: libcuda.so.1 was not found") && text.contains("--device cpu"), "{text}");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_answered_with_those_that_are() {
        assert_eq!(no_such_gpu(1), "there is one GPU, cuda:0");
        assert_eq!(no_such_gpu(4), "there are 4 GPUs, cuda:0 to cuda:3");
        assert!(no_such_gpu(0).contains("CUDA_VISIBLE_DEVICES"));
    }

    #[test]
    fn an_old_driver_is_told_apart_by_its_version() {
        assert!(too_old(11_040).contains("CUDA 11.4, 12.0 or newer"));
        assert_eq!(version_text(12_080), "12.8");
        assert_eq!(version_text(13_000), "13.0");
    }
}
