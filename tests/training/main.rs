//! What a whole training of each model promises, from a dataset to the embedding: the same bits on any number of threads and after a stop,
//! the same losses on the kernels, every switch, and sentences where it cannot be trained.

mod apollo;
mod coupled;
mod cross_modal;
mod jamie;
mod scican;
#[path = "../common/shared.rs"]
mod shared;
mod sparse;
#[path = "../common/training.rs"]
mod training;

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportSpec, import};
use couplet::data::pairs::PairsRule;
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::{Dataset, Hooks};
#[cfg(feature = "emulated")]
use couplet::device::Device;
use couplet::engine::init;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// A CSV of `cells` cells whose features are waves of two numbers that a cell has, each seen through noise of its own.
fn table(dir: &Path, name: &str, salt: u64, cells: usize, features: usize) -> PathBuf {
    let truth = init::uniform(3, "truth", 2 * cells, 1.0);
    let shape = init::uniform(salt, "shape", 3 * features, 3.0);
    let noise = init::uniform(salt, "noise", cells * features, 0.1);
    let mut text = (0..features).fold("cell".to_string(), |t, f| t + &format!(",{name}{f}"));
    for c in 0..cells {
        write!(text, "\nc{c}").unwrap();
        for f in 0..features {
            let [a, b, shift] = [0, 1, 2].map(|i| shape[3 * f + i]);
            write!(text, ",{}", (a * truth[2 * c] + b * truth[2 * c + 1] + shift).sin() + noise[c * features + f]).unwrap();
        }
    }
    let path = dir.join(format!("{name}-{salt}.csv"));
    fs::write(&path, text).unwrap();
    path
}

fn source(name: &str, file: &Path) -> ModalitySource {
    ModalitySource { name: name.to_string(), file: file.to_path_buf(), key: None }
}

fn imported(out: PathBuf, spec: &ImportSpec) -> Dataset {
    import(spec, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

fn dataset(dir: &Path, name: &str, modalities: &[(&str, &Path)], pairs: PairsRule) -> Dataset {
    let modalities = modalities.iter().map(|(name, file)| source(name, file)).collect();
    imported(dir.join(name), &ImportSpec { modalities, pairs: Some(pairs), ..ImportSpec::default() })
}

/// Two tables of the same cells, as far as both have them.
fn two(dir: &Path, cells: [usize; 2], features: [usize; 2], pairs: PairsRule) -> Dataset {
    let (a, b) = (table(dir, "a", 1, cells[0], features[0]), table(dir, "b", 2, cells[1], features[1]));
    dataset(dir, "data", &[("a", &a), ("b", &b)], pairs)
}

fn simulated(dir: &Path, recipe: &'static str, cells: usize) -> Dataset {
    let out = dir.join(recipe);
    simulate(&SimulateSpec { recipe, cells: Some(cells), seed: 3, ..Default::default() }, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

/// `history.csv` without the column of seconds.
fn history(run: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(run.join("history.csv")).unwrap();
    text.lines().map(|l| l.split(',').enumerate().filter(|(i, _)| *i != 1).map(|(_, f)| f.to_string()).collect()).collect()
}

/// What is left of a run to compare: its losses, and these files.
fn left(run: &Path, files: &[&str]) -> (Vec<Vec<String>>, Vec<Vec<u8>>) {
    (history(run), files.iter().map(|f| fs::read(run.join(f)).unwrap()).collect())
}

fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// `train(run, steps, resume)` leaves the same files on one thread, on two, and when it was stopped after each of these numbers of steps.
#[track_caller]
fn threads_and_stops_change_no_bit(dir: &Path, what: &str, stops: &[u64], files: &[&str], train: impl Fn(&Path, u64, bool) + Sync) {
    let of = |name: &str, threads: usize, stops: &[u64]| {
        let out = dir.join(format!("{name}-{what}"));
        on_threads(threads, || {
            for (i, &steps) in stops.iter().chain(&[u64::MAX]).enumerate() {
                train(&out, steps, i > 0);
            }
        });
        left(&out, files)
    };
    let one = of("one", 1, &[]);
    assert!(of("two", 2, &[]) == one, "{what}: two threads end elsewhere than one");
    // The progress is told now and then, so where a stop falls is chance; that it changes nothing is not.
    assert!(of("stopped", 2, stops) == one, "{what}: stopped and resumed ends elsewhere");
}

/// `train` gives the same losses on the kernels; those of the processor.
#[cfg(feature = "emulated")]
#[track_caller]
fn kernels_agree(dir: &Path, what: &str, share: f64, least: f64, train: impl Fn(Device, &Path)) -> Vec<Vec<String>> {
    let [cpu, emulated] = [("cpu", Device::cpu()), ("emulated", Device::emulated(4))].map(|(name, device)| {
        let out = dir.join(format!("{what}-{name}"));
        train(device, &out);
        history(&out)
    });
    agree(what, &emulated, &cpu, share, least);
    cpu
}

/// Two histories say the same to a share of each number, numbers below `least` taken for it; what is no number is none in both.
#[track_caller]
fn agree(what: &str, got: &[Vec<String>], wanted: &[Vec<String>], share: f64, least: f64) {
    assert_eq!((got.len(), &got[0]), (wanted.len(), &wanted[0]), "{what}");
    for (row, (got, values)) in got.iter().zip(wanted).enumerate().skip(1) {
        for (name, (x, y)) in wanted[0].iter().zip(got.iter().zip(values)) {
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            let near = (x - y).abs() <= share * y.abs().max(least);
            assert!(near || x.is_nan() && y.is_nan(), "{what}, epoch {row}, {name}: {x} for {y}");
        }
    }
}
