//! Whole training steps at named shapes, on random data that lie on the device: what `couplet bench step` prints.
//!
//! | shape | model | what |
//! | --- | --- | --- |
//! | `patchseq` | coupled | 1,252 genes and 54 electrophysiological features, 4 × 50 and 4 × 60 ELU, latent 3, minimum singular value |
//! | `multiome` | jamie | 512 and 512 principal components of paired cells, latent 32, all four losses |
//! | `skin` | scican | 2,000 genes of both modalities, 22 classes, all terms, batch norm over what passes together |
//! | `skin-sparse` | scican | the same of 10 % and 5 % non-zeros |
//! | `shareseq` | apollo | the first step: 9,153 genes and 58,170 peaks of 10 % and 4 % non-zeros, spaces of 50, 20 and 20, four decoders of 1,024 units |
//! | `shareseq-encoders` | apollo | the second step of the same |
//! | `scicar` | cross-modal | 815 peaks and 2,613 genes, networks as wide as their features, three classes, no pairs |
//! | `nuclei` | cross-modal | pretraining on images of 64 x 64, five convolutions of up to 1,024 channels, class head |
//!
//! A step is what training does for one minibatch: gather, corrupt, forward, losses, backward, Adam.

use super::{Timing, anonymous_memory, time};
use crate::data::plan::{Plan, Unit};
use crate::device::Device;
use crate::engine::params::init;
use crate::engine::{Precision, Step};
use crate::error::{Error, Result, nearest};
use crate::models::settings::Settings;
use crate::models::{self, Facts, Modality, Model};
use crate::train::correspondence::{Blocks, Inferred};
use crate::train::feed::Feeds;
use crate::train::labels::LabelFeed;
use crate::train::stepper::{Stepper, Ways};
use serde::Serialize;

/// A named shape.
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// The model it is for.
    pub model: &'static str,
    /// Features of the modalities.
    pub features: &'static [usize],
    /// Channels, height and width of the first, if that is of images.
    pub image: Option<[usize; 3]>,
    /// Cells of a minibatch on a CPU, and on a GPU.
    pub batch: [usize; 2],
    /// Whether all cells are paired.
    pub paired: bool,
    /// Classes of the labels, 0 for none.
    pub classes: usize,
    /// The share of values that are not zero, a modality each, where they are fed as non-zeros alone; empty where densely.
    pub nonzeros: &'static [f32],
    /// The stage that is measured, of a model with several.
    pub stage: usize,
    /// The model's options, as after `--set`.
    pub options: &'static [&'static str],
}

/// Features from which on a shape is wide.
const WIDE: usize = 50_000;

/// Paired features without labels, all values fed, a model as it is by default.
const PLAIN: Shape = Shape {
    name: "",
    model: "",
    features: &[],
    image: None,
    batch: [0, 0],
    paired: true,
    classes: 0,
    nonzeros: &[],
    stage: 0,
    options: &[],
};

/// The shapes there are.
pub static SHAPES: &[Shape] = &[
    Shape {
        name: "patchseq",
        model: "coupled",
        features: &[1252, 54],
        batch: [100, 100],
        options: &[
            "hidden.a=50,50,50,50",
            "hidden.b=60,60,60,60",
            "activation=elu",
            "output_activation.a=elu",
            "alpha.b=0.1",
            "latent=3",
            "cross_modal=false",
            "input_dropout.a=0.5",
            "input_dropout.b=0.1",
            "noise_sd.a=0",
            "noise_sd.b=0.05",
        ],
        ..PLAIN
    },
    Shape { name: "multiome", model: "jamie", features: &[512, 512], batch: [512, 512], ..PLAIN },
    Shape { name: "scicar", model: "cross-modal", features: &[815, 2613], batch: [32, 32], paired: false, classes: 3, ..PLAIN },
    Shape {
        name: "nuclei",
        model: "cross-modal",
        features: &[4096, 7633],
        image: Some([1, 64, 64]),
        batch: [32, 128],
        paired: false,
        classes: 2,
        options: &["class=head", "class_weights=4.5,0.5"],
        ..PLAIN
    },
    Shape {
        name: "skin",
        model: "scican",
        features: &[2000, 2000],
        batch: [1024, 1024],
        paired: false,
        classes: 22,
        options: &["bn=joint"],
        ..PLAIN
    },
    Shape {
        name: "skin-sparse",
        model: "scican",
        features: &[2000, 2000],
        batch: [1024, 1024],
        paired: false,
        classes: 22,
        nonzeros: &[0.1, 0.05],
        options: &["bn=joint"],
        ..PLAIN
    },
    Shape {
        name: "shareseq",
        model: "apollo",
        features: &[9153, 58170],
        batch: [512, 512],
        nonzeros: &[0.1, 0.04],
        options: &["preprocess=minmax-cell", "pos_weight.a=9", "pos_weight.b=24"],
        ..PLAIN
    },
    Shape {
        name: "shareseq-encoders",
        model: "apollo",
        features: &[9153, 58170],
        batch: [512, 512],
        nonzeros: &[0.1, 0.04],
        stage: 1,
        options: &["preprocess=minmax-cell", "pos_weight.a=9", "pos_weight.b=24"],
        ..PLAIN
    },
];

/// A line of `couplet bench step --json`.
#[derive(Clone, Debug, Serialize)]
pub struct StepFigure {
    bench: &'static str,
    /// The model.
    pub model: &'static str,
    /// The shape.
    pub shape: &'static str,
    /// The device.
    pub device: String,
    /// The products' precision.
    pub precision: String,
    /// Cells of a minibatch.
    pub batch: usize,
    /// Steps measured.
    pub steps: usize,
    /// Threads of the processor.
    pub threads: usize,
    #[serde(flatten)]
    timing: Timing,
    /// Device memory at its peak; on a CPU the process's anonymous memory.
    pub peak_bytes: u64,
}

impl StepFigure {
    /// Median milliseconds.
    pub fn ms(&self) -> f64 {
        self.timing.ms_median
    }
}

/// The shape of that name for that model; the error lists them.
pub fn shape(model: &str, name: &str) -> Result<&'static Shape> {
    models::by_name(model)?;
    SHAPES.iter().find(|s| s.name == name && s.model == model).ok_or_else(|| {
        let names: Vec<&str> = SHAPES.iter().filter(|s| s.model == model).map(|s| s.name).collect();
        let hint = nearest(name, names.iter().copied()).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        Error::usage(format!("there is no shape {name:?} for {model}; there is {}{hint}", names.join(", ")))
    })
}

/// A model at a shape with its data on the device, ready to step.
pub struct Bench {
    /// The engine.
    pub step: Step,
    model: Box<dyn Model>,
    stepper: Stepper,
    plan: Plan,
    number: u64,
}

impl Bench {
    /// Builds it. `batch` 0 takes the shape's own.
    pub fn new(shape: &Shape, device: Device, precision: Precision, batch: usize, seed: u64) -> Result<Bench> {
        let spec = models::by_name(shape.model)?;
        let batch = if batch > 0 { batch } else { shape.batch[usize::from(matches!(device, Device::Kernels(_)))] };
        let names: Vec<String> = (0..shape.features.len()).map(|i| char::from(b'a' + i as u8).to_string()).collect();
        let mut settings = Settings::new(spec.name, spec.options, &names)?;
        settings.apply_flags(&shape.options.iter().map(|o| o.to_string()).chain([format!("batch_size={batch}")]).collect::<Vec<_>>())?;
        let modality = |(m, (name, &features)): (usize, (&String, &usize))| Modality {
            name: name.clone(),
            features,
            deviations: vec![1.0; features],
            image: shape.image.filter(|_| m == 0),
        };
        let modalities: Vec<Modality> = names.iter().zip(shape.features).enumerate().map(modality).collect();
        // Of wide modalities fewer: they are random, and a step does not ask how many there are.
        let cells = if shape.features.iter().sum::<usize>() > WIDE { 2 } else { 8 } * batch;
        let class_counts: Vec<usize> = (0..shape.classes).map(|c| (0..cells).filter(|r| r % shape.classes == c).count()).collect();
        let pairs = if shape.paired { cells } else { 0 };
        let facts = Facts {
            modalities: &modalities,
            cells,
            rows: cells,
            fewest: cells,
            pairs,
            classes: shape.classes,
            class_counts: &class_counts,
            ..Facts::default()
        };
        (spec.resolve)(&mut settings, &facts)?;
        let mut step = Step::new(device, seed, precision)?;
        let model = (spec.build)(&mut step, &settings, &modalities)?;
        let rows: Vec<u32> = (0..cells as u32).collect();
        let unit = |r: u32| Unit { rows: vec![Some(r); names.len()], confidence: 1.0 };
        let labels: Vec<Vec<f32>> = names.iter().map(|_| rows.iter().map(|r| (r % shape.classes.max(1) as u32) as f32).collect()).collect();
        let (rows, units) = (vec![rows; names.len()], (0..if shape.paired { cells as u32 } else { 0 }).map(unit).collect());
        let stage = model.stages().into_iter().nth(shape.stage);
        let mut plan = stage.as_ref().map_or(model.sampling(), |stage| stage.sampling).plan(seed, batch, rows, units);
        let filled = |(m, modality): (usize, &Modality)| {
            let share = shape.nonzeros.get(m).copied();
            let bound = if share.is_some() { 1.0 } else { 2.0 };
            let mut values = init::uniform(seed, &modality.name, cells * modality.features, bound);
            if let Some(share) = share {
                // Positive, as counts are.
                let kept = init::uniform(seed, &format!("{}.kept", modality.name), values.len(), 1.0);
                values.iter_mut().zip(kept).for_each(|(v, k)| *v = if k.abs() < share { v.abs() } else { 0.0 });
            }
            (modality.features, values, share.is_some())
        };
        let values: Vec<_> = modalities.iter().enumerate().map(filled).collect();
        let feeds = Feeds::of_values(&mut step, &values, plan.slots())?;
        drop(values);
        // Every shape has two modalities.
        let infers = !(spec.inference)(&settings, &modalities)?.is_empty();
        let f = || init::uniform(seed, "F", cells * cells, 1.0).iter().map(|v| v.abs()).collect();
        let inferred = || vec![Some(Inferred::of_values([0, 1], f(), [cells; 2]))];
        let blocks = infers.then(|| Blocks::new(&mut step, inferred(), plan.slots(), plan.batch(), usize::MAX)).transpose()?;
        let labels = (shape.classes > 0).then(|| LabelFeed::new(&mut step, labels, plan.slots())).transpose()?;
        let mut stepper = Stepper::new(&mut step, &*model, Ways { feeds, blocks, labels }, plan.slots(), plan.fully_paired())?;
        if let Some(stage) = stage {
            stepper.enter(&mut step, shape.stage, stage.phases);
        }
        model.begin_epoch(&mut step, 1);
        plan.shuffle(1);
        stepper.begin_epoch(&mut step, &plan, true)?;
        Ok(Bench { step, model, stepper, plan, number: 0 })
    }

    /// One training step.
    pub fn one(&mut self) -> Result<()> {
        let start = self.number as usize % self.plan.steps() * self.plan.batch();
        self.number += 1;
        self.stepper.step(&mut self.step, &*self.model, &self.plan, [self.number; 2], start)?;
        self.step.finish()
    }

    /// Cells of a minibatch.
    pub fn batch(&self) -> usize {
        self.plan.batch() - self.plan.anchors()
    }

    /// The sums of the loss terms so far.
    pub fn losses(&mut self) -> Result<Vec<f64>> {
        self.stepper.sums(&mut self.step)
    }
}

/// Measures `steps` steps.
pub fn run(shape: &'static Shape, device: Device, precision: Precision, batch: usize, steps: usize, threads: usize) -> Result<StepFigure> {
    let described = match &device {
        Device::Cpu(_) => "cpu".to_string(),
        Device::Kernels(k) => k.0.describe(),
    };
    let mut bench = Bench::new(shape, device, precision, batch, 0)?;
    let mut failed = None;
    // On a worker of the pool, as training is.
    let timing = rayon::scope(|_| {
        time(5, steps, || {
            if let Err(e) = bench.one() {
                failed.get_or_insert(e);
            }
        })
    });
    if let Some(e) = failed {
        return Err(e);
    }
    let peak_bytes = if bench.step.on_cpu() { anonymous_memory() } else { bench.step.memory().1 as u64 };
    Ok(StepFigure {
        bench: "step",
        model: shape.model,
        shape: shape.name,
        device: described,
        precision: format!("{precision:?}").to_lowercase(),
        batch: bench.batch(),
        steps,
        threads,
        timing,
        peak_bytes,
    })
}
