//! A few numbers that a person would measure on an image, channel by channel.
//!
//! | feature | what |
//! | --- | --- |
//! | `mean` | mean intensity of the whole image |
//! | `area` | share of the pixels above Otsu's threshold (the mask) |
//! | `inside` | mean intensity within the mask |
//! | `texture` | standard deviation within the mask over `inside` |
//! | `eccentricity` | of the ellipse with the mask's second moments: 0 a disc, 1 a line |
//! | `edge` | mean size of the intensity's gradient within the mask, over `inside` |
//!
//! Otsu's threshold separates the histogram of 256 bins in two with the largest variance between them. An image of one intensity has
//! an empty mask: everything but `mean` is 0. The features are ours, few on purpose; `--features` takes any others from a table.

/// The names, in order.
const NAMES: [&str; 6] = ["mean", "area", "inside", "texture", "eccentricity", "edge"];
const LEVELS: usize = 256;

/// The features' names for images of so many channels.
pub fn names(channels: usize) -> Vec<String> {
    let of = |c: usize| NAMES.map(|n| if channels == 1 { n.to_string() } else { format!("channel{c}_{n}") });
    (1..=channels).flat_map(of).collect()
}

/// The features of an image [channels, height, width].
pub fn measure(image: &[f32], [channels, height, width]: [usize; 3]) -> Vec<f32> {
    image.chunks_exact(height * width).take(channels).flat_map(|plane| of_plane(plane, width).map(|v| v as f32)).collect()
}

fn of_plane(plane: &[f32], width: usize) -> [f64; 6] {
    let n = plane.len() as f64;
    let at = |i: usize| f64::from(plane[i]);
    let mean = (0..plane.len()).map(at).sum::<f64>() / n;
    let Some(threshold) = otsu(plane) else { return [mean, 0.0, 0.0, 0.0, 0.0, 0.0] };
    let mask: Vec<usize> = (0..plane.len()).filter(|&i| at(i) > threshold).collect();
    let m = mask.len() as f64;
    let over_mask = |f: &dyn Fn(usize) -> f64| mask.iter().map(|&i| f(i)).sum::<f64>() / m;
    let inside = over_mask(&at);
    let deviation = over_mask(&|i| (at(i) - inside).powi(2)).sqrt();
    let place = |i: usize| [(i % width) as f64, (i / width) as f64];
    let middle = [0, 1].map(|axis| over_mask(&|i| place(i)[axis]));
    let moment = |a: usize, b: usize| over_mask(&|i| (place(i)[a] - middle[a]) * (place(i)[b] - middle[b]));
    // A pixel is a square, not a point: its own second moment keeps a line of them from having no width.
    let (xx, yy, xy) = (moment(0, 0) + 1.0 / 12.0, moment(1, 1) + 1.0 / 12.0, moment(0, 1));
    let (half, root) = (0.5 * (xx + yy), (0.25 * (xx - yy).powi(2) + xy * xy).sqrt());
    let eccentricity = (1.0 - ((half - root) / (half + root)).max(0.0)).sqrt();
    let edge = over_mask(&|i| {
        let (x, y) = (i % width, i / width);
        let height = plane.len() / width;
        let slope = |before: usize, after: usize, steps: usize| if steps == 0 { 0.0 } else { (at(after) - at(before)) / steps as f64 };
        let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
        let (up, down) = (y.saturating_sub(1), (y + 1).min(height - 1));
        slope(y * width + left, y * width + right, right - left).hypot(slope(up * width + x, down * width + x, down - up))
    });
    let over = |v: f64| if inside.abs() > 0.0 { v / inside.abs() } else { 0.0 };
    [mean, m / n, inside, over(deviation), eccentricity, over(edge)]
}

/// Otsu's threshold; `None` for an image of one intensity, or with values that are no finite numbers.
fn otsu(plane: &[f32]) -> Option<f64> {
    let (low, high) = plane.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    if plane.iter().any(|v| !v.is_finite()) || high <= low {
        return None;
    }
    let scale = LEVELS as f64 / (f64::from(high) - f64::from(low));
    let bin = |v: f32| (((f64::from(v) - f64::from(low)) * scale) as usize).min(LEVELS - 1);
    let mut counts = [0usize; LEVELS];
    plane.iter().for_each(|&v| counts[bin(v)] += 1);
    let all = plane.len() as f64;
    let sum: f64 = counts.iter().enumerate().map(|(i, &c)| i as f64 * c as f64).sum();
    let (mut below, mut below_sum, mut best) = (0.0, 0.0, (f64::MIN, 0));
    for (i, &count) in counts.iter().enumerate().take(LEVELS - 1) {
        below += count as f64;
        below_sum += i as f64 * count as f64;
        if below == 0.0 || below == all {
            continue;
        }
        let apart = below_sum / below - (sum - below_sum) / (all - below);
        let between = below * (all - below) * apart * apart;
        if between > best.0 {
            best = (between, i);
        }
    }
    // The upper edge of the last bin below; what lies on it belongs to the next.
    let edge = f64::from(low) + (best.1 + 1) as f64 / scale;
    Some(edge - 1e-9 * (f64::from(high) - f64::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ellipse of intensity 0.8 on 0.1.
    fn ellipse(side: usize, [a, b]: [f64; 2]) -> Vec<f32> {
        let c = 0.5 * (side - 1) as f64;
        let inside = |i: usize| ((i % side) as f64 - c).powi(2) / (a * a) + ((i / side) as f64 - c).powi(2) / (b * b) <= 1.0;
        (0..side * side).map(|i| if inside(i) { 0.8 } else { 0.1 }).collect()
    }

    #[test]
    fn an_ellipse_has_its_area_brightness_and_eccentricity() {
        let [mean, area, inside, texture, eccentricity, edge] = of_plane(&ellipse(64, [20.0, 10.0]), 64);
        let wanted = std::f64::consts::PI * 200.0 / 4096.0;
        assert!((area - wanted).abs() < 0.01 && (mean - (0.1 + 0.7 * area)).abs() < 1e-6, "{area} {mean}");
        assert!((inside - 0.8).abs() < 1e-6 && texture < 1e-6, "{inside} {texture}");
        assert!((eccentricity - 0.75f64.sqrt()).abs() < 0.02, "{eccentricity}");
        assert!(edge > 0.01 && edge < 0.5, "{edge}");
        assert!(of_plane(&ellipse(64, [15.0, 15.0]), 64)[4] < 0.1);
    }

    #[test]
    fn an_even_image_has_no_mask_and_channels_have_names() {
        let [mean, rest @ ..] = of_plane(&[0.5; 16], 4);
        assert_eq!((mean, rest), (0.5, [0.0; 5]));
        assert_eq!(names(1)[1], "area");
        assert_eq!((names(2).len(), names(2)[7].as_str()), (12, "channel2_area"));
        let two: Vec<f32> = ellipse(16, [5.0, 5.0]).into_iter().chain([0.25; 256]).collect();
        let told = measure(&two, [2, 16, 16]);
        assert_eq!((told.len(), told[6], told[7]), (12, 0.25, 0.0));
    }
}
