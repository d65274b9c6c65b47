//! From a request to everything a training needs: which cells, which pairs, what is done to the rows, the model on its device.

use super::TrainRequest;
use super::correspondence::{self, Blocks, Inferred};
use super::feed::{self, Feeds};
use super::input::Input;
use super::labels::{self, LabelFeed};
use super::session::Session;
use super::stepper::{Stepper, Ways};
use super::{common, conditions, filter};
use crate::data::Dataset;
use crate::data::plan::{Plan, Unit};
use crate::data::preprocess::Recipe;
use crate::data::split::{self, Split};
use crate::device::Device;
use crate::engine::Step;
use crate::error::{Error, Result};
use crate::models::options::Value;
use crate::models::settings::Settings;
use crate::models::{Facts, Labels, MOST_MODALITIES, Modality, Model, ModelSpec, Sampling, Stage};
use crate::run::{Config, ModalityShape, Run};
use std::path::{Path, PathBuf};

/// What will be trained on what: told before the first step.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The device, in words.
    pub device: String,
    /// One a modality.
    pub modalities: Vec<PreparedModality>,
    /// Known pairs among the training cells, and how many of them are used.
    pub pairs: (usize, usize),
    /// Numbers that are learnt.
    pub parameters: usize,
    /// Cells of a minibatch and minibatches of an epoch, in the last stage.
    pub batch: (usize, usize),
    /// Known pairs beside a minibatch's cells, for a model that takes them so.
    pub anchors: usize,
    /// The stages, one after the other: name, epochs, cells of a minibatch, minibatches of an epoch.
    pub stages: Vec<(&'static str, usize, usize, usize)>,
    /// The label column that the model learns from, and its number of classes.
    pub labels: Option<(String, usize)>,
}

/// A modality as it is trained on.
#[derive(Clone, Debug)]
pub struct PreparedModality {
    /// Its name.
    pub name: String,
    /// Cells that train, and cells held out.
    pub cells: (usize, usize),
    /// Features.
    pub features: usize,
    /// Share of the values that are missing.
    pub missing: f64,
    /// The preprocessing, step by step.
    pub steps: String,
    /// Whether all of it lies on the device.
    pub resident: bool,
    /// Whether only its non-zeros do.
    pub sparse: bool,
}

pub(super) struct Preparation {
    pub session: Session,
    pub stepper: Stepper,
    pub stages: Vec<(Stage, Plan)>,
    pub held: Option<Plan>,
    pub training_rows: Vec<Vec<u32>>,
    pub settings: Settings,
    pub run: Run,
    pub prepared: Prepared,
}

impl Preparation {
    pub fn new(request: &mut TrainRequest, device: Device) -> Result<Preparation> {
        let dataset = request.dataset;
        check_modalities(dataset)?;
        if let Some(m) = dataset.modalities().iter().find(|m| m.facts().missing > 0 && !request.model.takes_missing) {
            return Err(Error::usage(format!(
                "{} has {} missing values, which {} does not take: fill them in, or train coupled",
                m.name(),
                m.facts().missing,
                request.model.name
            )));
        }
        let split = match &request.holdout {
            Some(holdout) => split::split(dataset, holdout, request.seed)?,
            None => Split::none(dataset),
        };
        let k = dataset.modalities().len();
        let mut training_rows: Vec<Vec<u32>> = (0..k).map(|m| split.training(m)).collect();
        let held_rows: Vec<Vec<u32>> = (0..k).map(|m| split.held_out(m)).collect();
        for (m, rows) in dataset.modalities().iter().zip(&training_rows) {
            if rows.is_empty() {
                return Err(Error::usage(format!("every cell of {} is held out: nothing is left to train on", m.name())));
            }
        }
        let mut known = split.training_units(dataset);
        let kept = filter::filter(dataset, &mut training_rows, &mut known, request.settings)?;
        let used = units(dataset, &split::keep_pairs(&known, request.paired, request.seed));
        let held_units = units(dataset, &split.held_out_units(dataset));
        let pairs = (known.len(), used.len());

        let mut settings = request.settings.clone();
        let (mut recipes, mut image_sides) = (Vec::new(), Vec::new());
        for m in dataset.modalities() {
            let chosen = Recipe::from_words(settings.of("preprocess", m.name())?.words()?)?;
            let sides = (request.model.image_sides)(&settings)?.filter(|_| m.is_image());
            let recipe = chosen.resolve(m, request.model.count_recipe, sides.is_some())?;
            settings.fill("preprocess", m.name(), Value::Words(recipe.to_string().split(',').map(str::to_string).collect()));
            recipes.push(recipe);
            image_sides.push(sides);
        }
        common::resolve(dataset, &mut settings)?;
        conditions::resolve(dataset, &mut settings)?;
        let mut inputs = if common::applies(&settings) {
            common::inputs(dataset, &training_rows, &recipes, &settings)?
        } else {
            let components = |name: &str| if settings.has("pca_dim") { settings.of("pca_dim", name)?.count() } else { Ok(0) };
            let fitted = dataset.modalities().iter().zip(&training_rows).zip(&recipes).zip(kept);
            fitted
                .map(|(((m, rows), recipe), kept)| {
                    let columns = common::chosen_features(m, rows, kept, recipe, &settings)?;
                    Input::fit(m, rows, recipe, columns, components(m.name())?, request.seed)
                })
                .collect::<Result<Vec<_>>>()?
        };
        for ((m, input), sides) in dataset.modalities().iter().zip(&mut inputs).zip(image_sides) {
            if let Some(multiple) = sides {
                input.put_on_canvas(m, multiple);
            }
        }
        let modalities = model_modalities(dataset, &inputs);
        let cells = training_rows.iter().map(Vec::len).max().unwrap_or(0);
        let labels = label_values(request, &settings, &training_rows)?;
        let classes = labels.as_ref().map_or(0, |l| l.classes);
        let counted = labels.as_ref().filter(|_| (request.model.labels)(&settings).is_ok_and(|l| l == Labels::Classes));
        let class_counts = counted.map_or(Vec::new(), |l| l.counts(0, &training_rows[0]));
        let fewest = training_rows.iter().map(Vec::len).min().unwrap_or(0);
        let totals = if settings.has("pos_weight") { totals(dataset, &training_rows)? } else { Vec::new() };
        let rows = dataset.modality(0).cells();
        let facts = Facts {
            modalities: &modalities,
            cells,
            rows,
            totals: &totals,
            fewest,
            pairs: used.len(),
            holds_out: held_rows.iter().any(|rows| !rows.is_empty()),
            classes,
            class_counts: &class_counts,
        };
        (request.model.resolve)(&mut settings, &facts)?;
        let mut room = feed::room(&device);
        let ways = feed::ways(&device, &mut room, dataset, &inputs, &mut settings)?;
        let fed: Vec<[bool; 2]> = ways.iter().map(|way| [way.resident, way.sparse.is_some()]).collect();
        let described = device.describe();
        let how = (request.model.inference)(&settings, &modalities)?;
        if !how.is_empty() {
            correspondence::check_names(dataset)?;
        }
        let run = open_run(request, &settings, &described)?;
        let told = &mut *request.inferring;
        let (inferred, device) = Inferred::of_pairs(&run, dataset, &inputs, &training_rows, &used, &how, device, request.stop, told)?;
        let mut step = Step::new(device, request.seed, request.precision)?;
        let model = (request.model.build)(&mut step, &settings, &modalities)?;
        let stages = stages(&*model, &settings)?;
        let plans: Vec<Plan> =
            stages.iter().map(|stage| plan_of(stage, request.seed, &training_rows, &used).shuffled(request.shuffle)).collect();
        let complete = stages.iter().any(|stage| matches!(stage.sampling, Sampling::Complete { .. }));
        if complete && plans.iter().any(|plan| plan.slots() == 0) {
            return Err(Error::usage(format!(
                "{} learns from cells that are seen in every modality, and no training cell is: say how the cells pair with --pairs",
                request.model.name
            )));
        }
        for plan in &plans {
            enough_cells(&*model, plan, request.model)?;
        }
        let held = (held_rows.iter().all(|r| r.len() >= model.smallest_batch()))
            .then(|| Plan::new(request.seed, usize::MAX, held_rows.clone(), held_units));
        if held.is_none() && held_rows.iter().any(|r| !r.is_empty()) {
            return Err(Error::usage(format!(
                "--holdout keeps {} cells out and {} needs {} of each modality to measure a loss: hold out more, or none",
                held_rows.iter().map(Vec::len).min().unwrap_or(0),
                request.model.name,
                model.smallest_batch()
            )));
        }
        let fully_paired = plans.iter().chain(&held).all(Plan::fully_paired);
        let slots = plans.iter().chain(&held).map(Plan::slots).max().unwrap_or(0);
        let batch = plans.iter().map(Plan::batch).max().unwrap_or(0);
        let batch = batch.max(held.as_ref().map_or(0, |h| h.slots().min(2 * batch)));
        let feeds = Feeds::new(&mut step, dataset, &mut inputs, ways, slots, batch)?;
        let blocks = (!inferred.is_empty()).then(|| Blocks::new(&mut step, inferred, slots, batch, room)).transpose()?;
        let learnt_from = labels.as_ref().map(|l| (l.column.clone(), l.classes));
        let labels = labels.map(|l| LabelFeed::new(&mut step, l.values, slots)).transpose()?;
        let stepper = Stepper::new(&mut step, &*model, Ways { feeds, blocks, labels }, slots, fully_paired)?;
        let told = |m: usize| {
            let (data, features) = (dataset.modality(m), dataset.modality(m).features());
            PreparedModality {
                name: data.name().to_string(),
                cells: (training_rows[m].len(), held_rows[m].len()),
                features,
                missing: data.facts().missing as f64 / (data.cells() * features).max(1) as f64,
                steps: inputs[m].describe(),
                resident: fed[m][0],
                sparse: fed[m][1],
            }
        };
        let plan = &plans[plans.len() - 1];
        let prepared = Prepared {
            device: described,
            modalities: (0..modalities.len()).map(told).collect(),
            pairs,
            parameters: step.params().count(),
            batch: (plan.batch() - plan.anchors(), plan.steps()),
            anchors: plan.anchors(),
            stages: stages.iter().zip(&plans).map(|(s, p)| (s.name, s.epochs, p.batch() - p.anchors(), p.steps())).collect(),
            labels: learnt_from,
        };
        let stages = stages.into_iter().zip(plans).collect();
        let sparse = feed::chosen(&settings, modalities.iter().map(|m| m.name.as_str()))?;
        let session = Session::new(step, model, inputs, sparse, conditions::rows(dataset, &settings)?);
        Ok(Preparation { session, stepper, stages, held, training_rows, settings, run, prepared })
    }
}

/// The model's stages, or the one that the settings say.
fn stages(model: &dyn Model, settings: &Settings) -> Result<Vec<Stage>> {
    let (epochs, batch) = (settings.get("epochs")?.count()?, settings.get("batch_size")?.count()?);
    let all = Stage { name: "training", phases: 0..model.phases().len(), epochs, batch, sampling: model.sampling(), only: None };
    let stages = model.stages();
    Ok(if stages.is_empty() { vec![all] } else { stages })
}

/// The epochs of a stage.
fn plan_of(stage: &Stage, seed: u64, training: &[Vec<u32>], pairs: &[Unit]) -> Plan {
    let Stage { batch, only, .. } = *stage;
    let (mut rows, mut pairs) = (training.to_vec(), pairs.to_vec());
    if let Some(only) = only {
        // One row of the others fills their slots.
        rows.iter_mut().enumerate().filter(|(m, _)| *m != only).for_each(|(_, rows)| rows.truncate(1));
        pairs.clear();
    }
    stage.sampling.plan(seed, batch, rows, pairs)
}

/// Values of each modality's training cells as they are stored: how many, their sum, how many are not zero.
fn totals(dataset: &Dataset, training: &[Vec<u32>]) -> Result<Vec<[f64; 3]>> {
    let of = |(m, rows): (&crate::data::Modality, &Vec<u32>)| {
        let mut values = vec![0.0f32; if m.is_sparse() { 0 } else { m.features() }];
        let (mut sum, mut not_zero) = (0.0f64, 0.0f64);
        let mut add = |values: &[f32]| {
            sum += values.iter().map(|&v| v as f64).sum::<f64>();
            not_zero += values.iter().filter(|v| **v != 0.0).count() as f64;
        };
        for &row in rows {
            match m.sparse_row(row as usize)? {
                Some((_, values)) => add(values),
                None => {
                    m.row_into(row as usize, &mut values)?;
                    add(&values);
                }
            }
        }
        Ok([rows.len() as f64 * m.features() as f64, sum, not_zero])
    };
    dataset.modalities().iter().zip(training).map(of).collect()
}

/// The labels that a model learns from.
struct LabelValues {
    column: String,
    classes: usize,
    values: Vec<Vec<f32>>,
}

impl LabelValues {
    /// How many of a modality's rows are of each class.
    fn counts(&self, modality: usize, rows: &[u32]) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        for value in rows.iter().map(|&r| self.values[modality][r as usize]).filter(|v| *v >= 0.0) {
            if let Some(n) = counts.get_mut(value as usize) {
                *n += 1;
            }
        }
        counts
    }
}

/// Those of the column that was asked for, or of the default column, if the model wants any and there are some.
fn label_values(request: &TrainRequest, settings: &Settings, training: &[Vec<u32>]) -> Result<Option<LabelValues>> {
    let use_of = (request.model.labels)(settings)?;
    if use_of == Labels::Conditions {
        let Some(column) = conditions::column(settings)? else { return Ok(None) };
        let classes = settings.get("conditions")?.words()?.len();
        return Ok(Some(LabelValues { column, classes, values: conditions::rows(request.dataset, settings)? }));
    }
    let Some(column) = request.labels.as_deref().or(request.dataset.default_label()).filter(|_| use_of != Labels::Unused) else {
        return Ok(None);
    };
    let labels = request.dataset.label(column)?;
    let values = labels::numbers(request.dataset, &labels, training, use_of)?;
    Ok(Some(LabelValues { column: column.to_string(), classes: labels.classes.len(), values }))
}

fn check_modalities(dataset: &Dataset) -> Result<()> {
    let k = dataset.modalities().len();
    if !(2..=MOST_MODALITIES).contains(&k) {
        return Err(Error::input(dataset.dir(), "", format!("it has {k} modalities: a model pairs 2 to {MOST_MODALITIES}")));
    }
    for m in dataset.modalities() {
        if m.cells() == 0 || m.features() == 0 {
            let what = if m.cells() == 0 { "cells" } else { "features" };
            return Err(Error::input(dataset.dir(), format!("modality {}", m.name()), format!("it has no {what}")));
        }
    }
    Ok(())
}

/// The modalities as a model sees them.
pub(super) fn model_modalities(dataset: &Dataset, inputs: &[Input]) -> Vec<Modality> {
    let modality = |(m, input): (&crate::data::Modality, &Input)| Modality {
        name: m.name().to_string(),
        features: input.width(),
        deviations: input.deviations(),
        image: input.image(),
    };
    dataset.modalities().iter().zip(inputs).map(modality).collect()
}

/// Units of the dataset, as a plan takes them.
fn units(dataset: &Dataset, which: &[usize]) -> Vec<Unit> {
    let (links, k) = (dataset.links(), dataset.modalities().len());
    let unit = |&u: &usize| Unit { rows: (0..k).map(|m| links.row(u, m)).collect(), confidence: links.confidence(u) };
    // A pair of confidence 0 is none: its rows are drawn each by itself.
    which.iter().map(unit).filter(|u| u.confidence > 0.0).collect()
}

fn open_run(request: &TrainRequest, settings: &Settings, device: &str) -> Result<Run> {
    let (dataset, dir) = (request.dataset, &request.run_dir);
    if request.resume && dir.join("config.toml").exists() {
        let (run, config) = Run::resume(dir)?;
        // How long it trains may have changed.
        run.save_config(&Config { options: settings.to_toml(), ..config })?;
        return Ok(run);
    }
    let shape = |m: &crate::data::Modality| ModalityShape { name: m.name().to_string(), cells: m.cells(), features: m.features() };
    let config = Config {
        model: request.model.name.to_string(),
        dataset: dataset_path(dataset.dir(), dir),
        seed: request.seed,
        precision: format!("{:?}", request.precision).to_lowercase(),
        ran_on: device.to_string(),
        holdout: request.holdout.as_ref().map(|h| h.to_string()),
        paired: request.paired,
        shuffle: request.shuffle,
        labels: request.labels.clone(),
        modalities: dataset.modalities().iter().map(shape).collect(),
        options: settings.to_toml(),
    };
    Run::create(dir, &config)
}

/// The dataset as the run names it: relative where it lies inside the run, else from the root.
fn dataset_path(dataset: &Path, run: &Path) -> PathBuf {
    match dataset.strip_prefix(run) {
        Ok(inside) => inside.to_path_buf(),
        Err(_) => std::fs::canonicalize(dataset).unwrap_or_else(|_| dataset.to_path_buf()),
    }
}

/// The fewest cells that a model can be trained on, said as a sentence if there are fewer.
fn enough_cells(model: &dyn Model, plan: &Plan, spec: &ModelSpec) -> Result<()> {
    let needs = model.smallest_batch();
    if plan.batch() < needs {
        return Err(Error::usage(format!(
            "there are {} cells to train {} on and it needs {needs}: use fewer --latent dimensions, hold out fewer cells, or give more data",
            plan.slots(),
            spec.name
        )));
    }
    Ok(())
}
