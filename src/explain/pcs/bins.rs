//! Which cells stand where along a principal component of a code.
//!
//!   scores     of a PCA fitted on training cells, centred; the sign of each component is that of the reference's nearest direction
//!   bin        11 of them, -5 .. 5: edges at the percentiles 100 k/11 of the training scores, the ends open
//!   centre     Σ_{j≠i} score_j², below its 15th percentile over the training cells: cells that differ along component i alone
//!   groups     low: bins -5, -4; mid: bin 0; high: bins 4, 5; other bins belong to none
//!
//! Percentiles are NumPy's, interpolated linearly. Test cells use the training cells' edges and threshold.

use crate::engine::linalg::dot;
use crate::metrics::Matrix;
use crate::metrics::pca::Pca;

/// Bins along a component.
pub const BINS: usize = 11;
/// The groups that are contrasted, by name.
pub const GROUPS: [&str; 3] = ["low", "mid", "high"];

/// The group of a bin (from 0), if it is in one.
pub fn group_of(bin: usize) -> Option<usize> {
    match bin {
        0 | 1 => Some(0),
        5 => Some(1),
        9 | 10 => Some(2),
        _ => None,
    }
}

/// The percentile `p` (0 to 1) of sorted values.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    sorted[below] + part * (sorted[(below + 1).min(sorted.len() - 1)] - sorted[below])
}

/// Scores [cells, components] of cells, and which of them the components were fitted on.
pub struct Scores {
    values: Vec<f64>,
    components: usize,
    training: Vec<u32>,
}

/// Where the cells stand along one component.
pub struct Standing {
    /// The bin of each cell, 0 .. 11; `None` for a cell off the centre of the other components.
    pub bins: Vec<Option<u8>>,
    /// Each cell's squared distance from the component's axis.
    pub off_axis: Vec<f64>,
}

impl Scores {
    /// Fits all components on the `training` rows of `codes`; their signs follow `reference`, where there is one. `None` if fewer than
    /// two cells differ.
    pub fn fit(codes: Matrix<'_>, training: Vec<u32>, reference: Option<&Pca>, seed: u64) -> Option<(Scores, Pca)> {
        let mut pca = Pca::fit(codes, &training, codes.cols(), seed)?;
        let d = codes.cols();
        if let Some(reference) = reference {
            // A component is the direction, its sign an accident: splits are added up, so theirs must agree.
            for (v, wanted) in pca.components.chunks_exact_mut(d).zip(reference.components.chunks_exact(d)) {
                if dot(v, wanted) < 0.0 {
                    v.iter_mut().for_each(|x| *x = -*x);
                }
            }
        }
        let (values, components) = (pca.scores(codes), pca.len());
        Some((Scores { values, components, training }, pca))
    }

    /// How many components there are.
    pub fn components(&self) -> usize {
        self.components
    }

    /// A cell's score.
    pub fn score(&self, cell: usize, component: usize) -> f64 {
        self.values[cell * self.components + component]
    }

    /// Where all cells stand along a component; `centre` is the share of the training cells that is kept.
    pub fn along(&self, component: usize, centre: f64) -> Standing {
        let of_training = |v: &[f64]| {
            let mut sorted: Vec<f64> = self.training.iter().map(|&c| v[c as usize]).collect();
            sorted.sort_by(f64::total_cmp);
            sorted
        };
        let scores: Vec<f64> = self.values.iter().skip(component).step_by(self.components).copied().collect();
        let sorted = of_training(&scores);
        let edges: Vec<f64> = (1..BINS).map(|k| percentile(&sorted, k as f64 / BINS as f64)).collect();
        let others = |row: &[f64]| row.iter().enumerate().filter(|(j, _)| *j != component).map(|(_, s)| s * s).sum::<f64>();
        let off_axis: Vec<f64> = self.values.chunks_exact(self.components).map(others).collect();
        // Of a code of one component every cell is on its axis.
        let within = if self.components == 1 { f64::INFINITY } else { percentile(&of_training(&off_axis), centre) };
        let place = |(&score, &off): (&f64, &f64)| (off < within).then(|| edges.iter().filter(|&&e| score > e).count() as u8);
        Standing { bins: scores.iter().zip(&off_axis).map(place).collect(), off_axis }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    fn codes(n: usize) -> Vec<f32> {
        let mut draw = Sequence::new(5, 1, 0);
        (0..n).flat_map(|_| [5.0, 2.0, 1.0].map(|sd| 3.0 + sd * draw.next_normal())).collect()
    }

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 4, 8], [0, 10, 50, 90, 100])
        let said = [0.0, 0.1, 0.5, 0.9, 1.0].map(|p| percentile(&[1.0, 2.0, 4.0, 8.0], p));
        assert!(said.iter().zip([1.0, 1.3, 3.0, 6.8, 8.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{said:?}");
    }

    #[test]
    fn bins_hold_equal_shares_of_the_training_cells_and_the_centre_its_share() {
        let x = codes(1100);
        let all = Matrix::new(&x, 1100, 3);
        let (scores, pca) = Scores::fit(all, all.all_rows(), None, 0).unwrap();
        assert_eq!((scores.components(), pca.len()), (3, 3));
        let everywhere = scores.along(0, 1.0);
        for bin in 0..BINS as u8 {
            let n = everywhere.bins.iter().filter(|b| **b == Some(bin)).count();
            assert!((99..=101).contains(&n), "bin {bin}: {n}");
        }
        let centre = scores.along(0, 0.15);
        let kept = centre.bins.iter().flatten().count();
        assert!((163..=166).contains(&kept), "{kept}");
        let farthest = |keep: bool| {
            let of = centre.bins.iter().zip(&centre.off_axis).filter(|(b, _)| b.is_some() == keep).map(|(_, d)| *d);
            if keep { of.fold(0.0, f64::max) } else { of.fold(f64::INFINITY, f64::min) }
        };
        assert!(farthest(true) < farthest(false));
        // Low bins are low scores.
        let mean = |bin: u8| {
            let of: Vec<f64> = (0..1100).filter(|&c| centre.bins[c] == Some(bin)).map(|c| scores.score(c, 0)).collect();
            of.iter().sum::<f64>() / of.len() as f64
        };
        assert!(mean(0) < mean(5) && mean(5) < mean(10));
        assert_eq!([0, 1, 2, 5, 9, 10].map(group_of), [Some(0), Some(0), None, Some(1), Some(2), Some(2)]);
    }

    #[test]
    fn signs_follow_the_reference_and_test_cells_the_training_cells() {
        let x = codes(300);
        let all = Matrix::new(&x, 300, 3);
        let (_, mut reference) = Scores::fit(all, all.all_rows(), None, 0).unwrap();
        reference.components[..3].iter_mut().for_each(|v| *v = -*v);
        let (scores, half) = Scores::fit(all, (0..150).collect(), Some(&reference), 0).unwrap();
        assert!(dot(&half.components[..3], &reference.components[..3]) > 0.9);
        let standing = scores.along(0, 1.0);
        let lowest = (0..300).min_by(|&a, &b| scores.score(a, 0).total_cmp(&scores.score(b, 0))).unwrap();
        assert_eq!(standing.bins[lowest], Some(0));
        assert!(Scores::fit(Matrix::new(&[1.0; 6], 2, 3), vec![0, 1], None, 0).is_none(), "cells that are all the same");
    }
}
