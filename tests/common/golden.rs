//! A model against values computed by PyTorch in float64: the fixtures, and ten training steps compared with them.
//!
//! The tolerance is ten times what PyTorch itself strays when it computes the same in float32 (the fixtures carry the measure): room for
//! another order of summation, none for another formula.

#[path = "cases.rs"]
mod cases;
#[path = "devices.rs"]
mod devices;
#[path = "folder.rs"]
mod folder;
#[path = "tensors.rs"]
mod tensors;

pub use cases::all_are_used;
use cases::{close, norm};
use couplet::device::Device;
use couplet::engine::ops::ledger::Ledger;
use couplet::engine::optim::Optimiser;
use couplet::engine::{Precision, Step, Var, Weight};
use couplet::models::settings::Settings;
use couplet::models::{Facts, Losses, Minibatch, Modality, Model, by_name};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use tensors::Tensors;

const STEPS: usize = 10;
const ROOM: f64 = 10.0;

/// Tensors that hold many laid end to end: the key, which list of the configuration names them, and the prefix they get.
const PACKED: [(&str, &str, &str); 5] = [
    ("init", "parameters", "init"),
    ("grad", "parameters", "grad"),
    ("after", "parameters", "after"),
    ("first", "states", "first"),
    ("after_states", "states", "after"),
];

/// A model and how its fixtures describe it.
pub struct Subject {
    /// As `by_name` knows it; the folder of its fixtures has the same name.
    pub model: &'static str,
    /// The configuration of a case as a user would type it.
    pub flags: fn(&Case) -> Vec<String>,
    /// Whether the model leaves out a loss term that the fixture has.
    pub left_out: fn(&Case, &str) -> bool,
    /// Codes, reconstructions and running statistics before the ten steps.
    pub before: fn(&mut Bench),
}

/// A fixture: its tensors by name, and its configuration.
pub struct Case {
    pub name: &'static str,
    pub config: Json,
    tensors: Tensors,
    subject: &'static Subject,
}

impl Case {
    fn read(subject: &'static Subject, name: &'static str) -> Case {
        let (tensors, config) = tensors::read(subject.model, name);
        let mut case = Case { name, config, tensors, subject };
        for (key, list, prefix) in PACKED {
            case.unpack(key, list, prefix);
        }
        case
    }

    fn unpack(&mut self, key: &str, list: &str, prefix: &str) {
        let Some((_, values)) = self.tensors.remove(key) else { return };
        let mut rest = values.as_slice();
        for (name, shape) in self.config[list].as_object().expect("a list of tensors") {
            let shape: Vec<usize> = shape.as_array().expect("a shape").iter().map(|d| d.as_u64().expect("a size") as usize).collect();
            let (part, left) = rest.split_at(shape.iter().product());
            self.tensors.insert(format!("{prefix}/{name}"), (shape, part.to_vec()));
            rest = left;
        }
        assert!(rest.is_empty(), "{}: {key} has {} numbers too many", self.name, rest.len());
    }

    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    pub fn values(&self, key: &str) -> &[f64] {
        &self.tensors.get(key).unwrap_or_else(|| panic!("{}: no tensor {key}", self.name)).1
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        self.values(key).iter().map(|&v| v as f32).collect()
    }

    pub fn names(&self) -> Vec<&str> {
        self.config["names"].as_array().expect("names").iter().map(|n| n.as_str().expect("a name")).collect()
    }

    pub fn rows(&self) -> usize {
        self.config["rows"].as_u64().expect("rows") as usize
    }

    /// The allowed error of a kind of value: see the head of this file.
    fn tolerance(&self, kind: &str) -> f64 {
        ROOM * self.config["float32"][kind].as_f64().expect("a measure")
    }

    fn modalities(&self) -> Vec<Modality> {
        let features = |i: usize| self.config["features"][i].as_u64().expect("features") as usize;
        let of = |(i, name): (usize, &str)| Modality {
            name: name.into(),
            features: features(i),
            deviations: vec![1.0; features(i)],
            image: None,
        };
        self.names().into_iter().enumerate().map(of).collect()
    }

    fn settings(&self) -> Settings {
        let spec = by_name(self.subject.model).expect("the model");
        let names: Vec<String> = self.names().into_iter().map(String::from).collect();
        let mut settings = Settings::new(spec.name, spec.options, &names).expect("default settings");
        settings.apply_flags(&(self.subject.flags)(self)).expect("the case's settings");
        (spec.resolve)(
            &mut settings,
            &Facts { modalities: &self.modalities(), cells: self.rows(), pairs: self.rows(), ..Facts::default() },
        )
        .expect("resolved settings");
        settings
    }
}

/// The model on a device, with the fixture's weights and data.
pub struct Bench<'c> {
    pub case: &'c Case,
    pub label: String,
    pub step: Step,
    pub model: Box<dyn Model>,
    pub x: Vec<Var>,
    pairs: Vec<Var>,
    inferred: Vec<Var>,
}

impl<'c> Bench<'c> {
    fn new(case: &'c Case, device_name: &str, device: Device) -> Bench<'c> {
        let seed = case.config["seed"].as_u64().unwrap_or(0);
        let mut s = Step::new(device, seed, Precision::F32).expect("a step");
        let build = by_name(case.subject.model).expect("the model").build;
        let model = build(&mut s, &case.settings(), &case.modalities()).expect("the model");
        // None: every row is a pair, or nothing is inferred.
        let mut resident = |key: String, cols: usize| {
            if !case.has(&key) {
                return Var::NONE;
            }
            let v = s.resident([case.rows(), cols]).expect("memory");
            s.upload(v, &case.floats(&key)).expect("an upload");
            v
        };
        let x: Vec<Var> = case.modalities().iter().map(|m| resident(format!("x/{}", m.name), m.features)).collect();
        assert!(x.iter().all(|x| !x.is_none()), "{}: no data", case.name);
        let names = case.names();
        let (mut pairs, mut inferred) = (Vec::new(), Vec::new());
        for (i, a) in names.iter().enumerate() {
            pairs.extend(names[i + 1..].iter().map(|b| resident(format!("pair/{a}_{b}"), 1)));
            inferred.extend(names[i + 1..].iter().map(|b| resident(format!("inferred/{a}_{b}"), case.rows())));
        }
        let label = format!("{}, {device_name}", case.name);
        let mut bench = Bench { case, label, step: s, model, x, pairs, inferred };
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
                let values = match self.case.has(&format!("init/{name}")) {
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
    pub fn losses(&mut self) -> Losses {
        let mut losses = Vec::new();
        self.model.losses(
            &mut self.step,
            0,
            &Minibatch {
                x: &self.x,
                pairs: &self.pairs,
                inferred: &self.inferred,
                labels: &[],
                anchors: 0,
                shared: &[],
                cells: Var::NONE,
                stage: 0,
            },
            &mut losses,
        );
        losses
    }

    fn read(&mut self, v: Var) -> Vec<f64> {
        self.step.download(v).expect("a download").into_iter().map(f64::from).collect()
    }

    /// A matrix that a forward pass made.
    #[track_caller]
    pub fn check_values(&mut self, v: Var, key: &str) {
        let got = self.read(v);
        let expected = self.case.values(key);
        close(&format!("{}: {key}", self.label), &got, expected, 1e-5 * norm(expected.iter().copied())); // some hundred roundings of 6e-8
    }

    /// The running statistics after one training pass.
    pub fn check_running(&mut self) {
        let mut seen = 0;
        for (name, _, got) in self.step.snapshot().expect("a snapshot") {
            if !name.ends_with(".mean") && !name.ends_with(".var") {
                continue;
            }
            let (key, got) = (format!("first/{name}"), got.into_iter().map(f64::from).collect::<Vec<_>>());
            let expected = self.case.values(&key);
            close(&format!("{}: {key}", self.label), &got, expected, 1e-5 * norm(expected.iter().copied()));
            seen += 1;
        }
        let known = self.case.tensors.keys().filter(|k| k.starts_with("first/")).count();
        assert_eq!(seen, known, "{}: running statistics", self.label);
    }

    fn check(&mut self) {
        (self.case.subject.before)(self);
        self.set_weights();
        let terms = self.model.terms(0).to_vec();
        self.check_names(&terms);
        let (optimiser, clip) = (self.model.phases()[0].moves[0].1, self.model.phases()[0].clip);
        let mut adam = Optimiser::new(&mut self.step, "0", 0, optimiser).expect("an optimiser");
        let ledger = Ledger::new(&mut self.step, terms.len()).expect("a ledger");
        let tolerance = self.case.tolerance("losses");
        for t in 0..STEPS {
            self.model.begin_epoch(&mut self.step, t + 1);
            adam.set_step(&mut self.step, t as u64 + 1, 1.0);
            self.step.begin(true, t as u64 + 1, 0).expect("begin");
            let losses = self.losses();
            assert_eq!(losses.len(), terms.len(), "{}: terms", self.label);
            let mut total = 0.0;
            for (&(v, weight), name) in losses.iter().zip(&terms) {
                let value = self.read(v)[0];
                let weight = match weight {
                    Weight::Fixed(weight) => weight,
                    Weight::Knob(knob) => self.step.value(knob),
                };
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
                self.check_gradients(1.0);
            }
            if self.case.has("norms") {
                self.check_norm(t, 1.0);
            }
            if clip > 0.0 {
                self.step.clip_gradients(0, clip);
                // As long as it was, if that is short enough.
                let scale = (clip as f64 / (self.case.values("norms")[t] + 1e-6)).min(1.0);
                self.check_norm(t, scale);
                if t == 0 {
                    self.check_gradients(scale);
                }
            }
            adam.step(&mut self.step, &ledger);
            self.model.after_step(&mut self.step, 0, &ledger);
        }
        self.check_after();
    }

    /// The model has the fixture's terms, but for those that it leaves out.
    fn check_names(&self, terms: &[String]) {
        let of_file = self.case.tensors.keys().filter_map(|k| k.strip_prefix("term/"));
        let mut expected: Vec<&str> = of_file.filter(|t| *t != "total" && !(self.case.subject.left_out)(self.case, t)).collect();
        let mut got: Vec<&str> = terms.iter().map(String::as_str).collect();
        expected.sort();
        got.sort();
        assert_eq!(got, expected, "{}: loss terms", self.label);
    }

    /// Every parameter's name, and its gradient.
    fn gradients(&mut self) -> Vec<(String, Vec<f64>)> {
        let parameters: Vec<(String, Var)> = self.step.params().parameters().map(|(name, v, _)| (name.to_string(), v)).collect();
        let gradient = |(name, v)| {
            let gradient = self.step.grad(v).unwrap_or_else(|| panic!("{}: no gradient of {name}", self.label));
            (name, self.read(gradient))
        };
        parameters.into_iter().map(gradient).collect()
    }

    /// The gradients of the first step, times `scale`.
    fn check_gradients(&mut self, scale: f64) {
        let tolerance = self.case.tolerance("gradient");
        let gradients = self.gradients();
        let key = |name: &str| format!("grad/{name}");
        let largest = scale * gradients.iter().map(|(name, _)| norm(self.case.values(&key(name)).iter().copied())).fold(0.0, f64::max);
        for (name, got) in gradients {
            let expected: Vec<f64> = self.case.values(&key(&name)).iter().map(|g| scale * g).collect();
            // Where batch norm cancels a gradient, float32 leaves the rounding of the terms that cancel.
            let cancelled = self.case.values(&format!("after/{name}")).iter().any(|v| v.is_nan());
            let allowed = tolerance * (norm(expected.iter().copied()) + 1e-6 * largest) + if cancelled { 1e-6 * largest } else { 0.0 };
            close(&format!("{}: gradient of {name}", self.label), &got, &expected, allowed);
        }
    }

    /// The length of the whole gradient of step t, counted from 0, is `scale` times the fixture's.
    fn check_norm(&mut self, t: usize, scale: f64) {
        let got = norm(self.gradients().into_iter().flat_map(|(_, g)| g));
        let expected = scale * self.case.values("norms")[t];
        let error = (got / expected - 1.0).abs();
        let allowed = self.case.tolerance("norms");
        assert!(error <= allowed, "{}: the gradient of step {} is {got} long, expected {expected}, off by {error:.1e}", self.label, t + 1);
    }

    /// Weights and running variances after the ten steps; NaN in the fixture is where rounding decides.
    fn check_after(&mut self) {
        let tolerance = self.case.tolerance("after");
        for (name, _, values) in self.step.snapshot().expect("a snapshot") {
            let key = format!("after/{name}");
            if !self.case.has(&key) {
                let known = name.starts_with("warm.") || name.starts_with("adam.") || name.ends_with(".mean");
                assert!(known, "{}: the fixture does not know {name}", self.label);
                continue;
            }
            let state = !self.case.has(&format!("init/{name}"));
            for (i, (&got, &expected)) in values.iter().zip(self.case.values(&key)).enumerate() {
                let error = (got as f64 - expected).abs();
                // A variance is a sum of products of many weights: relative, if it is large.
                let allowed = if state { 10.0 * tolerance * expected.abs().max(1.0) } else { tolerance };
                assert!(expected.is_nan() || error <= allowed, "{}: {name}[{i}] is {got} after ten steps, expected {expected}", self.label);
            }
        }
    }
}

/// A case on every device that answers.
pub fn check(subject: &'static Subject, case: &'static str) {
    let case = Case::read(subject, case);
    for (name, device) in devices::devices() {
        Bench::new(&case, name, device).check();
    }
}
