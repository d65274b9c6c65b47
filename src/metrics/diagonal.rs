//! Canonical variables of two modalities that have their features, and not their cells, in common: what integration of unpaired cells by
//! learning is held against.
//!
//!   X Yᵀ = U S Vᵀ                        X [n, d], Y [m, d] cells standardised by feature; U_k, V_k the variables of the cells
//!   C_x = XᵀX = Q L Qᵀ,  C_y = YᵀY       M = L^½ Qᵀ C_y Q L^½ = W S² Wᵀ,   w_y = Q L^½ W / S,   w_x = C_y w_y / S
//!   U = X w_x,  V = Y w_y                 since X Yᵀ V = X C_y w_y and Uᵀ U = Wᵀ M M W / S⁴ = I; nothing is inverted
//!
//! It is CCA with the covariance within each modality taken to be diagonal, as if features did not correlate: cells take the place of
//! variables. n x m values are never held, three matrices of d x d are: memory and time (two decompositions, 18 d³) do not grow with the
//! cells beyond a pass over each modality. More than [`pca::EXACT`](super::pca::EXACT) features are not decomposed. New cells of either
//! modality get their variables by the same weights. Cells then differ in length as they do in depth: [`Diagonal::of`] gives rows of
//! length 1, by which labels are carried over more surely than by the raw ones.
//! Source: Butler, Hoffman, Smibert, Papalexi and Satija, Nature Biotechnology 36 (2018) 411-420 (Seurat's alignment).

use super::matrix::Matrix;
use super::pca::{EXACT, streaming};
use crate::engine::linalg::{View, dot, product, symmetric_eigen};

/// Canonical variables that are used, as by Seurat's default.
pub const VARIABLES: usize = 20;
/// Singular values below this fraction of the first are rounding errors: their squares come out of M, which is good to 10⁻⁶ of its largest.
const NEGLIGIBLE: f64 = 1e-3;

/// Weights of the features of two modalities.
#[derive(Clone, Debug)]
pub struct Diagonal {
    /// [features, variables], one a modality.
    weights: [Vec<f64>; 2],
    /// The singular values of X Yᵀ, descending.
    pub strengths: Vec<f64>,
}

impl Diagonal {
    /// At most `k` variables of cells x and y; fewer where fewer are common to them. `None` if there is none, a value is not finite, or there
    /// are more than [`EXACT`] features.
    #[track_caller]
    pub fn fit(mut x: Matrix<'_>, mut y: Matrix<'_>, k: usize) -> Option<Diagonal> {
        let d = x.cols();
        assert_eq!(d, y.cols(), "diagonal cca: the modalities have the same features");
        if d == 0 || d > EXACT {
            return None;
        }
        let [mut cx, cy] = [streaming::gram(&mut x), streaming::gram(&mut y)].map(|c| c.expect("cells in memory are read"));
        let (values, mut half) = symmetric_eigen(&mut cx, d)?;
        // Q L^½, in place; rounding may leave a variance a little below 0.
        half.chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(&values).for_each(|(q, l)| *q *= l.max(0.0).sqrt()));
        let (mut right, mut m) = (vec![0.0; d * d], cx);
        product(View::new(&cy, d, d), View::new(&half, d, d), &mut right);
        product(View::new(&half, d, d).t(), View::new(&right, d, d), &mut m);
        let (squares, w) = symmetric_eigen(&mut m, d)?;
        let strengths: Vec<f64> = squares.iter().rev().take(k).map(|s| s.max(0.0).sqrt()).collect();
        let floor = NEGLIGIBLE * strengths.first()?;
        let kept = strengths.iter().take_while(|&&s| s > floor).count();
        if kept == 0 {
            return None;
        }
        let turn: Vec<f64> = (0..d * kept).map(|e| w[e / kept * d + d - 1 - e % kept] / strengths[e % kept]).collect();
        let (mut of_y, mut of_x) = (vec![0.0; d * kept], vec![0.0; d * kept]);
        product(View::new(&half, d, d), View::new(&turn, d, kept), &mut of_y);
        product(View::new(&cy, d, d), View::new(&of_y, d, kept), &mut of_x);
        of_x.chunks_exact_mut(kept).for_each(|row| row.iter_mut().zip(&strengths).for_each(|(x, s)| *x /= s));
        Some(Diagonal { weights: [of_x, of_y], strengths: strengths[..kept].to_vec() })
    }

    /// Number of variables.
    pub fn variables(&self) -> usize {
        self.strengths.len()
    }

    /// The variables of cells of a modality, 0 or 1: U or V where they are the cells that it was fitted to.
    #[track_caller]
    pub fn scores(&self, modality: usize, cells: Matrix<'_>) -> Vec<f64> {
        let mut scores = vec![0.0; cells.rows() * self.variables()];
        let weights = View::new(&self.weights[modality], cells.cols(), self.variables());
        product(View::new(cells.values(), cells.rows(), cells.cols()), weights, &mut scores);
        scores
    }

    /// The same, a cell's row divided by its length.
    #[track_caller]
    pub fn of(&self, modality: usize, cells: Matrix<'_>) -> Vec<f32> {
        let mut scores = self.scores(modality, cells);
        scores.chunks_exact_mut(self.variables()).for_each(|row| {
            let length = dot(row, row).sqrt().max(1e-300);
            row.iter_mut().for_each(|v| *v /= length);
        });
        scores.into_iter().map(|v| v as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::linalg::singular_values;
    use crate::engine::rng::Sequence;

    /// Cells of `shared` directions of features that both modalities have and of one that is their own, with noise; and the shared coordinates.
    fn cells(n: usize, d: usize, shared: usize, modality: u32, noise: f32) -> (Vec<f32>, Vec<f32>) {
        let mut common = Sequence::new(3, 7, 0);
        let axes: Vec<f32> = (0..shared * d).map(|_| common.next_normal()).collect();
        let mut draw = Sequence::new(3, 8, modality);
        let own: Vec<f32> = (0..d).map(|_| draw.next_normal()).collect();
        let (mut x, mut z) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let at: Vec<f32> = (0..=shared).map(|_| draw.next_normal()).collect();
            x.extend((0..d).map(|g| {
                let signal: f32 = (0..shared).map(|k| (2.0 - 0.5 * k as f32) * at[k] * axes[k * d + g]).sum();
                signal + 3.0 * at[shared] * own[g] + noise * draw.next_normal()
            }));
            z.extend_from_slice(&at[..shared]);
        }
        (x, z)
    }

    #[test]
    fn variables_are_the_singular_vectors_of_the_cells_by_cells_matrix() {
        // More cells than features on one side and fewer on the other; then fewer on both: directions without variance are there.
        for (n, m, d) in [(40, 25, 30), (12, 9, 30)] {
            let ((x, _), (y, _)) = (cells(n, d, 2, 0, 0.5), cells(m, d, 2, 1, 0.5));
            let (mx, my) = (Matrix::new(&x, n, d), Matrix::new(&y, m, d));
            let mut dense = vec![0.0; m * n];
            product(View::new(&y, m, d), View::new(&x, n, d).t(), &mut dense);
            // Rows of `u` are left vectors of y xᵀ, rows of what `dense` becomes are right ones times s.
            let (mut u, mut s) = (vec![0.0; m * m], vec![0.0; m]);
            singular_values(&mut dense, m, n, &mut u, &mut s);
            let found = Diagonal::fit(mx, my, 6).unwrap();
            assert_eq!(found.variables(), 6);
            let (of_x, of_y) = (found.scores(0, mx), found.scores(1, my));
            for k in 0..6 {
                assert!((found.strengths[k] / s[k] - 1.0).abs() < 1e-4, "{:?} {s:?}", found.strengths);
                let along = |scores: &[f64], v: &dyn Fn(usize) -> f64| (0..scores.len() / 6).map(|i| scores[6 * i + k] * v(i)).sum::<f64>();
                let (a, b) = (along(&of_x, &|i| dense[k * n + i] / s[k]), along(&of_y, &|i| u[k * m + i]));
                assert!((a.abs() - 1.0).abs() < 1e-4 && (b.abs() - 1.0).abs() < 1e-4, "{n} {m}, variable {k}: {a} {b}");
                assert!(a * b > 0.0, "both sides turn together");
                for j in 0..6 {
                    let same = f64::from(u8::from(j == k));
                    assert!((along(&of_x, &|i| of_x[6 * i + j]) - same).abs() < 1e-4);
                    assert!((along(&of_y, &|i| of_y[6 * i + j]) - same).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn a_shared_signal_is_found_under_stronger_ones_of_each_modalitys_own() {
        let (n, m, d) = (600, 500, 60);
        let ((x, _), (y, z)) = (cells(n, d, 2, 0, 1.0), cells(m, d, 2, 1, 1.0));
        let (mx, my) = (Matrix::new(&x, n, d), Matrix::new(&y, m, d));
        let found = Diagonal::fit(mx, my, 2).unwrap();
        let scores: Vec<f32> = found.scores(1, my).iter().map(|&v| v as f32).collect();
        for k in 0..2 {
            let points: Vec<(u32, f32)> = (0..m as u32).map(|i| (i, z[2 * i as usize + k])).collect();
            let r2 = super::super::linear::r2(Matrix::new(&scores, m, 2), &points).unwrap();
            assert!(r2 > 0.8, "coordinate {k}: {r2}");
        }
        let rows = found.of(0, mx);
        assert!(rows.chunks_exact(2).all(|r| (r[0].hypot(r[1]) - 1.0).abs() < 1e-5));
    }

    #[test]
    fn what_cannot_be_said_is_none() {
        let (x, _) = cells(8, 5, 1, 0, 0.1);
        let zero = [0.0; 40];
        let (mx, nothing) = (Matrix::new(&x, 8, 5), Matrix::new(&zero, 8, 5));
        assert!(Diagonal::fit(mx, nothing, 3).is_none() && Diagonal::fit(nothing, mx, 3).is_none());
        assert!(Diagonal::fit(mx, Matrix::new(&[f32::NAN; 5], 1, 5), 3).is_none());
        assert_eq!(Diagonal::fit(mx, Matrix::new(&x[..5], 1, 5), 3).unwrap().variables(), 1, "one cell has one direction");
        let wide = vec![1.0; EXACT + 1];
        assert!(Diagonal::fit(Matrix::new(&wide, 1, EXACT + 1), Matrix::new(&wide, 1, EXACT + 1), 3).is_none());
        assert!(Diagonal::fit(Matrix::new(&[], 0, 5), mx, 3).is_none());
    }
}
