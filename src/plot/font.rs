//! The one font, DejaVu Sans, which is in the program: how wide a text is, and the outlines of its letters.
//!
//! In an SVG the viewer chooses; Verdana, which it is offered next, has nearly the same widths.

use std::sync::OnceLock;
use ttf_parser::{Face, OutlineBuilder};

/// What an SVG asks for.
pub const FAMILY: &str = "'DejaVu Sans', Verdana, sans-serif";

fn face() -> &'static Face<'static> {
    static FACE: OnceLock<Face<'static>> = OnceLock::new();
    FACE.get_or_init(|| Face::parse(dejavu::sans::regular(), 0).expect("the font that is in the program is a font"))
}

/// Width of a text in pixels at a size in pixels an em, without kerning.
pub fn width(text: &str, size: f32) -> f32 {
    let units: u32 = text.chars().map(|c| u32::from(advance(c))).sum();
    units as f32 * size / f32::from(face().units_per_em())
}

fn advance(c: char) -> u16 {
    let glyph = face().glyph_index(c).unwrap_or_default(); // glyph 0 is a box, drawn for what the font lacks
    face().glyph_hor_advance(glyph).unwrap_or_default()
}

/// `text` if it is no wider than `room`, else its beginning and end with an ellipsis between: names of genes and peaks that begin
/// alike differ at the end.
pub fn shorten(text: &str, size: f32, room: f32) -> String {
    if width(text, size) <= room {
        return text.to_string();
    }
    let letters: Vec<char> = text.chars().collect();
    (0..letters.len())
        .rev()
        .map(|kept| {
            let (head, tail) = (kept.div_ceil(2), kept / 2);
            letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect::<String>()
        })
        .find(|shorter| width(shorter, size) <= room)
        .unwrap_or_default()
}

/// Draws the outlines of a text that starts at the origin, baseline at y = 0, y downwards.
pub fn outline(text: &str, size: f32, builder: &mut dyn OutlineBuilder) {
    let scale = size / f32::from(face().units_per_em());
    let mut placed = Placed { x: 0.0, scale, builder };
    for c in text.chars() {
        let glyph = face().glyph_index(c).unwrap_or_default();
        face().outline_glyph(glyph, &mut placed);
        placed.x += f32::from(advance(c)) * scale;
    }
}

/// Moves a letter to its place and turns the font's y upwards into ours.
struct Placed<'a> {
    x: f32,
    scale: f32,
    builder: &'a mut dyn OutlineBuilder,
}

impl Placed<'_> {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, -y * self.scale)
    }
}

impl OutlineBuilder for Placed<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.builder.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.builder.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.builder.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.builder.curve_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.builder.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_both_ends_and_fits() {
        assert_eq!(shorten("Gad1", 12.0, 100.0), "Gad1");
        let short = shorten("ENSG00000128683.14_alternative_promoter_2", 12.0, 120.0);
        assert!(width(&short, 12.0) <= 120.0 && short.starts_with("ENSG") && short.contains('…') && short.ends_with("ter_2"), "{short}");
        assert_eq!(shorten("wide", 12.0, 0.0), "");
        assert!(width("WWWW", 12.0) > width("iiii", 12.0));
    }
}
