//! `scican`: classes that are carried over, every switch, and features of either order.

use crate::training::Training;
use crate::{history, imported, left, simulated, source, threads_and_stops_change_no_bit};
use couplet::data::Dataset;
use couplet::data::import::{ImportSpec, LabelSource};
use couplet::device::Device;
use couplet::error::Result;
use couplet::train::{Space, TrainSummary, Trained};
use std::fs;
use std::path::Path;

const SMALL: [&str; 7] = ["hidden=24", "latent=8", "disc_code=6", "disc_profile=10", "epochs=3", "batch_size=32", "contrast=0"];

/// Of which embeddings tell more than weights do.
const LEFT: [&str; 3] = ["model.safetensors", "embedding.atac.npy", "embedding.rna.npy"];

fn run(dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> Result<TrainSummary> {
    Ok(Training::new("scican", dataset, device, out, &[&SMALL[..], options].concat()).run()?.0)
}

#[test]
fn the_number_of_threads_and_a_stop_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "two-domain", 150);
    for order in ["alternate=batch", "alternate=epoch"] {
        // Wide enough that products and masks are cut for several threads.
        let options = [&SMALL[..], &[order, "hidden=200"]].concat();
        threads_and_stops_change_no_bit(dir.path(), order, &[0, 1, 5], &LEFT, |out, steps, resume| {
            let training = Training::new("scican", &data, Device::cpu(), out, &options);
            Training { resume, stop: &|_, done| done >= steps, ..training }.run().unwrap();
        });
    }
}

#[test]
fn classes_are_learnt_and_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "two-domain", 300);
    let out = dir.path().join("run");
    let summary = run(&data, Device::cpu(), &out, &["epochs=30", "hidden=64", "latent=32"]).unwrap();
    let last = |name: &str| summary.last.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1;
    // Eight classes at random cost log 8 = 2.08, one of 63 others at random log 63 = 4.14.
    assert!(last("class.rna") < 0.7 && last("contrast.atac") < 4.0, "{:?}", summary.last);
    let metrics = Trained::open(&out, Device::cpu()).unwrap().evaluate(&data, None).unwrap();
    let of = |key: &str| metrics.number(key).unwrap_or_else(|| panic!("no {key}"));
    assert!(of("head_accuracy.rna") > 0.8, "{}", of("head_accuracy.rna"));
    // The most frequent of eight types alone has an F1 of 0.05.
    for key in ["f1.macro", "f1.weighted", "f1.macro.genes", "f1.macro.cca", "f1.weighted.within", "head_f1.macro"] {
        assert!((0.12..1.0).contains(&of(key)), "{key}: {}", of(key));
    }
    assert!(of("silhouette.modality").abs() < 0.3);
    let text = fs::read_to_string(out.join("predicted.atac.csv")).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!((lines.len(), lines[0].len(), &lines[0][..4]), (301, 11, &["cell", "label", "probability", "p.1"][..]));
    for line in &lines[1..] {
        let p: Vec<f64> = line[2..].iter().map(|v| v.parse().unwrap()).collect();
        let best = (1..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
        assert_eq!((lines[0][2 + best], p[0]), (format!("p.{}", line[1]).as_str(), p[best]));
        assert!((p[1..].iter().sum::<f64>() - 1.0).abs() < 1e-4);
    }
    let mut trained = Trained::open(&out, Device::cpu()).unwrap();
    let mut seen = 0;
    let mut count = |_: usize, row: &[f32]| {
        seen += usize::from(row.len() == 300 && row.iter().all(|v| v.is_finite()));
        Ok(())
    };
    trained.translate(&data, 0, 1, Space::Input, &mut count).unwrap();
    assert_eq!(seen, 300);
    let e = trained.translate(&data, 1, 0, Space::Input, &mut |_, _| Ok(())).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("first modality"), "{e}");
}

#[test]
fn every_switch_changes_what_is_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "two-domain", 120);
    let of = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        run(&data, Device::cpu(), &out, options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let columns: Vec<String> = history(&out)[0][2..].to_vec();
        assert!(history(&out)[1..].iter().flatten().all(|v| v.parse::<f64>().unwrap().is_finite()), "{name}");
        (left(&out, &LEFT).1, columns)
    };
    let plain = of("plain", &[]);
    let tell = ["tell.first", "tell.second", "tell.cycled", "tell.measured", "tell.generated", "cycle"].map(String::from);
    assert_eq!(plain.1, [&["class.rna", "contrast.atac", "consistency"].map(String::from)[..], &tell].concat());
    let switches = [
        "latent_act=tanh",
        "bn=joint",
        "scaling=pooled",
        "n_top_genes=40",
        "adv=mean",
        "tau=0.5",
        "noise=0.3",
        "noise_class=0.5",
        "teacher=0.5",
        "alternate=epoch",
        "ramp=20",
        "lr=0.01",
        "lr_disc=1",
        "momentum=0.5",
        "weight_decay=0.1",
        "w_center=0.5",
        "w_back=0",
        "w_gen=0",
        "w_nce=0",
        "w_ict=0",
        "w_class=1",
        "preprocess=log1p",
    ];
    let mut all = vec![("plain", plain.0[0].clone())];
    for switch in switches {
        let found = of(switch, &[switch]);
        for (other, weights) in &all {
            assert!(*weights != found.0[0], "{switch} trains as {other} does");
        }
        all.push((switch, found.0[0].clone()));
    }
    // Which statistics the embedding takes changes nothing of what is learnt.
    for switch in ["embed_bn=running", "embed_bn=all-cells"] {
        let found = of(switch, &[switch]);
        assert!(found.0[1] != plain.0[1] && found.0[2] != plain.0[2], "{switch}");
    }
    let classes_alone = of("classes-alone", &["w_nce=0", "w_ict=0", "w_adv=0", "w_back=0", "w_gen=0", "w_cycle=0"]);
    assert_eq!(classes_alone.1, ["class.rna"]);
    let unlabelled = of("unlabelled", &["mode=unlabelled", "contrast=6", "clusters=5"]);
    let contrasts = ["contrast.rna", "cluster.rna", "contrast.atac", "cluster.atac"].map(String::from);
    assert_eq!(unlabelled.1, [&contrasts[..], &tell].concat());
    assert!(!dir.path().join("unlabelled/predicted.atac.csv").exists());
    // Its embedding has rows of length 1, after the header of the .npy.
    let rows: Vec<f32> = unlabelled.0[1].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let rows = &rows[rows.len() - 120 * 8..];
    assert!(rows.chunks_exact(8).all(|r| (r.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));
}

#[test]
fn features_may_come_in_any_order_and_what_one_modality_lacks_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "two-domain", 80);
    let labels = dir.path().join("labels.csv");
    let label = data.label("type").unwrap();
    let mut text = "cell,type\n".to_string();
    for (m, modality) in data.modalities().iter().enumerate() {
        for (row, id) in modality.cell_ids().iter().enumerate() {
            text += &format!("{id},{}\n", label.classes[label.rows[m][row].unwrap() as usize]);
        }
    }
    fs::write(&labels, text).unwrap();
    // The first forty genes; of gene activity the same in another order, and one gene more.
    let import_as = |name: &str, order: &[&[usize]; 2], extra: bool| {
        let mut modalities = Vec::new();
        for (m, modality) in data.modalities().iter().enumerate() {
            let mut text = "cell".to_string();
            order[m].iter().for_each(|&f| text += &format!(",{}", modality.feature_names()[f]));
            text += if extra && m == 1 { ",own\n" } else { "\n" };
            let mut row = vec![0.0; modality.features()];
            for (i, id) in modality.cell_ids().iter().enumerate() {
                modality.row_into(i, &mut row).unwrap();
                text += id;
                order[m].iter().for_each(|&f| text += &format!(",{}", row[f]));
                text += if extra && m == 1 { ",0\n" } else { "\n" };
            }
            let file = dir.path().join(format!("{name}-{}.csv", modality.name()));
            fs::write(&file, text).unwrap();
            modalities.push(source(modality.name(), &file));
        }
        let mut spec = ImportSpec { modalities, ..ImportSpec::default() };
        spec.labels.push(LabelSource { file: labels.clone(), column: None, modality: None });
        imported(dir.path().join(name), &spec)
    };
    let forward: Vec<usize> = (0..40).collect();
    let turned: Vec<usize> = (0..40).rev().collect();
    let plain = import_as("plain", &[&forward, &forward], false);
    let other = import_as("other", &[&forward, &turned], true);
    let of = |name: &str, data: &Dataset| {
        let out = dir.path().join(format!("run-{name}"));
        run(data, Device::cpu(), &out, &[]).unwrap();
        let mut codes = Vec::new();
        let mut sink = |_: usize, row: &[f32]| {
            codes.extend_from_slice(row);
            Ok(())
        };
        Trained::open(&out, Device::cpu()).unwrap().embed(data, 1, &mut sink).unwrap();
        (history(&out), codes)
    };
    assert!(of("plain", &plain) == of("other", &other));
}

#[test]
fn what_cannot_be_trained_is_said_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "two-domain", 60);
    let error = |data: &Dataset, options: &[&str]| {
        let out = dir.path().join("never");
        let e = run(data, Device::cpu(), &out, options).unwrap_err();
        assert!(e.exit_code() == 2 && !out.exists(), "{e}");
        e.to_string()
    };
    assert!(error(&data, &["mode=unlabelled", "w_ict=1"]).contains("w_ict needs classes"));
    assert!(error(&data, &["scaling=pooled", "preprocess=log1p"]).contains("needs the step standardise"));
    // Without labels, and without a gene in common.
    let table = |name: &str, gene: &str| {
        let file = dir.path().join(format!("{name}.csv"));
        fs::write(&file, (0..20).fold(format!("cell,{gene}1,{gene}2\n"), |t, i| t + &format!("{name}{i},{},{}\n", i % 5, i % 3))).unwrap();
        source(name, &file)
    };
    for (out, genes, wanted) in [("same", ["g", "g"], "name a column by --labels"), ("apart", ["g", "h"], "no feature of the same name")] {
        let spec = ImportSpec { modalities: vec![table("rna", genes[0]), table("atac", genes[1])], ..ImportSpec::default() };
        let message = error(&imported(dir.path().join(out), &spec), &[]);
        assert!(message.contains(wanted), "{message}");
    }
}

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "two-domain", 40);
    for options in [
        &["n_top_genes=20", "batch_size=12", "w_center=0.1", "noise_class=0.5"][..],
        &["n_top_genes=20", "batch_size=12", "bn=joint", "alternate=epoch"],
        &["n_top_genes=20", "batch_size=12", "mode=unlabelled", "contrast=6", "clusters=5"],
    ] {
        crate::kernels_agree(dir.path(), &options.join("-"), 5e-4, 1e-2, |device, out| {
            run(&data, device, out, options).unwrap();
        });
    }
}
