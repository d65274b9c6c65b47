//! F1 of predicted classes.
//!
//!   of a class   2 TP / (2 TP + FP + FN)
//!   macro        the mean over classes; a class that is neither true nor predicted anywhere is left out
//!   weighted     the mean weighted by the true cells of the classes

/// Both means of the classes' F1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct F1 {
    /// Every class counts the same.
    pub of_classes: f64,
    /// Every cell counts the same.
    pub of_cells: f64,
}

/// From (true, predicted) classes; `None` without cells.
pub fn f1(cells: impl IntoIterator<Item = (u32, u32)>) -> Option<F1> {
    // By class: true, predicted, both.
    let mut counts: Vec<[f64; 3]> = Vec::new();
    let mut n = 0.0;
    for (truth, predicted) in cells {
        let needed = truth.max(predicted) as usize + 1;
        if counts.len() < needed {
            counts.resize(needed, [0.0; 3]);
        }
        counts[truth as usize][0] += 1.0;
        counts[predicted as usize][1] += 1.0;
        counts[truth as usize][2] += f64::from(truth == predicted);
        n += 1.0;
    }
    let seen: Vec<&[f64; 3]> = counts.iter().filter(|c| c[0] + c[1] > 0.0).collect();
    let of = |c: &[f64; 3]| 2.0 * c[2] / (c[0] + c[1]);
    (n > 0.0).then(|| F1 {
        of_classes: seen.iter().map(|c| of(c)).sum::<f64>() / seen.len() as f64,
        of_cells: seen.iter().map(|c| c[0] * of(c)).sum::<f64>() / n,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_matches_the_counts_and_classes_that_are_nowhere_do_not_count() {
        // Class 0: true 3, predicted 2, both 2; class 2: true 1, predicted 1, both 0; class 4: true 0, predicted 1.
        let cells = [(0, 0), (0, 0), (0, 2), (2, 4)];
        let f = f1(cells).unwrap();
        assert!((f.of_classes - (4.0 / 5.0) / 3.0).abs() < 1e-12, "{f:?}");
        assert!((f.of_cells - (3.0 * 4.0 / 5.0) / 4.0).abs() < 1e-12, "{f:?}");
        assert_eq!(f1([]), None);
    }
}
