//! sciCAN against values computed by PyTorch in float64 from the same formulas (tests/golden/scican/make.py says which and how), its noise,
//! dropout and interpolation included, which come from the same Philox streams: every loss term of three whole steps, the gradients of
//! both phases of the first by name, parameters, running statistics and averages after them, and codes; on every device that answers.

#![cfg(feature = "models")]

#[path = "common/fixture.rs"]
mod fixture;

use couplet::device::Device;
use couplet::engine::ops::ledger::Ledger;
use couplet::engine::optim::Optimiser;
use couplet::engine::{Precision, Step, Var};
use couplet::models::settings::Settings;
use couplet::models::{Facts, Minibatch, Modality, by_name};
use fixture::{Fixture, all_are_used, norm, on_every_device};
use std::collections::BTreeMap;
use std::ops::Deref;

const NAMES: [&str; 2] = ["rna", "atac"];

struct Case(Fixture);

impl Deref for Case {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.0
    }
}

impl Case {
    fn check(self, device: Device) {
        let spec = by_name("scican").expect("the model");
        let (rows, features) = (self.number("rows"), self.number("features"));
        let flags = self.list("flags", |f| f.as_str().map(String::from));
        let counts = self.list("class_counts", |n| n.as_u64().map(|n| n as usize));
        let modalities = NAMES.map(|name| Modality { name: name.into(), features, deviations: vec![1.0; features], image: None });
        let mut settings = Settings::new(spec.name, spec.options, &NAMES.map(String::from)).expect("default settings");
        settings.apply_flags(&flags).expect("the case's settings");
        let facts =
            Facts { modalities: &modalities, cells: rows, fewest: rows, classes: counts.len(), class_counts: &counts, ..Facts::default() };
        (spec.resolve)(&mut settings, &facts).expect("resolved settings");
        let mut s = Step::new(device, self.seed(), Precision::F32).expect("a step");
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
        let cells = Minibatch { x: &x, pairs: &[Var::NONE], inferred: &[], labels, anchors: 0, shared: &[], cells: Var::NONE, stage: 0 };

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

macro_rules! cases {
    ($($test:ident $case:literal)*) => { $(#[test] fn $test() { on_every_device("scican", $case, |fixture, device| Case(fixture).check(device)); })* };
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

#[test]
fn every_fixture_has_a_test() {
    all_are_used("scican", include_str!("golden_scican.rs"));
}
