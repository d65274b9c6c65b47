//! A correspondence that was solved between landmarks, kept as its factors: F = W_A F̂ W_Bᵀ, never written out.
//!
//!   F.npy               F̂ [landmarks of A, landmarks of B], as the solver leaves it
//!   F.NAME.near.npy     the landmarks that each training cell has weights on [cells, near], u32
//!   F.NAME.weights.npy  the weights [cells, near], rows that sum to 1
//!   With more than two modalities a pair's names begin with F.A_B in place of F.
//!
//! A block [b, b] costs b near L + b² near operations and 8 b near + 4 L² bytes of the map at most: 4 Mflop for a minibatch of 512 at
//! 1,000 landmarks, whatever the number of cells.

use crate::correspondence::landmarks::{Landmarks, Options, Solution};
use crate::data::mapped::MappedArray;
use crate::data::npy::{Dtype, NpyWriter};
use crate::error::{Error, Result};
use crate::run::Run;
use rayon::prelude::*;

/// The factors, mapped.
pub struct Factors {
    between: MappedArray,
    near: [MappedArray; 2],
    weights: [MappedArray; 2],
    of_each: [usize; 2],
    columns: usize,
}

fn near_file(stem: &str, name: &str) -> String {
    format!("{stem}.{name}.near.npy")
}

fn weights_file(stem: &str, name: &str) -> String {
    format!("{stem}.{name}.weights.npy")
}

/// Writes them into the run, F̂ last: where it is, all are. `stem` is what their names begin with.
pub fn write(run: &Run, stem: &str, names: [&str; 2], found: &Solution) -> Result<()> {
    for (name, side) in names.into_iter().zip(&found.sides) {
        let Landmarks { near, weights, .. } = side;
        let of_each = side.of_each();
        let mut file = NpyWriter::create(&run.dir().join(near_file(stem, name)), Dtype::U32, &[of_each])?;
        file.write(near)?;
        file.finish()?;
        run.write_matrix(&weights_file(stem, name), weights, of_each)?;
    }
    run.write_matrix(&format!("{stem}.npy"), &found.correspondence, found.sides[1].cells.len())
}

impl Factors {
    /// Maps what a run has for so many training cells; each file is checked.
    pub fn open(run: &Run, stem: &str, names: [&str; 2], cells: [usize; 2], options: &Options) -> Result<Factors> {
        let landmarks = cells.map(|n| n.min(options.landmarks));
        let of_each = landmarks.map(|l| l.min(options.near));
        let mapped = |file: &str, dtype, shape: [usize; 2]| {
            let mapped = MappedArray::open(&run.dir().join(file))?;
            mapped.check(dtype, &shape)?;
            Ok::<_, Error>(mapped)
        };
        let side = |m: usize| {
            let shape = [cells[m], of_each[m]];
            let near = mapped(&near_file(stem, names[m]), Dtype::U32, shape)?;
            let weights = mapped(&weights_file(stem, names[m]), Dtype::F32, shape)?;
            if let Some(at) = near.elements::<u32>().iter().position(|&l| l as usize >= landmarks[m]) {
                let message = format!("there are {} landmarks, and it names number {}", landmarks[m], near.elements::<u32>()[at]);
                return Err(Error::input(near.file(), format!("row {}", at / of_each[m]), message));
            }
            Ok((near, weights))
        };
        let (a, b) = (side(0)?, side(1)?);
        let between = mapped(&format!("{stem}.npy"), Dtype::F32, landmarks)?;
        Ok(Factors { between, near: [a.0, b.0], weights: [a.1, b.1], of_each, columns: landmarks[1] })
    }

    /// (landmark, weight) of a training cell.
    fn of(&self, modality: usize, cell: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let at = cell * self.of_each[modality]..(cell + 1) * self.of_each[modality];
        let near = self.near[modality].elements::<u32>()[at.clone()].iter();
        near.map(|&l| l as usize).zip(self.weights[modality].elements::<f32>()[at].iter().copied())
    }

    /// Words that [`Factors::block`] needs for a row: landmarks of B.
    pub fn image(&self) -> usize {
        self.columns
    }

    /// F of these training cells of A and of B, into `out` [rows, columns]; `images` [rows, landmarks of B] is written over.
    pub fn block(&self, rows: &[u32], columns: &[u32], images: &mut [f32], out: &mut [f32]) {
        let f: &[f32] = self.between.elements();
        let places = rows.par_iter().zip(images.par_chunks_exact_mut(self.columns));
        out.par_chunks_exact_mut(columns.len()).zip(places).for_each(|(out, (&row, image))| {
            image.fill(0.0);
            for (l, w) in self.of(0, row as usize).filter(|t| t.1 > 0.0) {
                image.iter_mut().zip(&f[l * self.columns..]).for_each(|(y, f)| *y += w * f);
            }
            for (out, &column) in out.iter_mut().zip(columns) {
                *out = self.of(1, column as usize).map(|(l, w)| w * image[l]).sum();
            }
        });
    }
}
