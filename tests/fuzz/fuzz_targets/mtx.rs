//! MatrixMarket: [options][matrix, barcodes, features], as a folder of 10x or with names beside the file.
#![no_main]

use couplet::data::formats::RowsAre;
use couplet::data::import::ImportSpec;
use couplet_fuzz::{hold, import_and_read, modality, parts};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((options, files)) = data.split_first() else { return };
    let [matrix, barcodes, features] = parts(files);
    let name = if options & 2 != 0 { "in/matrix.mtx" } else { "in/matrix.mtx.gz" };
    let names = [(name, matrix), ("in/barcodes.tsv", barcodes), ("in/features.tsv", features)];
    let there: Vec<_> = names.into_iter().filter(|(n, f)| *n == name || !f.is_empty()).collect();
    hold(&there, |dir| {
        let file = if options & 4 != 0 { dir.join("in") } else { dir.join(name) };
        let rows = [None, Some(RowsAre::Cells), Some(RowsAre::Features)][usize::from(options >> 3) % 3];
        import_and_read(
            &ImportSpec { modalities: vec![modality("m", file, None)], rows, missing_nan: options & 1 != 0, ..Default::default() },
            dir,
        )
    });
});
