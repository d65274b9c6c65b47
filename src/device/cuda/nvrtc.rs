//! NVRTC, NVIDIA's run-time compiler: where it is looked for, and one call to compile a kernel file.
//!
//! It needs neither a GPU nor a driver. The driver limits which one is of use: a driver for CUDA 12 does not load the
//! machine code of NVRTC 13, so names are tried from the driver's own major number downwards.

use super::library::Library;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::raw::{c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;

/// `cudarc`'s result type of these functions is generated for one version; a plain number fits every version.
type Status = c_int;
type Program = *mut std::os::raw::c_void;
const SUCCESS: Status = 0;

/// An open NVRTC.
pub struct Nvrtc {
    library: Library,
    place: PathBuf,
    version: (u32, u32),
}

/// The newest NVRTC that is looked for when no driver sets the limit.
const NEWEST: u32 = 13;

/// File names, best first: the driver's major version down to 11, then whatever the plain name is.
fn names(newest: u32) -> Vec<OsString> {
    let numbered = (11..=newest).rev().map(|major| match major {
        11 => "libnvrtc.so.11.2".into(), // the name of every release from 11.2 to 11.8
        _ => format!("libnvrtc.so.{major}").into(),
    });
    numbered.chain([OsString::from("libnvrtc.so")]).collect()
}

/// The folders inside `folder` whose names begin with `prefix`, in descending order of name: newer versions first.
fn folders_in(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)) && path.is_dir())
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// The folders that an installer may have put NVRTC in, besides those the system's loader knows: the toolkit's, conda's,
/// and those of the wheels in the Pythons on the path. No Python is started for this.
fn folders(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let path = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut found: Vec<PathBuf> = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| Some(path(name)?.join("lib64"))).collect();
    found.extend(folders_in(Path::new("/usr/local"), "cuda").into_iter().map(|f| f.join("lib64")));
    found.extend(path("CONDA_PREFIX").map(|f| f.join("lib")));
    let mut pythons: Vec<PathBuf> = path("VIRTUAL_ENV").into_iter().chain(path("CONDA_PREFIX")).collect();
    for folder in env("PATH").iter().flat_map(std::env::split_paths) {
        if folder.join("python3").exists() {
            pythons.extend(folder.parent().map(Path::to_path_buf));
        }
    }
    pythons.extend(path("HOME").map(|f| f.join(".local")));
    for python in pythons {
        for version in folders_in(&python.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                found.extend(folders_in(&version.join(packages).join("nvidia"), "").into_iter().map(|f| f.join("lib")));
            }
        }
    }
    let mut once = Vec::new();
    for folder in found {
        if folder.is_dir() && !once.contains(&folder) {
            once.push(folder);
        }
    }
    once
}

impl Nvrtc {
    /// Opens the best NVRTC there is for a driver of CUDA `driver` (its major number, `None` without a driver). The error
    /// says what was looked for and what to do.
    pub fn find(driver: Option<u32>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Nvrtc, String> {
        let newest = driver.unwrap_or(NEWEST);
        if let Some(named) = env("COUPLET_NVRTC").filter(|v| !v.is_empty()) {
            let named = PathBuf::from(named);
            let tried: Vec<PathBuf> = if named.is_dir() {
                names(newest).iter().map(|n| named.join(n)).filter(|f| f.exists()).collect()
            } else {
                vec![named.clone()]
            };
            let mut why = "the folder has no libnvrtc.so".to_string();
            for file in &tried {
                match Nvrtc::open(file.as_os_str(), newest) {
                    Ok(nvrtc) => return Ok(nvrtc),
                    Err(reason) => why = reason,
                }
            }
            return Err(format!("COUPLET_NVRTC names {}, which is not an NVRTC to use: {why}", named.display()));
        }
        let folders = folders(env);
        let mut reasons = Vec::new();
        for name in names(newest) {
            let in_folders = folders.iter().map(|f| f.join(&name)).filter(|f| f.exists());
            for file in [PathBuf::from(&name)].into_iter().chain(in_folders) {
                match Nvrtc::open(file.as_os_str(), newest) {
                    Ok(nvrtc) => return Ok(nvrtc),
                    // A bare name that the loader does not know is the ordinary case; a file that is there and refused is news.
                    Err(reason) if file.is_absolute() => reasons.push(format!("{}: {reason}", file.display())),
                    Err(_) => {}
                }
            }
        }
        Err(not_found(newest, &folders, &reasons))
    }

    fn open(file: &OsStr, newest: u32) -> Result<Nvrtc, String> {
        let library = Library::open(file)?;
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        // SAFETY: the signature of nvrtcVersion since its first release; both pointers are to live integers.
        let status = unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status = library.function(c"nvrtcVersion")?;
            version(&mut major, &mut minor)
        };
        if status != SUCCESS {
            return Err(format!("nvrtcVersion answers {status}"));
        }
        let version = (major.unsigned_abs(), minor.unsigned_abs());
        if version.0 > newest {
            return Err(format!("it is version {major}.{minor}, the driver runs code of CUDA {newest} or older"));
        }
        // NVRTC opens this companion by its bare name at the first compilation. Outside the system's library path it is found only
        // if it is open already; without it nothing compiles, so that another NVRTC is the better choice.
        let companion = format!("libnvrtc-builtins.so.{major}.{minor}");
        let beside = Path::new(file).with_file_name(&companion);
        Library::open(beside.as_os_str()).or_else(|_| Library::open(OsStr::new(&companion)))?;
        Ok(Nvrtc { library, place: PathBuf::from(file), version })
    }

    /// Its version: (13, 0).
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The file, as it was opened.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The architectures it makes machine code for, as numbers: 80, 90, 100.
    pub fn supported(&self) -> Result<Vec<u32>, String> {
        let mut count: c_int = 0;
        // SAFETY: the signatures of nvrtc.h; the list has room for as many numbers as the first call says.
        unsafe {
            let number: unsafe extern "C" fn(*mut c_int) -> Status = self.library.function(c"nvrtcGetNumSupportedArchs")?;
            let list: unsafe extern "C" fn(*mut c_int) -> Status = self.library.function(c"nvrtcGetSupportedArchs")?;
            self.checked("nvrtcGetNumSupportedArchs", number(&mut count))?;
            let mut archs: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
            self.checked("nvrtcGetSupportedArchs", list(archs.as_mut_ptr()))?;
            Ok(archs.into_iter().map(c_int::unsigned_abs).collect())
        }
    }

    /// Machine code of `source` (PTX if `options` name a `compute_` architecture), or the first lines of the compiler's log.
    /// `file` names it in messages; `headers` are (name in `#include`, text).
    pub fn compile(&self, file: &str, source: &str, headers: &[(&str, &str)], options: &[String]) -> Result<Vec<u8>, String> {
        let text = |s: &str| CString::new(s).map_err(|_| format!("{file}: a zero byte in the source or an option"));
        let (source, name) = (text(source)?, text(file)?);
        let header_texts = headers.iter().map(|(_, t)| text(t)).collect::<Result<Vec<_>, _>>()?;
        let header_names = headers.iter().map(|(n, _)| text(n)).collect::<Result<Vec<_>, _>>()?;
        let options_c = options.iter().map(|o| text(o)).collect::<Result<Vec<_>, _>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();
        let (header_texts_p, header_names_p, options_p) = (pointers(&header_texts), pointers(&header_names), pointers(&options_c));
        let is_ptx = options.iter().any(|o| o.contains("=compute_"));
        let (size_name, get_name) = if is_ptx { (c"nvrtcGetPTXSize", c"nvrtcGetPTX") } else { (c"nvrtcGetCUBINSize", c"nvrtcGetCUBIN") };
        type Create =
            unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> Status;
        // SAFETY: the signatures of nvrtc.h; every string and array outlives the calls, which copy what they keep; the program
        // is destroyed when `program` goes, and the output buffers have the sizes that were asked for just before.
        unsafe {
            let create: Create = self.library.function(c"nvrtcCreateProgram")?;
            let compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status =
                self.library.function(c"nvrtcCompileProgram")?;
            let mut program = Held { program: ptr::null_mut(), destroy: self.library.function(c"nvrtcDestroyProgram")? };
            let status = create(
                &mut program.program,
                source.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                header_texts_p.as_ptr(),
                header_names_p.as_ptr(),
            );
            self.checked("nvrtcCreateProgram", status)?;
            let status = compile(program.program, options.len() as c_int, options_p.as_ptr());
            if status != SUCCESS {
                let log = self.output(program.program, c"nvrtcGetProgramLogSize", c"nvrtcGetProgramLog").unwrap_or_default();
                let log = first_lines(&String::from_utf8_lossy(&log));
                return Err(if log.is_empty() { format!("nvrtcCompileProgram: {}", self.reason(status)) } else { log });
            }
            self.output(program.program, size_name, get_name)
        }
    }

    /// One of NVRTC's pairs "size of X", "X".
    ///
    /// # Safety
    /// `program` is live, and `size` and `get` are such a pair.
    unsafe fn output(&self, program: Program, size: &CStr, get: &CStr) -> Result<Vec<u8>, String> {
        let mut bytes: usize = 0;
        // SAFETY: the pairs share their signatures, and the buffer has the size that the first call gives.
        unsafe {
            let size_of: unsafe extern "C" fn(Program, *mut usize) -> Status = self.library.function(size)?;
            let copy_to: unsafe extern "C" fn(Program, *mut c_char) -> Status = self.library.function(get)?;
            self.checked(&size.to_string_lossy(), size_of(program, &mut bytes))?;
            let mut buffer = vec![0u8; bytes];
            self.checked(&get.to_string_lossy(), copy_to(program, buffer.as_mut_ptr().cast()))?;
            Ok(buffer)
        }
    }

    fn checked(&self, call: &str, status: Status) -> Result<(), String> {
        if status == SUCCESS { Ok(()) } else { Err(format!("{call}: {}", self.reason(status))) }
    }

    fn reason(&self, status: Status) -> String {
        // SAFETY: the signature of nvrtc.h; it answers any number with a static C string.
        unsafe {
            let text: Result<unsafe extern "C" fn(Status) -> *const c_char, _> = self.library.function(c"nvrtcGetErrorString");
            match text.map(|f| f(status)) {
                Ok(s) if !s.is_null() => CStr::from_ptr(s).to_string_lossy().into_owned(),
                _ => format!("error {status}"),
            }
        }
    }
}

/// A program that is destroyed on every way out.
struct Held {
    program: Program,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: made by nvrtcCreateProgram and destroyed once.
            unsafe { (self.destroy)(&mut self.program) };
        }
    }
}

/// The head of a compiler's log: the first error says it all, the rest mostly follows from it.
fn first_lines(log: &str) -> String {
    const KEPT: usize = 8;
    let lines: Vec<&str> = log.trim_end_matches('\0').lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let mut head = lines[..lines.len().min(KEPT)].join("\n");
    if lines.len() > KEPT {
        head.push_str(&format!("\n({} more lines)", lines.len() - KEPT));
    }
    head
}

fn not_found(newest: u32, folders: &[PathBuf], reasons: &[String]) -> String {
    let mut places = vec!["the system's library path".to_string()];
    places.extend(folders.iter().map(|f| f.display().to_string()));
    let names: Vec<String> = names(newest).iter().map(|n| n.to_string_lossy().into_owned()).collect();
    let wheel = if newest >= 13 { "nvidia-cuda-nvrtc".to_string() } else { format!("nvidia-cuda-nvrtc-cu{newest}") };
    let refused = if reasons.is_empty() { String::new() } else { format!("; {}", reasons.join("; ")) };
    format!(
        "NVRTC, which compiles the kernels, was not found: install it (pip install {wheel}, or the CUDA toolkit) or set COUPLET_NVRTC to \
         the library; looked for {} in {}{refused}",
        names.join(", "),
        places.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::super::arch::{Capability, options};
    use super::*;
    use crate::device::sources::{HEADERS, KERNELS, SOURCES};
    use std::fs;

    fn environment(pairs: Vec<(&'static str, PathBuf)>) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone().into_os_string())
    }

    #[test]
    fn names_go_from_the_drivers_version_down() {
        assert_eq!(names(12), ["libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"]);
        assert_eq!(names(13)[0], "libnvrtc.so.13");
    }

    #[test]
    fn folders_are_those_of_toolkit_conda_and_the_wheels_beside_each_python() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let folder = dir.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let toolkit = make("toolkit/lib64");
        let conda = make("conda/lib");
        let wheel_13 = make("py/lib/python3.11/site-packages/nvidia/cu13/lib");
        let wheel_12 = make("py/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib");
        let user = make("home/.local/lib/python3.9/site-packages/nvidia/cu13/lib");
        make("py/bin");
        make("no-python/bin");
        make("no-python/lib/python3.11/site-packages/nvidia/cu13/lib");
        fs::write(dir.path().join("py/bin/python3"), "").unwrap();
        let path = std::env::join_paths([dir.path().join("no-python/bin"), dir.path().join("py/bin")]).unwrap();
        let found = folders(&environment(vec![
            ("CUDA_HOME", dir.path().join("toolkit")),
            ("CUDA_PATH", dir.path().join("toolkit")),
            ("CONDA_PREFIX", dir.path().join("conda")),
            ("HOME", dir.path().join("home")),
            ("PATH", path.into()),
        ]));
        let found: Vec<_> = found.into_iter().filter(|f| f.starts_with(dir.path())).collect();
        assert_eq!(found, [toolkit, conda, wheel_12, wheel_13, user]);
    }

    #[test]
    fn a_named_library_that_is_none_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let Err(why) = Nvrtc::find(None, &environment(vec![("COUPLET_NVRTC", dir.path().to_path_buf())])) else { panic!("found") };
        assert!(why.contains("COUPLET_NVRTC") && why.contains("has no libnvrtc.so"), "{why}");
        let file = dir.path().join("libnvrtc.so.13");
        fs::write(&file, "no library").unwrap();
        for named in [file.clone(), dir.path().to_path_buf()] {
            let Err(why) = Nvrtc::find(None, &environment(vec![("COUPLET_NVRTC", named)])) else { panic!("found") };
            assert!(why.contains("COUPLET_NVRTC"), "{why}");
        }
    }

    #[test]
    fn not_found_says_what_was_looked_for_and_what_to_install() {
        let why = not_found(12, &[PathBuf::from("/opt/x/lib64")], &["/opt/x/lib64/libnvrtc.so.12: too short".into()]);
        for part in ["libnvrtc.so.12", "/opt/x/lib64", "too short", "pip install nvidia-cuda-nvrtc-cu12", "COUPLET_NVRTC"] {
            assert!(why.contains(part), "{part} is missing in: {why}");
        }
        assert!(not_found(13, &[], &[]).contains("pip install nvidia-cuda-nvrtc,"));
    }

    #[test]
    fn a_long_log_is_cut_to_its_head() {
        let log: String = (0..20).map(|i| format!("line {i}\n\n")).collect();
        let head = first_lines(&(log + "\0"));
        assert!(head.starts_with("line 0\nline 1\n") && head.ends_with("(12 more lines)"), "{head}");
    }

    /// NVRTC if this machine has it; else the reason is printed and the test has nothing to say.
    fn nvrtc() -> Option<Nvrtc> {
        match Nvrtc::find(None, &|name| std::env::var_os(name)) {
            Ok(nvrtc) => Some(nvrtc),
            Err(why) => {
                println!("skipped: {why}");
                None
            }
        }
    }

    #[test]
    fn every_kernel_file_compiles_with_nvrtc_and_holds_its_kernels() {
        let Some(nvrtc) = nvrtc() else { return };
        let supported = nvrtc.supported().unwrap();
        for (major, minor) in [(8, 0), (9, 0), (10, 0)] {
            if !supported.contains(&(10 * major + minor)) {
                println!("NVRTC {:?} knows no {major}.{minor}", nvrtc.version());
                continue;
            }
            let target = Capability { major, minor }.target(&supported).unwrap();
            for (stem, source) in SOURCES {
                let image = nvrtc
                    .compile(&format!("{stem}.cu"), source, HEADERS, &options(&target))
                    .unwrap_or_else(|log| panic!("kernels/{stem}.cu for {target}:\n{log}"));
                for (kernel, _) in KERNELS.iter().filter(|(_, s)| s == stem) {
                    let section = format!(".text.{kernel}\0");
                    let there = image.windows(section.len()).any(|w| w == section.as_bytes());
                    assert!(there, "kernels/{stem}.cu for {target} has no kernel {kernel}");
                }
            }
        }
    }

    #[test]
    fn a_source_that_does_not_compile_shows_the_compilers_first_lines() {
        let Some(nvrtc) = nvrtc() else { return };
        let options = options(&Capability { major: 9, minor: 0 }.target(&nvrtc.supported().unwrap()).unwrap());
        let log = nvrtc.compile("broken.cu", "__global__ void f() { int x = y; }", &[], &options).unwrap_err();
        assert!(log.contains("broken.cu(1)") && log.contains('y'), "{log}");
        let text = nvrtc.compile("a.cu", "#include \"h.cuh\"\n", &[("h.cuh", "#error here\n")], &options).unwrap_err();
        assert!(text.contains("h.cuh"), "{text}");
    }

    #[test]
    fn ptx_is_made_where_asked_for() {
        let Some(nvrtc) = nvrtc() else { return };
        let source = "extern \"C\" __global__ void twice(float* x) { x[threadIdx.x] *= 2.f; }";
        let ptx = nvrtc.compile("twice.cu", source, &[], &options("compute_90")).unwrap();
        assert!(String::from_utf8_lossy(&ptx).contains(".entry twice"));
    }
}
