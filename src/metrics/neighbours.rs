//! Exact distances from cells to a pool of cells, a block at a time: nothing of size cells x cells is ever held.
//!
//! The pool is stored in blocks of [`BLOCK`] cells, dimension by dimension, so that the loop over a block vectorises however few
//! latent dimensions there are. Distances are f64 sums over the dimensions in ascending order: d(x, y) and d(y, x) have the same
//! bits, so "strictly closer" and ties mean what they say.

use super::matrix::Matrix;
use crate::device::vector::vectorised;
use rayon::prelude::*;

/// Cells of the pool whose distances are computed together.
pub const BLOCK: usize = 128;
/// Query cells that a task takes.
const QUERIES: usize = 32;

/// A distance. Euclidean distances are compared squared; [`Distance::of`] takes the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// The square root of the sum of squared differences.
    Euclidean,
    /// The sum of absolute differences (city block).
    L1,
}

impl Distance {
    /// The comparable distance of one pair, with the bits that [`Pool::scan`] gives it.
    pub fn comparable(self, x: &[f32], y: &[f32]) -> f64 {
        let differences = x.iter().zip(y).map(|(&x, &y)| f64::from(x) - f64::from(y));
        let d = differences.fold(0.0, |sum, d| sum + if self == Distance::L1 { d.abs() } else { d * d });
        if d.is_nan() { f64::INFINITY } else { d }
    }

    /// The distance whose comparable value is `d`.
    pub fn of(self, d: f64) -> f64 {
        if self == Distance::Euclidean { d.sqrt() } else { d }
    }
}

/// Cells among which neighbours are sought, in the order they were given.
pub struct Pool {
    blocks: Vec<f64>, // [blocks, cols, BLOCK]
    len: usize,
    cols: usize,
}

impl Pool {
    /// The cells `rows` of `cells`.
    pub fn new(cells: Matrix<'_>, rows: &[u32]) -> Pool {
        let cols = cells.cols();
        let mut blocks = vec![0.0; rows.len().div_ceil(BLOCK) * cols * BLOCK];
        for (i, &r) in rows.iter().enumerate() {
            for (d, &v) in cells.row(r as usize).iter().enumerate() {
                blocks[(i / BLOCK * cols + d) * BLOCK + i % BLOCK] = f64::from(v);
            }
        }
        Pool { blocks, len: rows.len(), cols }
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `f(position in the pool of the first, comparable distances)` for each block of cells, in order.
    /// A distance that is not a number becomes infinite.
    #[track_caller]
    pub fn scan(&self, distance: Distance, query: &[f32], mut f: impl FnMut(usize, &[f64])) {
        assert_eq!(query.len(), self.cols, "the query and the pool have different numbers of dimensions");
        let mut sums = [0.0f64; BLOCK];
        for first in (0..self.len).step_by(BLOCK) {
            sums.fill(0.0);
            let block = &self.blocks[first * self.cols..][..self.cols * BLOCK];
            // Four dimensions a pass over the sums, added one after another: the order of a plain loop at half its memory traffic.
            // Wider vectors change no bit: products and sums are not contracted.
            vectorised(
                #[inline(always)]
                || {
                    for (x, lines) in query.chunks(4).zip(block.chunks(4 * BLOCK)) {
                        match distance {
                            Distance::Euclidean => add_dimensions(&mut sums, x, lines, |d| d * d),
                            Distance::L1 => add_dimensions(&mut sums, x, lines, f64::abs),
                        }
                    }
                },
            );
            sums.iter_mut().filter(|s| s.is_nan()).for_each(|s| *s = f64::INFINITY);
            f(first, &sums[..BLOCK.min(self.len - first)]);
        }
    }

    /// The k nearest cells of each query (fewer if the pool is smaller), nearest first, ties by position in the pool.
    pub fn nearest(&self, distance: Distance, cells: Matrix<'_>, queries: &[u32], k: usize) -> Neighbours {
        let k = k.min(self.len);
        let mut found = vec![(f64::INFINITY, 0u32); k * queries.len()];
        if k > 0 {
            found.par_chunks_mut(k * QUERIES).zip(queries.par_chunks(QUERIES)).for_each(|(lists, queries)| {
                for (list, &q) in lists.chunks_exact_mut(k).zip(queries) {
                    let mut held = 0;
                    self.scan(distance, cells.row(q as usize), |first, distances| {
                        for (j, &d) in distances.iter().enumerate() {
                            if held < k || d < list[k - 1].0 {
                                // Insertion keeps the list sorted; after equal distances, so the earlier cell stays ahead.
                                let mut at = if held < k { held } else { k - 1 };
                                held = (held + 1).min(k);
                                while at > 0 && list[at - 1].0 > d {
                                    list[at] = list[at - 1];
                                    at -= 1;
                                }
                                list[at] = (d, (first + j) as u32);
                            }
                        }
                    });
                }
            });
        }
        Neighbours { k, found, distance }
    }
}

/// sums[j] += Σ_d f(x[d] - lines[d][j]), up to four dimensions d in ascending order.
#[inline(always)]
fn add_dimensions(sums: &mut [f64; BLOCK], x: &[f32], lines: &[f64], f: impl Fn(f64) -> f64) {
    if let &[a, b, c, d] = x {
        let (a, b, c, d) = (f64::from(a), f64::from(b), f64::from(c), f64::from(d));
        let (la, rest) = lines.split_at(BLOCK);
        let (lb, rest) = rest.split_at(BLOCK);
        let (lc, ld) = rest.split_at(BLOCK);
        for ((((s, la), lb), lc), ld) in sums.iter_mut().zip(la).zip(lb).zip(lc).zip(ld) {
            *s = (((*s + f(a - la)) + f(b - lb)) + f(c - lc)) + f(d - ld);
        }
    } else {
        for (&x, line) in x.iter().zip(lines.chunks_exact(BLOCK)) {
            let x = f64::from(x);
            sums.iter_mut().zip(line).for_each(|(s, y)| *s += f(x - y));
        }
    }
}

/// The neighbours of some cells.
pub struct Neighbours {
    k: usize,
    found: Vec<(f64, u32)>,
    distance: Distance,
}

impl Neighbours {
    /// The lists of more queries, behind these. Both are of one pool and one k.
    #[track_caller]
    pub fn append(&mut self, more: Neighbours) {
        assert_eq!((self.k, self.distance), (more.k, more.distance), "neighbours of different searches");
        self.found.extend_from_slice(&more.found);
    }

    /// Positions in the pool of query i's neighbours, nearest first.
    pub fn of(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        self.found[i * self.k..(i + 1) * self.k].iter().map(|n| n.1 as usize)
    }

    /// Distance of query i's nearest neighbour; `None` if the pool was empty.
    pub fn nearest_distance(&self, i: usize) -> Option<f64> {
        if self.k == 0 { None } else { self.found.get(i * self.k).map(|n| self.distance.of(n.0)) }
    }
}

/// Which of the labels with the most votes wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// The smallest label.
    Smallest,
    /// The label of the nearest cell among the tied ones.
    Nearest,
}

/// A k-nearest-neighbours classifier.
pub struct Classifier {
    pool: Pool,
    labels: Vec<u32>,
    k: usize,
    distance: Distance,
    ties: Ties,
}

impl Classifier {
    /// Learns from `rows` of `cells`; rows without a label are left out.
    pub fn new(cells: Matrix<'_>, rows: &[u32], labels: &[Option<u32>], k: usize, distance: Distance, ties: Ties) -> Classifier {
        let known: Vec<(u32, u32)> = rows.iter().filter_map(|&r| labels[r as usize].map(|l| (r, l))).collect();
        let rows: Vec<u32> = known.iter().map(|k| k.0).collect();
        Classifier { pool: Pool::new(cells, &rows), labels: known.iter().map(|k| k.1).collect(), k, distance, ties }
    }

    /// The fraction of `rows` of `cells` given their own label; rows without one are left out. `None` if nothing can be said.
    pub fn accuracy(&self, cells: Matrix<'_>, rows: &[u32], labels: &[Option<u32>]) -> Option<f64> {
        let known: Vec<(u32, u32)> = rows.iter().filter_map(|&r| labels[r as usize].map(|l| (r, l))).collect();
        if known.is_empty() || self.pool.is_empty() {
            return None;
        }
        let rows: Vec<u32> = known.iter().map(|k| k.0).collect();
        let near = self.pool.nearest(self.distance, cells, &rows, self.k);
        let right = known.iter().enumerate().filter(|(i, (_, label))| self.vote(&near, *i) == *label).count();
        Some(right as f64 / known.len() as f64)
    }

    fn vote(&self, near: &Neighbours, i: usize) -> u32 {
        let mut votes: Vec<(u32, usize)> = Vec::with_capacity(self.k); // in order of the nearest cell of each label
        for label in near.of(i).map(|p| self.labels[p]) {
            match votes.iter_mut().find(|v| v.0 == label) {
                Some(v) => v.1 += 1,
                None => votes.push((label, 1)),
            }
        }
        let most = votes.iter().map(|v| v.1).max().unwrap_or(0);
        let mut tied = votes.iter().filter(|v| v.1 == most).map(|v| v.0);
        match self.ties {
            Ties::Nearest => tied.next(),
            Ties::Smallest => tied.min(),
        }
        .expect("the pool is not empty")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn nearest_sorts_by_distance_then_position() {
        let cells = [0.0, 0.0, 3.0, 4.0, 0.0, 1.0, 0.0, -1.0, 10.0, 10.0];
        let m = Matrix::new(&cells, 5, 2);
        let n = Pool::new(m, &[1, 2, 3, 4]).nearest(Distance::Euclidean, m, &[0], 3);
        assert_eq!(n.of(0).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(n.nearest_distance(0), Some(1.0));
        let n = Pool::new(m, &[1]).nearest(Distance::L1, m, &[0], 3);
        assert_eq!((n.of(0).count(), n.nearest_distance(0)), (1, Some(7.0)));
        assert_eq!(Pool::new(m, &[]).nearest(Distance::L1, m, &[0], 3).nearest_distance(0), None);
    }

    #[test]
    fn nearest_agrees_with_a_full_sort_past_a_block() {
        let mut draws = Sequence::new(3, 0, 0);
        let (n, d) = (300, 5);
        let values: Vec<f32> = (0..n * d).map(|_| (8.0 * draws.next_f64()).floor() as f32).collect(); // many ties
        let m = Matrix::new(&values, n, d);
        for distance in [Distance::Euclidean, Distance::L1] {
            let near = Pool::new(m, &m.all_rows()).nearest(distance, m, &m.all_rows(), 17);
            for i in 0..n {
                let to = |j: usize| -> f64 {
                    let differences = m.row(i).iter().zip(m.row(j)).map(|(x, y)| f64::from(x - y));
                    differences.map(|v| if distance == Distance::L1 { v.abs() } else { v * v }).sum()
                };
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&a, &b| to(a).total_cmp(&to(b)));
                assert_eq!(near.of(i).collect::<Vec<_>>(), order[..17]);
            }
        }
    }

    #[test]
    fn one_pair_and_a_scan_agree_to_the_bit() {
        let mut draws = Sequence::new(9, 0, 0);
        let values: Vec<f32> = (0..131 * 7).map(|_| f64::from(draws.next_normal()) as f32).collect();
        let m = Matrix::new(&values, 131, 7);
        for distance in [Distance::Euclidean, Distance::L1] {
            Pool::new(m, &m.all_rows()).scan(distance, m.row(5), |first, d| {
                d.iter().enumerate().for_each(|(j, d)| assert_eq!(d.to_bits(), distance.comparable(m.row(5), m.row(first + j)).to_bits()));
            });
        }
    }

    #[test]
    fn classifier_breaks_ties_as_asked() {
        // From 0: label 2 at 1, label 1 at 2, label 1 at 3, label 2 at 4.
        let cells = [0.0, 1.0, 2.0, 3.0, 4.0];
        let m = Matrix::new(&cells, 5, 1);
        let labels = [Some(1), Some(2), Some(1), Some(1), Some(2)];
        let accuracy = |ties| Classifier::new(m, &[1, 2, 3, 4], &labels, 4, Distance::L1, ties).accuracy(m, &[0], &labels);
        assert_eq!(accuracy(Ties::Smallest), Some(1.0));
        assert_eq!(accuracy(Ties::Nearest), Some(0.0));
        assert_eq!(Classifier::new(m, &[], &labels, 4, Distance::L1, Ties::Nearest).accuracy(m, &[0], &labels), None);
    }
}
