//! Which cell of one modality corresponds to which of the other, when nobody says: inferred from the distances within each.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`graph`] | a modality's kNN graph and the paths along it |
//! | [`geodesic`] | the distances within one modality, along its kNN graph or plain |
//! | [`prime_dual`] | the soft correspondence F [m, n] whose image of one table of distances is the other |
//! | [`infer`](mod@infer) | both in one call |
//! | [`gromov`] | the same as an optimal transport plan: entropic Gromov-Wasserstein |
//! | [`landmarks`] | for modalities whose tables do not fit: a solution between landmarks, extended to all cells |
//! | [`assignment`] | one-to-one pairs out of a table of gains (Hungarian method) |
//!
//! The order of use: a table a modality, F between the two, and pairs from F where a table of pairs is wanted.
//! Source: UnionCom, Cao, Bai, Hong and Wan, "Unsupervised topological alignment for single-cell multi-omics integration",
//! Bioinformatics 36 (2020) i48-i56, whose solver JAMIE uses (Cohen Kalafut, Huang and Wang, Nature Machine Intelligence 5 (2023) 631-642).

pub mod assignment;
pub mod geodesic;
pub mod graph;
pub mod gromov;
pub mod infer;
pub mod landmarks;
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

    /// One value a line, after the last comma; lines without a number are headings.
    pub fn types(path: &Path) -> Vec<i64> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter_map(|l| l.split(',').next_back()?.trim().parse::<f64>().ok()).map(|v| v as i64).collect()
    }

    /// Two tables of distances and the cells' types.
    pub struct Problem {
        pub tables: [Vec<f32>; 2],
        pub types: [Vec<i64>; 2],
    }

    impl Problem {
        /// Of a plan [m, n]: the fraction of the first's cells whose largest entry is a cell of their own type, and, as if cell i were cell
        /// i, the mean fraction of the second's cells that come before the true one.
        pub fn score(&self, plan: &[f32]) -> [f64; 2] {
            let [m, n] = [0, 1].map(|k| self.types[k].len());
            let (mut own, mut before) = (0, 0.0);
            for (i, row) in plan.chunks_exact(n).enumerate() {
                let best = (0..n).fold(0, |best, j| if row[j] > row[best] { j } else { best });
                own += usize::from(self.types[0][i] == self.types[1][best]);
                before += row.iter().filter(|&&v| v > row[i.min(n - 1)]).count() as f64 / (n - 1) as f64;
            }
            [own as f64 / m as f64, before / m as f64]
        }
    }

    /// The two modalities of `unioncom-simu1` [300, 1000] and [300, 500], with types.
    pub fn simu1_cells() -> Option<([Vec<f32>; 2], Vec<i64>)> {
        let folder = folder()?.with_file_name("unioncom-simu1");
        let read = |name: &str| -> Vec<f32> {
            let array = MappedArray::open(&folder.join(name)).unwrap();
            array.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let text = std::fs::read_to_string(folder.join("cells.csv")).unwrap();
        let types = text.lines().skip(1).map(|l| l.split(',').nth(1).unwrap().parse().unwrap()).collect();
        Some((["domain1_rebuilt.npy", "domain2.npy"].map(read), types))
    }

    /// The two modalities of `unioncom-simu2` [200, 1000] and [250, 500], with types.
    #[allow(clippy::type_complexity)]
    pub fn simu2_cells() -> Option<([Vec<f32>; 2], [Vec<i64>; 2])> {
        let folder = folder()?;
        let read = |name: &str| -> Vec<f32> {
            let array = MappedArray::open(&folder.join(name)).unwrap();
            array.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        Some((["domain1_rebuilt.npy", "domain2.npy"].map(read), ["types1.csv", "types2.csv"].map(|name| types(&folder.join(name)))))
    }

    /// The geodesic tables of `unioncom-simu1`.
    pub fn simu1() -> Option<Problem> {
        use crate::{
            correspondence::{Metric, distances},
            metrics::matrix::Matrix,
        };
        let (cells, types) = simu1_cells()?;
        let n = types.len();
        let tables = cells.map(|c| distances(Matrix::new(&c, n, c.len() / n), Metric::Geodesic, 40).unwrap());
        Some(Problem { tables, types: [types.clone(), types] })
    }
}
