//! `couplet embed`: the codes of cells, all modalities in one file or one of them.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{DeviceArgs, check_out, interrupt, say};
use couplet::error::Result;
#[cfg(feature = "hdf5")]
use couplet::run::h5ad::{Cells, Matrix};
use couplet::run::parts::{PartsWriter, beside};
use couplet::run::rows::{Format, RowsWriter};
use couplet::train::Trained;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The flags of `couplet embed`.
#[derive(clap::Args)]
pub struct Args {
    /// The run whose weights are used
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    data: DatasetArgs,
    /// Only this modality [default: all, one after another]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// .npy, .csv or .h5ad: rows are cells, columns the latent dimensions (obsm/X_couplet of an .h5ad, with ids and labels in obs);
    /// of a code of several spaces each is written beside it too, as FILE.shared.npy and so on
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Embeds.
pub fn run(args: Args) -> Result<()> {
    let format = Format::of(&args.out)?;
    check_out(&args.out)?;
    let stop = interrupt::install("nothing is written")?;
    let Opened { dataset, .. } = &args.data.open(Place::of_run(&args.run)?, &stop)?;
    let chosen: Vec<usize> = match &args.from {
        Some(name) => vec![dataset.position(name)?],
        None => (0..dataset.modalities().len()).collect(),
    };
    let mut trained = Trained::open(&args.run, args.device.open()?)?;
    let rows = chosen.iter().map(|&m| dataset.modality(m).cells()).sum();
    let columns: Vec<String> = (1..=trained.latent(dataset)?).map(|i| format!("Z{i}")).collect();
    let spaces = trained.spaces(dataset)?;
    let mut out = match format {
        #[cfg(feature = "hdf5")]
        Format::H5ad => {
            let mut cells = Cells::of(dataset, &chosen)?;
            cells.add_predictions(&args.run, dataset, &chosen)?;
            let create = |path: &Path, columns: &[String]| RowsWriter::annotated(path, &cells, &Matrix::Obsm("X_couplet", columns.len()));
            PartsWriter::create(&args.out, &columns, &spaces, create)?
        }
        _ => {
            let create = |path: &Path, columns: &[String]| RowsWriter::create(path, rows, &["cell", "modality"], columns);
            PartsWriter::create(&args.out, &columns, &spaces, create)?
        }
    };
    let mut start = 0;
    for m in chosen {
        let modality = dataset.modality(m);
        trained.embed(dataset, m, &mut |row, z| out.row(&[modality.cell_id(row), modality.name()], z))?;
        let end = start + modality.cells();
        if format == Format::Npy {
            say(format!("rows {start}..{end}: {}", modality.name()))?;
        }
        start = end;
    }
    out.commit()?;
    say(format!("{}: {rows} cells x {} latent dimensions", args.out.display(), columns.len()))?;
    let part = |(name, range): &(&str, Range<usize>)| {
        say(format!("{}: the {} of them that are {name}", beside(&args.out, name).display(), range.len()))
    };
    spaces.iter().try_for_each(part)
}
