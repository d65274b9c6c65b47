//! Stratified folds, and the mean and standard error over them.

use crate::engine::rng::Sequence;
use crate::metrics::matrix::stream;

/// A mean over folds with its standard error (0 for a single fold).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Mean over the folds that tested a cell.
    pub mean: f64,
    /// Deviation over folds (n - 1) divided by √folds.
    pub standard_error: f64,
    /// Number of folds that tested a cell.
    pub folds: usize,
}

impl Accuracy {
    /// Of one value a fold; `None` without any.
    pub(super) fn over(values: &[f64]) -> Option<Accuracy> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
        let standard_error = if values.len() > 1 { (square / (n - 1.0) / n).sqrt() } else { 0.0 };
        Some(Accuracy { mean, standard_error, folds: values.len() })
    }
}

/// The fold, below `folds`, of each of `labels`: every class is shuffled by the seed and dealt in turn, each class going on where the
/// one before ended, so that folds differ by at most one cell in all and in every class. At most one fold a cell.
pub fn stratified_folds(labels: &[u32], folds: usize, seed: u64) -> Vec<usize> {
    let folds = folds.min(labels.len()).max(1);
    let mut cells: Vec<usize> = (0..labels.len()).collect();
    Sequence::new(seed, stream::FOLDS, 0).shuffle(&mut cells);
    cells.sort_by_key(|&i| labels[i]); // stable: shuffled within a class
    let mut fold = vec![0; labels.len()];
    cells.into_iter().enumerate().for_each(|(turn, i)| fold[i] = turn % folds);
    fold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_even_in_all_and_in_every_class() {
        let labels: Vec<u32> = (0..103).map(|i| u32::from(i % 7 == 0) + u32::from(i > 90)).collect();
        let fold = stratified_folds(&labels, 10, 3);
        let count = |f: usize, c: Option<u32>| (0..103).filter(|&i| fold[i] == f && c.is_none_or(|c| labels[i] == c)).count();
        for class in [None, Some(0), Some(1), Some(2)] {
            let counts: Vec<usize> = (0..10).map(|f| count(f, class)).collect();
            assert!(counts.iter().max().expect("ten") - counts.iter().min().expect("ten") <= 1, "{counts:?}");
        }
        assert_eq!(fold, stratified_folds(&labels, 10, 3));
        assert_ne!(fold, stratified_folds(&labels, 10, 4));
        assert_eq!(stratified_folds(&[1, 1], 10, 0).iter().max(), Some(&1));
        assert!(stratified_folds(&[], 10, 0).is_empty());
    }

    #[test]
    fn accuracy_has_the_standard_error_of_the_mean() {
        let a = Accuracy::over(&[0.5, 0.7, 0.9]).expect("three folds");
        assert!((a.mean - 0.7).abs() < 1e-15 && (a.standard_error - 0.2 / 3f64.sqrt()).abs() < 1e-15);
        assert_eq!(Accuracy::over(&[0.5]).expect("one fold").standard_error, 0.0);
        assert_eq!(Accuracy::over(&[]), None);
    }
}
