//! `explain --sets`: sets of features in a table.
#![no_main]

use couplet::explain::read_sets;
use couplet_fuzz::hold;
use couplet_fuzz::runs::runs;

libfuzzer_sys::fuzz_target!(
    init: {
        runs();
    },
    |data: &[u8]| {
        let modality = runs().dataset.modality(0);
        hold(&[("sets.csv", data)], |dir| {
            for group in read_sets(&dir.join("sets.csv"), modality)? {
                assert!(group.features.iter().all(|&f| (f as usize) < modality.features()));
            }
            Ok(())
        });
    }
);
