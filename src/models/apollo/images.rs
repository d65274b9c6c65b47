//! APOLLO's convolutional networks, for images [C, H, W] in [0, 1].
//!
//!   layer     kernel 4, stride 2, padding 1, no bias, batch norm, leaky ReLU of slope 0.2
//!   encoder   a layer for each of the channels, the first without batch norm; then a linear head for each space, of channels of its own: the
//!             last `own` of the last layer's are the modality's space's, the others the shared one's
//!   decoder   linear and ReLU to the last layer's size, then transposed layers back; the last one alone, without batch norm
//!
//! Where cells are of several conditions, a head's channels and a decoder's latent vector have the condition's vector beside them.

use super::networks::{Heads, joined, norm};
use crate::engine::nn::{BatchNorm, Conv, ConvTranspose, Linear};
use crate::engine::ops::activation::Activation::{self, Identity, LeakyRelu, Relu};
use crate::engine::ops::conv::ConvShape;
use crate::engine::params::Group;
use crate::engine::{Step, Var};
use crate::error::Result;

const LEAKY: Activation = LeakyRelu(0.2);

fn shape([from, to]: [usize; 2], [height, width]: [usize; 2]) -> ConvShape {
    ConvShape { channels_in: from, channels_out: to, height, width, kernel: 4, stride: 2, padding: 1 }
}

/// From a latent vector to images.
pub(super) struct ImageDecoder {
    first: Linear,
    layers: Vec<(ConvTranspose, Option<BatchNorm>)>,
}

impl ImageDecoder {
    /// `channels` from the image inwards; its sides can be halved as often.
    pub(super) fn new(
        s: &mut Step,
        name: &str,
        group: Group,
        latent: usize,
        [c, h, w]: [usize; 3],
        channels: &[usize],
    ) -> Result<ImageDecoder> {
        let count = channels.len();
        let smallest = [h >> count, w >> count];
        let flat = channels[count - 1] * smallest[0] * smallest[1];
        let first = Linear::fan_in(s, &format!("{name}.code"), group, [latent, flat], Relu);
        let mut layers = Vec::with_capacity(count);
        for l in 0..count {
            let inner = count - 1 - l;
            let to = if inner == 0 { c } else { channels[inner - 1] };
            let part = format!("{name}.{l}");
            let shape = shape([channels[inner], to], smallest.map(|side| side << l));
            let conv = ConvTranspose::fan_in(s, &part, group, shape, false, Identity);
            layers.push((conv, (inner > 0).then(|| norm(s, &part, group, to)).transpose()?));
        }
        Ok(ImageDecoder { first, layers })
    }

    /// z [B, latent], result [B, C·H·W]: `last` of what the last layer gives.
    pub(super) fn forward(&self, s: &mut Step, z: Var, last: Activation) -> Var {
        let h = self.first.forward(s, z);
        self.layers.iter().fold(h, |h, (conv, norm)| match norm {
            Some(norm) => {
                let h = conv.forward(s, h);
                norm.forward_images(s, h, LEAKY)
            }
            None => ConvTranspose { activation: last, ..*conv }.forward(s, h),
        })
    }
}

/// A space's: the code, how sure it is where that is asked for, and the columns that both are given.
struct Head {
    code: Linear,
    spread: Option<Linear>,
    columns: [usize; 2],
}

/// From images to their spaces.
pub(super) struct ImageEncoder {
    layers: Vec<(Conv, Option<BatchNorm>)>,
    heads: Vec<Head>,
}

impl ImageEncoder {
    /// A head for each of the heads' spaces; the second space is given the last `own` channels.
    pub(super) fn new(
        s: &mut Step,
        name: &str,
        group: Group,
        [c, h, w]: [usize; 3],
        (channels, own): (&[usize], usize),
        heads: &Heads,
    ) -> Result<ImageEncoder> {
        let Heads { spaces, variational, told } = *heads;
        let count = channels.len();
        let mut layers = Vec::with_capacity(count);
        for (l, &to) in channels.iter().enumerate() {
            let from = if l == 0 { c } else { channels[l - 1] };
            let part = format!("{name}.{l}");
            let conv = Conv::fan_in(s, &part, group, shape([from, to], [h >> l, w >> l]), false, if l == 0 { LEAKY } else { Identity });
            layers.push((conv, (l > 0).then(|| norm(s, &part, group, to)).transpose()?));
        }
        let (pixels, last) = ((h >> count) * (w >> count), channels[count - 1]);
        let mut first = 0;
        let mut heads = Vec::with_capacity(spaces.len());
        for (at, (space, d)) in spaces.iter().enumerate() {
            let channels = if spaces.len() < 2 { last } else { [last - own, own][at] };
            let columns = channels * pixels;
            let mut linear = |name: String| Linear::fan_in(s, &name, group, [columns + told, *d], Identity);
            let code = linear(format!("{name}.{space}"));
            let spread = variational.then(|| linear(format!("{name}.{space}.spread")));
            heads.push(Head { code, spread, columns: [first, columns] });
            first += columns;
        }
        Ok(ImageEncoder { layers, heads })
    }

    fn layers(&self, s: &mut Step, x: Var) -> Var {
        self.layers.iter().fold(x, |h, (conv, norm)| {
            let h = conv.forward(s, h);
            norm.map_or(h, |n| n.forward_images(s, h, LEAKY))
        })
    }

    /// x [B, C·H·W], the conditions' vectors if there are any; one [B, width] a space.
    pub(super) fn forward(&self, s: &mut Step, x: Var, condition: Var) -> [Var; 2] {
        let h = self.layers(s, x);
        let mut codes = [Var::NONE; 2];
        for (code, head) in codes.iter_mut().zip(&self.heads) {
            let part = s.columns_part(h, head.columns[0], head.columns[1]);
            let part = joined(s, part, condition);
            *code = head.code.forward(s, part);
        }
        codes
    }

    /// The same; means and log-variances [B, width], a pair a space.
    pub(super) fn forward_with_spread(&self, s: &mut Step, x: Var, condition: Var) -> [(Var, Var); 2] {
        let h = self.layers(s, x);
        let mut codes = [(Var::NONE, Var::NONE); 2];
        for (code, head) in codes.iter_mut().zip(&self.heads) {
            let part = s.columns_part(h, head.columns[0], head.columns[1]);
            let part = joined(s, part, condition);
            let log_deviation = head.spread.as_ref().expect("a variational encoder").forward(s, part);
            *code = (head.code.forward(s, part), s.scaled(log_deviation, 2.0));
        }
        codes
    }
}
