//! Tables: their values, names, pairs and labels, and one sentence for what is wrong in them.

use crate::matrix::matrix;
use crate::{Bench, labels, npy, plain};
use couplet::data::Hooks;
use couplet::data::formats::ModalitySource;
use couplet::data::import::{ImportSpec, LabelSource, import};
use couplet::data::npy::Dtype;
use couplet::data::pairs::PairsRule;
use std::sync::atomic::AtomicBool;

#[test]
fn a_table_comes_back_with_its_names_facts_and_missing_values() {
    let bench = Bench::new();
    bench.file("rna.csv", "cell,g1,g2\nx,1.5,\ny,-2,0\n");
    let (report, d) = bench.import(&["rna=rna.csv"], plain).unwrap();
    assert_eq!((report.pairs.as_str(), report.units), ("none", 0));
    let m = d.modality(d.position("rna").unwrap());
    assert_eq!((m.cells(), m.features(), m.is_sparse(), m.shape()), (2, 2, false, &[2][..]));
    assert_eq!((m.cell_ids(), m.feature_names()), (&["x".to_string(), "y".into()][..], &["g1".to_string(), "g2".into()][..]));
    let rows = matrix(&d, 0);
    assert!(rows[0][0] == 1.5 && rows[0][1].is_nan() && rows[1] == [-2.0, 0.0]);
    let f = m.facts();
    assert_eq!((f.sum, f.min, f.max, f.nonzeros, f.missing, f.all_integers_nonnegative), (-0.5, Some(-2.0), Some(1.5), 2, 1, false));
    d.verify(&mut Hooks::default()).unwrap();
}

#[test]
fn ids_come_from_labels_then_from_the_paired_modality_then_from_row_numbers() {
    let bench = Bench::new();
    npy(&bench.path("a.npy"), Dtype::F32, &[1], &[1.0, 2.0]);
    npy(&bench.path("b.npy"), Dtype::F32, &[1], &[3.0, 4.0]);
    bench.file("c.csv", "cell,g\np,1\nq,2\n");
    bench.file("labels.csv", "cell,type\nu,A\nv,B\n");
    let (report, d) = bench.import(&["a=a.npy", "b=b.npy"], |s| s.labels = labels(&bench, "labels.csv")).unwrap();
    assert_eq!((d.modality(0).cell_ids(), report.pairs.as_str()), (&["u".to_string(), "v".into()][..], "by-name"));
    let (_, d) = bench.import(&["a=a.npy", "c=c.csv"], |s| s.pairs = Some(PairsRule::ByRow)).unwrap();
    assert_eq!(d.modality(0).cell_ids(), ["p", "q"]);
    let (report, d) = bench.import(&["a=a.npy", "b=b.npy"], plain).unwrap();
    assert_eq!((d.modality(1).cell_ids(), report.pairs.as_str(), d.cells()), (&["0".to_string(), "1".into()][..], "none", 4));
    let by_name = |s: &mut ImportSpec| s.pairs = Some(PairsRule::ByName);
    assert!(bench.complaint(&["a=a.npy", "b=b.npy"], by_name).contains("row numbers for ids"));
    bench.file("d.csv", "cell,g\nr,1\ns,2\n");
    assert!(bench.complaint(&["c=c.csv", "d=d.csv"], by_name).contains("(\"c\" begins with \"p\", \"d\" with \"r\")"));
}

#[test]
fn pairing_rules_and_labels_meet_in_cells_csv() {
    let bench = Bench::new();
    bench.file("a.csv", "cell,g\nx,1\ny,2\nz,3\n");
    bench.file("b.csv", "cell,h\nz,4\nx,5\n");
    bench.file("labels.csv", "cell,type,test\nx,B,0\nz,,1\nw,A,1\n");
    let (report, d) = bench.import(&["a=a.csv", "b=b.csv"], |s| s.labels = labels(&bench, "labels.csv")).unwrap();
    assert_eq!((report.units, d.cells()), (2, 3));
    assert_eq!(d.links().pairs(0, 1).collect::<Vec<_>>(), [(0, 1, 1.0), (2, 0, 1.0)]);
    assert!(report.notes.iter().any(|n| n.contains("1 of 3 rows have no cell")), "{:?}", report.notes);
    assert_eq!(std::fs::read_to_string(d.dir().join("cells.csv")).unwrap(), "cell,type,test\nx,B,0\ny,,\nz,,1\n");
    let types = d.label("type").unwrap();
    assert_eq!((types.classes.as_slice(), &types.rows), (&["B".to_string()][..], &vec![vec![Some(0), None, None], vec![None, Some(0)]]));
    assert_eq!((d.default_label(), d.label_columns().len()), (Some("type"), 2));
    let message = d.label("tset").unwrap_err().to_string();
    assert!(message.ends_with("there are: test, type"), "{message}");
    assert!(d.position("c").unwrap_err().to_string().contains("there are: a, b"));

    let message = bench.complaint(&["a=a.csv", "b=b.csv"], |s| s.pairs = Some(PairsRule::ByRow));
    assert!(message.contains("\"a\" has 3 cells and \"b\" has 2"), "{message}");
    let (_, d) = bench.import(&["a=a.csv", "b=b.csv"], |s| s.pairs = Some(PairsRule::None)).unwrap();
    assert_eq!((d.links().len(), d.cells()), (0, 5));
    bench.file("pairs.csv", "a,b,sure\nx,z,0.25\n");
    let (report, d) = bench.import(&["a=a.csv", "b=b.csv"], |s| s.pairs = Some(PairsRule::File(bench.path("pairs.csv")))).unwrap();
    assert_eq!((report.units, d.links().pairs(0, 1).next()), (1, Some((0, 0, 0.25))));
    bench.file("c.csv", "cell,h\nz,4\ny,5\nx,6\n");
    let (report, d) = bench.import(&["a=a.csv", "c=c.csv"], |s| s.pairs = Some(PairsRule::ByRow)).unwrap();
    assert!(report.notes[0].contains("use --pairs by-name"), "{:?}", report.notes);
    assert_eq!((d.links().len(), d.cells()), (3, 3));
}

#[test]
fn labels_of_one_modality_alone_label_no_other() {
    let bench = Bench::new();
    bench.file("a.csv", "cell,g\nx,1\ny,2\n");
    bench.file("la.csv", "cell,type,fold\nx,A,1\ny,B,2\n");
    let source = |text: &str| {
        let modalities = vec![ModalitySource::parse("a=a.csv").unwrap(), ModalitySource::parse("b=a.csv").unwrap()];
        LabelSource::parse(&text.replace("la.csv", bench.path("la.csv").to_str().unwrap()), &modalities)
    };
    let (_, d) = bench.import(&["a=a.csv", "b=a.csv"], |s| s.labels = vec![source("a=la.csv#fold")]).unwrap();
    assert_eq!(d.label("type").unwrap().rows, [vec![Some(0), Some(1)], vec![None, None]]);
    assert_eq!(d.default_label(), Some("fold"));
    assert!(bench.complaint(&["a=a.csv"], |s| s.labels = vec![source("la.csv#typ")]).contains("did you mean type?"));
}

#[test]
fn faulty_files_get_one_sentence() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("folder.csv")).unwrap();
    bench.file("dup.csv", "cell,g\nx,1\ny,2\nx,3\n");
    bench.file("ragged.csv", "cell,g,h\nx,1,2\ny,1\n");
    bench.file("head.csv", "cell,g\n");
    bench.file("bare.csv", "cell\nx\n");
    bench.file("word.csv", "cell,g\nx,many\n");
    bench.file("latin.csv", b"cell,g\n\xe9,1\n");
    bench.file("broken.csv", "cell,g\n\"x\ny\",1\n");
    bench.file("zero.csv", "");
    bench.file("text.npy", "hello");
    bench.file("what.xlsx", "hello");
    for (file, words) in [
        ("folder.csv", "no matrix.mtx"),
        ("dup.csv", "the cell id \"x\" stands on line 2 and on line 4"),
        ("ragged.csv", "line 3: 2 fields, the header has 3"),
        ("head.csv", "no cells"),
        ("bare.csv", "no feature names"),
        ("word.csv", "column \"g\": \"many\" is not a number"),
        ("latin.csv", "line 2: field 1 is not UTF-8"),
        ("broken.csv", "line break"),
        ("zero.csv", "empty"),
        ("text.npy", "ends inside"),
        ("what.xlsx", "no format that is read here"),
        ("gone.csv", "there is no such file"),
        ("dup.csv#K", "leave it away"),
    ] {
        let message = bench.complaint(&[&format!("rna={file}")], plain);
        assert!(message.contains(words), "{file}: {message}");
    }
    assert!(bench.complaint(&["a=ragged.csv", "A=dup.csv"], plain).contains("two modalities are called"));
    assert!(bench.complaint(&[], plain).contains("--modality"));
}

#[test]
fn one_cell_and_repeated_feature_names_are_accepted() {
    let bench = Bench::new();
    bench.file("one.csv", "cell,g,g\nx,1,2\n");
    let (report, d) = bench.import(&["rna=one.csv"], plain).unwrap();
    assert_eq!((matrix(&d, 0), report.notes.len()), (vec![vec![1.0, 2.0]], 1));
    assert!(report.notes[0].contains("1 feature names repeat"), "{:?}", report.notes);
}

#[test]
fn an_existing_target_is_refused_and_an_interruption_leaves_nothing() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "cell,g\nx,1\n");
    let spec = ImportSpec { modalities: vec![ModalitySource { name: "a".into(), file, key: None }], ..Default::default() };
    let stop = AtomicBool::new(true);
    let error = import(&spec, &bench.path("d"), &mut Hooks { progress: None, stop: Some(&stop) }).unwrap_err();
    assert_eq!((error.exit_code(), bench.path("d").exists()), (1, false));
    assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 1);
    import(&spec, &bench.path("d"), &mut Hooks::default()).unwrap();
    let error = import(&spec, &bench.path("d"), &mut Hooks::default()).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    assert_eq!(error.exit_code(), 2);
}
