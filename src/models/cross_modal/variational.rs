//! The networks of the image instance: variational autoencoders of images and of features.
//!
//!   images     [Conv k4 s2 p1, batch norm but for the first, leaky ReLU] for each of the channels; μ = BN(Linear), log-variance = Linear;
//!              back: Linear, ReLU, transposed convolutions with batch norm and leaky ReLU, the last one sigmoid alone
//!   features   Linear-ReLU-BN, 3 x Linear-BN-ReLU, Linear; μ and log-variance each Linear; back the same without μ
//!   shapes     x [B, C·H·W] or [B, n]; μ, log-variance, z [B, L]
//!   sampling   z = μ + exp(½ log-variance) e in training, μ in evaluation

use crate::engine::nn::{BatchNorm, Conv, ConvTranspose, Linear};
use crate::engine::ops::activation::Activation::{self, Identity, LeakyRelu, Relu, Sigmoid};
use crate::engine::ops::batch_norm::Running;
use crate::engine::ops::conv::ConvShape;
use crate::engine::params::Group;
use crate::engine::{Step, Var};
use crate::error::Result;

const EPSILON: f32 = 1e-5;
/// Of the running statistics: momentum 0.1 in other words.
const KEEP: f64 = 0.9;
const LEAKY: Activation = LeakyRelu(0.2);

fn norm(s: &mut Step, name: &str, group: Group, width: usize) -> Result<BatchNorm> {
    BatchNorm::affine(s, name, group, width, EPSILON, KEEP, Running::Unbiased)
}

/// An image modality's.
pub struct ImageNet {
    down: Vec<(Conv, Option<BatchNorm>)>,
    mu: (Linear, BatchNorm),
    logvar: Linear,
    from_code: Linear,
    up: Vec<(ConvTranspose, Option<BatchNorm>)>,
}

impl ImageNet {
    /// For images [C, H, W] whose sides can be halved once a layer; `channels` from the image inwards.
    pub fn new(s: &mut Step, name: &str, group: Group, image: [usize; 3], channels: &[usize], latent: usize) -> Result<ImageNet> {
        let [c, h, w] = image;
        let shape = |from: usize, to: usize, height: usize, width: usize| ConvShape {
            channels_in: from,
            channels_out: to,
            height,
            width,
            kernel: 4,
            stride: 2,
            padding: 1,
        };
        let mut down = Vec::new();
        for (l, &out) in channels.iter().enumerate() {
            let from = if l == 0 { c } else { channels[l - 1] };
            let part = format!("enc.{name}.{l}");
            let f = if l == 0 { LEAKY } else { Identity };
            let conv = Conv::fan_in(s, &part, group, shape(from, out, h >> l, w >> l), false, f);
            down.push((conv, (l > 0).then(|| norm(s, &format!("{part}.norm"), group, out)).transpose()?));
        }
        let layers = channels.len();
        let (last, side) = (channels[layers - 1], [h >> layers, w >> layers]);
        let flat = last * side[0] * side[1];
        let mu = Linear::fan_in(s, &format!("enc.{name}.mu"), group, [flat, latent], Identity);
        let mu = (mu, norm(s, &format!("enc.{name}.mu.norm"), group, latent)?);
        let logvar = Linear::fan_in(s, &format!("enc.{name}.logvar"), group, [flat, latent], Identity);
        let from_code = Linear::fan_in(s, &format!("dec.{name}.code"), group, [latent, flat], Relu);
        let mut up = Vec::new();
        for l in 0..layers {
            let inner = layers - 1 - l;
            let to = if inner == 0 { c } else { channels[inner - 1] };
            let part = format!("dec.{name}.{l}");
            let shape = shape(channels[inner], to, side[0] << l, side[1] << l);
            let f = if inner == 0 { Sigmoid } else { Identity };
            let conv = ConvTranspose::fan_in(s, &part, group, shape, false, f);
            up.push((conv, (inner > 0).then(|| norm(s, &format!("{part}.norm"), group, to)).transpose()?));
        }
        Ok(ImageNet { down, mu, logvar, from_code, up })
    }

    fn encode(&self, s: &mut Step, x: Var) -> [Var; 2] {
        let h = self.down.iter().fold(x, |x, (conv, norm)| {
            let h = conv.forward(s, x);
            norm.map_or(h, |n| n.forward_images(s, h, LEAKY))
        });
        let mu = self.mu.0.forward(s, h);
        [self.mu.1.forward(s, mu, Identity), self.logvar.forward(s, h)]
    }

    fn decode(&self, s: &mut Step, z: Var) -> Var {
        let h = self.from_code.forward(s, z);
        self.up.iter().fold(h, |x, (conv, norm)| {
            let h = conv.forward(s, x);
            norm.map_or(h, |n| n.forward_images(s, h, LEAKY))
        })
    }
}

/// Linear-ReLU-BN, 3 x Linear-BN-ReLU, Linear.
struct Trunk {
    first: (Linear, BatchNorm),
    hidden: Vec<(Linear, BatchNorm)>,
    last: Linear,
}

impl Trunk {
    fn new(s: &mut Step, name: &str, group: Group, [inputs, width, outputs]: [usize; 3]) -> Result<Trunk> {
        let mut layer = |l: usize, from: usize, f: Activation| {
            let part = format!("{name}.{l}");
            let linear = Linear::fan_in(s, &part, group, [from, width], f);
            Ok((linear, norm(s, &format!("{part}.norm"), group, width)?))
        };
        let first = layer(0, inputs, Relu)?;
        let hidden = (1..4).map(|l| layer(l, width, Identity)).collect::<Result<_>>()?;
        Ok(Trunk { first, hidden, last: Linear::fan_in(s, &format!("{name}.4"), group, [width, outputs], Identity) })
    }

    fn forward(&self, s: &mut Step, x: Var) -> Var {
        let h = self.first.0.forward(s, x);
        let h = self.first.1.forward(s, h, Identity);
        let h = self.hidden.iter().fold(h, |x, (linear, norm)| {
            let h = linear.forward(s, x);
            norm.forward(s, h, Relu)
        });
        self.last.forward(s, h)
    }
}

/// A feature modality's.
pub struct FeatureNet {
    encoder: Trunk,
    mu: Linear,
    logvar: Linear,
    decoder: Trunk,
}

impl FeatureNet {
    /// For n features, layers of `width` units.
    pub fn new(s: &mut Step, name: &str, group: Group, n: usize, width: usize, latent: usize) -> Result<FeatureNet> {
        let encoder = Trunk::new(s, &format!("enc.{name}"), group, [n, width, width])?;
        let [mu, logvar] = ["mu", "logvar"].map(|part| Linear::fan_in(s, &format!("enc.{name}.{part}"), group, [width, latent], Identity));
        Ok(FeatureNet { encoder, mu, logvar, decoder: Trunk::new(s, &format!("dec.{name}"), group, [latent, width, n])? })
    }
}

/// A modality's networks.
pub enum Net {
    /// Of images.
    Image(ImageNet),
    /// Of features.
    Features(FeatureNet),
}

impl Net {
    /// μ and the log-variance of cells.
    pub fn encode(&self, s: &mut Step, x: Var) -> [Var; 2] {
        match self {
            Net::Image(net) => net.encode(s, x),
            Net::Features(net) => {
                let h = net.encoder.forward(s, x);
                [net.mu.forward(s, h), net.logvar.forward(s, h)]
            }
        }
    }

    /// A modality from codes.
    pub fn decode(&self, s: &mut Step, z: Var) -> Var {
        match self {
            Net::Image(net) => net.decode(s, z),
            Net::Features(net) => net.decoder.forward(s, z),
        }
    }
}
