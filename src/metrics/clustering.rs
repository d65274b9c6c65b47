//! Gaussian mixtures by expectation-maximisation, and how well clusters found in one modality's codes agree with another's.
//!
//!   r_nk = π_k N(z_n | μ_k, Σ_k) / Σ_j π_j N(z_n | μ_j, Σ_j)                               in logarithms
//!   π_k = N_k / N,  μ_k = Σ_n r_nk z_n / N_k,  Σ_k = Σ_n r_nk (z_n - μ_k)(z_n - μ_k)ᵀ / N_k + r·I
//!
//! Full covariances; r is 1e-6 of the codes' mean variance. Each start draws k-means++ seeds, takes a few k-means steps, then EM until
//! the mean log-likelihood gains less than the tolerance; the start of the greatest likelihood is kept.
//! Sums over cells are taken block by block in order, so that clusters do not depend on the number of threads.

use super::agreement::adjusted_mutual_information;
use super::matrix::{Matrix, stream};
use crate::engine::linalg::{axpy, cholesky};
use crate::engine::rng::Sequence;
use rayon::prelude::*;

/// Cells of a block.
const BLOCK: usize = 256;
/// Cells that go through the triangular solves side by side.
const LANES: usize = 16;
/// k-means steps before EM.
const LLOYD: usize = 8;

/// How a mixture is sought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureSettings {
    /// Independent initialisations (the paper takes 100).
    pub starts: usize,
    /// EM steps a start at most.
    pub steps: usize,
    /// A start ends when the mean log-likelihood of a cell gains less.
    pub tolerance: f64,
    /// Added to the diagonal of covariances, as a fraction of the codes' mean variance.
    pub regularisation: f64,
    /// Of the draws.
    pub seed: u64,
}

impl Default for MixtureSettings {
    fn default() -> Self {
        MixtureSettings { starts: 10, steps: 200, tolerance: 1e-4, regularisation: 1e-6, seed: 0 }
    }
}

/// A fitted mixture.
#[derive(Clone, Debug)]
pub struct Mixture {
    p: usize,
    components: Vec<Component>,
    /// Mean log-likelihood of a training cell.
    pub log_likelihood: f64,
}

#[derive(Clone, Debug)]
struct Component {
    log_weight: f64, // -∞ for a component that has lost its cells
    mean: Vec<f64>,
    factor: Vec<f64>, // lower triangle
    half_log_det: f64,
}

/// Sums over cells, about reference points (the means before the step) so that no large number is squared.
#[derive(Clone)]
struct Sums {
    log_likelihood: f64,
    weight: Vec<f64>, // k
    first: Vec<f64>,  // k x p
    second: Vec<f64>, // k x p x p, lower triangles
}

impl Mixture {
    /// Fits `k` components to the codes of `rows`. `None` if there are fewer cells than components, or codes are not finite.
    pub fn fit(codes: Matrix<'_>, rows: &[u32], k: usize, settings: MixtureSettings) -> Option<Mixture> {
        let (n, p) = (rows.len(), codes.cols());
        let z: Vec<f64> = rows.iter().flat_map(|&r| codes.row(r as usize)).map(|&v| f64::from(v)).collect();
        if k == 0 || n < k || p == 0 || z.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let mut variance = 0.0;
        for d in 0..p {
            let mean = z.iter().skip(d).step_by(p).sum::<f64>() / n as f64;
            variance += z.iter().skip(d).step_by(p).map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64 / p as f64;
        }
        // A code that is one point still has a density: any positive width will do.
        let ridge = if variance > 0.0 { settings.regularisation * variance } else { 1.0 };
        let fits: Vec<Option<Mixture>> =
            (0..settings.starts.max(1)).into_par_iter().map(|start| one_start(&z, p, k, ridge, start, settings)).collect();
        let better = |best: Option<Mixture>, next: Mixture| match best {
            Some(best) if best.log_likelihood >= next.log_likelihood => Some(best),
            _ => Some(next),
        };
        fits.into_iter().flatten().fold(None, better)
    }

    /// The component of greatest posterior probability of each of `rows`.
    #[track_caller]
    pub fn labels(&self, codes: Matrix<'_>, rows: &[u32]) -> Vec<u32> {
        assert_eq!(codes.cols(), self.p, "codes of {} latent dimensions", self.p);
        let block = |rows: &[u32]| -> Vec<u32> {
            let z: Vec<f64> = rows.iter().flat_map(|&r| codes.row(r as usize)).map(|&v| f64::from(v)).collect();
            let k = self.components.len();
            let mut joint = vec![0.0; rows.len() * k];
            self.joint(&z, &mut joint);
            joint.chunks_exact(k).map(|j| (1..k).fold(0, |m, i| if j[i] > j[m] { i } else { m }) as u32).collect()
        };
        rows.par_chunks(BLOCK).flat_map_iter(block).collect()
    }

    /// log π_k N(z | μ_k, Σ_k) of some cells `z`, [cells, k]. Cells go side by side through the triangular solves, which vectorises
    /// however few dimensions there are.
    fn joint(&self, z: &[f64], joint: &mut [f64]) {
        let (p, k) = (self.p, self.components.len());
        let constant = -0.5 * p as f64 * std::f64::consts::TAU.ln();
        let mut x = vec![[0.0; LANES]; p];
        for (z, joint) in z.chunks(LANES * p).zip(joint.chunks_mut(LANES * k)) {
            for (j, c) in self.components.iter().enumerate() {
                let mut square = [0.0; LANES];
                for i in 0..p {
                    let (solved, rest) = x.split_at_mut(i);
                    let row = &c.factor[i * p..=i * p + i];
                    let mut v = [0.0; LANES];
                    v.iter_mut().zip(z.iter().skip(i).step_by(p)).for_each(|(v, z)| *v = z - c.mean[i]);
                    for (l, s) in row.iter().zip(solved.iter()) {
                        v.iter_mut().zip(s).for_each(|(v, s)| *v -= l * s);
                    }
                    v.iter_mut().for_each(|v| *v /= row[i]);
                    square.iter_mut().zip(&v).for_each(|(q, v)| *q += v * v);
                    rest[0] = v;
                }
                let offset = c.log_weight + constant - c.half_log_det;
                joint.iter_mut().skip(j).step_by(k).zip(square).for_each(|(out, q)| *out = offset - 0.5 * q);
            }
        }
    }

    /// One EM step; the log-likelihood it returns belongs to the parameters before it.
    fn step(&self, z: &[f64], ridge: f64) -> Option<(Mixture, f64)> {
        let p = self.p;
        let means: Vec<f64> = self.components.iter().flat_map(|c| c.mean.iter().copied()).collect();
        let k = self.components.len();
        let sums = sums_over(z, p, &means, |cells, shares| {
            self.joint(cells, shares);
            let normalise = |share: &mut [f64]| {
                let top = share.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
                share.iter_mut().for_each(|v| *v = (*v - top).exp());
                let total: f64 = share.iter().sum();
                share.iter_mut().for_each(|v| *v /= total);
                top + total.ln()
            };
            shares.chunks_exact_mut(k).map(normalise).sum()
        });
        let before = sums.log_likelihood / (z.len() / p) as f64;
        Some((from_sums(&sums, &means, p, ridge, z.len() / p)?, before))
    }
}

fn one_start(z: &[f64], p: usize, k: usize, ridge: f64, start: usize, settings: MixtureSettings) -> Option<Mixture> {
    let n = z.len() / p;
    let mut draws = Sequence::new(settings.seed, stream::MIXTURE, start as u32);
    let mut means = spread_seeds(z, p, k, &mut draws);
    let mut mixture = None;
    for _ in 0..LLOYD {
        let sums = sums_over(z, p, &means, |cells, shares| to_nearest(cells, &means, p, shares));
        let next = from_sums(&sums, &means, p, ridge, n)?;
        means = next.components.iter().flat_map(|c| c.mean.iter().copied()).collect();
        mixture = Some(next);
    }
    let mut mixture: Mixture = mixture?;
    let mut last = f64::NEG_INFINITY;
    for _ in 0..settings.steps {
        let (next, before) = mixture.step(z, ridge)?;
        mixture.log_likelihood = before;
        if !before.is_finite() {
            return None;
        }
        if before - last < settings.tolerance {
            break;
        }
        last = before;
        mixture = Mixture { log_likelihood: before, ..next };
    }
    Some(mixture)
}

/// k-means++ (Arthur and Vassilvitskii 2007): each seed is a cell drawn in proportion to its squared distance to the seeds before.
fn spread_seeds(z: &[f64], p: usize, k: usize, draws: &mut Sequence) -> Vec<f64> {
    let n = z.len() / p;
    let mut means = Vec::with_capacity(k * p);
    let mut far = vec![f64::INFINITY; n];
    let mut at = draws.below(n);
    for _ in 0..k {
        let seed = &z[at * p..(at + 1) * p];
        means.extend_from_slice(seed);
        far.iter_mut().zip(z.chunks_exact(p)).for_each(|(f, z)| *f = f.min(squared(z, seed)));
        let mut left = draws.next_f64() * far.iter().sum::<f64>();
        // All cells on seeds already (sum 0): any cell.
        at = draws.below(n);
        for (i, &f) in far.iter().enumerate().filter(|f| *f.1 > 0.0) {
            at = i;
            left -= f;
            if left < 0.0 {
                break;
            }
        }
    }
    means
}

fn squared(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum()
}

fn nearest(z: &[f64], means: &[f64], p: usize) -> usize {
    let mut best = (0, f64::INFINITY);
    for (k, mean) in means.chunks_exact(p).enumerate() {
        let d = squared(z, mean);
        if d < best.1 {
            best = (k, d);
        }
    }
    best.0
}

/// Gives each cell to the nearest mean, as k-means does.
fn to_nearest(cells: &[f64], means: &[f64], p: usize, shares: &mut [f64]) -> f64 {
    shares.fill(0.0);
    for (z, share) in cells.chunks_exact(p).zip(shares.chunks_exact_mut(means.len() / p)) {
        share[nearest(z, means, p)] = 1.0;
    }
    0.0
}

/// Sums of what `share` gives each component of each cell: from cells [n, p] it fills shares [n, k] and returns the log-likelihood.
fn sums_over(z: &[f64], p: usize, means: &[f64], share: impl Fn(&[f64], &mut [f64]) -> f64 + Sync) -> Sums {
    let k = means.len() / p;
    let block = |cells: &[f64]| {
        let mut sums = Sums { log_likelihood: 0.0, weight: vec![0.0; k], first: vec![0.0; k * p], second: vec![0.0; k * p * p] };
        let (mut shares, mut x) = (vec![0.0; cells.len() / p * k], vec![0.0; p]);
        sums.log_likelihood = share(cells, &mut shares);
        for (z, shares) in cells.chunks_exact(p).zip(shares.chunks_exact(k)) {
            // Shares below a billionth of a billionth change no sum.
            for (j, &r) in shares.iter().enumerate().filter(|r| *r.1 > 1e-18) {
                x.iter_mut().zip(z).zip(&means[j * p..]).for_each(|((x, z), m)| *x = z - m);
                sums.weight[j] += r;
                axpy(r, &x, &mut sums.first[j * p..(j + 1) * p]);
                for (d, row) in sums.second[j * p * p..(j + 1) * p * p].chunks_exact_mut(p).enumerate() {
                    axpy(r * x[d], &x[..=d], &mut row[..=d]);
                }
            }
        }
        sums
    };
    let mut blocks = z.par_chunks(BLOCK * p).map(block).collect::<Vec<Sums>>().into_iter();
    let mut total = blocks.next().expect("at least one cell");
    for b in blocks {
        total.log_likelihood += b.log_likelihood;
        axpy(1.0, &b.weight, &mut total.weight);
        axpy(1.0, &b.first, &mut total.first);
        axpy(1.0, &b.second, &mut total.second);
    }
    total
}

/// The maximisation step. A component without cells keeps its place with weight zero. `None` if a covariance cannot be factored.
fn from_sums(sums: &Sums, means: &[f64], p: usize, ridge: f64, n: usize) -> Option<Mixture> {
    let component = |j: usize| {
        let weight = sums.weight[j];
        let per_cell = 1.0 / weight.max(f64::MIN_POSITIVE);
        let shift: Vec<f64> = sums.first[j * p..(j + 1) * p].iter().map(|v| v * per_cell).collect();
        let mut factor: Vec<f64> = sums.second[j * p * p..(j + 1) * p * p].iter().map(|v| v * per_cell).collect();
        for d in 0..p {
            axpy(-shift[d], &shift[..=d], &mut factor[d * p..d * p + d + 1]);
            factor[d * p + d] = factor[d * p + d].max(0.0) + ridge;
        }
        cholesky(&mut factor, p)?;
        let half_log_det = (0..p).map(|d| factor[d * p + d].ln()).sum();
        let mean = means[j * p..(j + 1) * p].iter().zip(&shift).map(|(m, s)| m + s).collect();
        Some(Component { log_weight: (weight / n as f64).ln(), mean, factor, half_log_det })
    };
    let components: Option<Vec<Component>> = (0..means.len() / p).map(component).collect();
    Some(Mixture { p, components: components?, log_likelihood: f64::NEG_INFINITY })
}

/// How far clusters found separately in two modalities agree: each mixture labels its modality's cells of `pairs` (row of a, row of
/// b); the adjusted mutual information of the two labelings. `None` without pairs.
pub fn consistency(a: (&Mixture, Matrix<'_>), b: (&Mixture, Matrix<'_>), pairs: &[(u32, u32)]) -> Option<f64> {
    let (rows_a, rows_b): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
    adjusted_mutual_information(&a.0.labels(a.1, &rows_a), &b.0.labels(b.1, &rows_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three elongated clusters in the plane, 80 cells each.
    fn clusters(seed: u64) -> Vec<f32> {
        let mut draws = Sequence::new(seed, 0, 0);
        (0..240)
            .flat_map(|i| {
                let (x, y) = (f64::from(draws.next_normal()), 0.2 * f64::from(draws.next_normal()));
                let (cx, cy) = [(0.0, 0.0), (0.0, 3.0), (6.0, 1.0)][i % 3];
                [(cx + x + y) as f32, (cy + 0.5 * x - y) as f32]
            })
            .collect()
    }

    #[test]
    fn mixture_finds_clusters_that_are_there() {
        let values = clusters(1);
        let m = Matrix::new(&values, 240, 2);
        let mixture = Mixture::fit(m, &m.all_rows(), 3, MixtureSettings::default()).expect("240 cells");
        let truth: Vec<u32> = (0..240).map(|i| i % 3).collect();
        let ami = adjusted_mutual_information(&mixture.labels(m, &m.all_rows()), &truth).expect("cells");
        assert!(ami > 0.97, "{ami}");
    }

    #[test]
    fn every_step_gains_likelihood() {
        let values = clusters(2);
        let z: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let means = spread_seeds(&z, 2, 4, &mut Sequence::new(0, 0, 0));
        let sums = sums_over(&z, 2, &means, |cells, shares| to_nearest(cells, &means, 2, shares));
        let mut mixture = from_sums(&sums, &means, 2, 1e-12, 240).expect("finite");
        let mut last = f64::NEG_INFINITY;
        for _ in 0..50 {
            let (next, likelihood) = mixture.step(&z, 1e-12).expect("finite");
            assert!(likelihood >= last - 1e-12, "{likelihood} after {last}");
            (mixture, last) = (next, likelihood);
        }
    }

    #[test]
    fn one_component_is_the_normal_distribution_of_the_cells() {
        // Mean and covariance in closed form: the mean log-likelihood is -½(p ln 2π + ln det Σ + p).
        let values = [0.0, 0.0, 2.0, 0.0, 0.0, 1.0, 2.0, 1.0];
        let m = Matrix::new(&values, 4, 2);
        let settings = MixtureSettings { regularisation: 0.0, ..MixtureSettings::default() };
        let mixture = Mixture::fit(m, &m.all_rows(), 1, settings).expect("four cells");
        let want = -0.5 * (2.0 * std::f64::consts::TAU.ln() + (1.0f64 * 0.25).ln() + 2.0);
        assert!((mixture.log_likelihood - want).abs() < 1e-12);
    }

    #[test]
    fn degenerate_codes_give_a_mixture_or_none() {
        let same = [1.0f32; 20];
        let m = Matrix::new(&same, 10, 2);
        assert!(Mixture::fit(m, &m.all_rows(), 3, MixtureSettings::default()).is_some());
        assert!(Mixture::fit(m, &[0, 1], 3, MixtureSettings::default()).is_none());
        assert!(Mixture::fit(m, &[], 1, MixtureSettings::default()).is_none());
        let broken = [f32::NAN; 4];
        assert!(Mixture::fit(Matrix::new(&broken, 4, 1), &[0, 1, 2, 3], 1, MixtureSettings::default()).is_none());
    }

    #[test]
    fn consistency_is_one_for_equal_codes_and_near_zero_for_unrelated_ones() {
        let (x, y) = (clusters(3), clusters(4));
        // The second set's cells are turned by one, so that row i is of another cluster, at random with respect to the first.
        let mut order: Vec<u32> = (0..240).collect();
        Sequence::new(8, 8, 0).shuffle(&mut order);
        let (a, b) = (Matrix::new(&x, 240, 2), Matrix::new(&y, 240, 2));
        let fit = |codes| Mixture::fit(codes, &a.all_rows(), 3, MixtureSettings::default()).expect("240 cells");
        let (in_a, in_b) = (fit(a), fit(b));
        let same: Vec<(u32, u32)> = (0..240).map(|i| (i, i)).collect();
        let mixed: Vec<(u32, u32)> = (0..240).zip(order).collect();
        assert!(consistency((&in_a, a), (&in_a, a), &same).expect("pairs") > 0.999);
        assert!(consistency((&in_a, a), (&in_b, b), &mixed).expect("pairs").abs() < 0.05);
        assert_eq!(consistency((&in_a, a), (&in_b, b), &[]), None);
    }
}
