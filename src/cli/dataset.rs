//! Where a DATASET comes from: a directory, or files that are imported on the fly.

use super::{note, progress};
use couplet::data::Dataset;
use couplet::error::{Error, Result};
use couplet::run::Run;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Files that other programs wrote: the flags of `import`, and of every command that takes a DATASET.
#[derive(clap::Args)]
pub struct FileArgs {
    /// A modality and its file, repeatable; KEY chooses one of several matrices in it
    #[arg(long, value_name = "NAME=FILE[#KEY]")]
    pub modality: Vec<String>,
    /// Which rows are the same cell: by-name, by-row, none, or a CSV of two ids and perhaps a confidence [default: by-name if ids are shared]
    #[arg(long, value_name = "FILE|by-name|by-row|none", requires = "modality")]
    pub pairs: Option<String>,
    /// nan: values that are no finite numbers are missing, not errors
    #[arg(long, value_name = "nan", requires = "modality", value_parser = ["nan"])]
    pub missing: Option<String>,
    /// What the rows of a MatrixMarket file without names beside it are
    #[arg(long, value_name = "cells|features", requires = "modality", value_parser = ["cells", "features"])]
    pub rows: Option<String>,
}

/// A DATASET, wherever one stands.
#[derive(clap::Args)]
pub struct DatasetArgs {
    /// What `couplet import` or `couplet simulate` made
    #[arg(value_name = "DATASET", conflicts_with = "modality")]
    dataset: Option<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    /// A label column; with --modality also a table of labels: FILE, FILE#COLUMN, or NAME=FILE for one modality
    #[arg(long, value_name = "COLUMN")]
    labels: Vec<String>,
}

/// What a command does with its DATASET.
pub struct Place {
    /// The dataset where none is named.
    pub default: Option<PathBuf>,
    /// Where files are imported to.
    pub imported: PathBuf,
    /// Whether that stays.
    pub keep: bool,
    /// Whether files that were imported before are taken as they are.
    pub reuse: bool,
}

impl Place {
    /// For a command that uses a run: its dataset, unless another is named, and files are imported for this time only.
    pub fn of_run(run: &Path) -> Result<Place> {
        let (_, config) = Run::open(run)?;
        let imported = run.join(format!(".dataset.{}", std::process::id()));
        Ok(Place { default: Some(config.dataset_from(run)), imported, keep: false, reuse: false })
    }
}

/// An open dataset. One that was imported for this time only goes when this does.
pub struct Opened {
    /// The dataset; it is closed before its files go.
    pub dataset: Dataset,
    _scratch: Option<Scratch>,
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
