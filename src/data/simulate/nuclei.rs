//! `nuclei`, for the cross-modal autoencoder with images: chromatin images and gene expression of cells that nobody has paired, in two
//! classes that are known in both (Yang 2021, Figs. 3 to 5, made up).
//!
//!   class      0 peripheral, 1 central, each with probability 1/2, drawn for each cell of each modality
//!   `image`    64 x 64; centre (32 + u₁, 32 + u₂), radius R = 22 + 2 g; with r = distance / R the pixel is 0 where r > 1, else
//!              base(r) + 0.05 e; base is 0.3 + 0.7 exp(-(r/0.45)²) when central, 0.3 + 0.7 exp(-((r - 0.85)/0.2)²) when peripheral;
//!              then a 3 x 3 binomial blur, and the image onto 0..1
//!   `rna`      1,000 genes of log mean m_g ~ N(-1, 1), the first 5 % of them 1 higher in class 1, the next 5 % in class 0; counts
//!              Poisson(exp(0.3 g + m_g)); the value is ln(1 + 10⁴ count / total)
//!   draws      u uniform on ±2; g, e standard normal, g one a cell
//!
//! Label: `chromatin`, `peripheral` or `central` (a cell of such expression is quiescent or poised).

use super::super::builder::{Builder, Identities};
use super::super::formats::{Head, Layout, Row, Rows, Source, Table};
use super::super::hooks::Hooks;
use super::super::labels::Given;
use super::super::npy::Dtype;
use super::super::pairs::Links;
use super::two_domain::poisson;
use super::{RecipeSpec, SimulateSpec, provenance};
use crate::engine::rng::Sequence;
use crate::error::Result;

/// The row of [`RECIPES`](super::RECIPES).
pub(super) const RECIPE: RecipeSpec = RecipeSpec {
    name: "nuclei",
    about: "images of nuclei and expression of 1,000 genes in unpaired cells of two classes, peripheral and central chromatin",
    cells: 1000,
    train: TRAIN,
    write,
};

/// Networks of a size that a processor trains in minutes; with a GPU leave them out.
const TRAIN: &str = "[cross-modal]\nchannels = [16, 32, 64, 128, 128]\nwidth = 256\nlatent = 32\ndisc_width = 256\npretrain_epochs = 30\nepochs = 100\npreprocess = \"none\"\n";

const SIDE: usize = 64;
const GENES: usize = 1000;
const NAMES: [&str; 2] = ["image", "rna"];
const CLASSES: [&str; 2] = ["peripheral", "central"];

/// Streams of random numbers: the bytes of "nu", what is drawn, and the modality.
const LEVELS: u32 = 0x6e75_0000;
const CELLS: u32 = 0x6e75_0100;

fn write(mut builder: Builder, recipe: &RecipeSpec, spec: &SimulateSpec, cells: usize, hooks: &mut Hooks) -> Result<()> {
    let seed = spec.seed;
    let mut levels = Sequence::new(seed, LEVELS, 0);
    let levels: Vec<f64> = (0..GENES).map(|_| f64::from(levels.next_normal()) - 1.0).collect();
    let (mut ids, mut classes) = (Vec::new(), Vec::new());
    for (m, name) in NAMES.into_iter().enumerate() {
        let (shape, features) = match m {
            0 => (vec![1, SIDE, SIDE], None),
            _ => (vec![GENES], Some((1..=GENES).map(|g| format!("gene{g:04}")).collect())),
        };
        let head = Head { cells: Some(cells as u64), shape, layout: Layout::Dense(Dtype::F32), features, cell_ids: None };
        let source = Source { head, rows: Box::new(Cells { levels: levels.clone(), modality: m, cells, seed, next: 0 }) };
        builder.add(name, source, provenance(recipe, cells, seed), hooks)?;
        ids.push((0..cells).map(|cell| format!("{name}{cell}")).collect::<Vec<String>>());
        classes.extend((0..cells).map(|cell| CLASSES[class(seed, m, cell).0].to_string()));
    }
    let all = ids.concat();
    let lines = (2..all.len() as u64 + 2).collect();
    let file = format!("simulate {}", recipe.name).into();
    let table = Table { file, ids: all, lines, columns: vec!["chromatin".into()], values: vec![classes.into()] };
    let labels = [Given { modality: None, table }];
    let who = Identities {
        ids: ids.into_iter().map(|ids| (ids, "simulated")).collect(),
        links: Links::none(NAMES.len()),
        rule: "none".into(),
        labels: &labels,
        default_label: None,
    };
    builder.finish(who).map(|_| ())
}

/// A cell's class, and what else of it is drawn: one step of random numbers a cell, so that a cell is the same however many there are.
fn class(seed: u64, modality: usize, cell: usize) -> (usize, Sequence) {
    let mut draw = Sequence::new(seed, CELLS + modality as u32, cell as u32);
    (usize::from(draw.next_f64() < 0.5), draw)
}

/// The cells of a modality.
struct Cells {
    levels: Vec<f64>,
    modality: usize,
    cells: usize,
    seed: u64,
    next: usize,
}

impl Rows for Cells {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let (class, mut draw) = class(self.seed, self.modality, self.next);
        self.next += 1;
        row.values.clear();
        match self.modality {
            0 => image(class, &mut draw, &mut row.values),
            _ => expression(class, &self.levels, &mut draw, &mut row.values),
        }
        Ok(true)
    }
}

fn image(class: usize, draw: &mut Sequence, out: &mut Vec<f32>) {
    let middle = (SIDE / 2) as f64;
    let [y0, x0] = [(); 2].map(|()| middle + 4.0 * draw.next_f64() - 2.0);
    let radius = 22.0 + 2.0 * f64::from(draw.next_normal());
    let sharp: Vec<f64> = (0..SIDE * SIDE)
        .map(|at| {
            let r = ((at / SIDE) as f64 - y0).hypot((at % SIDE) as f64 - x0) / radius;
            let noise = 0.05 * f64::from(draw.next_normal());
            let base = if class == 1 { (-(r / 0.45).powi(2)).exp() } else { (-((r - 0.85) / 0.2).powi(2)).exp() };
            if r > 1.0 { 0.0 } else { 0.3 + 0.7 * base + noise }
        })
        .collect();
    let blurred = blur(&blur(&sharp, SIDE, 1), SIDE, SIDE);
    let (low, high) = blurred.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    out.extend(blurred.iter().map(|v| ((v - low) / (high - low)) as f32));
}

/// (1, 2, 1)/4 along pixels `step` apart of an image with sides of `side`; the edge's pixel stands for those beyond it.
pub(super) fn blur(x: &[f64], side: usize, step: usize) -> Vec<f64> {
    let place = |at: usize| if step == 1 { at % side } else { at / side };
    (0..x.len())
        .map(|at| {
            let before = if place(at) == 0 { x[at] } else { x[at - step] };
            let after = if place(at) == side - 1 { x[at] } else { x[at + step] };
            (before + 2.0 * x[at] + after) / 4.0
        })
        .collect()
}

fn expression(class: usize, levels: &[f64], draw: &mut Sequence, out: &mut Vec<f32>) {
    let depth = 0.3 * f64::from(draw.next_normal());
    let gains = |g: usize| match 20 * g / GENES {
        0 => class == 1,
        1 => class == 0,
        _ => false,
    };
    let count = |(g, level): (usize, &f64)| poisson(draw, (depth + level + f64::from(u8::from(gains(g)))).exp()) as f64;
    let counts: Vec<f64> = levels.iter().enumerate().map(count).collect();
    let total: f64 = counts.iter().sum();
    out.extend(counts.iter().map(|c| (1e4 * c / total.max(1.0)).ln_1p() as f32));
}

#[cfg(test)]
mod tests {
    use super::super::{SimulateSpec, simulate};
    use super::*;
    use crate::data::Dataset;

    #[test]
    fn classes_differ_where_the_recipe_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        simulate(&SimulateSpec { recipe: "nuclei", cells: Some(300), seed: 1, ..Default::default() }, &path, &mut Hooks::default())
            .unwrap();
        let d = Dataset::open(&path).unwrap();
        assert_eq!(d.modality(0).image(), Some([1, 64, 64]));
        assert_eq!((d.modality(1).features(), d.links().len(), d.default_label()), (1000, 0, Some("chromatin")));
        let label = d.label("chromatin").unwrap();
        let central = label.classes.iter().position(|c| c == "central").unwrap() as u32;
        // Mean over the cells of a class, of the values in `at`.
        let mean = |m: usize, of: bool, at: &dyn Fn(usize) -> bool| {
            let (mut sum, mut n, mut values) = (0.0, 0.0, vec![0.0; d.modality(m).features()]);
            for row in (0..300).filter(|&r| (label.rows[m][r] == Some(central)) == of) {
                d.modality(m).row_into(row, &mut values).unwrap();
                for (_, &v) in values.iter().enumerate().filter(|(i, _)| at(*i)) {
                    assert!(v >= 0.0 && (m == 1 || v <= 1.0));
                    (sum, n) = (sum + f64::from(v), n + 1.0);
                }
            }
            sum / n
        };
        let middle = |at: usize| (at / 64).abs_diff(32) < 4 && (at % 64).abs_diff(32) < 4;
        assert!(mean(0, true, &middle) > 0.8 && mean(0, false, &middle) < 0.45);
        let (first, second, rest) = (|g: usize| g < 50, |g: usize| (50..100).contains(&g), |g: usize| g >= 100);
        let gain = |at: &dyn Fn(usize) -> bool| mean(1, true, at) - mean(1, false, at);
        assert!(gain(&first) > 0.5 && gain(&second) < -0.5 && gain(&rest).abs() < 0.05);
        let share = label.rows[0].iter().filter(|c| **c == Some(central)).count();
        assert!((110..190).contains(&share));
    }
}
