//! `couplet demo`: simulate, train, evaluate, and say where everything lies.

use super::progress::with_hooks;
use super::train::{Job, recipe, tell};
use super::{DeviceArgs, Precision, interrupt, say, say_exactly};
use couplet::data::Dataset;
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::split::Holdout;
use couplet::error::{Error, Result};
use couplet::models::{self, settings::Settings};
use couplet::run::Run;
use couplet::train::{Stopped, Trained};
use std::path::PathBuf;

/// The flags of `couplet demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the dataset and the run are made [default: couplet-demo, or the next number that is free]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Shows the whole way, from nothing to metrics.
pub fn run(args: Args) -> Result<()> {
    let dir = match args.out {
        Some(dir) if dir.exists() => return Err(Error::usage(format!("{} exists already: give another --out", dir.display()))),
        Some(dir) => dir,
        None => free_name(),
    };
    let (data, run) = (dir.join("data"), dir.join("run"));
    let stop = interrupt::install("the demo ends here")?;

    say(format!("$ couplet simulate branching --out {}", data.display()))?;
    with_hooks(Some(&stop), |hooks| simulate(&SimulateSpec { recipe: "branching", ..Default::default() }, &data, hooks))?;
    let dataset = &Dataset::open(&data)?;

    say(format!("\n$ couplet train coupled {} --out {} --holdout 0.2", data.display(), run.display()))?;
    let model = models::by_name("coupled")?;
    let names: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
    let mut settings = Settings::new(model.name, model.options, &names)?;
    recipe(&mut settings, model, dataset)?;
    let summary = tell(Job {
        model,
        dataset,
        settings: &settings,
        device: args.device.open()?,
        precision: Precision::F32,
        seed: 0,
        holdout: Some(Holdout::Fraction(0.2)),
        paired: 1.0,
        shuffle: Default::default(),
        labels: None,
        out: &run,
        resume: false,
        stop: &stop,
    })?;
    if summary.stopped == Stopped::Interrupted {
        return Ok(());
    }

    say(format!("\n$ couplet evaluate {}", run.display()))?;
    let metrics = Trained::open(&run, args.device.again()?)?.evaluate(dataset, None)?;
    Run::open(&run)?.0.save_metrics(&metrics)?;
    say_exactly(&metrics.to_table())?;
    say(format!(
        "\nfoscttm near 0 means that a cell's two views lie closest to one another (0.5: by chance).\neverything is in {}",
        dir.display()
    ))
}

/// `couplet-demo`, or the first of `couplet-demo-2`, `couplet-demo-3` ... that is free.
fn free_name() -> PathBuf {
    let names = (2u64..).map(|n| PathBuf::from(format!("couplet-demo-{n}")));
    std::iter::once(PathBuf::from("couplet-demo")).chain(names).find(|p| !p.exists()).unwrap_or_default()
}
