//! sciCAN against values computed by PyTorch in float64 from the same formulas (tests/golden/scican/make.py says which and how), its noise,
//! dropout and interpolation included, which come from the same Philox streams: every loss term of three whole steps, the gradients of
//! both phases of the first by name, parameters, running statistics and averages after them, and codes; on every device that answers.

#![cfg(feature = "models")]

use couplet::device::Device;
use couplet::engine::ops::ledger::Ledger;
use couplet::engine::optim::Optimiser;
use couplet::engine::{Precision, Step, Var};
use couplet::models::settings::Settings;
use couplet::models::{Facts, Minibatch, Modality, by_name};
use safetensors::tensor::Dtype;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

const NAMES: [&str; 2] = ["rna", "atac"];

struct Case {
    label: String,
    config: Json,
    tensors: BTreeMap<String, Vec<f64>>,
}

impl Case {
    fn read(name: &str) -> Case {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scican").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let config = serde_json::from_str(&header.metadata().as_ref().expect("metadata")["config"]).expect("the configuration");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let values = |t: safetensors::tensor::TensorView<'_>| match t.dtype() {
            Dtype::F32 => t.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::F64 => t.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            other => panic!("a tensor of {other:?}"),
        };
        Case { label: name.into(), config, tensors: file.tensors().into_iter().map(|(name, t)| (name, values(t))).collect() }
    }

    fn values(&self, key: &str) -> &[f64] {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no tensor {key}", self.label))
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        self.values(key).iter().map(|&v| v as f32).collect()
    }

    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [f64])> {
        self.tensors.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_slice())))
    }

    fn number(&self, key: &str) -> usize {
        self.config[key].as_u64().expect("a number") as usize
    }

    #[track_caller]
    fn close(&self, what: &str, got: &[f32], expected: &[f64], allowed: f64) {
        assert_eq!(got.len(), expected.len(), "{}: {what}: length", self.label);
        let error = norm(got.iter().zip(expected).map(|(&g, e)| f64::from(g) - e));
        assert!(
            error <= allowed,
            "{}: {what}: off by {error:.2e}, allowed {allowed:.2e}\n got {got:?}\n expected {expected:?}",
            self.label
        );
    }

    fn check(mut self, device: Device, device_name: &str) {
        self.label = format!("{} on {device_name}", self.label);
        let spec = by_name("scican").expect("the model");
        let (rows, features) = (self.number("rows"), self.number("features"));
        let list = |key: &str| self.config[key].as_array().expect("a list").clone();
        let flags: Vec<String> = list("flags").iter().map(|f| f.as_str().expect("a flag").to_string()).collect();
        let counts: Vec<usize> = list("class_counts").iter().map(|n| n.as_u64().expect("a count") as usize).collect();
        let modalities = NAMES.map(|name| Modality { name: name.into(), features, deviations: vec![1.0; features], image: None });
        let mut settings = Settings::new(spec.name, spec.options, &NAMES.map(String::from)).expect("default settings");
        settings.apply_flags(&flags).expect("the case's settings");
        let facts =
            Facts { modalities: &modalities, cells: rows, fewest: rows, classes: counts.len(), class_counts: &counts, ..Facts::default() };
        (spec.resolve)(&mut settings, &facts).expect("resolved settings");
        let mut s = Step::new(device, self.config["seed"].as_u64().expect("a seed"), Precision::F32).expect("a step");
        let model = (spec.build)(&mut s, &settings, &modalities).expect("the model");
        self.set_weights(&mut s);
        let mut resident = |key: &str, cols: usize| {
            let v = s.resident([rows, cols]).expect("memory");
            s.upload(v, &self.floats(key)).expect("an upload");
            v
        };
        let x = NAMES.map(|name| resident(&format!("x/{name}"), features));
        let y = [resident("y", 1)];
        let labels = if counts.is_empty() { &[][..] } else { &y[..] };
        let cells =
            Minibatch { x: &x, pairs: &[Var::NONE], inferred: Var::NONE, labels, anchors: 0, shared: &[], cells: Var::NONE, stage: 0 };

        let (mut optimisers, mut ledgers) = (Vec::new(), Vec::new());
        for (p, phase) in model.phases().iter().enumerate() {
            let of_group = |&(g, rule): &(usize, _)| Optimiser::new(&mut s, &format!("{p}.{g}"), g, rule).expect("an optimiser");
            optimisers.push(phase.moves.iter().map(of_group).collect::<Vec<_>>());
            ledgers.push(Ledger::new(&mut s, model.terms(p).len()).expect("a ledger"));
        }
        for t in 1..=self.number("steps") as u64 {
            optimisers.iter_mut().flatten().for_each(|o| o.set_step(&mut s, t, 1.0));
            model.before_step(&mut s, t);
            s.begin(true, t, 0).expect("begin");
            let mut seen = Vec::new();
            for (p, optimisers) in optimisers.iter_mut().enumerate() {
                let groups: Vec<usize> = optimisers.iter().map(Optimiser::group).collect();
                s.train_only(|g| groups.contains(&g));
                let mut losses = Vec::new();
                model.losses(&mut s, p, &cells, &mut losses);
                assert_eq!(losses.len(), model.terms(p).len(), "{}: terms", self.label);
                for (name, &(v, _)) in model.terms(p).iter().zip(&losses) {
                    let (got, expected) = (s.download(v).expect("a term"), self.values(&format!("term/{t}/{name}")));
                    // A mixture of almost one cell alone has a consistency of rounding's size.
                    self.close(&format!("{name} of step {t}"), &got, expected, 1e-4 * expected[0].abs() + 1e-8);
                    seen.push(name.clone());
                }
                ledgers[p].add(&mut s, &losses.iter().map(|(v, _)| *v).collect::<Vec<_>>());
                s.backward(&losses);
                if t == 1 {
                    self.check_gradients(&mut s, p);
                }
                optimisers.iter_mut().for_each(|o| o.step(&mut s, &ledgers[p]));
                model.after_step(&mut s, p, &ledgers[p]);
                s.forget_gradients();
            }
            s.train_only(|_| true);
            seen.sort();
            assert_eq!(seen, self.under(&format!("term/{t}/")).map(|(name, _)| name).collect::<Vec<_>>(), "{}: terms", self.label);
        }
        self.check_after(&mut s);
        s.begin(false, 0, 0).expect("begin");
        for (m, name) in NAMES.iter().enumerate() {
            let z = model.encode(&mut s, m, x[m]);
            let shown = model.shown(&mut s, z);
            let (got, expected) = (s.download(shown).expect("codes"), self.values(&format!("eval/code.{name}")));
            self.close(&format!("codes of {name}"), &got, expected, 1e-4 * norm(expected.iter().copied()));
        }
        assert_eq!(model.decodes(1), self.tensors.contains_key("eval/atac"), "{}", self.label);
        if model.decodes(1) {
            let z = model.encode(&mut s, 0, x[0]);
            let made = model.decode(&mut s, 1, z);
            let (got, expected) = (s.download(made).expect("profiles"), self.values("eval/atac"));
            self.close("generated profiles", &got, expected, 1e-4 * norm(expected.iter().copied()));
        }
        s.finish().expect("no device error");
    }

    /// Gives the parameters the fixture's values, and the averages those of their group; both sides must know the same parameters.
    fn set_weights(&self, s: &mut Step) {
        let mut of_model: Vec<String> = s.params().parameters().map(|(name, ..)| name.to_string()).collect();
        of_model.sort();
        assert_eq!(of_model, self.under("init/").map(|(name, _)| name).collect::<Vec<_>>(), "{}: parameters", self.label);
        s.seal().expect("memory");
        let vars: Vec<(String, Var)> = s.params().parameters().map(|(name, v, _)| (name.to_string(), v)).collect();
        for (name, v) in vars {
            s.upload(v, &self.floats(&format!("init/{name}"))).expect("an upload");
        }
        for (name, places) in self.averages(s) {
            let state = s.params().states().find(|(n, ..)| *n == name).expect("the state").1;
            for (parameter, first) in places {
                s.upload_at(state, first, &self.floats(&format!("init/{parameter}"))).expect("an upload");
            }
        }
    }

    /// The states that average groups, and where in them the average of each parameter begins: at multiples of 32 words.
    fn averages(&self, s: &Step) -> Vec<(&'static str, Vec<(String, usize)>)> {
        if !s.params().states().any(|(name, ..)| name.starts_with("average.")) {
            return Vec::new();
        }
        let places = |of_encoder: bool| {
            let mut first = 0;
            let parameters = s.params().parameters().filter(|(name, ..)| {
                name.starts_with("enc.") == of_encoder && !["gen.", "disc."].iter().any(|other| name.starts_with(other))
            });
            let place = |(name, _, [r, c]): (&str, Var, [usize; 2])| {
                first += (r * c).next_multiple_of(32);
                (name.to_string(), first - (r * c).next_multiple_of(32))
            };
            parameters.map(place).collect()
        };
        vec![("average.enc", places(true)), ("average.heads", places(false))]
    }

    fn check_gradients(&self, s: &mut Step, phase: usize) {
        let prefix = format!("grad/{phase}/");
        let largest = self.under(&prefix).map(|(_, g)| norm(g.iter().copied())).fold(0.0, f64::max);
        let vars: BTreeMap<String, Var> = s.params().parameters().map(|(name, v, _)| (name.to_string(), v)).collect();
        for (name, expected) in self.under(&prefix) {
            let got = match s.grad(vars[name]) {
                Some(g) => s.download(g).expect("a gradient"),
                None => vec![0.0; expected.len()],
            };
            // Batch norm cancels some gradients but for the rounding of what cancels.
            let allowed = 1e-4 * norm(expected.iter().copied()) + 2e-6 * largest;
            self.close(&format!("gradient of {name} in phase {phase}"), &got, expected, allowed);
        }
        for (name, v) in vars.iter().filter(|(name, _)| !self.tensors.contains_key(&format!("{prefix}{name}"))) {
            assert!(s.grad(*v).is_none(), "{}: {name} has a gradient in phase {phase}", self.label);
        }
    }

    fn check_after(&self, s: &mut Step) {
        for (name, _, got) in s.snapshot().expect("a snapshot") {
            if name.starts_with("sgd.") || name.starts_with("average.") {
                continue;
            }
            let expected = self.values(&format!("after/{name}"));
            self.close(&format!("{name} after the last step"), &got, expected, 1e-4 * norm(expected.iter().copied()) + 1e-6);
        }
        for (state, places) in self.averages(s) {
            let v = s.params().states().find(|(n, ..)| *n == state).expect("the state").1;
            let all = s.download(v).expect("averages");
            for (parameter, first) in places {
                let expected = self.values(&format!("average/{parameter}"));
                let got = &all[first..first + expected.len()];
                self.close(&format!("average of {parameter}"), got, expected, 1e-5 * norm(expected.iter().copied()) + 1e-6);
            }
        }
    }
}

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|v| v * v).sum::<f64>().sqrt()
}

fn check(case: &str) {
    Case::read(case).check(Device::cpu(), "cpu");
    #[cfg(feature = "emulated")]
    Case::read(case).check(Device::emulated(3), "emulated");
    #[cfg(feature = "cuda")]
    match Device::cuda(0) {
        Ok(gpu) => Case::read(case).check(gpu, "cuda"),
        Err(why) => eprintln!("{case}: not checked on a GPU: {why}"),
    }
}

macro_rules! cases {
    ($($test:ident $case:literal)*) => { $(#[test] fn $test() { check($case); })* };
}

cases! {
    the_labelled_mode_matches_pytorch "labelled"
    joint_norms_and_tanh_match_pytorch "joint"
    classes_and_codes_alone_match_pytorch "classes-and-codes"
    centres_and_mean_probabilities_match_pytorch "centres"
    both_modalities_contrasted_through_a_head_match_pytorch "both-contrasted"
    the_unlabelled_mode_matches_pytorch "unlabelled"
    the_unlabelled_mode_with_joint_norms_matches_pytorch "unlabelled-joint"
}

/// Every fixture is used.
#[test]
fn every_fixture_has_a_test() {
    let source = include_str!("golden_scican.rs");
    let fixtures = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scican")).expect("the folder of fixtures");
    let mut seen = 0;
    for path in fixtures.map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "safetensors")) {
        let name = path.file_stem().and_then(|s| s.to_str()).expect("a name");
        assert!(source.contains(&format!("_pytorch \"{name}\"")), "{name}.safetensors is not tested");
        seen += 1;
    }
    assert_eq!(seen, source.matches("_pytorch \"").count(), "fixtures");
}
