//! What a training on non-zeros alone promises, for every model that reads features: the losses of the dense training to rounding, the same
//! bits on any number of threads and after a stop, the same losses on the kernels, and a sentence where rows are not sparse.

use couplet::data::shuffle::Shuffle;
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::engine::Precision;
use couplet::error::Result;
use couplet::models::{self, settings::Settings};
use couplet::train::{TrainRequest, train};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Counts of the same 90 features, mostly zeros, of two modalities that have types of their own.
fn data(dir: &Path, recipe: &str, like: Option<&str>, cells: usize) -> Dataset {
    let out = dir.join(recipe);
    let features: &[usize] = if like.is_some() { &[90, 130] } else { &[] };
    let spec = SimulateSpec { recipe, cells: Some(cells), seed: 3, like, features };
    simulate(&spec, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

/// Stops after so many steps.
fn run(model: &str, dataset: &Dataset, device: Device, out: &Path, options: &[&str], steps: u64, resume: bool) -> Result<[bool; 2]> {
    let model = models::by_name(model)?;
    let names: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
    let mut settings = Settings::new(model.name, model.options, &names)?;
    settings.apply_flags(&options.iter().map(|o| o.to_string()).collect::<Vec<_>>())?;
    let (stop, mut sparse) = (AtomicBool::new(steps == 0), [false; 2]);
    train(TrainRequest {
        model,
        dataset,
        settings: &settings,
        device,
        precision: Precision::F32,
        seed: 5,
        holdout: None,
        paired: 1.0,
        labels: None,
        shuffle: Shuffle::Exact,
        run_dir: out.to_path_buf(),
        resume,
        stop: &stop,
        inferring: &mut |_| {},
        prepared: &mut |p| sparse = [0, 1].map(|m| p.modalities[m].sparse),
        progress: &mut |p| {
            if p.step >= steps {
                stop.store(true, Ordering::Relaxed);
            }
        },
    })?;
    Ok(sparse)
}

/// `history.csv`'s losses, of every epoch.
fn losses(run: &Path) -> Vec<Vec<f64>> {
    let text = fs::read_to_string(run.join("history.csv")).unwrap();
    text.lines().skip(1).map(|l| l.split(',').skip(2).map(|v| v.parse().unwrap()).collect()).collect()
}

const MODELS: [(&str, &[&str]); 4] = [
    ("coupled", &["hidden=20", "latent=3", "batch_size=40", "epochs=4"]),
    ("jamie", &["pca_dim=0", "align=0", "latent=4", "batch_size=40", "epochs=4"]),
    ("cross-modal", &["width=24", "hidden=12", "latent=6", "class=none", "batch_size=40", "epochs=4"]),
    ("scican", &["hidden=24", "latent=8", "disc_code=6", "disc_profile=10", "batch_size=64", "epochs=5"]),
];

fn each(dir: &Path, mut f: impl FnMut(&str, &Dataset, &[&str])) {
    let (atlas, domains) = (data(dir, "atlas", Some("multiome"), 200), data(dir, "two-domain", None, 256));
    for (model, options) in MODELS {
        f(model, if model == "scican" { &domains } else { &atlas }, options);
    }
}

#[test]
fn twenty_steps_on_non_zeros_are_those_on_dense_rows_to_rounding() {
    let dir = tempfile::tempdir().unwrap();
    each(dir.path(), |model, dataset, options| {
        let of = |sparse: &str, device: Device| {
            let out = dir.path().join(format!("{model}-{sparse}-{}", device.describe().len()));
            let fed = run(model, dataset, device, &out, &[options, &[sparse]].concat(), u64::MAX, false).unwrap();
            assert_eq!(fed, [sparse.ends_with("always"); 2], "{model}");
            losses(&out)
        };
        let close = |a: &[Vec<f64>], b: &[Vec<f64>], what: &str| {
            assert_eq!(a.len(), b.len());
            for (epoch, (a, b)) in a.iter().zip(b).enumerate() {
                for (x, y) in a.iter().zip(b) {
                    // Adam divides small gradients by their size, so rounding grows with the steps.
                    assert!((x - y).abs() <= 2e-3 * y.abs().max(0.05), "{model}, {what}, epoch {epoch}: {a:?} for {b:?}");
                }
            }
        };
        let dense = of("sparse=never", Device::cpu());
        close(&of("sparse=always", Device::cpu()), &dense, "sparse");
        let first = &dense[0];
        assert!(dense.last().unwrap().iter().zip(first).any(|(a, b)| (a - b).abs() > 1e-3), "{model} learns nothing in these steps");
    });
}

#[test]
fn the_number_of_threads_and_a_stop_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    each(dir.path(), |model, dataset, options| {
        let of = |name: &str, threads: usize, stops: &[u64]| {
            let out = dir.path().join(format!("{model}-{name}"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                for (i, &steps) in stops.iter().enumerate() {
                    run(model, dataset, Device::cpu(), &out, &[options, &["sparse=always"]].concat(), steps, i > 0).unwrap();
                }
            });
            (losses(&out), fs::read(out.join("model.safetensors")).unwrap())
        };
        let one = of("one", 1, &[u64::MAX]);
        assert!(of("two", 2, &[u64::MAX]) == one, "{model}: two threads end elsewhere than one");
        assert!(of("stopped", 2, &[0, 1, 5, u64::MAX]) == one, "{model}: stopped and resumed ends elsewhere");
    });
}

#[test]
#[cfg(feature = "emulated")]
fn the_kernels_find_the_processors_losses() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = data(dir.path(), "two-domain", None, 64);
    let options = ["hidden=12", "latent=4", "disc_code=4", "disc_profile=6", "batch_size=32", "epochs=2", "sparse=always"];
    let of = |name: &str, device: Device| {
        let out = dir.path().join(name);
        run("scican", &dataset, device, &out, &options, u64::MAX, false).unwrap();
        losses(&out)
    };
    let (cpu, kernels) = (of("cpu", Device::cpu()), of("emulated", Device::emulated(1)));
    for (a, b) in cpu.iter().flatten().zip(kernels.iter().flatten()) {
        assert!((a - b).abs() <= 1e-3 * b.abs().max(0.05), "{cpu:?} for {kernels:?}");
    }
}

#[test]
fn auto_goes_by_the_share_of_zeros_and_always_says_what_stands_in_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = data(dir.path(), "atlas", Some("multiome"), 120);
    let share = |m: usize| {
        let m = dataset.modality(m);
        m.facts().nonzeros as f64 / (m.cells() * m.features()) as f64
    };
    let options = ["hidden=20", "latent=3", "batch_size=40", "epochs=1"];
    let fed = run("coupled", &dataset, Device::cpu(), &dir.path().join("auto"), &options, u64::MAX, false).unwrap();
    assert_eq!(fed, [0, 1].map(|m| share(m) <= couplet::train::feed::SPARSE));
    let config = fs::read_to_string(dir.path().join("auto/config.toml")).unwrap();
    assert!(config.contains("sparse") && !config.contains("sparse = \"auto\""), "{config}");
    let options = [&options[..], &["sparse=always", "preprocess=standardise,minmax-cell"]].concat();
    let e = run("coupled", &dataset, Device::cpu(), &dir.path().join("not"), &options, u64::MAX, false).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("its rows are not sparse after"), "{e}");
    assert!(!dir.path().join("not").exists());
}
