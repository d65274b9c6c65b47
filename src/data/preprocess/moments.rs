//! Mean and deviation of every feature over many cells, in one pass.
//!
//! Cells are taken in blocks of fixed size. A block sums x - s and (x - s)^2 in f64, with s the feature's first value in the block;
//! blocks are merged in their order (Chan, Golub, LeVeque 1979). So the result does not depend on the number of threads, and a
//! constant feature has a deviation of exactly 0.

use rayon::prelude::*;

use crate::error::Result;

/// Cells of a block.
const BLOCK: usize = 256;

/// Count, mean and sum of squared deviations of each feature.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    count: Vec<u64>,
    mean: Vec<f64>,
    square: Vec<f64>,
}

/// The sums of one block.
pub(super) struct Block {
    count: Vec<u64>,
    shift: Vec<f32>,
    sum: Vec<f64>,
    square: Vec<f64>,
}

impl Block {
    fn new(features: usize) -> Block {
        Block { count: vec![0; features], shift: vec![0.0; features], sum: vec![0.0; features], square: vec![0.0; features] }
    }

    /// Adds a value unless it is missing.
    pub(super) fn add(&mut self, feature: usize, value: f32) {
        if value.is_nan() {
            return;
        }
        if self.count[feature] == 0 {
            self.shift[feature] = value;
        }
        let d = value as f64 - self.shift[feature] as f64;
        self.count[feature] += 1;
        self.sum[feature] += d;
        self.square[feature] += d * d;
    }
}

impl Moments {
    /// Goes through `rows`; `add` puts one row's values into a block.
    pub(super) fn over(features: usize, rows: &[u32], add: impl Fn(usize, &mut [f32], &mut Block) -> Result<()> + Sync) -> Result<Moments> {
        let mut moments = Moments { count: vec![0; features], mean: vec![0.0; features], square: vec![0.0; features] };
        let blocks: Vec<&[u32]> = rows.chunks(BLOCK).collect();
        // A wave of blocks at a time, so that memory grows with the threads and not with the cells.
        for wave in blocks.chunks(2 * rayon::current_num_threads()) {
            let sums: Result<Vec<Block>> = wave
                .par_iter()
                .map(|rows| {
                    let (mut block, mut values) = (Block::new(features), vec![0.0; features]);
                    for &row in *rows {
                        add(row as usize, &mut values, &mut block)?;
                    }
                    Ok(block)
                })
                .collect();
            for block in sums? {
                moments.merge(&block);
            }
        }
        Ok(moments)
    }

    fn merge(&mut self, block: &Block) {
        for f in 0..self.count.len() {
            if block.count[f] > 0 {
                let n = block.count[f] as f64;
                let mean = block.sum[f] / n;
                self.join(f, block.count[f], block.shift[f] as f64 + mean, (block.square[f] - mean * block.sum[f]).max(0.0));
            }
        }
    }

    /// Joins a group of values to what is known of a feature.
    fn join(&mut self, f: usize, count: u64, mean: f64, square: f64) {
        let (a, b) = (self.count[f] as f64, count as f64);
        let delta = mean - self.mean[f];
        self.square[f] += square + if a > 0.0 { delta * delta * a * b / (a + b) } else { 0.0 };
        self.mean[f] = if a > 0.0 { self.mean[f] + delta * b / (a + b) } else { mean };
        self.count[f] += count;
    }

    /// Adds the zeros that sparse rows do not store: `total` values of a feature less the `stored` ones, missing included.
    pub(super) fn add_zeros(&mut self, total: u64, stored: &[u64]) {
        for (f, &stored) in stored.iter().enumerate() {
            if total > stored {
                self.join(f, total - stored, 0.0, 0.0);
            }
        }
    }

    /// Joins what another group of cells has of its feature `from` to what is known of feature `to`.
    pub(super) fn join_feature(&mut self, to: usize, other: &Moments, from: usize) {
        if other.count[from] > 0 {
            self.join(to, other.count[from], other.mean[from], other.square[from]);
        }
    }

    /// Values of each feature that are not missing.
    pub(super) fn counts(&self) -> &[u64] {
        &self.count
    }

    /// Mean of each feature; 0 where every value is missing.
    pub(super) fn means(&self) -> Vec<f64> {
        self.mean.clone()
    }

    /// Sum of the squared deviations from the mean of each feature.
    pub(super) fn squares(&self) -> &[f64] {
        &self.square
    }

    /// Population deviation of each feature; 1 where it is 0 or unknown, so that it can divide.
    pub(super) fn deviations(&self) -> Vec<f64> {
        let sd = |(&square, &n): (&f64, &u64)| if n > 0 { (square / n as f64).sqrt() } else { 0.0 };
        self.square.iter().zip(&self.count).map(sd).map(|sd| if sd > 0.0 { sd } else { 1.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(columns: &[Vec<f32>]) -> Moments {
        let rows: Vec<u32> = (0..columns[0].len() as u32).collect();
        Moments::over(columns.len(), &rows, |row, _, block| {
            for (f, column) in columns.iter().enumerate() {
                block.add(f, column[row]);
            }
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn large_offsets_constants_and_missing_values_are_exact() {
        let n = 1000;
        let offset: Vec<f32> = (0..n).map(|i| 1e6 + (i % 2) as f32).collect();
        let constant = vec![0.1f32; n];
        let late: Vec<f32> = (0..n).map(|i| if i < 300 { f32::NAN } else { (i % 3) as f32 }).collect();
        let missing = vec![f32::NAN; n];
        let m = over(&[offset, constant, late, missing]);
        let (mean, sd) = (m.means(), m.deviations());
        assert_eq!((mean[0], sd[0]), (1e6 + 0.5, 0.5));
        assert_eq!((mean[1], sd[1]), (0.1f32 as f64, 1.0));
        let wanted: Vec<f64> = (300..n).map(|i| (i % 3) as f64).collect();
        let average = wanted.iter().sum::<f64>() / 700.0;
        let variance = wanted.iter().map(|x| (x - average).powi(2)).sum::<f64>() / 700.0;
        assert!((mean[2] - average).abs() < 1e-12 && (sd[2] - variance.sqrt()).abs() < 1e-12);
        assert_eq!((mean[3], sd[3]), (0.0, 1.0));
    }

    #[test]
    fn zeros_that_are_not_stored_count() {
        let mut m = over(&[vec![2.0, 4.0, f32::NAN]]);
        m.add_zeros(6, &[3]);
        assert!((m.means()[0] - 6.0 / 5.0).abs() < 1e-12);
        let variance = (4.0 + 16.0) / 5.0 - 1.44;
        assert!((m.deviations()[0] - f64::sqrt(variance)).abs() < 1e-12);
    }
}
