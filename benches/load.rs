//! One epoch of a dataset read from its map in shuffled minibatches: `cargo bench --bench load`. What `couplet bench load` measures,
//! on 20,000 simulated cells.

use couplet::bench::load::Loading;
use couplet::data::Dataset;
use couplet::data::hooks::Hooks;
use couplet::data::simulate::{SimulateSpec, simulate};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::sync::atomic::AtomicBool;

fn epochs(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("data");
    let spec = SimulateSpec { recipe: "branching", cells: Some(20_000), ..Default::default() };
    simulate(&spec, &path, &mut Hooks::default()).expect("the dataset is made");
    let dataset = Dataset::open(&path).expect("the dataset opens");
    let mut loading = Loading::new(&dataset, "none", 256, Default::default(), 0).expect("the dataset is read");
    let mut group = c.benchmark_group("load");
    group.throughput(Throughput::Elements(loading.cells()[1] as u64)).sample_size(20);
    group.bench_function("branching-20000/256", |b| b.iter(|| loading.epoch(&AtomicBool::new(false)).expect("an epoch")));
    group.finish();
}

criterion_group!(benches, epochs);
criterion_main!(benches);
