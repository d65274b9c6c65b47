//! What the axes of a latent space mean: features that differ between cells that differ along one principal component alone.
//!
//! | file | what |
//! | --- | --- |
//! | [`bins`] | a cell's place along a component, and whether it is at the centre of the others |
//! | [`contrast`] | which features differ between the low, the middle and the high cells, in many random splits |
//! | [`correlated`] | which of those features go together |
//! | [`values`] | where features come from; [`pictures`], what is measured on images |
//! | [`report`] | tables, figures and contact sheets of the result |
//!
//! For each space of the code (the whole code of a model without spaces) and each of many random splits of the cells: PCA on the
//! training cells' codes, and for each of the first components the groups of [`bins`], contrasted as [`contrast`] says among training
//! and among test cells. A feature counts where both agree. Cells of another modality are found by the known pairs.
//!
//! Values pass by row by row; what stays in memory are the codes and the groups' sums, for as many splits at once as a quarter of a GiB holds.
//! The method is that of APOLLO (Zhang, Shivashankar and Uhler 2026, the section on interpreting latent spaces; the groups are
//! contrasted as its text says, cells of other bins take no part).

pub mod bins;
pub mod contrast;
pub mod correlated;
pub mod pictures;
mod procedure;
pub mod report;
pub mod values;

use crate::data::{Dataset, Hooks};
use crate::error::{Error, Result};
use crate::metrics::Matrix;
use crate::train::Trained;
use bins::BINS;
use contrast::Effect;
use correlated::Member;
use procedure::interpret;
use std::path::Path;
use values::Values;

/// Cells that stand for a bin.
pub const REPRESENTATIVES: usize = 4;
/// What the code of a model without spaces is called.
const WHOLE: &str = "code";

/// What to interpret.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The modality whose encoder gives the codes.
    pub from: usize,
    /// The modality whose features are contrasted.
    pub of: usize,
    /// A table of features of the cells of `of`, instead of its own.
    pub features: Option<&'a Path>,
    /// Preprocessing steps of the values, instead of [`Values::of`]'s own.
    pub values: Option<&'a str>,
    /// Components of each space.
    pub components: usize,
    /// Random splits.
    pub splits: usize,
    /// The share of the cells that are test cells of a split.
    pub test: f64,
    /// The share of the training cells that are at the centre of the other components.
    pub centre: f64,
    /// The lowest and the highest threshold of fold changes.
    pub thresholds: [f64; 2],
    /// The splits derive from it.
    pub seed: u64,
}

/// A space, interpreted.
#[derive(Clone, Debug)]
pub struct Interpreted {
    /// Whose encoder.
    pub from: String,
    /// The space's name.
    pub space: String,
    /// Whose features.
    pub of: String,
    /// What the values are.
    pub what: String,
    /// How differences are told.
    pub effect: Effect,
    /// Cells.
    pub cells: usize,
    /// Features.
    pub features: usize,
    /// Splits.
    pub splits: usize,
    /// The first components.
    pub components: Vec<Component>,
}

/// A component of a space.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its share of the codes' variance.
    pub share: f64,
    /// Splits in which each group had cells enough.
    pub tested: [u32; 3],
    /// Cells at the centre, by bin.
    pub cells: [usize; BINS],
    /// Of each bin the cells nearest to the axis.
    pub representatives: Vec<Vec<Representative>>,
    /// What was found, largest area first.
    pub found: Vec<Reported>,
}

/// A cell that stands for a bin.
#[derive(Clone, Debug, PartialEq)]
pub struct Representative {
    /// The row of the encoder's modality.
    pub row: u32,
    /// The row of the modality whose features are contrasted.
    pub of: u32,
    /// Its id.
    pub id: String,
    /// Its score.
    pub score: f64,
    /// Its distance from the axis.
    pub off_axis: f64,
}

/// A feature that differs in at least one split.
#[derive(Clone, Debug)]
pub struct Reported {
    /// Its name.
    pub feature: String,
    /// The group it differs in, a place in [`GROUPS`](bins::GROUPS).
    pub group: usize,
    /// Splits in which it does.
    pub count: u32,
    /// Area under the curve over thresholds.
    pub area: f64,
    /// Mean effects among training and among test cells over those splits.
    pub effects: [f64; 2],
    /// The features it goes with; `None` past the features that are correlated.
    pub member: Option<Member>,
    /// Its mean by bin, where it is one of those features.
    pub by_bin: Option<[f64; BINS]>,
}

impl Trained {
    /// Interprets every space of the code.
    pub fn explain_pcs(&mut self, dataset: &Dataset, spec: &Spec, hooks: &mut Hooks) -> Result<Vec<Interpreted>> {
        let (from, of) = (dataset.modality(spec.from), dataset.modality(spec.of));
        let cells: Vec<[u32; 2]> = if spec.from == spec.of {
            (0..from.cells() as u32).map(|r| [r, r]).collect()
        } else {
            let mut pairs: Vec<[u32; 2]> = dataset.links().pairs(spec.from, spec.of).map(|(a, b, _)| [a, b]).collect();
            pairs.sort_by_key(|p| p[1]); // in the order in which values lie on the disk
            pairs
        };
        if cells.len() < BINS {
            let what = if spec.from == spec.of { "cells" } else { "known pairs" };
            return Err(Error::usage(format!(
                "{} and {} have {} {what}: components are cut into {BINS} bins, more cells are wanted",
                from.name(),
                of.name(),
                cells.len()
            )));
        }
        let (latent, mut spaces) = (self.latent(dataset)?, self.spaces(dataset)?);
        if spaces.is_empty() {
            spaces.push((WHOLE, 0..latent));
        }
        let values = match spec.features {
            Some(file) => Values::of_table(file, of)?,
            None => Values::of(dataset, spec.of, spec.values, hooks)?,
        };
        let rows: Vec<u32> = cells.iter().map(|c| c[0]).collect();
        let mut codes = Vec::with_capacity(rows.len() * latent);
        self.session(dataset)?.embed(dataset, spec.from, &rows, &mut |_, z| {
            codes.extend_from_slice(z);
            Ok(())
        })?;
        let mut out = Vec::new();
        for (space, range) in spaces {
            let codes: Vec<f32> = codes.chunks_exact(latent).flat_map(|z| z[range.clone()].iter().copied()).collect();
            let codes = Matrix::new(&codes, cells.len(), range.len());
            let rows: Vec<u32> = cells.iter().map(|c| c[1]).collect();
            let told = interpret(codes, &values, &rows, spec, &format!("{space} space, cells read"), hooks)?;
            let Some(mut components) = told else {
                return Err(Error::usage(format!(
                    "the {space} codes of {} are all the same: there is no component to interpret, train the run longer",
                    from.name()
                )));
            };
            for cell in components.iter_mut().flat_map(|c| c.representatives.iter_mut().flatten()) {
                let [row, of] = cells[cell.row as usize];
                (cell.row, cell.of, cell.id) = (row, of, from.cell_id(row as usize).to_string());
            }
            out.push(Interpreted {
                from: from.name().to_string(),
                space: space.to_string(),
                of: of.name().to_string(),
                what: values.what.clone(),
                effect: values.effect,
                cells: cells.len(),
                features: values.names.len(),
                splits: spec.splits,
                components,
            });
        }
        Ok(out)
    }
}
