//! A warm training step allocates nothing. Alone in its program, because it counts what every thread allocates.

use couplet::bench::step::{Bench, SHAPES};
use couplet::device::Device;
use couplet::engine::Precision;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_step_allocates_nothing_on_one_thread_or_two() {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for shape in SHAPES {
                // Convolutions take seconds a step at their own minibatch, and allocate as much at any.
                let batch = if shape.image.is_some() { 4 } else { 0 };
                let mut bench = Bench::new(shape, Device::cpu(), Precision::F32, batch, 0).unwrap();
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
