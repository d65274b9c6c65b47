use super::super::testing::*;
use super::*;

/// The large image's product with the weights, pixel by pixel.
fn gather(g: &Geometry, x: &[f64], w: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; g.batch * g.small.iter().product::<usize>()];
    each_tap(g, |small, large, tap| y[small] += w[tap] * x[large]);
    y
}

fn scatter(g: &Geometry, x: &[f64], w: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; g.batch * g.large.iter().product::<usize>()];
    each_tap(g, |small, large, tap| y[large] += w[tap] * x[small]);
    y
}

/// Calls `f(index into the small images, into the large ones, into the weights)` for everything that is multiplied.
fn each_tap(g: &Geometry, mut f: impl FnMut(usize, usize, usize)) {
    let ([c, h, w], [oc, oh, ow], k) = (g.large, g.small, g.kernel);
    for b in 0..g.batch {
        for (o, i, j) in (0..oc * oh * ow).map(|e| (e / (oh * ow), e / ow % oh, e % ow)) {
            for (c_, ky, kx) in (0..c * k * k).map(|e| (e / (k * k), e / k % k, e % k)) {
                let (y, x) = ((i * g.stride + ky).wrapping_sub(g.padding), (j * g.stride + kx).wrapping_sub(g.padding));
                if y < h && x < w {
                    f(((b * oc + o) * oh + i) * ow + j, ((b * c + c_) * h + y) * w + x, ((o * c + c_) * k + ky) * k + kx);
                }
            }
        }
    }
}

fn shape(channels: [usize; 2], image: [usize; 2], [kernel, stride, padding]: [usize; 3]) -> ConvShape {
    ConvShape { channels_in: channels[0], channels_out: channels[1], height: image[0], width: image[1], kernel, stride, padding }
}

fn geometry(batch: usize, c: &ConvShape, transposed: bool) -> Geometry {
    let (input, out) = ([c.channels_in, c.height, c.width], if transposed { c.transposed_output() } else { c.output() });
    let output = [c.channels_out, out[0], out[1]];
    let (small, large) = if transposed { (input, output) } else { (output, input) };
    Geometry { batch, large, small, kernel: c.kernel, stride: c.stride, padding: c.padding }
}

/// Kernels, strides, paddings that do and do not divide; images that are not square; channels that fill no vector; one cell.
fn odd_shapes() -> Vec<(usize, ConvShape)> {
    vec![
        (1, shape([1, 1], [1, 1], [1, 1, 0])),
        (3, shape([5, 3], [3, 4], [1, 1, 0])),
        (2, shape([2, 3], [5, 4], [3, 1, 1])),
        (3, shape([3, 5], [6, 4], [4, 2, 1])),
        (1, shape([2, 9], [4, 4], [4, 2, 1])),
        (2, shape([2, 3], [7, 5], [5, 3, 2])),
        (2, shape([1, 2], [5, 6], [2, 3, 0])),
        (1, shape([2, 2], [5, 5], [3, 2, 2])),
    ]
}

#[test]
fn value_matches_hand_computed() {
    for (device, mut s) in steps() {
        s.begin(true, 1, 0).unwrap();
        let (x, w) = (s.constant([1, 4], &[1.0, 2.0, 3.0, 4.0]), s.constant([1, 4], &[1.0, 10.0, 100.0, 1000.0]));
        let b = s.constant([1, 1], &[0.5]);
        let y = s.conv2d(x, w, b, shape([1, 1], [2, 2], [2, 1, 0]), Activation::Identity);
        assert_eq!(s.download(y).unwrap(), [4321.5], "{device}");
        let y = s.conv_transpose2d(x, w, b, shape([1, 1], [2, 2], [2, 2, 1]), Activation::Identity);
        assert_eq!(s.download(y).unwrap(), [1000.5, 200.5, 30.5, 4.5], "{device}");
    }
}

#[test]
fn value_and_gradient_match_the_reference_at_odd_shapes() {
    let tolerance = 1e-5; // sums of at most a few hundred terms
    for (batch, c) in odd_shapes() {
        for transposed in [false, true] {
            if transposed && c.kernel < 2 * c.padding + 1 && c.height == 1 {
                continue;
            }
            let g = geometry(batch, &c, transposed);
            let (input, channels) = if transposed { (g.small, g.large[0]) } else { (g.large, g.small[0]) };
            let operands = [
                operand([batch, input.iter().product()], 1),
                operand([g.small[0], g.large[0] * g.kernel * g.kernel], 2),
                operand([1, channels], 3),
            ];
            prove(
                &operands,
                tolerance,
                |s, v| {
                    if transposed {
                        s.conv_transpose2d(v[0], v[1], v[2], c, Activation::Tanh)
                    } else {
                        s.conv2d(v[0], v[1], v[2], c, Activation::Tanh)
                    }
                },
                |x| {
                    let y = if transposed { scatter(&g, &x[0], &x[1]) } else { gather(&g, &x[0], &x[1]) };
                    let pixels = y.len() / (batch * channels);
                    y.iter().enumerate().map(|(i, v)| (v + x[2][i / pixels % channels]).tanh()).collect()
                },
            );
        }
    }
}

/// The three products as a step computes them, beside their references on operands rounded by `round`.
fn products(s: &mut Step, g: &Geometry, round: impl Fn(f32) -> f32, check: impl Fn(&str, &[f32], &[f64])) {
    let sizes = [g.small, g.large].map(|image| g.batch * image.iter().product::<usize>());
    let (small, large, w) = (values(sizes[0], 1), values(sizes[1], 2), values(g.small[0] * g.large[0] * g.kernel * g.kernel, 3));
    let dims = [[g.batch, sizes[0] / g.batch], [g.batch, sizes[1] / g.batch], [g.small[0], w.len() / g.small[0]]];
    let exact = |v: &[f32]| v.iter().map(|&v| round(v) as f64).collect::<Vec<_>>();
    let (x_small, x_large, x_w) = (exact(&small), exact(&large), exact(&w));
    let mut dw = vec![0.0; w.len()];
    each_tap(g, |small, large, tap| dw[tap] += x_small[small] * x_large[large]);
    s.begin(false, 1, 0).unwrap();
    let [v_small, v_large, v_w] = [(0, &small), (1, &large), (2, &w)].map(|(i, v)| s.constant(dims[i], v));
    let [y_small, y_large, y_w] = dims.map(|d| s.alloc(d));
    for twice in [false, true] {
        s.conv_gather(g, y_small, v_large, v_w, twice, Var::NONE, Activation::Identity);
        s.conv_scatter(g, y_large, v_small, v_w, twice, Var::NONE, Activation::Identity);
        s.conv_weight(g, y_w, v_small, v_large, twice);
    }
    let doubled = |v: Vec<f64>| v.into_iter().map(|v| 2.0 * v).collect::<Vec<_>>();
    for (what, y, want) in
        [("gather", y_small, gather(g, &x_large, &x_w)), ("scatter", y_large, scatter(g, &x_small, &x_w)), ("weight", y_w, dw)]
    {
        check(what, &s.download(y).unwrap(), &doubled(want));
    }
}

/// Large enough for several panels, tiles, chunks and tasks; rows left over; images that share a panel and images that fill many.
fn larger() -> Vec<Geometry> {
    let mut all: Vec<Geometry> = [
        (5, shape([37, 67], [8, 8], [4, 2, 1])),
        (9, shape([70, 33], [4, 4], [4, 2, 1])),
        (2, shape([3, 20], [34, 36], [4, 2, 1])),
        (3, shape([19, 10], [13, 17], [3, 1, 1])),
        (2, shape([9, 40], [20, 23], [5, 3, 2])),
        (2, shape([70, 11], [7, 6], [1, 2, 0])),
        (2, shape([6, 5], [11, 9], [3, 4, 1])),
    ]
    .map(|(b, c)| geometry(b, &c, false))
    .into();
    all.push(geometry(3, &shape([66, 5], [3, 5], [4, 2, 1]), true));
    all
}

#[test]
fn products_match_f64_and_add_when_asked_at_sizes_of_many_tiles() {
    for (device, mut s) in steps() {
        for g in larger() {
            products(&mut s, &g, |v| v, |what, got, want| compare(&format!("{device}: {what} of {g:?}"), got, want, 1e-5));
        }
    }
}

#[test]
#[cfg(feature = "emulated")]
fn tensor_cores_match_f64_on_operands_rounded_to_their_format() {
    // Products of two tf32 or bf16 are exact in f32, so only the sums round; unrounded operands would be off by 2⁻¹¹ or 2⁻⁸.
    let tf32 = |v: f32| f32::from_bits(v.to_bits().wrapping_add(0x1000) & !0x1fff);
    let bf16 = |v: f32| half::bf16::from_f32(v).to_f32();
    for (precision, round) in [(Precision::Tf32, &tf32 as &dyn Fn(f32) -> f32), (Precision::Bf16, &bf16)] {
        let mut s = Step::new(crate::device::Device::emulated(5), 0, precision).unwrap();
        for g in larger() {
            products(&mut s, &g, round, |what, got, want| compare(&format!("{precision:?}: {what} of {g:?}"), got, want, 1e-5));
        }
    }
}

/// The bits of the three products.
fn bits(mut s: Step, g: &Geometry) -> Vec<u32> {
    let all = std::cell::RefCell::new(Vec::new());
    products(&mut s, g, |v| v, |_, got, _| all.borrow_mut().extend(got.iter().map(|v| v.to_bits())));
    all.into_inner()
}

#[test]
#[cfg(feature = "emulated")]
fn the_order_of_threads_changes_no_bit() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        for g in [geometry(3, &shape([35, 20], [8, 6], [4, 2, 1]), false), geometry(2, &shape([5, 7], [7, 6], [3, 1, 1]), false)] {
            let run = |seed| bits(Step::new(crate::device::Device::emulated(seed), 0, precision).unwrap(), &g);
            let first = run(1);
            assert!((2..4).all(|seed| run(seed) == first), "{precision:?} {g:?}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    for g in larger() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bits(Step::new(crate::device::Device::cpu(), 0, Precision::F32).unwrap(), &g))
        };
        let first = run(1);
        for threads in [2, 3, 5] {
            assert!(run(threads) == first, "{threads} threads, {g:?}");
        }
    }
}

#[test]
#[should_panic(expected = "conv2d: x is [cells 2, 17], W is [3, 16]")]
fn sizes_that_do_not_fit_panic_with_all_of_them() {
    let mut s = Step::new(crate::device::Device::cpu(), 0, Precision::F32).unwrap();
    s.begin(false, 1, 0).unwrap();
    let (x, w) = (s.alloc([2, 17]), s.alloc([3, 16]));
    s.conv2d(x, w, Var::NONE, shape([1, 3], [4, 4], [4, 2, 1]), Activation::Identity);
}

#[test]
#[ignore = "prints times; for a person"]
fn times_of_the_layers_of_a_nuclei_autoencoder() {
    let mut total = [0.0; 3];
    for (channels, side) in [([1, 128], 64), ([128, 256], 32), ([256, 512], 16), ([512, 1024], 8), ([1024, 1024], 4)] {
        let g = geometry(32, &shape(channels, [side; 2], [4, 2, 1]), false);
        let mut s = Step::new(crate::device::Device::cpu(), 0, Precision::F32).unwrap();
        s.begin(false, 1, 0).unwrap();
        let dims = [[32, g.small.iter().product()], [32, g.large.iter().product()], [channels[1], channels[0] * 16]];
        let [small, large, w] = dims.map(|d| s.constant(d, &values(d[0] * d[1], 4)));
        let [y_small, y_large, y_w] = dims.map(|d| s.alloc(d));
        let mut time = |f: &mut dyn FnMut(&mut Step)| {
            (0..6)
                .map(|_| {
                    let start = std::time::Instant::now();
                    f(&mut s);
                    start.elapsed().as_secs_f64() * 1e3
                })
                .fold(f64::MAX, f64::min)
        };
        let ms = [
            time(&mut |s| s.conv_gather(&g, y_small, large, w, false, Var::NONE, Activation::Identity)),
            time(&mut |s| s.conv_scatter(&g, y_large, small, w, false, Var::NONE, Activation::Identity)),
            time(&mut |s| s.conv_weight(&g, y_w, small, large, false)),
        ];
        let gflop = 2e-9 * (32 * side * side / 4 * channels[0] * channels[1] * 16) as f64;
        println!(
            "{channels:?} {side}: gather {:.2} ms {:.0} GF/s, scatter {:.2} ms {:.0} GF/s, weight {:.2} ms {:.0} GF/s",
            ms[0],
            gflop / ms[0] * 1e3,
            ms[1],
            gflop / ms[1] * 1e3,
            ms[2],
            gflop / ms[2] * 1e3
        );
        total.iter_mut().zip(ms).for_each(|(t, ms)| *t += ms);
    }
    println!("all: {total:.1?} ms");
}
