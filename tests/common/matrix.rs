//! A modality's values in memory.

use couplet::data::Dataset;

/// Cells by features.
pub fn matrix(dataset: &Dataset, modality: usize) -> Vec<Vec<f32>> {
    let m = dataset.modality(modality);
    let read = |row| {
        let mut out = vec![0.0; m.features()];
        m.row_into(row, &mut out).unwrap();
        out
    };
    (0..m.cells()).map(read).collect()
}
