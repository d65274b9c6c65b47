//! `explain`: ablation, Shapley values, principal components.

use crate::{made, names, ok, refused};
use std::fs;
use std::path::Path;

#[test]
fn explain_ablates_into_a_table_that_is_sorted_and_begins_at_evaluates_score() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let explain = |more: &[&str]| ok(&[&["explain", &run, "--method", "ablation", "--of", &a, "--device", "cpu"][..], more].concat());
    let table = |name: &str| {
        let text = fs::read_to_string(out(name)).unwrap();
        let rows: Vec<Vec<String>> = text.lines().skip(1).map(|l| l.split(',').map(str::to_string).collect()).collect();
        (text.lines().next().unwrap_or_default().to_string(), rows)
    };
    let said = explain(&["--labels", "branch", "--out", &out("lta.csv")]);
    assert!(said.starts_with("lta: branch of") && said.contains("12 cells that training never saw") && said.contains("185 more"), "{said}");
    let (header, rows) = table("lta.csv");
    assert_eq!((header.as_str(), rows.len()), ("name,features,score,baseline,drop", 200));
    ok(&["evaluate", &run, "--labels", "branch", "--out", &out("m.json"), "--device", "cpu"]);
    let metrics: serde_json::Value = serde_json::from_str(&fs::read_to_string(out("m.json")).unwrap()).unwrap();
    assert_eq!(rows[0][3].parse().ok(), metrics["lta"].as_f64());
    let drops: Vec<f64> = rows.iter().map(|r| r[4].parse().unwrap()).collect();
    assert!(drops.is_sorted_by(|x, y| x >= y), "{drops:?}");

    let first =
        |name: &str| fs::read_to_string(Path::new(&data).join(name).join("features.txt")).unwrap().lines().next().unwrap().to_string();
    let (in_a, in_b) = (first(&a), first(&b));
    fs::write(out("sets.csv"), format!("set,feature\nonly,{in_a}\n")).unwrap();
    let to = ["--to", &b, "--feature", &in_b, "--sets", &out("sets.csv"), "--out", &out("r.csv"), "--keep"];
    let said = explain(&to);
    assert!(said.starts_with(&format!("pearson: {in_b} of {b} imputed from {a}")) && said.contains("with nothing else"), "{said}");
    assert_eq!(table("r.csv").1.len(), 1);

    let refused = |more: &[&str], says: &[&str]| refused(&[&["explain", &run, "--method", "ablation"][..], more].concat(), says);
    refused(&[], &["--of"]);
    refused(&["--of", "nothing"], &["nothing", &a]);
    refused(&["--of", &a, "--labels", "brunch"], &["brunch", "branch"]);
    refused(&["--of", &a, "--to", &a], &["another modality"]);
    refused(&["--of", &a, "--to", &b, "--feature", &format!("{in_b}0000")], &[&b, "did you mean"]);
    refused(&["--of", &a, "--cell", "c"], &["--cell goes with --method shapley"]);
    refused(&["--of", &b, "--sets", &out("sets.csv")], &["sets.csv, line 2", &in_a]);
    refused(&["--of", &a, "--out", &out("x.npy")], &[".csv"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn explain_shares_out_an_imputed_value_and_draws_a_waterfall() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let line = |name: &str, file: &str, at: usize| {
        fs::read_to_string(Path::new(&data).join(name).join(file)).unwrap().lines().nth(at).unwrap().to_string()
    };
    let (cell, feature) = (line(&a, "cells.txt", 3), line(&b, "features.txt", 7));
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let of = ["explain", &run, "--method", "shapley", "--from", &a, "--to", &b, "--device", "cpu", "--permutations", "2"];
    let explain = |cell: &str, feature: &str, more: &[&str]| [&of[..], &["--cell", cell, "--feature", feature], more].concat().join("\n");
    let run = |args: String| ok(&args.split('\n').collect::<Vec<_>>());
    let said = run(explain(&cell, &feature, &["--out", &out("s.csv"), "--plot", &out("w.svg")]));
    assert!(said.contains(&format!("cell {cell}")) && said.contains("the mean cell") && said.contains("2 permutations"), "{said}");
    let csv = fs::read_to_string(out("s.csv")).unwrap();
    assert!(csv.starts_with("name,features,value,shapley,error\n") && csv.lines().count() == 201, "{csv}");
    let sum: f64 = csv.lines().skip(1).map(|l| l.split(',').nth(3).unwrap().parse::<f64>().unwrap()).sum();
    ok(&["translate", &made().path("run"), "--from", &a, "--to", &b, "--out", &out("t.csv"), "--device", "cpu"]);
    let translated = fs::read_to_string(out("t.csv")).unwrap();
    let whole: f64 = translated.lines().nth(4).unwrap().split(',').nth(8).unwrap().parse().unwrap();
    let told: Vec<f64> = said.lines().nth(1).unwrap().split([' ', ',', ';']).filter_map(|w| w.parse().ok()).collect();
    assert!((told[0] - whole).abs() < 2e-5 && (told[0] - told[1] - sum).abs() < 2e-5, "{told:?} {whole} {sum}");
    let svg = fs::read_to_string(out("w.svg")).unwrap();
    assert!(svg.contains(&cell) && svg.contains("185 others, each smaller") && svg.ends_with("</svg>\n"), "{svg}");
    run(explain(&cell, &feature, &["--top", "3", "--space", "model", "--seed", "4", "--plot", &out("w.png")]));
    assert!(fs::read(out("w.png")).unwrap().starts_with(b"\x89PNG\r\n"));

    let refused = |args: String, says: &[&str]| refused(&args.split('\n').collect::<Vec<_>>(), says);
    refused(explain(&format!("{cell}x"), &feature, &[]), &["no cell", "did you mean"]);
    refused(explain(&cell, &format!("{feature}x"), &[]), &["no feature", "did you mean"]);
    refused(explain(&cell, &feature, &["--plot", &out("w.pdf")]), &[".svg or .png"]);
    refused(explain(&cell, &feature, &["--plot", &out("no/w.png")]), &["folder"]);
    refused(explain(&cell, &feature, &["--keep"]), &["--keep goes with --method ablation"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn explain_pcs_leaves_tables_and_figures_of_every_component_and_the_same_twice() {
    let (data, run) = (made().path("data"), made().path("run"));
    let (a, b) = names(&data);
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let pcs = |more: &[&str]| {
        let of = ["explain", "pcs", &run, "--device", "cpu", "--splits", "3", "--components", "2", "--centre", "1"];
        [&of[..], more].concat().iter().map(|w| w.to_string()).collect::<Vec<String>>()
    };
    let tell = |more: &[&str]| ok(&pcs(more).iter().map(String::as_str).collect::<Vec<_>>());
    let said = tell(&["--out", &out("p")]);
    assert!(said.contains(&format!("{a}, code space: component 1: ")) && said.contains("low   "), "{said}");
    assert!(said.trim_end().ends_with("4 figures as SVG and PNG"), "{said}");
    let read = |folder: &str, name: &str| fs::read_to_string(Path::new(&out(folder)).join(name)).unwrap();
    let features = read("p", "features.csv");
    assert!(features.starts_with("encoder,space,component,group,features_of,feature,count,splits,area,"), "{features}");
    // Codes are made of the features: some follow a component even with twelve test cells.
    let follow = features.lines().skip(1).filter(|l| l.split(',').nth(6).is_some_and(|n| n != "0")).count();
    assert!(follow > 0, "{features}");
    let cells = read("p", "cells.csv");
    let bins: std::collections::BTreeSet<i32> = cells.lines().skip(1).map(|l| l.split(',').nth(3).unwrap().parse().unwrap()).collect();
    assert_eq!(bins, (-5..=5).collect());
    assert!(read("p", &format!("{a}.code.pc1.svg")).ends_with("</svg>\n"));
    assert!(fs::read(Path::new(&out("p")).join(format!("{b}.code.pc2.png"))).unwrap().starts_with(b"\x89PNG\r\n"));
    tell(&["--out", &out("q")]);
    assert_eq!((features, cells), (read("q", "features.csv"), read("q", "cells.csv")));

    let ids: Vec<String> = fs::read_to_string(Path::new(&data).join(&a).join("cells.txt")).unwrap().lines().map(str::to_string).collect();
    let table: String = ids.iter().enumerate().map(|(i, id)| format!("{id},{i},\n")).collect();
    fs::write(out("f.csv"), format!("cell,size,empty\n{table}")).unwrap();
    tell(&["--out", &out("f"), "--from", &a, "--features", &out("f.csv")]);
    tell(&["--out", &out("b"), "--from", &a, "--of", &b]);
    assert!(read("b", "cells.csv").lines().count() > 11 && Path::new(&out("b")).join(format!("{a}.code.{b}.pc1.png")).exists());

    let refused = |more: &[&str], says: &[&str]| refused(&pcs(more).iter().map(String::as_str).collect::<Vec<_>>(), says);
    fs::write(out("f.csv"), format!("cell,size\n{},big\n", ids[0])).unwrap();
    refused(&["--out", &out("r"), "--from", &a, "--features", &out("f.csv")], &["f.csv, line 2", "\"big\" is not a number"]);
    fs::write(out("f.csv"), "cell,size\nnobody,1\n").unwrap();
    refused(&["--out", &out("r"), "--from", &a, "--features", &out("f.csv")], &["none of its 1 cells"]);
    refused(&["--from", "nothing"], &["nothing", &a]);
    refused(&["--thresholds", "8,1.2"], &["the lower first"]);
    refused(&["--values", "log3"], &["log3"]);
    refused(&["--centre", "0"], &["--centre"]);
    crate::refused(&["explain"], &["<RUN>"]);
}
