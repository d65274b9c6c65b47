//! `simulate`, `import` and `info`: what a dataset is made of, and mistakes in files.

use crate::{csv, made, modality, ok, refused};
use std::fs;
use std::path::Path;

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
