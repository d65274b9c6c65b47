//! A shared library opened by its path: NVRTC's file names differ by version and its folders by how it was installed,
//! and `cudarc` knows some of the names and none of the folders.

use std::ffi::{CStr, CString, OsStr};
use std::os::raw::c_void;

/// An open library. It is never closed: NVRTC keeps threads and its functions are copied out.
pub struct Library {
    handle: *mut c_void,
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::raw::{c_char, c_int, c_void};
    pub const RTLD_NOW: c_int = 2;
    // Part of the C library that `std` links, so no crate is needed for three functions.
    unsafe extern "C" {
        pub fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
        pub fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
        pub fn dlerror() -> *mut c_char;
    }
}

impl Library {
    /// Opens `name`: a path, or a bare file name that the system's loader looks up. The error is the loader's reason.
    #[cfg(target_os = "linux")]
    pub fn open(name: &OsStr) -> Result<Library, String> {
        use std::os::unix::ffi::OsStrExt;
        let name = CString::new(name.as_bytes()).map_err(|_| "a zero byte in the name".to_string())?;
        // SAFETY: `name` is a C string. Opening runs the library's initialisers; NVRTC's only set up its own state.
        let handle = unsafe { system::dlopen(name.as_ptr(), system::RTLD_NOW) };
        if handle.is_null() {
            // SAFETY: after a failure `dlerror` returns null or a C string that lives until this thread's next call of the family.
            let reason = unsafe {
                let text = system::dlerror();
                if text.is_null() { "no reason given".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            };
            return Err(reason);
        }
        Ok(Library { handle })
    }

    /// NVIDIA's libraries are looked for on Linux only.
    #[cfg(not(target_os = "linux"))]
    pub fn open(_name: &OsStr) -> Result<Library, String> {
        Err("it is looked for on Linux only".into())
    }

    /// The function `name`.
    ///
    /// # Safety
    /// `F` is the function's type, an `unsafe extern "C" fn`.
    #[cfg(target_os = "linux")]
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: the handle is open and `name` a C string.
        let address = unsafe { system::dlsym(self.handle, name.as_ptr()) };
        if address.is_null() {
            return Err(format!("it has no {}", name.to_string_lossy()));
        }
        // SAFETY: a function pointer has the size and representation of an address here, and the caller vouches for the type.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
    }

    /// See the Linux one; there is no open library to ask.
    ///
    /// # Safety
    /// None is needed.
    #[cfg(not(target_os = "linux"))]
    pub unsafe fn function<F: Copy>(&self, _name: &CStr) -> Result<F, String> {
        Err("it is looked for on Linux only".into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_says_so() {
        let Err(why) = Library::open(OsStr::new("libcouplet-has-no-such.so.7")) else { panic!("it opened") };
        assert!(why.contains("libcouplet-has-no-such.so.7"), "{why}");
        assert!(Library::open(OsStr::new("a\0b")).is_err());
    }

    #[test]
    fn a_function_is_found_by_name_and_called() {
        let c = Library::open(OsStr::new("libc.so.6")).unwrap();
        // SAFETY: the C standard gives this signature.
        let abs = unsafe { c.function::<unsafe extern "C" fn(i32) -> i32>(c"abs") }.unwrap();
        // SAFETY: `abs` takes any value but the most negative.
        assert_eq!(unsafe { abs(-3) }, 3);
        // SAFETY: nothing is called.
        assert!(unsafe { c.function::<unsafe extern "C" fn()>(c"couplet_has_no_such") }.is_err());
    }
}
