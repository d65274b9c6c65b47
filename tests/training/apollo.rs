//! `apollo`: its two stages, spaces of a code, images, conditions, and every switch.

use crate::training::Training;
use crate::{dataset, history, simulated, threads_and_stops_change_no_bit};
use couplet::data::mapped::MappedArray;
use couplet::data::pairs::PairsRule;
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::error::Result;
use couplet::explain::ablation::{self, Score};
use couplet::explain::{Group, shapley};
use couplet::train::{Space, TrainSummary, Trained};
use std::fs;
use std::path::Path;

const SMALL: [&str; 9] = [
    "width=24",
    "latent=3",
    "latent_specific=2",
    "epochs=3",
    "epochs2=2",
    "batch_size=32",
    "channels=4,6",
    "channels_specific=2",
    "lr_tables=0.02",
];

/// All options: the small ones but for those that one step has no use for, and these.
fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let single = more.contains(&"single_step=true");
    let small = SMALL.iter().filter(|o| !single || !["epochs2=2", "lr_tables=0.02"].contains(o));
    small.chain(more).copied().collect()
}

fn run(dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> Result<TrainSummary> {
    Ok(Training::new("apollo", dataset, device, out, &with(options)).run()?.0)
}

#[test]
fn the_number_of_threads_and_a_stop_in_either_stage_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "apollo-3", 150);
    let files = ["model.safetensors", "embedding.view1.npy", "embedding.view2.npy"];
    for reshuffle in ["reshuffle=true", "reshuffle=false"] {
        let options = with(&[reshuffle, "width=200", "redundancy=1"]);
        threads_and_stops_change_no_bit(dir.path(), reshuffle, &[0, 1, 5, 11, 14], &files, |out, steps, resume| {
            let training = Training::new("apollo", &data, Device::cpu(), out, &options);
            Training { holdout: Some("0.2"), resume, stop: &|_, done| done >= steps, ..training }.run().unwrap();
        });
    }
}

#[test]
fn what_is_of_one_modality_lands_in_its_space_and_held_out_cells_choose_the_encoders() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "apollo-5", 600);
    let out = dir.path().join("run");
    let options = [
        "latent=2",
        "width=48",
        "epochs=150",
        "epochs2=60",
        "batch_size=100",
        "lr=0.001",
        "lr_encoders=0.003",
        "shared_decoders=false",
        "preprocess=none",
    ];
    let options = with(&options);
    let training = Training::new("apollo", &data, Device::cpu(), &out, &options);
    let (summary, _) = Training { holdout: Some("0.2"), ..training }.run().unwrap();
    let last = |name: &str| summary.last.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1;
    assert!(last("recon.view1").is_nan() && last("match.view1.shared").is_finite(), "{:?}", summary.last);
    assert!(last("encoded.recon.view1").is_nan() && last("held_out.encoded.recon.view1").is_finite());
    assert!(last("held_out.total").is_finite());
    let first = history(&out);
    let column = |name: &str| first[0].iter().position(|n| n == name).unwrap();
    let value = |row: usize, name: &str| first[row][column(name)].parse::<f64>().unwrap();
    assert!(value(1, "held_out.total").is_nan(), "the first stage says nothing of cells that it never saw");
    assert!(value(150, "recon.view1") < 0.25 * value(1, "recon.view1"));
    assert!(value(210, "held_out.encoded.recon.view1") < value(151, "held_out.encoded.recon.view1"));
    let metrics = Trained::open(&out, Device::cpu()).unwrap().evaluate(&data, None).unwrap();
    // Predicting the mean scores 1.
    assert!(metrics.number("recon_mse.view1").unwrap() < 0.5 && metrics.number("recon_mse.view2").unwrap() < 0.5);
    assert!(metrics.number("cross_mse.view1_to_view2").unwrap() < 1.0);
    let width = |part: &str| width_of(&out.join(format!("embedding.view1{part}.npy")));
    assert_eq!([width(""), width(".shared"), width(".specific")], [4, 2, 2]);
}

/// Columns of a `.npy`.
fn width_of(path: &Path) -> usize {
    MappedArray::open(path).unwrap().header().shape[1]
}

#[test]
fn every_switch_trains_and_translates() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "apollo-1", 120);
    let cases: [&[&str]; 10] = [
        &[],
        &["specific=false"],
        &["shared_decoders=false"],
        &["norm=squared", "penalty=0.1"],
        &["untouched=lazy"],
        &["noise=0", "dropout=0"],
        &["noise=0.5", "redundancy=2", "batch_size2=16"],
        &["single_step=true", "lr_single=0.001"],
        &["single_step=true", "lr_single=0.001", "w_match=10", "w_kl=0.1"],
        &["single_step=true", "lr_single=0.001", "specific=false"],
    ];
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (i, options) in cases.iter().enumerate() {
        let out = dir.path().join(format!("run{i}"));
        run(&data, Device::cpu(), &out, options).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        let weights = fs::read(out.join("embedding.view1.npy")).unwrap();
        assert!(!seen.contains(&weights), "{options:?} changes nothing");
        seen.push(weights);
        let mut trained = Trained::open(&out, Device::cpu()).unwrap();
        for [from, to] in [[0, 1], [1, 0], [0, 0]] {
            let mut rows = 0;
            let mut count = |_: usize, row: &[f32]| {
                rows += usize::from(row.iter().all(|v| v.is_finite()) && row.len() == [40, 30][to]);
                Ok(())
            };
            trained.translate(&data, from, to, Space::Input, &mut count).unwrap();
            assert_eq!(rows, 120, "{options:?} {from} {to}");
        }
    }
}

#[test]
fn counts_are_weighed_and_sentences_say_what_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let counts = dir.path().join("counts.csv");
    let mut text = "cell,g1,g2,g3,g4\n".to_string();
    (0..40).for_each(|c| text += &format!("c{c},{},0,{},{}\n", c % 3, u32::from(c % 5 == 0), u32::from(c % 4 == 0)));
    fs::write(&counts, text).unwrap();
    let made = |pairs: PairsRule, name: &str| dataset(dir.path(), name, &[("a", &counts), ("b", &counts)], pairs);
    let data = made(PairsRule::ByName, "paired");
    let out = dir.path().join("run");
    run(&data, Device::cpu(), &out, &["pos_weight.b=7", "batch_size=16"]).unwrap();
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    // 160 values; g1 sums to 39, g3 to 8, g4 to 10.
    let expected = (160.0 - 57.0) / 57.0;
    let table: toml::Table = config.parse().unwrap();
    let text = format!("{table:?}");
    assert!(text.contains(&format!("{expected}")) && text.contains("log-half"), "{config}");
    for (options, data, says) in [
        (&["loss=bce", "preprocess=standardise"][..], &data, "minmax-cell"),
        (&["cells=7"][..], &data, "there are 40"),
        (&["w_match=7"][..], &data, "w_match says nothing"),
        (&["single_step=true", "penalty=1"][..], &data, "penalty says nothing"),
        (&["channels_specific=6"][..], &data, "channels"),
        (&[][..], &made(PairsRule::None, "apart"), "every modality"),
    ] {
        let e = run(data, Device::cpu(), &dir.path().join("none"), options).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(says), "{options:?}: {e}");
    }
}

#[test]
fn images_pass_through_convolutions() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "nuclei", 24);
    // Its modalities are of other cells; here they are paired row by row.
    let [image, rna] = [0, 1].map(|m| (data.modality(m).name(), data.dir().join(data.modality(m).name()).join("values.npy")));
    let data = dataset(dir.path(), "paired", &[(image.0, &image.1), (rna.0, &rna.1)], PairsRule::ByRow);
    for option in ["batch_size=8", "convolutions=false", "specific=false", "single_step=true"] {
        let out = dir.path().join(option);
        run(&data, Device::cpu(), &out, &[option, "batch_size=8"]).unwrap_or_else(|e| panic!("{option}: {e}"));
        assert_eq!(width_of(&out.join(format!("embedding.{}.npy", image.0))), 5);
    }
}

/// All cells' features of the second modality, told from the first: as they were seen, or taken to be of a condition.
fn translated(run: &Path, data: &Dataset, condition: Option<&str>) -> Vec<Vec<f32>> {
    let mut trained = Trained::open(run, Device::cpu()).unwrap();
    condition.into_iter().for_each(|c| trained.take_as(c).unwrap());
    let mut rows = Vec::new();
    let mut keep = |_: usize, row: &[f32]| {
        rows.push(row.to_vec());
        Ok(())
    };
    trained.translate(data, 0, 1, Space::Input, &mut keep).unwrap();
    rows
}

#[test]
fn a_cell_taken_to_be_of_its_own_condition_is_translated_as_it_is_and_of_another_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "stains", 48);
    let stains = data.label("stain").unwrap();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for options in [
        &[][..],
        &["encoder_ids=own"],
        &["condition_width=5"],
        &["shared_decoders=false"],
        &["specific=false"],
        &["convolutions=false", "loss=mse"],
        &["single_step=true", "lr_single=0.001"],
    ] {
        let out = dir.path().join(format!("run{}", seen.len()));
        run(&data, Device::cpu(), &out, &[&["condition=stain", "batch_size=16"], options].concat()).unwrap();
        let weights = fs::read(out.join("embedding.protein.npy")).unwrap();
        assert!(!seen.contains(&weights), "{options:?} changes nothing");
        seen.push(weights);
        let own = translated(&out, &data, None);
        for (c, condition) in stains.classes.iter().enumerate() {
            for (row, (as_it_is, as_if)) in own.iter().zip(translated(&out, &data, Some(condition))).enumerate() {
                assert_eq!(*as_it_is == as_if, stains.rows[0][row] == Some(c as u32), "{options:?}: {condition}, cell {row}");
            }
        }
    }
}

#[test]
fn what_is_explained_of_a_cell_is_what_it_is_translated_to_under_its_own_condition() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "stains", 32);
    let out = dir.path().join("run");
    run(&data, Device::cpu(), &out, &["condition=stain", "batch_size=16"]).unwrap();
    let own = translated(&out, &data, None);
    let groups = [Group { name: "upper half".into(), features: (0..512).collect() }];
    for row in [0, 7, 31] {
        // Whatever its stain is; the mean cell is told the same.
        let spec =
            shapley::Spec { from: 0, to: 1, feature: 500, row, groups: &groups, top: None, permutations: 1, seed: 0, space: Space::Input };
        let explained = Trained::open(&out, Device::cpu()).unwrap().shapley(&data, &spec, &mut Hooks::default()).unwrap();
        assert!((explained.full - f64::from(own[row][500])).abs() < 1e-5, "{row}: {} for {}", explained.full, own[row][500]);
    }
    let spec = ablation::Spec { of: 0, score: Score::Pearson { to: 1, feature: 500 }, groups: &groups, keep: false };
    let ablated = Trained::open(&out, Device::cpu()).unwrap().ablate(&data, &spec, &mut Hooks::default()).unwrap();
    let measured: Vec<f32> = (0..32)
        .map(|row| {
            let mut x = vec![0.0; data.modality(1).features()];
            data.modality(1).row_into(row, &mut x).unwrap();
            x[500]
        })
        .collect();
    let expected = correlation(&measured, &own.iter().map(|row| row[500]).collect::<Vec<f32>>());
    assert!((ablated.baseline - expected).abs() < 1e-4, "{} for {expected}", ablated.baseline);
}

fn correlation(x: &[f32], y: &[f32]) -> f64 {
    let mean = |v: &[f32]| v.iter().map(|v| f64::from(*v)).sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let sum = |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(x, y)| f(f64::from(*x) - mx, f64::from(*y) - my)).sum::<f64>();
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

#[test]
fn what_shows_too_little_is_neither_trained_on_nor_measured_on() {
    let dir = tempfile::tempdir().unwrap();
    // Of 60 cells the first 12 show one feature of a alone, as cells drained of their contents do.
    let write = |name: &str, full: &dyn Fn(usize) -> usize| {
        let mut text = "cell,f0,f1,f2,f3,f4".to_string();
        for c in 0..60 {
            let value = |f: usize| if f < full(c) { 1 + (c * 7 + f * 3) % 5 } else { 0 };
            text += &(0..5).fold(format!("\nc{c}"), |t, f| format!("{t},{}", value(f)));
        }
        let file = dir.path().join(format!("{name}.csv"));
        fs::write(&file, text).unwrap();
        file
    };
    let (a, b) = (write("a", &|c| if c < 12 { 1 } else { 5 }), write("b", &|_| 5));
    let data = dataset(dir.path(), "data", &[("a", &a), ("b", &b)], PairsRule::ByName);
    let counts = |name: &str, options: &[&str]| {
        let (out, options) = (dir.path().join(name), with(options));
        Training { holdout: Some("0.25"), ..Training::new("apollo", &data, Device::cpu(), &out, &options) }.run().unwrap();
        let metrics = Trained::open(&out, Device::cpu()).unwrap().evaluate(&data, None).unwrap();
        ["cells", "cells.train", "paired_cells.train"].map(|key| metrics.number(key).unwrap() as usize)
    };
    assert_eq!(counts("all", &["preprocess=standardise"]), [15, 45, 45]);
    let [held_out, trained, paired] = counts("whole", &["preprocess=standardise", "min_features.a=2"]);
    assert_eq!((held_out, paired), (15, trained));
    assert!((45 - 12..45).contains(&trained), "{trained}: left out are those of the 12 that are not held out");
}

#[test]
fn conditions_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "stains", 32);
    let train = |name: &str, options: &[&str]| run(&data, Device::cpu(), &dir.path().join(name), options);
    for (options, says) in [
        (&["condition=stian"][..], "there is no column \"stian\"; there are: stain,"),
        (&["condition=stain", "conditions=with,against"], "rim is not among the conditions of the run: with, against"),
        (&["single_step=true", "encoder_ids=own"], "encoder_ids says nothing with single_step=true"),
    ] {
        let e = train("none", options).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(says), "{options:?}: {e}");
    }
    train("told", &["condition=stain", "batch_size=16"]).unwrap();
    train("untold", &["batch_size=16"]).unwrap();
    for (run, condition, says) in [
        ("told", "ring", "the conditions of the run, by its column stain, are against, rim, with; did you mean rim?"),
        ("untold", "rim", "is told no condition"),
    ] {
        let e = Trained::open(&dir.path().join(run), Device::cpu()).unwrap().take_as(condition).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(says), "{e}");
    }
}

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "apollo-2", 64);
    for options in [
        &["redundancy=1", "batch_size=16"][..],
        &["preprocess=minmax-cell", "batch_size=20", "reshuffle=false"][..],
        &["single_step=true", "lr_single=0.001", "dropout=0", "batch_size=16"][..],
    ] {
        crate::kernels_agree(dir.path(), &options.join("-"), 2e-4, 1e-3, |device, out| {
            run(&data, device, out, options).unwrap();
        });
    }
}
