//! How far the codes of two modalities are apart, on the rows known to be the same cell.
//!
//!   pair_distance        M = Σ_r w_r |a_r - b_r|² / Σ_r w_r       (sum over the latent dimensions; Σ w = 0 gives 0)
//!   pair_length          M = Σ_r w_r |a_r - b_r| / Σ_r w_r        (the Euclidean length itself)
//!   over_smallest        C = M / max(min(l_a, l_b), floor)        (Gala et al. 2019, eq. 6 with a floor)
//!   backward             da_r = dM · 2 w_r (a_r - b_r) / Σ w,  db = -da
//!                        da_r = dM · w_r (a_r - b_r) / (|a_r - b_r| Σ w), 0 where the two meet        (pair_length)
//!                        dM = dC/s,  dl_k = -dC M/s² for the smaller l_k, and only above the floor; on a tie the first
//!   shapes               a, b [B, L], w [B, 1] or none; M, l, C [1, 1]
//!   kernels              pair_distance_fwd, pair_distance_bwd, over_smallest_fwd, over_smallest_bwd   (kernels/distance.cu)

use crate::device::launch::Grid;
use crate::engine::tape::{Node, Op};
use crate::engine::{Step, Var};

static PAIR_DISTANCE: Op = Op { name: "pair_distance", backward: pair_backward };
static OVER_SMALLEST: Op = Op { name: "over_smallest", backward: ratio_backward };

impl Step {
    /// The weighted mean squared distance of rows. a, b [B, L], weights [B, 1] or [`Var::NONE`]; result [1, 1].
    #[track_caller]
    pub fn pair_distance(&mut self, a: Var, b: Var, weights: Var) -> Var {
        self.distance(a, b, weights, false)
    }

    /// The weighted mean distance of rows, as [`Step::pair_distance`].
    #[track_caller]
    pub fn pair_length(&mut self, a: Var, b: Var, weights: Var) -> Var {
        self.distance(a, b, weights, true)
    }

    /// With `lengths` of each row's roots, else of squares.
    #[track_caller]
    fn distance(&mut self, a: Var, b: Var, weights: Var, lengths: bool) -> Var {
        let [rows, cols] = self.dims(a);
        assert_eq!(self.dims(b), [rows, cols], "pair_distance: a is [{rows}, {cols}], b is {:?}", self.dims(b));
        let (m, total) = (self.alloc([1, 1]), self.alloc([1, 1]));
        let length = if lengths { self.alloc([rows, 1]) } else { Var::NONE };
        if self.on_cpu() {
            let (w, length) = (self.or_empty(weights), self.or_empty(length));
            let ([m, total, length], [a, b, w]) = self.views([m, total, length], [a, b, w]);
            let (mut sum, mut seen) = (0.0f64, 0.0f64);
            for (r, (a, b)) in a.chunks_exact(cols).zip(b.chunks_exact(cols)).enumerate() {
                let weight = w.get(r).copied().unwrap_or(1.0) as f64;
                let mut row = a.iter().zip(b).map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>();
                if let Some(length) = length.get_mut(r) {
                    row = row.sqrt();
                    *length = row as f32;
                }
                sum += weight * row;
                seen += weight;
            }
            total[0] = seen as f32;
            m[0] = if seen > 0.0 { (sum / seen) as f32 } else { 0.0 };
        } else {
            let (w, length) = (self.ptr(weights), self.ptr(length));
            let args = [self.ptr(m), self.ptr(total), length, self.ptr(a), self.ptr(b), w, rows.into(), cols.into()];
            self.launch("pair_distance_fwd", Grid::blocks(1, 256), &args);
        }
        self.record(&PAIR_DISTANCE, [a, b, weights, total, length], m, [0.0; 4], [0; 4]);
        m
    }

    /// M over the smaller of two eigenvalues, no smaller than `floor`. All [1, 1].
    pub fn over_smallest(&mut self, m: Var, l_a: Var, l_b: Var, floor: f32) -> Var {
        let c = self.alloc([1, 1]);
        if self.on_cpu() {
            let ([c], [m, a, b]) = self.views([c], [m, l_a, l_b]);
            c[0] = m[0] / a[0].min(b[0]).max(floor);
        } else {
            let args = [self.ptr(c), self.ptr(m), self.ptr(l_a), self.ptr(l_b), floor.into()];
            self.launch("over_smallest_fwd", Grid::blocks(1, 1), &args);
        }
        self.record(&OVER_SMALLEST, [m, l_a, l_b], c, [floor, 0.0, 0.0, 0.0], [0; 4]);
        c
    }

    /// A gradient slot for `v` if it wants one, else none.
    pub(super) fn slot_if_wanted(&mut self, v: Var) -> (Var, bool) {
        if self.wants(v) { self.grad_slot(v) } else { (Var::NONE, false) }
    }
}

fn pair_backward(s: &mut Step, node: &Node) {
    let [a, b, weights, total, length, ..] = node.x;
    let dm = s.grad(node.y).expect("the gradient has arrived");
    let [rows, cols] = s.dims(a);
    let ((da, add_a), (db, add_b)) = (s.slot_if_wanted(a), s.slot_if_wanted(b));
    if s.on_cpu() {
        let (w, length, da, db) = (s.or_empty(weights), s.or_empty(length), s.or_empty(da), s.or_empty(db));
        let ([da, db], [a, b, w, length, total, dm]) = s.views([da, db], [a, b, w, length, total, dm]);
        let scale = if total[0] > 0.0 { dm[0] / total[0] } else { 0.0 };
        for i in 0..rows * cols {
            // Where two rows meet their length has no slope.
            let slope = length.get(i / cols).map_or(2.0, |&l| if l > 0.0 { 1.0 / l } else { 0.0 });
            let g = scale * slope * w.get(i / cols).copied().unwrap_or(1.0) * (a[i] - b[i]);
            if let Some(d) = da.get_mut(i) {
                *d = if add_a { *d + g } else { g };
            }
            if let Some(d) = db.get_mut(i) {
                *d = if add_b { *d - g } else { -g };
            }
        }
    } else {
        let args = [
            s.ptr(da),
            s.ptr(db),
            s.ptr(a),
            s.ptr(b),
            s.ptr(weights),
            s.ptr(total),
            s.ptr(length),
            s.ptr(dm),
            rows.into(),
            cols.into(),
            add_a.into(),
            add_b.into(),
        ];
        s.launch("pair_distance_bwd", Grid::over(rows * cols), &args);
    }
}

fn ratio_backward(s: &mut Step, node: &Node) {
    let [m, l_a, l_b, ..] = node.x;
    let floor = node.k[0];
    let dc = s.grad(node.y).expect("the gradient has arrived");
    let ((dm, add_m), (da, add_a), (db, add_b)) = (s.slot_if_wanted(m), s.slot_if_wanted(l_a), s.slot_if_wanted(l_b));
    if s.on_cpu() {
        let slots = [dm, da, db].map(|v| s.or_empty(v));
        let (slots, [m, a, b, dc]) = s.views(slots, [m, l_a, l_b, dc]);
        let smaller = a[0].min(b[0]);
        let by = smaller.max(floor);
        let dl = if smaller > floor { -dc[0] * m[0] / (by * by) } else { 0.0 };
        let first = a[0] <= b[0];
        let values = [dc[0] / by, if first { dl } else { 0.0 }, if first { 0.0 } else { dl }];
        for ((slot, value), add) in slots.into_iter().zip(values).zip([add_m, add_a, add_b]) {
            if let Some(d) = slot.first_mut() {
                *d = if add { *d + value } else { value };
            }
        }
    } else {
        let args = [
            s.ptr(dm),
            s.ptr(da),
            s.ptr(db),
            s.ptr(m),
            s.ptr(l_a),
            s.ptr(l_b),
            s.ptr(dc),
            floor.into(),
            add_m.into(),
            add_a.into(),
            add_b.into(),
        ];
        s.launch("over_smallest_bwd", Grid::blocks(1, 1), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn reference(a: &[f64], b: &[f64], w: &[f32], cols: usize) -> Vec<f64> {
        let weight = |r: usize| w.get(r).map_or(1.0, |&w| w as f64);
        let total: f64 = (0..a.len() / cols).map(weight).sum();
        let sum: f64 = a.iter().zip(b).enumerate().map(|(i, (a, b))| weight(i / cols) * (a - b).powi(2)).sum();
        vec![if total > 0.0 { sum / total } else { 0.0 }]
    }

    #[test]
    fn pair_distance_matches_the_reference_with_and_without_weights() {
        for [rows, cols] in [[1, 1], [13, 3], [33, 10], [257, 2]] {
            let (a, b) = (operand([rows, cols], 1), operand([rows, cols], 2));
            prove(&[a.clone(), b.clone()], 1e-5, |s, v| s.pair_distance(v[0], v[1], Var::NONE), |x| reference(&x[0], &x[1], &[], cols));
            let mut w: Vec<f32> = values(rows, 3).iter().map(|w| w.abs()).collect();
            w[0] = if rows > 1 { 0.0 } else { 0.3 };
            let weights = fixed([rows, 1], w.clone());
            prove(&[a, b, weights], 1e-5, |s, v| s.pair_distance(v[0], v[1], v[2]), |x| reference(&x[0], &x[1], &w, cols));
        }
    }

    #[test]
    fn pair_length_matches_the_reference_and_has_no_slope_where_rows_meet() {
        for [rows, cols] in [[1, 1], [13, 3], [33, 10], [257, 2]] {
            let w: Vec<f32> = values(rows, 3).iter().map(|w| w.abs()).collect();
            let reference = |x: &[Vec<f64>]| {
                let far = |r: usize| (0..cols).map(|c| (x[0][r * cols + c] - x[1][r * cols + c]).powi(2)).sum::<f64>().sqrt();
                let total: f64 = w.iter().map(|&w| w as f64).sum();
                vec![(0..rows).map(|r| w[r] as f64 * far(r)).sum::<f64>() / total]
            };
            let operands = [operand([rows, cols], 1), operand([rows, cols], 2), fixed([rows, 1], w.clone())];
            prove(&operands, 1e-5, |s, v| s.pair_length(v[0], v[1], v[2]), reference);
        }
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (a, b) = (s.leaf([2, 2], &[1.0, 2.0, 3.0, 4.0]), s.constant([2, 2], &[1.0, 2.0, 0.0, 0.0]));
            let m = s.pair_length(a, b, Var::NONE);
            s.backward(&[(m, crate::engine::Weight::Fixed(1.0))]);
            let g = s.grad(a).unwrap();
            assert_eq!(s.download(m).unwrap(), [2.5], "{device}");
            assert_eq!(s.download(g).unwrap()[..2], [0.0, 0.0], "{device}");
        }
    }

    #[test]
    fn no_pairs_give_zero_and_no_gradient_instead_of_nan() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (a, b, w) = (s.leaf([2, 2], &[1.0, 2.0, 3.0, 4.0]), s.leaf([2, 2], &[0.0; 4]), s.constant([2, 1], &[0.0; 2]));
            let m = s.pair_distance(a, b, w);
            s.backward(&[(m, crate::engine::Weight::Fixed(1.0))]);
            let (ga, gb) = (s.grad(a).unwrap(), s.grad(b).unwrap());
            assert_eq!(s.download(m).unwrap(), [0.0], "{device}");
            assert!(s.download(ga).unwrap().iter().chain(&s.download(gb).unwrap()).all(|&g| g == 0.0), "{device}");
        }
    }

    #[test]
    fn over_smallest_follows_the_smaller_eigenvalue_and_the_floor() {
        for (l, floor) in [([0.5f32, 0.7], 0.01f32), ([0.9, 0.2], 0.01), ([0.001, 0.5], 0.01)] {
            let scalar = |v: f32| Operand { dims: [1, 1], values: vec![v], differentiate: true };
            prove(
                &[scalar(0.3), scalar(l[0]), scalar(l[1])],
                1e-5,
                |s, v| s.over_smallest(v[0], v[1], v[2], floor),
                |x| vec![x[0][0] / x[1][0].min(x[2][0]).max(floor as f64)],
            );
        }
    }

    /// What each coupling of two codes sees: their common scale changes only the plain one, and a common rotation changes none.
    #[test]
    fn couplings_do_not_see_a_common_rotation_and_only_the_plain_one_sees_the_scale() {
        use super::super::small::{self, Smallest};
        let (n, p) = (40, 3);
        let (a, b) = (values(n * p, 1), values(n * p, 2));
        let turn = |z: &[f32], scale: f32| {
            // Two plane rotations, then the scale.
            let (c, s) = (0.6f32, 0.8f32);
            let turned = z.chunks_exact(p).flat_map(|z| {
                let (x, y) = (c * z[0] - s * z[1], s * z[0] + c * z[1]);
                [x, c * y - s * z[2], s * y + c * z[2]].map(|v| v * scale)
            });
            turned.collect::<Vec<f32>>()
        };
        for (device, mut s) in steps() {
            let mut couplings = |a: &[f32], b: &[f32]| {
                s.begin(true, 1, 0).unwrap();
                let (a, b) = (s.constant([n, p], a), s.constant([n, p], b));
                let mut start = [0.0; 3];
                small::start_vector(&mut start);
                let l = [a, b].map(|z| {
                    let warm = s.constant([1, p], &start.map(|v| v as f32));
                    s.smallest_eigenvalue(z, warm, Smallest::Power)
                });
                let plain = s.pair_distance(a, b, Var::NONE);
                let smallest = s.over_smallest(plain, l[0], l[1], 0.0);
                let (white_a, white_b) = (s.whiten(a, 0.0), s.whiten(b, 0.0));
                let full = s.pair_distance(white_a, white_b, Var::NONE);
                [plain, smallest, full].map(|v| s.download(v).unwrap()[0] as f64)
            };
            let before = couplings(&a, &b);
            let after = couplings(&turn(&a, 3.0), &turn(&b, 3.0));
            for ((name, before), (after, factor)) in
                ["plain", "smallest", "full"].iter().zip(before).zip(after.into_iter().zip([9.0, 1.0, 1.0]))
            {
                let tolerance = 4e-6 * factor * before; // the rotation itself rounds to f32
                assert!((after - factor * before).abs() <= tolerance, "{device}, {name}: {before} becomes {after}");
            }
        }
    }

    #[test]
    fn on_a_tie_the_first_eigenvalue_takes_the_gradient() {
        for (device, mut s) in steps() {
            s.begin(true, 1, 0).unwrap();
            let (m, a, b) = (s.leaf([1, 1], &[2.0]), s.leaf([1, 1], &[0.5]), s.leaf([1, 1], &[0.5]));
            let c = s.over_smallest(m, a, b, 0.0);
            s.backward(&[(c, crate::engine::Weight::Fixed(1.0))]);
            let (ga, gb) = (s.grad(a).unwrap(), s.grad(b).unwrap());
            assert_eq!((s.download(ga).unwrap()[0], s.download(gb).unwrap()[0]), (-8.0, 0.0), "{device}");
        }
    }
}
