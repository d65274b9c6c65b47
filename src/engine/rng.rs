//! Random numbers: Philox4x32-10 (Salmon et al. 2011), counter-based, so a number is a function of what it is for and not
//! of what was drawn before: the same on every device, in any order, by any number of threads.
//!
//! Element `e` of (seed, stream, step) is word `e mod 4` of the counter `[e div 4, 0, step, stream]` under the seed's two
//! halves. A stream belongs to one user (a dropout layer, a permutation), a step to one drawing of all its elements. The
//! transforms to uniform and normal numbers stand in [`device::random`](crate::device::random).

use crate::device::random::{self, Key, to_normals, to_uniform, words};

pub use crate::device::random::philox;

fn key(seed: u64, stream: u32, step: u32) -> Key {
    Key { seed, stream, step }
}

/// Uniform on [0, 1) in steps of 2⁻²⁴: element `element` of (seed, stream, step).
pub fn uniform(seed: u64, stream: u32, step: u32, element: u32) -> f32 {
    to_uniform(words(key(seed, stream, step), (element / 4).into())[element as usize % 4])
}

/// Standard normal: element `element` of (seed, stream, step).
pub fn normal(seed: u64, stream: u32, step: u32, element: u32) -> f32 {
    let [a, b, c, d] = words(key(seed, stream, step), (element / 4).into());
    let pair = if element % 4 < 2 { to_normals(a, b) } else { to_normals(c, d) };
    pair[element as usize % 2]
}

/// `out[i]` becomes element `first + i` of [`uniform`], vectorised.
pub fn fill_uniform(out: &mut [f32], seed: u64, stream: u32, step: u32, first: usize) {
    random::fill_uniform(out, key(seed, stream, step), first as u64);
}

/// `out[i]` becomes element `elements[i]` of [`uniform`], vectorised; equal lengths.
pub fn uniforms_at(out: &mut [f32], seed: u64, stream: u32, step: u32, elements: &[u32]) {
    random::uniforms_at(out, key(seed, stream, step), elements);
}

/// `out[i]` becomes element `first + i` of [`normal`], vectorised.
pub fn fill_normal(out: &mut [f32], seed: u64, stream: u32, step: u32, first: usize) {
    random::fill_normal(out, key(seed, stream, step), first as u64);
}

/// The numbers 0 .. n in random order, every order equally likely.
pub fn permutation(n: usize, seed: u64, stream: u32, step: u32) -> Vec<u32> {
    let mut order = Vec::new();
    permutation_into(&mut order, n, seed, stream, step);
    order
}

/// As [`permutation`], into a vector that is reused from epoch to epoch.
pub fn permutation_into(order: &mut Vec<u32>, n: usize, seed: u64, stream: u32, step: u32) {
    let n = u32::try_from(n).expect("a permutation of fewer than 2^32 rows");
    order.clear();
    order.extend(0..n);
    Sequence::new(seed, stream, step).shuffle(order);
}

/// One number after another from (seed, stream, step): for simulations and metrics, whose draws depend on one another.
#[derive(Clone, Debug)]
pub struct Sequence {
    key: Key,
    /// How many words have been taken.
    next: u64,
    /// The counter that the next word belongs to.
    four: [u32; 4],
    /// The other half of the last normal pair.
    spare: Option<f32>,
}

impl Sequence {
    /// The sequence of (seed, stream, step) from its start.
    pub fn new(seed: u64, stream: u32, step: u32) -> Sequence {
        Sequence { key: key(seed, stream, step), next: 0, four: [0; 4], spare: None }
    }

    /// Thirty-two random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next.is_multiple_of(4) {
            self.four = words(self.key, self.next / 4);
        }
        self.next += 1;
        self.four[(self.next - 1) as usize % 4]
    }

    /// Uniform on [0, 1) in steps of 2⁻²⁴.
    pub fn next_f32(&mut self) -> f32 {
        to_uniform(self.next_u32())
    }

    /// Uniform on [0, 1) in steps of 2⁻⁵³.
    pub fn next_f64(&mut self) -> f64 {
        let (high, low) = (self.next_u32() as u64, self.next_u32() as u64);
        ((high << 32 | low) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Standard normal.
    pub fn next_normal(&mut self) -> f32 {
        self.spare.take().unwrap_or_else(|| {
            let (radius, angle) = (self.next_u32(), self.next_u32());
            let [cos, sin] = to_normals(radius, angle);
            self.spare = Some(sin);
            cos
        })
    }

    /// Uniform on 0 .. n without bias (Lemire 2019, "Fast random integer generation in an interval").
    #[track_caller]
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0 && n <= u32::MAX as usize, "below({n}): wants 1 to 2^32 - 1");
        let n = n as u32;
        let mut m = self.next_u32() as u64 * n as u64;
        if (m as u32) < n {
            // Products with a low half below 2³² mod n belong to intervals that hold one word too many.
            let excess = n.wrapping_neg() % n;
            while (m as u32) < excess {
                m = self.next_u32() as u64 * n as u64;
            }
        }
        (m >> 32) as usize
    }

    /// Puts `items` in random order (Fisher and Yates, from the end).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0x0123_4567_89AB_CDEF;

    #[test]
    fn philox_gives_the_known_answers_of_its_authors() {
        // Random123, kat_vectors, philox4x32 10
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        let pi = [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344];
        assert_eq!(philox(pi, [0xA409_3822, 0x299F_31D0]), [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]);
    }

    #[test]
    fn elements_are_words_of_counters() {
        let four = philox([2, 0, 5, 9], [SEED as u32, (SEED >> 32) as u32]);
        for (i, word) in four.into_iter().enumerate() {
            assert_eq!(uniform(SEED, 9, 5, 8 + i as u32), (word >> 8) as f32 / 16_777_216.0);
        }
    }

    #[test]
    fn fills_agree_with_single_elements_from_any_start() {
        for first in [0, 1, 2, 3, 4, 5, 63, 64, 1001] {
            for len in [0, 1, 2, 3, 4, 5, 31, 33, 64, 65, 257] {
                let (mut u, mut z) = (vec![-1.0; len], vec![-9.0; len]);
                fill_uniform(&mut u, SEED, 3, 7, first);
                fill_normal(&mut z, SEED, 3, 7, first);
                for i in 0..len {
                    let element = (first + i) as u32;
                    assert_eq!(u[i].to_bits(), uniform(SEED, 3, 7, element).to_bits(), "uniform {element}");
                    assert_eq!(z[i].to_bits(), normal(SEED, 3, 7, element).to_bits(), "normal {element}");
                }
            }
        }
    }

    #[test]
    fn gathered_elements_are_the_same_as_single_ones() {
        for n in [0, 1, 15, 16, 17, 100] {
            let elements: Vec<u32> = (0..n).map(|i| (i * i * 7919 + 3 * i) as u32).collect();
            let mut u = vec![-1.0; n];
            uniforms_at(&mut u, SEED, 3, 7, &elements);
            assert!(u.iter().zip(&elements).all(|(u, &e)| u.to_bits() == uniform(SEED, 3, 7, e).to_bits()), "{n}");
        }
    }

    /// The largest distance between the empirical distribution and `cdf`, times √n.
    fn kolmogorov(mut x: Vec<f32>, cdf: impl Fn(f64) -> f64) -> f64 {
        x.sort_by(f32::total_cmp);
        let n = x.len() as f64;
        let gap = |(i, &v): (usize, &f32)| (cdf(v as f64) - i as f64 / n).abs().max((cdf(v as f64) - (i + 1) as f64 / n).abs());
        x.iter().enumerate().map(gap).fold(0.0, f64::max) * n.sqrt()
    }

    /// Φ, by the series of Marsaglia (2004): Φ(x) = ½ + φ(x)·(x + x³/3 + x⁵/(3·5) + …).
    fn normal_cdf(x: f64) -> f64 {
        if x.abs() > 7.0 {
            return if x > 0.0 { 1.0 } else { 0.0 };
        }
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-17 * sum.abs() {
            k += 2.0;
            term *= x * x / k;
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
    }

    /// Above this the hypothesis of the right distribution is rejected at the level 1e-3 (Kolmogorov's limit law).
    const CRITICAL: f64 = 1.95;
    const MANY: usize = 1_000_000;

    fn moment(x: &[f32], power: i32, about: f64) -> f64 {
        x.iter().map(|&v| (v as f64 - about).powi(power)).sum::<f64>() / x.len() as f64
    }

    #[test]
    fn uniforms_are_uniform() {
        let mut u = vec![0.0; MANY];
        fill_uniform(&mut u, SEED, 1, 1, 0);
        assert!(u.iter().all(|v| (0.0..1.0).contains(v)));
        // Four standard errors: sd of u is √(1/12), of (u − ½)² it is √(1/180).
        assert!((moment(&u, 1, 0.0) - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / MANY as f64).sqrt());
        assert!((moment(&u, 2, 0.5) - 1.0 / 12.0).abs() < 4.0 * (1.0f64 / 180.0 / MANY as f64).sqrt());
        let lag: f64 = u.windows(2).map(|w| (w[0] as f64 - 0.5) * (w[1] as f64 - 0.5)).sum::<f64>() / MANY as f64;
        assert!(lag.abs() < 4.0 / 12.0 / (MANY as f64).sqrt(), "neighbours are correlated: {lag}");
        let d = kolmogorov(u, |v| v);
        assert!(d < CRITICAL, "{d}");
    }

    #[test]
    fn normals_are_normal() {
        let mut z = vec![0.0; MANY];
        fill_normal(&mut z, SEED, 1, 2, 0);
        let se = 4.0 / (MANY as f64).sqrt();
        // Four standard errors; the moments' variances are 1, 2, 15 and 96.
        assert!(moment(&z, 1, 0.0).abs() < se);
        assert!((moment(&z, 2, 0.0) - 1.0).abs() < se * 2f64.sqrt());
        assert!(moment(&z, 3, 0.0).abs() < se * 15f64.sqrt());
        assert!((moment(&z, 4, 0.0) - 3.0).abs() < se * 96f64.sqrt());
        for lag in 1..4 {
            let r: f64 = z.windows(lag + 1).map(|w| (w[0] * w[lag]) as f64).sum::<f64>() / MANY as f64;
            assert!(r.abs() < se, "numbers {lag} apart are correlated: {r}");
        }
        let d = kolmogorov(z, normal_cdf);
        assert!(d < CRITICAL, "{d}");
    }

    #[test]
    fn streams_steps_and_seeds_are_independent() {
        let draw = |seed, stream, step| {
            let mut z = vec![0.0; 100_000];
            fill_normal(&mut z, seed, stream, step, 0);
            z
        };
        let base = draw(SEED, 1, 1);
        for other in [draw(SEED, 2, 1), draw(SEED, 1, 2), draw(SEED + 1, 1, 1), draw(SEED ^ 1 << 40, 1, 1)] {
            let r: f64 = base.iter().zip(&other).map(|(a, b)| (a * b) as f64).sum::<f64>() / 1e5;
            assert!(r.abs() < 4.0 / 1e5f64.sqrt(), "{r}");
        }
    }

    #[test]
    fn a_sequence_gives_the_elements_in_order() {
        let mut s = Sequence::new(SEED, 4, 2);
        for e in 0..11 {
            assert_eq!(s.next_f32(), uniform(SEED, 4, 2, e));
        }
        let mut s = Sequence::new(SEED, 4, 2);
        for e in 0..11 {
            assert_eq!(s.next_normal(), normal(SEED, 4, 2, e));
        }
        let mean = (0..100_000).map(|_| s.next_f64()).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / 1e5).sqrt());
    }

    #[test]
    fn bounded_draws_are_unbiased() {
        // A bound of 3·2³⁰ is where a plain multiply-shift is worst: a third of its results would be drawn twice as often.
        let (mut s, n) = (Sequence::new(SEED, 0, 0), 3usize << 30);
        let thirds = (0..300_000).fold([0u32; 3], |mut count, _| {
            count[s.below(n) % 3] += 1;
            count
        });
        // Five standard deviations of a count: √(300,000 · ⅓ · ⅔) = 258.
        assert!(thirds.iter().all(|&c| c.abs_diff(100_000) < 1290), "{thirds:?}");
        let faces = (0..60_000).fold([0u32; 6], |mut count, _| {
            count[s.below(6)] += 1;
            count
        });
        assert!(faces.iter().all(|&c| c.abs_diff(10_000) < 456), "{faces:?}");
        assert_eq!(s.below(1), 0);
    }

    #[test]
    fn permutations_are_permutations_and_all_orders_occur() {
        for n in [0, 1, 2, 3, 33, 1009] {
            let mut p = permutation(n, SEED, 1, 1);
            p.sort_unstable();
            assert!(p.iter().copied().eq(0..n as u32));
        }
        let mut orders = std::collections::BTreeMap::<Vec<u32>, u32>::new();
        for step in 0..24_000 {
            *orders.entry(permutation(4, SEED, 2, step)).or_default() += 1;
        }
        // Five standard deviations of a count: √(1000 · 23/24) = 31.
        assert!(orders.len() == 24 && orders.values().all(|&c| c.abs_diff(1000) < 155), "{orders:?}");
        let mut reused = vec![7; 50];
        permutation_into(&mut reused, 33, SEED, 5, 6);
        assert_eq!(reused, permutation(33, SEED, 5, 6));
    }

    #[test]
    #[should_panic(expected = "below(0)")]
    fn below_zero_is_refused() {
        Sequence::new(0, 0, 0).below(0);
    }
}
