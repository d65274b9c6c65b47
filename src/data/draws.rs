//! Minibatches drawn afresh, for models that do not pass over their cells in order (JAMIE).
//!
//! A minibatch of B holds some known pairs, as many as B trials of a given probability give, and otherwise cells of each modality
//! drawn each by itself. Nothing is drawn twice within a minibatch as long as a modality has B cells. Two rows that are known to be
//! the same cell stand in the same slot, also where they met by chance, so that the correspondence of a minibatch is a weight a slot. (Of
//! three modalities or more some that met by chance may find no slot in common; their pair then counts with weight 0.)
//! Where every cell is paired, a minibatch is B cells seen in all modalities. By blocks, some minibatches in a row draw from the same
//! blocks of neighbours, pairs and each modality's cells by themselves. Everything is a function of (seed, minibatch).

use super::plan::Unit;
use super::shuffle::Shuffle;
use crate::engine::rng::Sequence;

const DRAWS: u32 = 0xD4A3;
const WINDOWS: u32 = 0xD4B1;
const NONE: u32 = u32::MAX;

/// What is drawn from, and how.
pub struct Draws {
    /// All rows of a modality.
    rows: Vec<Vec<u32>>,
    units: Vec<Unit>,
    /// The unit of a modality's row, by position in `rows`.
    unit_of: Vec<Vec<u32>>,
    /// The position in `rows` of a unit's row of a modality.
    place: Vec<Vec<u32>>,
    /// Probability that a slot holds a known pair.
    pair_fraction: f64,
    fully: bool,
}

impl Draws {
    /// For the rows of each modality and the units among them.
    pub fn new(rows: Vec<Vec<u32>>, units: Vec<Unit>, pair_fraction: f64) -> Draws {
        let place: Vec<Vec<u32>> = (0..rows.len())
            .map(|m| {
                // By the row's number: a search a unit would take the square of an atlas's cells.
                let mut places = vec![NONE; rows[m].iter().max().map_or(0, |r| *r as usize + 1)];
                (0..).zip(&rows[m]).for_each(|(place, &row)| places[row as usize] = place);
                let find = |row: u32| places.get(row as usize).copied().unwrap_or(NONE);
                units.iter().map(|u| u.rows[m].map_or(NONE, find)).collect()
            })
            .collect();
        let unit_of = (0..rows.len())
            .map(|m| {
                let mut of = vec![NONE; rows[m].len()];
                place[m].iter().enumerate().filter(|(_, p)| **p != NONE).for_each(|(u, &p)| of[p as usize] = u as u32);
                of
            })
            .collect();
        let whole = |u: &Unit| u.confidence == 1.0 && u.rows.iter().all(Option::is_some);
        let fully = rows.iter().all(|r| r.len() == units.len()) && units.iter().all(whole);
        Draws { rows, units, unit_of, place, pair_fraction, fully }
    }

    /// Whether every minibatch is cells seen in all modalities.
    pub fn fully_paired(&self) -> bool {
        self.fully
    }

    /// Cells of a minibatch of at most `batch`, and how many there are in an epoch.
    pub fn shape(&self, batch: usize) -> (usize, usize) {
        let most = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let batch = batch.clamp(1, most);
        (batch, (most / batch).max(1))
    }

    /// Appends minibatch `number` of `batch` slots to the modalities' orders and the pairs' weights.
    pub fn append(&self, by: Shuffle, seed: u64, number: u32, batch: usize, orders: &mut [Vec<u32>], weights: &mut [Vec<f32>]) {
        let mut draws = Sequence::new(seed, DRAWS, number);
        let wanted = if self.fully { batch } else { (0..batch).filter(|_| draws.next_f64() < self.pair_fraction).count() };
        let wanted = wanted.min(self.units.len());
        let window = |n: usize, stream: u32| (by == Shuffle::Block).then(|| Shuffle::window(n, batch, seed, stream, number));
        let pairs = match window(self.units.len(), WINDOWS) {
            None => sample(&mut draws, self.units.len(), wanted, &[]),
            Some(near) => sample(&mut draws, near.len(), wanted, &[]).into_iter().map(|i| near[i as usize]).collect(),
        };
        // Positions in `rows`, slot by slot.
        let mut slots: Vec<Vec<u32>> = Vec::with_capacity(self.rows.len());
        for (m, all) in self.rows.iter().enumerate() {
            let mut own: Vec<u32> = pairs.iter().map(|&u| self.place[m][u as usize]).collect();
            let mut taken: Vec<u32> = own.iter().copied().filter(|&p| p != NONE).collect();
            let missing = batch - taken.len();
            taken.sort_unstable();
            let near = window(all.len(), WINDOWS + ((m as u32 + 1) << 16)).filter(|_| missing > 0);
            // Those of the window that the pairs left.
            let near = near.map(|near| near.into_iter().filter(|p| taken.binary_search(p).is_err()).collect::<Vec<u32>>());
            let rest = if let Some(near) = near.filter(|near| near.len() >= missing) {
                sample(&mut draws, near.len(), missing, &[]).into_iter().map(|i| near[i as usize]).collect()
            } else if all.len() >= batch {
                sample(&mut draws, all.len(), missing, &taken)
            } else {
                (0..missing).map(|_| draws.below(all.len()) as u32).collect()
            };
            let mut rest = rest.into_iter();
            own.iter_mut().filter(|p| **p == NONE).for_each(|p| *p = rest.next().unwrap_or(0));
            own.extend(rest);
            slots.push(own);
        }
        self.align(&pairs, &mut slots);
        for ((order, slots), all) in orders.iter_mut().zip(&slots).zip(&self.rows) {
            order.extend(slots.iter().map(|&p| all[p as usize]));
        }
        let k = self.rows.len();
        let mut pair = 0;
        for i in 0..k {
            for j in i + 1..k {
                weights[pair].extend((0..batch).map(|s| {
                    let [a, b] = [i, j].map(|m| self.unit_of[m][slots[m][s] as usize]);
                    if a == b && a != NONE { self.units[a as usize].confidence } else { 0.0 }
                }));
                pair += 1;
            }
        }
    }

    /// Rows that were drawn by themselves and happen to be one cell move into one slot.
    fn align(&self, pairs: &[u32], slots: &mut [Vec<u32>]) {
        if self.fully || slots.is_empty() {
            return;
        }
        let len = slots[0].len();
        let unit = |m: usize, slots: &[u32], s: usize| self.unit_of[m][slots[s] as usize];
        // A modality's slots that no drawn pair fills.
        let free = |m: usize, s: usize| pairs.get(s).is_none_or(|&u| self.place[m][u as usize] == NONE);
        // Cells that two modalities or more have drawn, and which ones, a bit each.
        let mut drawn: Vec<(u32, u32)> = Vec::new();
        for (m, own) in slots.iter().enumerate() {
            drawn.extend((0..len).filter(|&s| free(m, s)).map(|s| (unit(m, own, s), 1 << m)).filter(|(u, _)| *u != NONE));
        }
        drawn.sort_unstable();
        let cells = drawn.chunk_by(|a, b| a.0 == b.0).map(|of_one| (of_one[0].0, of_one.iter().fold(0, |all, (_, m)| all | m)));
        let met: Vec<(u32, u32)> = cells.filter(|(_, who): &(u32, u32)| who.count_ones() > 1).collect();
        let find = |unit: u32| met.binary_search_by_key(&unit, |(u, _)| *u).ok();
        // Their slots, found by the first modality that has them; which modalities' rows of a slot are kept for a cell.
        let mut slot_of = vec![usize::MAX; met.len()];
        let filled = |s: usize| (0..slots.len()).filter(|&m| !free(m, s)).fold(0, |all, m| all | 1 << m);
        let mut kept: Vec<u32> = (0..len).map(filled).collect();
        // By modalities, before which slot all are kept.
        let mut full: Vec<(u32, usize)> = Vec::new();
        for (m, own) in slots.iter_mut().enumerate() {
            let mut s = 0;
            while s < len {
                let here = unit(m, own, s);
                match find(here).map(|at| slot_of[at]) {
                    Some(t) if free(m, s) && t != usize::MAX && t != s && unit(m, own, t) != here => own.swap(s, t),
                    _ => s += 1,
                }
            }
            let mut s = 0;
            while s < len {
                let at = find(unit(m, own, s)).filter(|at| free(m, s) && slot_of[*at] == usize::MAX);
                let to = at.and_then(|at| {
                    let who = met[at].1;
                    let known = full.iter().position(|f| f.0 == who).unwrap_or_else(|| {
                        full.push((who, 0));
                        full.len() - 1
                    });
                    // In place if it can be: beyond the pairs' slots all of a cell's modalities are often free.
                    let to = if kept[s] & who == 0 { s } else { (full[known].1..len).find(|t| kept[*t] & who == 0)? };
                    if to != s {
                        full[known].1 = to;
                    }
                    (slot_of[at], kept[to]) = (to, kept[to] | who);
                    Some(to)
                });
                match to {
                    Some(to) if to != s => own.swap(s, to),
                    _ => s += 1,
                }
            }
        }
    }
}

/// `count` different numbers below `n`, none of which is in `taken` (sorted): Floyd's method on what is left.
fn sample(draws: &mut Sequence, n: usize, count: usize, taken: &[u32]) -> Vec<u32> {
    let left = n - taken.len();
    let mut chosen: Vec<u32> = Vec::with_capacity(count);
    let mut sorted: Vec<u32> = Vec::with_capacity(count);
    for top in left - count..left {
        let drawn = draws.below(top + 1) as u32;
        let pick = if sorted.binary_search(&drawn).is_ok() { top as u32 } else { drawn };
        sorted.insert(sorted.binary_search(&pick).unwrap_or_else(|at| at), pick);
        chosen.push(pick);
    }
    draws.shuffle(&mut chosen);
    if taken.is_empty() {
        return chosen;
    }
    // The i-th number that is not taken: as many taken ones lie before it as are below it, which grows with it.
    let nth = |i: u32| {
        let mut at = i;
        loop {
            let below = taken.partition_point(|&t| t <= at) as u32;
            if i + below == at {
                return at;
            }
            at = i + below;
        }
    };
    chosen.into_iter().map(nth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(a: u32, b: u32) -> Unit {
        Unit { rows: vec![Some(a), Some(b)], confidence: 1.0 }
    }

    fn minibatch(d: &Draws, number: u32, batch: usize) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
        let (mut orders, mut weights) = (vec![Vec::new(); 2], vec![Vec::new()]);
        d.append(Shuffle::Exact, 3, number, batch, &mut orders, &mut weights);
        let (a, b) = (orders.remove(0), orders.remove(0));
        (a, b, weights.remove(0))
    }

    fn distinct(rows: &[u32]) -> bool {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.windows(2).all(|w| w[0] != w[1])
    }

    #[test]
    fn fully_paired_minibatches_are_the_same_cells_once_each() {
        let d = Draws::new(vec![(0..50).collect(); 2], (0..50).map(|i| unit(i, 49 - i)).collect(), 0.8);
        assert_eq!(d.shape(20), (20, 2));
        let (a, b, w) = minibatch(&d, 1, 20);
        assert!(distinct(&a) && a.iter().zip(&b).all(|(a, b)| a + b == 49) && w.iter().all(|&w| w == 1.0));
        assert_ne!(a, minibatch(&d, 2, 20).0);
        assert_eq!(a, minibatch(&d, 1, 20).0);
    }

    #[test]
    fn rows_that_are_one_cell_share_a_slot_however_they_came_in() {
        // 40 and 60 rows, 30 pairs: with all cells of the first drawn, every partner that is drawn must stand beside its cell.
        let units: Vec<Unit> = (0..30).map(|i| unit(i, 59 - i)).collect();
        let d = Draws::new(vec![(0..40).collect(), (0..60).collect()], units, 0.3);
        for number in 0..20 {
            let (a, b, w) = minibatch(&d, number, 40);
            assert!(distinct(&a) && distinct(&b), "nothing is drawn twice");
            for (s, &row) in a.iter().enumerate() {
                let partner = (row < 30).then_some(59 - row);
                let drawn = partner.and_then(|p| b.iter().position(|&b| b == p));
                assert_eq!(w[s], if drawn.is_some() { 1.0 } else { 0.0 }, "minibatch {number}, slot {s}");
                assert!(drawn.is_none_or(|at| at == s), "minibatch {number}: the partner of slot {s} is in slot {drawn:?}");
            }
        }
    }

    #[test]
    fn of_three_modalities_cells_that_met_share_a_slot_whichever_two_have_them() {
        // Rows 0..20 are cells of the first two, 20..40 of the last two, 40..60 of the first and the last, 60..70 of all; 70..80 are alone.
        let has = |u: u32, m: u32| match u / 20 {
            0 => m != 2,
            1 => m != 0,
            2 => m != 1,
            _ => true,
        };
        let unit = |u: u32| Unit { rows: (0..3).map(|m| has(u, m).then_some(79 - u)).collect(), confidence: 1.0 };
        let d = Draws::new(vec![(0..80).collect(); 3], (0..70).map(unit).collect(), 0.2);
        let (mut met, mut apart) = (0, 0);
        for number in 0..40 {
            let (mut orders, mut weights) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
            d.append(Shuffle::Exact, 3, number, 40, &mut orders, &mut weights);
            assert!(orders.iter().all(|o| distinct(o)));
            for (pair, (i, j)) in [(0, 1), (0, 2), (1, 2)].into_iter().enumerate() {
                for (s, &row) in orders[i].iter().enumerate() {
                    let u = 79 - row;
                    let known = u < 70 && has(u, i as u32) && has(u, j as u32);
                    let beside = orders[j][s] == row;
                    assert_eq!(weights[pair][s], if known && beside { 1.0 } else { 0.0 }, "minibatch {number}, slot {s} of {i} and {j}");
                    let there = known && orders[j].contains(&row);
                    met += usize::from(there);
                    apart += usize::from(there && !beside);
                }
            }
        }
        // Those for which no slot was left, and those that a drawn pair's slot holds by itself.
        assert!(met > 1000 && apart * 50 < met, "{apart} of {met}");
    }

    #[test]
    fn cells_of_two_modalities_share_slots_with_cells_of_two_others() {
        // Two experiments of 50 cells each: rows of a cell are the cell's number.
        let unit = |u: u32| Unit { rows: (0..4).map(|m| (m / 2 == u / 50).then_some(u % 50)).collect(), confidence: 1.0 };
        let d = Draws::new(vec![(0..50).collect(); 4], (0..100).map(unit).collect(), 0.5);
        for number in 0..20 {
            // All cells of all modalities: every pair meets, and must find a slot.
            let (mut orders, mut weights) = (vec![Vec::new(); 4], vec![Vec::new(); 6]);
            d.append(Shuffle::Exact, 3, number, 50, &mut orders, &mut weights);
            assert!(orders.iter().all(|o| distinct(o)));
            assert!(weights[0].iter().chain(&weights[5]).all(|&w| w == 1.0) && weights[1..5].iter().flatten().all(|&w| w == 0.0));
        }
    }

    #[test]
    fn a_modality_with_fewer_cells_is_drawn_with_replacement_and_none_known_gives_no_weight() {
        let d = Draws::new(vec![(0..5).collect(), (0..30).collect()], Vec::new(), 0.8);
        assert_eq!(d.shape(512), (30, 1));
        let (a, b, w) = minibatch(&d, 0, 30);
        assert!(a.iter().all(|&r| r < 5) && distinct(&b) && w.iter().all(|&w| w == 0.0));
    }

    #[test]
    fn a_sample_avoids_what_is_taken() {
        let mut draws = Sequence::new(1, 2, 3);
        let all = sample(&mut draws, 10, 6, &[0, 3, 4, 9]);
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 5, 6, 7, 8]);
    }
}
