//! `couplet bench`: how fast kernels, training steps and the reading of a dataset are on this machine.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{DeviceArgs, Precision, info, interrupt, note, say};
use couplet::bench::{kernels, load, step};
use couplet::engine::{self, Step};
use couplet::error::{Error, Result};
use couplet::models;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// The flags of `couplet bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Time single operations at the shapes of the models
    Kernels(Kernels),
    /// Time whole training steps at a named shape
    Step(Steps),
    /// Time the reading of a DATASET in minibatches
    Load(Box<Loading>),
}

#[derive(clap::Args)]
struct Kernels {
    /// Only operations whose name contains this
    #[arg(long, value_name = "NAME", default_value = "")]
    kernel: String,
    /// Measurements of each, of which the median is told
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Steps {
    /// The model
    #[arg(long, default_value = "coupled")]
    model: String,
    /// The shape
    #[arg(long, default_value = "patchseq")]
    shape: String,
    /// Cells of a minibatch [default: the shape's]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    batch_size: usize,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Loading {
    #[command(flatten)]
    data: DatasetArgs,
    /// The same as naming the DATASET
    #[arg(long = "dataset", value_name = "DATASET", conflicts_with = "dataset")]
    named: Option<PathBuf>,
    /// Cells of a minibatch
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// What is done to counts, step by step
    #[arg(long, value_name = "STEP,...", default_value = "counts10k-log1p,standardise")]
    preprocess: String,
    /// How an epoch passes over the cells
    #[arg(long, value_name = "exact|block", default_value = "exact", value_parser = ["exact", "block"])]
    shuffle: String,
    /// Whole epochs are read for at least so long
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Measures.
pub fn run(args: Args) -> Result<()> {
    match args.what {
        What::Kernels(k) => time_kernels(k),
        What::Step(s) => time_steps(s),
        What::Load(l) => time_loading(*l),
    }
}

fn time_kernels(args: Kernels) -> Result<()> {
    let device = args.device.open()?;
    let described = device.describe();
    let mut s = Step::new(device, 0, args.precision.into())?;
    let mut said = Ok(());
    let mut any = false;
    if !args.json {
        say(format!("{described}\n{:<28} {:<22} {:>10} {:>10} {:>10} {:>9}", "operation", "shape", "ms", "gflop/s", "GB/s", "of limit"))?;
    }
    kernels::run(&mut s, &described, &args.kernel, args.repetitions as usize, &mut |f| {
        any = true;
        if said.is_ok() {
            let row = || {
                let (ms, limit) = (f.ms(), 100.0 * f.fraction_of_limit);
                format!("{:<28} {:<22} {ms:>10.4} {:>10.1} {:>10.1} {limit:>7.0} %", f.kernel, f.shape, f.gflops, f.gbytes_per_s)
            };
            said = if args.json { json(&f).and_then(say) } else { say(row()) };
        }
    })?;
    if !any {
        note(format!("no operation's name contains {:?}", args.kernel));
    }
    said
}

fn time_steps(args: Steps) -> Result<()> {
    models::by_name(&args.model)?;
    let shape = step::shape(&args.model, &args.shape)?;
    let device = args.device.open()?;
    let precision: engine::Precision = args.precision.into();
    let figure = step::run(shape, device, precision, args.batch_size, args.steps as usize, rayon::current_num_threads())?;
    if args.json {
        return say(json(&figure)?);
    }
    let rate = 1e3 / figure.ms();
    say(format!(
        "{} {} on {}, {}, {} cells a minibatch: {:.4} ms a step (median of {}), {rate:.0} steps/s, {}",
        figure.model,
        figure.shape,
        figure.device,
        figure.precision,
        figure.batch,
        figure.ms(),
        figure.steps,
        info::bytes(figure.peak_bytes)
    ))
}

fn time_loading(args: Loading) -> Result<()> {
    if !(0.0..=86_400.0).contains(&args.seconds) {
        return Err(Error::usage(format!("--seconds {}: wanted is a number from 0 to 86400", args.seconds)));
    }
    let stop = interrupt::install("nothing is measured")?;
    let imported = PathBuf::from(format!(".couplet-bench.{}", std::process::id()));
    let Opened { dataset, .. } = &args.data.open(Place { default: args.named, imported, keep: false, reuse: false }, &stop)?;
    let figure = load::run(
        dataset,
        &args.preprocess,
        args.batch_size as usize,
        args.shuffle.parse()?,
        Duration::from_secs_f64(args.seconds),
        0,
        &stop,
    )?;
    if args.json {
        return say(json(&figure)?);
    }
    let (bytes, peak) = (info::bytes(figure.bytes_per_s as u64), info::bytes(figure.peak_rss_bytes));
    say(format!(
        "{:.0} cells/s, {bytes}/s in minibatches of {} cells; a plain copy of the stored rows: {:.0} cells/s; {peak} of anonymous memory",
        figure.cells_per_s, figure.batch, figure.plain_cells_per_s
    ))
}

fn json(figure: &impl Serialize) -> Result<String> {
    serde_json::to_string(figure).map_err(|e| Error::Internal(format!("a figure is no JSON: {e}")))
}
