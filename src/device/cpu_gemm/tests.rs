use super::*;

fn noise(n: usize, seed: u32) -> Vec<f32> {
    crate::engine::params::init::uniform(seed as u64, "gemm", n, 1.0)
}

fn exact(layout: Layout, [m, n, k]: [usize; 3], a: &[f32], b: &[f32]) -> Vec<f64> {
    let a_at = |i, p| if layout == Layout::TN { a[p * m + i] } else { a[i * k + p] } as f64;
    let b_at = |p, j| if layout == Layout::NT { b[j * k + p] } else { b[p * n + j] } as f64;
    (0..m * n).map(|e| (0..k).map(|p| a_at(e / n, p) * b_at(p, e % n)).sum()).collect()
}

const LAYOUTS: [Layout; 3] = [Layout::NN, Layout::NT, Layout::TN];
type Runner = fn(Piece, &dyn Fn(usize, &mut [f32]));

fn machines() -> Vec<(&'static str, Runner)> {
    let mut all: Vec<(&'static str, Runner)> = vec![("plain", |p, f| unsafe { panels::<Plain>(p, &f) })];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn half(p: Piece, f: &dyn Fn(usize, &mut [f32])) {
            unsafe { panels::<x86::Avx2>(p, &f) }
        }
        all.push(("avx2", |p, f| unsafe { half(p, f) }));
    }
    all.push(("widest", |p, f| run(p, &f)));
    all
}

#[test]
fn products_match_f64_on_every_machine_layout_and_edge() {
    let sizes = [
        [0, 3, 4],
        [3, 0, 4],
        [3, 4, 0],
        [1, 1, 1],
        [1, 33, 7],
        [31, 1, 65],
        [33, 31, 127],
        [9, 65, 257],
        [50, 50, 100],
        [7, 24, 513],
        [100, 52, 61],
        // Large enough for blocks of A, of one height and of two.
        [300, 203, 260],
        [523, 130, 270],
        // Few rows: one panel and a bit, part of one, several.
        [33, 133, 512],
        [3, 150, 530],
        [100, 129, 515],
    ];
    for (machine, run) in machines() {
        for [m, n, k] in sizes {
            for layout in LAYOUTS {
                for add in [false, true] {
                    let (a, b, before) = (noise(m * k, 1), noise(k * n, 2), noise(m * n, 3));
                    let mut c = if add { before.clone() } else { vec![f32::NAN; m * n] };
                    let (a_row, a_step) = if layout == Layout::TN { (1, m) } else { (k, 1) };
                    let (b_step, b_col) = if layout == Layout::NT { (1, k) } else { (n, 1) };
                    let (cp, ap, bp) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
                    run(
                        Piece { rows: m, cols: n, k, first: 0, c: cp, c_row: n, a: ap, a_row, a_step, b: bp, b_step, b_col, add },
                        &|_, _| {},
                    );
                    // k roundings (a processor without fma rounds a product, too), each of half an ulp of a partial sum, which is of the size
                    // of the result or of √k: about ε·√k of it, and the worst of some ten thousand elements lies further out.
                    let roundings = if machine == "plain" { 2 * k } else { k };
                    let tolerance = 5.0 * f32::EPSILON as f64 * (roundings as f64).sqrt().max(1.0);
                    for (e, want) in exact(layout, [m, n, k], &a, &b).into_iter().enumerate() {
                        let want = want + if add { before[e] as f64 } else { 0.0 };
                        assert!(
                            (c[e] as f64 - want).abs() <= tolerance * want.abs().max(1.0),
                            "{machine} {layout:?} {m}x{n}x{k} add {add}, element {e}: {} for {want}",
                            c[e]
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn threads_and_layouts_change_no_bit() {
    // The second is cut into blocks of A by one thread, and not by seven; B of the third is read where it lies by four and not by seven.
    for size in [[61, 331, 300], [527, 150, 400], [20, 700, 600]] {
        threads_and_layouts(size);
    }
}

fn threads_and_layouts([m, n, k]: [usize; 3]) {
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    let product = |layout, a: &[f32], b: &[f32], threads| {
        let mut c = vec![0.0; m * n];
        gemm(layout, [m, n, k], &mut c, a, b, false, threads, |_, _| {});
        c.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let transposed = |x: &[f32], rows: usize, cols: usize| (0..rows * cols).map(|e| x[e % rows * cols + e / rows]).collect::<Vec<_>>();
    let first = product(Layout::NN, &a, &b, 1);
    for threads in [1, 2, 3, 4, 7] {
        assert_eq!(product(Layout::NN, &a, &b, threads), first, "{threads} threads");
        assert_eq!(product(Layout::NT, &a, &transposed(&b, k, n), threads), first, "NT, {threads} threads");
        assert_eq!(product(Layout::TN, &transposed(&a, m, k), &b, threads), first, "TN, {threads} threads");
    }
}

#[test]
fn finish_sees_every_element_once_when_it_is_complete() {
    for threads in [1, 3] {
        let [m, n, k] = [70, 333, 300];
        let (a, b) = (vec![1.0; m * k], vec![1.0; k * n]);
        let mut c = vec![0.0; m * n];
        gemm(Layout::NN, [m, n, k], &mut c, &a, &b, false, threads, |first, row| {
            row.iter_mut().enumerate().for_each(|(j, v)| *v = 1000.0 * *v + (first + j) as f32)
        });
        assert!(c.iter().enumerate().all(|(e, &v)| v == 300_000.0 + (e % n) as f32));
    }
}

#[test]
#[ignore = "prints times; for a person"]
fn times_beside_the_gemm_crate() {
    let shapes = [
        (Layout::NT, [100, 50, 1252]),
        (Layout::TN, [50, 1252, 100]),
        (Layout::NT, [100, 1252, 50]),
        (Layout::NN, [100, 50, 1252]),
        (Layout::TN, [1252, 50, 100]),
        (Layout::NT, [100, 50, 50]),
        (Layout::NN, [100, 50, 50]),
        (Layout::TN, [50, 50, 100]),
        (Layout::NT, [100, 3, 50]),
        (Layout::NT, [32, 128, 2000]),
        (Layout::NT, [512, 1024, 1024]),
        (Layout::NN, [256, 1024, 1024]),
        (Layout::TN, [1024, 1024, 512]),
        (Layout::NT, [256, 1024, 9153]),
        (Layout::NT, [512, 1024, 1030]),
        (Layout::TN, [1030, 1024, 512]),
        (Layout::NT, [20, 2613, 2613]),
        (Layout::NT, [32, 2613, 2613]),
        (Layout::NT, [64, 2613, 2613]),
        (Layout::NT, [128, 2613, 2613]),
        (Layout::NN, [32, 2613, 2613]),
        (Layout::TN, [2613, 2613, 32]),
    ];
    for (layout, [m, n, k]) in shapes {
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let mut c = vec![0.0f32; m * n];
        let repeat = (40_000_000 / (m * n * k)).max(1);
        let mut time = |f: &mut dyn FnMut(&mut [f32])| {
            let mut best = f64::MAX;
            for _ in 0..15 {
                let start = std::time::Instant::now();
                for _ in 0..repeat {
                    f(&mut c);
                }
                best = best.min(start.elapsed().as_secs_f64() / repeat as f64);
            }
            (best * 1e6, 2e-9 * (m * n * k) as f64 / best)
        };
        let ours = time(&mut |c| gemm(layout, [m, n, k], c, &a, &b, false, 1, |_, _| {}));
        let two = time(&mut |c| gemm(layout, [m, n, k], c, &a, &b, false, 2, |_, _| {}));
        let (a_rs, a_cs) = if layout == Layout::TN { (1, m as isize) } else { (k as isize, 1) };
        let (b_rs, b_cs) = if layout == Layout::NT { (1, k as isize) } else { (n as isize, 1) };
        let mut crate_gemm = |parallelism| {
            time(&mut |c| unsafe {
                ::gemm::gemm(
                    m,
                    n,
                    k,
                    c.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    a_cs,
                    a_rs,
                    b.as_ptr(),
                    b_cs,
                    b_rs,
                    0.0f32,
                    1.0f32,
                    false,
                    false,
                    false,
                    parallelism,
                )
            })
        };
        let theirs = crate_gemm(::gemm::Parallelism::None);
        let theirs2 = crate_gemm(::gemm::Parallelism::Rayon(2));
        println!(
            "{layout:?} {m}x{n}x{k}: ours {:.1} us {:.1} GF/s, two threads {:.1} us; crate {:.1} us {:.1} GF/s, two threads {:.1} us",
            ours.0, ours.1, two.0, theirs.0, theirs.1, theirs2.0
        );
    }
}
