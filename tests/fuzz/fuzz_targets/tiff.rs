//! A folder of TIFF images: [options][first, second], as they are or projected onto 8 x 8 pixels.
#![no_main]

use couplet_fuzz::{hold, import_one, parts};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((options, files)) = data.split_first() else { return };
    let [first, second] = parts(files);
    let all = [("in/a.tif", first), ("in/b.tif", second)];
    let there = &all[..if second.is_empty() { 1 } else { 2 }];
    hold(there, |dir| import_one(dir.join("in"), (options & 2 != 0).then_some("8"), options & 1 != 0, false, dir));
});
