//! A finished run: it embeds cells, translates between modalities, and says how well.

use super::conditions;
use super::feed;
use super::input::Input;
use super::prepare::model_modalities;
use super::session::{Session, Sink};
use crate::data::Dataset;
use crate::data::oriented::oriented;
use crate::device::Device;
use crate::engine::{Precision, Step};
use crate::error::{Error, Result};
use crate::models::settings::{Settings, Source};
use crate::models::{self, ModelSpec};
use crate::run::parts::CodeSpace;
use crate::run::{Config, Run, Saved};
use std::path::{Path, PathBuf};

/// In which units a translation is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The target's own: every preprocessing step undone.
    Input,
    /// The model's: after the target's preprocessing.
    Model,
}

/// A run whose weights are ready to use.
pub struct Trained {
    dir: PathBuf,
    pub(crate) config: Config,
    pub(crate) spec: &'static ModelSpec,
    saved: Saved,
    device: Option<Device>,
    session: Option<Session>,
    settings: Settings,
    /// The condition that every cell is taken to be of.
    as_if: Option<u32>,
}

impl Trained {
    /// Opens a run; its weights meet a dataset when it is first used.
    pub fn open(dir: &Path, device: Device) -> Result<Trained> {
        let (run, config) = Run::open(dir)?;
        let spec = models::by_name(&config.model)?;
        let names: Vec<String> = config.modalities.iter().map(|m| m.name.clone()).collect();
        let mut settings = Settings::new(spec.name, spec.options, &names)?;
        settings.apply_table(&dir.join("config.toml"), &config.options_table()?, Source::File)?;
        Ok(Trained {
            dir: dir.to_path_buf(),
            config,
            spec,
            saved: run.load_model()?,
            device: Some(device),
            session: None,
            settings,
            as_if: None,
        })
    }

    /// The directory of the run.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The width of the embedding.
    pub fn latent(&mut self, dataset: &Dataset) -> Result<usize> {
        Ok(self.session(dataset)?.model.latent())
    }

    /// What the run keeps under a name beside what its model asks for.
    pub(crate) fn tensor(&self, name: &str) -> Option<([usize; 2], &[f32])> {
        self.saved.get(name)
    }

    /// The spaces of the embedding, as named ranges of its columns; none where the model's code is one space.
    pub fn spaces(&mut self, dataset: &Dataset) -> Result<Vec<CodeSpace>> {
        Ok(self.session(dataset)?.model.spaces())
    }

    /// The model's options in this run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// From now on every cell is taken to be of this condition, for a model that is told them: what it would have looked like.
    pub fn take_as(&mut self, condition: &str) -> Result<()> {
        self.as_if = Some(conditions::number(&self.settings, condition)?);
        if let Some(session) = &mut self.session {
            session.take_as(self.as_if);
        }
        Ok(())
    }

    /// What somebody who imputes with this run should know, in a line.
    pub fn imputation_remark(&self) -> Option<&'static str> {
        (self.spec.imputation_remark)(&self.settings)
    }

    /// The session for a dataset, which must have the run's modalities with the run's features.
    pub(crate) fn session(&mut self, dataset: &Dataset) -> Result<&mut Session> {
        if self.session.is_none() {
            self.check(dataset)?;
            let inputs: Vec<Input> =
                dataset.modalities().iter().map(|m| Input::restore(&self.saved, &self.settings, m)).collect::<Result<_>>()?;
            let Some(device) = self.device.take() else {
                return Err(Error::Internal("the run's device went to a dataset that it does not fit".into()));
            };
            // In f32 whatever it was trained in: one pass, and the same numbers on every device.
            let mut step = Step::new(device, self.config.seed, Precision::F32)?;
            let model = (self.spec.build)(&mut step, &self.settings, &model_modalities(dataset, &inputs))?;
            step.restore(|name| self.saved.get(name))?;
            let conditions = if self.as_if.is_some() { Vec::new() } else { conditions::rows(dataset, &self.settings)? };
            let sparse = feed::chosen(&self.settings, dataset.modalities().iter().map(|m| m.name()))?;
            let mut session = Session::new(step, model, inputs, sparse, conditions);
            session.take_as(self.as_if);
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(|| Error::Internal("a session was just made".into()))
    }

    fn check(&self, dataset: &Dataset) -> Result<()> {
        let names = |n: &mut dyn Iterator<Item = &str>| n.collect::<Vec<_>>().join(", ");
        let (have, want) = (dataset.modalities(), &self.config.modalities);
        if !have.iter().map(|m| m.name()).eq(want.iter().map(|m| m.name.as_str())) {
            return Err(Error::usage(format!(
                "{} has the modalities {}, the run {} was trained on {}: give a dataset with the same modalities in the same order",
                dataset.dir().display(),
                names(&mut have.iter().map(|m| m.name())),
                self.dir.display(),
                names(&mut want.iter().map(|m| m.name.as_str())),
            )));
        }
        for (m, w) in have.iter().zip(want) {
            if m.features() != w.features {
                return Err(Error::usage(format!(
                    "{} of {} has {} features, the run {} was trained on {}: give the same features in the same order",
                    m.name(),
                    dataset.dir().display(),
                    m.features(),
                    self.dir.display(),
                    w.features
                )));
            }
        }
        // The run's own dataset may be gone; then nobody can say.
        let Ok(own) = Dataset::open(&self.config.dataset_from(&self.dir)) else { return Ok(()) };
        let both = dataset.manifest().modalities.iter().zip(&own.manifest().modalities);
        match both.map(|(here, there)| (&here.name, oriented(here), oriented(there))).find(|(_, here, there)| here != there) {
            Some((name, here, _)) => {
                let (what, how) = if here { ("turned", "without") } else { ("as they lay", "with") };
                Err(Error::usage(format!(
                    "the images {name} of {} are {what}, those that the run {} was trained on are not: import them {how} --orient {name}",
                    dataset.dir().display(),
                    self.dir.display()
                )))
            }
            None => Ok(()),
        }
    }

    /// The codes of all cells of a modality, row by row: the row's number and its code `[latent]`.
    pub fn embed(&mut self, dataset: &Dataset, modality: usize, sink: &mut Sink) -> Result<()> {
        let rows: Vec<u32> = (0..dataset.modality(modality).cells() as u32).collect();
        self.session(dataset)?.embed(dataset, modality, &rows, sink)
    }

    /// A row of a modality as it was measured, in the same space as [`Trained::translate`] gives.
    pub fn measured(&mut self, dataset: &Dataset, modality: usize, row: usize, space: Space) -> Result<Vec<f32>> {
        let (session, m) = (self.session(dataset)?, dataset.modality(modality));
        let mut values = vec![0.0; m.features()];
        match space {
            Space::Input => m.row_into(row, &mut values)?,
            Space::Model => session.inputs[modality].preprocess().row(m, row, &mut values)?,
        }
        Ok(values)
    }

    /// The features of modality `to` for all cells of modality `from`, row by row.
    pub fn translate(&mut self, dataset: &Dataset, from: usize, to: usize, space: Space, sink: &mut Sink) -> Result<()> {
        let rows: Vec<u32> = (0..dataset.modality(from).cells() as u32).collect();
        let session = self.session(dataset)?;
        if space == Space::Model {
            return session.translate(dataset, [from, to], &rows, sink);
        }
        let undo = session.inputs[to].preprocess().clone();
        let mut row = Vec::new();
        session.translate(dataset, [from, to], &rows, &mut |r, x| {
            row.clear();
            row.extend_from_slice(x);
            undo.undo(&mut row);
            sink(r, &row)
        })
    }
}
