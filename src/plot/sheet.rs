//! A contact sheet: many small images side by side, as one PNG.
//!
//! Cells stand eight in a line; a cell's images stand below one another, measured above translated. All share one scale, from black at
//! 0 (or the least value, if that is below) to white at the largest, so that brightness compares. Three channels are red, green and
//! blue; of other numbers the first channel is shown.

use crate::data::atomic;
use crate::error::{Error, Result};
use std::path::Path;

const ACROSS: usize = 8;
/// White pixels between cells, and between the images of one.
const GAP: usize = 6;
const WITHIN: usize = 1;
/// Smaller images are drawn at a multiple of their size, so that a tile is about this wide.
const WIDE: usize = 96;

/// Writes cells, each a list of images [channels, height, width]; all cells have as many.
pub fn save(path: &Path, cells: &[Vec<Vec<f32>>], shape: [usize; 3]) -> Result<()> {
    save_lines(path, cells, shape, ACROSS)
}

/// The same with so many cells in a line.
pub fn save_lines(path: &Path, cells: &[Vec<Vec<f32>>], [channels, height, width]: [usize; 3], across: usize) -> Result<()> {
    let each = cells.first().map_or(0, Vec::len);
    if each == 0 || channels * height * width == 0 {
        return Err(Error::Internal("a contact sheet of no images".into()));
    }
    let zoom = (WIDE / width.max(height)).max(1);
    let (tile_h, tile_w) = (height * zoom, width * zoom);
    let (in_line, lines) = (across.min(cells.len()), cells.len().div_ceil(across));
    let block = each * (tile_h + WITHIN) - WITHIN;
    let (w, h) = (GAP + in_line * (tile_w + GAP), GAP + lines * (block + GAP));
    let values = || cells.iter().flatten().flatten().filter(|v| v.is_finite());
    let low = values().fold(0.0f32, |l, &v| l.min(v));
    let high = values().fold(f32::MIN_POSITIVE, |m, &v| m.max(v));
    let planes = if channels == 3 { [0, 1, 2] } else { [0, 0, 0] };
    let mut pixels = vec![255u8; 3 * w * h];
    for (n, images) in cells.iter().enumerate() {
        let (top, left) = (GAP + n / across * (block + GAP), GAP + n % across * (tile_w + GAP));
        for (i, image) in images.iter().enumerate() {
            for (y, x) in (0..tile_h).flat_map(|y| (0..tile_w).map(move |x| (y, x))) {
                let at = 3 * ((top + i * (tile_h + WITHIN) + y) * w + left + x);
                for (c, plane) in planes.into_iter().enumerate() {
                    let v = image[(plane * height + y / zoom) * width + x / zoom];
                    pixels[at + c] = (255.0 * (v - low) / (high - low)).round().clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
    let mut file = Vec::new();
    let failed = |e: png::EncodingError| Error::Internal(format!("the contact sheet could not be encoded: {e}"));
    let side = |n: usize| u32::try_from(n).map_err(|_| Error::usage("the contact sheet would be too large: ask for fewer cells"));
    let mut encoder = png::Encoder::new(&mut file, side(w)?, side(h)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().and_then(|mut w| w.write_image_data(&pixels)).map_err(failed)?;
    atomic::write_file(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_shows_every_image_at_one_scale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.png");
        let cells: Vec<Vec<Vec<f32>>> = (0..9).map(|n| vec![vec![0.0; 96 * 96], vec![n as f32 / 8.0; 96 * 96]]).collect();
        save(&path, &cells, [1, 96, 96]).unwrap();
        let mut reader = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (6 + 8 * 102, 6 + 2 * (193 + 6)));
        let at = |y: usize, x: usize| pixels[3 * (y * info.width as usize + x)];
        // Measured above, translated below; the second cell of the first line, then the one of the second line.
        assert_eq!([at(10, 110), at(10 + 97, 110), at(0, 0)], [0, 32, 255]);
        assert_eq!([at(6 + 199 + 50, 10), at(6 + 199 + 150, 10), at(6 + 199 + 50, 120)], [0, 255, 255]);
    }
}
