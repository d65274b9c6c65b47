use super::*;
use crate::engine::rng;

/// A minibatch of about this share of non-zeros: an empty row, a full one, and the rest by chance.
pub struct Sample {
    pub starts: Vec<usize>,
    pub columns: Vec<u32>,
    pub values: Vec<f32>,
    pub dense: Vec<f32>,
}

pub fn sample([rows, columns]: [usize; 2], share: f32, salt: u32) -> Sample {
    let mut s = Sample { starts: vec![0], columns: Vec::new(), values: Vec::new(), dense: vec![0.0; rows * columns] };
    for b in 0..rows {
        for c in 0..columns {
            let e = (b * columns + c) as u32;
            let there = if b == 1 { false } else { b == 2 || rng::uniform(5, salt, 1, e) < share };
            if there {
                let v = 2.0 * rng::uniform(5, salt, 0, e) - 1.0;
                s.columns.push(c as u32);
                s.values.push(v);
                s.dense[b * columns + c] = v;
            }
        }
        s.starts.push(s.columns.len());
    }
    s
}

fn noise(n: usize, salt: u32) -> Vec<f32> {
    (0..n).map(|i| 2.0 * rng::uniform(6, salt, 0, i as u32) - 1.0).collect()
}

struct Made {
    shape: [usize; 2],
    by_row: (Vec<u32>, Vec<u32>, Vec<f32>),
    by_column: (Vec<u32>, Vec<u32>, Vec<f32>),
}

impl Made {
    fn of(shape: [usize; 2], terms: &[(&Sample, f32)]) -> Made {
        let n = terms.iter().map(|t| t.0.columns.len()).sum();
        let (mut starts, mut at, mut values) = (vec![9; starts_by_row(shape)], vec![0; n], vec![0.0; n]);
        let row = |b: usize, t: usize| -> Row {
            let (s, scale) = terms[t];
            (&s.columns[s.starts[b]..s.starts[b + 1]], &s.values[s.starts[b]..s.starts[b + 1]], scale)
        };
        let panels = Panels::rows(shape, terms.len(), &row, &mut starts, &mut at, &mut values);
        let mut by_column = (vec![0; shape[1] + 1], vec![0; n], vec![0.0; n]);
        Panels::columns(panels, &mut by_column.0, &mut by_column.1, &mut by_column.2);
        Made { shape, by_row: (starts, at, values), by_column }
    }

    fn rows(&self) -> Panels<'_> {
        Panels { shape: self.shape, starts: &self.by_row.0, at: &self.by_row.1, values: &self.by_row.2 }
    }

    fn columns(&self) -> Panels<'_> {
        Panels { shape: self.shape, starts: &self.by_column.0, at: &self.by_column.1, values: &self.by_column.2 }
    }
}

const SIZES: [[usize; 3]; 8] =
    [[1, 1, 1], [3, 1, 5], [1, 65, 64], [5, 64, 63], [33, 129, 65], [70, 300, 130], [4, 2200, 3], [150, 1100, 70]];

#[test]
fn products_match_f64_at_every_edge_with_and_without_a_base_and_of_two_terms() {
    for [rows, columns, outs] in SIZES {
        let (a, b) = (sample([rows, columns], 0.1, 1), sample([rows, columns], 0.3, 2));
        let (w, base, dy) = (noise(outs * columns, 3), noise(columns, 4), noise(rows * outs, 5));
        for (terms, based) in [(vec![(&a, 1.0)], false), (vec![(&a, 1.0)], true), (vec![(&a, 0.25), (&b, 0.75)], true)] {
            let made = Made::of([rows, columns], &terms);
            let base: &[f32] = if based { &base } else { &[] };
            let x = |r: usize, c: usize| {
                let sparse: f64 = terms.iter().map(|(s, scale)| f64::from(s.dense[r * columns + c]) * f64::from(*scale)).sum();
                sparse + base.get(c).map_or(0.0, |b| f64::from(*b))
            };
            let mut y = vec![f32::NAN; rows * outs];
            forward(made.rows(), &mut y, &w, base, outs, 2, |first, row| {
                row.iter_mut().enumerate().for_each(|(i, y)| *y += (first + i) as f32);
            });
            // Roundings of partial sums of this size: a full row's terms, and what is added at the end.
            let size = (columns as f64).sqrt() + outs as f64;
            let tolerance = 1e-6 * size.max(4.0);
            for (e, y) in y.iter().enumerate() {
                let (r, h) = (e / outs, e % outs);
                let want = h as f64 + (0..columns).map(|c| x(r, c) * f64::from(w[h * columns + c])).sum::<f64>();
                assert!((f64::from(*y) - want).abs() <= tolerance * want.abs().max(1.0), "[{rows}, {columns}, {outs}] {e}: {y} for {want}");
            }
            let sums: Vec<f32> = (0..outs).map(|h| (0..rows).map(|r| dy[r * outs + h]).sum()).collect();
            for add in [false, true] {
                let mut dw = vec![if add { 1.0 } else { f32::NAN }; outs * columns];
                gradient(made.columns(), &mut dw, &dy, base, if based { &sums } else { &[] }, outs, add, 2);
                for (e, dw) in dw.iter().enumerate() {
                    let (h, c) = (e / columns, e % columns);
                    let want = f64::from(u8::from(add)) + (0..rows).map(|r| x(r, c) * f64::from(dy[r * outs + h])).sum::<f64>();
                    assert!(
                        (f64::from(*dw) - want).abs() <= 1e-5 * want.abs().max(1.0),
                        "[{rows}, {columns}, {outs}] {e}: {dw} for {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (rows, columns, outs) = (300, 1500, 90);
    let a = sample([rows, columns], 0.1, 1);
    let (w, base, dy, sums) = (noise(outs * columns, 3), noise(columns, 4), noise(rows * outs, 5), noise(outs, 6));
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let made = Made::of([rows, columns], &[(&a, 1.0)]);
            let (mut y, mut dw) = (vec![0.0; rows * outs], vec![0.0; outs * columns]);
            forward(made.rows(), &mut y, &w, &base, outs, threads, |_, _| {});
            gradient(made.columns(), &mut dw, &dy, &base, &sums, outs, false, threads);
            (y, dw)
        })
    };
    let one = of(1);
    assert!([2, 3, 8].into_iter().all(|threads| of(threads) == one));
}

/// `cargo test --release --lib sparse_beside -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn times_of_sparse_beside_dense_products() {
    use super::super::{Layout, gemm};
    use std::time::Instant;
    let time = |f: &mut dyn FnMut()| {
        f();
        let each = |_| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64() * 1e3
        };
        let mut all: Vec<f64> = (0..7).map(each).collect();
        all.sort_by(f64::total_cmp);
        all[3]
    };
    let threads = rayon::current_num_threads();
    for ([rows, columns, outs], shares) in [
        ([1024, 2000, 1024], &[0.05f32, 0.1, 0.15, 0.2, 0.3, 0.5][..]),
        ([512, 58170, 1024], &[0.04, 0.08]),
        ([100, 1252, 50], &[0.1, 0.2]),
    ] {
        let (w, dy, base) = (noise(outs * columns, 3), noise(rows * outs, 5), noise(columns, 4));
        let (mut y, mut dw) = (vec![0.0; rows * outs], vec![0.0; outs * columns]);
        let x = sample([rows, columns], 0.5, 1).dense;
        let forwards = time(&mut || gemm(Layout::NT, [rows, outs, columns], &mut y, &x, &w, false, threads, |_, _| {}));
        let backwards = time(&mut || gemm(Layout::TN, [outs, columns, rows], &mut dw, &dy, &x, false, threads, |_, _| {}));
        println!("{rows} x {columns} by {outs}: dense {forwards:.2} and {backwards:.2} ms");
        for &share in shares {
            let a = sample([rows, columns], share, 1);
            let sorting = time(&mut || drop(Made::of([rows, columns], &[(&a, 1.0)])));
            let made = Made::of([rows, columns], &[(&a, 1.0)]);
            let f = time(&mut || forward(made.rows(), &mut y, &w, &base, outs, threads, |_, _| {}));
            let sums = vec![0.5; outs];
            let g = time(&mut || gradient(made.columns(), &mut dw, &dy, &base, &sums, outs, false, threads));
            let rate = |ms: f64| 2e-6 * (a.columns.len() * outs) as f64 / ms;
            println!("  {share}: {f:.2} ms ({:.0} GFLOP/s) and {g:.2} ms ({:.0} GFLOP/s), sorting {sorting:.2} ms", rate(f), rate(g));
        }
    }
}
