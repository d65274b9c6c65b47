//! A small dataset and a finished run of every model on it, made once a process: what a mutated model or checkpoint belongs to.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use couplet::data::import::{ImportSpec, LabelSource, import};
use couplet::data::shuffle::Shuffle;
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::engine::Precision;
use couplet::error::Result;
use couplet::models::{self, settings::Settings};
use couplet::train::{CHECKPOINT_EVERY, TrainRequest, train};

use crate::{modality, root};

/// The models and the options that make them small.
pub const MODELS: [(&str, &[&str]); 5] = [
    ("coupled", &["hidden=4,4", "latent=2", "batch_size=8"]),
    ("jamie", &["latent=2", "batch_size=8", "steps=20"]),
    ("cross-modal", &["hidden=4", "latent=2", "batch_size=8"]),
    ("scican", &["hidden=4", "latent=2", "disc_code=2", "disc_profile=2", "batch_size=8"]),
    ("apollo", &["width=4", "latent=2", "latent_specific=1", "epochs2=1", "batch_size=8"]),
];
const CELLS: usize = 24;

/// What the runs were trained on, and their folders in the order of [`MODELS`].
pub struct Runs {
    /// Two modalities of 5 and 3 features and a label.
    pub dataset: Dataset,
    /// A RUN each, of one epoch.
    pub dirs: Vec<PathBuf>,
}

/// Trains all on the first call.
pub fn runs() -> &'static Runs {
    static RUNS: OnceLock<Runs> = OnceLock::new();
    RUNS.get_or_init(|| {
        let dir = root().join("runs");
        fs::create_dir_all(&dir).expect("a folder");
        let dataset = dataset(&dir).expect("a dataset");
        let mut dirs = Vec::new();
        for (name, options) in MODELS {
            dirs.push(dir.join(name));
            run(name, options, 1, &dataset, &dir.join(name), false).expect(name);
        }
        Runs { dataset, dirs }
    })
}

/// Trains a model for so many epochs.
pub fn run(model: &str, options: &[&str], epochs: usize, dataset: &Dataset, dir: &Path, resume: bool) -> Result<()> {
    let model = models::by_name(model)?;
    let names: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
    let mut settings = Settings::new(model.name, model.options, &names)?;
    let flags: Vec<String> = options.iter().map(|o| o.to_string()).chain([format!("epochs={epochs}")]).collect();
    settings.apply_flags(&flags)?;
    train(TrainRequest {
        model,
        dataset,
        settings: &settings,
        device: Device::cpu(),
        precision: Precision::F32,
        seed: 0,
        holdout: None,
        paired: 1.0,
        shuffle: Shuffle::Exact,
        labels: None,
        run_dir: dir.to_path_buf(),
        resume,
        stop: &AtomicBool::new(false),
        checkpoint_every: CHECKPOINT_EVERY,
        inferring: &mut |_| {},
        prepared: &mut |_| {},
        progress: &mut |_| {},
    })?;
    Ok(())
}

fn dataset(dir: &Path) -> Result<Dataset> {
    let table = |name: &str, features: usize| {
        let mut text = String::from("cell");
        (0..features).for_each(|f| write!(text, ",g{f}").expect("text"));
        for cell in 0..CELLS {
            write!(text, "\nc{cell}").expect("text");
            (0..features).for_each(|f| write!(text, ",{:.3}", ((cell * (f + 2) + features) as f32).sin()).expect("text"));
        }
        let path = dir.join(format!("{name}.csv"));
        fs::write(&path, text + "\n").expect("a file");
        path
    };
    let modalities = vec![modality("x", table("x", 5), None), modality("y", table("y", 3), None)];
    let labels = dir.join("labels.csv");
    let lines: String = (0..CELLS).map(|cell| format!("c{cell},{}\n", ["a", "b"][cell % 2])).collect();
    fs::write(&labels, format!("cell,kind\n{lines}")).expect("a file");
    let labels = vec![LabelSource { modality: None, file: labels, column: None }];
    import(&ImportSpec { modalities, labels, ..Default::default() }, &dir.join("data"), &mut Hooks::default())?;
    Dataset::open(&dir.join("data"))
}
