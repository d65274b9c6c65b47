//! Operations: one room each, `src/engine/ops/<room>.rs` with `kernels/<room>.cu`.
//!
//! How to add one: a file here with the shape check, the CPU arm, the launch, the backward pass and the three proofs
//! (`testing` does them: value, gradient, every device against both); a kernel file of the same stem; a line below. Methods go
//! on [`Step`](super::Step), so nothing else changes. A test below names the kernels that
//! nothing launches.

pub mod activation;
pub mod aggregate;
pub mod batch_norm;
pub mod batch_norm_images;
pub mod bce;
pub mod centres;
pub mod classes;
pub mod consistency;
pub mod contrast;
pub mod conv;
pub mod distance;
pub mod gemm;
pub mod gromov;
mod images;
pub mod latent;
pub mod ledger;
pub mod linear;
pub mod logistic;
pub mod losses;
pub mod noise;
pub mod norms;
pub mod prime_dual;
pub mod reduce;
pub mod reverse;
pub mod rows;
pub mod shape;
pub mod sinkhorn;
pub mod small;
mod sparse;
pub mod spectrum;
pub mod tables;
#[cfg(test)]
pub(crate) mod testing;
pub mod transport;
pub mod turns;
pub mod whiten;

#[cfg(all(test, feature = "emulated"))]
mod tests {
    use super::activation::Activation::{Identity, Relu};
    use super::batch_norm::{BatchNormState, Running};
    use super::classes::Target;
    use super::conv::ConvShape;
    use super::gemm::Layout;
    use super::ledger::Ledger;
    use super::losses::MissingIn::Observed;
    use super::prime_dual::Pace;
    use super::sinkhorn::Masses;
    use super::small::Smallest;
    use super::tables::{TableAdam, Untouched};
    use super::testing::values;
    use super::transport::Towards;
    use crate::device::{Device, sources};
    use crate::engine::average::MovingAverage;
    use crate::engine::optim::{Adam, AdamSettings, Sgd, SgdSettings};
    use crate::engine::{Precision, Step, Var, Weight};
    use std::collections::BTreeSet;

    /// Every operation, forward and backward; the kernels that this launched.
    fn launched(precision: Precision) -> BTreeSet<&'static str> {
        let mut s = Step::new(Device::emulated(3), 1, precision).unwrap();
        let (rows, p) = (9, 4);
        let x = s.resident([20, p]).unwrap();
        s.upload(x, &values(20 * p, 1)).unwrap();
        let order = s.resident([1, 20]).unwrap();
        let state = |s: &mut Step, name: &str| s.state(name, [1, p], &[0.5; 4]).unwrap();
        let [warm, mean, variance] = ["warm", "mean", "variance"].map(|name| state(&mut s, name));
        let norm =
            BatchNormState { scale: Var::NONE, shift: Var::NONE, mean, variance, epsilon: 1e-3, keep: 0.9, running: Running::Biased };
        let w = s.parameter("w", 0, [p, p], values(p * p, 2));
        let mut adam = Adam::new(&mut s, 0, AdamSettings::default()).unwrap();
        let sgd = Sgd::new(&mut s, "0", 0, SgdSettings { rate: 0.1, momentum: 0.9, l2: 0.0 });
        let average = MovingAverage::new(&mut s, "0", 0, 0.99).unwrap();
        let table = s.table("table", 1, [20, p], &values(20 * p, 9)).unwrap();
        let rows_adam = TableAdam::new(&mut s, 1, AdamSettings::default(), Untouched::Dense).unwrap();
        let knob = s.knob(0.5);
        let ledger = Ledger::new(&mut s, 4).unwrap();
        adam.set_step(&mut s, 1, 1.0);
        let pace = Pace { step: 0.01, penalty: 10.0 };
        let solver = s.prime_dual_state([rows, rows], pace).unwrap();
        let transport = s.sinkhorn_state(&[-2.0; 9], &[-2.0; 9]).unwrap();
        s.begin(true, 1, 0).unwrap();

        let cells = s.gather(x, order, rows, Var::NONE, Var::NONE);
        let plain = s.window(x, rows);
        let cells = s.turned(cells, [1, 2, 2], 3);
        let noisy = s.corrupt(cells, Var::NONE, 0.1, 0);
        let bias = s.leaf([1, p], &[0.1; 4]);
        let h = s.linear(noisy, w, bias, Relu);
        let h = s.linear(h, w, bias, Identity);
        let h = s.batch_norm(h, &norm, Identity);
        let h = s.dropout(h, 0.1, 5);
        let [a, b] = [0.5, 2.0].map(|shrink| s.leaf([rows, p], &values(rows * p, 3).iter().map(|v| v * shrink).collect::<Vec<_>>()));
        let (l_a, l_b) = (s.smallest_eigenvalue(a, warm, Smallest::Power), s.smallest_eigenvalue(b, warm, Smallest::Jacobi));
        let far = s.pair_distance(a, b, Var::NONE);
        let white = s.whiten(a, 1e-3);
        let all = s.sum(white);
        let terms =
            [s.masked_mse(h, plain, Var::NONE, Observed), s.over_smallest(far, l_a, l_b, 1e-2), s.mahalanobis(a, b, Var::NONE, 1e-3), all];
        ledger.add(&mut s, &terms);
        let sigma = s.leaf([1, 1], &[0.5]);
        let z = s.sample_latent(a, b, 9);
        let other = super::aggregate::Other { z: b, sigma, weights: Var::NONE };
        let c = s.aggregate(z, sigma, &[other, other]);
        let whole = s.constant([20, 20], &values(400, 8));
        let f = s.gather_block(whole, [order, order], rows);
        let inverses = s.inverse_sums(f);
        let carried = s.transport(f, inverses, b, Towards::Rows);
        let [blended, _] = s.blend([z, carried], Var::NONE, inverses[0], 0.5);
        let more = [s.kl(a, b), s.mean_square(c, z), s.mean_square(blended, a)];
        let part = s.rows_part(a, 1, rows - 1);
        let part = s.scaled(part, 0.5);
        let part = s.columns_part(part, 0, p);
        let classes = s.constant([rows - 1, 1], &[1.0; 8]);
        let code = s.one_hot(classes, 2, 2);
        let wide = s.beside(part, code);
        let adversarial = [s.cross_entropy(wide, Target::Labels(classes), Var::NONE), s.square_from(wide, 1.0)];
        let (mixed, turned) = (s.mix(a, b, knob), s.reverse_gradient(b, knob));
        let views = [a, turned].map(|v| s.transposed(v));
        let said = [s.consistency(a, [b, mixed], knob), s.logistic(turned, 1.0), s.nt_xent(views[0], views[1], 0.5)];
        let shares = s.softmax(a);
        let sure = s.constant([rows, 2], &[9.0; 18]);
        let centres = s.leaf([2, p], &values(2 * p, 6));
        let near = [s.centre_distance(shares, sure, centres, 0.4)];
        let (latent, weighted) = (s.table_rows(table, order, rows), s.leaf([rows, p], &values(rows * p, 7)));
        let latent = [s.mean_norm(latent, false), s.bce_with_logits(weighted, shares, 3.0)];
        let losses: Vec<_> = latent
            .into_iter()
            .chain(said)
            .chain(near)
            .chain(terms)
            .chain(more)
            .chain(adversarial)
            .map(|t| (t, Weight::Fixed(1.0)))
            .collect();
        s.backward(&losses);
        s.clip_gradients(0, 1.0);
        adam.step(&mut s, &ledger);
        rows_adam.step(&mut s, &ledger);
        s.settle_tables();
        sgd.unwrap().step(&mut s, &ledger);
        average.step(&mut s, &ledger);
        s.clamp_min(w, -1.0, &ledger);

        // A sparse minibatch: two terms and a base.
        s.forget_gradients();
        let rows_of = |s: &mut Step, salt: u32| {
            let base = s.constant([1, p], &values(p, salt));
            super::sparse::testing::rows_of(s, [rows, p], &values(rows * p, salt), base)
        };
        let (one, two) = (rows_of(&mut s, 1), rows_of(&mut s, 2));
        let [one, two] = [one, two].map(|r| s.sparse(&r, rows));
        let plain = super::sparse::testing::rows_of(&mut s, [rows, p], &values(rows * p, 8), Var::NONE);
        let (target, logits) = (s.sparse(&plain, rows), s.leaf([rows, p], &[0.5; 36]));
        s.bce_with_logits(logits, target, 3.0);
        s.dropout(target, 0.5, 9);
        let both = s.mix(one, two, knob);
        let y = s.linear(both, w, Var::NONE, Relu);
        let near = s.mean_square(y, both);
        s.backward(&[(near, Weight::Fixed(1.0))]);
        // The matrix product's other sizes: a long k is shared by blocks, a large C is cut into wide tiles.
        let (long, bias) = (s.constant([4, 2048], &values(8192, 4)), s.constant([1, 4], &[1.0; 4]));
        s.linear(long, long, bias, Relu);
        let (wide, narrow) = (s.constant([300, 2], &values(600, 5)), s.constant([2, 300], &values(600, 6)));
        let c = s.alloc([300, 300]);
        s.gemm(Layout::NN, c, wide, narrow, false, None);
        s.gemm(Layout::NT, c, wide, wide, false, None);
        s.gemm(Layout::TN, c, narrow, narrow, false, None);
        // Convolutions; one of few pixels and many channels shares its sums.
        s.forget_gradients();
        for [kernel, stride, padding] in [[4, 2, 1], [3, 1, 1]] {
            let shape = |channels_in, channels_out| ConvShape { channels_in, channels_out, height: 4, width: 4, kernel, stride, padding };
            let side = shape(1, 1).output()[0];
            let (x, w) = (s.leaf([2, 32], &values(64, 1)), s.leaf([3, 2 * kernel * kernel], &vec![0.1; 6 * kernel * kernel]));
            let (b, norm) = (s.leaf([1, 3], &[0.1; 3]), {
                let [mean, variance] = [0.0, 1.0].map(|v| s.constant([1, 3], &[v; 3]));
                BatchNormState { scale: Var::NONE, shift: Var::NONE, mean, variance, epsilon: 1e-3, keep: 0.9, running: Running::Unbiased }
            });
            let y = s.conv2d(x, w, b, shape(2, 3), Relu);
            let y = s.batch_norm_images(y, &norm, Relu);
            let back = ConvShape { height: side, width: side, ..shape(3, 2) };
            let y = s.conv_transpose2d(y, w, Var::NONE, back, Identity);
            let y = s.sum(y);
            s.backward(&[(y, Weight::Fixed(1.0))]);
        }
        let (x, w) = (s.constant([1, 128 * 16], &values(2048, 1)), s.constant([4, 2048], &values(8192, 4)));
        let shape = ConvShape { channels_in: 128, channels_out: 4, height: 4, width: 4, kernel: 4, stride: 2, padding: 1 };
        s.conv2d(x, w, bias, shape, Relu);
        // The correspondence solvers'.
        let (table, y) = (s.constant([rows, rows], &values(81, 7)), s.alloc([1, 1]));
        s.prime_dual_move(&solver, table, 1, pace);
        s.inner_product(&solver, y, table, table, Var::NONE);
        s.scaled_residual(&solver, table, y, solver.f, y);
        let plan = s.alloc([rows, rows]);
        s.sinkhorn_round(&transport, table, 0.1, Masses::Exact, Masses::AtMost);
        s.sinkhorn_plan(&transport, plan, table, 0.1);
        s.row_products(transport.f, table, table, Var::NONE);
        s.gromov_cost(table, transport.f, transport.g, 1.0, 0.0);
        s.finish().unwrap();
        match s.device() {
            Device::Kernels(k) => k.0.launched().into_iter().collect(),
            Device::Cpu(_) => unreachable!("made above"),
        }
    }

    #[test]
    fn every_kernel_is_launched() {
        let seen: BTreeSet<_> = [Precision::F32, Precision::Tf32, Precision::Bf16].into_iter().flat_map(launched).collect();
        let missing: Vec<_> = sources::KERNELS.iter().map(|(name, _)| *name).filter(|name| !seen.contains(name)).collect();
        assert!(missing.is_empty(), "nothing launches {missing:?}");
    }
}
