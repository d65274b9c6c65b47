//! Optimisers: a group of parameters moves in one launch.
//!
//!   Adam (Kingma and Ba 2015)   m ← β₁ m + (1-β₁) g,  v ← β₂ v + (1-β₂) g²
//!                               θ ← θ - η m/(1-β₁ᵗ) / (√(v/(1-β₂ᵗ)) + ε) - η λ θ          (λ: decoupled weight decay)
//!                               with g + l₂ θ in place of g                                 (l₂: the classical one)
//!   Sgd, Nesterov's momentum    v ← μ v + g,  θ ← θ - η (g + μ v)                           with g + l₂ θ in place of g
//!   shapes    θ, g, m, v: the group's flat buffers
//!   kernels   adam, sgd_nesterov, square_parts, clip_scale, clamp_min                   (kernels/optim.cu)
//!
//! Two optimisers may move one group, each with moments of its own. ε is added to the root of the bias-corrected second moment, as in the paper and in PyTorch. Step sizes and bias corrections are
//! computed on the host in f64 and stand in the clock. Nothing moves in a step whose loss was not finite (see `ops::ledger`): the
//! parameters stay what they were before it.

use super::ops::ledger::Ledger;
use super::ops::reduce::sum_f64;
use super::ops::tables::{TableAdam, Untouched};
use super::params::Group;
use super::step::{Knob, Step, Var};
use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::error::Result;
use rayon::prelude::*;

/// Elements whose squares a thread of the processor adds up at once.
const PART: usize = 1 << 14;
/// Blocks that share a sum of squares on a GPU.
const BLOCKS: usize = 128;

impl Step {
    /// Shortens the group's whole gradient to `longest` if it is longer: g ← g · min(1, longest / (|g| + 10⁻⁶)), the norm in f64 in
    /// a fixed order (as PyTorch's `clip_grad_norm_`). Parameters that no gradient reached must have none left over from before.
    pub fn clip_gradients(&mut self, group: Group, longest: f32) {
        let Some((_, gradients)) = self.params().group(group) else { return };
        let g = self.view_of(gradients);
        let n = self.size(g);
        if self.on_cpu() {
            let parts = self.alloc([n.div_ceil(PART), 2]);
            let ([parts], [g_]) = self.views([parts], [g]);
            let parts: &mut [f64] = bytemuck::cast_slice_mut(parts);
            let share = |(part, g): (&mut f64, &[f32])| *part = sum_f64(g.iter().map(|&g| g as f64 * g as f64));
            parts.par_iter_mut().zip(g_.par_chunks(PART)).for_each(share);
            let scale = longest as f64 / (parts.iter().sum::<f64>().sqrt() + 1e-6);
            // Not `scale < 1`: a norm that is no number must be seen.
            if scale.partial_cmp(&1.0).is_none_or(|o| o.is_lt()) {
                let ([g], []) = self.views([g], []);
                cpu::chunks(g, |_, g| g.iter_mut().for_each(|g| *g = (*g as f64 * scale) as f32));
            }
        } else {
            let parts = self.alloc([BLOCKS, 2]);
            let args = [self.ptr(parts), self.ptr(g), n.into()];
            self.launch("square_parts", Grid::blocks(BLOCKS, 256), &args);
            let args = [self.ptr(g), self.ptr(parts), BLOCKS.into(), n.into(), longest.into()];
            self.launch("clip_scale", Grid::over(n), &args);
        }
    }

    /// Lifts what is below `least` to it, unless the ledger has stopped.
    pub fn clamp_min(&mut self, x: Var, least: f32, ledger: &Ledger) {
        if self.on_cpu() {
            if !ledger.stopped(self) {
                let ([x], []) = self.views([x], []);
                x.iter_mut().for_each(|x| *x = x.max(least));
            }
        } else {
            let args = [self.ptr(x), ledger.stop_ptr(self), self.size(x).into(), least.into()];
            self.launch("clamp_min", Grid::over(self.size(x)), &args);
        }
    }
}

/// Adam's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Learning rate η.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// λ, decoupled; 0 for none.
    pub weight_decay: f64,
    /// l₂, added to the gradient before the moments; 0 for none.
    pub l2: f64,
}

impl Default for AdamSettings {
    fn default() -> AdamSettings {
        AdamSettings { rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, l2: 0.0 }
    }
}

/// Adam over one group of parameters.
pub struct Adam {
    group: Group,
    settings: AdamSettings,
    values: Var,
    gradients: Var,
    m: Var,
    v: Var,
    /// η/(1-β₁ᵗ) and 1/√(1-β₂ᵗ), and η λ
    knobs: [Knob; 3],
    steps: u64,
}

impl Adam {
    /// For the group's parameters, all of which must have been made.
    pub fn new(s: &mut Step, group: Group, settings: AdamSettings) -> Result<Adam> {
        Adam::named(s, &format!("adam.{group}"), group, settings)
    }

    /// The same with a name for its moments, for groups that several optimisers move.
    pub fn named(s: &mut Step, name: &str, group: Group, settings: AdamSettings) -> Result<Adam> {
        s.seal()?;
        let (values, gradients) = s.params().group(group).unwrap_or((crate::device::Mem::EMPTY, crate::device::Mem::EMPTY));
        let dims = [1, values.len()];
        let m = s.state(format!("{name}.m"), dims, &[])?;
        let v = s.state(format!("{name}.v"), dims, &[])?;
        let (values, gradients) = (s.borrowed(values, dims), s.borrowed(gradients, dims));
        let knobs = [s.knob(0.0), s.knob(0.0), s.knob(0.0)];
        Ok(Adam { group, settings, values, gradients, m, v, knobs, steps: 0 })
    }

    /// Sets the step sizes of the `t`-th step (from 1) with the learning rate scaled by `factor`: call it before the step begins.
    pub fn set_step(&mut self, s: &mut Step, t: u64, factor: f64) {
        self.steps = t;
        let c = &self.settings;
        let rate = c.rate * factor;
        s.turn(self.knobs[0], (rate / (1.0 - c.beta1.powf(t as f64))) as f32);
        s.turn(self.knobs[1], (1.0 / (1.0 - c.beta2.powf(t as f64)).sqrt()) as f32);
        s.turn(self.knobs[2], (rate * c.weight_decay) as f32);
    }

    /// Moves the group by its gradients; parameters that no gradient reached are moved by their momentum alone, as zero gradients would.
    pub fn step(&mut self, s: &mut Step, ledger: &Ledger) {
        zero_untouched(s, self.group);
        let n = s.size(self.values);
        let c = &self.settings;
        // 1 - β is taken in f64: of f32's 0.999 it would be off by 5e-5.
        let [b1, b2, c1, c2, eps, l2] = [c.beta1, c.beta2, 1.0 - c.beta1, 1.0 - c.beta2, c.epsilon, c.l2].map(|v| v as f32);
        if s.on_cpu() {
            if ledger.stopped(s) {
                return;
            }
            let [rate, root, decay] = self.knobs.map(|k| s.value(k));
            let ([theta, m, v], [g]) = s.views([self.values, self.m, self.v], [self.gradients]);
            cpu::chunks3(theta, m, v, |start, theta, m, v| {
                let g = &g[start..start + theta.len()];
                vectorised(
                    #[inline(always)]
                    || {
                        for (((theta, m), v), &g) in theta.iter_mut().zip(m).zip(v).zip(g) {
                            let g = g + l2 * *theta;
                            *m = b1 * *m + c1 * g;
                            *v = b2 * *v + c2 * (g * g);
                            *theta -= rate * *m / (v.sqrt() * root + eps) + decay * *theta;
                        }
                    },
                );
            });
        } else {
            let [rate, root, decay] = self.knobs.map(|k| s.knob_index(k));
            let args = [
                s.ptr(self.values),
                s.ptr(self.m),
                s.ptr(self.v),
                s.ptr(self.gradients),
                s.clock_ptr(),
                ledger.stop_ptr(s),
                n.into(),
                rate,
                root,
                decay,
                b1.into(),
                b2.into(),
                c1.into(),
                c2.into(),
                eps.into(),
                l2.into(),
            ];
            s.launch("adam", Grid::over(n), &args);
        }
    }

    /// The group of parameters that it moves.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

/// An optimiser's kind and settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Adam.
    Adam(AdamSettings),
    /// Stochastic gradient descent with Nesterov's momentum.
    Sgd(SgdSettings),
    /// Adam over the group's latent tables.
    Tables(AdamSettings, Untouched),
}

impl From<AdamSettings> for Rule {
    fn from(settings: AdamSettings) -> Rule {
        Rule::Adam(settings)
    }
}

impl From<SgdSettings> for Rule {
    fn from(settings: SgdSettings) -> Rule {
        Rule::Sgd(settings)
    }
}

/// An optimiser of any kind.
pub enum Optimiser {
    /// Adam.
    Adam(Adam),
    /// Stochastic gradient descent with Nesterov's momentum.
    Sgd(Sgd),
    /// Adam over latent tables.
    Tables(TableAdam),
}

/// What the names of all optimisers' states begin with: they belong to a checkpoint, not to a model.
pub const STATES: [&str; 2] = ["adam.", "sgd."];

impl Optimiser {
    /// For the group's parameters, all of which must have been made. Its states are called after `name`.
    pub fn new(s: &mut Step, name: &str, group: Group, rule: Rule) -> Result<Optimiser> {
        Ok(match rule {
            Rule::Adam(settings) => Optimiser::Adam(Adam::named(s, &format!("adam.{name}"), group, settings)?),
            Rule::Sgd(settings) => Optimiser::Sgd(Sgd::new(s, name, group, settings)?),
            Rule::Tables(settings, untouched) => Optimiser::Tables(TableAdam::new(s, group, settings, untouched)?),
        })
    }

    /// Sets the `t`-th step (from 1), with the learning rate scaled by `factor`: call it before the step begins.
    pub fn set_step(&mut self, s: &mut Step, t: u64, factor: f64) {
        match self {
            Optimiser::Adam(o) => o.set_step(s, t, factor),
            Optimiser::Sgd(o) => o.set_step(s, factor),
            // They count their steps themselves.
            Optimiser::Tables(_) => {}
        }
    }

    /// Moves the group by its gradients.
    pub fn step(&mut self, s: &mut Step, ledger: &Ledger) {
        match self {
            Optimiser::Adam(o) => o.step(s, ledger),
            Optimiser::Sgd(o) => o.step(s, ledger),
            Optimiser::Tables(o) => o.step(s, ledger),
        }
    }

    /// The group of parameters that it moves.
    pub fn group(&self) -> Group {
        match self {
            Optimiser::Adam(o) => o.group(),
            Optimiser::Sgd(o) => o.group(),
            Optimiser::Tables(o) => o.group(),
        }
    }
}

/// Zero gradients for the group's parameters that none has reached.
fn zero_untouched(s: &mut Step, group: Group) {
    // Not in a usual step: every parameter has its gradient then, and nothing is allocated.
    if s.params().in_group(group).any(|v| s.grad(v).is_none()) {
        let untouched: Vec<Var> = s.params().in_group(group).filter(|&v| s.grad(v).is_none()).collect();
        for v in untouched {
            let (g, _) = s.grad_slot(v);
            s.zero(g);
        }
    }
}

/// Settings of stochastic gradient descent with Nesterov's momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdSettings {
    /// Learning rate η.
    pub rate: f64,
    /// μ.
    pub momentum: f64,
    /// l₂, added to the gradient; 0 for none.
    pub l2: f64,
}

/// Stochastic gradient descent with Nesterov's momentum over one group of parameters.
pub struct Sgd {
    group: Group,
    settings: SgdSettings,
    values: Var,
    gradients: Var,
    v: Var,
    /// η
    rate: Knob,
}

impl Sgd {
    /// For the group's parameters, all of which must have been made. The velocity is the state `sgd.NAME.v`.
    pub fn new(s: &mut Step, name: &str, group: Group, settings: SgdSettings) -> Result<Sgd> {
        s.seal()?;
        let (values, gradients) = s.params().group(group).unwrap_or((crate::device::Mem::EMPTY, crate::device::Mem::EMPTY));
        let dims = [1, values.len()];
        let v = s.state(format!("sgd.{name}.v"), dims, &[])?;
        let (values, gradients) = (s.borrowed(values, dims), s.borrowed(gradients, dims));
        Ok(Sgd { group, settings, values, gradients, v, rate: s.knob(0.0) })
    }

    /// Sets the learning rate of the next step, scaled by `factor`: call it before the step begins.
    pub fn set_step(&mut self, s: &mut Step, factor: f64) {
        s.turn(self.rate, (self.settings.rate * factor) as f32);
    }

    /// Moves the group by its gradients; parameters that no gradient reached are moved as zero gradients would.
    pub fn step(&mut self, s: &mut Step, ledger: &Ledger) {
        zero_untouched(s, self.group);
        let n = s.size(self.values);
        let [momentum, l2] = [self.settings.momentum, self.settings.l2].map(|v| v as f32);
        if s.on_cpu() {
            if ledger.stopped(s) {
                return;
            }
            let rate = s.value(self.rate);
            let ([theta, v], [g]) = s.views([self.values, self.v], [self.gradients]);
            cpu::chunks2(theta, v, |start, theta, v| {
                let g = &g[start..start + theta.len()];
                vectorised(
                    #[inline(always)]
                    || {
                        for ((theta, v), &g) in theta.iter_mut().zip(v).zip(g) {
                            let g = g + l2 * *theta;
                            *v = momentum * *v + g;
                            *theta -= rate * (g + momentum * *v);
                        }
                    },
                );
            });
        } else {
            let rate = s.knob_index(self.rate);
            let [values, v, gradients] = [self.values, self.v, self.gradients].map(|v| s.ptr(v));
            let args = [values, v, gradients, s.clock_ptr(), ledger.stop_ptr(s), n.into(), rate, momentum.into(), l2.into()];
            s.launch("sgd_nesterov", Grid::over(n), &args);
        }
    }

    /// The group of parameters that it moves.
    pub fn group(&self) -> Group {
        self.group
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::testing::*;
    use super::*;
    use crate::engine::Weight;

    /// Three steps in f64 on the mean square distance from 1.
    fn follow(mut step: impl FnMut(usize, f64, f64) -> f64) -> Vec<f64> {
        let mut theta = [0.5, -2.0, 3.0];
        for _ in 0..3 {
            theta.iter_mut().enumerate().for_each(|(i, p)| *p -= step(i, *p, 2.0 * (*p - 1.0) / 3.0));
        }
        theta.to_vec()
    }

    #[test]
    fn nesterovs_momentum_follows_its_formula_and_two_optimisers_of_a_group_keep_their_own() {
        let c = SgdSettings { rate: 0.1, momentum: 0.9, l2: 0.01 };
        let mut v = [0.0; 3];
        let expected = follow(|i, p, g| {
            let g = g + c.l2 * p;
            v[i] = c.momentum * v[i] + g;
            0.5 * c.rate * (g + c.momentum * v[i])
        });
        for (device, mut s) in steps() {
            let p = s.parameter("p", 0, [1, 3], vec![0.5, -2.0, 3.0]);
            let mut one = Sgd::new(&mut s, "one.0", 0, c).unwrap();
            let mut other = Sgd::new(&mut s, "other.0", 0, c).unwrap();
            let ledger = Ledger::new(&mut s, 1).unwrap();
            for t in 1..=3 {
                one.set_step(&mut s, 0.5);
                other.set_step(&mut s, 0.0);
                s.begin(true, t, 0).unwrap();
                let l = s.square_from(p, 1.0);
                ledger.add(&mut s, &[l]);
                s.backward(&[(l, Weight::Fixed(1.0))]);
                one.step(&mut s, &ledger);
                other.step(&mut s, &ledger);
            }
            compare(device, &s.download(p).unwrap(), &expected, 1e-6);
            let states: Vec<String> = s.params().states().map(|(n, _, _)| n.to_string()).collect();
            assert_eq!(states, ["sgd.one.0.v", "sgd.other.0.v"], "{device}");
        }
    }

    #[test]
    fn nothing_moves_once_a_loss_was_not_finite() {
        for (device, mut s) in steps() {
            let p = s.parameter("p", 0, [1, 2], vec![1.0, 2.0]);
            let mut sgd = Sgd::new(&mut s, "0", 0, SgdSettings { rate: 0.1, momentum: 0.9, l2: 0.0 }).unwrap();
            let ledger = Ledger::new(&mut s, 1).unwrap();
            sgd.set_step(&mut s, 1.0);
            s.begin(true, 1, 0).unwrap();
            let l = s.square_from(p, f32::NAN);
            ledger.add(&mut s, &[l]);
            s.backward(&[(l, Weight::Fixed(1.0))]);
            sgd.step(&mut s, &ledger);
            assert_eq!(s.download(p).unwrap(), [1.0, 2.0], "{device}");
        }
    }
}
