//! Canonical correlation analysis in closed form: the linear counterpart of coupled autoencoders.
//!
//!   C_aa = L_a·L_aᵀ,  C_bb = L_b·L_bᵀ,   L_a⁻¹·C_ab·L_b⁻ᵀ = U·S·Vᵀ,   W_a = L_a⁻ᵀ·U,  W_b = L_b⁻ᵀ·V
//!
//! Scores (x - mean)·W have unit variance and no correlation among themselves over the training cells, on either side; S holds the
//! canonical correlations. All covariances come from training cells alone.

use crate::engine::linalg::{View, axpy, cholesky, lower_solve, lower_transposed_solve, product, singular_values};

/// One side's projection to the canonical scores.
#[derive(Clone, Debug)]
pub struct Side {
    mean: Vec<f64>,
    weights: Vec<f64>, // [inputs, latent]
}

/// A fitted analysis.
#[derive(Clone, Debug)]
pub struct Cca {
    /// The first modality's projection.
    pub a: Side,
    /// The second modality's projection.
    pub b: Side,
    /// Canonical correlations, descending.
    pub correlations: Vec<f64>,
}

impl Side {
    /// Scores of cells given as [cells, inputs].
    #[track_caller]
    pub fn scores(&self, x: &[f64]) -> Vec<f64> {
        let p = self.mean.len();
        assert!(x.len().is_multiple_of(p), "scores: cells of {p} inputs");
        let (n, latent) = (x.len() / p, self.weights.len() / p);
        let mut scores = vec![0.0; n * latent];
        product(View::new(x, n, p), View::new(&self.weights, p, latent), &mut scores);
        let mut offset = vec![0.0; latent];
        self.weights.chunks_exact(latent).zip(&self.mean).for_each(|(w, m)| axpy(*m, w, &mut offset));
        scores.chunks_exact_mut(latent).for_each(|row| axpy(-1.0, &offset, row));
        scores
    }
}

impl Cca {
    /// At most `latent` canonical dimensions of training cells `a` [n, pa] and `b` [n, pb], row i being the same cell; fewer where the
    /// inputs have fewer. `None` with fewer than two cells, no input, or inputs that are not finite.
    #[track_caller]
    pub fn fit(a: &[f64], b: &[f64], n: usize, latent: usize) -> Option<Cca> {
        if n < 2 {
            return None;
        }
        assert!(a.len().is_multiple_of(n) && b.len().is_multiple_of(n), "cca: {n} cells on both sides");
        let (pa, pb) = (a.len() / n, b.len() / n);
        let latent = latent.min(pa).min(pb).min(n - 1);
        if latent == 0 || a.iter().chain(b).any(|v| !v.is_finite()) {
            return None;
        }
        let ((a, mean_a), (b, mean_b)) = (centred(a, pa), centred(b, pb));
        let covariance = |x: &[f64], p: usize, y: &[f64], q: usize| {
            let mut c = vec![0.0; p * q];
            product(View::new(x, n, p).t(), View::new(y, n, q), &mut c);
            c.iter_mut().for_each(|v| *v /= (n - 1) as f64);
            c
        };
        let (la, lb) = (factor(&covariance(&a, pa, &a, pa), pa)?, factor(&covariance(&b, pb, &b, pb), pb)?);
        // Rows of `m` are columns of the whitened cross-covariance's wider side, so that it has no more rows than columns.
        let (few, many, l_few, l_many, c) =
            if pa <= pb { (pa, pb, &la, &lb, covariance(&a, pa, &b, pb)) } else { (pb, pa, &lb, &la, covariance(&b, pb, &a, pa)) };
        let mut m = c;
        m.chunks_exact_mut(many).for_each(|row| lower_solve(l_many, many, row));
        let mut column = vec![0.0; few];
        for j in 0..many {
            (0..few).for_each(|i| column[i] = m[i * many + j]);
            lower_solve(l_few, few, &mut column);
            (0..few).for_each(|i| m[i * many + j] = column[i]);
        }
        let (mut u, mut s) = (vec![0.0; few * few], vec![0.0; few]);
        singular_values(&mut m, few, many, &mut u, &mut s);
        let latent = s[..latent].iter().take_while(|&&s| s > 1e-12).count();
        if latent == 0 {
            return None;
        }
        let (mut w_few, mut w_many) = (vec![0.0; few * latent], vec![0.0; many * latent]);
        for k in 0..latent {
            let (x, y) = (&mut u[k * few..(k + 1) * few], &mut m[k * many..(k + 1) * many]);
            y.iter_mut().for_each(|v| *v /= s[k]);
            lower_transposed_solve(l_few, few, x);
            lower_transposed_solve(l_many, many, y);
            // Both sides turn together; the weight of greatest size on the narrower side is positive.
            let sign = x.iter().fold(0.0f64, |m, v| if v.abs() > m.abs() { *v } else { m }).signum();
            (0..few).for_each(|i| w_few[i * latent + k] = sign * x[i]);
            (0..many).for_each(|i| w_many[i * latent + k] = sign * y[i]);
        }
        let (wa, wb) = if pa <= pb { (w_few, w_many) } else { (w_many, w_few) };
        // Rounding can leave a correlation a little above one.
        let correlations = s[..latent].iter().map(|s| s.min(1.0)).collect();
        Some(Cca { a: Side { mean: mean_a, weights: wa }, b: Side { mean: mean_b, weights: wb }, correlations })
    }
}

/// Cells minus their mean, and the mean.
fn centred(x: &[f64], p: usize) -> (Vec<f64>, Vec<f64>) {
    let mut mean = vec![0.0; p];
    x.chunks_exact(p.max(1)).for_each(|row| axpy(1.0, row, &mut mean));
    let n = x.len() as f64 / p as f64;
    mean.iter_mut().for_each(|m| *m /= n);
    let mut out = x.to_vec();
    out.chunks_exact_mut(p.max(1)).for_each(|row| axpy(-1.0, &mean, row));
    (out, mean)
}

/// The Cholesky factor of a covariance; one that is singular (more inputs than cells, copies) gets the least of a row of growing
/// ridges that lets it be factored.
fn factor(c: &[f64], p: usize) -> Option<Vec<f64>> {
    let scale = (0..p).map(|i| c[i * p + i]).sum::<f64>() / p as f64;
    [0.0, 1e-12, 1e-10, 1e-8, 1e-6].into_iter().find_map(|ridge| {
        let mut l = c.to_vec();
        (0..p).for_each(|i| l[i * p + i] += ridge * scale);
        cholesky(&mut l, p)?;
        // A pivot at the level of rounding would blow noise up to a unit of variance.
        let sound = (0..p).all(|i| l[i * p + i] * l[i * p + i] > 1e-13 * c[i * p + i].max(1e-3 * scale));
        sound.then_some(l)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    /// Two views of one shared variable, with noise of known size: ρ = 1 / (1 + σ²).
    fn views(n: usize, pa: usize, pb: usize, sigma: f64) -> (Vec<f64>, Vec<f64>) {
        let mut draws = Sequence::new(1, 1, 0);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let shared = f64::from(draws.next_normal());
            let view = |out: &mut Vec<f64>, p: usize, draws: &mut Sequence| {
                let x = shared + sigma * f64::from(draws.next_normal());
                let rest: Vec<f64> = (1..p).map(|_| f64::from(draws.next_normal())).collect();
                out.push(3.0 + 2.0 * x + rest.iter().sum::<f64>());
                out.extend(rest);
            };
            view(&mut a, pa, &mut draws);
            view(&mut b, pb, &mut draws);
        }
        (a, b)
    }

    #[test]
    fn scores_are_white_and_correlate_as_announced() {
        for (pa, pb) in [(3, 5), (5, 3)] {
            let n = 400;
            let (a, b) = views(n, pa, pb, 0.5);
            let cca = Cca::fit(&a, &b, n, 3).expect("full rank");
            assert!((cca.correlations[0] - 0.8).abs() < 0.05 && cca.correlations[1] < 0.3, "{:?}", cca.correlations);
            let (x, y) = (cca.a.scores(&a), cca.b.scores(&b));
            let covariance = |x: &[f64], i: usize, y: &[f64], j: usize| {
                x.chunks_exact(3).zip(y.chunks_exact(3)).map(|(x, y)| x[i] * y[j]).sum::<f64>() / (n - 1) as f64
            };
            for i in 0..3 {
                for j in 0..3 {
                    let same = f64::from(u8::from(i == j));
                    assert!((covariance(&x, i, &x, j) - same).abs() < 1e-10);
                    assert!((covariance(&y, i, &y, j) - same).abs() < 1e-10);
                    assert!((covariance(&x, i, &y, j) - same * cca.correlations[i]).abs() < 1e-10);
                }
            }
        }
    }

    #[test]
    fn degenerate_inputs_give_fewer_dimensions_or_none() {
        let (a, b) = views(50, 2, 2, 0.0);
        let cca = Cca::fit(&a, &b, 50, 9).expect("full rank");
        assert!(cca.correlations.len() == 2 && (cca.correlations[0] - 1.0).abs() < 1e-10);
        // A copied column, a constant one, more inputs than cells.
        let copied: Vec<f64> = a.chunks_exact(2).flat_map(|r| [r[0], r[1], r[0], 1.0]).collect();
        let cca = Cca::fit(&copied, &b, 50, 2).expect("a ridge");
        assert!(cca.a.scores(&copied).iter().all(|v| v.is_finite()));
        assert!(Cca::fit(&a[..12], &b[..12], 3, 2).is_some());
        assert!(Cca::fit(&a[..2], &b[..2], 1, 2).is_none());
        assert!(Cca::fit(&[], &b, 50, 2).is_none());
        assert!(Cca::fit(&[1.0; 100], &b, 50, 2).is_none());
        assert!(Cca::fit(&[f64::NAN; 100], &b, 50, 2).is_none());
    }
}
