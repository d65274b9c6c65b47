//! `two-domain`, for sciCAN: expression and gene activity of the same genes in cells that nobody has paired, a shift between the two.
//!
//!   classes    p_k proportional to 0.8ᵏ, k = 0 .. 7, drawn for each cell of each modality
//!   genes      b_g ~ N(-1, 1), c_g ~ N(0, 1); D_kg ~ N(0, 1.2) with probability 0.2, else 0; m_g = 1 with probability 0.7, else 0
//!   `rna`      log rate b_g + D_kg + N(0, 0.3); a cell's rates made to sum to 1; counts Poisson(rate · 1500 · exp(0.3 e))
//!   `atac`     log rate b_g/2 + c_g + 0.4 D_kg m_g + N(0, 0.5); counts Poisson(rate · 300 · exp(0.5 e)), e standard normal, one a cell
//!
//! A gene's activity knows of a class's genes only in part (m) and faintly (0.4), and its level is its own (c): the shift.
//! Label: `type` 1 .. 8. Both modalities have as many cells as asked for, 300 genes, and are stored sparse.

use super::super::builder::{Builder, Identities};
use super::super::formats::{Head, Layout, Row, Rows, Source, Table};
use super::super::hooks::Hooks;
use super::super::labels::Given;
use super::super::pairs::Links;
use super::{RecipeSpec, SimulateSpec, provenance};
use crate::engine::rng::Sequence;
use crate::error::Result;
use std::sync::Arc;

/// The row of [`RECIPES`](super::RECIPES).
pub(super) const RECIPE: RecipeSpec = RecipeSpec {
    name: "two-domain",
    about: "expression and gene activity of the same 300 genes in unpaired cells of 8 types",
    cells: 1000,
    train: "[scican]\nbatch_size = 128\nepochs = 60\n",
    write,
};

const GENES: usize = 300;
const TYPES: usize = 8;
const NAMES: [&str; 2] = ["rna", "atac"];

/// Streams of random numbers: the bytes of "td", what is drawn, and the modality.
const LEVELS: u32 = 0x7464_0000;
const CELLS: u32 = 0x7464_0100;

fn write(mut builder: Builder, recipe: &RecipeSpec, spec: &SimulateSpec, cells: usize, hooks: &mut Hooks) -> Result<()> {
    let seed = spec.seed;
    let levels = Arc::new(Levels::draw(seed));
    let names: Vec<String> = (1..=GENES).map(|g| format!("gene{g:03}")).collect();
    let (mut ids, mut types) = (Vec::new(), Vec::new());
    for (m, name) in NAMES.into_iter().enumerate() {
        let head =
            Head { cells: Some(cells as u64), shape: vec![GENES], layout: Layout::Sparse, features: Some(names.clone()), cell_ids: None };
        let source = Source { head, rows: Box::new(Cells { levels: levels.clone(), modality: m, cells, seed, next: 0 }) };
        builder.add(name, source, provenance(recipe, cells, seed), hooks)?;
        ids.push((0..cells).map(|cell| format!("{name}{cell}")).collect::<Vec<String>>());
        types.extend((0..cells).map(|cell| (1 + levels.cell(seed, m, cell).0).to_string()));
    }
    let all = ids.concat();
    let lines = (2..all.len() as u64 + 2).collect();
    let table = Table {
        file: format!("simulate {}", recipe.name).into(),
        ids: all,
        lines,
        columns: vec!["type".into()],
        values: vec![types.into()],
    };
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

/// What the cells of a type have in common.
struct Levels {
    /// Log rates by modality, then type, then gene.
    log_rates: [Vec<f64>; 2],
    /// Probability that a cell is of this type or of an earlier one.
    up_to: [f64; TYPES],
}

impl Levels {
    fn draw(seed: u64) -> Levels {
        let draw = |part: u32| Sequence::new(seed, LEVELS, part);
        let normals = |part: u32, n: usize| {
            let mut s = draw(part);
            (0..n).map(|_| f64::from(s.next_normal())).collect::<Vec<f64>>()
        };
        let chances = |part: u32, n: usize, p: f64| {
            let mut s = draw(part);
            (0..n).map(|_| f64::from(s.next_f64() < p)).collect::<Vec<f64>>()
        };
        let (b, c) = (normals(0, GENES), normals(1, GENES));
        let (d, differs) = (normals(2, TYPES * GENES), chances(3, TYPES * GENES, 0.2));
        let shared = chances(4, GENES, 0.7);
        let mut log_rates = [const { Vec::new() }; 2];
        for (i, (d, differs)) in d.iter().zip(&differs).enumerate() {
            let (g, d) = (i % GENES, 1.2 * d * differs);
            log_rates[0].push(b[g] - 1.0 + d);
            log_rates[1].push(0.5 * (b[g] - 1.0) + c[g] + 0.4 * d * shared[g]);
        }
        let whole: f64 = (0..TYPES as i32).map(|k| 0.8f64.powi(k)).sum();
        let mut sum = 0.0;
        let up_to = std::array::from_fn(|k| {
            sum += 0.8f64.powi(k as i32) / whole;
            sum
        });
        Levels { log_rates, up_to }
    }

    /// A cell's type, and what else of it is drawn: one step of random numbers a cell, so that a cell is the same however many there are.
    fn cell(&self, seed: u64, modality: usize, cell: usize) -> (usize, Sequence) {
        let mut draw = Sequence::new(seed, CELLS + modality as u32, cell as u32);
        let u = draw.next_f64();
        (self.up_to.iter().position(|&p| u < p).unwrap_or(TYPES - 1), draw)
    }
}

/// The cells of a modality.
struct Cells {
    levels: Arc<Levels>,
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
        let (of_type, mut draw) = self.levels.cell(self.seed, self.modality, self.next);
        self.next += 1;
        let [scatter, depth, spread] = [[0.3, 1500.0, 0.3], [0.5, 300.0, 0.5]][self.modality];
        let mut normal = || f64::from(draw.next_normal());
        let depth = depth * (spread * normal()).exp();
        let levels = &self.levels.log_rates[self.modality][of_type * GENES..][..GENES];
        let rates: Vec<f64> = levels.iter().map(|level| (level + scatter * normal()).exp()).collect();
        let whole: f64 = rates.iter().sum();
        row.indices.clear();
        row.values.clear();
        for (g, rate) in rates.iter().enumerate() {
            let count = poisson(&mut draw, rate / whole * depth);
            if count > 0 {
                row.indices.push(g as i32);
                row.values.push(count as f32);
            }
        }
        Ok(true)
    }
}

/// A number from the Poisson distribution: by inversion, a large mean as the sum of smaller ones, so that exp(-mean) stays far from 0.
pub(super) fn poisson(draw: &mut Sequence, mean: f64) -> u64 {
    const MOST: f64 = 30.0;
    let parts = (mean / MOST).ceil().max(1.0);
    let mean = mean / parts;
    let mut one = || {
        let (mut left, mut p, mut k) = (draw.next_f64(), (-mean).exp(), 0u64);
        // Past 200 the probabilities of a mean of 30 are below the resolution of the draw.
        while left >= p && k < 200 {
            left -= p;
            k += 1;
            p *= mean / k as f64;
        }
        k
    };
    (0..parts as u64).map(|_| one()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{SimulateSpec, simulate};
    use super::*;
    use crate::data::Dataset;

    fn make(cells: usize, seed: u64) -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        simulate(&SimulateSpec { recipe: "two-domain", cells: Some(cells), seed, ..Default::default() }, &path, &mut Hooks::default())
            .unwrap();
        let dataset = Dataset::open(&path).unwrap();
        (dir, dataset)
    }

    #[test]
    fn poisson_numbers_have_their_mean_as_mean_and_as_variance() {
        for mean in [0.02, 3.0, 29.9, 100.0] {
            let mut draw = Sequence::new(1, 2, 3);
            let n = 20_000;
            let drawn: Vec<f64> = (0..n).map(|_| poisson(&mut draw, mean) as f64).collect();
            let average = drawn.iter().sum::<f64>() / n as f64;
            let variance = drawn.iter().map(|x| (x - average).powi(2)).sum::<f64>() / n as f64;
            // Five standard errors, of the mean and (with the kurtosis of a Poisson number) of the variance.
            assert!((average - mean).abs() < 5.0 * (mean / n as f64).sqrt(), "{mean}: {average}");
            assert!((variance - mean).abs() < 5.0 * ((mean + 2.0 * mean * mean) / n as f64).sqrt(), "{mean}: {variance}");
        }
    }

    #[test]
    fn two_domain_has_the_promised_shapes_depths_and_types() {
        let (_dir, d) = make(2000, 1);
        let shapes: Vec<_> = d.modalities().iter().map(|m| (m.name(), m.cells(), m.features(), m.is_sparse())).collect();
        assert_eq!(shapes, [("rna", 2000, 300, true), ("atac", 2000, 300, true)]);
        assert_eq!((d.links().len(), d.default_label()), (0, Some("type")));
        assert_eq!(d.modality(0).feature_names(), d.modality(1).feature_names());
        let label = d.label("type").unwrap();
        assert_eq!(label.classes.len(), 8);
        let whole: f64 = (0..8).map(|k| 0.8f64.powi(k)).sum();
        for (m, depth) in [(0, 1500.0 * (0.045f64).exp()), (1, 300.0 * (0.125f64).exp())] {
            let counts: f64 =
                (0..2000).map(|r| d.modality(m).sparse_row(r).unwrap().unwrap().1.iter().map(|&v| f64::from(v)).sum::<f64>()).sum();
            // exp(s e) has mean exp(s²/2).
            assert!((counts / 2000.0 / depth - 1.0).abs() < 0.05, "{} against {depth}", counts / 2000.0);
            for k in 0..8 {
                let name = (k + 1).to_string();
                let class = label.classes.iter().position(|c| *c == name).unwrap() as u32;
                let share = label.rows[m].iter().filter(|c| **c == Some(class)).count() as f64 / 2000.0;
                let p = 0.8f64.powi(k) / whole;
                assert!((share - p).abs() < 4.0 * (p * (1.0 - p) / 2000.0).sqrt(), "type {name}: {share} for {p}");
            }
        }
        let one = |d: &Dataset| d.modality(1).sparse_row(7).unwrap().map(|(i, v)| (i.to_vec(), v.to_vec()));
        assert_eq!(one(&d), one(&make(10, 1).1), "a cell is the same however many there are");
        assert_ne!(one(&d), one(&make(10, 2).1));
    }
}
