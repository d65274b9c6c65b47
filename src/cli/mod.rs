//! The command line: the list of commands, the flags that several share, and how things are said.
//!
//! One file a command, each with its flags, its help and its call; what a command computes stands in the library.

mod bench;
mod dataset;
mod demo;
mod devices;
mod embed;
mod evaluate;
mod explain;
mod explain_pcs;
mod given;
mod import;
mod info;
mod interrupt;
mod matching;
mod progress;
mod simulate;
mod train;
mod translate;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use couplet::device::Device;
use couplet::engine;
use couplet::error::{Error, Result, one_line};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

/// Pairs the views that different instruments give of the same cells.
#[derive(Parser)]
#[command(name = "couplet", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate, train, evaluate: the two-minute tour
    Demo(demo::Args),
    /// Make a DATASET with known truth
    Simulate(simulate::Args),
    /// Make a DATASET of files that other programs wrote
    Import(import::Args),
    /// Say what is in a DATASET
    Info(info::Args),
    /// Write which cells of two modalities correspond, inferred from the distances within each
    Match(Box<matching::Args>),
    /// Train a model on a DATASET and leave a RUN
    Train(Box<train::Args>),
    /// Write the embedding of cells by a RUN
    Embed(embed::Args),
    /// Write what a RUN imputes of one modality from another
    Translate(translate::Args),
    /// Measure a RUN, print the metrics and keep them in RUN/metrics.json
    Evaluate(evaluate::Args),
    /// Say which features a RUN uses: ablation, Shapley values
    Explain(Box<explain::Args>),
    /// Time kernels, training steps or the reading of a DATASET
    Bench(bench::Args),
    /// List the devices that couplet can compute on
    Devices(devices::Args),
}

/// Runs the command that was typed.
pub fn run(typed: impl Iterator<Item = OsString>) -> Result<()> {
    let typed: Vec<OsString> = typed.collect();
    let parsed = train::with_model_help(Cli::command(), &typed).try_get_matches_from(&typed).and_then(|m| Cli::from_arg_matches(&m));
    match parsed {
        Err(e) if !e.use_stderr() => say_exactly(&e.render().to_string()),
        Err(e) => Err(Error::usage(sentence(&e))),
        Ok(cli) => match cli.command {
            Command::Demo(args) => demo::run(args),
            Command::Simulate(args) => simulate::run(args),
            Command::Import(args) => import::run(args),
            Command::Info(args) => info::run(args),
            Command::Match(args) => matching::run(*args),
            Command::Train(args) => train::run(*args),
            Command::Embed(args) => embed::run(args),
            Command::Translate(args) => translate::run(args),
            Command::Evaluate(args) => evaluate::run(args),
            Command::Explain(args) => explain::run(*args),
            Command::Bench(args) => bench::run(args),
            Command::Devices(args) => devices::run(args),
        },
    }
}

/// What clap says over several lines, as one sentence: the finding, then its tips.
fn sentence(e: &clap::Error) -> String {
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "say what to do: `couplet demo` is a tour, `couplet --help` lists the commands".into();
    }
    if let Some(ContextValue::String(flag)) = e.get(ContextKind::InvalidArg).filter(|_| e.kind() == ErrorKind::UnknownArgument)
        && let Some(option) = train::model_option(flag)
    {
        return format!("{flag} is an option of a model: give it as --set {option}=VALUE");
    }
    let text = e.render().to_string();
    let mut out = String::new();
    for line in text.lines().take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information")) {
        let line = line.trim().trim_start_matches("error: ");
        match line.strip_prefix("tip: ") {
            Some(tip) => out += &format!("; {tip}"),
            None if line.is_empty() => {}
            None if out.is_empty() => out += line,
            None => out += &format!(" {line}"),
        }
    }
    out
}

/// Where to compute.
#[derive(clap::Args)]
struct DeviceArgs {
    /// auto, cpu, cuda, cuda:N or emulated; auto: a GPU if one answers, else cpu
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Threads of the cpu; the result does not depend on them [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
}

impl DeviceArgs {
    /// Sets the number of threads for the whole process and opens the device. Call it once.
    fn open(&self) -> Result<Device> {
        let threads = self.threads.unwrap_or(0) as usize;
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            // The main thread works too. If it only waited, the system would at times put two workers on the core it started on.
            .use_current_thread()
            .build_global()
            .map_err(|e| Error::Internal(format!("the threads cannot be started: {e}")))?;
        let (device, remark) = Device::by_name(&self.device)?;
        remark.into_iter().for_each(note);
        Ok(device)
    }

    /// Opens the device once more, for a second piece of work in the same process.
    fn again(&self) -> Result<Device> {
        Ok(Device::by_name(&self.device)?.0)
    }
}

/// `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Precision {
    /// f32 on the ordinary cores
    F32,
    /// tf32 on tensor cores, accumulated in f32
    Tf32,
    /// bf16 on tensor cores, accumulated in f32
    Bf16,
}

impl Precision {
    /// As typed.
    fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// The precision of that name, as a file says it.
    fn named(name: &str) -> Result<Precision> {
        [Precision::F32, Precision::Tf32, Precision::Bf16]
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| Error::usage(format!("precision {name:?}: there is f32, tf32 and bf16")))
    }
}

impl From<Precision> for engine::Precision {
    fn from(p: Precision) -> engine::Precision {
        match p {
            Precision::F32 => engine::Precision::F32,
            Precision::Tf32 => engine::Precision::Tf32,
            Precision::Bf16 => engine::Precision::Bf16,
        }
    }
}

/// Seeds fit an integer of TOML.
fn seed_parser() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(0..=i64::MAX as u64)
}

/// A fraction from 0 to 1.
fn fraction(text: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|f| (0.0..=1.0).contains(f)).ok_or_else(|| "wanted is a number from 0 to 1".into())
}

/// An error before any work is done, if `file` could not be written in the end.
fn check_out(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Error::usage(format!("--out {}: there is no folder {}: make it first", file.display(), folder.display())));
    }
    if file.is_dir() {
        return Err(Error::usage(format!("--out {}: this is a folder, a file is wanted", file.display())));
    }
    Ok(())
}

/// A line of the result, on stdout. Whoever closed the pipe does not want it.
fn say(text: impl Display) -> Result<()> {
    say_exactly(&format!("{text}\n"))
}

fn say_exactly(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write", "standard output", e)),
        _ => Ok(()),
    }
}

/// A line beside the result, on stderr. A closed stderr is no reason to stop.
fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", one_line(&text.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(typed: &[&str]) -> String {
        run(std::iter::once("couplet").chain(typed.iter().copied()).map(OsString::from)).unwrap_err().to_string()
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mistakes_of_the_command_line_are_one_sentence_with_a_hint() {
        for (typed, says) in [
            (&["trian"][..], "'train'"),
            (&["train", "coupled", "d", "--out", "r", "--epoch", "3"], "a similar argument exists: '--epochs'"),
            (&["train"], "<MODEL>"),
            (&["simulate", "branching"], "--out"),
            (&["train", "coupled", "d", "--out", "r", "--precision", "f64"], "f32, tf32, bf16"),
            (&[], "couplet demo"),
        ] {
            let e = error(typed);
            assert!(e.contains(says) && !e.contains('\n'), "{typed:?}: {e}");
        }
    }
}
