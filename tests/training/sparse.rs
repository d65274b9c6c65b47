//! Training on non-zeros alone, for every model that reads features: the losses of the dense training to rounding, and a sentence where rows
//! are not sparse.

use crate::training::Training;
use crate::{agree, history, simulated, threads_and_stops_change_no_bit};
use couplet::data::formats::{ModalitySource, RowsAre};
use couplet::data::import::{ImportSpec, import};
use couplet::data::pairs::PairsRule;
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::error::Result;
use couplet::train::Trained;
use std::fs;
use std::path::Path;

/// Counts, mostly zeros, of two modalities.
fn atlas(dir: &Path, cells: usize) -> Dataset {
    let out = dir.join("atlas");
    let spec = SimulateSpec { recipe: "atlas", cells: Some(cells), seed: 3, like: Some("multiome"), features: &[90, 130] };
    simulate(&spec, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

/// Which modalities were fed without their zeros.
fn run(model: &str, dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> Result<Vec<bool>> {
    Ok(Training::new(model, dataset, device, out, options).run()?.1)
}

const MODELS: [(&str, &[&str]); 4] = [
    ("coupled", &["hidden=20", "latent=3", "batch_size=40", "epochs=4"]),
    ("jamie", &["pca_dim=0", "align=0", "latent=4", "batch_size=40", "epochs=4"]),
    ("cross-modal", &["width=24", "hidden=12", "latent=6", "class=none", "batch_size=40", "epochs=4"]),
    ("scican", &["hidden=24", "latent=8", "disc_code=6", "disc_profile=10", "batch_size=64", "epochs=5"]),
];

fn each(dir: &Path, mut f: impl FnMut(&str, &Dataset, &[&str])) {
    let (atlas, domains) = (atlas(dir, 200), simulated(dir, "two-domain", 256));
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
            let fed = run(model, dataset, device, &out, &[options, &[sparse]].concat()).unwrap();
            assert_eq!(fed, [sparse.ends_with("always"); 2], "{model}");
            history(&out)
        };
        let dense = of("sparse=never", Device::cpu());
        // Adam divides small gradients by their size, so rounding grows with the steps.
        agree(model, &of("sparse=always", Device::cpu()), &dense, 2e-3, 0.05);
        let losses = |row: &[String]| row[1..].iter().map(|v| v.parse().unwrap()).collect::<Vec<f64>>();
        let (first, last) = (losses(&dense[1]), losses(dense.last().unwrap()));
        assert!(last.iter().zip(first).any(|(a, b)| (a - b).abs() > 1e-3), "{model} learns nothing in these steps");
    });
}

#[test]
fn the_number_of_threads_and_a_stop_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    each(dir.path(), |model, dataset, options| {
        let options = [options, &["sparse=always"]].concat();
        threads_and_stops_change_no_bit(dir.path(), model, &[0, 1, 5], &["model.safetensors"], |out, steps, resume| {
            let training = Training::new(model, dataset, Device::cpu(), out, &options);
            Training { resume, stop: &|_, done| done >= steps, ..training }.run().unwrap();
        });
    });
}

/// Of all cells of both modalities.
fn codes(run: &mut Trained, dataset: &Dataset) -> Vec<f32> {
    let mut all = Vec::new();
    for m in 0..2 {
        let mut keep = |_: usize, z: &[f32]| {
            all.extend_from_slice(z);
            Ok(())
        };
        run.embed(dataset, m, &mut keep).unwrap();
    }
    all
}

/// Two modalities of `cells` cells and 90 features, of which each cell shows as many.
fn counts(dir: &Path, cells: usize, shown: usize) -> Dataset {
    let file = |name: &str, step: usize| {
        let mut text = format!("%%MatrixMarket matrix coordinate integer general\n{cells} 90 {}\n", cells * shown);
        for cell in 0..cells {
            let mut features: Vec<usize> = (0..shown).map(|i| (cell * step + i * 4) % 90).collect();
            features.sort();
            features.iter().for_each(|f| text += &format!("{} {} {}\n", cell + 1, f + 1, 1 + (cell + f) % 5));
        }
        let file = dir.join(format!("{name}-{cells}.mtx"));
        fs::write(&file, text).unwrap();
        ModalitySource { name: name.into(), file, key: None }
    };
    let out = dir.join(format!("counts-{cells}"));
    let modalities = vec![file("a", 7), file("b", 11)];
    let spec = ImportSpec { modalities, pairs: Some(PairsRule::ByRow), rows: Some(RowsAre::Cells), ..ImportSpec::default() };
    import(&spec, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

#[test]
fn another_dataset_whose_rows_are_fuller_is_embedded_by_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    // As many rows as pass at once, each with more non-zeros than any that the run was trained on.
    let (few, many) = (counts(dir.path(), 50, 3), counts(dir.path(), 1100, 20));
    let out = dir.path().join("run");
    run("coupled", &few, Device::cpu(), &out, &["hidden=20", "latent=3", "batch_size=40", "epochs=1", "sparse=always"]).unwrap();
    let mut trained = Trained::open(&out, Device::cpu()).unwrap();
    codes(&mut trained, &few);
    assert!(codes(&mut trained, &many) == codes(&mut Trained::open(&out, Device::cpu()).unwrap(), &many));
}

#[test]
fn codes_of_non_zeros_are_those_of_dense_rows_to_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let mut ways = 0;
    each(dir.path(), |model, dataset, options| {
        let out = dir.path().join(format!("{model}-codes"));
        run(model, dataset, Device::cpu(), &out, &[options, &["sparse=always"]].concat()).unwrap();
        let codes = || codes(&mut Trained::open(&out, Device::cpu()).unwrap(), dataset);
        let sparse = codes();
        let config = fs::read_to_string(out.join("config.toml")).unwrap();
        fs::write(out.join("config.toml"), config.replace("sparse = \"always\"", "sparse = \"never\"")).unwrap();
        let dense = codes();
        let size = dense.iter().map(|z| z.abs()).fold(0.0, f32::max);
        assert!(sparse.len() == dense.len() && size > 0.0);
        assert!(sparse.iter().zip(&dense).all(|(a, b)| (a - b).abs() <= 1e-5 * size), "{model}");
        ways += usize::from(sparse != dense);
    });
    assert!(ways > 0, "no bit differs anywhere: rows went densely");
}

#[test]
#[cfg(feature = "emulated")]
fn the_kernels_find_the_processors_losses() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = simulated(dir.path(), "two-domain", 64);
    let options = ["hidden=12", "latent=4", "disc_code=4", "disc_profile=6", "batch_size=32", "epochs=2", "sparse=always"];
    crate::kernels_agree(dir.path(), "two-domain", 1e-3, 0.05, |device, out| {
        run("scican", &dataset, device, out, &options).unwrap();
    });
}

#[test]
fn auto_goes_by_the_share_of_zeros_and_always_says_what_stands_in_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = atlas(dir.path(), 120);
    let share = |m: usize| {
        let m = dataset.modality(m);
        m.facts().nonzeros as f64 / (m.cells() * m.features()) as f64
    };
    let options = ["hidden=20", "latent=3", "batch_size=40", "epochs=1"];
    let fed = run("coupled", &dataset, Device::cpu(), &dir.path().join("auto"), &options).unwrap();
    assert_eq!(fed, [0, 1].map(|m| share(m) <= couplet::train::feed::SPARSE));
    let config = fs::read_to_string(dir.path().join("auto/config.toml")).unwrap();
    assert!(config.contains("sparse") && !config.contains("sparse = \"auto\""), "{config}");
    let options = [&options[..], &["sparse=always", "preprocess=standardise,minmax-cell"]].concat();
    let e = run("coupled", &dataset, Device::cpu(), &dir.path().join("not"), &options).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("its rows are not sparse after"), "{e}");
    assert!(!dir.path().join("not").exists());
}
