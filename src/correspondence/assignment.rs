//! One-to-one pairs out of a table: the assignment with the largest total, exact.
//!
//!   maximise Σ_i x[i, p(i)] over all p that give no column twice; every row gets a column if m ≤ n, every column a row if m ≥ n
//!   shapes   x [m, n]; result: for each row its column, none for the rows left over if m > n
//!
//! The Hungarian method with potentials: rows enter one after the other, each along the shortest augmenting path under reduced costs, in
//! f64. Operations min(m, n)² · max(m, n), memory 40 bytes a column besides the table (twice the table if m > n).
//! Source: Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems",
//! Computing 38 (1987) 325-340, without its initialisation.

use crate::error::{Error, Result};

/// The column of each row in the assignment of largest total; ties go to the smaller column in the order of the search.
pub fn best_assignment(gains: &[f32], [m, n]: [usize; 2]) -> Result<Vec<Option<u32>>> {
    if gains.len() != m * n {
        return Err(Error::usage(format!("an assignment needs a table of {m} x {n}, this one has {} values", gains.len())));
    }
    if let Some(at) = gains.iter().position(|v| !v.is_finite()) {
        return Err(Error::usage(format!("an assignment needs finite values: row {}, column {} is {}", at / n, at % n, gains[at])));
    }
    if m <= n {
        return Ok(columns_of_rows(gains, m, n).into_iter().map(Some).collect());
    }
    let turned: Vec<f32> = (0..m * n).map(|e| gains[e % m * n + e / m]).collect();
    let mut found = vec![None; m];
    for (column, row) in columns_of_rows(&turned, n, m).into_iter().enumerate() {
        found[row as usize] = Some(column as u32);
    }
    Ok(found)
}

const NOBODY: usize = usize::MAX;

/// For m ≤ n.
fn columns_of_rows(gains: &[f32], m: usize, n: usize) -> Vec<u32> {
    // Costs are -gains; reduced cost of (i, j): -x[i, j] - u[i] - v[j] ≥ 0, and 0 on the pairs made.
    let (mut u, mut v) = (vec![0.0f64; m], vec![0.0f64; n]);
    let mut row_of = vec![NOBODY; n];
    let mut nearest = vec![f64::INFINITY; n]; // length of the shortest path known to each column
    let mut before = vec![NOBODY; n]; // the column before it on that path
    let mut done = vec![false; n];
    for new in 0..m {
        nearest.fill(f64::INFINITY);
        before.fill(NOBODY);
        done.fill(false);
        let (mut row, mut from) = (new, NOBODY);
        let end = loop {
            let (mut next, mut step) = (NOBODY, f64::INFINITY);
            let gains = &gains[row * n..][..n];
            for j in 0..n {
                if done[j] {
                    continue;
                }
                let reduced = -f64::from(gains[j]) - u[row] - v[j];
                if reduced < nearest[j] {
                    (nearest[j], before[j]) = (reduced, from);
                }
                if nearest[j] < step {
                    (step, next) = (nearest[j], j);
                }
            }
            // Lengths are kept relative to the column reached last, so potentials move as the path grows.
            u[new] += step;
            for j in 0..n {
                if done[j] {
                    u[row_of[j]] += step;
                    v[j] -= step;
                } else {
                    nearest[j] -= step;
                }
            }
            done[next] = true;
            if row_of[next] == NOBODY {
                break next;
            }
            (row, from) = (row_of[next], next);
        };
        let mut at = end;
        while before[at] != NOBODY {
            row_of[at] = row_of[before[at]];
            at = before[at];
        }
        row_of[at] = new;
    }
    let mut columns = vec![0; m];
    for (j, &i) in row_of.iter().enumerate().filter(|r| *r.1 != NOBODY) {
        columns[i] = j as u32;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::values;

    /// The largest total by trying everything.
    fn brute(gains: &[f32], row: usize, m: usize, n: usize, taken: u32, left_out: usize) -> f64 {
        if row == m {
            return 0.0;
        }
        let with = (0..n)
            .filter(|j| taken >> j & 1 == 0)
            .map(|j| f64::from(gains[row * n + j]) + brute(gains, row + 1, m, n, taken | 1 << j, left_out));
        let without = (left_out > 0).then(|| brute(gains, row + 1, m, n, taken, left_out.saturating_sub(1)));
        with.chain(without).fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn totals_are_those_of_trying_everything() {
        for (salt, [m, n]) in [[1, 1], [1, 4], [4, 1], [3, 3], [5, 7], [7, 5], [7, 7], [6, 6]].into_iter().cycle().take(160).enumerate() {
            // Every other table in quarters, for ties.
            let mut x = values(m * n, salt as u32);
            if salt % 2 == 1 {
                x.iter_mut().for_each(|v| *v = (4.0 * *v).round() / 4.0);
            }
            let pairs = best_assignment(&x, [m, n]).unwrap();
            let mut columns: Vec<u32> = pairs.iter().flatten().copied().collect();
            assert_eq!(columns.len(), m.min(n));
            columns.sort_unstable();
            columns.dedup();
            assert_eq!(columns.len(), m.min(n), "a column was given twice");
            let total: f64 = pairs.iter().enumerate().filter_map(|(i, j)| j.map(|j| f64::from(x[i * n + j as usize]))).sum();
            let best = brute(&x, 0, m, n, 0, m.saturating_sub(n));
            assert!((total - best).abs() < 1e-9, "[{m}, {n}], table {salt}: {total}, the best is {best}");
        }
    }

    #[test]
    fn a_hidden_permutation_is_found() {
        let n = 300;
        let mut x = values(n * n, 3);
        let hidden = |i: usize| (i * 7 + 11) % n;
        (0..n).for_each(|i| x[i * n + hidden(i)] += 2.5);
        let pairs = best_assignment(&x, [n, n]).unwrap();
        assert!(pairs.iter().enumerate().all(|(i, &j)| j == Some(hidden(i) as u32)));
    }

    #[test]
    fn nothing_to_assign_and_values_that_are_no_numbers() {
        assert_eq!(best_assignment(&[], [0, 3]).unwrap(), []);
        assert_eq!(best_assignment(&[], [2, 0]).unwrap(), [None, None]);
        assert!(best_assignment(&[1.0, f32::NAN], [1, 2]).unwrap_err().to_string().contains("row 0, column 1 is NaN"));
        assert!(best_assignment(&[1.0], [1, 2]).is_err());
    }
}
