//! The coupled autoencoder against values computed by PyTorch in float64 from the same formulas (tests/golden/coupled/make.py says
//! which and how): codes, reconstructions, running statistics and evaluation by them, every loss term, every parameter's gradient by
//! name, ten losses in a row and the weights after them; on every device that answers, with the room that tests/common/golden.rs gives.

#![cfg(feature = "models")]

mod common;

use common::golden::{Bench, Case, Subject, all_are_used, check};
use serde_json::Value as Json;

static COUPLED: Subject = Subject { model: "coupled", flags, left_out, before };

fn flags(case: &Case) -> Vec<String> {
    let c = &case.config;
    let word = |v: &Json| v.as_str().map_or_else(|| v.to_string(), |s| if s == "linear" { "none".into() } else { s.to_string() });
    let mut flags = vec!["input_dropout=0".to_string(), "noise_sd=0".into(), format!("batch_size={}", c["rows"])];
    for (option, key) in [("coupling", "coupling"), ("latent", "latent"), ("floor", "floor"), ("activation", "activation")] {
        flags.push(format!("{option}={}", word(&c[key])));
    }
    flags.push(format!("cross_modal={}", c["cross_modal"]));
    flags.push(format!("bn_keep={}", c["bn_momentum"]));
    flags.push(format!("ridge={}", c["covariance_eps"]));
    flags.push(format!("lr={}", c["adam"]["lr"]));
    for (i, name) in case.names().into_iter().enumerate() {
        flags.push(format!("alpha.{name}={}", c["alpha"][i]));
        flags.push(format!("hidden.{name}={}", vec![c["hidden"][i].to_string(); 4].join(",")));
        flags.push(format!("output_activation.{name}={}", word(&c["output"][i])));
    }
    for (pair, lambda) in c["lambda"].as_object().expect("lambda") {
        flags.push(format!("lambda.{pair}={lambda}"));
    }
    flags
}

/// The coupling of a pair with λ = 0.
fn left_out(case: &Case, term: &str) -> bool {
    case.config["lambda"].as_object().expect("lambda").iter().any(|(pair, v)| v == 0 && term == format!("coupling.{pair}"))
}

fn before(bench: &mut Bench) {
    check_codes(bench, true, |what, name| format!("{what}/{name}"));
    bench.check_running();
    check_codes(bench, false, |what, name| format!("eval/{what}.{name}"));
}

/// Codes and reconstructions of a pass.
fn check_codes(bench: &mut Bench, training: bool, key: impl Fn(&str, &str) -> String) {
    bench.step.begin(training, 1, 0).expect("begin");
    for (i, name) in bench.case.names().into_iter().enumerate() {
        let z = bench.model.encode(&mut bench.step, i, bench.x[i]);
        let y = bench.model.decode(&mut bench.step, i, z);
        bench.check_values(z, &key("code", name));
        bench.check_values(y, &key("recon", name));
    }
    bench.step.end();
}

macro_rules! cases {
    ($($test:ident $case:literal)*) => { $(#[test] fn $test() { check(&COUPLED, $case); })* };
}

cases! {
    plain_coupling_matches_pytorch "plain"
    batch_norm_coupling_matches_pytorch "batch-norm"
    full_covariance_coupling_matches_pytorch "full-covariance"
    full_covariance_pair_coupling_matches_pytorch "full-covariance-pair"
    min_singular_value_coupling_matches_pytorch "min-singular-value"
    an_active_floor_matches_pytorch "floor-active"
    missing_entries_match_pytorch "missing"
    sigmoid_and_elu_outputs_match_pytorch "sigmoid-and-elu"
    lambda_0_matches_pytorch "lambda-0"
    no_pairs_match_pytorch "no-pairs"
    three_modalities_match_pytorch "three"
    a_chain_of_three_modalities_matches_pytorch "three-chain"
}

/// Every fixture is used.
#[test]
fn every_fixture_has_a_test() {
    all_are_used("coupled", include_str!("golden_coupled.rs"));
}
