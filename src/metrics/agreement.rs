//! Adjusted mutual information of two labelings of the same cells (Vinh, Epps and Bailey 2010).
//!
//!   AMI = (MI - E(MI)) / (½(H(U) + H(V)) - E(MI))
//!
//! E(MI) is exact: over all labelings with the same class sizes a, b, a cell of the contingency table is hypergeometric,
//!
//!   E(MI) = Σ_ij Σ_k (k/N)·ln(N·k / (a_i·b_j)) · a_i! b_j! (N-a_i)! (N-b_j)! / (N! k! (a_i-k)! (b_j-k)! (N-a_i-b_j+k)!)
//!
//! 1 is the same partition, 0 is chance. The generalised mean is the arithmetic one.

use rayon::prelude::*;

/// The AMI of labels `u` and `v`, cell by cell. `None` without cells; 1 if both are one class.
#[track_caller]
pub fn adjusted_mutual_information(u: &[u32], v: &[u32]) -> Option<f64> {
    assert_eq!(u.len(), v.len(), "two labelings of the same cells");
    if u.is_empty() {
        return None;
    }
    let n = u.len();
    let (a, b) = (sizes(u), sizes(v));
    if a.len() == 1 && b.len() == 1 {
        return Some(1.0);
    }
    let mut pairs: Vec<(u32, u32)> = u.iter().copied().zip(v.iter().copied()).collect();
    pairs.sort_unstable();
    let size = |sizes: &[(u32, usize)], label: u32| sizes[sizes.binary_search_by_key(&label, |s| s.0).expect("counted")].1 as f64;
    let total = n as f64;
    let information = |pair: &[(u32, u32)]| {
        let k = pair.len() as f64;
        k / total * (total * k / (size(&a, pair[0].0) * size(&b, pair[0].1))).ln()
    };
    let mutual: f64 = pairs.chunk_by(|x, y| x == y).map(information).sum();
    let expected = expected_information(&a, &b, n);
    let denominator = 0.5 * (entropy(&a, total) + entropy(&b, total)) - expected;
    // Only one partition into the same sizes exists (all cells alone, say): chance does as well, and both are the same.
    if denominator.abs() < 1e-14 {
        Some(if (mutual - expected).abs() < 1e-14 { 1.0 } else { 0.0 })
    } else {
        Some((mutual - expected) / denominator)
    }
}

/// (label, cells), labels ascending.
fn sizes(labels: &[u32]) -> Vec<(u32, usize)> {
    let mut sorted = labels.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|x, y| x == y).map(|c| (c[0], c.len())).collect()
}

fn entropy(sizes: &[(u32, usize)], total: f64) -> f64 {
    -sizes.iter().map(|s| s.1 as f64 / total * (s.1 as f64 / total).ln()).sum::<f64>()
}

fn expected_information(a: &[(u32, usize)], b: &[(u32, usize)], n: usize) -> f64 {
    let mut log_factorial = Vec::with_capacity(n + 1);
    let mut sum = 0.0;
    log_factorial.push(0.0);
    for k in 1..=n {
        sum += (k as f64).ln();
        log_factorial.push(sum);
    }
    let lf = |k: usize| log_factorial[k];
    let total = n as f64;
    let row = |&(_, ai): &(u32, usize)| -> f64 {
        let cell = |&(_, bj): &(u32, usize)| -> f64 {
            let fixed = lf(ai) + lf(bj) + lf(n - ai) + lf(n - bj) - lf(n);
            let product = ai as f64 * bj as f64;
            let term = |k: usize| {
                let log_p = fixed - lf(k) - lf(ai - k) - lf(bj - k) - lf(n + k - ai - bj);
                k as f64 / total * (total * k as f64 / product).ln() * log_p.exp()
            };
            ((ai + bj).saturating_sub(n).max(1)..=ai.min(bj)).map(term).sum()
        };
        b.iter().map(cell).sum()
    };
    a.par_iter().map(row).collect::<Vec<f64>>().iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_partitions_score_one_whatever_their_names() {
        let close = |u: &[u32], v: &[u32], want: f64| {
            let got = adjusted_mutual_information(u, v).expect("cells");
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        };
        close(&[0, 0, 1, 1, 2], &[7, 7, 3, 3, 9], 1.0);
        close(&[5, 5], &[1, 1], 1.0);
        close(&[0, 1, 2], &[2, 1, 0], 1.0);
        // One side is one class: no information, and none expected.
        close(&[0, 0, 0, 0], &[0, 1, 0, 1], 0.0);
        assert_eq!(adjusted_mutual_information(&[], &[]), None);
    }

    #[test]
    fn expectation_is_the_mean_over_all_labelings() {
        // Sizes (2, 2) against (2, 2): of 6 placements 2 match (MI = ln 2) and 4 cross (MI = 0).
        let s = [(0, 2), (1, 2)];
        assert!((expected_information(&s, &s, 4) - 2.0f64.ln() / 3.0).abs() < 1e-14);
    }
}
