//! The correspondence of modalities whose tables of distances do not fit: solved between landmarks, then extended to every cell.
//!
//!   graph      the kNN graph of all cells, exact neighbours; unlike `geodesic`, k never grows beyond kmax + 2, whatever the number of cells
//!   landmarks  L cells a modality, [`Pick`]; Dijkstra from each; a table D [L, L], and every cell's `near` nearest landmarks l with
//!              weights w_l ∝ 1/d_l² that sum to 1 (a landmark is itself)
//!   solution   F̂ [L_A, L_B] between the two tables by [`Solver`]; the primal-dual one with the penalty ρ N / L of N cells: its
//!              objective's gradient goes as 1/cells, so that the sums weigh as much against it as between all cells
//!   extension  cell i of A has the image v_i = F̂ᵀ w_i among B's landmarks, F̂'s rows scaled to sum to 1; its best matches are the cells
//!              j of B with the least expected squared distance to it, E_v |y - y_j|² = w_iᵀ F̂ D_B² w_j - V_j, V_j = ½ w_jᵀ D_B² w_j up
//!              to what is common to all j: the identity of weighted means, exact where the landmarks around a cell lie flat
//!   result     the K best a cell, weights exp(-excess / excess of the K-th) that sum to 1: [`Sparse`]
//!   block      of some cells of A and some of B, for a model that learns from F: W_A F̂ W_Bᵀ, W the weights above
//!
//! Candidates for i are the cells whose nearest landmark is among the image's closest, as many landmarks as it takes for 4 K cells, five at least.
//! Nothing of size cells x cells is held: 16 bytes a listed neighbour (17 a cell, 42 where the graph was not connected by then), 8 cells x features
//! for the search, 32 cells for paths and 12 near + 8 K a cell, then 20 L² at the solution. Operations: 3 cells² features for the neighbours, which
//! decides; L (edges + cells log cells) for paths; the solver's at L; cells (near L + near candidates) for the extension.
//! The same seed gives the same bits whatever the number of threads.
//!
//! Measured (`landmark_figures` in the tests, median of three seeds, own type of the best match): UnionCom's simulation 1, 300 cells, 0.94 by the whole
//! primal-dual solution, 0.92, 0.91 and 0.94 by 30, 75 and 150 farthest landmarks; with ρ itself in place of ρ N / L 0.92, 0.65 and 0.06 (a mirror
//! image), by random landmarks 0.66, 0.65 and 0.74. Gromov-Wasserstein 0.96, by farthest 0.86, 0.83 and 0.88, by random 0.56, 0.58 and 0.81. On
//! simulation 2, 200 x 250 cells, a branch only in the second, whole 0.90, by 50 farthest 0.64, and by 100 both solvers end in a mirror image.
//! `landmark_seconds` prints what a large run takes.
//!
//! Source of the idea of landmarks: de Silva and Tenenbaum, "Sparse multidimensional scaling using landmark points", 2004. The extension is ours.

use super::graph::{Graph, Search};
use super::{geodesic, gromov, prime_dual};
use crate::device::Device;
use crate::engine::rng;
use crate::error::{Error, Result};
use crate::metrics::matrix::Matrix;
use crate::metrics::neighbours::{Distance, Pool};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Landmarks whose paths are held at once.
const BATCH: usize = 32;
/// Landmarks around an image that lend candidates, at least.
const AROUND: usize = 5;
/// The stream of random numbers that picks landmarks.
const STREAM: u32 = 0x6c61_0001;

/// Which cells become landmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Any, drawn without replacement: as dense as the cells are, which is what a plan with even marginals compares.
    Random,
    /// Each the farthest from those before it (Euclidean): covers the modality evenly, outliers first.
    Farthest,
}

/// What solves the problem between the landmarks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Solver {
    /// UnionCom's.
    PrimeDual(prime_dual::Options),
    /// Entropic Gromov-Wasserstein.
    Gromov(gromov::Options),
}

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// L, a modality; all cells where there are fewer.
    pub landmarks: usize,
    /// Which.
    pub pick: Pick,
    /// Landmarks that a cell has weights on.
    pub near: usize,
    /// The k after which no other graph is tried.
    pub kmax: usize,
    /// Of the landmarks.
    pub seed: u64,
    /// Between the landmarks.
    pub solver: Solver,
}

impl Default for Options {
    fn default() -> Options {
        let solver = Solver::Gromov(gromov::Options::default());
        Options { landmarks: 1000, pick: Pick::Farthest, near: 5, kmax: geodesic::KMAX, seed: 0, solver }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Report {
    /// Cells whose neighbours are known, of how many; of modality 0 or 1.
    Neighbours(usize, usize, usize),
    /// Landmarks whose paths are known, of how many; of modality 0 or 1.
    Paths(usize, usize, usize),
    /// The solver's.
    PrimeDual(prime_dual::Report),
    /// The solver's.
    Gromov(gromov::Report),
}

/// Matches of every cell of A among those of B, best first, row i in `indptr[i]..indptr[i + 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// [m + 1].
    pub indptr: Vec<usize>,
    /// Cells of B.
    pub indices: Vec<u32>,
    /// Their weights; a row sums to 1.
    pub values: Vec<f32>,
    /// n.
    pub cols: usize,
}

impl Sparse {
    /// The matches of cell i with their weights, best first.
    pub fn row(&self, i: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let at = self.indptr[i]..self.indptr[i + 1];
        self.indices[at.clone()].iter().copied().zip(self.values[at].iter().copied())
    }
}

/// What [`solve`] found.
#[derive(Clone, Debug)]
pub struct Solution {
    /// Both modalities as their landmarks see them.
    pub sides: [Landmarks; 2],
    /// F̂ [L_A, L_B], as the solver leaves it.
    pub correspondence: Vec<f32>,
}

impl Solution {
    /// The `count` best matches of every cell of A; 0 of them is a usage error.
    pub fn matches(&self, count: usize) -> Result<Sparse> {
        let l = self.sides[1].cells.len();
        let mut f = self.correspondence.clone();
        for row in f.chunks_exact_mut(l) {
            let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
            // A landmark that the plan gave up could be anywhere.
            row.iter_mut().for_each(|v| *v = if sum > 0.0 { (f64::from(*v) / sum) as f32 } else { 1.0 / l as f32 });
        }
        extend(&self.sides, &f, count)
    }
}

/// A modality as its landmarks see it.
#[derive(Clone, Debug)]
pub struct Landmarks {
    /// Rows of the landmarks, ascending; L.
    pub cells: Vec<u32>,
    /// Geodesic distances between them [L, L]; twice the largest where there is no path.
    pub table: Vec<f32>,
    /// Landmarks that each cell has weights on [n, near], nearest first.
    pub near: Vec<u32>,
    /// The weights [n, near].
    pub weights: Vec<f32>,
    /// The k of the graph.
    pub k: usize,
    /// Into how many parts it falls.
    pub parts: usize,
    of_each: usize,
}

impl Landmarks {
    /// Picks landmarks of `cells` [n, p] and measures the paths from them. `progress` hears of cells and landmarks done; a set `stop`
    /// ends it with [`Error::Interrupted`]. Fewer than one landmark, and cells that are not finite, are a usage error.
    pub fn new(
        cells: Matrix<'_>,
        options: &Options,
        modality: usize,
        stop: Option<&AtomicBool>,
        progress: &mut dyn FnMut(Report),
    ) -> Result<Landmarks> {
        geodesic::check(cells)?;
        if options.landmarks == 0 || options.near == 0 {
            return Err(Error::usage("landmarks: one a modality is needed at least, and one near each cell"));
        }
        let n = cells.rows();
        let mut heed = |report: Report| {
            if stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted(format!("interrupted: among the landmarks of modality {}", modality + 1)));
            }
            progress(report);
            Ok(())
        };
        let kmax = options.kmax;
        let graph = Graph::connected(cells, kmax, |k| k <= kmax, |done, of| heed(Report::Neighbours(modality, done, of)))?;
        let mut marks = match options.pick {
            Pick::Random => rng::permutation(n, options.seed, STREAM + modality as u32, 0)[..options.landmarks.min(n)].to_vec(),
            Pick::Farthest => farthest(cells, options.landmarks.min(n), (options.seed % n as u64) as usize),
        };
        marks.sort_unstable();
        let l = marks.len();
        let near = options.near.min(l);
        let mut table = vec![0.0f32; l * l];
        let mut lists = vec![(f32::INFINITY, 0u32); n * near];
        for (b, batch) in marks.chunks(BATCH).enumerate() {
            heed(Report::Paths(modality, b * BATCH, l))?;
            let first = b * BATCH;
            let reached: Vec<Vec<f32>> = batch
                .par_iter()
                .map_init(
                    || Search::new(n),
                    |search, &source| {
                        search.run(&graph.edges, source as usize);
                        search.reached().iter().map(|&d| d as f32).collect()
                    },
                )
                .collect();
            for (row, reached) in table[first * l..].chunks_exact_mut(l).zip(&reached) {
                row.iter_mut().zip(&marks).for_each(|(y, &c)| *y = reached[c as usize]);
            }
            lists.par_chunks_exact_mut(near).enumerate().for_each(|(i, list)| {
                for (j, reached) in (first as u32..).zip(&reached) {
                    insert(list, (reached[i], j));
                }
            });
        }
        let largest = table.iter().filter(|d| d.is_finite()).fold(0.0f32, |m, &d| m.max(d));
        table.iter_mut().filter(|d| d.is_infinite()).for_each(|d| *d = 2.0 * largest);
        // A part of the graph without a landmark: those nearest as the crow flies.
        let lost: Vec<u32> = (0..n as u32).filter(|&i| lists[i as usize * near].0.is_infinite()).collect();
        if !lost.is_empty() {
            let pool = Pool::new(cells, &marks);
            let found = pool.nearest(Distance::Euclidean, cells, &lost, near);
            for (q, &i) in lost.iter().enumerate() {
                for (slot, j) in lists[i as usize * near..][..near].iter_mut().zip(found.of(q)) {
                    let d = Distance::Euclidean.comparable(cells.row(i as usize), cells.row(marks[j] as usize));
                    *slot = (Distance::Euclidean.of(d) as f32, j as u32);
                }
            }
        }
        let mut weights = vec![0.0f32; n * near];
        weights.par_chunks_exact_mut(near).zip(lists.par_chunks_exact(near)).for_each(|(w, list)| weigh(w, list));
        let near_cells = lists.iter().map(|e| e.1).collect();
        Ok(Landmarks { cells: marks, table, near: near_cells, weights, k: graph.k, parts: graph.parts, of_each: near })
    }

    /// n.
    fn rows(&self) -> usize {
        self.near.len() / self.of_each
    }

    /// Landmarks that a cell has weights on: near, or all where there are fewer.
    pub fn of_each(&self) -> usize {
        self.of_each
    }

    /// (landmark, weight) of cell i.
    fn of(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let at = i * self.of_each..(i + 1) * self.of_each;
        self.near[at.clone()].iter().map(|&l| l as usize).zip(self.weights[at].iter().copied())
    }
}

/// Landmarks of both modalities, a [m, p] and b [n, q], and the correspondence between them, computed on `device`, which comes back.
/// A set `stop` ends it with [`Error::Interrupted`].
pub fn solve(
    device: Device,
    a: Matrix<'_>,
    b: Matrix<'_>,
    options: &Options,
    stop: Option<&AtomicBool>,
    progress: &mut dyn FnMut(Report),
) -> Result<(Solution, Device)> {
    let sides = [Landmarks::new(a, options, 0, stop, progress)?, Landmarks::new(b, options, 1, stop, progress)?];
    between(device, sides, [a.cols(), b.cols()], options, stop, progress)
}

/// [`solve`] where both modalities' landmarks are there already; `features` are the modalities' p and q.
pub fn between(
    device: Device,
    sides: [Landmarks; 2],
    features: [usize; 2],
    options: &Options,
    stop: Option<&AtomicBool>,
    progress: &mut dyn FnMut(Report),
) -> Result<(Solution, Device)> {
    let (correspondence, device) = match options.solver {
        Solver::PrimeDual(o) => {
            let all = sides[0].rows().max(sides[1].rows()) as f32;
            let few = sides[0].cells.len().max(sides[1].cells.len()) as f32;
            let o = prime_dual::Options { penalty: o.penalty * (all / few), features, ..o };
            let [ka, kb] = [0, 1].map(|s| sides[s].table.clone());
            let found = prime_dual::solve(device, ka, kb, o, stop, |r| progress(Report::PrimeDual(r)))?;
            (found.0.correspondence, found.1)
        }
        Solver::Gromov(o) => {
            let found = gromov::solve(device, &sides[0].table, &sides[1].table, o, stop, |r| progress(Report::Gromov(r)))?;
            (found.0.plan, found.1)
        }
    };
    Ok((Solution { sides, correspondence }, device))
}

/// The best matches of all cells of the first side; F̂ [L_A, L_B], rows that sum to 1.
fn extend(sides: &[Landmarks; 2], f: &[f32], matches: usize) -> Result<Sparse> {
    let [a, b] = sides;
    let (la, lb) = (a.cells.len(), b.cells.len());
    let [m, n] = [a, b].map(Landmarks::rows);
    if matches == 0 {
        return Err(Error::usage("landmarks: one match a cell is needed at least"));
    }
    let k = matches.min(n);
    let square: Vec<f32> = b.table.iter().map(|d| d * d).collect();
    // Expected squared distances of A's landmarks' images to B's landmarks.
    let mut expected = vec![0.0f32; la * lb];
    expected.par_chunks_exact_mut(lb).zip(f.par_chunks_exact(lb)).for_each(|(out, f)| {
        for (&f, square) in f.iter().zip(square.chunks_exact(lb)).filter(|t| *t.0 > 0.0) {
            out.iter_mut().zip(square).for_each(|(y, s)| *y += f * s);
        }
    });
    // V, and B's cells by their nearest landmark.
    let spread: Vec<f32> = (0..n)
        .into_par_iter()
        .map(|j| b.of(j).flat_map(|(l, w)| b.of(j).map(move |(o, v)| (l, o, w * v))).map(|(l, o, w)| 0.5 * w * square[l * lb + o]).sum())
        .collect();
    let mut members = vec![Vec::new(); lb];
    (0..n).for_each(|j| members[b.near[j * b.of_each] as usize].push(j as u32));
    let (mut indices, mut values) = (vec![0u32; m * k], vec![0.0f32; m * k]);
    indices.par_chunks_exact_mut(k).zip(values.par_chunks_exact_mut(k)).enumerate().for_each_init(
        || (vec![0.0f32; lb], Vec::new()),
        |(image, order), (i, (indices, values))| {
            image.fill(0.0);
            for (l, w) in a.of(i).filter(|t| t.1 > 0.0) {
                image.iter_mut().zip(&expected[l * lb..][..lb]).for_each(|(y, e)| *y += w * e);
            }
            order.clear();
            order.extend(0..lb as u32);
            order.sort_unstable_by(|&x, &y| image[x as usize].total_cmp(&image[y as usize]).then(x.cmp(&y)));
            let mut best = vec![(f32::INFINITY, u32::MAX); k];
            let mut seen = 0;
            for (taken, &l) in order.iter().enumerate() {
                if taken >= AROUND && seen >= (4 * k).min(n) {
                    break;
                }
                for &j in &members[l as usize] {
                    let distance = b.of(j as usize).map(|(l, w)| w * image[l]).sum::<f32>() - spread[j as usize];
                    insert(&mut best, (distance, j));
                }
                seen += members[l as usize].len();
            }
            let reach = (best[k - 1].0 - best[0].0).max(f32::MIN_POSITIVE);
            let weight = |d: f32| (-(d - best[0].0) / reach).exp();
            let sum: f32 = best.iter().map(|b| weight(b.0)).sum();
            for ((index, value), b) in indices.iter_mut().zip(values).zip(&best) {
                (*index, *value) = (b.1, weight(b.0) / sum);
            }
        },
    );
    Ok(Sparse { indptr: (0..=m).map(|i| i * k).collect(), indices, values, cols: n })
}

/// Into a list sorted by distance, then number.
fn insert(list: &mut [(f32, u32)], entry: (f32, u32)) {
    let before = |a: (f32, u32), b: (f32, u32)| a.0 < b.0 || (a.0 == b.0 && a.1 < b.1);
    let last = list.len() - 1;
    if !before(entry, list[last]) {
        return;
    }
    let mut at = last;
    while at > 0 && before(entry, list[at - 1]) {
        list[at] = list[at - 1];
        at -= 1;
    }
    list[at] = entry;
}

/// Weights ∝ 1/d² of a sorted list; 0 for what cannot be reached.
fn weigh(weights: &mut [f32], list: &[(f32, u32)]) {
    let nearest = f64::from(list[0].0);
    // Relative to the nearest, so that nothing overflows; at a landmark only it counts.
    let raw = |d: f32| if nearest > 0.0 { (nearest / f64::from(d)).powi(2) } else { 0.0 };
    let sum: f64 = list.iter().map(|e| raw(e.0)).sum();
    if nearest > 0.0 && sum > 0.0 {
        weights.iter_mut().zip(list).for_each(|(w, e)| *w = (raw(e.0) / sum) as f32);
    } else {
        weights.fill(0.0);
        weights[0] = 1.0;
    }
}

/// Each the farthest from those before, from `first` on; ties go to the earlier cell.
fn farthest(cells: Matrix<'_>, count: usize, first: usize) -> Vec<u32> {
    let mut to = vec![f64::INFINITY; cells.rows()];
    let mut marks = vec![first as u32];
    while marks.len() < count {
        let last = cells.row(*marks.last().expect("one at least") as usize);
        to.par_iter_mut().enumerate().for_each(|(i, d)| *d = d.min(Distance::Euclidean.comparable(cells.row(i), last)));
        // No cell twice, even where all others lie on landmarks.
        to[*marks.last().expect("one at least") as usize] = -1.0;
        let next = (0..to.len()).fold(0, |best, i| if to[i] > to[best] { i } else { best });
        marks.push(next as u32);
    }
    marks
}

#[cfg(test)]
mod tests;
