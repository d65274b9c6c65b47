//! Files that were cut, changed, or lie about themselves.

use crate::matrix::matrix;
use crate::{complaint, golden, imported, label, numbered};
use hdf5_pure::{AttrValue, FileBuilder};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

/// A file under a temporary directory with these bytes.
fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for name in
        ["csr-gzip.h5ad", "csc-none.h5ad", "dense-lzf.h5ad", "table-vlen.h5ad", "labels.h5ad", "pair.h5mu#rna", "10x-multiome.h5#Peaks"]
    {
        let (name, key) = name.split_once('#').map_or((name, String::new()), |(n, k)| (n, format!("#{k}")));
        let bytes = std::fs::read(golden(name)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ending = Path::new(name).extension().unwrap().to_str().unwrap();
        let step = bytes.len() / 45;
        for cut in (0..bytes.len()).step_by(step).chain([1, 7, 8, 9, 95, 96, 97, bytes.len() - 1]) {
            let path = file(dir.path(), &format!("cut.{ending}"), &bytes[..cut]);
            let said = complaint(&format!("{}{key}", path.display()));
            assert!(said.contains("cut."), "{said}");
        }
    }
}

#[test]
fn a_chunk_that_claims_more_bytes_than_the_file_has_is_found_out() {
    // A leaf of a tree of chunks (type 1, level 0) begins with 24 bytes, then the stored size of its first chunk.
    let bytes = std::fs::read(golden("dense-gzip.h5ad")).unwrap();
    let leaves: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"TREE\x01\x00")).collect();
    assert!(!leaves.is_empty());
    let dir = tempfile::tempdir().unwrap();
    for at in leaves {
        let mut lie = bytes.clone();
        lie[at + 24..at + 28].copy_from_slice(&u32::MAX.to_le_bytes());
        let said = complaint(file(dir.path(), "lie.h5ad", &lie).to_str().unwrap());
        assert!(said.contains("a chunk of 4294967295 bytes"), "{said}");
    }
}

struct Lie {
    shape: Vec<i64>,
    indptr: Vec<i64>,
    indices: Vec<i64>,
    data: Vec<f32>,
    cells: usize,
    codes: Vec<i8>,
    kind: &'static str,
}

/// AnnData of 3 cells x 4 features, CSR with values at (0,1), (0,3), (2,0); `change` makes it lie.
fn lying(change: impl FnOnce(&mut Lie)) -> Vec<u8> {
    let mut lie = Lie {
        shape: vec![3, 4],
        indptr: vec![0, 2, 2, 3],
        indices: vec![1, 3, 0],
        data: vec![1.0, 2.0, 3.0],
        cells: 3,
        codes: vec![0, -1, 1],
        kind: "csr_matrix",
    };
    change(&mut lie);
    let mut file = FileBuilder::new();
    let mut x = file.create_group("X");
    x.set_attr("encoding-type", AttrValue::VarLenString(lie.kind.into()));
    x.set_attr("shape", AttrValue::I64Array(lie.shape));
    x.create_dataset("indptr").with_i64_data(&lie.indptr);
    x.create_dataset("indices").with_i64_data(&lie.indices);
    x.create_dataset("data").with_f32_data(&lie.data);
    file.add_group(x.finish());
    for (frame, n, prefix) in [("obs", lie.cells, "c"), ("var", 4, "g")] {
        let names: Vec<String> = numbered(prefix, 0..n);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut group = file.create_group(frame);
        group.set_attr("_index", AttrValue::VarLenString("_index".into()));
        group.create_dataset("_index").with_vlen_strings(&names);
        if frame == "obs" {
            let mut column = group.create_group("type");
            column.set_attr("encoding-type", AttrValue::VarLenString("categorical".into()));
            column.create_dataset("codes").with_i8_data(&lie.codes);
            column.create_dataset("categories").with_vlen_strings(&["a", "b"]);
            group.add_group(column.finish());
        }
        file.add_group(group.finish());
    }
    file.finish().unwrap()
}

#[test]
fn matrices_that_lie_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let honest = file(dir.path(), "honest.h5ad", &lying(|_| {}));
    let (_, dataset) = imported(dir.path(), &[format!("rna={}", honest.display())], false).unwrap();
    assert_eq!(matrix(&dataset, 0), [[0.0, 1.0, 0.0, 2.0], [0.0; 4], [3.0, 0.0, 0.0, 0.0]]);
    assert_eq!(label(&dataset, 0, "type"), ["a", "", "b"]);
    std::fs::remove_dir_all(dir.path().join("dataset")).unwrap();
    type Change = fn(&mut Lie);
    let lies: [(Change, &str); 20] = [
        (|l| l.indptr = vec![0, 2, 1, 3], "X/indptr: element 2 is 1"),
        (|l| l.indptr = vec![1, 2, 2, 3], "X/indptr: element 0 is 1"),
        (|l| l.indptr = vec![0, 2, 2, 9], "X/indptr: element 3 is 9"),
        (|l| l.indptr = vec![0, 2, 2, 2], "X/indptr: element 3 is 2"),
        (|l| l.indptr = vec![0, -5, 2, 3], "X/indptr: element 1 is -5"),
        (|l| l.indptr = vec![0, 2, i64::MAX, 3], "X/indptr: element 2"),
        (|l| l.indptr = vec![0, 3], "X/indptr: it has 2 elements for 3"),
        (|l| l.indptr = vec![], "X/indptr: it has 0 elements"),
        (|l| l.indices = vec![1, 4, 0], "X/indices: element 1 is 4"),
        (|l| l.indices = vec![1, -1, 0], "X/indices: element 1 is -1"),
        (|l| l.indices = vec![1, i64::MIN, 0], "X/indices: element 1"),
        (|l| l.indices = vec![1, 3], "there are 2 indices and 3 values"),
        (|l| l.shape = vec![3], "\"shape\" is not two numbers"),
        (|l| l.shape = vec![3, -4], "negative size -4"),
        (|l| l.shape = vec![3, i64::MAX], "too large"),
        (|l| l.shape = vec![i32::MAX as i64, 4], "names of 3"),
        (|l| l.cells = 2, "has 3 cells, but there are names of 2"),
        (|l| l.codes = vec![0, 2, 1], "obs/type/codes, row 1: the code is 2, but there are 2 categories"),
        (|l| l.codes = vec![0, -2, 1], "the code is -2"),
        (|l| l.kind = "coo_matrix", "it is called \"coo_matrix\""),
    ];
    for (change, says) in lies {
        let message = complaint(&file(dir.path(), "lie.h5ad", &lying(change)).display().to_string());
        assert!(message.contains("lie.h5ad") && message.contains(says), "{says}: {message}");
    }
    let csc = |l: &mut Lie| (l.kind, l.indptr) = ("csc_matrix", vec![0, 1, 1, 2, 3]);
    for (index, says) in [(3, "X/indices: element 1 is 3"), (-1, "X/indices: element 1 is -1")] {
        let bytes = lying(|l| (csc(l), l.indices = vec![0, index, 0]).1);
        let message = complaint(&file(dir.path(), "lie.h5ad", &bytes).display().to_string());
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn arrays_of_another_kind_and_claims_of_more_than_there_is_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let frames = |file: &mut FileBuilder, cells: &[&str]| {
        for (frame, names) in [("obs", cells), ("var", &["g0", "g1"][..])] {
            let mut group = file.create_group(frame);
            group.create_dataset("_index").with_vlen_strings(names);
            file.add_group(group.finish());
        }
    };
    let refused = |file: FileBuilder| complaint(&self::file(dir.path(), "odd.h5ad", &file.finish().unwrap()).display().to_string());
    let mut texts = FileBuilder::new();
    texts.create_dataset("X").with_vlen_strings(&["a", "b"]).with_shape(&[1, 2]);
    frames(&mut texts, &["c0"]);
    assert!(refused(texts).contains("X: numbers are wanted"));
    let mut line = FileBuilder::new();
    line.create_dataset("X").with_f32_data(&[1.0, 2.0]);
    frames(&mut line, &["c0"]);
    assert!(refused(line).contains("X: two axes (cells x features) are wanted, the shape is [2]"));
    let mut without = FileBuilder::new();
    without.create_dataset("X").with_f32_data(&[1.0, 2.0]).with_shape(&[1, 2]);
    let mut obs = without.create_group("obs");
    obs.create_dataset("_index").with_vlen_strings(&["c0"]);
    without.add_group(obs.finish());
    assert!(refused(without).contains("var: it is not in the file"));
    assert!(complaint(&dir.path().display().to_string()).contains("the folder has no matrix.mtx"));
    assert!(complaint(&file(dir.path(), "text.h5ad", b"cell,a\nx,1\n").display().to_string()).contains("not an HDF5 file"));
    assert!(complaint(&dir.path().join("absent.h5ad").display().to_string()).contains("there is no such file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn changed_bytes_anywhere_never_panic(
        which in 0usize..7, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let names = ["csr-gzip.h5ad", "csc-none.h5ad", "dense-chunks.h5ad", "table-vlen.h5ad", "dense-chunks-v114.h5ad", "single.h5mu", "10x-multiome.h5"];
        let mut bytes = std::fs::read(golden(names[which])).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let dir = tempfile::tempdir().unwrap();
        let key = if names[which].starts_with("10x") { "#Peaks" } else { "" };
        let path = file(dir.path(), names[which], &bytes);
        if let Err(e) = imported(dir.path(), &[format!("rna={}{key}", path.display())], true) {
            prop_assert_eq!(e.exit_code(), 2, "{}", e);
        }
    }
}
