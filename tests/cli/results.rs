//! What a run is used for: `embed`, `translate` and `evaluate`; and `match`, which needs none.

use crate::{made, names, ok, refused};
use std::fs;
use std::path::Path;

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
