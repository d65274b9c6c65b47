//! Loops compiled for the processor at hand: one source, several instruction sets, the widest picked at run time.
//!
//! The bits do not depend on the choice: the compiler contracts and reorders no floating operation, and an explicit fma is exact
//! everywhere (where there is no such instruction, it is computed by a library and slow).

/// How wide the processor's vectors are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Width {
    /// What the target guarantees.
    Plain,
    /// 256 bits with fma.
    Avx2,
    /// 512 bits.
    Avx512,
}

impl Width {
    /// Whether this processor has it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn exists(self) -> bool {
        match self {
            Width::Plain => true,
            Width::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Width::Avx512 => {
                Width::Avx2.exists()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }

    /// Whether this processor has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn exists(self) -> bool {
        self == Width::Plain
    }
}

/// Runs `f` as compiled for the widest vectors that the processor has. Only what is inlined into `f` is compiled so: write the closure
/// as `#[inline(always)] || …`, and mark what it calls likewise.
#[inline]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    let width = [Width::Avx512, Width::Avx2].into_iter().find(|w| w.exists()).unwrap_or(Width::Plain);
    at(width, f)
}

/// As [`vectorised`] with a given width; plain if the processor does not have it.
#[inline]
pub(super) fn at<R>(width: Width, f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
        fn avx512<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        match width {
            // SAFETY: the processor was just asked for these instructions.
            Width::Avx512 if width.exists() => return unsafe { avx512(f) },
            // SAFETY: as above.
            Width::Avx2 if width.exists() => return unsafe { avx2(f) },
            _ => {}
        }
    }
    let _ = width;
    f()
}
