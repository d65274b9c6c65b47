//! Matrices as tables: [options][file]; `.csv`, `.tsv`, packed by gzip here or as it is.
#![no_main]

use couplet_fuzz::{gz, hold, import_one};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((options, file)) = data.split_first() else { return };
    let packed = if options & 8 != 0 { gz(file) } else { file.to_vec() };
    let name = ["x.csv", "x.tsv", "x.csv.gz", "x.tsv.gz"][usize::from(options >> 1 & 3 | options >> 2 & 2)];
    hold(&[(name, &packed)], |dir| import_one(dir.join(name), None, options & 1 != 0, false, dir));
});
