//! Single operations on the processor, at the shapes of the models: `cargo bench --bench ops`. The same cases as
//! `couplet bench kernels`, which also gives them as fractions of the machine's limits.

use couplet::bench::kernels;
use couplet::device::Device;
use couplet::engine::{Precision, Step};
use criterion::{Criterion, criterion_group, criterion_main};

fn ops(c: &mut Criterion) {
    let mut s = Step::new(Device::cpu(), 0, Precision::F32).expect("a step");
    for mut case in kernels::cases(&mut s).expect("the cases build") {
        c.bench_function(&format!("{}/{}/cpu", case.kernel, case.shape), |b| {
            b.iter(|| {
                s.begin(true, 1, 0).expect("begin");
                case.run(&mut s);
            })
        });
    }
}

criterion_group!(benches, ops);
criterion_main!(benches);
