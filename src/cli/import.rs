//! `couplet import`: files that other programs wrote become a DATASET.

use super::dataset::{FileArgs, import_into};
use super::{info, interrupt, say_exactly};
use couplet::error::Result;
use std::path::PathBuf;

/// The flags of `couplet import`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: FileArgs,
    /// A table of labels, ids in its first column, repeatable; COLUMN is the one meant when none is named, NAME the only modality labelled
    #[arg(long, value_name = "[NAME=]FILE[#COLUMN]")]
    labels: Vec<String>,
    /// The dataset, to be made
    #[arg(long, value_name = "DATASET")]
    out: PathBuf,
}

/// Imports.
pub fn run(args: Args) -> Result<()> {
    let spec = args.files.spec_of_tables(&args.labels)?;
    let stop = interrupt::install("nothing is written")?;
    let dataset = import_into(&spec, &args.out, &stop)?;
    say_exactly(&info::describe(&dataset)?)
}
