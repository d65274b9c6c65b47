//! `config.toml`: everything needed to repeat a run. `couplet train --config RUN/config.toml` reads it too.

use crate::data::atomic;
use crate::data::shuffle::Shuffle;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What a run was made from. Its keys stand at the top of `config.toml`, the model's options after them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The model's name.
    pub model: String,
    /// The DATASET directory; a relative path starts at the run.
    pub dataset: PathBuf,
    /// All random numbers derive from it.
    pub seed: u64,
    /// `f32`, `tf32` or `bf16`.
    pub precision: String,
    /// The device, in words: the same seed gives the same bits on the same device.
    pub ran_on: String,
    /// As typed after `--holdout`.
    pub holdout: Option<String>,
    /// The fraction of the known training pairs that training may see.
    pub paired: f64,
    /// How rows are shuffled: `shuffle_by`, a model may have an option `shuffle`.
    pub shuffle: Shuffle,
    /// The label column.
    pub labels: Option<String>,
    /// What the dataset held.
    pub modalities: Vec<ModalityShape>,
    /// The model's options as lines of TOML, defaults written out (`Settings::to_toml`).
    pub options: String,
}

/// A modality as a run knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModalityShape {
    /// Its name.
    pub name: String,
    /// Cells in the dataset.
    pub cells: usize,
    /// Features in the dataset.
    pub features: usize,
}

/// The version of this file's layout.
const FORMAT: i64 = 1;

/// The keys of a run that `train` takes from a `--config` file beside the model's options.
pub const GIVEN: [&str; 8] = ["model", "dataset", "seed", "precision", "holdout", "paired", "shuffle_by", "labels"];

/// Keys that only say what happened.
pub const TOLD: [&str; 4] = ["format", "couplet", "ran_on", "modalities"];

impl Config {
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let quoted = |s: &str| toml::Value::from(s).to_string();
        let mut text = format!("# A run of couplet. To repeat it: couplet train {} --config config.toml --out ANOTHER\n", self.model);
        text += &format!("format = {FORMAT}\ncouplet = {}\n", quoted(env!("CARGO_PKG_VERSION")));
        text += &format!("model = {}\n", quoted(&self.model));
        text += &format!("dataset = {}\n", quoted(&self.dataset.to_string_lossy()));
        text += &format!("seed = {}\nprecision = {}\nran_on = {}\n", self.seed, quoted(&self.precision), quoted(&self.ran_on));
        if let Some(holdout) = &self.holdout {
            text += &format!("holdout = {}\n", quoted(holdout));
        }
        text += &format!("paired = {}\nshuffle_by = \"{}\"\n", toml::Value::from(self.paired), self.shuffle);
        if let Some(labels) = &self.labels {
            text += &format!("labels = {}\n", quoted(labels));
        }
        text += &format!("\n# the options of the model\n{}", self.options);
        for m in &self.modalities {
            text += &format!("\n[[modalities]]\nname = {}\ncells = {}\nfeatures = {}\n", quoted(&m.name), m.cells, m.features);
        }
        atomic::write_file(path, text.as_bytes())
    }

    /// Reads `RUN/config.toml`.
    pub fn read(path: &Path) -> Result<Config> {
        let mut table = read_toml(path)?;
        let missing =
            |key: &str| Error::input(path, format!("key {key:?}"), "it is missing: this is no config.toml of a run, or it was edited");
        match table.get("format").and_then(toml::Value::as_integer) {
            Some(FORMAT) => {}
            Some(n) => {
                return Err(Error::input(path, "key \"format\"", format!("it is {n}, this couplet reads {FORMAT}: use a newer couplet")));
            }
            None => return Err(missing("format")),
        }
        let mut text = |key: &str| match table.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(s)) => Ok(Some(s)),
            Some(v) => Err(Error::input(path, format!("key {key:?}"), format!("it is {v}, wanted is a text"))),
        };
        let (model, dataset) = (text("model")?.ok_or_else(|| missing("model"))?, text("dataset")?.ok_or_else(|| missing("dataset"))?);
        let (precision, ran_on) = (text("precision")?.ok_or_else(|| missing("precision"))?, text("ran_on")?.unwrap_or_default());
        let (holdout, labels) = (text("holdout")?, text("labels")?);
        // Runs of before there was a choice do not say it.
        let shuffle = text("shuffle_by")?.map_or(Ok(Shuffle::Exact), |word| word.parse());
        let shuffle = shuffle.map_err(|e: Error| Error::input(path, "key \"shuffle_by\"", e.to_string()))?;
        let seed =
            table.get("seed").and_then(toml::Value::as_integer).and_then(|s| u64::try_from(s).ok()).ok_or_else(|| missing("seed"))?;
        let paired = table.get("paired").and_then(toml::Value::as_float).ok_or_else(|| missing("paired"))?;
        let modalities = match table.get("modalities") {
            None => Some(Vec::new()),
            Some(list) => list.as_array().and_then(|l| l.iter().map(modality).collect()),
        };
        let modalities = modalities.ok_or_else(|| missing("modalities"))?;
        table.retain(|key, _| !GIVEN.contains(&key) && !TOLD.contains(&key));
        let options = toml::to_string(&table).map_err(|e| Error::Internal(format!("{}: {e}", path.display())))?;
        Ok(Config { model, dataset: dataset.into(), seed, precision, ran_on, holdout, paired, shuffle, labels, modalities, options })
    }

    /// Where the dataset lies, seen from here, for a run in `run`.
    pub fn dataset_from(&self, run: &Path) -> PathBuf {
        run.join(&self.dataset)
    }

    /// The model's options.
    pub fn options_table(&self) -> Result<toml::Table> {
        self.options.parse().map_err(|e| Error::Internal(format!("config.toml: {e}")))
    }
}

fn modality(v: &toml::Value) -> Option<ModalityShape> {
    let count = |key: &str| v.get(key)?.as_integer().and_then(|n| usize::try_from(n).ok());
    Some(ModalityShape { name: v.get("name")?.as_str()?.to_string(), cells: count("cells")?, features: count("features")? })
}

/// Reads a TOML file; a mistake in it is an input error that names the line.
pub fn read_toml(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    text.parse::<toml::Table>().map_err(|e| {
        let line = e.span().map(|s| 1 + text.bytes().take(s.start).filter(|b| *b == b'\n').count());
        Error::input(path, line.map(|l| format!("line {l}")).unwrap_or_default(), e.message().replace('\n', ", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let mut config = Config {
            model: "coupled".into(),
            dataset: "/some/\"where\"".into(),
            seed: 3,
            precision: "tf32".into(),
            ran_on: "a GPU".into(),
            holdout: Some("split=test".into()),
            paired: 0.25,
            shuffle: Shuffle::Block,
            labels: None,
            modalities: vec![ModalityShape { name: "rna".into(), cells: 5, features: 2 }],
            options: "alpha.\"a.b\" = 0.5\nlr = 0.001\n".into(),
        };
        config.write(&path).unwrap();
        let read = Config::read(&path).unwrap();
        assert_eq!(read.options_table().unwrap(), config.options_table().unwrap());
        config.options = read.options.clone();
        assert_eq!(read, config);
    }

    #[test]
    fn a_config_that_is_none_says_which_key_or_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        for (text, says) in [("lr = 1\n", "key \"format\""), ("\na = = 2\n", "line 2"), ("format = 99\n", "newer couplet")] {
            std::fs::write(&path, text).unwrap();
            let e = Config::read(&path).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains(says), "{e}");
        }
    }
}
