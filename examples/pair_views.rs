//! The second lesson: a program that trains a model, translates one view into the other, and measures how well.
//!
//! In `Cargo.toml`: `couplet = { version = "0.1", default-features = false, features = ["models"] }`. Run it with
//!
//! ```text
//! cargo run --release --example pair_views
//! ```

use couplet::data::shuffle::Shuffle;
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::engine::Precision;
use couplet::error::Result;
use couplet::models::{self, settings::Settings};
use couplet::train::{CHECKPOINT_EVERY, Space, TrainRequest, Trained, train};
use std::sync::atomic::AtomicBool;

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("couplet-pair-views-{}", std::process::id()));
    let (data, run) = (folder.join("data"), folder.join("run"));

    // 1. A dataset: here two views of a branching tree; `couplet import`, or `couplet::data::import`, makes one of files.
    simulate(&SimulateSpec { recipe: "branching", cells: Some(400), ..Default::default() }, &data, &mut Hooks::default())?;
    let dataset = Dataset::open(&data)?;

    // 2. The model's options by name, as on the command line.
    let model = models::by_name("coupled")?;
    let names: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
    let mut settings = Settings::new(model.name, model.options, &names)?;
    settings.apply_flags(&["latent=4".into(), "epochs=1500".into()])?;

    // 3. Training. A fifth of the cells is held out; the run can be resumed, embedded and evaluated by the command line too.
    let summary = train(TrainRequest {
        model,
        dataset: &dataset,
        settings: &settings,
        device: Device::cpu(),
        precision: Precision::F32,
        seed: 0,
        holdout: Some("0.2".parse()?),
        paired: 1.0,
        shuffle: Shuffle::Exact,
        labels: None,
        run_dir: run.clone(),
        resume: false,
        stop: &AtomicBool::new(false),
        checkpoint_every: CHECKPOINT_EVERY,
        inferring: &mut |_| {},
        prepared: &mut |p| println!("{} parameters on {}", p.parameters, p.device),
        progress: &mut |_| {},
    })?;
    println!("{} epochs, {} steps", summary.epochs, summary.steps);

    // 4. Using it: the second view of every cell, predicted from the first, row by row; nothing is held in memory.
    let mut trained = Trained::open(&run, Device::cpu())?;
    let mut rows = 0;
    trained.translate(&dataset, 0, 1, Space::Input, &mut |_, features| {
        rows += usize::from(features.iter().all(|v| v.is_finite()));
        Ok(())
    })?;
    println!("{rows} cells translated");

    // 5. How well, on the cells that it never saw.
    let metrics = trained.evaluate(&dataset, None)?;
    for key in ["foscttm", "cross_mse.view1_to_view2", "cross_mse.view1_to_view2.knn"] {
        println!("{key}: {:.4}", metrics.number(key).unwrap_or(f64::NAN));
    }
    std::fs::remove_dir_all(&folder).map_err(|e| couplet::error::Error::io("remove", &folder, e))
}
