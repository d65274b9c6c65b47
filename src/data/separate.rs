//! Minibatches of cells that nobody has paired, with known pairs beside them, for adversarial models (cross-modal autoencoders).
//!
//! A minibatch is B cells of each modality, each modality shuffled by itself, then so many known pairs, drawn afresh without
//! replacement. An epoch is a pass over the largest modality, its last minibatch filled up from the beginning of the next pass; smaller
//! modalities are passed over again as often as that takes, shuffled anew each time. Or it is the whole minibatches that the smallest
//! modality has, and what is left over of every modality is dropped (sciCAN). Everything is a function of (seed, epoch).

use super::plan::Unit;
use super::shuffle::Shuffle;
use crate::engine::rng::Sequence;

const PASSES: u32 = 0x5E9A;
const ANCHORS: u32 = 0xA2C4;

/// The modality over which an epoch is a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOver {
    /// The one with most cells.
    Largest,
    /// The one with fewest.
    Smallest,
}

/// What is passed over, and how.
pub struct Separate {
    rows: Vec<Vec<u32>>,
    units: Vec<Unit>,
    batch: usize,
    steps: usize,
    anchors: usize,
    shuffle: bool,
}

impl Separate {
    /// For the rows of each modality and the units among them; `batch` is cut to the modality passed over, `anchors` to the units.
    pub fn new(rows: Vec<Vec<u32>>, units: Vec<Unit>, batch: usize, anchors: usize, shuffle: bool, over: PassOver) -> Separate {
        let cells = rows.iter().map(Vec::len);
        let of = if over == PassOver::Largest { cells.max() } else { cells.min() }.unwrap_or(0).max(1);
        let batch = batch.clamp(1, of);
        let steps = if over == PassOver::Largest { of.div_ceil(batch) } else { of / batch };
        Separate { batch, steps, anchors: anchors.min(units.len()), rows, units, shuffle }
    }

    /// Cells of a minibatch, known pairs beside them, and minibatches of an epoch.
    pub fn shape(&self) -> [usize; 3] {
        [self.batch, self.anchors, self.steps]
    }

    /// Lays out an epoch: slot by slot the rows of each modality, and the weights of each pair of modalities.
    pub fn lay_out(&self, by: Shuffle, seed: u64, epoch: u32, orders: &mut [Vec<u32>], weights: &mut [Vec<f32>]) {
        let k = self.rows.len();
        let mut drawn: Vec<u32> = Vec::with_capacity(self.steps * self.anchors);
        let mut draws = Sequence::new(seed, ANCHORS, epoch);
        let mut all: Vec<u32> = match by {
            Shuffle::Exact => (0..self.units.len() as u32).collect(),
            Shuffle::Block => by.permutation(self.units.len(), seed, ANCHORS, epoch),
        };
        for step in 0..self.steps {
            if by == Shuffle::Block {
                // One after the other, from the beginning again where they end.
                drawn.extend((0..self.anchors).map(|i| all[(step * self.anchors + i) % all.len()]));
                continue;
            }
            // The first of a partial shuffle; all of them in their order if all are wanted.
            for i in 0..if self.anchors < all.len() { self.anchors } else { 0 } {
                let j = i + draws.below(all.len() - i);
                all.swap(i, j);
            }
            drawn.extend(&all[..self.anchors]);
        }
        for (m, rows) in self.rows.iter().enumerate() {
            let stream = PASSES + ((m as u32) << 16);
            let passes = (self.steps * self.batch).div_ceil(rows.len().max(1)) as u32;
            let pass = |p: u32| match self.shuffle {
                true => by.permutation(rows.len(), seed, stream, epoch.wrapping_mul(passes).wrapping_add(p)),
                false => (0..rows.len() as u32).collect(),
            };
            let mut cells = (0..passes).flat_map(pass).map(|i| rows[i as usize]);
            orders[m].clear();
            for step in 0..self.steps {
                orders[m].extend(cells.by_ref().take(self.batch));
                // A pair that lacks this modality leaves its place to any cell, with weight 0.
                let place = |&u: &u32| self.units[u as usize].rows[m].unwrap_or(rows[u as usize % rows.len()]);
                orders[m].extend(drawn[step * self.anchors..(step + 1) * self.anchors].iter().map(place));
            }
        }
        let mut pair = 0;
        for i in 0..k {
            for j in i + 1..k {
                weights[pair].clear();
                for step in 0..self.steps {
                    weights[pair].extend(std::iter::repeat_n(0.0, self.batch));
                    weights[pair].extend(drawn[step * self.anchors..(step + 1) * self.anchors].iter().map(|&u| {
                        let unit = &self.units[u as usize];
                        if unit.rows[i].is_some() && unit.rows[j].is_some() { unit.confidence } else { 0.0 }
                    }));
                }
                pair += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_over_the_smallest_drops_what_is_left_over() {
        let s = Separate::new(vec![(0..11).collect(), (0..7).collect()], Vec::new(), 3, 0, true, PassOver::Smallest);
        assert_eq!(s.shape(), [3, 0, 2]);
        let (mut orders, mut weights) = (vec![Vec::new(); 2], vec![Vec::new(); 1]);
        s.lay_out(Shuffle::Exact, 1, 5, &mut orders, &mut weights);
        for order in &orders {
            let mut seen = order.clone();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!((order.len(), seen.len()), (6, 6), "no cell comes twice");
        }
    }

    #[test]
    fn an_epoch_sees_every_cell_of_the_largest_modality_and_pairs_beside_them() {
        let units: Vec<Unit> = (0..6).map(|i| Unit { rows: vec![Some(i), Some(6 - i)], confidence: 0.5 }).collect();
        let s = Separate::new(vec![(0..10).collect(), (0..7).collect()], units, 4, 3, true, PassOver::Largest);
        assert_eq!(s.shape(), [4, 3, 3]);
        let (mut orders, mut weights) = (vec![Vec::new(); 2], vec![Vec::new()]);
        s.lay_out(Shuffle::Exact, 1, 5, &mut orders, &mut weights);
        assert!(orders.iter().all(|o| o.len() == 21) && weights[0].len() == 21);
        let cells = |m: usize| (0..3).flat_map(|s| orders[m][7 * s..7 * s + 4].to_vec()).collect::<Vec<u32>>();
        let mut first = cells(0)[..10].to_vec();
        first.sort_unstable();
        assert_eq!(first, (0..10).collect::<Vec<_>>());
        let mut second = cells(1)[..7].to_vec();
        second.sort_unstable();
        assert_eq!(second, (0..7).collect::<Vec<_>>());
        for s in 0..3 {
            let mut seen = orders[0][7 * s + 4..7 * s + 7].to_vec();
            assert!((4..7).all(|i| orders[0][7 * s + i] + orders[1][7 * s + i] == 6 && weights[0][7 * s + i] == 0.5));
            assert!((0..4).all(|i| weights[0][7 * s + i] == 0.0));
            seen.sort_unstable();
            assert!(seen.windows(2).all(|w| w[0] != w[1]), "no pair twice");
        }
        let before = orders.clone();
        s.lay_out(Shuffle::Exact, 1, 6, &mut orders, &mut weights);
        assert_ne!(orders, before);
        s.lay_out(Shuffle::Exact, 1, 5, &mut orders, &mut weights);
        assert_eq!(orders, before);
    }

    #[test]
    fn without_shuffling_cells_keep_their_order_and_all_pairs_come_every_time() {
        let units: Vec<Unit> = (0..2).map(|i| Unit { rows: vec![Some(i), Some(i)], confidence: 1.0 }).collect();
        let s = Separate::new(vec![(0..4).collect(), (0..4).collect()], units, 2, 100, false, PassOver::Largest);
        let (mut orders, mut weights) = (vec![Vec::new(); 2], vec![Vec::new()]);
        s.lay_out(Shuffle::Exact, 1, 5, &mut orders, &mut weights);
        assert_eq!(orders[1], [0, 1, 0, 1, 2, 3, 0, 1]);
        assert_eq!(weights[0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    }
}
