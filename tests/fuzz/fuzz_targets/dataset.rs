//! A DATASET directory: its files one after the other, `dataset.json` first; opened, read whole, split by a label and verified.
#![no_main]

use couplet::data::split::{Holdout, split};
use couplet::data::{Dataset, Hooks};
use couplet_fuzz::{DATASET_FILES, hold, parts, read, sentence};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let files: Vec<_> = DATASET_FILES.into_iter().zip(parts::<{ DATASET_FILES.len() }>(data)).filter(|(_, f)| !f.is_empty()).collect();
    hold(&files, |dir| {
        let dataset = Dataset::open(dir)?;
        if let Err(e) = dataset.verify(&mut Hooks::default()) {
            sentence(&e);
        }
        for holdout in ["0.25", "kind=a"] {
            if let Err(e) = split(&dataset, &Holdout::parse(holdout)?, 1) {
                sentence(&e);
            }
        }
        read(&dataset)
    });
});
