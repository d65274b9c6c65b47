//! The coupled autoencoder against values computed by PyTorch in float64 from the same formulas (tests/golden/coupled/make.py says
//! which and how): codes, reconstructions, running statistics and evaluation by them, every loss term, every parameter's gradient by
//! name, ten losses in a row and the weights after them; on every device that answers.
//!
//! The tolerance is ten times what PyTorch itself strays when it computes the same in float32 (the fixtures carry the measure): room for
//! another order of summation, none for another formula.

#![cfg(feature = "models")]

use couplet::device::Device;
use couplet::engine::ops::ledger::Ledger;
use couplet::engine::optim::Adam;
use couplet::engine::{Precision, Step, Var, Weight};
use couplet::models::settings::Settings;
use couplet::models::{Facts, Losses, Minibatch, Modality, Model, by_name};
use safetensors::tensor::Dtype;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

const STEPS: usize = 10;
const ROOM: f64 = 10.0;

/// A fixture: its tensors by name, and its configuration.
struct Case {
    name: &'static str,
    config: Json,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Case {
    fn read(name: &'static str) -> Case {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/coupled/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let config = serde_json::from_str(&header.metadata().as_ref().expect("metadata")["config"]).expect("the configuration");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensors = file.tensors().into_iter().map(|(name, t)| {
            let values = match t.dtype() {
                Dtype::F32 => t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
                Dtype::F64 => t.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
                other => panic!("{name} is {other:?}"),
            };
            (name, (t.shape().to_vec(), values))
        });
        Case { name, config, tensors: tensors.collect() }
    }

    fn values(&self, key: &str) -> &[f64] {
        &self.tensors.get(key).unwrap_or_else(|| panic!("{}: no tensor {key}", self.name)).1
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        self.values(key).iter().map(|&v| v as f32).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.config["names"].as_array().expect("names").iter().map(|n| n.as_str().expect("a name")).collect()
    }

    fn rows(&self) -> usize {
        self.config["rows"].as_u64().expect("rows") as usize
    }

    /// The allowed error of a kind of value: see the head of this file.
    fn tolerance(&self, kind: &str) -> f64 {
        ROOM * self.config["float32"][kind].as_f64().expect("a measure")
    }

    fn modalities(&self) -> Vec<Modality> {
        let features = |i: usize| self.config["features"][i].as_u64().expect("features") as usize;
        let of = |(i, name): (usize, &str)| Modality { name: name.into(), features: features(i), deviations: vec![1.0; features(i)] };
        self.names().into_iter().enumerate().map(of).collect()
    }

    /// The configuration as a user would type it.
    fn settings(&self) -> Settings {
        let c = &self.config;
        let word = |v: &Json| v.as_str().map_or_else(|| v.to_string(), |s| if s == "linear" { "none".into() } else { s.to_string() });
        let mut flags = vec!["input_dropout=0".to_string(), "noise_sd=0".into(), format!("batch_size={}", c["rows"])];
        for (option, key) in [("coupling", "coupling"), ("latent", "latent"), ("floor", "floor"), ("activation", "activation")] {
            flags.push(format!("{option}={}", word(&c[key])));
        }
        flags.push(format!("cross_modal={}", c["cross_modal"]));
        flags.push(format!("bn_keep={}", c["bn_momentum"]));
        flags.push(format!("ridge={}", c["covariance_eps"]));
        flags.push(format!("lr={}", c["adam"]["lr"]));
        for (i, name) in self.names().into_iter().enumerate() {
            flags.push(format!("alpha.{name}={}", c["alpha"][i]));
            flags.push(format!("hidden.{name}={}", vec![c["hidden"][i].to_string(); 4].join(",")));
            flags.push(format!("output_activation.{name}={}", word(&c["output"][i])));
        }
        for (pair, lambda) in c["lambda"].as_object().expect("lambda") {
            flags.push(format!("lambda.{pair}={lambda}"));
        }
        let spec = by_name("coupled").expect("the model");
        let names: Vec<String> = self.names().into_iter().map(String::from).collect();
        let mut settings = Settings::new(spec.name, spec.options, &names).expect("default settings");
        settings.apply_flags(&flags).expect("the case's settings");
        (spec.resolve)(&mut settings, &Facts { modalities: &self.modalities(), cells: self.rows(), pairs: self.rows(), classes: 0 })
            .expect("resolved settings");
        settings
    }
}

/// The model on a device, with the fixture's weights and data.
struct Bench<'c> {
    case: &'c Case,
    label: String,
    step: Step,
    model: Box<dyn Model>,
    x: Vec<Var>,
    pairs: Vec<Var>,
}

impl<'c> Bench<'c> {
    fn new(case: &'c Case, device_name: &str, device: Device) -> Bench<'c> {
        let mut s = Step::new(device, 0, Precision::F32).expect("a step");
        let model = (by_name("coupled").expect("the model").build)(&mut s, &case.settings(), &case.modalities()).expect("the model");
        let mut resident = |key: String, cols: usize| {
            let v = s.resident([case.rows(), cols]).expect("memory");
            s.upload(v, &case.floats(&key)).expect("an upload");
            v
        };
        let x = case.modalities().iter().map(|m| resident(format!("x/{}", m.name), m.features)).collect();
        let names = case.names();
        let mut pairs = Vec::new();
        for (i, a) in names.iter().enumerate() {
            pairs.extend(names[i + 1..].iter().map(|b| resident(format!("pair/{a}_{b}"), 1)));
        }
        let mut bench = Bench { case, label: format!("{}, {device_name}", case.name), step: s, model, x, pairs };
        bench.set_weights();
        bench
    }

    /// Gives the parameters the fixture's values, and the states their first ones; the two must know the same parameters.
    fn set_weights(&mut self) {
        let of_file: Vec<&str> = self.case.tensors.keys().filter_map(|k| k.strip_prefix("init/")).collect();
        let mut of_model: Vec<String> = self.step.params().parameters().map(|(name, ..)| name.to_string()).collect();
        of_model.sort();
        assert_eq!(of_model, of_file, "{}: parameters of the model, and of the fixture", self.label);
        let start: BTreeMap<String, ([usize; 2], Vec<f32>)> = (self.step.snapshot().expect("a snapshot").into_iter())
            .map(|(name, dims, first)| {
                let values = match self.case.tensors.contains_key(&format!("init/{name}")) {
                    true => self.case.floats(&format!("init/{name}")),
                    // Its first value whatever was trained on this step before: running statistics are 0 and 1.
                    false if name.ends_with(".mean") => vec![0.0; first.len()],
                    false if name.ends_with(".var") => vec![1.0; first.len()],
                    false => first,
                };
                (name, (dims, values))
            })
            .collect();
        self.step.restore(|name| start.get(name).map(|(dims, values)| (*dims, values.as_slice()))).expect("the weights");
    }

    /// The loss terms of a training pass.
    fn losses(&mut self) -> Losses {
        let mut losses = Vec::new();
        self.model.losses(
            &mut self.step,
            0,
            &Minibatch { x: &self.x, pairs: &self.pairs, inferred: Var::NONE, labels: &[], anchors: 0, shared: &[] },
            &mut losses,
        );
        losses
    }

    fn read(&mut self, v: Var) -> Vec<f64> {
        self.step.download(v).expect("a download").into_iter().map(f64::from).collect()
    }

    /// Codes and reconstructions of a pass.
    fn check_codes(&mut self, training: bool, key: impl Fn(&str, &str) -> String) {
        self.step.begin(training, 1, 0).expect("begin");
        for (i, name) in self.case.names().into_iter().enumerate() {
            let z = self.model.encode(&mut self.step, i, self.x[i]);
            let y = self.model.decode(&mut self.step, i, z);
            for (v, what) in [(z, "code"), (y, "recon")] {
                let key = key(what, name);
                let got = self.read(v);
                let expected = self.case.values(&key);
                close(&format!("{}: {key}", self.label), &got, expected, 1e-5 * norm(expected)); // some hundred roundings of 6e-8
            }
        }
        self.step.end();
    }

    fn check(&mut self) {
        self.check_codes(true, |what, name| format!("{what}/{name}"));
        self.check_running();
        self.check_codes(false, |what, name| format!("eval/{what}.{name}"));
        self.set_weights();
        let terms = self.model.terms(0).to_vec();
        self.check_names(&terms);
        let mut adam = Adam::new(&mut self.step, 0, self.model.phases()[0].optimiser).expect("Adam");
        let ledger = Ledger::new(&mut self.step, terms.len()).expect("a ledger");
        let tolerance = self.case.tolerance("losses");
        for t in 0..STEPS {
            adam.set_step(&mut self.step, t as u64 + 1, 1.0);
            self.step.begin(true, t as u64 + 1, 0).expect("begin");
            let losses = self.losses();
            assert_eq!(losses.len(), terms.len(), "{}: terms", self.label);
            let mut total = 0.0;
            for (&(v, weight), name) in losses.iter().zip(&terms) {
                let value = self.read(v)[0];
                let Weight::Fixed(weight) = weight else { panic!("{}: the weight of {name} changes", self.label) };
                total += weight as f64 * value;
                if t == 0 {
                    let expected = self.case.values(&format!("term/{name}"))[0];
                    assert!((value - expected).abs() <= 1e-5 * expected.abs(), "{}: {name} is {value}, expected {expected}", self.label);
                }
            }
            let expected = self.case.values("losses")[t];
            let error = (total / expected - 1.0).abs();
            assert!(error <= tolerance, "{}: loss before step {}: {total}, expected {expected}, off by {error:.1e}", self.label, t + 1);
            let vars: Vec<Var> = losses.iter().map(|(v, _)| *v).collect();
            ledger.add(&mut self.step, &vars);
            self.step.backward(&losses);
            if t == 0 {
                self.check_gradients();
            }
            adam.step(&mut self.step, &ledger);
        }
        self.check_after();
    }

    /// The running statistics after one training pass.
    fn check_running(&mut self) {
        for (name, _, got) in self.step.snapshot().expect("a snapshot").into_iter().filter(|(name, ..)| name.starts_with("bn.")) {
            let (key, got) = (format!("first/{name}"), got.into_iter().map(f64::from).collect::<Vec<_>>());
            let expected = self.case.values(&key);
            close(&format!("{}: {key}", self.label), &got, expected, 1e-5 * norm(expected));
        }
    }

    /// The model has the fixture's terms, but for those of pairs that λ = 0 leaves out.
    fn check_names(&self, terms: &[String]) {
        let uncoupled = |term: &str| {
            self.case.config["lambda"].as_object().expect("lambda").iter().any(|(pair, v)| v == 0 && term == format!("coupling.{pair}"))
        };
        let of_file = self.case.tensors.keys().filter_map(|k| k.strip_prefix("term/"));
        let mut expected: Vec<&str> = of_file.filter(|t| *t != "total" && !uncoupled(t)).collect();
        let mut got: Vec<&str> = terms.iter().map(String::as_str).collect();
        expected.sort();
        got.sort();
        assert_eq!(got, expected, "{}: loss terms", self.label);
    }

    fn check_gradients(&mut self) {
        let tolerance = self.case.tolerance("gradient");
        let parameters: Vec<(String, Var)> = self.step.params().parameters().map(|(name, v, _)| (name.to_string(), v)).collect();
        let key = |name: &str| format!("grad/{name}");
        let largest = parameters.iter().map(|(name, _)| norm(self.case.values(&key(name)))).fold(0.0, f64::max);
        for (name, v) in parameters {
            let gradient = self.step.grad(v).unwrap_or_else(|| panic!("{}: no gradient of {name}", self.label));
            let got = self.read(gradient);
            let expected = self.case.values(&key(&name));
            // Where batch norm cancels a gradient, float32 leaves the rounding of the terms that cancel.
            let cancelled = self.case.values(&format!("after/{name}")).iter().any(|v| v.is_nan());
            let allowed = tolerance * (norm(expected) + 1e-6 * largest) + if cancelled { 1e-6 * largest } else { 0.0 };
            close(&format!("{}: gradient of {name}", self.label), &got, expected, allowed);
        }
    }

    /// Weights and running variances after the ten steps; NaN in the fixture is where rounding decides.
    fn check_after(&mut self) {
        let tolerance = self.case.tolerance("after");
        for (name, _, values) in self.step.snapshot().expect("a snapshot") {
            let key = format!("after/{name}");
            if !self.case.tensors.contains_key(&key) {
                let known = name.starts_with("warm.") || name.starts_with("adam.") || name.ends_with(".mean");
                assert!(known, "{}: the fixture does not know {name}", self.label);
                continue;
            }
            for (i, (&got, &expected)) in values.iter().zip(self.case.values(&key)).enumerate() {
                let error = (got as f64 - expected).abs();
                // A variance is a sum of products of many weights: relative, if it is large.
                let allowed = if name.starts_with("bn.") { 10.0 * tolerance * expected.abs().max(1.0) } else { tolerance };
                assert!(expected.is_nan() || error <= allowed, "{}: {name}[{i}] is {got} after ten steps, expected {expected}", self.label);
            }
        }
    }
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[track_caller]
fn close(what: &str, got: &[f64], expected: &[f64], allowed: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let error = norm(&got.iter().zip(expected).map(|(g, e)| g - e).collect::<Vec<_>>());
    assert!(error <= allowed, "{what}: off by {error:.2e}, allowed {allowed:.2e}\n got      {got:?}\n expected {expected:?}");
}

fn check(case: &'static str) {
    let case = Case::read(case);
    Bench::new(&case, "cpu", Device::cpu()).check();
    #[cfg(feature = "emulated")]
    Bench::new(&case, "emulated", Device::emulated(3)).check();
    #[cfg(feature = "cuda")]
    match Device::cuda(0) {
        Ok(gpu) => Bench::new(&case, "cuda", gpu).check(),
        Err(why) => eprintln!("{}: not checked on a GPU: {why}", case.name),
    }
}

macro_rules! cases {
    ($($test:ident $case:literal)*) => { $(#[test] fn $test() { check($case); })* };
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
    let source = include_str!("golden_coupled.rs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/coupled");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the folder of fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let name = path.file_stem().and_then(|s| s.to_str()).expect("a name");
            assert!(source.contains(&format!("_pytorch \"{name}\"")), "{name}.safetensors is not tested");
            seen += 1;
        }
    }
    assert_eq!(seen, 12, "fixtures");
}
