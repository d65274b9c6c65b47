//! `couplet train`: from what was typed, what a `--config` file says and what the dataset's recipe wants, to one training.

use super::dataset::{DatasetArgs, Opened, Place};
use super::given::Given;
use super::progress::{InferBar, TrainBar, duration};
use super::{DeviceArgs, Precision, fraction, interrupt, note, say_exactly, seed_parser};
use couplet::data::Dataset;
use couplet::data::shuffle::Shuffle;
use couplet::data::split::Holdout;
use couplet::device::Device;
use couplet::error::{Error, Result};
use couplet::models::options::help_table;
use couplet::models::settings::{Settings, Source};
use couplet::models::{self, MODELS, ModelSpec};
use couplet::run::Run;
use couplet::run::config::read_toml;
use couplet::train::{self, CHECKPOINT_EVERY, Prepared, Stopped, TrainRequest, TrainSummary};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The flags of `couplet train`.
#[derive(clap::Args)]
pub struct Args {
    /// The model; `couplet train MODEL --help` lists its options
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    data: DatasetArgs,
    /// The directory of the run, to be made
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Settings from a file; the config.toml of a run repeats that run
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// An option of the model; overrides the file
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// What matrix products are computed in [default: f32]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// All random numbers derive from it [default: 0]
    #[arg(long, value_name = "S", value_parser = seed_parser())]
    seed: Option<u64>,
    /// The most passes over the larger modality
    #[arg(long, value_name = "N")]
    epochs: Option<String>,
    /// Cells of a minibatch
    #[arg(long, value_name = "N")]
    batch_size: Option<String>,
    /// Width of the embedding
    #[arg(long, value_name = "N")]
    latent: Option<String>,
    /// Cells kept out of training: a fraction, drawn by the seed, or those with a label, such as split=test
    #[arg(long, value_name = "FRACTION|COLUMN=VALUE")]
    holdout: Option<String>,
    /// Use only this fraction of the known training pairs [default: 1]
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    paired: Option<f64>,
    /// exact: every order of the cells equally likely; block: blocks of neighbouring cells in shuffled order, the cells of 64 blocks
    /// shuffled among each other, where the disk is slow and the data do not fit the memory [default: exact]
    #[arg(long, value_name = "exact|block", value_parser = ["exact", "block"])]
    shuffle: Option<String>,
    /// Continue the run in --out where its checkpoint stands
    #[arg(long)]
    resume: bool,
}

/// Adds the option table of the model that is named, or the list of models, to `couplet train --help`.
pub fn with_model_help(command: clap::Command, typed: &[OsString]) -> clap::Command {
    let mut words = typed.iter().skip(1).filter_map(|w| w.to_str()).skip_while(|w| w.starts_with('-'));
    if words.next() != Some("train") {
        return command;
    }
    let model = words.find_map(|w| MODELS.iter().find(|m| m.name == w));
    let help = match model {
        Some(m) => {
            let table = help_table(m.name, m.options);
            format!("{}: {}\n\n{table}\npreprocess = auto: counts get {}, anything else standardise\n", m.name, m.summary, m.count_recipe)
        }
        None => MODELS.iter().fold("Models:\n".to_string(), |text, m| text + &format!("  {}  {}\n", m.name, m.summary)),
    };
    command.mut_subcommand("train", |c| c.after_help(help))
}

/// The option of a model that somebody meant by `--NAME`.
pub fn model_option(flag: &str) -> Option<&'static str> {
    let name = flag.trim_start_matches('-').replace('-', "_");
    MODELS.iter().flat_map(|m| m.options).map(|o| o.name).find(|o| *o == name)
}

/// Trains.
pub fn run(args: Args) -> Result<()> {
    let model = models::by_name(&args.model)?;
    let earlier = if args.resume && args.out.join("config.toml").exists() {
        Given::of_run(&args.out, &Run::open(&args.out)?.1)?
    } else {
        Run::check_free(&args.out)?;
        Given::default()
    };
    let file = args.config.as_deref().map(Given::read).transpose()?.unwrap_or_default();
    let typed = args.given()?.or(&file);
    if earlier.model.is_some() {
        typed.agrees_with(&earlier)?;
    }
    if let Some(other) = file.model.as_ref().filter(|m| *m != model.name) {
        return Err(Error::usage(format!("the settings in --config are those of model {other}, not of {}", model.name)));
    }
    let given = typed.or(&earlier);
    let holdout = given.holdout.as_deref().map(str::parse::<Holdout>).transpose()?;
    let precision = given.precision.as_deref().map_or(Ok(Precision::F32), Precision::named)?;
    let stop = interrupt::install("a checkpoint is written, --resume continues")?;
    let fresh = std::fs::read_dir(&args.out).map_or(true, |mut entries| entries.next().is_none());
    let outcome = (|| {
        let place = Place { default: given.dataset.clone(), imported: args.out.join("dataset"), keep: true, reuse: args.resume };
        let Opened { dataset, .. } = args.data.open(place, &stop)?;
        let settings = args.settings(model, &dataset, &file, &earlier)?;
        if let Some(column) = &given.labels {
            dataset.label(column)?;
        }
        tell(Job {
            model,
            dataset: &dataset,
            settings: &settings,
            device: args.device.open()?,
            precision,
            seed: given.seed.unwrap_or(0),
            holdout,
            paired: given.paired.unwrap_or(1.0),
            shuffle: given.shuffle.as_deref().unwrap_or("exact").parse()?,
            labels: given.labels.clone(),
            out: &args.out,
            resume: args.resume,
            stop: &stop,
        })
        .map(|_| ())
    })();
    if outcome.is_err() && fresh && !args.out.join("checkpoint").exists() {
        // Nothing of use came of it, and the same --out should work once the mistake is mended.
        let _ = std::fs::remove_dir_all(&args.out);
    }
    outcome
}

impl Args {
    fn given(&self) -> Result<Given> {
        Ok(Given {
            model: Some(self.model.clone()),
            seed: self.seed,
            precision: self.precision.map(|p| p.name().to_string()),
            holdout: self.holdout.clone(),
            paired: self.paired,
            shuffle: self.shuffle.clone(),
            labels: self.data.label_column()?,
            ..Given::default()
        })
    }

    /// Defaults, then the dataset's recipe or the run that is resumed, then the file, then the flags.
    fn settings(&self, model: &'static ModelSpec, dataset: &Dataset, file: &Given, earlier: &Given) -> Result<Settings> {
        let names: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
        let mut settings = Settings::new(model.name, model.options, &names)?;
        if earlier.model.is_some() {
            earlier.apply(&mut settings, Source::File)?;
        } else {
            recipe(&mut settings, model, dataset)?;
        }
        let before = settings.clone();
        file.apply(&mut settings, Source::File)?;
        settings.apply_flags(&self.set)?;
        for (key, text) in [("epochs", &self.epochs), ("batch-size", &self.batch_size), ("latent", &self.latent)] {
            if let Some(text) = text {
                settings.apply_flag(key, text)?;
            }
        }
        let changed = |s: &Settings| s.without(&MAY_CHANGE);
        if earlier.model.is_some()
            && let Some((was, now)) = changed(&before).difference(&changed(&settings))
        {
            return Err(Error::usage(format!(
                "--resume continues a run that has {was}, not {now}: leave that out, or start a new run with another --out"
            )));
        }
        Ok(settings)
    }
}

/// The options that a resumed run may be given anew: they say how long it trains and which epoch's weights are left, not what is trained.
const MAY_CHANGE: [&str; 2] = ["epochs", "patience"];

/// Takes what the dataset's `train.toml` wants for this model, and says so.
pub fn recipe(settings: &mut Settings, model: &ModelSpec, dataset: &Dataset) -> Result<()> {
    let path = dataset.dir().join("train.toml");
    if !path.exists() {
        return Ok(());
    }
    match read_toml(&path)?.get(model.name) {
        None => return Ok(()),
        Some(toml::Value::Table(table)) => settings.apply_table(&path, table, Source::Recipe)?,
        Some(_) => return Err(Error::input(&path, format!("key {:?}", model.name), "wanted is a table of settings")),
    }
    let taken = settings.from_source(Source::Recipe);
    if !taken.is_empty() {
        note(format!("from {}: {}", path.display(), taken.join(", ")));
    }
    Ok(())
}

/// One training, as the command line tells it.
pub struct Job<'a> {
    pub model: &'static ModelSpec,
    pub dataset: &'a Dataset,
    pub settings: &'a Settings,
    pub device: Device,
    pub precision: Precision,
    pub seed: u64,
    pub holdout: Option<Holdout>,
    pub paired: f64,
    pub shuffle: Shuffle,
    pub labels: Option<String>,
    pub out: &'a Path,
    pub resume: bool,
    pub stop: &'a AtomicBool,
}

/// Says what is trained, shows how far it is, and says how it ended and what can be done next.
pub fn tell(job: Job) -> Result<TrainSummary> {
    let checkpoint = job.out.join("checkpoint").join("state.safetensors").exists();
    if job.resume && !checkpoint {
        note(format!("{} has no checkpoint: training from the beginning", job.out.display()));
    }
    let (mut bar, mut infer_bar) = (TrainBar::new(), InferBar::new(job.dataset));
    let mut said = Ok(());
    let (model, seed, precision) = (job.model.name, job.seed, job.precision.name());
    let outcome = train::train(TrainRequest {
        model: job.model,
        dataset: job.dataset,
        settings: job.settings,
        device: job.device,
        precision: job.precision.into(),
        seed: job.seed,
        holdout: job.holdout,
        paired: job.paired,
        shuffle: job.shuffle,
        labels: job.labels,
        run_dir: job.out.to_path_buf(),
        resume: job.resume,
        stop: job.stop,
        checkpoint_every: CHECKPOINT_EVERY,
        inferring: &mut |told| infer_bar.update(told),
        prepared: &mut |p| said = say_exactly(&introduction(model, precision, seed, p)),
        progress: &mut |p| bar.update(p),
    });
    bar.finish();
    infer_bar.finish();
    let summary = outcome?;
    said?;
    say_exactly(&conclusion(job.out, job.dataset, &summary))?;
    Ok(summary)
}

fn introduction(model: &str, precision: &str, seed: u64, p: &Prepared) -> String {
    let mut out = format!("{model} on {}, {precision}, seed {seed}: {} parameters\n", p.device, p.parameters);
    for m in &p.modalities {
        let held = if m.cells.1 > 0 { format!(" (and {} held out)", m.cells.1) } else { String::new() };
        let missing = if m.missing > 0.0 { format!(", {:.1} % missing", 100.0 * m.missing) } else { String::new() };
        let streamed = match (m.sparse, m.resident) {
            (false, true) => "",
            (false, false) => ", streamed from disk",
            (true, true) => ", as non-zeros",
            (true, false) => ", as non-zeros, streamed from disk",
        };
        out += &format!("  {}: {} cells{held} x {} features, {}{missing}{streamed}\n", m.name, m.cells.0, m.features, m.steps);
    }
    let (known, used) = p.pairs;
    let what = if p.modalities.len() > 2 { "cells in two modalities or more" } else { "pairs" };
    let pairs = if used == known { format!("{known} {what}") } else { format!("{used} of {known} {what}") };
    let (cells, steps) = p.batch;
    let beside = if p.anchors > 0 { format!(" and {} pairs", p.anchors) } else { String::new() };
    let minibatches = |steps: usize| format!("{steps} minibatch{}", if steps == 1 { "" } else { "es" });
    out += &format!("  {pairs}; {} of {cells} cells{beside} an epoch\n", minibatches(steps));
    if p.stages.len() > 1 {
        for (name, epochs, cells, steps) in &p.stages {
            out +=
                &format!("  {name}: {epochs} epoch{} of {} of {cells} cells\n", if *epochs == 1 { "" } else { "s" }, minibatches(*steps));
        }
    }
    if let Some((column, classes)) = &p.labels {
        out += &format!("  learns from the labels of column {column}, {classes} different ones\n");
    }
    out
}

fn conclusion(run: &Path, dataset: &Dataset, s: &TrainSummary) -> String {
    let run = run.display();
    let value = |name: &str| s.last.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    let mut losses = value("total").map(|v| format!(", loss {v:.4}")).unwrap_or_default();
    losses += &value("held_out.total").map(|v| format!(", held out {v:.4}")).unwrap_or_default();
    let took = duration(Duration::from_secs_f64(s.seconds.max(0.0)));
    let epochs = format!("{} epoch{}", s.epochs, if s.epochs == 1 { "" } else { "s" });
    let ended = match s.stopped {
        Stopped::Finished => format!("done after {epochs} in {took}{losses}"),
        Stopped::Early { best, kept } => {
            let weights = if kept { ", whose weights are kept" } else { "" };
            format!("stopped after {epochs} in {took}{losses}: no better since epoch {best}{weights}")
        }
        Stopped::Interrupted => {
            return format!(
                "interrupted after {epochs} in {took}{losses}\nrun   {run}\nnext  the same command with --resume continues it\n"
            );
        }
    };
    let mut next = format!("couplet evaluate {run}\n      couplet embed {run} --out embedding.csv");
    if let [a, b, ..] = dataset.modalities() {
        let (a, b) = (a.name(), b.name());
        next += &format!("\n      couplet translate {run} --from {a} --to {b} --out {a}_to_{b}.csv");
    }
    format!("{ended}\nrun   {run}\nnext  {next}\n")
}
