//! The kNN graph of a modality's cells and the shortest paths along it: what geodesic distances are made of.
//!
//!   edges    i-j if either is among the k nearest of the other by Euclidean distance, each cell being its own first neighbour
//!   grow     k = 5, 7, 9, ... while the graph is not connected and the caller allows another
//!   paths    Dijkstra, edges + n log n a source; paths are summed in f64
//!
//! Memory: 16 bytes a listed neighbour while the graph is made, then 32 an edge.

use crate::error::{Error, Result};
use crate::metrics::matrix::Matrix;
use crate::metrics::neighbours::{Distance, Neighbours, Pool};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The k of the first graph that is tried, each cell its own first neighbour.
pub const FIRST_K: usize = 5;
/// Neighbours are listed anew only for k beyond this: small lists cost as good as nothing beside the distances.
const FIRST_LISTED: usize = 17;

/// Cells whose neighbours are sought between two looks at the caller.
const QUERIES: usize = 4096;

/// A kNN graph, connected if that was to be had.
pub struct Graph {
    /// The edges.
    pub edges: Edges,
    /// Its k.
    pub k: usize,
    /// Into how many parts it falls.
    pub parts: usize,
}

impl Graph {
    /// The first connected graph of k = 5, 7, ...; or the last one, where `again` of its k says that no other is tried. No k beyond
    /// `largest` + 2 is asked for. `look` is told how many cells' neighbours are known, of how many, and may end it with an error.
    pub fn connected(
        cells: Matrix<'_>,
        largest: usize,
        again: impl Fn(usize) -> bool,
        mut look: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Graph> {
        let rows = cells.all_rows();
        let pool = Pool::new(cells, &rows);
        // Lists are sorted, so those of the largest k that may be tried begin with those of every smaller one.
        let mut listed = FIRST_LISTED.min(largest + 2).max(FIRST_K);
        let mut near = lists(&pool, cells, &rows, listed, &mut look)?;
        let mut k = FIRST_K;
        loop {
            let edges = Edges::new(cells, &near, k);
            let parts = edges.parts();
            if parts == 1 || !again(k) {
                return Ok(Graph { edges, k, parts });
            }
            k += 2;
            if k > listed {
                listed = largest + 2;
                near = lists(&pool, cells, &rows, listed, &mut look)?;
            }
        }
    }
}

/// All cells' k nearest, some thousands at a time.
fn lists(pool: &Pool, cells: Matrix<'_>, rows: &[u32], k: usize, look: &mut impl FnMut(usize, usize) -> Result<()>) -> Result<Neighbours> {
    let mut found: Option<Neighbours> = None;
    for (i, queries) in rows.chunks(QUERIES).enumerate() {
        look(i * QUERIES, rows.len())?;
        let near = pool.nearest(Distance::Euclidean, cells, queries, k);
        match &mut found {
            None => found = Some(near),
            Some(found) => found.append(near),
        }
    }
    found.ok_or_else(|| Error::usage("a graph needs cells"))
}

/// An undirected graph, each cell's edges side by side.
pub struct Edges {
    first: Vec<usize>,
    to: Vec<(u32, f64)>,
}

impl Edges {
    /// i-j is an edge if either lists the other among its k nearest, itself included; its length is their Euclidean distance.
    pub fn new(cells: Matrix<'_>, near: &Neighbours, k: usize) -> Edges {
        let n = cells.rows();
        // Both directions of each, doubles taken out.
        let others = |i: usize| near.of(i).filter(move |&j| j != i).take(k - 1);
        let mut pairs: Vec<(u32, u32)> =
            (0..n).flat_map(|i| others(i).flat_map(move |j| [(i as u32, j as u32), (j as u32, i as u32)])).collect();
        pairs.par_sort_unstable();
        pairs.dedup();
        let mut first = vec![0; n + 1];
        pairs.iter().for_each(|p| first[p.0 as usize + 1] += 1);
        (0..n).for_each(|i| first[i + 1] += first[i]);
        let length = |&(i, j): &(u32, u32)| {
            (j, Distance::Euclidean.of(Distance::Euclidean.comparable(cells.row(i as usize), cells.row(j as usize))))
        };
        Edges { first, to: pairs.par_iter().map(length).collect() }
    }

    /// The edges of a cell: the other cell and the length.
    pub fn of(&self, i: usize) -> &[(u32, f64)] {
        &self.to[self.first[i]..self.first[i + 1]]
    }

    /// Connected components.
    pub fn parts(&self) -> usize {
        let n = self.first.len() - 1;
        let (mut seen, mut open, mut parts) = (vec![false; n], Vec::new(), 0);
        for start in 0..n {
            if std::mem::replace(&mut seen[start], true) {
                continue;
            }
            parts += 1;
            open.push(start);
            while let Some(i) = open.pop() {
                for &(j, _) in self.of(i) {
                    if !std::mem::replace(&mut seen[j as usize], true) {
                        open.push(j as usize);
                    }
                }
            }
        }
        parts
    }
}

/// Dijkstra's method; the memory serves source after source.
pub struct Search {
    reached: Vec<f64>,
    /// Distances as their bits: of numbers that are not negative these have the same order.
    open: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Search {
    /// For a graph of n cells.
    pub fn new(n: usize) -> Search {
        Search { reached: vec![f64::INFINITY; n], open: BinaryHeap::with_capacity(n) }
    }

    /// Distances from the last source; infinite where no path leads.
    pub fn reached(&self) -> &[f64] {
        &self.reached
    }

    /// From one source to all cells.
    pub fn run(&mut self, edges: &Edges, source: usize) {
        self.reached.fill(f64::INFINITY);
        self.reached[source] = 0.0;
        self.open.push(Reverse((0, source as u32)));
        while let Some(Reverse((bits, i))) = self.open.pop() {
            let d = f64::from_bits(bits);
            if d > self.reached[i as usize] {
                continue; // reached by a shorter path since
            }
            for &(j, length) in edges.of(i as usize) {
                let through = d + length;
                if through < self.reached[j as usize] {
                    self.reached[j as usize] = through;
                    self.open.push(Reverse((through.to_bits(), j)));
                }
            }
        }
    }
}
