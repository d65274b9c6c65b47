//! In which order an epoch passes over rows.
//!
//!   exact   every order equally likely; a minibatch's rows lie anywhere
//!   block   blocks of neighbouring rows in shuffled order, and the rows of so many blocks shuffled among each other: a disk reads whole
//!           blocks, one after the other, and the rows that are in use together fit the memory
//!   both    are functions of (seed, stream, step) alone; where blocks begin moves from step to step, so that the same rows do not always
//!           lie in the same block

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::engine::rng::{self, Sequence};
use crate::error::{Error, Result};

/// Neighbouring rows that are read together.
const BLOCK: usize = 256;
/// Blocks whose rows are shuffled among each other: 16,384 rows.
const WINDOW: usize = 64;

/// How rows are shuffled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shuffle {
    /// Completely.
    #[default]
    Exact,
    /// By blocks.
    Block,
}

impl FromStr for Shuffle {
    type Err = Error;

    fn from_str(word: &str) -> Result<Shuffle> {
        match word {
            "exact" => Ok(Shuffle::Exact),
            "block" => Ok(Shuffle::Block),
            _ => Err(Error::usage(format!("rows are not shuffled by {word:?}: there is exact and block"))),
        }
    }
}

impl fmt::Display for Shuffle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shuffle::Exact => "exact",
            Shuffle::Block => "block",
        })
    }
}

impl Shuffle {
    /// The numbers 0 .. n, each once, in an order of (seed, stream, step).
    pub fn permutation(self, n: usize, seed: u64, stream: u32, step: u32) -> Vec<u32> {
        if self == Shuffle::Exact {
            return rng::permutation(n, seed, stream, step);
        }
        let mut draws = Sequence::new(seed, stream, step);
        let mut blocks = blocks(n, draws.below(BLOCK));
        draws.shuffle(&mut blocks);
        let mut order = Vec::with_capacity(n);
        for window in blocks.chunks(WINDOW) {
            let first = order.len();
            window.iter().for_each(|block| order.extend(block.clone()));
            draws.shuffle(&mut order[first..]);
        }
        order
    }

    /// Numbers below n among which the minibatch `number` of `batch` rows draws, ascending: for minibatches that are drawn afresh. Some
    /// minibatches in a row share them.
    pub fn window(n: usize, batch: usize, seed: u64, stream: u32, number: u32) -> Vec<u32> {
        let together = (BLOCK * WINDOW / batch.max(1)).max(1) as u32;
        let mut draws = Sequence::new(seed, stream, number / together);
        let mut blocks = blocks(n, draws.below(BLOCK));
        draws.shuffle(&mut blocks);
        // Enough for a minibatch without a row twice, however large it is.
        let mut rows = 0;
        let enough = blocks.iter().position(|block| {
            rows += block.len();
            rows >= (BLOCK * WINDOW).max(batch)
        });
        blocks.truncate(enough.map_or(blocks.len(), |at| at + 1));
        blocks.sort_unstable_by_key(|block| block.start);
        blocks.into_iter().flatten().collect()
    }
}

/// 0 .. n in blocks of which the second begins at `offset`.
fn blocks(n: usize, offset: usize) -> Vec<Range<u32>> {
    let mut starts = vec![0];
    starts.extend((offset..n).step_by(BLOCK).filter(|&s| s > 0));
    let ends = starts[1..].iter().copied().chain([n]);
    starts.iter().zip(ends).filter(|(a, b)| **a < *b).map(|(&a, b)| a as u32..b as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_once_and_neighbours_in_time_are_neighbours_on_the_disk() {
        for n in [0, 1, 255, 256, 257, 100_003] {
            let order = Shuffle::Block.permutation(n, 3, 7, 1);
            let mut seen = order.clone();
            seen.sort_unstable();
            assert_eq!(seen, (0..n as u32).collect::<Vec<_>>());
            for window in order.chunks(BLOCK * WINDOW) {
                let mut touched: Vec<u32> = window.iter().map(|r| r / BLOCK as u32).collect();
                touched.sort_unstable();
                touched.dedup();
                // A block that does not begin at a multiple of its length touches two, and these rows are of two windows, as partial
                // blocks make one shorter.
                assert!(touched.len() <= 4 * WINDOW, "{n}: {}", touched.len());
            }
        }
    }

    #[test]
    fn the_order_depends_on_seed_stream_and_step_and_is_no_sorted_one() {
        let order = |seed, stream, step| Shuffle::Block.permutation(5000, seed, stream, step);
        assert_eq!(order(1, 2, 3), order(1, 2, 3));
        for other in [order(2, 2, 3), order(1, 3, 3), order(1, 2, 4)] {
            assert_ne!(order(1, 2, 3), other);
        }
        let neighbours = order(1, 2, 3).windows(2).filter(|w| w[1] == w[0] + 1).count();
        assert!(neighbours < 50, "{neighbours}");
        assert_eq!(Shuffle::Exact.permutation(500, 1, 2, 3), rng::permutation(500, 1, 2, 3));
    }

    #[test]
    fn a_window_is_some_blocks_and_holds_for_some_minibatches() {
        let at = |number| Shuffle::window(1_000_000, 512, 1, 2, number);
        assert!((BLOCK * WINDOW..BLOCK * WINDOW + BLOCK).contains(&at(0).len()) && at(0).is_sorted());
        assert_eq!(at(0), at(31));
        assert_ne!(at(0), at(32));
        assert_eq!(Shuffle::window(1000, 512, 1, 2, 0), (0..1000).collect::<Vec<_>>());
        assert!(Shuffle::window(1_000_000, 20_000, 1, 2, 0).len() >= 20_000);
    }

    #[test]
    fn the_words_are_read_and_written() {
        for word in ["exact", "block"] {
            assert_eq!(word.parse::<Shuffle>().unwrap().to_string(), word);
        }
        assert_eq!("blocks".parse::<Shuffle>().unwrap_err().exit_code(), 2);
    }
}
