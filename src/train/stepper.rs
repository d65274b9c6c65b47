//! One training step, and one pass over held-out cells: what the training loop and `couplet bench step` call alike.

use super::correspondence::Blocks;
use super::feed::Feeds;
use super::labels::LabelFeed;
use crate::data::plan::Plan;
use crate::device::launch::GraphId;
use crate::engine::ops::ledger::Ledger;
use crate::engine::optim::Optimiser;
use crate::engine::{Step, Var, Weight};
use crate::error::Result;
use crate::models::{Losses, MOST_MODALITIES, MOST_PAIRS, Minibatch, Model};
use std::ops::Range;

/// What a step needs besides the model: the modalities' way in, the pairs' weights, optimisers and the ledger of its loss terms.
pub struct Stepper {
    feeds: Feeds,
    /// An epoch's weights [slots, 1], a pair each; none where every slot is a pair.
    weights: Vec<Var>,
    /// The inferred correspondences, for a model that learns from them.
    blocks: Option<Blocks>,
    labels: Option<LabelFeed>,
    /// The epoch's order of the first modality's rows.
    cells: Var,
    /// By phase.
    optimisers: Vec<Vec<Optimiser>>,
    clips: Vec<f32>,
    /// The stage under way, and the phases that step in it.
    stage: (usize, Range<usize>),
    ledgers: Vec<Ledger>,
    losses: Losses,
    shared: Vec<Var>,
    term_vars: Vec<Var>,
    /// The weights of each phase's terms in its last step.
    term_weights: Vec<Vec<Weight>>,
    /// Which of them there were in its last training step.
    term_there: Vec<Vec<bool>>,
    /// The phases of the step under way: the stage's, or one of them.
    now: Range<usize>,
    /// Every set of phases that this stage has stepped.
    taken: Vec<Taken>,
}

/// A set of phases that step together.
struct Taken {
    phases: Range<usize>,
    graph: Option<GraphId>,
    /// How often they have: a captured step needs warm memory.
    warm: u32,
}

/// How a minibatch's parts reach the device.
pub struct Ways {
    /// The modalities'.
    pub feeds: Feeds,
    /// The inferred correspondences, for a model that learns from them.
    pub blocks: Option<Blocks>,
    /// The labels, for a model that learns from them.
    pub labels: Option<LabelFeed>,
}

/// A minibatch's variables.
struct Given {
    x: [Var; MOST_MODALITIES],
    pairs: [Var; MOST_PAIRS],
    labels: [Var; MOST_MODALITIES],
    inferred: [Var; MOST_PAIRS],
}

/// Steps that run launch by launch before a step is captured.
const WARM_UP: u32 = 2;

impl Stepper {
    /// For a model that has been built on `s`. `fully_paired`: no weights are needed.
    pub fn new(s: &mut Step, model: &dyn Model, ways: Ways, slots: usize, fully_paired: bool) -> Result<Stepper> {
        let Ways { feeds, blocks, labels } = ways;
        let k = feeds.len();
        let mut weights = Vec::new();
        s.end();
        for _ in 0..k * (k - 1) / 2 {
            weights.push(if fully_paired { Var::NONE } else { s.resident([slots, 1])? });
        }
        let cells = s.resident([1, slots])?;
        let (mut optimisers, mut ledgers) = (Vec::new(), Vec::new());
        for (p, phase) in model.phases().iter().enumerate() {
            let optimiser = |&(group, rule): &(usize, _)| Optimiser::new(s, &format!("{p}.{group}"), group, rule);
            optimisers.push(phase.moves.iter().map(optimiser).collect::<Result<Vec<_>>>()?);
            ledgers.push(Ledger::new(s, model.terms(p).len())?);
        }
        let clips = model.phases().iter().map(|p| p.clip).collect();
        let (losses, shared, term_vars) = (Vec::new(), Vec::new(), Vec::new());
        let stage = (0, 0..optimisers.len());
        let term_weights = (0..optimisers.len()).map(|p| vec![Weight::Fixed(0.0); model.terms(p).len()]).collect();
        let term_there = (0..optimisers.len()).map(|p| vec![true; model.terms(p).len()]).collect();
        let now = stage.1.clone();
        Ok(Stepper {
            feeds,
            weights,
            blocks,
            labels,
            cells,
            optimisers,
            clips,
            stage,
            ledgers,
            losses,
            shared,
            term_vars,
            term_weights,
            term_there,
            now,
            taken: Vec::new(),
        })
    }

    /// From the next step on it is this stage, in which these phases step.
    pub fn enter(&mut self, s: &mut Step, stage: usize, phases: Range<usize>) {
        if stage > 0 {
            // A later stage reads what an earlier one has left.
            s.settle_tables();
        }
        if self.stage != (stage, phases.clone()) {
            self.stage = (stage, phases);
            self.taken.clear();
        }
        self.take(None);
    }

    /// From the next step on one phase of the stage steps, or all of them.
    pub fn take(&mut self, phase: Option<usize>) {
        let all = &self.stage.1;
        self.now = phase.map_or(all.clone(), |p| all.start + p..all.start + p + 1);
    }

    /// Takes over an epoch's order and weights, for training or for held-out cells.
    pub fn begin_epoch(&mut self, s: &mut Step, plan: &Plan, training: bool) -> Result<()> {
        self.feeds.set_order(s, plan, training)?;
        // Held-out cells are in no correspondence.
        if let Some(blocks) = self.blocks.as_mut().filter(|_| training) {
            blocks.set_order(s, plan)?;
        }
        if let Some(labels) = &mut self.labels {
            labels.set_order(s, plan)?;
        }
        s.upload(self.cells, plan.order(0))?;
        for (p, &w) in self.weights.iter().enumerate().filter(|(_, w)| !w.is_none()) {
            s.upload(w, plan.weights(p))?;
        }
        Ok(())
    }

    /// Training step `number` (from 1), the `in_stage`-th of its stage, on the slots from `start`.
    pub fn step(&mut self, s: &mut Step, model: &dyn Model, plan: &Plan, [number, in_stage]: [u64; 2], start: usize) -> Result<()> {
        let rows = plan.batch();
        self.feeds.stage(s, start, rows)?;
        if let Some(blocks) = &mut self.blocks {
            blocks.stage(s, plan, start, rows)?;
        }
        for o in self.optimisers[self.now.clone()].iter_mut().flatten() {
            o.set_step(s, in_stage, model.rate(in_stage));
        }
        model.before_step(s, in_stage);
        let taken = match self.taken.iter().position(|t| t.phases == self.now) {
            Some(at) => at,
            None => {
                self.taken.push(Taken { phases: self.now.clone(), graph: None, warm: 0 });
                self.taken.len() - 1
            }
        };
        if let Some(graph) = self.taken[taken].graph {
            s.write_clock(number, start)?;
            s.replay(graph);
            return Ok(());
        }
        s.begin(true, number, start)?;
        if self.taken[taken].warm < WARM_UP {
            self.taken[taken].warm += 1;
            self.launch(s, model, plan);
            return Ok(());
        }
        if s.on_cpu() {
            self.launch(s, model, plan);
            return Ok(());
        }
        self.taken[taken].graph = s.capture(|s| self.launch(s, model, plan))?;
        if let Some(graph) = self.taken[taken].graph {
            s.replay(graph);
        }
        Ok(())
    }

    /// Everything a step computes, phase by phase.
    fn launch(&mut self, s: &mut Step, model: &dyn Model, plan: &Plan) {
        let given = self.given(s, plan.batch(), true);
        self.begin_step(s, model, &given, plan.anchors());
        s.keep_tape();
        for phase in self.now.clone() {
            s.train_only(|group| self.optimisers[phase].iter().any(|o| o.group() == group));
            self.losses_of(s, model, phase, &given, plan.anchors());
            self.term_vars.clear();
            self.term_vars.extend(self.losses.iter().map(|(v, _)| *v));
            self.term_there[phase].iter_mut().zip(&self.term_vars).for_each(|(there, term)| *there = !term.is_none());
            self.ledgers[phase].add(s, &self.term_vars);
            s.backward(&self.losses);
            for optimiser in &mut self.optimisers[phase] {
                if self.clips[phase] > 0.0 {
                    s.clip_gradients(optimiser.group(), self.clips[phase]);
                }
                optimiser.step(s, &self.ledgers[phase]);
            }
            model.after_step(s, phase, &self.ledgers[phase]);
            s.forget_gradients();
        }
        s.train_only(|_| true);
    }

    /// The minibatch of the step under way; in training with the inferred correspondences.
    fn given(&self, s: &mut Step, rows: usize, training: bool) -> Given {
        let mut given = Given {
            x: [Var::NONE; MOST_MODALITIES],
            pairs: [Var::NONE; MOST_PAIRS],
            labels: [Var::NONE; MOST_MODALITIES],
            inferred: [Var::NONE; MOST_PAIRS],
        };
        self.feeds.minibatch(s, rows, &mut given.x);
        for (p, &w) in given.pairs.iter_mut().zip(&self.weights).filter(|(_, w)| !w.is_none()) {
            *p = s.window(w, rows);
        }
        if let Some(labels) = &self.labels {
            given.labels = labels.minibatch(s, rows);
        }
        if let Some(blocks) = self.blocks.as_ref().filter(|_| training) {
            blocks.minibatch(s, rows, &mut given.inferred);
        }
        given
    }

    fn cells<'a>(&self, given: &'a Given, anchors: usize, shared: &'a [Var]) -> Minibatch<'a> {
        let labels = self.labels.as_ref().map_or(0, LabelFeed::modalities);
        Minibatch {
            x: &given.x[..self.feeds.len()],
            pairs: &given.pairs[..self.weights.len()],
            inferred: &given.inferred[..self.weights.len()],
            labels: &given.labels[..labels],
            anchors,
            shared,
            cells: self.cells,
            stage: self.stage.0,
        }
    }

    fn begin_step(&mut self, s: &mut Step, model: &dyn Model, given: &Given, anchors: usize) {
        let mut shared = std::mem::take(&mut self.shared);
        shared.clear();
        model.begin_step(s, &self.cells(given, anchors, &[]), &mut shared);
        self.shared = shared;
    }

    fn losses_of(&mut self, s: &mut Step, model: &dyn Model, phase: usize, given: &Given, anchors: usize) {
        let mut losses = std::mem::take(&mut self.losses);
        losses.clear();
        model.losses(s, phase, &self.cells(given, anchors, &self.shared), &mut losses);
        self.term_weights[phase].clear();
        self.term_weights[phase].extend(losses.iter().map(|(_, w)| *w));
        self.losses = losses;
    }

    /// The loss terms of the slots `start .. start + rows` in evaluation: nothing is dropped, nothing learned. A term that needs what
    /// these cells do not have is `None`.
    pub fn evaluate(&mut self, s: &mut Step, model: &dyn Model, plan: &Plan, start: usize, rows: usize) -> Result<Vec<Option<f64>>> {
        self.feeds.stage(s, start, rows)?;
        let mut values = Vec::new();
        for phase in 0..self.optimisers.len() {
            if !self.stage.1.contains(&phase) {
                values.extend(model.terms(phase).iter().map(|_| None));
                continue;
            }
            s.begin(false, 0, start)?;
            let given = self.given(s, rows, false);
            self.begin_step(s, model, &given, plan.anchors());
            self.losses_of(s, model, phase, &given, plan.anchors());
            for i in 0..self.losses.len() {
                let mut term = [0.0f32];
                let there = !self.losses[i].0.is_none();
                if there {
                    s.download_into(self.losses[i].0, &mut term)?;
                }
                values.push(there.then_some(term[0] as f64));
            }
        }
        Ok(values)
    }

    /// The weights of all phases' terms, as they were in the last step; `None` for phases that do not step in this stage.
    pub fn term_weights(&self, s: &Step) -> Vec<Option<f64>> {
        let value = |w: &Weight| match w {
            Weight::Fixed(w) => *w as f64,
            Weight::Knob(k) => s.value(*k) as f64,
        };
        let phases = self.term_weights.iter().enumerate();
        phases.flat_map(|(p, terms)| terms.iter().map(move |w| self.stage.1.contains(&p).then(|| value(w)))).collect()
    }

    /// Which of all phases' terms the last training step had.
    pub fn trained(&self) -> Vec<bool> {
        self.term_there.concat()
    }

    /// The sums of all phases' terms since [`Stepper::set_sums`].
    pub fn sums(&self, s: &mut Step) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for ledger in &self.ledgers {
            all.extend(ledger.sums(s)?);
        }
        Ok(all)
    }

    /// Sets the sums of all phases' terms.
    pub fn set_sums(&self, s: &mut Step, sums: &[f64]) -> Result<()> {
        let mut rest = sums;
        for ledger in &self.ledgers {
            let n = ledger.terms().min(rest.len());
            ledger.set_sums(s, &rest[..n])?;
            rest = &rest[n..];
        }
        Ok(())
    }

    /// The step and term (phase and place in it) whose loss was not finite, if any.
    pub fn stopped(&self, s: &mut Step) -> Result<Option<(u64, usize, usize)>> {
        for (phase, ledger) in self.ledgers.iter().enumerate() {
            if let Some((step, term)) = ledger.stop(s)? {
                return Ok(Some((step, phase, term)));
            }
        }
        Ok(None)
    }

    /// Plays the step that stopped again, launch by launch, and names the first operation whose result is not finite.
    pub fn culprit(&mut self, s: &mut Step, model: &dyn Model, plan: &Plan, [number, in_stage]: [u64; 2], phase: usize) -> Result<String> {
        let start = (in_stage as usize - 1) % plan.steps() * plan.batch();
        self.feeds.stage(s, start, plan.batch())?;
        if let Some(blocks) = &mut self.blocks {
            blocks.stage(s, plan, start, plan.batch())?;
        }
        s.begin(true, number, start)?;
        let given = self.given(s, plan.batch(), true);
        self.begin_step(s, model, &given, plan.anchors());
        self.losses_of(s, model, phase, &given, plan.anchors());
        Ok(s.first_not_finite().unwrap_or("the loss").to_string())
    }
}
