//! Single operations at the shapes of the models: milliseconds, operations and bytes a second, and the fraction of the limit that
//! binds (the larger of arithmetic's and memory's share).

mod images;
mod sparse;

use super::limits::{self, Limits};
use super::{Timing, time};
use crate::engine::nn::BatchNorm;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::aggregate::Other;
use crate::engine::ops::batch_norm::Running;
use crate::engine::ops::gemm::{Epilogue, Layout};
use crate::engine::ops::ledger::Ledger;
use crate::engine::ops::losses::MissingIn;
use crate::engine::ops::prime_dual::Pace;
use crate::engine::ops::sinkhorn::Masses;
use crate::engine::ops::small::Smallest;
use crate::engine::ops::transport::Towards;
use crate::engine::optim::{Adam, AdamSettings};
use crate::engine::params::init;
use crate::engine::{Step, Var};
use crate::error::Result;
use serde::Serialize;

/// One measured operation: a line of `couplet bench kernels --json`.
#[derive(Clone, Debug, Serialize)]
pub struct KernelFigure {
    bench: &'static str,
    /// The operation.
    pub kernel: String,
    /// Its sizes.
    pub shape: String,
    /// The device.
    pub device: String,
    #[serde(flatten)]
    timing: Timing,
    /// 10⁹ floating-point operations a second.
    pub gflops: f64,
    /// 10⁹ bytes a second.
    pub gbytes_per_s: f64,
    /// Of what the device could do: 1 is the limit.
    pub fraction_of_limit: f64,
}

impl KernelFigure {
    /// Median milliseconds.
    pub fn ms(&self) -> f64 {
        self.timing.ms_median
    }
}

/// An operation at a size, with what it must compute and move.
pub struct Case {
    /// The operation.
    pub kernel: &'static str,
    /// Its sizes.
    pub shape: String,
    flops: f64,
    bytes: f64,
    run: Box<dyn FnMut(&mut Step)>,
}

impl Case {
    /// Runs the operation once, in a step that has begun.
    pub fn run(&mut self, s: &mut Step) {
        (self.run)(s);
    }
}

/// Measures every operation whose name contains `filter`.
pub fn run(s: &mut Step, device: &str, filter: &str, repetitions: usize, sink: &mut dyn FnMut(KernelFigure)) -> Result<()> {
    let limits = limits::measure(s)?;
    for mut case in cases(s)? {
        if case.kernel.contains(filter) {
            sink(measure(s, device, &limits, &mut case, repetitions)?);
        }
    }
    Ok(())
}

fn measure(s: &mut Step, device: &str, limits: &Limits, case: &mut Case, repetitions: usize) -> Result<KernelFigure> {
    let mut once = |s: &mut Step| -> Result<()> {
        s.begin(true, 1, 0)?;
        (case.run)(s);
        s.finish()
    };
    once(s)?;
    // Small operations run several times a measurement, so that the clock's and the step's own cost vanish.
    let single = time(1, 3, || drop(once(s))).ms_median;
    let inner = ((0.5 / single.max(1e-6)) as usize).clamp(1, 200);
    let t = time(2, repetitions, || {
        if s.begin(true, 1, 0).is_ok() {
            (0..inner).for_each(|_| (case.run)(s));
        }
        let _ = s.finish();
    });
    s.finish()?;
    let per = |ms: f64| ms / inner as f64;
    let timing = Timing { ms_median: per(t.ms_median), ms_p10: per(t.ms_p10), ms_p90: per(t.ms_p90) };
    let seconds = timing.ms_median / 1e3;
    Ok(KernelFigure {
        bench: "kernel",
        kernel: case.kernel.to_string(),
        shape: case.shape.clone(),
        device: device.to_string(),
        timing,
        gflops: case.flops / seconds / 1e9,
        gbytes_per_s: case.bytes / seconds / 1e9,
        fraction_of_limit: (case.flops / limits.flops).max(case.bytes / limits.bytes) / seconds,
    })
}

fn filled(s: &mut Step, dims: [usize; 2], name: &str) -> Result<Var> {
    s.end();
    let v = s.resident(dims)?;
    let values = init::uniform(1, name, dims[0] * dims[1], 1.0);
    s.upload(v, &values)?;
    Ok(v)
}

/// The operations that are measured, with their data on the device.
pub fn cases(s: &mut Step) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    // m, n, k: the layers of the patchseq shape forwards and backwards, and a wide one
    for (layout, [m, n, k]) in [
        (Layout::NT, [100, 50, 1252]),
        (Layout::NT, [100, 50, 50]),
        (Layout::NT, [100, 1252, 50]),
        (Layout::TN, [50, 1252, 100]),
        (Layout::TN, [1252, 50, 100]),
        (Layout::NN, [100, 50, 1252]),
        (Layout::NT, [512, 1024, 1024]),
    ] {
        let (a, b) = match layout {
            Layout::NN => ([m, k], [k, n]),
            Layout::NT => ([m, k], [n, k]),
            Layout::TN => ([k, m], [k, n]),
        };
        let (va, vb, vc) = (filled(s, a, "a")?, filled(s, b, "b")?, filled(s, [m, n], "c")?);
        let bias = filled(s, [1, n], "bias")?;
        let forward = matches!(layout, Layout::NT);
        all.push(Case {
            kernel: match layout {
                Layout::NN => "gemm_nn",
                Layout::NT => "gemm_nt_bias_elu",
                Layout::TN => "gemm_tn",
            },
            shape: format!("m{m} n{n} k{k}"),
            flops: 2.0 * (m * n * k) as f64,
            bytes: 4.0 * (m * k + k * n + m * n) as f64,
            run: Box::new(move |s| {
                let epilogue = forward.then_some(Epilogue { bias, activation: Activation::Elu });
                s.gemm(layout, vc, va, vb, false, epilogue);
            }),
        });
    }
    for [rows, cols] in [[100, 1252], [512, 2000]] {
        let shape = format!("cells {rows} features {cols}");
        let words = (rows * cols) as f64;
        let (x, t) = (filled(s, [rows, cols], "x")?, filled(s, [rows, cols], "t")?);
        let order = s.resident([1, rows])?;
        s.upload(order, &(0..rows as u32).rev().collect::<Vec<_>>())?;
        let norm = BatchNorm::plain(s, &format!("bench.{rows}.{cols}"), cols, 1e-5, 0.9, Running::Unbiased)?;
        let mut case = |kernel, flops: f64, bytes: f64, run: Box<dyn FnMut(&mut Step)>| {
            all.push(Case { kernel, shape: shape.clone(), flops: flops * words, bytes: bytes * words, run });
        };
        case(
            "gather_rows",
            0.0,
            8.0,
            Box::new(move |s| {
                s.gather(x, order, rows, Var::NONE, Var::NONE);
            }),
        );
        case(
            "corrupt_fwd",
            1.0,
            8.0,
            Box::new(move |s| {
                s.corrupt(x, Var::NONE, 0.5, 7);
            }),
        );
        case(
            "masked_mse",
            3.0,
            8.0,
            Box::new(move |s| {
                s.masked_mse(x, t, Var::NONE, MissingIn::Observed);
            }),
        );
        case(
            "batch_norm_fwd",
            7.0,
            16.0,
            Box::new(move |s| {
                norm.forward(s, x, Activation::Relu);
            }),
        );
    }
    for [n, p] in [[100, 3], [400, 32]] {
        let z = filled(s, [n, p], "z")?;
        let warm = filled(s, [1, p], "warm")?;
        let shape = format!("cells {n} latent {p}");
        let (flops, bytes) = ((n * p * p) as f64, 4.0 * (n * p) as f64);
        let smallest = Box::new(move |s: &mut Step| {
            s.smallest_eigenvalue(z, warm, Smallest::Power);
        });
        all.push(Case { kernel: "smallest_fwd", shape: shape.clone(), flops, bytes, run: smallest });
        let whiten = Box::new(move |s: &mut Step| {
            s.whiten(z, 1e-3);
        });
        all.push(Case { kernel: "whiten", shape, flops: flops + 2.0 * (n * p * p) as f64, bytes: 2.0 * bytes, run: whiten });
    }
    for [m, n] in [[1000, 1000], [2000, 3000]] {
        let (cost, plan) = (filled(s, [m, n], "cost")?, filled(s, [m, n], "plan")?);
        let even = |cells: usize| vec![-(cells as f32).ln(); cells];
        let state = s.sinkhorn_state(&even(m), &even(n))?;
        let (shape, entries) = (format!("cells {m} x {n}"), (m * n) as f64);
        // An exponential is counted as one operation.
        let round = Box::new(move |s: &mut Step| s.sinkhorn_round(&state, cost, 0.1, Masses::Exact, Masses::AtMost));
        all.push(Case { kernel: "sinkhorn_round", shape: shape.clone(), flops: 12.0 * entries, bytes: 8.0 * entries, run: round });
        let write = Box::new(move |s: &mut Step| s.sinkhorn_plan(&state, plan, cost, 0.1));
        all.push(Case { kernel: "sinkhorn_plan", shape, flops: 11.0 * entries, bytes: 12.0 * entries, run: write });
    }
    let count = 1 << 18;
    s.end();
    s.parameter("bench.adam", 0, [1, count], init::uniform(1, "adam", count, 1.0));
    let mut adam = Adam::new(s, 0, AdamSettings::default())?;
    let ledger = Ledger::new(s, 0)?;
    adam.set_step(s, 1, 1.0);
    all.push(Case {
        kernel: "adam",
        shape: format!("parameters {count}"),
        flops: 12.0 * count as f64,
        bytes: 28.0 * count as f64,
        run: Box::new(move |s| adam.step(s, &ledger)),
    });
    all.extend(variational(s)?);
    all.extend(correspondence(s)?);
    all.extend(images::cases(s)?);
    sparse::cases(s, &mut all)?;
    Ok(all)
}

/// JAMIE's own, at its minibatch of 512 cells and 32 latent dimensions.
fn variational(s: &mut Step) -> Result<Vec<Case>> {
    let (cells, latent) = (512, 32);
    let (z, other) = (filled(s, [cells, latent], "z")?, filled(s, [cells, latent], "other")?);
    let [own, theirs] = [filled(s, [1, 1], "own")?, filled(s, [1, 1], "theirs")?];
    let sums = [filled(s, [cells, 1], "rows")?, filled(s, [cells, 1], "columns")?];
    let block = filled(s, [cells, cells], "block")?;
    s.upload(block, &init::uniform(1, "block", cells * cells, 1.0).iter().map(|v| v.abs()).collect::<Vec<_>>())?;
    s.upload(own, &[0.5f32])?;
    s.upload(theirs, &[0.7f32])?;
    let (codes, table) = ((cells * latent) as f64, (cells * cells) as f64);
    let shape = format!("cells {cells} latent {latent}");
    type Run = fn(&mut Step, [Var; 5], [Var; 2]);
    let list: [(&'static str, f64, f64, Run); 5] = [
        ("sample_latent", 8.0 * codes, 12.0 * codes, |s, [z, other, ..], _| _ = s.sample_latent(z, other, 3)),
        ("kl", 5.0 * codes, 8.0 * codes, |s, [z, other, ..], _| _ = s.kl(z, other)),
        ("aggregate", 4.0 * codes, 12.0 * codes, |s, [z, other, own, theirs, _], _| {
            _ = s.aggregate(z, own, &[Other { z: other, sigma: theirs, weights: Var::NONE }])
        }),
        ("inverse_sums", 2.0 * table, 8.0 * table, |s, [.., block], _| _ = s.inverse_sums(block)),
        ("transport", 2.0 * table * latent as f64, 4.0 * table + 8.0 * codes, |s, [_, other, _, _, block], sums| {
            _ = s.transport(block, sums, other, Towards::Rows)
        }),
    ];
    let vars = [z, other, own, theirs, block];
    let case = |(kernel, flops, bytes, run): (&'static str, f64, f64, Run)| Case {
        kernel,
        shape: shape.clone(),
        flops,
        bytes,
        run: Box::new(move |s| run(s, vars, sums)),
    };
    Ok(list.into_iter().map(case).collect())
}

/// The correspondence solver's pass over F, 1,000 cells each way.
fn correspondence(s: &mut Step) -> Result<Vec<Case>> {
    let n = 1000;
    let pace = Pace { step: 0.01, penalty: 10.0 };
    let products = filled(s, [n, n], "products")?;
    s.end();
    let state = s.prime_dual_state([n, n], pace)?;
    let entries = (n * n) as f64;
    let mut t = 0;
    let run = Box::new(move |s: &mut Step| {
        t += 1;
        s.prime_dual_move(&state, products, t, pace);
    });
    Ok(vec![Case { kernel: "prime_dual_move", shape: format!("cells {n} x {n}"), flops: 15.0 * entries, bytes: 28.0 * entries, run }])
}
