//! The loop itself: steps, epochs, held-out loss, early stopping.

mod checkpoint;
mod finish;

use super::prepare::Preparation;
use super::session::Session;
use super::stepper::Stepper;
use super::{Stopped, TrainProgress, TrainRequest, TrainSummary};
use crate::data::plan::Plan;
use crate::device::Device;
use crate::engine::Step;
use crate::engine::optim::STATES;
use crate::error::{Error, Result};
use crate::models::settings::Settings;
use crate::models::{Labels, Stage, Stopping};
use crate::run::{Run, Tensor};
use checkpoint::Progress;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// A training under way.
pub(super) struct Training<'a> {
    request: TrainRequest<'a>,
    run: Run,
    session: Session,
    stepper: Stepper,
    /// One after the other, each with the epochs of a plan of its own.
    stages: Vec<(Stage, Plan)>,
    held: Option<Plan>,
    /// How often an epoch goes through its minibatches: once, or once a phase.
    passes: usize,
    /// The names of the classes that the model learns.
    classes: Option<Vec<String>>,
    training_rows: Vec<Vec<u32>>,
    epochs: usize,
    patience: usize,
    select_sum: bool,
    terms: Vec<String>,
    at: Progress,
    best: Option<Vec<Tensor>>,
    last: Vec<(String, f64)>,
    started: Instant,
    /// When the last checkpoint was written, and how long that took.
    saved: (Instant, Duration),
}

impl<'a> Training<'a> {
    /// Prepared, and gone on with where a resumed run stands.
    pub(super) fn new(mut request: TrainRequest<'a>) -> Result<Training<'a>> {
        let device = std::mem::replace(&mut request.device, Device::cpu());
        let Preparation { session, stepper, stages, held, training_rows, settings, run, prepared } =
            Preparation::new(&mut request, device)?;
        (request.prepared)(&prepared);
        let phases = session.model.phases().len();
        let terms: Vec<String> = (0..phases).flat_map(|p| session.model.terms(p).to_vec()).collect();
        let at = Progress {
            epoch: 1,
            done: 0,
            sums: vec![0.0; terms.len()],
            best: f64::INFINITY,
            best_epoch: 0,
            held_out: f64::NAN,
            so_far: 0.0,
            least: f64::INFINITY,
            seconds: 0.0,
        };
        let mut training = Training {
            epochs: stages.iter().map(|(stage, _)| stage.epochs).sum(),
            patience: if settings.has("patience") { settings.get("patience")?.count()? } else { 0 },
            classes: classes_of(&request, &settings)?,
            passes: if session.model.phase_by_phase() { phases } else { 1 },
            select_sum: settings.get("select")?.word()? == "sum",
            request,
            run,
            session,
            stepper,
            stages,
            held,
            training_rows,
            terms,
            at,
            best: None,
            last: Vec::new(),
            started: Instant::now(),
            saved: (Instant::now(), Duration::ZERO),
        };
        if training.request.resume
            && let Some(saved) = training.run.load_checkpoint()?
        {
            training.restore(&saved)?;
        }
        Ok(training)
    }

    /// To its end, or until it is told to stop.
    pub(super) fn run(mut self) -> Result<TrainSummary> {
        let mut history = self.run.history(self.at.epoch - 1)?;
        let mut told = None::<Instant>;
        let mut stopped = Stopped::Finished;
        let mut resumed = self.at.done > 0;
        while self.at.epoch <= self.epochs {
            if self.patience > 0 && self.at.best_epoch > 0 && self.at.epoch > self.at.best_epoch + self.patience {
                stopped = Stopped::Early { best: self.at.best_epoch, kept: self.best.is_some() };
                break;
            }
            let epoch_started = Instant::now();
            let (stage, before) = self.stage();
            let (what, plan) = &mut self.stages[stage];
            let (steps, passes) = (plan.steps(), self.passes);
            plan.shuffle(self.at.epoch as u32);
            self.stepper.enter(&mut self.session.step, stage, what.phases.clone());
            self.session.model.begin_epoch(&mut self.session.step, self.at.epoch);
            self.stepper.begin_epoch(&mut self.session.step, plan, true)?;
            if !resumed {
                self.at.sums.fill(0.0);
            }
            resumed = false;
            self.stepper.set_sums(&mut self.session.step, &self.at.sums)?;
            while self.at.done < steps * passes {
                if self.at.done > 0 && self.checkpoint_is_due() {
                    self.check_finite()?;
                    self.at.sums = self.stepper.sums(&mut self.session.step)?;
                    self.save_checkpoint()?;
                }
                if self.request.stop.load(Ordering::Relaxed) {
                    self.check_finite()?;
                    self.at.sums = self.stepper.sums(&mut self.session.step)?;
                    self.save_checkpoint()?;
                    self.finish()?;
                    return Ok(self.summary(Stopped::Interrupted));
                }
                let number = self.steps_done() + 1;
                let plan = &self.stages[stage].1;
                let (s, model) = (&mut self.session.step, &*self.session.model);
                if passes > 1 {
                    self.stepper.take(Some(self.at.done / steps));
                }
                let turn = turn(number - before, steps, passes);
                self.stepper.step(s, model, plan, [number, turn], self.at.done % steps * plan.batch())?;
                self.at.done += 1;
                self.watch_step()?;
                let tell = told.is_none_or(|t| t.elapsed() >= TELL_EVERY);
                if tell || self.session.step.on_cpu() {
                    self.check_finite()?;
                }
                if tell {
                    told = Some(Instant::now());
                    let sums = self.stepper.sums(&mut self.session.step)?;
                    self.tell(self.total(&sums, self.at.done.min(steps) as f64));
                }
            }
            self.session.step.finish()?;
            self.check_finite()?;
            self.stepper.take(None);
            self.end_epoch(&mut history, epoch_started.elapsed())?;
            if self.checkpoint_is_due() {
                self.save_checkpoint()?;
            }
        }
        self.save_checkpoint()?;
        self.finish()?;
        Ok(self.summary(stopped))
    }

    /// Keeps the smallest minibatch loss of the epoch, for a model that stops by it.
    fn watch_step(&mut self) -> Result<()> {
        if let Stopping::LeastLoss { min_epochs, .. } = self.session.model.stopping()
            && self.at.epoch > min_epochs
        {
            let so_far = self.stepper.sums(&mut self.session.step)?;
            let so_far = self.total(&so_far, 1.0);
            let before = if self.at.done > 1 { self.at.so_far } else { 0.0 };
            self.at.least = if self.at.done > 1 { self.at.least.min(so_far - before) } else { so_far };
            self.at.so_far = so_far;
        }
        Ok(())
    }

    /// Held-out loss, a row of the history, the best weights so far.
    fn end_epoch(&mut self, history: &mut crate::run::history::History, took: Duration) -> Result<()> {
        let stopping = self.session.model.stopping();
        let steps = self.stages[self.stage().0].1.steps() as f64;
        let sums = self.stepper.sums(&mut self.session.step)?;
        let total = self.total(&sums, steps);
        let counts = self.stepper.term_weights(&self.session.step);
        // A term of another stage is no number here, and neither is one of held-out cells alone, or of a correspondence that was left out.
        let there = counts.iter().zip(self.stepper.trained()).map(|(w, there)| w.is_some() && there);
        let means = sums.iter().zip(there).map(|(s, there)| if there { s / steps } else { f64::NAN });
        self.last = vec![("total".into(), total)];
        self.last.extend(self.terms.iter().cloned().zip(means));
        if let Some(values) = self.held_out_terms()? {
            // A stage may have nothing to say of cells that it never saw.
            let none = values.iter().all(Option::is_none).then_some(f64::NAN);
            let weighted = none.unwrap_or_else(|| counts.iter().zip(&values).filter_map(|(w, v)| Some(w.as_ref()? * v.as_ref()?)).sum());
            self.at.held_out = none.unwrap_or_else(|| if self.select_sum { values.iter().flatten().sum() } else { weighted });
            self.last.push(("held_out.total".into(), weighted));
            // The columns are those of all stages, but for terms that held-out cells cannot have.
            let several = self.stages.len() > 1;
            let named =
                self.terms.iter().zip(values).filter_map(|(t, v)| Some((format!("held_out.{t}"), v.or(several.then_some(f64::NAN))?)));
            self.last.extend(named);
            // The losses of an earlier stage are others.
            let last = self.stage().0 + 1 == self.stages.len();
            if stopping == Stopping::HeldOut && last && self.at.held_out < self.at.best {
                (self.at.best, self.at.best_epoch) = (self.at.held_out, self.at.epoch);
                self.best = Some(weights(&mut self.session.step)?);
            }
        }
        if let Stopping::LeastLoss { min_epochs, min_increment } = stopping
            && self.at.epoch > min_epochs
            && self.at.least < self.at.best - min_increment
        {
            (self.at.best, self.at.best_epoch) = (self.at.least, self.at.epoch);
        }
        let row: Vec<(&str, f64)> = self.last.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        history.append(self.at.epoch, took.as_secs_f64(), &row)?;
        self.tell(total);
        self.at.epoch += 1;
        self.at.done = 0;
        Ok(())
    }

    /// The held-out cells' loss terms with nothing dropped, in parts of equal size up to one cell; `None` without such cells, and for
    /// a term that needs what they do not have.
    fn held_out_terms(&mut self) -> Result<Option<Vec<Option<f64>>>> {
        let batch = self.stages[self.stage().0].1.batch();
        let Some(held) = &mut self.held else { return Ok(None) };
        held.in_order();
        self.stepper.begin_epoch(&mut self.session.step, held, false)?;
        let slots = held.slots();
        let parts = slots.div_ceil(batch).min((slots / self.session.model.smallest_batch()).max(1));
        let mut sums = vec![Some(0.0); self.terms.len()];
        for part in 0..parts {
            let (start, end) = (slots * part / parts, slots * (part + 1) / parts);
            let (s, model) = (&mut self.session.step, &*self.session.model);
            let values = self.stepper.evaluate(s, model, held, start, end - start)?;
            sums.iter_mut().zip(values).for_each(|(sum, v)| *sum = sum.zip(v).map(|(sum, v)| sum + v * (end - start) as f64));
        }
        Ok(Some(sums.iter().map(|s| s.map(|s| s / slots as f64)).collect()))
    }

    fn total(&self, sums: &[f64], steps: f64) -> f64 {
        let counts = self.stepper.term_weights(&self.session.step);
        counts.iter().zip(sums).map(|(w, s)| w.map_or(0.0, |w| w * s)).sum::<f64>() / steps
    }

    /// An error that names step, term and operation if a loss was not finite.
    fn check_finite(&mut self) -> Result<()> {
        let Some((number, phase, term)) = self.stepper.stopped(&mut self.session.step)? else { return Ok(()) };
        let (stage, before) = self.stage();
        let (s, model) = (&mut self.session.step, &*self.session.model);
        let plan = &self.stages[stage].1;
        let op = self.stepper.culprit(s, model, plan, [number, turn(number - before, plan.steps(), self.passes)], phase)?;
        Err(Error::Diverged { step: number, term: self.session.model.terms(phase)[term].clone(), op })
    }

    /// The stage of the epoch under way (the last one after all of them), and the steps of all stages before it.
    fn stage(&self) -> (usize, u64) {
        let (mut epoch, mut before, last) = (self.at.epoch, 0, self.stages.len() - 1);
        for (i, (stage, plan)) in self.stages[..last].iter().enumerate() {
            if epoch <= stage.epochs {
                return (i, before);
            }
            epoch -= stage.epochs;
            before += (stage.epochs * plan.steps() * self.passes) as u64;
        }
        (last, before)
    }

    fn steps_done(&self) -> u64 {
        let (stage, before) = self.stage();
        let earlier: usize = self.stages[..stage].iter().map(|(s, _)| s.epochs).sum();
        before + ((self.at.epoch - 1 - earlier) * self.stages[stage].1.steps() * self.passes + self.at.done) as u64
    }

    fn tell(&mut self, loss: f64) {
        let step = self.steps_done();
        (self.request.progress)(&TrainProgress {
            epoch: self.at.epoch,
            epochs: self.epochs,
            step,
            steps: self.stages.iter().map(|(stage, plan)| (stage.epochs * plan.steps() * self.passes) as u64).sum(),
            loss,
            held_out: self.at.held_out.is_finite().then_some(self.at.held_out),
        });
    }

    fn summary(self, stopped: Stopped) -> TrainSummary {
        TrainSummary { epochs: self.at.epoch - 1, steps: self.steps_done(), stopped, seconds: self.at.seconds, last: self.last }
    }
}

/// The names of the classes that a model learns, if it learns any.
fn classes_of(request: &TrainRequest, settings: &Settings) -> Result<Option<Vec<String>>> {
    if (request.model.labels)(settings)? != Labels::Classes {
        return Ok(None);
    }
    let column = request.labels.as_deref().or(request.dataset.default_label());
    column.map(|c| request.dataset.label(c).map(|l| l.classes)).transpose()
}

/// How often the phases of a stage's `number`-th step have been taken, that step included, where an epoch of `steps` minibatches is gone
/// through `passes` times.
fn turn(number: u64, steps: usize, passes: usize) -> u64 {
    let (steps, epoch) = (steps as u64, (steps * passes) as u64);
    (number - 1) / epoch * steps + (number - 1) % epoch % steps + 1
}

/// What belongs to the model: everything but the optimisers' moments.
fn weights(s: &mut Step) -> Result<Vec<Tensor>> {
    s.settle_tables();
    let lasting = s.tensors()?.into_iter().filter(|(name, ..)| !STATES.iter().any(|o| name.starts_with(o)));
    lasting.map(|(name, var, dims)| Ok((name, dims, s.download(var)?))).collect()
}
