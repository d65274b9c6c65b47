//! How well two embeddings of the same cells lie on one another.
//!
//!   foscttm            for each paired cell of one modality, the cells of the other strictly closer than its match, over their number
//!                      N; mean of both directions. The pool is the evaluated pairs' cells; 0 is best, 0.5 is chance
//!   knn_accuracy@K     whether the match is among the K nearest cells of the other modality (ties: lower row first); the pool is
//!                      all cells of that modality
//!   lta                label transfer accuracy: kNN (k = 5, Euclidean, ties to the smallest label)
//!   class_accuracy     the same with k = 10, l1, ties to the nearest of the tied labels
//!
//! Sources: Liu et al. 2019 (foscttm; here divided by N, not N - 1); Johansen and Quon 2019 (lta); Yang et al. 2021 (the kNN accuracies).
//! All counts are integers added over cells, so nothing depends on the order of threads.

use super::matrix::Matrix;
use super::neighbours::{Classifier, Distance, Pool, Ties};
use rayon::prelude::*;

/// Fraction of cells closer than the true match over `pairs` (row of a, row of b); a cell in two pairs counts twice.
/// `None` without pairs.
#[track_caller]
pub fn foscttm(a: Matrix<'_>, b: Matrix<'_>, pairs: &[(u32, u32)], distance: Distance) -> Option<f64> {
    if pairs.is_empty() {
        return None;
    }
    let (rows_a, rows_b): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
    let closer = |from: Matrix<'_>, queries: &[u32], to: Matrix<'_>, pool: &[u32]| -> u64 {
        let stored = Pool::new(to, pool);
        let counts = queries.par_iter().zip(pool.par_iter()).with_min_len(16).map(|(&query, &own)| {
            let query = from.row(query as usize);
            let limit = distance.comparable(query, to.row(own as usize));
            let mut count = 0u64;
            stored.scan(distance, query, |_, d| count += d.iter().filter(|&&d| d < limit).count() as u64);
            count
        });
        counts.sum()
    };
    let total = closer(a, &rows_a, b, &rows_b) + closer(b, &rows_b, a, &rows_a);
    let n = pairs.len() as f64;
    Some(total as f64 / (2.0 * n * n))
}

/// Fraction of `pairs` whose b is among the `k` nearest of all cells of `b` to its a, one value a `k`. `None` without pairs.
#[track_caller]
pub fn knn_accuracy<const K: usize>(a: Matrix<'_>, b: Matrix<'_>, pairs: &[(u32, u32)], k: [usize; K]) -> Option<[f64; K]> {
    if pairs.is_empty() {
        return None;
    }
    let pool = Pool::new(b, &b.all_rows());
    let ranks: Vec<usize> = pairs
        .par_iter()
        .with_min_len(16)
        .map(|&(query, own)| {
            let (query, own) = (a.row(query as usize), own as usize);
            let limit = Distance::L1.comparable(query, b.row(own));
            let mut rank = 0;
            pool.scan(Distance::L1, query, |first, distances| {
                rank += distances.iter().enumerate().filter(|&(j, &d)| d < limit || (d == limit && first + j < own)).count();
            });
            rank
        })
        .collect();
    Some(k.map(|k| ranks.iter().filter(|&&rank| rank < k).count() as f64 / pairs.len() as f64))
}

/// The other definition of that accuracy, the public program's of Yang (2021): a pair (i, i') counts if the cell of `b` nearest to aᵢ is
/// among the k nearest to bᵢ', which is itself one of them. It judges the neighbourhood in `b` as much as the match.
pub fn knn_accuracy_repo<const K: usize>(a: Matrix<'_>, b: Matrix<'_>, pairs: &[(u32, u32)], k: [usize; K]) -> Option<[f64; K]> {
    if pairs.is_empty() || b.rows() == 0 {
        return None;
    }
    let all: Vec<u32> = (0..b.rows() as u32).collect();
    let pool = Pool::new(b, &all);
    let queries: Vec<u32> = pairs.iter().map(|p| p.0).collect();
    let nearest = pool.nearest(Distance::L1, a, &queries, 1);
    let ranks: Vec<usize> = pairs
        .par_iter()
        .enumerate()
        .with_min_len(16)
        .map(|(i, &(_, own))| {
            let (own, Some(found)) = (b.row(own as usize), nearest.of(i).next()) else { return usize::MAX };
            let limit = Distance::L1.comparable(own, b.row(found));
            let mut rank = 0;
            pool.scan(Distance::L1, own, |first, distances| {
                rank += distances.iter().enumerate().filter(|&(j, &d)| d < limit || (d == limit && first + j < found)).count();
            });
            rank
        })
        .collect();
    Some(k.map(|k| ranks.iter().filter(|&&rank| rank < k).count() as f64 / pairs.len() as f64))
}

/// Labelled cells of one modality: the embedding, the rows that are meant, a label for each row of the embedding.
#[derive(Clone, Copy)]
pub struct Labelled<'a> {
    /// Cells x latent.
    pub cells: Matrix<'a>,
    /// The rows that take part.
    pub rows: &'a [u32],
    /// One entry a row of `cells`; `None` is unlabelled.
    pub labels: &'a [Option<u32>],
}

/// Label transfer accuracy: learns from `train`, is tested on `test`. `None` if either has no labelled cell.
pub fn lta(train: Labelled<'_>, test: Labelled<'_>) -> Option<f64> {
    Classifier::new(train.cells, train.rows, train.labels, 5, Distance::Euclidean, Ties::Smallest).accuracy(
        test.cells,
        test.rows,
        test.labels,
    )
}

/// Accuracy of a 10-nearest-neighbours classifier in l1 that learned from `train`. `None` if either has no labelled cell.
pub fn class_accuracy(train: Labelled<'_>, test: Labelled<'_>) -> Option<f64> {
    Classifier::new(train.cells, train.rows, train.labels, 10, Distance::L1, Ties::Nearest).accuracy(test.cells, test.rows, test.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foscttm_matches_a_count_by_hand() {
        // Matches are 0.5, 2 and 1 apart. Only a = 1 has something closer, b = 0.5; from b = 0.5 and b = 3 there are ties, not closer.
        let (a, b) = ([0.0, 1.0, 5.0], [0.5, 3.0, 4.0]);
        let (a, b) = (Matrix::new(&a, 3, 1), Matrix::new(&b, 3, 1));
        let pairs = [(0, 0), (1, 1), (2, 2)];
        assert_eq!(foscttm(a, b, &pairs, Distance::Euclidean), Some(1.0 / 18.0));
        // Turned matches: only the pairs' own cells are the pool.
        assert_eq!(foscttm(a, b, &[(0, 1), (1, 0)], Distance::L1), Some(2.0 / 8.0));
        assert_eq!(foscttm(a, b, &[(0, 0)], Distance::L1), Some(0.0));
        assert_eq!(foscttm(a, b, &[], Distance::L1), None);
        assert_eq!(foscttm(Matrix::new(&[], 0, 0), Matrix::new(&[], 0, 0), &[], Distance::L1), None);
    }

    #[test]
    fn codes_in_one_point_have_nothing_strictly_closer() {
        let same = [1.0; 6];
        let m = Matrix::new(&same, 6, 1);
        let pairs: Vec<(u32, u32)> = (0..6).map(|i| (i, i)).collect();
        assert_eq!(foscttm(m, m, &pairs, Distance::Euclidean), Some(0.0));
        // Ties go to the lower row: cell i has i cells before its own.
        assert_eq!(knn_accuracy(m, m, &pairs, [1, 3, 50]), Some([1.0 / 6.0, 0.5, 1.0]));
        assert_eq!(knn_accuracy(m, m, &[], [1]), None);
    }

    #[test]
    fn the_two_accuracies_differ_as_their_definitions_do() {
        // a's nearest is b₁ = 1.1, its own b₀ = 0 lies second; from b₀ the nearest are itself, then b₁.
        let (a, b) = ([1.0], [0.0, 1.1, 9.0]);
        let (a, b) = (Matrix::new(&a, 1, 1), Matrix::new(&b, 3, 1));
        assert_eq!(knn_accuracy(a, b, &[(0, 0)], [1, 2]), Some([0.0, 1.0]));
        assert_eq!(knn_accuracy_repo(a, b, &[(0, 0)], [1, 2]), Some([0.0, 1.0]));
        // Its own is far and its nearest's neighbour is not: never among two by the one, by the other neither.
        assert_eq!(knn_accuracy_repo(a, b, &[(0, 2)], [1, 2, 3]), Some([0.0, 1.0, 1.0]));
        assert_eq!(knn_accuracy(a, b, &[(0, 2)], [1, 2, 3]), Some([0.0, 0.0, 1.0]));
        assert_eq!(knn_accuracy_repo(a, b, &[], [1]), None);
    }

    #[test]
    fn labels_travel_between_modalities_and_unlabelled_cells_stay_out() {
        let (a, b) = ([0.0, 0.1, 9.0, 9.1, 4.0], [0.2, 0.3, 9.2, 9.3, 0.0]);
        let (a, b) = (Matrix::new(&a, 5, 1), Matrix::new(&b, 5, 1));
        let labels = [Some(0), Some(0), Some(1), Some(1), None];
        let rows = [0, 1, 2, 3, 4];
        let (learn, asked) =
            (Labelled { cells: b, rows: &rows[..3], labels: &labels }, Labelled { cells: a, rows: &rows, labels: &labels });
        // Three neighbours at most, two of them labelled 0: every cell is called 0.
        assert_eq!(lta(learn, asked), Some(0.5));
        assert_eq!(class_accuracy(learn, asked), Some(0.5));
        assert_eq!(lta(Labelled { rows: &[4], ..learn }, asked), None);
        assert_eq!(lta(learn, Labelled { rows: &[], ..asked }), None);
    }
}
