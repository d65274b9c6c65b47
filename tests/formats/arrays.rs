//! Arrays, archives of arrays and MatrixMarket files come in as the matrices they are, or are named with what is wrong in them.

use crate::matrix::matrix;
use crate::numpy::{array, npz};
use crate::{Bench, npy, plain};
use couplet::data::formats::RowsAre;
use couplet::data::npy::Dtype;

fn ints(values: &[i32]) -> Vec<u8> {
    array("<i4", &format!("({},)", values.len()), &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn doubles(values: &[f64]) -> Vec<u8> {
    array("<f8", &format!("({},)", values.len()), &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

/// Names and bytes of the arrays of an archive.
pub type Entries = Vec<(&'static str, Vec<u8>)>;

/// [[0, 1.5, 2], [0, 0, 0], [3, 0, 0]] in SciPy's three forms.
pub fn sparse_entries(form: &str) -> Entries {
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
fn scipys_three_forms_packed_or_not_are_one_matrix() {
    let bench = Bench::new();
    for form in ["csr", "csc", "coo"] {
        for packed in [false, true] {
            bench.file("m.npz", npz(&sparse_entries(form), packed));
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
        bench.file("m.npz", npz(&entries, true));
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
    bench.file("m.npz", npz(&sparse_entries("csr"), true));
    let whole = std::fs::read(bench.path("m.npz")).unwrap();
    bench.file("m.npz", &whole[..whole.len() / 2]);
    assert!(bench.complaint(&["rna=m.npz"], plain).contains("not a readable .npz"));
}

#[test]
fn an_archive_of_several_arrays_wants_a_choice() {
    let bench = Bench::new();
    let values = [1f64, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    bench.file("m.npz", npz(&[("X", array("<f8", "(2, 2)", &values)), ("y", ints(&[1]))], true));
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
