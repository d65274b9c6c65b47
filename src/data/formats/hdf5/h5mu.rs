//! MuData: several AnnData under `mod`, one a modality, and an `obs` of all cells together. `FILE#MODALITY` chooses one,
//! `FILE#MODALITY/LAYER` a layer of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::{Opening, Source, no_such_key};
use super::file::H5;
use super::frame::{Column, Frame};
use super::h5ad;
use crate::data::texts::Texts;
use crate::error::Result;

pub(super) fn open(h5: Arc<H5>, opening: &Opening) -> Result<Source> {
    let there = h5.members("mod")?;
    // The order in which they were put together, where the file says it.
    let ordered = h5.texts("mod", "mod-order")?.unwrap_or_default();
    let mut names: Vec<String> = ordered.into_iter().filter(|n| there.contains(n)).collect();
    names.extend(there.iter().filter(|n| !names.contains(n)).cloned().collect::<Vec<_>>());
    let (name, layer) = match (opening.key, names.as_slice()) {
        (_, []) => return Err(h5.bad("mod", "there are no modalities in it")),
        (Some(key), names) if names.iter().any(|n| n == key) => (key.to_string(), None),
        (Some(key), names) => match key.split_once('/').filter(|(n, _)| names.iter().any(|have| have == n)) {
            Some((name, layer)) => (name.to_string(), Some(layer)),
            None => return Err(no_such_key(h5.path(), key, "modality", names)),
        },
        (None, [one]) => (one.clone(), None),
        (None, several) => {
            let message = format!("it holds several modalities: choose one with FILE#NAME, there are: {}", several.join(", "));
            return Err(h5.bad("", message));
        }
    };
    h5ad::open(h5, &format!("mod/{name}"), layer, opening)
}

/// Columns of the `obs` of all cells together, for the cells of one modality. Those that MuData copied there from a modality
/// (`rna:total_counts`) are left out, and so are those that `own` has.
pub(super) fn shared_columns(h5: &H5, ids: &[String], own: &[Column]) -> Result<Vec<Column>> {
    if h5.kind("obs")?.is_none() {
        return Ok(Vec::new());
    }
    let modalities = h5.members("mod")?;
    let obs = Frame::open(h5, "obs")?;
    let names = obs.names()?;
    let rows: HashMap<&str, usize> = names.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let (columns, _) = obs.columns(names.len())?;
    let copied = |name: &str| name.split_once(':').is_some_and(|(m, _)| modalities.iter().any(|have| have == m));
    let columns = columns.into_iter().filter(|c| !copied(&c.name) && own.iter().all(|o| o.name != c.name));
    let chosen = |texts: Texts| ids.iter().map(|id| rows.get(id.as_str()).map_or("", |&r| texts.get(r))).collect();
    Ok(columns.map(|Column { name, texts }| Column { name, texts: chosen(texts) }).collect())
}
