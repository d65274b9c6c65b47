//! APOLLO's networks: fully connected here, convolutional in `images`.
//!
//!   block     dropout, linear without bias, batch norm, leaky ReLU of slope 0.01
//!   decoder   3 blocks of W units, then dropout and linear without bias: logits or values [B, F]
//!   encoder   2 blocks of W units; then for each space a head: a block as wide as the space, dropout and linear without bias
//!
//! Where cells are of several conditions, a decoder's latent vector and the input of an encoder's heads have the condition's beside them.
//!
//! The published program's order and its absence of biases; the paper has batch norm after the activation.

use super::images::{ImageDecoder, ImageEncoder};
use crate::engine::nn::BatchNorm;
use crate::engine::ops::activation::Activation::{self, Identity, LeakyRelu};
use crate::engine::ops::batch_norm::Running;
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var};
use crate::error::Result;

const EPSILON: f32 = 1e-5;
/// Of the running statistics: momentum 0.1 in other words.
const KEEP: f64 = 0.9;

/// Batch norm behind the layer `name`.
pub(super) fn norm(s: &mut Step, name: &str, group: Group, width: usize) -> Result<BatchNorm> {
    BatchNorm::affine(s, &format!("{name}.norm"), group, width, EPSILON, KEEP, Running::Unbiased)
}

/// Dropout, then a linear layer without bias.
#[derive(Clone, Copy)]
pub(super) struct Dropped {
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

/// A hidden layer.
#[derive(Clone, Copy)]
pub(super) struct Block {
    linear: Dropped,
    norm: BatchNorm,
}

impl Block {
    fn new(s: &mut Step, name: &str, group: Group, sizes: [usize; 2], dropout: f32) -> Result<Block> {
        let linear = Dropped::new(s, name, group, sizes, dropout);
        Ok(Block { linear, norm: norm(s, name, group, sizes[1])? })
    }

    fn forward(&self, s: &mut Step, x: Var) -> Var {
        let h = self.linear.forward(s, x, Identity);
        self.norm.forward(s, h, LeakyRelu(0.01))
    }
}

/// What a modality's networks are built of.
pub(super) enum Plan<'a> {
    /// Features, the width of a hidden layer, and the share of every layer's inputs that is dropped.
    Features(usize, usize, f32),
    /// Images, channels from the image inwards, and how many of the last are of the modality's own space.
    Images([usize; 3], &'a [usize], usize),
}

/// What an encoder says of a cell.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    /// Names and widths.
    pub(super) spaces: &'a [(&'a str, usize)],
    /// Whether each has a head besides for how sure it is.
    pub(super) variational: bool,
    /// Numbers that a head is told beside what the layers before it say: a condition's.
    pub(super) told: usize,
}

/// a, and b beside it if there is one.
pub(super) fn joined(s: &mut Step, a: Var, b: Var) -> Var {
    if b.is_none() { a } else { s.beside(a, b) }
}

/// From a latent vector to a modality's features.
pub(super) enum Decoder {
    /// Three blocks, and the last layer.
    Features([Block; 3], Dropped),
    /// Transposed convolutions.
    Images(ImageDecoder),
}

impl Decoder {
    /// For latent vectors of `latent` numbers.
    pub(super) fn new(s: &mut Step, name: &str, group: Group, latent: usize, plan: &Plan) -> Result<Decoder> {
        let (features, width, dropout) = match *plan {
            Plan::Images(image, channels, _) => return Ok(Decoder::Images(ImageDecoder::new(s, name, group, latent, image, channels)?)),
            Plan::Features(features, width, dropout) => (features, width, dropout),
        };
        let mut block = |l: usize, from: usize| Block::new(s, &format!("{name}.{l}"), group, [from, width], dropout);
        let blocks = [block(0, latent)?, block(1, width)?, block(2, width)?];
        Ok(Decoder::Features(blocks, Dropped::new(s, &format!("{name}.3"), group, [width, features], dropout)))
    }

    /// z [B, latent], result [B, features]: `last` of what the last layer gives.
    pub(super) fn forward(&self, s: &mut Step, z: Var, last: Activation) -> Var {
        match self {
            Decoder::Images(decoder) => decoder.forward(s, z, last),
            Decoder::Features(blocks, layer) => {
                let h = blocks.iter().fold(z, |h, block| block.forward(s, h));
                layer.forward(s, h, last)
            }
        }
    }
}

/// A space's: a block, the code, and how sure it is where that is asked for.
pub(super) struct Head {
    block: Block,
    code: Dropped,
    spread: Option<Dropped>,
}

/// From a modality's features to its spaces.
pub(super) enum Encoder {
    /// Two blocks, and a head a space.
    Features([Block; 2], Vec<Head>),
    /// Convolutions.
    Images(ImageEncoder),
}

impl Encoder {
    /// A head for each of the heads' spaces.
    pub(super) fn new(s: &mut Step, name: &str, group: Group, heads: &Heads, plan: &Plan) -> Result<Encoder> {
        let Heads { spaces, variational, told } = *heads;
        let (features, width, dropout) = match *plan {
            Plan::Images(image, channels, own) => {
                return Ok(Encoder::Images(ImageEncoder::new(s, name, group, image, (channels, own), heads)?));
            }
            Plan::Features(features, width, dropout) => (features, width, dropout),
        };
        let mut block = |l: usize, from: usize| Block::new(s, &format!("{name}.{l}"), group, [from, width], dropout);
        let blocks = [block(0, features)?, block(1, width)?];
        let mut heads = Vec::with_capacity(spaces.len());
        for (space, d) in spaces {
            let block = Block::new(s, &format!("{name}.{space}.0"), group, [width + told, *d], dropout)?;
            let mut last = |part: &str| Dropped::new(s, &format!("{name}.{space}.{part}"), group, [*d, *d], dropout);
            heads.push(Head { block, code: last("1"), spread: variational.then(|| last("spread")) });
        }
        Ok(Encoder::Features(blocks, heads))
    }

    /// x [B, features], the conditions' vectors if there are any; one [B, width] a space.
    pub(super) fn forward(&self, s: &mut Step, x: Var, condition: Var) -> [Var; 2] {
        let (blocks, heads) = match self {
            Encoder::Images(encoder) => return encoder.forward(s, x, condition),
            Encoder::Features(blocks, heads) => (blocks, heads),
        };
        let h = blocks.iter().fold(x, |h, block| block.forward(s, h));
        let h = joined(s, h, condition);
        let mut codes = [Var::NONE; 2];
        for (code, head) in codes.iter_mut().zip(heads) {
            let h = head.block.forward(s, h);
            *code = head.code.forward(s, h, Identity);
        }
        codes
    }

    /// The same; means and log-variances [B, width], a pair a space.
    pub(super) fn forward_with_spread(&self, s: &mut Step, x: Var, condition: Var) -> [(Var, Var); 2] {
        let (blocks, heads) = match self {
            Encoder::Images(encoder) => return encoder.forward_with_spread(s, x, condition),
            Encoder::Features(blocks, heads) => (blocks, heads),
        };
        let h = blocks.iter().fold(x, |h, block| block.forward(s, h));
        let h = joined(s, h, condition);
        let mut codes = [(Var::NONE, Var::NONE); 2];
        for (code, head) in codes.iter_mut().zip(heads) {
            let h = head.block.forward(s, h);
            let log_deviation = head.spread.as_ref().expect("a variational encoder").forward(s, h, Identity);
            *code = (head.code.forward(s, h, Identity), s.scaled(log_deviation, 2.0));
        }
        codes
    }
}
