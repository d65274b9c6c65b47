//! One PNG or TIFF file, decoded: its pages, channel by channel.

use crate::data::npy::Dtype;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use tiff::decoder::{Decoder, DecodingResult};

/// The most pixels that a file may have, over all channels and pages: what a damaged header promises is not believed.
const MOST: usize = 1 << 28;

/// The most pixels that a byte of a file stands for: deflate makes 1032 bytes of one, LZW fewer than 2600, and a byte may be 8 pixels.
const MOST_OF_A_BYTE: u64 = 1 << 15;

/// Pages [channels, height, width] of one size.
#[derive(Debug)]
pub struct Picture {
    /// A z-stack has several.
    pub pages: Vec<Vec<f32>>,
    channels: usize,
    height: usize,
    width: usize,
    /// How pixels are kept without loss.
    pub stored: Dtype,
}

/// Whether the name ends like an image's.
pub fn is_image(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    matches!(ending.as_deref(), Some("png" | "tif" | "tiff"))
}

impl Picture {
    /// Decodes a file; transparency is left out.
    pub fn read(path: &Path) -> Result<Picture> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let most = usize::try_from(length.saturating_mul(MOST_OF_A_BYTE)).unwrap_or(usize::MAX).min(MOST);
        let png = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        let file = BufReader::new(file);
        let picture = if png { read_png(file, most) } else { read_tiff(file, most) };
        picture.map_err(|why| Error::input(path, "", format!("{why}: write it again as PNG or TIFF")))
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// An error if there are several pages.
    pub fn one_page(&self, path: &Path) -> Result<()> {
        if self.pages.len() == 1 {
            return Ok(());
        }
        let says = format!(
            "it has {} pages, a z-stack: add the side that images should have to the folder, as in {}#64, and each is projected and resized",
            self.pages.len(),
            path.parent().unwrap_or(path).display()
        );
        Err(Error::input(path, "", says))
    }
}

/// The planes of pixels that lie interleaved, of which the last may be transparency.
fn planes(pixels: &[f32], interleaved: usize, channels: usize) -> Vec<f32> {
    (0..channels).flat_map(|c| pixels.iter().skip(c).step_by(interleaved).copied()).collect()
}

fn read_png(file: BufReader<File>, most: usize) -> std::result::Result<Picture, String> {
    let said = |e: png::DecodingError| format!("it is no PNG that can be read ({e})");
    let mut decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: 4 * MOST });
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(said)?;
    // On such a one the decoder panics.
    if let Some(palette) = reader.info().palette.as_ref().filter(|p| p.len() % 3 != 0) {
        return Err(format!("its palette has {} bytes, and a colour has 3", palette.len()));
    }
    let size = reader.output_buffer_size().filter(|&n| n <= 2 * most).ok_or("it promises more pixels than can be read")?;
    let mut buffer = vec![0; size];
    let info = reader.next_frame(&mut buffer).map_err(said)?;
    let (interleaved, channels) = match info.color_type {
        png::ColorType::Grayscale => (1, 1),
        png::ColorType::GrayscaleAlpha => (2, 1),
        png::ColorType::Rgb => (3, 3),
        png::ColorType::Rgba => (4, 3),
        png::ColorType::Indexed => return Err("its palette cannot be read".into()),
    };
    let bytes = &buffer[..info.buffer_size()];
    let (pixels, stored): (Vec<f32>, Dtype) = match info.bit_depth {
        png::BitDepth::Sixteen => (bytes.chunks_exact(2).map(|b| f32::from(u16::from_be_bytes([b[0], b[1]]))).collect(), Dtype::U16),
        _ => (bytes.iter().map(|&b| f32::from(b)).collect(), Dtype::U8),
    };
    let (height, width) = (info.height as usize, info.width as usize);
    Ok(Picture { pages: vec![planes(&pixels, interleaved, channels)], channels, height, width, stored })
}

fn read_tiff(file: BufReader<File>, most: usize) -> std::result::Result<Picture, String> {
    let said = |e: tiff::TiffError| format!("it is no TIFF that can be read ({e})");
    let mut decoder = Decoder::new(file).map_err(said)?;
    let mut all: Option<Picture> = None;
    let mut total = 0usize;
    loop {
        let (width, height) = decoder.dimensions().map_err(said)?;
        let (width, height) = (width as usize, height as usize);
        let (interleaved, channels) = match decoder.colortype().map_err(said)? {
            tiff::ColorType::Gray(_) => (1, 1),
            tiff::ColorType::GrayA(_) => (2, 1),
            tiff::ColorType::RGB(_) => (3, 3),
            tiff::ColorType::RGBA(_) => (4, 3),
            other => return Err(format!("its colours are {other:?}, and grey or RGB is read")),
        };
        total = width.checked_mul(height).and_then(|n| n.checked_mul(interleaved)).and_then(|n| n.checked_add(total)).unwrap_or(usize::MAX);
        if total > most {
            return Err("it promises more pixels than can be read".into());
        }
        let (pixels, stored) = values(decoder.read_image().map_err(said)?)?;
        if pixels.len() != width * height * interleaved {
            return Err(format!("a page holds {} of {} values", pixels.len(), width * height * interleaved));
        }
        let page = planes(&pixels, interleaved, channels);
        match &mut all {
            None => all = Some(Picture { pages: vec![page], channels, height, width, stored }),
            Some(p) if (p.channels, p.height, p.width, p.stored) == (channels, height, width, stored) => p.pages.push(page),
            Some(_) => return Err("its pages differ in size or type".into()),
        }
        if !decoder.more_images() {
            break;
        }
        decoder.next_image().map_err(said)?;
    }
    all.ok_or_else(|| "it has no page".into())
}

fn values(read: DecodingResult) -> std::result::Result<(Vec<f32>, Dtype), String> {
    fn all<T: Copy>(v: &[T], f: impl Fn(T) -> f32) -> Vec<f32> {
        v.iter().map(|&x| f(x)).collect()
    }
    Ok(match read {
        DecodingResult::U8(v) => (all(&v, f32::from), Dtype::U8),
        DecodingResult::U16(v) => (all(&v, f32::from), Dtype::U16),
        DecodingResult::I8(v) => (all(&v, f32::from), Dtype::F32),
        DecodingResult::I16(v) => (all(&v, f32::from), Dtype::F32),
        DecodingResult::U32(v) => (all(&v, |x| x as f32), Dtype::F32),
        DecodingResult::I32(v) => (all(&v, |x| x as f32), Dtype::F32),
        DecodingResult::F16(v) => (all(&v, f32::from), Dtype::F32),
        DecodingResult::F32(v) => (v, Dtype::F32),
        DecodingResult::F64(v) => (all(&v, |x| x as f32), Dtype::F32),
        DecodingResult::U64(_) | DecodingResult::I64(_) => return Err("its pixels have 64 bits, and up to 32 are read".into()),
    })
}
