//! Cross-modal autoencoders against values computed by PyTorch in float64 from the specification, out of PyTorch's own layers, losses and
//! optimisers (tests/golden/cross-modal/make.py says which and how), noise, hidden features and turned images included, which come from the
//! same Philox streams: every loss term of the steps of all stages, the gradients of each stage's first step by name, parameters and
//! running statistics after each stage, and codes, translations and classes in evaluation; on every device that answers.

#![cfg(feature = "models")]

#[path = "common/fixture.rs"]
mod fixture;

use couplet::device::Device;
use couplet::engine::ops::ledger::Ledger;
use couplet::engine::optim::Optimiser;
use couplet::engine::{Precision, Step, Var};
use couplet::models::settings::Settings;
use couplet::models::{Facts, Losses, Minibatch, Modality, Model, by_name};
use fixture::{Fixture, all_are_used, norm, on_every_device};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// As a snapshot has them.
type Tensor = (String, [usize; 2], Vec<f32>);

struct Case(Fixture);

impl Deref for Case {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.0
    }
}

/// What a minibatch's variables are.
struct Batch {
    x: Vec<Var>,
    pairs: Vec<Var>,
    labels: Vec<Var>,
    anchors: usize,
    stage: usize,
}

impl Batch {
    fn cells<'a>(&'a self, shared: &'a [Var]) -> Minibatch<'a> {
        let (x, pairs, labels) = (&self.x, &self.pairs, &self.labels);
        Minibatch { x, pairs, inferred: &[], labels, anchors: self.anchors, shared, cells: Var::NONE, stage: self.stage }
    }
}

impl Case {
    fn names(&self) -> Vec<&str> {
        self.list("names", Json::as_str)
    }

    /// Equal to within a share of the length of what is expected.
    #[track_caller]
    fn near(&self, what: &str, got: &[f32], expected: &[f64], share: f64) {
        self.close(what, got, expected, share * norm(expected.iter().copied()));
    }

    fn modalities(&self) -> Vec<Modality> {
        let sizes = self.list("sizes", |s| s.as_array().map(|s| s.iter().map(|n| n.as_u64().expect("a size") as usize).collect()));
        let modality = |(name, size): (&str, Vec<usize>)| {
            let features = size.iter().product();
            Modality { name: name.into(), features, deviations: vec![1.0; features], image: size.try_into().ok() }
        };
        self.names().into_iter().zip(sizes).map(modality).collect()
    }

    fn settings(&self, modalities: &[Modality]) -> Settings {
        let spec = by_name("cross-modal").expect("the model");
        let names: Vec<String> = modalities.iter().map(|m| m.name.clone()).collect();
        let mut settings = Settings::new(spec.name, spec.options, &names).expect("default settings");
        settings.apply_flags(&self.list("flags", |f| f.as_str().map(String::from))).expect("the case's settings");
        let (rows, classes) = (self.number("cells"), self.number("classes"));
        let facts = Facts { modalities, cells: rows, fewest: rows, rows, pairs: rows, classes, ..Facts::default() };
        (spec.resolve)(&mut settings, &facts).expect("resolved settings");
        settings
    }

    fn check(self, device: Device) {
        let modalities = self.modalities();
        let settings = self.settings(&modalities);
        let mut s = Step::new(device, self.seed(), Precision::F32).expect("a step");
        let model = (by_name("cross-modal").expect("the model").build)(&mut s, &settings, &modalities).expect("the model");
        let (mut optimisers, mut ledgers) = (Vec::new(), Vec::new());
        for (p, phase) in model.phases().iter().enumerate() {
            let of_group = |&(g, rule): &(usize, _)| Optimiser::new(&mut s, &format!("{p}.{g}"), g, rule).expect("an optimiser");
            optimisers.push(phase.moves.iter().map(of_group).collect::<Vec<_>>());
            ledgers.push(Ledger::new(&mut s, model.terms(p).len()).expect("a ledger"));
        }
        let mut before = self.set_weights(&mut s);
        // The instance of features has one stage of all phases.
        let mut stages: Vec<_> = model.stages().into_iter().map(|stage| stage.phases).collect();
        if stages.is_empty() {
            stages.push(0..model.phases().len());
        }
        let (steps, mut step) = (self.list("steps", Json::as_u64), 0);
        assert_eq!(steps.len(), stages.len(), "{}: stages", self.label);
        for (stage, (phases, steps)) in stages.into_iter().zip(steps).enumerate() {
            for in_stage in 1..=steps {
                step += 1;
                for o in optimisers[phases.clone()].iter_mut().flatten() {
                    o.set_step(&mut s, in_stage, model.rate(in_stage));
                }
                s.begin(true, step, 0).expect("begin");
                let batch = self.batch(&mut s, step, stage);
                let mut shared = Vec::new();
                model.begin_step(&mut s, &batch.cells(&[]), &mut shared);
                s.keep_tape();
                let mut moved = BTreeSet::new();
                for phase in phases.clone() {
                    let groups: Vec<usize> = optimisers[phase].iter().map(Optimiser::group).collect();
                    s.train_only(|g| groups.contains(&g));
                    let mut losses = Vec::new();
                    model.losses(&mut s, phase, &batch.cells(&shared), &mut losses);
                    self.check_terms(&mut s, model.terms(phase), &losses, step);
                    ledgers[phase].add(&mut s, &losses.iter().map(|(v, _)| *v).collect::<Vec<_>>());
                    s.backward(&losses);
                    if in_stage == 1 {
                        self.check_gradients(&mut s, step, &mut moved);
                    }
                    optimisers[phase].iter_mut().for_each(|o| o.step(&mut s, &ledgers[phase]));
                    s.forget_gradients();
                }
                s.train_only(|_| true);
                let of_file: BTreeSet<String> = self.under(&format!("grad/{step}/")).map(|(name, _)| name.to_string()).collect();
                assert_eq!(moved, of_file, "{}: what has a gradient in step {step}", self.label);
                let of_file = self.under(&format!("term/{step}/")).count();
                assert_eq!(of_file, phases.clone().map(|p| model.terms(p).len()).sum::<usize>(), "{}: terms of step {step}", self.label);
            }
            before = self.check_after(&mut s, &before, stage);
        }
        self.check_evaluation(&mut s, model.as_ref());
        s.finish().expect("no device error");
    }

    /// The cells of a step, and the known pairs after them.
    fn batch(&self, s: &mut Step, step: u64, stage: usize) -> Batch {
        let (own, anchors, names) = (self.number("batch"), self.number("anchors"), self.names());
        let rows = |name: &str| self.values(&format!("rows/{step}/{name}")).iter().map(|&r| r as usize).collect::<Vec<_>>();
        let x = names.iter().map(|name| self.data(s, name, &rows(name))).collect();
        let mut pairs = Vec::new();
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                // What stands before the pairs is of no account.
                let mut weights = vec![0.3; own];
                weights.extend(self.floats(&format!("weight/{step}/{a}_{b}")));
                pairs.push(s.constant([own + anchors, 1], &weights));
            }
        }
        let known = names.iter().filter(|name| self.tensors.contains_key(&format!("label/{name}")));
        let labels = known.map(|name| {
            let all = self.floats(&format!("label/{name}"));
            s.constant([own + anchors, 1], &rows(name).iter().map(|&r| all[r]).collect::<Vec<f32>>())
        });
        let labels = labels.collect();
        Batch { x, pairs, labels, anchors, stage }
    }

    /// The cells' features.
    fn data(&self, s: &mut Step, name: &str, cells: &[usize]) -> Var {
        let all = self.floats(&format!("x/{name}"));
        let features = all.len() / self.number("cells");
        let of_cells: Vec<f32> = cells.iter().flat_map(|c| all[c * features..(c + 1) * features].to_vec()).collect();
        s.constant([cells.len(), features], &of_cells)
    }

    /// Gives the parameters the fixture's values; both sides must know the same of them.
    fn set_weights(&self, s: &mut Step) -> Vec<Tensor> {
        let mut of_model: Vec<String> = s.params().parameters().map(|(name, ..)| name.to_string()).collect();
        of_model.sort();
        assert_eq!(of_model, self.under("init/").map(|(name, _)| name).collect::<Vec<_>>(), "{}: parameters", self.label);
        let start: BTreeMap<String, ([usize; 2], Vec<f32>)> = (s.snapshot().expect("a snapshot").into_iter())
            .map(|(name, dims, first)| {
                let values = if of_model.contains(&name) { self.floats(&format!("init/{name}")) } else { first };
                (name, (dims, values))
            })
            .collect();
        s.restore(|name| start.get(name).map(|(dims, values)| (*dims, values.as_slice()))).expect("the weights");
        s.snapshot().expect("a snapshot")
    }

    fn check_terms(&self, s: &mut Step, terms: &[String], losses: &Losses, step: u64) {
        assert_eq!(losses.len(), terms.len(), "{}: terms", self.label);
        for (name, &(v, _)) in terms.iter().zip(losses) {
            assert!(!v.is_none(), "{}: no term {name} in step {step}", self.label);
            let key = format!("term/{step}/{name}");
            self.near(&key, &s.download(v).expect("a term"), self.values(&key), 1e-4);
        }
    }

    /// Of everything that a phase moves.
    fn check_gradients(&self, s: &mut Step, step: u64, moved: &mut BTreeSet<String>) {
        let parameters: Vec<(String, Var)> = s.params().parameters().map(|(name, v, _)| (name.to_string(), v)).collect();
        let prefix = format!("grad/{step}/");
        let lengths = self.under(&prefix).map(|(_, g)| norm(g.iter().copied()));
        let longest = lengths.fold(0.0, f64::max);
        for (name, v) in parameters {
            if let Some(g) = s.grad(v) {
                let key = format!("grad/{step}/{name}");
                let expected = self.values(&key);
                // A bias that a norm follows has none but rounding.
                let allowed = 1e-4 * norm(expected.iter().copied()) + 1e-6 * longest;
                self.close(&key, &s.download(g).expect("a gradient"), expected, allowed);
                moved.insert(name);
            }
        }
    }

    /// What a stage moves is where it ought to be, measured by how far it went; what it leaves alone has not moved by a bit.
    fn check_after(&self, s: &mut Step, before: &[Tensor], stage: usize) -> Vec<Tensor> {
        let (mut seen, mut gone) = (0, 0);
        let all = s.snapshot().expect("a snapshot");
        assert_eq!(all.len(), before.len(), "{}: parameters and states", self.label);
        for ((name, _, got), (_, _, from)) in all.iter().zip(before) {
            let key = format!("after/{stage}/{name}");
            let Some(expected) = self.tensors.get(&key) else {
                assert!(name.starts_with("adam.") || got == from, "{}: {name} has moved in stage {stage}", self.label);
                continue;
            };
            seen += 1;
            // Running statistics begin at 0 and 1, and an earlier stage has left its own rounding behind.
            let start = self.tensors.get(&format!("init/{name}"));
            let left = if stage == 0 { start } else { self.tensors.get(&format!("after/{}/{name}", stage - 1)) };
            if left == Some(expected) {
                assert!(got == from, "{}: {name} has moved in stage {stage}", self.label);
                continue;
            }
            gone += 1;
            let begin = |i: usize| start.map_or(if name.ends_with(".var") { 1.0 } else { 0.0 }, |start| start[i]);
            let moved = norm(expected.iter().enumerate().map(|(i, e)| e - begin(i)));
            self.close(&key, got, expected, 3e-4 * moved + 1e-6 * norm(expected.iter().copied()));
        }
        assert_eq!(seen, self.under(&format!("after/{stage}/")).count(), "{}: parameters and statistics", self.label);
        assert!(gone > 0, "{}: nothing moves in stage {stage}", self.label);
        all
    }

    /// Codes of all cells, what is made of them in every modality, and their classes.
    fn check_evaluation(&self, s: &mut Step, model: &dyn Model) {
        let cells: Vec<usize> = (0..self.number("cells")).collect();
        s.begin(false, 0, 0).expect("begin");
        let (names, mut seen) = (self.names(), 0);
        for (m, from) in names.iter().enumerate() {
            let x = self.data(s, from, &cells);
            let z = model.encode(s, m, x);
            let mut made = vec![(format!("eval/code.{from}"), z)];
            made.extend(names.iter().enumerate().map(|(n, to)| (format!("eval/{from}_to_{to}"), model.decode(s, n, z))));
            made.extend(model.classify(s, z).map(|logits| (format!("eval/class.{from}"), logits)));
            for (key, v) in made {
                self.near(&key, &s.download(v).expect("a matrix"), self.values(&key), 2e-4);
                seen += 1;
            }
        }
        assert_eq!(seen, self.under("eval/").count(), "{}: what evaluation makes", self.label);
    }
}

macro_rules! cases {
    ($($test:ident $case:literal)*) => { $(#[test] fn $test() { on_every_device("cross-modal", $case, |fixture, device| Case(fixture).check(device)); })* };
}

cases! {
    the_published_setting_matches_pytorch "published"
    three_modalities_hidden_features_and_a_conditional_discriminator_match_pytorch "three-conditional"
    frozen_images_match_pytorch "images-frozen"
    turned_images_that_learn_with_a_class_head_match_pytorch "images-turned"
    frozen_images_and_translated_pairs_match_pytorch "images-crossed"
}

#[test]
fn every_fixture_has_a_test() {
    all_are_used("cross-modal", include_str!("golden_cross_modal.rs"));
}
