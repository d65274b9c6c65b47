//! `.h5ad`, `.h5mu` and 10x `.h5`: [options and key][file, then the places of its checksums].
#![no_main]

use couplet_fuzz::checksums::without_table;
use couplet_fuzz::{HDF5_KEYS, hold, import_one};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((options, file)) = data.split_first() else { return };
    let key = HDF5_KEYS[usize::from(options >> 2) % HDF5_KEYS.len()];
    let file = without_table(file);
    hold(&[("x.h5", &file)], |dir| import_one(dir.join("x.h5"), key, options & 1 != 0, options & 2 != 0, dir));
});
