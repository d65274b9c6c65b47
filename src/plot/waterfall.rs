//! A waterfall: how contributions lead from one value to another, the largest on top.
//!
//! Read from below: the first value, what the smaller ones together and then ever larger contributions add, the last value. Arrows
//! to the right raise it (red), arrows to the left lower it (blue), so that neither colour nor sign is needed alone. The form is
//! that of the Python package shap.

use super::axis::{number, signed, ticks};
use super::font::{self, shorten};
use super::scene::Anchor;
use super::{BLUE, GREY, INK, PALE, RED, Scene};

const WIDTH: f32 = 860.0;
/// Between the edge and everything.
const MARGIN: f32 = 18.0;
/// The widest that a name may be.
const NAMES: f32 = 300.0;
const ROW: f32 = 28.0;
const BAR: f32 = 19.0;
/// The longest point of an arrow.
const POINT: f32 = 8.0;
const SIZE: f32 = 12.5;
const SMALL: f32 = 11.0;

/// One contribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What contributes.
    pub name: String,
    /// Its value, written after the name.
    pub value: Option<String>,
    /// What it adds.
    pub change: f64,
    /// The standard error of that, where there is one.
    pub error: Option<f64>,
}

/// The figure's content.
#[derive(Clone, Debug, PartialEq)]
pub struct Waterfall {
    /// The first line.
    pub title: String,
    /// Small, under it.
    pub remark: String,
    /// Title of the axis, with the unit.
    pub axis: String,
    /// Where the walk starts and how that is called.
    pub start: (f64, String),
    /// Where it ends and how that is called.
    pub end: (f64, String),
    /// The contributions, from the top; they lead from start to end.
    pub bars: Vec<Bar>,
}

impl Waterfall {
    /// Lays the figure out.
    pub fn scene(&self) -> Scene {
        let top = MARGIN + 62.0;
        let bottom = top + ROW * (self.bars.len() as f32 + 2.0);
        let mut scene = Scene::new(WIDTH, bottom + 58.0);
        let names: Vec<(String, f32)> = self.bars.iter().map(label).collect();
        let widest = names.iter().map(|n| n.1).chain([self.end.1.as_str(), &self.start.1].map(|t| font::width(t, SIZE)));
        let left = MARGIN + widest.fold(0.0, f32::max).min(NAMES) + 12.0;
        // At either side the number of a bar that ends there, or a value, has room.
        let numbers = self.bars.iter().map(|b| font::width(&signed(b.change), SMALL)).fold(40.0, f32::max) + 12.0;
        let scale = Scale::new(self.range(), left + numbers, WIDTH - MARGIN - numbers);

        let room = WIDTH - 2.0 * MARGIN;
        scene.text([MARGIN, MARGIN + 16.0], &shorten(&self.title, 16.0, room), 16.0, INK, Anchor::Start);
        scene.text([MARGIN, MARGIN + 36.0], &shorten(&self.remark, SMALL, room), SMALL, GREY, Anchor::Start);

        self.draw_axis(&mut scene, &scale, [left, top, bottom]);
        let middle = |row: usize| top + ROW * (row as f32 + 0.5);
        let base = SIZE * 0.36; // from the middle of a line of text to its baseline
        let last = self.bars.len() + 1;
        for (row, (value, name), x) in [(0, &self.end, scale.x(self.end.0)), (last, &self.start, scale.x(self.start.0))] {
            let y = middle(row);
            let name = shorten(name, SIZE, NAMES);
            scene.text([left - 12.0, y + base], &name, SIZE, INK, Anchor::End);
            let ends = if row == 0 { [y, y + 0.5 * ROW] } else { [y - 0.5 * ROW, y] };
            scene.line(&[[x, ends[0]], [x, ends[1]]], INK, 1.2, false);
            let text = number(*value);
            // On the side on which no bar ends beside it.
            scene.text([x + 6.0, y + base], &text, SIZE, INK, Anchor::Start);
        }

        let mut at = self.end.0;
        for (i, (bar, (name, _))) in self.bars.iter().zip(&names).enumerate() {
            let (from, y) = (at - bar.change, middle(i + 1));
            scene.text([left - 12.0, y + base], name, SIZE, INK, Anchor::End);
            let (x0, x1) = (scale.x(from), scale.x(at));
            arrow(&mut scene, [x0, x1], y, bar.change);
            // What the next one down ends at is where this one starts.
            scene.line(&[[x0, y + 0.5 * BAR], [x0, y + ROW - 0.5 * BAR]], GREY, 0.8, false);
            let mut beside = x1;
            if let Some(error) = bar.error.filter(|e| scale.length(*e) > 0.75) {
                let reach = scale.length(error);
                scene.line(&[[x1 - reach, y], [x1 + reach, y]], INK, 1.0, false);
                for x in [x1 - reach, x1 + reach] {
                    scene.line(&[[x, y - 3.0], [x, y + 3.0]], INK, 1.0, false);
                }
                beside = if bar.change < 0.0 { x1 - reach } else { x1 + reach };
            }
            change(&mut scene, bar, [x0, x1, beside], y + base);
            at = from;
        }
        scene
    }

    /// The least and the greatest value on the way, whiskers included.
    fn range(&self) -> [f64; 2] {
        let mut at = self.end.0;
        let ends = self.bars.iter().flat_map(|b| {
            let (tip, error) = (at, b.error.unwrap_or(0.0));
            at -= b.change;
            [at, tip - error, tip + error]
        });
        let all = ends.chain([self.start.0, self.end.0]);
        let [low, high] = all.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| [low.min(x), high.max(x)]);
        if high > low { [low, high] } else { [low - 0.5, high + 0.5] }
    }

    fn draw_axis(&self, scene: &mut Scene, scale: &Scale, [left, top, bottom]: [f32; 3]) {
        let right = WIDTH - MARGIN;
        let (marks, decimals) = ticks(scale.value(left), scale.value(right), 7);
        for mark in marks {
            let x = scale.x(mark);
            scene.line(&[[x, top], [x, bottom]], PALE, 1.0, false);
            scene.line(&[[x, bottom], [x, bottom + 4.0]], GREY, 1.0, false);
            let text = format!("{mark:.decimals$}").replace('-', "−");
            scene.text([x, bottom + 17.0], &text, SMALL, GREY, Anchor::Middle);
        }
        for (x, ends) in [(scale.x(self.start.0), [top, bottom]), (scale.x(self.end.0), [top, bottom])] {
            scene.line(&[[x, ends[0]], [x, ends[1]]], GREY, 0.8, true);
        }
        scene.line(&[[left, bottom], [right, bottom]], GREY, 1.0, false);
        let title = shorten(&self.axis, SIZE, right - left);
        scene.text([0.5 * (left + right), bottom + 40.0], &title, SIZE, INK, Anchor::Middle);
    }
}

/// Values to pixels.
struct Scale {
    low: f64,
    start: f32,
    pixels: f64,
}

impl Scale {
    /// The range lies between the two pixels.
    fn new([low, high]: [f64; 2], start: f32, end: f32) -> Scale {
        Scale { low, start, pixels: f64::from(end - start) / (high - low) }
    }

    fn x(&self, value: f64) -> f32 {
        self.start + ((value - self.low) * self.pixels) as f32
    }

    fn value(&self, x: f32) -> f64 {
        self.low + f64::from(x - self.start) / self.pixels
    }

    fn length(&self, value: f64) -> f32 {
        (value.abs() * self.pixels) as f32
    }
}

/// `name = value`, the name shortened so that the value stays, and its width.
fn label(bar: &Bar) -> (String, f32) {
    let value = bar.value.as_ref().map(|v| format!(" = {v}")).unwrap_or_default();
    let text = shorten(&bar.name, SIZE, NAMES - font::width(&value, SIZE)) + &value;
    let width = font::width(&text, SIZE);
    (text, width)
}

/// A bar from x0 to x1 that points at x1; one too short to see is still a stroke.
fn arrow(scene: &mut Scene, [x0, x1]: [f32; 2], y: f32, change: f64) {
    let (side, half) = (if change < 0.0 { -1.0 } else { 1.0 }, 0.5 * BAR);
    let fill = if change < 0.0 { BLUE } else { RED };
    let length = (x1 - x0).abs().max(1.0);
    let point = POINT.min(length);
    let (tip, neck) = (x0 + side * length, x0 + side * (length - point));
    scene.polygon(&[[x0, y - half], [neck, y - half], [tip, y], [neck, y + half], [x0, y + half]], fill);
}

/// The signed number: inside the bar where there is room, else beyond its point.
fn change(scene: &mut Scene, bar: &Bar, [x0, x1, beside]: [f32; 3], y: f32) {
    let text = signed(bar.change);
    let width = font::width(&text, SMALL);
    let whisker = (beside - x1).abs();
    if (x1 - x0).abs() > width + 2.0 * POINT + 6.0 + 2.0 * whisker {
        let centre = 0.5 * (x0 + x1) - 0.5 * (POINT + whisker).copysign(x1 - x0);
        scene.text([centre, y], &text, SMALL, [255; 3], Anchor::Middle);
        return;
    }
    let left = if bar.change < 0.0 { beside.min(x0 - 1.0) - 5.0 - width } else { beside.max(x0 + 1.0) + 5.0 };
    // Lines behind a number make it hard to read.
    let (right, up, down) = (left + width + 1.0, y - SMALL, y + 0.3 * SMALL);
    scene.polygon(&[[left - 1.0, up], [right, up], [right, down], [left - 1.0, down]], [255; 3]);
    scene.text([left, y], &text, SMALL, if bar.change < 0.0 { BLUE } else { RED }, Anchor::Start);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Waterfall {
        let bar =
            |name: &str, value: Option<&str>, change, error| Bar { name: name.into(), value: value.map(str::to_string), change, error };
        Waterfall {
            title: "Input resistance of cell 20171204_sample_5, imputed from rna".into(),
            remark: "Shapley values of 1252 features; whiskers: standard error over 100 permutations".into(),
            axis: "imputed input resistance (units of ephys)".into(),
            start: (-0.2, "the mean cell".into()),
            end: (0.77, "this cell".into()),
            bars: vec![
                bar("Gad1", Some("8.21"), 0.61, Some(0.02)),
                bar("chr12_alternative_promoter_of_a_long_name<&>_0042_bis", Some("0"), -0.24, Some(0.05)),
                bar("Sst", Some("0"), 0.31, None),
                bar("Vip", Some("1.5"), -0.01, Some(0.001)),
                bar("1248 others", None, 0.3, None),
            ],
        }
    }

    /// Not the white under a number.
    fn is_bar(n: &roxmltree::Node) -> bool {
        n.has_tag_name("polygon") && n.attribute("fill") != Some("#ffffff")
    }

    #[test]
    fn a_waterfall_is_xml_with_every_name_and_number() {
        let svg = example().scene().svg();
        let parsed = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<&str> = parsed.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
        for wanted in
            ["Gad1 = 8.21", "+0.610", "−0.240", "−0.0100", "1248 others", "−0.200", "0.770", "imputed input resistance (units of ephys)"]
        {
            assert!(texts.contains(&wanted), "{wanted}: {texts:?}");
        }
        assert!(texts.iter().any(|t| t.contains('…') && t.ends_with(" = 0")), "{texts:?}");
        assert_eq!(parsed.descendants().filter(is_bar).count(), 5);
    }

    #[test]
    fn arrows_lead_from_start_to_end() {
        let scene = example().scene();
        let svg = scene.svg();
        let parsed = roxmltree::Document::parse(&svg).unwrap();
        let bars: Vec<Vec<f32>> = parsed
            .descendants()
            .filter(is_bar)
            .map(|n| {
                let points = n.attribute("points").unwrap().split([' ', ',']).map(|x| x.parse().unwrap());
                points.collect::<Vec<f32>>().chunks_exact(2).map(|p| p[0]).collect()
            })
            .collect();
        // Each bar starts (first point) at the tip (third) of the one below.
        for pair in bars.windows(2) {
            assert!((pair[0][0] - pair[1][2]).abs() < 0.05, "{bars:?}");
        }
    }

    #[test]
    fn a_number_at_the_edge_does_not_touch_a_name() {
        let bar = |change, error| Bar { name: "a set with a long name".into(), value: None, change, error };
        let bars = vec![bar(1.0, None), bar(-0.00123, Some(0.2)), bar(0.002, None)];
        let svg = Waterfall { start: (0.0, "a".into()), end: (1.00077, "b".into()), bars, ..example() }.scene().svg();
        let parsed = roxmltree::Document::parse(&svg).unwrap();
        let x = |text: &str| {
            let found = parsed.descendants().find(|n| n.has_tag_name("text") && n.text() == Some(text)).unwrap();
            found.attribute("x").unwrap().parse::<f32>().unwrap()
        };
        assert!(x("−0.00123") > x("a set with a long name") + 6.0, "{svg}");
        assert!(x("+1.00") + font::width("+1.00", SMALL) < WIDTH);
    }

    #[test]
    fn no_change_at_all_is_still_a_figure() {
        let nothing = Waterfall { start: (1.0, "a".into()), end: (1.0, "b".into()), bars: vec![], ..example() };
        assert!(nothing.scene().png(1.0).unwrap().len() > 1000);
    }

    #[test]
    fn a_file_is_written_by_its_extension() {
        let dir = tempfile::tempdir().unwrap();
        let scene = example().scene();
        super::super::save(&scene, &dir.path().join("w.png")).unwrap();
        super::super::save(&scene, &dir.path().join("w.SVG")).unwrap();
        assert!(std::fs::read(dir.path().join("w.png")).unwrap().starts_with(b"\x89PNG"));
        assert!(std::fs::read_to_string(dir.path().join("w.SVG")).unwrap().starts_with("<svg"));
        let e = super::super::save(&scene, &dir.path().join("w.pdf")).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(".svg or .png"), "{e}");
    }
}
