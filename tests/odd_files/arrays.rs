//! NumPy's arrays, and SciPy's matrices in archives of them.

use crate::numpy::{array, npy, npz};
use crate::{Odd, found};

fn f32s(shape: &str, values: &[f32]) -> Vec<u8> {
    array("<f4", shape, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn i64s(values: &[i64]) -> Vec<u8> {
    array("<i8", &format!("({},)", values.len()), &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

/// [[0, 1, 2], [0, 0, 0], [3, 0, 0]], with some arrays replaced.
fn csr(change: &[(&'static str, Vec<u8>)]) -> Vec<u8> {
    let mut entries = vec![
        ("format", array("|S3", "()", b"csr")),
        ("shape", i64s(&[3, 3])),
        ("data", f32s("(3,)", &[1.0, 2.0, 3.0])),
        ("indices", i64s(&[1, 2, 0])),
        ("indptr", i64s(&[0, 2, 2, 3])),
    ];
    for (name, bytes) in change {
        entries.iter_mut().filter(|e| e.0 == *name).for_each(|e| e.1 = bytes.clone());
    }
    npz(&entries, true)
}

/// A .npy.
pub fn arrays(odd: &mut Odd) {
    let whole = f32s("(3, 2)", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    odd.accept(&odd.write("good.npy", &whole), &[]);
    let body = whole.len() - 24;
    odd.cuts("cut", "a.npy", &whole, [0, 1, 5, 6, 7, 8, 9, 10, 11, body / 2, body - 1, body, body + 1, body + 4, body + 8, body + 23]);
    odd.refuse("shape", "a.npy", [&whole[..], &[0]].concat());
    odd.accept(&odd.write("one.npy", f32s("(1, 2)", &[1.0, 2.0])), &[]);
    for descr in ["<c8", "<U3", "|S4", "|O", "<M8[ns]", "|V8", "<f2x", "f4", "<f3", ""] {
        odd.refuse("dtype", "a.npy", array(descr, "(3, 2)", &[0; 96]));
    }
    for shape in [
        "()",
        "(6,)",
        "(3, 2, 1)",
        "(1, 1, 1, 1, 6)",
        "(0, 2)",
        "(3, 0)",
        "(-3, 2)",
        "(3.0, 2)",
        "(99999999999999999999, 2)",
        "(4611686018427387904, 4)",
        "3",
    ] {
        odd.refuse("shape", "a.npy", f32s(shape, &[1.0; 6]));
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        odd.refuse("value", "a.npy", f32s("(3, 2)", &[1.0, 2.0, value, 4.0, 5.0, 6.0]));
    }
    odd.refuse("value", "a.npy", array("<f8", "(1, 2)", &[1.0f64, 1e300].map(f64::to_le_bytes).concat()));
    for dictionary in [
        "",
        "{}",
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), 'more': 1}",
        "[]",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)",
    ] {
        odd.refuse("damaged", "a.npy", npy(dictionary, &[0; 24]));
    }
    for (at, byte) in [(0, 0x92), (3, b'X'), (6, 9), (8, 0xff), (9, 0xff)] {
        let mut changed = whole.clone();
        changed[at] = byte;
        odd.refuse("damaged", "a.npy", changed);
    }
}

/// An .npz.
pub fn archives(odd: &mut Odd) {
    let good = csr(&[]);
    odd.accept(&odd.write("good.npz", &good), &[]);
    let places = found(&good, &[b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"]);
    odd.cuts("cut", "s.npz", &good, places.iter().flat_map(|&p| [p, p + 4, p + 12]).chain([good.len() - 1]).collect::<Vec<_>>());
    for (kind, name, bytes) in [
        ("index", "indices", i64s(&[1, -1, 0])),
        ("index", "indices", i64s(&[1, 3, 0])),
        ("index", "indices", i64s(&[1, 1 << 40, 0])),
        ("index", "indices", i64s(&[1, 2])),
        ("index", "indices", i64s(&[])),
        ("dtype", "indices", f32s("(3,)", &[1.0, 2.0, 0.0])),
        ("dtype", "data", array("<c8", "(3,)", &[0; 24])),
        ("dtype", "data", array("|O", "(3,)", &[0; 24])),
        ("dtype", "indptr", f32s("(4,)", &[0.0, 2.0, 2.0, 3.0])),
        ("indptr", "indptr", i64s(&[0, 2, 1, 3])),
        ("indptr", "indptr", i64s(&[0, 2, 2, 4])),
        ("indptr", "indptr", i64s(&[0, 2, 2, 2])),
        ("indptr", "indptr", i64s(&[1, 2, 2, 3])),
        ("indptr", "indptr", i64s(&[-1, 2, 2, 3])),
        ("indptr", "indptr", i64s(&[0, i64::MAX, 2, 3])),
        ("indptr", "indptr", i64s(&[0, 2, 3])),
        ("indptr", "indptr", i64s(&[0, 2, 2, 2, 3])),
        ("indptr", "indptr", i64s(&[])),
        ("shape", "shape", i64s(&[3])),
        ("shape", "shape", i64s(&[3, 3, 3])),
        ("shape", "shape", i64s(&[3, -3])),
        ("shape", "shape", i64s(&[2, 3])),
        ("shape", "shape", i64s(&[3, 2])),
        ("shape", "shape", i64s(&[3, 1 << 40])),
        ("promise", "shape", i64s(&[3, 2_000_000_000])),
        ("empty", "shape", i64s(&[3, 0])),
        ("empty", "shape", i64s(&[0, 3])),
        ("value", "data", f32s("(3,)", &[1.0, f32::NAN, 3.0])),
        ("value", "data", f32s("(3,)", &[1.0, f32::INFINITY, 3.0])),
        ("shape", "data", f32s("(2,)", &[1.0, 2.0])),
        ("shape", "data", f32s("(3, 1)", &[1.0, 2.0, 3.0])),
        ("damaged", "format", array("|S3", "()", b"bsr")),
        ("damaged", "format", array("|S3", "()", &[0xff, 0xfe, 0xfd])),
        ("damaged", "data", b"not an array".to_vec()),
    ] {
        odd.refuse(kind, "s.npz", csr(&[(name, bytes)]));
    }
    odd.accept(&odd.write("unsorted.npz", csr(&[("indices", i64s(&[2, 1, 0]))])), &[]);
    odd.refuse("damaged", "s.npz", npz(&[], true));
    odd.refuse("damaged", "s.npz", npz(&[("format", array("|S3", "()", b"csr"))], true));
}
