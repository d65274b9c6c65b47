use super::super::testing::*;
use super::testing::rows_of;
use crate::engine::ops::activation::Activation;
use crate::engine::ops::losses::MissingIn;
use crate::engine::{Step, Var};

/// Mostly zeros: row 1 has none but zeros, row 2 no zero.
fn sparse_values([rows, cols]: [usize; 2], salt: u32) -> Vec<f32> {
    let (v, keep) = (values(rows * cols, salt), values(rows * cols, salt + 100));
    let there = |i: usize| i / cols == 2 || (i / cols != 1 && keep[i] > 0.6);
    (0..rows * cols).map(|i| if there(i) { v[i] } else { 0.0 }).collect()
}

#[test]
fn values_match_hand_computed_in_the_epochs_order() {
    for (device, mut s) in steps() {
        let rows = s.sparse_resident([3, 3], 4, 2).unwrap();
        let order = s.resident([1, 4]).unwrap();
        s.write_sparse(&rows, [0, 0], &[0, 2, 2, 4], &[0, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        s.upload(order, &[0u32, 2, 1, 0]).unwrap();
        let rows = crate::engine::SparseRows { order, ..rows };
        s.begin(true, 1, 1).unwrap();
        let x = s.sparse(&rows, 3);
        let dense = s.dense(x);
        assert_eq!(s.download(dense).unwrap(), [0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0], "{device}");
        assert_eq!(s.dense(x), dense, "written out once");
        let (w, b) = (s.leaf([2, 3], &[1.0, 2.0, 3.0, -1.0, 0.0, 1.0]), s.leaf([1, 2], &[0.5, -9.0]));
        let y = s.linear(x, w, b, Activation::Relu);
        assert_eq!(s.download(y).unwrap(), [18.5, 0.0, 0.5, 0.0, 7.5, 0.0], "{device}");
        let dy = s.constant([3, 2], &[1.0, 5.0, 2.0, 5.0, 3.0, 5.0]);
        s.backward_from(y, dy);
        let [dw, db] = [w, b].map(|v| s.grad(v).unwrap());
        assert_eq!(s.download(dw).unwrap(), [3.0, 3.0, 10.0, 0.0, 0.0, 0.0], "{device}");
        assert_eq!(s.download(db).unwrap(), [6.0, 0.0], "{device}");
    }
}

#[test]
fn products_match_the_reference_at_every_size_with_and_without_a_base() {
    for ([n, d, h], f) in [
        ([1, 1, 1], Activation::Identity),
        // Not tanh: of a sum this large 1 - y² is rounding alone.
        ([1, 300, 2], Activation::LeakyRelu(0.1)),
        ([5, 7, 3], Activation::Tanh),
        ([35, 65, 4], Activation::Elu),
        ([4, 1, 130], Activation::Sigmoid),
        ([131, 3, 5], Activation::Relu),
    ] {
        for based in [false, true] {
            let (x, base) = (sparse_values([n, d], 1), values(d, 9));
            let reference = |v: &[Vec<f64>]| -> Vec<f64> {
                let at = |i: usize, k: usize| f64::from(x[i * d + k]) + if based { f64::from(base[k]) } else { 0.0 };
                let u = |i: usize, j: usize| v[1][j] + (0..d).map(|k| at(i, k) * v[0][j * d + k]).sum::<f64>();
                (0..n * h).map(|e| f.exact(u(e / h, e % h))).collect()
            };
            // Of base and entries that nearly cancel, and of saturated activations, fewer digits are left.
            let tolerance = 6e-6 * (d.max(n).max(h) as f64).sqrt().max(4.0);
            let op = |s: &mut Step, v: &[Var]| {
                let base = if based { s.constant([1, d], &base) } else { Var::NONE };
                let rows = rows_of(s, [n, d], &x, base);
                let x = s.sparse(&rows, n);
                s.linear(x, v[0], v[1], f)
            };
            prove(&[operand([h, d], 2), operand([1, h], 3)], tolerance, op, reference);
        }
    }
}

#[test]
fn mixed_minibatches_stay_sparse_and_are_what_their_dense_twins_mix_to() {
    let [n, d, h] = [33, 70, 5];
    for (device, mut s) in steps() {
        let lambda = s.knob(0.25);
        s.begin(true, 1, 0).unwrap();
        let bases = [Var::NONE, s.constant([1, d], &values(d, 4))];
        let sparse = [0, 1].map(|i| {
            let rows = rows_of(&mut s, [n, d], &sparse_values([n, d], 1 + i), bases[i as usize]);
            s.sparse(&rows, n)
        });
        let dense = sparse.map(|v| s.dense(v));
        let (a, b) = (s.mix(sparse[0], sparse[1], lambda), s.mix(dense[0], dense[1], lambda));
        assert!(s.is_sparse(a) && !s.is_sparse(b));
        let f64s = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let (da, want) = (s.dense(a), s.download(b).unwrap());
        compare(device, &s.download(da).unwrap(), &f64s(want), 1e-6);
        let mut results = Vec::new();
        for x in [a, b] {
            s.forget_gradients();
            let (w, bias) = (s.leaf([h, d], &values(h * d, 5)), s.leaf([1, h], &values(h, 6)));
            let y = s.linear(x, w, bias, Activation::Elu);
            let twice = s.linear(x, w, bias, Activation::Tanh);
            let dy = s.constant([n, h], &values(n * h, 7));
            let (y, twice) = (s.mean_square(y, dy), s.mean_square(twice, dy));
            s.backward(&[(y, crate::engine::Weight::Fixed(1.0)), (twice, crate::engine::Weight::Fixed(2.0))]);
            let dw = s.grad(w).unwrap();
            results.push([s.download(y).unwrap(), s.download(dw).unwrap()]);
        }
        for (got, want) in results[0].iter().zip(&results[1]) {
            compare(device, got, &f64s(want.clone()), 2e-5);
        }
    }
}

#[test]
fn what_needs_dense_values_gets_the_same_as_of_the_dense_twin() {
    let [n, d] = [9, 21];
    for (device, mut s) in steps() {
        s.begin(true, 3, 0).unwrap();
        let values = sparse_values([n, d], 1);
        let rows = rows_of(&mut s, [n, d], &values, Var::NONE);
        let (x, twin) = (s.sparse(&rows, n), s.constant([n, d], &values));
        let (sd, y) = (s.constant([1, d], &[0.1; 21]), s.constant([n, d], &super::super::testing::values(n * d, 2)));
        let of = |s: &mut Step, x: Var| {
            let all = [s.corrupt(x, sd, 0.3, 4), s.rows_part(x, 2, 3), s.stacked(&[x, x])];
            let losses = [s.mean_square(y, x), s.masked_mae(y, x, Var::NONE, MissingIn::All)];
            all.into_iter().chain(losses).map(|v| s.download(v).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of(&mut s, x), of(&mut s, twin), "{device}");
    }
}

#[test]
fn dropout_keeps_and_drops_what_it_would_of_the_dense_twin_and_stays_sparse() {
    // Enough entries that the processor draws in parts.
    for [n, d] in [[9, 21], [1, 1], [40, 700]] {
        for (device, mut s) in steps() {
            let order = s.resident([1, n + 2]).unwrap();
            let reversed: Vec<u32> = [0, 0].into_iter().chain((0..n as u32).rev()).collect();
            s.upload(order, &reversed).unwrap();
            s.begin(true, 3, 2).unwrap();
            let values = sparse_values([n, d], 1);
            let rows = crate::engine::SparseRows { order, ..rows_of(&mut s, [n, d], &values, Var::NONE) };
            let x = s.sparse(&rows, n);
            let twin = s.dense(x);
            let [dropped, same] = [s.dropout(x, 0.4, 6), s.dropout(twin, 0.4, 6)];
            assert!(s.is_sparse(dropped) && !s.is_sparse(same), "{device}");
            let w = s.leaf([3, d], &super::super::testing::values(3 * d, 5));
            let y = s.linear(dropped, w, Var::NONE, Activation::Identity);
            let dense = s.dense(dropped);
            assert_eq!(s.download(dense).unwrap(), s.download(same).unwrap(), "{device}");
            let gradient = |s: &mut Step, y: Var| {
                let dy = s.constant([n, 3], &super::super::testing::values(3 * n, 6));
                s.backward_from(y, dy);
                let dw = s.grad(w).unwrap();
                s.download(dw).unwrap()
            };
            let dw = gradient(&mut s, y);
            s.forget_gradients();
            let y = s.linear(same, w, Var::NONE, Activation::Identity);
            let expected = gradient(&mut s, y);
            let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(dw.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * scale), "{device}");
        }
    }
    // What a zero stands for is dropped, too.
    let mut s = Step::new(crate::device::Device::cpu(), 0, crate::engine::Precision::F32).unwrap();
    s.begin(true, 1, 0).unwrap();
    let base = s.constant([1, 3], &[1.0; 3]);
    let rows = rows_of(&mut s, [2, 3], &[0.0, 2.0, 0.0, 0.0, 0.0, 3.0], base);
    let x = s.sparse(&rows, 2);
    let y = s.dropout(x, 0.5, 1);
    assert!(!s.is_sparse(y));
}

#[test]
#[should_panic(expected = "a sparse minibatch was given to an operation that takes none")]
fn an_operation_that_takes_none_reads_nothing() {
    let mut s = Step::new(crate::device::Device::cpu(), 0, crate::engine::Precision::F32).unwrap();
    s.begin(true, 1, 0).unwrap();
    let rows = rows_of(&mut s, [2, 2], &[0.0, 1.0, 2.0, 0.0], Var::NONE);
    let x = s.sparse(&rows, 2);
    s.softmax(x);
}

#[test]
fn threads_and_the_order_of_threads_change_no_bit() {
    let [n, d, h] = [200, 900, 140];
    let run = |mut s: Step| {
        s.begin(true, 1, 0).unwrap();
        let base = s.constant([1, d], &values(d, 9));
        let rows = rows_of(&mut s, [n, d], &sparse_values([n, d], 1), base);
        let x = s.sparse(&rows, n);
        let w = s.leaf([h, d], &values(h * d, 2));
        let y = s.linear(x, w, Var::NONE, Activation::Elu);
        let dy = s.constant([n, h], &values(n * h, 3));
        s.backward_from(y, dy);
        let dw = s.grad(w).unwrap();
        [y, dw].map(|v| s.download(v).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(Step::new(crate::device::Device::cpu(), 0, crate::engine::Precision::F32).unwrap()))
    };
    assert!(on(1) == on(3), "threads");
    #[cfg(feature = "emulated")]
    {
        let on = |seed: u64| run(Step::new(crate::device::Device::emulated(seed), 0, crate::engine::Precision::F32).unwrap());
        let first = on(1);
        assert!(on(2) == first && on(3) == first, "orders of threads");
    }
}
