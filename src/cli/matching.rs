//! `couplet match`: the correspondence of two modalities' cells, inferred from the distances within each.

use super::dataset::{DatasetArgs, Opened, Place};
use super::progress::InferBar;
use super::{DeviceArgs, check_out, interrupt, note, say_exactly};
use couplet::correspondence::{Inference, Inferring, best_assignment, infer, landmarks};
use couplet::data::Dataset;
use couplet::data::labels::Labels;
use couplet::data::preprocess::{Preprocess, Recipe};
use couplet::error::{Error, Result};
use couplet::metrics::Matrix;
use couplet::models;
use couplet::models::inference::{OPTIONS, inference};
use couplet::models::settings::Settings;
use couplet::run::rows::{Format, RowsWriter};
use couplet::run::sparse::Sparse;
use std::path::{Path, PathBuf};

/// The flags of `couplet match`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DatasetArgs,
    /// .npy: the whole table, cells of A x cells of B; .npz: the --top entries of each row, for scipy.sparse; .csv: best matches
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The modalities A and B, where there are more than two
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1)]
    between: Vec<String>,
    /// How many entries of each row an .npz or a .csv has [default: 10, 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "one_to_one")]
    top: Option<u32>,
    /// A .csv of pairs that give no cell twice, with the largest total
    #[arg(long)]
    one_to_one: bool,
    /// Solve between so many cells of each modality and extend to all, along the geodesic graph; 0: between all cells [default: 1000 where a
    /// modality has more than 2000 cells and --out is no .npy]
    #[arg(long, value_name = "N")]
    landmarks: Option<u32>,
    /// An option of the solver: preprocess, distance, kmax, solver, steps, eps, rho, delay, epsilon, rounds, marginals, relax; as in `couplet train jamie --help`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What becomes of the correspondence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Out {
    Whole,
    Sparse,
    Matches,
}

/// Matches.
pub fn run(args: Args) -> Result<()> {
    let out = match args.out.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
        Some("npz") => Out::Sparse,
        Some("npy" | "csv") if Format::of(&args.out)? == Format::Npy => Out::Whole,
        Some("csv") => Out::Matches,
        _ => return Err(Error::usage(format!("{}: the ending says what is written, .npy, .npz or .csv", args.out.display()))),
    };
    if out != Out::Matches && args.one_to_one {
        return Err(Error::usage("--one-to-one pairs go into a .csv: give --out such a name"));
    }
    if out == Out::Whole && args.top.is_some() {
        return Err(Error::usage("--top is for an .npz or a .csv: an .npy holds the whole table"));
    }
    check_out(&args.out)?;
    let stop = interrupt::install("nothing is written")?;
    let imported = args.out.with_file_name(format!(".couplet-match.{}", std::process::id()));
    let Opened { dataset, .. } = &args.data.open(Place { default: None, imported, keep: false, reuse: false }, &stop)?;
    let [a, b] = args.pair(dataset)?;
    let labels = args.data.label_column()?.map(|column| dataset.label(&column)).transpose()?;

    let all: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
    let mut settings = Settings::new("match", OPTIONS, &all)?;
    settings.apply_flags(&args.set)?;
    let (m, n) = (dataset.modality(a), dataset.modality(b));
    let mut how = inference(&settings, [m.name(), n.name()])?;
    let device = args.device.open()?;
    let mut cells = Vec::with_capacity(2);
    for modality in [m, n] {
        if modality.facts().missing > 0 {
            let missing = modality.facts().missing;
            return Err(Error::usage(format!(
                "{} has {missing} missing values, which distances do not take: fill them in",
                modality.name()
            )));
        }
        let chosen = Recipe::from_words(settings.of("preprocess", modality.name())?.words()?)?;
        let recipe = chosen.resolve(modality, models::by_name("jamie")?.count_recipe, false)?;
        let rows: Vec<u32> = (0..modality.cells() as u32).collect();
        let preprocess = Preprocess::fit(modality, &rows, &recipe)?;
        let mut x = vec![0.0; modality.cells() * modality.features()];
        for (row, out) in x.chunks_exact_mut(modality.features().max(1)).enumerate() {
            preprocess.row(modality, row, out)?;
        }
        note(format!("{}: {} cells x {} features, {recipe}", modality.name(), modality.cells(), modality.features()));
        cells.push(x);
    }
    let matrices = [Matrix::new(&cells[0], m.cells(), m.features()), Matrix::new(&cells[1], n.cells(), n.features())];
    let top = args.top.unwrap_or(if out == Out::Matches { 1 } else { 10 }) as usize;
    how.landmarks = args.landmarks(out, m.cells().max(n.cells()))?;
    if how.landmarks > 0 {
        let options = how.by_landmarks()?;
        let count = how.landmarks;
        note(format!("solved between {count} landmarks of each modality and extended to all cells; --landmarks 0 solves between all"));
        let mut bar = InferBar::new(dataset);
        let progress = &mut |r| bar.update(Inferring::Landmarks(r));
        let found = landmarks::solve(device, matrices[0], matrices[1], &options, Some(&stop), progress);
        bar.finish();
        let kept = top.max(10);
        let matches = found?.0.matches(kept)?;
        let best = |i: usize| -> Vec<(usize, f32)> { matches.row(i).take(top).map(|(j, v)| (j as usize, v)).collect() };
        match out {
            Out::Sparse => Sparse::of_rows(n.cells(), (0..m.cells()).map(best)).save(&args.out)?,
            _ => {
                let mut file =
                    RowsWriter::create(&args.out, (0..m.cells()).map(|i| best(i).len()).sum(), &[m.name(), n.name()], &["correspondence"])?;
                for i in 0..m.cells() {
                    best(i).into_iter().try_for_each(|(j, v)| file.row(&[m.cell_id(i), n.cell_id(j)], &[v]))?;
                }
                file.commit()?;
            }
        }
        let first = (0..m.cells()).map(|i| matches.row(i).next().map(|(j, _)| j as usize)).collect::<Vec<_>>();
        let mut said = told(dataset, [a, b], &args.out, &first, labels.as_ref());
        let known: Vec<(u32, u32)> = dataset.links().pairs(a, b).map(|(i, j, _)| (i, j)).collect();
        if !known.is_empty() {
            let hits = known.iter().filter(|(i, j)| matches.row(*i as usize).any(|(c, _)| c == *j)).count();
            said += &format!("known partner among the best {kept}  {}\n", share(hits, known.len()));
        }
        return say_exactly(&said);
    }
    let mut bar = InferBar::new(dataset);
    let solved = infer(device, matrices, &how, Some(&stop), &mut |told| bar.update(told));
    bar.finish();
    let f = solved?.0;

    match out {
        Out::Whole => {
            let mut file = RowsWriter::create(&args.out, m.cells(), &["cell"], n.cell_ids())?;
            for (row, f) in f.chunks_exact(n.cells()).enumerate() {
                file.row(&[m.cell_id(row)], f)?;
            }
            file.commit()?;
        }
        Out::Sparse => Sparse::largest(&f, n.cells(), top).save(&args.out)?,
        Out::Matches => {
            let pairs = if args.one_to_one { one_to_one(&f, [m.cells(), n.cells()])? } else { best(&f, n.cells(), top) };
            let mut file = RowsWriter::create(&args.out, pairs.len(), &[m.name(), n.name()], &["correspondence"])?;
            for (i, j) in pairs {
                file.row(&[m.cell_id(i), n.cell_id(j)], &[f[i * n.cells() + j]])?;
            }
            file.commit()?;
        }
    }

    let first = Sparse::best_columns(&f, n.cells());
    let mut said = told(dataset, [a, b], &args.out, &first, labels.as_ref());
    let known: Vec<(u32, u32)> = dataset.links().pairs(a, b).map(|(i, j, _)| (i, j)).collect();
    if !known.is_empty() {
        // As FOSCTTM, by the correspondence instead of a distance: the share of B that corresponds better than the true partner.
        let better = |&(i, j): &(u32, u32)| {
            let row = &f[i as usize * n.cells()..][..n.cells()];
            row.iter().filter(|v| **v > row[j as usize]).count() as f64 / n.cells() as f64
        };
        let mean = known.iter().map(better).sum::<f64>() / known.len() as f64;
        said += &format!("share of cells that correspond better than it  {mean:.4}\n");
    }
    say_exactly(&said)
}

/// How good the best matches are, as far as labels and known pairs say.
fn told(dataset: &Dataset, [a, b]: [usize; 2], file: &Path, first: &[Option<usize>], labels: Option<&Labels>) -> String {
    let (m, n) = (dataset.modality(a), dataset.modality(b));
    let mut said = format!("{}: {} cells of {} x {} of {}\n", file.display(), m.cells(), m.name(), n.cells(), n.name());
    if let Some(labels) = labels {
        let both: Vec<(u32, u32)> =
            first.iter().enumerate().filter_map(|(i, j)| Some((labels.rows[a][i]?, labels.rows[b][(*j)?]?))).collect();
        if !both.is_empty() {
            let hits = both.iter().filter(|(x, y)| x == y).count();
            said += &format!("best match has the same {}  {}\n", labels.column, share(hits, both.len()));
        }
    }
    let known: Vec<(u32, u32)> = dataset.links().pairs(a, b).map(|(i, j, _)| (i, j)).collect();
    if !known.is_empty() {
        let hits = known.iter().filter(|(i, j)| first[*i as usize] == Some(*j as usize)).count();
        said += &format!("best match is the known partner  {}\n", share(hits, known.len()));
    }
    said
}

fn share(hits: usize, of: usize) -> String {
    format!("{:.3} ({hits} of {of})", hits as f64 / of as f64)
}

impl Args {
    /// How many landmarks; 0 for none.
    fn landmarks(&self, out: Out, cells: usize) -> Result<usize> {
        if self.landmarks.is_some_and(|l| l > 0) && (out == Out::Whole || self.one_to_one) {
            return Err(Error::usage("with landmarks there is no whole table: write an .npz or a .csv without --one-to-one"));
        }
        let whole = out == Out::Whole || self.one_to_one;
        Ok(self.landmarks.map_or(if whole { 0 } else { Inference::landmarks_for(cells) }, |l| l as usize))
    }

    /// The positions of A and B.
    fn pair(&self, dataset: &Dataset) -> Result<[usize; 2]> {
        match self.between.as_slice() {
            [] if dataset.modalities().len() == 2 => Ok([0, 1]),
            [] => Err(Error::usage(format!(
                "{} has {} modalities: say which two, by --between A,B",
                dataset.dir().display(),
                dataset.modalities().len()
            ))),
            [a, b] if a != b => Ok([dataset.position(a)?, dataset.position(b)?]),
            _ => Err(Error::usage("--between wants two different modalities, as A,B")),
        }
    }
}

/// The best matches of each cell of A, best first.
fn best(f: &[f32], n: usize, top: usize) -> Vec<(usize, usize)> {
    let sparse = Sparse::largest(f, n, top);
    let mut pairs = Vec::with_capacity(sparse.indices.len());
    for i in 0..sparse.rows() {
        let (columns, values) = sparse.row(i);
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        pairs.extend(order.into_iter().map(|o| (i, columns[o] as usize)));
    }
    pairs
}

fn one_to_one(f: &[f32], shape: [usize; 2]) -> Result<Vec<(usize, usize)>> {
    let columns = best_assignment(f, shape)?;
    Ok(columns.into_iter().enumerate().filter_map(|(i, j)| Some((i, j? as usize))).collect())
}
