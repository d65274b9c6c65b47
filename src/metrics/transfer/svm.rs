//! A linear support vector machine, one class against the rest: what of one modality's labels its code, or its features, tell about
//! another's cells.
//!
//!   for each class, with y = ±1:   min over w of  ½ |w|² + C Σ max(0, 1 - y_i w·x_i)²,   x_i with a 1 appended for the intercept
//!   its dual (Hsieh et al. 2008)   min over α ≥ 0 of  ½ αᵀ (Q + I/(2C)) α - Σ α,   Q_ij = y_i y_j x_i·x_j,  w = Σ α_i y_i x_i
//!   solved by coordinates          α_i ← max(0, α_i - G_i / (x_i·x_i + 1/(2C))),   G_i = y_i w·x_i - 1 + α_i/(2C)
//!   in a random order a pass, until no coordinate's projected gradient is beyond [`TOLERANCE`]
//!
//! The intercept is shrunk like a weight, as in LIBLINEAR and scikit-learn's `LinearSVC`. A cell goes to the class of the largest w·x.

use super::super::matrix::{Matrix, stream};
use super::folds::stratified_folds;
use crate::engine::rng::Sequence;
use rayon::prelude::*;

/// What a projected gradient may be at the end; y w·x is compared with 1.
pub const TOLERANCE: f64 = 1e-3;
/// Passes over the training cells at most.
pub const PASSES: usize = 1000;
/// C.
pub const COST: f64 = 1.0;

/// A machine for each class that was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSvm {
    classes: Vec<u32>,
    /// [classes, features + 1], the intercept last.
    weights: Vec<f64>,
    width: usize,
}

impl LinearSvm {
    /// From cells (row, class); `None` without two classes.
    pub fn fit(x: Matrix<'_>, cells: &[(u32, u32)], seed: u64) -> Option<LinearSvm> {
        let mut classes: Vec<u32> = cells.iter().map(|c| c.1).collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.len() < 2 {
            return None;
        }
        let width = x.cols() + 1;
        let squares: Vec<f64> =
            cells.iter().map(|&(r, _)| 1.0 + x.row(r as usize).iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>()).collect();
        let each: Vec<Vec<f64>> = classes.par_iter().map(|&class| one_against_the_rest(x, cells, &squares, class, seed)).collect();
        Some(LinearSvm { classes, weights: each.concat(), width })
    }

    /// The classes that it knows, ascending.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// w·x of every class for one cell.
    pub fn decision(&self, x: &[f32]) -> Vec<f64> {
        self.weights.chunks_exact(self.width).map(|w| product(w, x)).collect()
    }

    /// The class of one cell.
    pub fn predict(&self, x: &[f32]) -> u32 {
        let scores = self.decision(x);
        self.classes[(0..scores.len()).reduce(|a, b| if scores[b] > scores[a] { b } else { a }).unwrap_or(0)]
    }
}

/// The (true, predicted) classes of cells (row, class), each told by a machine that learnt from the other folds; nothing where those leave a
/// fold without two classes.
pub fn cross_validated(x: Matrix<'_>, cells: &[(u32, u32)], folds: usize, seed: u64) -> Vec<(u32, u32)> {
    let labels: Vec<u32> = cells.iter().map(|c| c.1).collect();
    let fold = stratified_folds(&labels, folds, seed);
    let mut told = Vec::with_capacity(cells.len());
    for f in 0..folds {
        let (test, train): (Vec<_>, Vec<_>) = cells.iter().zip(&fold).partition(|(_, of)| **of == f);
        let train: Vec<(u32, u32)> = train.into_iter().map(|(c, _)| *c).collect();
        let Some(svm) = LinearSvm::fit(x, &train, seed) else { return Vec::new() };
        told.extend(test.into_iter().map(|(&(row, class), _)| (class, svm.predict(x.row(row as usize)))));
    }
    told
}

/// w·(x, 1), in eight running sums.
fn product(w: &[f64], x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (ws, xs) = (w[..x.len()].chunks_exact(8), x.chunks_exact(8));
    let rest: f64 = ws.remainder().iter().zip(xs.remainder()).map(|(w, &x)| w * f64::from(x)).sum();
    for (w, x) in ws.zip(xs) {
        for i in 0..8 {
            lanes[i] += w[i] * f64::from(x[i]);
        }
    }
    lanes.iter().sum::<f64>() + rest + w[x.len()]
}

fn one_against_the_rest(x: Matrix<'_>, cells: &[(u32, u32)], squares: &[f64], class: u32, seed: u64) -> Vec<f64> {
    let mut w = vec![0.0; x.cols() + 1];
    let mut alpha = vec![0.0; cells.len()];
    let diagonal = 0.5 / COST;
    // Coordinates that stay at 0 with a gradient that keeps them there are set aside until the others are done.
    let mut active: Vec<u32> = (0..cells.len() as u32).collect();
    let mut draw = Sequence::new(seed, stream::SVM, class);
    let mut aside_above = f64::INFINITY;
    for _ in 0..PASSES {
        draw.shuffle(&mut active);
        let (mut most, mut least) = (f64::NEG_INFINITY, f64::INFINITY);
        active.retain(|&i| {
            let i = i as usize;
            let row = x.row(cells[i].0 as usize);
            let y = if cells[i].1 == class { 1.0 } else { -1.0 };
            let gradient = y * product(&w, row) - 1.0 + alpha[i] * diagonal;
            if alpha[i] == 0.0 && gradient > aside_above {
                return false;
            }
            let projected = if alpha[i] == 0.0 { f64::min(gradient, 0.0) } else { gradient };
            (most, least) = (f64::max(most, projected), f64::min(least, projected));
            if projected.abs() > 1e-12 {
                let next = f64::max(alpha[i] - gradient / (squares[i] + diagonal), 0.0);
                let step = (next - alpha[i]) * y;
                alpha[i] = next;
                let last = row.len();
                w[..last].iter_mut().zip(row).for_each(|(w, &x)| *w += step * f64::from(x));
                w[last] += step;
            }
            true
        });
        if active.is_empty() || most - least <= TOLERANCE {
            if active.len() == cells.len() {
                break;
            }
            active = (0..cells.len() as u32).collect();
            aside_above = f64::INFINITY;
            continue;
        }
        aside_above = if most > 0.0 { most } else { f64::INFINITY };
    }
    w
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cells_are_told_apart_by_the_machine_worked_out_by_hand() {
        // x = ±1 with classes 1 and 0: by symmetry w = (a, 0), a minimising a²/2 + 2 (1 - a)²: a = 4/5.
        let m = Matrix::new(&[1.0, -1.0], 2, 1);
        let svm = LinearSvm::fit(m, &[(0, 1), (1, 0)], 0).unwrap();
        let scores = svm.decision(&[1.0]);
        assert!((scores[1] - 0.8).abs() < 1e-3 && (scores[0] + 0.8).abs() < 1e-3, "{scores:?}");
        assert_eq!((svm.predict(&[0.5]), svm.predict(&[-0.5]), svm.classes()), (1, 0, &[0, 1][..]));
        assert_eq!(LinearSvm::fit(m, &[(0, 1), (1, 1)], 0), None);
    }

    #[test]
    fn the_solution_does_not_depend_on_the_order_in_which_cells_were_taken() {
        let mut draw = Sequence::new(5, 1, 0);
        let x: Vec<f32> = (0..60 * 4).map(|_| draw.next_normal()).collect();
        let cells: Vec<(u32, u32)> = (0..60).map(|i| (i, u32::from(x[4 * i as usize] + 0.3 * draw.next_normal() > 0.0) + i % 2)).collect();
        let m = Matrix::new(&x, 60, 4);
        let [a, b] = [0, 1].map(|seed| LinearSvm::fit(m, &cells, seed).unwrap());
        assert!(a.weights.iter().zip(&b.weights).all(|(a, b)| (a - b).abs() < 5e-3), "{:?} {:?}", a.weights, b.weights);
    }

    #[test]
    fn cells_are_told_by_machines_that_have_not_seen_them() {
        // Each cell is alone on an axis of its own, where its class is learnt by heart: others say nothing of it. Then two clear groups.
        let n = 30;
        let mut x = vec![0f32; n * n];
        (0..n).for_each(|i| x[i * n + i] = 10.0);
        let cells: Vec<(u32, u32)> = (0..n as u32).map(|i| (i, i % 2)).collect();
        let right = |told: Vec<(u32, u32)>| told.iter().filter(|(a, b)| a == b).count();
        let (own, m) = (LinearSvm::fit(Matrix::new(&x, n, n), &cells, 0).unwrap(), Matrix::new(&x, n, n));
        assert_eq!(right(cells.iter().map(|&(r, c)| (c, own.predict(m.row(r as usize)))).collect()), n);
        assert!(right(cross_validated(m, &cells, 5, 0)) <= n / 2);
        let x: Vec<f32> = cells.iter().map(|c| c.1 as f32 * 2.0 - 1.0).collect();
        assert_eq!(right(cross_validated(Matrix::new(&x, n, 1), &cells, 5, 0)), n);
        assert!(cross_validated(Matrix::new(&x, n, 1), &cells[..1], 5, 0).is_empty());
    }
}
