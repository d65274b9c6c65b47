//! `--orient`: images turned so that their subjects lie alike.
//!
//! A nucleus lies in its field as it happens to, and nothing else that is measured of the cell says how. What a model then makes of the other
//! modality is the mean over all turns, a blur. Here the subject's own moments decide: with weights w(x) = max(0, v(x) - background), summed over
//! the channels,
//!
//!   centre      Σ w x / Σ w comes to the middle of the image
//!   axes        the eigenvectors of Σ w (x - c)(x - c)ᵀ, the larger one to lie across
//!   signs       Σ w ((x - c)·axis)³ ≥ 0 along both: the longer tail to the right and down, which may mirror the image
//!
//! The background of a channel is the median of its outermost pixels; it also fills what comes into the frame. Values between pixels are
//! bilinear; integers stay integers. A blank image is left as it is.

use super::formats::{Layout, Row, Rows, Source, Table};
use super::hooks::Hooks;
use super::in_place::Place;
use super::manifest::ModalityEntry;
use super::npy::Dtype;
use crate::error::{Error, Result};
use std::path::Path;

/// Whether a modality is of images that were turned as they were imported.
pub fn oriented(modality: &ModalityEntry) -> bool {
    modality.source.made.as_deref() == Some(MADE)
}

/// What `dataset.json` says of the images.
pub(super) const MADE: &str = "oriented: turned by their moments";
/// An image of which a smaller share than this is still in the frame counts as cut.
const WHOLE: f64 = 0.99;

/// The source of oriented images in place of the images that `file` gives.
pub(super) fn orient(source: Source, file: &Path) -> Result<Source> {
    let Source { head, rows } = source;
    let (&[channels, height, width], Layout::Dense(dtype)) = (head.shape.as_slice(), &head.layout) else {
        return Err(Error::input(file, "", "its cells are no images: leave --orient out"));
    };
    if head.width() == 0 {
        return Ok(Source { head, rows });
    }
    let whole_numbers = !matches!(dtype, Dtype::F16 | Dtype::F32 | Dtype::F64);
    let rows = Oriented { images: rows, size: [channels, height, width], whole_numbers, before: Row::default(), cut: 0 };
    Ok(Source { head, rows: Box::new(rows) })
}

struct Oriented {
    images: Box<dyn Rows>,
    /// Channels, height, width.
    size: [usize; 3],
    whole_numbers: bool,
    before: Row,
    /// Images that no longer fit the frame.
    cut: usize,
}

impl Rows for Oriented {
    fn prepare(&mut self, stage: &str, hooks: &mut Hooks) -> Result<()> {
        self.images.prepare(stage, hooks)
    }

    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if !self.images.next_row(&mut self.before)? {
            return Ok(false);
        }
        row.id = self.before.id.take();
        let left = turned(&self.before.values, self.size, &mut row.values);
        self.cut += usize::from(left < WHOLE);
        if self.whole_numbers {
            row.values.iter_mut().for_each(|v| *v = v.round());
        }
        Ok(true)
    }

    fn place(&self, row: usize) -> String {
        self.images.place(row)
    }

    fn in_place(&self) -> Result<Place, &'static str> {
        Err("its images are turned")
    }

    fn labels(&mut self) -> Option<Table> {
        self.images.labels()
    }

    fn notes(&mut self) -> Vec<String> {
        let mut all = self.images.notes();
        if self.cut > 0 {
            all.push(format!("{} images reach out of their frame once they are turned, and are cut there", self.cut));
        }
        all
    }
}

/// A coordinate from the image's upper left pixel, (across, down).
type Point = [f64; 2];

/// An image on its axes; how much of its weight is still in the frame.
fn turned(image: &[f32], [channels, height, width]: [usize; 3], out: &mut Vec<f32>) -> f64 {
    out.clear();
    let pixels = height * width;
    let background: Vec<f32> = image.chunks_exact(pixels).map(|channel| border_median(channel, [height, width])).collect();
    let weights = |of: &[f32]| -> Vec<f64> {
        let above = |(channel, &b): (&[f32], &f32), p: usize| f64::from((channel[p] - b).max(0.0));
        (0..pixels).map(|p| of.chunks_exact(pixels).zip(&background).map(|c| above(c, p)).sum()).collect()
    };
    let before = weights(image);
    let Some((centre, [a, b])) = axes(&before, width) else {
        out.extend_from_slice(image);
        return 1.0;
    };
    let middle = [(width - 1) as f64 / 2.0, (height - 1) as f64 / 2.0];
    for channel in 0..channels {
        let (from, fill) = (&image[channel * pixels..][..pixels], background[channel]);
        for p in 0..pixels {
            let [across, down] = [(p % width) as f64 - middle[0], (p / width) as f64 - middle[1]];
            let at = [0, 1].map(|i| centre[i] + a[i] * across + b[i] * down);
            out.push(bilinear(from, [height, width], at, fill));
        }
    }
    weights(out).iter().sum::<f64>() / before.iter().sum::<f64>()
}

/// The middle value of the outermost pixels.
fn border_median(channel: &[f32], [height, width]: [usize; 2]) -> f32 {
    let outermost = |p: &usize| [0, width - 1].contains(&(p % width)) || [0, height - 1].contains(&(p / width));
    let mut border: Vec<f32> = (0..channel.len()).filter(outermost).map(|p| channel[p]).collect();
    border.sort_by(f32::total_cmp);
    border[border.len() / 2]
}

/// The centre of the weights, and their longer and shorter axis; `None` where there is no finite weight.
fn axes(weights: &[f64], width: usize) -> Option<(Point, [Point; 2])> {
    let points = || weights.iter().enumerate().filter(|(_, w)| **w > 0.0).map(|(p, &w)| (w, [(p % width) as f64, (p / width) as f64]));
    let all: f64 = weights.iter().sum();
    if !(all > 0.0 && all.is_finite()) {
        return None;
    }
    let centre = [0, 1].map(|i| points().map(|(w, x)| w * x[i]).sum::<f64>() / all);
    let second = |i: usize, j: usize| points().map(|(w, x)| w * (x[i] - centre[i]) * (x[j] - centre[j])).sum::<f64>();
    let angle = 0.5 * (2.0 * second(0, 1)).atan2(second(0, 0) - second(1, 1));
    let (sin, cos) = angle.sin_cos();
    let signed = |axis: Point| {
        let along = |x: Point| (x[0] - centre[0]) * axis[0] + (x[1] - centre[1]) * axis[1];
        let third: f64 = points().map(|(w, x)| w * along(x).powi(3)).sum();
        if third < 0.0 { axis.map(|v| -v) } else { axis }
    };
    Some((centre, [signed([cos, sin]), signed([-sin, cos])]))
}

/// The value between four pixels; `fill` counts for those outside.
fn bilinear(channel: &[f32], [height, width]: [usize; 2], [x, y]: Point, fill: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (across, down) = (x - left, y - top);
    let pixel = |x: f64, y: f64| {
        let inside = x >= 0.0 && y >= 0.0 && x < width as f64 && y < height as f64;
        f64::from(if inside { channel[y as usize * width + x as usize] } else { fill })
    };
    // A neighbour of no share is not looked at: at the last row it would be outside.
    let between = |from: f64, to: &dyn Fn() -> f64, share: f64| if share > 0.0 { from + share * (to() - from) } else { from };
    let row = |y: f64| between(pixel(left, y), &|| pixel(left + 1.0, y), across);
    between(row(top), &|| row(top + 1.0), down) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 41;

    /// An egg on a background: longer one way, blunter at one end, leaning to one side; turned by an angle, mirrored or not, and moved.
    fn egg(angle: f64, mirrored: bool, moved: Point) -> Vec<f32> {
        let middle = (SIDE - 1) as f64 / 2.0;
        (0..SIDE * SIDE)
            .map(|p| {
                let [x, y] = [(p % SIDE) as f64 - middle - moved[0], (p / SIDE) as f64 - middle - moved[1]];
                let [a, b] = [x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()];
                let b = if mirrored { -b } else { b };
                let r = (a / 9.0).powi(2) + (b / (5.0 - 0.12 * a)).powi(2);
                // Brighter on one side of the long axis.
                (20.0 + 200.0 * (-r * r).exp() * (1.0 + 0.06 * b)) as f32
            })
            .collect()
    }

    fn of(image: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        assert!(turned(image, [1, SIDE, SIDE], &mut out) > WHOLE);
        out
    }

    #[test]
    fn an_egg_lies_the_same_however_it_lay() {
        let first = of(&egg(0.0, false, [0.0, 0.0]));
        for (angle, mirrored, moved) in
            [(0.7, false, [2.0, -1.0]), (2.5, true, [-2.3, 1.4]), (-1.6, false, [0.5, 3.0]), (3.1, true, [0.0, 0.0])]
        {
            let other = of(&egg(angle, mirrored, moved));
            let worst = first.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 6.0, "turned by {angle}, {mirrored}, {moved:?}: {worst} of 200");
        }
        let (across, down) = (&first[SIDE * (SIDE / 2)..][..SIDE], (0..SIDE).map(|y| first[y * SIDE + SIDE / 2]));
        assert!(across.iter().sum::<f32>() > 1.3 * down.sum::<f32>(), "it lies across");
    }

    #[test]
    fn what_lies_on_its_axes_stays_to_the_bit_and_a_blank_image_too() {
        let mut image = vec![3.0f32; 5 * 7];
        // A bar across whose right end is heavier, with a foot below its middle: centred.
        for (x, y, v) in [(1, 2, 1.0), (2, 2, 1.0), (3, 2, 1.0), (4, 2, 1.0), (5, 2, 1.0)] {
            image[y * 7 + x] += v;
        }
        let mut out = Vec::new();
        turned(&image, [1, 5, 7], &mut out);
        assert_eq!(out, image);
        turned(&[7.0; 12], [2, 2, 3], &mut out);
        assert_eq!(out, [7.0; 12]);
        turned(&[f32::NAN; 4], [1, 2, 2], &mut out);
        assert_eq!(out.len(), 4);
    }

    #[test]
    fn channels_turn_together() {
        let (one, other) = (egg(1.2, false, [0.0, 0.0]), egg(1.2, false, [0.0, 0.0]));
        let mut both = Vec::new();
        turned(&[one.clone(), other.iter().map(|v| v * 0.5).collect()].concat(), [2, SIDE, SIDE], &mut both);
        let half: Vec<f32> = both[..SIDE * SIDE].iter().map(|v| v * 0.5).collect();
        let worst = half.iter().zip(&both[SIDE * SIDE..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
    }

    #[test]
    fn what_leaves_the_frame_is_told() {
        // A bar down a narrow frame does not fit across.
        let mut image = vec![0.0f32; 20 * 6];
        (2..18).for_each(|y| image[y * 6 + 3] = 1.0);
        let mut out = Vec::new();
        assert!(turned(&image, [1, 20, 6], &mut out) < 0.5);
    }
}
