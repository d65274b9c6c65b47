//! A DATASET whose files were taken away, cut, lengthened or changed is an input error, never a panic.

use crate::arrays::sparse_entries;
use crate::numpy::npz;
use crate::{Bench, labels};
use couplet::data::import::ImportSpec;
use couplet::data::pairs::PairsRule;
use couplet::data::{Dataset, Hooks};
use couplet::error::Result;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

/// Opens and reads everything; what matters is that it returns.
fn read_all(dir: &Path) -> Result<()> {
    let d = Dataset::open(dir)?;
    for m in d.modalities() {
        let mut out = vec![0.0; m.features()];
        for row in 0..m.cells() {
            m.row_into(row, &mut out)?;
            m.sparse_row(row)?;
        }
    }
    for column in d.label_columns() {
        d.label(column)?;
    }
    d.verify(&mut Hooks::default())
}

/// A sparse and a dense modality with labels and weighted pairs.
fn small(bench: &Bench) -> PathBuf {
    bench.file("m.npz", npz(&sparse_entries("csr"), false));
    bench.file("b.csv", "cell,h\n0,1\n1,\n2,3\n");
    bench.file("labels.csv", "cell,type\n0,A\n1,B\n2,A\n");
    bench.file("pairs.csv", "0,1,0.5\n");
    let spec = |s: &mut ImportSpec| {
        s.labels = labels(bench, "labels.csv");
        s.pairs = Some(PairsRule::File(bench.path("pairs.csv")));
    };
    bench.import(&["a=m.npz", "b=b.csv"], spec).unwrap();
    bench.path("dataset")
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files_of(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

#[test]
fn a_dataset_with_a_missing_cut_or_lengthened_file_is_an_input_error() {
    let bench = Bench::new();
    let dir = small(&bench);
    read_all(&dir).unwrap();
    for path in files_of(&dir) {
        let whole = std::fs::read(&path).unwrap();
        let mut longer = whole.clone();
        longer.extend_from_slice(b"0\n");
        for damaged in [None, Some(&whole[..whole.len() - 1]), Some(&whole[..whole.len() / 2]), Some(&[][..]), Some(&longer[..])] {
            match damaged {
                None => std::fs::remove_file(&path).unwrap(),
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            }
            let result = read_all(&dir);
            // The description's own last line break, or blanks after it, do not matter to JSON.
            let harmless = path.ends_with("dataset.json") && damaged.is_some_and(|d| d.len() + 1 == whole.len());
            match result {
                Ok(()) => assert!(harmless, "{} {damaged:?}", path.display()),
                Err(e) => assert!(e.exit_code() == 2 && !e.to_string().is_empty(), "{e}"),
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    read_all(&dir).unwrap();
}

#[test]
fn lying_pointers_indices_and_pairs_are_errors() {
    let bench = Bench::new();
    let dir = small(&bench);
    let patch = |file: &str, at: usize, value: i32, words: &str| {
        let path = dir.join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let from = bytes.len() - 4 * (at + 1);
        bytes[from..from + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let message = read_all(&dir).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
        std::fs::write(&path, whole).unwrap();
    };
    patch("a/indptr.npy", 0, 4, "element 3: indptr must begin at 0");
    patch("a/indptr.npy", 1, -1, "element 2");
    patch("a/indptr.npy", 1, i32::MAX, "element 2");
    patch("a/indptr.npy", 3, 1, "element 0");
    patch("a/indices.npy", 0, 3, "row 2: its indices are not ascending numbers below 3");
    patch("a/indices.npy", 0, -1, "row 2");
    patch("a/indices.npy", 1, 1, "row 0");
    patch("a/lines.npy", 0, 99, "cells.csv has only");
    patch("pairs.npy", 0, 3, "does not exist");
    patch("pairs.npy", 0, -1, "fewer than two");
    patch("b/values.npy", 0, 1, "the file is damaged");
}

#[test]
fn what_is_no_dataset_is_said_so() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "x");
    for (path, words) in
        [(bench.path("gone"), "no such directory"), (file, "it is a file"), (bench.dir.path().to_path_buf(), "no dataset.json")]
    {
        assert!(Dataset::open(&path).err().unwrap().to_string().contains(words));
    }
    bench.file("dataset.json", "{}");
    assert!(Dataset::open(bench.dir.path()).err().unwrap().to_string().contains("not the description"));
    bench.file("dataset.json", r#"{"format":"couplet dataset","version":9}"#);
    assert!(Dataset::open(bench.dir.path()).err().unwrap().to_string().contains("version 9"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_anywhere_never_panics(file in 0usize..64, at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let bench = Bench::new();
        let dir = small(&bench);
        let files = files_of(&dir);
        let path = &files[file % files.len()];
        let mut bytes = std::fs::read(path).unwrap();
        let at = at.index(bytes.len());
        let changed = bytes[at] != value;
        bytes[at] = value;
        std::fs::write(path, bytes).unwrap();
        let result = read_all(&dir);
        if changed && !path.ends_with("dataset.json") {
            prop_assert!(result.is_err(), "{} byte {at}", path.display());
        }
    }
}
