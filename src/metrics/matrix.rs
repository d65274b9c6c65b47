//! What every metric takes: a borrowed row-major matrix of f32, cells x features or cells x latent; and a seeded sequence of draws.

use crate::engine::rng::philox;

/// A borrowed row-major matrix: one row a cell.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// `values` is [rows, cols].
    #[track_caller]
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols, "a matrix of {rows} cells x {cols} features");
        Matrix { values, rows, cols }
    }

    /// Number of cells.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of features or latent dimensions.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// One cell.
    #[track_caller]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.cols..(i + 1) * self.cols]
    }

    /// Row numbers 0, 1, ... as the functions that take a subset want them.
    pub fn all_rows(&self) -> Vec<u32> {
        (0..self.rows as u32).collect()
    }

    /// A copy of some rows, in the order given.
    pub fn gather(&self, rows: &[u32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(rows.len() * self.cols);
        rows.iter().for_each(|&r| out.extend_from_slice(self.row(r as usize)));
        out
    }
}

/// A sequence of random numbers fixed by (seed, stream): Philox words in order.
pub(super) struct Draws {
    key: [u32; 2],
    stream: u32,
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Draws {
    /// `stream` keeps the draws of one purpose apart from those of another under the same seed.
    pub(super) fn new(seed: u64, stream: u32) -> Draws {
        Draws { key: [seed as u32, (seed >> 32) as u32], stream, block: 0, words: [0; 4], used: 4 }
    }

    fn word(&mut self) -> u32 {
        if self.used == 4 {
            // Training draws with a counter whose second word is 0; this one's is the marker of the metrics.
            self.words = philox([self.block as u32, 0x6d65_7472, (self.block >> 32) as u32, self.stream], self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform on [0, 1), 53 bits.
    pub(super) fn uniform(&mut self) -> f64 {
        let high = u64::from(self.word()) << 21;
        (high ^ (u64::from(self.word()) >> 11)) as f64 / (1u64 << 53) as f64
    }

    /// Uniform on 0..n.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// Standard normal (Box-Muller; one of the pair is dropped).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Fisher-Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_by_seed_and_differ_by_stream() {
        let take = |seed, stream| {
            let mut d = Draws::new(seed, stream);
            (0..5).map(|_| d.uniform()).collect::<Vec<_>>()
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
    }

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let mut d = Draws::new(0, 0);
        let n = 20_000;
        let u: f64 = (0..n).map(|_| d.uniform()).sum::<f64>() / f64::from(n);
        assert!((u - 0.5).abs() < 5.0 * (1.0f64 / 12.0 / f64::from(n)).sqrt());
        let z: Vec<f64> = (0..n).map(|_| d.normal()).collect();
        let square: f64 = z.iter().map(|z| z * z).sum::<f64>() / f64::from(n);
        assert!((square - 1.0).abs() < 5.0 * (2.0f64 / f64::from(n)).sqrt());
        let mut items: Vec<usize> = (0..100).collect();
        d.shuffle(&mut items);
        let mut sorted = items.clone();
        sorted.sort_unstable();
        assert!(items != sorted && sorted == (0..100).collect::<Vec<_>>());
    }
}
