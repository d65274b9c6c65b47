//! What the emulated device must do, and what it must refuse; the kernels are in `selftest.cu`.

use super::*;

/// A device with `values` in one buffer and zeros in another of `out` words; `f` launches; the other buffer comes back.
fn on_device(seed: u64, values: &[f32], out: usize, f: impl FnOnce(&mut Emulated, Arg, Arg)) -> Result<Vec<f32>> {
    let mut d = Emulated::new(seed);
    let (x, y) = (d.alloc(4 * values.len())?, d.alloc(4 * out)?);
    d.upload(x, bytemuck::cast_slice(values))?;
    f(&mut d, Arg::Ptr(y), Arg::Ptr(x));
    d.finish()?;
    let mut result = vec![0.0f32; out];
    d.download(bytemuck::cast_slice_mut(&mut result), y)?;
    Ok(result)
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

fn one_block(threads: u32) -> Grid {
    Grid::blocks(1, threads)
}

fn message(r: Result<Vec<f32>>) -> String {
    r.expect_err("the launch must fail").to_string()
}

#[test]
fn arguments_of_every_kind_arrive() {
    let n = 1000;
    let y = on_device(1, &ramp(n), n, |d, y, x| {
        let grid = Grid::over(n);
        d.launch("selftest_axpy", grid, &[y, x, n.into(), Arg::U32(grid.blocks[0]), 0.5.into()]);
    })
    .unwrap();
    assert!(y.iter().enumerate().all(|(i, &v)| v == 0.5 * i as f32));
}

#[test]
fn a_barrier_makes_shared_memory_visible_and_a_missing_one_shows() {
    let reversed: Vec<f32> = (0..512).map(|i| (i / 256 * 256 + 255 - i % 256) as f32).collect();
    for seed in 0..8 {
        let run = |wait: bool| {
            on_device(seed, &ramp(512), 512, |d, y, x| d.launch("selftest_reverse", Grid::blocks(2, 256), &[y, x, wait.into()])).unwrap()
        };
        assert_eq!(run(true), reversed);
        assert_ne!(run(false), reversed, "seed {seed}: the missing barrier did not show");
    }
}

#[test]
fn sums_are_right_and_do_not_depend_on_the_order_of_threads() {
    let x: Vec<f32> = (0..1237).map(|i| ((i * 7919) % 1000) as f32 * 0.01 - 3.0).collect();
    let run =
        |seed, threads| on_device(seed, &x, 7, |d, y, v| d.launch("selftest_sums", one_block(threads), &[y, v, x.len().into()])).unwrap();
    for threads in [64, 256, 1024] {
        let y = run(0, threads);
        let exact: f64 = x.iter().map(|&v| v as f64).sum();
        let third: f64 = x.iter().step_by(3).take(x.len() / 3).map(|&v| v as f64).sum();
        assert!((y[0] as f64 - exact).abs() < 1e-3 && (y[1] as f64 - exact).abs() < 1e-4, "{y:?}, {exact}");
        assert_eq!(y[2], x[..threads as usize].iter().copied().fold(f32::MIN, f32::max));
        assert!((y[3] as f64 - third).abs() < 1e-3);
        assert_eq!(y[4..], [1.0, 6.0, 5.0]);
        for seed in 1..5 {
            assert_eq!(
                run(seed, threads).iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn tensor_core_products_match_hand_computed_sums() {
    // Small integers: exact in tf32 and in bf16.
    let a: Vec<f32> = (0..256).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
    let b: Vec<f32> = (0..128).map(|i| ((i * 53) % 13) as f32 - 6.0).collect();
    let both: Vec<f32> = a.iter().chain(&b).copied().collect();
    let c = on_device(3, &both, 256, |d, y, x| {
        let Arg::Ptr(p) = x else { unreachable!("a pointer") };
        d.launch("selftest_mma", one_block(32), &[y, x, Arg::Ptr(p + 4 * 256)]);
    })
    .unwrap();
    for (part, depth) in [(0, 8), (128, 16)] {
        for row in 0..16 {
            for col in 0..8 {
                let exact: f32 = (0..depth).map(|k| a[row * 16 + k] * b[k * 8 + col]).sum();
                assert_eq!(c[part + row * 8 + col], exact, "depth {depth}, row {row}, column {col}");
            }
        }
    }
}

#[test]
fn asynchronous_copies_arrive_when_waited_for_and_not_before() {
    let n = 50;
    let run = |wait: bool| {
        on_device(5, &ramp(n), 64, |d, y, x| {
            let grid = Grid { shared: 4 * 64, ..one_block(64) };
            d.launch("selftest_copy", grid, &[y, x, n.into(), wait.into()]);
        })
        .unwrap()
    };
    let y = run(true);
    assert!((0..64).all(|i| y[i] == if 63 - i < n { (63 - i) as f32 } else { 0.0 }));
    assert!(run(false).iter().all(|v| v.is_nan()), "without waiting, shared memory holds what a block finds there");
}

#[test]
fn shared_memory_is_nan_at_the_start_of_every_block() {
    let y = on_device(5, &[], 9, |d, y, _| d.launch("selftest_stale", Grid { shared: 4, ..Grid::blocks(9, 1) }, &[y])).unwrap();
    assert!(y.iter().all(|v| v.is_nan()), "{y:?}");
}

#[test]
fn a_barrier_that_not_all_threads_reach_is_an_error() {
    let early = message(on_device(1, &[], 64, |d, y, _| d.launch("selftest_early_return", one_block(64), &[y])));
    assert!(early.contains("63 of 64 wait in __syncthreads") && early.contains("1 of 64 have returned"), "{early}");
    let diverged = message(on_device(1, &[], 64, |d, y, _| d.launch("selftest_divergence", one_block(64), &[y])));
    assert!(diverged.contains("7 of 64 wait in sync_warp"), "{diverged}");
    let mixed = message(on_device(1, &[], 64, |d, y, _| d.launch("selftest_mixed_warp", one_block(64), &[y])));
    assert!(mixed.contains("shfl_xor") && mixed.contains("sync_warp"), "{mixed}");
}

#[test]
fn the_device_goes_on_after_an_error_was_reported() {
    let mut d = Emulated::new(0);
    let y = Arg::Ptr(d.alloc(4 * 64).unwrap());
    for _ in 0..3 {
        d.launch("selftest_early_return", one_block(64), &[y]);
        assert!(d.finish().is_err());
        d.launch("selftest_stale", Grid { shared: 4, ..one_block(32) }, &[y]);
        d.finish().unwrap();
    }
}

#[test]
fn wrong_launches_are_refused_with_the_kernel_and_the_argument() {
    let refused = |args: fn(Arg, Arg) -> Vec<Arg>, grid: Grid| {
        message(on_device(0, &ramp(4), 4, |d, y, x| d.launch("selftest_axpy", grid, &args(y, x))))
    };
    let e = refused(|y, x| vec![y, x, 4usize.into()], one_block(32));
    assert!(e.contains("selftest_axpy takes 5 arguments, the launch gives 3"), "{e}");
    let e = refused(|y, x| vec![y, x, 4.0.into(), Arg::U32(1), 1.0.into()], one_block(32));
    assert!(e.contains("argument 3 of 5: it takes int"), "{e}");
    let e = refused(|y, _| vec![y, Arg::Ptr(0x1234_5678), 4usize.into(), Arg::U32(1), 1.0.into()], one_block(32));
    assert!(e.contains("argument 2 of 5") && e.contains("no allocation"), "{e}");
    let e = refused(|y, x| vec![y, x, 4usize.into(), Arg::U32(1), 1.0.into()], one_block(2048));
    assert!(e.contains("cannot be launched"), "{e}");
    let e = message(on_device(0, &[], 1, |d, y, _| d.launch("no_such_kernel", one_block(32), &[y])));
    assert!(e.contains("internal error") && e.contains("no_such_kernel"), "{e}");
}

#[test]
#[cfg(not(couplet_asan))]
fn a_write_past_the_end_of_an_allocation_is_an_error() {
    let e = message(on_device(0, &[], 5, |d, y, _| d.launch("selftest_overrun", one_block(32), &[y, 5usize.into()])));
    assert!(e.contains("selftest_overrun wrote past the end of an allocation of 20 bytes"), "{e}");
    assert!(on_device(0, &[], 5, |d, y, _| d.launch("selftest_overrun", one_block(32), &[y, 4usize.into()])).is_ok());
}

#[test]
fn a_recording_runs_when_replayed_and_as_often() {
    let mut d = Emulated::new(0);
    let (x, y) = (d.alloc(16).unwrap(), d.alloc(16).unwrap());
    d.upload(x, bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0])).unwrap();
    d.begin_capture().unwrap();
    d.launch("selftest_axpy", one_block(32), &[Arg::Ptr(y), Arg::Ptr(x), 4usize.into(), Arg::U32(1), 2.0.into()]);
    d.copy(x, y, 8);
    let graph = d.end_capture().unwrap();
    let read = |d: &mut Emulated, p| {
        let mut v = [0.0f32; 4];
        d.download(bytemuck::cast_slice_mut(&mut v), p).unwrap();
        v
    };
    assert_eq!(read(&mut d, y), [0.0; 4], "nothing runs while it is recorded");
    d.replay(graph);
    d.replay(graph);
    assert_eq!(read(&mut d, y), [6.0, 12.0, 12.0, 16.0]);
    assert_eq!(read(&mut d, x), [6.0, 12.0, 3.0, 4.0]);
    assert_eq!(d.launched(), ["selftest_axpy"]);
}

#[test]
fn memory_is_zeroed_counted_and_given_back() {
    let mut d = Emulated::new(0);
    let a = d.alloc(1000).unwrap();
    let b = d.alloc(24).unwrap();
    assert_eq!((a % 256, b % 256, d.memory()), (0, 0, (1024, 1024)));
    d.free(a, 1000);
    assert_eq!(d.memory(), (24, 1024));
    d.free(b, 23);
    assert!(d.finish().is_err(), "a free with another size");
    assert!(d.alloc(usize::MAX / 4).unwrap_err().to_string().contains("out of memory"));
    assert_eq!(d.alloc(0).unwrap() % 256, 0);
}
