//! AnnData: a matrix of cells and features, X or a layer, with the names and the columns of `obs`.
//!
//! `FILE#LAYER` is a layer, `FILE#raw` the matrix before features were left out (`raw/X`, with the names of `raw/var`).

use std::sync::Arc;

use super::super::{Head, Opening, Row, Rows, Source, Table, no_such_key};
use super::file::H5;
use super::frame::{Column, Frame, inside};
use super::matrix::{Matrix, Reading};
use crate::data::hooks::Hooks;
use crate::data::in_place::Place;
use crate::error::Result;

/// Opens the AnnData that lies under `root`.
pub(super) fn open(h5: Arc<H5>, root: &str, key: Option<&str>, opening: &Opening) -> Result<Source> {
    let (at, var) = choose(&h5, root, key)?;
    let matrix = Matrix::open(&h5, &at)?;
    let obs = Frame::open(&h5, &inside(root, "obs"))?;
    let (ids, features) = (obs.names()?, Frame::open(&h5, &inside(root, &var))?.names()?);
    for (found, wanted, what) in [(ids.len(), matrix.cells, "cells"), (features.len(), matrix.features, "features")] {
        if found != wanted {
            return Err(h5.bad(at, format!("the matrix has {wanted} {what}, but there are names of {found}: the file is damaged")));
        }
    }
    let (labels, notes) = table(&h5, &obs, &ids, root)?;
    let head = Head {
        cells: Some(matrix.cells as u64),
        shape: vec![matrix.features],
        layout: matrix.layout()?,
        features: Some(features),
        cell_ids: Some(ids),
    };
    let rows = matrix.rows(Reading { h5, opening, keep: None })?;
    Ok(Source { head, rows: Box::new(Labelled { rows, labels, notes }) })
}

/// Paths of the matrix and of the frame of its features.
fn choose(h5: &H5, root: &str, key: Option<&str>) -> Result<(String, String)> {
    let layers = h5.members(&inside(root, "layers"))?;
    let has_x = match h5.kind(&inside(root, "X"))? {
        // Writers differ in how they say that there is none: nothing, or an empty array that is called null.
        Some(_) => h5.text(&inside(root, "X"), "encoding-type")?.as_deref() != Some("null"),
        None => false,
    };
    let has_raw = h5.kind(&inside(root, "raw/X"))?.is_some();
    let mut have: Vec<String> = layers.clone();
    have.extend(has_x.then(|| "X".to_string()));
    have.extend(has_raw.then(|| "raw".to_string()));
    match key {
        Some(layer) if layers.iter().any(|l| l == layer) => Ok((inside(root, &format!("layers/{layer}")), "var".into())),
        Some("X") | None if has_x => Ok((inside(root, "X"), "var".into())),
        Some("raw") if has_raw => Ok((inside(root, "raw/X"), "raw/var".into())),
        Some(key) if !have.is_empty() => Err(no_such_key(h5.path(), key, "layer", &have)),
        _ if have.is_empty() => Err(h5.bad("", "it has no X and no layers, so there is no matrix in it")),
        _ => Err(h5.bad("", format!("it has no X; choose a layer with FILE#LAYER, there are: {}", have.join(", ")))),
    }
}

/// The columns of `obs` as a table of labels, for MuData with those of all cells together, and a note on those that are not read.
fn table(h5: &H5, obs: &Frame, ids: &[String], root: &str) -> Result<(Option<Table>, Vec<String>)> {
    let (mut columns, others) = obs.columns(ids.len())?;
    if !root.is_empty() {
        columns.extend(super::h5mu::shared_columns(h5, ids, &columns)?);
    }
    let notes = if others.is_empty() {
        Vec::new()
    } else {
        vec![format!("these columns of obs are of kinds that are not read: {}", others.join(", "))]
    };
    if columns.is_empty() {
        return Ok((None, notes));
    }
    let (names, values) = columns.into_iter().map(|Column { name, texts }| (name, texts)).unzip();
    let lines = (0..ids.len() as u64).collect();
    Ok((Some(Table { file: h5.path().to_path_buf(), ids: ids.to_vec(), lines, columns: names, values }), notes))
}

/// Rows that bring labels with them.
struct Labelled {
    rows: Box<dyn Rows>,
    labels: Option<Table>,
    notes: Vec<String>,
}

impl Rows for Labelled {
    fn prepare(&mut self, stage: &str, hooks: &mut Hooks) -> Result<()> {
        self.rows.prepare(stage, hooks)
    }

    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        self.rows.next_row(row)
    }

    fn place(&self, row: usize) -> String {
        self.rows.place(row)
    }

    fn in_place(&self) -> Result<Place, &'static str> {
        self.rows.in_place()
    }

    fn labels(&mut self) -> Option<Table> {
        self.labels.take()
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}
