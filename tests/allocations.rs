//! A warm training step allocates nothing.

use couplet::bench::step::{Bench, SHAPES, Shape};
use couplet::device::Device;
use couplet::engine::Precision;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread's calls count: the program's own threads say now and then how long a test takes, and allocate for it.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_step_allocates_nothing_on_one_thread_or_two() {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.broadcast(|_| COUNTED.set(true));
        pool.install(|| {
            for shape in SHAPES {
                // Some take seconds a step at their own sizes, and allocate as much at any.
                let batch = match shape.name {
                    "nuclei" => 4,
                    "skin" | "shareseq" | "shareseq-encoders" => 64,
                    _ => 0,
                };
                let features = if shape.features.iter().sum::<usize>() > 50_000 { &[300, 700] } else { shape.features };
                let mut bench = Bench::new(&Shape { features, ..*shape }, Device::cpu(), Precision::F32, batch, 0).unwrap();
                for _ in 0..5 {
                    bench.one().unwrap();
                }
                let before = CALLS.load(Ordering::Relaxed);
                for _ in 0..20 {
                    bench.one().unwrap();
                }
                let allocated = CALLS.load(Ordering::Relaxed) - before;
                assert_eq!(allocated, 0, "20 warm steps of {} on {threads} threads", shape.name);
                assert!(bench.losses().unwrap().iter().all(|l| l.is_finite()), "{}", shape.name);
            }
        });
    }
}
