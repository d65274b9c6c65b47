//! The kernels of `kernels/` as they stand in the binary.
//!
//! `build.rs` lists them: [`SOURCES`] and [`HEADERS`] are the texts (a source includes its headers by their file names and nothing
//! else), [`KERNELS`] says which source a kernel is in, and [`CUBINS`] holds what `nvcc` compiled ahead, empty where there was none.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The options that every compiler of the kernels is given, `nvcc` by `build.rs` and NVRTC at run time: no contraction, so that the
/// hand-written functions have the same bits on every device (what may be one fma says so).
pub const OPTIONS: &[&str] = &["-std=c++17", "--fmad=false"];

/// The source that `kernel` is in, by its stem.
pub fn stem_of(kernel: &str) -> Option<&'static str> {
    KERNELS.binary_search_by(|(name, _)| (*name).cmp(kernel)).ok().map(|i| KERNELS[i].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_a_source_that_is_embedded() {
        assert!(!KERNELS.is_empty());
        for (kernel, stem) in KERNELS {
            assert_eq!(stem_of(kernel), Some(*stem));
            let (_, text) = SOURCES.iter().find(|(s, _)| s == stem).expect("the source is embedded");
            assert!(text.contains(&format!("{kernel}(")), "{kernel} is not in kernels/{stem}.cu");
        }
        assert_eq!(stem_of("no_such_kernel"), None);
    }

    #[test]
    fn sources_include_only_headers_that_are_embedded() {
        for (stem, text) in SOURCES {
            for line in text.lines().filter(|l| l.trim_start().starts_with("#include")) {
                let file = line.split('"').nth(1).unwrap_or_else(|| panic!("kernels/{stem}.cu includes a system header: {line}"));
                assert!(HEADERS.iter().any(|(h, _)| *h == file), "kernels/{stem}.cu includes {file}, which is not in kernels/");
            }
        }
    }
}
