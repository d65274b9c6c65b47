//! MatrixMarket files, alone and as 10x writes them beside two tables of names.

use crate::{Odd, packed};

const BANNER: &str = "%%MatrixMarket matrix coordinate integer general\n";
const ENTRIES: &str = "3 2 3\n1 1 5\n3 1 7\n2 2 1\n";

fn written(entries: &str) -> String {
    format!("{BANNER}{entries}")
}

/// A file alone.
pub fn market(odd: &mut Odd) {
    let alone = |odd: &mut Odd, kind, text: String| {
        let path = odd.write("m.mtx", text);
        odd.refuse_given(kind, &path, &["--rows", "cells"], "m.mtx");
        std::fs::remove_file(path).unwrap();
    };
    odd.accept(&odd.write("good.mtx", written(ENTRIES)), &["--rows", "cells"]);
    let text = written(ENTRIES);
    for cut in [
        0,
        2,
        14,
        BANNER.len() - 1,
        BANNER.len(),
        BANNER.len() + 1,
        BANNER.len() + 4,
        BANNER.len() + 6,
        BANNER.len() + 8,
        BANNER.len() + 12,
        text.len() - 8,
        text.len() - 6,
        text.len() - 3,
    ] {
        alone(odd, "cut", text[..cut].to_string());
    }
    for (kind, entries) in [
        ("index", "3 2 1\n0 1 5\n"),
        ("index", "3 2 1\n1 0 5\n"),
        ("index", "3 2 1\n-1 1 5\n"),
        ("index", "3 2 1\n4 1 5\n"),
        ("index", "3 2 1\n1 3 5\n"),
        ("index", "3 2 1\n99999999999999999999 1 5\n"),
        ("index", "3 2 1\n1.5 1 5\n"),
        ("value", "3 2 1\n1 1 nan\n"),
        ("value", "3 2 1\n1 1 inf\n"),
        ("value", "3 2 1\n1 1 x\n"),
        ("value", "3 2 2\n1 1 3e38\n1 1 3e38\n"),
        ("shape", "3 2 2\n1 1 5\n"),
        ("shape", "3 2 1\n1 1 5\n2 1 5\n"),
        ("shape", "3 2\n1 1 5\n"),
        ("shape", "3 2 -1\n"),
        ("shape", "x y z\n"),
        ("shape", "3 2 1\n1 1\n"),
        ("shape", "3 2 1\n1 1 5 5\n"),
        ("shape", "9999999999999 2 1\n1 1 5\n"),
        ("promise", "3 2000000000 0\n"),
        ("promise", "2000000000 2 1\n1 1 5\n"),
        ("empty", "0 2 0\n"),
        ("empty", "3 0 0\n"),
    ] {
        alone(odd, kind, written(entries));
    }
    for kind in ["matrix coordinate complex general", "matrix coordinate integer skew", "vector coordinate integer general", "tensor"] {
        alone(odd, "dtype", format!("%%MatrixMarket {kind}\n{ENTRIES}"));
    }
    odd.refuse("shape", "m.mtx", written(ENTRIES)); // alone it does not say what its rows are
    let gz = packed(written(ENTRIES));
    for cut in [1, 9, gz.len() / 2, gz.len() - 8, gz.len() - 1] {
        let path = odd.write("z.mtx.gz", &gz[..cut]);
        odd.refuse_given("cut", &path, &["--rows", "cells"], "z.mtx.gz");
        std::fs::remove_file(path).unwrap();
    }
}

/// The three files of 10x.
pub fn tenx(odd: &mut Odd) {
    for (kind, file, bytes) in [
        ("shape", "barcodes.tsv", Some(&b"c1\n"[..])),
        ("shape", "barcodes.tsv", Some(b"c1\nc2\nc3\n")),
        ("empty", "barcodes.tsv", Some(b"")),
        ("duplicate", "barcodes.tsv", Some(b"c1\nc1\n")),
        ("encoding", "barcodes.tsv", Some(b"c1\n\xff\n")),
        ("name", "barcodes.tsv", Some(b"c1\n \nc3\n")),
        ("missing", "barcodes.tsv", None),
        ("shape", "features.tsv", Some(b"g1\n")),
        ("shape", "features.tsv", Some(b"g1\ng2\ng3\ng4\n")),
        ("encoding", "features.tsv", Some(b"g1\ng2\n\xfe\n")),
        ("empty", "features.tsv", Some(b"")),
        ("missing", "features.tsv", None),
        ("cut", "matrix.mtx", Some(b"")),
        ("cut", "matrix.mtx", Some(b"%%MatrixMarket")),
        ("missing", "matrix.mtx", None),
    ] {
        odd.write("tenx/matrix.mtx", written(ENTRIES));
        odd.write("tenx/barcodes.tsv", "c1\nc2\n");
        odd.write("tenx/features.tsv", "g1\ng2\ng3\n");
        odd.accept(&odd.path("tenx"), &[]);
        match bytes {
            Some(bytes) => drop(odd.write(&format!("tenx/{file}"), bytes)),
            None => std::fs::remove_file(odd.path(&format!("tenx/{file}"))).unwrap(),
        }
        odd.refuse_at(kind, &odd.path("tenx"));
        std::fs::remove_dir_all(odd.path("tenx")).unwrap();
    }
}
