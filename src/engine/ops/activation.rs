//! Activations, fused into whatever makes their argument.
//!
//!   forward   y = f(u)
//!   backward  du = dy · f'(u), read off y alone (the column "slope"), so that u need not be kept
//!   twins     `activation`, `activation_slope` in kernels/activation.cuh, by the same codes
//!
//! | | f(u) | slope |
//! |---|---|---|
//! | Identity | u | 1 |
//! | Relu | max(u, 0) | 1 where y > 0, else 0 |
//! | LeakyRelu(a), a ≥ 0 | u where u > 0, else a·u | 1 where y > 0, else a |
//! | Elu | u where u > 0, else eᵘ − 1 | 1 where y > 0, else y + 1 |
//! | Sigmoid | 1 / (1 + e⁻ᵘ) | y(1 − y) |
//! | Tanh | tanh u | 1 − y² |
//!
//! The exponentials of the processor are one polynomial without branches, which the compiler turns into vector
//! code: a layer of a thousand genes takes a hundred thousand of them a step. A NaN stays a NaN.

use crate::device::vector::vectorised;

/// y = f(u).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// u
    Identity,
    /// max(u, 0)
    Relu,
    /// u above 0, slope·u below; the slope is not negative
    LeakyRelu(f32),
    /// u above 0, eᵘ − 1 below
    Elu,
    /// 1 / (1 + e⁻ᵘ)
    Sigmoid,
    /// tanh u
    Tanh,
}

impl Activation {
    /// One of each, in the order of their codes: what the tests of an operation with an activation walk over.
    pub const EXAMPLES: [Activation; 6] =
        [Activation::Identity, Activation::Relu, Activation::LeakyRelu(0.2), Activation::Elu, Activation::Sigmoid, Activation::Tanh];

    /// The number that kernels and records of the tape know it by.
    pub fn code(self) -> i32 {
        match self {
            Activation::Identity => 0,
            Activation::Relu => 1,
            Activation::LeakyRelu(_) => 2,
            Activation::Elu => 3,
            Activation::Sigmoid => 4,
            Activation::Tanh => 5,
        }
    }

    /// The number that goes with the code; 0 where there is none.
    pub fn parameter(self) -> f32 {
        match self {
            Activation::LeakyRelu(slope) => slope,
            _ => 0.0,
        }
    }

    /// The activation of that code and parameter.
    #[track_caller]
    pub fn from_code(code: i32, parameter: f32) -> Activation {
        match code {
            2 => Activation::LeakyRelu(parameter),
            _ => *usize::try_from(code)
                .ok()
                .and_then(|c| Activation::EXAMPLES.get(c))
                .unwrap_or_else(|| panic!("activation: no code {code}")),
        }
    }

    /// f(u)
    pub fn f(self, u: f32) -> f32 {
        let mut y = [u];
        self.apply(&mut y);
        y[0]
    }

    /// u becomes f(u), in place.
    #[inline(always)]
    pub fn apply(self, u: &mut [f32]) {
        #[inline(always)]
        fn each(u: &mut [f32], f: impl Fn(f32) -> f32) {
            u.iter_mut().for_each(|v| *v = f(*v));
        }
        match self {
            Activation::Identity => {}
            Activation::Relu => each(u, |u| if u < 0.0 { 0.0 } else { u }),
            Activation::LeakyRelu(slope) => each(u, |u| if u < 0.0 { slope * u } else { u }),
            Activation::Elu => each(u, |u| if u > 0.0 { u } else { exp_m1(u) }),
            Activation::Sigmoid => each(u, |u| 1.0 / (2.0 + exp_m1(-u))),
            Activation::Tanh => each(u, |u| {
                let t = exp_m1(-2.0 * u.abs());
                (-t / (2.0 + t)).copysign(u)
            }),
        }
    }

    /// f(u) in f64, for references.
    pub fn exact(self, u: f64) -> f64 {
        match self {
            Activation::Identity => u,
            Activation::Relu => u.max(0.0),
            Activation::LeakyRelu(slope) => u.max(0.0) + slope as f64 * u.min(0.0),
            Activation::Elu => u.max(0.0) + u.min(0.0).exp_m1(),
            Activation::Sigmoid => 1.0 / (1.0 + (-u).exp()),
            Activation::Tanh => u.tanh(),
        }
    }

    /// f'(u), from y = f(u).
    #[inline(always)]
    pub fn slope(self, y: f32) -> f32 {
        match self {
            Activation::Identity => 1.0,
            Activation::Relu => f32::from(y > 0.0),
            Activation::LeakyRelu(slope) => {
                if y > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
            Activation::Elu => {
                if y > 0.0 {
                    1.0
                } else {
                    y + 1.0
                }
            }
            Activation::Sigmoid => y * (1.0 - y),
            Activation::Tanh => 1.0 - y * y,
        }
    }

    /// du = dy · f'(u), from y = f(u); slices of equal length.
    pub fn backward_into(self, du: &mut [f32], y: &[f32], dy: &[f32]) {
        #[inline(always)]
        fn each(du: &mut [f32], y: &[f32], dy: &[f32], slope: impl Fn(f32) -> f32) {
            vectorised(
                #[inline(always)]
                || {
                    for ((d, &y), &g) in du.iter_mut().zip(y).zip(dy) {
                        *d = g * slope(y);
                    }
                },
            )
        }
        match self {
            // A loop an activation: with the choice inside, none of them would become vector code.
            Activation::Identity => du.copy_from_slice(dy),
            Activation::Relu => each(du, y, dy, |y| Activation::Relu.slope(y)),
            Activation::LeakyRelu(a) => each(du, y, dy, |y| Activation::LeakyRelu(a).slope(y)),
            Activation::Elu => each(du, y, dy, |y| Activation::Elu.slope(y)),
            Activation::Sigmoid => each(du, y, dy, |y| Activation::Sigmoid.slope(y)),
            Activation::Tanh => each(du, y, dy, |y| Activation::Tanh.slope(y)),
        }
    }
}

/// eˣ − 1 to 2 units in the last place; −1 (to f32) below −87, held at e⁸⁸ above 88.
#[inline(always)]
fn exp_m1(x: f32) -> f32 {
    let (two_n, p) = exp_parts(x);
    two_n * p + (two_n - 1.0)
}

/// eˣ to 2 units in the last place, in code that vectorises; 0 below −87, held at e⁸⁸ above 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let (two_n, p) = exp_parts(x);
    if x < -87.0 { 0.0 } else { two_n * p + two_n }
}

/// 2ⁿ and eʳ − 1 for x = n·ln 2 + r, held between −87 and 88: a Taylor polynomial on |r| ≤ ln 2 / 2, where the first term left out is
/// below 6·10⁻⁹ of r.
#[inline(always)]
fn exp_parts(x: f32) -> (f32, f32) {
    /// 1.5·2²³: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has few bits, so that n times it is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let inside = if x > 88.0 { 88.0 } else { x };
    let inside = if inside < -87.0 { -87.0 } else { inside };
    let rounded = inside * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (inside - n * LN_2[0]) - n * LN_2[1];
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        p = p * r + c;
    }
    // 2ⁿ by its exponent; n is between -126 and 127 here.
    (f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits())), (p * r) * r + r)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> impl Iterator<Item = f32> {
        (-4000..=4000)
            .map(|i| i as f32 * 0.0051)
            .chain([0.0, -0.0, 1e-30, -1e-7, 1e-7, 30.0, -30.0, 87.0, -87.5, 88.5, -120.0, 300.0, -300.0])
    }

    #[test]
    fn values_match_hand_computed() {
        assert_eq!(Activation::Relu.f(-2.0), 0.0);
        assert_eq!(Activation::LeakyRelu(0.25).f(-2.0), -0.5);
        assert_eq!(Activation::Elu.f(3.0), 3.0);
        assert!((Activation::Elu.f(-1.0) + 0.632_120_56).abs() < 1e-7);
        assert_eq!(Activation::Sigmoid.f(0.0), 0.5);
        assert!((Activation::Sigmoid.f(2.0) - 0.880_797_1).abs() < 1e-7);
        assert!((Activation::Tanh.f(-0.5) + 0.462_117_16).abs() < 1e-7);
    }

    #[test]
    fn values_match_f64_to_a_few_units_in_the_last_place() {
        for f in Activation::EXAMPLES {
            for u in arguments() {
                let (y, want) = (f.f(u), f.exact(u as f64));
                // A sigmoid below 1e-37 may end early: its argument is held at -88.
                let tolerance = 4.0 * f32::EPSILON as f64 * want.abs() + 1e-37;
                assert!((y as f64 - want).abs() <= tolerance, "{f:?}({u}) is {y}, want {want}");
            }
        }
    }

    #[test]
    fn the_exponential_matches_f64() {
        for x in arguments().filter(|x| (-87.0..88.0).contains(x)) {
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= 4.0 * f64::from(f32::EPSILON) * want, "{x}");
        }
        assert_eq!((exp(0.0), exp(-87.5), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn slope_read_off_the_output_matches_central_difference() {
        for f in Activation::EXAMPLES {
            for u in arguments().filter(|u| u.abs() > 1e-4 && u.abs() < 8.0) {
                let h = 1e-6;
                let want = (f.exact(u as f64 + h) - f.exact(u as f64 - h)) / (2.0 * h);
                assert!((f.slope(f.f(u)) as f64 - want).abs() < 1e-6, "{f:?} at {u}");
            }
        }
    }

    #[test]
    fn a_nan_stays_a_nan_and_infinities_reach_their_limits() {
        for f in Activation::EXAMPLES {
            assert!(f.f(f32::NAN).is_nan(), "{f:?}");
        }
        assert_eq!(
            (Activation::Elu.f(f32::NEG_INFINITY), Activation::Tanh.f(f32::INFINITY), Activation::Sigmoid.f(f32::INFINITY)),
            (-1.0, 1.0, 1.0)
        );
    }

    #[test]
    fn codes_go_both_ways_and_backward_multiplies_by_the_slope() {
        for (i, f) in Activation::EXAMPLES.into_iter().enumerate() {
            assert_eq!((f.code(), Activation::from_code(f.code(), f.parameter())), (i as i32, f));
            let (y, dy) = (f.f(-0.3), 1.7);
            let mut du = [0.0];
            f.backward_into(&mut du, &[y], &[dy]);
            assert_eq!(du[0], dy * f.slope(y));
        }
    }
}
