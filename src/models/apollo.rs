//! APOLLO: autoencoders with a partially overlapping latent space, trained by latent optimisation (Zhang, Shivashankar and Uhler, Nature
//! Computational Science, 2026).
//!
//! A cell seen in every modality owns free vectors: s shared by all of them, and a_m of each modality m. A training is two stages:
//!
//!   1  L = Σ_m [ l_m(D_m(s~, a_m~), x_m) + l_m(D'_m(s~), x_m) ] + λ [ mean |s| / d_s + Σ_m mean |a_m| / d ]
//!      with s~ = s + e, a_m~ = a_m + e, e ~ N(0, 1) drawn afresh in every step           moves s, a_m and D, D'
//!   2  L = Σ_m [ mean (E_m(x_m) - (s, a_m))², each space by itself ]                      moves E, all else being constant
//!
//! | symbol | meaning | here |
//! | --- | --- | --- |
//! | s, a_m | rows of tables, a cell of the first modality each | `table.shared`, `table.NAME` |
//! | D_m, D'_m | decoders of both spaces, and of the shared one alone | `dec.NAME`, `dec.NAME.shared` |
//! | E_m | encoders with a head a space | `enc.NAME` |
//! | l_m | weighted cross-entropy of logits, or mean squared error | `recon.NAME`, `recon.NAME.shared` |
//! | λ | penalty of the vectors' length | `penalty.SPACE` |
//! | ρ | squared correlations of two spaces, not in the paper and off by default (see `redundancy`) | `redundancy.SPACE_SPACE` |
//!
//! A code is the shared space's columns and then the modality's own. A translation decodes the shared ones alone, by D' (or by D with
//! zeros beside them, without D'). Held-out cells have no vectors: their loss is that of decoding what the encoders say, in stage 2, by which
//! the weights are chosen.
//!
//! Where paper and program differ this follows the program: lengths not squared and divided by the space's width; one weight a
//! modality; the order in a block (see `networks`). The tables' Adam is the program's, dense, at the cost of a minibatch (see
//! `engine::ops::tables`). Minibatches are drawn anew in every epoch (`reshuffle=false` keeps those of the first, as the program does).
//!
//! Limitations: cells that some modality lacks take no part in the training; no missing values.

mod images;
mod networks;
mod options;
mod redundancy;

use super::settings::Settings;
use super::{Losses, Minibatch, Modality, Model, ModelSpec, Phase, Sampling, Stage, Stopping};
use crate::engine::ops::activation::Activation::{Identity, Sigmoid};
use crate::engine::ops::batch_norm::BatchNormState;
use crate::engine::ops::losses::MissingIn;
use crate::engine::ops::tables::{Table, Untouched};
use crate::engine::optim::{AdamSettings, Rule};
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var, Weight};
use crate::error::Result;
use networks::{Decoder, Encoder, Plan};
use redundancy::Redundancy;

/// The row of [`MODELS`](super::MODELS).
pub const SPEC: ModelSpec = ModelSpec {
    name: "apollo",
    summary: "APOLLO (Zhang 2026): what modalities share and what each has alone, in spaces of their own, by latent optimisation",
    options: options::OPTIONS,
    count_recipe: "log-half,minmax-cell",
    image_sides: options::image_sides,
    takes_missing: false,
    resolve: options::resolve,
    labels: |_| Ok(super::Labels::Unused),
    inference: |_, _| Ok(None),
    imputation_remark: |_| None,
    build: |s, settings, modalities| Ok(Box::new(Apollo::new(s, settings, modalities)?)),
};

const DECODERS: Group = 0;
const ENCODERS: Group = 1;
const TABLES: Group = 2;

/// Cells that pass through convolutions at once outside training.
const IMAGES_AT_ONCE: usize = 128;

/// l_m.
#[derive(Clone, Copy)]
enum Likelihood {
    /// Cross-entropy of logits, with the weight of what is there.
    Bce(f32),
    Mse,
}

struct Arm {
    /// Of both spaces; none without a space of the modality's own.
    full: Option<Decoder>,
    /// Of the shared space alone.
    cross: Option<Decoder>,
    encoder: Encoder,
    table: Option<(Table, u32)>,
    likelihood: Likelihood,
}

/// The model, built.
pub struct Apollo {
    arms: Vec<Arm>,
    shared: (Table, u32),
    /// Dimensions of the shared space and of a modality's own.
    widths: [usize; 2],
    /// Twice the logarithm of the noise's deviation, for the largest minibatch of the widest space; none without noise.
    noise: Option<Var>,
    penalty: (f32, bool),
    rows_at_once: usize,
    redundancy: Option<Redundancy>,
    terms: [Vec<String>; 2],
    phases: Vec<Phase>,
    stages: Vec<Stage>,
}

impl Likelihood {
    /// Of the features that `decoder` makes of z.
    fn of(self, s: &mut Step, decoder: &Decoder, z: Var, x: Var) -> Var {
        let y = decoder.forward(s, z, Identity);
        match self {
            Likelihood::Bce(weight) => s.bce_with_logits(y, x, weight),
            Likelihood::Mse => s.masked_mse(y, x, Var::NONE, MissingIn::All),
        }
    }
}

impl Apollo {
    /// Builds tables and networks.
    pub fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<Apollo> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let (width, dropout) = (count("width")?, float("dropout")? as f32);
        let (specific, shared_decoders) = (settings.get("specific")?.flag()?, settings.get("shared_decoders")?.flag()?);
        let own = if specific { count("latent_specific")? } else { 0 };
        // Without spaces of their own the shared one takes over their room: equal capacity.
        let shared = if specific { count("latent")? } else { count("latent")? + count("latent_specific")? };
        let cells = count("cells")?;
        let (channels, own_channels) = (settings.get("channels")?.counts()?, count("channels_specific")?);
        let table = |s: &mut Step, name: &str, d: usize| -> Result<(Table, u32)> {
            let name = format!("table.{name}");
            let values = init::normal(s.seed(), &name, cells * d, 1.0);
            let table = s.table(name.clone(), TABLES, [cells, d], &values)?;
            Ok((table, init::stream_of(&format!("noise.{name}"))))
        };
        let shared_table = table(s, "shared", shared)?;
        let mut arms = Vec::with_capacity(modalities.len());
        for m in modalities {
            let name = &m.name;
            let plan = match m.image {
                Some(image) => Plan::Images(image, &channels, own_channels),
                None => Plan::Features(m.features, width, dropout),
            };
            let decoder = |s: &mut Step, name: String, latent| Decoder::new(s, &name, DECODERS, latent, &plan);
            let full = specific.then(|| decoder(s, format!("dec.{name}"), shared + own)).transpose()?;
            let cross = (shared_decoders || !specific).then(|| decoder(s, format!("dec.{name}.shared"), shared)).transpose()?;
            let spaces = [("shared", shared), ("specific", own)];
            let spaces = &spaces[..if specific { 2 } else { 1 }];
            let encoder = Encoder::new(s, &format!("enc.{name}"), ENCODERS, spaces, &plan)?;
            let likelihood = match settings.of("loss", name)?.word()? {
                "bce" => Likelihood::Bce(settings.of("pos_weight", name)?.float()? as f32),
                _ => Likelihood::Mse,
            };
            let table = if specific { Some(table(s, name, own)?) } else { None };
            arms.push(Arm { full, cross, encoder, table, likelihood });
        }
        let batches = [count("batch_size")?, count("batch_size2")?];
        let noise = match float("noise")? {
            0.0 => None,
            sd => {
                let dims = [1, batches[0] * shared.max(own)];
                let all = s.resident(dims)?;
                s.upload(all, &vec![2.0 * sd.ln() as f32; dims[1]])?;
                Some(all)
            }
        };
        let mut found = Vec::new();
        let mut matched = Vec::new();
        for (m, arm) in modalities.iter().zip(&arms) {
            found.extend(arm.full.iter().map(|_| format!("recon.{}", m.name)));
            found.extend(arm.cross.iter().map(|_| format!("recon.{}.shared", m.name)));
            matched.push(format!("match.{}.shared", m.name));
            matched.extend(arm.table.iter().map(|_| format!("match.{}.specific", m.name)));
        }
        matched.extend(found.iter().map(|t| format!("encoded.{t}")));
        let own_spaces = modalities.iter().filter(|_| specific).map(|m| (m.name.clone(), own));
        let spaces: Vec<(String, usize)> = std::iter::once(("shared".into(), shared)).chain(own_spaces).collect();
        found.extend(spaces.iter().map(|(name, _)| format!("penalty.{name}")));
        let redundancy = Redundancy::new(s, float("redundancy")? as f32, &spaces)?;
        found.extend(redundancy.iter().flat_map(|_| Redundancy::terms(&spaces)));
        let adam = |rate: f64| AdamSettings { rate, ..AdamSettings::default() };
        let untouched = if settings.get("untouched")?.word()? == "lazy" { Untouched::Lazy } else { Untouched::Dense };
        let tables = Rule::Tables(adam(float("lr_tables")?), untouched);
        let first = Phase { moves: vec![(DECODERS, adam(float("lr")?).into()), (TABLES, tables)], clip: 0.0 };
        let phases = vec![first, Phase::of(ENCODERS, adam(float("lr_encoders")?))];
        let sampling = Sampling::Complete { reshuffle: settings.get("reshuffle")?.flag()? };
        let stage =
            |name, phase: usize, epochs| Stage { name, phases: phase..phase + 1, epochs, batch: batches[phase], sampling, only: None };
        Ok(Apollo {
            arms,
            shared: shared_table,
            widths: [shared, own],
            noise,
            redundancy,
            rows_at_once: if modalities.iter().any(|m| m.image.is_some()) { IMAGES_AT_ONCE } else { usize::MAX },
            penalty: (float("penalty")? as f32, settings.get("norm")?.word()? == "squared"),
            terms: [found, matched],
            phases,
            stages: vec![stage("latent vectors and decoders", 0, count("epochs")?), stage("encoders", 1, count("epochs2")?)],
        })
    }

    /// Latent vectors with this step's noise.
    fn noisy(&self, s: &mut Step, z: Var, stream: u32) -> Var {
        let Some(all) = self.noise else { return z };
        let dims = s.dims(z);
        let part = s.part(all, 0, dims[0] * dims[1]);
        let twice_log = s.reshaped(part, dims);
        s.sample_latent(z, twice_log, stream)
    }

    /// Stage 1: what the decoders make of the minibatch's latent vectors, and how long these are.
    fn decoding(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        let rows = s.dims(cells.x[0])[0];
        let shared = s.table_rows(self.shared.0, cells.cells, rows);
        let noisy = self.noisy(s, shared, self.shared.1);
        let mut penalised = vec![shared];
        for (arm, &x) in self.arms.iter().zip(cells.x) {
            if let (Some(full), Some((table, stream))) = (&arm.full, arm.table) {
                let own = s.table_rows(table, cells.cells, rows);
                penalised.push(own);
                let own = self.noisy(s, own, stream);
                let both = s.beside(noisy, own);
                losses.push((arm.likelihood.of(s, full, both, x), Weight::Fixed(1.0)));
            }
            if let Some(cross) = &arm.cross {
                losses.push((arm.likelihood.of(s, cross, noisy, x), Weight::Fixed(1.0)));
            }
        }
        for &z in &penalised {
            losses.push((s.mean_norm(z, self.penalty.1), Weight::Fixed(self.penalty.0)));
        }
        if let Some(redundancy) = &self.redundancy {
            redundancy.of(s, &penalised, |term| losses.push((term, Weight::Fixed(redundancy.weight))));
        }
    }

    /// Stage 2: how far what the encoders say is from the tables.
    fn matching(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        let rows = s.dims(cells.x[0])[0];
        let shared = s.table_rows(self.shared.0, cells.cells, rows);
        for (arm, &x) in self.arms.iter().zip(cells.x) {
            let [code, own] = arm.encoder.forward(s, x);
            losses.push((s.mean_square(code, shared), Weight::Fixed(1.0)));
            if let Some((table, _)) = arm.table {
                let target = s.table_rows(table, cells.cells, rows);
                losses.push((s.mean_square(own, target), Weight::Fixed(1.0)));
            }
        }
    }

    /// For held-out cells: what the decoders make of what the encoders say.
    fn decoding_codes(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        for (arm, &x) in self.arms.iter().zip(cells.x) {
            let [code, own] = arm.encoder.forward(s, x);
            if let Some(full) = &arm.full {
                let both = s.beside(code, own);
                losses.push((arm.likelihood.of(s, full, both, x), Weight::Fixed(1.0)));
            }
            if let Some(cross) = &arm.cross {
                losses.push((arm.likelihood.of(s, cross, code, x), Weight::Fixed(1.0)));
            }
        }
    }

    fn features(&self, s: &mut Step, arm: &Arm, decoder: &Decoder, z: Var) -> Var {
        decoder.forward(s, z, if matches!(arm.likelihood, Likelihood::Bce(_)) { Sigmoid } else { Identity })
    }
}

impl Model for Apollo {
    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn terms(&self, phase: usize) -> &[String] {
        &self.terms[phase]
    }

    fn losses(&self, s: &mut Step, phase: usize, cells: &Minibatch, losses: &mut Losses) {
        let nothing = |n: usize| (0..n).map(|_| (Var::NONE, Weight::Fixed(1.0)));
        let all = self.terms[phase].len();
        match (phase, s.training()) {
            (0, true) => self.decoding(s, cells, losses),
            (0, false) => losses.extend(nothing(all)),
            (_, true) => {
                self.matching(s, cells, losses);
                losses.extend(nothing(all - losses.len()));
            }
            (_, false) => {
                let decoders = self.arms.iter().map(|a| a.full.iter().chain(&a.cross).count()).sum::<usize>();
                losses.extend(nothing(all - decoders));
                self.decoding_codes(s, cells, losses);
            }
        }
    }

    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        let [shared, own] = self.arms[modality].encoder.forward(s, x);
        if own.is_none() { shared } else { s.beside(shared, own) }
    }

    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        let arm = &self.arms[modality];
        let decoder = arm.full.as_ref().or(arm.cross.as_ref()).expect("a modality has a decoder");
        self.features(s, arm, decoder, z)
    }

    fn decode_other(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        let (arm, [shared, own]) = (&self.arms[modality], self.widths);
        let code = s.columns_part(z, 0, shared);
        match (&arm.cross, &arm.full) {
            (Some(cross), _) => self.features(s, arm, cross, code),
            (None, Some(full)) => {
                let zeros = s.alloc([s.dims(z)[0], own]);
                s.zero(zeros);
                let both = s.beside(code, zeros);
                self.features(s, arm, full, both)
            }
            (None, None) => unreachable!("a modality has a decoder"),
        }
    }

    fn before_norm(&self, _s: &mut Step, _modality: usize, _layer: usize, _x: Var) -> Option<(Var, BatchNormState)> {
        None
    }

    fn latent(&self) -> usize {
        self.widths[0] + self.widths[1]
    }

    fn spaces(&self) -> Vec<(&'static str, std::ops::Range<usize>)> {
        let [shared, own] = self.widths;
        let mut spaces = vec![("shared", 0..shared)];
        spaces.extend((own > 0).then_some(("specific", shared..shared + own)));
        spaces
    }

    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn smallest_batch(&self) -> usize {
        2
    }

    fn stages(&self) -> Vec<Stage> {
        self.stages.clone()
    }

    fn stopping(&self) -> Stopping {
        Stopping::HeldOut
    }
}
