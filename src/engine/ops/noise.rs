//! noise: what an encoder is made to see, so that it cannot copy its input.
//!
//! - corrupt  y = m ⊙ (x + sd ⊙ z) / (1 − p), z standard normal, m Bernoulli(1 − p); where x is missing (NaN) y = 0
//! - dropout  y = m ⊙ x / (1 − p)
//!   - backward dx = m ⊙ dy / (1 − p), the mask drawn again; 0 where x is missing
//!   - shapes   x, y `[B cells, D features]`, sd `[1, D]`
//!   - kernels  corrupt_fwd, dropout_fwd, dropout_bwd (kernels/noise.cu)
//!
//! The mask and the normals are functions of (seed, stream, step number, element): the same on every device. An element stays if its
//! uniform number is at least p. A sparse x stays sparse where its zeros are zeros (`ops/sparse/dropout.rs`). Outside training `dropout` is the identity and `corrupt` only fills what is missing.
//! Source: Gala et al. 2019, section 3 and the authors' code (Gaussian noise first, then dropout).

use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::vector::vectorised;
use crate::engine::rng::{fill_normal, fill_uniform};
use crate::engine::step::{Step, Var};
use crate::engine::tape::{Node, Op};

static CORRUPT: Op = Op { name: "corrupt", backward };
static DROPOUT: Op = Op { name: "dropout", backward };

/// Elements of a thread of the kernels.
const QUAD: usize = 4;
/// Numbers drawn at a time on the CPU: they stay in the first cache, and starts stay multiples of four.
const BLOCK: usize = 1024;

impl Step {
    /// Two streams for [`Step::corrupt`]: the one returned and the next.
    pub fn noise_streams(&mut self) -> u32 {
        let first = self.stream();
        self.stream();
        first
    }

    /// What a modality's encoder sees of `x`: Gaussian noise of standard deviation `noise_sd` (`[1, cols]`, or [`Var::NONE`]), then
    /// dropout with the probability `dropout`, the survivors scaled by 1 / (1 − `dropout`). Missing entries (NaN) become 0, and outside
    /// training nothing else happens. `stream` is from [`Step::noise_streams`].
    #[track_caller]
    pub fn corrupt(&mut self, x: Var, noise_sd: Var, dropout: f32, stream: u32) -> Var {
        let [rows, cols] = self.dims(x);
        assert_probability("corrupt", dropout);
        if !noise_sd.is_none() {
            assert_eq!(self.dims(noise_sd), [1, cols], "corrupt: noise_sd has one value a feature, x is [cells {rows}, features {cols}]");
        }
        let x = self.dense(x);
        let (sd, p) = if self.training() { (noise_sd, dropout) } else { (Var::NONE, 0.0) };
        let (n, scale) = (rows * cols, survivors_scale(p));
        let y = self.alloc([rows, cols]);
        if self.on_cpu() {
            let (seed, step) = (self.seed(), self.step_number());
            // An absent operand is replaced by an empty part of x, so that there is one list of views.
            let sd = if sd.is_none() { self.part(x, 0, 0) } else { sd };
            let ([y], [x, sd]) = self.views([y], [x, sd]);
            cpu::chunks(y, |start, y| {
                in_blocks(
                    start,
                    y,
                    #[inline(always)]
                    |first, y, draws| {
                        let x = &x[first..first + y.len()];
                        if sd.is_empty() {
                            for (y, &x) in y.iter_mut().zip(x) {
                                *y = or_zero(x);
                            }
                        } else {
                            fill_normal(draws, seed, stream, step, first);
                            add_noise(y, x, sd, draws, first);
                        }
                        if p > 0.0 {
                            fill_uniform(draws, seed, stream + 1, step, first);
                            for (y, &u) in y.iter_mut().zip(&*draws) {
                                *y = if_true(u >= p, *y * scale);
                            }
                        }
                    },
                );
            });
        } else {
            let [low, high] = self.seed_args();
            let args = [
                self.ptr(y),
                self.ptr(x),
                self.ptr(sd),
                self.clock_ptr(),
                n.into(),
                cols.into(),
                p.into(),
                scale.into(),
                stream.into(),
                (stream + 1).into(),
                low,
                high,
            ];
            self.launch("corrupt_fwd", Grid::over(n.div_ceil(QUAD)), &args);
        }
        self.record(&CORRUPT, [x], y, [p, 0.0, 0.0, 0.0], [stream + 1, 1, 0, 0]);
        y
    }

    /// In training, zero with probability `p`, else x / (1 − p); outside training x itself. `stream` is from [`Step::stream`].
    #[track_caller]
    pub fn dropout(&mut self, x: Var, p: f32, stream: u32) -> Var {
        assert_probability("dropout", p);
        if !self.training() || p == 0.0 {
            return x;
        }
        let scale = survivors_scale(p);
        if let Some(dropped) = self.sparse_dropout(x, p, scale, stream) {
            return dropped;
        }
        let x = self.dense(x);
        let n = self.size(x);
        let y = self.alloc(self.dims(x));
        if self.on_cpu() {
            let (seed, step) = (self.seed(), self.step_number());
            let ([y], [x]) = self.views([y], [x]);
            cpu::chunks(y, |start, y| {
                in_blocks(
                    start,
                    y,
                    #[inline(always)]
                    |first, y, draws| {
                        fill_uniform(draws, seed, stream, step, first);
                        for ((y, &x), &u) in y.iter_mut().zip(&x[first..]).zip(&*draws) {
                            *y = if_true(u >= p, x * scale);
                        }
                    },
                );
            });
        } else {
            let [low, high] = self.seed_args();
            let args = [self.ptr(y), self.ptr(x), self.clock_ptr(), n.into(), p.into(), scale.into(), stream.into(), low, high];
            self.launch("dropout_fwd", Grid::over(n.div_ceil(QUAD)), &args);
        }
        self.record(&DROPOUT, [x], y, [p, 0.0, 0.0, 0.0], [stream, 0, 0, 0]);
        y
    }
}

/// Of both: k = [p], n = [the mask's stream, whether x may be missing in places].
fn backward(s: &mut Step, node: &Node) {
    let (x, p, [stream, may_miss, ..]) = (node.x[0], node.k[0], node.n);
    let (n, scale) = (s.size(x), survivors_scale(p));
    let dy = s.grad(node.y).expect("the tape calls backward when a gradient has arrived");
    let (dx, add) = s.grad_slot(x);
    if s.on_cpu() {
        let (seed, step) = (s.seed(), s.step_number());
        let ([dx], [dy, x]) = s.views([dx], [dy, x]);
        cpu::chunks(dx, |start, dx| {
            in_blocks(
                start,
                dx,
                #[inline(always)]
                |first, dx, draws| {
                    if p > 0.0 {
                        fill_uniform(draws, seed, stream, step, first);
                    }
                    for (((dx, &dy), &x), &u) in dx.iter_mut().zip(&dy[first..]).zip(&x[first..]).zip(&*draws) {
                        let d = if_true((u >= p) & ((may_miss == 0) | !x.is_nan()), dy * scale);
                        *dx = if add { *dx + d } else { d };
                    }
                },
            );
        });
    } else {
        let [low, high] = s.seed_args();
        let missing = s.ptr(if may_miss == 1 { x } else { Var::NONE });
        let args = [s.ptr(dx), s.ptr(dy), missing, s.clock_ptr(), n.into(), p.into(), scale.into(), stream.into(), low, high, add.into()];
        s.launch("dropout_bwd", Grid::over(n.div_ceil(QUAD)), &args);
    }
}

#[track_caller]
fn assert_probability(op: &str, p: f32) {
    assert!((0.0..1.0).contains(&p), "{op}: a dropout of {p}; wants 0 <= p < 1");
}

fn survivors_scale(p: f32) -> f32 {
    1.0 / (1.0 - p)
}

/// `v` or 0, without a branch: half of a random mask would be mispredicted, and that costs ten times the arithmetic.
#[inline(always)]
fn if_true(condition: bool, v: f32) -> f32 {
    f32::from_bits(v.to_bits() & (condition as u32).wrapping_neg())
}

#[inline(always)]
fn or_zero(v: f32) -> f32 {
    if_true(!v.is_nan(), v)
}

/// Calls `f(first element, part of y, room for as many draws)` for the blocks of a chunk that starts at element `start`.
fn in_blocks(start: usize, y: &mut [f32], f: impl Fn(usize, &mut [f32], &mut [f32])) {
    vectorised(
        #[inline(always)]
        || {
            let mut draws = [0.0; BLOCK];
            for (b, part) in y.chunks_mut(BLOCK).enumerate() {
                let draws = &mut draws[..part.len()];
                f(start + b * BLOCK, part, draws);
            }
        },
    );
}

/// y = x + sd ⊙ z from element `first` on, 0 where x is missing; row by row, so that sd is walked without a division an element.
#[inline(always)]
fn add_noise(y: &mut [f32], x: &[f32], sd: &[f32], z: &[f32], first: usize) {
    let mut done = 0;
    while done < y.len() {
        let col = (first + done) % sd.len();
        let upto = y.len().min(done + sd.len() - col);
        let part = done..upto;
        for (((y, &x), &z), &sd) in y[part.clone()].iter_mut().zip(&x[part.clone()]).zip(&z[part]).zip(&sd[col..]) {
            *y = if_true(!x.is_nan(), x + sd * z);
        }
        done = upto;
    }
}

#[cfg(test)]
mod tests;
