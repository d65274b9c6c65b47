//! The other commands, and what all of them promise: `devices`, `bench`, `demo`; unknown words, closed pipes, full disks.

use crate::{command, made, ok, refused, text};
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn devices_lists_the_cpu_first() {
    assert!(ok(&["devices"]).starts_with("cpu"));
}

#[test]
fn bench_prints_the_keys_of_the_contract() {
    let keys = |line: &str, wanted: &[&str]| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in wanted {
            assert!(object.get(key).is_some(), "{key}: {line}");
        }
    };
    let step = ok(&["bench", "step", "--steps", "3", "--batch-size", "8", "--device", "cpu", "--threads", "1", "--json"]);
    keys(&step, &["bench", "model", "shape", "device", "precision", "batch", "steps", "ms_median", "ms_p10", "ms_p90", "peak_bytes"]);
    let load = ok(&["bench", "load", "--dataset", &made().path("data"), "--batch-size", "16", "--seconds", "0", "--json"]);
    keys(&load, &["bench", "cells_per_s", "bytes_per_s", "peak_rss_bytes"]);
    refused(&["bench", "step", "--shape", "patchsek"], &["patchseq"]);
    refused(&["bench", "step", "--model", "copled"], &["coupled"]);
    refused(&["bench", "load"], &["DATASET"]);
}

#[test]
fn the_demo_goes_from_nothing_to_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tour");
    let said = ok(&["demo", "--out", out.to_str().unwrap(), "--device", "cpu"]);
    assert!(said.contains("foscttm") && said.contains("held out"), "{said}");
    for file in ["data/dataset.json", "run/model.safetensors", "run/metrics.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
    refused(&["demo", "--out", out.to_str().unwrap()], &["exists"]);
}

#[test]
fn unknown_commands_and_flags_name_the_nearest() {
    refused(&["train", "coupled", "data", "--out", "r", "--input-dropout", "0.1"], &["--input-dropout", "--set input_dropout=VALUE"]);
    refused(&["trian", "coupled"], &["train"]);
    refused(&["info", "x", "--fast"], &["--fast"]);
    refused(&[], &["couplet --help"]);
    assert!(ok(&["--help"]).contains("simulate"));
    assert!(ok(&["--version"]).starts_with("couplet "));
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let data = made().path("data");
    let mut child = command(&["info", &data]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{:?} {}", out.status, text(&out.stderr));
}

/// Files that may not grow past a few blocks stand for a disk that is full.
#[cfg(unix)]
#[test]
fn a_write_that_fails_is_one_sentence_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let limited = |args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]).arg(command(&[]).get_program()).args(args);
        let out = shell.stdin(Stdio::null()).output().unwrap();
        let err = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {err}");
        assert!(err.lines().last().unwrap_or_default().starts_with("error: cannot write "), "{args:?}: {err}");
    };
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    limited(&["simulate", "branching", "--cells", "200", "--out", &path("data")]);
    limited(&["embed", &made().path("run"), "--out", &path("z.csv"), "--device", "cpu"]);
    limited(&["translate", &made().path("run"), "--from", "view1", "--to", "view2", "--out", &path("t.csv"), "--device", "cpu"]);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
