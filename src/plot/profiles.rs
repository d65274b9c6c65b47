//! Profiles: how features change from bin to bin along an axis, a line a feature, as colours.
//!
//! A line's colours go from its least mean (blue) over its middle (white) to its greatest (vermilion): they compare bins, not features.
//! A frame marks the bins of the group that the section is about. Beside a line: in how many splits the feature was found, and by how
//! much it differs.

use super::axis::signed;
use super::font::{self, shorten};
use super::scene::Anchor;
use super::{BLUE, Colour, GREY, INK, PALE, RED, Scene};

const WIDTH: f32 = 860.0;
const MARGIN: f32 = 18.0;
const NAMES: f32 = 230.0;
const ROW: f32 = 22.0;
const HEAD: f32 = 26.0;
const SIZE: f32 = 12.5;
const SMALL: f32 = 11.0;
/// Width of the bars of counts, and of the numbers beside them.
const BAR: f32 = 70.0;
const NUMBERS: f32 = 104.0;

/// One feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its mean in each bin; NaN in a bin without cells.
    pub values: Vec<f64>,
    /// The length of its bar, 0 to 1.
    pub share: f64,
    /// What stands beside the bar.
    pub count: String,
    /// How much it differs.
    pub effect: f64,
}

/// Features of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// What they have in common.
    pub title: String,
    /// The group's bins.
    pub columns: Vec<usize>,
    /// The features, from the top.
    pub rows: Vec<Row>,
}

/// The figure's content.
#[derive(Clone, Debug, PartialEq)]
pub struct Profiles {
    /// The first line.
    pub title: String,
    /// Small, under it.
    pub remark: String,
    /// The bins' names.
    pub columns: Vec<String>,
    /// Cells in each bin.
    pub cells: Vec<usize>,
    /// What the numbers at the right are.
    pub effect: String,
    /// From the top; none where nothing was found.
    pub sections: Vec<Section>,
}

impl Profiles {
    /// Lays the figure out.
    pub fn scene(&self) -> Scene {
        let rows: usize = self.sections.iter().map(|s| s.rows.len()).sum();
        let top = MARGIN + 92.0;
        let body = if rows == 0 { HEAD } else { rows as f32 * ROW + self.sections.len() as f32 * HEAD };
        let mut scene = Scene::new(WIDTH, top + body + 44.0);
        let room = WIDTH - 2.0 * MARGIN;
        scene.text([MARGIN, MARGIN + 16.0], &shorten(&self.title, 16.0, room), 16.0, INK, Anchor::Start);
        scene.text([MARGIN, MARGIN + 36.0], &shorten(&self.remark, SMALL, room), SMALL, GREY, Anchor::Start);

        let names = self.sections.iter().flat_map(|s| &s.rows).map(|r| font::width(&r.name, SIZE)).fold(90.0, f32::max).min(NAMES);
        let left = MARGIN + names + 12.0;
        let bars = WIDTH - MARGIN - NUMBERS - BAR - 34.0;
        let cell = (bars - 18.0 - left) / self.columns.len().max(1) as f32;
        let base = SIZE * 0.36;
        scene.text([left - 12.0, top - 24.0], "bin", SMALL, GREY, Anchor::End);
        scene.text([left - 12.0, top - 8.0], "cells", SMALL, GREY, Anchor::End);
        for (i, (name, cells)) in self.columns.iter().zip(&self.cells).enumerate() {
            let x = left + (i as f32 + 0.5) * cell;
            scene.text([x, top - 24.0], name, SIZE, INK, Anchor::Middle);
            scene.text([x, top - 8.0], &cells.to_string(), SMALL, GREY, Anchor::Middle);
        }
        scene.text([bars, top - 8.0], "splits", SMALL, GREY, Anchor::Start);
        let words = if self.effect.len() > 16 { "difference / sd" } else { self.effect.as_str() };
        scene.text([WIDTH - MARGIN, top - 8.0], words, SMALL, GREY, Anchor::End);

        let mut y = top;
        if rows == 0 {
            scene.text([left, y + 18.0], "no feature differs between the groups in any split", SIZE, GREY, Anchor::Start);
        }
        for section in &self.sections {
            scene.line(&[[MARGIN, y + 2.0], [WIDTH - MARGIN, y + 2.0]], PALE, 1.0, false);
            scene.text([MARGIN, y + 18.0], &section.title, SMALL, GREY, Anchor::Start);
            y += HEAD;
            let first = y;
            for row in &section.rows {
                let middle = y + 0.5 * ROW + base;
                scene.text([left - 12.0, middle], &shorten(&row.name, SIZE, names), SIZE, INK, Anchor::End);
                for (i, colour) in colours(&row.values).into_iter().enumerate() {
                    let x = left + i as f32 * cell;
                    rectangle(&mut scene, [x + 0.5, y + 1.0], [x + cell - 0.5, y + ROW - 1.0], colour);
                }
                rectangle(&mut scene, [bars, y + 6.0], [bars + BAR, y + ROW - 6.0], PALE);
                let end = bars + BAR * row.share.clamp(0.0, 1.0) as f32;
                rectangle(&mut scene, [bars, y + 6.0], [end, y + ROW - 6.0], GREY);
                scene.text([bars + BAR + 6.0, middle], &row.count, SMALL, INK, Anchor::Start);
                scene.text([WIDTH - MARGIN, middle], &signed(row.effect), SMALL, INK, Anchor::End);
                y += ROW;
            }
            for run in runs(&section.columns) {
                let [x0, x1] = [left + run[0] as f32 * cell - 0.5, left + (run[1] + 1) as f32 * cell + 0.5];
                scene.line(&[[x0, first], [x1, first], [x1, y], [x0, y], [x0, first]], INK, 1.2, false);
            }
        }
        // Without a line there are no colours to read.
        if rows > 0 {
            legend(&mut scene, left, y + 18.0);
        }
        scene
    }
}

/// Neighbouring columns, as [first, last].
fn runs(columns: &[usize]) -> Vec<[usize; 2]> {
    let mut out: Vec<[usize; 2]> = Vec::new();
    for &c in columns {
        match out.last_mut() {
            Some(run) if run[1] + 1 == c => run[1] = c,
            _ => out.push([c, c]),
        }
    }
    out
}

/// From the least to the greatest; pale grey where there is none.
fn colours(values: &[f64]) -> Vec<Colour> {
    let known = values.iter().filter(|v| v.is_finite());
    let [low, high] = known.fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], &v| [l.min(v), h.max(v)]);
    let colour = |&v: &f64| match v.is_finite() {
        true if high > low => between((2.0 * (v - low) / (high - low) - 1.0) as f32),
        true => [255; 3],
        false => PALE,
    };
    values.iter().map(colour).collect()
}

/// Blue at -1, white at 0, vermilion at 1.
fn between(t: f32) -> Colour {
    let end = if t < 0.0 { BLUE } else { RED };
    end.map(|c| (255.0 + (f32::from(c) - 255.0) * t.abs().min(1.0)).round() as u8)
}

fn rectangle(scene: &mut Scene, [x0, y0]: [f32; 2], [x1, y1]: [f32; 2], fill: Colour) {
    scene.polygon(&[[x0, y0], [x1, y0], [x1, y1], [x0, y1]], fill);
}

fn legend(scene: &mut Scene, left: f32, y: f32) {
    scene.text([left, y + 9.0], "lowest mean of the line", SMALL, GREY, Anchor::Start);
    let from = left + font::width("lowest mean of the line", SMALL) + 8.0;
    for i in 0..21 {
        let x = from + 5.0 * i as f32;
        rectangle(scene, [x, y], [x + 5.0, y + 11.0], between(i as f32 / 10.0 - 1.0));
    }
    scene.text([from + 113.0, y + 9.0], "highest", SMALL, GREY, Anchor::Start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_from_blue_to_vermilion_and_names_what_it_is() {
        assert_eq!(colours(&[1.0, 2.0, 3.0, f64::NAN]), [BLUE, [255; 3], RED, PALE]);
        assert_eq!(colours(&[2.0, 2.0]), [[255; 3]; 2]);
        assert_eq!(runs(&[0, 1, 9, 10, 5]), [[0, 1], [9, 10], [5, 5]]);
        let row = Row { name: "Gad1".into(), values: vec![0.0; 11], share: 0.5, count: "18".into(), effect: -1.5 };
        let section = Section { title: "low cells".into(), columns: vec![0, 1], rows: vec![row] };
        let mut figure = Profiles {
            title: "t".into(),
            remark: "r".into(),
            columns: (0..11).map(|i| i.to_string()).collect(),
            cells: vec![7; 11],
            effect: "log2 fold change".into(),
            sections: vec![section],
        };
        let svg = figure.scene().svg();
        roxmltree::Document::parse(&svg).unwrap();
        for word in ["Gad1", "−1.50", "18", "low cells", "log2 fold change"] {
            assert!(svg.contains(word), "{word}");
        }
        figure.sections.clear();
        let svg = figure.scene().svg();
        assert!(svg.contains("no feature differs") && !svg.contains("lowest mean"), "a sentence, and no legend over it");
    }
}
