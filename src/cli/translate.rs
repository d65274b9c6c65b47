//! `couplet translate`: what a run imputes of one modality from another.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{DeviceArgs, check_out, interrupt, note, say};
use clap::ValueEnum;
use couplet::error::Result;
#[cfg(feature = "hdf5")]
use couplet::run::h5ad::{Cells, Matrix};
use couplet::run::rows::{Format, RowsWriter};
use couplet::train::{self, Trained};
use std::path::PathBuf;

/// The flags of `couplet translate`.
#[derive(clap::Args)]
pub struct Args {
    /// The run whose weights are used
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    data: DatasetArgs,
    /// The modality that is read
    #[arg(long, value_name = "NAME")]
    from: String,
    /// The modality that is imputed
    #[arg(long, value_name = "NAME")]
    to: String,
    /// input: as the values were imported, all steps of preprocessing undone; model: as the model sees them
    #[arg(long, value_enum, default_value = "input")]
    space: Space,
    /// .npy, .csv or .h5ad: rows are the cells of --from, columns the features of --to (X of an .h5ad, with ids and labels in obs)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

/// `--space`.
#[derive(Clone, Copy, ValueEnum)]
enum Space {
    /// As the values were imported
    Input,
    /// As the model sees them
    Model,
}

/// Translates.
pub fn run(args: Args) -> Result<()> {
    let format = Format::of(&args.out)?;
    check_out(&args.out)?;
    let stop = interrupt::install("nothing is written")?;
    let Opened { dataset, .. } = &args.data.open(Place::of_run(&args.run)?, &stop)?;
    let (from, to) = (dataset.position(&args.from)?, dataset.position(&args.to)?);
    let mut trained = Trained::open(&args.run, args.device.open()?)?;
    trained.imputation_remark().into_iter().for_each(note);
    let space = match args.space {
        Space::Input => train::Space::Input,
        Space::Model => train::Space::Model,
    };
    let modality = dataset.modality(from);
    let features = dataset.modality(to).feature_names();
    let mut out = match format {
        #[cfg(feature = "hdf5")]
        Format::H5ad => RowsWriter::annotated(&args.out, &Cells::of(dataset, &[from])?, &Matrix::X(features))?,
        _ => RowsWriter::create(&args.out, modality.cells(), &["cell"], features)?,
    };
    trained.translate(dataset, from, to, space, &mut |row, x| out.row(&[modality.cell_id(row)], x))?;
    out.commit()?;
    say(format!("{}: {} cells x {} features of {}", args.out.display(), modality.cells(), features.len(), args.to))
}
