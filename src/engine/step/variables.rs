//! What a [`Var`] stands for: its size, its memory, the views of it that an operation takes, and its gradient.

use super::{Info, Step, Var};
use crate::device::{Device, Mem};

impl Step {
    /// `[rows, cols]`.
    pub fn dims(&self, v: Var) -> [usize; 2] {
        self.vars[v.0 as usize].dims
    }

    /// rows × cols.
    pub fn size(&self, v: Var) -> usize {
        let [r, c] = self.dims(v);
        r * c
    }

    /// A variable of this step without gradient; its content is undefined until written.
    pub fn alloc(&mut self, dims: [usize; 2]) -> Var {
        let mem = self.arena.alloc(&mut self.device, dims[0] * dims[1]);
        self.vars.push(Info { mem, dims, wants: false, grad: Var::NONE, grad_set: false });
        Var(self.vars.len() as u32 - 1)
    }

    /// A variable of this step that has no memory: a sparse one.
    pub(in crate::engine) fn without_memory(&mut self, dims: [usize; 2]) -> Var {
        self.vars.push(Info { mem: Mem::EMPTY, dims, wants: false, grad: Var::NONE, grad_set: false });
        Var(self.vars.len() as u32 - 1)
    }

    /// The same memory under other dimensions of equal size; carries no gradient of its own.
    #[track_caller]
    pub fn reshaped(&mut self, v: Var, dims: [usize; 2]) -> Var {
        let from = self.dims(v);
        assert_eq!(from[0] * from[1], dims[0] * dims[1], "reshaped: {from:?} into {dims:?}");
        let mem = self.mem(v);
        self.vars.push(Info { mem, dims, wants: false, grad: Var::NONE, grad_set: false });
        Var(self.vars.len() as u32 - 1)
    }

    /// `len` words of `v` from `start`, as a row of their own; carries no gradient.
    pub fn part(&mut self, v: Var, start: usize, len: usize) -> Var {
        let mem = self.mem(v).part(start, len);
        self.vars.push(Info { mem, dims: [1, len], wants: false, grad: Var::NONE, grad_set: false });
        Var(self.vars.len() as u32 - 1)
    }

    /// How many words after the start of `whole` the memory of its part `v` begins.
    #[track_caller]
    pub(in crate::engine) fn words_between(&self, whole: Var, v: Var) -> usize {
        let (whole, part) = (self.mem(whole), self.mem(v));
        let first = (part.addr.wrapping_sub(whole.addr) / 4) as usize;
        assert!(part.addr >= whole.addr && first + part.len() <= whole.len(), "a variable is no part of what it was said to be in");
        first
    }

    /// A variable of this step over memory that something else owns.
    pub(in crate::engine) fn view_of(&mut self, mem: Mem) -> Var {
        self.vars.push(Info { mem, dims: [1, mem.len()], wants: false, grad: Var::NONE, grad_set: false });
        Var(self.vars.len() as u32 - 1)
    }

    pub(in crate::engine) fn is_permanent(&self, v: Var) -> bool {
        (v.0 as usize) < self.permanent
    }

    /// Where `v` lies. A sparse variable lies nowhere: an operation that has not asked for [`Step::dense`] ends here.
    #[track_caller]
    pub(in crate::engine) fn mem(&self, v: Var) -> Mem {
        let mem = self.vars[v.0 as usize].mem;
        assert!(!mem.is_empty() || !self.is_sparse(v), "a sparse minibatch was given to an operation that takes none: Step::dense of it");
        mem
    }

    /// Whether a gradient of `v` is asked for.
    pub fn wants(&self, v: Var) -> bool {
        !v.is_none() && self.vars[v.0 as usize].wants
    }

    pub(in crate::engine) fn set_wants(&mut self, v: Var) {
        self.vars[v.0 as usize].wants = true;
    }

    pub(in crate::engine) fn recording(&self) -> bool {
        self.recording
    }

    /// The gradient that has arrived at `v`, if any.
    pub fn grad(&self, v: Var) -> Option<Var> {
        let info = &self.vars[v.0 as usize];
        info.grad_set.then_some(info.grad)
    }

    /// Where to put a contribution to the gradient of `v`, and whether to add to what is there (`true`) or overwrite.
    pub fn grad_slot(&mut self, v: Var) -> (Var, bool) {
        let info = self.vars[v.0 as usize];
        debug_assert!(info.wants, "grad_slot of a variable that wants no gradient");
        let grad = if info.grad.is_none() { self.alloc(info.dims) } else { info.grad };
        let info = &mut self.vars[v.0 as usize];
        info.grad = grad;
        (grad, std::mem::replace(&mut info.grad_set, true))
    }

    /// From here on the memory of `v` is that of its gradient, which an operation has put there: the values of `v` are gone.
    #[track_caller]
    pub(in crate::engine) fn gradient_in_place(&mut self, v: Var) {
        assert!(self.vars[v.0 as usize].grad.is_none(), "a gradient in place of values cannot be added to another one");
        let gradient = self.detached(v);
        self.vars[v.0 as usize].grad = gradient;
    }

    /// Slices of the operands on the CPU: `outs` to write, `ins` to read.
    pub fn views<const O: usize, const I: usize>(&mut self, outs: [Var; O], ins: [Var; I]) -> ([&mut [f32]; O], [&[f32]; I]) {
        let (outs, ins) = (outs.map(|v| self.mem(v)), ins.map(|v| self.mem(v)));
        match &mut self.device {
            Device::Cpu(c) => c.views(outs, ins),
            Device::Kernels(_) => panic!("views: the memory is not on the cpu"),
        }
    }
}
