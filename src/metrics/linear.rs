//! How much of a number is in a code, linearly: R² of least squares with an intercept, on the cells it is fitted to.
//!
//!   R² = Σ_i (v_iᵀ b)² / λ_i / Σ (y - ȳ)²      C = XcᵀXc = Σ λ_i v_i v_iᵀ,  b = Xcᵀ (y - ȳ);  directions without variance left out
//!
//! Fitted and told on the same cells, d dimensions explain d/(n - 1) of pure noise: with fewer than [`CELLS`] cells a dimension there
//! is no value.

use super::Matrix;
use crate::engine::linalg::{axpy, dot, symmetric_eigen};

/// Cells a dimension (and the intercept) that a value wants: noise alone then has an R² of a tenth at most.
pub const CELLS: usize = 10;
/// Directions whose variance is below this fraction of the largest are rounding errors.
const NEGLIGIBLE: f64 = 1e-10;

/// R² of `points`, (row of `cells`, number). `None` with too few cells or a number that does not vary.
pub fn r2(cells: Matrix<'_>, points: &[(u32, f32)]) -> Option<f64> {
    let (n, d) = (points.len(), cells.cols());
    if n < CELLS * (d + 1) {
        return None;
    }
    let mut means = vec![0.0; d];
    points.iter().for_each(|p| means.iter_mut().zip(cells.row(p.0 as usize)).for_each(|(m, &x)| *m += f64::from(x)));
    means.iter_mut().for_each(|m| *m /= n as f64);
    let mean = points.iter().map(|p| f64::from(p.1)).sum::<f64>() / n as f64;
    let (mut c, mut b, mut total, mut row) = (vec![0.0; d * d], vec![0.0; d], 0.0, vec![0.0; d]);
    for &(r, y) in points {
        let y = f64::from(y) - mean;
        row.iter_mut().zip(cells.row(r as usize)).zip(&means).for_each(|((row, &x), m)| *row = f64::from(x) - m);
        (0..d).for_each(|i| axpy(row[i], &row, &mut c[i * d..(i + 1) * d]));
        axpy(y, &row, &mut b);
        total += y * y;
    }
    let (values, vectors) = symmetric_eigen(&mut c, d)?;
    let floor = NEGLIGIBLE * values.last().copied().unwrap_or(0.0);
    let explained: f64 = (0..d)
        .filter(|&i| values[i] > floor)
        .map(|i| {
            let v: Vec<f64> = (0..d).map(|j| vectors[j * d + i]).collect();
            dot(&v, &b).powi(2) / values[i]
        })
        .sum();
    (total > 0.0 && total.is_finite()).then(|| (explained / total).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn a_linear_function_is_explained_whole_half_or_not_at_all() {
        let n = 4000;
        let mut draw = Sequence::new(3, 1, 0);
        let mut x = vec![0f32; n * 3];
        for row in x.chunks_exact_mut(3) {
            row[0] = 5.0 + draw.next_normal();
            row[1] = 0.1 * draw.next_normal();
            row[2] = row[0] - 2.0 * row[1]; // no dimension of its own
        }
        let cells = Matrix::new(&x, n, 3);
        let told = |f: &mut dyn FnMut(&[f32]) -> f32| r2(cells, &(0..n).map(|i| (i as u32, f(cells.row(i)))).collect::<Vec<_>>());
        assert!((told(&mut |x| 3.0 * x[0] - 20.0 * x[1] + 7.0).unwrap() - 1.0).abs() < 1e-6);
        let half = told(&mut |x| x[0] + draw.next_normal()).unwrap();
        assert!((half - 0.5).abs() < 0.05, "{half}");
        let none = told(&mut |_| draw.next_normal()).unwrap();
        assert!(none < 0.005, "{none}");
        assert_eq!(told(&mut |_| 2.0), None, "a constant has no variance to explain");
        assert_eq!(r2(cells, &(0..39).map(|i| (i, i as f32)).collect::<Vec<_>>()), None, "39 cells for three dimensions");
    }
}
