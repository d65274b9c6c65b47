//! What a whole training of `coupled` promises, from a dataset to the embedding: the same bits on any number of threads, the same
//! losses on the kernels, modalities that do not touch each other where nothing couples them, and the collapse that the paper shows.

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportSpec, import};
use couplet::data::pairs::PairsRule;
use couplet::data::shuffle::Shuffle;
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::engine::{Precision, init};
use couplet::error::{Error, Result};
use couplet::metrics::{Matrix, collapse::spread};
use couplet::models::{self, settings::Settings};
use couplet::run::{Tensor, load_tensors, save_tensors};
use couplet::train::{TrainRequest, TrainSummary, Trained, train};
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A CSV of `cells` cells whose features are waves of two numbers that a cell has, each seen through noise of its own.
fn table(dir: &Path, name: &str, salt: u64, cells: usize, features: usize) -> PathBuf {
    let truth = init::uniform(3, "truth", 2 * cells, 1.0);
    let shape = init::uniform(salt, "shape", 3 * features, 3.0);
    let noise = init::uniform(salt, "noise", cells * features, 0.1);
    let mut text = (0..features).fold("cell".to_string(), |t, f| t + &format!(",{name}{f}"));
    for c in 0..cells {
        write!(text, "\nc{c}").unwrap();
        for f in 0..features {
            let [a, b, shift] = [0, 1, 2].map(|i| shape[3 * f + i]);
            write!(text, ",{}", (a * truth[2 * c] + b * truth[2 * c + 1] + shift).sin() + noise[c * features + f]).unwrap();
        }
    }
    let path = dir.join(format!("{name}-{salt}.csv"));
    fs::write(&path, text).unwrap();
    path
}

fn dataset(dir: &Path, name: &str, modalities: &[(&str, &Path)], pairs: PairsRule) -> Dataset {
    let source = |(name, file): &(&str, &Path)| ModalitySource { name: name.to_string(), file: file.to_path_buf(), key: None };
    let spec = ImportSpec { modalities: modalities.iter().map(source).collect(), pairs: Some(pairs), ..ImportSpec::default() };
    let out = dir.join(name);
    import(&spec, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

fn run(dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> Result<TrainSummary> {
    run_model("coupled", dataset, device, out, options)
}

fn run_model(model: &str, dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> Result<TrainSummary> {
    let model = models::by_name(model)?;
    let names: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
    let mut settings = Settings::new(model.name, model.options, &names)?;
    settings.apply_flags(&options.iter().map(|o| o.to_string()).collect::<Vec<_>>())?;
    train(TrainRequest {
        model,
        dataset,
        settings: &settings,
        device,
        precision: Precision::F32,
        seed: 5,
        holdout: None,
        paired: 1.0,
        shuffle: Shuffle::Exact,
        labels: None,
        run_dir: out.to_path_buf(),
        resume: out.join("checkpoint").exists(),
        stop: &AtomicBool::new(false),
        inferring: &mut |_| {},
        prepared: &mut |_| {},
        progress: &mut |_| {},
    })
}

/// `history.csv` without the column of seconds.
fn history(run: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(run.join("history.csv")).unwrap();
    text.lines().map(|l| l.split(',').enumerate().filter(|(i, _)| *i != 1).map(|(_, f)| f.to_string()).collect()).collect()
}

const SMALL: [&str; 5] = ["hidden=16,16", "batch_size=30", "epochs=10", "latent=2", "input_dropout=0.2"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    // Wide enough that products, masks and Adam are cut for several threads.
    let (a, b) = (table(dir.path(), "a", 1, 80, 900), table(dir.path(), "b", 2, 80, 40));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::ByName);
    let of = |threads: usize| {
        let out = dir.path().join(format!("run{threads}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&data, Device::cpu(), &out, &with(&["hidden.a=64,64"]))).unwrap();
        (history(&out), fs::read(out.join("model.safetensors")).unwrap(), fs::read(out.join("embedding.a.npy")).unwrap())
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
    let (a, b) = (table(dir.path(), "a", 1, 60, 37), table(dir.path(), "b", 2, 60, 11));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::ByName);
    for coupling in ["min-singular-value", "full-covariance"] {
        let [cpu, emulated] = [("cpu", Device::cpu()), ("emulated", Device::emulated(9))].map(|(name, device)| {
            let out = dir.path().join(format!("{coupling}-{name}"));
            let options = with(&["noise_sd=0.05", "activation=elu"]);
            let summary = run(&data, device, &out, &[&options[..], &[&format!("coupling={coupling}")]].concat()).unwrap();
            assert_eq!(summary.steps, 20);
            history(&out)
        });
        assert_eq!(cpu[0], emulated[0]);
        for (row, (c, e)) in cpu[1..].iter().zip(&emulated[1..]).enumerate() {
            for (name, (c, e)) in cpu[0].iter().zip(c.iter().zip(e)) {
                let (c, e): (f64, f64) = (c.parse().unwrap(), e.parse().unwrap());
                // f32 rounding, carried through up to 20 steps of Adam
                assert!((c - e).abs() <= 2e-5 * c.abs().max(1e-3), "{coupling}, epoch {}, {name}: {c} and {e}", row + 1);
            }
        }
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
    let (a, b) = (table(dir.path(), "a", 1, 60, 30), table(dir.path(), "b", 2, 45, 20));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::None);
    let out = dir.path().join("run");
    let summary = run(&data, Device::cpu(), &out, &with(&["epochs=100"])).unwrap();
    let last = |term: &str| summary.last.iter().find(|(t, _)| t == term).unwrap().1;
    assert_eq!((last("coupling.a_b"), last("cross.a_to_b")), (0.0, 0.0));
    assert!(last("recon.a") < 0.9 && last("recon.b") < 0.9, "{:?}", summary.last);
}

#[test]
fn a_loss_that_is_not_finite_names_step_term_and_operation() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (table(dir.path(), "a", 1, 60, 30), table(dir.path(), "b", 2, 60, 20));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::ByName);
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
    let (a, b) = (table(dir.path(), "a", 1, 40, 6), table(dir.path(), "b", 2, 40, 5));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::ByName);
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

#[test]
fn jamie_brings_the_views_of_a_cell_together_and_translates_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (table(dir.path(), "a", 1, 120, 24), table(dir.path(), "b", 2, 120, 15));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::ByName);
    let of = |threads: usize| {
        let out = dir.path().join(format!("run{threads}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let summary = pool
            .install(|| run_model("jamie", &data, Device::cpu(), &out, &["epochs=400", "latent=8", "batch_size=50", "dropout=0.05"]))
            .unwrap();
        assert_eq!(summary.steps, 800, "two minibatches of 50 cells an epoch");
        (history(&out), fs::read(out.join("model.safetensors")).unwrap())
    };
    assert!(of(1) == of(2), "two threads end elsewhere than one");
    let mut trained = Trained::open(&dir.path().join("run1"), Device::cpu()).unwrap();
    let metrics = trained.evaluate(&data, None).unwrap();
    let value = |key: &str| metrics.number(key).unwrap_or_else(|| panic!("{key} is absent"));
    assert!(value("foscttm") < 0.02, "{}", value("foscttm"));
    assert!(value("cross_mse.a_to_b") < 0.5 && value("cross_mse.b_to_a") < 0.5, "{}", value("cross_mse.a_to_b"));
}

/// Two views of 60 cells with three classes, 40 of them paired.
fn labelled(dir: &Path) -> Dataset {
    let (a, b) = (table(dir, "a", 1, 60, 13), table(dir, "b", 2, 50, 9));
    let (labels, pairs) = (dir.join("labels.csv"), dir.join("pairs.csv"));
    // Every seventh cell is unlabelled.
    let label = |i: usize| if i % 7 == 6 { String::new() } else { format!("t{}", i % 3) };
    fs::write(&labels, (0..60).fold("cell,type,age".to_string(), |t, i| t + &format!("\nc{i},{},{}", label(i), i * i))).unwrap();
    fs::write(&pairs, (0..40).fold("a,b".to_string(), |t, i| t + &format!("\nc{i},c{i}"))).unwrap();
    let source = |name: &str, file: &Path| ModalitySource { name: name.into(), file: file.to_path_buf(), key: None };
    let modalities = vec![source("a", &a), source("b", &b)];
    let spec = ImportSpec {
        labels: vec![couplet::data::import::LabelSource::parse(labels.to_str().unwrap(), &modalities)],
        modalities,
        pairs: Some(PairsRule::File(pairs)),
        ..ImportSpec::default()
    };
    import(&spec, &dir.join("data"), &mut Hooks::default()).unwrap();
    Dataset::open(&dir.join("data")).unwrap()
}

const ADVERSARIAL: [&str; 6] = ["epochs=6", "latent=4", "batch_size=20", "hidden=12", "anchor_pairs=10", "lr=0.001"];

#[test]
fn cross_modal_trains_with_classes_and_anchors_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let data = labelled(dir.path());
    let of = |threads: usize| {
        let out = dir.path().join(format!("run{threads}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = [&ADVERSARIAL[..], &["epochs=150", "w_anch=10"]].concat();
        let summary = pool.install(|| run_model("cross-modal", &data, Device::cpu(), &out, &options)).unwrap();
        assert_eq!(summary.steps, 450, "three minibatches of 20 cells an epoch");
        (history(&out), fs::read(out.join("model.safetensors")).unwrap())
    };
    let one = of(1);
    assert!(one == of(2), "two threads end elsewhere than one");
    let (head, last) = (&one.0[0], one.0.last().unwrap());
    let value = |name: &str, row: &[String]| row[head.iter().position(|h| h == name).unwrap()].parse::<f64>().unwrap();
    for term in ["recon.a", "recon.b", "class.a", "class.b", "anchor.a_b"] {
        assert!(value(term, last) < 0.8 * value(term, &one.0[1]), "{term}: {} and {}", value(term, &one.0[1]), value(term, last));
    }
    // The discriminator never wins for good: both sides stay near what it cannot tell apart.
    assert!(value("disc.a_b.a", last) > 0.02 && value("fool.a_b.a", last) < 0.9, "{last:?}");
    let metrics = Trained::open(&dir.path().join("run1"), Device::cpu()).unwrap().evaluate(&data, None).unwrap();
    assert!(metrics.number("head_accuracy.a").unwrap() > 0.45, "{:?}", metrics.number("head_accuracy.a"));
}

#[test]
fn cross_modal_takes_every_switch() {
    let dir = tempfile::tempdir().unwrap();
    let data = labelled(dir.path());
    let of = |name: &str, options: &[&str], wanted: &[&str], unwanted: &[&str]| {
        let out = dir.path().join(name);
        run_model("cross-modal", &data, Device::cpu(), &out, &[&ADVERSARIAL[..], options].concat()).unwrap();
        let head = history(&out)[0].clone();
        let has = |term: &&str| head.iter().any(|h| h == term);
        assert!(wanted.iter().all(has) && !unwanted.iter().any(has), "{name}: {head:?}");
        fs::read(out.join("model.safetensors")).unwrap()
    };
    let plain = of("plain", &[], &["class.a", "anchor.a_b"], &[]);
    let variants = [
        of("none", &["class=none"], &["anchor.a_b"], &["class.a"]),
        of("conditional", &["class=conditional"], &["disc.a_b.a"], &["class.a"]),
        of("log", &["gan=log"], &["fool.a_b.b", "class.b"], &[]),
        of("l2", &["recon.b=l2", "anchor=l2", "noise=true"], &["recon.b"], &[]),
        of("squared", &["anchor=mse"], &["anchor.a_b"], &[]),
        of("all pairs", &["anchor_pairs=0", "shuffle=false"], &["anchor.a_b"], &[]),
        of("no anchors", &["w_anch=0"], &["recon.a"], &["anchor.a_b"]),
        of("halved", &["halve_every=5"], &["recon.a"], &[]),
    ];
    assert!(variants.iter().all(|v| *v != plain));
    // A number in place of a class.
    let model = models::by_name("cross-modal").unwrap();
    let names = ["a", "b"].map(str::to_string);
    let mut settings = Settings::new(model.name, model.options, &names).unwrap();
    settings.apply_flags(&[&ADVERSARIAL[..], &["class=marker"]].concat().iter().map(|o| o.to_string()).collect::<Vec<_>>()).unwrap();
    let request = |labels: &str, out: &str| TrainRequest {
        model,
        dataset: &data,
        settings: &settings,
        device: Device::cpu(),
        precision: Precision::F32,
        seed: 5,
        holdout: Some("0.2".parse().unwrap()),
        paired: 1.0,
        shuffle: Shuffle::Exact,
        labels: Some(labels.to_string()),
        run_dir: dir.path().join(out),
        resume: false,
        stop: &STOP,
        inferring: Box::leak(Box::new(|_| {})),
        prepared: Box::leak(Box::new(|_: &couplet::train::Prepared| {})),
        progress: Box::leak(Box::new(|_: &couplet::train::TrainProgress| {})),
    };
    train(request("age", "marker")).unwrap();
    let head = history(&dir.path().join("marker"))[0].clone();
    assert!(head.contains(&"held_out.recon.a".into()) && !head.contains(&"held_out.anchor.a_b".into()), "{head:?}");
    let e = train(request("type", "words")).err().unwrap();
    assert!(e.exit_code() == 2 && e.to_string().contains("not a number"), "{e}");
}

static STOP: AtomicBool = AtomicBool::new(false);

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses_of_cross_modal() {
    let dir = tempfile::tempdir().unwrap();
    let data = labelled(dir.path());
    for (name, options) in [("head", &["noise=true"][..]), ("log", &["gan=log", "class=conditional"])] {
        let [cpu, emulated] = [("cpu", Device::cpu()), ("emulated", Device::emulated(4))].map(|(device, d)| {
            let out = dir.path().join(format!("{name}-{device}"));
            run_model("cross-modal", &data, d, &out, &[&ADVERSARIAL[..], options].concat()).unwrap();
            history(&out)
        });
        for (row, (c, e)) in cpu.iter().zip(&emulated).enumerate().skip(1) {
            for (term, (c, e)) in cpu[0].iter().zip(c.iter().zip(e)) {
                let (c, e): (f64, f64) = (c.parse().unwrap(), e.parse().unwrap());
                assert!((c - e).abs() <= 2e-4 * c.abs().max(1e-2), "{name}, epoch {row}, {term}: {c} and {e}");
            }
        }
    }
}

#[test]
fn jamie_keeps_its_correspondence_in_the_run_and_leaves_it_out_when_nothing_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (table(dir.path(), "a", 1, 60, 24), table(dir.path(), "b", 2, 60, 15));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::ByName);
    let of = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        let all = [&["epochs=4", "latent=4", "batch_size=20", "steps=50"][..], options].concat();
        run_model("jamie", &data, Device::cpu(), &out, &all).map(|_| out)
    };
    let run = of("with", &[]).unwrap();
    let f = couplet::data::mapped::MappedArray::open(&run.join("F.npy")).unwrap();
    assert_eq!(f.header().shape, [60, 60]);
    assert_eq!(fs::read_to_string(run.join("F.b.cells.txt")).unwrap().lines().count(), 60);
    let head = &history(&run)[0];
    assert!(head.contains(&"align.a".into()) && head.contains(&"align.b".into()), "{head:?}");

    let without = of("without", &["align=0"]).unwrap();
    assert!(!without.join("F.npy").exists() && !history(&without)[0].iter().any(|h| h.starts_with("align")));
    let one = of("one", &["align_sides=one"]).unwrap();
    assert!(!history(&one)[0].contains(&"align.b".into()));
    // The weight of the known pairs changes what is learnt, and so does leaving the correspondence out.
    let weights = |run: &Path| fs::read(run.join("model.safetensors")).unwrap();
    let half = of("half", &["pf_ratio=0.5"]).unwrap();
    assert!(weights(&half) != weights(&run) && weights(&without) != weights(&run));
}

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses_of_jamie() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (table(dir.path(), "a", 1, 40, 13), table(dir.path(), "b", 2, 50, 9));
    // Some pairs known: minibatches are part pairs, part cells drawn by themselves.
    let pairs = dir.path().join("pairs.csv");
    fs::write(&pairs, (0..25).fold("a,b".to_string(), |t, i| t + &format!("\nc{i},c{i}"))).unwrap();
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::File(pairs));
    let [cpu, emulated] = [("cpu", Device::cpu()), ("emulated", Device::emulated(4))].map(|(name, device)| {
        let out = dir.path().join(name);
        let options = ["epochs=10", "latent=4", "batch_size=20", "dropout=0.2", "steps=20", "pf_ratio=0.6"];
        run_model("jamie", &data, device, &out, &options).unwrap();
        history(&out)
    });
    assert!(cpu[0].contains(&"align.b".to_string()));
    for (row, (c, e)) in cpu.iter().zip(&emulated).enumerate().skip(1) {
        for (name, (c, e)) in cpu[0].iter().zip(c.iter().zip(e)) {
            let (c, e): (f64, f64) = (c.parse().unwrap(), e.parse().unwrap());
            assert!((c - e).abs() <= 2e-4 * c.abs().max(1e-2), "epoch {row}, {name}: {c} and {e}");
        }
    }
}

/// `../shared/data` beside the project, or why a test cannot be made there.
fn shared(file: &str) -> std::result::Result<PathBuf, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(file);
    if path.exists() { Ok(path) } else { Err(format!("skipped: ../shared/data/{file} is not there")) }
}

/// Figure 1B of Gala et al. 2019: both modalities are the same digits, and dropout makes the views differ.
#[test]
fn codes_shrink_without_normalisation_and_collapse_with_batch_norm_alone() {
    let images = match shared("mnist/images.npy") {
        Ok(path) => path,
        Err(why) => return println!("{why}"),
    };
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
