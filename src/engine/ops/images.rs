//! The processor's loops over the channels of image batches [B, C·P]: what bias gradients and batch norms of images share. No operation.
//!
//! A channel's sums run over the cells in order, in f64, eight running sums side by side along its pixels.

use crate::device::cpu;
use crate::device::vector::vectorised;
use rayon::prelude::*;

const LANES: usize = 8;

/// Σ over cells and pixels of `term(values)` for channel `c` of matrices of `cols` columns: K sums at once.
#[inline]
pub fn channel_sums<const N: usize, const K: usize>(
    x: [&[f32]; N],
    cols: usize,
    c: usize,
    pixels: usize,
    term: impl Fn([f32; N]) -> [f64; K],
) -> [f64; K] {
    let mut sums = [[0.0f64; LANES]; K];
    vectorised(
        #[inline(always)]
        || {
            for start in (c * pixels..x[0].len()).step_by(cols.max(1)) {
                let x = x.map(|x| &x[start..start + pixels]);
                let whole = pixels / LANES * LANES;
                for p in (0..whole).step_by(LANES) {
                    let x = x.map(|x| x[p..p + LANES].first_chunk::<LANES>().expect("eight values"));
                    for l in 0..LANES {
                        let terms = term(x.map(|x| x[l]));
                        for (sum, t) in sums.iter_mut().zip(terms) {
                            sum[l] += t;
                        }
                    }
                }
                for p in whole..pixels {
                    let terms = term(x.map(|x| x[p]));
                    for (sum, t) in sums.iter_mut().zip(terms) {
                        sum[p - whole] += t;
                    }
                }
            }
        },
    );
    sums.map(|s| ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])))
}

/// Calls `f(channel, its value)` over the cores if the images, `size` words in all, are worth it.
pub fn each_channel<T: Send>(values: &mut [T], size: usize, f: impl Fn(usize, &mut T) + Sync + Send) {
    let at_least = (cpu::SERIAL * values.len()).div_ceil(size.max(1)).max(1);
    values.par_iter_mut().enumerate().with_min_len(at_least).for_each(|(c, v)| f(c, v));
}
