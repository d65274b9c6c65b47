//! `couplet translate`: what a run imputes of one modality from another.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{DeviceArgs, check_out, interrupt, note, say};
use clap::ValueEnum;
use couplet::data::Dataset;
use couplet::error::{Error, Result};
#[cfg(feature = "hdf5")]
use couplet::run::h5ad::{Cells, Matrix};
use couplet::run::rows::{Format, RowsWriter};
use couplet::train::{self, Trained};
use std::path::{Path, PathBuf};

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
    /// .npy, .csv or .h5ad: rows are the cells of --from, columns the features of --to (X of an .h5ad, with ids and labels in obs);
    /// images in an .npy keep their axes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Images only: a PNG of some of them side by side, below the measured ones of the same cells where those are known
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Cells on the sheet, drawn evenly
    #[arg(long, value_name = "N", default_value_t = 32, requires = "sheet", value_parser = clap::value_parser!(u16).range(1..=4096))]
    sheet_cells: u16,
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
    if let Some(sheet) = &args.sheet {
        check_out(sheet)?;
    }
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
    let (features, shape) = (dataset.modality(to).feature_names(), dataset.modality(to).shape());
    let mut sheet = Sheet::new(&args, dataset, [from, to])?;
    let mut out = match format {
        #[cfg(feature = "hdf5")]
        Format::H5ad => {
            let mut cells = Cells::of(dataset, &[from])?;
            cells.add_predictions(&args.run, dataset, &[from])?;
            RowsWriter::annotated(&args.out, &cells, &Matrix::X(features))?
        }
        _ => RowsWriter::shaped(&args.out, modality.cells(), &["cell"], features, shape)?,
    };
    trained.translate(dataset, from, to, space, &mut |row, x| {
        if let Some(sheet) = &mut sheet {
            sheet.take(row, x);
        }
        out.row(&[modality.cell_id(row)], x)
    })?;
    if let (Some(sheet), Some(path)) = (sheet, &args.sheet) {
        sheet.save(path, &mut trained, dataset, to, space)?;
    }
    out.commit()?;
    say(format!("{}: {} cells x {} features of {}", args.out.display(), modality.cells(), features.len(), args.to))
}

/// The images of a contact sheet.
struct Sheet {
    /// Rows of the modality that is read, ascending, and those of the same cells in the other where that is known.
    rows: Vec<(usize, Option<usize>)>,
    images: Vec<Vec<f32>>,
    shape: [usize; 3],
}

impl Sheet {
    /// Cells that were measured in both modalities, if there are any; else of all of them.
    fn new(args: &Args, dataset: &Dataset, [from, to]: [usize; 2]) -> Result<Option<Sheet>> {
        if args.sheet.is_none() {
            return Ok(None);
        }
        let Some(shape) = dataset.modality(to).image() else {
            return Err(Error::usage(format!("--sheet shows images, and {} is none: leave it out", args.to)));
        };
        let mut rows: Vec<(usize, Option<usize>)> = match from == to {
            true => (0..dataset.modality(to).cells()).map(|row| (row, Some(row))).collect(),
            false => dataset.links().pairs(from, to).map(|(a, b, _)| (a as usize, Some(b as usize))).collect(),
        };
        rows.sort_unstable();
        rows.dedup_by_key(|r| r.0);
        if rows.is_empty() {
            rows = (0..dataset.modality(from).cells()).map(|row| (row, None)).collect();
        }
        let (all, most) = (rows.len(), usize::from(args.sheet_cells).min(rows.len()));
        let rows = (0..most).map(|i| rows[i * all / most]).collect();
        Ok(Some(Sheet { rows, images: Vec::new(), shape }))
    }

    fn take(&mut self, row: usize, x: &[f32]) {
        if self.rows.get(self.images.len()).is_some_and(|r| r.0 == row) {
            self.images.push(x.to_vec());
        }
    }

    fn save(self, path: &Path, trained: &mut Trained, dataset: &Dataset, to: usize, space: train::Space) -> Result<()> {
        let mut cells = Vec::new();
        for ((_, measured), image) in self.rows.iter().zip(self.images) {
            let measured = measured.map(|row| trained.measured(dataset, to, row, space)).transpose()?;
            cells.push(measured.into_iter().chain([image]).collect::<Vec<_>>());
        }
        let what = if cells.first().is_some_and(|c| c.len() == 2) { "measured above translated" } else { "translated" };
        save_sheet(path, &cells, self.shape)?;
        say(format!("{}: {} cells, {what}", path.display(), cells.len()))
    }
}

#[cfg(feature = "images")]
fn save_sheet(path: &Path, cells: &[Vec<Vec<f32>>], shape: [usize; 3]) -> Result<()> {
    couplet::plot::sheet::save(path, cells, shape)
}

#[cfg(not(feature = "images"))]
fn save_sheet(_path: &Path, _cells: &[Vec<Vec<f32>>], _shape: [usize; 3]) -> Result<()> {
    Err(Error::usage("--sheet: this couplet was built without its feature `images`"))
}
