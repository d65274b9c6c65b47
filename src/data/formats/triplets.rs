//! Sparse matrices given as entries (cell, feature, value) in any order, turned into rows with bounded memory.
//!
//! First pass: count the entries of each cell and see whether they come in the order of the cells. If they do, as in every file that
//! 10x writes, the second pass streams. If not, the cells are split into ranges of consecutive ones whose entries fit the memory budget, and
//! each range is sorted by counting when its turn comes: picked out of all entries, or, where there are more ranges than the entries may be
//! read again for, from a file a range over which a second pass spreads them. Entries of one place are added up, zeros dropped.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use super::{Row, Rows};
use crate::data::hooks::Hooks;
use crate::error::{Error, Result};

/// One stored element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Cell, from 0.
    pub cell: u32,
    /// Feature, from 0.
    pub feature: u32,
    /// Value; NaN is missing.
    pub value: f32,
}

/// Entries in the order of the file, checked to lie inside the matrix.
pub trait Entries {
    /// The next entry.
    fn next_entry(&mut self) -> Result<Option<Entry>>;
}

/// Opens the entries from the beginning; called once a pass.
pub type Reopen = Box<dyn Fn() -> Result<Box<dyn Entries>>>;

/// Entries held in memory while a range of cells is sorted: 16 million, 192 MiB.
const BUDGET: u64 = 1 << 24;
/// More temporary files than this are not opened; ranges grow instead.
const MOST_FILES: u64 = 256;
const ENTRY_BYTES: usize = 12;

/// The rows of a matrix of entries.
pub struct Triplets {
    reopen: Reopen,
    counts: Vec<u32>,
    entries: u64,
    scratch: PathBuf,
    budget: u64,
    /// As many ranges as entries are read again for instead of being written to files.
    rereads: usize,
    counted: bool,
    next: usize,
    state: State,
}

enum State {
    Unprepared,
    /// Entries come cell by cell; one was read ahead.
    InOrder {
        entries: Box<dyn Entries>,
        ahead: Option<Entry>,
    },
    /// Ranges of cells: the first cell of each, its file; the sorted entries of the current one.
    Ranges {
        starts: Vec<usize>,
        spilled: bool,
        current: usize,
        sorted: Vec<(u32, f32)>,
        at: usize,
    },
}

impl Triplets {
    /// `expected` entries, for progress; `scratch` takes temporary files.
    pub fn new(reopen: Reopen, cells: usize, expected: u64, scratch: PathBuf) -> Triplets {
        let counts = vec![0; cells];
        Triplets {
            reopen,
            counts,
            entries: expected,
            scratch,
            budget: BUDGET,
            rereads: 1,
            counted: false,
            next: 0,
            state: State::Unprepared,
        }
    }

    /// For entries that are quick to read: up to `times` ranges of up to `budget` entries are each picked out of all of them.
    #[cfg(any(test, feature = "hdf5"))]
    pub fn reading_again(mut self, times: usize, budget: u64) -> Triplets {
        (self.rereads, self.budget) = (times, budget);
        self
    }

    /// How many entries each cell has, where that is known and the first pass can be spared; they are not in the order of the cells.
    #[cfg(any(test, feature = "hdf5"))]
    #[track_caller]
    pub fn counted(&mut self, counts: Vec<u32>) {
        assert_eq!(counts.len(), self.counts.len(), "counted: a count a cell");
        self.entries = counts.iter().map(|&n| u64::from(n)).sum();
        self.counts = counts;
        self.counted = true;
    }

    fn spill_path(&self, range: usize) -> PathBuf {
        self.scratch.join(format!("range-{range}.partial"))
    }

    /// Splits the cells into ranges of at most the budget's entries (a range has at least one cell).
    fn ranges(&self) -> Vec<usize> {
        let budget = self.budget.max(self.entries.div_ceil(MOST_FILES));
        let (mut starts, mut held) = (vec![0], 0);
        for (cell, &n) in self.counts.iter().enumerate() {
            if held > 0 && held + n as u64 > budget {
                starts.push(cell);
                held = 0;
            }
            held += n as u64;
        }
        starts
    }

    /// First pass: counts the entries of each cell; whether they come in the order of the cells.
    fn count(&mut self, stage: &str, hooks: &mut Hooks) -> Result<bool> {
        let (mut entries, mut seen, mut last, mut in_order) = ((self.reopen)()?, 0u64, 0, true);
        while let Some(e) = entries.next_entry()? {
            in_order &= e.cell >= last;
            last = e.cell;
            let count = &mut self.counts[e.cell as usize];
            *count = count.checked_add(1).ok_or_else(|| Error::Internal(format!("cell {} has over 4 billion entries", e.cell)))?;
            seen += 1;
            if seen % (1 << 16) == 0 {
                hooks.tick(stage, seen, Some(self.entries))?;
            }
        }
        self.entries = seen;
        Ok(in_order)
    }

    /// Second pass over unordered entries: each goes to the file of its range.
    fn spill(&self, starts: &[usize], stage: &str, hooks: &mut Hooks) -> Result<()> {
        let mut files = Vec::new();
        for range in 0..starts.len() {
            let path = self.spill_path(range);
            let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
            files.push(BufWriter::with_capacity(1 << 16, file));
        }
        let (mut entries, mut done) = ((self.reopen)()?, 0);
        while let Some(e) = entries.next_entry()? {
            let range = starts.partition_point(|&s| s <= e.cell as usize) - 1;
            let mut bytes = [0; ENTRY_BYTES];
            bytes[..4].copy_from_slice(&e.cell.to_le_bytes());
            bytes[4..8].copy_from_slice(&e.feature.to_le_bytes());
            bytes[8..].copy_from_slice(&e.value.to_le_bytes());
            files[range].write_all(&bytes).map_err(|e| Error::io("write", self.spill_path(range), e))?;
            done += 1;
            if done % (1 << 16) == 0 {
                hooks.tick(stage, done, Some(self.entries))?;
            }
        }
        for (range, file) in files.iter_mut().enumerate() {
            file.flush().map_err(|e| Error::io("write", self.spill_path(range), e))?;
        }
        Ok(())
    }

    /// One range, sorted by cell: from its file if there is one, else picked out of all entries.
    fn load(&self, range: usize, starts: &[usize], spilled: bool) -> Result<Vec<(u32, f32)>> {
        let (first, end) = (starts[range], starts.get(range + 1).copied().unwrap_or(self.counts.len()));
        let mut places = Vec::with_capacity(end - first);
        let mut total = 0usize;
        for &n in &self.counts[first..end] {
            places.push(total);
            total += n as usize;
        }
        let mut sorted = vec![(0, 0.0); total];
        let mut put = |cell: u32, entry: (u32, f32)| {
            let place = &mut places[cell as usize - first];
            sorted[*place] = entry;
            *place += 1;
        };
        if !spilled {
            let mut entries = (self.reopen)()?;
            while let Some(e) = entries.next_entry()? {
                if (first..end).contains(&(e.cell as usize)) {
                    put(e.cell, (e.feature, e.value));
                }
            }
            return Ok(sorted);
        }
        let path = self.spill_path(range);
        let mut file = BufReader::with_capacity(1 << 16, File::open(&path).map_err(|e| Error::io("read", &path, e))?);
        let mut bytes = [0; ENTRY_BYTES];
        for _ in 0..total {
            file.read_exact(&mut bytes).map_err(|e| Error::io("read", &path, e))?;
            let word = |i: usize| [bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]];
            put(u32::from_le_bytes(word(0)), (u32::from_le_bytes(word(4)), f32::from_le_bytes(word(8))));
        }
        drop(file);
        // The directory is removed in the end anyway; this only frees the space earlier.
        let _ = std::fs::remove_file(&path);
        Ok(sorted)
    }
}

impl Rows for Triplets {
    fn prepare(&mut self, stage: &str, hooks: &mut Hooks) -> Result<()> {
        let stage = format!("{stage}: counting");
        let in_order = !self.counted && self.count(&stage, hooks)?;
        self.state = if in_order {
            let mut entries = (self.reopen)()?;
            let ahead = entries.next_entry()?;
            State::InOrder { entries, ahead }
        } else {
            let starts = self.ranges();
            let spilled = starts.len() > self.rereads;
            if spilled {
                self.spill(&starts, &stage.replace("counting", "sorting"), hooks)?;
            }
            let sorted = self.load(0, &starts, spilled)?;
            State::Ranges { starts, spilled, current: 0, sorted, at: 0 }
        };
        Ok(())
    }

    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        if matches!(self.state, State::Unprepared) {
            self.prepare("", &mut Hooks::default())?;
        }
        if self.next == self.counts.len() {
            return Ok(false);
        }
        let mut pairs: Vec<(u32, f32)> = Vec::with_capacity(self.counts[self.next] as usize);
        if let State::Ranges { starts, current, .. } = &self.state
            && starts.get(current + 1) == Some(&self.next)
        {
            // The old range goes before the new one comes, so that one is in memory at a time.
            let State::Ranges { starts, spilled, current, .. } = std::mem::replace(&mut self.state, State::Unprepared) else {
                return Err(Error::Internal("a range that was there is gone".into()));
            };
            let sorted = self.load(current + 1, &starts, spilled)?;
            self.state = State::Ranges { starts, spilled, current: current + 1, sorted, at: 0 };
        }
        match &mut self.state {
            State::Unprepared => {}
            State::InOrder { entries, ahead } => {
                while let Some(e) = ahead.filter(|e| e.cell as usize == self.next) {
                    pairs.push((e.feature, e.value));
                    *ahead = entries.next_entry()?;
                }
            }
            State::Ranges { sorted, at, .. } => {
                let n = self.counts[self.next] as usize;
                pairs.extend_from_slice(&sorted[*at..*at + n]);
                *at += n;
            }
        }
        canonical(&mut pairs, row);
        self.next += 1;
        Ok(true)
    }
}

/// Fills a sparse row from pairs in any order: ascending, entries of one feature added, zeros dropped.
pub fn canonical(pairs: &mut [(u32, f32)], row: &mut Row) {
    if !pairs.is_sorted_by_key(|p| p.0) {
        pairs.sort_by_key(|p| p.0);
    }
    row.id = None;
    row.indices.clear();
    row.values.clear();
    for group in pairs.chunk_by(|a, b| a.0 == b.0) {
        let sum: f32 = if group.len() == 1 { group[0].1 } else { group.iter().map(|p| p.1 as f64).sum::<f64>() as f32 };
        if sum != 0.0 {
            row.indices.push(group[0].0 as i32);
            row.values.push(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct List(std::vec::IntoIter<Entry>);

    impl Entries for List {
        fn next_entry(&mut self) -> Result<Option<Entry>> {
            Ok(self.0.next())
        }
    }

    fn rows_of(entries: Vec<Entry>, cells: usize, features: usize, budget: u64, rereads: usize) -> Vec<Vec<f32>> {
        let mut counts = vec![0; cells];
        entries.iter().for_each(|e| counts[e.cell as usize] += 1);
        let dir = tempfile::tempdir().unwrap();
        let n = entries.len() as u64;
        let reopen: Reopen = Box::new(move || Ok(Box::new(List(entries.clone().into_iter()))));
        let mut triplets = Triplets::new(reopen, cells, n, dir.path().to_path_buf()).reading_again(rereads, budget);
        if rereads % 2 == 1 {
            triplets.counted(counts);
        }
        let (mut out, mut row) = (Vec::new(), Row::default());
        while triplets.next_row(&mut row).unwrap() {
            assert!(row.indices.is_sorted_by(|a, b| a < b));
            let mut dense = vec![0.0; features];
            for (&i, &v) in row.indices.iter().zip(&row.values) {
                dense[i as usize] = v;
            }
            out.push(dense);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "temporary files are left");
        out
    }

    proptest! {
        #[test]
        fn any_order_and_any_budget_give_the_same_matrix(
            list in proptest::collection::vec((0u32..7, 0u32..5, -3i8..4), 0..40), budget in 1u64..50, sorted in any::<bool>(), rereads in 0usize..5
        ) {
            let mut wanted = vec![vec![0.0; 5]; 7];
            let mut entries: Vec<Entry> = list.iter().map(|&(cell, feature, v)| Entry { cell, feature, value: v as f32 }).collect();
            for e in &entries {
                wanted[e.cell as usize][e.feature as usize] += e.value;
            }
            if sorted {
                entries.sort_by_key(|e| e.cell);
            }
            prop_assert_eq!(rows_of(entries, 7, 5, budget, rereads), wanted);
        }
    }
}
