//! A modality's decoders and encoder, and what both trainings, in two stages and in one, have of them in common.

use super::conditions::{Conditions, Owner};
use super::networks::{Decoder, Encoder, Heads, Plan, joined};
use crate::engine::ops::activation::Activation::{self, Identity, Sigmoid};
use crate::engine::ops::losses::MissingIn;
use crate::engine::params::Group;
use crate::engine::{Step, Var};
use crate::error::Result;
use crate::models::Modality;
use crate::models::settings::Settings;
use std::ops::Range;

/// Cells that pass at once outside training, and through convolutions.
const AT_ONCE: usize = 1024;
const IMAGES_AT_ONCE: usize = 128;

/// l_m.
#[derive(Clone, Copy)]
pub(super) enum Likelihood {
    /// Cross-entropy of logits, with the weight of what is there.
    Bce(f32),
    Mse,
}

/// A modality's networks.
pub(super) struct Arm {
    pub(super) name: String,
    /// Of both spaces; none without a space of the modality's own.
    pub(super) full: Option<Decoder>,
    /// Of the shared space alone.
    pub(super) cross: Option<Decoder>,
    pub(super) encoder: Encoder,
    pub(super) likelihood: Likelihood,
}

impl Likelihood {
    /// What makes features of what the last layer of `decoder` gives: images are in [0, 1], and cross-entropy is of logits.
    fn features(self, decoder: &Decoder) -> Activation {
        match (self, decoder) {
            (Likelihood::Bce(_), _) | (Likelihood::Mse, Decoder::Images(_)) => Sigmoid,
            (Likelihood::Mse, Decoder::Features(..)) => Identity,
        }
    }

    /// Of the features that `decoder` makes of z.
    pub(super) fn of(self, s: &mut Step, decoder: &Decoder, z: Var, x: Var) -> Var {
        match self {
            Likelihood::Bce(weight) => {
                let logits = decoder.forward(s, z, Identity);
                s.bce_with_logits(logits, x, weight)
            }
            Likelihood::Mse => {
                let y = decoder.forward(s, z, self.features(decoder));
                s.masked_mse(y, x, Var::NONE, MissingIn::All)
            }
        }
    }
}

impl Arm {
    /// The losses of what the decoders make of a shared code and the modality's own, as many as there are decoders; they are told the
    /// cells' conditions, if there are any.
    pub(super) fn decoded(&self, s: &mut Step, [shared, own]: [Var; 2], told: Var, x: Var, mut each: impl FnMut(Var)) {
        if let Some(full) = &self.full {
            let both = s.beside(shared, own);
            let both = joined(s, both, told);
            each(self.likelihood.of(s, full, both, x));
        }
        if let Some(cross) = &self.cross {
            let shared = joined(s, shared, told);
            each(self.likelihood.of(s, cross, shared, x));
        }
    }

    /// The names of these losses.
    pub(super) fn terms(&self) -> impl Iterator<Item = String> {
        let full = self.full.iter().map(|_| format!("recon.{}", self.name));
        full.chain(self.cross.iter().map(|_| format!("recon.{}.shared", self.name)))
    }

    fn features(&self, s: &mut Step, decoder: &Decoder, z: Var) -> Var {
        decoder.forward(s, z, self.likelihood.features(decoder))
    }
}

/// All modalities' networks.
pub(super) struct Arms {
    pub(super) list: Vec<Arm>,
    /// Dimensions of the shared space and of a modality's own, which is 0 where there is none.
    pub(super) widths: [usize; 2],
    pub(super) rows_at_once: usize,
    conditions: Option<Conditions>,
}

impl Arms {
    /// `groups` says which optimisers' the decoders and the encoder of a modality are, `owner` whose the conditions' vectors; `variational`
    /// encoders have a head besides for how sure they are.
    pub(super) fn new(
        s: &mut Step,
        settings: &Settings,
        modalities: &[Modality],
        variational: bool,
        owner: Owner,
        groups: impl Fn(usize) -> [Group; 2],
    ) -> Result<Arms> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let (width, dropout) = (count("width")?, settings.get("dropout")?.float()? as f32);
        let (specific, shared_decoders) = (settings.get("specific")?.flag()?, settings.get("shared_decoders")?.flag()?);
        let own = if specific { count("latent_specific")? } else { 0 };
        // Without spaces of their own the shared one takes over their room: equal capacity.
        let shared = if specific { count("latent")? } else { count("latent")? + count("latent_specific")? };
        let (channels, own_channels) = (settings.get("channels")?.counts()?, count("channels_specific")?);
        let rows_at_once = if modalities.iter().any(|m| m.image.is_some()) { IMAGES_AT_ONCE } else { AT_ONCE };
        let encoders: Vec<_> = modalities.iter().enumerate().map(|(m, modality)| (modality.name.as_str(), groups(m)[1])).collect();
        let conditions = Conditions::new(s, settings, &encoders, owner, rows_at_once)?;
        let told = conditions.as_ref().map_or(0, Conditions::width);
        let mut list = Vec::with_capacity(modalities.len());
        for (m, modality) in modalities.iter().enumerate() {
            let (name, [decoders, encoder]) = (&modality.name, groups(m));
            let plan = match modality.image {
                Some(image) => Plan::Images(image, &channels, own_channels),
                None => Plan::Features(modality.features, width, dropout),
            };
            let decoder = |s: &mut Step, name: String, latent| Decoder::new(s, &name, decoders, latent + told, &plan);
            let full = specific.then(|| decoder(s, format!("dec.{name}"), shared + own)).transpose()?;
            let cross = (shared_decoders || !specific).then(|| decoder(s, format!("dec.{name}.shared"), shared)).transpose()?;
            let spaces = [("shared", shared), ("specific", own)];
            let heads = Heads { spaces: &spaces[..if specific { 2 } else { 1 }], variational, told };
            let encoder = Encoder::new(s, &format!("enc.{name}"), encoder, &heads, &plan)?;
            let likelihood = match settings.of("loss", name)?.word()? {
                "bce" => Likelihood::Bce(settings.of("pos_weight", name)?.float()? as f32),
                _ => Likelihood::Mse,
            };
            list.push(Arm { name: name.clone(), full, cross, encoder, likelihood });
        }
        Ok(Arms { list, widths: [shared, own], rows_at_once, conditions })
    }

    /// What a modality's decoders are told of cells of these labels; [`Var::NONE`] without conditions.
    pub(super) fn told(&self, s: &mut Step, modality: usize, labels: &[Var]) -> Var {
        self.conditions.as_ref().map_or(Var::NONE, |c| c.of_decoders(s, modality, labels[modality]))
    }

    /// What its encoder is told.
    pub(super) fn told_encoder(&self, s: &mut Step, modality: usize, labels: &[Var]) -> Var {
        self.conditions.as_ref().map_or(Var::NONE, |c| c.of_encoder(s, modality, labels[modality]))
    }

    /// Where the conditions of the cells are given that [`Arms::encode`] and its like are asked about.
    pub(super) fn given(&self) -> Option<Var> {
        self.conditions.as_ref().map(|c| c.given)
    }

    /// The conditions of as many cells as there are rows.
    fn given_rows(&self, s: &mut Step, rows: usize) -> Var {
        self.given().map_or(Var::NONE, |all| s.part(all, 0, rows))
    }

    pub(super) fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        let rows = s.dims(x)[0];
        let numbers = self.given_rows(s, rows);
        let told = self.conditions.as_ref().map_or(Var::NONE, |c| c.of_encoder(s, modality, numbers));
        let [shared, own] = self.list[modality].encoder.forward(s, x, told);
        joined(s, shared, own)
    }

    /// What a modality's decoders are told of the cells with the codes z.
    fn told_of(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        let rows = s.dims(z)[0];
        let numbers = self.given_rows(s, rows);
        self.conditions.as_ref().map_or(Var::NONE, |c| c.of_decoders(s, modality, numbers))
    }

    pub(super) fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        let arm = &self.list[modality];
        let decoder = arm.full.as_ref().or(arm.cross.as_ref()).expect("a modality has a decoder");
        let told = self.told_of(s, modality, z);
        let z = joined(s, z, told);
        arm.features(s, decoder, z)
    }

    /// Of the code of another modality: its shared columns alone.
    pub(super) fn decode_other(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        let (arm, [shared, own]) = (&self.list[modality], self.widths);
        let told = self.told_of(s, modality, z);
        let code = s.columns_part(z, 0, shared);
        match (&arm.cross, &arm.full) {
            (Some(cross), _) => {
                let code = joined(s, code, told);
                arm.features(s, cross, code)
            }
            (None, Some(full)) => {
                let zeros = s.alloc([s.dims(z)[0], own]);
                s.zero(zeros);
                let both = s.beside(code, zeros);
                let both = joined(s, both, told);
                arm.features(s, full, both)
            }
            (None, None) => unreachable!("a modality has a decoder"),
        }
    }

    pub(super) fn spaces(&self) -> Vec<(&'static str, Range<usize>)> {
        let [shared, own] = self.widths;
        let mut spaces = vec![("shared", 0..shared)];
        spaces.extend((own > 0).then_some(("specific", shared..shared + own)));
        spaces
    }
}
