//! `coupled`: modalities that do not touch each other where nothing couples them, and the collapse that the paper shows.

use crate::shared::shared;
use crate::training::Training;
use crate::{dataset, left, on_threads, table, two};
use couplet::data::Dataset;
use couplet::data::pairs::PairsRule;
use couplet::device::Device;
use couplet::error::{Error, Result};
use couplet::metrics::{Matrix, collapse::spread};
use couplet::run::{Tensor, load_tensors, save_tensors};
use couplet::train::{TrainSummary, Trained};
use serde_json::json;
use std::fs;
use std::path::Path;

const SMALL: [&str; 5] = ["hidden=16,16", "batch_size=30", "epochs=10", "latent=2", "input_dropout=0.2"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

/// Goes on with a run that has begun.
fn run(dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> Result<TrainSummary> {
    let resume = out.join("checkpoint").exists();
    Ok(Training { resume, ..Training::new("coupled", dataset, device, out, options) }.run()?.0)
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    // Wide enough that products, masks and Adam are cut for several threads.
    let data = two(dir.path(), [80, 80], [900, 40], PairsRule::ByName);
    let of = |threads: usize| {
        let out = dir.path().join(format!("run{threads}"));
        on_threads(threads, || run(&data, Device::cpu(), &out, &with(&["hidden.a=64,64"]))).unwrap();
        left(&out, &["model.safetensors", "embedding.a.npy"])
    };
    let one = of(1);
    for threads in [2, 3] {
        assert!(of(threads) == one, "{threads} threads end elsewhere than one");
    }
}

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses_for_twenty_steps() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [60, 60], [37, 11], PairsRule::ByName);
    for coupling in ["min-singular-value", "full-covariance"] {
        let (coupled, options) = (format!("coupling={coupling}"), with(&["noise_sd=0.05", "activation=elu"]));
        // f32 rounding, carried through up to 20 steps of Adam
        crate::kernels_agree(dir.path(), coupling, 2e-5, 1e-3, |device, out| {
            let summary = run(&data, device, out, &[&options[..], &[&coupled]].concat()).unwrap();
            assert_eq!(summary.steps, 20);
        });
    }
}

#[test]
fn without_coupling_a_modality_trains_as_if_the_other_were_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let a = table(dir.path(), "a", 1, 60, 30);
    let [with_b, with_c] = [("b", 2, 20), ("c", 3, 25)].map(|(name, salt, features)| {
        let other = table(dir.path(), name, salt, 60, features);
        let data = dataset(dir.path(), &format!("with-{name}"), &[("a", &a), (name, &other)], PairsRule::ByName);
        let out = dir.path().join(format!("run-{name}"));
        run(&data, Device::cpu(), &out, &with(&["lambda=0"])).unwrap();
        fs::read(out.join("embedding.a.npy")).unwrap()
    });
    assert!(with_b == with_c, "the embedding of a depends on a modality that it is not coupled to");
}

#[test]
fn the_order_of_three_modalities_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let files =
        [("a", 1, 30), ("b", 2, 20), ("c", 3, 25)].map(|(name, salt, features)| (name, table(dir.path(), name, salt, 60, features)));
    let losses = |order: [usize; 3]| {
        let modalities = order.map(|i| (files[i].0, files[i].1.as_path()));
        let name = format!("order{order:?}");
        let data = dataset(dir.path(), &name, &modalities, PairsRule::ByName);
        let out = dir.path().join(format!("run-{name}"));
        let summary = run(&data, Device::cpu(), &out, &with(&["epochs=3", "lambda.a_b=2", "lambda.b_c=0.5"])).unwrap();
        summary.last.iter().map(|(term, v)| (term.clone(), *v)).collect::<Vec<_>>()
    };
    let (first, turned) = (losses([0, 1, 2]), losses([2, 0, 1]));
    for (term, value) in first {
        // A pair is named in the order of its modalities.
        let other = term.strip_prefix("coupling.").and_then(|p| p.split_once('_')).map(|(a, b)| format!("coupling.{b}_{a}"));
        let found = turned.iter().find(|(t, _)| *t == term || Some(t) == other.as_ref()).unwrap_or_else(|| panic!("{term} is missing"));
        assert!((found.1 - value).abs() <= 1e-5 * value.abs().max(1e-3), "{term}: {value} and {}", found.1);
    }
}

#[test]
fn unpaired_modalities_train_without_a_coupling() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [60, 45], [30, 20], PairsRule::None);
    let out = dir.path().join("run");
    let summary = run(&data, Device::cpu(), &out, &with(&["epochs=100"])).unwrap();
    let last = |term: &str| summary.last.iter().find(|(t, _)| t == term).unwrap().1;
    assert_eq!((last("coupling.a_b"), last("cross.a_to_b")), (0.0, 0.0));
    assert!(last("recon.a") < 0.9 && last("recon.b") < 0.9, "{:?}", summary.last);
}

#[test]
fn a_process_that_is_killed_within_an_epoch_loses_no_bit_of_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [80, 80], [20, 11], PairsRule::ByName);
    let (out, left_behind) = (dir.path().join("whole"), dir.path().join("killed"));
    let options = with(&[]);
    let kept = |epoch: usize, step: u64| {
        if step == 1 {
            // Told again after a tenth of a second, when the first step's checkpoint is written.
            std::thread::sleep(std::time::Duration::from_millis(150));
        } else if epoch == 1 {
            fs::create_dir_all(left_behind.join("checkpoint")).unwrap();
            for file in ["config.toml", "checkpoint/state.safetensors"] {
                fs::copy(out.join(file), left_behind.join(file)).unwrap();
            }
        }
        false
    };
    let training = Training::new("coupled", &data, Device::cpu(), &out, &options);
    Training { checkpoint_every: std::time::Duration::ZERO, stop: &kept, ..training }.run().unwrap();
    let saved = load_tensors(&left_behind.join("checkpoint/state.safetensors")).unwrap();
    let at: serde_json::Value = saved.record().unwrap();
    assert_eq!((at["epoch"].as_u64(), at["done"].as_u64()), (Some(1), Some(1)));
    run(&data, Device::cpu(), &left_behind, &options).unwrap();
    assert!(left(&left_behind, &["model.safetensors"]) == left(&out, &["model.safetensors"]));
}

#[test]
fn a_loss_that_is_not_finite_names_step_term_and_operation() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [60, 60], [30, 20], PairsRule::ByName);
    let devices: Vec<(&str, Device)> = vec![
        ("cpu", Device::cpu()),
        #[cfg(feature = "emulated")]
        ("emulated", Device::emulated(2)),
    ];
    for (name, device) in devices {
        let error = run(&data, device, &dir.path().join(name), &with(&["lr=1e30"])).unwrap_err();
        let Error::Diverged { step, term, op } = &error else { panic!("{name}: {error}") };
        assert!(*step >= 2 && term == "recon.a" && op == "linear", "{name}: {error}");
    }
}

#[test]
fn a_checkpoint_with_impossible_counters_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [40, 40], [6, 5], PairsRule::ByName);
    let out = dir.path().join("run");
    run(&data, Device::cpu(), &out, &SMALL).unwrap();
    let path = out.join("checkpoint/state.safetensors");
    let saved = load_tensors(&path).unwrap();
    let tensors: Vec<Tensor> = saved.names().map(|n| (n.to_string(), saved.get(n).unwrap().0, saved.get(n).unwrap().1.to_vec())).collect();
    let record: serde_json::Value = saved.record().unwrap();
    for (key, value) in
        [("epoch", json!(0)), ("epoch", json!(u64::MAX)), ("done", json!(1u64 << 40)), ("best_epoch", json!(u64::MAX)), ("sums", json!([]))]
    {
        let mut changed = record.clone();
        changed[key] = value.clone();
        save_tensors(&path, &tensors, &changed).unwrap();
        let e = run(&data, Device::cpu(), &out, &SMALL).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("state.safetensors") && e.to_string().contains("delete it, and --resume"), "{key} = {value}: {e}");
    }
    save_tensors(&path, &tensors, &record).unwrap();
    run(&data, Device::cpu(), &out, &SMALL).unwrap();
}

/// Figure 1B of Gala et al. 2019: both modalities are the same digits, and dropout makes the views differ.
#[test]
fn codes_shrink_without_normalisation_and_collapse_with_batch_norm_alone() {
    let Some(images) = shared("mnist/images.npy") else { return };
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), "data", &[("a", &images), ("b", &images)], PairsRule::ByRow);
    let of = |coupling: &str| {
        let out = dir.path().join(coupling);
        let coupling = format!("coupling={coupling}");
        let options = [
            &coupling,
            "lambda=1",
            "floor=0",
            "latent=2",
            "hidden=49,49,49",
            "output_activation=sigmoid",
            "input_dropout=0.4",
            "noise_sd=0",
            "cross_modal=false",
            "preprocess=minmax-cell",
            "batch_size=150",
            "epochs=20",
        ];
        run(&data, Device::cpu(), &out, &options).unwrap();
        let mut trained = Trained::open(&out, Device::cpu()).unwrap();
        let mut z = Vec::new();
        let mut sink = |_: usize, row: &[f32]| {
            z.extend_from_slice(row);
            Ok(())
        };
        trained.embed(&data, 0, &mut sink).unwrap();
        let rows: Vec<u32> = (0..data.modality(0).cells() as u32).collect();
        let c = spread(Matrix::new(&z, rows.len(), 2), &rows).unwrap();
        (c.rms, c.ratio)
    };
    let (rms, _) = of("plain");
    assert!(rms < 0.1, "plain: rms {rms}");
    let (rms, ratio) = of("batch-norm");
    assert!(rms > 0.85 && ratio < 0.1, "batch-norm: rms {rms}, ratio {ratio}");
    for (coupling, least) in [("full-covariance", 0.5), ("min-singular-value", 0.9)] {
        let (rms, ratio) = of(coupling);
        assert!(rms > 0.85 && ratio > least, "{coupling}: rms {rms}, ratio {ratio}");
    }
}
