//! What can be said without a GPU, and the round trips for when one answers.

use super::*;
use crate::device::sources;

/// The first GPU; where there is none the reason is printed and the test has nothing to say.
fn gpu() -> Option<Cuda> {
    for_tests().inspect_err(|why| println!("skipped: {why}")).ok()
}

fn bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

#[test]
fn a_gpu_that_cannot_be_had_is_the_users_to_change() {
    let Err(e) = Cuda::new(usize::MAX) else { panic!("there is no such GPU") };
    assert_eq!(e.exit_code(), 2, "{e}");
    assert!(e.to_string().starts_with("device cuda:"), "{e}");
}

#[test]
fn memory_on_the_gpu_makes_the_round_trip() {
    let Some(mut c) = gpu() else { return };
    // One word, a little, one slot of the ring and a word, and more than the whole ring.
    for n in [1usize, 1000, (256 << 10) / 4 + 1, 3_000_001] {
        let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let (a, b) = (c.alloc(4 * n).unwrap(), c.alloc(4 * n).unwrap());
        assert_eq!(a % 256, 0);
        let mut back = vec![1.0f32; n];
        c.download(bytemuck::cast_slice_mut(&mut back), a).unwrap();
        assert!(back.iter().all(|&v| v == 0.0), "new memory is zero");
        c.upload(a, bytes(&values)).unwrap();
        c.copy(b, a, 4 * n);
        c.zero(a, 4 * n);
        c.download(bytemuck::cast_slice_mut(&mut back), b).unwrap();
        assert_eq!(back, values);
        c.download(bytemuck::cast_slice_mut(&mut back), a).unwrap();
        assert!(back.iter().all(|&v| v == 0.0), "zeroed");
        assert_eq!(c.memory().0, 8 * n);
        c.free(a, 4 * n);
        c.free(b, 4 * n);
        c.finish().unwrap();
    }
    assert_eq!(c.memory(), (0, 8 * 3_000_001));
}

#[test]
fn small_uploads_in_a_row_on_the_gpu_each_arrive_before_the_next_overwrites_the_ring() {
    let Some(mut c) = gpu() else { return };
    let (clock, log) = (c.alloc(256).unwrap(), c.alloc(4 * 1000).unwrap());
    for step in 0..1000u32 {
        c.upload(clock, &step.to_le_bytes()).unwrap();
        c.copy(log + 4 * u64::from(step), clock, 4);
    }
    let mut back = vec![0u32; 1000];
    c.download(bytemuck::cast_slice_mut(&mut back), log).unwrap();
    assert!(back.iter().enumerate().all(|(i, &v)| v == i as u32));
}

#[test]
fn a_recording_on_the_gpu_runs_when_replayed_and_not_before() {
    let Some(mut c) = gpu() else { return };
    let [a, b, x] = [0; 3].map(|_| c.alloc(1024).unwrap());
    let ones = [1.0f32; 256];
    c.upload(x, bytes(&ones)).unwrap();
    c.upload(a, bytes(&ones)).unwrap();
    c.begin_capture().unwrap();
    c.zero(a, 1024);
    c.copy(b, x, 1024);
    let graph = c.end_capture().unwrap();
    let read = |c: &mut Cuda, at| {
        let mut back = [9.0f32; 256];
        c.download(bytemuck::cast_slice_mut(&mut back), at).unwrap();
        back
    };
    assert_eq!(read(&mut c, a), ones);
    assert_eq!(read(&mut c, b), [0.0; 256]);
    for round in 0..3 {
        let values = [round as f32; 256];
        c.upload(x, bytes(&values)).unwrap();
        c.replay(graph);
        assert_eq!(read(&mut c, a), [0.0; 256]);
        assert_eq!(read(&mut c, b), values);
    }
}

#[test]
fn what_cannot_be_recorded_on_the_gpu_is_refused_and_the_recording_still_ends() {
    let Some(mut c) = gpu() else { return };
    let a = c.alloc(1024).unwrap();
    c.begin_capture().unwrap();
    assert!(c.upload(a, &[0; 4]).is_err());
    assert!(c.alloc(1024).is_err());
    c.zero(a, 1024);
    c.end_capture().unwrap();
    assert!(c.end_capture().is_err());
    c.finish().unwrap();
}

#[test]
fn a_launch_error_on_the_gpu_sticks_until_finish_reports_it() {
    let Some(mut c) = gpu() else { return };
    c.launch("no_such_kernel", Grid::over(1), &[]);
    c.launch("another", Grid::over(1), &[]);
    let e = c.finish().unwrap_err();
    assert!(e.to_string().contains("no_such_kernel"), "{e}");
    c.finish().unwrap();
    assert!(c.alloc(usize::MAX / 2).unwrap_err().to_string().contains("out of memory"));
}

#[test]
fn every_kernel_file_loads_on_the_gpu() {
    let Some(mut c) = gpu() else { return };
    for (kernel, _) in sources::KERNELS {
        c.kernels.find(kernel, 0).unwrap();
    }
    assert_eq!(c.launched().len(), sources::KERNELS.len());
}
