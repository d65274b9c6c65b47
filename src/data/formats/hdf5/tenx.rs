//! What 10x Genomics' programs write: a sparse matrix whose columns are cells.
//!
//!   version 3   `matrix`: data, indices, indptr, shape (features, cells), barcodes, features/{name, id, feature_type}; `FILE#TYPE` takes
//!               the features of one type (Gene Expression, Peaks, Antibody Capture), needed where there are several
//!   version 1   a group a genome with data, indices, indptr, shape, barcodes, genes, gene_names; `FILE#GENOME` where there are several

use std::sync::Arc;

use super::super::{Head, Layout, Opening, Source, no_such_key};
use super::file::H5;
use super::matrix::{Matrix, Reading};
use crate::error::Result;

/// Opens the file if it is one of 10x.
pub(super) fn open(h5: Arc<H5>, opening: &Opening) -> Result<Option<Source>> {
    if h5.is_group("matrix/features")? {
        let names = h5.array("matrix/features/name")?.texts()?;
        let kinds = h5.array("matrix/features/feature_type")?.texts()?;
        if names.len() != kinds.len() {
            return Err(
                h5.bad("matrix/features", format!("there are {} names and {} types: the file is damaged", names.len(), kinds.len()))
            );
        }
        let (names, keep) = select(&h5, names, &kinds, opening.key)?;
        return source(h5, "matrix", kinds.len(), names, keep, opening).map(Some);
    }
    let mut genomes = Vec::new();
    for name in h5.members("")? {
        if h5.is_array(&format!("{name}/barcodes"))? && h5.is_array(&format!("{name}/genes"))? {
            genomes.push(name);
        }
    }
    let genome = match (opening.key, genomes.as_slice()) {
        (_, []) => return Ok(None),
        (Some(key), genomes) => genomes.iter().find(|g| *g == key).ok_or_else(|| no_such_key(h5.path(), key, "genome", genomes))?,
        (None, [one]) => one,
        (None, several) => {
            return Err(h5.bad("", format!("it holds several genomes: choose one with FILE#GENOME, there are: {}", several.join(", "))));
        }
    };
    let named = format!("{genome}/gene_names");
    let names = h5.array(&if h5.is_array(&named)? { named } else { format!("{genome}/genes") })?.texts()?;
    let features = names.len();
    source(h5.clone(), genome, features, names, None, opening).map(Some)
}

fn source(h5: Arc<H5>, group: &str, features: usize, names: Vec<String>, keep: Option<Vec<i32>>, opening: &Opening) -> Result<Source> {
    let ids = h5.array(&format!("{group}/barcodes"))?.texts()?;
    let shape = h5.array(&format!("{group}/shape"))?.integers()?;
    if shape != [features as i64, ids.len() as i64] {
        let message = format!("the shape is {shape:?}, but there are {features} features and {} barcodes: the file is damaged", ids.len());
        return Err(h5.bad(group, message));
    }
    let matrix = Matrix::of_10x(&h5, group, ids.len() as u64, features as u64)?;
    let head = Head {
        cells: Some(ids.len() as u64),
        shape: vec![names.len()],
        layout: Layout::Sparse,
        features: Some(names),
        cell_ids: Some(ids),
    };
    Ok(Source { head, rows: matrix.rows(Reading { h5, opening, keep })? })
}

/// Names of the features of the wanted type, and where each feature of the file goes (-1: left out); no map when all stay.
fn select(h5: &H5, names: Vec<String>, kinds: &[String], key: Option<&str>) -> Result<(Vec<String>, Option<Vec<i32>>)> {
    let mut distinct: Vec<String> = Vec::new();
    for kind in kinds {
        if !distinct.contains(kind) {
            distinct.push(kind.clone());
        }
    }
    match key {
        None if distinct.len() > 1 => {
            let counted = distinct.iter().map(|k| format!("{k} ({})", kinds.iter().filter(|f| *f == k).count()));
            let list = counted.collect::<Vec<_>>().join(", ");
            return Err(h5.bad("matrix/features", format!("the features are of several types: {list}; choose one with FILE#TYPE")));
        }
        Some(key) if !distinct.iter().any(|k| k == key) => return Err(no_such_key(h5.path(), key, "feature type", &distinct)),
        _ => {}
    }
    let Some(key) = key.filter(|_| distinct.len() > 1) else { return Ok((names, None)) };
    let mut next = 0;
    let map = kinds.iter().map(|kind| if kind == key { (next, next += 1).0 } else { -1 }).collect();
    let names = names.into_iter().zip(kinds).filter(|(_, kind)| *kind == key).map(|(name, _)| name).collect();
    Ok((names, Some(map)))
}
