//! `couplet explain`: which features a run uses, as a table and a waterfall.

use super::dataset::{DatasetArgs, Opened, Place};
use super::progress::with_hooks;
use super::{DeviceArgs, check_out, explain_pcs, interrupt, note, say, say_exactly, seed_parser};
use clap::ValueEnum;
use couplet::data::{Dataset, Modality};
use couplet::error::{Error, Result};
use couplet::explain::ablation::{self, Ablations, Score};
use couplet::explain::shapley::{self, Explained};
use couplet::explain::{self, Group, game};
use couplet::plot;
use couplet::train::{self, Trained};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Rows of a table that are printed, and bars of a figure.
const SHOWN: usize = 15;
/// More cells than this to pass are said beforehand.
const MANY: usize = 1_000_000;

/// What `couplet explain` is given: features that are taken away, or `pcs`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    way: Option<Way>,
    #[command(flatten)]
    removal: Removal,
}

#[derive(clap::Subcommand)]
enum Way {
    /// What the principal components of the latent spaces mean
    Pcs(Box<explain_pcs::Args>),
}

/// The flags of `couplet explain RUN`.
#[derive(clap::Args)]
struct Removal {
    /// The run that is explained
    #[arg(value_name = "RUN", required = true)]
    run: Option<PathBuf>,
    #[command(flatten)]
    data: DatasetArgs,
    /// ablation: how a score falls without a feature; shapley: what each feature of a cell adds to an imputed value
    #[arg(long, value_enum, required = true)]
    method: Option<Method>,
    /// ablation: the modality whose features are replaced by their means
    #[arg(long, value_name = "NAME", required_if_eq("method", "ablation"))]
    of: Option<String>,
    /// shapley: the modality that is read
    #[arg(long, value_name = "NAME", required_if_eq("method", "shapley"))]
    from: Option<String>,
    /// The imputed modality; for ablation without --feature, the one that the label transfer learns from
    #[arg(long, value_name = "NAME", required_if_eq("method", "shapley"))]
    to: Option<String>,
    /// The imputed feature of --to; with ablation the score is then its correlation with what was measured, not label transfer
    #[arg(long, value_name = "FEATURE", requires = "to", required_if_eq("method", "shapley"))]
    feature: Option<String>,
    /// ablation: replace everything but the feature or set
    #[arg(long)]
    keep: bool,
    /// A CSV with the columns set and feature, a row a member: features that go together [default: each by itself]
    #[arg(long, value_name = "FILE.csv")]
    sets: Option<PathBuf>,
    /// shapley: the cell that is explained
    #[arg(long, value_name = "ID", required_if_eq("method", "shapley"))]
    cell: Option<String>,
    /// shapley: only the N features or sets whose absence matters most by themselves, the others together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// shapley: orders that are drawn, each walked both ways [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    permutations: Option<u32>,
    /// shapley: the orders derive from it [default: 0]
    #[arg(long, value_name = "N", value_parser = seed_parser())]
    seed: Option<u64>,
    /// shapley: units of the imputed value: input, as imported; model, after preprocessing [default: input]
    #[arg(long, value_enum)]
    space: Option<Space>,
    /// Write the whole table here
    #[arg(long, value_name = "FILE.csv")]
    out: Option<PathBuf>,
    /// shapley: draw a waterfall, .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// `--method`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// How a score falls without a feature
    Ablation,
    /// What each feature of a cell adds
    Shapley,
}

/// `--space`.
#[derive(Clone, Copy, ValueEnum)]
enum Space {
    /// As the values were imported
    Input,
    /// As the model sees them
    Model,
}

/// Explains.
pub fn run(args: Args) -> Result<()> {
    match args.way {
        Some(Way::Pcs(args)) => explain_pcs::run(*args),
        None => remove(args.removal),
    }
}

fn remove(args: Removal) -> Result<()> {
    let (run, method) = (args.run()?, args.method()?);
    args.check()?;
    let column = args.data.label_column()?;
    let stop = interrupt::install("nothing is written")?;
    let Opened { dataset, .. } = &args.data.open(Place::of_run(run)?, &stop)?;
    match method {
        Method::Ablation => args.ablation(dataset, column, &stop),
        Method::Shapley => args.shapley(dataset, &stop),
    }
}

impl Removal {
    // Both are there unless `pcs` is: clap asks for them.
    fn run(&self) -> Result<&Path> {
        self.run.as_deref().ok_or_else(|| Error::usage("name a RUN, or `pcs` and a RUN"))
    }

    fn method(&self) -> Result<Method> {
        self.method.ok_or_else(|| Error::usage("--method: ablation or shapley"))
    }

    /// What clap cannot say: flags of the other method, and files that could not be written in the end.
    fn check(&self) -> Result<()> {
        let flags = [
            ("--of", Method::Ablation, self.of.is_some()),
            ("--keep", Method::Ablation, self.keep),
            ("--from", Method::Shapley, self.from.is_some()),
            ("--cell", Method::Shapley, self.cell.is_some()),
            ("--top", Method::Shapley, self.top.is_some()),
            ("--permutations", Method::Shapley, self.permutations.is_some()),
            ("--seed", Method::Shapley, self.seed.is_some()),
            ("--space", Method::Shapley, self.space.is_some()),
            ("--plot", Method::Shapley, self.plot.is_some()),
        ];
        if let Some((flag, method, _)) = flags.iter().find(|(_, method, given)| *given && Some(*method) != self.method) {
            let method = if *method == Method::Ablation { "ablation" } else { "shapley" };
            return Err(Error::usage(format!("{flag} goes with --method {method}")));
        }
        if let Some(plot) = &self.plot {
            plot::Format::of(plot)?;
        }
        if let Some(out) = &self.out
            && out.extension().is_none_or(|e| !e.eq_ignore_ascii_case("csv"))
        {
            return Err(Error::usage(format!("--out {}: the table is written as .csv", out.display())));
        }
        self.out.iter().chain(&self.plot).try_for_each(|file| check_out(file))
    }

    fn groups(&self, modality: &Modality) -> Result<Vec<Group>> {
        self.sets.as_ref().map_or_else(|| Ok(explain::each_feature(modality)), |file| explain::read_sets(file, modality))
    }

    fn ablation(&self, dataset: &Dataset, column: Option<String>, stop: &AtomicBool) -> Result<()> {
        let of = position(dataset, &self.of)?;
        let to = self.to.as_ref().map(|to| dataset.position(to)).transpose()?;
        let score = match (&self.feature, to) {
            (Some(feature), Some(to)) => Score::Pearson { to, feature: explain::feature(dataset.modality(to), feature)? },
            _ => Score::LabelTransfer { column, from: to },
        };
        let groups = self.groups(dataset.modality(of))?;
        let mut trained = Trained::open(self.run()?, self.device.open()?)?;
        let spec = ablation::Spec { of, score, groups: &groups, keep: self.keep };
        let ablations = with_hooks(Some(stop), |hooks| trained.ablate(dataset, &spec, hooks))?;
        say_exactly(&ablation_table(&ablations, dataset.modality(of).name(), self.what()))?;
        self.out.as_ref().map_or(Ok(()), |out| {
            ablations.write(out)?;
            say(format!("{}: {} rows", out.display(), ablations.rows.len()))
        })
    }

    fn shapley(&self, dataset: &Dataset, stop: &AtomicBool) -> Result<()> {
        let (from, to) = (position(dataset, &self.from)?, position(dataset, &self.to)?);
        let (source, target) = (dataset.modality(from), dataset.modality(to));
        let (cell, feature) = (self.cell.as_deref().unwrap_or_default(), self.feature.as_deref().unwrap_or_default());
        let groups = self.groups(source)?;
        let spec = shapley::Spec {
            from,
            to,
            feature: explain::feature(target, feature)?,
            row: explain::cell(source, cell)?,
            groups: &groups,
            top: self.top.map(|n| n as usize),
            permutations: self.permutations.unwrap_or(100) as usize,
            seed: self.seed.unwrap_or(0),
            space: match self.space {
                None | Some(Space::Input) => train::Space::Input,
                Some(Space::Model) => train::Space::Model,
            },
        };
        let mut trained = Trained::open(self.run()?, self.device.open()?)?;
        let players = spec.top.map_or(groups.len(), |top| top.min(groups.len()) + 1);
        let (cells, _) = game::evaluations(players, spec.permutations);
        if cells > MANY {
            note(format!("{cells} cells pass through the model; --top, --sets or fewer --permutations make it fewer"));
        }
        let explained = with_hooks(Some(stop), |hooks| trained.shapley(dataset, &spec, hooks))?;
        let title = format!("{feature} of {}, imputed from {}: cell {cell}", target.name(), source.name());
        say_exactly(&shapley_table(&explained, &title, self.what()))?;
        if let Some(out) = &self.out {
            explained.write(out)?;
            say(format!("{}: {} rows", out.display(), explained.contributions.len()))?;
        }
        let Some(file) = &self.plot else { return Ok(()) };
        let unit = match self.space {
            None | Some(Space::Input) => format!("units of {}", target.name()),
            Some(Space::Model) => format!("preprocessed units of {}", target.name()),
        };
        let remark = format!("Shapley values of the features of {}; {}", source.name(), how(&explained));
        plot::save(&explained.waterfall(SHOWN, [title, remark, format!("imputed {feature} ({unit})")]).scene(), file)?;
        say(format!("{}: waterfall", file.display()))
    }

    /// What a row of a table is.
    fn what(&self) -> &'static str {
        if self.sets.is_some() { "set" } else { "feature" }
    }
}

/// A modality that clap has seen to be named.
fn position(dataset: &Dataset, name: &Option<String>) -> Result<usize> {
    dataset.position(name.as_deref().unwrap_or_default())
}

fn how(explained: &Explained) -> String {
    match explained.permutations {
        0 => "exact: every coalition was asked for".into(),
        1 => "one permutation, walked both ways".into(),
        n => format!("± standard error over {n} permutations, each walked both ways"),
    }
}

fn ablation_table(a: &Ablations, modality: &str, what: &str) -> String {
    let cells = if a.held_out { "cells that training never saw" } else { "training cells" };
    let mut text = format!("{}; {} {cells}\n", a.score, a.cells);
    text += &format!("baseline {:.4}, with every feature of {modality} at its mean {:.4}\n\n", a.baseline, a.floor);
    let score = if a.keep { "with nothing else" } else { "without it" };
    let rows = a.rows.iter().take(SHOWN).map(|r| vec![r.name.clone(), format!("{:.4}", r.score), format!("{:+.4}", r.drop)]);
    text += &aligned(vec![vec![what.to_string(), score.to_string(), "drop".into()]], rows);
    text + &left_out(a.rows.len())
}

fn shapley_table(e: &Explained, title: &str, what: &str) -> String {
    let mut text = format!("{title}\n{:.5}, the mean cell {:.5}; {}\n\n", e.full, e.empty, how(e));
    let number = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.5}"));
    let rows = e.contributions.iter().take(SHOWN).map(|c| {
        let value = c.value.map_or_else(|| format!("{} features", c.features), |v| v.to_string());
        vec![c.name.clone(), value, format!("{:+.5}", c.shapley), number(c.error)]
    });
    text += &aligned(vec![[what, "value", "adds", "error"].map(str::to_string).to_vec()], rows);
    text + &left_out(e.contributions.len())
}

fn left_out(rows: usize) -> String {
    if rows > SHOWN { format!("... and {} more\n", rows - SHOWN) } else { String::new() }
}

/// Columns as wide as their widest entry, numbers to the right.
fn aligned(mut table: Vec<Vec<String>>, rows: impl Iterator<Item = Vec<String>>) -> String {
    table.extend(rows);
    let width = |c: usize| table.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &table {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        row.iter().zip(&widths).skip(1).for_each(|(value, width)| line += &format!("  {value:>width$}"));
        text += line.trim_end();
        text.push('\n');
    }
    text
}
