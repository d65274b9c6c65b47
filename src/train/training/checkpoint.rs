//! Checkpoints: what `--resume` finds, everything that the next step depends on.

use super::{Training, weights};
use crate::error::Result;
use crate::models::Stopping;
use crate::run::{Saved, bits, bits_list, delete_and_resume};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Instant;

/// Between checkpoints, so many times what writing one takes: 3 % of the time at most.
const SPARED: u32 = 30;

/// What a checkpoint records beside the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The epoch under way, from 1, and the steps done in it.
    pub epoch: usize,
    pub done: usize,
    /// Sums of the loss terms over those steps.
    #[serde(with = "bits_list")]
    pub sums: Vec<f64>,
    /// The best held-out loss and its epoch; 0 before the first.
    #[serde(with = "bits")]
    pub best: f64,
    pub best_epoch: usize,
    /// The last held-out loss.
    #[serde(with = "bits")]
    pub held_out: f64,
    /// The sum of the epoch's losses so far and the smallest of them, where they are watched.
    #[serde(with = "bits")]
    pub so_far: f64,
    #[serde(with = "bits")]
    pub least: f64,
    pub seconds: f64,
}

impl Training<'_> {
    /// Whether it is time for one.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let (last, took) = self.saved;
        last.elapsed() >= self.request.checkpoint_every.max(SPARED * took)
    }

    /// Writes one.
    pub(super) fn save_checkpoint(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.at.seconds += self.started.elapsed().as_secs_f64();
        self.started = begun;
        let step = &mut self.session.step;
        let (live, best) = (step.tensors()?, self.best.as_deref().unwrap_or_default());
        let best_names: Vec<String> = best.iter().map(|(name, ..)| format!("best.{name}")).collect();
        let mut named: Vec<(&str, [usize; 2])> = live.iter().map(|(name, _, dims)| (name.as_str(), *dims)).collect();
        named.extend(best_names.iter().zip(best).map(|(name, (_, dims, _))| (name.as_str(), *dims)));
        self.run.save_checkpoint(&named, &self.at, |i| match live.get(i) {
            Some((_, var, _)) => step.download(*var).map(Cow::Owned),
            None => Ok(Cow::Borrowed(&best[i - live.len()].2[..])),
        })?;
        self.saved = (Instant::now(), begun.elapsed());
        Ok(())
    }

    /// Goes on where it was written.
    pub(super) fn restore(&mut self, saved: &Saved) -> Result<()> {
        let at: Progress = saved.record().map_err(delete_and_resume)?;
        // No option allows as many epochs; a resumed training may have fewer than are done.
        let few = |epoch: usize| epoch <= 1 << 31;
        let here = self.stages.iter().map(|(_, plan)| plan.steps() * self.passes).max().unwrap_or(0);
        if at.epoch == 0 || !few(at.epoch) || at.best_epoch > at.epoch || at.done > here || at.sums.len() != self.terms.len() {
            return Err(delete_and_resume(saved.damaged("its counters are not those of a training of this model")));
        }
        self.at = at;
        self.session.step.restore(|name| saved.get(name))?;
        let stopping = self.session.model.stopping();
        if stopping == Stopping::LastEpoch {
            // A `patience` that it was given before has made it watch the held-out loss.
            (self.at.best, self.at.best_epoch) = (f64::INFINITY, 0);
        }
        if self.at.best_epoch > 0 && stopping == Stopping::HeldOut {
            let best = weights(&mut self.session.step)?;
            let named = best.into_iter().map(|(n, d, _)| Ok((n.clone(), d, saved.need(&format!("best.{n}"))?.1.to_vec())));
            self.best = Some(named.collect::<Result<_>>()?);
        }
        Ok(())
    }
}
