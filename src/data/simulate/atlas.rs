//! `atlas`: large, sparse counts with a known structure, written streaming, in the sizes of four kinds of experiment.
//!
//!   cells      type k of 12, with probability proportional to 0.85ᵏ; `time` uniform on [0, 1); `cycle` uniform on [0, 1)
//!   levels     feature f has the level exp(b_f), b ~ N(0, spread); type k multiplies it by exp(D_kf), D ~ N(0, 1.5) with probability 0.1,
//!              else 0. A program is exp(b_f + E_f), E ~ N(0, 2) with probability 0.05, else 0
//!   molecules  a cell has n = depth · exp(0.4 e) of them, e standard normal; each is of a feature drawn from the levels of its type, or,
//!              with probability 0.3, from a program: `late` with probability time, else `early`; in the first modality half of these
//!              are of the program `cycle` if cycle < 0.5, and of `rest` if not
//!   stored     counts, sparse; proteins dense
//!   sizes      `--like`: see [`KINDS`]; depths are such that the share of non-zeros is about that of the published data
//!   training   `train.toml` asks of `coupled` and `jamie` as many epochs as make [`STEPS`] steps: the published numbers are of small data
//!
//! Types and time are shared by the modalities, the cycle is the first one's own. Row i of all modalities is the same cell. Labels:
//! `type` 1 .. 12, `time`, `cycle`. A cell is the same however many there are, and its molecules are drawn for blocks of cells in parallel.

use std::sync::Arc;

use rayon::prelude::*;

use super::super::builder::{Builder, Identities};
use super::super::formats::{Head, Layout, Row, Rows, Source, Table};
use super::super::hooks::Hooks;
use super::super::labels::Given;
use super::super::manifest::Provenance;
use super::super::npy::Dtype;
use super::super::pairs::{self, Ids};
use super::super::texts::TextsBuilder;
use super::{RecipeSpec, SimulateSpec};
use crate::engine::rng::Sequence;
use crate::error::{Error, Result, nearest};

/// The row of [`RECIPES`](super::RECIPES).
pub(super) const RECIPE: RecipeSpec = RecipeSpec {
    name: "atlas",
    about: "large sparse counts of 12 cell types along a course of time, in the sizes of --like scrna, multiome, shareseq or citeseq",
    cells: 0,
    train: "",
    write,
};

/// One kind of experiment.
struct Kind {
    name: &'static str,
    cells: usize,
    modalities: &'static [Measured],
}

/// One modality of a kind.
struct Measured {
    name: &'static str,
    /// What a feature's name begins with.
    feature: &'static str,
    features: usize,
    /// Molecules a cell has of a feature, on average over features.
    depth: f64,
    /// Standard deviation of the features' log levels.
    spread: f64,
    dense: bool,
}

const fn measured(name: &'static str, feature: &'static str, features: usize, depth: f64, spread: f64) -> Measured {
    Measured { name, feature, features, depth, spread, dense: false }
}

/// The kinds by name. Cells and features of `shareseq` are those of the mouse skin after APOLLO's filters, features of `citeseq` those of
/// its bone marrow; the others are of the usual size.
static KINDS: [Kind; 4] = [
    Kind { name: "scrna", cells: 20_000, modalities: &[measured("rna", "gene", 20_000, 0.25, 1.8)] },
    Kind {
        name: "multiome",
        cells: 10_000,
        modalities: &[measured("rna", "gene", 20_000, 0.2, 1.8), measured("atac", "peak", 100_000, 0.1, 1.0)],
    },
    Kind {
        name: "shareseq",
        cells: 28_098,
        modalities: &[measured("rna", "gene", 9_153, 0.15, 1.5), measured("atac", "peak", 58_170, 0.05, 0.8)],
    },
    Kind {
        name: "citeseq",
        cells: 50_000,
        modalities: &[
            measured("rna", "gene", 4_005, 0.4, 1.8),
            Measured { name: "protein", feature: "protein", features: 110, depth: 25.0, spread: 1.2, dense: true },
        ],
    },
];

const TYPES: usize = 12;
/// Programs: early, late, and in the first modality rest and cycle.
const PROGRAMS: usize = 4;
/// Cells whose molecules are drawn together.
const BLOCK: usize = 256;

/// Streams of random numbers: the bytes of "at", what is drawn, and the modality.
const LEVELS: u32 = 0x6174_0000;
const CELLS: u32 = 0x6174_0100;
const MOLECULES: u32 = 0x6174_0200;

fn kind(spec: &SimulateSpec) -> Result<&'static Kind> {
    let names = || KINDS.iter().map(|k| k.name);
    let list = names().collect::<Vec<_>>().join(", ");
    let Some(like) = spec.like else { return Err(Error::usage(format!("atlas: say what it is to be like with --like: {list}"))) };
    KINDS.iter().find(|k| k.name == like).ok_or_else(|| {
        let hint = nearest(like, names()).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
        Error::usage(format!("--like {like}: there is no such experiment{hint}; there are: {list}"))
    })
}

/// How many cells the kind has by itself.
pub(super) fn default_cells(spec: &SimulateSpec) -> Result<usize> {
    Ok(kind(spec)?.cells)
}

fn write(mut builder: Builder, recipe: &RecipeSpec, spec: &SimulateSpec, cells: usize, hooks: &mut Hooks) -> Result<()> {
    let kind = kind(spec)?;
    let said = format!("simulate {} --like {} --cells {cells} --seed {}", recipe.name, kind.name, spec.seed);
    if !spec.features.is_empty() && spec.features.len() != kind.modalities.len() {
        let names: Vec<&str> = kind.modalities.iter().map(|m| m.name).collect();
        return Err(Error::usage(format!("--features: {} numbers are wanted, for {}", names.len(), names.join(" and "))));
    }
    builder.add_file("train.toml", &training(cells))?;
    let table = cells_table(&said, cells, spec.seed);
    for (place, measured) in kind.modalities.iter().enumerate() {
        let features = spec.features.get(place).copied().unwrap_or(measured.features);
        if features == 0 || features > i32::MAX as usize {
            return Err(Error::usage(format!("--features {features}: a number from 1 to {} is wanted", i32::MAX)));
        }
        let names = (1..=features).map(|f| format!("{}{f}", measured.feature)).collect();
        let layout = if measured.dense { Layout::Dense(Dtype::U16) } else { Layout::Sparse };
        let head = Head { cells: Some(cells as u64), shape: vec![features], layout, features: Some(names), cell_ids: None };
        let levels = Levels::draw(measured, place, features, spec.seed);
        let rows = Counts { levels: Arc::new(levels), seed: spec.seed, cells, next: 0, block: Vec::new() };
        let from = Provenance { file: said.clone(), ..Provenance::default() };
        builder.add(measured.name, Source { head, rows: Box::new(rows) }, from, hooks)?;
    }
    let ids = table.ids.clone();
    let named: Vec<Ids> = kind.modalities.iter().map(|m| Ids { name: m.name, ids: &ids }).collect();
    let links = pairs::by_row(&named)?;
    let who = Identities {
        ids: vec![(ids, "simulated"); kind.modalities.len()],
        rule: if kind.modalities.len() > 1 { "by-row".into() } else { "none".into() },
        links,
        labels: &[Given { modality: None, table }],
        default_label: None,
    };
    builder.finish(who).map(|_| ())
}

/// Minibatches after which the types of held-out cells are transferred from one modality to the other nearly always (0.98 of 2,000 cells of
/// `--like citeseq --cells 20000 --features 2000,110`, either model).
const STEPS: usize = 2_000;

/// Settings of the models that pair cells: minibatches large enough for so many, and passes over them.
fn training(cells: usize) -> String {
    let table = |model: &str, batch: usize, more: &str| {
        let batch = batch.min(cells).max(2);
        format!("[{model}]\nbatch_size = {batch}\nepochs = {}\n{more}", (STEPS * batch).div_ceil(cells))
    };
    let tables = [table("coupled", 512, "latent = 8\n"), table("jamie", 512, "")];
    tables.join("\n")
}

/// What is true of a cell.
#[derive(Clone, Copy)]
struct Truth {
    kind: usize,
    time: f32,
    cycle: f32,
}

impl Truth {
    fn of(seed: u64, cell: usize) -> Truth {
        let mut draw = Sequence::new(seed, CELLS, cell as u32);
        let whole = (1.0 - 0.85f64.powi(TYPES as i32)) / (1.0 - 0.85);
        let (mut left, mut kind) = (draw.next_f64() * whole, 0);
        while kind + 1 < TYPES && left >= 0.85f64.powi(kind as i32) {
            left -= 0.85f64.powi(kind as i32);
            kind += 1;
        }
        Truth { kind, time: draw.next_f32(), cycle: draw.next_f32() }
    }
}

fn cells_table(said: &str, cells: usize, seed: u64) -> Table {
    let mut values: [TextsBuilder; 3] = Default::default();
    for cell in 0..cells {
        let truth = Truth::of(seed, cell);
        values[0].push(&(truth.kind + 1).to_string());
        values[1].push(&truth.time.to_string());
        values[2].push(&truth.cycle.to_string());
    }
    Table {
        file: said.into(),
        ids: (0..cells).map(|cell| format!("cell{cell}")).collect(),
        lines: (2..cells as u64 + 2).collect(),
        columns: ["type", "time", "cycle"].map(String::from).to_vec(),
        values: values.into_iter().map(TextsBuilder::finish).collect(),
    }
}

/// What features of a modality are drawn from: a type's levels, or a program's.
struct Levels {
    types: Vec<Alias>,
    programs: Vec<Alias>,
    /// Molecules of a cell with e = 0.
    depth: f64,
    features: usize,
    place: usize,
    dense: bool,
}

impl Levels {
    fn draw(measured: &Measured, place: usize, features: usize, seed: u64) -> Levels {
        let stream = LEVELS + place as u32;
        let mut draw = Sequence::new(seed, stream, 0);
        let base: Vec<f64> = (0..features).map(|_| measured.spread * f64::from(draw.next_normal())).collect();
        let table = |part: usize, share: f64, size: f64| {
            let mut draw = Sequence::new(seed, stream, 1 + part as u32);
            let level = |b: &f64| {
                let (chosen, by) = (draw.next_f64() < share, f64::from(draw.next_normal()));
                if chosen { (b + size * by).exp() } else { b.exp() }
            };
            Alias::new(base.iter().map(level).collect())
        };
        Levels {
            types: (0..TYPES).map(|k| table(k, 0.1, 1.5)).collect(),
            programs: (0..PROGRAMS).map(|p| table(TYPES + p, 0.05, 2.0)).collect(),
            depth: measured.depth * features as f64,
            features,
            place,
            dense: measured.dense,
        }
    }

    /// A cell's counts, ascending by feature; `counts` is all zeros before and after.
    fn cell(&self, seed: u64, cell: usize, counts: &mut [u32]) -> Vec<(i32, f32)> {
        let truth = Truth::of(seed, cell);
        let mut draw = Sequence::new(seed, MOLECULES + self.place as u32, cell as u32);
        let molecules = (self.depth * (0.4 * f64::from(draw.next_normal())).exp()).round().max(1.0) as usize;
        let mut touched: Vec<u32> = Vec::with_capacity(molecules.min(self.features));
        for _ in 0..molecules {
            let u = draw.next_f32();
            let table = if u >= 0.3 {
                &self.types[truth.kind]
            } else if self.place == 0 && u < 0.15 {
                &self.programs[2 + usize::from(truth.cycle < 0.5)]
            } else {
                &self.programs[usize::from(draw.next_f32() < truth.time)]
            };
            let feature = table.pick(&mut draw);
            if counts[feature] == 0 {
                touched.push(feature as u32);
            }
            counts[feature] += 1;
        }
        touched.sort_unstable();
        touched.into_iter().map(|f| (f as i32, std::mem::take(&mut counts[f as usize]) as f32)).collect()
    }
}

/// Numbers drawn in proportion to weights by one look-up each. Source: Walker 1977, in Vose's form of 1991.
struct Alias {
    /// For each slot, the share that is its own and whose the rest is.
    slots: Vec<(f32, u32)>,
}

impl Alias {
    fn new(weights: Vec<f64>) -> Alias {
        let scale = weights.len() as f64 / weights.iter().sum::<f64>();
        let mut shares: Vec<f64> = weights.iter().map(|w| w * scale).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..shares.len()).partition(|&i| shares[i] < 1.0);
        let mut slots = vec![(1.0, 0); shares.len()];
        while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
            small.pop();
            slots[s] = (shares[s] as f32, l as u32);
            shares[l] -= 1.0 - shares[s];
            if shares[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        // What is left is whole, but for rounding.
        small.into_iter().chain(large).for_each(|i| slots[i] = (1.0, i as u32));
        Alias { slots }
    }

    fn pick(&self, draw: &mut Sequence) -> usize {
        let slot = draw.below(self.slots.len());
        let (own, other) = self.slots[slot];
        if draw.next_f32() < own { slot } else { other as usize }
    }
}

/// The rows of one modality.
struct Counts {
    levels: Arc<Levels>,
    seed: u64,
    cells: usize,
    next: usize,
    /// Cells drawn ahead.
    block: Vec<Vec<(i32, f32)>>,
}

impl Rows for Counts {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if self.next == self.cells {
            return Ok(false);
        }
        let at = self.next % BLOCK;
        if at == 0 {
            let cells = self.next..(self.next + BLOCK).min(self.cells);
            let (levels, seed) = (&self.levels, self.seed);
            let drawn = cells.into_par_iter().map_init(|| vec![0; levels.features], |counts, cell| levels.cell(seed, cell, counts));
            self.block = drawn.collect();
        }
        self.next += 1;
        row.id = None;
        row.indices.clear();
        row.values.clear();
        if self.levels.dense {
            row.values.resize(self.levels.features, 0.0);
            for &(feature, count) in &self.block[at] {
                row.values[feature as usize] = count.min(f32::from(u16::MAX));
            }
        } else {
            row.indices.extend(self.block[at].iter().map(|e| e.0));
            row.values.extend(self.block[at].iter().map(|e| e.1));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulate;
    use super::*;
    use crate::data::Dataset;

    fn make(like: &str, cells: usize, features: &[usize], seed: u64) -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        let spec = SimulateSpec { recipe: "atlas", cells: Some(cells), seed, like: Some(like), features };
        simulate(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let dataset = Dataset::open(&dir.path().join("d")).unwrap();
        (dir, dataset)
    }

    fn row(d: &Dataset, m: usize, r: usize) -> Vec<f32> {
        let mut out = vec![0.0; d.modality(m).features()];
        d.modality(m).row_into(r, &mut out).unwrap();
        out
    }

    #[test]
    fn the_kinds_have_their_features_pairs_and_sparsity() {
        for (like, features, share) in [
            ("scrna", &[20_000][..], [0.04, 0.14]),
            ("multiome", &[20_000, 100_000], [0.03, 0.12]),
            ("shareseq", &[9_153, 58_170], [0.03, 0.12]),
        ] {
            let (_dir, d) = make(like, 40, &[], 1);
            assert_eq!(d.modalities().iter().map(|m| m.features()).collect::<Vec<_>>(), features, "{like}");
            for m in d.modalities() {
                let found = m.facts().nonzeros as f64 / (m.cells() * m.features()) as f64;
                assert!(
                    m.is_sparse() && m.facts().all_integers_nonnegative && (share[0]..share[1]).contains(&found),
                    "{like} {} {found}",
                    m.name()
                );
            }
            assert_eq!(d.links().len(), if features.len() > 1 { 40 } else { 0 });
            assert_eq!(d.label_columns(), ["type", "time", "cycle"]);
        }
        let (_dir, d) = make("citeseq", 40, &[], 1);
        assert_eq!((d.modality(1).features(), d.modality(1).is_sparse(), d.modality(1).entry().dtype.as_str()), (110, false, "u16"));
    }

    #[test]
    fn types_and_time_show_in_both_modalities_and_the_cycle_in_one() {
        let (_dir, d) = make("multiome", 3000, &[300, 400], 2);
        let kind = d.label("type").unwrap();
        let numbers = |name: &str| d.label(name).unwrap().numbers(d.dir()).unwrap().swap_remove(0);
        // How far apart the mean profiles (as shares) of two groups of cells are, in squared Hellinger distance.
        let apart = |m: usize, group: &dyn Fn(usize) -> Option<usize>| {
            let mut sums = vec![vec![0f64; d.modality(m).features()]; 2];
            for r in 0..3000 {
                if let Some(g) = group(r) {
                    sums[g].iter_mut().zip(row(&d, m, r)).for_each(|(s, x)| *s += x as f64);
                }
            }
            let totals: Vec<f64> = sums.iter().map(|s| s.iter().sum()).collect();
            1.0 - sums[0].iter().zip(&sums[1]).map(|(a, b)| (a / totals[0] * b / totals[1]).sqrt()).sum::<f64>()
        };
        let (time, cycle) = (numbers("time"), numbers("cycle"));
        let halves = |x: f32| Some(usize::from(x < 0.5));
        let by_kind = |r: usize| kind.rows[0][r].filter(|&k| k < 2).map(|k| k as usize);
        for m in 0..2 {
            let noise = apart(m, &|r| Some(r % 2));
            assert!(apart(m, &by_kind) > 5.0 * noise && apart(m, &|r| halves(time[r])) > 2.0 * noise, "{noise}");
            let cycles = apart(m, &|r| halves(cycle[r]));
            assert!(if m == 0 { cycles > 2.0 * noise } else { cycles < 2.0 * noise }, "{m} {cycles} {noise}");
        }
    }

    #[test]
    fn a_cell_is_the_same_however_many_there_are_and_the_seed_decides() {
        let (a, b, c) = (make("shareseq", 300, &[50, 60], 3), make("shareseq", 20, &[50, 60], 3), make("shareseq", 20, &[50, 60], 4));
        assert!((0..20).all(|r| row(&a.1, 1, r) == row(&b.1, 1, r)));
        assert!((0..20).any(|r| row(&c.1, 1, r) != row(&b.1, 1, r)));
    }

    #[test]
    fn an_alias_table_draws_in_proportion() {
        let alias = Alias::new(vec![1.0, 0.0, 3.0, 6.0]);
        let mut draw = Sequence::new(0, 1, 2);
        let mut seen = [0; 4];
        (0..100_000).for_each(|_| seen[alias.pick(&mut draw)] += 1);
        assert_eq!(seen[1], 0);
        for (found, wanted) in seen.iter().zip([10_000.0, 0.0, 30_000.0, 60_000.0]) {
            assert!((*found as f64 - wanted).abs() < 600.0, "{seen:?}");
        }
    }

    #[test]
    fn what_it_is_to_be_like_must_be_said_and_known() {
        let out = std::path::Path::new("never-made");
        let said = |like, features| {
            simulate(&SimulateSpec { recipe: "atlas", cells: Some(3), seed: 0, like, features }, out, &mut Hooks::default()).unwrap_err()
        };
        assert!(said(None, &[]).to_string().contains("scrna, multiome, shareseq, citeseq"));
        assert!(said(Some("multiom"), &[]).to_string().contains("did you mean multiome?"));
        assert!(said(Some("multiome"), &[3]).to_string().contains("2 numbers are wanted, for rna and atac"));
        assert!(!out.exists());
    }
}
