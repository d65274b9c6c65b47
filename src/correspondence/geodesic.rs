//! Distances between the cells of one modality: along its kNN graph, as UnionCom and JAMIE take them, or plain.
//!
//!   geodesic      the k nearest cells of each by Euclidean distance, the cell itself being the first (k = 5: four others); i-j is an
//!                 edge if either lists the other; while the graph is not connected and k ≤ max(kmax, 0.01 cells), k grows by 2;
//!                 then shortest paths between all, and twice the largest finite distance where there is no path
//!   euclidean     |x - y|
//!   cosine        1 - x·y / (|x| |y|)
//!   correlation   1 - r, r the Pearson correlation of the two cells over the features
//!   pearson       (1 - r) / 2
//!   spearman      (1 - ρ) / 2, ρ the Pearson correlation of the ranks, ties sharing their mean rank
//!   shapes        cells [n, p] → [n, n], f32; diagonal 0
//!
//! The last four are |x̂ - ŷ|² / 2 (or / 4) of unit vectors, which has no cancellation for close cells. A cell without direction (all zero, or
//! constant where the mean is taken out) counts as orthogonal to every other.
//!
//! The original runs Floyd-Warshall, n³. Here Dijkstra starts from every cell, n·(edges + n log n), the sources over the cores;
//! paths are summed in f64 and rounded once. Exact kNN is n² p operations, twice at most. Memory: 4 n² bytes and n a core.
//! Source: Cao et al., Bioinformatics 36 (2020) i48-i56, and its program.

use super::graph::{Graph, Search};
use crate::error::{Error, Result};
use crate::metrics::matrix::Matrix;
use crate::metrics::neighbours::{Distance, Pool};
use rayon::prelude::*;

/// The largest k after which another is still tried, where cells are fewer than 100 times it.
pub const KMAX: usize = 40;

/// How far apart two cells of a modality are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Metric {
    /// Along the kNN graph.
    #[default]
    Geodesic,
    /// The root of the sum of squared differences.
    Euclidean,
    /// 1 less the cosine.
    Cosine,
    /// 1 less the Pearson correlation.
    Correlation,
    /// The same, halved.
    Pearson,
    /// 1 less the Spearman correlation, halved.
    Spearman,
}

impl Metric {
    /// All, with the names they go by on a command line.
    pub const NAMES: [(&'static str, Metric); 6] = [
        ("geodesic", Metric::Geodesic),
        ("euclidean", Metric::Euclidean),
        ("cosine", Metric::Cosine),
        ("correlation", Metric::Correlation),
        ("pearson", Metric::Pearson),
        ("spearman", Metric::Spearman),
    ];

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Metric> {
        Metric::NAMES.iter().find(|n| n.0 == name).map(|n| n.1)
    }
}

/// A table of distances and the graph it came from.
#[derive(Clone, Debug)]
pub struct Geodesic {
    /// [n, n].
    pub table: Vec<f32>,
    /// The k of the graph.
    pub k: usize,
    /// Into how many parts it falls.
    pub parts: usize,
}

/// The distances between all cells, [n, n]. `kmax` is for the geodesic ones, [`KMAX`] by default.
pub fn distances(cells: Matrix<'_>, metric: Metric, kmax: usize) -> Result<Vec<f32>> {
    let halves = |unit: Vec<f32>, by: f64| {
        let cos = Matrix::new(&unit, cells.rows(), cells.cols());
        let has_direction: Vec<bool> = (0..cells.rows()).map(|i| cos.row(i).iter().any(|&v| v != 0.0)).collect();
        pairwise(cos, |i, j, square| if has_direction[i] && has_direction[j] { square / 2.0 / by } else { 1.0 / by })
    };
    check(cells)?;
    Ok(match metric {
        Metric::Geodesic => return Ok(geodesic(cells, kmax)?.table),
        Metric::Euclidean => pairwise(cells, |_, _, square| square.sqrt()),
        Metric::Cosine => halves(directions(cells, |row, out| out.extend(row.iter().map(|&v| f64::from(v)))), 1.0),
        Metric::Correlation => halves(directions(cells, centred), 1.0),
        Metric::Pearson => halves(directions(cells, centred), 2.0),
        Metric::Spearman => halves(
            directions(cells, |row, out| {
                ranks(row, out);
                take_mean_out(out);
            }),
            2.0,
        ),
    })
}

/// The distances along the kNN graph, with the graph's k and number of parts.
pub fn geodesic(cells: Matrix<'_>, kmax: usize) -> Result<Geodesic> {
    check(cells)?;
    let n = cells.rows();
    let Graph { edges, k, parts } = Graph::connected(cells, kmax.max(n.div_ceil(100)), |k| k <= kmax || 100 * k <= n, |_, _| Ok(()))?;
    let mut table = vec![0.0f32; n * n];
    let largest = table
        .par_chunks_exact_mut(n)
        .enumerate()
        .map_init(
            || Search::new(n),
            |search, (source, row)| {
                search.run(&edges, source);
                let finite = search.reached().iter().filter(|d| d.is_finite());
                let largest = finite.fold(0.0f64, |m, &d| m.max(d));
                row.iter_mut().zip(search.reached()).for_each(|(y, &d)| *y = d as f32);
                largest
            },
        )
        .reduce(|| 0.0, f64::max);
    if parts > 1 {
        let unreachable = (2.0 * largest) as f32;
        table.par_iter_mut().filter(|d| d.is_infinite()).for_each(|d| *d = unreachable);
    }
    Ok(Geodesic { table, k, parts })
}

pub(super) fn check(cells: Matrix<'_>) -> Result<()> {
    if cells.rows() == 0 || cells.cols() == 0 {
        return Err(Error::usage(format!("distances need cells and features, this modality has {} x {}", cells.rows(), cells.cols())));
    }
    if let Some(at) = cells.values().iter().position(|v| !v.is_finite()) {
        let (row, col) = (at / cells.cols(), at % cells.cols());
        return Err(Error::usage(format!("distances need finite values: cell {row}, feature {col} is {}", cells.values()[at])));
    }
    Ok(())
}

/// f(i, j, squared Euclidean distance) for all pairs of different cells.
fn pairwise(cells: Matrix<'_>, f: impl Fn(usize, usize, f64) -> f64 + Sync) -> Vec<f32> {
    let n = cells.rows();
    let pool = Pool::new(cells, &cells.all_rows());
    let mut table = vec![0.0f32; n * n];
    table.par_chunks_exact_mut(n).enumerate().for_each(|(i, row)| {
        pool.scan(Distance::Euclidean, cells.row(i), |first, squares| {
            for (j, (y, &square)) in (first..).zip(row[first..].iter_mut().zip(squares)) {
                *y = if i == j { 0.0 } else { f(i, j, square) as f32 };
            }
        });
    });
    table
}

/// Each cell as `of` makes it, scaled to length 1; zeros where there is no direction.
fn directions(cells: Matrix<'_>, of: impl Fn(&[f32], &mut Vec<f64>) + Sync) -> Vec<f32> {
    let mut out = vec![0.0f32; cells.values().len()];
    out.par_chunks_exact_mut(cells.cols()).enumerate().for_each_init(Vec::new, |made, (i, out)| {
        made.clear();
        of(cells.row(i), made);
        let norm = made.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 0.0 {
            out.iter_mut().zip(made.iter()).for_each(|(y, v)| *y = (v / norm) as f32);
        }
    });
    out
}

fn centred(row: &[f32], out: &mut Vec<f64>) {
    out.extend(row.iter().map(|&v| f64::from(v)));
    take_mean_out(out);
}

fn take_mean_out(x: &mut [f64]) {
    let largest = x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter_mut().for_each(|v| *v -= mean);
    // What is left of a constant cell is rounding, and no direction.
    if x.iter().all(|v| v.abs() <= 1e-12 * largest) {
        x.fill(0.0);
    }
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(row: &[f32], out: &mut Vec<f64>) {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    // -0 and 0 are equal, which total_cmp would not say.
    order.sort_by(|&a, &b| row[a as usize].partial_cmp(&row[b as usize]).unwrap_or(std::cmp::Ordering::Equal));
    out.resize(row.len(), 0.0);
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| row[a as usize] == row[b as usize]) {
        let rank = first as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&i| out[i as usize] = rank);
        first += equal.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correspondence::fixture;
    use crate::engine::ops::testing::values;

    #[test]
    fn the_originals_geodesic_table_comes_out() {
        let Some(folder) = fixture::folder() else { return };
        let (cells, [n, p]) = fixture::table(&folder.join("solver-fixture/domain2.npy"));
        let (want, _) = fixture::table(&folder.join("solver-fixture/geodesic2.npy"));
        let cells: Vec<f32> = cells.iter().map(|&v| v as f32).collect();
        let got = geodesic(Matrix::new(&cells, n, p), KMAX).unwrap();
        assert_eq!((got.k, got.parts), (7, 1));
        // In f64 throughout the two agree to 3e-12. Values rounded to f32 on the way in alone give 2.2e-7 at the worst pair, the shortest
        // of all; with the rounding of the result, NumPy and SciPy on the same rounded values give 2.389e-7, and so do we.
        let worst = got.table.iter().zip(&want).filter(|w| *w.1 > 0.0).map(|(&g, w)| (f64::from(g) - w).abs() / w).fold(0.0, f64::max);
        println!("largest relative difference {worst:e}");
        assert!(worst < 3e-7, "relative difference {worst:e}");
        assert!((0..n).all(|i| got.table[i * n + i] == 0.0));
    }

    #[test]
    fn paths_match_floyd_and_warshall() {
        let (n, p) = (90, 3);
        let cells = values(n * p, 1);
        let m = Matrix::new(&cells, n, p);
        let got = geodesic(m, KMAX).unwrap();
        let near = Pool::new(m, &m.all_rows()).nearest(Distance::Euclidean, m, &m.all_rows(), got.k);
        let mut d = vec![f64::INFINITY; n * n];
        for i in 0..n {
            for j in near.of(i) {
                let length = m.row(i).iter().zip(m.row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
                (d[i * n + j], d[j * n + i]) = (length, length);
            }
        }
        for k in 0..n {
            for e in 0..n * n {
                d[e] = d[e].min(d[e / n * n + k] + d[k * n + e % n]);
            }
        }
        got.table.iter().zip(&d).for_each(|(&g, &d)| assert!((f64::from(g) - d).abs() <= 1e-6 * d, "{g} for {d}"));
    }

    #[test]
    fn cells_that_no_path_reaches_are_twice_the_largest_distance_away() {
        // Two lines of 60 cells a long way apart: no k up to 42 joins them.
        let cells: Vec<f32> = (0..120).map(|i| if i < 60 { i as f32 } else { 1e4 + i as f32 }).collect();
        let g = geodesic(Matrix::new(&cells, 120, 1), KMAX).unwrap();
        // 41 ≤ ... the test comes before the increment: 39 is tried again as 41, and 41 is the last.
        assert_eq!((g.k, g.parts), (41, 2));
        assert_eq!((g.table[59], g.table[60], g.table[60 * 120], g.table[119 * 120 + 60]), (59.0, 118.0, 118.0, 59.0));
        // With a larger kmax the two meet, and the way between them has its length.
        let g = geodesic(Matrix::new(&cells, 120, 1), 80).unwrap();
        assert_eq!((g.parts, g.table[60]), (1, 10060.0));
        // Cells all alike are at no distance; a cell alone is itself.
        assert_eq!(geodesic(Matrix::new(&[1.0; 30], 30, 1), KMAX).unwrap().table, vec![0.0; 900]);
        assert_eq!(geodesic(Matrix::new(&[1.0; 3], 1, 3), KMAX).unwrap().table, [0.0]);
    }

    #[test]
    fn plain_metrics_match_their_formulas() {
        let (n, p) = (140, 11);
        let mut cells: Vec<f32> = values(n * p, 5).iter().map(|v| (8.0 * v).round() / 4.0 + 0.3).collect(); // ties
        cells[2 * p..3 * p].fill(1.7);
        cells[3 * p..4 * p].fill(0.0);
        let m = Matrix::new(&cells, n, p);
        let wide = |i: usize| m.row(i).iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let centre = |x: Vec<f64>| {
            let mean = x.iter().sum::<f64>() / p as f64;
            x.iter().map(|v| v - mean).collect::<Vec<_>>()
        };
        let rank = |x: Vec<f64>| {
            let below = |v: &f64| x.iter().filter(|w| *w < v).count() as f64 + (x.iter().filter(|w| *w == v).count() + 1) as f64 / 2.0;
            x.iter().map(below).collect::<Vec<_>>()
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = |a: &[f64], b: &[f64]| {
            let both = (dot(a, a) * dot(b, b)).sqrt();
            if both < 1e-9 { 0.0 } else { dot(a, b) / both }
        };
        for (name, metric) in Metric::NAMES.into_iter().skip(1) {
            assert_eq!(Metric::from_name(name), Some(metric));
            let got = distances(m, metric, KMAX).unwrap();
            for i in 0..n {
                for j in 0..n {
                    let (x, y) = (wide(i), wide(j));
                    let want = match metric {
                        _ if i == j => 0.0,
                        Metric::Geodesic => unreachable!("skipped"),
                        Metric::Euclidean => x.iter().zip(&y).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
                        Metric::Cosine => 1.0 - cosine(&x, &y),
                        Metric::Correlation => 1.0 - cosine(&centre(x), &centre(y)),
                        Metric::Pearson => (1.0 - cosine(&centre(x), &centre(y))) / 2.0,
                        Metric::Spearman => (1.0 - cosine(&centre(rank(x)), &centre(rank(y)))) / 2.0,
                    };
                    let got = f64::from(got[i * n + j]);
                    assert!((got - want).abs() <= 2e-7 * want.max(1.0), "{name} of {i}, {j}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn values_that_are_no_numbers_are_named() {
        let e = distances(Matrix::new(&[1.0, 2.0, f32::NAN, 4.0], 2, 2), Metric::Cosine, KMAX).unwrap_err();
        assert_eq!(e.to_string(), "distances need finite values: cell 1, feature 0 is NaN");
        assert!(geodesic(Matrix::new(&[], 0, 2), KMAX).is_err());
    }

    #[test]
    fn threads_change_no_bit() {
        let cells = values(150 * 4, 8);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Metric::NAMES.map(|(_, metric)| distances(Matrix::new(&cells, 150, 4), metric, KMAX).unwrap()))
        };
        assert_eq!(run(1), run(3));
    }
}
