//! What a run is given beside the options of its model, by flags, by a `--config` file, or by the run that is resumed.

use couplet::data::shuffle::Shuffle;
use couplet::error::{Error, Result};
use couplet::models::settings::{Settings, Source};
use couplet::run::Config;
use couplet::run::config::{GIVEN, TOLD, read_toml};
use std::path::{Path, PathBuf};

/// One source's word on a run; what it does not say is `None`.
#[derive(Clone, Default)]
pub struct Given {
    pub model: Option<String>,
    pub dataset: Option<PathBuf>,
    pub seed: Option<u64>,
    pub precision: Option<String>,
    pub holdout: Option<String>,
    pub paired: Option<f64>,
    pub shuffle: Option<String>,
    pub labels: Option<String>,
    /// Options of the model, and the file that they stand in.
    pub options: Option<(PathBuf, toml::Table)>,
}

impl Given {
    /// Of a `--config` file: settings that a user wrote, or the `config.toml` of a run.
    pub fn read(path: &Path) -> Result<Given> {
        let mut table = read_toml(path)?;
        let wrong = |key: &str, what: &str| Error::input(path, format!("key {key:?}"), format!("wanted is {what}"));
        let text = |key: &str| match table.get(key) {
            None => Ok(None),
            Some(v) => v.as_str().map(|s| Some(s.to_string())).ok_or_else(|| wrong(key, "a text")),
        };
        let (model, dataset, precision) = (text("model")?, text("dataset")?, text("precision")?);
        let shuffle = text("shuffle_by")?;
        if shuffle.as_deref().is_some_and(|s| s.parse::<Shuffle>().is_err()) {
            return Err(wrong("shuffle_by", "exact or block"));
        }
        let (holdout, labels) = (text("holdout").or_else(|e| number(&table, "holdout").ok_or(e))?, text("labels")?);
        let seed = match table.get("seed").map(|v| v.as_integer().and_then(|s| u64::try_from(s).ok())) {
            Some(None) => return Err(wrong("seed", "a whole number from 0")),
            seed => seed.flatten(),
        };
        let paired = match table.get("paired").map(|v| v.as_float().or(v.as_integer().map(|i| i as f64))) {
            Some(p) => Some(p.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| wrong("paired", "a number from 0 to 1"))?),
            None => None,
        };
        let dataset = dataset.map(|d| path.parent().unwrap_or(Path::new("")).join(d));
        table.retain(|key, _| !GIVEN.contains(&key) && !TOLD.contains(&key));
        Ok(Given { model, dataset, seed, precision, holdout, paired, shuffle, labels, options: Some((path.to_path_buf(), table)) })
    }

    /// Of a run that exists.
    pub fn of_run(dir: &Path, config: &Config) -> Result<Given> {
        Ok(Given {
            model: Some(config.model.clone()),
            dataset: Some(config.dataset_from(dir)),
            seed: Some(config.seed),
            precision: Some(config.precision.clone()),
            holdout: config.holdout.clone(),
            paired: Some(config.paired),
            shuffle: Some(config.shuffle.to_string()),
            labels: config.labels.clone(),
            options: Some((dir.join("config.toml"), config.options_table()?)),
        })
    }

    /// This, and where it is silent, `weaker`. The options stay apart: they are applied one source after another.
    pub fn or(self, weaker: &Given) -> Given {
        let weaker = weaker.clone();
        Given {
            model: self.model.or(weaker.model),
            dataset: self.dataset.or(weaker.dataset),
            seed: self.seed.or(weaker.seed),
            precision: self.precision.or(weaker.precision),
            holdout: self.holdout.or(weaker.holdout),
            paired: self.paired.or(weaker.paired),
            shuffle: self.shuffle.or(weaker.shuffle),
            labels: self.labels.or(weaker.labels),
            options: None,
        }
    }

    /// Applies the options of the model.
    pub fn apply(&self, settings: &mut Settings, source: Source) -> Result<()> {
        self.options.as_ref().map_or(Ok(()), |(file, table)| settings.apply_table(file, table, source))
    }

    /// An error if this says something else than the run that is to be resumed.
    pub fn agrees_with(&self, run: &Given) -> Result<()> {
        let differs = |key: &str, mine: &Option<String>, theirs: &Option<String>| match mine {
            Some(m) if mine != theirs => Some((key.to_string(), m.clone(), theirs.clone().unwrap_or_else(|| "none".into()))),
            _ => None,
        };
        let text = |x: Option<u64>| x.map(|x| x.to_string());
        let number = |x: Option<f64>| x.map(|x| x.to_string());
        let found = differs("model", &self.model, &run.model)
            .or_else(|| differs("seed", &text(self.seed), &text(run.seed)))
            .or_else(|| differs("precision", &self.precision, &run.precision))
            .or_else(|| differs("holdout", &self.holdout, &run.holdout))
            .or_else(|| differs("paired", &number(self.paired), &number(run.paired)))
            .or_else(|| differs("shuffle", &self.shuffle, &run.shuffle))
            .or_else(|| differs("labels", &self.labels, &run.labels));
        match found {
            None => Ok(()),
            Some((key, mine, theirs)) => Err(Error::usage(format!(
                "--resume continues a run that has {key} = {theirs}, not {mine}: leave that out, or start a new run with another --out"
            ))),
        }
    }
}

/// `holdout = 0.2` reads as well as `holdout = "0.2"`.
fn number(table: &toml::Table, key: &str) -> Option<Option<String>> {
    let v = table.get(key)?;
    v.as_float().map(|x| x.to_string()).or(v.as_integer().map(|x| x.to_string())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_what_it_says_and_the_stronger_source_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.toml");
        std::fs::write(&path, "seed = 4\nholdout = 0.2\ndataset = \"d\"\nlr = 0.1\nalpha.rna = 2\nformat = 1\n").unwrap();
        let given = Given::read(&path).unwrap();
        assert_eq!((given.seed, given.holdout.as_deref()), (Some(4), Some("0.2")));
        assert_eq!(given.dataset.as_deref(), Some(dir.path().join("d").as_path()));
        assert_eq!(given.options.as_ref().map(|(_, t)| t.len()), Some(2));
        let both = Given { seed: Some(5), ..Given::default() }.or(&given);
        assert_eq!((both.seed, both.holdout.as_deref()), (Some(5), Some("0.2")));
        assert!(given.agrees_with(&Given { seed: Some(4), holdout: Some("0.2".into()), ..Given::default() }).is_ok());
        let e = given.agrees_with(&both).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("seed = 5, not 4"), "{e}");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_file_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.toml");
        for (text, key) in [
            ("seed = -1", "seed"),
            ("paired = 2", "paired"),
            ("labels = 3", "labels"),
            ("holdout = true", "holdout"),
            ("shuffle_by = \"no\"", "shuffle_by"),
        ] {
            std::fs::write(&path, text).unwrap();
            let e = Given::read(&path).err().unwrap();
            assert!(e.exit_code() == 2 && e.to_string().contains(&format!("my.toml, key {key:?}")), "{e}");
        }
    }
}
