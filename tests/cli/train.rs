//! `train`: what a run holds, what its options choose, and how mistakes are told.

use crate::{QUICK, csv, made, modality, names, ok, refused, run, text};
use std::fs;
use std::path::Path;

#[test]
fn a_run_holds_what_the_contract_lists() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    for file in ["model.safetensors", "config.toml", "history.csv", "checkpoint"] {
        assert!(Path::new(&run).join(file).exists(), "{file}");
    }
    for name in [&a, &b] {
        let cells = fs::read_to_string(Path::new(&run).join(format!("embedding.{name}.cells.txt"))).unwrap();
        assert_eq!(cells.lines().count(), 60);
        let npy = fs::read(Path::new(&run).join(format!("embedding.{name}.npy"))).unwrap();
        assert_eq!(&npy[..6], b"\x93NUMPY");
    }
    let config: toml::Table = fs::read_to_string(Path::new(&run).join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["model"].as_str(), Some("coupled"));
    assert_eq!(config["holdout"].as_str(), Some("0.2"));
    assert_eq!(config["epochs"].as_integer(), Some(3));
    for key in ["couplet", "seed", "lr", "lambda", "preprocess", "batch_size"] {
        assert!(config.contains_key(key), "{key}");
    }
    assert!(!config.values().any(|v| v.as_str() == Some("auto")), "{config}");
    let history = fs::read_to_string(Path::new(&run).join("history.csv")).unwrap();
    assert!(history.starts_with("epoch,seconds,"), "{history}");
    assert_eq!(history.lines().count(), 4, "{history}");
}

#[test]
fn the_same_seed_repeats_a_run_and_its_config_does_too() {
    let (data, run) = (made().path("data"), made().path("run"));
    let dir = tempfile::tempdir().unwrap();
    let again = dir.path().join("again");
    let config = format!("{run}/config.toml");
    ok(&["train", "coupled", "--config", &config, "--out", again.to_str().unwrap(), "--device", "cpu", "--threads", "2"]);
    let (a, _) = names(&data);
    for file in ["model.safetensors".to_string(), format!("embedding.{a}.npy")] {
        assert!(fs::read(Path::new(&run).join(&file)).unwrap() == fs::read(again.join(&file)).unwrap(), "{file} differs");
    }
}

#[test]
fn train_takes_files_and_keeps_their_dataset_in_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let cells: Vec<String> = (0..20).map(|i| format!("cell{i}")).collect();
    let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
    let value = |i: usize, j: usize| ((i * 7 + j * 13) % 17) as f64 / 3.0;
    let a = csv(dir.path(), "a.csv", &cells, |i| format!("{},{},{}", value(i, 1), if i == 3 { -2.0 } else { value(i, 2) }, value(i, 3)));
    let b = csv(dir.path(), "b.csv", &cells, |i| format!("{},{}", value(i, 4), value(i, 5)));
    let out = dir.path().join("run");
    let (ma, mb) = (modality("a", &a), modality("b", &b));
    let train = |more: &[&str]| {
        let args = ["train", "coupled", "--modality", &ma, "--modality", &mb, "--out", out.to_str().unwrap(), "--latent", "2"];
        [&args[..], &QUICK, more].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    for (set, says) in [("alpha.c=1", &["\"c\"", "a, b"][..]), ("preprocess.a=log1p", &["cell3", "f1"])] {
        let args = train(&["--set", set]);
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), says);
        assert!(!out.exists(), "a refused training leaves no run");
    }
    let args = train(&[]);
    ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(out.join("dataset/dataset.json").exists());
    ok(&["evaluate", out.to_str().unwrap(), "--device", "cpu"]);
}

#[test]
fn mistakes_of_train_are_one_sentence_with_a_hint() {
    let (data, run) = (made().path("data"), made().path("run"));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("r");
    let out = out.to_str().unwrap();
    let train = |more: &[&str], says: &[&str]| {
        refused(&[&["train", "coupled", &data, "--out", out], more].concat(), says);
        assert!(!Path::new(out).exists(), "{more:?} left a run");
    };
    train(&["--epoch", "3"], &["--epochs"]);
    train(&["--set", "lamda=1"], &["lambda"]);
    train(&["--set", "preprocess=log1"], &["log1p"]);
    train(&["--latent", "0"], &["latent", "from 1"]);
    train(&["--device", "gpu"], &["auto", "cpu", "cuda"]);
    train(&["--precision", "bf16", "--device", "cpu"], &["f32"]);
    train(&["--holdout", "2"], &["--holdout"]);
    train(&["--holdout", "brunch=1"], &["brunch", "branch"]);
    train(&["--labels", "brunch"], &["brunch", "branch"]);
    train(&["--config", "none.toml"], &["none.toml", "no such file"]);
    let config = dir.path().join("c.toml");
    fs::write(&config, "lr = 0.1\nlatnt = 3\n").unwrap();
    train(&["--config", config.to_str().unwrap()], &["c.toml", "latnt", "did you mean latent?"]);
    refused(&["train", "couplet", &data, "--out", out], &["coupled"]);
    refused(&["train", "coupled", "--out", out], &["DATASET"]);
    refused(&["train", "coupled", "nowhere", "--out", out], &["nowhere"]);
    refused(&["train", "coupled", &data, "--out", &run], &["--resume"]);
    refused(&["train", "coupled", &data, "--out", &data], &["no run"]);
    refused(&[&["train", "coupled", &data, "--out", &run, "--resume", "--seed", "5"][..], &QUICK].concat(), &["seed = 0, not 5"]);
    refused(
        &[&["train", "coupled", &data, "--out", &run, "--resume", "--set", "lr=0.5"][..], &QUICK].concat(),
        &["lr = 0.001, not lr = 0.5"],
    );
}

#[test]
fn the_option_table_of_a_model_is_its_help() {
    let help = ok(&["train", "coupled", "--help"]);
    for word in ["lambda[.A_B] = 1", "min-singular-value", "preprocess[.NAME] = auto", "--holdout"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(ok(&["train", "--help"]).contains("coupled"));
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").to_str().unwrap().to_string();
    let data = made().path("data");
    let done = run(&["train", "coupled", &data, "--out", &out, "--device", "cpu", "--set", "lr=1e30", "--set", "hidden=8"]);
    let err = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{err}");
    let sentence = err.lines().last().unwrap_or_default();
    for part in ["step", "recon.view1", "linear"] {
        assert!(sentence.contains(part), "{sentence:?} does not say {part:?}");
    }
}

#[test]
fn features_that_vary_most_are_chosen_on_training_cells_and_kept_with_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    ok(&["simulate", "atlas", "--like", "multiome", "--cells", "120", "--features", "60,40", "--out", &path("d")]);
    for (model, more, given) in [
        ("coupled", &["--set", "hidden=8", "--set", "latent=2"][..], "30 of its features"),
        ("jamie", &["--set", "pca_dim=9", "--set", "align=0"], "9 principal components of 30 of its features"),
    ] {
        let run = path(model);
        let base = ["train", model, &path("d"), "--out", &run, "--epochs", "3", "--holdout", "0.25", "--device", "cpu"];
        let said = ok(&[&base[..], more, &["--set", "n_top_genes.rna=30", "--batch-size", "32"]].concat());
        assert!(said.contains(given), "{said}");
        let config = fs::read_to_string(format!("{run}/config.toml")).unwrap();
        assert!(config.contains("top_genes_by = \"seurat-v3\"") && config.contains("n_top_genes.atac = 0"), "{config}");
        // What the run kept is enough: embedding, imputing all features, measuring those that the model has.
        ok(&["embed", &run, "--from", "rna", "--out", &path("z.npy"), "--device", "cpu"]);
        assert_eq!(fs::read(path("z.npy")).unwrap(), fs::read(format!("{run}/embedding.rna.npy")).unwrap());
        ok(&["translate", &run, "--from", "atac", "--to", "rna", "--out", &path("t.csv"), "--device", "cpu"]);
        assert_eq!(fs::read_to_string(path("t.csv")).unwrap().lines().next().unwrap().split(',').count(), 61);
        assert!(ok(&["evaluate", &run, "--device", "cpu"]).contains("recon_mse.rna"));
    }
    refused(&["train", "coupled", &path("d"), "--out", &path("x"), "--set", "top_genes_by=best"], &["seurat-v3, dispersion, variance"]);
    assert!(!Path::new(&path("x")).exists());
}
