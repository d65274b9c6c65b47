//! Whether a latent code has collapsed, which a reconstruction error does not show.
//!
//!   rms                root of the mean square of the codes
//!   singular values    of the centred cells x latent matrix divided by √(n - 1): the deviations along its principal axes, descending
//!   ratio              least over greatest: 1 is white, 0 is flat

use super::matrix::Matrix;
use crate::engine::linalg::singular_values;

/// The spread of a code.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Root of the mean square of all codes, not centred.
    pub rms: f64,
    /// Singular values of the centred codes over √(n - 1), descending, one a latent dimension.
    pub singular: Vec<f64>,
    /// Least over greatest singular value; 0 if the code is one point.
    pub ratio: f64,
}

/// The spread of the codes of `rows`. `None` with fewer than two cells or no dimension.
pub fn spread(codes: Matrix<'_>, rows: &[u32]) -> Option<Spread> {
    let (n, p) = (rows.len(), codes.cols());
    if n < 2 || p == 0 {
        return None;
    }
    let mut lines = vec![0.0; p * n]; // latent x cells, centred
    let mut square = 0.0;
    for (d, line) in lines.chunks_exact_mut(n).enumerate() {
        line.iter_mut().zip(rows).for_each(|(x, &r)| *x = f64::from(codes.row(r as usize)[d]));
        square += line.iter().map(|x| x * x).sum::<f64>();
        let mean = line.iter().sum::<f64>() / n as f64;
        line.iter_mut().for_each(|x| *x -= mean);
    }
    let scale = 1.0 / ((n - 1) as f64).sqrt();
    lines.iter_mut().for_each(|x| *x *= scale);
    let mut singular = vec![0.0; p];
    if p <= n {
        singular_values(&mut lines, p, n, &mut vec![0.0; p * p], &mut singular);
    } else {
        // Fewer cells than dimensions: the rest of the spectrum is zero.
        let mut transposed: Vec<f64> = (0..n * p).map(|x| lines[x % p * n + x / p]).collect();
        singular_values(&mut transposed, n, p, &mut vec![0.0; n * n], &mut singular[..n]);
    }
    let greatest = singular[0];
    let ratio = if greatest > 0.0 { singular[p - 1] / greatest } else { 0.0 };
    Some(Spread { rms: (square / (n * p) as f64).sqrt(), singular, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_a_known_code() {
        // x = ±2, y = ±1 independent: variances 4·4/3 and 4/3.
        let values = [2.0, 1.0, 2.0, -1.0, -2.0, 1.0, -2.0, -1.0];
        let m = Matrix::new(&values, 4, 2);
        let s = spread(m, &m.all_rows()).expect("four cells");
        assert!((s.rms - 2.5f64.sqrt()).abs() < 1e-15);
        assert!((s.singular[0] - (16.0f64 / 3.0).sqrt()).abs() < 1e-14 && (s.ratio - 0.5).abs() < 1e-14);
    }

    #[test]
    fn spread_sees_copies_points_and_more_dimensions_than_cells() {
        let copies = [1.0, 1.0, 2.0, 2.0, 5.0, 5.0];
        let s = spread(Matrix::new(&copies, 3, 2), &[0, 1, 2]).expect("three cells");
        assert!(s.ratio < 1e-12 && s.singular[0] > 1.0);
        let s = spread(Matrix::new(&[1.0; 6], 3, 2), &[0, 1, 2]).expect("three cells");
        assert_eq!((s.ratio, s.rms), (0.0, 1.0));
        let s = spread(Matrix::new(&copies, 2, 3), &[0, 1]).expect("two cells");
        assert!(s.singular.len() == 3 && s.singular[0] > 0.0 && s.singular[2] == 0.0);
        assert_eq!(spread(Matrix::new(&copies, 3, 2), &[0]), None);
        assert_eq!(spread(Matrix::new(&[], 3, 0), &[0, 1]), None);
    }
}
