//! A folder of PNG or TIFF files as a modality of images: a file a cell, the cell's id its name without the ending, in the order of the
//! names.
//!
//! Pixels of 8 and 16 bits stay as they are, others become f32; all files must have the same sides and channels. With `FOLDER#SIDE` every
//! file is taken as a z-stack of one page or more (see [`stack`]): brought to 0..1, its maximum projected, resized to SIDE x SIDE.

mod picture;
mod stack;

use super::{Head, Layout, Opening, Row, Rows, Source, finite};
use crate::data::npy::Dtype;
use crate::error::{Error, Result};
use picture::Picture;
use std::path::{Path, PathBuf};

/// The files of a folder that are images, in the order of their names.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("read", folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if picture::is_image(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn open(opening: &Opening, files: Vec<PathBuf>) -> Result<Source> {
    let side = opening.key.map(|key| side(opening.file, key)).transpose()?;
    let first = &files[0];
    let (shape, stored) = match side {
        Some(side) => (vec![1, side, side], Dtype::F32),
        None => {
            let p = Picture::read(first)?;
            p.one_page(first)?;
            (p.shape().to_vec(), p.stored)
        }
    };
    let name = |f: &PathBuf| {
        let stem = f.file_stem().and_then(|s| s.to_str());
        stem.map(str::to_string).ok_or_else(|| Error::input(f, "", "the file's name is not UTF-8, and it names the cell: rename it"))
    };
    let ids = files.iter().map(name).collect::<Result<Vec<String>>>()?;
    let layout = Layout::Dense(stored);
    let head = Head { cells: Some(files.len() as u64), shape: shape.clone(), layout, features: None, cell_ids: Some(ids) };
    let rows = Files { files, next: 0, side, shape, stored, missing_nan: opening.missing_nan };
    Ok(Source { head, rows: Box::new(rows) })
}

fn side(folder: &Path, key: &str) -> Result<usize> {
    key.parse().ok().filter(|side| (1..=4096).contains(side)).ok_or_else(|| {
        let says = format!("\"#{key}\": after a folder of images stands the side that they are resized to, from 1 to 4096, as in #64");
        Error::input(folder, "", says)
    })
}

struct Files {
    files: Vec<PathBuf>,
    next: usize,
    side: Option<usize>,
    shape: Vec<usize>,
    stored: Dtype,
    missing_nan: bool,
}

impl Rows for Files {
    fn next_row(&mut self, row: &mut Row) -> Result<bool> {
        let Some(file) = self.files.get(self.next) else { return Ok(false) };
        self.next += 1;
        let picture = Picture::read(file)?;
        let place = |at: usize| format!("pixel {at}");
        match self.side {
            Some(side) => row.values = stack::project(&picture, file, side)?,
            None => {
                picture.one_page(file)?;
                if picture.shape()[..] != self.shape[..] {
                    let [c, h, w] = picture.shape();
                    let says = format!(
                        "the image is {c} x {h} x {w} (channels, height, width) and {} is {} x {} x {}: give all the same size, or resize them by FOLDER#SIDE",
                        self.files[0].display(),
                        self.shape[0],
                        self.shape[1],
                        self.shape[2]
                    );
                    return Err(Error::input(file, "", says));
                }
                if picture.stored != self.stored {
                    let says = format!(
                        "its pixels are {} and those of {} are {}",
                        picture.stored.name(),
                        self.files[0].display(),
                        self.stored.name()
                    );
                    return Err(Error::input(file, "", says + ": convert all to one type"));
                }
                row.values = picture.pages.into_iter().next().unwrap_or_default();
            }
        }
        for (at, v) in row.values.iter_mut().enumerate() {
            *v = finite(*v, self.missing_nan, file, || place(at))?;
        }
        Ok(true)
    }

    fn place(&self, row: usize) -> String {
        self.files.get(row).map_or_else(|| format!("row {row}"), |f| f.display().to_string())
    }
}
