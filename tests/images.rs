//! Images from file to file: folders of PNG and TIFF in, the image instance of the cross-modal autoencoder, images and sheets out.
#![cfg(feature = "images")]

#[path = "common/training.rs"]
mod training;

use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportSpec, import};
use couplet::data::simulate::{SimulateSpec, simulate};
use couplet::data::{Dataset, Hooks};
use couplet::device::Device;
use couplet::train::{Space, Stopped, Trained};
use std::fs;
use std::path::Path;
use training::Training;

fn png(path: &Path, [width, height]: [u32; 2], colour: png::ColorType, depth: png::BitDepth, bytes: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
}

fn stack(path: &Path, [width, height]: [u32; 2], pages: &[Vec<u16>]) {
    let mut encoder = tiff::encoder::TiffEncoder::new(fs::File::create(path).unwrap()).unwrap();
    for page in pages {
        encoder.write_image::<tiff::encoder::colortype::Gray16>(width, height, page).unwrap();
    }
}

fn imported(file: &Path, key: Option<&str>, out: &Path) -> couplet::error::Result<Dataset> {
    let source = ModalitySource { name: "image".into(), file: file.into(), key: key.map(str::to_string) };
    import(&ImportSpec { modalities: vec![source], ..ImportSpec::default() }, out, &mut Hooks::default())?;
    Dataset::open(out)
}

fn values(dataset: &Dataset, row: usize) -> Vec<f32> {
    let mut values = vec![0.0; dataset.modality(0).features()];
    dataset.modality(0).row_into(row, &mut values).unwrap();
    values
}

#[test]
fn a_folder_of_images_keeps_its_pixels_names_and_channels() {
    use png::{BitDepth, ColorType};
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let grey = folder("grey");
    png(&grey.join("b.png"), [3, 2], ColorType::Grayscale, BitDepth::Eight, &[1, 2, 3, 4, 5, 255]);
    png(&grey.join("a.PNG"), [3, 2], ColorType::GrayscaleAlpha, BitDepth::Eight, &[9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0]);
    fs::write(grey.join("notes.txt"), "not an image").unwrap();
    let d = imported(&grey, None, &dir.path().join("grey.d")).unwrap();
    assert_eq!((d.modality(0).image(), d.modality(0).cell_ids()), (Some([1, 2, 3]), &["a".to_string(), "b".to_string()][..]));
    assert_eq!((values(&d, 0), values(&d, 1)), (vec![9.0, 8.0, 7.0, 6.0, 5.0, 4.0], vec![1.0, 2.0, 3.0, 4.0, 5.0, 255.0]));
    let colour = folder("colour");
    png(&colour.join("x.png"), [2, 1], ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6]);
    let d = imported(&colour, None, &dir.path().join("colour.d")).unwrap();
    assert_eq!((d.modality(0).image(), values(&d, 0)), (Some([3, 1, 2]), vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    let deep = folder("deep");
    stack(&deep.join("x.tif"), [2, 2], &[vec![0, 1000, 2000, 65535]]);
    let d = imported(&deep, None, &dir.path().join("deep.d")).unwrap();
    assert_eq!(values(&d, 0), [0.0, 1000.0, 2000.0, 65535.0]);
    assert_eq!(fs::metadata(dir.path().join("deep.d/image/values.npy")).unwrap().len() % 64, 8, "two bytes a pixel");
}

#[test]
fn images_are_turned_to_lie_across_and_stay_whole_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("grey");
    fs::create_dir(&folder).unwrap();
    // A bar that stands, brighter at its upper end, on a background of 10.
    let bar: Vec<u8> = (0..81).map(|p| if p % 9 == 4 && (2..7).contains(&(p / 9)) { 120 - 10 * (p / 9) } else { 10 }).collect();
    png(&folder.join("a.png"), [9, 9], png::ColorType::Grayscale, png::BitDepth::Eight, &bar);
    png(&folder.join("b.png"), [9, 9], png::ColorType::Grayscale, png::BitDepth::Eight, &[10; 81]);
    let source = |name: &str, file: &Path| ModalitySource { name: name.into(), file: file.into(), key: None };
    let oriented = |modality: ModalitySource, orient: &str, out: &str| {
        let spec = ImportSpec { modalities: vec![modality], orient: vec![orient.into()], ..ImportSpec::default() };
        import(&spec, &dir.path().join(out), &mut Hooks::default())
    };
    oriented(source("image", &folder), "image", "d").unwrap();
    let d = Dataset::open(&dir.path().join("d")).unwrap();
    let (first, blank) = (values(&d, 0), values(&d, 1));
    let of_row = |y: usize| first[9 * y..][..9].iter().map(|v| v - 10.0).sum::<f32>();
    assert!(of_row(4) > 0.95 * (0..9).map(of_row).sum::<f32>(), "{first:?}");
    assert!(first.iter().all(|v| v.fract() == 0.0) && blank == [10.0; 81]);
    assert_eq!(fs::metadata(dir.path().join("d/image/values.npy")).unwrap().len(), 128 + 2 * 81, "a byte a pixel");
    assert!(fs::read_to_string(dir.path().join("d/dataset.json")).unwrap().contains("oriented"));
    let table = dir.path().join("table.csv");
    fs::write(&table, "cell,x\nc,1\n").unwrap();
    for (modality, orient, says) in [
        (source("image", &folder), "imgae", "there is no modality \"imgae\" (did you mean image?); there are: image"),
        (source("rna", &table), "rna", "its cells are no images: leave --orient out"),
    ] {
        let e = oriented(modality, orient, "none").unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(says), "{e}");
    }
}

#[test]
fn z_stacks_are_projected_and_resized() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("stacks");
    fs::create_dir(&folder).unwrap();
    // The brightest of three pages at every pixel, over the range of the whole stack.
    stack(&folder.join("c.tiff"), [2, 2], &[vec![100, 100, 200, 100], vec![100, 500, 100, 100], vec![100, 100, 100, 300]]);
    stack(&folder.join("d.tiff"), [2, 2], &[vec![7; 4], vec![7; 4]]);
    let d = imported(&folder, Some("2"), &dir.path().join("d")).unwrap();
    assert_eq!((values(&d, 0), values(&d, 1)), (vec![0.0, 1.0, 0.25, 0.5], vec![0.0; 4]));
    let d = imported(&folder, Some("5"), &dir.path().join("d5")).unwrap();
    let v = values(&d, 0);
    assert!(d.modality(0).image() == Some([1, 5, 5]) && v.iter().all(|v| (0.0..=1.0).contains(v)) && v[4] > 0.9, "{v:?}");
    for (key, says) in [(None, "3 pages, a z-stack"), (Some("0"), "from 1 to 4096"), (Some("x"), "from 1 to 4096")] {
        let e = imported(&folder, key, &dir.path().join("no")).err().unwrap();
        assert!(e.exit_code() == 2 && e.to_string().contains(says), "{e}");
    }
}

#[test]
fn damaged_and_unequal_images_are_named() {
    use png::{BitDepth, ColorType};
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.png");
    png(&good, [4, 4], ColorType::Grayscale, BitDepth::Eight, &[5; 16]);
    let bytes = fs::read(&good).unwrap();
    let mut tiff = Vec::new();
    stack(&dir.path().join("good.tif"), [4, 4], &[vec![5; 16], vec![6; 16]]);
    tiff.extend(fs::read(dir.path().join("good.tif")).unwrap());
    let refused = |name: &str, content: &[u8]| {
        let folder = dir.path().join(format!("folder-{name}"));
        fs::create_dir(&folder).unwrap();
        fs::copy(&good, folder.join("0.png")).unwrap();
        fs::write(folder.join(name), content).unwrap();
        let out = dir.path().join(format!("out-{name}"));
        let e = imported(&folder, None, &out).err().unwrap_or_else(|| panic!("{name} was read"));
        assert!(e.exit_code() == 2 && e.to_string().contains(name) && !out.exists(), "{name}: {e}");
        fs::remove_dir_all(folder).unwrap();
    };
    for cut in [0, 1, 7, 8, 20, 33, 40, bytes.len() - 13] {
        refused(&format!("cut{cut}.png"), &bytes[..cut]);
    }
    for cut in [0, 3, 8, 20, tiff.len() / 2, tiff.len() - 1] {
        refused(&format!("cut{cut}.tif"), &tiff[..cut]);
    }
    refused("text.tif", b"no image at all");
    let other = dir.path().join("other.png");
    png(&other, [4, 3], ColorType::Grayscale, BitDepth::Eight, &[5; 12]);
    refused("size.png", &fs::read(&other).unwrap());
    png(&other, [4, 4], ColorType::Grayscale, BitDepth::Sixteen, &[5; 32]);
    refused("type.png", &fs::read(&other).unwrap());
}

const SMALL: [&str; 11] = [
    "channels=3,4,5",
    "width=12",
    "latent=4",
    "disc_width=9",
    "pretrain_epochs=2",
    "pretrain_batch=16",
    "epochs=3",
    "batch_size=8",
    "preprocess=none",
    "class=head",
    "class_weights=4.5,0.5",
];

fn nuclei(dir: &Path, cells: usize) -> Dataset {
    let out = dir.join("nuclei");
    simulate(&SimulateSpec { recipe: "nuclei", cells: Some(cells), ..Default::default() }, &out, &mut Hooks::default()).unwrap();
    Dataset::open(&out).unwrap()
}

/// Trains, or stops in the given epoch.
fn run(dataset: &Dataset, device: Device, out: &Path, more: &[&str], until: usize, resume: bool) {
    let options = [&SMALL[..], more].concat();
    let training = Training::new("cross-modal", dataset, device, out, &options);
    Training { resume, stop: &|epoch, _| epoch >= until, ..training }.run().unwrap();
}

fn tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(run.join("model.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = all.tensors().into_iter().map(|(name, t)| (name, t.data().to_vec())).collect();
    all.sort();
    all
}

#[test]
fn an_image_network_is_trained_first_and_then_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let data = nuclei(dir.path(), 40);
    let of = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        run(&data, Device::cpu(), &out, more, usize::MAX, false);
        tensors(&out)
    };
    let (short, long, on) = (of("short", &["epochs=1"]), of("long", &[]), of("on", &["train_image=true"]));
    let changed = |a: &[(String, Vec<u8>)], b: &[(String, Vec<u8>)]| -> Vec<String> {
        a.iter().zip(b).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0.clone()).collect()
    };
    let later = changed(&short, &long);
    assert!(later.iter().any(|n| n.starts_with("enc.rna")) && later.iter().any(|n| n.starts_with("disc.")), "{later:?}");
    assert!(later.iter().any(|n| n.starts_with("class.")), "the head goes on learning");
    assert!(!later.iter().any(|n| n.contains(".image.") && !n.starts_with("preprocess")), "what is frozen moved: {later:?}");
    let moved = changed(&short, &on);
    assert!(moved.iter().any(|n| n.starts_with("enc.image.0")) && moved.iter().any(|n| n.starts_with("dec.image")), "{moved:?}");
    // Terms of a stage that has not come, or is over, are no numbers.
    let history = fs::read_to_string(dir.path().join("long/history.csv")).unwrap();
    let rows: Vec<Vec<&str>> = history.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(rows.len(), 1 + 2 + 3);
    let at = |name: &str| rows[0].iter().position(|c| *c == name).unwrap_or_else(|| panic!("{name} in {:?}", rows[0]));
    for (row, early) in [(2, true), (3, false)] {
        assert_eq!(rows[row][at("pretrain.recon.image")] == "NaN", !early);
        assert_eq!(rows[row][at("disc.image_rna.rna")] == "NaN", early);
    }
    assert!(rows[5][at("total")].parse::<f64>().unwrap().is_finite());
}

#[test]
fn a_run_says_when_images_lie_otherwise_than_those_it_was_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = nuclei(dir.path(), 24);
    run(&data, Device::cpu(), &dir.path().join("run"), &["epochs=1", "pretrain_epochs=1"], usize::MAX, false);
    // The same dataset, said to have been turned.
    let turned = dir.path().join("turned");
    for part in ["", "image", "rna"] {
        fs::create_dir(turned.join(part)).unwrap();
        for file in fs::read_dir(data.dir().join(part)).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()) {
            fs::copy(&file, turned.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
    let manifest = fs::read_to_string(turned.join("dataset.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["modalities"][0]["source"]["made"] = "oriented: turned by their moments".into();
    fs::write(turned.join("dataset.json"), manifest.to_string()).unwrap();
    let embed = |dataset: &Path| {
        let mut run = Trained::open(&dir.path().join("run"), Device::cpu()).unwrap();
        run.embed(&Dataset::open(dataset).unwrap(), 0, &mut |_, _| Ok(()))
    };
    embed(data.dir()).unwrap();
    let e = embed(&turned).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("import them without --orient image"), "{e}");
}

#[test]
fn patience_counts_the_epochs_after_pretraining_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = nuclei(dir.path(), 40);
    let options = [&SMALL[..], &["pretrain_epochs=6", "epochs=80", "patience=3", "lr=0.05"]].concat();
    let out = dir.path().join("run");
    let training = Training::new("cross-modal", &data, Device::cpu(), &out, &options);
    let stopped = Training { holdout: Some("0.3"), ..training }.run().unwrap().0.stopped;
    assert!(matches!(stopped, Stopped::Early { best, kept: true } if best > 6), "{stopped:?}");
}

#[test]
fn a_run_stopped_in_either_stage_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let data = nuclei(dir.path(), 40);
    let whole = dir.path().join("whole");
    run(&data, Device::cpu(), &whole, &[], usize::MAX, false);
    for until in [1, 2, 3] {
        let broken = dir.path().join(format!("broken{until}"));
        run(&data, Device::cpu(), &broken, &[], until, false);
        assert!(tensors(&broken) != tensors(&whole), "it was not stopped");
        run(&data, Device::cpu(), &broken, &[], usize::MAX, true);
        assert!(tensors(&broken) == tensors(&whole), "stopped in epoch {until} it ends elsewhere");
    }
}

#[test]
fn every_switch_of_the_image_instance_trains_and_translates() {
    let dir = tempfile::tempdir().unwrap();
    let data = nuclei(dir.path(), 40);
    let plain: [&[&str]; 6] = [
        &["class=conditional"],
        &["class=none", "gan=lsgan"],
        &["recon.image=l1", "recon.rna=l1", "train_image=true"],
        &["pretrain_epochs=0", "w_kl=0.1"],
        &["shuffle=false", "weight_decay=0.01"],
        &["augment=dihedral"],
    ];
    for (i, more) in plain.into_iter().enumerate() {
        let more: Vec<&str> = [&["class_weights=auto"], more].concat();
        run(&data, Device::cpu(), &dir.path().join(format!("run{i}")), &more, usize::MAX, false);
    }
    let mut trained = Trained::open(&dir.path().join("run0"), Device::cpu()).unwrap();
    let mut images = Vec::new();
    trained
        .translate(&data, 1, 0, Space::Input, &mut |_, x| {
            images.push(x.to_vec());
            Ok(())
        })
        .unwrap();
    assert!(images.len() == 40 && images.iter().flatten().all(|v| (0.0..=1.0).contains(v)), "a sigmoid's");
    let metrics = trained.evaluate(&data, None).unwrap();
    for key in ["forest_auc.image_to_rna", "forest_auc.rna_to_image", "lda_auc.image_to_rna", "de_pearson.image_to_rna", "recon_mse.image"]
    {
        assert!(metrics.number(key).is_some(), "{key} is missing");
    }
    assert!(metrics.number("de_pearson.rna_to_image").is_none(), "a pixel is no gene");
}

/// The nuclei, each with four features that do not change when it is turned.
fn paired(dir: &Path, cells: usize) -> Dataset {
    let data = nuclei(dir, cells);
    let mut table = String::from("cell,mean,centre,brightest,spread\n");
    let mut x = vec![0.0; data.modality(0).features()];
    let side = data.modality(0).image().unwrap()[1];
    for (row, id) in data.modality(0).cell_ids().iter().enumerate() {
        data.modality(0).row_into(row, &mut x).unwrap();
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let spread = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
        let brightest = x.iter().fold(0.0f32, |a, &v| a.max(v));
        table.push_str(&format!("{id},{mean},{},{brightest},{spread}\n", x[side / 2 * side + side / 2]));
    }
    fs::write(dir.join("features.csv"), table).unwrap();
    let source = |name: &str, file: std::path::PathBuf| ModalitySource { name: name.into(), file, key: None };
    let modalities = vec![source("image", dir.join("nuclei/image/values.npy")), source("features", dir.join("features.csv"))];
    let pairs = Some(couplet::data::pairs::PairsRule::ByRow);
    import(&ImportSpec { modalities, pairs, ..ImportSpec::default() }, &dir.join("paired"), &mut Hooks::default()).unwrap();
    Dataset::open(&dir.join("paired")).unwrap()
}

#[test]
fn turned_images_and_translated_pairs_train_resume_and_are_told_feature_by_feature() {
    let dir = tempfile::tempdir().unwrap();
    let data = paired(dir.path(), 40);
    let more = ["class=none", "class_weights=auto", "train_image=true", "w_cross=1", "w_anch=0.5"];
    let of = |name: &str, augment: &str, until: usize, resume: bool| {
        let out = dir.path().join(name);
        run(&data, Device::cpu(), &out, &[&more[..], &[augment]].concat(), until, resume);
        tensors(&out)
    };
    let turned = of("turned", "augment=dihedral", usize::MAX, false);
    assert!(turned != of("plain", "augment=none", usize::MAX, false), "images are turned");
    for until in [1, 3] {
        let name = format!("broken{until}");
        assert!(of(&name, "augment=dihedral", until, false) != turned, "it was not stopped");
        assert!(of(&name, "augment=dihedral", usize::MAX, true) == turned, "stopped in epoch {until} it ends elsewhere");
    }
    let head = fs::read_to_string(dir.path().join("turned/history.csv")).unwrap();
    let head = head.lines().next().unwrap();
    for term in ["anchor.image_features", "cross.image_to_features", "cross.features_to_image"] {
        assert!(head.split(',').any(|h| h == term), "{term} in {head}");
    }
    let path = dir.path().join("turned");
    let metrics = Trained::open(&path, Device::cpu()).unwrap().evaluate(&data, None).unwrap();
    couplet::run::Run::open(&path).unwrap().0.save_metrics(&metrics).unwrap();
    let table = fs::read_to_string(path.join("metrics_by_feature.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(rows[0], ["direction", "cells", "feature", "pearson", "auroc", "pearson_knn", "auroc_knn"]);
    let told: Vec<_> = rows[1..].iter().map(|r| (r[0], r[1], r[2])).collect();
    let expected = ["mean", "centre", "brightest", "spread"].map(|f| ("image_to_features", "train", f));
    assert_eq!(told, expected, "pixels are not told one by one");
    let of_rows: Vec<f64> = rows[1..].iter().filter_map(|r| r[3].parse().ok()).collect();
    let mean = of_rows.iter().sum::<f64>() / of_rows.len() as f64;
    assert!((metrics.number("pearson.image_to_features").unwrap() - mean).abs() < 1e-9);
}

#[cfg(feature = "emulated")]
#[test]
fn the_kernels_give_the_processors_losses_of_images() {
    let dir = tempfile::tempdir().unwrap();
    let data = nuclei(dir.path(), 20);
    let [cpu, emulated] = [("cpu", Device::cpu()), ("emulated", Device::emulated(4))].map(|(name, device)| {
        let out = dir.path().join(name);
        run(&data, device, &out, &["pretrain_epochs=1", "epochs=2", "train_image=true", "augment=dihedral"], usize::MAX, false);
        fs::read_to_string(out.join("history.csv")).unwrap()
    });
    for (row, (c, e)) in cpu.lines().zip(emulated.lines()).enumerate().skip(1) {
        for (column, (c, e)) in c.split(',').zip(e.split(',')).enumerate().filter(|(column, _)| *column != 1) {
            let (c, e): (f64, f64) = (c.parse().unwrap(), e.parse().unwrap());
            let near = (c - e).abs() <= 2e-3 * c.abs().max(1e-2) || (c.is_nan() && e.is_nan());
            assert!(near, "epoch {row}, column {column}: {c} and {e}");
        }
    }
}
