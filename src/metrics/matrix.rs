//! What every metric takes: a borrowed row-major matrix of f32, cells x features or cells x latent. And the streams they draw from.

/// A borrowed row-major matrix: one row a cell.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// `values` is [rows, cols].
    #[track_caller]
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols, "a matrix of {rows} cells x {cols} features");
        Matrix { values, rows, cols }
    }

    /// Number of cells.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of features or latent dimensions.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// One cell.
    #[track_caller]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.cols..(i + 1) * self.cols]
    }

    /// Row numbers 0, 1, ... as the functions that take a subset want them.
    pub fn all_rows(&self) -> Vec<u32> {
        (0..self.rows as u32).collect()
    }

    /// A copy of some rows, in the order given.
    pub fn gather(&self, rows: &[u32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(rows.len() * self.cols);
        rows.iter().for_each(|&r| out.extend_from_slice(self.row(r as usize)));
        out
    }
}

/// Streams of random numbers, one a purpose, in a range that training does not draw from.
pub(super) mod stream {
    /// Which cells a sampled silhouette is of.
    pub const SILHOUETTE: u32 = 0x6d65_0001;
    /// Which fold a cell falls into.
    pub const FOLDS: u32 = 0x6d65_0002;
    /// Directions from which a subspace iteration starts.
    pub const PCA: u32 = 0x6d65_0003;
    /// Seeds of mixtures; the step is the number of the start.
    pub const MIXTURE: u32 = 0x6d65_0004;
    /// Which training cells mixtures are fitted to.
    pub const SAMPLE: u32 = 0x6d65_0005;
    /// The order in which a support vector machine takes cells; the step is the class.
    pub const SVM: u32 = 0x6d65_0006;
}
