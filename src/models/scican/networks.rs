//! sciCAN's networks: layers of a linear map, batch norm and activation, and discriminators of them with dropout.

use crate::engine::average::MovingAverage;
use crate::engine::nn::{BatchNorm, Linear};
use crate::engine::ops::activation::Activation;
use crate::engine::ops::batch_norm::{BatchNormState, Running};
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var};
use crate::error::Result;

/// ε of every batch norm, and the share of the running statistics that a step keeps.
const NORM: (f32, f64) = (1e-5, 0.9);
/// Discriminators' passes of a step that are dropped out differently.
const PASSES: usize = 3;
/// Of the discriminators.
const DROPOUT: f32 = 0.5;

/// f(batch norm of W x + b).
#[derive(Clone, Copy)]
pub struct Block {
    linear: Linear,
    norm: BatchNorm,
    activation: Activation,
}

impl Block {
    fn new(s: &mut Step, name: &str, group: Group, sizes: [usize; 2], activation: Activation) -> Result<Block> {
        let linear = Linear::fan_in(s, &format!("{name}.linear"), group, sizes, Activation::Identity);
        let norm = BatchNorm::affine(s, &format!("{name}.norm"), group, sizes[1], NORM.0, NORM.1, Running::Unbiased)?;
        Ok(Block { linear, norm, activation })
    }

    fn forward(&self, s: &mut Step, x: Var) -> Var {
        let u = self.linear.forward(s, x);
        self.after(s, u)
    }

    fn after(&self, s: &mut Step, u: Var) -> Var {
        self.norm.forward(s, u, self.activation)
    }
}

/// A network whose first layer reads every input by itself, so that sparse inputs stay sparse, before anything looks at several together.
pub trait Network {
    /// The first linear map.
    fn first(&self, s: &mut Step, x: Var) -> Var;
    /// Everything after it, in the `pass`-th pass of a step.
    fn rest(&self, s: &mut Step, pass: usize, u: Var) -> Var;
}

/// A norm's statistics: mean and variance, states.
pub type Statistics = [Var; 2];

/// New statistics of a norm of this width, named `NAME.mean` and `NAME.var`.
fn statistics(s: &mut Step, name: &str, width: usize) -> Result<Statistics> {
    let mean = s.state(format!("{name}.mean"), [1, width], &vec![0.0; width])?;
    let variance = s.state(format!("{name}.var"), [1, width], &vec![1.0; width])?;
    Ok([mean, variance])
}

/// Features → hidden → latent.
#[derive(Clone, Copy)]
pub struct Encoder {
    blocks: [Block; 2],
}

impl Encoder {
    /// With these widths: features, hidden, latent.
    pub fn new(s: &mut Step, group: Group, [features, hidden, latent]: [usize; 3], last: Activation) -> Result<Encoder> {
        let first = Block::new(s, "enc.0", group, [features, hidden], Activation::Relu)?;
        Ok(Encoder { blocks: [first, Block::new(s, "enc.1", group, [hidden, latent], last)?] })
    }

    /// x [B, features], result [B, latent].
    pub fn forward(&self, s: &mut Step, x: Var) -> Var {
        self.blocks.iter().fold(x, |x, block| block.forward(s, x))
    }

    /// What enters the norm of layer `layer`, and the norm's state.
    pub fn before_norm(&self, s: &mut Step, layer: usize, x: Var) -> Option<(Var, BatchNormState)> {
        let block = self.blocks.get(layer)?;
        let h = self.blocks[..layer].iter().fold(x, |x, block| block.forward(s, x));
        Some((block.linear.forward(s, h), block.norm.state))
    }

    /// New statistics for every norm, called after `name`.
    pub fn statistics(&self, s: &mut Step, name: &str) -> Result<[Statistics; 2]> {
        let mut of = |i: usize| {
            let width = s.dims(self.blocks[i].norm.state.mean)[1];
            statistics(s, &format!("{name}.{i}.norm"), width)
        };
        Ok([of(0)?, of(1)?])
    }

    /// The same network with other statistics.
    pub fn with(&self, statistics: [Statistics; 2]) -> Encoder {
        let mut encoder = *self;
        for (block, [mean, variance]) in encoder.blocks.iter_mut().zip(statistics) {
            (block.norm.state.mean, block.norm.state.variance) = (mean, variance);
        }
        encoder
    }

    /// The same network with averaged parameters: for the step under way.
    pub fn averaged(&self, s: &mut Step, average: &MovingAverage) -> Encoder {
        let mut encoder = *self;
        for block in &mut encoder.blocks {
            block.linear = averaged(s, &block.linear, average);
            let state = &mut block.norm.state;
            (state.scale, state.shift) = (average.of(s, state.scale), average.of(s, state.shift));
        }
        encoder
    }
}

impl Network for Encoder {
    fn first(&self, s: &mut Step, x: Var) -> Var {
        self.blocks[0].linear.forward(s, x)
    }

    fn rest(&self, s: &mut Step, _pass: usize, u: Var) -> Var {
        let h = self.blocks[0].after(s, u);
        self.blocks[1].forward(s, h)
    }
}

/// A linear layer with averaged parameters: for the step under way.
pub fn averaged(s: &mut Step, layer: &Linear, average: &MovingAverage) -> Linear {
    Linear { weight: average.of(s, layer.weight), bias: average.of(s, layer.bias), activation: layer.activation }
}

/// Latent → hidden → features.
pub struct Generator {
    hidden: Block,
    out: Linear,
}

impl Generator {
    /// With these widths: latent, hidden, features.
    pub fn new(s: &mut Step, group: Group, [latent, hidden, features]: [usize; 3]) -> Result<Generator> {
        let first = Block::new(s, "gen.0", group, [latent, hidden], Activation::Relu)?;
        Ok(Generator { hidden: first, out: Linear::fan_in(s, "gen.1", group, [hidden, features], Activation::Identity) })
    }

    /// z [B, latent], result [B, features].
    pub fn forward(&self, s: &mut Step, z: Var) -> Var {
        let h = self.hidden.forward(s, z);
        self.out.forward(s, h)
    }
}

/// Tells two kinds of cells apart: two layers with dropout, then one logit.
pub struct Discriminator {
    blocks: [Block; 2],
    out: Linear,
    /// Of the layers' dropout, by pass.
    streams: [[u32; 2]; PASSES],
}

impl Discriminator {
    /// Of these inputs, with hidden layers of this width. Weights are Glorot-normal, biases 0, norms' scales N(1, 0.02).
    pub fn new(s: &mut Step, name: &str, group: Group, inputs: usize, width: usize) -> Result<Discriminator> {
        let linear = |s: &mut Step, i: usize, [a, b]: [usize; 2]| {
            let deviation = (2.0 / (a + b).max(1) as f32).sqrt();
            Linear::normal(s, &format!("{name}.{i}.linear"), group, [a, b], deviation, Activation::Identity)
        };
        let mut block = |i: usize, sizes: [usize; 2]| -> Result<Block> {
            let linear = linear(s, i, sizes);
            let mut norm = BatchNorm::plain(s, &format!("{name}.{i}.norm"), width, NORM.0, NORM.1, Running::Unbiased)?;
            let scale = format!("{name}.{i}.norm.weight");
            let values = init::normal(s.seed(), &scale, width, 0.02).iter().map(|v| 1.0 + v).collect();
            norm.state.scale = s.parameter(scale, group, [1, width], values);
            norm.state.shift = s.parameter(format!("{name}.{i}.norm.bias"), group, [1, width], vec![0.0; width]);
            Ok(Block { linear, norm, activation: Activation::Relu })
        };
        let blocks = [block(0, [inputs, width])?, block(1, [width, width])?];
        let out = linear(s, 2, [width, 1]);
        let streams = std::array::from_fn(|pass| [0, 1].map(|i| init::stream_of(&format!("{name}.{i}.dropout.{pass}"))));
        Ok(Discriminator { blocks, out, streams })
    }
}

/// Logits [B, 1] of x [B, inputs]; every pass of a step is dropped out by itself.
impl Network for Discriminator {
    fn first(&self, s: &mut Step, x: Var) -> Var {
        self.blocks[0].linear.forward(s, x)
    }

    fn rest(&self, s: &mut Step, pass: usize, u: Var) -> Var {
        let streams = self.streams[pass];
        let h = self.blocks[0].after(s, u);
        let h = s.dropout(h, DROPOUT, streams[0]);
        let h = self.blocks[1].forward(s, h);
        let h = s.dropout(h, DROPOUT, streams[1]);
        self.out.forward(s, h)
    }
}
