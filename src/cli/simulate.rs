//! `couplet simulate`: a DATASET with known truth.

use super::{info, interrupt, progress, say, seed_parser};
use couplet::data::simulate::{self, RECIPES};
use couplet::error::{Error, Result, nearest};
use std::path::PathBuf;

/// The flags of `couplet simulate`.
#[derive(clap::Args)]
pub struct Args {
    /// What to simulate
    #[arg(value_name = "RECIPE")]
    recipe: String,
    /// The dataset, to be made
    #[arg(long, value_name = "DATASET")]
    out: PathBuf,
    /// How many cells [default: the recipe's]
    #[arg(long, value_name = "N")]
    cells: Option<usize>,
    /// All random numbers derive from it
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = seed_parser())]
    seed: u64,
}
