//! The paper's ablation of latent optimisation: the same networks as variational autoencoders, trained at once.
//!
//!   L_m = l_m(D_m(s, a), x_m) + l_m(D'_m(s), x_m) + w Σ_{n≠m} mean (s - μ_n)² + v KL / B       moves D_m, D'_m, E_m
//!   with (μ, log σ) = E_m(x_m) for either space, s and a drawn from N(μ, σ²), μ_n what E_n says of the same cell, held constant
//!
//! An epoch is a pass for each modality, one after the other; the first of all has no other's codes to meet, and leaves that term out. The
//! codes to meet are those of all cells after the other modality's pass: E_n stands still meanwhile, so they are computed as they are
//! needed, without dropout and by running statistics, and no copy of them is kept. KL is summed over dimensions and a mean over cells, and
//! divided by the cells of the minibatch once more, as the program does.

use super::arms::Arms;
use super::conditions::Owner;
use crate::engine::optim::AdamSettings;
use crate::engine::params::init;
use crate::engine::{Knob, Step, Var, Weight};
use crate::error::Result;
use crate::models::settings::Settings;
use crate::models::{Losses, Minibatch, Modality, Model, Phase, Sampling, Stopping};
use std::ops::Range;

/// The ablation, built: a phase a modality.
pub(super) struct SingleStep {
    arms: Arms,
    terms: Vec<Vec<String>>,
    phases: Vec<Phase>,
    sampling: Sampling,
    /// w, and w of the first modality, which is 0 in the first epoch.
    matching: (f32, Knob),
    /// v, over the cells of a minibatch where it is used.
    divergence: f32,
    streams: Vec<[u32; 2]>,
}

impl SingleStep {
    pub(super) fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<SingleStep> {
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let arms = Arms::new(s, settings, modalities, true, Owner::Modalities, |m| [m, m])?;
        let others = |m: usize| (0..modalities.len()).filter(move |n| *n != m);
        let terms = arms.list.iter().enumerate().map(|(m, arm)| {
            let matched = others(m).map(|n| format!("match.{}_{}", arm.name, modalities[n].name));
            arm.terms().chain(matched).chain(arms.spaces().iter().map(|(space, _)| format!("kl.{}.{space}", arm.name))).collect()
        });
        let optimiser = AdamSettings { rate: float("lr_single")?, ..AdamSettings::default() };
        let stream = |m: &Modality| ["shared", "specific"].map(|space| init::stream_of(&format!("draw.{}.{space}", m.name)));
        let weight = float("w_match")? as f32;
        Ok(SingleStep {
            terms: terms.collect(),
            phases: (0..modalities.len()).map(|m| Phase::of(m, optimiser)).collect(),
            sampling: Sampling::Complete { reshuffle: settings.get("reshuffle")?.flag()? },
            matching: (weight, s.knob(weight)),
            divergence: float("w_kl")? as f32,
            streams: modalities.iter().map(stream).collect(),
            arms,
        })
    }
}

impl Model for SingleStep {
    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn terms(&self, phase: usize) -> &[String] {
        &self.terms[phase]
    }

    fn losses(&self, s: &mut Step, phase: usize, cells: &Minibatch, losses: &mut Losses) {
        let (arm, x) = (&self.arms.list[phase], cells.x[phase]);
        let told = self.arms.told_encoder(s, phase, cells.labels);
        let codes = arm.encoder.forward_with_spread(s, x, told);
        let codes = if self.arms.widths[1] > 0 { &codes[..] } else { &codes[..1] };
        let mut drawn = [Var::NONE; 2];
        for ((z, &(mu, logvar)), &stream) in drawn.iter_mut().zip(codes).zip(&self.streams[phase]) {
            *z = s.sample_latent(mu, logvar, stream);
        }
        let told = self.arms.told(s, phase, cells.labels);
        arm.decoded(s, drawn, told, x, |loss| losses.push((loss, Weight::Fixed(1.0))));
        let (weight, first) = self.matching;
        for n in (0..self.arms.list.len()).filter(|n| *n != phase) {
            let other = &self.arms.list[n].encoder;
            let [target, _] = s.without_gradient(|s| {
                let told = self.arms.told_encoder(s, n, cells.labels);
                s.evaluating(|s| other.forward(s, cells.x[n], told))
            });
            losses.push((s.mean_square(drawn[0], target), if phase == 0 { Weight::Knob(first) } else { Weight::Fixed(weight) }));
        }
        let rows = s.dims(x)[0] as f32;
        for &(mu, logvar) in codes {
            let width = s.dims(mu)[1] as f32;
            // `kl` is a mean over dimensions, too.
            losses.push((s.kl(mu, logvar), Weight::Fixed(self.divergence * width / rows)));
        }
    }

    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        self.arms.encode(s, modality, x)
    }

    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        self.arms.decode(s, modality, z)
    }

    fn decode_other(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        self.arms.decode_other(s, modality, z)
    }

    fn conditions(&self) -> Option<Var> {
        self.arms.given()
    }

    fn latent(&self) -> usize {
        self.arms.widths.iter().sum()
    }

    fn spaces(&self) -> Vec<(&'static str, Range<usize>)> {
        self.arms.spaces()
    }

    fn rows_at_once(&self) -> usize {
        self.arms.rows_at_once
    }

    fn smallest_batch(&self) -> usize {
        2
    }

    fn sampling(&self) -> Sampling {
        self.sampling
    }

    fn stopping(&self) -> Stopping {
        Stopping::HeldOut
    }

    fn phase_by_phase(&self) -> bool {
        true
    }

    fn begin_epoch(&self, s: &mut Step, epoch: usize) {
        s.turn(self.matching.1, if epoch == 1 { 0.0 } else { self.matching.0 });
    }
}
