//! The contract of the command line, command by command: what each leaves, what it says, and how it refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn command(args: &[&str]) -> Command {
    // Where the tests run away from the folder that they were built in, the environment says where the program is.
    let program = std::env::var_os("CARGO_BIN_EXE_couplet").unwrap_or_else(|| env!("CARGO_BIN_EXE_couplet").into());
    let mut c = Command::new(program);
    c.args(args).stdin(Stdio::null());
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

fn names(dataset: &str) -> (String, String) {
    let manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(Path::new(dataset).join("dataset.json")).unwrap()).unwrap();
    let name = |i: usize| manifest["modalities"][i]["name"].as_str().unwrap().to_string();
    (name(0), name(1))
}

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

fn modality(name: &str, file: &Path) -> String {
    format!("{name}={}", file.display())
}

// ---- simulate, import, info --------------------------------------------------------------------------

#[test]
fn simulate_makes_a_dataset_that_info_describes() {
    let data = made().path("data");
    for file in ["dataset.json", "cells.csv", "pairs.npy"] {
        assert!(Path::new(&data).join(file).exists(), "{file}");
    }
    let said = ok(&["info", &data]);
    for word in ["60", "200", "100", "branch"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    refused(&["simulate", "branching", "--out", &data], &["exists"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x");
    refused(&["simulate", "brnching", "--out", out.to_str().unwrap()], &["branching"]);
    assert!(!out.exists());
}

#[test]
fn import_makes_a_dataset_and_counts_missing_values_and_labels() {
    let dir = tempfile::tempdir().unwrap();
    let a = csv(dir.path(), "a.csv", &["c1", "c2", "c3"], |i| format!("{i},,2"));
    let b = csv(dir.path(), "b.csv", &["c3", "c1", "x"], |i| format!("{i}.5,1"));
    fs::write(dir.path().join("l.csv"), "id,kind\nc1,T\nc3,B\nnobody,B\n").unwrap();
    let out = dir.path().join("d");
    let (out, labels) = (out.to_str().unwrap(), dir.path().join("l.csv"));
    let args =
        ["import", "--modality", &modality("a", &a), "--modality", &modality("b", &b), "--labels", labels.to_str().unwrap(), "--out", out];
    let said = ok(&args);
    assert!(said.contains("3 (33.3 %)"), "{said}");
    let info = ok(&["info", out]);
    for word in ["kind", "T", "2 pairs"] {
        assert!(info.contains(word), "{word}: {info}");
    }
    refused(&args, &["exists"]);
}

#[test]
fn mistakes_in_files_name_file_and_place_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("d");
    let out = out.to_str().unwrap();
    let cells = ["c1", "c2", "c3"];
    let good = modality("a", &csv(dir.path(), "a.csv", &cells, |i| format!("{i},2")));
    let ragged = modality("b", &csv(dir.path(), "ragged.csv", &cells, |i| if i == 1 { "1".into() } else { "1,2".into() }));
    let words = modality("b", &csv(dir.path(), "nan.csv", &cells, |i| if i == 2 { "1,nan".into() } else { "1,2".into() }));
    let few = modality("b", &csv(dir.path(), "few.csv", &cells[..2], |i| format!("{i},1")));
    let import = |b: &str, more: &[&str], says: &[&str]| {
        refused(&[&["import", "--modality", &good, "--modality", b, "--out", out], more].concat(), says);
        assert!(!Path::new(out).exists());
    };
    import(&ragged, &[], &["ragged.csv", "line 3"]);
    import(&words, &[], &["nan.csv", "line 4", "f1", "--missing nan"]);
    import(&few, &["--pairs", "by-row"], &["3", "2"]);
    import("b=none.csv", &[], &["none.csv", "no such file"]);
    import("b=none.xyz", &[], &["none.xyz"]);
    refused(&["import", "--out", out], &["--modality"]);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

// ---- train and what follows ---------------------------------------------------------------------------

#[test]
fn a_run_holds_what_the_contract_lists() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    for file in ["model.safetensors", "config.toml", "history.csv", "checkpoint"] {
        assert!(Path::new(&run).join(file).exists(), "{file}");
    }
    for name in [&a, &b] {
        let cells = fs::read_to_string(Path::new(&run).join(format!("embedding.{name}.cells.txt"))).unwrap();
        assert_eq!(cells.lines().count(), 60);
        let npy = fs::read(Path::new(&run).join(format!("embedding.{name}.npy"))).unwrap();
        assert_eq!(&npy[..6], b"\x93NUMPY");
    }
    let config: toml::Table = fs::read_to_string(Path::new(&run).join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["model"].as_str(), Some("coupled"));
    assert_eq!(config["holdout"].as_str(), Some("0.2"));
    assert_eq!(config["epochs"].as_integer(), Some(3));
    for key in ["couplet", "seed", "lr", "lambda", "preprocess", "batch_size"] {
        assert!(config.contains_key(key), "{key}");
    }
    assert!(!config.values().any(|v| v.as_str() == Some("auto")), "{config}");
    let history = fs::read_to_string(Path::new(&run).join("history.csv")).unwrap();
    assert!(history.starts_with("epoch,seconds,"), "{history}");
    assert_eq!(history.lines().count(), 4, "{history}");
}

#[test]
fn the_same_seed_repeats_a_run_and_its_config_does_too() {
    let (data, run) = (made().path("data"), made().path("run"));
    let dir = tempfile::tempdir().unwrap();
    let again = dir.path().join("again");
    let config = format!("{run}/config.toml");
    ok(&["train", "coupled", "--config", &config, "--out", again.to_str().unwrap(), "--device", "cpu", "--threads", "2"]);
    let (a, _) = names(&data);
    for file in ["model.safetensors".to_string(), format!("embedding.{a}.npy")] {
        assert!(fs::read(Path::new(&run).join(&file)).unwrap() == fs::read(again.join(&file)).unwrap(), "{file} differs");
    }
}

#[test]
fn embed_writes_by_extension_and_agrees_with_the_run() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, _) = names(&data);
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    ok(&["embed", &run, "--from", &a, "--out", &out("z.npy"), "--device", "cpu"]);
    assert_eq!(fs::read(out("z.npy")).unwrap(), fs::read(format!("{run}/embedding.{a}.npy")).unwrap());
    ok(&["embed", &run, &data, "--out", &out("z.csv"), "--device", "cpu"]);
    let csv = fs::read_to_string(out("z.csv")).unwrap();
    assert!(csv.starts_with("cell,modality,Z1"), "{csv}");
    assert_eq!(csv.lines().count(), 121);
    #[cfg(feature = "hdf5")]
    {
        ok(&["embed", &run, "--out", &out("z.h5ad"), "--device", "cpu"]);
        assert!(fs::read(out("z.h5ad")).unwrap().starts_with(b"\x89HDF"));
        fs::remove_file(out("z.h5ad")).unwrap();
    }
    refused(&["embed", &run, "--out", &out("z.xlsx")], &[".npy", ".csv"]);
    refused(&["embed", &run, "--out", &out("no/z.npy")], &["folder"]);
    refused(&["embed", &run, "--from", "nothing", "--out", &out("y.npy")], &["nothing", &a]);
    refused(&["embed", &data, "--out", &out("y.npy")], &["config.toml"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn embed_takes_files_in_place_of_a_dataset_and_leaves_no_trace_of_them() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("z.npy");
    let files = [format!("{a}={data}/{a}/values.npy"), format!("{b}={data}/{b}/values.npy")];
    let before = fs::read_dir(&run).unwrap().count();
    ok(&["embed", &run, "--modality", &files[0], "--modality", &files[1], "--from", &a, "--out", out.to_str().unwrap(), "--device", "cpu"]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(format!("{run}/embedding.{a}.npy")).unwrap());
    assert_eq!(fs::read_dir(&run).unwrap().count(), before);
}

#[test]
fn translate_keeps_the_largest_values_of_each_cell_as_a_sparse_matrix() {
    let run = made().path("run");
    let (a, b) = names(&made().path("data"));
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let base = ["translate", &run, "--from", &a, "--to", &b, "--device", "cpu"];
    let translate = |more: &[&str]| ok(&[&base[..], more].concat());
    translate(&["--out", &out("all.csv")]);
    let all = fs::read_to_string(out("all.csv")).unwrap();
    let dense: Vec<Vec<f32>> = all.lines().skip(1).map(|l| l.split(',').skip(1).map(|x| x.parse().unwrap()).collect()).collect();
    assert!(translate(&["--top", "3", "--out", &out("t.npz")]).contains("180 values kept"));
    // What is written is a matrix that import reads: three values a cell, the largest of the dense one's.
    let imported = |file: &str| {
        let d = out(&format!("{file}.d"));
        let _ = fs::remove_dir_all(&d);
        ok(&["import", "--modality", &format!("x={}", out(file)), "--out", &d]);
        let dataset = couplet::data::Dataset::open(Path::new(&d)).unwrap();
        assert!(dataset.modality(0).is_sparse());
        (0..60).map(|r| dataset.modality(0).sparse_row(r).unwrap().map(|(c, v)| (c.to_vec(), v.to_vec())).unwrap()).collect::<Vec<_>>()
    };
    for (row, (columns, values)) in dense.iter().zip(imported("t.npz")) {
        assert_eq!(columns.len(), 3);
        assert!(columns.iter().zip(&values).all(|(&c, &v)| row[c as usize] == v));
        let least = values.iter().map(|v| v.abs()).fold(f32::INFINITY, f32::min);
        assert_eq!(row.iter().filter(|v| v.abs() >= least).count(), 3);
    }
    translate(&["--threshold", "0.5", "--top", "7", "--out", &out("t.csv")]);
    let lines = fs::read_to_string(out("t.csv")).unwrap();
    let kept = dense.iter().map(|row| row.iter().filter(|v| v.abs() >= 0.5).count().min(7)).sum::<usize>();
    assert_eq!((lines.lines().count(), lines.lines().next().unwrap()), (1 + kept, "cell,feature,value"));
    if cfg!(feature = "hdf5") {
        translate(&["--top", "3", "--out", &out("x.h5ad")]);
        assert_eq!(imported("x.h5ad"), imported("t.npz"));
        translate(&["--threshold", "1e9", "--layer", "imputed", "--out", &out("none.h5ad")]);
        let said = ok(&["import", "--modality", &format!("x={}#imputed", out("none.h5ad")), "--out", &out("none")]);
        assert!(said.contains("sparse") && said.contains("0.0 %"), "{said}");
        translate(&["--layer", "imputed", "--out", &out("dense.h5ad")]);
        refused(&["import", "--modality", &format!("x={}", out("dense.h5ad")), "--out", &out("no")], &["imputed"]);
    }
    for (more, says) in [
        (&["--out", "x.npz"][..], "--top or --threshold"),
        (&["--out", "x.npy", "--top", "3"], ".npz"),
        (&["--out", "x.csv", "--top", "0"], "--top"),
        (&["--out", "x.csv", "--threshold", "-1"], "a number from 0"),
        (&["--out", "x.csv", "--layer", "l"], ".h5ad"),
        (&["--out", "x.h5ad", "--layer", "a/b"], "no slash"),
    ] {
        refused(&[&base[..], more].concat(), &[says]);
    }
}

#[test]
fn translate_writes_cells_by_features_in_either_space() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    ok(&["translate", &run, "--from", &a, "--to", &b, "--out", &out("ab.csv"), "--device", "cpu"]);
    let csv = fs::read_to_string(out("ab.csv")).unwrap();
    assert_eq!(csv.lines().count(), 61);
    assert!(csv.lines().all(|l| l.split(',').count() == 101));
    ok(&["translate", &run, "--from", &a, "--to", &b, "--out", &out("m.csv"), "--space", "model", "--device", "cpu"]);
    assert_ne!(csv, fs::read_to_string(out("m.csv")).unwrap());
    refused(&["translate", &run, "--from", &a, "--to", "nothing", "--out", &out("x.csv")], &["nothing", &b]);
}

#[test]
fn evaluate_prints_a_table_and_keeps_flat_metrics() {
    let run = made().path("run");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.json");
    let said = ok(&["evaluate", &run, "--labels", "branch", "--out", out.to_str().unwrap(), "--device", "cpu"]);
    assert!(said.contains("foscttm"), "{said}");
    let metrics: serde_json::Value = serde_json::from_str(&fs::read_to_string(format!("{run}/metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["held_out"], serde_json::Value::Bool(true));
    assert!(metrics.as_object().unwrap().values().all(|v| v.is_number() || v.is_boolean()), "{metrics}");
    assert_eq!(fs::read_to_string(&out).unwrap(), fs::read_to_string(format!("{run}/metrics.json")).unwrap());
    refused(&["evaluate", &run, "--labels", "brunch"], &["brunch", "branch"]);
}

#[test]
fn match_writes_the_correspondence_by_extension_and_says_how_good_it_is() {
    let m = made();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let data = m.path("data");
    let call = |out: &str, more: &[&str]| {
        ok(&[&["match", &data, "--out", out, "--set", "steps=30", "--device", "cpu", "--threads", "1"][..], more].concat())
    };
    let said = call(&at("f.npy"), &["--labels", "branch"]);
    assert!(said.contains("the same branch") && said.contains("known partner"), "{said}");
    assert_eq!(fs::metadata(at("f.npy")).unwrap().len() % 64, (60 * 60 * 4) % 64);
    call(&at("f.csv"), &["--top", "3"]);
    assert_eq!(fs::read_to_string(at("f.csv")).unwrap().lines().count(), 1 + 3 * 60);
    let said = call(&at("l.csv"), &["--landmarks", "30", "--labels", "branch"]);
    assert!(said.contains("among the best 10") && said.contains("the same branch"), "{said}");
    let said = call(&at("g.csv"), &["--set", "solver=gromov"]);
    assert!(said.contains("known partner"), "{said}");
    fs::remove_file(at("g.csv")).unwrap();
    refused(&["match", &data, "--out", &at("f.npy"), "--landmarks", "30"], &["no whole table"]);
    call(&at("one.csv"), &["--one-to-one"]);
    let text = fs::read_to_string(at("one.csv")).unwrap();
    let mut partners: Vec<&str> = text.lines().skip(1).map(|l| l.split(',').nth(1).unwrap()).collect();
    partners.sort_unstable();
    partners.dedup();
    assert_eq!(partners.len(), 60, "no cell twice");
    call(&at("f.npz"), &[]);
    assert!(fs::metadata(at("f.npz")).unwrap().len() > 0);
    refused(&["match", &data, "--out", &at("f.xlsx")], &[".npy, .npz or .csv"]);
    refused(&["match", &data, "--out", &at("g.npy"), "--set", "step=3"], &["steps"]);
    refused(&["match", &data, "--out", &at("g.npy"), "--between", "a,a"], &["two different"]);
    assert!(!Path::new(&at("g.npy")).exists());
}

#[test]
fn explain_ablates_into_a_table_that_is_sorted_and_begins_at_evaluates_score() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let explain = |more: &[&str]| ok(&[&["explain", &run, "--method", "ablation", "--of", &a, "--device", "cpu"][..], more].concat());
    let table = |name: &str| {
        let text = fs::read_to_string(out(name)).unwrap();
        let rows: Vec<Vec<String>> = text.lines().skip(1).map(|l| l.split(',').map(str::to_string).collect()).collect();
        (text.lines().next().unwrap_or_default().to_string(), rows)
    };
    let said = explain(&["--labels", "branch", "--out", &out("lta.csv")]);
    assert!(said.starts_with("lta: branch of") && said.contains("12 cells that training never saw") && said.contains("185 more"), "{said}");
    let (header, rows) = table("lta.csv");
    assert_eq!((header.as_str(), rows.len()), ("name,features,score,baseline,drop", 200));
    ok(&["evaluate", &run, "--labels", "branch", "--out", &out("m.json"), "--device", "cpu"]);
    let metrics: serde_json::Value = serde_json::from_str(&fs::read_to_string(out("m.json")).unwrap()).unwrap();
    assert_eq!(rows[0][3].parse().ok(), metrics["lta"].as_f64());
    let drops: Vec<f64> = rows.iter().map(|r| r[4].parse().unwrap()).collect();
    assert!(drops.is_sorted_by(|x, y| x >= y), "{drops:?}");

    let first =
        |name: &str| fs::read_to_string(Path::new(&data).join(name).join("features.txt")).unwrap().lines().next().unwrap().to_string();
    let (in_a, in_b) = (first(&a), first(&b));
    fs::write(out("sets.csv"), format!("set,feature\nonly,{in_a}\n")).unwrap();
    let to = ["--to", &b, "--feature", &in_b, "--sets", &out("sets.csv"), "--out", &out("r.csv"), "--keep"];
    let said = explain(&to);
    assert!(said.starts_with(&format!("pearson: {in_b} of {b} imputed from {a}")) && said.contains("with nothing else"), "{said}");
    assert_eq!(table("r.csv").1.len(), 1);

    let refused = |more: &[&str], says: &[&str]| refused(&[&["explain", &run, "--method", "ablation"][..], more].concat(), says);
    refused(&[], &["--of"]);
    refused(&["--of", "nothing"], &["nothing", &a]);
    refused(&["--of", &a, "--labels", "brunch"], &["brunch", "branch"]);
    refused(&["--of", &a, "--to", &a], &["another modality"]);
    refused(&["--of", &a, "--to", &b, "--feature", &format!("{in_b}0000")], &[&b, "did you mean"]);
    refused(&["--of", &a, "--cell", "c"], &["--cell goes with --method shapley"]);
    refused(&["--of", &b, "--sets", &out("sets.csv")], &["sets.csv, line 2", &in_a]);
    refused(&["--of", &a, "--out", &out("x.npy")], &[".csv"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn explain_shares_out_an_imputed_value_and_draws_a_waterfall() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let line = |name: &str, file: &str, at: usize| {
        fs::read_to_string(Path::new(&data).join(name).join(file)).unwrap().lines().nth(at).unwrap().to_string()
    };
    let (cell, feature) = (line(&a, "cells.txt", 3), line(&b, "features.txt", 7));
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let of = ["explain", &run, "--method", "shapley", "--from", &a, "--to", &b, "--device", "cpu", "--permutations", "2"];
    let explain = |cell: &str, feature: &str, more: &[&str]| [&of[..], &["--cell", cell, "--feature", feature], more].concat().join("\n");
    let run = |args: String| ok(&args.split('\n').collect::<Vec<_>>());
    let said = run(explain(&cell, &feature, &["--out", &out("s.csv"), "--plot", &out("w.svg")]));
    assert!(said.contains(&format!("cell {cell}")) && said.contains("the mean cell") && said.contains("2 permutations"), "{said}");
    let csv = fs::read_to_string(out("s.csv")).unwrap();
    assert!(csv.starts_with("name,features,value,shapley,error\n") && csv.lines().count() == 201, "{csv}");
    let sum: f64 = csv.lines().skip(1).map(|l| l.split(',').nth(3).unwrap().parse::<f64>().unwrap()).sum();
    ok(&["translate", &made().path("run"), "--from", &a, "--to", &b, "--out", &out("t.csv"), "--device", "cpu"]);
    let translated = fs::read_to_string(out("t.csv")).unwrap();
    let whole: f64 = translated.lines().nth(4).unwrap().split(',').nth(8).unwrap().parse().unwrap();
    let told: Vec<f64> = said.lines().nth(1).unwrap().split([' ', ',', ';']).filter_map(|w| w.parse().ok()).collect();
    assert!((told[0] - whole).abs() < 2e-5 && (told[0] - told[1] - sum).abs() < 2e-5, "{told:?} {whole} {sum}");
    let svg = fs::read_to_string(out("w.svg")).unwrap();
    assert!(svg.contains(&cell) && svg.contains("185 others, each smaller") && svg.ends_with("</svg>\n"), "{svg}");
    run(explain(&cell, &feature, &["--top", "3", "--space", "model", "--seed", "4", "--plot", &out("w.png")]));
    assert!(fs::read(out("w.png")).unwrap().starts_with(b"\x89PNG\r\n"));

    let refused = |args: String, says: &[&str]| refused(&args.split('\n').collect::<Vec<_>>(), says);
    refused(explain(&format!("{cell}x"), &feature, &[]), &["no cell", "did you mean"]);
    refused(explain(&cell, &format!("{feature}x"), &[]), &["no feature", "did you mean"]);
    refused(explain(&cell, &feature, &["--plot", &out("w.pdf")]), &[".svg or .png"]);
    refused(explain(&cell, &feature, &["--plot", &out("no/w.png")]), &["folder"]);
    refused(explain(&cell, &feature, &["--keep"]), &["--keep goes with --method ablation"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn spaces_of_a_code_are_written_apart_measured_apart_and_explained_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (data, run) = (at("data"), at("run"));
    ok(&["simulate", "apollo-1", "--cells", "160", "--seed", "2", "--out", &data]);
    let quick = ["--device", "cpu", "--threads", "1", "--epochs", "4", "--set", "epochs2=4", "--set", "width=8", "--batch-size", "40"];
    ok(&[&["train", "apollo", &data, "--out", &run, "--holdout", "0.25", "--latent", "3"][..], &quick].concat());
    let bytes = |name: String| fs::metadata(Path::new(&run).join(name)).unwrap().len();
    for view in ["view1", "view2"] {
        // 160 cells x 3 shared and 2 specific dimensions of 4 bytes behind headers of 128.
        let of = ["", ".shared", ".specific"].map(|part| bytes(format!("embedding.{view}{part}.npy")) - 128);
        assert_eq!(of, [160 * 20, 160 * 12, 160 * 8]);
    }
    let said = ok(&["embed", &run, "--from", "view2", "--out", &at("z.csv"), "--device", "cpu"]);
    assert!(said.contains("160 cells x 5 latent dimensions") && said.contains("z.shared.csv: the 3 of them that are shared"), "{said}");
    let line = |name: &str, n: usize| fs::read_to_string(at(name)).unwrap().lines().nth(n).unwrap().to_string();
    assert_eq!([line("z.shared.csv", 0), line("z.specific.csv", 0)], ["cell,modality,Z1,Z2,Z3", "cell,modality,Z4,Z5"]);
    let (whole, shared) = (line("z.csv", 7), line("z.shared.csv", 7));
    assert!(whole.starts_with(&format!("{shared},")), "{whole} {shared}");

    ok(&["evaluate", &run, "--device", "cpu", "--classifier", "--out", &at("m.json")]);
    let metrics: serde_json::Value = serde_json::from_str(&fs::read_to_string(at("m.json")).unwrap()).unwrap();
    let number = |key: &str| metrics[key].as_f64().unwrap_or_else(|| panic!("{key}: {metrics:#}"));
    for key in ["shared.view1", "shared.view2", "specific.view1", "specific.view2"] {
        number(&format!("silhouette.Z3.{key}"));
        number(&format!("r2.Z5.{key}.train"));
    }
    let mean = 0.5 * (number("r2.Z2.shared.view1.train") + number("r2.Z2.shared.view2.train"));
    assert!((number("r2.Z2.shared.train") - mean).abs() < 1e-12);
    number("silhouette.Z1.table.shared.train");
    number("r2.Z4.table.specific.view2.train");
    assert!(metrics.get("silhouette.Z1.table.shared").is_none(), "held-out cells have no row in a table");
    assert!(metrics.get("silhouette.Z2.shared").is_none(), "a number of 160 values is no class");
    assert!(number("classifier_accuracy.full.view1") <= 1.0 && number("classifier_accuracy.chance") <= 1.0);

    let pcs = ["explain", "pcs", &run, "--device", "cpu", "--splits", "2", "--components", "1", "--centre", "1", "--from", "view1"];
    let said = ok(&pcs);
    assert!(said.contains("view1, shared space: component 1") && said.contains("view1, specific space: component 1"), "{said}");
    assert!(Path::new(&run).join("pcs").join("view1.specific.pc1.svg").exists());
}

#[test]
fn explain_pcs_leaves_tables_and_figures_of_every_component_and_the_same_twice() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let pcs = |more: &[&str]| {
        let of = ["explain", "pcs", &run, "--device", "cpu", "--splits", "3", "--components", "2", "--centre", "1"];
        [&of[..], more].concat().iter().map(|w| w.to_string()).collect::<Vec<String>>()
    };
    let tell = |more: &[&str]| ok(&pcs(more).iter().map(String::as_str).collect::<Vec<_>>());
    let said = tell(&["--out", &out("p")]);
    assert!(said.contains(&format!("{a}, code space: component 1: ")) && said.contains("low   "), "{said}");
    assert!(said.trim_end().ends_with("4 figures as SVG and PNG"), "{said}");
    let read = |folder: &str, name: &str| fs::read_to_string(Path::new(&out(folder)).join(name)).unwrap();
    let features = read("p", "features.csv");
    assert!(features.starts_with("encoder,space,component,group,features_of,feature,count,splits,area,"), "{features}");
    // Codes are made of the features: some follow a component even with twelve test cells.
    let follow = features.lines().skip(1).filter(|l| l.split(',').nth(6).is_some_and(|n| n != "0")).count();
    assert!(follow > 0, "{features}");
    let cells = read("p", "cells.csv");
    let bins: std::collections::BTreeSet<i32> = cells.lines().skip(1).map(|l| l.split(',').nth(3).unwrap().parse().unwrap()).collect();
    assert_eq!(bins, (-5..=5).collect());
    assert!(read("p", &format!("{a}.code.pc1.svg")).ends_with("</svg>\n"));
    assert!(fs::read(Path::new(&out("p")).join(format!("{b}.code.pc2.png"))).unwrap().starts_with(b"\x89PNG\r\n"));
    tell(&["--out", &out("q")]);
    assert_eq!((features, cells), (read("q", "features.csv"), read("q", "cells.csv")));

    let ids: Vec<String> = fs::read_to_string(Path::new(&data).join(&a).join("cells.txt")).unwrap().lines().map(str::to_string).collect();
    let table: String = ids.iter().enumerate().map(|(i, id)| format!("{id},{i},\n")).collect();
    fs::write(out("f.csv"), format!("cell,size,empty\n{table}")).unwrap();
    tell(&["--out", &out("f"), "--from", &a, "--features", &out("f.csv")]);
    tell(&["--out", &out("b"), "--from", &a, "--of", &b]);
    assert!(read("b", "cells.csv").lines().count() > 11 && Path::new(&out("b")).join(format!("{a}.code.{b}.pc1.png")).exists());

    let refused = |more: &[&str], says: &[&str]| refused(&pcs(more).iter().map(String::as_str).collect::<Vec<_>>(), says);
    fs::write(out("f.csv"), format!("cell,size\n{},big\n", ids[0])).unwrap();
    refused(&["--out", &out("r"), "--from", &a, "--features", &out("f.csv")], &["f.csv, line 2", "\"big\" is not a number"]);
    fs::write(out("f.csv"), "cell,size\nnobody,1\n").unwrap();
    refused(&["--out", &out("r"), "--from", &a, "--features", &out("f.csv")], &["none of its 1 cells"]);
    refused(&["--from", "nothing"], &["nothing", &a]);
    refused(&["--thresholds", "8,1.2"], &["the lower first"]);
    refused(&["--values", "log3"], &["log3"]);
    refused(&["--centre", "0"], &["--centre"]);
    crate::refused(&["explain"], &["<RUN>"]);
}

#[test]
fn train_takes_files_and_keeps_their_dataset_in_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let cells: Vec<String> = (0..20).map(|i| format!("cell{i}")).collect();
    let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
    let value = |i: usize, j: usize| ((i * 7 + j * 13) % 17) as f64 / 3.0;
    let a = csv(dir.path(), "a.csv", &cells, |i| format!("{},{},{}", value(i, 1), if i == 3 { -2.0 } else { value(i, 2) }, value(i, 3)));
    let b = csv(dir.path(), "b.csv", &cells, |i| format!("{},{}", value(i, 4), value(i, 5)));
    let out = dir.path().join("run");
    let (ma, mb) = (modality("a", &a), modality("b", &b));
    let train = |more: &[&str]| {
        let args = ["train", "coupled", "--modality", &ma, "--modality", &mb, "--out", out.to_str().unwrap(), "--latent", "2"];
        [&args[..], &QUICK, more].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    for (set, says) in [("alpha.c=1", &["\"c\"", "a, b"][..]), ("preprocess.a=log1p", &["cell3", "f1"])] {
        let args = train(&["--set", set]);
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), says);
        assert!(!out.exists(), "a refused training leaves no run");
    }
    let args = train(&[]);
    ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(out.join("dataset/dataset.json").exists());
    ok(&["evaluate", out.to_str().unwrap(), "--device", "cpu"]);
}

#[test]
fn mistakes_of_train_are_one_sentence_with_a_hint() {
    let (data, run) = (made().path("data"), made().path("run"));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("r");
    let out = out.to_str().unwrap();
    let train = |more: &[&str], says: &[&str]| {
        refused(&[&["train", "coupled", &data, "--out", out], more].concat(), says);
        assert!(!Path::new(out).exists(), "{more:?} left a run");
    };
    train(&["--epoch", "3"], &["--epochs"]);
    train(&["--set", "lamda=1"], &["lambda"]);
    train(&["--set", "preprocess=log1"], &["log1p"]);
    train(&["--latent", "0"], &["latent", "from 1"]);
    train(&["--device", "gpu"], &["auto", "cpu", "cuda"]);
    train(&["--precision", "bf16", "--device", "cpu"], &["f32"]);
    train(&["--holdout", "2"], &["--holdout"]);
    train(&["--holdout", "brunch=1"], &["brunch", "branch"]);
    train(&["--labels", "brunch"], &["brunch", "branch"]);
    train(&["--config", "none.toml"], &["none.toml", "no such file"]);
    let config = dir.path().join("c.toml");
    fs::write(&config, "lr = 0.1\nlatnt = 3\n").unwrap();
    train(&["--config", config.to_str().unwrap()], &["c.toml", "latnt", "did you mean latent?"]);
    refused(&["train", "couplet", &data, "--out", out], &["coupled"]);
    refused(&["train", "coupled", "--out", out], &["DATASET"]);
    refused(&["train", "coupled", "nowhere", "--out", out], &["nowhere"]);
    refused(&["train", "coupled", &data, "--out", &run], &["--resume"]);
    refused(&["train", "coupled", &data, "--out", &data], &["no run"]);
    refused(&[&["train", "coupled", &data, "--out", &run, "--resume", "--seed", "5"][..], &QUICK].concat(), &["seed = 0, not 5"]);
    refused(
        &[&["train", "coupled", &data, "--out", &run, "--resume", "--set", "lr=0.5"][..], &QUICK].concat(),
        &["lr = 0.001, not lr = 0.5"],
    );
}

#[test]
fn the_option_table_of_a_model_is_its_help() {
    let help = ok(&["train", "coupled", "--help"]);
    for word in ["lambda[.A_B] = 1", "min-singular-value", "preprocess[.NAME] = auto", "--holdout"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(ok(&["train", "--help"]).contains("coupled"));
}

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
    let train = |name: &str, more: &[&str]| {
        let out = out(name);
        let args =
            ["train", "coupled", &data, "--out", &out, "--device", "cpu", "--set", "hidden=8", "--epochs", "400", "--holdout", "0.2"];
        [&args[..], &["--set", "patience=0"], more].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let strs = |v: &[String]| v.iter().map(|s| s.as_str()).collect::<Vec<_>>().join("\u{1f}");
    let launch = |v: Vec<String>| {
        command(&strs(&v).split('\u{1f}').collect::<Vec<_>>()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let child = launch(train("broken", &[]));
    let history = format!("{}/history.csv", out("broken"));
    let started = Instant::now();
    while fs::read_to_string(&history).map_or(0, |t| t.lines().count()) < 3 {
        assert!(started.elapsed() < Duration::from_secs(20), "no epoch was done");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let broken = child.wait_with_output().unwrap();
    assert!(broken.status.success(), "{:?} {}", broken.status, text(&broken.stderr));
    assert!(text(&broken.stdout).contains("--resume"), "{}", text(&broken.stdout));
    let epochs = fs::read_to_string(&history).unwrap().lines().count() - 1;
    assert!(epochs < 400, "it was not interrupted: {epochs} epochs");
    ok(&["embed", &out("broken"), "--out", &out("z.npy"), "--device", "cpu"]);
    for args in [train("broken", &["--resume"]), train("whole", &[])] {
        let done = launch(args).wait_with_output().unwrap();
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
fn a_loss_that_is_not_finite_ends_the_run_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").to_str().unwrap().to_string();
    let data = made().path("data");
    let done = run(&["train", "coupled", &data, "--out", &out, "--device", "cpu", "--set", "lr=1e30", "--set", "hidden=8"]);
    let err = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{err}");
    let sentence = err.lines().last().unwrap_or_default();
    for part in ["step", "recon.view1", "linear"] {
        assert!(sentence.contains(part), "{sentence:?} does not say {part:?}");
    }
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

// ---- the rest -----------------------------------------------------------------------------------------

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
fn a_closed_pipe_is_no_panic() {
    let data = made().path("data");
    let mut child = command(&["info", &data]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{:?} {}", out.status, text(&out.stderr));
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

// ---- chosen features, shuffling by blocks ------------------------------------------------------------

#[test]
fn features_that_vary_most_are_chosen_on_training_cells_and_kept_with_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    ok(&["simulate", "atlas", "--like", "multiome", "--cells", "120", "--features", "60,40", "--out", &path("d")]);
    for (model, more, given) in [
        ("coupled", &["--set", "hidden=8", "--set", "latent=2"][..], "30 of its features"),
        ("jamie", &["--set", "pca_dim=9", "--set", "align=0"], "9 principal components of 30 of its features"),
    ] {
        let run = path(model);
        let base = ["train", model, &path("d"), "--out", &run, "--epochs", "3", "--holdout", "0.25", "--device", "cpu"];
        let said = ok(&[&base[..], more, &["--set", "n_top_genes.rna=30", "--batch-size", "32"]].concat());
        assert!(said.contains(given), "{said}");
        let config = fs::read_to_string(format!("{run}/config.toml")).unwrap();
        assert!(config.contains("top_genes_by = \"seurat-v3\"") && config.contains("n_top_genes.atac = 0"), "{config}");
        // What the run kept is enough: embedding, imputing all features, measuring those that the model has.
        ok(&["embed", &run, "--from", "rna", "--out", &path("z.npy"), "--device", "cpu"]);
        assert_eq!(fs::read(path("z.npy")).unwrap(), fs::read(format!("{run}/embedding.rna.npy")).unwrap());
        ok(&["translate", &run, "--from", "atac", "--to", "rna", "--out", &path("t.csv"), "--device", "cpu"]);
        assert_eq!(fs::read_to_string(path("t.csv")).unwrap().lines().next().unwrap().split(',').count(), 61);
        assert!(ok(&["evaluate", &run, "--device", "cpu"]).contains("recon_mse.rna"));
    }
    refused(&["train", "coupled", &path("d"), "--out", &path("x"), "--set", "top_genes_by=best"], &["seurat-v3, dispersion, variance"]);
    assert!(!Path::new(&path("x")).exists());
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
