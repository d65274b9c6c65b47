//! `couplet bench`: how fast kernels, training steps and the reading of a dataset are on this machine.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{interrupt, say};
use couplet::bench::{self, Load};
use couplet::error::Result;
use std::path::PathBuf;

/// The flags of `couplet bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}
