//! `.npy`: [options][file].
#![no_main]

use couplet_fuzz::{hold, import_one};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((options, file)) = data.split_first() else { return };
    hold(&[("x.npy", file)], |dir| import_one(dir.join("x.npy"), None, options & 1 != 0, options & 2 != 0, dir));
});
