use super::super::testing::devices;
use super::*;
use crate::device::Device;
use crate::engine::rng;
use crate::engine::step::Precision;

const SEED: u64 = 0xC0FF_EE00_0000_0001;
const STEP: u64 = 3;
/// Rows and columns: empty, within a quad, one past it, around a warp, past a block of the kernels, past a chunk of the CPU.
const SHAPES: [[usize; 2]; 12] =
    [[0, 4], [3, 0], [1, 1], [1, 3], [2, 2], [5, 1], [1, 31], [3, 11], [257, 1], [7, 109], [33, 1009], [2, 17_001]];

/// A training step on every device.
fn on_every_device(f: impl Fn(&str, &mut Step)) {
    for (name, device) in devices() {
        let mut s = Step::new(device, SEED, Precision::F32).unwrap();
        s.begin(true, STEP, 0).unwrap();
        f(name, &mut s);
        s.finish().unwrap();
    }
}

/// Values of both signs, every ninth missing if asked for.
fn values(n: usize, stream: u32, missing: bool) -> Vec<f32> {
    (0..n as u32).map(|i| if missing && i % 9 == 4 { f32::NAN } else { 4.0 * rng::uniform(1, stream, 0, i) - 2.0 }).collect()
}

fn stays(p: f32, stream: u32, element: usize) -> bool {
    rng::uniform(SEED, stream, STEP as u32, element as u32) >= p
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn corrupt_is_noise_then_dropout_to_the_bit() {
    // By hand from the single draws: (x + sd·z), kept if u >= p, scaled by 1 / (1 - p) = 4/3 rounded.
    let (p, stream) = (0.25, 6);
    on_every_device(|device, s| {
        for [rows, cols] in SHAPES {
            let x = values(rows * cols, 1, true);
            let sd: Vec<f32> = (0..cols).map(|c| 0.1 * (c % 7) as f32).collect();
            let (vx, vsd) = (s.constant([rows, cols], &x), s.constant([1, cols], &sd));
            let y = s.corrupt(vx, vsd, p, stream);
            let got = s.download(y).unwrap();
            for (e, (&x, got)) in x.iter().zip(got).enumerate() {
                let noisy = if x.is_nan() { 0.0 } else { x + sd[e % cols] * rng::normal(SEED, stream, STEP as u32, e as u32) };
                let want = if stays(p, stream + 1, e) { noisy * (4.0 / 3.0) } else { 0.0 };
                assert_eq!(got.to_bits(), want.to_bits(), "{device} [{rows}, {cols}] element {e}: {got}, wanted {want}");
            }
        }
    });
}

#[test]
fn normals_of_every_device_are_the_same_to_the_bit() {
    let n = 100_000;
    let mut z = vec![0.0; n];
    fill_normal(&mut z, SEED, 2, STEP as u32, 0);
    on_every_device(|device, s| {
        let (x, sd) = (s.constant([1000, 100], &vec![0.0; n]), s.constant([1, 100], &[1.0; 100]));
        let y = s.corrupt(x, sd, 0.0, 2);
        // 0 + 1·z is z itself; equality of floats that are not NaN is equality of bits but for the sign of zero, which the sum loses.
        assert!(s.download(y).unwrap() == z, "{device}");
    });
}

#[test]
fn dropout_zeroes_or_scales_to_the_bit() {
    on_every_device(|device, s| {
        for dims in SHAPES {
            for p in [0.5, 0.1, 0.999_999_94] {
                let x = values(dims[0] * dims[1], 2, false);
                let vx = s.constant(dims, &x);
                let y = s.dropout(vx, p, 8);
                let want: Vec<f32> = x.iter().enumerate().map(|(e, x)| if stays(p, 8, e) { x * (1.0 / (1.0 - p)) } else { 0.0 }).collect();
                assert_eq!(bits(&s.download(y).unwrap()), bits(&want), "{device} {dims:?} p = {p}");
            }
        }
    });
}

#[test]
fn without_noise_and_dropout_only_missing_entries_change() {
    on_every_device(|device, s| {
        let x = values(100, 3, true);
        let filled: Vec<f32> = x.iter().map(|&v| or_zero(v)).collect();
        let vx = s.constant([10, 10], &x);
        let y = s.corrupt(vx, Var::NONE, 0.0, 1);
        assert_eq!(bits(&s.download(y).unwrap()), bits(&filled), "{device}");
        assert_eq!(s.dropout(vx, 0.0, 1), vx, "{device}: p = 0 is x itself");
    });
}

#[test]
fn evaluation_adds_no_noise_and_drops_nothing() {
    on_every_device(|device, s| {
        s.begin(false, STEP, 0).unwrap();
        let x = values(66, 3, true);
        let filled: Vec<f32> = x.iter().map(|&v| or_zero(v)).collect();
        let (vx, sd) = (s.constant([6, 11], &x), s.constant([1, 11], &[1.0; 11]));
        let y = s.corrupt(vx, sd, 0.5, 1);
        assert_eq!(bits(&s.download(y).unwrap()), bits(&filled), "{device}");
        assert_eq!(s.dropout(vx, 0.5, 1), vx, "{device}");
    });
}

/// The gradient that a device computes, the second contribution to the same variable added to the first, against central differences
/// in f64 of Σ dy·y, y being `reference(x, element)`.
fn gradient_matches(op: impl Fn(&mut Step, Var) -> Var, reference: impl Fn(f64, usize) -> f64, missing: bool) {
    on_every_device(|device, s| {
        for dims in SHAPES {
            let n = dims[0] * dims[1];
            s.begin(true, STEP, 0).unwrap();
            let (x, dy) = (values(n, 4, missing), values(n, 5, false));
            let vx = s.leaf(dims, &x);
            let vdy = s.constant(dims, &dy);
            // Twice through the same op: the second record must add to what the first put there.
            let (y, again) = (op(s, vx), op(s, vx));
            let (slot, _) = s.grad_slot(again);
            s.copy(slot, vdy);
            s.backward_from(y, vdy);
            let g = s.grad(vx).expect("a gradient");
            let got = s.download(g).unwrap();
            for e in 0..n {
                let (v, h) = (x[e] as f64, 1e-4);
                let slope = 2.0 * dy[e] as f64 * (reference(v + h, e) - reference(v - h, e)) / (2.0 * h);
                let want = if v.is_nan() { 0.0 } else { slope };
                // Rounding of two products and a sum in f32; the differences are exact to 1e-10, as y is piecewise linear in x.
                assert!((got[e] as f64 - want).abs() <= 4e-7 * want.abs() + 1e-9, "{device} {dims:?} {e}: {} against {want}", got[e]);
            }
        }
    });
}

#[test]
fn corrupt_gradient_matches_central_difference() {
    let (p, stream, sd) = (0.3, 10, 0.05);
    let reference = |x: f64, e| {
        let noisy = x + sd as f64 * rng::normal(SEED, stream, STEP as u32, e as u32) as f64;
        if stays(p, stream + 1, e) { noisy / (1.0 - p as f64) } else { 0.0 }
    };
    let op = |s: &mut Step, x| {
        let cols = s.dims(x)[1];
        let sd = s.constant([1, cols], &vec![sd; cols]);
        s.corrupt(x, sd, p, stream)
    };
    gradient_matches(op, reference, true);
}

#[test]
fn corrupt_without_dropout_passes_the_gradient_of_what_is_there() {
    gradient_matches(|s, x| s.corrupt(x, Var::NONE, 0.0, 10), |x, _| x, true);
}

#[test]
fn dropout_gradient_matches_central_difference() {
    let reference = |x: f64, e| if stays(0.4, 12, e) { x / (1.0 - 0.4f32 as f64) } else { 0.0 };
    gradient_matches(|s, x| s.dropout(x, 0.4, 12), reference, false);
}

#[test]
fn dropout_keeps_its_rate_and_the_mean() {
    on_every_device(|device, s| {
        let n = 40_000;
        for p in [0.1, 0.5, 0.9] {
            let x = s.constant([200, 200], &vec![1.0; n]);
            let y = s.dropout(x, p, 2);
            let kept = s.download(y).unwrap().iter().filter(|&&v| v != 0.0).count() as f64;
            let (mean, sd) = (n as f64 * (1.0 - p as f64), (n as f64 * p as f64 * (1.0 - p as f64)).sqrt());
            assert!((kept - mean).abs() < 4.0 * sd, "{device} p = {p}: {kept} of {n} kept");
        }
    });
}

#[test]
fn a_new_step_and_a_new_stream_draw_a_new_mask() {
    on_every_device(|device, s| {
        let mut masks = Vec::new();
        for (step, stream) in [(1, 0), (2, 0), (1, 1), (1, 0)] {
            s.begin(true, step, 0).unwrap();
            let x = s.constant([1, 64], &[1.0; 64]);
            let y = s.dropout(x, 0.5, stream);
            masks.push(s.download(y).unwrap());
        }
        assert!(masks[0] != masks[1] && masks[0] != masks[2] && masks[1] != masks[2], "{device}");
        assert_eq!(masks[0], masks[3], "{device}");
    });
}

#[test]
#[cfg(feature = "emulated")]
fn a_replayed_step_draws_what_the_cpu_draws_in_that_step() {
    let fresh = |step| {
        let mut s = Step::new(Device::cpu(), SEED, Precision::F32).unwrap();
        s.begin(true, step, 0).unwrap();
        let x = s.constant([5, 7], &[1.0; 35]);
        let sd = s.constant([1, 7], &[1.0; 7]);
        let y = s.corrupt(x, sd, 0.5, 0);
        s.download(y).unwrap()
    };
    let mut s = Step::new(Device::emulated(5), SEED, Precision::F32).unwrap();
    let (x, sd, kept) = (s.resident([5, 7]).unwrap(), s.resident([1, 7]).unwrap(), s.resident([5, 7]).unwrap());
    s.upload(x, &[1.0f32; 35]).unwrap();
    s.upload(sd, &[1.0f32; 7]).unwrap();
    let work = |s: &mut Step| {
        let y = s.corrupt(x, sd, 0.5, 0);
        s.copy(kept, y);
    };
    s.begin(true, 1, 0).unwrap();
    work(&mut s);
    s.begin(true, 1, 0).unwrap();
    let graph = s.capture(work).unwrap().expect("a device with kernels captures");
    for step in [1, 2, 9] {
        s.write_clock(step, 0).unwrap();
        s.replay(graph);
        assert_eq!(bits(&s.download(kept).unwrap()), bits(&fresh(step)), "step {step}");
    }
}

#[test]
fn threads_do_not_change_a_mask() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut s = Step::new(Device::cpu(), SEED, Precision::F32).unwrap();
            s.begin(true, 1, 0).unwrap();
            let x = s.constant([100, 1252], &values(125_200, 6, true));
            let sd = s.constant([1, 1252], &[0.5; 1252]);
            let y = s.corrupt(x, sd, 0.5, 0);
            bits(&s.download(y).unwrap())
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

#[test]
fn noise_streams_are_two() {
    let mut s = Step::new(Device::cpu(), SEED, Precision::F32).unwrap();
    let (a, b, c) = (s.noise_streams(), s.noise_streams(), s.stream());
    assert_eq!([b - a, c - b], [2, 2]);
}

#[test]
#[should_panic(expected = "wants 0 <= p < 1")]
fn dropout_of_one_is_refused() {
    let mut s = Step::new(Device::cpu(), SEED, Precision::F32).unwrap();
    s.begin(true, 1, 0).unwrap();
    let x = s.constant([1, 1], &[1.0]);
    s.dropout(x, 1.0, 0);
}
