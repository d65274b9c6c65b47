//! Measurements: what `couplet bench` prints and `benches/` calls.
//!
//! A figure is the median over repetitions with the 10th and 90th percentile, beside the fraction of what the machine could do,
//! which is measured in the same run ([`limits`]): a product of large matrices for arithmetic, a copy beyond the caches for memory.
//! An operation is checked by the tests of its room before it is worth timing.

pub mod kernels;
pub mod limits;
pub mod load;
pub mod step;

use serde::Serialize;
use std::time::Instant;

/// Percentiles of a repeated measurement, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    /// Half of the repetitions took at most this.
    pub ms_median: f64,
    /// A tenth took at most this.
    pub ms_p10: f64,
    /// Nine tenths took at most this.
    pub ms_p90: f64,
}

/// Times `f` `repetitions` times after `warm_up` runs that are not counted; `f` returns when its work is done.
pub fn time(warm_up: usize, repetitions: usize, mut f: impl FnMut()) -> Timing {
    for _ in 0..warm_up {
        f();
    }
    let mut ms: Vec<f64> = (0..repetitions.max(1))
        .map(|_| {
            let started = Instant::now();
            f();
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    ms.sort_by(f64::total_cmp);
    let at = |q: f64| ms[((q * ms.len() as f64) as usize).min(ms.len() - 1)];
    Timing { ms_median: at(0.5), ms_p10: at(0.1), ms_p90: at(0.9) }
}

/// Anonymous memory of this process in bytes: what it has allocated, without the pages of mapped files. 0 where the system does not say.
pub fn anonymous_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = text.lines().find_map(|l| l.strip_prefix("RssAnon:")).and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_order_and_of_the_repetitions_alone() {
        let mut runs = 0;
        let t = time(2, 20, || runs += 1);
        assert_eq!(runs, 22);
        assert!(t.ms_p10 <= t.ms_median && t.ms_median <= t.ms_p90);
    }
}
