//! Where the machine code of a kernel file comes from: built into this program, or compiled for the GPU at hand and kept.

use super::arch::{self, Capability};
use super::cache::{self, Cache};
use super::nvrtc::Nvrtc;
use crate::device::sources::{CUBINS, HEADERS, SOURCES};
use std::ffi::OsString;

/// The code for one kind of GPU.
pub struct Code {
    capability: Capability,
    /// NVRTC and what it makes, unless this program holds code for every file.
    compiler: Option<(Nvrtc, String)>,
    cache: Cache,
}

impl Code {
    /// A way to the code of every kernel file for such a GPU under a driver of that CUDA version (12 for 12.8), or what is missing.
    pub fn find(capability: Capability, driver: Option<u32>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Code, String> {
        let built_in = SOURCES.iter().all(|(stem, _)| capability.pick(CUBINS, stem).is_some());
        let compiler = if built_in { None } else { Some(compiler(capability, driver, env)?) };
        Ok(Code { capability, compiler, cache: Cache::of_user(env) })
    }

    /// Where it comes from, for `couplet devices`.
    pub fn describe(&self) -> String {
        match &self.compiler {
            None => "kernels built in".to_string(),
            Some((nvrtc, target)) => {
                let (major, minor) = nvrtc.version();
                format!("kernels compiled for {target} by NVRTC {major}.{minor} ({})", nvrtc.place().display())
            }
        }
    }

    /// What the driver loads for a kernel file: machine code, or PTX, with the zero byte behind it that PTX wants.
    pub fn image(&self, stem: &str) -> Result<Vec<u8>, String> {
        let mut image = match (self.capability.pick(CUBINS, stem), &self.compiler) {
            (Some(image), _) => image.to_vec(),
            (None, Some((nvrtc, target))) => self.compile(nvrtc, target, stem)?,
            (None, None) => return Err(format!("there is no kernels/{stem}.cu")),
        };
        image.push(0);
        Ok(image)
    }

    fn compile(&self, nvrtc: &Nvrtc, target: &str, stem: &str) -> Result<Vec<u8>, String> {
        let (_, source) = SOURCES.iter().find(|(s, _)| *s == stem).ok_or_else(|| format!("there is no kernels/{stem}.cu"))?;
        let options = arch::options(target);
        let key = {
            let version = format!("{:?}", nvrtc.version());
            let mut parts: Vec<&[u8]> = vec![version.as_bytes(), source.as_bytes()];
            parts.extend(HEADERS.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
            parts.extend(options.iter().map(|o| o.as_bytes()));
            cache::hash(&parts)
        };
        let make = || nvrtc.compile(&format!("{stem}.cu"), source, HEADERS, &options);
        self.cache
            .get_or_make(&format!("{stem}-{target}"), key, make)
            .map_err(|log| format!("kernels/{stem}.cu does not compile for {target} with {}:\n{log}", nvrtc.place().display()))
    }
}

fn compiler(capability: Capability, driver: Option<u32>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<(Nvrtc, String), String> {
    let nvrtc = Nvrtc::find(driver, env)?;
    let supported = nvrtc.supported().map_err(|why| format!("{}: {why}", nvrtc.place().display()))?;
    let target = capability.target(&supported).ok_or_else(|| {
        let (major, minor) = nvrtc.version();
        format!(
            "NVRTC {major}.{minor} ({}) makes no code for compute capability {capability}: install another version of it",
            nvrtc.place().display()
        )
    })?;
    Ok((nvrtc, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_files_code_is_found_made_and_kept() {
        let cache = tempfile::tempdir().unwrap();
        let env = |name: &str| if name == "XDG_CACHE_HOME" { Some(cache.path().into()) } else { std::env::var_os(name) };
        let code = match Code::find(Capability { major: 9, minor: 0 }, None, &env) {
            Ok(code) => code,
            Err(why) => {
                assert!(why.contains("NVRTC"), "{why}");
                println!("skipped: {why}");
                return;
            }
        };
        for (stem, _) in SOURCES {
            let first = code.image(stem).unwrap();
            assert!(first.starts_with(b"\x7fELF") && first.ends_with(&[0]), "{stem}: no machine code");
            assert_eq!(first, code.image(stem).unwrap(), "{stem}: the kept one differs");
        }
        let kept = std::fs::read_dir(cache.path().join("couplet")).map_or(0, |files| files.count());
        assert_eq!(kept, if code.compiler.is_some() { SOURCES.len() } else { 0 });
        assert!(code.image("no_such_file").is_err());
    }
}
