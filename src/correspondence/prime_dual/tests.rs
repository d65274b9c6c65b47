//! The published algorithm in f64 beside the solver, the trace of the original's fixture, and what is true of any data.

use super::*;
use crate::correspondence::{Metric, distances, fixture};
use crate::engine::ops::testing::{compare, devices, values};
use crate::metrics::matrix::Matrix;

/// Distances of `n` random cells.
fn some_distances(n: usize, salt: u32) -> Vec<f32> {
    distances(Matrix::new(&values(n * 3, salt), n, 3), Metric::Euclidean, 40).unwrap()
}

/// The algorithm as section 6 of the specification writes it, with its four products: F and (error, a).
fn plain(a: &[f32], b: &[f32], o: &Options) -> (Vec<f64>, f64, f64) {
    let (m, n) = (a.len().isqrt(), b.len().isqrt());
    let [ka, kb] = [a, b].map(|k| k.iter().map(|&d| f64::from(d) / n as f64).collect::<Vec<_>>());
    let product = |x: &[f64], y: &[f64], [r, k, c]: [usize; 3]| -> Vec<f64> {
        (0..r * c).map(|e| (0..k).map(|i| x[e / c * k + i] * y[i * c + e % c]).sum()).collect()
    };
    let turned = |x: &[f64], r: usize, c: usize| -> Vec<f64> { (0..r * c).map(|e| x[e % r * c + e / r]).collect() };
    let (rho, eps) = (f64::from(o.penalty), f64::from(o.step));
    let mut scale = (o.features[1] as f64 / o.features[0] as f64).sqrt();
    let [mut f, mut m1, mut m2, mut g, mut h] = [0; 5].map(|_| vec![0.0; m * n]);
    let (mut mu, mut lambda, mut s) = (vec![0.0; m], vec![0.0; n], vec![0.0; n]);
    for t in 1..=o.iterations as i32 {
        let first = product(&g, &product(&turned(&f, m, n), &g, [n, m, n]), [m, n, n]);
        let row: Vec<f64> = f.chunks(n).map(|r| r.iter().sum()).collect();
        let col: Vec<f64> = (0..n).map(|j| (0..m).map(|i| f[i * n + j]).sum()).collect();
        for e in 0..m * n {
            let (i, j) = (e / n, e % n);
            let d = 4.0 * first[e] - 4.0 * scale * h[e] + mu[i] + lambda[j] + rho * (row[i] + col[j] + s[j] - 2.0);
            m1[e] = 0.9 * m1[e] + 0.1 * d;
            m2[e] = 0.999 * m2[e] + 0.001 * d * d;
            let u = m1[e] / (1.0 - 0.9f64.powi(t)) / ((m2[e] / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-7);
            f[e] = (1.0 - eps) * f[e] + eps * (f[e] - u).max(0.0);
        }
        for i in 0..m {
            mu[i] += eps * (f[i * n..][..n].iter().sum::<f64>() - 1.0);
        }
        for j in 0..n {
            let over = (0..m).map(|i| f[i * n + j]).sum::<f64>() - 1.0;
            s[j] = (1.0 - eps) * s[j] + eps * (s[j] - (lambda[j] + rho * (over + s[j]))).max(0.0);
            lambda[j] += eps * (over + s[j]);
        }
        g = product(&f, &kb, [m, n, n]);
        h = product(&ka, &g, [m, m, n]);
        if t as u64 >= o.delay {
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            scale = dot(&h, &f) / dot(&ka, &ka);
        }
    }
    let image = product(&g, &turned(&f, m, n), [m, n, m]);
    let error = image.iter().zip(&ka).map(|(w, k)| (scale * k - w).powi(2)).sum::<f64>().sqrt();
    (f, error, scale)
}

#[test]
fn every_device_matches_the_published_steps_in_f64() {
    for ([m, n], delay) in [([37, 53], 0), ([29, 29], 7)] {
        let (a, b) = (some_distances(m, 1), some_distances(n, 2));
        let options = Options { iterations: 25, delay, ..Options::new([4, 9]) };
        let (f, error, scale) = plain(&a, &b, &options);
        let mut first: Option<Vec<f32>> = None;
        for (device, d) in devices() {
            let found = solve(d, a.clone(), b.clone(), options, None, |_| {}).unwrap().0;
            compare(device, &found.correspondence, &f, 2e-4);
            assert!((found.last.error - error).abs() < 1e-4 * error, "{device}: error {} for {error}", found.last.error);
            assert!((found.last.scale - scale).abs() < 1e-4 * scale, "{device}: a {} for {scale}", found.last.scale);
            // The kernels' two orders of threads must give the same bits.
            if device.starts_with("emulated") {
                assert_eq!(first.get_or_insert(found.correspondence.clone()), &found.correspondence, "{device}");
            }
        }
    }
}

#[test]
fn the_first_step_is_a_hundredth_whatever_the_data() {
    for (device, d) in devices() {
        let mut solver = Solver::new(d, some_distances(21, 3), some_distances(34, 4), Options::new([1, 70])).unwrap();
        solver.advance().unwrap();
        assert!(solver.correspondence().unwrap().iter().all(|f| (f - 0.01).abs() < 5e-9), "{device}");
    }
}

#[test]
fn more_cells_in_the_first_exchange_the_roles() {
    let (a, b) = (some_distances(23, 5), some_distances(40, 6));
    let run = |a: &[f32], b: &[f32], features| {
        solve(Device::cpu(), a.to_vec(), b.to_vec(), Options { iterations: 30, ..Options::new(features) }, None, |_| {}).unwrap().0
    };
    let (wide, tall) = (run(&a, &b, [3, 8]), run(&b, &a, [8, 3]));
    assert_eq!(wide.last, tall.last);
    for i in 0..23 {
        for j in 0..40 {
            assert_eq!(wide.correspondence[i * 40 + j], tall.correspondence[j * 23 + i]);
        }
    }
}

#[test]
fn threads_change_no_bit_and_memory_is_eight_tables() {
    let n = 230;
    let (a, b) = (some_distances(n, 7), some_distances(n, 8));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut solver = Solver::new(Device::cpu(), a.clone(), b.clone(), Options::new([5, 5])).unwrap();
            (0..3).for_each(|_| solver.advance().unwrap());
            let after = solver.memory();
            (0..5).for_each(|_| solver.advance().unwrap());
            assert_eq!(solver.memory(), after, "a warm step allocates");
            (solver.correspondence().unwrap(), solver.report().unwrap(), after.1)
        })
    };
    let one = run(1);
    assert_eq!(one, run(3));
    let arena = 4 << 18; // the first piece that any step takes
    assert!(one.2 - arena < 33 * n * n, "{} bytes for {n} cells", one.2);
}

#[test]
fn reports_come_and_a_set_flag_stops() {
    let a = some_distances(12, 9);
    let options = Options { iterations: 25, report_every: 10, ..Options::new([2, 2]) };
    let mut seen = Vec::new();
    solve(Device::cpu(), a.clone(), a.clone(), options, None, |r| seen.push(r.step)).unwrap();
    assert_eq!(seen, [10, 20, 25]);
    let stop = AtomicBool::new(false);
    let stopped = solve(Device::cpu(), a.clone(), a.clone(), options, Some(&stop), |_| stop.store(true, Ordering::Relaxed));
    assert_eq!(stopped.err().unwrap().to_string(), "interrupted: the correspondence was at step 10 of 25");
}

#[test]
fn tables_that_are_none_are_refused_in_a_sentence() {
    let refused = |a: &[f32], options| Solver::new(Device::cpu(), a.to_vec(), vec![0.0], options).err().unwrap().to_string();
    let options = Options::new([1, 1]);
    assert!(refused(&[0.0; 3], options).contains("has 3 values"));
    assert!(refused(&[0.0, f32::INFINITY, 1.0, 0.0], options).contains("has inf at cells 0, 1"));
    assert!(refused(&[0.0], Options::new([0, 1])).contains("needs modalities with features"));
    assert!(refused(&[0.0], Options { step: f32::NAN, ..options }).contains("step is in (0, 1]"));
    // One cell a side has no distances, so no scale; it is still a correspondence.
    let one = solve(Device::cpu(), vec![0.0], vec![0.0], Options::new([1, 4]), None, |_| {}).unwrap().0;
    assert!((one.correspondence[0] - 1.0).abs() < 0.05 && one.last.scale == 2.0, "{one:?}");
}

/// The trace that the specification gives, computed there in f64.
#[test]
fn the_trace_of_the_fixture_comes_out() {
    let Some(folder) = fixture::folder() else { return };
    let table = |name: &str| fixture::table(&folder.join("solver-fixture").join(name)).0.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let types = |path: &str| -> Vec<i64> {
        let text = std::fs::read_to_string(folder.join(path)).unwrap();
        text.lines().filter_map(|l| l.split(',').next_back()?.trim().parse::<f64>().ok()).map(|v| v as i64).collect()
    };
    let (a, b) = (table("geodesic1.npy"), table("geodesic2.npy"));
    let (types1, types2) = (types("types1.csv"), types("solver-fixture/types2.csv"));
    assert_eq!((types1.len(), types2.len()), (200, 250));
    // step, sum of F, largest F, a, error, mean |h-1|, F[0,0], own type
    let trace = [
        (1, 499.999998, 0.00999999995, 3.8657745, 94.8803969, 1.5, 0.00999999995, None),
        (2, 512.682587, 0.0200135788, 4.273273, 98.2599214, 1.56341, 0.0200135788, None),
        (10, 473.075137, 0.0184674236, 3.6385115, 83.6641736, 1.36538, 0.0184674236, None),
        (100, 191.755133, 0.0086914094, 0.600065983, 13.7047694, 0.098107, 0.0074743568, Some(0.500)),
        (500, 188.614468, 0.0391739195, 0.598632745, 3.39314723, 0.0569277, 0.0113839162, Some(0.890)),
        (1000, 196.387198, 0.0587013571, 0.737722459, 2.07247848, 0.018064, 2.645e-4, Some(0.965)),
        (2000, 199.911328, 0.205107435, 0.852047005, 1.1651751, 0.00342717, 1.142e-8, Some(0.950)),
    ];
    let mut solver = Solver::new(Device::cpu(), a.clone(), b.clone(), Options::new([1000, 500])).unwrap();
    let mut worst = 0.0f64;
    for (t, sum, largest, scale, error, rows, corner, own) in trace {
        while solver.steps() < t {
            solver.advance().unwrap();
        }
        let (report, f) = (solver.report().unwrap(), solver.correspondence().unwrap());
        let total: f64 = f.iter().map(|&v| f64::from(v)).sum();
        let top = f.iter().fold(0.0f32, |m, &v| m.max(v));
        let seen = [total, top.into(), report.scale, report.error, report.row_deviation, f[0].into()];
        for (what, (got, want)) in ["sum of F", "largest F", "a", "error", "mean |h-1|", "F[0,0]"]
            .iter()
            .zip(seen.into_iter().zip([sum, largest, scale, error, rows, corner]))
        {
            let off: f64 = (got - want).abs();
            println!("step {t}, {what}: {got} for {want}, {:.1e}", off / want);
            // mean |h-1| is a difference of numbers near 1, and F[0,0] one of 50,000 entries that sum to 200.
            let near_one = if *what == "mean |h-1|" {
                1.0
            } else if *what == "F[0,0]" {
                1e-2
            } else {
                want
            };
            worst = worst.max(off / near_one);
        }
        if let Some(own) = own {
            let place = |row: &[f32]| (0..row.len()).fold(0, |best, j| if row[j] > row[best] { j } else { best });
            let right = f.chunks(250).zip(&types1).filter(|(row, t)| types2[place(row)] == **t).count();
            println!("step {t}, own type: {}", right as f64 / 200.0);
            assert!((right as f64 / 200.0 - own).abs() <= 0.0101, "step {t}: own type {right} of 200, {own} is published");
        }
    }
    assert!(worst < 1e-4, "the trace is off by {worst:e}");
}
