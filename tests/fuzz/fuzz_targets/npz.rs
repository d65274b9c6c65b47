//! `.npz`: [options][file], or packed here so that mutations reach the arrays: [options][format, shape, data, indices, indptr, X].
#![no_main]

use couplet_fuzz::{NPZ_NAMES, hold, import_one, npz, parts};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((options, file)) = data.split_first() else { return };
    let packed = if options & 4 != 0 { npz(&parts::<{ NPZ_NAMES.len() }>(file)) } else { file.to_vec() };
    let key = [None, Some("X"), Some("data")][usize::from(options >> 3) % 3];
    hold(&[("x.npz", &packed)], |dir| import_one(dir.join("x.npz"), key, options & 1 != 0, false, dir));
});
