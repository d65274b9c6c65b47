//! The inferred correspondence of the training cells, and how a minibatch gets its block of it.
//!
//! It is computed once, before the first step, and kept in the run: `F.npy` [training cells of A, training cells of B] with their ids
//! in `F.A.cells.txt` and `F.B.cells.txt`, mapped afterwards. It lies on the device whole where that fits; else each minibatch's block
//! is gathered from the map by the host.

use super::input::Input;
use crate::correspondence::{self, Inference, Inferring};
use crate::data::dataset::Dataset;
use crate::data::mapped::MappedArray;
use crate::data::npy::Dtype;
use crate::data::plan::Plan;
use crate::device::Device;
use crate::engine::{Step, Var};
use crate::error::{Error, Result};
use crate::metrics::Matrix;
use crate::run::Run;
use rayon::prelude::*;
use std::sync::atomic::AtomicBool;

/// No row of F.
const NONE: u32 = u32::MAX;

/// F and which of the dataset's rows it is about.
pub struct Inferred {
    values: Values,
    shape: [usize; 2],
    /// The row (or column) of F of a row of the dataset.
    places: [Vec<u32>; 2],
}

enum Values {
    Mapped(MappedArray),
    Held(Vec<f32>),
}

impl Inferred {
    /// Computes it for the training rows of two modalities and writes it into the run, or maps what a resumed run has.
    #[allow(clippy::too_many_arguments)]
    pub fn of_run(
        run: &Run,
        dataset: &Dataset,
        inputs: &[Input],
        rows: &[Vec<u32>],
        how: &Inference,
        device: Device,
        stop: &AtomicBool,
        told: &mut dyn FnMut(Inferring),
    ) -> Result<(Inferred, Device)> {
        let (path, shape) = (run.dir().join("F.npy"), [rows[0].len(), rows[1].len()]);
        let places = [0, 1].map(|m| {
            let mut places = vec![NONE; dataset.modality(m).cells()];
            (0..).zip(&rows[m]).for_each(|(place, &row)| places[row as usize] = place);
            places
        });
        let device = if path.exists() {
            device
        } else {
            let mut cells = Vec::with_capacity(2);
            for ((input, modality), rows) in inputs.iter().zip(dataset.modalities()).zip(rows) {
                cells.push(input.preprocessed(modality, rows)?);
            }
            let matrix = |m: usize| Matrix::new(&cells[m], shape[m], dataset.modality(m).features());
            let (f, device) = correspondence::infer(device, [matrix(0), matrix(1)], how, Some(stop), told)?;
            for (modality, rows) in dataset.modalities().iter().zip(rows) {
                run.write_ids(&format!("F.{}", modality.name()), rows.iter().map(|&r| modality.cell_id(r as usize)))?;
            }
            run.write_matrix("F.npy", &f, shape[1])?;
            device
        };
        let mapped = MappedArray::open(&path)?;
        mapped.check(Dtype::F32, &shape).map_err(|e| match e {
            Error::Input { file, place, message } => {
                Error::Input { file, place, message: format!("{message}; delete it, and --resume computes it again") }
            }
            e => e,
        })?;
        Ok((Inferred { values: Values::Mapped(mapped), shape, places }, device))
    }

    /// Of values [m, n] between the first m rows of one modality and the first n of the other: for measurements.
    pub fn of_values(values: Vec<f32>, shape: [usize; 2]) -> Inferred {
        assert_eq!(values.len(), shape[0] * shape[1], "a correspondence of {shape:?}");
        Inferred { values: Values::Held(values), shape, places: shape.map(|n| (0..n as u32).collect()) }
    }

    fn values(&self) -> &[f32] {
        match &self.values {
            Values::Mapped(array) => array.elements(),
            Values::Held(values) => values,
        }
    }
}

/// A minibatch's way to its block.
pub struct Blocks {
    inferred: Inferred,
    source: Source,
}

enum Source {
    /// F whole, and the epoch's rows and columns.
    Resident { whole: Var, orders: [Var; 2], host: Vec<u32> },
    /// A block [B, B].
    Staged { buffer: Var, host: Vec<f32> },
}

impl Blocks {
    /// Puts F on the device, or makes room for a block of it. `slots` is the longest epoch.
    pub fn new(s: &mut Step, inferred: Inferred, slots: usize, batch: usize, resident: bool) -> Result<Blocks> {
        s.end();
        if !resident {
            let buffer = s.resident([batch, batch])?;
            return Ok(Blocks { inferred, source: Source::Staged { buffer, host: vec![0.0; batch * batch] } });
        }
        let whole = s.resident(inferred.shape)?;
        let orders = [s.resident([1, slots])?, s.resident([1, slots])?];
        for (i, part) in inferred.values().chunks(1 << 20).enumerate() {
            s.upload_at(whole, i << 20, part)?;
        }
        Ok(Blocks { inferred, source: Source::Resident { whole, orders, host: Vec::with_capacity(slots) } })
    }

    /// Bytes of F.
    pub fn bytes(inferred: &Inferred) -> usize {
        4 * inferred.shape[0] * inferred.shape[1]
    }

    /// Takes over an epoch's order.
    pub fn set_order(&mut self, s: &mut Step, plan: &Plan) -> Result<()> {
        if let Source::Resident { orders, host, .. } = &mut self.source {
            for (m, &order) in orders.iter().enumerate() {
                host.clear();
                host.extend(plan.order(m).iter().map(|&row| self.inferred.places[m][row as usize]));
                s.upload(order, host)?;
            }
        }
        Ok(())
    }

    /// What the host has to do before a step on slots `start .. start + rows`.
    pub fn stage(&mut self, s: &mut Step, plan: &Plan, start: usize, rows: usize) -> Result<()> {
        if let Source::Staged { buffer, host } = &mut self.source {
            let (f, [_, n]) = (&self.inferred, self.inferred.shape);
            let [of_rows, of_columns] = [0, 1].map(|m| &plan.order(m)[start..start + rows]);
            let values = f.values();
            host[..rows * rows].par_chunks_exact_mut(rows).zip(of_rows).for_each(|(out, &row)| {
                let from = &values[f.places[0][row as usize] as usize * n..][..n];
                out.iter_mut().zip(of_columns).for_each(|(out, &c)| *out = from[f.places[1][c as usize] as usize]);
            });
            s.upload(*buffer, &host[..rows * rows])?;
        }
        Ok(())
    }

    /// The block [rows, rows] of the step under way.
    pub fn minibatch(&self, s: &mut Step, rows: usize) -> Var {
        match &self.source {
            Source::Resident { whole, orders, .. } => s.gather_block(*whole, *orders, rows),
            Source::Staged { buffer, .. } if s.dims(*buffer)[0] == rows => *buffer,
            Source::Staged { buffer, .. } => {
                let part = s.part(*buffer, 0, rows * rows);
                s.reshaped(part, [rows, rows])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::plan::Unit;
    use crate::engine::Precision;

    #[test]
    fn a_block_is_the_same_whether_f_lies_on_the_device_or_is_staged() {
        let shape @ [m, n] = [30, 40];
        let units = (0..20).map(|i| Unit { rows: vec![Some(i), Some(39 - i)], confidence: 1.0 }).collect();
        let mut plan = Plan::drawn(3, 12, vec![(0..m as u32).collect(), (0..n as u32).collect()], units, 0.5);
        let values: Vec<f32> = (0..m * n).map(|v| v as f32).collect();
        let mut blocks = [true, false].map(|resident| {
            let mut s = Step::new(Device::cpu(), 1, Precision::F32).unwrap();
            let inferred = Inferred::of_values(values.clone(), shape);
            let mut blocks = Blocks::new(&mut s, inferred, plan.slots(), plan.batch(), resident).unwrap();
            plan.shuffle(2);
            blocks.set_order(&mut s, &plan).unwrap();
            let mut seen = Vec::new();
            for start in [0, 12] {
                blocks.stage(&mut s, &plan, start, 12).unwrap();
                s.begin(true, 1, start).unwrap();
                let block = blocks.minibatch(&mut s, 12);
                seen.push(s.download(block).unwrap());
            }
            seen
        });
        let [a, b] = [blocks[0].remove(1), blocks[1].remove(1)];
        assert_eq!(a, b);
        assert_eq!(a[5 * 12 + 7], (plan.order(0)[17] as usize * n + plan.order(1)[19] as usize) as f32);
        assert_eq!(blocks[0], blocks[1]);
    }
}
