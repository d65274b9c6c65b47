//! `couplet evaluate`: the metrics of a run, as a table and as `metrics.json`.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{DeviceArgs, check_out, interrupt, say_exactly};
use couplet::error::Result;
use couplet::run::{Run, write_json};
use couplet::train::Trained;
use std::path::PathBuf;

/// The flags of `couplet evaluate`.
#[derive(clap::Args)]
pub struct Args {
    /// The run that is measured
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    data: DatasetArgs,
    /// Write the metrics here too, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also train small networks that tell the labels from each space of the codes: classifier_accuracy.*; takes minutes
    #[arg(long)]
    classifier: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Evaluates.
pub fn run(args: Args) -> Result<()> {
    if let Some(out) = &args.out {
        check_out(out)?;
    }
    let labels = args.data.label_column()?;
    let stop = interrupt::install("metrics.json stays as it is")?;
    let Opened { dataset, .. } = &args.data.open(Place::of_run(&args.run)?, &stop)?;
    let mut trained = Trained::open(&args.run, args.device.open()?)?;
    let mut metrics = trained.evaluate(dataset, labels.as_deref())?;
    if args.classifier {
        metrics.extend(trained.classify_spaces(dataset, labels.as_deref())?);
    }
    Run::open(&args.run)?.0.save_metrics(&metrics)?;
    if let Some(out) = &args.out {
        write_json(out, &metrics)?;
    }
    say_exactly(&metrics.to_table())
}
