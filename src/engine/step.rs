//! The engine's one mutable value: a device, its arena, the variables and the tape of the step under way.
//!
//! A [`Var`] is a number; what it stands for is a row-major f32 matrix `[rows, cols]` in device memory. Parameters,
//! states and resident data are made once and outlive steps; everything else comes out of an arena that
//! [`Step::begin`] resets, so a warm step allocates nothing and sees the same addresses each time. That is what makes
//! a step capturable: what changes between steps (the step number, learning rates, annealed weights, the position in
//! the epoch) stands in the *clock*, a few words of device memory that [`Step::begin`] writes.

mod variables;

use super::arena::Arena;
use super::ops::tables::Tables;
use super::params::{Group, Params};
use super::sparse::Sparse;
use super::tape::Node;
use crate::device::launch::{Arg, GraphId, Grid};
use crate::device::{Device, Mem};
use crate::error::{Error, Result};

/// A variable of the step, or of the program if it is a parameter, a state or resident data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Var(pub(super) u32);

impl Var {
    /// No variable: an empty slot among an operation's inputs.
    pub const NONE: Var = Var(u32::MAX);

    /// Whether this is [`Var::NONE`].
    pub fn is_none(self) -> bool {
        self == Var::NONE
    }
}

#[derive(Clone, Copy)]
pub(super) struct Info {
    pub mem: Mem,
    pub dims: [usize; 2],
    pub wants: bool,
    /// Where the gradient goes; for a parameter fixed, else given on first use.
    pub grad: Var,
    /// Whether the gradient holds something in this step.
    pub grad_set: bool,
}

/// Which matrix product is used: storage is f32 always, and so is accumulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32 on the ordinary cores.
    #[default]
    F32,
    /// tf32 on tensor cores: 10 bits of fraction.
    Tf32,
    /// bf16 on tensor cores: 7 bits of fraction.
    Bf16,
}

/// A word of the clock: a number that may differ from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knob(usize);

const CLOCK_WORDS: usize = 64;
/// The step number (u32), from 1.
const STEP: usize = 0;
/// The first row of this step's minibatch within the epoch's order (u32).
const START: usize = 1;
/// The words from here on are knobs.
const FIRST_KNOB: usize = 2;

/// Device, arena, tape.
pub struct Step {
    pub(super) device: Device,
    pub(super) arena: Arena,
    pub(super) vars: Vec<Info>,
    permanent: usize,
    pub(super) tape: Vec<Node>,
    /// Records before this one outlive [`Step::forget_gradients`].
    tape_kept: usize,
    pub(super) params: Params,
    pub(super) tables: Tables,
    pub(super) training: bool,
    recording: bool,
    pub(super) precision: Precision,
    seed: u64,
    clock: Mem,
    /// The clock of the step under way, and of the next.
    clock_host: [u32; CLOCK_WORDS],
    clock_next: [u32; CLOCK_WORDS],
    knobs: usize,
    pub(super) capturing: bool,
    borrowed: Vec<Var>,
    /// The sparse variables of this step.
    pub(super) sparse: Vec<Sparse>,
    pub(super) streams: u32,
}

impl Step {
    /// An engine on `device`; all random numbers derive from `seed`.
    pub fn new(mut device: Device, seed: u64, precision: Precision) -> Result<Step> {
        if precision != Precision::F32 {
            match &device {
                Device::Cpu(_) => return Err(Error::usage("--precision tf32 and bf16 are for tensor cores: the cpu computes in f32")),
                Device::Kernels(k) if !k.0.has_tensor_cores() => {
                    return Err(Error::usage(format!(
                        "--precision tf32 and bf16 need compute capability 8.0 or newer, this is {}",
                        k.0.describe()
                    )));
                }
                Device::Kernels(_) => {}
            }
        }
        let clock = device.alloc(CLOCK_WORDS)?;
        Ok(Step {
            device,
            arena: Arena::default(),
            vars: Vec::new(),
            permanent: 0,
            tape: Vec::new(),
            tape_kept: 0,
            params: Params::default(),
            tables: Tables::default(),
            training: false,
            recording: false,
            precision,
            seed,
            clock,
            clock_host: [0; CLOCK_WORDS],
            clock_next: [0; CLOCK_WORDS],
            knobs: FIRST_KNOB,
            capturing: false,
            borrowed: Vec::new(),
            sparse: Vec::new(),
            streams: 0,
        })
    }

    // ---- building: what outlives steps ------------------------------------------------------------

    /// A persistent matrix of zeros that is not a parameter and not saved: resident data, staging, accumulators.
    pub fn resident(&mut self, dims: [usize; 2]) -> Result<Var> {
        self.assert_between_steps("resident");
        let mem = self.device.alloc(dims[0] * dims[1])?;
        Ok(self.push_permanent(mem, dims))
    }

    pub(super) fn push_permanent(&mut self, mem: Mem, dims: [usize; 2]) -> Var {
        self.assert_between_steps("a permanent variable");
        self.vars.push(Info { mem, dims, wants: false, grad: Var::NONE, grad_set: false });
        self.permanent = self.vars.len();
        Var(self.vars.len() as u32 - 1)
    }

    pub(super) fn parts(&mut self) -> (&mut Params, &mut Device, &mut Vec<Info>) {
        (&mut self.params, &mut self.device, &mut self.vars)
    }

    pub(super) fn note_permanent(&mut self, grown: usize) {
        self.permanent += grown;
    }

    /// A permanent variable over memory that something else owns and frees.
    pub(super) fn borrowed(&mut self, mem: Mem, dims: [usize; 2]) -> Var {
        let v = self.push_permanent(mem, dims);
        self.borrowed.push(v);
        v
    }

    fn assert_between_steps(&self, what: &str) {
        assert_eq!(self.vars.len(), self.permanent, "{what} is made before the first step or after Step::end");
    }

    /// A new word of the clock, with its first value.
    pub fn knob(&mut self, value: f32) -> Knob {
        assert!(self.knobs < CLOCK_WORDS, "the clock has {CLOCK_WORDS} words");
        self.knobs += 1;
        self.clock_host[self.knobs - 1] = value.to_bits();
        self.clock_next[self.knobs - 1] = value.to_bits();
        Knob(self.knobs - 1)
    }

    /// Sets a word of the clock from the next [`Step::begin`] or [`Step::write_clock`] on.
    pub fn turn(&mut self, knob: Knob, value: f32) {
        self.clock_next[knob.0] = value.to_bits();
    }

    /// A new stream of random numbers: calls in the same order give the same streams.
    pub fn stream(&mut self) -> u32 {
        self.streams += 1;
        self.streams - 1
    }

    // ---- a step -----------------------------------------------------------------------------------

    /// Starts a step: forgets the variables of the last one, sets the step number (from 1) and the minibatch's first
    /// row in the epoch's order. With `training`, dropout and noise are on, batch norm uses the minibatch's statistics and
    /// operations are recorded for [`Step::backward`].
    pub fn begin(&mut self, training: bool, step: u64, start: usize) -> Result<()> {
        self.arena.check()?;
        self.seal()?;
        self.training = training;
        self.recording = training;
        self.write_clock(step, start)
    }

    /// Only writes the clock: what a captured step needs before it is replayed.
    pub fn write_clock(&mut self, step: u64, start: usize) -> Result<()> {
        self.clock_next[STEP] = step as u32;
        self.clock_next[START] = start as u32;
        let n = self.knobs;
        self.clock_host[..n].copy_from_slice(&self.clock_next[..n]);
        self.device.upload(self.clock, &self.clock_host[..n])
    }

    /// Ends the step: its variables are forgotten. New permanent variables may be made after this.
    pub fn end(&mut self) {
        assert!(!self.capturing, "a step cannot end while it is being captured");
        self.vars.truncate(self.permanent);
        self.sparse.clear();
        self.tape.clear();
        self.tape_kept = 0;
        self.tables.forget();
        self.arena.reset();
        for v in &mut self.vars {
            v.grad_set = false;
        }
    }

    /// Keeps what is on the tape through every [`Step::forget_gradients`] of this step: what several phases start from.
    pub fn keep_tape(&mut self) {
        self.tape_kept = self.tape.len();
    }

    /// From here on gradients are computed for the parameters of which `moves` says so of their group. The others pass gradients on.
    pub fn train_only(&mut self, moves: impl Fn(Group) -> bool) {
        for (of, v) in self.params.groups() {
            self.vars[v.0 as usize].wants = moves(of);
        }
        self.tables.train_only(moves);
    }

    /// Runs `f` as in evaluation: nothing is dropped or drawn, batch norm takes its running statistics and leaves them as they are.
    /// Gradients flow as they would outside.
    pub fn evaluating<T>(&mut self, f: impl FnOnce(&mut Step) -> T) -> T {
        let was = std::mem::replace(&mut self.training, false);
        let t = f(self);
        self.training = was;
        t
    }

    /// Forgets the tape and the gradients, between the phases of a step: what a later phase computes starts from no gradient.
    pub fn forget_gradients(&mut self) {
        self.tape.truncate(self.tape_kept);
        self.tables.forget();
        for v in &mut self.vars {
            v.grad_set = false;
        }
    }

    /// Runs `f` without recording: its results carry no gradient.
    pub fn without_gradient<T>(&mut self, f: impl FnOnce(&mut Step) -> T) -> T {
        let was = std::mem::replace(&mut self.recording, false);
        let t = f(self);
        self.recording = was;
        t
    }

    /// Whether this is a training step.
    pub fn training(&self) -> bool {
        self.training
    }

    /// Records what `f` launches and runs nothing; see [`Step::replay`]. Only devices that launch kernels can do it.
    pub fn capture(&mut self, f: impl FnOnce(&mut Step)) -> Result<Option<GraphId>> {
        match &mut self.device {
            Device::Cpu(_) => return Ok(None),
            Device::Kernels(k) => k.0.begin_capture()?,
        }
        let chunks = self.arena.chunks.len();
        self.capturing = true;
        f(self);
        self.capturing = false;
        assert_eq!(chunks, self.arena.chunks.len(), "a captured step allocated memory: capture after a warm-up step");
        match &mut self.device {
            Device::Cpu(_) => unreachable!("returned above"),
            Device::Kernels(k) => k.0.end_capture().map(Some),
        }
    }

    /// Runs a captured step again; call [`Step::write_clock`] before.
    pub fn replay(&mut self, graph: GraphId) {
        if let Device::Kernels(k) = &mut self.device {
            k.0.replay(graph);
        }
    }

    /// Whether the arms in Rust compute (else the kernels do).
    pub fn on_cpu(&self) -> bool {
        matches!(self.device, Device::Cpu(_))
    }

    /// Queues a kernel. `args` are in the kernel's order: outputs, inputs, sizes, scalars.
    pub(crate) fn launch(&mut self, kernel: &'static str, grid: Grid, args: &[Arg]) {
        match &mut self.device {
            Device::Kernels(_) if self.arena.failed.is_some() => {}
            Device::Kernels(k) => k.0.launch(kernel, grid, args),
            Device::Cpu(_) => panic!("launch {kernel}: the cpu has no kernels"),
        }
    }

    /// The address of `v` as a kernel argument; a null pointer for [`Var::NONE`] and for what is empty.
    pub(crate) fn ptr(&self, v: Var) -> Arg {
        Arg::Ptr(if v.is_none() || self.mem(v).is_empty() { 0 } else { self.mem(v).addr })
    }

    /// The `CUdeviceptr` of `v` on a GPU, for a program that works on the same memory by other means (with the feature `cuda`,
    /// `device::Cuda` shares a context); valid for as long as `v` is. On the other devices a host address, and none for [`Var::NONE`].
    pub fn device_pointer(&self, v: Var) -> Option<u64> {
        (!v.is_none()).then(|| self.mem(v).addr)
    }

    /// The address of the clock as a kernel argument.
    pub(crate) fn clock_ptr(&self) -> Arg {
        Arg::Ptr(self.clock.addr)
    }

    /// The step number of the clock.
    pub fn step_number(&self) -> u32 {
        self.clock_host[STEP]
    }

    /// The first row of this minibatch in the epoch's order.
    pub fn start(&self) -> usize {
        self.clock_host[START] as usize
    }

    /// A clock word's value in this step.
    pub fn value(&self, knob: Knob) -> f32 {
        f32::from_bits(self.clock_host[knob.0])
    }

    /// A word of the clock in this step, by its place.
    pub(crate) fn word(&self, place: usize) -> f32 {
        f32::from_bits(self.clock_host[place])
    }

    /// A clock word's place, as a kernel argument (an index into the clock).
    pub(crate) fn knob_index(&self, knob: Knob) -> Arg {
        Arg::I32(knob.0 as i32)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The seed's two halves, as kernel arguments.
    pub(crate) fn seed_args(&self) -> [Arg; 2] {
        [Arg::U32(self.seed as u32), Arg::U32((self.seed >> 32) as u32)]
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// A parameter: gradients are computed for it. `group` says which optimiser moves it (0 is the first).
    pub fn parameter(&mut self, name: impl Into<String>, group: Group, dims: [usize; 2], values: Vec<f32>) -> Var {
        let v = self.push_permanent(Mem::EMPTY, dims);
        self.set_wants(v);
        self.params.add(name.into(), group, v, dims, values);
        v
    }

    /// A state: saved and restored with the parameters, but no gradient moves it (running statistics, warm starts).
    pub fn state(&mut self, name: impl Into<String>, dims: [usize; 2], values: &[f32]) -> Result<Var> {
        let v = self.resident(dims)?;
        self.upload(v, values)?;
        self.params.add_state(name.into(), v, dims);
        Ok(v)
    }

    /// Bytes of device memory in use and their peak.
    pub fn memory(&self) -> (usize, usize) {
        self.device.memory()
    }
}

impl Step {
    /// Ends this engine and gives its device back, empty.
    pub fn into_device(mut self) -> Device {
        self.free_everything();
        std::mem::replace(&mut self.device, Device::cpu())
    }

    fn free_everything(&mut self) {
        let _ = self.device.finish();
        for chunk in std::mem::take(&mut self.arena.chunks) {
            self.device.free(chunk);
        }
        let clock = std::mem::replace(&mut self.clock, Mem::EMPTY);
        if !clock.is_empty() {
            self.device.free(clock);
        }
        let mut owned = self.params.owned();
        owned.append(&mut self.borrowed);
        for i in 0..std::mem::take(&mut self.permanent) {
            let mem = self.vars[i].mem;
            if !owned.contains(&Var(i as u32)) && !mem.is_empty() {
                self.device.free(mem);
            }
        }
        self.params.free(&mut self.device);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.free_everything();
    }
}
