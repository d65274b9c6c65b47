//! Figures as SVG and PNG, drawn from one list of shapes: both look alike, and text needs no font of the machine.
//!
//! A figure (a file each: [`waterfall`], [`profiles`]) is laid out in pixels of 1/96 inch on a [`Scene`], with widths that [`font`] measures;
//! the scene becomes SVG text, for a report, or pixels. [`save`] does it by a file's extension.
//!
//! The colours are Okabe and Ito's, which people with any form of colour blindness tell apart.

pub mod axis;
pub mod font;
pub mod profiles;
pub mod scene;
#[cfg(feature = "images")]
pub mod sheet;
pub mod waterfall;

pub use scene::Scene;

use crate::data::atomic;
use crate::error::{Error, Result};
use std::path::Path;

/// Red, green and blue.
pub type Colour = [u8; 3];

/// What is written in.
pub const INK: Colour = [0x22, 0x22, 0x22];
/// What matters less: axes, remarks.
pub const GREY: Colour = [0x66, 0x66, 0x66];
/// Lines of a grid.
pub const PALE: Colour = [0xe2, 0xe2, 0xe2];
/// Vermilion: what raises a value.
pub const RED: Colour = [0xd5, 0x5e, 0x00];
/// What lowers a value.
pub const BLUE: Colour = [0x00, 0x72, 0xb2];

/// Pixels of a PNG a pixel of the layout: sharp on the screens of today, and 192 dots an inch on paper.
const SCALE: f32 = 2.0;

/// A format of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text that scales.
    Svg,
    /// Pixels.
    Png,
}

impl Format {
    /// By a file's extension; the error lists what there is.
    pub fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Ok(Format::Svg),
            Some("png") => Ok(Format::Png),
            _ => Err(Error::usage(format!("{}: a figure is written as .svg or .png, by the extension", path.display()))),
        }
    }
}

/// Writes a figure by the extension of `path`, whole or not at all.
pub fn save(scene: &Scene, path: &Path) -> Result<()> {
    match Format::of(path)? {
        Format::Svg => atomic::write_file(path, scene.svg().as_bytes()),
        Format::Png => atomic::write_file(path, &scene.png(SCALE)?),
    }
}
