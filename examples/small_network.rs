//! The first lesson: a program that uses the engine alone, to fit a small network to a wave.
//!
//! In `Cargo.toml`: `couplet = { version = "0.1", default-features = false }`, which brings two crates besides. Run it with
//!
//! ```text
//! cargo run --release --no-default-features --example small_network
//! ```
//!
//! Four ideas are all there is: a [`Step`] holds device, memory and tape; a [`Var`] is a number that stands for a matrix of it;
//! operations are methods of the step; what is made before the first step (parameters, data) stays, everything else lives for a step.

use couplet::device::Device;
use couplet::engine::nn::Mlp;
use couplet::engine::ops::activation::Activation;
use couplet::engine::ops::ledger::Ledger;
use couplet::engine::ops::losses::MissingIn;
use couplet::engine::optim::{Adam, AdamSettings};
use couplet::engine::{Precision, Step, Var, Weight, init};
use couplet::error::Result;

const POINTS: usize = 512;
const BATCH: usize = 64;
const EPOCHS: u64 = 100;

fn wave(u: f32, v: f32) -> f32 {
    (std::f32::consts::PI * u).sin() * v
}

fn main() -> Result<()> {
    // 1. An engine on a device. Every random number of the run derives from the seed.
    let (device, remark) = Device::by_name("auto")?;
    remark.iter().for_each(|line| println!("{line}"));
    let mut s = Step::new(device, 1, Precision::F32)?;
    println!("on {}", s.device().describe());

    // 2. Data that stay on the device: points (u, v) of a square, and the wave sin(πu)·v over each.
    let points = init::uniform(7, "points", 2 * POINTS, 1.0);
    let heights: Vec<f32> = points.chunks_exact(2).map(|p| wave(p[0], p[1])).collect();
    let (x, t) = (s.resident([POINTS, 2])?, s.resident([POINTS, 1])?);
    s.upload(x, &points)?;
    s.upload(t, &heights)?;
    let order = s.resident([1, POINTS])?;

    // 3. A network, an optimiser for its parameters (group 0), and a ledger that adds the loss up on the device.
    let network = Mlp::new(&mut s, "net", 0, &[2, 32, 32, 1], Activation::Tanh, Activation::Identity);
    let mut adam = Adam::new(&mut s, 0, AdamSettings { rate: 5e-3, ..AdamSettings::default() })?;
    let ledger = Ledger::new(&mut s, 1)?;

    // 4. Training. A step begins, computes, goes backwards and moves the parameters; after the first one it allocates nothing.
    let steps = (POINTS / BATCH) as u64;
    let mut first = None;
    let mut last = f64::NAN;
    for epoch in 0..EPOCHS {
        // Any permutation of the points will do for an epoch; this one strides through them.
        let stride = 2 * epoch as usize + 1;
        s.upload(order, &(0..POINTS).map(|i| (i * stride % POINTS) as u32).collect::<Vec<u32>>())?;
        ledger.set_sums(&mut s, &[0.0])?;
        for k in 0..steps {
            let number = epoch * steps + k + 1;
            adam.set_step(&mut s, number, 1.0);
            s.begin(true, number, k as usize * BATCH)?;
            let (x, t) = (s.gather(x, order, BATCH, Var::NONE, Var::NONE), s.gather(t, order, BATCH, Var::NONE, Var::NONE));
            let y = network.forward(&mut s, x);
            let loss = s.masked_mse(y, t, Var::NONE, MissingIn::Observed);
            ledger.add(&mut s, &[loss]);
            s.backward(&[(loss, Weight::Fixed(1.0))]);
            adam.step(&mut s, &ledger);
        }
        s.finish()?;
        last = ledger.sums(&mut s)?[0] / steps as f64;
        first.get_or_insert(last);
        if epoch % 20 == 19 {
            println!("epoch {:>3}: mean squared error {last:.5}", epoch + 1);
        }
    }

    // 5. Using it: a step without training records nothing.
    s.begin(false, 0, 0)?;
    let grid = [[0.0, 0.9], [0.5, 0.5], [-0.5, 0.8]];
    let x = s.constant([3, 2], grid.as_flattened());
    let y = network.forward(&mut s, x);
    for (p, y) in grid.iter().zip(s.download(y)?) {
        println!("({:>4.1}, {:>4.1}): {y:.3}, exactly {:.3}", p[0], p[1], wave(p[0], p[1]));
    }
    assert!(last < 0.05 * first.unwrap_or(f64::NAN), "the network learnt the wave");
    Ok(())
}
