//! What a whole training of `apollo` promises, from a dataset to its spaces: the same bits on any number of threads and after a stop in
//! either stage, the same losses on the kernels, every switch, images, and sentences where it cannot be trained.

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportSpec, import};
use couplet::data::pairs::PairsRule;
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::split::Holdout;
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::engine::Precision;
use couplet::error::Result;
use couplet::models::{self, settings::Settings};
use couplet::train::{Space, TrainRequest, TrainSummary, Trained, train};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn simulated(dir: &Path, recipe: &'static str, cells: usize) -> Dataset {
    let out = dir.join(recipe);
    simulate(&SimulateSpec { recipe, cells: Some(cells), seed: 3, ..Default::default() }, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

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

struct Given<'a> {
    options: &'a [&'a str],
    steps: u64,
    resume: bool,
    holdout: bool,
}

fn run(dataset: &Dataset, device: Device, out: &Path, given: Given) -> Result<TrainSummary> {
    let model = models::by_name("apollo")?;
    let names: Vec<String> = dataset.modalities().iter().map(|m| m.name().to_string()).collect();
    let mut settings = Settings::new(model.name, model.options, &names)?;
    let single = given.options.contains(&"single_step=true");
    let small = SMALL.iter().filter(|o| !single || !["epochs2=2", "lr_tables=0.02"].contains(o));
    settings.apply_flags(&small.chain(given.options).map(|o| o.to_string()).collect::<Vec<_>>())?;
    let stop = AtomicBool::new(given.steps == 0);
    train(TrainRequest {
        model,
        dataset,
        settings: &settings,
        device,
        precision: Precision::F32,
        seed: 5,
        holdout: given.holdout.then(|| Holdout::parse("0.2").unwrap()),
        paired: 1.0,
        shuffle: Default::default(),
        labels: None,
        run_dir: out.to_path_buf(),
        resume: given.resume,
        stop: &stop,
        inferring: &mut |_| {},
        prepared: &mut |_| {},
        progress: &mut |p| {
            if p.step >= given.steps {
                stop.store(true, Ordering::Relaxed);
            }
        },
    })
}

fn whole<'a>(options: &'a [&'a str]) -> Given<'a> {
    Given { options, steps: u64::MAX, resume: false, holdout: false }
}

/// `history.csv` without the column of seconds.
fn history(run: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(run.join("history.csv")).unwrap();
    text.lines().map(|l| l.split(',').enumerate().filter(|(i, _)| *i != 1).map(|(_, f)| f.to_string()).collect()).collect()
}

fn left(run: &Path) -> [Vec<u8>; 3] {
    ["model.safetensors", "embedding.view1.npy", "embedding.view2.npy"].map(|f| fs::read(run.join(f)).unwrap())
}

#[test]
fn the_number_of_threads_and_a_stop_in_either_stage_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "apollo-3", 150);
    for reshuffle in ["reshuffle=true", "reshuffle=false"] {
        let options = [reshuffle, "width=200", "redundancy=1"];
        let of = |name: &str, threads: usize, stops: &[u64]| {
            let out = dir.path().join(format!("{name}-{reshuffle}"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                for (i, &steps) in stops.iter().enumerate() {
                    let given = Given { options: &options, steps, resume: i > 0, holdout: true };
                    run(&data, Device::cpu(), &out, given).unwrap();
                }
            });
            (history(&out), left(&out))
        };
        let one = of("one", 1, &[u64::MAX]);
        assert!(of("two", 2, &[u64::MAX]) == one, "{reshuffle}: two threads end elsewhere than one");
        assert!(of("stopped", 2, &[0, 1, 5, 11, 14, u64::MAX]) == one, "{reshuffle}: stopped and resumed ends elsewhere");
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
    let summary = run(&data, Device::cpu(), &out, Given { holdout: true, ..whole(&options) }).unwrap();
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
    let shape = |part: &str| npy_width(&out.join(format!("embedding.view1{part}.npy")));
    assert_eq!([shape(""), shape(".shared"), shape(".specific")], [4, 2, 2]);
}

/// The second dimension that a `.npy` header tells.
fn npy_width(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    let header = String::from_utf8_lossy(&bytes[..128]).to_string();
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap().to_string();
    shape.split(',').nth(1).unwrap().trim().parse().unwrap()
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
        run(&data, Device::cpu(), &out, whole(options)).unwrap_or_else(|e| panic!("{options:?}: {e}"));
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
    let made = |pairs: PairsRule, name: &str| {
        let out = dir.path().join(name);
        let modalities = vec![
            ModalitySource::parse(&format!("a={}", counts.display())).unwrap(),
            ModalitySource::parse(&format!("b={}", counts.display())).unwrap(),
        ];
        import(&ImportSpec { modalities, pairs: Some(pairs), ..Default::default() }, &out, &mut Hooks::default()).unwrap();
        Dataset::open(&out).unwrap()
    };
    let data = made(PairsRule::ByName, "paired");
    let out = dir.path().join("run");
    run(&data, Device::cpu(), &out, whole(&["pos_weight.b=7", "batch_size=16"])).unwrap();
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
        let e = run(data, Device::cpu(), &dir.path().join("none"), whole(options)).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(says), "{options:?}: {e}");
    }
}

#[test]
fn images_pass_through_convolutions() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("nuclei");
    simulate(&SimulateSpec { recipe: "nuclei", cells: Some(24), seed: 1, ..Default::default() }, &out, &mut Hooks::default()).unwrap();
    let data = Dataset::open(&out).unwrap();
    // Its modalities are of other cells; here they are paired row by row.
    let pairs = dir.path().join("pairs.csv");
    let [a, b] = [0, 1].map(|m| data.modality(m).cell_ids().to_vec());
    let n = a.len().min(b.len());
    fs::write(&pairs, a.iter().zip(&b).take(n).map(|(a, b)| format!("{a},{b}\n")).fold("a,b\n".to_string(), |t, l| t + &l)).unwrap();
    let paired = dir.path().join("paired");
    let export = |m: usize| {
        let modality = data.modality(m);
        let path = dir.path().join(format!("{}.npy", modality.name()));
        let shape: Vec<String> = std::iter::once(&modality.cells()).chain(modality.shape()).map(usize::to_string).collect();
        let head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", shape.join(", "));
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let head = format!("{head:<117}\n");
        bytes.extend((head.len() as u16).to_le_bytes());
        bytes.extend(head.as_bytes());
        let mut row = vec![0.0f32; modality.features()];
        for r in 0..modality.cells() {
            modality.row_into(r, &mut row).unwrap();
            row.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        }
        fs::write(&path, bytes).unwrap();
        ModalitySource::parse(&format!("{}={}", modality.name(), path.display())).unwrap()
    };
    let spec = ImportSpec { modalities: vec![export(0), export(1)], pairs: Some(PairsRule::ByRow), ..Default::default() };
    if a.len() == b.len() {
        import(&spec, &paired, &mut Hooks::default()).unwrap();
        let data = Dataset::open(&paired).unwrap();
        for (options, width) in [
            (&["batch_size=8"][..], 5),
            (&["convolutions=false", "batch_size=8"][..], 5),
            (&["specific=false", "batch_size=8"][..], 5),
            (&["single_step=true", "batch_size=8"][..], 5),
        ] {
            let out = dir.path().join(options.join("-"));
            run(&data, Device::cpu(), &out, whole(options)).unwrap_or_else(|e| panic!("{options:?}: {e}"));
            let name = data.modality(0).name();
            assert_eq!(npy_width(&out.join(format!("embedding.{name}.npy"))), width);
        }
    } else {
        panic!("the recipe makes {} and {} cells", a.len(), b.len());
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
        run(&data, Device::cpu(), &out, whole(&[&["condition=stain", "batch_size=16"], options].concat())).unwrap();
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
fn conditions_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulated(dir.path(), "stains", 32);
    let train = |name: &str, options: &[&str]| run(&data, Device::cpu(), &dir.path().join(name), whole(options));
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
        let of = |name: &str, device: Device| {
            let out = dir.path().join(format!("{name}-{}", options.len()));
            run(&data, device, &out, whole(options)).unwrap();
            history(&out)
        };
        let (cpu, kernels) = (of("cpu", Device::cpu()), of("emulated", Device::emulated(1)));
        assert_eq!(cpu[0], kernels[0]);
        for (c, k) in cpu[1..].iter().zip(&kernels[1..]) {
            for ((name, c), k) in cpu[0].iter().zip(c).zip(k) {
                let (c, k) = (c.parse::<f64>().unwrap(), k.parse::<f64>().unwrap());
                assert!(
                    c.is_nan() == k.is_nan() && (c.is_nan() || (c - k).abs() <= 2e-4 * c.abs().max(1e-3)),
                    "{options:?} {name}: {c} {k}"
                );
            }
        }
    }
}
