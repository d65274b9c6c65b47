//! Damaged and odd files, made systematically over every format that is read: `couplet import` ends with exit status 2 and one sentence that
//! names the file, and leaves nothing behind. tests/formats.rs and tests/hdf5.rs ask what the sentences say; HDF5 files cut anywhere are there.
#![cfg(all(feature = "cli", feature = "hdf5", feature = "images"))]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::{Compression, write::GzEncoder};
use zip::write::SimpleFileOptions;

/// Runs `couplet import` on what it makes.
struct Odd {
    dir: tempfile::TempDir,
    refused: BTreeMap<&'static str, usize>,
}

impl Odd {
    fn new() -> Odd {
        Odd { dir: tempfile::tempdir().unwrap(), refused: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Exit status and the lines on stderr; nothing may be left but what was there, and the dataset where it succeeded.
    fn import(&self, args: &[OsString]) -> (Option<i32>, Vec<String>) {
        let list = |dir: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = list(self.dir.path());
        let program = std::env::var_os("CARGO_BIN_EXE_couplet").unwrap_or_else(|| env!("CARGO_BIN_EXE_couplet").into());
        let mut command = Command::new(program);
        command.arg("import").args(args).arg("--out").arg(self.path("out")).stdin(Stdio::null());
        let done = command.output().unwrap();
        let _ = std::fs::remove_dir_all(self.path("out"));
        assert_eq!(list(self.dir.path()), before, "{args:?} left something behind");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).lines().map(str::to_string).collect())
    }

    #[track_caller]
    fn refuse_args(&mut self, kind: &'static str, args: &[OsString], says: &[&str]) {
        let (code, lines) = self.import(args);
        assert!(code == Some(2) && lines.len() == 1 && lines[0].starts_with("error: "), "{kind}, {args:?}: {code:?} {lines:?}");
        assert!(says.iter().all(|s| lines[0].contains(s)), "{kind}: {lines:?} does not say {says:?}");
        assert!(lines[0].len() < 600, "{lines:?} is no short sentence");
        *self.refused.entry(kind).or_default() += 1;
    }

    /// Writes a file that must be refused by its name.
    #[track_caller]
    fn refuse(&mut self, kind: &'static str, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.write(name, bytes);
        self.refuse_at(kind, &path, "");
        std::fs::remove_file(path).unwrap();
    }

    #[track_caller]
    fn refuse_at(&mut self, kind: &'static str, path: &Path, key: &str) {
        let spec: OsString = format!("x={}{key}", path.display()).into();
        let name = path.file_name().unwrap().to_str().unwrap();
        self.refuse_args(kind, &["--modality".into(), spec], &[name]);
    }

    #[track_caller]
    fn accept(&self, path: &Path, more: &[&str]) {
        let spec: OsString = format!("x={}", path.display()).into();
        let args: Vec<OsString> = ["--modality".into(), spec].into_iter().chain(more.iter().map(OsString::from)).collect();
        let (code, lines) = self.import(&args);
        assert_eq!(code, Some(0), "{}: {lines:?}", path.display());
    }

    /// A copy cut at each of these places.
    #[track_caller]
    fn cuts(&mut self, kind: &'static str, name: &str, bytes: &[u8], places: impl IntoIterator<Item = usize>) {
        for cut in places {
            self.refuse(kind, name, &bytes[..cut]);
        }
    }
}

fn packed(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(bytes.as_ref()).unwrap();
    gz.finish().unwrap()
}

fn npy(dictionary: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
    bytes.extend_from_slice(dictionary.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn array(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"), body)
}

fn f32s(shape: &str, values: &[f32]) -> Vec<u8> {
    array("<f4", shape, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn i64s(values: &[i64]) -> Vec<u8> {
    array("<i8", &format!("({},)", values.len()), &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn npz(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// [[0, 1, 2], [0, 0, 0], [3, 0, 0]], with some arrays replaced.
fn csr(change: &[(&'static str, Vec<u8>)]) -> Vec<u8> {
    let mut entries = vec![
        ("format", array("|S3", "()", b"csr")),
        ("shape", i64s(&[3, 3])),
        ("data", f32s("(3,)", &[1.0, 2.0, 3.0])),
        ("indices", i64s(&[1, 2, 0])),
        ("indptr", i64s(&[0, 2, 2, 3])),
    ];
    for (name, bytes) in change {
        entries.iter_mut().filter(|e| e.0 == *name).for_each(|e| e.1 = bytes.clone());
    }
    npz(&entries)
}

/// Where each of these byte strings begins.
fn found(bytes: &[u8], signatures: &[&[u8]]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| signatures.iter().any(|s| bytes[at..].starts_with(s))).collect()
}

#[test]
fn every_odd_file_gets_one_sentence_and_leaves_nothing() {
    let mut odd = Odd::new();

    // ---- tables ----
    let table = "cell,g1,g2\nc1,1,2.5\nc2,3,4\nc3,5,6\n";
    for (ending, text) in [("csv", table.to_string()), ("tsv", table.replace(',', "\t"))] {
        let name = format!("t.{ending}");
        odd.accept(&odd.write(&name, &text), &[]);
        // At every structural boundary: nothing, inside the header, after it, inside a row.
        let end_of_header = text.find('\n').unwrap();
        odd.cuts("cut", &name, text.as_bytes(), [0, 4, end_of_header, end_of_header + 1, end_of_header + 3, end_of_header + 5]);
        let gz = packed(&text);
        odd.cuts(
            "cut",
            &format!("{name}.gz"),
            &gz,
            [0, 1, 2, 3, 9, 10, 11, gz.len() / 2, gz.len() - 9, gz.len() - 8, gz.len() - 4, gz.len() - 1],
        );
        let mut flipped = gz.clone();
        flipped[gz.len() - 6] ^= 1;
        odd.refuse("damaged", &format!("{name}.gz"), &flipped);
        for (kind, from, to) in [
            ("value", "2.5", "NaN"),
            ("value", "2.5", "inf"),
            ("value", "2.5", "1e60"),
            ("value", "2.5", "two"),
            ("value", "2.5", "\"2\n5\""),
            ("value", "2.5", "\u{1b}[2J"),
            ("value", "2.5", "0x10"),
            ("duplicate", "c3", "c1"),
            ("shape", "4\n", "4;4;4\n"),
            ("shape", ";4\n", "\n"),
            ("name", "c2", " "),
        ] {
            let separator = if ending == "csv" { "," } else { "\t" };
            let (from, to) = (from.replace(';', separator), to.replace(';', separator));
            odd.refuse(kind, &name, text.replacen(&from, &to, 1));
        }
        odd.refuse("empty", &name, text.lines().next().unwrap());
        odd.refuse("empty", &name, "cell\nc1\n");
        odd.refuse(
            "encoding",
            &name,
            text.replacen("c2", "?", 1).into_bytes().iter().map(|&b| if b == b'?' { 0xff } else { b }).collect::<Vec<_>>(),
        );
        odd.refuse(
            "encoding",
            &name,
            text.replacen("g2", "?", 1).into_bytes().iter().map(|&b| if b == b'?' { 0xe9 } else { b }).collect::<Vec<_>>(),
        );
        odd.refuse("encoding", &name, text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
        odd.refuse("encoding", &name, text.replace('\n', "\r"));
        odd.accept(&odd.write(&format!("crlf-{name}"), text.replace('\n', "\r\n")), &[]);
        odd.accept(&odd.write(&format!("one-{name}"), text.lines().take(2).collect::<Vec<_>>().join("\n")), &[]);
    }

    // ---- arrays ----
    let whole = f32s("(3, 2)", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    odd.accept(&odd.write("good.npy", &whole), &[]);
    let body = whole.len() - 24;
    odd.cuts("cut", "a.npy", &whole, [0, 1, 5, 6, 7, 8, 9, 10, 11, body / 2, body - 1, body, body + 1, body + 4, body + 8, body + 23]);
    odd.refuse("shape", "a.npy", [&whole[..], &[0]].concat());
    odd.accept(&odd.write("one.npy", f32s("(1, 2)", &[1.0, 2.0])), &[]);
    for descr in ["<c8", "<U3", "|S4", "|O", "<M8[ns]", "|V8", "<f2x", "f4", "<f3", ""] {
        odd.refuse("dtype", "a.npy", array(descr, "(3, 2)", &[0; 96]));
    }
    for shape in [
        "()",
        "(6,)",
        "(3, 2, 1)",
        "(1, 1, 1, 1, 6)",
        "(0, 2)",
        "(3, 0)",
        "(-3, 2)",
        "(3.0, 2)",
        "(99999999999999999999, 2)",
        "(4611686018427387904, 4)",
        "3",
    ] {
        odd.refuse("shape", "a.npy", f32s(shape, &[1.0; 6]));
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        odd.refuse("value", "a.npy", f32s("(3, 2)", &[1.0, 2.0, value, 4.0, 5.0, 6.0]));
    }
    odd.refuse("value", "a.npy", array("<f8", "(1, 2)", &[1.0f64, 1e300].map(f64::to_le_bytes).concat()));
    for dictionary in [
        "",
        "{}",
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), 'more': 1}",
        "[]",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)",
    ] {
        odd.refuse("damaged", "a.npy", npy(dictionary, &[0; 24]));
    }
    for (at, byte) in [(0, 0x92), (3, b'X'), (6, 9), (8, 0xff), (9, 0xff)] {
        let mut changed = whole.clone();
        changed[at] = byte;
        odd.refuse("damaged", "a.npy", changed);
    }

    // ---- archives ----
    let good = csr(&[]);
    odd.accept(&odd.write("good.npz", &good), &[]);
    let places = found(&good, &[b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"]);
    odd.cuts("cut", "s.npz", &good, places.iter().flat_map(|&p| [p, p + 4, p + 12]).chain([good.len() - 1]).collect::<Vec<_>>());
    for (kind, name, bytes) in [
        ("index", "indices", i64s(&[1, -1, 0])),
        ("index", "indices", i64s(&[1, 3, 0])),
        ("index", "indices", i64s(&[1, 1 << 40, 0])),
        ("index", "indices", i64s(&[1, 2])),
        ("index", "indices", i64s(&[])),
        ("dtype", "indices", f32s("(3,)", &[1.0, 2.0, 0.0])),
        ("dtype", "data", array("<c8", "(3,)", &[0; 24])),
        ("dtype", "data", array("|O", "(3,)", &[0; 24])),
        ("dtype", "indptr", f32s("(4,)", &[0.0, 2.0, 2.0, 3.0])),
        ("indptr", "indptr", i64s(&[0, 2, 1, 3])),
        ("indptr", "indptr", i64s(&[0, 2, 2, 4])),
        ("indptr", "indptr", i64s(&[0, 2, 2, 2])),
        ("indptr", "indptr", i64s(&[1, 2, 2, 3])),
        ("indptr", "indptr", i64s(&[-1, 2, 2, 3])),
        ("indptr", "indptr", i64s(&[0, i64::MAX, 2, 3])),
        ("indptr", "indptr", i64s(&[0, 2, 3])),
        ("indptr", "indptr", i64s(&[0, 2, 2, 2, 3])),
        ("indptr", "indptr", i64s(&[])),
        ("shape", "shape", i64s(&[3])),
        ("shape", "shape", i64s(&[3, 3, 3])),
        ("shape", "shape", i64s(&[3, -3])),
        ("shape", "shape", i64s(&[2, 3])),
        ("shape", "shape", i64s(&[3, 2])),
        ("shape", "shape", i64s(&[3, 1 << 40])),
        ("promise", "shape", i64s(&[3, 2_000_000_000])),
        ("empty", "shape", i64s(&[3, 0])),
        ("empty", "shape", i64s(&[0, 3])),
        ("value", "data", f32s("(3,)", &[1.0, f32::NAN, 3.0])),
        ("value", "data", f32s("(3,)", &[1.0, f32::INFINITY, 3.0])),
        ("shape", "data", f32s("(2,)", &[1.0, 2.0])),
        ("shape", "data", f32s("(3, 1)", &[1.0, 2.0, 3.0])),
        ("damaged", "format", array("|S3", "()", b"bsr")),
        ("damaged", "format", array("|S3", "()", &[0xff, 0xfe, 0xfd])),
        ("damaged", "data", b"not an array".to_vec()),
    ] {
        odd.refuse(kind, "s.npz", csr(&[(name, bytes)]));
    }
    odd.accept(&odd.write("unsorted.npz", csr(&[("indices", i64s(&[2, 1, 0]))])), &[]);
    odd.refuse("damaged", "s.npz", npz(&[]));
    odd.refuse("damaged", "s.npz", npz(&[("format", array("|S3", "()", b"csr"))]));

    // ---- MatrixMarket ----
    let banner = "%%MatrixMarket matrix coordinate integer general\n";
    let market = |text: &str| format!("{banner}{text}");
    let entries = "3 2 3\n1 1 5\n3 1 7\n2 2 1\n";
    let alone = |odd: &mut Odd, kind, text: String| {
        let path = odd.write("m.mtx", text);
        let spec: OsString = format!("x={}", path.display()).into();
        odd.refuse_args(kind, &["--modality".into(), spec, "--rows".into(), "cells".into()], &["m.mtx"]);
        std::fs::remove_file(path).unwrap();
    };
    odd.accept(&odd.write("good.mtx", market(entries)), &["--rows", "cells"]);
    let text = market(entries);
    for cut in [
        0,
        2,
        14,
        banner.len() - 1,
        banner.len(),
        banner.len() + 1,
        banner.len() + 4,
        banner.len() + 6,
        banner.len() + 8,
        banner.len() + 12,
        text.len() - 8,
        text.len() - 6,
        text.len() - 3,
    ] {
        alone(&mut odd, "cut", text[..cut].to_string());
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
        alone(&mut odd, kind, market(entries));
    }
    for kind in ["matrix coordinate complex general", "matrix coordinate integer skew", "vector coordinate integer general", "tensor"] {
        alone(&mut odd, "dtype", format!("%%MatrixMarket {kind}\n{entries}"));
    }
    odd.refuse("shape", "m.mtx", market(entries)); // alone it does not say what its rows are
    let gz = packed(market(entries));
    for cut in [1, 9, gz.len() / 2, gz.len() - 8, gz.len() - 1] {
        let path = odd.write("z.mtx.gz", &gz[..cut]);
        let spec: OsString = format!("x={}", path.display()).into();
        odd.refuse_args("cut", &["--modality".into(), spec, "--rows".into(), "cells".into()], &["z.mtx.gz"]);
        std::fs::remove_file(path).unwrap();
    }

    // ---- the three files of 10x ----
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
        odd.write("tenx/matrix.mtx", market("3 2 3\n1 1 5\n3 1 7\n2 2 1\n"));
        odd.write("tenx/barcodes.tsv", "c1\nc2\n");
        odd.write("tenx/features.tsv", "g1\ng2\ng3\n");
        odd.accept(&odd.path("tenx"), &[]);
        match bytes {
            Some(bytes) => drop(odd.write(&format!("tenx/{file}"), bytes)),
            None => std::fs::remove_file(odd.path(&format!("tenx/{file}"))).unwrap(),
        }
        odd.refuse_args(kind, &["--modality".into(), format!("x={}", odd.path("tenx").display()).into()], &["tenx"]);
        std::fs::remove_dir_all(odd.path("tenx")).unwrap();
    }

    // ---- images ----
    let picture = |side: u32| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&vec![7; (side * side) as usize]).unwrap();
        bytes
    };
    let whole = picture(8);
    let chunks = found(&whole, &[b"IHDR", b"IDAT", b"IEND"]);
    let cut = chunks[..2].iter().flat_map(|&at| [at, at + 4]).chain([0, 7, 8, chunks[1] + 9]);
    let images = cut.map(|at| whole[..at].to_vec()).chain([picture(6), b"no image".to_vec()]);
    for (i, bytes) in images.enumerate() {
        odd.write("images/a.png", picture(8));
        odd.write("images/b.png", bytes);
        odd.refuse_args(
            if i < 8 { "cut" } else { "shape" },
            &["--modality".into(), format!("x={}", odd.path("images").display()).into()],
            &["b.png"],
        );
        std::fs::remove_dir_all(odd.path("images")).unwrap();
    }

    // A few bytes that promise 268 million pixels.
    let mut lie = whole.clone();
    for at in [chunks[0] + 4, chunks[0] + 8] {
        lie[at..at + 4].copy_from_slice(&16384u32.to_be_bytes());
    }
    let mut crc = flate2::Crc::new();
    crc.update(&lie[chunks[0]..chunks[0] + 17]);
    lie[chunks[0] + 17..chunks[0] + 21].copy_from_slice(&crc.sum().to_be_bytes());
    odd.write("images/a.png", lie);
    odd.refuse_args("promise", &["--modality".into(), format!("x={}", odd.path("images").display()).into()], &["more pixels"]);
    std::fs::remove_dir_all(odd.path("images")).unwrap();

    // Palettes that are none; the checksums are right.
    let chunk = |name: &[u8], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(data);
        [&(data.len() as u32).to_be_bytes(), name, data, &crc.sum().to_be_bytes()].concat()
    };
    let mut rows = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
    rows.write_all(&[0; 20]).unwrap();
    let rows = rows.finish().unwrap();
    for (colours, refused) in [(3, false), (768, false), (4, true), (49, true)] {
        let header = chunk(b"IHDR", &[0, 0, 0, 4, 0, 0, 0, 4, 8, 3, 0, 0, 0]);
        let palette = chunk(b"PLTE", &vec![9; colours]);
        odd.write("images/a.png", [&b"\x89PNG\r\n\x1a\n"[..], &header, &palette, &chunk(b"IDAT", &rows), &chunk(b"IEND", b"")].concat());
        match refused {
            true => odd.refuse_args("palette", &["--modality".into(), format!("x={}", odd.path("images").display()).into()], &["palette"]),
            false => odd.accept(&odd.path("images"), &[]),
        }
        std::fs::remove_dir_all(odd.path("images")).unwrap();
    }

    // ---- what is no file, or may not be read ----
    for name in ["d.csv", "d.tsv.gz", "d.npy", "d.npz", "d.mtx", "d.h5ad", "d.h5mu", "d.h5"] {
        std::fs::create_dir(odd.path(name)).unwrap();
        odd.refuse_at("directory", &odd.path(name), "");
        std::fs::remove_dir(odd.path(name)).unwrap();
        odd.refuse_at("missing", &odd.path(name), "");
        odd.refuse("empty", name, b"");
        odd.refuse("damaged", name, b"\x00\x01\x02\x03\xff\xfe\xfd\xfc and nothing else");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(odd.path("nowhere"), odd.path(name)).unwrap();
            odd.refuse_at("missing", &odd.path(name), "");
            std::fs::remove_file(odd.path(name)).unwrap();
            use std::os::unix::fs::PermissionsExt;
            let path = odd.write(name, table);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o0)).unwrap();
            if std::fs::File::open(&path).is_err() {
                odd.refuse_at("permission", &path, "");
            } else if name == "d.csv" {
                println!("skipped: files without permission, which this user may read all the same");
            }
            std::fs::remove_file(path).unwrap();
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        // A name that is no UTF-8, of a file that is there.
        let name = OsString::from_vec(b"n\xffme.csv".to_vec());
        std::fs::write(odd.dir.path().join(&name), table).unwrap();
        let mut spec: OsString = "x=".into();
        spec.push(odd.dir.path().join(&name));
        odd.refuse_args("name", &["--modality".into(), spec], &[]);
        std::fs::remove_file(odd.dir.path().join(&name)).unwrap();
    }
    let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hdf5").join(name);
    for name in [
        "duplicate-ids.h5ad",
        "no-cells.h5ad",
        "no-cells-csr.h5ad",
        "no-features.h5ad",
        "no-x.h5ad",
        "nan-csr.h5ad",
        "nan-csc.h5ad",
        "nan-dense.h5ad",
        "too-large-csr.h5ad",
        "too-large-csc.h5ad",
        "too-large-dense.h5ad",
        "zstd.h5ad",
        "virtual.h5ad",
        "other.h5",
        "pair.h5mu",
        "10x-multiome.h5",
        "10x-genomes.h5",
    ] {
        odd.refuse_at("hdf5", &golden(name), "");
    }

    // ---- labels, pairs, peaks and genes beside a good file ----
    let good = odd.write("good.csv", table);
    let modality: [OsString; 2] = ["--modality".into(), format!("x={}", good.display()).into()];
    for (name, flag, bytes) in [
        ("l.csv", "--labels", &b""[..]),
        ("l.csv", "--labels", b"cell\nc1\n"),
        ("l.csv", "--labels", b"cell,a,a\nc1,1,2\n"),
        ("l.csv", "--labels", b"cell,a\nc1,1\nc1,2\n"),
        ("l.csv", "--labels", b"cell,a\nc1,1,2\n"),
        ("l.csv", "--labels", b"cell,a\nc1,\xff\n"),
        ("l.csv.gz", "--labels", b"\x1f\x8b\x08\x00"),
        ("p.csv", "--pairs", b""),
        ("p.csv", "--pairs", b"x,y\nc1\n"),
        ("p.csv", "--pairs", b"x,y\nc1,nobody\n"),
        ("p.csv", "--pairs", b"x,y,confidence\nc1,c1,2\n"),
        ("p.csv", "--pairs", b"x,y\nc1,\xff\n"),
        ("g.bed", "--gene-activity", b""),
        ("g.bed", "--gene-activity", b"chr1\t1\n"),
        ("g.bed", "--gene-activity", b"chr1\t1\t2\nchr1\t5\t4\n"),
        ("g.bed", "--gene-activity", b"chr1\t1\t\xff\n"),
        ("g.bed.gz", "--gene-activity", b"\x1f\x8b\x08\x00"),
    ] {
        let path = odd.write(name, bytes);
        let mut args = modality.to_vec();
        args.extend([OsString::from(flag), path.clone().into()]);
        if flag == "--pairs" {
            args.extend(["--modality".into(), format!("y={}", good.display()).into()]);
        }
        if flag == "--gene-activity" {
            args.extend(["--genes".into(), odd.write("genes.bed", "chr1\t1\t9\tA\t0\t+\n").into()]);
        }
        odd.refuse_args("beside", &args, &[name]);
        std::fs::remove_file(path).unwrap();
    }

    let all: usize = odd.refused.values().sum();
    println!("{all} files refused: {:?}", odd.refused);
    assert!(all >= 200, "{all}");
}
