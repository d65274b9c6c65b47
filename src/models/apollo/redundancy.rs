//! A penalty of what two spaces both say.
//!
//!   ρ = mean over i, j of r_ij²,   r = corr(z, w) [d, e] over the minibatch, z and w two spaces' latent vectors [B, d] and [B, e]
//!
//! Not in the paper: its objective has nothing against a shared factor being copied into a modality's own space, and noise makes copies
//! useful, since two of them can be averaged. In the simulations whose answer is known this is where its separation falls short.

use super::MOST_SPACES;
use crate::engine::nn::BatchNorm;
use crate::engine::ops::activation::Activation::Identity;
use crate::engine::ops::batch_norm::Running;
use crate::engine::{Step, Var};
use crate::error::Result;

/// The weight, and a norm a space.
pub(super) struct Redundancy {
    pub(super) weight: f32,
    norms: Vec<BatchNorm>,
}

impl Redundancy {
    /// For spaces of these names and widths; none with a weight of 0 or a single space.
    pub(super) fn new(s: &mut Step, weight: f32, spaces: &[(String, usize)]) -> Result<Option<Redundancy>> {
        if weight == 0.0 || spaces.len() < 2 {
            return Ok(None);
        }
        let norm = |(name, width): &(String, usize)| BatchNorm::plain(s, &format!("redundancy.{name}"), *width, 1e-5, 0.9, Running::Biased);
        Ok(Some(Redundancy { weight, norms: spaces.iter().map(norm).collect::<Result<_>>()? }))
    }

    /// The names of its terms: a pair of spaces each.
    pub(super) fn terms(spaces: &[(String, usize)]) -> Vec<String> {
        pairs(spaces.len()).map(|(i, j)| format!("redundancy.{}_{}", spaces[i].0, spaces[j].0)).collect()
    }

    /// ρ of every two of the spaces' latent vectors [B, d].
    pub(super) fn of(&self, s: &mut Step, spaces: &[Var], mut each: impl FnMut(Var)) {
        let rows = s.dims(spaces[0])[0] as f32;
        let mut standard = [Var::NONE; MOST_SPACES];
        for ((standard, &z), norm) in standard.iter_mut().zip(spaces).zip(&self.norms) {
            let z = norm.forward(s, z, Identity);
            *standard = s.transposed(z);
        }
        // One over the number of rows, so that the product is of correlations.
        for (i, j) in pairs(spaces.len()) {
            let products = s.linear(standard[i], standard[j], Var::NONE, Identity);
            let over = s.scaled(products, 1.0 / rows);
            each(s.square_from(over, 0.0));
        }
    }
}

fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}
