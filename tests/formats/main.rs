//! Files in, DATASET out, and back: round trips over every format, damaged files, and the real data where they are at hand.
#![cfg(feature = "models")]

mod arrays;
mod dataset;
#[path = "../common/matrix.rs"]
mod matrix;
#[path = "../common/numpy.rs"]
mod numpy;
mod real;
#[path = "../common/shared.rs"]
mod shared;
mod tables;

use std::path::{Path, PathBuf};

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportReport, ImportSpec, LabelSource, import};
use couplet::data::npy::{Dtype, NpyWriter};
use couplet::data::{Dataset, Hooks};
use couplet::error::Result;

/// A folder of files to import, removed at the end of the test.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Imports `NAME=FILE` pairs of files in the folder.
    fn import(&self, modalities: &[&str], change: impl FnOnce(&mut ImportSpec)) -> Result<(ImportReport, Dataset)> {
        let parse = |text: &&str| {
            let (name, file) = text.split_once('=').unwrap();
            ModalitySource::parse(&format!("{name}={}", self.path(file).display())).unwrap()
        };
        let mut spec = ImportSpec { modalities: modalities.iter().map(parse).collect(), ..Default::default() };
        change(&mut spec);
        let out = self.path("dataset");
        let _ = std::fs::remove_dir_all(&out);
        let report = import(&spec, &out, &mut Hooks::default());
        if report.is_err() {
            assert!(!out.exists(), "a failed import must leave nothing under the final name");
            let hidden =
                std::fs::read_dir(self.dir.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
            assert_eq!(hidden.count(), 0, "a failed import must take its temporary directory away");
        }
        Ok((report?, Dataset::open(&out)?))
    }

    /// The one-line complaint about an import that must fail as an input or usage error.
    fn complaint(&self, modalities: &[&str], change: impl FnOnce(&mut ImportSpec)) -> String {
        let error = self.import(modalities, change).err().expect("the import must fail");
        let message = error.to_string();
        assert_eq!(error.exit_code(), 2, "{message}");
        assert!(!message.contains('\n'), "{message}");
        message
    }
}

fn plain(_: &mut ImportSpec) {}

fn labels(bench: &Bench, text: &str) -> Vec<LabelSource> {
    vec![LabelSource { modality: None, file: bench.path(text), column: None }]
}

fn npy(path: &Path, dtype: Dtype, shape: &[usize], elements: &[f32]) {
    let mut writer = NpyWriter::create(path, dtype, shape).unwrap();
    match dtype {
        Dtype::U8 => writer.write(&elements.iter().map(|&x| x as u8).collect::<Vec<_>>()).unwrap(),
        _ => writer.write(elements).unwrap(),
    }
    writer.finish().unwrap();
}
