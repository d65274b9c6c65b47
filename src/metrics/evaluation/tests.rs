use super::*;
use crate::metrics::{Value, describe};

/// Two views of 60 cells of three types, 2 dimensions: the second is the first with a little noise.
fn views() -> (Vec<f32>, Vec<f32>, Vec<Option<u32>>) {
    let mut draws = Sequence::new(1, 0, 0);
    let labels: Vec<Option<u32>> = (0..60).map(|i| Some(i % 3)).collect();
    let a: Vec<f32> = (0..120).map(|i| draws.next_normal() + if i % 2 == 0 { 9.0 * (i / 2 % 3) as f32 } else { 0.0 }).collect();
    let b = a.iter().map(|a| a + 0.01 * draws.next_normal()).collect();
    (a, b, labels)
}

fn evaluate(a: &[f32], b: &[f32], labels: Option<&[Option<u32>]>, roles: &[Role], pairs: Vec<(u32, u32)>) -> Metrics {
    let modality = |name, embedding| Evaluated { name, embedding, roles, labels };
    let modalities = vec![modality("rna", a), modality("ephys", b)];
    embedding_metrics(&Evaluation { modalities, links: vec![PairSet { a: 0, b: 1, pairs }], classes: &[], latent: 2, seed: 0 })
}

fn all_pairs(n: u32) -> Vec<(u32, u32)> {
    (0..n).map(|i| (i, i)).collect()
}

#[test]
fn good_embeddings_score_well_on_held_out_and_training_cells() {
    let (a, b, labels) = views();
    let roles: Vec<Role> = (0..60).map(|i| Role::from(i >= 48)).collect();
    let m = evaluate(&a, &b, Some(&labels), &roles, all_pairs(60));
    assert_eq!(m.get("held_out"), Some(Value::Flag(true)));
    assert_eq!((m.number("cells"), m.number("cells.train")), (Some(12.0), Some(48.0)));
    assert_eq!((m.number("paired_cells"), m.number("paired_cells.train")), (Some(12.0), Some(48.0)));
    for suffix in ["", ".train"] {
        let value = |key: &str| m.number(&format!("{key}{suffix}")).unwrap_or_else(|| panic!("{key}{suffix} is absent"));
        assert!(value("foscttm") < 0.01 && value("foscttm") == value("foscttm.rna_ephys") && value("foscttm_l1") < 0.01);
        assert!(value("lta") == 1.0 && value("class_accuracy.rna") == 1.0 && value("class_accuracy.ephys") == 1.0);
        assert!(value("knn_accuracy@5.rna_to_ephys") == 1.0 && value("knn_accuracy@1.ephys_to_rna") > 0.9);
        // A cell's twin counts among the other modality's n, nothing among the own n - 1: -1/n where all else is mixed.
        assert!(value("silhouette.labels") > 0.7 && (-0.1..0.0).contains(&value("silhouette.modality")));
        assert!(value("qda_accuracy.rna") == 1.0 && value("ami") > 0.99 && value("latent_singular_ratio.rna") > 0.05);
    }
    assert!(m.number("qda_accuracy.rna.error").is_none() && m.number("qda_accuracy.rna.error.train").is_some());
    assert!(m.iter().all(|(key, _)| describe(key).is_some()), "every key has a row in METRICS");
}

#[test]
fn without_held_out_cells_plain_keys_are_the_training_cells() {
    let (a, b, labels) = views();
    let m = evaluate(&a, &b, Some(&labels), &[Role::Trained; 60], all_pairs(60));
    assert_eq!(m.get("held_out"), Some(Value::Flag(false)));
    assert!(m.iter().all(|(key, _)| !key.ends_with(".train")));
    assert_eq!(m.number("cells"), Some(60.0));
}

#[test]
fn what_cannot_be_said_is_absent() {
    let (a, b, _) = views();
    let m = evaluate(&a, &b, None, &[Role::Trained; 60], vec![]);
    assert_eq!((m.number("cells"), m.number("paired_cells")), (Some(120.0), Some(0.0)));
    let starts = ["foscttm", "knn_accuracy", "lta", "class_accuracy", "silhouette.labels", "qda", "ami"];
    assert!(m.iter().all(|(key, _)| starts.iter().all(|s| !key.starts_with(s))));
    // One cell, none, and one class.
    let one = evaluate(&a[..2], &b[..2], Some(&[Some(0)]), &[Role::Trained], all_pairs(1));
    assert_eq!((one.number("foscttm"), one.number("cells"), one.number("ami")), (Some(0.0), Some(1.0), None));
    assert!(one.number("silhouette.modality").is_none() && one.number("latent_rms.rna").is_none());
    let none = evaluate(&[], &[], Some(&[]), &[], vec![]);
    assert_eq!(none.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["cells", "paired_cells", "held_out"]);
    let unlabelled = evaluate(&a, &b, Some(&[None; 60]), &[Role::HeldOut; 60], all_pairs(60));
    assert!(unlabelled.number("lta").is_none() && unlabelled.number("foscttm").is_some() && unlabelled.number("foscttm.train").is_none());
}

#[test]
fn a_type_that_one_modality_lacks_lies_apart_and_one_that_is_merely_unpaired_does_not() {
    let (a, b, labels) = views();
    let roles = [Role::Trained; 60];
    let classes = ["IT", "Pvalb", "Sst"].map(str::to_string);
    // The second modality has no Sst (class 2); its Pvalb are there and no pair is known of them.
    let keep: Vec<usize> = (0..60).filter(|i| i % 3 != 2).collect();
    let b: Vec<f32> = keep.iter().flat_map(|&i| [b[2 * i], b[2 * i + 1]]).collect();
    let b_labels: Vec<Option<u32>> = keep.iter().map(|&i| labels[i]).collect();
    let pairs = keep.iter().zip(0..).filter(|(i, _)| **i % 3 == 0).map(|(&i, row)| (i as u32, row)).collect();
    let m = embedding_metrics(&Evaluation {
        modalities: vec![
            Evaluated { name: "rna", embedding: &a, roles: &roles, labels: Some(&labels) },
            Evaluated { name: "ephys", embedding: &b, roles: &roles[..40], labels: Some(&b_labels) },
        ],
        links: vec![PairSet { a: 0, b: 1, pairs }],
        classes: &classes,
        latent: 2,
        seed: 0,
    });
    let p = |name: &str| m.number(&format!("unshared_p.{name}"));
    assert!(p("rna_to_ephys.Sst").unwrap() < 1e-6 && m.number("unshared_ks.rna_to_ephys.Sst") == Some(1.0));
    assert_eq!((p("rna_to_ephys.IT"), p("ephys_to_rna.IT"), p("ephys_to_rna.Sst")), (None, None, None));
    assert!(p("ephys_to_rna.Pvalb").unwrap() > 0.05, "{:?}", p("ephys_to_rna.Pvalb"));
    assert!(m.iter().all(|(key, _)| describe(key).is_some()), "every key has a row in METRICS");
}

#[test]
fn a_code_in_one_point_never_panics() {
    let flat = [1.0f32; 120];
    let labels: Vec<Option<u32>> = (0..60).map(|i| Some(i % 3)).collect();
    let m = evaluate(&flat, &flat, Some(&labels), &[Role::Trained; 60], all_pairs(60));
    assert_eq!((m.number("foscttm"), m.number("latent_singular_ratio.rna")), (Some(0.0), Some(0.0)));
    assert_eq!(m.number("silhouette.labels"), Some(0.0));
    let broken = [f32::NAN; 120];
    evaluate(&broken, &broken, Some(&labels), &[Role::Trained; 60], all_pairs(60));
}

#[test]
fn three_modalities_count_a_cell_once_and_average_over_pairs() {
    let (a, b, labels) = views();
    let roles = [Role::Trained; 60];
    let modality = |name, embedding| Evaluated { name, embedding, roles: &roles, labels: Some(&labels) };
    let far: Vec<f32> = a.iter().rev().copied().collect();
    let e = Evaluation {
        modalities: vec![modality("x", &a), modality("y", &b), modality("z", &far)],
        links: vec![PairSet { a: 0, b: 1, pairs: all_pairs(60) }, PairSet { a: 1, b: 2, pairs: all_pairs(30) }],
        classes: &[],
        latent: 2,
        seed: 0,
    };
    let m = embedding_metrics(&e);
    assert_eq!((m.number("cells"), m.number("paired_cells")), (Some(90.0), Some(60.0)));
    let mean = (m.number("foscttm.x_y").expect("pairs") + m.number("foscttm.y_z").expect("pairs")) / 2.0;
    assert_eq!(m.number("foscttm"), Some(mean));
    assert!(m.number("foscttm.x_z").is_none() && m.number("class_accuracy.z").is_some());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (a, b, labels) = views();
    let roles: Vec<Role> = (0..60).map(|i| Role::from(i % 4 == 0)).collect();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| evaluate(&a, &b, Some(&labels), &roles, all_pairs(60)))
    };
    assert_eq!(with(1), with(3));
}
