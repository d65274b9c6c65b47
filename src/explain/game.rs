//! Shapley values of the players of any game: by sampling orders, or exactly where that is cheaper.
//!
//!   f(S)    the value of a coalition S of players
//!   φᵢ      the mean over all orders of the players of f(those before i, and i) - f(those before i)
//!   sum     Σᵢ φᵢ = f(all) - f(none), whatever the number of orders that are walked
//!
//! Orders are drawn by the seed and each is walked forwards and backwards; two walks give one pair, pairs are independent, and the
//! standard error is that of their mean. Where all coalitions are fewer than the steps of the walks, they are enumerated.
//!
//! Sources: Shapley 1953; Castro, Gómez and Tejada 2009 (sampling); Mitchell et al. 2022 (antithetic pairs).

use crate::engine::rng;
use crate::error::Result;

/// The stream that orders are drawn from: the bytes of "shap".
const ORDERS: u32 = 0x7368_6170;
/// Coalitions that are listed at once.
pub const BATCH: usize = 1024;
/// So many players at most are enumerated; the list of coalitions doubles with each.
const ENUMERATED: usize = 16;

/// Values of players.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// One a player; they sum to `full - empty` but for rounding.
    pub values: Vec<f64>,
    /// Their standard errors; `None` from a single permutation, 0 where they are exact.
    pub errors: Option<Vec<f64>>,
    /// With no player.
    pub empty: f64,
    /// With all players.
    pub full: f64,
    /// Orders that were walked, both ways each; 0 where all coalitions were enumerated.
    pub permutations: usize,
}

/// How often a function is asked, and whether that is for every coalition.
pub fn evaluations(players: usize, permutations: usize) -> (usize, bool) {
    let walks = permutations.saturating_mul(2).saturating_mul(players.saturating_sub(1)).saturating_add(2);
    match players {
        0..=ENUMERATED if 1 << players <= walks => (1 << players, true),
        _ => (walks, false),
    }
}

/// The function of coalitions: one value for each list of members (in any order), at most 1,024 lists at once.
pub type Game<'a> = dyn FnMut(&[&[u32]]) -> Result<Vec<f64>> + 'a;

/// Shapley values of `players` in the game `f`, exactly if that is cheaper than `permutations` (at least 1) antithetic pairs.
pub fn shapley(players: usize, permutations: usize, seed: u64, f: &mut Game) -> Result<Estimate> {
    match evaluations(players, permutations.max(1)) {
        (_, true) => enumerate(players, f),
        _ => sample(players, permutations.max(1), seed, f),
    }
}

/// By sampling permutations.
fn sample(players: usize, permutations: usize, seed: u64, f: &mut Game) -> Result<Estimate> {
    let all: Vec<u32> = (0..players as u32).collect();
    let ends = f(&[&[], &all])?;
    let (empty, full) = (ends[0], ends[1]);
    // Enough pairs that few players still fill a batch.
    let together = (BATCH / (2 * players.max(2) - 2)).clamp(1, permutations);
    let (mut mean, mut spread) = (vec![0.0f64; players], vec![0.0f64; players]);
    let (mut orders, mut values, mut pair) = (Vec::new(), Vec::new(), vec![0.0f64; players]);
    for first in (0..permutations).step_by(together) {
        orders.clear();
        for p in first..permutations.min(first + together) {
            let order = rng::permutation(players, seed, ORDERS, p as u32);
            let back = order.iter().rev().copied().collect();
            orders.extend([order, back]);
        }
        let coalitions: Vec<&[u32]> = orders.iter().flat_map(|o: &Vec<u32>| (1..players).map(move |k| &o[..k])).collect();
        values.clear();
        for batch in coalitions.chunks(BATCH) {
            values.extend(f(batch)?);
        }
        let mut walks = values.chunks_exact(players.max(2) - 1).zip(&orders);
        for n in first + 1..=first + orders.len() / 2 {
            pair.fill(0.0);
            for (steps, order) in walks.by_ref().take(2) {
                let mut before = empty;
                for (&player, &after) in order.iter().zip(steps.iter().chain([&full])) {
                    pair[player as usize] += 0.5 * (after - before);
                    before = after;
                }
            }
            for ((mean, spread), &x) in mean.iter_mut().zip(&mut spread).zip(&pair) {
                let d = x - *mean;
                *mean += d / n as f64;
                *spread += d * (x - *mean);
            }
        }
    }
    let n = permutations as f64;
    let errors = (permutations > 1).then(|| spread.iter().map(|s| (s / (n - 1.0) / n).sqrt()).collect());
    Ok(Estimate { values: mean, errors, empty, full, permutations })
}

/// By asking for every coalition.
fn enumerate(players: usize, f: &mut Game) -> Result<Estimate> {
    let lists: Vec<Vec<u32>> = (0..1usize << players).map(|s| (0..players as u32).filter(|&i| s >> i & 1 == 1).collect()).collect();
    let lists: Vec<&[u32]> = lists.iter().map(Vec::as_slice).collect();
    let mut value = Vec::with_capacity(lists.len());
    for batch in lists.chunks(BATCH) {
        value.extend(f(batch)?);
    }
    // weight[k] = k! (n - k - 1)! / n!: of the orders, those in which exactly a given coalition of k comes before a player.
    let mut weight = vec![1.0 / players.max(1) as f64; players];
    for k in 1..players {
        weight[k] = weight[k - 1] * k as f64 / (players - k) as f64;
    }
    let of = |i: usize| {
        let without = (0..value.len()).filter(|s| s >> i & 1 == 0);
        without.map(|s| weight[s.count_ones() as usize] * (value[s | 1 << i] - value[s])).sum()
    };
    let (empty, full) = (value[0], value[value.len() - 1]);
    Ok(Estimate { values: (0..players).map(of).collect(), errors: Some(vec![0.0; players]), empty, full, permutations: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members' weights, a product that needs two of them, and a glove (either of two suffices).
    fn game(coalitions: &[&[u32]]) -> Result<Vec<f64>> {
        let value = |s: &&[u32]| {
            let has = |i| s.contains(&i);
            let own: f64 = s.iter().map(|&i| [0.3, -1.25, 0.1, 2.0, 0.0, 0.7, -0.4][i as usize]).sum();
            0.5 + own + if has(0) && has(3) { 1.5 } else { 0.0 } + if has(5) || has(6) { -0.8 } else { 0.0 }
        };
        Ok(coalitions.iter().map(value).collect())
    }

    const VALUES: [f64; 7] = [0.3 + 0.75, -1.25, 0.1, 2.0 + 0.75, 0.0, 0.7 - 0.4, -0.4 - 0.4];

    #[test]
    fn enumeration_gives_the_values_that_the_axioms_give() {
        let found = enumerate(7, &mut game).unwrap();
        for (found, wanted) in found.values.iter().zip(VALUES) {
            assert!((found - wanted).abs() < 1e-12, "{:?}", found);
        }
        assert_eq!((found.empty, found.errors), (0.5, Some(vec![0.0; 7])));
        // Three players, of whom the first needs one of the others: 2/3, 1/6, 1/6.
        let mut gloves = |c: &[&[u32]]| Ok(c.iter().map(|s| f64::from(u8::from(s.contains(&0) && s.len() > 1))).collect());
        let found = enumerate(3, &mut gloves).unwrap().values;
        assert!(found.iter().zip([2.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0]).all(|(f, w)| (f - w).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn sampling_agrees_with_enumeration_within_its_errors_and_sums_exactly() {
        for permutations in [1, 2, 3, 1000] {
            let found = sample(7, permutations, 11, &mut game).unwrap();
            let sum: f64 = found.values.iter().sum();
            assert!((sum - (found.full - found.empty)).abs() < 1e-12, "{permutations}: {sum}");
            assert_eq!(found.errors.is_some(), permutations > 1);
        }
        let found = sample(7, 1000, 11, &mut game).unwrap();
        let errors = found.errors.unwrap();
        for i in 0..7 {
            let off = (found.values[i] - VALUES[i]).abs();
            assert!(off <= 4.0 * errors[i] + 1e-12, "player {i}: {} for {}, error {}", found.values[i], VALUES[i], errors[i]);
        }
        assert!(errors[2] < 1e-12 && errors[4] < 1e-12, "players without interaction have no error");
        // A product of two is symmetric under reversal: antithetic pairs leave no error.
        assert!(errors[0] < 1e-12 && errors[3] < 1e-12 && errors[5] < 1e-12, "{errors:?}");
    }

    #[test]
    fn three_way_interactions_have_errors_that_cover_the_truth() {
        let mut f =
            |c: &[&[u32]]| Ok(c.iter().map(|s| s.iter().map(|&i| f64::from(i) + 1.0).sum::<f64>().powi(3).sin()).collect::<Vec<f64>>());
        let truth = enumerate(8, &mut f).unwrap();
        let found = sample(8, 2000, 3, &mut f).unwrap();
        let errors = found.errors.unwrap();
        let off: Vec<f64> = (0..8).map(|i| (found.values[i] - truth.values[i]).abs() / errors[i]).collect();
        assert!(off.iter().all(|&z| z < 4.0) && errors.iter().all(|&e| e > 1e-4), "{off:?} {errors:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_and_the_number_of_calls_is_as_told() {
        for (players, permutations) in [(0, 5), (1, 5), (2, 5), (5, 2), (40, 7), (1500, 2)] {
            let mut asked = 0;
            let mut f = |c: &[&[u32]]| {
                assert!(c.len() <= BATCH);
                asked += c.len();
                Ok(c.iter().map(|s| s.iter().map(|&i| f64::from(i % 7)).sum::<f64>().sqrt()).collect())
            };
            let first = shapley(players, permutations, 9, &mut f).unwrap();
            let again = shapley(players, permutations, 9, &mut f).unwrap();
            assert_eq!(first, again);
            assert_eq!(asked, 2 * evaluations(players, permutations).0);
            let sum: f64 = first.values.iter().sum();
            assert!((sum - (first.full - first.empty)).abs() < 1e-9, "{players}: {sum}");
        }
        assert_eq!(evaluations(4, 100), (16, true));
        assert_eq!(evaluations(200, 100), (39_802, false));
    }
}
