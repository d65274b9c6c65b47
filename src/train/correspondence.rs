//! The inferred correspondence of the training cells of two modalities, and how a minibatch gets its block of it.
//!
//! It is computed once, before the first step, and kept in the run: `F.npy` [training cells of A, training cells of B], mapped
//! afterwards; between landmarks, the factors of it (`factors.rs`). The ids of its cells are in `F.A.cells.txt` and `F.B.cells.txt`, those of the
//! landmarks in `F.A.landmarks.cells.txt` and `F.B.landmarks.cells.txt`. Of more than two modalities every pair has one, `F.A_B.npy` with
//! `F.A_B.A.landmarks.cells.txt`. It lies on the device whole where that fits; else, and always between landmarks, each minibatch's block
//! is made from the map by the host.

mod factors;

use super::input::Input;
use crate::correspondence::landmarks::{self, Landmarks};
use crate::correspondence::{self, Inference, Inferring};
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
/// So many can contradict it: the mean of 20 varies by 0.06 where chance alone decides, and a correspondence that helps is far below a half.
const SURE: f64 = 20.0;

/// F and which of the dataset's rows it is about.
pub struct Inferred {
    values: Values,
    shape: [usize; 2],
    /// The two modalities.
    pair: [usize; 2],
    /// The row (or column) of F of a row of the dataset.
    places: [Vec<u32>; 2],
}

enum Values {
    Mapped(MappedArray),
    Held(Vec<f32>),
    Factored(Box<Factors>),
}

impl Inferred {
    /// Those of every pair of modalities, as `how` says of each; none if it says nothing. The known units are asked what they say of each:
    /// a correspondence that is no better than chance by twenty pairs or more, such as a mirror image, is left out.
    #[allow(clippy::too_many_arguments)]
    pub fn of_pairs(
        run: &Run,
        dataset: &Dataset,
        inputs: &[Input],
        rows: &[Vec<u32>],
        known: &[Unit],
        how: &[Inference],
        mut device: Device,
        stop: &AtomicBool,
        told: &mut dyn FnMut(Inferring),
    ) -> Result<(Vec<Option<Inferred>>, Device)> {
        let (k, mut all) = (rows.len(), Vec::with_capacity(how.len()));
        let mut seen: Vec<Option<Landmarks>> = (0..k).map(|_| None).collect();
        for (pair, how) in pairs(k).zip(how) {
            if k > 2 {
                told(Inferring::Between(pair));
            }
            let made;
            (made, device) = Inferred::of_run(run, dataset, inputs, rows, pair, how, &mut seen, device, stop, told)?;
            let known = made.of_known(known);
            known.iter().for_each(|&known| told(known));
            all.push(Some(made).filter(|_| !matches!(known, Some(Inferring::Known { left_out: true, .. }))));
        }
        Ok((all, device))
    }

    /// Computes it for the training rows of two modalities and writes it into the run, or maps what a resumed run has. `seen` are the landmarks
    /// of modalities that an earlier pair has found: a graph of all cells is most of the work.
    #[allow(clippy::too_many_arguments)]
    fn of_run(
        run: &Run,
        dataset: &Dataset,
        inputs: &[Input],
        rows: &[Vec<u32>],
        pair: [usize; 2],
        how: &Inference,
        seen: &mut [Option<Landmarks>],
        device: Device,
        stop: &AtomicBool,
        told: &mut dyn FnMut(Inferring),
    ) -> Result<(Inferred, Device)> {
        let (modalities, rows) = (pair.map(|m| dataset.modality(m)), pair.map(|m| &rows[m]));
        let names = modalities.map(|m| m.name());
        let stem = stem(dataset, pair);
        let (path, shape) = (run.dir().join(format!("{stem}.npy")), rows.map(Vec::len));
        let places = [0, 1].map(|m| {
            let mut places = vec![NONE; modalities[m].cells()];
            (0..).zip(rows[m]).for_each(|(place, &row)| places[row as usize] = place);
            places
        });
        let by_landmarks = (how.landmarks > 0).then(|| how.by_landmarks()).transpose()?;
        let ids = |stem: String, m: usize, rows: &mut dyn Iterator<Item = u32>| {
            run.write_ids(&stem, rows.map(|r| modalities[m].cell_id(r as usize)))
        };
        let device = if path.exists() {
            device
        } else {
            let cells = |m: usize| inputs[pair[m]].preprocessed(modalities[m], rows[m]);
            let features = modalities.map(|m| m.features());
            for m in [0, 1] {
                ids(format!("F.{}", names[m]), m, &mut rows[m].iter().copied())?;
            }
            match &by_landmarks {
                None => {
                    let (a, b) = (cells(0)?, cells(1)?);
                    let matrices = [Matrix::new(&a, shape[0], features[0]), Matrix::new(&b, shape[1], features[1])];
                    let (f, device) = correspondence::infer(device, matrices, how, Some(stop), told)?;
                    run.write_matrix(&format!("{stem}.npy"), &f, shape[1])?;
                    device
                }
                Some(options) => {
                    let progress = &mut |r| told(Inferring::Landmarks(r));
                    let mut side = |m: usize| {
                        if let Some(seen) = &seen[pair[m]] {
                            return Ok::<Landmarks, Error>(seen.clone());
                        }
                        let made = Landmarks::new(Matrix::new(&cells(m)?, shape[m], features[m]), options, m, Some(stop), progress)?;
                        Ok(seen[pair[m]].insert(made).clone())
                    };
                    let sides = [side(0)?, side(1)?];
                    let (found, device) = landmarks::between(device, sides, features, options, Some(stop), progress)?;
                    for m in [0, 1] {
                        let marks = &mut found.sides[m].cells.iter().map(|&l| rows[m][l as usize]);
                        ids(format!("{stem}.{}.landmarks", names[m]), m, marks)?;
                    }
                    factors::write(run, &stem, names, &found)?;
                    device
                }
            }
        };
        let open = || match &by_landmarks {
            Some(options) => Ok(Values::Factored(Box::new(Factors::open(run, &stem, names, shape, options)?))),
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
        Ok((Inferred { values, shape, pair, places }, device))
    }

    /// Of values [m, n] between the first m rows of one modality and the first n of the other: for measurements.
    pub fn of_values(pair: [usize; 2], values: Vec<f32>, shape: [usize; 2]) -> Inferred {
        assert_eq!(values.len(), shape[0] * shape[1], "a correspondence of {shape:?}");
        Inferred { values: Values::Held(values), shape, pair, places: shape.map(|n| (0..n as u32).collect()) }
    }

    /// What known pairs of the two modalities say of it, each as much as it is sure; none where there are no pairs. Of many, 256 spread evenly
    /// are asked.
    pub fn of_known(&self, units: &[Unit]) -> Option<Inferring> {
        let pair = |u: &Unit| Some((u.rows[self.pair[0]]?, u.rows[self.pair[1]]?, f64::from(u.confidence)));
        let known: Vec<(u32, u32, f64)> = units.iter().filter_map(pair).collect();
        let asked: Vec<(u32, u32, f64)> = known.iter().copied().step_by(known.len().div_ceil(ASKED).max(1)).collect();
        let columns: Vec<u32> = (0..self.shape[1] as u32).collect();
        let (mut f, mut images) = (vec![0.0; columns.len()], vec![0.0; self.image()]);
        let better = |&(a, b, sure): &(u32, u32, f64)| {
            self.block(&[self.places[0][a as usize]], &columns, &mut images, &mut f);
            let own = f[self.places[1][b as usize] as usize];
            let [more, less] = [f.iter().filter(|&&v| v > own).count(), f.iter().filter(|&&v| v < own).count()];
            // Among equals the partner is in the middle.
            sure * (more + f.len() - less) as f64 / (2 * f.len()) as f64
        };
        let pairs = asked.len();
        let sum: f64 = asked.iter().map(better).sum();
        let sure: f64 = asked.iter().map(|a| a.2).sum();
        let better = sum / sure;
        (sure > 0.0).then_some(Inferring::Known { pairs, better, left_out: sure >= SURE && better >= 0.5 })
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

fn pairs(k: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..k).flat_map(move |i| (i + 1..k).map(move |j| [i, j]))
}

/// That no two pairs' files would be the same: a usage error where modalities' names make them so.
pub fn check_names(dataset: &Dataset) -> Result<()> {
    let mut stems = Vec::new();
    for pair in pairs(dataset.modalities().len()) {
        let stem = stem(dataset, pair);
        if stems.contains(&stem) {
            let [a, b] = pair.map(|m| dataset.modality(m).name());
            return Err(Error::usage(format!(
                "the correspondence of {a} and {b} would be {stem}.npy, as another pair's: give the modalities names without _"
            )));
        }
        stems.push(stem);
    }
    Ok(())
}

/// What the names of a pair's files begin with.
fn stem(dataset: &Dataset, pair: [usize; 2]) -> String {
    let [a, b] = pair.map(|m| dataset.modality(m).name());
    if dataset.modalities().len() > 2 { format!("F.{a}_{b}") } else { "F".to_string() }
}

/// A minibatch's way to its blocks, one a pair of modalities.
pub struct Blocks {
    each: Vec<Option<(Inferred, Source)>>,
}

enum Source {
    /// F whole, and the epoch's rows and columns.
    Resident { whole: Var, orders: [Var; 2], host: Vec<u32> },
    /// A block [B, B], the places in F of its rows and columns, and what making it takes.
    Staged { buffer: Var, host: Vec<f32>, places: [Vec<u32>; 2], images: Vec<f32> },
}

impl Blocks {
    /// `None`: a pair without one. Puts each F on the device while they are no larger than `room` bytes, else makes room for a block of it. `slots` is the longest epoch.
    pub fn new(s: &mut Step, inferred: Vec<Option<Inferred>>, slots: usize, batch: usize, mut room: usize) -> Result<Blocks> {
        s.end();
        let mut each = Vec::with_capacity(inferred.len());
        for inferred in inferred {
            let Some(inferred) = inferred else {
                each.push(None);
                continue;
            };
            let source = match inferred.whole().filter(|f| 4 * f.len() <= room) {
                None => Source::Staged {
                    buffer: s.resident([batch, batch])?,
                    host: vec![0.0; batch * batch],
                    places: [0, 1].map(|_| Vec::with_capacity(batch)),
                    images: vec![0.0; batch * inferred.image()],
                },
                Some(f) => {
                    room -= 4 * f.len();
                    let whole = s.resident(inferred.shape)?;
                    let orders = [s.resident([1, slots])?, s.resident([1, slots])?];
                    for (i, part) in f.chunks(1 << 20).enumerate() {
                        s.upload_at(whole, i << 20, part)?;
                    }
                    Source::Resident { whole, orders, host: Vec::with_capacity(slots) }
                }
            };
            each.push(Some((inferred, source)));
        }
        Ok(Blocks { each })
    }

    /// Takes over an epoch's order.
    pub fn set_order(&mut self, s: &mut Step, plan: &Plan) -> Result<()> {
        for (inferred, source) in self.each.iter_mut().flatten() {
            let Source::Resident { orders, host, .. } = source else { continue };
            for (m, &order) in orders.iter().enumerate() {
                host.clear();
                host.extend(plan.order(inferred.pair[m]).iter().map(|&row| inferred.places[m][row as usize]));
                s.upload(order, host)?;
            }
        }
        Ok(())
    }

    /// What the host has to do before a step on slots `start .. start + rows`.
    pub fn stage(&mut self, s: &mut Step, plan: &Plan, start: usize, rows: usize) -> Result<()> {
        for (inferred, source) in self.each.iter_mut().flatten() {
            let Source::Staged { buffer, host, places, images } = source else { continue };
            for (m, places) in places.iter_mut().enumerate() {
                places.clear();
                let order = &plan.order(inferred.pair[m])[start..start + rows];
                places.extend(order.iter().map(|&row| inferred.places[m][row as usize]));
            }
            let [of_rows, of_columns] = places;
            let images = &mut images[..rows * inferred.image()];
            inferred.block(of_rows, of_columns, images, &mut host[..rows * rows]);
            s.upload(*buffer, &host[..rows * rows])?;
        }
        Ok(())
    }

    /// The blocks [rows, rows] of the step under way, into the places of `blocks`.
    pub fn minibatch(&self, s: &mut Step, rows: usize, blocks: &mut [Var]) {
        for (block, of) in blocks.iter_mut().zip(&self.each) {
            let Some((_, source)) = of else { continue };
            *block = match source {
                Source::Resident { whole, orders, .. } => s.gather_block(*whole, *orders, rows),
                Source::Staged { buffer, .. } if s.dims(*buffer)[0] == rows => *buffer,
                Source::Staged { buffer, .. } => {
                    let part = s.part(*buffer, 0, rows * rows);
                    s.reshaped(part, [rows, rows])
                }
            };
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
        let known = |pairs, better| Some(Inferring::Known { pairs, better, left_out: false });
        let units = [pair(3), Unit { rows: vec![Some(4), None], confidence: 1.0 }, pair(8)];
        let of = |f: &dyn Fn(usize, usize) -> usize| {
            let values = (0..n * n).map(|v| -(f(v / n, v % n) as f32)).collect();
            Inferred::of_values([0, 1], values, [n; 2]).of_known(&units)
        };
        assert_eq!(of(&|i, j| i.abs_diff(j)), known(2, 0.5 / 20.0));
        // 3 lies 13 from 16 and 8 lies 3 from 11, of the cells 17 and 9 to 13 (and their equals) are as near or nearer.
        assert_eq!(of(&|i, j| (n - 1 - i).abs_diff(j)), known(2, (16.5 + 6.0) / 2.0 / 20.0));
        assert_eq!(of(&|_, _| 1), known(2, 0.5));
        assert_eq!(Inferred::of_values([0, 1], vec![0.0; 4], [2; 2]).of_known(&[]), None);
        // All twenty known: a mirror image is left out, the other is not.
        let all: Vec<Unit> = (0..n as u32).map(pair).collect();
        for (mirrored, at) in [(false, 0), (true, n - 1)] {
            let values = (0..n * n).map(|v| -((v / n).abs_diff(if mirrored { at - v % n } else { v % n }) as f32)).collect();
            let said = Inferred::of_values([0, 1], values, [n; 2]).of_known(&all);
            assert!(matches!(said, Some(Inferring::Known { pairs: 20, left_out, .. }) if left_out == mirrored), "{said:?}");
        }
    }

    #[test]
    fn blocks_are_the_same_whether_f_lies_on_the_device_or_is_staged() {
        // Three modalities: the pairs (0, 1), (0, 2) and (1, 2).
        let cells = [30, 40, 35];
        let pairs = [[0, 1], [0, 2], [1, 2]];
        let units = (0..20).map(|i| Unit { rows: vec![Some(i), Some(39 - i), Some(i + 5)], confidence: 1.0 }).collect();
        let mut plan = Plan::drawn(3, 12, cells.map(|n| (0..n).collect()).to_vec(), units, 0.5);
        let shape = |[i, j]: [usize; 2]| [cells[i], cells[j]].map(|n| n as usize);
        let values = |pair: [usize; 2]| (0..shape(pair).iter().product::<usize>()).map(|v| v as f32).collect::<Vec<f32>>();
        let bytes = |pair: [usize; 2]| 4 * shape(pair).iter().product::<usize>();
        // All on the device; the last not; none.
        let room = pairs.map(bytes).iter().sum::<usize>();
        let mut seen = [room, room - 1, 0].map(|room| {
            let mut s = Step::new(Device::cpu(), 1, Precision::F32).unwrap();
            let inferred = pairs.map(|pair| Some(Inferred::of_values(pair, values(pair), shape(pair))));
            let mut blocks = Blocks::new(&mut s, inferred.into(), plan.slots(), plan.batch(), room).unwrap();
            plan.shuffle(2);
            blocks.set_order(&mut s, &plan).unwrap();
            let mut seen = Vec::new();
            for start in [0, 12] {
                blocks.stage(&mut s, &plan, start, 12).unwrap();
                s.begin(true, 1, start).unwrap();
                let mut of = [Var::NONE; 4];
                blocks.minibatch(&mut s, 12, &mut of);
                assert!(of[3].is_none());
                seen.push([0, 1, 2].map(|pair| s.download(of[pair]).unwrap()));
            }
            seen
        });
        for (pair, block) in pairs.iter().zip(&seen[0][1]) {
            let (row, column) = (plan.order(pair[0])[17], plan.order(pair[1])[19]);
            assert_eq!(block[5 * 12 + 7], (row * cells[pair[1]] + column) as f32, "{pair:?}");
        }
        let all = seen[0].split_off(0);
        assert!(seen[1] == all && seen[2] == all);

        // A pair without one leaves the others where they are.
        let mut s = Step::new(Device::cpu(), 1, Precision::F32).unwrap();
        let some = |pair: [usize; 2]| (pair != [0, 2]).then(|| Inferred::of_values(pair, values(pair), shape(pair)));
        let mut blocks = Blocks::new(&mut s, pairs.map(some).into(), plan.slots(), plan.batch(), 0).unwrap();
        blocks.set_order(&mut s, &plan).unwrap();
        blocks.stage(&mut s, &plan, 12, 12).unwrap();
        s.begin(true, 1, 12).unwrap();
        let mut of = [Var::NONE; 3];
        blocks.minibatch(&mut s, 12, &mut of);
        assert!(of[1].is_none() && [0, 2].iter().all(|&pair| s.download(of[pair]).unwrap() == all[1][pair]));
    }
}
