//! What the device can do, measured: the rate of a large matrix product, and of a copy that no cache holds.

use super::time;
use crate::engine::Step;
use crate::engine::ops::gemm::Layout;
use crate::error::Result;

/// A device's measured limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Floating-point operations a second in a product of 1,024 × 1,024 matrices.
    pub flops: f64,
    /// Bytes read and written a second in a copy of 64 MiB.
    pub bytes: f64,
}

/// Measures them; some tenths of a second.
pub fn measure(s: &mut Step) -> Result<Limits> {
    const N: usize = 1024;
    const WORDS: usize = 1 << 24;
    s.end();
    let [a, b, c] = [s.resident([N, N])?, s.resident([N, N])?, s.resident([N, N])?];
    let (x, y) = (s.resident([1, WORDS])?, s.resident([1, WORDS])?);
    let mut run = |f: &mut dyn FnMut(&mut Step)| -> Result<f64> {
        let t = time(2, 7, || {
            f(s);
            let _ = s.finish();
        });
        s.finish()?;
        Ok(t.ms_p10 / 1e3)
    };
    let product = run(&mut |s| s.gemm(Layout::NN, c, a, b, false, None))?;
    let copy = run(&mut |s| s.copy(y, x))?;
    Ok(Limits { flops: 2.0 * (N * N * N) as f64 / product, bytes: 8.0 * WORDS as f64 / copy })
}
