//! A list of shapes, and what becomes of it: SVG text or the pixels of a PNG.
//!
//! Coordinates are pixels of 1/96 inch from the upper left corner, y downwards. The background is white.

use super::{Colour, font};
use crate::error::{Error, Result};
use std::fmt::Write;
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform};
use ttf_parser::OutlineBuilder;

/// Which point of a text is its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

#[derive(Clone, Debug)]
enum Shape {
    Polygon { points: Vec<[f32; 2]>, fill: Colour },
    Line { points: Vec<[f32; 2]>, stroke: Colour, width: f32, dashed: bool },
    Text { at: [f32; 2], text: String, size: f32, colour: Colour, anchor: Anchor },
}

/// A figure that is laid out.
#[derive(Clone, Debug)]
pub struct Scene {
    width: f32,
    height: f32,
    shapes: Vec<Shape>,
}

impl Scene {
    /// A white sheet of so many pixels.
    pub fn new(width: f32, height: f32) -> Scene {
        Scene { width, height, shapes: Vec::new() }
    }

    /// A filled polygon.
    pub fn polygon(&mut self, points: &[[f32; 2]], fill: Colour) {
        self.shapes.push(Shape::Polygon { points: points.to_vec(), fill });
    }

    /// A line through points.
    pub fn line(&mut self, points: &[[f32; 2]], stroke: Colour, width: f32, dashed: bool) {
        self.shapes.push(Shape::Line { points: points.to_vec(), stroke, width, dashed });
    }

    /// A text on the baseline through `at`. What XML cannot hold becomes a blank.
    pub fn text(&mut self, at: [f32; 2], text: &str, size: f32, colour: Colour, anchor: Anchor) {
        let text = text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c }).collect();
        self.shapes.push(Shape::Text { at, text, size, colour, anchor });
    }

    /// The figure as an SVG document.
    pub fn svg(&self) -> String {
        let (w, h) = (self.width, self.height);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
             font-family=\"{}\">\n<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n",
            font::FAMILY
        );
        let points = |p: &[[f32; 2]]| p.iter().map(|[x, y]| format!("{},{}", short(*x), short(*y))).collect::<Vec<_>>().join(" ");
        for shape in &self.shapes {
            let line = match shape {
                Shape::Polygon { points: p, fill } => format!("<polygon points=\"{}\" fill=\"{}\"/>", points(p), hex(*fill)),
                Shape::Line { points: p, stroke, width, dashed } => format!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{}/>",
                    points(p),
                    hex(*stroke),
                    if *dashed { " stroke-dasharray=\"4 3\"" } else { "" }
                ),
                Shape::Text { at: [x, y], text, size, colour, anchor } => format!(
                    "<text x=\"{}\" y=\"{}\" font-size=\"{size}\" fill=\"{}\"{}>{}</text>",
                    short(*x),
                    short(*y),
                    hex(*colour),
                    match anchor {
                        Anchor::Start => "",
                        Anchor::Middle => " text-anchor=\"middle\"",
                        Anchor::End => " text-anchor=\"end\"",
                    },
                    escaped(text)
                ),
            };
            let _ = writeln!(out, "{line}"); // writing to a String cannot fail
        }
        out + "</svg>\n"
    }

    /// The figure as a PNG of `scale` pixels a pixel of the layout.
    pub fn png(&self, scale: f32) -> Result<Vec<u8>> {
        let failed = |what: &str| Error::Internal(format!("a figure of {} x {} pixels {what}", self.width, self.height));
        let pixels = Pixmap::new((self.width * scale).ceil() as u32, (self.height * scale).ceil() as u32);
        let mut pixels = pixels.ok_or_else(|| failed("is too large"))?;
        pixels.fill(tiny_skia::Color::WHITE);
        let grown = Transform::from_scale(scale, scale);
        for shape in &self.shapes {
            match shape {
                Shape::Polygon { points, fill } => {
                    if let Some(path) = path(points, true) {
                        pixels.fill_path(&path, &paint(*fill), FillRule::Winding, grown, None);
                    }
                }
                Shape::Line { points, stroke, width, dashed } => {
                    let dash = dashed.then(|| StrokeDash::new(vec![4.0, 3.0], 0.0)).flatten();
                    let how = Stroke { width: *width, line_cap: LineCap::Butt, line_join: LineJoin::Miter, dash, ..Stroke::default() };
                    if let Some(path) = path(points, false) {
                        pixels.stroke_path(&path, &paint(*stroke), &how, grown, None);
                    }
                }
                Shape::Text { at: [x, y], text, size, colour, anchor } => {
                    let shift = match anchor {
                        Anchor::Start => 0.0,
                        Anchor::Middle => -0.5 * font::width(text, *size),
                        Anchor::End => -font::width(text, *size),
                    };
                    let mut letters = Letters(PathBuilder::new());
                    font::outline(text, *size, &mut letters);
                    if let Some(path) = letters.0.finish() {
                        pixels.fill_path(&path, &paint(*colour), FillRule::Winding, grown.pre_translate(x + shift, *y), None);
                    }
                }
            }
        }
        pixels.encode_png().map_err(|e| failed(&format!("cannot be encoded: {e}")))
    }
}

fn path(points: &[[f32; 2]], closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (i, [x, y]) in points.iter().enumerate() {
        if i == 0 { builder.move_to(*x, *y) } else { builder.line_to(*x, *y) }
    }
    if closed {
        builder.close();
    }
    builder.finish()
}

fn paint([r, g, b]: Colour) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(r, g, b, 255);
    paint
}

/// A path of letters.
struct Letters(PathBuilder);

impl OutlineBuilder for Letters {
    fn move_to(&mut self, x: f32, y: f32) {
        self.0.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.0.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.0.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.0.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.0.close();
    }
}

fn hex([r, g, b]: Colour) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A coordinate to a hundredth of a pixel.
fn short(x: f32) -> f32 {
    (x * 100.0).round() / 100.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_svg_is_xml_whatever_a_text_contains() {
        let mut scene = Scene::new(100.0, 50.0);
        scene.text([5.0, 20.0], "a<b> & \"c\"\u{0}\u{1b}]]>", 12.0, [0, 0, 0], Anchor::Middle);
        scene.line(&[[0.0, 0.0], [10.0, 1.0 / 3.0]], [1, 2, 3], 1.0, true);
        let svg = scene.svg();
        let parsed = roxmltree::Document::parse(&svg).unwrap();
        let text = parsed.descendants().find(|n| n.has_tag_name("text")).unwrap();
        assert_eq!(text.text(), Some("a<b> & \"c\"  ]]>"));
        assert!(svg.contains("10,0.33") && svg.contains("#010203"), "{svg}");
    }

    #[test]
    fn a_png_has_its_size_and_ink_where_a_text_is() {
        let blank = Scene::new(120.0, 40.0);
        let mut scene = blank.clone();
        scene.text([60.0, 28.0], "Gad1", 20.0, [0, 0, 0], Anchor::Middle);
        let (empty, png) = (blank.png(2.0).unwrap(), scene.png(2.0).unwrap());
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!((&png[16..20], &png[20..24]), (&240u32.to_be_bytes()[..], &80u32.to_be_bytes()[..]));
        assert!(png.len() > empty.len() + 300, "{} {}", png.len(), empty.len());
        let pixels = Pixmap::decode_png(&png).unwrap();
        let dark: Vec<u32> = (0..240 * 80).filter(|&i| pixels.pixels()[i as usize].red() < 100).map(|i| i % 240).collect();
        let (left, right) = (dark.iter().min().unwrap(), dark.iter().max().unwrap());
        assert!(dark.len() > 300 && (left + right).abs_diff(240) < 8, "the text is in the middle: {left}..{right}");
    }
}
