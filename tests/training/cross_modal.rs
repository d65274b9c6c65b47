//! `cross-modal` on features: classes, anchors and every switch. Its images are tests/images.rs.

use crate::training::Training;
use crate::{history, imported, left, on_threads, source, table};
use couplet::data::Dataset;
use couplet::data::import::{ImportSpec, LabelSource};
use couplet::data::pairs::PairsRule;
use couplet::device::Device;
use couplet::train::{Stopped, TrainSummary, Trained};
use std::fs;
use std::path::Path;

/// Two views of 60 cells with three classes, 40 of them paired.
fn labelled(dir: &Path) -> Dataset {
    let modalities = vec![source("a", &table(dir, "a", 1, 60, 13)), source("b", &table(dir, "b", 2, 50, 9))];
    let (labels, pairs) = (dir.join("labels.csv"), dir.join("pairs.csv"));
    // Every seventh cell is unlabelled.
    let label = |i: usize| if i % 7 == 6 { String::new() } else { format!("t{}", i % 3) };
    fs::write(&labels, (0..60).fold("cell,type,age".to_string(), |t, i| t + &format!("\nc{i},{},{}", label(i), i * i))).unwrap();
    fs::write(&pairs, (0..40).fold("a,b".to_string(), |t, i| t + &format!("\nc{i},c{i}"))).unwrap();
    let spec = ImportSpec {
        labels: vec![LabelSource::parse(labels.to_str().unwrap(), &modalities)],
        modalities,
        pairs: Some(PairsRule::File(pairs)),
        ..ImportSpec::default()
    };
    imported(dir.join("data"), &spec)
}

const SMALL: [&str; 6] = ["epochs=6", "latent=4", "batch_size=20", "hidden=12", "anchor_pairs=10", "lr=0.001"];

fn run(dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> TrainSummary {
    Training::new("cross-modal", dataset, device, out, &[&SMALL[..], options].concat()).run().unwrap().0
}

#[test]
fn cross_modal_trains_with_classes_and_anchors_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let data = labelled(dir.path());
    let of = |threads: usize| {
        let out = dir.path().join(format!("run{threads}"));
        let summary = on_threads(threads, || run(&data, Device::cpu(), &out, &["epochs=150", "w_anch=10"]));
        assert_eq!(summary.steps, 450, "three minibatches of 20 cells an epoch");
        left(&out, &["model.safetensors"])
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
fn patience_ends_it_with_the_best_held_out_epochs_weights() {
    let dir = tempfile::tempdir().unwrap();
    let data = labelled(dir.path());
    let of = |name: &str, options: &[&str]| {
        let (out, options) = (dir.path().join(name), [&SMALL[1..], &["w_anch=10", "lr=0.01"], options].concat());
        let training = Training { holdout: Some("0.3"), ..Training::new("cross-modal", &data, Device::cpu(), &out, &options) };
        (training.run().unwrap().0, out)
    };
    let (ended, out) = of("patient", &["epochs=1000", "patience=8"]);
    let Stopped::Early { best, kept: true } = ended.stopped else { panic!("{:?}", ended.stopped) };
    assert_eq!(ended.epochs, best + 8);
    let (_, exactly) = of("exactly", &[&format!("epochs={best}")]);
    assert!(left(&out, &["model.safetensors"]).1 == left(&exactly, &["model.safetensors"]).1);

    // A resumed run may have another patience, or none, and then one again.
    let out = dir.path().join("changed");
    for (resume, patience, until) in [(false, "patience=1000", 4), (true, "patience=0", 8), (true, "patience=1000", 12)] {
        let options = [&SMALL[1..], &["epochs=20", patience]].concat();
        let training = Training::new("cross-modal", &data, Device::cpu(), &out, &options);
        Training { holdout: Some("0.3"), resume, stop: &|epoch, _| epoch == until, ..training }.run().unwrap();
    }
    let unheard = Training::new("cross-modal", &data, Device::cpu(), &dir.path().join("none"), &["patience=3"]).run();
    assert!(unheard.unwrap_err().to_string().contains("--holdout"));
}

#[test]
fn cross_modal_takes_every_switch() {
    let dir = tempfile::tempdir().unwrap();
    let data = labelled(dir.path());
    let of = |name: &str, options: &[&str], wanted: &[&str], unwanted: &[&str]| {
        let out = dir.path().join(name);
        run(&data, Device::cpu(), &out, options);
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
    let train = |labels: &str, out: &str| {
        let (out, options) = (dir.path().join(out), [&SMALL[..], &["class=marker"]].concat());
        let training = Training::new("cross-modal", &data, Device::cpu(), &out, &options);
        Training { holdout: Some("0.2"), labels: Some(labels), ..training }.run()
    };
    train("age", "marker").unwrap();
    let head = history(&dir.path().join("marker"))[0].clone();
    assert!(head.contains(&"held_out.recon.a".into()) && !head.contains(&"held_out.anchor.a_b".into()), "{head:?}");
    let e = train("type", "words").err().unwrap();
    assert!(e.exit_code() == 2 && e.to_string().contains("not a number"), "{e}");
}

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses_of_cross_modal() {
    let dir = tempfile::tempdir().unwrap();
    let data = labelled(dir.path());
    for (name, options) in [("head", &["noise=true"][..]), ("log", &["gan=log", "class=conditional"])] {
        crate::kernels_agree(dir.path(), name, 2e-4, 1e-2, |device, out| {
            run(&data, device, out, options);
        });
    }
}
