//! A run that was stopped, or damaged: `train --resume` goes on as if nothing had happened, or says what stands in its way.

use crate::{QUICK, command, made, ok, refused, run, text};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_damaged_checkpoint_is_one_sentence() {
    let (data, run) = (made().path("data"), made().path("run"));
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("run");
    fs::create_dir_all(copy.join("checkpoint")).unwrap();
    for file in ["config.toml", "history.csv", "model.safetensors"] {
        fs::copy(Path::new(&run).join(file), copy.join(file)).unwrap();
    }
    let state = fs::read(Path::new(&run).join("checkpoint/state.safetensors")).unwrap();
    let copy = copy.to_str().unwrap();
    for damaged in [&state[..state.len() / 2], &b"rubbish"[..], &[][..]] {
        fs::write(Path::new(copy).join("checkpoint/state.safetensors"), damaged).unwrap();
        refused(&["train", "coupled", &data, "--out", copy, "--resume", "--device", "cpu"], &["state.safetensors", "damaged", "--resume"]);
    }
    fs::write(Path::new(copy).join("model.safetensors"), &state[..100]).unwrap();
    refused(&["embed", copy, "--out", dir.path().join("z.npy").to_str().unwrap(), "--device", "cpu"], &["model.safetensors", "damaged"]);
}

#[test]
fn a_resumed_run_without_a_checkpoint_says_that_it_starts_at_the_beginning() {
    let data = made().path("data");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let done = run(&[&["train", "coupled", &data, "--out", out.to_str().unwrap(), "--resume"][..], &QUICK].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("from the beginning"), "{}", text(&done.stderr));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_usable_run_and_resume_ends_where_an_unbroken_run_ends() {
    let data = made().path("data");
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let training = |name: &str, epochs: usize, more: &[&str]| {
        let (out, epochs) = (out(name), epochs.to_string());
        let args = ["train", "coupled", &data, "--out", &out, "--device", "cpu", "--set", "hidden=8", "--holdout", "0.2"];
        let mut training = command(&[&args[..], &["--set", "patience=0", "--epochs", &epochs], more].concat());
        training.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    // More epochs than any pause of this process lets pass.
    let child = training("broken", 10_000_000, &[]);
    let history = format!("{}/history.csv", out("broken"));
    let started = Instant::now();
    while fs::read_to_string(&history).map_or(0, |t| t.lines().count()) < 3 {
        assert!(started.elapsed() < Duration::from_secs(300), "no epoch was done");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let broken = child.wait_with_output().unwrap();
    assert!(broken.status.success(), "{:?} {}", broken.status, text(&broken.stderr));
    assert!(text(&broken.stdout).contains("--resume"), "{}", text(&broken.stdout));
    let epochs = fs::read_to_string(&history).unwrap().lines().count() - 1;
    ok(&["embed", &out("broken"), "--out", &out("z.npy"), "--device", "cpu"]);
    for (name, more) in [("broken", &["--resume"][..]), ("whole", &[])] {
        let done = training(name, epochs + 20, more).wait_with_output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let read = |name: &str| fs::read(Path::new(&out(name)).join("model.safetensors")).unwrap();
    assert!(read("broken") == read("whole"), "the resumed run ends elsewhere");
    let terms = |name: &str| {
        let text = fs::read_to_string(Path::new(&out(name)).join("history.csv")).unwrap();
        text.lines()
            .map(|l| l.split(',').enumerate().filter(|(i, _)| *i != 1).map(|(_, f)| f.to_string()).collect())
            .collect::<Vec<Vec<_>>>()
    };
    assert_eq!(terms("broken"), terms("whole"));
}

#[test]
fn shuffling_by_blocks_is_kept_and_a_run_goes_on_with_it() {
    let data = made().path("data");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let train = |name: &str, more: &[&str]| ok(&[&["train", "coupled", &data, "--out", &path(name)][..], more, &QUICK].concat());
    let weights = |name: &str| fs::read(format!("{}/model.safetensors", path(name))).unwrap();
    train("a", &["--shuffle", "block"]);
    train("b", &["--shuffle", "block"]);
    train("c", &[]);
    assert!(weights("a") == weights("b") && weights("a") != weights("c"));
    assert!(fs::read_to_string(format!("{}/config.toml", path("a"))).unwrap().contains("shuffle_by = \"block\""));
    refused(
        &[&["train", "coupled", &data, "--out", &path("a"), "--resume", "--shuffle", "exact"][..], &QUICK].concat(),
        &["shuffle = block, not exact"],
    );
    refused(&["train", "coupled", &data, "--out", &path("d"), "--shuffle", "blocks"], &["exact, block"]);
    // Three epochs, then three more, are six.
    let six = ["--device", "cpu", "--epochs", "6", "--set", "hidden=8", "--threads", "1"];
    ok(&[&["train", "coupled", &data, "--out", &path("a"), "--resume"][..], &six].concat());
    ok(&[&["train", "coupled", &data, "--out", &path("whole"), "--shuffle", "block"][..], &six].concat());
    assert!(weights("a") == weights("whole"), "the resumed run ends elsewhere");
}
