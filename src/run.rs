//! The RUN directory: what a training run leaves, and what a later command finds there.
//!
//! ```text
//! model.safetensors      the weights, named after the layers, and what preprocessing learnt
//! config.toml            everything needed to repeat the run, defaults written out
//! history.csv            a row an epoch
//! checkpoint/state.safetensors    what --resume needs, one file, replaced whole
//! embedding.NAME.npy     cells x latent, with embedding.NAME.cells.txt
//! embedding.NAME.SPACE.npy        its columns of one space, for a model whose code has spaces
//! F.npy                  the inferred correspondence of the training cells, for a model that learns from one; F.NAME.cells.txt;
//!                        F.A_B.npy of each pair where there are more than two modalities
//! metrics.json           what `evaluate` measured last
//! metrics_by_feature.csv each feature's part in it, where a modality is predicted from another
//! dataset/               a dataset that was imported on the fly
//! ```

pub mod config;
#[cfg(feature = "hdf5")]
pub mod h5ad;
pub mod history;
pub mod parts;
pub mod rows;
pub mod sparse;
pub mod sparse_rows;
pub mod tensors;

pub use config::{Config, ModalityShape};
pub use tensors::{Saved, Tensor, bits, bits_list, load_tensors, save_each, save_tensors};

use crate::data::atomic;
use crate::data::npy::{Dtype, NpyWriter};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use history::History;
use parts::{CodeSpace, PartsWriter};
use rows::RowsWriter;
use serde::Serialize;
use std::borrow::Cow;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// A RUN directory.
pub struct Run {
    dir: PathBuf,
    /// Held while training, so that two trainings never write into one run.
    _lock: Option<File>,
}

impl Run {
    /// Makes `dir` a run. It must be new, empty, or hold nothing but a dataset imported on the fly.
    pub fn create(dir: &Path, config: &Config) -> Result<Run> {
        Run::check_free(dir)?;
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let run = Run { dir: dir.to_path_buf(), _lock: lock(dir)? };
        run.save_config(config)?;
        Ok(run)
    }

    /// An error if `dir` cannot become a new run; call it before work is spent.
    pub fn check_free(dir: &Path) -> Result<()> {
        if dir.join("config.toml").exists() {
            return Err(Error::usage(format!(
                "{} holds a run already: give another --out, or --resume to continue that run",
                dir.display()
            )));
        }
        match fs::read_dir(dir) {
            Ok(mut entries) => match entries.any(|e| e.is_ok_and(|e| e.file_name() != "dataset")) {
                false => Ok(()),
                true => Err(Error::usage(format!("{} holds something that is no run: give another --out", dir.display()))),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
                Err(Error::usage(format!("{} is a file, --out is the directory of a run", dir.display())))
            }
            Err(e) => Err(Error::io("open", dir, e)),
        }
    }

    /// Opens a run in order to continue it.
    pub fn resume(dir: &Path) -> Result<(Run, Config)> {
        let (run, config) = Run::open(dir)?;
        Ok((Run { _lock: lock(dir)?, ..run }, config))
    }

    /// Opens a run in order to read it.
    pub fn open(dir: &Path) -> Result<(Run, Config)> {
        let path = dir.join("config.toml");
        if !path.exists() {
            let what = if dir.exists() { "is no run: it has no config.toml" } else { "does not exist" };
            return Err(Error::usage(format!("{} {what}; a run is what `couplet train MODEL DATASET --out RUN` makes", dir.display())));
        }
        Ok((Run { dir: dir.to_path_buf(), _lock: None }, Config::read(&path)?))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a dataset imported on the fly lies.
    pub fn dataset_dir(&self) -> PathBuf {
        self.dir.join("dataset")
    }

    /// Replaces `config.toml`.
    pub fn save_config(&self, config: &Config) -> Result<()> {
        config.write(&self.dir.join("config.toml"))
    }

    /// Replaces `model.safetensors`.
    pub fn save_model(&self, tensors: &[Tensor], record: &impl Serialize) -> Result<()> {
        save_tensors(&self.dir.join("model.safetensors"), tensors, record)
    }

    /// The weights; a run that was stopped before its first epoch has none.
    pub fn load_model(&self) -> Result<Saved> {
        let path = self.dir.join("model.safetensors");
        if !path.exists() {
            return Err(Error::usage(format!(
                "{} has no model.safetensors yet: finish it with `couplet train ... --out {} --resume`",
                self.dir.display(),
                self.dir.display()
            )));
        }
        load_tensors(&path)
    }

    fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint").join("state.safetensors")
    }

    /// Replaces the checkpoint, with matrices whose `values` are asked for one after the other.
    pub fn save_checkpoint<'a>(
        &self,
        named: &[(&str, [usize; 2])],
        record: &impl Serialize,
        values: impl FnMut(usize) -> Result<Cow<'a, [f32]>>,
    ) -> Result<()> {
        let path = self.checkpoint();
        let dir = self.dir.join("checkpoint");
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        save_each(&path, named, record, values)
    }

    /// The checkpoint, if one has been written.
    pub fn load_checkpoint(&self) -> Result<Option<Saved>> {
        let path = self.checkpoint();
        match path.exists() {
            false => Ok(None),
            true => load_tensors(&path).map(Some).map_err(delete_and_resume),
        }
    }

    /// `history.csv`, to be continued after `epoch`; 0 starts it anew.
    pub fn history(&self, epoch: usize) -> Result<History> {
        History::after(&self.dir.join("history.csv"), epoch)
    }

    /// Where the embedding of a modality lies.
    pub fn embedding(&self, modality: &str) -> PathBuf {
        self.dir.join(format!("embedding.{modality}.npy"))
    }

    /// Starts `embedding.NAME.npy` and, beside it, the parts of spaces; writes the ids of its rows.
    pub fn write_embedding(&self, modality: &str, cells: &[impl AsRef<str>], latent: usize, spaces: &[CodeSpace]) -> Result<PartsWriter> {
        self.write_ids(&format!("embedding.{modality}"), cells.iter().map(AsRef::as_ref))?;
        let columns: Vec<String> = (1..=latent).map(|i| format!("Z{i}")).collect();
        let create = |path: &Path, columns: &[String]| RowsWriter::create(path, cells.len(), &["cell"], columns);
        PartsWriter::create(&self.embedding(modality), &columns, spaces, create)
    }

    /// Where a run keeps the classes that its model's head gives the cells of a modality.
    pub fn predictions_in(dir: &Path, modality: &str) -> PathBuf {
        dir.join(format!("predicted.{modality}.csv"))
    }

    /// Starts `predicted.NAME.csv`: a cell's class, its probability, and that of every class.
    pub fn write_predictions(&self, modality: &str, cells: usize, classes: &[String]) -> Result<RowsWriter> {
        let columns: Vec<String> = std::iter::once("probability".to_string()).chain(classes.iter().map(|c| format!("p.{c}"))).collect();
        RowsWriter::create(&Run::predictions_in(&self.dir, modality), cells, &["cell", "label"], &columns)
    }

    /// Writes the ids of a file's cells beside it, as `STEM.cells.txt`.
    pub fn write_ids<'a>(&self, stem: &str, ids: impl Iterator<Item = &'a str>) -> Result<()> {
        let text: String = ids.flat_map(|id| [id, "\n"]).collect();
        atomic::write_file(&self.dir.join(format!("{stem}.cells.txt")), text.as_bytes())
    }

    /// Writes a matrix of so many columns as an `.npy` of f32.
    pub fn write_matrix(&self, name: &str, values: &[f32], columns: usize) -> Result<()> {
        let mut file = NpyWriter::create(&self.dir.join(name), Dtype::F32, &[columns])?;
        file.write(values)?;
        file.finish().map(|_| ())
    }

    /// Replaces `metrics.json`, and `metrics_by_feature.csv` where there are features to tell of.
    pub fn save_metrics(&self, metrics: &Metrics) -> Result<()> {
        let path = self.dir.join("metrics_by_feature.csv");
        if metrics.features().is_empty() {
            // Of an evaluation on other data.
            let _ = std::fs::remove_file(&path);
        } else {
            let failed = |e: String| Error::Internal(format!("{}: {e}", path.display()));
            let mut table = csv::Writer::from_writer(Vec::new());
            metrics.features().iter().try_for_each(|row| table.serialize(row)).map_err(|e| failed(e.to_string()))?;
            let text = table.into_inner().map_err(|e| failed(e.to_string()))?;
            atomic::write_file(&path, &text)?;
        }
        write_json(&self.dir.join("metrics.json"), metrics)
    }
}

/// Writes a value as indented JSON, whole or not at all.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Internal(format!("{}: {e}", path.display())))?;
    atomic::write_file(path, (text + "\n").as_bytes())
}

/// Says of a damaged checkpoint what to do.
pub(crate) fn delete_and_resume(e: Error) -> Error {
    match e {
        Error::Input { file, place, message } => {
            Error::Input { file, place, message: format!("{message}; delete it, and --resume starts at the beginning") }
        }
        e => e,
    }
}

/// Locks the directory itself. Where the file system knows no locks there is none.
fn lock(dir: &Path) -> Result<Option<File>> {
    let Ok(file) = File::open(dir) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(Error::usage(format!("another couplet is training into {} now: wait for it, or give another --out", dir.display())))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            model: "toy".into(),
            dataset: "data".into(),
            seed: 7,
            precision: "f32".into(),
            ran_on: "cpu, 1 thread".into(),
            holdout: None,
            paired: 1.0,
            shuffle: Default::default(),
            labels: None,
            modalities: vec![],
            options: "lr = 0.001\n".into(),
        }
    }

    #[test]
    fn an_existing_run_and_a_strange_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::create_dir_all(path.join("dataset")).unwrap();
        drop(Run::create(&path, &config()).unwrap());
        let e = Run::create(&path, &config()).err().unwrap();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("--resume"), "{e}");
        assert!(Run::create(dir.path(), &config()).err().unwrap().to_string().contains("no run"));
        assert!(Run::open(dir.path()).err().unwrap().to_string().contains("no config.toml"));
        assert!(Run::open(&dir.path().join("none")).err().unwrap().to_string().contains("does not exist"));
    }

    #[test]
    fn two_trainings_never_share_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let first = Run::create(&path, &config()).unwrap();
        assert!(Run::resume(&path).err().unwrap().to_string().contains("training into"));
        Run::open(&path).unwrap();
        drop(first);
        Run::resume(&path).unwrap();
    }

    #[test]
    fn a_damaged_checkpoint_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::create(&dir.path().join("run"), &config()).unwrap();
        assert!(run.load_checkpoint().unwrap().is_none());
        run.save_checkpoint(&[("w", [1, 1])], &3, |_| Ok(Cow::Owned(vec![1.0]))).unwrap();
        assert_eq!(run.load_checkpoint().unwrap().unwrap().record::<i32>().unwrap(), 3);
        fs::write(run.checkpoint(), b"rubbish").unwrap();
        let e = run.load_checkpoint().unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("damaged") && e.to_string().contains("delete it"), "{e}");
    }
}
