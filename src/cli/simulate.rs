//! `couplet simulate`: a DATASET with known truth.

use super::{info, interrupt, progress, say_exactly, seed_parser};
use couplet::data::Dataset;
use couplet::data::simulate::{RECIPES, RecipeSpec, SimulateSpec, simulate};
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
    /// The experiment that atlas is to be like: scrna, multiome, shareseq or citeseq
    #[arg(long, value_name = "KIND")]
    like: Option<String>,
    /// Features of each modality of atlas [default: the experiment's]; of each view of branching, two or more [default: 200,100]
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',')]
    features: Vec<usize>,
}

/// The recipes, for the help.
pub fn recipes() -> String {
    let cells = |r: &RecipeSpec| if r.cells > 0 { format!("; {} cells", r.cells) } else { String::new() };
    RECIPES.iter().fold("Recipes:\n".to_string(), |text, r| text + &format!("  {}  {}{}\n", r.name, r.about, cells(r)))
}

/// Simulates.
pub fn run(args: Args) -> Result<()> {
    let stop = interrupt::install("nothing is written")?;
    let spec =
        SimulateSpec { recipe: &args.recipe, cells: args.cells, seed: args.seed, like: args.like.as_deref(), features: &args.features };
    progress::with_hooks(Some(&stop), |hooks| simulate(&spec, &args.out, hooks))?;
    say_exactly(&info::describe(&Dataset::open(&args.out)?)?)
}
