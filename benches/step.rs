//! Whole training steps on the processor: `cargo bench --bench step`. The same call as `couplet bench step`.

use couplet::bench::step::{Bench, SHAPES};
use couplet::device::Device;
use couplet::engine::Precision;
use criterion::{Criterion, criterion_group, criterion_main};

fn steps(c: &mut Criterion) {
    for shape in SHAPES {
        let mut bench = Bench::new(shape, Device::cpu(), Precision::F32, 0, 0).expect("the shape builds");
        c.bench_function(&format!("step/{}/cpu", shape.name), |b| b.iter(|| bench.one().expect("a step")));
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
