//! Which rows meet in which minibatch.
//!
//! An epoch is a list of *slots*; slot r holds one row of every modality, so that a minibatch is B consecutive slots and every
//! modality's part of it has exactly B rows. A *unit* (rows of two or more modalities known to be the same cell) fills the slot of
//! its modalities; where it lacks a modality, and in slots beyond the units, rows without a partner are placed, each once an epoch;
//! what is then still empty gets a row drawn again from that modality. A pair of modalities counts in a slot with the confidence of
//! the unit that holds both, else with weight 0: such rows are seen by reconstruction and by every statistic of the minibatch, never
//! by the coupling.
//!
//! With [`Shuffle::Block`] slots and rows without a partner pass by in blocks of neighbours, so that a slow disk can follow.
//! The order is a function of (seed, epoch) alone. Slots beyond a whole number of minibatches are left out of that epoch; the next
//! one shuffles anew.

use super::draws::Draws;
use super::separate::{PassOver, Separate};
use super::shuffle::Shuffle;
use crate::engine::rng;

const SLOTS: u32 = 0x5107;
const SINGLES: u32 = 0x5116;
const AGAIN: u32 = 0xA6A1;

/// Rows of two or more modalities that are the same cell: a row number for each modality or none, and a confidence in (0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// One entry a modality.
    pub rows: Vec<Option<u32>>,
    /// How sure the pairing is.
    pub confidence: f32,
}

/// The epochs of a run.
pub struct Plan {
    seed: u64,
    batch: usize,
    slots: usize,
    /// All rows of a modality.
    rows: Vec<Vec<u32>>,
    /// Rows of a modality that are in no unit.
    singles: Vec<Vec<u32>>,
    units: Vec<Unit>,
    /// The epoch's rows, by modality, then slot.
    orders: Vec<Vec<u32>>,
    /// The epoch's weights, by pair of modalities (0,1), (0,2), .. (1,2), .., then slot.
    weights: Vec<Vec<f32>>,
    layout: Layout,
    by: Shuffle,
}

/// How an epoch comes about.
enum Layout {
    /// Slots in a shuffled order.
    Passes,
    /// Slots in one shuffled order for all epochs, each going on where the last one ended.
    Onwards,
    /// Minibatches drawn afresh.
    Draws(Draws),
    /// Each modality by itself, with known pairs beside.
    Separate(Separate),
}

impl Plan {
    /// For the rows of each modality and the units among them; `batch` is cut to the number of slots.
    pub fn new(seed: u64, batch: usize, rows: Vec<Vec<u32>>, units: Vec<Unit>) -> Plan {
        let k = rows.len();
        let mut singles = Vec::with_capacity(k);
        let mut slots = units.len();
        for (m, all) in rows.iter().enumerate() {
            let mut paired: Vec<u32> = units.iter().filter_map(|u| u.rows[m]).collect();
            let room = units.len() - paired.len();
            paired.sort_unstable();
            let alone: Vec<u32> = all.iter().copied().filter(|r| paired.binary_search(r).is_err()).collect();
            slots = slots.max(units.len() + alone.len().saturating_sub(room));
            singles.push(alone);
        }
        let batch = batch.clamp(1, slots.max(1));
        let pairs = k * k.saturating_sub(1) / 2;
        Plan {
            seed,
            batch,
            slots,
            rows,
            singles,
            units,
            orders: vec![Vec::new(); k],
            weights: vec![Vec::new(); pairs],
            layout: Layout::Passes,
            by: Shuffle::Exact,
        }
    }

    /// The same, shuffled so.
    pub fn shuffled(mut self, by: Shuffle) -> Plan {
        self.by = by;
        self
    }

    /// As [`Plan::new`], with minibatches drawn afresh: each slot is a known pair with probability `pair_fraction`.
    pub fn drawn(seed: u64, batch: usize, rows: Vec<Vec<u32>>, units: Vec<Unit>, pair_fraction: f64) -> Plan {
        let draws = Draws::new(rows.clone(), units.clone(), pair_fraction);
        let (batch, steps) = draws.shape(batch);
        let mut plan = Plan::new(seed, batch, rows, units);
        (plan.batch, plan.slots, plan.layout) = (batch, batch * steps, Layout::Draws(draws));
        plan
    }

    /// As [`Plan::new`], with each modality passed over by itself and `anchors` known pairs at the end of every minibatch.
    pub fn separate(seed: u64, batch: usize, rows: Vec<Vec<u32>>, units: Vec<Unit>, anchors: usize, shuffle: bool, over: PassOver) -> Plan {
        let separate = Separate::new(rows.clone(), units.clone(), batch, anchors, shuffle, over);
        let [batch, anchors, steps] = separate.shape();
        let mut plan = Plan::new(seed, batch, rows, units);
        (plan.batch, plan.slots, plan.layout) = (batch + anchors, (batch + anchors) * steps, Layout::Separate(separate));
        plan
    }

    /// As [`Plan::new`], of the cells alone that all modalities have; without `reshuffle` all epochs go through one order, round and round.
    pub fn complete(seed: u64, batch: usize, mut units: Vec<Unit>, reshuffle: bool) -> Plan {
        units.retain(|u| u.rows.iter().all(Option::is_some));
        units.iter_mut().for_each(|u| u.confidence = 1.0);
        let k = units.first().map_or(0, |u| u.rows.len());
        let rows = (0..k).map(|m| units.iter().filter_map(|u| u.rows[m]).collect()).collect();
        let mut plan = Plan::new(seed, batch, rows, units);
        if !reshuffle {
            plan.layout = Layout::Onwards;
        }
        plan
    }

    /// How many of a minibatch's slots, at its end, are known pairs beside the cells.
    pub fn anchors(&self) -> usize {
        match &self.layout {
            Layout::Separate(s) => s.shape()[1],
            _ => 0,
        }
    }

    /// Slots of a minibatch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Minibatches of an epoch.
    pub fn steps(&self) -> usize {
        self.slots / self.batch
    }

    /// Slots of an epoch, those beyond the last whole minibatch included.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Whether every slot pairs every modality with confidence 1: weights need not be looked at.
    pub fn fully_paired(&self) -> bool {
        match &self.layout {
            Layout::Draws(draws) => return draws.fully_paired(),
            Layout::Separate(_) => return false,
            Layout::Passes | Layout::Onwards => {}
        }
        self.units.len() == self.slots && self.units.iter().all(|u| u.confidence == 1.0 && u.rows.iter().all(Option::is_some))
    }

    /// Lays out the epoch.
    pub fn shuffle(&mut self, epoch: u32) {
        if let Layout::Separate(separate) = &self.layout {
            separate.lay_out(self.by, self.seed, epoch, &mut self.orders, &mut self.weights);
            return;
        }
        if let Layout::Draws(draws) = &self.layout {
            self.orders.iter_mut().for_each(Vec::clear);
            self.weights.iter_mut().for_each(Vec::clear);
            let steps = self.steps() as u32;
            (0..steps).for_each(|s| {
                draws.append(self.by, self.seed, epoch.wrapping_mul(steps).wrapping_add(s), self.batch, &mut self.orders, &mut self.weights)
            });
            return;
        }
        // One order for all epochs, which begin where the one before ended; or an order an epoch.
        let onwards = matches!(self.layout, Layout::Onwards);
        let done = if onwards { (epoch.max(1) - 1) as usize * self.steps() * self.batch } else { 0 };
        let epoch = if onwards { 0 } else { epoch };
        let mut order = self.by.permutation(self.slots, self.seed, SLOTS, epoch);
        order.rotate_left(done % self.slots.max(1));
        match self.by {
            Shuffle::Exact => self.lay_out(&order, Some(epoch)),
            Shuffle::Block => self.lay_out_blocks(&order, epoch),
        }
    }

    /// As [`Plan::lay_out`], but that rows without a partner are placed as the slots pass by, so that those of neighbours meet neighbours.
    fn lay_out_blocks(&mut self, order: &[u32], epoch: u32) {
        for m in 0..self.rows.len() {
            let (singles, again) = (SINGLES + ((m as u32) << 16), AGAIN + ((m as u32) << 16));
            let mut alone = self.by.permutation(self.singles[m].len(), self.seed, singles, epoch).into_iter();
            let more = self.by.permutation(self.rows[m].len(), self.seed, again, epoch);
            let mut more = more.iter().cycle();
            let row = |&slot: &u32| {
                let own = self.units.get(slot as usize).and_then(|u| u.rows[m]);
                own.or_else(|| alone.next().map(|i| self.singles[m][i as usize]))
                    .or_else(|| more.next().map(|&i| self.rows[m][i as usize]))
                    .unwrap_or(0)
            };
            self.orders[m].clear();
            self.orders[m].extend(order.iter().map(row));
        }
        self.weigh(order);
    }

    /// Lays out the rows in their own order, for evaluation.
    pub fn in_order(&mut self) {
        let order: Vec<u32> = (0..self.slots as u32).collect();
        self.lay_out(&order, None);
    }

    fn lay_out(&mut self, order: &[u32], epoch: Option<u32>) {
        let k = self.rows.len();
        for m in 0..k {
            // One stream a modality: its singles do not depend on which other modalities there are.
            let (singles, again) = (SINGLES + ((m as u32) << 16), AGAIN + ((m as u32) << 16));
            let mut alone: Vec<u32> = match epoch {
                Some(e) => {
                    rng::permutation(self.singles[m].len(), self.seed, singles, e).iter().map(|&i| self.singles[m][i as usize]).collect()
                }
                None => self.singles[m].clone(),
            };
            alone.reverse(); // taken from the end
            let mut fill = epoch.map(|e| rng::Sequence::new(self.seed, again, e));
            let mut next = 0;
            let slot_rows: Vec<u32> = (0..self.slots)
                .map(|slot| {
                    let own = self.units.get(slot).and_then(|u| u.rows[m]).or_else(|| alone.pop());
                    own.unwrap_or_else(|| {
                        let all = &self.rows[m];
                        let at = match &mut fill {
                            Some(f) => f.below(all.len()),
                            None => next % all.len(),
                        };
                        next += 1;
                        all[at]
                    })
                })
                .collect();
            self.orders[m].clear();
            self.orders[m].extend(order.iter().map(|&slot| slot_rows[slot as usize]));
        }
        self.weigh(order);
    }

    /// The weights of the pairs of modalities in this order of the slots.
    fn weigh(&mut self, order: &[u32]) {
        let (k, mut pair) = (self.rows.len(), 0);
        for i in 0..k {
            for j in i + 1..k {
                self.weights[pair].clear();
                self.weights[pair].extend(order.iter().map(|&slot| match self.units.get(slot as usize) {
                    Some(u) if u.rows[i].is_some() && u.rows[j].is_some() => u.confidence,
                    _ => 0.0,
                }));
                pair += 1;
            }
        }
    }

    /// The epoch's rows of a modality, slot by slot.
    pub fn order(&self, modality: usize) -> &[u32] {
        &self.orders[modality]
    }

    /// The epoch's weights of the `pair`-th pair of modalities, slot by slot.
    pub fn weights(&self, pair: usize) -> &[f32] {
        &self.weights[pair]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(rows: &[Option<u32>]) -> Unit {
        Unit { rows: rows.to_vec(), confidence: 1.0 }
    }

    #[test]
    fn a_fully_paired_epoch_visits_every_cell_once_with_its_partner() {
        let n = 37;
        let units = (0..n).map(|i| unit(&[Some(i), Some(n - 1 - i)])).collect();
        let mut plan = Plan::new(5, 10, vec![(0..n).collect(), (0..n).collect()], units);
        assert!(plan.fully_paired());
        assert_eq!((plan.steps(), plan.slots()), (3, 37));
        plan.shuffle(1);
        let first = plan.order(0).to_vec();
        assert!(plan.order(0).iter().zip(plan.order(1)).all(|(a, b)| a + b == n - 1));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        plan.shuffle(2);
        assert_ne!(plan.order(0), first, "another epoch, another order");
        plan.shuffle(1);
        assert_eq!(plan.order(0), first, "the same epoch, the same order");
    }

    #[test]
    fn cells_without_a_partner_are_seen_once_and_never_paired() {
        // 3 units of modalities 0 and 1; 0 has 4 more cells, 1 has 2 more, 2 has 5 cells of which one is in a unit with 0.
        let mut units: Vec<Unit> = (0..3).map(|i| unit(&[Some(i), Some(i), None])).collect();
        units.push(unit(&[Some(3), None, Some(0)]));
        let mut plan = Plan::new(0, 4, vec![(0..8).collect(), (0..5).collect(), (0..5).collect()], units);
        assert!(!plan.fully_paired());
        plan.shuffle(9);
        for m in 0..3 {
            let mut seen = plan.order(m).to_vec();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), [8, 5, 5][m], "every cell of modality {m}");
        }
        for slot in 0..plan.slots() {
            let (a, b, c) = (plan.order(0)[slot], plan.order(1)[slot], plan.order(2)[slot]);
            assert_eq!(plan.weights(0)[slot], if a < 3 && a == b { 1.0 } else { 0.0 });
            assert_eq!(plan.weights(1)[slot], if a == 3 && c == 0 { 1.0 } else { 0.0 });
            assert_eq!(plan.weights(2)[slot], 0.0);
        }
    }

    #[test]
    fn only_complete_cells_take_part_and_one_order_is_gone_through_round_and_round() {
        let mut units: Vec<Unit> = (0..10).map(|i| unit(&[Some(i), Some(9 - i)])).collect();
        units.push(unit(&[Some(10), None]));
        let mut plan = Plan::complete(3, 4, units.clone(), false);
        assert!(plan.fully_paired());
        assert_eq!((plan.slots(), plan.steps()), (10, 2));
        let mut seen = Vec::new();
        for epoch in 1..=5 {
            plan.shuffle(epoch);
            assert!(plan.order(0).iter().zip(plan.order(1)).all(|(a, b)| a + b == 9));
            seen.extend_from_slice(&plan.order(0)[..8]);
        }
        assert!((10..40).all(|i| seen[i] == seen[i - 10]), "one order, over and over: {seen:?}");
        let mut sorted = seen[..10].to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        let mut anew = Plan::complete(3, 4, units, true);
        anew.shuffle(1);
        let first = anew.order(0).to_vec();
        anew.shuffle(2);
        assert_ne!(anew.order(0), first);
        assert_eq!(Plan::complete(3, 4, vec![unit(&[Some(1), None])], true).slots(), 0);
    }

    #[test]
    fn no_pairs_at_all_still_makes_an_epoch() {
        let mut plan = Plan::new(1, 100, vec![(0..3).collect(), (0..7).collect()], Vec::new());
        plan.in_order();
        assert_eq!((plan.slots(), plan.batch(), plan.steps()), (7, 7, 1));
        assert_eq!(plan.order(0), [0, 1, 2, 0, 1, 2, 0]);
        assert!(plan.weights(0).iter().all(|&w| w == 0.0));
    }

    #[test]
    fn by_blocks_every_cell_comes_once_too_and_a_minibatch_reads_few_places() {
        let n = 40_000u32;
        let units: Vec<Unit> = (0..20_000).map(|i| unit(&[Some(i), Some(i)])).collect();
        let mut plan = Plan::new(4, 500, vec![(0..n).collect(), (0..n - 5000).collect()], units).shuffled(Shuffle::Block);
        plan.shuffle(3);
        let first = [plan.order(0).to_vec(), plan.order(1).to_vec()];
        for (m, cells) in [(0, n), (1, n - 5000)] {
            let mut seen = first[m].clone();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!((first[m].len(), seen.len()), (n as usize, cells as usize));
            // Of all 157 stretches of 256 rows the two windows of units and of others touch about 64 each, and one more where they meet.
            let mut places: Vec<u32> = first[m][..500].iter().map(|r| r / 256).collect();
            places.sort_unstable();
            places.dedup();
            assert!(places.len() < 140, "{}", places.len());
        }
        for ((&a, &b), &weight) in first[0].iter().zip(&first[1]).zip(plan.weights(0)) {
            assert_eq!(weight, if a < 20_000 && a == b { 1.0 } else { 0.0 });
        }
        plan.shuffle(4);
        assert_ne!(plan.order(0), first[0]);
        plan.shuffle(3);
        assert_eq!(plan.order(0), first[0]);
    }
}
