//! `couplet translate`: what a run imputes of one modality from another.

use super::dataset::{DatasetArgs, Opened, Place};
use super::{DeviceArgs, check_out, interrupt, note, say};
use clap::ValueEnum;
use couplet::data::Dataset;
use couplet::error::{Error, Result};
#[cfg(feature = "hdf5")]
use couplet::run::h5ad::{Cells, Matrix};
use couplet::run::rows::{Format, RowsWriter};
use couplet::run::sparse_rows::{self, Keep, SparseRowsWriter};
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
    /// Take every cell to be of this condition, as stained for another protein, for an apollo run with --set condition=COLUMN
    #[arg(long, value_name = "NAME")]
    condition: Option<String>,
    /// input: as the values were imported, all steps of preprocessing undone; model: as the model sees them
    #[arg(long, value_enum, default_value = "input")]
    space: Space,
    /// .npy, .csv or .h5ad: rows are the cells of --from, columns the features of --to (X of an .h5ad, with ids and labels in obs);
    /// images in an .npy keep their axes. With --top or --threshold .npz (SciPy's), .h5ad (CSR) or .csv (a line an entry)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Keep the N values of largest magnitude of each cell and write a sparse matrix: what is left out counts as 0
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Leave out values of smaller magnitude than this and write a sparse matrix
    #[arg(long, value_name = "VALUE", value_parser = magnitude, allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Write an .h5ad's layer of this name in place of X
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
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

/// A number from 0.
fn magnitude(text: &str) -> std::result::Result<f32, String> {
    text.parse().ok().filter(|x: &f32| x.is_finite() && *x >= 0.0).ok_or_else(|| "wanted is a number from 0".into())
}

/// Where the rows go.
enum Out {
    Dense(RowsWriter),
    Sparse(SparseRowsWriter),
}

impl Out {
    fn create(args: &Args, dataset: &Dataset, [from, to]: [usize; 2]) -> Result<Out> {
        let (modality, target) = (dataset.modality(from), dataset.modality(to));
        let features = target.feature_names();
        #[cfg(feature = "hdf5")]
        let cells = || {
            let mut cells = Cells::of(dataset, &[from])?;
            cells.add_predictions(&args.run, dataset, &[from])?;
            Ok::<_, Error>(cells)
        };
        if let Some(keep) = args.keep() {
            return Ok(Out::Sparse(match sparse_rows::Format::of(&args.out)? {
                #[cfg(feature = "hdf5")]
                sparse_rows::Format::H5ad => SparseRowsWriter::annotated(&args.out, cells()?, features, args.layer.as_deref(), keep)?,
                _ => SparseRowsWriter::create(&args.out, modality.cells(), features, keep)?,
            }));
        }
        Ok(Out::Dense(match Format::of(&args.out)? {
            #[cfg(feature = "hdf5")]
            Format::H5ad => {
                let matrix = args.layer.as_deref().map_or(Matrix::X(features), |layer| Matrix::Layer(layer, features));
                RowsWriter::annotated(&args.out, &cells()?, &matrix)?
            }
            _ => RowsWriter::shaped(&args.out, modality.cells(), &["cell"], features, target.shape())?,
        }))
    }
}

impl Args {
    /// What of a row is kept, if not all.
    fn keep(&self) -> Option<Keep> {
        let wanted = self.top.is_some() || self.threshold.is_some();
        wanted.then(|| Keep { top: self.top.map(|n| n as usize), least: self.threshold.unwrap_or(0.0) })
    }

    /// An error if what is asked for does not go together.
    fn check(&self) -> Result<()> {
        let ending = self.out.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
        match self.keep() {
            Some(_) => sparse_rows::Format::of(&self.out).map(|_| ())?,
            None if ending.as_deref() == Some("npz") => {
                let message = format!("{}: an .npz is sparse: say what is kept of a cell by --top or --threshold", self.out.display());
                return Err(Error::usage(message));
            }
            None => Format::of(&self.out).map(|_| ())?,
        }
        match &self.layer {
            Some(_) if ending.as_deref() != Some("h5ad") => {
                Err(Error::usage("--layer names a layer of an .h5ad: leave it out, or let --out end in .h5ad"))
            }
            Some(name) if name.is_empty() || name.contains('/') => {
                Err(Error::usage(format!("--layer \"{name}\": this cannot be the name of a layer, which has letters and no slash")))
            }
            _ => Ok(()),
        }
    }
}

/// Translates.
pub fn run(args: Args) -> Result<()> {
    args.check()?;
    check_out(&args.out)?;
    if let Some(sheet) = &args.sheet {
        check_out(sheet)?;
    }
    let stop = interrupt::install("nothing is written")?;
    let Opened { dataset, .. } = &args.data.open(Place::of_run(&args.run)?, &stop)?;
    let (from, to) = (dataset.position(&args.from)?, dataset.position(&args.to)?);
    let mut trained = Trained::open(&args.run, args.device.open()?)?;
    if let Some(condition) = &args.condition {
        trained.take_as(condition)?;
    }
    trained.imputation_remark().into_iter().for_each(note);
    let space = match args.space {
        Space::Input => train::Space::Input,
        Space::Model => train::Space::Model,
    };
    let modality = dataset.modality(from);
    let features = dataset.modality(to).features();
    let mut sheet = Sheet::new(&args, dataset, [from, to])?;
    let mut out = Out::create(&args, dataset, [from, to])?;
    trained.translate(dataset, from, to, space, &mut |row, x| {
        if let Some(sheet) = &mut sheet {
            sheet.take(row, x);
        }
        match &mut out {
            Out::Dense(out) => out.row(&[modality.cell_id(row)], x),
            Out::Sparse(out) => out.row(modality.cell_id(row), x),
        }
    })?;
    if let (Some(sheet), Some(path)) = (sheet, &args.sheet) {
        sheet.save(path, &mut trained, dataset, to, space)?;
    }
    let entries = match out {
        Out::Dense(out) => {
            out.commit()?;
            String::new()
        }
        Out::Sparse(out) => {
            let entries = out.entries();
            out.commit()?;
            format!(", {entries} values kept")
        }
    };
    say(format!("{}: {} cells x {features} features of {}{entries}", args.out.display(), modality.cells(), args.to))
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
