//! The tape: a list of plain records, played backwards.
//!
//! Pushing order is a topological order, so the backward pass is one loop in reverse. A record holds numbers only:
//! a warm step allocates nothing, a step can be captured and replayed, and a record can be printed, so a NaN report names
//! the operation.

use super::step::{Knob, Step, Var};
use crate::device::launch::{Arg, Grid};

/// An operation: its name, and how it passes a gradient on.
pub struct Op {
    /// As it appears in a NaN report.
    pub name: &'static str,
    /// Adds this record's contributions to the gradients of its inputs. The gradient of `node.y` has arrived.
    pub backward: fn(&mut Step, &Node),
}

/// One record of the tape.
#[derive(Clone, Copy)]
pub struct Node {
    /// Which operation.
    pub op: &'static Op,
    /// Its inputs, and whatever else backward needs; unused slots are [`Var::NONE`].
    pub x: [Var; 8],
    /// Its output.
    pub y: Var,
    /// Numbers that backward needs.
    pub k: [f32; 4],
    /// Sizes and choices that backward needs.
    pub n: [u32; 4],
}

/// How much a term of the loss counts.
#[derive(Clone, Copy, Debug)]
pub enum Weight {
    /// The same in every step.
    Fixed(f32),
    /// Read from the clock in every step: annealing.
    Knob(Knob),
}

impl Step {
    /// Records that `y` was made from `x`, so that `y` carries a gradient; nothing is recorded if no input wants one.
    /// Call it on every output, in the order of making.
    pub fn record<const N: usize>(&mut self, op: &'static Op, x: [Var; N], y: Var, k: [f32; 4], n: [u32; 4]) {
        if !self.recording() || !x.iter().any(|&v| self.wants(v)) {
            return;
        }
        assert!(!self.is_permanent(y), "{}: an operation's output is a variable of its step", op.name);
        let mut inputs = [Var::NONE; 8];
        inputs[..N].copy_from_slice(&x);
        self.set_wants(y);
        self.tape.push(Node { op, x: inputs, y, k, n });
    }

    /// Gradients of `Σ weight · term` for every variable that wants one; each term is `[1, 1]`. Once a tape: a second call would
    /// pass the first one's gradients on again. [`Step::forget_gradients`] starts anew.
    pub fn backward(&mut self, terms: &[(Var, Weight)]) {
        for &(term, weight) in terms {
            if self.wants(term) {
                assert_eq!(self.dims(term), [1, 1], "backward: a loss term is a scalar");
                self.seed_gradient(term, weight);
            }
        }
        self.run_tape();
    }

    /// The backward pass from `y` with the upstream gradient `dy`, of the same size; for tests and for programs with a loss of their own.
    pub fn backward_from(&mut self, y: Var, dy: Var) {
        if self.wants(y) {
            let (slot, _) = self.grad_slot(y);
            self.copy(slot, dy);
        }
        self.run_tape();
    }

    fn run_tape(&mut self) {
        for i in (0..self.tape.len()).rev() {
            let node = self.tape[i];
            if self.grad(node.y).is_some() {
                (node.op.backward)(self, &node);
            }
        }
    }

    /// grad(term) (+)= weight
    fn seed_gradient(&mut self, term: Var, weight: Weight) {
        let (slot, add) = self.grad_slot(term);
        if self.on_cpu() {
            let w = match weight {
                Weight::Fixed(w) => w,
                Weight::Knob(k) => self.value(k),
            };
            let ([g], []) = self.views([slot], []);
            g[0] = if add { g[0] + w } else { w };
        } else {
            let (fixed, index) = match weight {
                Weight::Fixed(w) => (w, Arg::I32(-1)),
                Weight::Knob(k) => (0.0, self.knob_index(k)),
            };
            let args = [self.ptr(slot), self.clock_ptr(), index, fixed.into(), add.into()];
            self.launch("seed_gradient", Grid::blocks(1, 1), &args);
        }
    }

    /// The first operation of this step's tape whose output holds a value that is not finite, by name: what a NaN report says.
    pub fn first_not_finite(&mut self) -> Option<&'static str> {
        for i in 0..self.tape.len() {
            let node = self.tape[i];
            if self.download(node.y).is_ok_and(|y| y.iter().any(|v| !v.is_finite())) {
                return Some(node.op.name);
            }
        }
        None
    }
}
