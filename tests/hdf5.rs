//! AnnData, MuData and 10x files, as other programs wrote them: tests/golden/hdf5/make.py made those that are kept here, the ones
//! under `shared` come from the projects' own archives. Then damaged ones: one sentence, exit status 2, nothing left behind.
#![cfg(feature = "hdf5")]

use std::path::{Path, PathBuf};

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportReport, ImportSpec, import};
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::{Dataset, Hooks};
use couplet::error::Result;
use couplet::run::h5ad::{Cells, Column, Matrix};
use couplet::run::rows::RowsWriter;
use hdf5_pure::{AttrValue, FileBuilder};
use proptest::prelude::*;

const CELLS: usize = 7;
const FEATURES: usize = 5;

/// What make.py writes: cell c, feature f.
fn expected() -> Vec<Vec<f32>> {
    let value = |c: usize, f: usize| if c == 2 { 0.0 } else { (((3 * c + 2 * f) % 7) as f32 - 3.0).max(0.0) };
    (0..CELLS).map(|c| (0..FEATURES).map(|f| value(c, f)).collect()).collect()
}

fn golden(name: &str) -> String {
    format!("{}/tests/golden/hdf5/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Imports `NAME=FILE[#KEY]`, and looks after what a failed import leaves.
fn imported(dir: &Path, modalities: &[String], missing_nan: bool) -> Result<(ImportReport, Dataset)> {
    let out = dir.join("dataset");
    let _ = std::fs::remove_dir_all(&out);
    let modalities = modalities.iter().map(|m| ModalitySource::parse(m)).collect::<Result<_>>()?;
    let report = import(&ImportSpec { modalities, missing_nan, ..Default::default() }, &out, &mut Hooks::default());
    if report.is_err() {
        let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| !n.to_string_lossy().contains("dataset")), "a failed import left {left:?}");
    }
    Ok((report?, Dataset::open(&out)?))
}

fn import_golden(name: &str) -> (tempfile::TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    let (_, dataset) = imported(dir.path(), &[format!("rna={}", golden(name))], false).unwrap_or_else(|e| panic!("{name}: {e}"));
    (dir, dataset)
}

/// The sentence about a file that must be refused.
fn complaint(file: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let error = imported(dir.path(), &[format!("rna={file}")], false).err().unwrap_or_else(|| panic!("{file} must be refused"));
    let message = error.to_string();
    assert_eq!(error.exit_code(), 2, "{message}");
    assert!(!message.contains('\n'), "{message}");
    message
}

fn values(dataset: &Dataset, modality: usize) -> Vec<Vec<f32>> {
    let m = dataset.modality(modality);
    let read = |row| {
        let mut out = vec![0.0; m.features()];
        m.row_into(row, &mut out).unwrap();
        out
    };
    (0..m.cells()).map(read).collect()
}

fn label(dataset: &Dataset, modality: usize, column: &str) -> Vec<String> {
    let labels = dataset.label(column).unwrap();
    (0..dataset.modality(modality).cells()).map(|row| labels.text(modality, row).unwrap_or("").to_string()).collect()
}

fn numbered(prefix: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("{prefix}{i}")).collect()
}

#[test]
fn every_form_compression_and_type_is_the_same_matrix() {
    for form in ["dense", "csr", "csc"] {
        for kind in ["none", "gzip", "lzf", "bool", "uint8", "uint16", "int32", "int64", "float64"] {
            let (_dir, dataset) = import_golden(&format!("{form}-{kind}.h5ad"));
            let wanted = if kind == "bool" {
                expected().into_iter().map(|row| row.into_iter().map(|x| f32::from(x != 0.0)).collect()).collect()
            } else {
                expected()
            };
            let m = dataset.modality(0);
            assert_eq!(values(&dataset, 0), wanted, "{form} {kind}");
            assert_eq!((m.cell_ids(), m.feature_names()), (&numbered("cell", 0..7)[..], &numbered("gene", 0..5)[..]));
            assert_eq!(m.is_sparse(), form != "dense");
            let small = match kind {
                "bool" | "uint8" => "u8",
                "uint16" => "u16",
                _ => "f32",
            };
            assert_eq!(m.entry().dtype, if form == "dense" { small } else { "f32" }, "{form} {kind}");
        }
    }
}

#[test]
fn chunks_byte_orders_and_forms_that_scipy_allows_make_no_difference() {
    for name in [
        "dense-float16",
        "dense-chunks",
        "dense-chunks-v114",
        "csr-unsorted",
        "csr-repeated",
        "csr-stored-zeros",
        "csr-int64-indices",
        "table-vlen",
        "table-fixed",
        "labels",
    ] {
        let (_dir, dataset) = import_golden(&format!("{name}.h5ad"));
        assert_eq!(values(&dataset, 0), expected(), "{name}");
        assert_eq!(dataset.modality(0).cell_ids(), numbered("cell", 0..7), "{name}");
        assert_eq!(dataset.modality(0).facts().nonzeros, 13, "{name}");
    }
}

#[test]
fn columns_of_obs_are_labels_without_being_asked_for() {
    let (_dir, dataset) = import_golden("labels.h5ad");
    assert_eq!(dataset.label_columns(), ["type", "order", "text", "whole", "real", "true", "nullable", "nullable_bool"]);
    assert_eq!(dataset.default_label(), Some("type"));
    assert_eq!(label(&dataset, 0, "type"), ["b", "a", "", "b", "a", "c", "b"]);
    assert_eq!(label(&dataset, 0, "order"), ["2", "1", "1", "3", "2", "1", "3"]);
    assert_eq!(label(&dataset, 0, "text"), ["x", "y, z", "q\"q", "ü", "x", "", "x"]);
    assert_eq!(label(&dataset, 0, "real"), ["0.5", "", "1", "2", "3", "4", "5"]);
    assert_eq!(label(&dataset, 0, "true")[..2], ["True", "False"]);
    assert_eq!(label(&dataset, 0, "nullable"), ["1", "", "3", "4", "5", "6", "7"]);
    assert_eq!(label(&dataset, 0, "nullable_bool")[..3], ["True", "", "False"]);
    for name in ["labels-nullable-text.h5ad", "table-vlen.h5ad", "table-fixed.h5ad"] {
        let (_dir, dataset) = import_golden(name);
        assert_eq!(label(&dataset, 0, "type"), ["b", "a", "", "b", "a", "c", "b"], "{name}");
    }
}

#[test]
fn layers_and_raw_are_chosen_by_key() {
    let counts = import_golden("layers.h5ad#counts").1;
    assert_eq!(values(&counts, 0), expected());
    assert!(!counts.modality(0).is_sparse());
    let halves: Vec<Vec<f32>> = expected().iter().map(|row| row.iter().map(|x| x / 2.0).collect()).collect();
    assert_eq!(values(&import_golden("layers.h5ad#half").1, 0), halves);
    assert_eq!(values(&import_golden("layers.h5ad#X").1, 0), expected());
    assert_eq!(values(&import_golden("no-x.h5ad#counts").1, 0), expected());
    assert_eq!(import_golden("raw.h5ad").1.modality(0).features(), 3);
    assert_eq!(values(&import_golden("raw.h5ad#raw").1, 0), expected());
    let message = complaint(&golden("no-x.h5ad"));
    assert!(message.contains("no X") && message.ends_with("there are: counts"), "{message}");
    let message = complaint(&golden("layers.h5ad#count"));
    assert!(message.contains("did you mean counts?") && message.contains("counts, half, X"), "{message}");
}

#[test]
fn mudata_gives_its_modalities_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let pair = golden("pair.h5mu");
    let (report, dataset) = imported(dir.path(), &[format!("rna={pair}#rna"), format!("atac={pair}#atac")], false).unwrap();
    assert_eq!((report.units, report.pairs.as_str()), (5, "by-name"));
    assert_eq!(values(&dataset, 0), expected());
    assert_eq!(values(&dataset, 1), expected().into_iter().rev().collect::<Vec<_>>());
    assert_eq!(dataset.modality(1).cell_ids(), numbered("cell", 2..9));
    assert_eq!(label(&dataset, 1, "donor"), ["d0", "d1", "d0", "d1", "d0", "d1", "d0"]);
    // Both have a column "depth", of other numbers for the same cells.
    assert_eq!(label(&dataset, 0, "depth"), ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(label(&dataset, 1, "atac:depth"), ["0", "10", "20", "30", "40", "50", "60"]);
    assert!(report.notes.iter().any(|n| n.contains("atac:depth")), "{:?}", report.notes);
    assert_eq!(values(&import_golden("pair.h5mu#rna/counts").1, 0), expected());
    assert_eq!(values(&import_golden("single.h5mu").1, 0), expected());
    let message = complaint(&pair);
    assert!(message.contains("several modalities") && message.ends_with("there are: rna, atac"), "{message}");
    assert!(complaint(&format!("{pair}#rnaa")).contains("did you mean rna?"));
}

#[test]
fn cellrangers_features_are_split_by_type() {
    let columns = |keep: &[usize]| expected().iter().map(|row| keep.iter().map(|&f| row[f]).collect()).collect::<Vec<Vec<f32>>>();
    let genes = import_golden("10x-multiome.h5#Gene Expression").1;
    assert_eq!((values(&genes, 0), genes.modality(0).feature_names()), (columns(&[0, 2]), &["gene0", "gene2"].map(String::from)[..]));
    assert_eq!(values(&import_golden("10x-multiome.h5#Peaks").1, 0), columns(&[1, 3, 4]));
    assert_eq!(values(&import_golden("10x-genomes.h5#mm10").1, 0), expected());
    assert!(complaint(&golden("10x-multiome.h5")).contains("Gene Expression (2), Peaks (3); choose one with FILE#TYPE"));
    assert!(complaint(&golden("10x-genomes.h5")).ends_with("there are: hg19, mm10"));
}

#[test]
fn edges_are_read_or_refused_in_words() {
    for name in ["one-cell.h5ad", "one-cell-csr.h5ad"] {
        assert_eq!(values(&import_golden(name).1, 0), expected()[..1]);
    }
    assert_eq!(values(&import_golden("one-feature-csc.h5ad").1, 0), expected().iter().map(|row| row[..1].to_vec()).collect::<Vec<_>>());
    assert_eq!(import_golden("all-zero-csr.h5ad").1.modality(0).facts().nonzeros, 0);
    let said = [
        ("no-cells.h5ad", "there are no cells in it"),
        ("no-cells-csr.h5ad", "there are no cells in it"),
        ("no-features.h5ad", "there are no features in it"),
        ("duplicate-ids.h5ad", "the cell id \"same\" stands on row 0"),
        ("nan-dense.h5ad", "X, row 4, column 1: the value is nan"),
        ("nan-csr.h5ad", "X/data, element 7: the value is nan"),
        ("nan-csc.h5ad", "the value is nan"),
        ("too-large-dense.h5ad", "too large for a 32-bit float"),
        ("too-large-csr.h5ad", "too large for a 32-bit float"),
        ("too-large-csc.h5ad", "too large for a 32-bit float"),
        ("zstd.h5ad", "compressed by zstd (filter 32015)"),
        ("virtual.h5ad", "lie in other files"),
        ("other.h5", "there is notes, weights"),
        ("latin1-names.h5ad", "obs/_index: text 3 is not UTF-8"),
        ("empty-name.h5ad", "row 2 of the cells' names: the cell id is empty"),
        ("make.py", "the ending says no format"),
    ];
    for (name, says) in said {
        let message = complaint(&golden(name));
        assert!(message.contains(says), "{name}: {message}");
    }
    for form in ["dense", "csr", "csc"] {
        let dir = tempfile::tempdir().unwrap();
        let (_, dataset) = imported(dir.path(), &[format!("rna={}", golden(&format!("nan-{form}.h5ad")))], true).unwrap();
        assert!(values(&dataset, 0)[4][1].is_nan() && dataset.modality(0).facts().missing == 1, "{form}");
    }
}

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

struct Lie {
    shape: Vec<i64>,
    indptr: Vec<i64>,
    indices: Vec<i64>,
    data: Vec<f32>,
    cells: usize,
    codes: Vec<i8>,
    kind: &'static str,
}

#[test]
fn matrices_that_lie_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let honest = file(dir.path(), "honest.h5ad", &lying(|_| {}));
    let (_, dataset) = imported(dir.path(), &[format!("rna={}", honest.display())], false).unwrap();
    assert_eq!(values(&dataset, 0), [[0.0, 1.0, 0.0, 2.0], [0.0; 4], [3.0, 0.0, 0.0, 0.0]]);
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

/// Two files as `embed` and `translate` write them, of a dataset of 150 cells in two modalities and a label with gaps.
fn written(dir: &Path) -> (PathBuf, PathBuf) {
    let data = dir.join("data");
    simulate(&SimulateSpec { recipe: "branching", cells: Some(150), ..Default::default() }, &data, &mut Hooks::default()).unwrap();
    let dataset = Dataset::open(&data).unwrap();
    let (embedded, translated) = (dir.join("z.h5ad"), dir.join("x.h5ad"));
    let mut cells = Cells::of(&dataset, &[0, 1]).unwrap();
    let predicted = (0..300).map(|i| (i % 3 > 0).then_some(i % 2)).collect();
    cells.add("predicted", Column::Classes(vec!["α".into(), "β".into()], predicted));
    let mut out = RowsWriter::annotated(&embedded, &cells, &Matrix::Obsm("X_couplet", 3)).unwrap();
    (0..300).for_each(|i| out.row(&["c", "m"], &[i as f32, -1.5, 0.25]).unwrap());
    out.commit().unwrap();
    let features = dataset.modality(1).feature_names();
    let mut out = RowsWriter::annotated(&translated, &Cells::of(&dataset, &[0]).unwrap(), &Matrix::X(features)).unwrap();
    let mut row = vec![0.0; features.len()];
    for i in 0..150 {
        dataset.modality(1).row_into(i, &mut row).unwrap();
        assert!(out.row(&["c"], &row[1..]).is_err());
        out.row(&["c"], &row).unwrap();
    }
    out.commit().unwrap();
    (embedded, translated)
}

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (embedded, translated) = written(dir.path());
    let data = Dataset::open(&dir.path().join("data")).unwrap();
    let (_, back) = imported(dir.path(), &[format!("rna={}", translated.display())], false).unwrap();
    assert_eq!(values(&back, 0), values(&data, 1));
    let (m, n) = (back.modality(0), data.modality(1));
    assert_eq!((m.cell_ids(), m.feature_names()), (n.cell_ids(), n.feature_names()));
    assert_eq!(back.label_columns(), data.label_columns());
    assert_eq!(label(&back, 0, "branch"), label(&data, 0, "branch"));
    let numbers = |d: &Dataset| d.label("Z1").unwrap().numbers(d.dir()).unwrap().swap_remove(0);
    assert_eq!(numbers(&back), numbers(&data));
    let file = hdf5_pure::File::open(&embedded).unwrap();
    let z = file.dataset("obsm/X_couplet").unwrap();
    assert_eq!(z.shape().unwrap(), [300, 3]);
    assert_eq!(z.read_f32().unwrap()[897..], [299.0, -1.5, 0.25]);
    assert_eq!(file.dataset("obs/_index").unwrap().read_string().unwrap()[150], "cell0-view2");
    assert_eq!(file.dataset("obs/predicted/codes").unwrap().read_i8().unwrap()[..4], [-1, 1, 0, -1]);
    // What a run's head said, for the cells that it knows.
    std::fs::write(dir.path().join("predicted.view1.csv"), "cell,label,probability,p.a,p.b\ncell1,b,0.75,0.25,0.75\ngone,a,1,1,0\n")
        .unwrap();
    let mut cells = Cells::of(&data, &[0]).unwrap();
    cells.add_predictions(dir.path(), &data, &[0]).unwrap();
    let path = dir.path().join("p.h5ad");
    let mut out = RowsWriter::annotated(&path, &cells, &Matrix::X(&["f".to_string()])).unwrap();
    (0..150).for_each(|i| out.row(&[], &[i as f32]).unwrap());
    out.commit().unwrap();
    let (_, back) = imported(dir.path(), &[format!("rna={}", path.display())], false).unwrap();
    let predicted = (label(&back, 0, "predicted_label"), label(&back, 0, "predicted_probability"));
    assert_eq!((&predicted.0[..3], &predicted.1[..3]), (&["", "b", ""].map(String::from)[..], &["", "0.75", ""].map(String::from)[..]));
    let unfinished = RowsWriter::annotated(&dir.path().join("u.h5ad"), &Cells::of(&data, &[0]).unwrap(), &Matrix::Obsm("z", 2)).unwrap();
    assert!(unfinished.commit().is_err() && !dir.path().join("u.h5ad").exists());
}

#[test]
#[ignore = "a measurement: half a gigabyte on disk"]
fn a_million_cells_are_written_in_bounded_memory() {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let dir = tempfile::tempdir().unwrap();
    let spec = SimulateSpec { recipe: "atlas", cells: Some(1_000_000), like: Some("scrna"), features: &[5], ..Default::default() };
    simulate(&spec, &dir.path().join("data"), &mut Hooks::default()).unwrap();
    let before = peak();
    let cells = Cells::of(&Dataset::open(&dir.path().join("data")).unwrap(), &[0]).unwrap();
    let mut out = RowsWriter::annotated(&dir.path().join("z.h5ad"), &cells, &Matrix::Obsm("X_couplet", 128)).unwrap();
    (0..cells.len()).for_each(|i| out.row(&[], &[i as f32; 128]).unwrap());
    out.commit().unwrap();
    println!("peak of resident memory: {before} MiB after simulating, {} MiB after writing", peak());
    assert!(peak() < 1500);
}

/// What anndata and scanpy must find.
const PYTHON: &str = r#"
import sys, numpy as np, anndata as ad
z, x = ad.read_h5ad(sys.argv[1]), ad.read_h5ad(sys.argv[2])
assert z.shape == (300, 0) and z.obs_names.is_unique and z.obs_names[150] == "cell0-view2", z
assert z.obsm["X_couplet"].shape == (300, 3) and z.obsm["X_couplet"][299].tolist() == [299, -1.5, .25]
assert z.obs["modality"].value_counts().to_dict() == {"view1": 150, "view2": 150}
assert z.obs["branch"].dtype == "category" and set(z.obs["branch"]) == {"1", "2", "3"}
assert z.obs["Z1"].dtype == float and z.obs["cell"].nunique() == 150
assert z.obs["predicted"].isna().sum() == 100 and list(z.obs["predicted"].cat.categories) == ["α", "β"]
assert x.shape == (150, 100) and x.X.dtype == np.float32 and x.var_names[0] == "view2_001", x
wanted = np.load(sys.argv[3])
assert (x.X == wanted).all()
assert (ad.read_h5ad(sys.argv[2], backed="r").X[10:12] == wanted[10:12]).all()
x.write_h5ad(sys.argv[2] + ".again.h5ad")
try:
    import scanpy as sc
except ImportError:
    print("no scanpy")
else:
    sc.pp.neighbors(z, use_rep="X_couplet"); sc.tl.umap(z); sc.pp.pca(x)
    assert z.obsm["X_umap"].shape == (300, 2)
print("read")
"#;

#[test]
fn anndata_opens_what_is_written() {
    let python = std::env::var("COUPLET_PYTHON").unwrap_or("python3".into());
    let has = |module: &str| {
        std::process::Command::new(&python).args(["-c", &format!("import {module}")]).output().is_ok_and(|o| o.status.success())
    };
    if !has("anndata") {
        println!("skipped: {python} has no anndata (set COUPLET_PYTHON to one that has)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (embedded, translated) = written(dir.path());
    let mut run = std::process::Command::new(&python);
    run.args(["-c", PYTHON]).args([&embedded, &translated]).arg(dir.path().join("data/view2/values.npy"));
    let out = run.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let again = PathBuf::from(format!("{}.again.h5ad", translated.display()));
    assert_eq!(imported(dir.path(), &[format!("rna={}", again.display())], false).unwrap().1.modality(0).features(), 100);
}

/// Imports a file in place.
fn mapped(dir: &Path, file: &Path) -> Result<(ImportReport, Dataset)> {
    let out = dir.join("dataset");
    let _ = std::fs::remove_dir_all(&out);
    let modalities = vec![ModalitySource { name: "rna".into(), file: file.to_path_buf(), key: None }];
    let report = import(&ImportSpec { modalities, in_place: true, ..Default::default() }, &out, &mut Hooks::default())?;
    Ok((report, Dataset::open(&out)?))
}

#[test]
fn a_matrix_used_in_place_is_not_copied_and_a_changed_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, x) = written(dir.path());
    let npy = dir.path().join("data/view2/values.npy");
    for file in [&x, &npy] {
        let (report, dataset) = mapped(dir.path(), file).unwrap();
        assert!(report.notes.is_empty() && !dataset.dir().join("rna/values.npy").exists(), "{:?}", report.notes);
        assert_eq!(values(&dataset, 0), values(&Dataset::open(&dir.path().join("data")).unwrap(), 1));
        dataset.verify(&mut Hooks::default()).unwrap();
    }
    // Touched, it is still the same; changed, cut or gone, it is named.
    let (_, dataset) = mapped(dir.path(), &x).unwrap();
    let folder = dataset.dir().to_path_buf();
    drop(dataset);
    let bytes = std::fs::read(&x).unwrap();
    std::fs::write(&x, &bytes).unwrap();
    Dataset::open(&folder).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (content, says) in
        [(&changed[..], "changed since it was imported in place"), (&bytes[..bytes.len() - 4], "the file changed, import it again")]
    {
        std::fs::write(&x, content).unwrap();
        let error = Dataset::open(&folder).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains("x.h5ad") && error.to_string().contains(says), "{error}");
    }
    std::fs::remove_file(&x).unwrap();
    assert!(Dataset::open(&folder).err().unwrap().to_string().contains("it is gone"));
    for (name, why) in
        [("csr-none", "sparse"), ("dense-gzip", "compressed"), ("dense-float16", "none of f32, u8, u16"), ("dense-chunks", "big-endian")]
    {
        let (report, dataset) = mapped(dir.path(), Path::new(&golden(&format!("{name}.h5ad")))).unwrap();
        assert!(report.notes[0].contains(why), "{:?}", report.notes);
        assert_eq!(values(&dataset, 0), expected());
    }
    let (_, dataset) = mapped(dir.path(), Path::new(&golden("dense-none.h5ad"))).unwrap();
    assert_eq!((values(&dataset, 0), dataset.modality(0).entry().in_place.is_some()), (expected(), true));
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

#[test]
fn the_projects_own_archives_are_read() {
    let root = std::env::var_os("COUPLET_SHARED_DATA").map(PathBuf::from);
    let folder = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).join("formats");
    if !folder.is_dir() {
        println!("skipped: the folder formats is not at hand (set COUPLET_SHARED_DATA to the folder it is in)");
        return;
    }
    let at = |name: &str| folder.join(name).display().to_string();
    let open = |name: &str| {
        let dir = tempfile::tempdir().unwrap();
        let (_, dataset) = imported(dir.path(), &[format!("rna={}", at(name))], false).unwrap_or_else(|e| panic!("{name}: {e}"));
        (dir, dataset)
    };
    let shape = |d: &Dataset| (d.modality(0).cells(), d.modality(0).features(), d.modality(0).facts().nonzeros);
    for (name, nonzeros) in [("anndata-v0.7.0.h5ad", 228), ("anndata-v0.7.8.h5ad", 239)] {
        let (_dir, d) = open(name);
        assert_eq!(shape(&d), (30, 20, nonzeros));
        assert_eq!(d.label_columns(), ["obs_cat", "cat_ordered", "int64", "float64", "uint8"]);
        assert_eq!(shape(&open(&format!("{name}#sparse")).1).2, 6);
        assert_eq!(open(&format!("{name}#raw")).1.modality(0).features(), 40);
    }
    assert!(complaint(&at("anndata-v0.11.4.h5ad")).contains("no X and no layers"));
    for name in ["mudata-v0.1.2.h5mu", "mudata-v0.3.10.h5mu"] {
        let (_dir, d) = open(&format!("{name}#mod1"));
        assert_eq!(shape(&d), (100, 20, 1999));
        assert_eq!(open(&format!("{name}#mod2")).1.modality(0).features(), 30);
        assert!(complaint(&at(name)).ends_with("there are: mod2, mod1"));
    }
    assert_eq!(shape(&open("10x-v3.h5").1), (1107, 507, 23866));
    assert_eq!(shape(&open("10x-v1.h5").1), (12, 343, 12));
    let (_dir, d) = open("pbmc68k.h5ad");
    assert_eq!(shape(&d).0, 700);
    let types = d.label("bulk_labels").unwrap();
    assert_eq!((types.classes.len(), types.text(0, 0)), (10, Some("CD14+ Monocyte")));
}
