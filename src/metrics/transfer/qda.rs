//! Quadratic discriminant analysis: a cell belongs to the type under whose Gaussian its code z is densest, all types being equally
//! likely beforehand.
//!
//!   log p(z | c) = -½ (z - μ_c)ᵀ Σ_c⁻¹ (z - μ_c) - ½ log det Σ_c - (p/2) log 2π
//!
//! μ_c, Σ_c (divided by n - 1) come from a type's training cells; Σ_c gets 1e-4 added on the diagonal, and is diagonal for a type of
//! fewer than 12 cells; a type of fewer than 6 is left out, and with it its test cells. Gala et al. 2019, section 4; their later code
//! blends instead, (1 - r)·Σ + r·I with r = 1e-2: [`Covariance::Blend`].

use super::folds::{Accuracy, stratified_folds};
use crate::engine::linalg::{cholesky, lower_solve};
use crate::metrics::matrix::Matrix;
use rayon::prelude::*;

/// How a covariance is kept away from singular.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Covariance {
    /// Σ + r·I.
    Add(f64),
    /// (1 - r)·Σ + r·I.
    Blend(f64),
}

/// What is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Regularisation of the covariance.
    pub covariance: Covariance,
    /// A class of fewer cells gets a diagonal covariance.
    pub diagonal_below: usize,
    /// A class of fewer cells is left out.
    pub least_cells: usize,
}

impl Default for Settings {
    /// The 2019 paper's.
    fn default() -> Self {
        Settings { covariance: Covariance::Add(1e-4), diagonal_below: 12, least_cells: 6 }
    }
}

impl Settings {
    /// The 2021 code's: plain QDA with r = 1e-2 blended in.
    pub fn blended() -> Settings {
        Settings { covariance: Covariance::Blend(1e-2), diagonal_below: 0, least_cells: 6 }
    }
}

/// One Gaussian a class.
pub struct Qda {
    p: usize,
    classes: Vec<Gaussian>,
}

struct Gaussian {
    label: u32,
    cells: usize,
    mean: Vec<f64>,
    factor: Vec<f64>, // lower triangle, p x p
    half_log_det: f64,
}

impl Qda {
    /// Fits every label that has enough cells among (row, label) `cells`. `None` if no class has.
    pub fn fit(codes: Matrix<'_>, cells: &[(u32, u32)], settings: Settings) -> Option<Qda> {
        let mut sorted = cells.to_vec();
        sorted.sort_by_key(|c| (c.1, c.0));
        let groups = sorted.chunk_by(|a, b| a.1 == b.1).filter(|g| g.len() >= settings.least_cells.max(1));
        let classes: Vec<Gaussian> = groups.filter_map(|g| Gaussian::fit(codes, g, settings)).collect();
        (!classes.is_empty()).then_some(Qda { p: codes.cols(), classes })
    }

    /// The labels that were fitted, ascending.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.classes.iter().map(|c| c.label)
    }

    /// log p(z | class) for every fitted class, in the order of [`Qda::labels`].
    #[track_caller]
    pub fn log_densities(&self, z: &[f32]) -> Vec<f64> {
        assert_eq!(z.len(), self.p, "a code of {} latent dimensions", self.p);
        let constant = -0.5 * self.p as f64 * std::f64::consts::TAU.ln();
        let density = |c: &Gaussian| {
            let mut x: Vec<f64> = z.iter().zip(&c.mean).map(|(&z, m)| f64::from(z) - m).collect();
            lower_solve(&c.factor, self.p, &mut x);
            constant - c.half_log_det - 0.5 * x.iter().map(|x| x * x).sum::<f64>()
        };
        self.classes.iter().map(density).collect()
    }

    /// The label of the class of greatest density.
    pub fn predict(&self, z: &[f32]) -> u32 {
        self.classes[greatest(&self.log_densities(z))].label
    }

    /// Whether a label was fitted.
    pub fn knows(&self, label: u32) -> bool {
        self.classes.binary_search_by_key(&label, |c| c.label).is_ok()
    }

    /// Training cells of each fitted class.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        self.classes.iter().map(|c| (c.label, c.cells))
    }
}

impl Gaussian {
    fn fit(codes: Matrix<'_>, cells: &[(u32, u32)], settings: Settings) -> Option<Gaussian> {
        let (n, p) = (cells.len(), codes.cols());
        let rows = || cells.iter().map(|c| codes.row(c.0 as usize));
        let mut mean = vec![0.0; p];
        rows().for_each(|z| mean.iter_mut().zip(z).for_each(|(m, &z)| *m += f64::from(z) / n as f64));
        let mut factor = vec![0.0; p * p];
        for z in rows() {
            for i in 0..p {
                let di = f64::from(z[i]) - mean[i];
                for j in if n < settings.diagonal_below { i..=i } else { 0..=i } {
                    factor[i * p + j] += di * (f64::from(z[j]) - mean[j]);
                }
            }
        }
        let divisor = n.saturating_sub(1).max(1) as f64;
        let (keep, add) = match settings.covariance {
            Covariance::Add(r) => (1.0, r),
            Covariance::Blend(r) => (1.0 - r, r),
        };
        factor.iter_mut().for_each(|v| *v *= keep / divisor);
        (0..p).for_each(|i| factor[i * p + i] += add);
        cholesky(&mut factor, p)?;
        let half_log_det = (0..p).map(|i| factor[i * p + i].ln()).sum();
        Some(Gaussian { label: cells[0].1, cells: n, mean, factor, half_log_det })
    }
}

/// Index of the greatest value, the first of equal ones.
pub(super) fn greatest(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |m, i| if values[i] > values[m] { i } else { m })
}

/// Accuracy beside what needs no code at all, on the same test cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Of the fitted Gaussians.
    pub qda: Accuracy,
    /// Of always naming the training cells' most frequent class.
    pub most_frequent: Accuracy,
    /// Expected accuracy of naming classes at random with their training frequencies.
    pub random: Accuracy,
    /// Classes that were fitted (in the fold that fitted most).
    pub classes: usize,
}

/// One test of a fit: counts of right answers and the two baselines, as fractions of the tested cells.
pub(super) struct Tested {
    pub(super) right: f64,
    pub(super) most_frequent: f64,
    pub(super) random: f64,
}

/// The baselines for true labels `truth` under training sizes `(label, cells)`, and the fraction for which `right` holds.
pub(super) fn compare(sizes: &[(u32, usize)], truth: &[u32], right: usize) -> Tested {
    let total: usize = sizes.iter().map(|s| s.1).sum();
    let most = sizes.iter().fold(None, |m: Option<(u32, usize)>, &s| if m.is_none_or(|m| s.1 > m.1) { Some(s) } else { m });
    let n = truth.len() as f64;
    let share = |label: u32| sizes.iter().find(|s| s.0 == label).map_or(0.0, |s| s.1 as f64 / total as f64);
    Tested {
        right: right as f64 / n,
        most_frequent: truth.iter().filter(|&&t| most.is_some_and(|m| m.0 == t)).count() as f64 / n,
        random: truth.iter().map(|&t| share(t)).sum::<f64>() / n,
    }
}

/// Fits on `train`, tests on `test` ((row, label) each). `None` if nothing could be fitted or tested.
pub fn hold_out(codes: Matrix<'_>, train: &[(u32, u32)], test: &[(u32, u32)], settings: Settings) -> Option<Scores> {
    over_folds(vec![test_once(codes, train, test, settings)])
}

/// Stratified cross-validation over the (row, label) `cells`. `None` if nothing could be fitted or tested in any fold.
pub fn cross_validate(codes: Matrix<'_>, cells: &[(u32, u32)], folds: usize, seed: u64, settings: Settings) -> Option<Scores> {
    let tests = splits(cells, folds, seed).into_par_iter().map(|(train, test)| test_once(codes, &train, &test, settings));
    over_folds(tests.collect())
}

/// (row, label) of some cells.
pub(super) type Cells = Vec<(u32, u32)>;

/// (training cells, test cells) of every fold.
pub(super) fn splits(cells: &[(u32, u32)], folds: usize, seed: u64) -> Vec<(Cells, Cells)> {
    let labels: Vec<u32> = cells.iter().map(|c| c.1).collect();
    let fold = stratified_folds(&labels, folds, seed);
    let folds = fold.iter().max().map_or(0, |m| m + 1);
    (0..folds)
        .map(|f| {
            let (test, train): (Vec<_>, Vec<_>) = cells.iter().zip(&fold).partition(|(_, of)| **of == f);
            let take = |side: Vec<(&(u32, u32), &usize)>| side.into_iter().map(|(c, _)| *c).collect();
            (take(train), take(test))
        })
        .collect()
}

fn test_once(codes: Matrix<'_>, train: &[(u32, u32)], test: &[(u32, u32)], settings: Settings) -> Option<(Tested, usize)> {
    let qda = Qda::fit(codes, train, settings)?;
    let known: Vec<(u32, u32)> = test.iter().copied().filter(|c| qda.knows(c.1)).collect();
    if known.is_empty() {
        return None;
    }
    let right = known.iter().filter(|c| qda.predict(codes.row(c.0 as usize)) == c.1).count();
    let truth: Vec<u32> = known.iter().map(|c| c.1).collect();
    Some((compare(&qda.sizes().collect::<Vec<_>>(), &truth, right), qda.classes.len()))
}

fn over_folds(tests: Vec<Option<(Tested, usize)>>) -> Option<Scores> {
    let tests: Vec<(Tested, usize)> = tests.into_iter().flatten().collect();
    let over = |f: fn(&Tested) -> f64| Accuracy::over(&tests.iter().map(|t| f(&t.0)).collect::<Vec<_>>());
    Some(Scores {
        qda: over(|t| t.right)?,
        most_frequent: over(|t| t.most_frequent)?,
        random: over(|t| t.random)?,
        classes: tests.iter().map(|t| t.1).max().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn density_is_the_normal_one() {
        // Six cells at ±1 and 0: mean 0, variance (4·1)/5; below 12 cells, so diagonal.
        let codes = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0];
        let cells: Vec<(u32, u32)> = (0..6).map(|i| (i, 3)).collect();
        let qda = Qda::fit(Matrix::new(&codes, 6, 2), &cells, Settings::default()).expect("six cells");
        let variance = 0.8 + 1e-4;
        let want = -(std::f64::consts::TAU * variance).ln() - 0.5 * (1.0 + 4.0) / variance;
        assert!((qda.log_densities(&[1.0, 2.0])[0] - want).abs() < 1e-12);
        assert!(qda.knows(3) && !qda.knows(2) && qda.predict(&[9.0, 9.0]) == 3);
        assert!(Qda::fit(Matrix::new(&codes, 6, 2), &cells[..5], Settings::default()).is_none());
    }

    #[test]
    fn small_classes_and_their_test_cells_are_left_out() {
        let mut draws = Sequence::new(1, 0, 0);
        let codes: Vec<f32> = (0..43).map(|i| draws.next_normal() + if i % 2 == 0 { 20.0 } else { 0.0 }).collect();
        let codes = Matrix::new(&codes, 43, 1);
        let mut cells: Vec<(u32, u32)> = (0..40).map(|i| (i, i % 2)).collect();
        cells.extend([(40, 7), (41, 7), (42, 7)]);
        let scores = cross_validate(codes, &cells, 5, 0, Settings::default()).expect("two classes");
        assert_eq!((scores.qda.mean, scores.classes, scores.qda.folds), (1.0, 2, 5));
        assert!((scores.most_frequent.mean - 0.5).abs() < 0.2 && (scores.random.mean - 0.5).abs() < 0.01);
        let out = hold_out(codes, &cells[..20], &cells[20..], Settings::default()).expect("two classes");
        assert_eq!((out.qda.mean, out.most_frequent.mean, out.random.mean), (1.0, 0.5, 0.5));
        assert_eq!(hold_out(codes, &cells[..20], &cells[40..], Settings::default()), None);
        assert_eq!(cross_validate(codes, &[], 5, 0, Settings::default()), None);
        assert_eq!(cross_validate(codes, &cells[..1], 5, 0, Settings::default()), None);
    }

    #[test]
    fn a_class_in_one_point_still_has_a_density() {
        let codes = [1.0f32; 12];
        let cells: Vec<(u32, u32)> = (0..12).map(|i| (i, 0)).collect();
        let qda = Qda::fit(Matrix::new(&codes, 12, 1), &cells, Settings::default()).expect("regularised");
        assert!(qda.log_densities(&[1.0])[0].is_finite());
    }
}
