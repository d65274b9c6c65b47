//! Files in files: what stands in an `.npz`, what gzip packs, and the names that the bytes of an input stand for.

use std::io::{Cursor, Write};

use flate2::{Compression, write::GzEncoder};
use zip::write::SimpleFileOptions;

/// What may stand after `#` behind an HDF5 file.
pub const HDF5_KEYS: [Option<&str>; 8] =
    [None, Some("rna"), Some("counts"), Some("raw"), Some("mm10"), Some("Peaks"), Some("Gene Expression"), Some("X")];

/// The arrays of a sparse matrix as SciPy names them, and of a dense one.
pub const NPZ_NAMES: [&str; 6] = ["format", "shape", "data", "indices", "indptr", "X"];

/// A DATASET with a sparse and a dense modality.
pub const DATASET_FILES: [&str; 14] = [
    "dataset.json",
    "cells.csv",
    "pairs.npy",
    "pairs_confidence.npy",
    "x/indptr.npy",
    "x/indices.npy",
    "x/data.npy",
    "x/lines.npy",
    "x/cells.txt",
    "x/features.txt",
    "y/values.npy",
    "y/lines.npy",
    "y/cells.txt",
    "y/features.txt",
];

/// An `.npz` of those arrays that are not empty.
pub fn npz(arrays: &[&[u8]; NPZ_NAMES.len()]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in NPZ_NAMES.iter().zip(arrays).filter(|(_, bytes)| !bytes.is_empty()) {
        let method = if name.len() % 2 == 0 { zip::CompressionMethod::Stored } else { zip::CompressionMethod::Deflated };
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).expect("memory");
        zip.write_all(bytes).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

/// The bytes, packed by gzip.
pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).expect("memory");
    out.finish().expect("memory")
}
