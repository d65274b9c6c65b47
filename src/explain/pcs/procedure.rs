//! The procedure on one space: from codes and values to what is found along each component.

use super::bins::{BINS, GROUPS, Scores, Standing, group_of};
use super::contrast::{Sums, Tally};
use super::correlated::{Member, components};
use super::values::Values;
use super::{Component, REPRESENTATIVES, Reported, Representative, Spec};
use crate::data::Hooks;
use crate::engine::rng;
use crate::error::Result;
use crate::metrics::Matrix;
use crate::metrics::pca::Pca;
use crate::train::evaluate::at_most;
use rayon::prelude::*;

/// Bytes that the sums of groups may take at once.
const ROOM: usize = 256 << 20;
/// Features that are shown in bins and grouped by correlation, at most: those with the largest areas.
const SHOWN: usize = 500;
/// Cells whose features are correlated, at most.
const CORRELATED: usize = 20_000;
/// Rows of values that are read at once.
const BLOCK: usize = 64;
/// Stream of the splits: the bytes of "pc".
const SPLITS: u32 = 0x7063_0000;

/// The cells of one group of one split, and what their features add up to.
struct Accumulator {
    /// Ascending.
    members: Vec<u32>,
    sums: Sums,
}

/// Interprets one space, `codes` [cells, width]; `rows` are where the cells' values are. Representatives are cells of `codes`. `None`
/// where the codes do not vary.
pub(super) fn interpret(
    codes: Matrix<'_>,
    values: &Values,
    rows: &[u32],
    spec: &Spec,
    stage: &str,
    hooks: &mut Hooks,
) -> Result<Option<Vec<Component>>> {
    let Some((reference, pca)) = Scores::fit(codes, codes.all_rows(), None, spec.seed) else { return Ok(None) };
    let (k, features) = (spec.components.min(pca.len()), values.names.len());
    let mut tallies: Vec<Tally> = (0..k).map(|_| Tally::new(features)).collect();
    let of_split = k * 2 * GROUPS.len() * features * 2 * size_of::<f64>();
    let at_once = (ROOM / of_split.max(1)).clamp(1, spec.splits.max(1));
    for first in (0..spec.splits).step_by(at_once) {
        let splits = first..spec.splits.min(first + at_once);
        let mut groups: Vec<Accumulator> = splits
            .clone()
            .into_par_iter()
            .map(|split| groups_of(codes, &pca, k, spec, split as u32, features))
            .collect::<Vec<_>>()
            .into_iter()
            .flatten()
            .collect();
        accumulate(&mut groups, values, rows, &format!("{stage} for splits {} to {}", first + 1, splits.end), hooks)?;
        // A split's groups are [component, part, group].
        for split in groups.chunks_exact(k * 2 * GROUPS.len()) {
            tallies.par_iter_mut().zip(split.par_chunks_exact(2 * GROUPS.len())).for_each(|(tally, parts)| {
                let [training, test] = [0, 3].map(|at| std::array::from_fn(|g| &parts[at + g].sums));
                tally.add(training, test, values.effect, spec.thresholds);
            });
        }
    }
    let standings: Vec<Standing> = (0..k).map(|pc| reference.along(pc, spec.centre)).collect();
    let shown = most_telling(&tallies);
    let (profiles, members) = shown_values(&shown, &standings, values, rows, stage, hooks)?;
    let total: f64 = pca.variance.iter().sum();
    let component = |pc: usize| {
        let (tally, standing) = (&tallies[pc], &standings[pc]);
        let mut found: Vec<(usize, usize)> =
            (0..GROUPS.len()).flat_map(|g| (0..features).map(move |f| (g, f))).filter(|&(g, f)| tally.found[g][f].count > 0).collect();
        let rank = |&(g, f): &(usize, usize)| &tally.found[g][f];
        found.sort_by(|a, b| rank(b).area.total_cmp(&rank(a).area).then(rank(b).count.cmp(&rank(a).count)).then(a.cmp(b)));
        let reported = |(group, f): (usize, usize)| {
            let one = tally.found[group][f];
            let place = shown.binary_search(&f).ok();
            Reported {
                feature: values.names[f].clone(),
                group,
                count: one.count,
                area: one.area,
                effects: one.effects.map(|e| e / f64::from(one.count)),
                member: place.map(|p| members[p]),
                by_bin: place.map(|p| std::array::from_fn(|b| profiles[pc][b].mean(p))),
            }
        };
        let in_bin = |b: usize| (0..codes.rows()).filter(move |&c| standing.bins[c] == Some(b as u8));
        let representatives = |b: usize| {
            let mut cells: Vec<usize> = in_bin(b).collect();
            cells.sort_by(|&x, &y| standing.off_axis[x].total_cmp(&standing.off_axis[y]).then(x.cmp(&y)));
            let one = |c: usize| Representative {
                row: c as u32,
                of: rows[c],
                id: String::new(),
                score: reference.score(c, pc),
                off_axis: standing.off_axis[c].sqrt(),
            };
            cells.into_iter().take(REPRESENTATIVES).map(one).collect()
        };
        Component {
            share: pca.variance[pc] / total,
            tested: tally.splits,
            cells: std::array::from_fn(|b| in_bin(b).count()),
            representatives: (0..BINS).map(representatives).collect(),
            found: found.into_iter().map(reported).collect(),
        }
    };
    Ok(Some((0..k).map(component).collect()))
}

/// The groups of a split: component by component, of training cells and then of test cells.
fn groups_of(codes: Matrix<'_>, reference: &Pca, k: usize, spec: &Spec, split: u32, features: usize) -> Vec<Accumulator> {
    let n = codes.rows();
    let order = rng::permutation(n, spec.seed, SPLITS, split);
    let test = (spec.test * n as f64) as usize;
    let mut is_test = vec![false; n];
    order[..test].iter().for_each(|&c| is_test[c as usize] = true);
    let training: Vec<u32> = (0..n as u32).filter(|&c| !is_test[c as usize]).collect();
    let mut members = vec![Vec::new(); k * 2 * GROUPS.len()];
    if let Some((scores, _)) = Scores::fit(codes, training, Some(reference), spec.seed) {
        for pc in 0..k.min(scores.components()) {
            let standing = scores.along(pc, spec.centre);
            for (cell, bin) in standing.bins.iter().enumerate() {
                if let Some(group) = bin.and_then(|b| group_of(usize::from(b))) {
                    members[(pc * 2 + usize::from(is_test[cell])) * GROUPS.len() + group].push(cell as u32);
                }
            }
        }
    }
    members.into_iter().map(|members| Accumulator { members, sums: Sums::new(features) }).collect()
}

/// Adds up the values of all groups' members in one pass over the cells that are in any.
fn accumulate(groups: &mut [Accumulator], values: &Values, rows: &[u32], stage: &str, hooks: &mut Hooks) -> Result<()> {
    let mut wanted = vec![false; rows.len()];
    groups.iter().flat_map(|g| &g.members).for_each(|&c| wanted[c as usize] = true);
    let cells: Vec<u32> = (0..rows.len() as u32).filter(|&c| wanted[c as usize]).collect();
    let width = values.names.len();
    let mut block = vec![0.0; BLOCK * width];
    let total = cells.len() as u64;
    for (done, cells) in (0u64..).step_by(BLOCK).zip(cells.chunks(BLOCK)) {
        for (out, &cell) in block.chunks_exact_mut(width).zip(cells) {
            values.row(rows[cell as usize] as usize, out)?;
        }
        let (first, last) = (cells[0], cells[cells.len() - 1]);
        groups.par_iter_mut().for_each(|group| {
            let start = group.members.partition_point(|&c| c < first);
            for cell in group.members[start..].iter().take_while(|&&c| c <= last) {
                if let Ok(at) = cells.binary_search(cell) {
                    group.sums.add(&block[at * width..(at + 1) * width]);
                }
            }
        });
        hooks.tick(stage, done, Some(total))?;
    }
    Ok(())
}

/// The features that were found anywhere, those with the largest areas, ascending.
fn most_telling(tallies: &[Tally]) -> Vec<usize> {
    let features = tallies.first().map_or(0, |t| t.found[0].len());
    let most = |f: usize| {
        let all = tallies.iter().flat_map(|t| t.found.iter().map(move |g| g[f]));
        all.filter(|x| x.count > 0).map(|x| x.area).fold(None, |most: Option<f64>, a| Some(most.map_or(a, |m| m.max(a))))
    };
    let mut found: Vec<(usize, f64)> = (0..features).filter_map(|f| most(f).map(|a| (f, a))).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found.truncate(SHOWN);
    let mut shown: Vec<usize> = found.into_iter().map(|f| f.0).collect();
    shown.sort_unstable();
    shown
}

/// Sums of some features by component and bin over the cells at the centre, and which of the features go together.
fn shown_values(
    shown: &[usize],
    standings: &[Standing],
    values: &Values,
    rows: &[u32],
    stage: &str,
    hooks: &mut Hooks,
) -> Result<(Vec<Vec<Sums>>, Vec<Member>)> {
    let mut profiles = vec![vec![Sums::new(shown.len()); BINS]; standings.len()];
    if shown.is_empty() {
        return Ok((profiles, Vec::new()));
    }
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let sample = at_most(CORRELATED, &all);
    let (mut row, mut some, mut correlated) = (vec![0.0; values.names.len()], vec![0.0; shown.len()], Vec::new());
    for cell in 0..rows.len() {
        let sampled = sample.binary_search(&(cell as u32)).is_ok();
        if !sampled && standings.iter().all(|s| s.bins[cell].is_none()) {
            continue;
        }
        values.row(rows[cell] as usize, &mut row)?;
        some.iter_mut().zip(shown).for_each(|(some, &f)| *some = row[f]);
        for (profile, standing) in profiles.iter_mut().zip(standings) {
            if let Some(bin) = standing.bins[cell] {
                profile[usize::from(bin)].add(&some);
            }
        }
        if sampled {
            correlated.extend_from_slice(&some);
        }
        if cell % BLOCK == 0 {
            hooks.tick(stage, cell as u64, Some(rows.len() as u64))?;
        }
    }
    Ok((profiles, components(Matrix::new(&correlated, sample.len(), shown.len()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    fn spec() -> Spec<'static> {
        Spec {
            from: 0,
            of: 0,
            features: None,
            values: None,
            components: 2,
            splits: 6,
            test: 0.2,
            centre: 0.15,
            thresholds: [1.2, 8.0],
            seed: 1,
        }
    }

    /// Codes of two axes; feature 0 follows the first, 1 the second, 2 is large in the middle of the first, 3 and 4 are noise.
    fn planted(n: usize) -> (Vec<f32>, Vec<f32>) {
        let mut draw = Sequence::new(11, 1, 0);
        let (mut codes, mut values) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let [a, b] = std::array::from_fn(|_| draw.next_normal());
            codes.extend([3.0 * a, b]);
            let noise: [f32; 5] = std::array::from_fn(|_| 0.2 * draw.next_normal());
            values.extend([a + noise[0], b + noise[1], (-a * a).exp() + noise[2], noise[3], noise[4]]);
        }
        (codes, values)
    }

    fn told(n: usize, spec: &Spec) -> Vec<Component> {
        let (codes, values) = planted(n);
        let names = (0..5).map(|f| format!("f{f}")).collect();
        let values = Values::in_memory(names, values);
        let rows: Vec<u32> = (0..n as u32).collect();
        interpret(Matrix::new(&codes, n, 2), &values, &rows, spec, "", &mut Hooks::default()).unwrap().unwrap()
    }

    #[test]
    fn features_are_found_along_the_axis_and_in_the_groups_where_they_were_planted() {
        let components = told(3000, &spec());
        let found = |pc: usize| {
            let often = components[pc].found.iter().filter(|r| r.count == 6);
            let mut all: Vec<_> = often.map(|r| (r.feature.as_str(), GROUPS[r.group], r.effects[0] > 0.0)).collect();
            all.sort_unstable();
            all
        };
        // The sign of a component is that of its largest loading: high is high.
        assert_eq!(found(0), [("f0", "high", true), ("f0", "low", false), ("f2", "mid", true)]);
        assert_eq!(found(1), [("f1", "high", true), ("f1", "low", false)]);
        let noise = components.iter().flat_map(|c| &c.found).filter(|r| ["f3", "f4"].contains(&r.feature.as_str()) && r.count > 1);
        assert_eq!(noise.count(), 0);
        assert!(components[0].share > 0.85 && components[0].tested == [6; 3]);
        let first = components[0].found.iter().find(|r| r.feature == "f0").unwrap();
        let by_bin = first.by_bin.unwrap();
        assert!(by_bin.windows(2).all(|w| w[0] < w[1]), "{by_bin:?}");
        assert!(components[0].cells.iter().all(|&n| (20..65).contains(&n)), "{:?}", components[0].cells);
    }

    #[test]
    fn representatives_are_the_cells_nearest_to_the_axis_and_scores_rise_with_bins() {
        let components = told(1000, &spec());
        let c = &components[0];
        assert!(c.representatives.iter().all(|r| r.len() == REPRESENTATIVES));
        assert!(c.representatives.windows(2).all(|w| w[0].iter().all(|a| w[1].iter().all(|b| a.score <= b.score))));
        assert!(c.representatives.iter().flatten().all(|r| r.off_axis < 0.2));
    }

    #[test]
    fn splits_in_one_pass_or_in_many_count_the_same() {
        let (codes, x) = planted(500);
        let values = Values::in_memory((0..5).map(|f| format!("f{f}")).collect(), x);
        let (rows, codes) = ((0..500).collect::<Vec<u32>>(), Matrix::new(&codes, 500, 2));
        let (_, pca) = Scores::fit(codes, codes.all_rows(), None, 1).unwrap();
        let mut together: Vec<Accumulator> = (0..3).flat_map(|s| groups_of(codes, &pca, 2, &spec(), s, 5)).collect();
        accumulate(&mut together, &values, &rows, "", &mut Hooks::default()).unwrap();
        for split in 0..3 {
            let mut alone = groups_of(codes, &pca, 2, &spec(), split, 5);
            accumulate(&mut alone, &values, &rows, "", &mut Hooks::default()).unwrap();
            for (a, b) in alone.iter().zip(&together[split as usize * 12..]) {
                assert_eq!((a.sums.cells(), a.sums.mean(0).to_bits()), (b.sums.cells(), b.sums.mean(0).to_bits()));
                assert_eq!(a.sums.cells(), a.members.len());
            }
        }
    }
}
