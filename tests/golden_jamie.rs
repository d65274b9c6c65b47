//! JAMIE against values computed by PyTorch in float64 from the same formulas (tests/golden/jamie/make.py says which and how), the
//! sampling noise included, which is the same Philox stream: running statistics, codes and imputations by them, every loss term, every
//! parameter's gradient by name before and after clipping, and of ten steps the total losses, the norms of the gradients, and the
//! weights after them; on every device that answers, with the room that tests/common/golden.rs gives.

#![cfg(feature = "models")]

mod common;

use common::golden::{Bench, Case, Subject, all_are_used, check};

static JAMIE: Subject = Subject { model: "jamie", flags, left_out: |_, _| false, before };

fn flags(case: &Case) -> Vec<String> {
    let options = case.config["options"].as_object().expect("options");
    let value = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    options.iter().map(|(option, v)| format!("{option}={}", value(v))).collect()
}

/// One training pass, and evaluation by the running statistics that it leaves.
fn before(bench: &mut Bench) {
    bench.step.begin(true, 1, 0).expect("begin");
    bench.losses();
    bench.step.end();
    bench.check_running();
    bench.step.begin(false, 1, 0).expect("begin");
    let names = bench.case.names();
    for (i, name) in names.iter().enumerate() {
        let code = bench.model.encode(&mut bench.step, i, bench.x[i]);
        bench.check_values(code, &format!("eval/code.{name}"));
        for (j, other) in names.iter().enumerate() {
            let imputed = bench.model.decode(&mut bench.step, j, code);
            bench.check_values(imputed, &format!("eval/{name}_to_{other}"));
        }
    }
    bench.step.end();
}

macro_rules! cases {
    ($($test:ident $case:literal)*) => { $(#[test] fn $test() { check(&JAMIE, $case); })* };
}

cases! {
    full_pairs_match_pytorch "paired"
    some_pairs_blended_with_the_inferred_match_pytorch "partly-paired"
    no_pairs_match_pytorch "no-pairs"
    the_inferred_alone_without_clipping_match_pytorch "inferred-only"
    one_sided_alignment_with_short_gradients_matches_pytorch "one-sided"
    no_alignment_matches_pytorch "no-align"
    three_modalities_with_some_pairs_match_pytorch "three"
    three_modalities_one_sided_match_pytorch "three-one-sided"
    clamped_sigmas_match_pytorch "sigma-clamped"
}

/// Every fixture is used.
#[test]
fn every_fixture_has_a_test() {
    all_are_used("jamie", include_str!("golden_jamie.rs"));
}
