//! Random numbers in bulk: Philox4x32-10 and the normal transform, sixteen counters at a time.
//!
//! Twin of `kernels/random.cuh`; the two agree to the bit. Integer work, single IEEE operations and explicit fma round in one way
//! only, so the widths below agree as well, and a fill does not depend on where it starts: element `e` of (seed, stream,
//! step) takes word `e mod 4` of the counter `[e div 4, step, stream]`, key = the seed.
//!
//! - uniform: the word's upper 24 bits × 2⁻²⁴, on [0, 1)
//! - normal: Box-Muller (1958) on the word pairs (0, 1) and (2, 3). The first word gives the radius √(−2 ln u) with u the
//!   midpoint of one of 2³⁰ equal cells, rounded to f32: in (0, 1], so the tails reach 6.55. The second gives the angle in units of
//!   2⁻³² of a turn. The cosine goes to the even element, the sine to the odd one. Within 10⁻⁶ of the same in f64.
//!
//! The coefficients are minimax (Remez) on the intervals named beside them, rounded to f32.

use super::vector::vectorised;

/// What a number depends on besides its element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Of the run.
    pub seed: u64,
    /// Who draws: see [`Step::stream`](crate::engine::Step::stream).
    pub stream: u32,
    /// The step number, or whatever else counts the drawings of a stream.
    pub step: u32,
}

/// Philox's multipliers (Salmon et al. 2011, table 2).
const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Philox's Weyl increments: the golden ratio and √3 − 1.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Four random words for a counter and a key.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    // Words are kept in u64 whose upper halves are rubbish until the end: the product's low half then needs no masking, and its
    // factors only the one that a 32 × 32 → 64 bit multiplication does anyway.
    let mut c = counter.map(u64::from);
    let mut k = key;
    for _ in 0..10 {
        let a = (c[0] & 0xFFFF_FFFF) * MULTIPLIERS[0];
        let b = (c[2] & 0xFFFF_FFFF) * MULTIPLIERS[1];
        c = [(b >> 32) ^ c[1] ^ k[0] as u64, b, (a >> 32) ^ c[3] ^ k[1] as u64, a];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c.map(|word| word as u32)
}

/// The four words of a counter.
#[inline(always)]
pub fn words(key: Key, counter: u64) -> [u32; 4] {
    philox([counter as u32, (counter >> 32) as u32, key.step, key.stream], [key.seed as u32, (key.seed >> 32) as u32])
}

/// Uniform on [0, 1) in steps of 2⁻²⁴.
#[inline(always)]
pub fn to_uniform(word: u32) -> f32 {
    // Below 2²⁴, so the sign bit is clear: the signed conversion exists on every processor, the unsigned one does not.
    (word >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
}

/// Two independent standard normal numbers from two words.
#[inline(always)]
pub fn to_normals(radius: u32, angle: u32) -> [f32; 2] {
    let r = (-2.0 * ln_midpoint(radius)).sqrt();
    let [cos, sin] = cos_sin(angle);
    [r * cos, r * sin]
}

/// ln((2·⌊word/4⌋ + 1) / 2³¹), the argument rounded to f32 first.
#[inline(always)]
fn ln_midpoint(word: u32) -> f32 {
    const SQRT_HALF: i32 = 0x3F35_04F3;
    let bits = (((word >> 1) | 1) as i32 as f32).to_bits() as i32;
    // The argument is m·2^e with m in [√½, √2): adding to the exponent is adding to the bits. (Nothing here overflows; the wrapping
    // operations keep a checked build's branches, which cannot be vectorised, out of the loop.)
    let e = bits.wrapping_sub(SQRT_HALF) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(e << 23) as u32) - 1.0;
    // (ln(1 + f) − f + f²/2) / f³ on [√½ − 1, √2 − 1], weighted by f²: 6e-9
    let mut p = -0.078_596_175_f32;
    for c in [0.128_816_5, -0.131_287_53, 0.141_811_92, -0.166_245_54, 0.200_022_86, -0.250_008_1, 0.333_333_16] {
        p = p.mul_add(f, c);
    }
    let ln_m = f + (f * f) * p.mul_add(f, -0.5);
    (e.wrapping_sub(31) as f32).mul_add(std::f32::consts::LN_2, ln_m)
}

/// Cosine and sine of `word`·2⁻³² turns.
#[inline(always)]
fn cos_sin(word: u32) -> [f32; 2] {
    // The nearest quarter, and what is left of it in turns, in [−⅛, ⅛).
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let t = word.wrapping_sub(quarter << 30) as i32 as f32 * (1.0 / 4_294_967_296.0);
    let s = t * t;
    // sin(2πt) = t·(2π + s·S(s)), 2π in two parts; S weighted by s: 4e-9
    let mut p = -75.453_4_f32;
    for c in [81.593_94, -41.341_675] {
        p = p.mul_add(s, c);
    }
    let sin = t.mul_add(std::f32::consts::TAU, t * p.mul_add(s, -1.748_455_5e-7));
    // cos(2πt) = 1 + s·C(s), weighted by s: 5e-11
    let mut p = 59.245_964_f32;
    for c in [-85.443_74, 64.939_32, -19.739_208] {
        p = p.mul_add(s, c);
    }
    let cos = p.mul_add(s, 1.0);
    // Quarters 1 and 3 swap the two; the cosine is negative in 1 and 2, the sine in 2 and 3.
    let swap = quarter & 1 == 1;
    let (c, s) = (if swap { sin } else { cos }, if swap { cos } else { sin });
    let (cos_sign, sin_sign) = ((quarter.wrapping_add(1) & 2) << 30, (quarter & 2) << 30);
    [f32::from_bits(c.to_bits() ^ cos_sign), f32::from_bits(s.to_bits() ^ sin_sign)]
}

/// Counters of a block. Sixteen fill two registers of eight 64-bit lanes, enough to hide the multiplier's latency.
const LANES: usize = 16;
/// Numbers of a block.
const BLOCK: usize = 4 * LANES;

#[inline(always)]
fn word_block(key: Key, counter: u64) -> [[u32; LANES]; 4] {
    let mut w = [[0; LANES]; 4];
    let [w0, w1, w2, w3] = &mut w;
    for lane in 0..LANES {
        [w0[lane], w1[lane], w2[lane], w3[lane]] = words(key, counter.wrapping_add(lane as u64));
    }
    w
}

#[inline(always)]
fn uniform_block(key: Key, counter: u64) -> [f32; BLOCK] {
    let w = word_block(key, counter);
    let mut out = [0.0; BLOCK];
    for lane in 0..LANES {
        for i in 0..4 {
            out[4 * lane + i] = to_uniform(w[i][lane]);
        }
    }
    out
}

#[inline(always)]
fn normal_block(key: Key, counter: u64) -> [f32; BLOCK] {
    let [w0, w1, w2, w3] = word_block(key, counter);
    let mut z = [[0.0; LANES]; 4];
    // One loop a pair, and interleaving in a loop of its own: else only the four numbers of a counter are put into one vector.
    for lane in 0..LANES {
        [z[0][lane], z[1][lane]] = to_normals(w0[lane], w1[lane]);
    }
    for lane in 0..LANES {
        [z[2][lane], z[3][lane]] = to_normals(w2[lane], w3[lane]);
    }
    let mut out = [0.0; BLOCK];
    for lane in 0..LANES {
        for i in 0..4 {
            out[4 * lane + i] = z[i][lane];
        }
    }
    out
}

/// Cuts the fill of elements `first ..` into blocks; the first and the last may be used in part.
#[inline(always)]
fn fill(out: &mut [f32], first: u64, block: impl Fn(u64) -> [f32; BLOCK]) {
    let skip = (first % 4) as usize;
    let (head, body) = out.split_at_mut(if skip == 0 { 0 } else { out.len().min(4 - skip) });
    if !head.is_empty() {
        head.copy_from_slice(&block(first / 4)[skip..skip + head.len()]);
    }
    let mut counter = first.div_ceil(4);
    let mut chunks = body.chunks_exact_mut(BLOCK);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&block(counter));
        counter += LANES as u64;
    }
    let tail = chunks.into_remainder();
    if !tail.is_empty() {
        tail.copy_from_slice(&block(counter)[..tail.len()]);
    }
}

/// Uniform numbers on [0, 1), elements `first ..`.
pub fn fill_uniform(out: &mut [f32], key: Key, first: u64) {
    vectorised(
        #[inline(always)]
        || uniforms(out, key, first),
    );
}

/// Uniform numbers on [0, 1), these elements; equal lengths.
pub fn uniforms_at(out: &mut [f32], key: Key, elements: &[u32]) {
    assert_eq!(out.len(), elements.len(), "uniforms_at: a number an element");
    vectorised(
        #[inline(always)]
        || gathered(out, key, elements),
    );
}

/// A counter an element, of which one word is used.
#[inline(always)]
fn gathered(out: &mut [f32], key: Key, elements: &[u32]) {
    let of = |element: u32| {
        let w = words(key, u64::from(element / 4));
        let (low, high) = (if element & 1 == 0 { w[0] } else { w[1] }, if element & 1 == 0 { w[2] } else { w[3] });
        to_uniform(if element & 2 == 0 { low } else { high })
    };
    let mut blocks = out.chunks_exact_mut(LANES);
    let mut elements = elements.chunks_exact(LANES);
    for (out, elements) in (&mut blocks).zip(&mut elements) {
        for lane in 0..LANES {
            out[lane] = of(elements[lane]);
        }
    }
    blocks.into_remainder().iter_mut().zip(elements.remainder()).for_each(|(out, &e)| *out = of(e));
}

/// Standard normal numbers, elements `first ..`.
pub fn fill_normal(out: &mut [f32], key: Key, first: u64) {
    vectorised(
        #[inline(always)]
        || normals(out, key, first),
    );
}

#[inline(always)]
fn uniforms(out: &mut [f32], key: Key, first: u64) {
    fill(
        out,
        first,
        #[inline(always)]
        |counter| uniform_block(key, counter),
    );
}

#[inline(always)]
fn normals(out: &mut [f32], key: Key, first: u64) {
    fill(
        out,
        first,
        #[inline(always)]
        |counter| normal_block(key, counter),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::vector::{Width, at};

    const KEY: Key = Key { seed: 0x5EED, stream: 2, step: 3 };

    /// Uniforms and normals, as bits.
    fn drawn(width: Width, first: u64) -> [Vec<u32>; 2] {
        let (mut u, mut z) = (vec![0.0; 40_001], vec![0.0; 40_001]);
        at(
            width,
            #[inline(always)]
            || {
                uniforms(&mut u, KEY, first);
                normals(&mut z, KEY, first);
            },
        );
        [u, z].map(|v| v.iter().map(|v: &f32| v.to_bits()).collect())
    }

    #[test]
    fn every_width_gives_the_same_bits() {
        for width in [Width::Avx2, Width::Avx512] {
            if !width.exists() {
                eprintln!("{width:?} not compared: this processor has no such instructions");
                continue;
            }
            for first in [0, 3, 1 << 34] {
                assert!(drawn(width, first) == drawn(Width::Plain, first), "{width:?} from {first}");
            }
        }
    }

    /// Box-Muller in f64, from the same rounded radius and the exact angle.
    fn normals_in_f64(radius: u32, angle: u32) -> [f64; 2] {
        let u = ((radius >> 1) | 1) as f32 as f64 / 2_147_483_648.0;
        let (r, turn) = ((-2.0 * u.ln()).sqrt(), angle as f64 / 4_294_967_296.0);
        let (sin, cos) = (std::f64::consts::TAU * turn).sin_cos();
        [r * cos, r * sin]
    }

    #[test]
    fn normals_are_within_1e_6_of_f64() {
        let corner =
            [0u32, 1, 2, 3, 4, 1 << 29, (1 << 29) - 1, 1 << 30, 3 << 29, 1 << 31, (1 << 31) - 1, 5 << 29, 3 << 30, 7 << 29, !0 - 1, !0];
        let mut pairs: Vec<[u32; 2]> = corner.iter().flat_map(|&a| corner.iter().map(move |&b| [a, b])).collect();
        for counter in 0..200_000 {
            let [a, b, c, d] = words(KEY, counter);
            // The second pair has a small radius word: the tail, which plain draws hardly reach.
            pairs.extend([[a, b], [c >> (c % 32), d]]);
        }
        let mut worst = 0.0f64;
        for [a, b] in pairs {
            for (got, want) in to_normals(a, b).into_iter().zip(normals_in_f64(a, b)) {
                let error = (got as f64 - want).abs();
                assert!(error <= 1e-6, "words {a:#x} {b:#x}: {got}, in f64 {want}");
                worst = worst.max(error);
            }
        }
        assert!(worst > 1e-8, "the comparison saw nothing: {worst}");
    }

    #[test]
    fn normal_tails_end_at_6_55() {
        let [z, _] = to_normals(0, 0);
        assert!((z - 6.556).abs() < 1e-3, "{z}");
        assert_eq!(to_normals(!0, 0)[0].abs(), 0.0);
    }
}
