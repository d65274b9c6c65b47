//! Which cell of one modality corresponds to which of the other, when nobody says: inferred from the distances within each.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`geodesic`] | the distances within one modality, along its kNN graph or plain |
//! | [`prime_dual`] | the soft correspondence F [m, n] whose image of one table of distances is the other |
//! | [`infer`](mod@infer) | both in one call |
//! | [`assignment`] | one-to-one pairs out of a table of gains (Hungarian method) |
//!
//! The order of use: a table a modality, F between the two, and pairs from F where a table of pairs is wanted.
//! Source: UnionCom, Cao, Bai, Hong and Wan, "Unsupervised topological alignment for single-cell multi-omics integration",
//! Bioinformatics 36 (2020) i48-i56, whose solver JAMIE uses (Cohen Kalafut, Huang and Wang, Nature Machine Intelligence 5 (2023) 631-642).

pub mod assignment;
pub mod geodesic;
pub mod infer;
pub mod prime_dual;

pub use assignment::best_assignment;
pub use geodesic::{Metric, distances};
pub use infer::{Inference, Inferring, infer};
pub use prime_dual::{Options, Report, Solution, Solver, solve};

#[cfg(test)]
pub(crate) mod fixture {
    //! The UnionCom fixture among the shared data: tables of f64 as the original program wrote them.

    use crate::data::mapped::MappedArray;
    use std::path::{Path, PathBuf};

    /// The folder `unioncom-simu2`, or none with the reason printed.
    pub fn folder() -> Option<PathBuf> {
        let root = std::env::var_os("COUPLET_SHARED_DATA").map(PathBuf::from);
        let path = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).join("unioncom-simu2");
        if !path.join("solver-fixture").exists() {
            println!("skipped: the data set unioncom-simu2 is not at hand (set COUPLET_SHARED_DATA to its folder)");
            return None;
        }
        Some(path)
    }

    /// A table of f64 with its shape.
    pub fn table(path: &Path) -> (Vec<f64>, [usize; 2]) {
        let array = MappedArray::open(path).unwrap();
        let shape = [array.header().shape[0], array.header().shape[1]];
        // Not `elements`: a body need not lie at a multiple of 8 bytes.
        let values = array.bytes().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        (values, shape)
    }
}
