//! APOLLO against values computed by PyTorch in float64 from the specification, out of PyTorch's own layers, losses and optimisers
//! (tests/golden/apollo/make.py says which and how), its noise and dropout included, which come from the same Philox streams: every loss term
//! of the steps of both stages, the gradients of the first by name, parameters, running statistics and latent tables after either stage,
//! rows that minibatches leave out among them, and what is made of held-out cells; on every device that answers.

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
use std::collections::BTreeMap;
use std::ops::Deref;

/// Adam's 1 - β₁: the first moment after the first step, over the gradient.
const FRESH: f64 = 0.1;
/// Minibatches of an epoch.
const BATCHES: usize = 2;

/// As a snapshot has them.
type Tensor = (String, [usize; 2], Vec<f32>);

struct Case(Fixture);

impl Deref for Case {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.0
    }
}

impl Case {
    fn names(&self) -> Vec<&str> {
        self.list("names", Json::as_str)
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
        let spec = by_name("apollo").expect("the model");
        let names: Vec<String> = modalities.iter().map(|m| m.name.clone()).collect();
        let mut settings = Settings::new(spec.name, spec.options, &names).expect("default settings");
        settings.apply_flags(&self.list("flags", |f| f.as_str().map(String::from))).expect("the case's settings");
        let rows = self.number("rows");
        let facts = Facts { modalities, cells: rows, fewest: rows, rows, ..Facts::default() };
        (spec.resolve)(&mut settings, &facts).expect("resolved settings");
        settings
    }

    fn check(self, device: Device) {
        let modalities = self.modalities();
        let settings = self.settings(&modalities);
        let mut s = Step::new(device, self.seed(), Precision::F32).expect("a step");
        let model = (by_name("apollo").expect("the model").build)(&mut s, &settings, &modalities).expect("the model");
        let rows = self.number("rows");
        let order = s.resident([1, rows]).expect("memory");
        let (mut optimisers, mut ledgers) = (Vec::new(), Vec::new());
        for (p, phase) in model.phases().iter().enumerate() {
            let of_group = |&(g, rule): &(usize, _)| Optimiser::new(&mut s, &format!("{p}.{g}"), g, rule).expect("an optimiser");
            optimisers.push(phase.moves.iter().map(of_group).collect::<Vec<_>>());
            ledgers.push(Ledger::new(&mut s, model.terms(p).len()).expect("a ledger"));
        }
        let mut before = self.set_weights(&mut s);

        let (mut step, mut epoch) = (0, 0);
        for (phase, epochs) in self.list("epochs", Json::as_u64).into_iter().enumerate() {
            let mut in_stage = 0;
            for _ in 0..epochs {
                let cells: Vec<usize> = self.values(&format!("order/{epoch}")).iter().map(|&c| c as usize).collect();
                s.end();
                s.upload(order, &cells.iter().map(|&c| c as u32).collect::<Vec<_>>()).expect("an upload");
                for batch in 0..BATCHES {
                    (step, in_stage) = (step + 1, in_stage + 1);
                    let start = batch * self.number("batch");
                    let cells = &cells[start..start + self.number("batch")];
                    optimisers[phase].iter_mut().for_each(|o| o.set_step(&mut s, in_stage, 1.0));
                    s.begin(true, step, start).expect("begin");
                    let groups: Vec<usize> = optimisers[phase].iter().map(Optimiser::group).collect();
                    s.train_only(|g| groups.contains(&g));
                    let losses = self.losses(&mut s, model.as_ref(), phase, cells, order);
                    self.check_terms(&mut s, model.terms(phase), &losses, &format!("term/{step}/"));
                    ledgers[phase].add(&mut s, &losses.iter().map(|(v, _)| *v).collect::<Vec<_>>());
                    s.backward(&losses);
                    if step == 1 {
                        self.check_gradients(&mut s);
                    }
                    optimisers[phase].iter_mut().for_each(|o| o.step(&mut s, &ledgers[phase]));
                    if step == 1 {
                        self.check_table_gradients(&mut s, cells);
                    }
                    s.train_only(|_| true);
                }
                epoch += 1;
            }
            // A later stage reads what an earlier one has left, and so does a checkpoint.
            s.settle_tables();
            before = self.check_after(&mut s, &before, ["one", "two"][phase]);
        }
        self.check_held_out(&mut s, model.as_ref(), order);
        s.finish().expect("no device error");
    }

    /// The terms of a minibatch of these cells.
    fn losses(&self, s: &mut Step, model: &dyn Model, phase: usize, cells: &[usize], order: Var) -> Losses {
        let x: Vec<Var> = self.names().iter().map(|name| self.data(s, name, cells)).collect();
        let pairs = vec![Var::NONE; x.len() * (x.len() - 1) / 2];
        let conditions = self.conditions(cells);
        let labels: Vec<Var> = x.iter().filter_map(|_| Some(s.constant([cells.len(), 1], conditions.as_deref()?))).collect();
        let cells = Minibatch { x: &x, pairs: &pairs, inferred: &[], labels: &labels, anchors: 0, shared: &[], cells: order, stage: phase };
        let mut losses = Vec::new();
        model.losses(s, phase, &cells, &mut losses);
        losses
    }

    /// The cells' conditions, where the fixture has them.
    fn conditions(&self, cells: &[usize]) -> Option<Vec<f32>> {
        let all = self.tensors.get("condition")?;
        Some(cells.iter().map(|&c| all[c] as f32).collect())
    }

    /// The cells' features.
    fn data(&self, s: &mut Step, name: &str, cells: &[usize]) -> Var {
        let all = self.floats(&format!("x/{name}"));
        let features = all.len() / self.number("rows");
        let of_cells: Vec<f32> = cells.iter().flat_map(|c| all[c * features..(c + 1) * features].to_vec()).collect();
        s.constant([cells.len(), features], &of_cells)
    }

    /// Gives parameters and tables the fixture's values; both sides must know the same of them.
    fn set_weights(&self, s: &mut Step) -> Vec<Tensor> {
        let mut of_model: Vec<String> = s.params().parameters().map(|(name, ..)| name.to_string()).collect();
        of_model.extend(s.params().states().map(|(name, ..)| name.to_string()).filter(|name| name.starts_with("table.")));
        of_model.sort();
        assert_eq!(of_model, self.under("init/").map(|(name, _)| name).collect::<Vec<_>>(), "{}: parameters and tables", self.label);
        let start: BTreeMap<String, ([usize; 2], Vec<f32>)> = (s.snapshot().expect("a snapshot").into_iter())
            .map(|(name, dims, first)| {
                let values = if of_model.contains(&name) { self.floats(&format!("init/{name}")) } else { first };
                (name, (dims, values))
            })
            .collect();
        s.restore(|name| start.get(name).map(|(dims, values)| (*dims, values.as_slice()))).expect("the weights");
        s.snapshot().expect("a snapshot")
    }

    /// Exactly the fixture's terms are there, with its values.
    fn check_terms(&self, s: &mut Step, terms: &[String], losses: &Losses, prefix: &str) {
        assert_eq!(losses.len(), terms.len(), "{}: terms", self.label);
        let mut seen = Vec::new();
        for (name, &(v, _)) in terms.iter().zip(losses).filter(|(_, (v, _))| !v.is_none()) {
            let expected = self.values(&format!("{prefix}{name}"));
            self.close(&format!("{prefix}{name}"), &s.download(v).expect("a term"), expected, 1e-4 * expected[0].abs());
            seen.push(name.as_str());
        }
        seen.sort();
        assert_eq!(seen, self.under(prefix).map(|(name, _)| name).collect::<Vec<_>>(), "{}: terms of {prefix}", self.label);
    }

    /// Of the parameters that the first stage moves; the others have none.
    fn check_gradients(&self, s: &mut Step) {
        let parameters: Vec<(String, Var)> = s.params().parameters().map(|(name, v, _)| (name.to_string(), v)).collect();
        for (name, v) in parameters {
            match (s.grad(v), self.tensors.get(&format!("grad/{name}"))) {
                (Some(g), Some(expected)) => {
                    let got = s.download(g).expect("a gradient");
                    self.close(&format!("gradient of {name}"), &got, expected, 1e-4 * norm(expected.iter().copied()));
                }
                (got, expected) => {
                    assert!(got.is_none() && expected.is_none(), "{}: {name}: a gradient on one side alone", self.label);
                    assert!(name.starts_with("enc."), "{}: {name} has no gradient", self.label);
                }
            }
        }
    }

    /// Of the tables' rows: what the first step has made of moments that were zero.
    fn check_table_gradients(&self, s: &mut Step, cells: &[usize]) {
        let moments: Vec<_> = s.params().states().map(|(name, v, dims)| (name.to_string(), v, dims)).collect();
        let mut seen = 0;
        for (name, expected) in self.under("grad/table.") {
            let moment = format!("adam.table.{name}.m");
            let &(_, v, [_, d]) = moments.iter().find(|(n, ..)| *n == moment).unwrap_or_else(|| panic!("{}: no {moment}", self.label));
            let got: Vec<f32> = s.download(v).expect("a moment").iter().map(|m| (f64::from(*m) / FRESH) as f32).collect();
            self.close(&format!("gradient of table {name}"), &got, expected, 1e-4 * norm(expected.iter().copied()));
            let outside = got.chunks_exact(d).enumerate().filter(|(c, _)| !cells.contains(c)).flat_map(|(_, g)| g);
            assert!(outside.copied().all(|g| g == 0.0), "{}: table {name}: a row outside the minibatch has a gradient", self.label);
            seen += 1;
        }
        assert_eq!(seen, moments.iter().filter(|(n, ..)| n.starts_with("table.")).count(), "{}: tables", self.label);
    }

    /// What a stage moves is where it ought to be, measured by how far it went; what it leaves alone has not moved by a bit.
    fn check_after(&self, s: &mut Step, before: &[Tensor], stage: &str) -> Vec<Tensor> {
        let mut seen = 0;
        let all = s.snapshot().expect("a snapshot");
        assert_eq!(all.len(), before.len(), "{}: parameters and states", self.label);
        for ((name, [_, d], got), (_, _, from)) in all.iter().zip(before) {
            let Some(expected) = self.tensors.get(&format!("{stage}/{name}")) else {
                // Which redundancy's norms do not use.
                let of_no_account = name.starts_with("adam.") || name.starts_with("redundancy.");
                assert!(of_no_account || got == from, "{}: {name} has moved in stage {stage}", self.label);
                continue;
            };
            seen += 1;
            let moved = norm(expected.iter().zip(from).map(|(e, f)| e - f64::from(*f)));
            // Variances are small against the 1 that they begin at, and are means: nothing in them is divided by what nearly vanishes.
            let share = if name.ends_with(".mean") || name.ends_with(".var") { 5e-5 } else { 3e-4 };
            let allowed = share * moved + 1e-6 * norm(expected.iter().copied());
            self.close(&format!("{name} after stage {stage}"), got, expected, allowed);
            if name.starts_with("table.") {
                let held = (self.number("rows") - self.number("held")) * d;
                assert!(got[held..] == from[held..], "{}: {name}: a held-out row has moved", self.label);
            }
        }
        assert_eq!(seen, self.under(&format!("{stage}/")).count(), "{}: what stage {stage} moves", self.label);
        all
    }

    /// The held-out terms, codes, and features of the modality's own code and of another's.
    fn check_held_out(&self, s: &mut Step, model: &dyn Model, order: Var) {
        let rows = self.number("rows");
        let cells: Vec<usize> = (rows - self.number("held")..rows).collect();
        if let (Some(given), Some(conditions)) = (model.conditions(), self.conditions(&cells)) {
            s.end();
            s.upload(given, &conditions).expect("an upload");
        }
        s.begin(false, 0, 0).expect("begin");
        let losses = self.losses(s, model, 1, &cells, order);
        self.check_terms(s, model.terms(1), &losses, "held/");
        let names = self.names();
        let x: Vec<Var> = names.iter().map(|name| self.data(s, name, &cells)).collect();
        let codes: Vec<Var> = (0..names.len()).map(|m| model.encode(s, m, x[m])).collect();
        for (m, name) in names.iter().enumerate() {
            let own = model.decode(s, m, codes[m]);
            let cross = model.decode_other(s, m, codes[(m + names.len() - 1) % names.len()]);
            for (what, v) in [("code", codes[m]), ("self", own), ("cross", cross)] {
                let expected = self.values(&format!("eval/{what}.{name}"));
                self.close(&format!("{what}.{name}"), &s.download(v).expect("a matrix"), expected, 1e-4 * norm(expected.iter().copied()));
            }
        }
    }
}

macro_rules! cases {
    ($($test:ident $case:literal)*) => { $(#[test] fn $test() { on_every_device("apollo", $case, |fixture, device| Case(fixture).check(device)); })* };
}

cases! {
    cross_entropy_and_squares_of_two_modalities_match_pytorch "two"
    three_modalities_with_squared_lengths_and_redundancy_match_pytorch "three-redundancy"
    a_shared_space_alone_matches_pytorch "three-shared-alone"
    rows_that_stay_and_no_decoders_of_the_shared_space_match_pytorch "no-shared-decoders-lazy"
    images_match_pytorch "images"
    images_of_a_shared_space_alone_match_pytorch "images-shared-alone"
    conditions_that_encoders_learn_anew_match_pytorch "conditions-of-encoders"
    images_under_conditions_match_pytorch "images-conditions"
}

#[test]
fn every_fixture_has_a_test() {
    all_are_used("apollo", include_str!("golden_apollo.rs"));
}
