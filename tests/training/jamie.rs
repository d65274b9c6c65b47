//! `jamie`: the views of a cell come together, and its correspondence is kept with the run.

use crate::training::Training;
use crate::{dataset, history, left, on_threads, table, threads_and_stops_change_no_bit, two};
use couplet::data::Dataset;
use couplet::data::pairs::PairsRule;
use couplet::device::Device;
use couplet::train::{TrainSummary, Trained};
use std::fs;
use std::path::Path;

fn run(dataset: &Dataset, device: Device, out: &Path, options: &[&str]) -> TrainSummary {
    Training::new("jamie", dataset, device, out, options).run().unwrap().0
}

/// Three tables, a, b and c, of the same cells as far as all have them.
fn three(dir: &Path, cells: [usize; 3], features: [usize; 3]) -> Dataset {
    let names = ["a", "b", "c"];
    let tables = [0, 1, 2].map(|m| table(dir, names[m], 1 + m as u64, cells[m], features[m]));
    dataset(dir, "three", &[0, 1, 2].map(|m| (names[m], tables[m].as_path())), PairsRule::ByName)
}

#[test]
fn jamie_brings_the_views_of_a_cell_together_and_translates_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [120, 120], [24, 15], PairsRule::ByName);
    let of = |threads: usize| {
        let out = dir.path().join(format!("run{threads}"));
        let options = ["epochs=400", "latent=8", "batch_size=50", "dropout=0.05"];
        let summary = on_threads(threads, || run(&data, Device::cpu(), &out, &options));
        assert_eq!(summary.steps, 800, "two minibatches of 50 cells an epoch");
        left(&out, &["model.safetensors"])
    };
    assert!(of(1) == of(2), "two threads end elsewhere than one");
    let mut trained = Trained::open(&dir.path().join("run1"), Device::cpu()).unwrap();
    let metrics = trained.evaluate(&data, None).unwrap();
    let value = |key: &str| metrics.number(key).unwrap_or_else(|| panic!("{key} is absent"));
    assert!(value("foscttm") < 0.02, "{}", value("foscttm"));
    assert!(value("cross_mse.a_to_b") < 0.5 && value("cross_mse.b_to_a") < 0.5, "{}", value("cross_mse.a_to_b"));
}

/// Whether a correspondence was learnt from in every epoch: its columns hold numbers.
fn aligned(run: &Path, pairs: &[&str]) -> bool {
    let rows = history(run);
    let at = |pair: &&str| rows[0].iter().position(|h| *h == format!("align.{pair}")).unwrap();
    pairs.iter().map(at).all(|column| rows[1..].iter().all(|row| row[column].parse::<f64>().unwrap().is_finite()))
}

#[test]
fn a_correspondence_that_known_pairs_contradict_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["epochs=6", "latent=4", "batch_size=20", "steps=300"];
    let with = |name: &str, pairs: PairsRule, options: &[&str]| {
        let data = dataset(
            &dir.path().join("data"),
            name,
            &[("a", &table(dir.path(), "a", 1, 40, 24)), ("b", &table(dir.path(), "b", 2, 40, 15))],
            pairs,
        );
        let out = dir.path().join(name);
        run(&data, Device::cpu(), &out, options);
        (data, out)
    };
    fs::create_dir(dir.path().join("data")).unwrap();
    // What no pair says anything of; then each cell is paired with the one that corresponds to it least.
    let (_, free) = with("free", PairsRule::None, &options);
    let f = couplet::data::mapped::MappedArray::open(&free.join("F.npy")).unwrap();
    let mut left: Vec<usize> = (0..40).collect();
    let mut text = "a,b".to_string();
    for (i, row) in f.elements::<f32>().chunks_exact(40).enumerate() {
        let least = (0..left.len()).min_by(|&x, &y| row[left[x]].total_cmp(&row[left[y]])).unwrap();
        text += &format!("\nc{i},c{}", left.remove(least));
    }
    let pairs = dir.path().join("pairs.csv");
    fs::write(&pairs, text).unwrap();
    let (data, contradicted) = with("contradicted", PairsRule::File(pairs.clone()), &options);
    let (_, without) = with("without", PairsRule::File(pairs), &[&options[..], &["align=0"]].concat());
    assert!(aligned(&free, &["a", "b"]) && history(&contradicted)[1].contains(&"NaN".to_string()));
    let weights = |run: &Path| fs::read(run.join("model.safetensors")).unwrap();
    assert!(weights(&contradicted) == weights(&without) && weights(&contradicted) != weights(&free));
    // A resumed run decides likewise.
    let stopped = dir.path().join("stopped");
    for (resume, at) in [(false, 3), (true, usize::MAX)] {
        let training = Training::new("jamie", &data, Device::cpu(), &stopped, &options);
        Training { resume, stop: &|epoch, _| epoch == at, ..training }.run().unwrap();
    }
    assert!(weights(&stopped) == weights(&contradicted));
}

#[test]
fn jamie_keeps_its_correspondence_in_the_run_and_leaves_it_out_when_nothing_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [60, 60], [24, 15], PairsRule::ByName);
    let of = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        let all = [&["epochs=4", "latent=4", "batch_size=20", "steps=50"][..], options].concat();
        run(&data, Device::cpu(), &out, &all);
        out
    };
    let whole = of("with", &[]);
    let f = couplet::data::mapped::MappedArray::open(&whole.join("F.npy")).unwrap();
    assert_eq!(f.header().shape, [60, 60]);
    assert_eq!(fs::read_to_string(whole.join("F.b.cells.txt")).unwrap().lines().count(), 60);
    let head = &history(&whole)[0];
    assert!(head.contains(&"align.a".into()) && head.contains(&"align.b".into()), "{head:?}");

    let without = of("without", &["align=0"]);
    assert!(!without.join("F.npy").exists() && !history(&without)[0].iter().any(|h| h.starts_with("align")));
    let one = of("one", &["align_sides=one"]);
    assert!(!history(&one)[0].contains(&"align.b".into()));
    // The weight of the known pairs changes what is learnt, and so does leaving the correspondence out.
    let weights = |run: &Path| fs::read(run.join("model.safetensors")).unwrap();
    let half = of("half", &["pf_ratio=0.5"]);
    assert!(weights(&half) != weights(&whole) && weights(&without) != weights(&whole));
}

#[test]
fn between_landmarks_the_correspondence_is_kept_as_its_factors_and_all_cells_as_landmarks_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = two(dir.path(), [60, 50], [24, 15], PairsRule::None);
    let common = ["epochs=6", "latent=4", "batch_size=20", "steps=200"];
    let of = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        run(&data, Device::cpu(), &out, &[&common[..], options].concat());
        out
    };
    let losses = |run: &Path| -> Vec<f64> { history(run)[1..].iter().map(|row| row.last().unwrap().parse().unwrap()).collect() };
    let (whole, all) = (of("whole", &["landmarks=0"]), of("all", &["landmarks=60"]));
    let of_each = |file: &str| couplet::data::mapped::MappedArray::open(&all.join(file)).unwrap().header().shape.clone();
    assert_eq!((of_each("F.npy"), of_each("F.a.near.npy"), of_each("F.b.weights.npy")), (vec![60, 50], vec![60, 5], vec![50, 5]));
    for (a, b) in losses(&whole).iter().zip(&losses(&all)) {
        assert!((a - b).abs() <= 1e-4 * a.abs(), "{a} {b}");
    }

    let few = of("few", &["landmarks=12"]);
    let ids = |file: &str| fs::read_to_string(few.join(file)).unwrap().lines().map(str::to_string).collect::<Vec<_>>();
    let (cells, marks) = (ids("F.a.cells.txt"), ids("F.a.landmarks.cells.txt"));
    assert_eq!((cells.len(), marks.len(), ids("F.b.landmarks.cells.txt").len()), (60, 12, 12));
    assert!(marks.iter().all(|m| cells.contains(m)));
    assert!(losses(&few) != losses(&all));

    // A run that was stopped maps what it has.
    let out = dir.path().join("stopped");
    let options = [&common[..], &["landmarks=12"]].concat();
    let stopped = Training { stop: &|epoch, _| epoch == 3, ..Training::new("jamie", &data, Device::cpu(), &out, &options) };
    stopped.run().unwrap();
    let made = fs::metadata(out.join("F.npy")).unwrap().modified().unwrap();
    let resumed = || on_threads(2, || Training { resume: true, ..Training::new("jamie", &data, Device::cpu(), &out, &options) }.run());
    let near = fs::read(out.join("F.b.near.npy")).unwrap();
    let mut damaged = near.clone();
    *damaged.last_mut().unwrap() = 1;
    fs::write(out.join("F.b.near.npy"), &damaged).unwrap();
    let said = resumed().unwrap_err().to_string();
    assert!(said.contains("F.b.near.npy") && said.contains("row 49") && said.contains("F.npy, and --resume"), "{said}");
    fs::write(out.join("F.b.near.npy"), &near).unwrap();
    resumed().unwrap();
    assert_eq!(fs::metadata(out.join("F.npy")).unwrap().modified().unwrap(), made);
    assert!(left(&out, &["model.safetensors"]) == left(&few, &["model.safetensors"]));
}

#[test]
fn jamie_takes_several_modalities_and_no_thread_or_stop_changes_a_bit() {
    let dir = tempfile::tempdir().unwrap();
    // Cells 0..60 are in all three, 60..90 in the first and the last alone; pairs by name.
    let data = three(dir.path(), [90, 60, 90], [24, 15, 12]);
    let options = ["epochs=60", "latent=8", "batch_size=30", "dropout=0.05", "steps=100", "pf_ratio=0.9"];
    let files = ["model.safetensors", "F.a_b.npy", "F.a_c.npy", "F.b_c.npy", "F.b.cells.txt"];
    let stops = [70, 150];
    let pairs = ["a_b", "a_c", "b_a", "b_c", "c_a", "c_b"];
    threads_and_stops_change_no_bit(dir.path(), "three", &stops, &files, |out, steps, resume| {
        Training { resume, stop: &|_, done| done >= steps, ..Training::new("jamie", &data, Device::cpu(), out, &options) }.run().unwrap();
    });
    assert!(aligned(&dir.path().join("one-three"), &pairs));
}

#[test]
fn names_that_would_make_two_correspondences_one_file_are_refused_before_there_is_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = table(dir.path(), "t", 1, 12, 3);
    let data = dataset(dir.path(), "data", &["x_y", "x", "y_x"].map(|name| (name, file.as_path())), PairsRule::ByName);
    let out = dir.path().join("run");
    let refused = Training::new("jamie", &data, Device::cpu(), &out, &["epochs=1"]).run().unwrap_err();
    assert!(refused.exit_code() == 2 && refused.to_string().contains("F.x_y_x.npy") && !out.exists(), "{refused}");
    Training::new("jamie", &data, Device::cpu(), &out, &["epochs=1", "align=0"]).run().unwrap();
}

#[test]
fn three_views_of_a_cell_come_together_two_by_two() {
    let dir = tempfile::tempdir().unwrap();
    let data = three(dir.path(), [120; 3], [24, 15, 12]);
    let out = dir.path().join("run");
    run(&data, Device::cpu(), &out, &["epochs=400", "latent=8", "batch_size=50", "dropout=0.05", "landmarks=40", "steps=200"]);
    assert!(aligned(&out, &["a_b", "a_c", "b_a", "b_c", "c_a", "c_b"]));
    for file in ["F.a_c.npy", "F.a_c.c.near.npy", "F.b_c.b.landmarks.cells.txt"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let metrics = Trained::open(&out, Device::cpu()).unwrap().evaluate(&data, None).unwrap();
    for key in ["foscttm.a_b", "foscttm.a_c", "foscttm.b_c"] {
        assert!(metrics.number(key).unwrap() < 0.03, "{key}: {:?}", metrics.number(key));
    }
    for key in ["cross_mse.a_to_c", "cross_mse.c_to_b", "cross_mse.b_to_a"] {
        assert!(metrics.number(key).unwrap() < 0.6, "{key}: {:?}", metrics.number(key));
    }
}

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses_of_jamie() {
    let dir = tempfile::tempdir().unwrap();
    // Some pairs known: minibatches are part pairs, part cells drawn by themselves.
    let pairs = dir.path().join("pairs.csv");
    fs::write(&pairs, (0..25).fold("a,b".to_string(), |t, i| t + &format!("\nc{i},c{i}"))).unwrap();
    let data = two(dir.path(), [40, 50], [13, 9], PairsRule::File(pairs));
    let options = ["epochs=10", "latent=4", "batch_size=20", "dropout=0.2", "steps=20", "pf_ratio=0.6"];
    let cpu = crate::kernels_agree(dir.path(), "partly-paired", 2e-4, 1e-2, |device, out| {
        run(&data, device, out, &options);
    });
    assert!(cpu[0].contains(&"align.b".to_string()) && aligned(&dir.path().join("partly-paired-cpu"), &["a", "b"]));

    // Fewer pairs than could contradict what twenty steps infer.
    let data = three(dir.path(), [19, 30, 19], [9, 7, 5]);
    let cpu = crate::kernels_agree(dir.path(), "three-modalities", 2e-4, 1e-2, |device, out| {
        run(&data, device, out, &options);
    });
    assert!(cpu[0].contains(&"align.b_c".to_string()) && aligned(&dir.path().join("three-modalities-cpu"), &["a_b", "c_a", "b_c"]));
}
