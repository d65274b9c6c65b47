//! The formulas written plainly in f64, values that POT gave, and what must hold of any plan.

use super::super::testing::*;
use super::*;

/// (f, g, P) after so many rounds, in f64.
fn plain(c: &[f32], a: &[f64], b: &[f64], epsilon: f64, rounds: usize, [rows, cols]: [Masses; 2]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (m, n) = (a.len(), b.len());
    let (mut f, mut g) = (vec![0.0f64; m], vec![0.0f64; n]);
    let potential = |terms: Vec<f64>, mass: f64, masses: Masses| {
        let top = terms.iter().fold(f64::NEG_INFINITY, |m, &t| m.max(t));
        let log_sum = top + terms.iter().map(|t| (t - top).exp()).sum::<f64>().ln();
        match masses {
            Masses::Exact => epsilon * mass.ln() - epsilon * log_sum,
            Masses::Relaxed(rho) => epsilon * mass.ln() - f64::from(rho) / (f64::from(rho) + epsilon) * epsilon * log_sum,
            Masses::AtMost => (epsilon * mass.ln() - epsilon * log_sum).min(0.0),
        }
    };
    for _ in 0..rounds {
        g = (0..n).map(|j| potential((0..m).map(|i| (f[i] - f64::from(c[i * n + j])) / epsilon).collect(), b[j], cols)).collect();
        f = (0..m).map(|i| potential((0..n).map(|j| (g[j] - f64::from(c[i * n + j])) / epsilon).collect(), a[i], rows)).collect();
    }
    let p = (0..m * n).map(|e| ((f[e / n] + g[e % n] - f64::from(c[e])) / epsilon).exp()).collect();
    (f, g, p)
}

fn masses(n: usize, salt: u32) -> Vec<f64> {
    let v: Vec<f64> = values(n, salt).iter().map(|v| f64::from(v.abs()) + 0.1).collect();
    let total: f64 = v.iter().sum();
    v.iter().map(|v| v / total).collect()
}

fn logs(a: &[f64]) -> Vec<f32> {
    a.iter().map(|a| a.ln() as f32).collect()
}

#[test]
fn rounds_and_plans_match_f64_past_a_tile() {
    let sides = [
        [Masses::Exact, Masses::Exact],
        [Masses::Relaxed(0.7), Masses::Relaxed(2.0)],
        [Masses::Exact, Masses::AtMost],
        [Masses::AtMost, Masses::Exact],
    ];
    for ([m, n], epsilon) in [([1, 1], 0.5), ([3, 5], 0.05), ([65, 131], 0.02), ([130, 300], 0.3)] {
        let c: Vec<f32> = values(m * n, 1).iter().map(|v| v.abs()).collect();
        let before: Vec<f32> = values(m * n, 4).iter().map(|v| v.abs() / (m * n) as f32).collect();
        let (a, b) = (masses(m, 2), masses(n, 3));
        for [rows, cols] in sides {
            let (f, g, p) = plain(&c, &a, &b, f64::from(epsilon), 5, [rows, cols]);
            let (last, _, _) = plain(&c, &a, &b, f64::from(epsilon), 4, [rows, cols]);
            let sum = |i: usize| p[i * n..][..n].iter().sum::<f64>();
            // The same l_i, so the row's sum before is in the ratio of the potentials.
            let moved: Vec<f64> = (0..m).map(|i| (sum(i) - sum(i) * ((last[i] - f[i]) / f64::from(epsilon)).exp()).abs()).collect();
            let over_row = |of: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..m).map(|i| (i * n..(i + 1) * n).map(of).sum()).collect() };
            let change = over_row(&|e| (p[e] - f64::from(before[e])).abs());
            let entropy = over_row(&|e| p[e] * (p[e] / (a[e / n] * b[e % n])).ln());
            let mut bits = None;
            for (device, mut s) in steps() {
                let state = s.sinkhorn_state(&logs(&a), &logs(&b)).unwrap();
                s.begin(false, 1, 0).unwrap();
                let (cost, plan) = (s.constant([m, n], &c), s.constant([m, n], &before));
                (0..5).for_each(|_| s.sinkhorn_round(&state, cost, epsilon, rows, cols));
                s.sinkhorn_plan(&state, plan, cost, epsilon);
                let sums: Vec<f64> = (0..m).map(sum).collect();
                for (v, want, tolerance) in [
                    (state.f, &f, 2e-6),
                    (state.g, &g, 2e-6),
                    (plan, &p, 2e-5),
                    (state.row_sums, &sums, 2e-5),
                    (state.changes, &change, 2e-5),
                    (state.entropies, &entropy, 1e-4),
                    (state.rows_moved, &moved, 2e-2),
                ] {
                    let got = s.download(v).unwrap();
                    compare(&format!("{device} [{m}, {n}] {rows:?} {cols:?}"), &got, want, tolerance);
                }
                if device.starts_with("emulated") {
                    let got = s.download(plan).unwrap();
                    assert_eq!(bits.get_or_insert(got.clone()), &got, "{device}");
                }
                s.finish().unwrap();
            }
        }
    }
}

#[test]
fn exact_masses_come_out_and_no_more_than_the_cap() {
    let (m, n) = (40, 70);
    let c: Vec<f32> = values(m * n, 1).iter().map(|v| 3.0 * v.abs()).collect();
    let (a, cap) = (vec![1.0 / m as f64; m], vec![1.0 / m as f64; n]);
    for (device, mut s) in steps() {
        let state = s.sinkhorn_state(&logs(&a), &logs(&cap)).unwrap();
        s.begin(false, 1, 0).unwrap();
        let (cost, plan) = (s.constant([m, n], &c), s.alloc([m, n]));
        (0..400).for_each(|_| s.sinkhorn_round(&state, cost, 0.05, Masses::Exact, Masses::AtMost));
        s.sinkhorn_plan(&state, plan, cost, 0.05);
        let p = s.download(plan).unwrap();
        for i in 0..m {
            let sum: f32 = p[i * n..][..n].iter().sum();
            assert!((sum * m as f32 - 1.0).abs() < 1e-4, "{device}: row {i} has {sum}");
        }
        let cols: Vec<f32> = (0..n).map(|j| (0..m).map(|i| p[i * n + j]).sum()).collect();
        assert!(cols.iter().all(|&c| c * m as f32 <= 1.001), "{device}");
        assert!(cols.iter().any(|&c| c * (m as f32) < 0.5), "{device}: some columns stay short of it");
        s.finish().unwrap();
    }
}

/// An ε a thousandth of the costs, where exp(-C/ε) itself is 0 in f32.
#[test]
fn a_small_epsilon_neither_underflows_nor_depends_on_the_threads() {
    let (m, n) = (300, 170);
    let c: Vec<f32> = values(m * n, 1).iter().map(|v| 5.0 + v).collect();
    let (a, b) = (vec![1.0 / m as f64; m], vec![1.0 / n as f64; n]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut s = Step::new(crate::device::Device::cpu(), 7, crate::engine::Precision::F32).unwrap();
            let state = s.sinkhorn_state(&logs(&a), &logs(&b)).unwrap();
            s.begin(false, 1, 0).unwrap();
            let (cost, plan) = (s.constant([m, n], &c), s.alloc([m, n]));
            (0..30).for_each(|_| s.sinkhorn_round(&state, cost, 0.005, Masses::Exact, Masses::Exact));
            s.sinkhorn_plan(&state, plan, cost, 0.005);
            s.download(plan).unwrap()
        })
    };
    let one = run(1);
    assert!((one.iter().sum::<f32>() - 1.0).abs() < 1e-3);
    assert_eq!(one, run(3));
}
