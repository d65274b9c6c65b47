//! Beside POT's results, on every device; what the starts and marginals are worth on UnionCom's simulations.

use super::*;
use crate::correspondence::{Metric, distances, fixture};
use crate::engine::ops::testing::{compare, devices, values};
use crate::metrics::matrix::Matrix;

fn some_distances(n: usize, salt: u32) -> Vec<f32> {
    distances(Matrix::new(&values(n * 3, salt), n, 3), Metric::Euclidean, 40).unwrap()
}

/// What tests/golden/pot/make.py wrote.
struct Pot(serde_json::Value);

impl Pot {
    fn new() -> Pot {
        Pot(serde_json::from_str(include_str!("../../../tests/golden/pot/problems.json")).unwrap())
    }
    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap()
    }
    fn list(&self, name: &str) -> Vec<f64> {
        self.0[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }
    fn floats(&self, name: &str) -> Vec<f32> {
        self.list(name).iter().map(|&v| v as f32).collect()
    }
}

#[test]
fn sinkhorn_gives_pots_plans_balanced_and_unbalanced() {
    let pot = Pot::new();
    let (m, n) = (pot.number("m") as usize, pot.number("n") as usize);
    let (epsilon, rho) = (pot.number("epsilon") as f32, pot.number("rho") as f32);
    for (masses, want) in [(Masses::Exact, "balanced"), (Masses::Relaxed(rho), "unbalanced")] {
        for (device, d) in devices() {
            let mut s = Step::new(d, 0, Precision::F32).unwrap();
            let state = s.sinkhorn_state(&vec![-(m as f32).ln(); m], &vec![-(n as f32).ln(); n]).unwrap();
            s.begin(false, 1, 0).unwrap();
            let (cost, plan) = (s.constant([m, n], &pot.floats("cost")), s.alloc([m, n]));
            (0..400).for_each(|_| s.sinkhorn_round(&state, cost, epsilon, masses, masses));
            s.sinkhorn_plan(&state, plan, cost, epsilon);
            compare(&format!("{device} {want}"), &s.download(plan).unwrap(), &pot.list(want), 1e-4 * 5e-2);
            s.finish().unwrap();
        }
    }
}

#[test]
fn gromov_wasserstein_gives_pots_plans_balanced_and_unbalanced() {
    let pot = Pot::new();
    let (epsilon, rho) = (pot.number("gw_epsilon") as f32, pot.number("gw_rho") as f32);
    for (marginals, plan, objective) in [(Marginals::Balanced, "gw", "gw_objective"), (Marginals::Unbalanced(rho), "ugw", "ugw_objective")]
    {
        let options = Options {
            epsilon,
            start: Start::Uniform,
            marginals,
            iterations: 400,
            tolerance: 2e-6,
            inner: 200,
            inner_tolerance: 1e-7,
            ..Options::default()
        };
        let mut bits = None;
        for (device, d) in devices() {
            let found = solve(d, &pot.floats("a"), &pot.floats("b"), options, None, |_| {}).unwrap().0;
            println!("{device} {plan}: {:?}", found.last);
            compare(&format!("{device} {plan}"), &found.plan, &pot.list(plan), 1e-3);
            let off = (found.last.objective - pot.number(objective)).abs();
            assert!(off < 1e-4 * pot.number(objective), "{device}: {} for {}", found.last.objective, pot.number(objective));
            if device.starts_with("emulated") {
                assert_eq!(bits.get_or_insert(found.plan.clone()), &found.plan, "{device}");
            }
        }
    }
}

#[test]
fn a_turned_and_shuffled_copy_is_found_again() {
    let n = 60;
    let cells: Vec<f32> = values(n * 2, 3).chunks(2).flat_map(|c| [2.0 * c[0] + c[0] * c[0], c[1]]).collect();
    let order = crate::engine::rng::permutation(n, 5, 0, 0);
    let copy: Vec<f32> = order.iter().flat_map(|&i| [3.0 * cells[2 * i as usize + 1], -3.0 * cells[2 * i as usize]]).collect();
    let [a, b] = [&cells, &copy].map(|c| distances(Matrix::new(c, n, 2), Metric::Euclidean, 40).unwrap());
    let found = solve(Device::cpu(), &a, &b, Options::default(), None, |_| {}).unwrap().0;
    let f = found.correspondence();
    let largest = |row: &[f32]| (0..n).fold(0, |best, j| if row[j] > row[best] { j } else { best });
    let right = order.iter().enumerate().filter(|&(j, &i)| largest(&f[i as usize * n..][..n]) == j).count();
    assert!(right > n * 9 / 10, "{right} of {n}");
    assert!(found.converged && found.last.deviation < 1e-2, "{:?}", found.last);
}

#[test]
fn rows_or_columns_of_the_smaller_side_sum_to_one_and_the_roles_can_be_exchanged() {
    let (a, b) = (some_distances(23, 5), some_distances(40, 6));
    let options = Options { iterations: 5, epsilon: 0.05, ..Options::default() };
    let run = |a: &[f32], b: &[f32]| solve(Device::cpu(), a, b, options, None, |_| {}).unwrap().0;
    let (wide, tall) = (run(&a, &b), run(&b, &a));
    assert_eq!(wide.dims, [23, 40]);
    let (f, g) = (wide.correspondence(), tall.correspondence());
    for i in 0..23 {
        let sum: f32 = f[i * 40..][..40].iter().sum();
        assert!((sum - 1.0).abs() < 1e-5);
        for j in 0..40 {
            assert!((f[i * 40 + j] - g[j * 23 + i]).abs() < 1e-3, "{i}, {j}: {} {}", f[i * 40 + j], g[j * 23 + i]);
        }
    }
    assert!((0..40).all(|j| (0..23).map(|i| f[i * 40 + j]).sum::<f32>() < 1.02), "no column has more than a cell's mass");
    assert!(wide.last.deviation < 0.02, "{:?}", wide.last);
}

#[test]
fn threads_change_no_bit_and_memory_is_five_tables() {
    let n = 230;
    let (a, b) = (some_distances(n, 7), some_distances(n, 8));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut solver = Solver::new(Device::cpu(), &a, &b, Options::default()).unwrap();
            solver.advance(None).unwrap();
            let after = solver.memory();
            solver.advance(None).unwrap();
            assert_eq!(solver.memory(), after, "a warm round allocates");
            (solver.plan().unwrap(), solver.report(), after.1)
        })
    };
    let one = run(1);
    assert_eq!(one, run(3));
    let arena = 4 << 18; // the first piece that any step takes
    assert!(one.2 - arena < 22 * n * n, "{} bytes for {n} cells", one.2);
}

#[test]
fn reports_come_and_a_set_flag_stops() {
    let a = some_distances(12, 9);
    let options = Options { iterations: 7, tolerance: 0.0, ..Options::default() };
    let mut seen = Vec::new();
    let found = solve(Device::cpu(), &a, &a, options, None, |r| seen.push(r.iteration)).unwrap();
    assert_eq!((seen, found.0.converged), ((1..8).collect(), false));
    let stop = AtomicBool::new(false);
    let stopped = solve(Device::cpu(), &a, &a, options, Some(&stop), |r| stop.store(r.iteration == 3, Ordering::Relaxed));
    assert_eq!(stopped.err().unwrap().to_string(), "interrupted: the correspondence was at round 3 of at most 7");
    // Falling, it cannot have arrived before its last epsilon.
    let falling = Options { iterations: 100, anneal_from: Some(0.1), tolerance: 10.0, ..Options::default() };
    assert_eq!(solve(Device::cpu(), &a, &a, falling, None, |_| {}).unwrap().0.last.iteration, 10);
}

#[test]
fn what_cannot_be_solved_is_refused_in_a_sentence() {
    let refused = |a: &[f32], options| Solver::new(Device::cpu(), a, &[0.0], options).err().unwrap().to_string();
    let o = Options::default();
    assert!(refused(&[0.0; 3], o).contains("has 3 values"));
    assert!(refused(&[0.0], Options { epsilon: 0.0, ..o }).contains("positive number, this is 0"));
    assert!(refused(&[0.0], Options { anneal_from: Some(f32::NAN), ..o }).contains("this is NaN"));
    assert!(refused(&[0.0], Options { marginals: Marginals::Unbalanced(-1.0), ..o }).contains("this is -1"));
    assert!(refused(&[0.0], Options { inner: 0, ..o }).contains("one round at least"));
    let one = solve(Device::cpu(), &[0.0], &[0.0], o, None, |_| {}).unwrap().0;
    assert!((one.plan[0] - 1.0).abs() < 1e-6 && one.converged, "{one:?}");
}

/// The figures of the module's header: `cargo test --release --lib -- --ignored --nocapture gromov_figures`.
#[test]
#[ignore = "a measurement"]
fn gromov_figures() {
    let Some(folder) = fixture::folder() else { return };
    let narrow = |path: &str| fixture::table(&folder.join(path)).0.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let simu1 = fixture::simu1().expect("beside simu2");
    let fixture = fixture::Problem {
        tables: [narrow("solver-fixture/geodesic1.npy"), narrow("solver-fixture/geodesic2.npy")],
        types: [fixture::types(&folder.join("types1.csv")), fixture::types(&folder.join("solver-fixture/types2.csv"))],
    };
    for (name, problem, paired) in [("simu1", &simu1, true), ("fixture", &fixture, false)] {
        for marginals in [Marginals::Balanced, Marginals::AtMost, Marginals::Unbalanced(0.1)] {
            if paired && marginals == Marginals::AtMost {
                continue; // balanced, as many cells on either side
            }
            for epsilon in [0.02, 0.005, 0.002] {
                for (start, anneal_from) in
                    [(Start::Uniform, None), (Start::Uniform, Some(0.2)), (Start::Distributions, None), (Start::Distributions, Some(0.05))]
                {
                    let options = Options { epsilon, start, anneal_from, marginals, ..Options::default() };
                    let from = std::time::Instant::now();
                    match solve(Device::cpu(), &problem.tables[0], &problem.tables[1], options, None, |_| {}).map(|f| f.0) {
                        Err(e) => println!("{name} {marginals:?} {epsilon} {start:?} {anneal_from:?}: {e}"),
                        Ok(found) => {
                            let [own, rank] = problem.score(&found.plan);
                            let r = found.last;
                            println!(
                                "{name} {marginals:?} eps {epsilon} {start:?} {anneal_from:?}: E {:.5} own {own:.3} FOSCTTM {rank:.4} rounds {} inner {} mass {:.3} deviation {:.1e} {} {:.1} s",
                                r.objective,
                                r.iteration,
                                r.inner,
                                r.mass,
                                r.deviation,
                                if found.converged { "" } else { "not converged" },
                                from.elapsed().as_secs_f64()
                            );
                        }
                    }
                }
            }
        }
    }
}
