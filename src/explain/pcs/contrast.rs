//! Features that differ between groups of cells, in many random splits.
//!
//!   test       Welch's t-test of a group against the union of the other two, Benjamini and Hochberg over the features
//!   effect     log2 fold change of means, or a difference in standard deviations: see [`Effect`]
//!   found      in a split: q < 0.05 and |effect| > log2(threshold) among training cells and among test cells, with the same sign
//!   count      splits in which a feature is found at the lowest threshold
//!   area       ∫ (splits in which it is found at threshold t) dt from the lowest to the highest threshold, in closed form: a split gives
//!              2^m cut to the sweep, less its lowest threshold, where m is the smaller of the two effects

use super::bins::GROUPS;
use crate::metrics::phenotype::{benjamini_hochberg, welch};

/// Below this q a feature differs.
const LEVEL: f64 = 0.05;
/// What a mean is offset by before its logarithm (scanpy's).
const OFFSET: f64 = 1e-9;
/// Variances and differences below this fraction of what they are taken from are rounding errors.
const ROUNDING: f64 = 1e-12;

/// How the difference of a feature between groups is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// log2((expm1(mean 1) + 1e-9) / (expm1(mean 2) + 1e-9)), of values after log1p.
    FoldOfLog1p,
    /// log2((mean 1 + 1e-9) / (mean 2 + 1e-9)), of values that are not negative.
    Fold,
    /// (mean 1 - mean 2) / deviation of the cells of all groups, of any other values.
    Difference,
}

impl Effect {
    /// For a person.
    pub fn describe(self) -> &'static str {
        match self {
            Effect::FoldOfLog1p | Effect::Fold => "log2 fold change",
            Effect::Difference => "difference in standard deviations",
        }
    }
}

/// Numbers, sums and sums of squares of the features of a group's cells.
#[derive(Clone, Debug)]
pub struct Sums {
    cells: usize,
    /// Missing values a feature; empty as long as there is none.
    missing: Vec<u32>,
    sum: Vec<f64>,
    square: Vec<f64>,
}

/// A feature of a group: number of values, sum, sum of squares.
type One = [f64; 3];

impl Sums {
    /// Of no cells yet.
    pub fn new(features: usize) -> Sums {
        Sums { cells: 0, missing: Vec::new(), sum: vec![0.0; features], square: vec![0.0; features] }
    }

    /// Adds a cell; NaN is missing.
    pub fn add(&mut self, row: &[f32]) {
        self.cells += 1;
        for (f, &v) in row.iter().enumerate() {
            if v == 0.0 {
                continue;
            }
            if v.is_nan() {
                self.missing.resize(self.sum.len(), 0);
                self.missing[f] += 1;
                continue;
            }
            let v = f64::from(v);
            self.sum[f] += v;
            self.square[f] += v * v;
        }
    }

    /// Cells that were added.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// A feature's mean.
    pub fn mean(&self, feature: usize) -> f64 {
        let [n, sum, _] = self.of(feature);
        sum / n
    }

    fn of(&self, f: usize) -> One {
        [(self.cells - self.missing.get(f).map_or(0, |&m| m as usize)) as f64, self.sum[f], self.square[f]]
    }
}

/// Sum of squares about the mean.
fn scatter([n, sum, square]: One) -> f64 {
    let about = square - sum * sum / n;
    if about > ROUNDING * square { about } else { 0.0 }
}

/// The q and the effect of every feature of `group` against the two others; `None` with fewer than two cells on a side.
fn contrast(groups: [&Sums; 3], group: usize, effect: Effect) -> Option<Vec<(f64, f64)>> {
    let others = (0..3).filter(|&g| g != group).map(|g| groups[g].cells).sum::<usize>();
    if groups[group].cells < 2 || others < 2 {
        return None;
    }
    let told: Vec<(f64, f64)> = (0..groups[group].sum.len())
        .map(|f| {
            let one = groups[group].of(f);
            let rest = (0..3).filter(|&g| g != group).fold([0.0; 3], |sum: One, g| std::array::from_fn(|i| sum[i] + groups[g].of(f)[i]));
            if one[0] < 2.0 || rest[0] < 2.0 {
                return (1.0, 0.0);
            }
            let [a, b] = [one[1] / one[0], rest[1] / rest[0]];
            let difference = if (a - b).abs() > ROUNDING.sqrt() * a.abs().max(b.abs()) { a - b } else { 0.0 };
            let errors = [one, rest].map(|x| scatter(x) / (x[0] - 1.0) / x[0]);
            let p = welch(difference, errors, [one[0], rest[0]]);
            let size = match effect {
                Effect::FoldOfLog1p => ((a.exp_m1() + OFFSET) / (b.exp_m1() + OFFSET)).log2(),
                Effect::Fold => ((a + OFFSET) / (b + OFFSET)).log2(),
                Effect::Difference => {
                    let all = std::array::from_fn(|i| one[i] + rest[i]);
                    let deviation = (scatter(all) / (all[0] - 1.0)).sqrt();
                    if deviation > 0.0 { difference / deviation } else { 0.0 }
                }
            };
            (p, size)
        })
        .collect();
    let q = benjamini_hochberg(&told.iter().map(|t| t.0).collect::<Vec<_>>());
    Some(q.into_iter().zip(told).map(|(q, (_, size))| (q, size)).collect())
}

/// What splits have found of a feature in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Splits in which it is found.
    pub count: u32,
    /// The area under its curve.
    pub area: f64,
    /// Sums of its effects over those splits, among training and among test cells.
    pub effects: [f64; 2],
}

/// The features of a component's groups, summed over splits.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By group and feature.
    pub found: [Vec<Found>; 3],
    /// Splits in which a group had cells enough to be tested.
    pub splits: [u32; 3],
}

impl Tally {
    /// Before the first split.
    pub fn new(features: usize) -> Tally {
        Tally { found: std::array::from_fn(|_| vec![Found::default(); features]), splits: [0; 3] }
    }

    /// Adds a split's groups, of training cells and of test cells; `sweep` is the lowest and the highest threshold.
    pub fn add(&mut self, training: [&Sums; 3], test: [&Sums; 3], effect: Effect, sweep: [f64; 2]) {
        for group in 0..GROUPS.len() {
            let (Some(a), Some(b)) = (contrast(training, group, effect), contrast(test, group, effect)) else { continue };
            self.splits[group] += 1;
            for (found, ((qa, ea), (qb, eb))) in self.found[group].iter_mut().zip(a.into_iter().zip(b)) {
                let least = ea.abs().min(eb.abs()).exp2();
                if qa < LEVEL && qb < LEVEL && ea * eb > 0.0 && least > sweep[0] {
                    found.count += 1;
                    found.area += least.min(sweep[1]) - sweep[0];
                    found.effects[0] += ea;
                    found.effects[1] += eb;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    fn sums(rows: &[Vec<f32>]) -> Sums {
        let mut out = Sums::new(rows[0].len());
        rows.iter().for_each(|r| out.add(r));
        out
    }

    #[test]
    fn a_group_is_tested_against_the_union_of_the_others_as_scipy_does() {
        // scipy.stats.ttest_ind([1, 2, 3, 4], [2, 4, 6, 8, 11], equal_var=False), the five in two groups; one feature, so q is p.
        let groups =
            [sums(&[vec![1.0], vec![2.0], vec![3.0], vec![4.0]]), sums(&[vec![2.0], vec![4.0]]), sums(&[vec![6.0], vec![8.0], vec![11.0]])];
        let (q, fold) = contrast(groups.each_ref(), 0, Effect::Fold).unwrap()[0];
        assert!((q - 0.077_330_459_718_477_86).abs() < 1e-12, "{q:.17}");
        assert!((fold - (2.5f64 / 6.2).log2()).abs() < 1e-9, "{fold}");
        let (_, fold) = contrast(groups.each_ref(), 0, Effect::FoldOfLog1p).unwrap()[0];
        assert!((fold - (2.5f64.exp_m1() / 6.2f64.exp_m1()).log2()).abs() < 1e-9, "{fold}");
        // numpy.std([1, 2, 3, 4, 2, 4, 6, 8, 11], ddof=1)
        let (_, size) = contrast(groups.each_ref(), 0, Effect::Difference).unwrap()[0];
        assert!((size - (2.5 - 6.2) / 3.244_653_722_321_964_5).abs() < 1e-9, "{size}");
        assert!(contrast([&sums(&[vec![1.0]]), &groups[1], &groups[2]], 0, Effect::Fold).is_none());
    }

    #[test]
    fn constant_and_missing_values_decide_nothing() {
        let constant = |n: usize| sums(&vec![vec![0.1, f32::NAN, 1e6]; n]);
        let told = contrast([&constant(3), &constant(7), &constant(11)], 2, Effect::Difference).unwrap();
        assert_eq!(told, [(1.0, 0.0); 3]);
        let some = sums(&[vec![f32::NAN], vec![2.0], vec![4.0]]);
        assert_eq!((some.cells(), some.mean(0)), (3, 3.0));
    }

    #[test]
    fn a_feature_that_differs_is_found_in_every_split_and_its_area_is_the_integral() {
        // Feature 0 is three times as large in the first group; feature 1 is noise.
        let mut draw = Sequence::new(9, 1, 0);
        let mut group = |times: f32| {
            let rows: Vec<Vec<f32>> = (0..60).map(|_| vec![times * (10.0 + draw.next_normal()), 10.0 + draw.next_normal()]).collect();
            sums(&rows)
        };
        let mut tally = Tally::new(2);
        let mut folds = Vec::new();
        for _ in 0..4 {
            let [training, test] = [(); 2].map(|()| [group(3.0), group(1.0), group(1.0)]);
            tally.add(training.each_ref(), test.each_ref(), Effect::Fold, [1.2, 8.0]);
            folds.push(
                [&training, &test]
                    .map(|g| contrast(g.each_ref(), 0, Effect::Fold).unwrap()[0].1)
                    .into_iter()
                    .fold(f64::MAX, f64::min)
                    .exp2(),
            );
        }
        assert_eq!(tally.splits, [4; 3]);
        assert_eq!((tally.found[0][0].count, tally.found[0][1].count), (4, 0));
        // By a fine sweep of thresholds.
        let step = 1e-4;
        let by_sweep: f64 =
            (0..68_000).map(|i| folds.iter().filter(|f| **f > 1.2 + (f64::from(i) + 0.5) * step).count() as f64 * step).sum();
        assert!((tally.found[0][0].area - by_sweep).abs() < 1e-3, "{} {by_sweep}", tally.found[0][0].area);
        assert!(tally.found[1][0].effects[0] < 0.0, "the union of the others holds the large values");
    }
}
