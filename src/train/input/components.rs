//! A modality as its principal components: fitted in passes over the mapped training cells, one scalar for all of them.

use crate::data::Modality;
use crate::data::preprocess::Preprocess;
use crate::device::cpu_gemm::{Layout, gemm};
use crate::error::Result;
use crate::metrics::pca::Pca;
use crate::metrics::pca::streaming::Rows;
use rayon::prelude::*;

/// The training cells after the preprocessing steps, as they pass by.
struct Training<'a> {
    preprocess: &'a Preprocess,
    modality: &'a Modality,
    rows: &'a [u32],
    columns: Option<&'a [u32]>,
}

impl Rows for Training<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.rows.len(), self.columns.map_or(self.preprocess.features(), <[u32]>::len)]
    }

    fn read(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        let Training { preprocess, modality, rows, columns } = *self;
        let each = || out.len() / self.shape()[1].max(1);
        let rows = &rows[first..first + each()];
        let read = |scratch: &mut Vec<f32>, (out, &row): (&mut [f32], &u32)| {
            let Some(columns) = columns else { return preprocess.row(modality, row as usize, out) };
            scratch.resize(preprocess.features(), 0.0);
            preprocess.row(modality, row as usize, scratch)?;
            out.iter_mut().zip(columns).for_each(|(out, &c)| *out = scratch[c as usize]);
            Ok(())
        };
        let width = self.shape()[1].max(1);
        let done = out.par_chunks_exact_mut(width).zip(rows).try_for_each_init(Vec::new, read);
        // Of several rows that cannot be read, the first is named.
        done.or_else(|_| out.chunks_exact_mut(width).zip(rows).try_for_each(|row| read(&mut Vec::new(), row)))
    }
}

/// Principal components and the one scalar that scales them.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    pub width: usize,
    /// The features that the components are of, if not all: as many as `centre` is long.
    pub columns: Option<Vec<u32>>,
    /// [width, features]; rows beyond the rank of the training cells are zero.
    pub components: Vec<f32>,
    /// [features]
    pub centre: Vec<f32>,
    /// [width]: V·m, taken off the scores.
    pub offset: Vec<f32>,
    pub mean: f32,
    pub deviation: f32,
}

impl Projection {
    /// The first `width` principal components of these features of the training cells, or of all features.
    pub(super) fn fit(
        preprocess: &Preprocess,
        modality: &Modality,
        rows: &[u32],
        columns: Option<Vec<u32>>,
        width: usize,
        seed: u64,
    ) -> Result<Projection> {
        let features = columns.as_ref().map_or(modality.features(), Vec::len);
        let mut training = Training { preprocess, modality, rows, columns: columns.as_deref() };
        let fitted = Pca::fit_streaming(&mut training, width, seed)?;
        let mut projection = Projection {
            width,
            columns,
            components: vec![0.0; width * features],
            centre: vec![0.0; features],
            offset: vec![0.0; width],
            mean: 0.0,
            deviation: 1.0,
        };
        if let Some(pca) = fitted {
            projection.components.iter_mut().zip(&pca.components).for_each(|(to, from)| *to = *from as f32);
            projection.centre.iter_mut().zip(&pca.mean).for_each(|(to, from)| *to = *from as f32);
            projection.set_offset();
            // Scores of the training cells have mean 0 along every component.
            let squares = pca.variance.iter().sum::<f64>() * (rows.len() - 1) as f64;
            projection.deviation = (squares / (rows.len() * width) as f64).sqrt() as f32;
        }
        Ok(projection)
    }

    /// One feature of a cell from its scores.
    pub(super) fn feature(&self, y: &[f32], feature: usize) -> f32 {
        let column = self.components.iter().skip(feature).step_by(self.centre.len());
        let sum: f64 = y.iter().zip(column).map(|(s, v)| (s * self.deviation + self.mean) as f64 * *v as f64).sum();
        (sum + self.centre[feature] as f64) as f32
    }

    pub(super) fn set_offset(&mut self) {
        let dot = |v: &[f32]| v.iter().zip(&self.centre).map(|(v, m)| *v as f64 * *m as f64).sum::<f64>() as f32;
        self.offset = self.components.chunks_exact(self.centre.len()).map(dot).collect();
    }

    /// Scores of `rows` cells x [rows, features] in the model's units: `out` [rows, width].
    pub(super) fn forward(&self, x: &[f32], rows: usize, out: &mut [f32]) {
        let (mean, over) = (self.mean, 1.0 / self.deviation);
        gemm(
            Layout::NT,
            [rows, self.width, self.centre.len()],
            out,
            x,
            &self.components,
            false,
            rayon::current_num_threads(),
            |first, row| {
                row.iter_mut().zip(&self.offset[first..]).for_each(|(s, o)| *s = (*s - o - mean) * over);
            },
        );
    }

    /// The preprocessed features of scores y [rows, width]: `out` [rows, features].
    pub(super) fn backward(&self, y: &[f32], out: &mut [f32]) {
        let scores: Vec<f32> = y.iter().map(|s| s * self.deviation + self.mean).collect();
        let rows = y.len() / self.width;
        let sizes = [rows, self.centre.len(), self.width];
        gemm(Layout::NN, sizes, out, &scores, &self.components, false, rayon::current_num_threads(), |first, row| {
            row.iter_mut().zip(&self.centre[first..]).for_each(|(x, m)| *x += m);
        });
    }
}
