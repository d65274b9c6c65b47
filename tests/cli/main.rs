//! The contract of the command line, command by command: what each leaves, what it says, and how it refuses.

mod explain;
mod import;
mod other;
#[path = "../common/program.rs"]
mod program;
mod results;
mod resume;
mod train;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn command(args: &[&str]) -> Command {
    let mut c = program::couplet();
    c.args(args);
    c
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs and expects success; returns stdout.
#[track_caller]
fn ok(args: &[&str]) -> String {
    let out = run(args);
    assert!(out.status.success(), "{args:?}: {:?}\n{}", out.status, text(&out.stderr));
    text(&out.stdout)
}

/// Runs and expects exit status 2 and one sentence on stderr that contains `says`.
#[track_caller]
fn refused(args: &[&str], says: &[&str]) {
    let out = run(args);
    let err = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {err}");
    let sentence = err.lines().last().unwrap_or_default();
    assert!(sentence.starts_with("error: "), "{args:?}: {err}");
    for s in says {
        assert!(sentence.contains(s), "{args:?}: {sentence:?} does not say {s:?}");
    }
}

/// A dataset of 60 cells and a run on it, made once.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_string()
    }
}

const QUICK: [&str; 8] = ["--device", "cpu", "--epochs", "3", "--set", "hidden=8", "--threads", "1"];

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = Made { dir: tempfile::tempdir().unwrap() };
        let (data, run) = (made.path("data"), made.path("run"));
        ok(&["simulate", "branching", "--cells", "60", "--seed", "1", "--out", &data]);
        ok(&[&["train", "coupled", &data, "--out", &run, "--holdout", "0.2"][..], &QUICK].concat());
        made
    })
}

/// Of its two modalities.
fn names(dataset: &str) -> (String, String) {
    let manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(Path::new(dataset).join("dataset.json")).unwrap()).unwrap();
    let name = |i: usize| manifest["modalities"][i]["name"].as_str().unwrap().to_string();
    (name(0), name(1))
}

/// A table of these cells, one line of values each.
fn csv(dir: &Path, name: &str, cells: &[&str], row: impl Fn(usize) -> String) -> PathBuf {
    let width = row(0).split(',').count();
    let header: Vec<String> = (0..width).map(|i| format!("f{i}")).collect();
    let mut text = format!("cell,{}\n", header.join(","));
    for (i, cell) in cells.iter().enumerate() {
        text += &format!("{cell},{}\n", row(i));
    }
    fs::write(dir.join(name), text).unwrap();
    dir.join(name)
}

/// What follows `--modality`.
fn modality(name: &str, file: &Path) -> String {
    format!("{name}={}", file.display())
}
