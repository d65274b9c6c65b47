//! turned: images turned and mirrored at random, so that a network learns what does not depend on how a cell lay under the microscope.
//!
//!   y_r = x_r under one of the eight symmetries of a square, t = the top three bits of element r's random word
//!   pixel (i, j) of y is pixel (i', j') of x:   i' = n-1-i if t & 2, j' = n-1-j if t & 1, then the two exchanged if t & 4
//!   shapes   x, y [B cells, C·n·n]
//!   kernel   turn_images                                                                  (kernels/turns.cu)
//!
//! The turn is a function of (seed, stream, step number, row): the same on every device, another one in every step. Outside training it
//! is the identity. No gradient: data want none.

use crate::device::cpu;
use crate::device::launch::Grid;
use crate::device::random::{Key, words};
use crate::engine::{Step, Var};

impl Step {
    /// In training each image [C, n, n] of `x` under a symmetry of its own; outside training x itself. `stream` is from [`Step::stream`].
    #[track_caller]
    pub fn turned(&mut self, x: Var, [channels, height, width]: [usize; 3], stream: u32) -> Var {
        let [rows, cols] = self.dims(x);
        assert_eq!(height, width, "turned: images of {height} x {width}; only squares turn onto themselves");
        assert_eq!(cols, channels * height * width, "turned: x is [{rows}, {cols}], images are {channels} x {height} x {width}");
        if !self.training() {
            return x;
        }
        let (x, n) = (self.dense(x), height);
        let y = self.alloc([rows, cols]);
        if self.on_cpu() {
            let key = Key { seed: self.seed(), stream, step: self.step_number() };
            let ([y], [x]) = self.views([y], [x]);
            cpu::rows(y, cols, |r, y| {
                let turn = words(key, (r / 4) as u64)[r % 4] >> 29;
                let images = y.chunks_exact_mut(n * n).zip(x[r * cols..(r + 1) * cols].chunks_exact(n * n));
                images.for_each(|(y, x)| turn_image(y, x, n, turn));
            });
        } else {
            let [low, high] = self.seed_args();
            let (channels, stream) = (channels.into(), stream.into());
            let args = [self.ptr(y), self.ptr(x), self.clock_ptr(), rows.into(), channels, n.into(), stream, low, high];
            self.launch("turn_images", Grid::blocks(rows, 256), &args);
        }
        y
    }
}

fn turn_image(y: &mut [f32], x: &[f32], n: usize, turn: u32) {
    for (row, y) in y.chunks_exact_mut(n).enumerate() {
        let i = if turn & 2 != 0 { n - 1 - row } else { row };
        for (col, y) in y.iter_mut().enumerate() {
            let j = if turn & 1 != 0 { n - 1 - col } else { col };
            *y = x[if turn & 4 != 0 { j * n + i } else { i * n + j }];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A quarter turn and a mirror image generate all eight.
    fn eight(x: &[f32], n: usize) -> BTreeSet<Vec<u32>> {
        let quarter = |x: &[f32]| -> Vec<f32> { (0..n * n).map(|p| x[(p % n) * n + n - 1 - p / n]).collect() };
        let mirror = |x: &[f32]| -> Vec<f32> { (0..n * n).map(|p| x[p / n * n + n - 1 - p % n]).collect() };
        let mut all = BTreeSet::new();
        let mut now = x.to_vec();
        for _ in 0..4 {
            now = quarter(&now);
            all.insert(now.iter().map(|v| v.to_bits()).collect());
            all.insert(mirror(&now).iter().map(|v| v.to_bits()).collect());
        }
        all
    }

    #[test]
    fn every_symmetry_of_the_square_is_drawn_about_as_often() {
        let (n, rows) = (5, 4000);
        let image = values(n * n, 3);
        let expected = eight(&image, n);
        assert_eq!(expected.len(), 8, "an image without symmetry of its own");
        for (device, mut s) in steps() {
            s.begin(true, 7, 0).unwrap();
            let x = s.constant([rows, n * n], &image.repeat(rows));
            let y = s.turned(x, [1, n, n], 11);
            let mut seen = BTreeMap::new();
            for y in s.download(y).unwrap().chunks_exact(n * n) {
                *seen.entry(y.iter().map(|v| v.to_bits()).collect::<Vec<u32>>()).or_insert(0) += 1;
            }
            assert_eq!(seen.keys().cloned().collect::<BTreeSet<_>>(), expected, "{device}");
            // 500 each; five deviations of 21.
            assert!(seen.values().all(|&of| (395..605).contains(&of)), "{device}: {:?}", seen.values());
        }
    }

    #[test]
    fn devices_agree_steps_and_streams_differ_and_all_channels_of_a_cell_turn_alike() {
        for (n, channels, rows) in [(1, 1, 3), (2, 3, 5), (33, 2, 7), (64, 1, 9)] {
            let x: Vec<f32> = values(rows * channels * n * n, 4);
            let mut all = Vec::new();
            for (_, mut s) in steps() {
                let mut drawn = |step: u64, stream: u32| {
                    s.begin(true, step, 0).unwrap();
                    let x = s.constant([rows, channels * n * n], &x);
                    let y = s.turned(x, [channels, n, n], stream);
                    s.download(y).unwrap()
                };
                all.push([drawn(1, 5), drawn(2, 5), drawn(1, 6), drawn(1, 5)]);
            }
            assert!(all.iter().all(|drawn| *drawn == all[0]), "{n} x {n}");
            let [first, next, other, again] = &all[0];
            assert_eq!(first, again);
            assert!(n == 1 || (first != next && first != other), "{n} x {n}");
            for (y, x) in first.chunks_exact(channels * n * n).zip(x.chunks_exact(channels * n * n)) {
                let turns = |turn: u32| {
                    y.chunks_exact(n * n).zip(x.chunks_exact(n * n)).all(|(y, x)| {
                        let mut turned = vec![0.0; n * n];
                        turn_image(&mut turned, x, n, turn);
                        turned == y
                    })
                };
                assert!((0..8).any(turns), "one symmetry for all channels");
            }
        }
    }

    #[test]
    fn evaluation_turns_nothing() {
        for (device, mut s) in steps() {
            s.begin(false, 1, 0).unwrap();
            let x = s.constant([2, 9], &values(18, 1));
            assert_eq!(s.turned(x, [1, 3, 3], 1), x, "{device}");
        }
    }

    #[test]
    #[should_panic(expected = "only squares")]
    fn oblongs_are_refused() {
        let (_, mut s) = steps().remove(0);
        s.begin(true, 1, 0).unwrap();
        let x = s.constant([1, 6], &[0.0; 6]);
        s.turned(x, [1, 2, 3], 1);
    }
}
