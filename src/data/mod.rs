//! The data layer: files that instruments and other programs wrote, made into one mapped DATASET, and read from there.
//!
//! In reading order: [`formats`] turns a file into rows, [`gene_activity`] rows of peaks into rows of genes, [`oriented`] images as they
//! lay into images that lie alike, [`import`](mod@import) streams rows into a directory, [`dataset`] maps that directory, [`pairs`] says
//! which rows are the same cell, [`labels`] what is known of a cell, [`split`] which cells training never sees, [`preprocess`] what is done
//! to a row before a model sees it, [`simulate`] makes data with known truth.
//!
//! Words: a *row* is one cell in one modality; a *cell* may have a row in several modalities; a *line* is a cell's line in
//! `cells.csv`; a *unit* is a cell known to have rows in two or more modalities. Values are f32, missing values NaN.

#[cfg(target_endian = "big")]
compile_error!("the mapped dataset is little-endian and is read in place");

pub mod atomic;
pub mod builder;
pub mod dataset;
pub mod draws;
pub mod formats;
pub mod gene_activity;
pub mod hooks;
pub mod import;
pub mod in_place;
pub mod intervals;
pub mod labels;
pub mod manifest;
pub mod mapped;
pub mod npy;
pub mod oriented;
pub mod own_labels;
pub mod pairs;
pub mod plan;
pub mod preprocess;
pub mod separate;
pub mod shuffle;
pub mod simulate;
pub mod split;
pub mod texts;

pub use dataset::{Dataset, Modality};
pub use hooks::{Hooks, Progress};
