//! `branching`, for the coupled autoencoder and for every other model's first steps.
//!
//!   latent     z = t d_b + 0.1 e  in 4 dimensions: branch b of three, uniform; position t uniform on [0, 1); d_b orthonormal, so that
//!              the branches meet at the origin; e standard normal without its part along d_b
//!   a view     x = W2 tanh(W1 z + b1) + b2 per view, 64 wide, into 200 (`view1`) and 100 (`view2`) features, or as many views of as many
//!              features as are asked for; W1 and b1 standard normal times 2, so that tanh bends, W2 normal with variance 1/64, b2 standard
//!              normal
//!   noise      normal, a tenth of the feature's deviation over all cells
//! Row i of every view is the same cell. Labels: `branch` 1..3, then the latent `Z1` .. `Z4`.

use super::super::builder::Builder;
use super::super::formats::{Head, Layout, Row, Rows, Source};
use super::super::hooks::Hooks;
use super::super::npy::Dtype;
use super::{RecipeSpec, SimulateSpec, finish_paired, provenance};
use crate::engine::rng::{self, Sequence};
use crate::error::{Error, Result};
use std::sync::Arc;

pub(super) const RECIPE: RecipeSpec = RecipeSpec {
    name: "branching",
    about: "non-linear views (200 and 100 features, or one for each number of --features) of a branching manifold of 4 dimensions, with labels",
    cells: 600,
    train: "[coupled]\nlatent = 4\nepochs = 2000\n",
    write,
};

const LATENT: usize = 4;
const BRANCHES: usize = 3;
const WIDTH: usize = 64;
const FEATURES: &[usize] = &[200, 100];
const MOST_VIEWS: usize = 16;
/// Of a view, whose network has 64 weights each.
const MOST_FEATURES: usize = 1_000_000;

/// Streams of random numbers: the bytes of "br", what is drawn, and the view.
const DIRECTIONS: u32 = 0x6272_0000;
const CELLS: u32 = 0x6272_0100;
const WEIGHTS: u32 = 0x6272_0200;
const NOISE: u32 = 0x6272_0300;

fn write(mut builder: Builder, recipe: &RecipeSpec, spec: &SimulateSpec, cells: usize, hooks: &mut Hooks) -> Result<()> {
    let seed = spec.seed;
    let of_views = if spec.features.is_empty() { FEATURES } else { spec.features };
    if !(2..=MOST_VIEWS).contains(&of_views.len()) {
        return Err(Error::usage(format!("--features: {} views are asked for, there may be 2 to {MOST_VIEWS}", of_views.len())));
    }
    if let Some(features) = of_views.iter().find(|f| !(1..=MOST_FEATURES).contains(*f)) {
        return Err(Error::usage(format!("--features {features}: a number from 1 to {MOST_FEATURES} is wanted")));
    }
    let names: Vec<String> = (1..=of_views.len()).map(|view| format!("view{view}")).collect();
    let mut from = provenance(recipe, cells, seed);
    if !spec.features.is_empty() {
        from.file += &format!(" --features {}", of_views.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    }
    let latent = Arc::new(Latent::draw(cells, seed));
    for (view, (name, &features)) in names.iter().zip(of_views).enumerate() {
        let network = Network::draw(seed, view as u32, features);
        let head =
            Head { cells: Some(cells as u64), shape: vec![features], layout: Layout::Dense(Dtype::F32), features: None, cell_ids: None };
        let features = (1..=features).map(|f| format!("{name}_{f:03}")).collect();
        let rows = View { latent: latent.clone(), network, noise: Vec::new(), seed, stream: NOISE + view as u32, next: 0 };
        let source = Source { head: Head { features: Some(features), ..head }, rows: Box::new(rows) };
        builder.add(name, source, from.clone(), hooks)?;
    }
    let mut labels = vec![("branch".to_string(), latent.branch.iter().map(|b| (b + 1).to_string()).collect())];
    labels.extend((0..LATENT).map(|z| (format!("Z{}", z + 1), latent.z.iter().map(|point| point[z].to_string()).collect())));
    finish_paired(builder, recipe, &names.iter().map(String::as_str).collect::<Vec<_>>(), cells, labels)
}

/// The points of the manifold.
struct Latent {
    branch: Vec<usize>,
    z: Vec<[f32; LATENT]>,
}

impl Latent {
    fn draw(cells: usize, seed: u64) -> Latent {
        let directions = orthonormal(&mut Sequence::new(seed, DIRECTIONS, 0));
        let mut latent = Latent { branch: Vec::with_capacity(cells), z: Vec::with_capacity(cells) };
        for cell in 0..cells {
            // One step a cell: a cell is the same however many there are.
            let mut draw = Sequence::new(seed, CELLS, cell as u32);
            let branch = draw.below(BRANCHES);
            let along = draw.next_f32() as f64;
            let direction = directions[branch];
            let mut scatter = [0f64; LATENT];
            scatter.fill_with(|| draw.next_normal() as f64);
            let part = dot(&scatter, &direction);
            let point: [f32; LATENT] = std::array::from_fn(|i| (along * direction[i] + 0.1 * (scatter[i] - part * direction[i])) as f32);
            latent.branch.push(branch);
            latent.z.push(point);
        }
        latent
    }
}

fn dot(a: &[f64; LATENT], b: &[f64; LATENT]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Three random directions at right angles (Gram and Schmidt on normal vectors).
fn orthonormal(draw: &mut Sequence) -> [[f64; LATENT]; BRANCHES] {
    let mut found = [[0.0; LATENT]; BRANCHES];
    let mut n = 0;
    while n < BRANCHES {
        let mut v: [f64; LATENT] = std::array::from_fn(|_| draw.next_normal() as f64);
        for earlier in &found[..n] {
            let part = dot(&v, earlier);
            v = std::array::from_fn(|i| v[i] - part * earlier[i]);
        }
        let length = dot(&v, &v).sqrt();
        // A vector that lies almost in the span of the earlier ones is drawn again.
        if length > 0.1 {
            found[n] = v.map(|x| x / length);
            n += 1;
        }
    }
    found
}

/// A random two-layer network, [LATENT] -> [WIDTH] -> [features].
struct Network {
    w1: Vec<f32>, // [WIDTH, LATENT]
    b1: Vec<f32>, // [WIDTH]
    w2: Vec<f32>, // [features, WIDTH]
    b2: Vec<f32>, // [features]
}

impl Network {
    fn draw(seed: u64, view: u32, features: usize) -> Network {
        let normals = |part: u32, n: usize, scale: f32| {
            let mut out = vec![0.0; n];
            rng::fill_normal(&mut out, seed, WEIGHTS + view, part, 0);
            out.iter_mut().for_each(|x| *x *= scale);
            out
        };
        Network {
            w1: normals(0, WIDTH * LATENT, 2.0),
            b1: normals(1, WIDTH, 2.0),
            w2: normals(2, features * WIDTH, (1.0 / WIDTH as f32).sqrt()),
            b2: normals(3, features, 1.0),
        }
    }

    /// A cell's view without noise, in f64 and a fixed order.
    fn forward(&self, z: &[f32; LATENT], out: &mut [f64]) {
        let unit = |(weights, bias): (&[f32], &f32)| {
            let sum: f64 = weights.iter().zip(z).map(|(w, z)| *w as f64 * *z as f64).sum();
            (sum + *bias as f64).tanh()
        };
        let mut hidden = [0f64; WIDTH];
        for (h, layer) in hidden.iter_mut().zip(self.w1.chunks_exact(LATENT).zip(&self.b1)) {
            *h = unit(layer);
        }
        for ((x, weights), bias) in out.iter_mut().zip(self.w2.chunks_exact(WIDTH)).zip(&self.b2) {
            *x = weights.iter().zip(&hidden).map(|(w, h)| *w as f64 * h).sum::<f64>() + *bias as f64;
        }
    }
}

/// The rows of one view. The noise needs every feature's deviation, so `prepare` goes through all cells once.
struct View {
    latent: Arc<Latent>,
    network: Network,
    noise: Vec<f64>,
    seed: u64,
    stream: u32,
    next: usize,
}

impl Rows for View {
    fn prepare(&mut self, stage: &str, hooks: &mut Hooks) -> Result<()> {
        let features = self.network.b2.len();
        let (mut x, mut mean, mut square) = (vec![0.0; features], vec![0.0; features], vec![0.0; features]);
        for (n, z) in self.latent.z.iter().enumerate() {
            self.network.forward(z, &mut x);
            for ((x, mean), square) in x.iter().zip(&mut mean).zip(&mut square) {
                let d: f64 = x - *mean;
                *mean += d / (n + 1) as f64;
                *square += d * (x - *mean);
            }
            if n % 1024 == 0 {
                hooks.tick(stage, n as u64, Some(self.latent.z.len() as u64))?;
            }
        }
        self.noise = square.iter().map(|s| 0.1 * (s / self.latent.z.len() as f64).sqrt()).collect();
        Ok(())
    }

    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        let Some(z) = self.latent.z.get(self.next) else { return Ok(false) };
        let features = self.network.b2.len();
        let mut clean = vec![0.0; features];
        self.network.forward(z, &mut clean);
        row.values.resize(features, 0.0);
        rng::fill_normal(&mut row.values, self.seed, self.stream, self.next as u32, 0);
        for ((x, clean), noise) in row.values.iter_mut().zip(&clean).zip(&self.noise) {
            *x = (clean + noise * *x as f64) as f32;
        }
        self.next += 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulate;
    use super::*;
    use crate::data::dataset::Dataset;

    fn make(cells: Option<usize>, seed: u64) -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        simulate(&SimulateSpec { recipe: "branching", cells, seed, ..Default::default() }, &dir.path().join("d"), &mut Hooks::default())
            .unwrap();
        let dataset = Dataset::open(&dir.path().join("d")).unwrap();
        (dir, dataset)
    }

    fn values(dataset: &Dataset, modality: usize) -> Vec<f32> {
        let m = dataset.modality(modality);
        let mut out = vec![0.0; m.cells() * m.features()];
        out.chunks_exact_mut(m.features()).enumerate().for_each(|(row, out)| m.row_into(row, out).unwrap());
        out
    }

    #[test]
    fn branching_has_the_promised_shapes_labels_and_pairs() {
        let (_dir, d) = make(None, 0);
        assert_eq!(d.modalities().iter().map(|m| (m.cells(), m.features())).collect::<Vec<_>>(), [(600, 200), (600, 100)]);
        assert_eq!((d.links().len(), d.links().pairs(0, 1).all(|(a, b, c)| a == b && c == 1.0)), (600, true));
        assert_eq!(d.label_columns(), ["branch", "Z1", "Z2", "Z3", "Z4"]);
        assert_eq!((d.default_label(), d.label("branch").unwrap().classes.len()), (Some("branch"), 3));
        assert!(d.dir().join("train.toml").exists());
    }

    #[test]
    fn as_many_views_as_numbers_of_features_the_first_ones_as_without() {
        let dir = tempfile::tempdir().unwrap();
        let of = |features: &[usize]| {
            let spec = SimulateSpec { recipe: "branching", cells: Some(20), seed: 5, features, ..Default::default() };
            simulate(&spec, &dir.path().join(features.len().to_string()), &mut Hooks::default())
                .map(|()| Dataset::open(&dir.path().join(features.len().to_string())).unwrap())
        };
        let (three, two) = (of(&[200, 100, 30]).unwrap(), make(Some(20), 5).1);
        assert_eq!(
            three.modalities().iter().map(|m| (m.name(), m.features())).collect::<Vec<_>>(),
            [("view1", 200), ("view2", 100), ("view3", 30)]
        );
        assert!((0..2).all(|m| values(&three, m) == values(&two, m)) && three.links().pairs(1, 2).all(|(a, b, _)| a == b));
        assert!([&[30][..], &[30, 0], &[9; 17]].iter().all(|wrong| of(wrong).is_err_and(|e| e.exit_code() == 2)));
    }

    #[test]
    fn branches_meet_are_straight_and_scatter_by_a_tenth() {
        let (_dir, d) = make(Some(3000), 3);
        let branch = d.label("branch").unwrap();
        let z: Vec<Vec<f32>> = (1..=4).map(|i| d.label(&format!("Z{i}")).unwrap().numbers(d.dir()).unwrap().swap_remove(0)).collect();
        for b in 0..3 {
            let rows: Vec<usize> = (0..3000).filter(|&r| branch.rows[0][r] == Some(b)).collect();
            assert!((800..1200).contains(&rows.len()), "branch {b} has {} cells", rows.len());
            // The mean points along the branch, at half its length.
            let mean: Vec<f64> = z.iter().map(|z| rows.iter().map(|&r| z[r] as f64).sum::<f64>() / rows.len() as f64).collect();
            let length = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
            assert!((length - 0.5).abs() < 0.05, "{length}");
            let (mut across, mut farthest) = (0.0, 0f64);
            for &r in &rows {
                let along: f64 = (0..4).map(|i| z[i][r] as f64 * mean[i] / length).sum();
                farthest = farthest.max(along);
                across += (0..4).map(|i| (z[i][r] as f64).powi(2)).sum::<f64>() - along * along;
            }
            let sd = (across / rows.len() as f64 / 3.0).sqrt(); // three dimensions across a line in four
            assert!((sd - 0.1).abs() < 0.01, "{sd}");
            assert!((0.95..1.05).contains(&farthest), "{farthest}");
        }
    }

    #[test]
    fn the_seed_decides_every_number() {
        let (a, b, c) = (make(Some(20), 5), make(Some(20), 5), make(Some(20), 6));
        for m in 0..2 {
            assert_eq!(values(&a.1, m), values(&b.1, m));
            assert_ne!(values(&a.1, m), values(&c.1, m));
        }
    }
}
