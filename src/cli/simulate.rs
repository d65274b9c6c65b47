//! `couplet simulate`: a DATASET with known truth.

use super::{info, interrupt, progress, say_exactly, seed_parser};
use couplet::data::Dataset;
use couplet::data::simulate::{RECIPES, SimulateSpec, simulate};
use couplet::error::Result;
use std::path::PathBuf;

/// The flags of `couplet simulate`.
#[derive(clap::Args)]
#[command(after_help = recipes())]
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

/// The recipes, for the help.
pub fn recipes() -> String {
    RECIPES.iter().fold("Recipes:\n".to_string(), |text, r| text + &format!("  {}  {}; {} cells\n", r.name, r.about, r.cells))
}

/// Simulates.
pub fn run(args: Args) -> Result<()> {
    let stop = interrupt::install("nothing is written")?;
    let spec = SimulateSpec { recipe: &args.recipe, cells: args.cells, seed: args.seed };
    progress::with_hooks(Some(&stop), |hooks| simulate(&spec, &args.out, hooks))?;
    say_exactly(&info::describe(&Dataset::open(&args.out)?)?)
}
