//! Silhouette (Rousseeuw 1987): for a cell, a = mean distance to the other cells of its cluster, b = least mean distance to another
//! cluster's cells, s = (b - a) / max(a, b); 0 for a cluster of one. The mean of s over the cells, from -1 to 1. Euclidean.
//!
//! Exact up to [`EXACT`] cells, with no cells x cells matrix; above that on a seeded sample of so many, which the result says.

use super::matrix::{Matrix, stream};
use super::neighbours::{Distance, Pool};
use crate::engine::rng::Sequence;
use rayon::prelude::*;

/// More cells than this are sampled.
pub const EXACT: usize = 20_000;

/// A silhouette and what it was computed on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Silhouette {
    /// The mean over cells.
    pub value: f64,
    /// How many cells were used.
    pub cells: usize,
    /// Whether they are a sample.
    pub sampled: bool,
}

/// The silhouette of `points` (rows of `cells`, cluster). `None` with fewer than two clusters, or nothing but clusters of one.
#[track_caller]
pub fn silhouette(cells: Matrix<'_>, points: &[(u32, u32)], seed: u64) -> Option<Silhouette> {
    silhouette_of_at_most(cells, points, seed, EXACT)
}

fn silhouette_of_at_most(cells: Matrix<'_>, points: &[(u32, u32)], seed: u64, most: usize) -> Option<Silhouette> {
    let mut points = points.to_vec();
    let sampled = points.len() > most;
    if sampled {
        Sequence::new(seed, stream::SILHOUETTE, 0).shuffle(&mut points);
        points.truncate(most);
    }
    // Cluster by cluster, so that a cluster is a range of the pool.
    points.sort_by_key(|p| (p.1, p.0));
    let mut ends = Vec::new();
    for (i, p) in points.iter().enumerate() {
        if points.get(i + 1).is_none_or(|next| next.1 != p.1) {
            ends.push(i + 1);
        }
    }
    if ends.len() < 2 || ends.len() == points.len() {
        return None;
    }
    let rows: Vec<u32> = points.iter().map(|p| p.0).collect();
    let pool = Pool::new(cells, &rows);
    let scores: Vec<f64> =
        (0..points.len()).into_par_iter().with_min_len(16).map(|i| score(cells.row(rows[i] as usize), i, &pool, &ends)).collect();
    Some(Silhouette { value: scores.iter().sum::<f64>() / points.len() as f64, cells: points.len(), sampled })
}

/// s of the cell at position `i` of the pool, whose clusters end at `ends`.
fn score(cell: &[f32], i: usize, pool: &Pool, ends: &[usize]) -> f64 {
    let mut sums = vec![0.0; ends.len()];
    let mut cluster = 0;
    pool.scan(Distance::Euclidean, cell, |first, distances| {
        for (j, d) in distances.iter().enumerate() {
            if first + j == ends[cluster] {
                cluster += 1;
            }
            sums[cluster] += d.sqrt();
        }
    });
    let (mut own, mut other) = (None, f64::INFINITY);
    let mut start = 0;
    for (&end, sum) in ends.iter().zip(sums) {
        let size = end - start;
        if (start..end).contains(&i) {
            own = (size > 1).then(|| sum / (size - 1) as f64);
        } else {
            other = other.min(sum / size as f64);
        }
        start = end;
    }
    match own {
        Some(own) if own.max(other) > 0.0 => (other - own) / own.max(other),
        _ => 0.0, // alone, or everything in one point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silhouette_matches_a_value_worked_out_by_hand() {
        // Points 0, 1 | 4, 6 | 10 alone. s: (0: a 1, b 5), (1: 1, 4), (4: 2, 3.5), (6: 2, 4), alone 0.
        let values = [0.0, 1.0, 4.0, 6.0, 10.0];
        let m = Matrix::new(&values, 5, 1);
        let got = silhouette(m, &[(0, 7), (1, 7), (2, 9), (3, 9), (4, 1)], 0).expect("three clusters");
        let want = (4.0 / 5.0 + 3.0 / 4.0 + 1.5 / 3.5 + 2.0 / 4.0 + 0.0) / 5.0;
        assert!((got.value - want).abs() < 1e-15 && !got.sampled && got.cells == 5);
    }

    #[test]
    fn silhouette_is_absent_without_two_clusters_of_which_one_is_a_group() {
        let values = [0.0, 1.0, 4.0];
        let m = Matrix::new(&values, 3, 1);
        assert_eq!(silhouette(m, &[], 0), None);
        assert_eq!(silhouette(m, &[(0, 0)], 0), None);
        assert_eq!(silhouette(m, &[(0, 0), (1, 0), (2, 0)], 0), None);
        assert_eq!(silhouette(m, &[(0, 0), (1, 1), (2, 2)], 0), None);
        let same = [1.0f32; 4];
        let s = silhouette(Matrix::new(&same, 4, 1), &[(0, 0), (1, 0), (2, 1), (3, 1)], 0);
        assert_eq!(s.map(|s| s.value), Some(0.0));
    }

    #[test]
    fn a_sample_is_near_the_whole_and_repeats() {
        let mut draws = Sequence::new(5, 0, 0);
        let values: Vec<f32> = (0..600).map(|i| (f64::from(draws.next_normal()) + 3.0 * f64::from(i % 2)) as f32).collect();
        let m = Matrix::new(&values, 600, 1);
        let points: Vec<(u32, u32)> = (0..600).map(|i| (i, i % 2)).collect();
        let whole = silhouette(m, &points, 4).expect("two clusters");
        let sample = silhouette_of_at_most(m, &points, 4, 300).expect("two clusters");
        assert!(sample.sampled && sample.cells == 300 && (sample.value - whole.value).abs() < 0.05);
        assert_eq!(Some(sample), silhouette_of_at_most(m, &points, 4, 300));
    }
}
