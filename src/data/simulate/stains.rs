//! `stains`, for APOLLO with images: the chromatin of a nucleus and one of three proteins in it, paired, with what is shared by both and
//! what is of one alone known (as the paper's blood cells, made up).
//!
//!   shared     class peripheral or central; radius R = 11 + g and centre (16 + u₁, 16 + u₂), of 32 x 32 pixels
//!   chromatin  its own: foci, yes or no. With r = distance / R the pixel is 0.2 + 0.5 base(r) + 0.25 foci, where base is
//!              exp(-(r/0.45)²) when central and exp(-((r - 0.8)/0.25)²) when peripheral; three foci, exp(-(d/2)²) of the distance d from
//!              their middles, which lie at r = 0.5 and angles φ + 120° k
//!   protein    its own: amount a, 0.45 or 0.9. The pixel is a pattern(r) of the stain: `with` the chromatin, base(r) of the class;
//!              `against` it, base(r) of the other class; `rim`, exp(-((r - 0.95)/w)²), w = 0.1 when central, 0.3 when peripheral
//!   both       0 where r > 1.1, noise 0.03 e elsewhere; then a 3 x 3 binomial blur, and onto 0..1 by clipping
//!   draws      class, foci, amount and stain with equal probabilities; u uniform on ±1, φ uniform, g and e standard normal
//!
//! Labels: `chromatin`, `foci`, `amount`, `stain`. The angle of the foci is of the chromatin alone, too, and no label.

use super::super::builder::Builder;
use super::super::formats::{Head, Layout, Row, Rows, Source};
use super::super::hooks::Hooks;
use super::super::npy::Dtype;
use super::nuclei::blur;
use super::{RecipeSpec, SimulateSpec, finish_paired, provenance};
use crate::engine::rng::Sequence;
use crate::error::Result;

/// The row of [`RECIPES`](super::RECIPES).
pub(super) const RECIPE: RecipeSpec = RecipeSpec {
    name: "stains",
    about: "paired images of chromatin and of one of three proteins, with what both show and what one alone does",
    cells: 2000,
    train: TRAIN,
    write,
};

/// Networks of a size that a processor trains in minutes; with a GPU leave them out.
const TRAIN: &str = "[apollo]\nchannels = [16, 32, 64]\nchannels_specific = 24\nlatent = 16\nlatent_specific = 8\nbatch_size = 128\n\
                     epochs = 80\nepochs2 = 80\nlr = 0.001\nlr_tables = 0.02\ncondition = \"stain\"\ncondition_width = 16\n";

const SIDE: usize = 32;
const NAMES: [&str; 2] = ["chromatin", "protein"];
const CLASSES: [&str; 2] = ["peripheral", "central"];
const FOCI: [&str; 2] = ["no", "yes"];
const AMOUNTS: [(&str, f64); 2] = [("low", 0.45), ("high", 0.9)];
const STAINS: [&str; 3] = ["with", "against", "rim"];

/// Streams of random numbers: the bytes of "st", and what is drawn; pixels a modality each.
const CELLS: u32 = 0x7374_0000;
const PIXELS: u32 = 0x7374_0100;

/// What is known of a cell.
struct Cell {
    class: usize,
    foci: usize,
    amount: usize,
    stain: usize,
    radius: f64,
    centre: [f64; 2],
    angle: f64,
}

impl Cell {
    fn draw(seed: u64, cell: usize) -> Cell {
        let mut draw = Sequence::new(seed, CELLS, cell as u32);
        let [class, foci, amount] = [(); 3].map(|()| draw.below(2));
        let stain = draw.below(STAINS.len());
        let radius = 11.0 + f64::from(draw.next_normal());
        let centre = [(); 2].map(|()| (SIDE / 2) as f64 + 2.0 * draw.next_f64() - 1.0);
        Cell { class, foci, amount, stain, radius, centre, angle: std::f64::consts::TAU * draw.next_f64() }
    }

    /// Relative distance from the centre, and place relative to it in pixels.
    fn place(&self, at: usize) -> (f64, [f64; 2]) {
        let [y, x] = [(at / SIDE) as f64 - self.centre[0], (at % SIDE) as f64 - self.centre[1]];
        (y.hypot(x) / self.radius, [y, x])
    }

    fn chromatin(&self, at: usize) -> f64 {
        let (r, [y, x]) = self.place(at);
        let focus = |k: usize| {
            let angle = self.angle + std::f64::consts::TAU * k as f64 / 3.0;
            let d = (y - 0.5 * self.radius * angle.sin()).hypot(x - 0.5 * self.radius * angle.cos());
            (-(d / 2.0).powi(2)).exp()
        };
        let foci = if self.foci == 1 { (0..3).map(focus).sum() } else { 0.0 };
        0.2 + 0.5 * base(r, self.class) + 0.25 * foci
    }

    fn protein(&self, at: usize) -> f64 {
        let (r, _) = self.place(at);
        let pattern = match STAINS[self.stain] {
            "with" => base(r, self.class),
            "against" => base(r, 1 - self.class),
            _ => (-((r - 0.95) / [0.3, 0.1][self.class]).powi(2)).exp(),
        };
        AMOUNTS[self.amount].1 * pattern
    }
}

fn base(r: f64, class: usize) -> f64 {
    if class == 1 { (-(r / 0.45).powi(2)).exp() } else { (-((r - 0.8) / 0.25).powi(2)).exp() }
}

fn write(mut builder: Builder, recipe: &RecipeSpec, spec: &SimulateSpec, cells: usize, hooks: &mut Hooks) -> Result<()> {
    let seed = spec.seed;
    for (modality, name) in NAMES.into_iter().enumerate() {
        let (shape, layout) = (vec![1, SIDE, SIDE], Layout::Dense(Dtype::F32));
        let head = Head { cells: Some(cells as u64), shape, layout, features: None, cell_ids: None };
        let rows = Box::new(Images { modality, cells, seed, next: 0 });
        builder.add(name, Source { head, rows }, provenance(recipe, cells, seed), hooks)?;
    }
    let of_cells = |label: fn(&Cell) -> &'static str| (0..cells).map(|cell| label(&Cell::draw(seed, cell)).to_string()).collect();
    let labels = [
        ("chromatin", of_cells(|c| CLASSES[c.class])),
        ("foci", of_cells(|c| FOCI[c.foci])),
        ("amount", of_cells(|c| AMOUNTS[c.amount].0)),
        ("stain", of_cells(|c| STAINS[c.stain])),
    ];
    finish_paired(builder, recipe, &NAMES, cells, labels.map(|(name, values)| (name.to_string(), values)).into())
}

/// The images of a modality.
struct Images {
    modality: usize,
    cells: usize,
    seed: u64,
    next: usize,
}

impl Rows for Images {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let cell = Cell::draw(self.seed, self.next);
        let mut draw = Sequence::new(self.seed, PIXELS + self.modality as u32, self.next as u32);
        self.next += 1;
        let pixel = |at: usize| {
            let noise = 0.03 * f64::from(draw.next_normal());
            let signal = if self.modality == 0 { cell.chromatin(at) } else { cell.protein(at) };
            if cell.place(at).0 > 1.1 { 0.0 } else { signal + noise }
        };
        let sharp: Vec<f64> = (0..SIDE * SIDE).map(pixel).collect();
        row.values.clear();
        row.values.extend(blur(&blur(&sharp, SIDE, 1), SIDE, SIDE).iter().map(|v| v.clamp(0.0, 1.0) as f32));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SimulateSpec, simulate};
    use super::*;
    use crate::data::Dataset;

    #[test]
    fn both_images_show_the_class_and_each_shows_something_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        simulate(&SimulateSpec { recipe: "stains", cells: Some(600), seed: 1, ..Default::default() }, &path, &mut Hooks::default())
            .unwrap();
        let d = Dataset::open(&path).unwrap();
        assert_eq!((d.modality(0).image(), d.modality(1).image(), d.links().len()), (Some([1, 32, 32]), Some([1, 32, 32]), 600));
        let labels: Vec<_> = ["chromatin", "foci", "amount", "stain"].map(|l| d.label(l).unwrap()).into();
        let is = |label: usize, row: usize, class: &str| labels[label].text(0, row) == Some(class);
        // The mean over cells that are `of`, of the pixels at these relative distances from the middle of the image.
        let mean = |m: usize, from: f64, to: f64, of: &dyn Fn(usize) -> bool| {
            let (mut sum, mut n, mut values) = (0.0, 0.0, vec![0.0; SIDE * SIDE]);
            for row in (0..600).filter(|&r| of(r)) {
                d.modality(m).row_into(row, &mut values).unwrap();
                assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
                for (at, v) in values.iter().enumerate() {
                    let r = ((at / SIDE) as f64 - 16.0).hypot((at % SIDE) as f64 - 16.0) / 11.0;
                    if (from..to).contains(&r) {
                        (sum, n) = (sum + f64::from(*v), n + 1.0);
                    }
                }
            }
            sum / n
        };
        let middle = |m, of: &dyn Fn(usize) -> bool| mean(m, 0.0, 0.25, of);
        assert!(middle(0, &|r| is(0, r, "central")) > middle(0, &|r| is(0, r, "peripheral")) + 0.3);
        for (stain, sign) in [("with", 1.0), ("against", -1.0)] {
            let of = |class: &'static str| middle(1, &|r| is(3, r, stain) && is(0, r, class));
            assert!(sign * (of("central") - of("peripheral")) > 0.3, "{stain}");
        }
        let ring = |class: &'static str| mean(1, 0.65, 0.75, &|r| is(3, r, "rim") && is(0, r, class));
        assert!(ring("peripheral") > ring("central") + 0.1);
        // What is of one image alone is not seen in the other.
        let (half, all) = ((0.4, 0.6), (0.0, 1.0));
        let gain = |m, (from, to), label, [yes, no]: [&str; 2]| {
            mean(m, from, to, &|r| is(label, r, yes)) - mean(m, from, to, &|r| is(label, r, no))
        };
        assert!(gain(0, half, 1, ["yes", "no"]) > 0.04 && gain(1, half, 1, ["yes", "no"]).abs() < 0.03);
        assert!(gain(1, all, 2, ["high", "low"]) > 0.15 && gain(0, all, 2, ["high", "low"]).abs() < 0.03);
    }
}
