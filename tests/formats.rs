//! Files in, DATASET out, and back: round trips over every format, damaged files, and the real data where they are at hand.
#![cfg(feature = "models")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use couplet::data::formats::{ModalitySource, RowsAre};
use couplet::data::import::{ImportReport, ImportSpec, LabelSource, import};
use couplet::data::npy::{Dtype, NpyWriter};
use couplet::data::pairs::PairsRule;
use couplet::data::{Dataset, Hooks};
use couplet::error::Result;
use proptest::prelude::*;

/// A folder of files to import, removed at the end of the test.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Imports `NAME=FILE` pairs of files in the folder.
    fn import(&self, modalities: &[&str], change: impl FnOnce(&mut ImportSpec)) -> Result<(ImportReport, Dataset)> {
        let parse = |text: &&str| {
            let (name, file) = text.split_once('=').unwrap();
            ModalitySource::parse(&format!("{name}={}", self.path(file).display())).unwrap()
        };
        let mut spec = ImportSpec { modalities: modalities.iter().map(parse).collect(), ..Default::default() };
        change(&mut spec);
        let out = self.path("dataset");
        let _ = std::fs::remove_dir_all(&out);
        let report = import(&spec, &out, &mut Hooks::default());
        if report.is_err() {
            assert!(!out.exists(), "a failed import must leave nothing under the final name");
            let hidden =
                std::fs::read_dir(self.dir.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
            assert_eq!(hidden.count(), 0, "a failed import must take its temporary directory away");
        }
        Ok((report?, Dataset::open(&out)?))
    }

    /// The one-line complaint about an import that must fail as an input or usage error.
    fn complaint(&self, modalities: &[&str], change: impl FnOnce(&mut ImportSpec)) -> String {
        let error = self.import(modalities, change).err().expect("the import must fail");
        let message = error.to_string();
        assert_eq!(error.exit_code(), 2, "{message}");
        assert!(!message.contains('\n'), "{message}");
        message
    }
}

fn plain(_: &mut ImportSpec) {}

fn labels(bench: &Bench, text: &str) -> Vec<LabelSource> {
    vec![LabelSource { modality: None, file: bench.path(text), column: None }]
}

fn matrix(dataset: &Dataset, modality: usize) -> Vec<Vec<f32>> {
    let m = dataset.modality(modality);
    let read = |row| {
        let mut out = vec![0.0; m.features()];
        m.row_into(row, &mut out).unwrap();
        out
    };
    (0..m.cells()).map(read).collect()
}

fn npy(path: &Path, dtype: Dtype, shape: &[usize], elements: &[f32]) {
    let mut writer = NpyWriter::create(path, dtype, shape).unwrap();
    match dtype {
        Dtype::U8 => writer.write(&elements.iter().map(|&x| x as u8).collect::<Vec<_>>()).unwrap(),
        _ => writer.write(elements).unwrap(),
    }
    writer.finish().unwrap();
}

/// The bytes of a one-dimensional or scalar array, as NumPy writes them.
fn array(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
    bytes.extend_from_slice(dictionary.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn ints(values: &[i32]) -> Vec<u8> {
    array("<i4", &format!("({},)", values.len()), &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn doubles(values: &[f64]) -> Vec<u8> {
    array("<f8", &format!("({},)", values.len()), &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn npz(path: &Path, entries: &[(&str, Vec<u8>)], packed: bool) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let method = if packed { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// Names and bytes of the arrays of an archive.
type Entries = Vec<(&'static str, Vec<u8>)>;

/// [[0, 1.5, 2], [0, 0, 0], [3, 0, 0]] in SciPy's three forms.
fn sparse_entries(form: &str) -> Entries {
    let mut entries =
        vec![("format", array("|S3", "()", form.as_bytes())), ("shape", array("<i8", "(2,)", &[3i64, 3].map(i64::to_le_bytes).concat()))];
    entries.extend(match form {
        "csr" => vec![("data", doubles(&[2.0, 1.5, 3.0])), ("indices", ints(&[2, 1, 0])), ("indptr", ints(&[0, 2, 2, 3]))],
        "csc" => vec![("data", doubles(&[3.0, 1.5, 2.0])), ("indices", ints(&[2, 0, 0])), ("indptr", ints(&[0, 1, 2, 3]))],
        _ => vec![("data", doubles(&[3.0, 1.0, 2.0, 0.5])), ("row", ints(&[2, 0, 0, 0])), ("col", ints(&[0, 1, 2, 1]))],
    });
    entries
}

const SPARSE: [[f32; 3]; 3] = [[0.0, 1.5, 2.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0]];

#[test]
fn a_table_comes_back_with_its_names_facts_and_missing_values() {
    let bench = Bench::new();
    bench.file("rna.csv", "cell,g1,g2\nx,1.5,\ny,-2,0\n");
    let (report, d) = bench.import(&["rna=rna.csv"], plain).unwrap();
    assert_eq!((report.pairs.as_str(), report.units), ("none", 0));
    let m = d.modality(d.position("rna").unwrap());
    assert_eq!((m.cells(), m.features(), m.is_sparse(), m.shape()), (2, 2, false, &[2][..]));
    assert_eq!((m.cell_ids(), m.feature_names()), (&["x".to_string(), "y".into()][..], &["g1".to_string(), "g2".into()][..]));
    let rows = matrix(&d, 0);
    assert!(rows[0][0] == 1.5 && rows[0][1].is_nan() && rows[1] == [-2.0, 0.0]);
    let f = m.facts();
    assert_eq!((f.sum, f.min, f.max, f.nonzeros, f.missing, f.all_integers_nonnegative), (-0.5, Some(-2.0), Some(1.5), 2, 1, false));
    d.verify(&mut Hooks::default()).unwrap();
}

#[test]
fn scipys_three_forms_packed_or_not_are_one_matrix() {
    let bench = Bench::new();
    for form in ["csr", "csc", "coo"] {
        for packed in [false, true] {
            npz(&bench.path("m.npz"), &sparse_entries(form), packed);
            let (_, d) = bench.import(&["rna=m.npz"], plain).unwrap();
            assert!(d.modality(0).is_sparse());
            assert_eq!(matrix(&d, 0), SPARSE, "{form}");
            let facts = d.modality(0).facts();
            assert_eq!((facts.nonzeros, facts.min, facts.max, facts.sum), (3, Some(0.0), Some(3.0), 6.5));
            let (indices, values) = d.modality(0).sparse_row(0).unwrap().unwrap();
            assert_eq!((indices, values), (&[1, 2][..], &[1.5, 2.0][..]));
        }
    }
}

#[test]
fn damaged_archives_are_named_by_their_array() {
    let bench = Bench::new();
    let complain = |change: &dyn Fn(&mut Entries), form: &str| {
        let mut entries = sparse_entries(form);
        change(&mut entries);
        npz(&bench.path("m.npz"), &entries, true);
        bench.complaint(&["rna=m.npz"], plain)
    };
    let set = |entries: &mut Entries, name: &str, bytes: Vec<u8>| {
        entries.iter_mut().find(|e| e.0 == name).unwrap().1 = bytes;
    };
    for (name, bytes, words) in [
        ("indices", ints(&[2, -1, 0]), "indices, element 1: the index -1 lies outside 0..3"),
        ("indices", ints(&[2, 3, 0]), "lies outside 0..3"),
        ("indices", doubles(&[2.0, 1.0, 0.0]), "integers are wanted"),
        ("indptr", ints(&[0, 2, 1, 3]), "indptr, element 2"),
        ("indptr", ints(&[0, 2, 2, 9]), "indptr, element 3"),
        ("indptr", ints(&[1, 2, 2, 3]), "indptr, element 0"),
        ("indptr", ints(&[0, 3]), "do not make a matrix"),
        ("data", doubles(&[2.0, f64::NAN, 3.0]), "data, element 1: the value is nan"),
        ("data", doubles(&[2.0, 1e300, 3.0]), "too large"),
        ("shape", ints(&[3]), "two sizes"),
        ("shape", ints(&[3, -3]), "two sizes"),
        ("format", array("|S3", "()", b"dia"), "\"dia\" is not read"),
    ] {
        let message = complain(&|e| set(e, name, bytes.clone()), "csr");
        assert!(message.contains(words), "{message}");
    }
    assert!(complain(&|e| set(e, "row", ints(&[2, 0, 0, 7])), "coo").contains("row, element 3"));
    assert!(complain(&|e| set(e, "row", ints(&[2, 0])), "coo").contains("do not belong together"));
    assert!(complain(&|e| e.retain(|e| e.0 != "indptr"), "csr").contains("\"indptr\" is missing"));
    npz(&bench.path("m.npz"), &sparse_entries("csr"), true);
    let whole = std::fs::read(bench.path("m.npz")).unwrap();
    bench.file("m.npz", &whole[..whole.len() / 2]);
    assert!(bench.complaint(&["rna=m.npz"], plain).contains("not a readable .npz"));
}

#[test]
fn an_archive_of_several_arrays_wants_a_choice() {
    let bench = Bench::new();
    let values = [1f64, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    npz(&bench.path("m.npz"), &[("X", array("<f8", "(2, 2)", &values)), ("y", ints(&[1]))], true);
    assert!(bench.complaint(&["rna=m.npz"], plain).contains("several arrays: X, y"));
    assert!(bench.complaint(&["rna=m.npz#Z"], plain).contains("there is no array \"Z\""));
    assert!(bench.complaint(&["rna=m.npz#y"], plain).contains("1 axes"));
    let (_, d) = bench.import(&["rna=m.npz#X"], plain).unwrap();
    assert_eq!(matrix(&d, 0), [[1.0, 2.0], [3.0, 4.0]]);
    assert_eq!(d.manifest().modalities[0].source.key.as_deref(), Some("X"));
}

#[test]
fn a_matrix_market_file_alone_is_read_as_told() {
    let bench = Bench::new();
    bench.file("m.mtx", "%%MatrixMarket matrix coordinate real general\n2 3 3\n2 3 1.5\n1 1 2\n2 1 4\n");
    assert!(bench.complaint(&["rna=m.mtx"], plain).contains("--rows cells or --rows features"));
    let (_, d) = bench.import(&["rna=m.mtx"], |s| s.rows = Some(RowsAre::Cells)).unwrap();
    assert_eq!(matrix(&d, 0), [[2.0, 0.0, 0.0], [4.0, 0.0, 1.5]]);
    let (_, d) = bench.import(&["rna=m.mtx"], |s| s.rows = Some(RowsAre::Features)).unwrap();
    assert_eq!(matrix(&d, 0), [[2.0, 4.0], [0.0, 0.0], [0.0, 1.5]]);
    assert!(!d.dir().join(".scratch").exists());
}

#[test]
fn bytes_stay_bytes_and_images_keep_their_shape() {
    let bench = Bench::new();
    npy(&bench.path("a.npy"), Dtype::U8, &[1, 2, 2], &[0.0, 255.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let (_, d) = bench.import(&["img=a.npy"], plain).unwrap();
    let m = d.modality(0);
    assert_eq!((m.shape(), m.is_image(), m.stored_bytes(), m.features()), (&[1, 2, 2][..], true, 8, 4));
    assert_eq!(matrix(&d, 0)[0], [0.0, 255.0, 3.0, 4.0]);
    assert_eq!(m.cell_ids(), ["0", "1"]);
}

#[test]
fn ids_come_from_labels_then_from_the_paired_modality_then_from_row_numbers() {
    let bench = Bench::new();
    npy(&bench.path("a.npy"), Dtype::F32, &[1], &[1.0, 2.0]);
    npy(&bench.path("b.npy"), Dtype::F32, &[1], &[3.0, 4.0]);
    bench.file("c.csv", "cell,g\np,1\nq,2\n");
    bench.file("labels.csv", "cell,type\nu,A\nv,B\n");
    let (report, d) = bench.import(&["a=a.npy", "b=b.npy"], |s| s.labels = labels(&bench, "labels.csv")).unwrap();
    assert_eq!((d.modality(0).cell_ids(), report.pairs.as_str()), (&["u".to_string(), "v".into()][..], "by-name"));
    let (_, d) = bench.import(&["a=a.npy", "c=c.csv"], |s| s.pairs = Some(PairsRule::ByRow)).unwrap();
    assert_eq!(d.modality(0).cell_ids(), ["p", "q"]);
    let (report, d) = bench.import(&["a=a.npy", "b=b.npy"], plain).unwrap();
    assert_eq!((d.modality(1).cell_ids(), report.pairs.as_str(), d.cells()), (&["0".to_string(), "1".into()][..], "none", 4));
    let by_name = |s: &mut ImportSpec| s.pairs = Some(PairsRule::ByName);
    assert!(bench.complaint(&["a=a.npy", "b=b.npy"], by_name).contains("row numbers for ids"));
    bench.file("d.csv", "cell,g\nr,1\ns,2\n");
    assert!(bench.complaint(&["c=c.csv", "d=d.csv"], by_name).contains("(\"c\" begins with \"p\", \"d\" with \"r\")"));
}

#[test]
fn pairing_rules_and_labels_meet_in_cells_csv() {
    let bench = Bench::new();
    bench.file("a.csv", "cell,g\nx,1\ny,2\nz,3\n");
    bench.file("b.csv", "cell,h\nz,4\nx,5\n");
    bench.file("labels.csv", "cell,type,test\nx,B,0\nz,,1\nw,A,1\n");
    let (report, d) = bench.import(&["a=a.csv", "b=b.csv"], |s| s.labels = labels(&bench, "labels.csv")).unwrap();
    assert_eq!((report.units, d.cells()), (2, 3));
    assert_eq!(d.links().pairs(0, 1).collect::<Vec<_>>(), [(0, 1, 1.0), (2, 0, 1.0)]);
    assert!(report.notes.iter().any(|n| n.contains("1 of 3 rows have no cell")), "{:?}", report.notes);
    assert_eq!(std::fs::read_to_string(d.dir().join("cells.csv")).unwrap(), "cell,type,test\nx,B,0\ny,,\nz,,1\n");
    let types = d.label("type").unwrap();
    assert_eq!((types.classes.as_slice(), &types.rows), (&["B".to_string()][..], &vec![vec![Some(0), None, None], vec![None, Some(0)]]));
    assert_eq!((d.default_label(), d.label_columns().len()), (Some("type"), 2));
    let message = d.label("tset").unwrap_err().to_string();
    assert!(message.ends_with("there are: test, type"), "{message}");
    assert!(d.position("c").unwrap_err().to_string().contains("there are: a, b"));

    let message = bench.complaint(&["a=a.csv", "b=b.csv"], |s| s.pairs = Some(PairsRule::ByRow));
    assert!(message.contains("\"a\" has 3 cells and \"b\" has 2"), "{message}");
    let (_, d) = bench.import(&["a=a.csv", "b=b.csv"], |s| s.pairs = Some(PairsRule::None)).unwrap();
    assert_eq!((d.links().len(), d.cells()), (0, 5));
    bench.file("pairs.csv", "a,b,sure\nx,z,0.25\n");
    let (report, d) = bench.import(&["a=a.csv", "b=b.csv"], |s| s.pairs = Some(PairsRule::File(bench.path("pairs.csv")))).unwrap();
    assert_eq!((report.units, d.links().pairs(0, 1).next()), (1, Some((0, 0, 0.25))));
    bench.file("c.csv", "cell,h\nz,4\ny,5\nx,6\n");
    let (report, d) = bench.import(&["a=a.csv", "c=c.csv"], |s| s.pairs = Some(PairsRule::ByRow)).unwrap();
    assert!(report.notes[0].contains("use --pairs by-name"), "{:?}", report.notes);
    assert_eq!((d.links().len(), d.cells()), (3, 3));
}

#[test]
fn labels_of_one_modality_alone_label_no_other() {
    let bench = Bench::new();
    bench.file("a.csv", "cell,g\nx,1\ny,2\n");
    bench.file("la.csv", "cell,type,fold\nx,A,1\ny,B,2\n");
    let source = |text: &str| {
        let modalities = vec![ModalitySource::parse("a=a.csv").unwrap(), ModalitySource::parse("b=a.csv").unwrap()];
        LabelSource::parse(&text.replace("la.csv", bench.path("la.csv").to_str().unwrap()), &modalities)
    };
    let (_, d) = bench.import(&["a=a.csv", "b=a.csv"], |s| s.labels = vec![source("a=la.csv#fold")]).unwrap();
    assert_eq!(d.label("type").unwrap().rows, [vec![Some(0), Some(1)], vec![None, None]]);
    assert_eq!(d.default_label(), Some("fold"));
    assert!(bench.complaint(&["a=a.csv"], |s| s.labels = vec![source("la.csv#typ")]).contains("did you mean type?"));
}

#[test]
fn faulty_files_get_one_sentence() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("folder.csv")).unwrap();
    bench.file("dup.csv", "cell,g\nx,1\ny,2\nx,3\n");
    bench.file("ragged.csv", "cell,g,h\nx,1,2\ny,1\n");
    bench.file("head.csv", "cell,g\n");
    bench.file("bare.csv", "cell\nx\n");
    bench.file("word.csv", "cell,g\nx,many\n");
    bench.file("latin.csv", b"cell,g\n\xe9,1\n");
    bench.file("broken.csv", "cell,g\n\"x\ny\",1\n");
    bench.file("zero.csv", "");
    bench.file("text.npy", "hello");
    bench.file("what.xlsx", "hello");
    for (file, words) in [
        ("folder.csv", "no matrix.mtx"),
        ("dup.csv", "the cell id \"x\" stands on line 2 and on line 4"),
        ("ragged.csv", "line 3: 2 fields, the header has 3"),
        ("head.csv", "no cells"),
        ("bare.csv", "no feature names"),
        ("word.csv", "column \"g\": \"many\" is not a number"),
        ("latin.csv", "line 2: field 1 is not UTF-8"),
        ("broken.csv", "line break"),
        ("zero.csv", "empty"),
        ("text.npy", "ends inside"),
        ("what.xlsx", "no format that is read here"),
        ("gone.csv", "there is no such file"),
        ("dup.csv#K", "leave it away"),
    ] {
        let message = bench.complaint(&[&format!("rna={file}")], plain);
        assert!(message.contains(words), "{file}: {message}");
    }
    assert!(bench.complaint(&["a=ragged.csv", "A=dup.csv"], plain).contains("two modalities are called"));
    assert!(bench.complaint(&[], plain).contains("--modality"));
}

#[test]
fn one_cell_and_repeated_feature_names_are_accepted() {
    let bench = Bench::new();
    bench.file("one.csv", "cell,g,g\nx,1,2\n");
    let (report, d) = bench.import(&["rna=one.csv"], plain).unwrap();
    assert_eq!((matrix(&d, 0), report.notes.len()), (vec![vec![1.0, 2.0]], 1));
    assert!(report.notes[0].contains("1 feature names repeat"), "{:?}", report.notes);
}

#[test]
fn an_existing_target_is_refused_and_an_interruption_leaves_nothing() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "cell,g\nx,1\n");
    let spec = ImportSpec { modalities: vec![ModalitySource { name: "a".into(), file, key: None }], ..Default::default() };
    let stop = AtomicBool::new(true);
    let error = import(&spec, &bench.path("d"), &mut Hooks { progress: None, stop: Some(&stop) }).unwrap_err();
    assert_eq!((error.exit_code(), bench.path("d").exists()), (1, false));
    assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 1);
    import(&spec, &bench.path("d"), &mut Hooks::default()).unwrap();
    let error = import(&spec, &bench.path("d"), &mut Hooks::default()).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

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
    npz(&bench.path("m.npz"), &sparse_entries("csr"), false);
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

/// The folder of shared real data, or none with the reason on stderr.
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("COUPLET_SHARED_DATA").map(PathBuf::from);
    let path = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).join(name);
    if !path.exists() {
        eprintln!("skipped: the data set {name} is not at hand (set COUPLET_SHARED_DATA to its folder)");
        return None;
    }
    Some(path)
}

fn import_real(
    folder: &Path,
    modalities: &[(&str, &str)],
    label_file: Option<&str>,
    pairs: Option<PairsRule>,
) -> (tempfile::TempDir, ImportReport, Dataset) {
    let out = tempfile::tempdir().unwrap();
    let modalities = modalities.iter().map(|(n, f)| ModalitySource { name: n.to_string(), file: folder.join(f), key: None }).collect();
    let labels = label_file.map(|f| LabelSource { modality: None, file: folder.join(f), column: None }).into_iter().collect();
    let spec = ImportSpec { modalities, labels, pairs, ..Default::default() };
    let report = import(&spec, &out.path().join("d"), &mut Hooks::default()).unwrap();
    let d = Dataset::open(&out.path().join("d")).unwrap();
    (out, report, d)
}

#[test]
fn patchseq_pairs_by_name_with_labels() {
    let Some(folder) = shared("patchseq-motor") else { return };
    let (_out, report, d) = import_real(&folder, &[("rna", "gene_counts.csv.gz"), ("ephys", "ephys.csv")], Some("cells.csv"), None);
    assert_eq!((report.pairs.as_str(), report.units, d.cells()), ("by-name", 725, 725));
    assert_eq!((d.modality(0).features(), d.modality(1).features(), d.default_label()), (1286, 29, Some("rna_family")));
    assert_eq!(d.label("rna_family").unwrap().classes.len(), 9);
    let facts = d.modality(0).facts();
    assert!(facts.all_integers_nonnegative && facts.max.unwrap() > 1e5 && !d.modality(1).facts().all_integers_nonnegative);
    let zeros = 1.0 - facts.nonzeros as f64 / (725.0 * 1286.0);
    assert!((zeros - 0.38).abs() < 0.01, "{zeros}");
}

#[test]
fn scmt_keeps_its_missing_values_and_partial_pairs() {
    let Some(folder) = shared("scmt") else { return };
    let files =
        [("rna", "rna.csv.gz"), ("cpg", "met_cpg_islands.csv.gz"), ("enh", "met_enhancers.csv.gz"), ("prom", "met_promoters.csv.gz")];
    let (_out, report, d) = import_real(&folder, &files, None, None);
    assert_eq!(report.pairs, "by-name");
    assert_eq!(d.modalities().iter().map(|m| m.cells()).collect::<Vec<_>>(), [81, 83, 83, 83]);
    for m in &d.modalities()[1..] {
        let share = m.facts().missing as f64 / (m.cells() * m.features()) as f64;
        assert!((0.76..0.88).contains(&share), "{} {share}", m.name());
    }
    assert_eq!(d.modality(0).facts().missing, 0);
    assert!(d.links().pairs(0, 1).all(|(a, b, _)| d.modality(0).cell_id(a as usize) == d.modality(1).cell_id(b as usize)));
}

#[test]
fn scgem_ids_are_row_numbers_and_pair_by_row_only() {
    let Some(folder) = shared("scgem") else { return };
    let files = [("expression", "expression.csv"), ("methylation", "methylation.csv")];
    let (_out, report, _) = import_real(&folder, &files, Some("cells.csv"), None);
    assert_eq!((report.pairs.as_str(), report.units), ("none", 0));
    let (_out, report, d) = import_real(&folder, &files, Some("cells.csv"), Some(PairsRule::ByRow));
    assert_eq!((report.units, d.cells(), d.label("type").unwrap().classes.len()), (177, 177, 5));
}

#[test]
fn the_10x_folder_is_cells_by_genes() {
    let Some(folder) = shared("formats/10x-mtx") else { return };
    let (_out, _, d) = import_real(&folder, &[("rna", "")], None, None);
    let m = d.modality(0);
    assert_eq!((m.cells(), m.features(), m.facts().nonzeros, m.is_sparse()), (1107, 507, 23866, true));
    assert_eq!((m.cell_id(0), m.feature_names()[0].as_str()), ("AAACCCAAGGAGAGTA-1", "CH507-9B2.2"));
    // "458 1 3" is the file's first entry: three reads of gene 458 in cell 1.
    assert_eq!(matrix(&d, 0)[0][457], 3.0);
}

#[test]
fn mnist_images_take_their_ids_from_the_labels() {
    let Some(folder) = shared("mnist") else { return };
    let (_out, report, d) = import_real(&folder, &[("a", "images.npy"), ("b", "images.npy")], Some("labels.csv"), None);
    assert_eq!((report.pairs.as_str(), report.units), ("by-name", 10_000));
    let m = d.modality(1);
    assert_eq!((m.cell_id(9999), m.shape(), m.stored_bytes(), m.facts().max), ("m09999", &[1, 28, 28][..], 7_840_000, Some(255.0)));
    assert_eq!(d.label("digit").unwrap().classes.len(), 10);
}
