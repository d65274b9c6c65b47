//! A minibatch's entries in the order in which the products read them: panel by panel, sorted by row or by column, over the threads.

use super::COLS;
use rayon::prelude::*;

/// Panels that one thread sorts at a time.
const SORTED: usize = 4;

/// A minibatch's entries, by panel and row or by panel and column.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    /// Rows and columns of the minibatch.
    pub shape: [usize; 2],
    /// By row: where the entries of row b in panel p begin, at p·rows + b; by column: where those of a column begin. One more at the end.
    pub starts: &'a [u32],
    /// By row: the entries' columns within their panel; by column: their rows.
    pub at: &'a [u32],
    /// The entries.
    pub values: &'a [f32],
}

/// A row's entries in one term of the minibatch, columns ascending, and what its values are multiplied by.
pub type Row<'a> = (&'a [u32], &'a [f32], f32);

/// Words of `starts` by row, for [`Panels::rows`].
pub fn starts_by_row([rows, columns]: [usize; 2]) -> usize {
    columns.div_ceil(COLS) * rows + 1
}

impl<'a> Panels<'a> {
    /// The entries by panel, row and term, of rows that `row(b, term)` gives; room for as many as there are.
    #[track_caller]
    pub fn rows<'r>(
        shape @ [rows, columns]: [usize; 2],
        terms: usize,
        row: &(impl Fn(usize, usize) -> Row<'r> + Sync),
        starts: &'a mut [u32],
        at: &'a mut [u32],
        values: &'a mut [f32],
    ) -> Panels<'a> {
        assert_eq!(starts.len(), starts_by_row(shape), "panels: the room for starts");
        let panels = columns.div_ceil(COLS);
        let (counts, last) = starts.split_at_mut(panels * rows);
        if rows > 0 {
            counts.par_chunks_mut(SORTED * rows).enumerate().for_each(|(chunk, counts)| {
                counts.fill(0);
                each_run(rows, terms, row, chunk * SORTED, counts.len() / rows, |p, b, columns, _, _| {
                    counts[p * rows + b] += columns.len() as u32;
                });
            });
        }
        let mut sum = 0u32;
        for n in counts.iter_mut() {
            (*n, sum) = (sum, sum.checked_add(*n).expect("a minibatch has less than 2^32 entries"));
        }
        last[0] = sum;
        assert!(at.len() == sum as usize && values.len() == at.len(), "panels: room for {} entries, there are {sum}", at.len());
        let starts = &*starts;
        by_panels(0..panels, rows, starts, at, values, &|some, at, values| {
            let base = starts[some.start * rows] as usize;
            each_run(rows, terms, row, some.start, some.len(), |p, b, columns, v, (before, scale)| {
                let first = starts[(some.start + p) * rows + b] as usize - base + before;
                let (from, to) = (((some.start + p) * COLS) as u32, first..first + columns.len());
                at[to.clone()].iter_mut().zip(columns).for_each(|(at, c)| *at = c - from);
                values[to].iter_mut().zip(v).for_each(|(to, v)| *to = scale * v);
            });
        });
        Panels { shape, starts, at, values }
    }

    /// The same entries by column and row, from those by panel and row.
    #[track_caller]
    pub fn columns(by_row: Panels, starts: &'a mut [u32], at: &'a mut [u32], values: &'a mut [f32]) -> Panels<'a> {
        let [rows, columns] = by_row.shape;
        assert_eq!(starts.len(), columns + 1, "panels: the room for starts");
        assert!(at.len() == by_row.at.len() && values.len() == at.len(), "panels: room for as many entries");
        let (heads, last) = starts.split_at_mut(columns);
        last[0] = by_row.at.len() as u32;
        sort_columns(by_row, 0, heads, at, values);
        Panels { shape: [rows, columns], starts, at, values }
    }

    /// What the products rely on without looking again: `count` places start, ascending to the last entry, and all entries are at places below
    /// `below`.
    #[track_caller]
    pub(super) fn check(&self, count: usize, below: usize) {
        let [starts, at, values] = [self.starts.len(), self.at.len(), self.values.len()];
        assert!(starts == count + 1 && self.starts[0] == 0 && self.starts.is_sorted(), "sparse product: {starts} starts of {count}");
        assert!(self.starts[count] as usize == at && values == at, "sparse product: {at} places and {values} values");
        assert!(self.at.iter().fold(0, |most, a| most.max(*a)) < below.max(1) as u32, "sparse product: an entry beyond {below}");
    }

    pub(super) fn run(&self, panel: usize, row: usize) -> std::ops::Range<usize> {
        let at = panel * self.shape[0] + row;
        self.starts[at] as usize..self.starts[at + 1] as usize
    }
}

/// Calls `f(panel - first, row, columns, values, (before, scale))` for the entries of every row and term in each of `count` panels from `first`,
/// row by row, panel by panel, term by term; `before` of the run came from the term before.
fn each_run<'r>(
    rows: usize,
    terms: usize,
    row: &impl Fn(usize, usize) -> Row<'r>,
    first: usize,
    count: usize,
    mut f: impl FnMut(usize, usize, &[u32], &[f32], (usize, f32)),
) {
    const MOST: usize = 2;
    assert!(terms <= MOST, "a minibatch has up to {MOST} terms");
    for b in 0..rows {
        let mut left = [(&[][..], &[][..], 1.0); MOST];
        for (t, left) in left[..terms].iter_mut().enumerate() {
            let (columns, values, scale) = row(b, t);
            let skipped = columns.partition_point(|&c| (c as usize) < first * COLS);
            *left = (&columns[skipped..], &values[skipped..], scale);
        }
        for p in 0..count {
            let (end, mut before) = (((first + p + 1) * COLS) as u32, 0);
            for (columns, values, scale) in &mut left[..terms] {
                // A row has a handful in a panel.
                let n = columns.iter().position(|&c| c >= end).unwrap_or(columns.len());
                if n > 0 {
                    f(p, b, &columns[..n], &values[..n], (before, *scale));
                    before += n;
                    (*columns, *values) = (&columns[n..], &values[n..]);
                }
            }
        }
    }
}

/// Calls `f` for a few panels at a time with the entries of these, over the threads.
fn by_panels(
    panels: std::ops::Range<usize>,
    rows: usize,
    starts: &[u32],
    at: &mut [u32],
    values: &mut [f32],
    f: &(impl Fn(std::ops::Range<usize>, &mut [u32], &mut [f32]) + Sync),
) {
    if panels.len() <= SORTED {
        return f(panels, at, values);
    }
    let middle = panels.start + panels.len().div_ceil(2 * SORTED) * SORTED;
    let before = (starts[middle * rows] - starts[panels.start * rows]) as usize;
    let ((a, b), (v, w)) = (at.split_at_mut(before), values.split_at_mut(before));
    rayon::join(|| by_panels(panels.start..middle, rows, starts, a, v, f), || by_panels(middle..panels.end, rows, starts, b, w, f));
}

/// The entries of the panels from `first` on, whose columns `heads` are, by column; over the threads.
fn sort_columns(from: Panels, first: usize, heads: &mut [u32], at: &mut [u32], values: &mut [f32]) {
    let rows = from.shape[0];
    let panels = heads.len().div_ceil(COLS);
    if panels > SORTED {
        let here = panels / 2;
        let before = (from.starts[(first + here) * rows] - from.starts[first * rows]) as usize;
        let ((h, i), (a, b), (v, w)) = (heads.split_at_mut(here * COLS), at.split_at_mut(before), values.split_at_mut(before));
        rayon::join(|| sort_columns(from, first, h, a, v), || sort_columns(from, first + here, i, b, w));
        return;
    }
    let base = from.starts.get(first * rows).copied().unwrap_or(0);
    for (p, heads) in heads.chunks_mut(COLS).enumerate() {
        let (start, end) = (from.starts[(first + p) * rows], from.starts[(first + p + 1) * rows]);
        let mut next = [0u32; COLS + 1];
        from.at[start as usize..end as usize].iter().for_each(|&c| next[c as usize + 1] += 1);
        next[0] = start;
        (1..=COLS).for_each(|c| next[c] += next[c - 1]);
        heads.iter_mut().zip(&next).for_each(|(head, n)| *head = *n);
        for b in 0..rows {
            for e in from.run(first + p, b) {
                let place = &mut next[from.at[e] as usize];
                let to = (*place - base) as usize;
                (at[to], values[to]) = (b as u32, from.values[e]);
                *place += 1;
            }
        }
    }
}
