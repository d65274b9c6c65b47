//! Which machine code a GPU runs, and what a compiler should make for it.
//!
//! Code for `sm_XY` runs on every GPU of the same major number whose minor number is not lower; code for `sm_XYa`
//! runs on exactly that one, because it may use instructions that no other has; `compute_XY` is PTX, which the
//! driver translates for any GPU at least that new.

use crate::device::sources::OPTIONS;
use std::fmt;

/// A GPU's compute capability: 9.0 is `{ major: 9, minor: 0 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// The generation.
    pub major: u32,
    /// The variant within it.
    pub minor: u32,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest GPU the kernels are written for: `cp.async` and `mma.sync` on tf32 and bf16 begin there.
pub const OLDEST: Capability = Capability { major: 8, minor: 0 };

impl Capability {
    /// As one number, 90 for 9.0: how NVRTC counts.
    fn number(self) -> u32 {
        10 * self.major + self.minor
    }

    /// What a compiler with code for `supported` (numbers like 90) should make for this GPU: its machine code, or PTX for
    /// the newest older one where the compiler does not know the GPU. `None` if every one it knows is newer.
    pub fn target(self, supported: &[u32]) -> Option<String> {
        if supported.contains(&self.number()) {
            // 9.0 alone has instructions of its own that the kernels use (wgmma, bulk copies).
            let own = if self == (Capability { major: 9, minor: 0 }) { "a" } else { "" };
            return Some(format!("sm_{}{own}", self.number()));
        }
        let older = supported.iter().filter(|&&n| n < self.number()).max()?;
        Some(format!("compute_{older}"))
    }

    /// How well code for `arch` suits this GPU: `None` if it does not run, else the higher the better.
    fn suits(self, arch: &str) -> Option<u32> {
        let capability = |digits: &str| {
            let (major, minor) = digits.split_at_checked(digits.len().checked_sub(1)?)?;
            Some(Capability { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        if let Some(digits) = arch.strip_prefix("compute_") {
            let least = capability(digits)?;
            return (least <= self).then(|| least.number());
        }
        let rest = arch.strip_prefix("sm_")?;
        if let Some(digits) = rest.strip_suffix('a') {
            return (capability(digits)? == self).then_some(u32::MAX);
        }
        let least = capability(rest)?;
        (least.major == self.major && least.minor <= self.minor).then(|| 10_000 + least.number())
    }

    /// The best of the `(stem, arch, image)` built into this program for this file and GPU.
    pub fn pick<'a>(self, images: &[(&str, &str, &'a [u8])], stem: &str) -> Option<&'a [u8]> {
        let suited = images.iter().filter(|(s, _, _)| *s == stem).filter_map(|(_, arch, image)| Some((self.suits(arch)?, *image)));
        suited.max_by_key(|(score, _)| *score).map(|(_, image)| image)
    }
}

/// NVRTC's options for one target: those that every compiler of the kernels is given, and line numbers for the sanitizer.
pub fn options(target: &str) -> Vec<String> {
    // NVRTC takes a generic lambda for a function of the host unless told that there is none; nvcc goes by where it stands.
    let own = [format!("--gpu-architecture={target}"), "--generate-line-info".into(), "--device-as-default-execution-space".into()];
    own.into_iter().chain(OPTIONS.iter().map(|o| o.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Capability = Capability { major: 9, minor: 0 };
    const fn cc(major: u32, minor: u32) -> Capability {
        Capability { major, minor }
    }

    #[test]
    fn machine_code_runs_on_its_major_number_from_its_minor_number_on() {
        assert!(cc(8, 0).suits("sm_80").is_some());
        assert!(cc(8, 6).suits("sm_80").is_some());
        assert!(cc(8, 0).suits("sm_86").is_none());
        assert!(cc(9, 0).suits("sm_80").is_none());
        assert!(cc(12, 0).suits("sm_100").is_none());
        assert!(cc(10, 3).suits("sm_100").is_some());
    }

    #[test]
    fn architecture_specific_code_runs_on_exactly_one() {
        assert!(cc(9, 0).suits("sm_90a").is_some());
        assert!(cc(10, 0).suits("sm_100a").is_some());
        assert!(cc(10, 3).suits("sm_100a").is_none());
    }

    #[test]
    fn names_that_are_no_architecture_suit_nothing() {
        for name in ["", "sm_", "sm_a", "sm_9x", "compute_", "90a", "sm_100f", "sm_é", "sm_0é"] {
            assert_eq!(cc(9, 0).suits(name), None, "{name}");
        }
    }

    #[test]
    fn the_best_image_is_picked_and_ptx_is_the_last_resort() {
        let images: [(&str, &str, &[u8]); 6] = [
            ("linear", "compute_80", b"ptx"),
            ("linear", "sm_80", b"80"),
            ("linear", "sm_86", b"86"),
            ("linear", "sm_90a", b"90a"),
            ("linear", "sm_90", b"90"),
            ("noise", "sm_100", b"noise"),
        ];
        assert_eq!(cc(8, 0).pick(&images, "linear"), Some(&b"80"[..]));
        assert_eq!(cc(8, 9).pick(&images, "linear"), Some(&b"86"[..]));
        assert_eq!(HOPPER.pick(&images, "linear"), Some(&b"90a"[..]));
        assert_eq!(cc(12, 0).pick(&images, "linear"), Some(&b"ptx"[..]));
        assert_eq!(cc(7, 5).pick(&images, "linear"), None);
        assert_eq!(HOPPER.pick(&images, "noise"), None);
        assert_eq!(HOPPER.pick(&images, "optim"), None);
    }

    #[test]
    fn a_compiler_older_than_the_gpu_makes_ptx_that_the_driver_translates() {
        assert_eq!(HOPPER.target(&[80, 86, 90, 100]).as_deref(), Some("sm_90a"));
        assert_eq!(cc(8, 0).target(&[75, 80, 90]).as_deref(), Some("sm_80"));
        assert_eq!(cc(10, 3).target(&[80, 90, 100, 103]).as_deref(), Some("sm_103"));
        assert_eq!(cc(12, 0).target(&[75, 80, 90]).as_deref(), Some("compute_90"));
        assert_eq!(cc(7, 0).target(&[75, 80]), None);
    }
}
