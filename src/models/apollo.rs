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
//! Where cells are of several conditions, such as the protein that an image shows, decoders and encoders are told which (`condition=COLUMN`;
//! see `conditions`). `single_step=true` is the paper's ablation (see `single`).
//!
//! Limitations: cells that some modality lacks take no part in the training; no missing values.

mod arms;
mod conditions;
mod images;
mod networks;
mod options;
mod redundancy;
mod single;

use super::settings::Settings;
use super::{Losses, Minibatch, Modality, Model, ModelSpec, Phase, Sampling, Stage, Stopping};
use crate::engine::ops::tables::{Table, Untouched};
use crate::engine::optim::{AdamSettings, Rule};
use crate::engine::params::{Group, init};
use crate::engine::{Step, Var, Weight};
use crate::error::Result;
use arms::Arms;
use conditions::Owner;
use redundancy::Redundancy;
use single::SingleStep;

/// The row of [`MODELS`](super::MODELS).
pub const SPEC: ModelSpec = ModelSpec {
    name: "apollo",
    summary: "APOLLO (Zhang 2026): what modalities share and what each has alone, in spaces of their own, by latent optimisation",
    options: options::OPTIONS,
    count_recipe: "log-half,minmax-cell",
    image_sides: options::image_sides,
    takes_missing: false,
    resolve: options::resolve,
    labels: options::labels,
    inference: |_, _| Ok(Vec::new()),
    imputation_remark: |_| None,
    build: |s, settings, modalities| {
        Ok(if settings.get("single_step")?.flag()? {
            Box::new(SingleStep::new(s, settings, modalities)?)
        } else {
            Box::new(Apollo::new(s, settings, modalities)?)
        })
    },
};

const DECODERS: Group = 0;
const ENCODERS: Group = 1;
const TABLES: Group = 2;
const CONDITIONS: Group = 3;

/// The shared space, and one of each modality that a run may have.
const MOST_SPACES: usize = 17;

/// A latent table, and the random numbers of its noise.
type Latent = (Table, u32);

/// The model, built.
pub struct Apollo {
    arms: Arms,
    shared: Latent,
    /// The modalities' own; none without such spaces.
    own: Vec<Latent>,
    /// Twice the logarithm of the noise's deviation, for the largest minibatch of the widest space; none without noise.
    noise: Option<Var>,
    penalty: (f32, bool),
    redundancy: Option<Redundancy>,
    terms: [Vec<String>; 2],
    phases: Vec<Phase>,
    stages: Vec<Stage>,
}

impl Apollo {
    /// Builds tables and networks.
    pub fn new(s: &mut Step, settings: &Settings, modalities: &[Modality]) -> Result<Apollo> {
        let count = |key: &str| settings.get(key).and_then(|v| v.count());
        let float = |key: &str| settings.get(key).and_then(|v| v.float());
        let owner = if settings.get("encoder_ids")?.word()? == "own" { Owner::Encoders(CONDITIONS) } else { Owner::All(CONDITIONS) };
        let arms = Arms::new(s, settings, modalities, false, owner, |_| [DECODERS, ENCODERS])?;
        let [shared, own] = arms.widths;
        let cells = count("cells")?;
        let table = |s: &mut Step, name: &str, d: usize| -> Result<Latent> {
            let name = format!("table.{name}");
            let values = init::normal(s.seed(), &name, cells * d, 1.0);
            let table = s.table(name.clone(), TABLES, [cells, d], &values)?;
            Ok((table, init::stream_of(&format!("noise.{name}"))))
        };
        let shared_table = table(s, "shared", shared)?;
        let own_tables = modalities.iter().filter(|_| own > 0).map(|m| table(s, &m.name, own)).collect::<Result<Vec<_>>>()?;
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
        let mut found: Vec<String> = arms.list.iter().flat_map(|arm| arm.terms()).collect();
        let spaces = arms.spaces();
        let of_arm = |arm: &arms::Arm| spaces.iter().map(|(space, _)| format!("match.{}.{space}", arm.name)).collect::<Vec<_>>();
        let mut matched: Vec<String> = arms.list.iter().flat_map(of_arm).collect();
        matched.extend(found.iter().map(|t| format!("encoded.{t}")));
        let own_spaces = modalities.iter().filter(|_| own > 0).map(|m| (m.name.clone(), own));
        let spaces: Vec<(String, usize)> = std::iter::once(("shared".into(), shared)).chain(own_spaces).collect();
        found.extend(spaces.iter().map(|(name, _)| format!("penalty.{name}")));
        let redundancy = Redundancy::new(s, float("redundancy")? as f32, &spaces)?;
        found.extend(redundancy.iter().flat_map(|_| Redundancy::terms(&spaces)));
        let adam = |rate: f64| AdamSettings { rate, ..AdamSettings::default() };
        let untouched = if settings.get("untouched")?.word()? == "lazy" { Untouched::Lazy } else { Untouched::Dense };
        let of_tables = adam(float("lr_tables")?);
        let mut moves = vec![(DECODERS, adam(float("lr")?).into()), (TABLES, Rule::Tables(of_tables, untouched))];
        moves.extend(arms.given().map(|_| (CONDITIONS, of_tables.into())));
        let phases = vec![Phase { moves, clip: 0.0 }, Phase::of(ENCODERS, adam(float("lr_encoders")?))];
        let sampling = Sampling::Complete { reshuffle: settings.get("reshuffle")?.flag()? };
        let stage =
            |name, phase: usize, epochs| Stage { name, phases: phase..phase + 1, epochs, batch: batches[phase], sampling, only: None };
        Ok(Apollo {
            arms,
            shared: shared_table,
            own: own_tables,
            noise,
            redundancy,
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
        // On the stack: a warm step allocates nothing.
        let mut penalised = [shared; MOST_SPACES];
        for (m, (arm, &x)) in self.arms.list.iter().zip(cells.x).enumerate() {
            let own = self.own.get(m).map_or(Var::NONE, |&(table, stream)| {
                let own = s.table_rows(table, cells.cells, rows);
                penalised[m + 1] = own;
                self.noisy(s, own, stream)
            });
            let told = self.arms.told(s, m, cells.labels);
            arm.decoded(s, [noisy, own], told, x, |loss| losses.push((loss, Weight::Fixed(1.0))));
        }
        let penalised = &penalised[..1 + self.own.len()];
        for &z in penalised {
            losses.push((s.mean_norm(z, self.penalty.1), Weight::Fixed(self.penalty.0)));
        }
        if let Some(redundancy) = &self.redundancy {
            redundancy.of(s, penalised, |term| losses.push((term, Weight::Fixed(redundancy.weight))));
        }
    }

    /// Stage 2: how far what the encoders say is from the tables.
    fn matching(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        let rows = s.dims(cells.x[0])[0];
        let shared = s.table_rows(self.shared.0, cells.cells, rows);
        for (m, (arm, &x)) in self.arms.list.iter().zip(cells.x).enumerate() {
            let told = self.arms.told_encoder(s, m, cells.labels);
            let [code, own] = arm.encoder.forward(s, x, told);
            losses.push((s.mean_square(code, shared), Weight::Fixed(1.0)));
            if let Some(&(table, _)) = self.own.get(m) {
                let target = s.table_rows(table, cells.cells, rows);
                losses.push((s.mean_square(own, target), Weight::Fixed(1.0)));
            }
        }
    }

    /// For held-out cells: what the decoders make of what the encoders say.
    fn decoding_codes(&self, s: &mut Step, cells: &Minibatch, losses: &mut Losses) {
        for (m, (arm, &x)) in self.arms.list.iter().zip(cells.x).enumerate() {
            let told = self.arms.told_encoder(s, m, cells.labels);
            let codes = arm.encoder.forward(s, x, told);
            let told = self.arms.told(s, m, cells.labels);
            arm.decoded(s, codes, told, x, |loss| losses.push((loss, Weight::Fixed(1.0))));
        }
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
                let decoders = self.arms.list.iter().map(|arm| arm.terms().count()).sum::<usize>();
                losses.extend(nothing(all - decoders));
                self.decoding_codes(s, cells, losses);
            }
        }
    }

    fn encode(&self, s: &mut Step, modality: usize, x: Var) -> Var {
        self.arms.encode(s, modality, x)
    }

    fn decode(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        self.arms.decode(s, modality, z)
    }

    fn decode_other(&self, s: &mut Step, modality: usize, z: Var) -> Var {
        self.arms.decode_other(s, modality, z)
    }

    fn conditions(&self) -> Option<Var> {
        self.arms.given()
    }

    fn latent(&self) -> usize {
        self.arms.widths.iter().sum()
    }

    fn spaces(&self) -> Vec<(&'static str, std::ops::Range<usize>)> {
        self.arms.spaces()
    }

    fn rows_at_once(&self) -> usize {
        self.arms.rows_at_once
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
