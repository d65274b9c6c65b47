//! Damaged and odd files, made systematically over every format that is read: `couplet import` ends with exit status 2 and one sentence that
//! names the file, and leaves nothing behind. tests/formats and tests/hdf5 ask what the sentences say; HDF5 files cut anywhere are there.
#![cfg(all(feature = "cli", feature = "hdf5", feature = "images"))]

mod arrays;
#[path = "../common/folder.rs"]
mod folder;
mod images;
mod matrices;
#[path = "../common/numpy.rs"]
mod numpy;
mod paths;
#[path = "../common/program.rs"]
mod program;
mod tables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};

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
        let done = program::couplet().arg("import").args(args).arg("--out").arg(self.path("out")).output().unwrap();
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
        self.refuse_at(kind, &path);
        std::fs::remove_file(path).unwrap();
    }

    /// A path that must be refused by its name.
    #[track_caller]
    fn refuse_at(&mut self, kind: &'static str, path: &Path) {
        self.refuse_given(kind, path, &[], path.file_name().unwrap().to_str().unwrap());
    }

    #[track_caller]
    fn refuse_given(&mut self, kind: &'static str, path: &Path, more: &[&str], says: &str) {
        self.refuse_args(kind, &modality(path, more), &[says]);
    }

    #[track_caller]
    fn accept(&self, path: &Path, more: &[&str]) {
        let (code, lines) = self.import(&modality(path, more));
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

/// Arguments that import this path, and more.
fn modality(path: &Path, more: &[&str]) -> Vec<OsString> {
    let mut spec: OsString = "x=".into();
    spec.push(path);
    ["--modality".into(), spec].into_iter().chain(more.iter().map(OsString::from)).collect()
}

fn packed(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(bytes.as_ref()).unwrap();
    gz.finish().unwrap()
}

/// Where each of these byte strings begins.
fn found(bytes: &[u8], signatures: &[&[u8]]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| signatures.iter().any(|s| bytes[at..].starts_with(s))).collect()
}

#[test]
fn every_odd_file_gets_one_sentence_and_leaves_nothing() {
    let mut odd = Odd::new();
    tables::tables(&mut odd);
    tables::beside_a_good_file(&mut odd);
    arrays::arrays(&mut odd);
    arrays::archives(&mut odd);
    matrices::market(&mut odd);
    matrices::tenx(&mut odd);
    images::images(&mut odd);
    paths::no_files(&mut odd);
    paths::golden(&mut odd);
    let all: usize = odd.refused.values().sum();
    println!("{all} files refused: {:?}", odd.refused);
    assert!(all >= 200, "{all}");
}
