//! A z-stack as one image: its values onto 0..1, the largest over z, resized (Yang 2021, Methods; section 3.1 of the public program).
//!
//!   values     (v - min) / (max - min) over the whole stack; a constant stack is all 0
//!   resizing   bicubic with a = -0.75, pixel centres at half integers, the edge's pixel beyond it, no smoothing before; then cut to 0..1

use super::picture::Picture;
use crate::error::{Error, Result};
use std::path::Path;

/// [1, side, side]. An error for a stack with several channels.
pub fn project(picture: &Picture, file: &Path, side: usize) -> Result<Vec<f32>> {
    let [channels, height, width] = picture.shape();
    if channels != 1 {
        return Err(Error::input(file, "", format!("it has {channels} channels: a stack is projected one channel at a time, in grey")));
    }
    if height * width == 0 {
        return Err(Error::input(file, "", "it has no pixels"));
    }
    let (low, high) = picture.pages.iter().flatten().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let mut largest = vec![0.0f64; height * width];
    if high > low {
        for page in &picture.pages {
            largest.iter_mut().zip(page).for_each(|(m, &v)| *m = m.max(f64::from(v - low) / f64::from(high - low)));
        }
    }
    Ok(resize(&largest, [height, width], [side; 2]).into_iter().map(|v| v.clamp(0.0, 1.0) as f32).collect())
}

/// The four pixels that an output pixel is made of, and their weights.
fn taps(out: usize, from: usize, to: usize) -> [(usize, f64); 4] {
    const A: f64 = -0.75;
    let at = (out as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let (first, t) = (at.floor(), at - at.floor());
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)];
    std::array::from_fn(|i| ((first + i as f64 - 1.0).clamp(0.0, (from - 1) as f64) as usize, weights[i]))
}

fn resize(x: &[f64], [height, width]: [usize; 2], [to_height, to_width]: [usize; 2]) -> Vec<f64> {
    let mut wide = Vec::with_capacity(height * to_width);
    for row in x.chunks_exact(width) {
        wide.extend((0..to_width).map(|j| taps(j, width, to_width).iter().map(|&(at, w)| w * row[at]).sum::<f64>()));
    }
    (0..to_height * to_width)
        .map(|at| {
            let (i, j) = (at / to_width, at % to_width);
            taps(i, height, to_height).iter().map(|&(y, w)| w * wide[y * to_width + j]).sum()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_keeps_constants_and_straight_lines_and_its_own_size() {
        let flat = resize(&[0.25; 35], [5, 7], [8, 3]);
        assert!(flat.iter().all(|v| (v - 0.25).abs() < 1e-12));
        let x: Vec<f64> = (0..12).map(|v| f64::from(v).sin()).collect();
        assert_eq!(resize(&x, [3, 4], [3, 4]), x);
        // Weights of the kernel at a quarter between pixels, by hand: -0.10546875, 0.87890625, 0.26171875, -0.03515625.
        let step = resize(&[0.0, 0.0, 1.0, 1.0], [1, 4], [1, 8]);
        assert!((step[3] - (0.26171875 - 0.03515625)).abs() < 1e-12, "{step:?}");
    }
}
