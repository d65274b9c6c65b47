//! A modality's rows of non-zeros as a model is given them: from the stored ones through the preprocessing, without ever being dense.
//!
//!   x_row = base + Δ_row      base `[width]`, or empty for zeros; Δ is CSR: starts `[rows + 1]`, columns ascending in a row
//!
//! Possible where the modality is stored sparse, the steps keep it so and the model is given features, not components or canvases.

use super::input::Input;
use crate::data::Modality;
use crate::data::dataset::FETCHED;
use crate::data::preprocess::Preprocess;
use crate::error::{Error, Result};

/// Rows of non-zeros on the host.
#[derive(Clone, Debug, Default)]
pub struct Csr {
    /// [rows + 1]
    pub starts: Vec<u32>,
    /// Of every non-zero.
    pub columns: Vec<u32>,
    /// The non-zeros.
    pub values: Vec<f32>,
}

/// A modality's sparse way in.
#[derive(Clone, Debug)]
pub struct SparseInput {
    preprocess: Preprocess,
    /// By feature of the modality: what its zeros become.
    zero: Vec<f32>,
    /// By feature of the modality: its place among those that the model is given, or [`GONE`]; empty where it is given all.
    places: Vec<u32>,
    /// Whether places ascend, so that chosen columns do too.
    ascending: bool,
    base: Vec<f32>,
    width: usize,
    row: Vec<(u32, f32)>,
}

const GONE: u32 = u32::MAX;

impl SparseInput {
    /// `None` where rows would not be sparse, or the model is given something else than features.
    pub fn of(input: &Input, modality: &Modality) -> Option<SparseInput> {
        if !input.gives_features() {
            return None;
        }
        let (preprocess, width) = (input.preprocess().clone(), input.width());
        let zero = preprocess.zero(modality)?;
        let (mut places, mut base) = (Vec::new(), zero.clone());
        if let Some(columns) = input.columns() {
            places = vec![GONE; modality.features()];
            (0..).zip(columns).for_each(|(place, &c)| places[c as usize] = place);
            base = if zero.is_empty() { zero.clone() } else { columns.iter().map(|&c| zero[c as usize]).collect() };
        }
        let ascending = places.iter().filter(|p| **p != GONE).is_sorted();
        Some(SparseInput { preprocess, zero, places, ascending, base, width, row: Vec::new() })
    }

    /// What a zero is for the model, empty if it is 0.
    pub fn base(&self) -> &[f32] {
        &self.base
    }

    /// How many numbers a model is given of a cell.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many non-zeros a row has for the model.
    pub fn count(&self, modality: &Modality, row: usize) -> Result<usize> {
        let indices = modality.sparse_row(row)?.map_or(&[][..], |(indices, _)| indices);
        if self.places.is_empty() {
            return Ok(indices.len());
        }
        let given = |i: &&i32| self.places.get(**i as usize).is_some_and(|&p| p != GONE);
        Ok(indices.iter().filter(given).count())
    }

    /// Rows of the modality in place of what `out` holds. An error names the cell and the feature.
    pub fn rows(&mut self, modality: &Modality, rows: &[u32], out: &mut Csr) -> Result<()> {
        out.columns.clear();
        out.values.clear();
        out.starts.clear();
        out.starts.push(0);
        for (i, &row) in rows.iter().enumerate() {
            if i % FETCHED == 0 {
                modality.fetch(&rows[i..rows.len().min(i + FETCHED)]);
            }
            let first = out.columns.len();
            self.preprocess.sparse_row(modality, row as usize, &self.zero, &mut out.columns, &mut out.values)?;
            if !self.places.is_empty() {
                self.choose(first, out);
            }
            let end = u32::try_from(out.columns.len()).map_err(|_| Error::usage("a minibatch has more than 2^32 non-zeros"))?;
            out.starts.push(end);
        }
        Ok(())
    }

    /// Of the last row's entries, from `first` on, those that the model is given, at their places.
    fn choose(&mut self, first: usize, out: &mut Csr) {
        let mut kept = first;
        for e in first..out.columns.len() {
            let place = self.places[out.columns[e] as usize];
            if place != GONE {
                (out.columns[kept], out.values[kept]) = (place, out.values[e]);
                kept += 1;
            }
        }
        out.columns.truncate(kept);
        out.values.truncate(kept);
        if !self.ascending {
            self.row.clear();
            self.row.extend(out.columns[first..].iter().copied().zip(out.values[first..].iter().copied()));
            self.row.sort_unstable_by_key(|e| e.0);
            let to = out.columns[first..].iter_mut().zip(&mut out.values[first..]);
            to.zip(&self.row).for_each(|((c, v), e)| (*c, *v) = *e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::{ModalitySource, RowsAre};
    use crate::data::import::{ImportSpec, import};
    use crate::data::preprocess::Recipe;
    use crate::data::{Dataset, Hooks};

    #[test]
    fn chosen_features_come_at_their_places_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.mtx");
        std::fs::write(&file, "%%MatrixMarket matrix coordinate integer general\n3 4 6\n1 1 4\n1 4 2\n2 2 3\n3 1 2\n3 3 7\n3 4 1\n")
            .unwrap();
        let modalities = vec![ModalitySource { name: "x".into(), file, key: None }];
        let spec = ImportSpec { modalities, rows: Some(RowsAre::Cells), ..Default::default() };
        import(&spec, &dir.path().join("d"), &mut Hooks::default()).unwrap();
        let d = Dataset::open(&dir.path().join("d")).unwrap();
        let (m, rows) = (d.modality(0), [2, 0, 1]);
        for recipe in ["log1p", "counts10k-log1p,standardise,clip10"] {
            let preprocess = Preprocess::fit(m, &rows, &Recipe::parse(recipe).unwrap()).unwrap();
            for columns in [None, Some(vec![0, 2, 3]), Some(vec![3, 0])] {
                let mut input = Input::of(preprocess.clone(), columns.clone());
                let mut sparse = SparseInput::of(&input, m).unwrap();
                let (width, mut dense, mut csr) = (input.width(), vec![0.0; 3 * input.width()], Csr::default());
                input.rows(m, &rows, &mut dense).unwrap();
                sparse.rows(m, &rows, &mut csr).unwrap();
                let mut made = vec![0.0; 3 * width];
                for (r, made) in made.chunks_exact_mut(width).enumerate() {
                    made.iter_mut().zip(sparse.base()).for_each(|(m, b)| *m = *b);
                    let part = csr.starts[r] as usize..csr.starts[r + 1] as usize;
                    assert!(csr.columns[part.clone()].is_sorted_by(|a, b| a < b));
                    assert_eq!(sparse.count(m, rows[r] as usize).unwrap(), part.len());
                    part.for_each(|e| made[csr.columns[e] as usize] += csr.values[e]);
                }
                assert!(made.iter().zip(&dense).all(|(a, b)| (a - b).abs() < 1e-6), "{recipe} {columns:?}: {made:?} for {dense:?}");
            }
        }
    }
}
