//! The inferred correspondence of the training cells, and how a minibatch gets its block of it.
//!
//! It is computed once, before the first step, and kept in the run: `F.npy` [training cells of A, training cells of B], mapped
//! afterwards; between landmarks, the factors of it (`factors.rs`). The ids of its cells are in `F.A.cells.txt` and `F.B.cells.txt`, those of the
//! landmarks in `F.A.landmarks.cells.txt` and `F.B.landmarks.cells.txt`. It lies on the device whole where that fits; else, and always
//! between landmarks, each minibatch's block is made from the map by the host.

mod factors;

use super::input::Input;
use crate::correspondence::{self, Inference, Inferring, landmarks};
use crate::data::dataset::Dataset;
use crate::data::mapped::MappedArray;
use crate::data::npy::Dtype;
use crate::data::plan::{Plan, Unit};
use crate::device::Device;
use crate::engine::{Step, Var};
use crate::error::{Error, Result};
use crate::metrics::Matrix;
use crate::run::Run;
use factors::Factors;
use rayon::prelude::*;
use std::sync::atomic::AtomicBool;

/// No row of F.
const NONE: u32 = u32::MAX;
/// So many known pairs tell whether F fits them.
const ASKED: usize = 256;

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
    Factored(Box<Factors>),
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
        let by_landmarks = (how.landmarks > 0).then(|| how.by_landmarks()).transpose()?;
        let names = [dataset.modality(0).name(), dataset.modality(1).name()];
        let ids = |stem: String, m: usize, rows: &mut dyn Iterator<Item = u32>| {
            run.write_ids(&stem, rows.map(|r| dataset.modality(m).cell_id(r as usize)))
        };
        let device = if path.exists() {
            device
        } else {
            let mut cells = Vec::with_capacity(2);
            for ((input, modality), rows) in inputs.iter().zip(dataset.modalities()).zip(rows) {
                cells.push(input.preprocessed(modality, rows)?);
            }
            let [a, b] = [0, 1].map(|m| Matrix::new(&cells[m], shape[m], dataset.modality(m).features()));
            for m in [0, 1] {
                ids(format!("F.{}", names[m]), m, &mut rows[m].iter().copied())?;
            }
            match &by_landmarks {
                None => {
                    let (f, device) = correspondence::infer(device, [a, b], how, Some(stop), told)?;
                    run.write_matrix("F.npy", &f, shape[1])?;
                    device
                }
                Some(options) => {
                    let (found, device) = landmarks::solve(device, a, b, options, Some(stop), &mut |r| told(Inferring::Landmarks(r)))?;
                    for m in [0, 1] {
                        let marks = &mut found.sides[m].cells.iter().map(|&l| rows[m][l as usize]);
                        ids(format!("F.{}.landmarks", names[m]), m, marks)?;
                    }
                    factors::write(run, names, &found)?;
                    device
                }
            }
        };
        let open = || match &by_landmarks {
            Some(options) => Ok(Values::Factored(Box::new(Factors::open(run, names, shape, options)?))),
            None => {
                let mapped = MappedArray::open(&path)?;
                mapped.check(Dtype::F32, &shape)?;
                Ok(Values::Mapped(mapped))
            }
        };
        let values = open().map_err(|e| match e {
            Error::Input { file, place, message } => {
                let message = format!("{message}; delete {}, and --resume computes it again", path.display());
                Error::Input { file, place, message }
            }
            e => e,
        })?;
        Ok((Inferred { values, shape, places }, device))
    }

    /// Of values [m, n] between the first m rows of one modality and the first n of the other: for measurements.
    pub fn of_values(values: Vec<f32>, shape: [usize; 2]) -> Inferred {
        assert_eq!(values.len(), shape[0] * shape[1], "a correspondence of {shape:?}");
        Inferred { values: Values::Held(values), shape, places: shape.map(|n| (0..n as u32).collect()) }
    }

    /// What known pairs of the first two modalities say of it; none where there are no pairs. Of many, 256 spread evenly are asked.
    pub fn of_known(&self, units: &[Unit]) -> Option<Inferring> {
        let known: Vec<(u32, u32)> = units.iter().filter_map(|u| Some((u.rows[0]?, u.rows[1]?))).collect();
        let asked: Vec<(u32, u32)> = known.iter().copied().step_by(known.len().div_ceil(ASKED).max(1)).collect();
        let columns: Vec<u32> = (0..self.shape[1] as u32).collect();
        let (mut f, mut images) = (vec![0.0; columns.len()], vec![0.0; self.image()]);
        let better = |&(a, b): &(u32, u32)| {
            self.block(&[self.places[0][a as usize]], &columns, &mut images, &mut f);
            let own = f[self.places[1][b as usize] as usize];
            let [more, less] = [f.iter().filter(|&&v| v > own).count(), f.iter().filter(|&&v| v < own).count()];
            // Among equals the partner is in the middle.
            (more + f.len() - less) as f64 / (2 * f.len()) as f64
        };
        let pairs = asked.len();
        let sum: f64 = asked.iter().map(better).sum();
        (pairs > 0).then(|| Inferring::Known { pairs, better: sum / pairs as f64 })
    }

    /// All of it, where it is held or mapped whole.
    fn whole(&self) -> Option<&[f32]> {
        match &self.values {
            Values::Mapped(array) => Some(array.elements()),
            Values::Held(values) => Some(values),
            Values::Factored(_) => None,
        }
    }

    /// Words that [`Inferred::block`] needs beside it for each row.
    fn image(&self) -> usize {
        match &self.values {
            Values::Factored(factors) => factors.image(),
            Values::Mapped(_) | Values::Held(_) => 0,
        }
    }

    /// Some rows and columns of F, into `out` [rows, columns]. `images` [rows, [`Inferred::image`]] is written over.
    fn block(&self, rows: &[u32], columns: &[u32], images: &mut [f32], out: &mut [f32]) {
        match &self.values {
            Values::Factored(factors) => factors.block(rows, columns, images, out),
            Values::Mapped(_) | Values::Held(_) => {
                let (f, n) = (self.whole().unwrap_or_default(), self.shape[1]);
                out.par_chunks_exact_mut(columns.len()).zip(rows).for_each(|(out, &row)| {
                    let from = &f[row as usize * n..][..n];
                    out.iter_mut().zip(columns).for_each(|(out, &c)| *out = from[c as usize]);
                });
            }
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
    /// A block [B, B], the places in F of its rows and columns, and what making it takes.
    Staged { buffer: Var, host: Vec<f32>, places: [Vec<u32>; 2], images: Vec<f32> },
}

impl Blocks {
    /// Puts F on the device if it is no larger than `room` bytes, else makes room for a block of it. `slots` is the longest epoch.
    pub fn new(s: &mut Step, inferred: Inferred, slots: usize, batch: usize, room: usize) -> Result<Blocks> {
        s.end();
        let source = match inferred.whole().filter(|f| 4 * f.len() <= room) {
            None => Source::Staged {
                buffer: s.resident([batch, batch])?,
                host: vec![0.0; batch * batch],
                places: [0, 1].map(|_| Vec::with_capacity(batch)),
                images: vec![0.0; batch * inferred.image()],
            },
            Some(f) => {
                let whole = s.resident(inferred.shape)?;
                let orders = [s.resident([1, slots])?, s.resident([1, slots])?];
                for (i, part) in f.chunks(1 << 20).enumerate() {
                    s.upload_at(whole, i << 20, part)?;
                }
                Source::Resident { whole, orders, host: Vec::with_capacity(slots) }
            }
        };
        Ok(Blocks { inferred, source })
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
        if let Source::Staged { buffer, host, places, images } = &mut self.source {
            for (m, places) in places.iter_mut().enumerate() {
                places.clear();
                places.extend(plan.order(m)[start..start + rows].iter().map(|&row| self.inferred.places[m][row as usize]));
            }
            let [of_rows, of_columns] = places;
            let images = &mut images[..rows * self.inferred.image()];
            self.inferred.block(of_rows, of_columns, images, &mut host[..rows * rows]);
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
    use crate::engine::Precision;

    #[test]
    fn known_pairs_tell_a_correspondence_from_its_mirror_image() {
        let n = 20;
        let pair = |i| Unit { rows: vec![Some(i), Some(i)], confidence: 1.0 };
        let units = [pair(3), Unit { rows: vec![Some(4), None], confidence: 1.0 }, pair(8)];
        let of = |f: &dyn Fn(usize, usize) -> usize| {
            let values = (0..n * n).map(|v| -(f(v / n, v % n) as f32)).collect();
            Inferred::of_values(values, [n; 2]).of_known(&units)
        };
        assert_eq!(of(&|i, j| i.abs_diff(j)), Some(Inferring::Known { pairs: 2, better: 0.5 / 20.0 }));
        // 3 lies 13 from 16 and 8 lies 3 from 11, of the cells 17 and 9 to 13 (and their equals) are as near or nearer.
        assert_eq!(of(&|i, j| (n - 1 - i).abs_diff(j)), Some(Inferring::Known { pairs: 2, better: (16.5 + 6.0) / 2.0 / 20.0 }));
        assert_eq!(of(&|_, _| 1), Some(Inferring::Known { pairs: 2, better: 0.5 }));
        assert_eq!(Inferred::of_values(vec![0.0; 4], [2; 2]).of_known(&[]), None);
    }

    #[test]
    fn a_block_is_the_same_whether_f_lies_on_the_device_or_is_staged() {
        let shape @ [m, n] = [30, 40];
        let units = (0..20).map(|i| Unit { rows: vec![Some(i), Some(39 - i)], confidence: 1.0 }).collect();
        let mut plan = Plan::drawn(3, 12, vec![(0..m as u32).collect(), (0..n as u32).collect()], units, 0.5);
        let values: Vec<f32> = (0..m * n).map(|v| v as f32).collect();
        let mut blocks = [4 * m * n, 4 * m * n - 1].map(|room| {
            let mut s = Step::new(Device::cpu(), 1, Precision::F32).unwrap();
            let inferred = Inferred::of_values(values.clone(), shape);
            let mut blocks = Blocks::new(&mut s, inferred, plan.slots(), plan.batch(), room).unwrap();
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
