//! `apollo-1` .. `apollo-5`: five pairs of views with a known graph between shared and specific latent variables.
//!
//!   latent       Z1, Z2 shared; Z3, Z4 of `view1` alone; Z5 of `view2` alone; each of mean 0 and variance 1
//!   Z1, Z3       -1 or 1, each with probability 1/2
//!   Z2, Z5       standard normal
//!   Z4           standard normal (1, 2); 0.8 Z2 + 0.6 e, e standard normal (3, 4, 5): the specific space may carry Z2
//!   features     blocks of ten, linear in the block's parents: x = Σ c_k Z_k with c ~ N(0, 1), no noise, no intercept, no scaling;
//!                in 5 the coefficients of blocks with one parent have standard deviation 4
//!
//! | | `view1`: blocks by their parents | `view2` |
//! | --- | --- | --- |
//! | 1, 3 | Z1; Z2; Z3; Z4 | Z1; Z2; Z5 |
//! | 2, 4, 5 | Z2; Z3; Z4; Z2 Z3; Z2 Z4; Z3 Z4; Z2 Z3 Z4; Z1 Z2 Z3 Z4 | Z2; Z5; Z2 Z5; Z1 Z2 Z5 |
//!
//! The blocks are those of the publication (Zhang, Shivashankar and Uhler 2026), the laws of Z our choice: it shows them in a figure only.
//! Row i of both views is the same cell. Coefficients follow from the seed alone and a cell is the same however many there are, so more
//! `--cells` are fresh cells of the same experiment. Labels: `Z1` .. `Z5`.

use super::super::builder::Builder;
use super::super::formats::{Head, Layout, Row, Rows, Source};
use super::super::hooks::Hooks;
use super::super::npy::Dtype;
use super::{RecipeSpec, SimulateSpec, finish_paired, provenance};
use crate::engine::rng::Sequence;
use crate::error::Result;

/// The rows of [`RECIPES`](super::RECIPES).
pub(super) const RECIPES: [RecipeSpec; 5] = [
    recipe("apollo-1", "40 and 30 features of two shared and three specific latent variables, every feature of one of them"),
    recipe("apollo-2", "80 and 40 features that mix two shared and three specific latent variables"),
    recipe("apollo-3", "apollo-1 with a specific variable that follows a shared one"),
    recipe("apollo-4", "apollo-2 with a specific variable that follows a shared one"),
    recipe("apollo-5", "apollo-4 with 16 times the variance in features of one variable"),
];

const fn recipe(name: &'static str, about: &'static str) -> RecipeSpec {
    RecipeSpec { name, about, cells: 2000, train: TRAIN, write }
}

/// Small networks for small data: the settings that the bands of separation were measured with.
const TRAIN: &str = "[apollo]
latent = 2
latent_specific = 2
width = 64
shared_decoders = false
loss = \"mse\"
batch_size = 200
epochs = 240
epochs2 = 60
lr_tables = 0.02
lr = 0.001
dropout = 0.01
penalty = 0.001
reshuffle = false
preprocess = \"none\"
";

const LATENT: usize = 5;
const BLOCK: usize = 10;
const VIEWS: [&str; 2] = ["view1", "view2"];

/// Streams of random numbers: the bytes of "ap", the simulation, what is drawn, and the view.
const STREAM: u32 = 0x6170_0000;
const COEFFICIENTS: u32 = 0;
const CELLS: u32 = 0x10;

/// Each view's blocks, as the numbers of their parents.
type Blocks = &'static [&'static [usize]];
const SEPARATE: [Blocks; 2] = [&[&[1], &[2], &[3], &[4]], &[&[1], &[2], &[5]]];
const MIXED: [Blocks; 2] = [&[&[2], &[3], &[4], &[2, 3], &[2, 4], &[3, 4], &[2, 3, 4], &[1, 2, 3, 4]], &[&[2], &[5], &[2, 5], &[1, 2, 5]]];

/// One of the five, with its seed.
#[derive(Clone, Copy)]
struct Graph {
    number: u32,
    seed: u64,
}

impl Graph {
    fn blocks(&self, view: usize) -> Blocks {
        if matches!(self.number, 1 | 3) { SEPARATE[view] } else { MIXED[view] }
    }

    fn stream(&self, what: u32) -> u32 {
        STREAM + (self.number << 8) + what
    }

    /// The latent variables of a cell.
    fn cell(&self, cell: usize) -> [f32; LATENT] {
        let mut draw = Sequence::new(self.seed, self.stream(CELLS), cell as u32);
        let [z1, z3] = [draw.below(2), draw.below(2)].map(|b| 2.0 * b as f32 - 1.0);
        let [z2, z5, e] = std::array::from_fn(|_| draw.next_normal());
        [z1, z2, z3, if self.number <= 2 { e } else { 0.8 * z2 + 0.6 * e }, z5]
    }

    /// The loadings of a view, features x latent; 0 where a variable is no parent.
    fn loadings(&self, view: usize) -> Vec<[f64; LATENT]> {
        let mut draw = Sequence::new(self.seed, self.stream(COEFFICIENTS + view as u32), 0);
        let mut out = Vec::new();
        for parents in self.blocks(view) {
            let deviation = if self.number == 5 && parents.len() == 1 { 4.0 } else { 1.0 };
            for _ in 0..BLOCK {
                let mut row = [0.0; LATENT];
                parents.iter().for_each(|p| row[p - 1] = deviation * f64::from(draw.next_normal()));
                out.push(row);
            }
        }
        out
    }

    /// A view's features by name: the view, the parents, the place in the block.
    fn features(&self, view: usize) -> Vec<String> {
        let block = |parents: &&[usize]| parents.iter().map(|p| format!("Z{p}")).collect::<String>();
        let names = self.blocks(view).iter().map(block);
        names.flat_map(|b| (1..=BLOCK).map(move |i| format!("{}_{b}_{i:02}", VIEWS[view]))).collect()
    }
}

fn write(mut builder: Builder, recipe: &RecipeSpec, spec: &SimulateSpec, cells: usize, hooks: &mut Hooks) -> Result<()> {
    let number = 1 + RECIPES.iter().position(|r| r.name == recipe.name).unwrap_or(0) as u32;
    let graph = Graph { number, seed: spec.seed };
    for (view, name) in VIEWS.into_iter().enumerate() {
        let features = graph.features(view);
        let shape = vec![features.len()];
        let head = Head { cells: Some(cells as u64), shape, layout: Layout::Dense(Dtype::F32), features: Some(features), cell_ids: None };
        let rows = View { graph, loadings: graph.loadings(view), cells, next: 0 };
        builder.add(name, Source { head, rows: Box::new(rows) }, provenance(recipe, cells, spec.seed), hooks)?;
    }
    let z: Vec<[f32; LATENT]> = (0..cells).map(|cell| graph.cell(cell)).collect();
    let label = |k: usize| (format!("Z{}", k + 1), z.iter().map(|z| z[k].to_string()).collect());
    finish_paired(builder, recipe, &VIEWS, cells, (0..LATENT).map(label).collect())
}

/// The rows of one view.
struct View {
    graph: Graph,
    loadings: Vec<[f64; LATENT]>,
    cells: usize,
    next: usize,
}

impl Rows for View {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let z = self.graph.cell(self.next);
        self.next += 1;
        row.values.clear();
        row.values.extend(self.loadings.iter().map(|c| c.iter().zip(z).map(|(c, z)| c * f64::from(z)).sum::<f64>() as f32));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SimulateSpec, simulate};
    use super::*;
    use crate::data::Dataset;

    fn make(recipe: &str, cells: Option<usize>, seed: u64) -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        simulate(&SimulateSpec { recipe, cells, seed, ..Default::default() }, &path, &mut Hooks::default()).unwrap();
        let dataset = Dataset::open(&path).unwrap();
        (dir, dataset)
    }

    fn row(d: &Dataset, m: usize, r: usize) -> Vec<f32> {
        let mut out = vec![0.0; d.modality(m).features()];
        d.modality(m).row_into(r, &mut out).unwrap();
        out
    }

    #[test]
    fn the_five_have_their_shapes_and_unit_variances_and_the_links_of_their_graphs() {
        for (at, recipe) in RECIPES.iter().enumerate() {
            let (_dir, d) = make(recipe.name, None, 4);
            let features = if at % 2 == 0 && at < 4 { [40, 30] } else { [80, 40] };
            assert_eq!(d.modalities().iter().map(|m| (m.cells(), m.features())).collect::<Vec<_>>(), features.map(|f| (2000, f)));
            assert_eq!((d.links().len(), d.default_label()), (2000, Some("Z1")));
            let z: Vec<Vec<f64>> = (1..=5)
                .map(|k| d.label(&format!("Z{k}")).unwrap().numbers(d.dir()).unwrap()[0].iter().map(|&v| f64::from(v)).collect())
                .collect();
            for k in 0..5 {
                for l in k..5 {
                    let mean = z[k].iter().zip(&z[l]).map(|(a, b)| a * b).sum::<f64>() / 2000.0;
                    let wanted = if k == l {
                        1.0
                    } else if (k, l) == (1, 3) && at >= 2 {
                        0.8
                    } else {
                        0.0
                    };
                    // Five standard errors; a product of two normal numbers has at most variance 2.
                    assert!((mean - wanted).abs() < 5.0 * (2f64 / 2000.0).sqrt(), "{}: Z{} Z{}: {mean}", recipe.name, k + 1, l + 1);
                }
            }
            assert!([0, 2].iter().all(|&k| z[k].iter().all(|v| v.abs() == 1.0)));
        }
    }

    #[test]
    fn a_feature_is_the_sum_of_its_parents_alone_and_four_times_as_large_where_it_should_be() {
        let (_dir, d) = make("apollo-5", Some(50), 1);
        let graph = Graph { number: 5, seed: 1 };
        assert_eq!(d.modality(0).feature_names()[79], "view1_Z1Z2Z3Z4_10");
        let loadings = graph.loadings(0);
        let parents = |f: usize| (0..5).filter(|&k| loadings[f][k] != 0.0).map(|k| k + 1).collect::<Vec<_>>();
        assert_eq!([parents(0), parents(35), parents(79)], [vec![2], vec![2, 3], vec![1, 2, 3, 4]]);
        for r in 0..50 {
            let (x, z) = (row(&d, 0, r), graph.cell(r));
            let wanted = loadings[35][1] * f64::from(z[1]) + loadings[35][2] * f64::from(z[2]);
            assert!((f64::from(x[35]) - wanted).abs() < 1e-5);
        }
        let square = |rows: std::ops::Range<usize>, k: usize| rows.clone().map(|f| loadings[f][k].powi(2)).sum::<f64>() / rows.len() as f64;
        // Ten squares of variance 16 against forty or more of variance 1.
        assert!(square(0..10, 1) > 5.0 && square(30..40, 1) < 3.0, "{} {}", square(0..10, 1), square(30..40, 1));
    }

    #[test]
    fn more_cells_are_fresh_cells_of_the_same_experiment() {
        let (few, more, other) = (make("apollo-3", Some(20), 7), make("apollo-3", Some(30), 7), make("apollo-3", Some(20), 8));
        for m in 0..2 {
            assert_eq!(row(&few.1, m, 19), row(&more.1, m, 19));
            assert_ne!(row(&few.1, m, 19), row(&other.1, m, 19));
        }
    }

    #[test]
    fn the_settings_are_a_table_of_the_model() {
        let table: toml::Table = TRAIN.parse().unwrap();
        assert_eq!(table["apollo"]["epochs"].as_integer(), Some(240));
    }
}
