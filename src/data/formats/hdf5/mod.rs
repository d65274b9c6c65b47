//! HDF5 files: AnnData (`.h5ad`), MuData (`.h5mu`) and what 10x Genomics' programs write (`.h5`), told apart by what is in them.
//!
//! In reading order: `file` opens, `array` reads windows of arrays, `heap` texts in old tables, `frame` names and columns, `stream`
//! and `matrix` make rows; then one file a kind: `h5ad`, `h5mu`, `tenx`. Memory is bounded whatever the number of cells: windows of
//! arrays, `indptr`, the list of chunks, and what a dataset keeps of every cell anyway, its id and its labels.

mod array;
mod file;
mod frame;
mod h5ad;
mod h5mu;
mod heap;
mod matrix;
mod stream;
mod tenx;

use std::sync::Arc;

use super::{Opening, Source};
use crate::error::Result;
use file::H5;

/// Opens an HDF5 file of any of the three kinds.
pub(super) fn open(opening: &Opening) -> Result<Source> {
    let h5 = Arc::new(H5::open(opening.file)?);
    if h5.is_group("mod")? {
        return h5mu::open(h5, opening);
    }
    if h5.kind("obs")?.is_some() {
        return h5ad::open(h5, "", opening.key, opening);
    }
    if let Some(source) = tenx::open(h5.clone(), opening)? {
        return Ok(source);
    }
    let members = h5.members("")?;
    let members = if members.is_empty() { "nothing".to_string() } else { members.join(", ") };
    Err(h5.bad(
        "",
        format!("an HDF5 file, but neither AnnData (obs, var, X) nor MuData (mod) nor of 10x Genomics (matrix): there is {members}"),
    ))
}
