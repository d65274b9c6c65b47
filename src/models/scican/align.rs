//! The second of sciCAN's two steps: discriminators that tell the modalities apart, and an encoder and a generator that keep them from it.

use super::networks::{Discriminator, Encoder, Generator};
use super::*;
use crate::engine::{Knob, Weight};

/// Networks, weights and knobs of the step.
pub struct Align {
    encoder: Encoder,
    sharing: Sharing,
    generator: Option<Generator>,
    codes: Option<Discriminator>,
    profiles: Option<Discriminator>,
    /// Of telling codes apart, cycled codes, profiles, and of the cycle.
    weights: [f32; 4],
    mean: bool,
    ramp: f64,
    /// Of the reversals of z, a, z' and g.
    reversals: [Knob; 4],
    terms: Vec<String>,
}

impl Align {
    /// `None` if no weight asks for the step. Widths: features, hidden, latent.
    pub fn new(s: &mut Step, settings: &Settings, encoder: Encoder, sharing: Sharing, widths: [usize; 3]) -> Result<Option<Align>> {
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let weights = [float("w_adv")? as f32, float("w_back")? as f32, float("w_gen")? as f32, float("w_cycle")? as f32];
        let [adv, back, profile, cycle] = weights.map(|w| w > 0.0);
        if !(adv || back || profile || cycle) {
            return Ok(None);
        }
        let [features, hidden, latent] = widths;
        let generator = (back || profile || cycle).then(|| Generator::new(s, GENERATOR, [latent, hidden, features])).transpose()?;
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let (narrow, wide) = (count("disc_code")?, count("disc_profile")?);
        let codes = (adv || back).then(|| Discriminator::new(s, "disc.code", CODES, latent, narrow)).transpose()?;
        let profiles = profile.then(|| Discriminator::new(s, "disc.profile", PROFILES, features, wide)).transpose()?;
        let names = [
            ("tell.first", adv || back),
            ("tell.second", adv || back),
            ("tell.cycled", back),
            ("tell.measured", profile),
            ("tell.generated", profile),
            ("cycle", cycle),
        ];
        let terms = names.iter().filter(|(_, there)| *there).map(|(name, _)| name.to_string()).collect();
        let mean = settings.get("adv")?.word()? == "mean";
        let reversals = [0; 4].map(|_| s.knob(0.0));
        Ok(Some(Align { encoder, sharing, generator, codes, profiles, weights, mean, ramp: float("ramp")?, reversals, terms }))
    }

    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    pub fn generator(&self) -> Option<&Generator> {
        self.generator.as_ref()
    }

    /// The groups of parameters that move.
    pub fn groups(&self) -> Vec<Group> {
        let there = [true, self.generator.is_some(), self.codes.is_some(), self.profiles.is_some()];
        [ENCODER, GENERATOR, CODES, PROFILES].into_iter().zip(there).filter(|(_, there)| *there).map(|(group, _)| group).collect()
    }

    /// Turns the reversals up, by the discriminators' calls so far.
    pub fn before_step(&self, s: &mut Step, turn: u64) {
        let before = (turn - 1) as f64;
        let of_codes = if self.weights[1] > 0.0 { 3.0 } else { 2.0 };
        // Measured profiles are called first, and not reversed.
        let calls = [of_codes * before, of_codes * before + 1.0, of_codes * before + 2.0, 2.0 * before + 1.0];
        for (knob, calls) in self.reversals.into_iter().zip(calls) {
            s.turn(knob, self.reversal(calls) as f32);
        }
    }

    fn reversal(&self, calls: f64) -> f64 {
        2.0 / (1.0 + (-10.0 * calls / self.ramp).exp()) - 1.0
    }

    pub fn losses(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        let [adv, back, profile, cycle] = self.weights;
        let [z, a] = self.sharing.pass(s, [cells.x[0], cells.x[1]], &self.encoder);
        let made = self.generator.as_ref().map_or(Var::NONE, |g| g.forward(s, z));
        let cycled = if back > 0.0 || cycle > 0.0 { self.encoder.forward(s, made) } else { Var::NONE };
        if let Some(codes) = &self.codes {
            let [rz, ra] = [(z, 0), (a, 1)].map(|(h, i)| s.reverse_gradient(h, self.reversals[i]));
            if back > 0.0 {
                let rc = s.reverse_gradient(cycled, self.reversals[2]);
                let [first, second, again] = self.sharing.pass(s, [rz, ra, rc], codes);
                self.tell(s, losses, first, 1.0, adv);
                self.tell(s, losses, second, 0.0, adv + back);
                self.tell(s, losses, again, 1.0, back);
            } else {
                let [first, second] = self.sharing.pass(s, [rz, ra], codes);
                self.tell(s, losses, first, 1.0, adv);
                self.tell(s, losses, second, 0.0, adv);
            }
        }
        if let Some(profiles) = &self.profiles {
            let reversed = s.reverse_gradient(made, self.reversals[3]);
            let [measured, generated] = self.sharing.pass(s, [cells.x[1], reversed], profiles);
            self.tell(s, losses, measured, 1.0, profile);
            self.tell(s, losses, generated, 0.0, profile);
        }
        if cycle > 0.0 {
            losses.push((s.mean_square(cycled, z), Weight::Fixed(cycle)));
        }
    }

    /// A discriminator's loss of logits that should say `label`.
    fn tell(&self, s: &mut Step, losses: &mut Losses, logits: Var, label: f32, weight: f32) {
        losses.push(if self.mean {
            (s.mean_sigmoid(logits), Weight::Fixed(weight * (1.0 - 2.0 * label)))
        } else {
            (s.logistic(logits, label), Weight::Fixed(weight))
        });
    }
}
