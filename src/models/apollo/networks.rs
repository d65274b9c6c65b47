//! APOLLO's fully connected networks.
//!
//!   block     dropout, linear without bias, batch norm, leaky ReLU of slope 0.01
//!   decoder   3 blocks of W units, then dropout and linear without bias: logits or values [B, F]
//!   encoder   2 blocks of W units; then for each space a head: a block as wide as the space, dropout and linear without bias
//!
//! The published program's order and its absence of biases; the paper has batch norm after the activation.

use crate::engine::nn::BatchNorm;
use crate::engine::ops::activation::Activation::{self, Identity, LeakyRelu};
use crate::engine::ops::batch_norm::Running;
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var};
use crate::error::Result;

const EPSILON: f32 = 1e-5;
/// Of the running statistics: momentum 0.1 in other words.
const KEEP: f64 = 0.9;

/// Dropout, then a linear layer without bias.
#[derive(Clone, Copy)]
struct Dropped {
    dropout: (f32, u32),
    weight: Var,
}

impl Dropped {
    fn new(s: &mut Step, name: &str, group: Group, [inputs, outputs]: [usize; 2], dropout: f32) -> Dropped {
        let weight_name = format!("{name}.weight");
        let values = init::fan_in_uniform(s.seed(), &weight_name, outputs * inputs, inputs);
        Dropped {
            dropout: (dropout, init::stream_of(&format!("dropout.{name}"))),
            weight: s.parameter(weight_name, group, [outputs, inputs], values),
        }
    }

    fn forward(&self, s: &mut Step, x: Var, last: Activation) -> Var {
        let x = s.dropout(x, self.dropout.0, self.dropout.1);
        s.linear(x, self.weight, Var::NONE, last)
    }
}

#[derive(Clone, Copy)]
struct Block {
    linear: Dropped,
    norm: BatchNorm,
}

impl Block {
    fn new(s: &mut Step, name: &str, group: Group, sizes: [usize; 2], dropout: f32) -> Result<Block> {
        let linear = Dropped::new(s, name, group, sizes, dropout);
        Ok(Block { linear, norm: BatchNorm::affine(s, &format!("{name}.norm"), group, sizes[1], EPSILON, KEEP, Running::Unbiased)? })
    }

    fn forward(&self, s: &mut Step, x: Var) -> Var {
        let h = self.linear.forward(s, x, Identity);
        self.norm.forward(s, h, LeakyRelu(0.01))
    }
}

/// From a latent vector to a modality's features.
pub(super) struct Decoder {
    blocks: [Block; 3],
    last: Dropped,
}

impl Decoder {
    /// For latent vectors of `sizes[0]`, hidden layers of `sizes[1]`, `sizes[2]` features.
    pub(super) fn new(s: &mut Step, name: &str, group: Group, [latent, width, features]: [usize; 3], dropout: f32) -> Result<Decoder> {
        let mut block = |l: usize, from: usize| Block::new(s, &format!("{name}.{l}"), group, [from, width], dropout);
        let blocks = [block(0, latent)?, block(1, width)?, block(2, width)?];
        Ok(Decoder { blocks, last: Dropped::new(s, &format!("{name}.3"), group, [width, features], dropout) })
    }

    /// z [B, latent], result [B, features]: `last` of what the last layer gives.
    pub(super) fn forward(&self, s: &mut Step, z: Var, last: Activation) -> Var {
        let h = self.blocks.iter().fold(z, |h, block| block.forward(s, h));
        self.last.forward(s, h, last)
    }
}

/// From a modality's features to its spaces.
pub(super) struct Encoder {
    blocks: [Block; 2],
    heads: Vec<(Block, Dropped)>,
}

impl Encoder {
    /// A head for each of `spaces`, a name and a width.
    pub(super) fn new(
        s: &mut Step,
        name: &str,
        group: Group,
        [features, width]: [usize; 2],
        spaces: &[(&str, usize)],
        dropout: f32,
    ) -> Result<Encoder> {
        let mut block = |l: usize, from: usize| Block::new(s, &format!("{name}.{l}"), group, [from, width], dropout);
        let blocks = [block(0, features)?, block(1, width)?];
        let mut heads = Vec::with_capacity(spaces.len());
        for (space, d) in spaces {
            let block = Block::new(s, &format!("{name}.{space}.0"), group, [width, *d], dropout)?;
            heads.push((block, Dropped::new(s, &format!("{name}.{space}.1"), group, [*d, *d], dropout)));
        }
        Ok(Encoder { blocks, heads })
    }

    /// x [B, features]; one [B, width] a space.
    pub(super) fn forward(&self, s: &mut Step, x: Var) -> [Var; 2] {
        let h = self.blocks.iter().fold(x, |h, block| block.forward(s, h));
        let mut codes = [Var::NONE; 2];
        for (code, (block, last)) in codes.iter_mut().zip(&self.heads) {
            let h = block.forward(s, h);
            *code = last.forward(s, h, Identity);
        }
        codes
    }
}
