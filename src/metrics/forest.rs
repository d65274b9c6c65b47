//! A random forest of shallow trees, to judge whether translated cells look like the class they came from (Yang 2021, Fig. 4).
//!
//!   a tree     grown on a bootstrap sample (as many rows, with replacement) to depth 2 at most; a split is the best by Gini impurity
//!              among √n features drawn afresh (rounded down, at least one), at the middle between two neighbouring values
//!   a leaf     says the shares of the classes among its rows; the forest says their mean over 100 trees
//!   as         scikit-learn's RandomForestClassifier(n_estimators=100, max_depth=2); other draws, so equal in distribution alone
//!
//! Written here because the crates for it subsample features a tree instead of a split, or give votes instead of shares.

use super::Matrix;
use crate::engine::rng::Sequence;
use rayon::prelude::*;

const TREES: usize = 100;
const DEPTH: usize = 2;
/// Streams of random numbers: the bytes of "rf".
const STREAM: u32 = 0x7266_0000;

/// A grown forest.
pub struct Forest {
    trees: Vec<Tree>,
    classes: usize,
}

enum Tree {
    /// Shares of the classes.
    Leaf(Vec<f64>),
    /// Rows up to the threshold, and the others.
    Split { feature: usize, threshold: f32, parts: Box<[Tree; 2]> },
}

impl Forest {
    /// Grows the trees on rows x with a class below `classes` each. All draws follow from `seed`.
    #[track_caller]
    pub fn grow(x: Matrix<'_>, labels: &[u32], classes: usize, seed: u64) -> Forest {
        assert_eq!(x.rows(), labels.len(), "Forest::grow: one class a row");
        let tree = |t: u32| {
            let mut draw = Sequence::new(seed, STREAM, t);
            let rows: Vec<u32> = (0..x.rows()).map(|_| draw.below(x.rows()) as u32).collect();
            grow(x, labels, classes, rows, DEPTH, &mut draw)
        };
        Forest { trees: (0..TREES as u32).into_par_iter().map(tree).collect(), classes }
    }

    /// The probability of each class for a row.
    pub fn probabilities(&self, row: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.classes];
        for tree in &self.trees {
            let mut at = tree;
            let shares = loop {
                match at {
                    Tree::Leaf(shares) => break shares,
                    Tree::Split { feature, threshold, parts } => at = &parts[usize::from(row[*feature] > *threshold)],
                }
            };
            sums.iter_mut().zip(shares).for_each(|(sum, s)| *sum += s);
        }
        sums.iter_mut().for_each(|s| *s /= TREES as f64);
        sums
    }
}

fn counts(labels: &[u32], rows: &[u32], classes: usize) -> Vec<f64> {
    let mut n = vec![0.0; classes];
    rows.iter().for_each(|&r| n[labels[r as usize] as usize] += 1.0);
    n
}

/// Rows times Gini impurity.
fn impurity(n: &[f64]) -> f64 {
    let all: f64 = n.iter().sum();
    if all > 0.0 { all - n.iter().map(|n| n * n).sum::<f64>() / all } else { 0.0 }
}

fn grow(x: Matrix<'_>, labels: &[u32], classes: usize, rows: Vec<u32>, depth: usize, draw: &mut Sequence) -> Tree {
    let whole = counts(labels, &rows, classes);
    let total: f64 = whole.iter().sum();
    let leaf = || Tree::Leaf(whole.iter().map(|n| n / total.max(1.0)).collect());
    if depth == 0 || impurity(&whole) == 0.0 || x.cols() == 0 {
        return leaf();
    }
    // Features are drawn without replacement until enough of them have been seen that are not constant here, as scikit-learn does.
    let wanted = ((x.cols() as f64).sqrt() as usize).max(1);
    let mut order: Vec<u32> = (0..x.cols() as u32).collect();
    let (mut best, mut seen): (Option<(f64, usize, f32)>, usize) = (None, 0);
    let mut sorted: Vec<(f32, u32)> = Vec::with_capacity(rows.len());
    for i in 0..order.len() {
        if seen == wanted {
            break;
        }
        let j = i + draw.below(order.len() - i);
        order.swap(i, j);
        let feature = order[i] as usize;
        sorted.clear();
        sorted.extend(rows.iter().map(|&r| (x.row(r as usize)[feature], labels[r as usize])));
        sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if sorted[0].0 == sorted[sorted.len() - 1].0 {
            continue;
        }
        seen += 1;
        let (mut left, mut right) = (vec![0.0; classes], whole.clone());
        for pair in sorted.windows(2) {
            left[pair[0].1 as usize] += 1.0;
            right[pair[0].1 as usize] -= 1.0;
            if pair[0].0 < pair[1].0 {
                let cost = impurity(&left) + impurity(&right);
                if best.is_none_or(|b| cost < b.0) {
                    let middle = 0.5 * (pair[0].0 + pair[1].0);
                    // Between neighbouring floats the middle may round up to the second.
                    best = Some((cost, feature, if middle < pair[1].0 { middle } else { pair[0].0 }));
                }
            }
        }
    }
    let Some((_, feature, threshold)) = best else { return leaf() };
    let (above, below): (Vec<u32>, Vec<u32>) = rows.iter().partition(|&&r| x.row(r as usize)[feature] > threshold);
    let parts = [below, above].map(|rows| grow(x, labels, classes, rows, depth - 1, draw));
    Tree::Split { feature, threshold, parts: Box::new(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes, `shift` apart in the first of `n` features.
    fn cells(n: usize, rows: usize, shift: f32, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut draw = Sequence::new(seed, 1, 0);
        let labels: Vec<u32> = (0..rows).map(|r| (r % 2) as u32).collect();
        let x = labels
            .iter()
            .flat_map(|&l| (0..n).map(|f| draw.next_normal() + if f == 0 { shift * l as f32 } else { 0.0 }).collect::<Vec<_>>());
        (x.collect(), labels)
    }

    fn accuracy(forest: &Forest, x: &[f32], labels: &[u32], n: usize) -> f64 {
        let right = x.chunks_exact(n).zip(labels).filter(|(x, l)| (forest.probabilities(x)[1] > 0.5) == (**l == 1)).count();
        right as f64 / labels.len() as f64
    }

    #[test]
    fn a_forest_finds_a_difference_and_none_where_there_is_none() {
        let n = 9;
        let (x, labels) = cells(n, 400, 4.0, 1);
        let forest = Forest::grow(Matrix::new(&x, 400, n), &labels, 2, 7);
        let (other, truth) = cells(n, 400, 4.0, 2);
        assert!(accuracy(&forest, &other, &truth, n) > 0.95);
        assert!(forest.probabilities(&other[..n]).iter().sum::<f64>() - 1.0 < 1e-12);
        let (x, labels) = cells(n, 400, 0.0, 3);
        let forest = Forest::grow(Matrix::new(&x, 400, n), &labels, 2, 7);
        assert!((accuracy(&forest, &other, &truth, n) - 0.5).abs() < 0.15);
    }

    #[test]
    fn depth_two_solves_what_one_split_cannot() {
        // Class 1 in the middle: two thresholds on one feature.
        let x: Vec<f32> = (0..300).map(|i| i as f32).collect();
        let labels: Vec<u32> = (0..300).map(|i| u32::from((100..200).contains(&i))).collect();
        let forest = Forest::grow(Matrix::new(&x, 300, 1), &labels, 2, 0);
        assert!([20.0, 150.0, 280.0].map(|x| forest.probabilities(&[x])[1] > 0.5) == [false, true, false]);
        assert_eq!(accuracy(&forest, &x, &labels, 1).max(0.97), accuracy(&forest, &x, &labels, 1));
    }

    #[test]
    fn one_class_one_row_and_constant_features_are_leaves() {
        let forest = Forest::grow(Matrix::new(&[1.0, 1.0, 1.0], 3, 1), &[0, 1, 1], 2, 0);
        assert!((forest.probabilities(&[5.0])[1] - 2.0 / 3.0).abs() < 0.15);
        assert_eq!(Forest::grow(Matrix::new(&[1.0], 1, 1), &[1], 2, 0).probabilities(&[5.0]), [0.0, 1.0]);
    }
}
