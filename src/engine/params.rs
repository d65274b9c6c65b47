//! Named parameters and states.
//!
//! The parameters of a group lie side by side in one buffer, their gradients in another of the same layout, so that an
//! optimiser moves the whole group in one launch. A *state* is saved with the parameters but moved by no gradient: running
//! statistics, warm starts.

use super::rng;
use super::step::{Info, Step, Var};
use crate::device::{Device, Mem};
use crate::error::{Error, Result};

/// A name, dimensions and values: what checkpoints are made of.
pub type NamedTensor = (String, [usize; 2], Vec<f32>);

/// Which optimiser moves a parameter.
pub type Group = usize;

/// Parameters begin at multiples of this many words, so that vector loads are aligned.
const ALIGN: usize = 32;

struct Parameter {
    name: String,
    group: Group,
    var: Var,
    dims: [usize; 2],
    initial: Vec<f32>,
    offset: usize,
}

/// The parameters and states of a [`Step`].
#[derive(Default)]
pub struct Params {
    parameters: Vec<Parameter>,
    states: Vec<(String, Var, [usize; 2])>,
    gradient_vars: Vec<Var>,
    values: Option<Mem>,
    gradients: Option<Mem>,
    /// Word ranges of the groups in the two buffers.
    groups: Vec<(usize, usize)>,
}

impl Params {
    pub(super) fn add(&mut self, name: String, group: Group, var: Var, dims: [usize; 2], initial: Vec<f32>) {
        assert!(self.values.is_none(), "parameter {name:?} comes after the first step");
        assert_eq!(initial.len(), dims[0] * dims[1], "parameter {name:?}: {} values for {dims:?}", initial.len());
        assert!(self.parameters.iter().all(|p| p.name != name), "two parameters are called {name:?}");
        self.parameters.push(Parameter { name, group, var, dims, initial, offset: 0 });
    }

    pub(super) fn add_state(&mut self, name: String, var: Var, dims: [usize; 2]) {
        let taken = self.states.iter().any(|s| s.0 == name) || self.parameters.iter().any(|p| p.name == name);
        assert!(!taken, "two states are called {name:?}");
        self.states.push((name, var, dims));
    }

    /// Gives the parameters their memory; once, before the first step.
    pub(super) fn seal(&mut self, device: &mut Device, vars: &mut Vec<Info>) -> Result<()> {
        if self.values.is_some() || self.parameters.is_empty() {
            return Ok(());
        }
        let groups = self.parameters.iter().map(|p| p.group + 1).max().unwrap_or(0);
        self.groups.clear();
        let mut offset = 0;
        for g in 0..groups {
            let start = offset;
            for p in self.parameters.iter_mut().filter(|p| p.group == g) {
                p.offset = offset;
                offset += (p.dims[0] * p.dims[1]).next_multiple_of(ALIGN);
            }
            self.groups.push((start, offset - start));
        }
        let values = device.alloc(offset)?;
        let gradients = device.alloc(offset).inspect_err(|_| device.free(values))?;
        for p in &mut self.parameters {
            let n = p.dims[0] * p.dims[1];
            device.upload(values.part(p.offset, n), &p.initial)?;
            p.initial = Vec::new();
            vars[p.var.0 as usize].mem = values.part(p.offset, n);
            vars[p.var.0 as usize].grad = Var(vars.len() as u32);
            vars.push(Info { mem: gradients.part(p.offset, n), dims: p.dims, wants: false, grad: Var::NONE, grad_set: false });
            self.gradient_vars.push(Var(vars.len() as u32 - 1));
        }
        (self.values, self.gradients) = (Some(values), Some(gradients));
        Ok(())
    }

    /// Variables whose memory is a part of the two buffers.
    pub(super) fn owned(&self) -> Vec<Var> {
        self.parameters.iter().map(|p| p.var).chain(self.gradient_vars.iter().copied()).collect()
    }

    pub(super) fn free(&mut self, device: &mut Device) {
        for mem in [self.values.take(), self.gradients.take()].into_iter().flatten() {
            device.free(mem);
        }
    }

    /// Names, variables and dimensions of the parameters, in the order they were made.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Var, [usize; 2])> {
        self.parameters.iter().map(|p| (p.name.as_str(), p.var, p.dims))
    }

    /// How many numbers a group's parameters are.
    pub fn group_size(&self, group: Group) -> usize {
        self.parameters.iter().filter(|p| p.group == group).map(|p| p.dims[0] * p.dims[1]).sum()
    }

    /// The group and the variable of every parameter.
    pub(super) fn groups(&self) -> impl Iterator<Item = (Group, Var)> {
        self.parameters.iter().map(|p| (p.group, p.var))
    }

    /// Names, variables and dimensions of the states.
    pub fn states(&self) -> impl Iterator<Item = (&str, Var, [usize; 2])> {
        self.states.iter().map(|(n, v, d)| (n.as_str(), *v, *d))
    }

    /// How many numbers the parameters hold.
    pub fn count(&self) -> usize {
        self.parameters.iter().map(|p| p.dims[0] * p.dims[1]).sum()
    }

    /// The group's parts of the value and gradient buffers, and the group's parameters. `None` before the first step or for an empty group.
    pub(super) fn group(&self, group: Group) -> Option<(Mem, Mem)> {
        let &(start, len) = self.groups.get(group)?;
        Some((self.values?.part(start, len), self.gradients?.part(start, len)))
    }

    pub(super) fn in_group(&self, group: Group) -> impl Iterator<Item = Var> + '_ {
        self.parameters.iter().filter(move |p| p.group == group).map(|p| p.var)
    }
}

impl Step {
    /// Every parameter and state by name, with its dimensions: what a checkpoint holds. [`Step::download`] has the values.
    pub fn tensors(&mut self) -> Result<Vec<(String, Var, [usize; 2])>> {
        self.seal()?;
        Ok(self.params.parameters().chain(self.params.states()).map(|(n, v, d)| (n.to_string(), v, d)).collect())
    }

    /// The same with the values, all at once.
    pub fn snapshot(&mut self) -> Result<Vec<NamedTensor>> {
        self.tensors()?.into_iter().map(|(n, v, d)| Ok((n, d, self.download(v)?))).collect()
    }

    /// Gives parameters and states the values of a snapshot; every one must be there, with its dimensions.
    pub fn restore<'a>(&mut self, find: impl Fn(&str) -> Option<([usize; 2], &'a [f32])>) -> Result<()> {
        for (name, var, dims) in self.tensors()? {
            match find(&name) {
                Some((d, values)) if d == dims && values.len() == dims[0] * dims[1] => self.upload(var, values)?,
                Some((d, _)) => {
                    return Err(Error::usage(format!(
                        "weight {name:?} is {d:?} in the file and {dims:?} in the model: it belongs to another model or another data set"
                    )));
                }
                None => return Err(Error::usage(format!("weight {name:?} is missing from the file: it belongs to another model"))),
            }
        }
        Ok(())
    }

    /// Gives the parameters their memory, as the first [`Step::begin`] does.
    pub fn seal(&mut self) -> Result<()> {
        self.end();
        let (params, device, vars) = self.parts();
        let before = vars.len();
        params.seal(device, vars)?;
        let grown = vars.len() - before;
        self.note_permanent(grown);
        Ok(())
    }
}

/// Initial values, from (seed, name of the parameter): the same whatever is built before or beside it.
pub mod init {
    use super::rng;

    /// Uniform on ±√(6 / (fan in + fan out)) (Glorot and Bengio 2010, eq. 16).
    pub fn glorot_uniform(seed: u64, name: &str, [out, inputs]: [usize; 2]) -> Vec<f32> {
        uniform(seed, name, out * inputs, (6.0 / (out + inputs) as f32).sqrt())
    }

    /// Uniform on ±1/√(fan in).
    pub fn fan_in_uniform(seed: u64, name: &str, count: usize, fan_in: usize) -> Vec<f32> {
        uniform(seed, name, count, 1.0 / (fan_in.max(1) as f32).sqrt())
    }

    /// Uniform on ±bound.
    pub fn uniform(seed: u64, name: &str, count: usize, bound: f32) -> Vec<f32> {
        let mut values = vec![0.0; count];
        rng::fill_uniform(&mut values, seed, stream_of(name), 0, 0);
        values.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * bound);
        values
    }

    /// Normal with mean 0.
    pub fn normal(seed: u64, name: &str, count: usize, deviation: f32) -> Vec<f32> {
        let mut values = vec![0.0; count];
        rng::fill_normal(&mut values, seed, stream_of(name), 0, 0);
        values.iter_mut().for_each(|v| *v *= deviation);
        values
    }

    /// A stream of random numbers for a name: FNV-1a with the top bit set: apart from the numbered streams.
    pub fn stream_of(name: &str) -> u32 {
        name.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ b as u32).wrapping_mul(0x0100_0193)) | 0x8000_0000
    }
}
