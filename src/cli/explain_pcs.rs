//! `couplet explain pcs`: what the principal components of a run's latent spaces mean, as tables, figures and contact sheets.

use super::dataset::{DatasetArgs, Opened, Place};
use super::progress::with_hooks;
use super::{DeviceArgs, fraction, interrupt, say, say_exactly, seed_parser};
use couplet::data::Dataset;
use couplet::error::{Error, Result};
#[cfg(feature = "images")]
use couplet::explain::pcs::REPRESENTATIVES;
#[cfg(feature = "images")]
use couplet::explain::pcs::bins::BINS;
use couplet::explain::pcs::bins::GROUPS;
use couplet::explain::pcs::{Interpreted, Spec, report};
use couplet::plot;
use couplet::train::Trained;
use std::path::{Path, PathBuf};

/// Features of a group that are printed and drawn.
const SHOWN: usize = 6;

/// The flags of `couplet explain pcs`.
#[derive(clap::Args)]
pub struct Args {
    /// The run whose latent spaces are interpreted
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    data: DatasetArgs,
    /// The modality whose encoder gives the codes [default: each in turn]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// The modality whose features are compared, by the known pairs [default: that of the encoder]
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// A table of features of the cells instead, ids in its first column: measured on images, say
    #[arg(long, value_name = "FILE.csv", conflicts_with = "values")]
    features: Option<PathBuf>,
    /// Preprocessing of the values [default: counts10k-log1p for counts, a few measures for images, else none]
    #[arg(long, value_name = "RECIPE")]
    values: Option<String>,
    /// Components of each space
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    components: u16,
    /// Random splits, a fifth of the cells for the test
    #[arg(long, value_name = "N", default_value_t = 36, value_parser = clap::value_parser!(u16).range(1..))]
    splits: u16,
    /// The share of the cells, nearest to a component's axis, that is compared
    #[arg(long, value_name = "FRACTION", default_value_t = 0.15, value_parser = fraction)]
    centre: f64,
    /// The lowest and the highest threshold of fold changes: a feature is ranked by how long it is found between them
    #[arg(long, value_name = "LOW,HIGH", default_value = "1.2,8", value_parser = thresholds)]
    thresholds: [f64; 2],
    /// The splits derive from it
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = seed_parser())]
    seed: u64,
    /// A folder for tables, figures and contact sheets [default: RUN/pcs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn thresholds(text: &str) -> std::result::Result<[f64; 2], String> {
    let numbers: Vec<f64> = text.split(',').map(str::trim).map(str::parse).collect::<std::result::Result<_, _>>().unwrap_or_default();
    match numbers[..] {
        [low, high] if low >= 1.0 && high > low && high.is_finite() => Ok([low, high]),
        _ => Err("two numbers from 1 are wanted, the lower first, such as 1.2,8".into()),
    }
}

/// Interprets.
pub fn run(args: Args) -> Result<()> {
    let stop = interrupt::install("what is written already stays")?;
    let Opened { dataset, .. } = &args.data.open(Place::of_run(&args.run)?, &stop)?;
    let from: Vec<usize> = match &args.from {
        Some(name) => vec![dataset.position(name)?],
        None => (0..dataset.modalities().len()).collect(),
    };
    let of = args.of.as_ref().map(|name| dataset.position(name)).transpose()?;
    if args.centre == 0.0 {
        return Err(Error::usage("--centre 0 keeps no cell to compare: the default is 0.15"));
    }
    let out = args.out.clone().unwrap_or_else(|| args.run.join("pcs"));
    std::fs::create_dir_all(&out).map_err(|e| Error::io("create", &out, e))?;
    let mut trained = Trained::open(&args.run, args.device.open()?)?;
    let mut all = Vec::new();
    for from in from {
        let spec = Spec {
            from,
            of: of.unwrap_or(from),
            features: args.features.as_deref(),
            values: args.values.as_deref(),
            components: usize::from(args.components),
            splits: usize::from(args.splits),
            test: 0.2,
            centre: args.centre,
            thresholds: args.thresholds,
            seed: args.seed,
        };
        all.extend(with_hooks(Some(&stop), |hooks| trained.explain_pcs(dataset, &spec, hooks))?);
    }
    for space in &all {
        for at in 0..space.components.len() {
            say_exactly(&table(space, at))?;
            let scene = space.figure(at, SHOWN).scene();
            for ending in ["svg", "png"] {
                plot::save(&scene, &out.join(format!("{}.{ending}", space.stem(at))))?;
            }
            save_sheet(&out, space, at, dataset)?;
        }
    }
    report::write_features(&out.join("features.csv"), &all)?;
    report::write_cells(&out.join("cells.csv"), &all)?;
    let (figures, rows) = (all.iter().map(|s| s.components.len()).sum::<usize>(), all.iter().flat_map(|s| &s.components));
    let rows: usize = rows.map(|c| c.found.len()).sum();
    say(format!("{}: features.csv ({rows} rows), cells.csv, {figures} figures as SVG and PNG", out.display()))
}

/// A component in a few lines.
fn table(space: &Interpreted, at: usize) -> String {
    let c = &space.components[at];
    let mut text = format!("{}: {:.1} % of the variance\n", space.title(at), 100.0 * c.share);
    for (g, rows) in space.telling(c, SHOWN).into_iter().enumerate() {
        let found = c.found.iter().filter(|r| r.group == g).count();
        text += &format!("  {:<5} {found} of {} features", GROUPS[g], space.features);
        let one = |r: &&couplet::explain::pcs::Reported| format!("{} {:+.2} ({}/{})", r.feature, r.effects[1], r.count, c.tested[g]);
        let named: Vec<String> = rows.iter().map(one).collect();
        text += &if named.is_empty() { "\n".to_string() } else { format!(": {}\n", named.join(", ")) };
    }
    text
}

/// Where the compared modality is of images: those of the cells that stand for the bins, a bin a column.
#[cfg(feature = "images")]
fn save_sheet(out: &Path, space: &Interpreted, at: usize, dataset: &Dataset) -> Result<()> {
    let modality = dataset.modality(dataset.position(&space.of)?);
    let Some(shape) = modality.image() else { return Ok(()) };
    let mut columns = Vec::with_capacity(BINS);
    for cells in &space.components[at].representatives {
        let mut column = Vec::with_capacity(REPRESENTATIVES);
        for cell in cells {
            let mut pixels = vec![0.0; modality.features()];
            modality.row_into(cell.of as usize, &mut pixels)?;
            column.push(pixels);
        }
        // A bin with fewer cells ends in black.
        column.resize(REPRESENTATIVES, vec![0.0; modality.features()]);
        columns.push(column);
    }
    plot::sheet::save_lines(&out.join(format!("{}.cells.png", space.stem(at))), &columns, shape, BINS)
}

#[cfg(not(feature = "images"))]
fn save_sheet(_out: &Path, _space: &Interpreted, _at: usize, _dataset: &Dataset) -> Result<()> {
    Ok(())
}
