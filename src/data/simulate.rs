//! Recipes for data with known truth.
//!
//! `branching`, for the coupled autoencoder and every model's first steps, `two-domain`, for sciCAN, `nuclei`, for images, `apollo-1` .. `apollo-5`,
//! for APOLLO, `stains`, for its images, and `atlas`, for sizes at which memory and disks matter: see their files.

mod apollo;
mod atlas;
mod branching;
mod nuclei;
mod stains;
mod two_domain;

use std::path::Path;

use super::builder::{Builder, Identities};
use super::formats::Table;
use super::hooks::Hooks;
use super::labels::Given;
use super::manifest::Provenance;
use super::pairs::{self, Ids};
use super::texts::Texts;
use crate::error::{Error, Result, nearest};

/// One recipe.
#[derive(Clone, Copy)]
pub struct RecipeSpec {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it makes, in a line.
    pub about: &'static str,
    /// Cells, unless told otherwise; 0 where that depends on `--like`.
    pub cells: usize,
    /// The `train.toml` of its datasets: a table a model. Empty where `write` adds one of its own.
    pub train: &'static str,
    /// The builder, this, what was asked for, and the number of cells.
    write: fn(Builder, &RecipeSpec, &SimulateSpec, usize, &mut Hooks) -> Result<()>,
}

/// Every recipe, by name.
pub static RECIPES: &[RecipeSpec] = &[
    branching::RECIPE,
    two_domain::RECIPE,
    nuclei::RECIPE,
    APOLLO[0],
    APOLLO[1],
    APOLLO[2],
    APOLLO[3],
    APOLLO[4],
    stains::RECIPE,
    atlas::RECIPE,
];
const APOLLO: [RecipeSpec; 5] = apollo::RECIPES;

/// The recipe of a name; the error lists the names.
pub fn recipe(name: &str) -> Result<&'static RecipeSpec> {
    RECIPES.iter().find(|r| r.name == name).ok_or_else(|| {
        let names: Vec<&str> = RECIPES.iter().map(|r| r.name).collect();
        let hint = nearest(name, names.iter().copied()).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
        Error::usage(format!("there is no recipe \"{name}\"{hint}; there are: {}", names.join(", ")))
    })
}

/// What to simulate.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimulateSpec<'a> {
    /// The recipe.
    pub recipe: &'a str,
    /// Cells; none for the recipe's own number.
    pub cells: Option<usize>,
    /// All random numbers follow from it.
    pub seed: u64,
    /// The experiment that `atlas` is to be like.
    pub like: Option<&'a str>,
    /// Features of each modality of `atlas`, empty for the experiment's own numbers; of `branching`, as many views as there are numbers.
    pub features: &'a [usize],
}

/// Writes a simulated dataset to `out`, which must not exist.
pub fn simulate(spec: &SimulateSpec, out: &Path, hooks: &mut Hooks) -> Result<()> {
    let recipe = recipe(spec.recipe)?;
    let (like, features) = (recipe.name == "atlas", ["atlas", "branching"].contains(&recipe.name));
    if !like && spec.like.is_some() || !features && !spec.features.is_empty() {
        return Err(Error::usage(format!(
            "--like is for atlas, --features for atlas and branching: {} takes {}",
            recipe.name,
            if features { "no --like" } else { "neither" }
        )));
    }
    let cells = match spec.cells {
        Some(cells) => cells,
        None if recipe.cells > 0 => recipe.cells,
        None => atlas::default_cells(spec)?,
    };
    if cells == 0 || cells > i32::MAX as usize {
        return Err(Error::usage(format!("--cells {cells}: a number from 1 to {} is wanted", i32::MAX)));
    }
    let mut builder = Builder::create(out)?;
    if !recipe.train.is_empty() {
        builder.add_file("train.toml", recipe.train)?;
    }
    (recipe.write)(builder, recipe, spec, cells, hooks)
}

/// Where the modalities of a simulated dataset come from.
fn provenance(recipe: &RecipeSpec, cells: usize, seed: u64) -> Provenance {
    Provenance { file: format!("simulate {} --cells {cells} --seed {seed}", recipe.name), ..Provenance::default() }
}

/// Finishes a dataset of modalities whose row i is the same cell, with labels: a name and a text a cell each.
fn finish_paired(builder: Builder, recipe: &RecipeSpec, modalities: &[&str], cells: usize, labels: Vec<(String, Texts)>) -> Result<()> {
    let ids: Vec<String> = (0..cells).map(|cell| format!("cell{cell}")).collect();
    let links = pairs::by_row(&modalities.iter().map(|name| Ids { name, ids: &ids }).collect::<Vec<_>>())?;
    let (columns, values) = labels.into_iter().unzip();
    let lines = (2..cells as u64 + 2).collect();
    let table = Table { file: format!("simulate {}", recipe.name).into(), ids: ids.clone(), lines, columns, values };
    let who = Identities {
        ids: vec![(ids, "simulated"); modalities.len()],
        links,
        rule: "by-row".into(),
        labels: &[Given { modality: None, table }],
        default_label: None,
    };
    builder.finish(who).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_recipe_lists_the_known() {
        let out = Path::new("never-made");
        let error = simulate(&SimulateSpec { recipe: "branchin", ..Default::default() }, out, &mut Hooks::default()).unwrap_err();
        assert!(error.to_string().contains("did you mean branching?"));
        assert!(simulate(&SimulateSpec { recipe: "branching", cells: Some(0), ..Default::default() }, out, &mut Hooks::default()).is_err());
        assert!(!out.exists());
    }
}
