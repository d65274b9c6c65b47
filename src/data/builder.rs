//! Writes a DATASET: modalities row by row, then who is who, then `dataset.json`; it appears under its name when all of it is there.
//!
//!   NAME/values.npy [cells, shape...]                                 dense: f32, u8 or u16, NaN where missing; not there if
//!                                                                     the values are used in place (see [`in_place`](super::in_place))
//!   NAME/indptr.npy [cells + 1], indices.npy, data.npy [non-zeros]    sparse: int32 (indptr int64 from 2^31 non-zeros on), int32, f32
//!   NAME/cells.txt, features.txt                                      one name a line
//!   NAME/lines.npy `[cells]`                                            int32, each row's line of cells.csv, from 0 after the header
//!   cells.csv                                                         one line a cell: id, label columns
//!   pairs.npy `[units, modalities]`, pairs_confidence.npy `[units]`     see [`pairs`](super::pairs)

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use flate2::Crc;

use super::atomic::{AtomicDir, AtomicFile};
use super::formats::{Layout, Row, Source, Table, first_repeat};
use super::hooks::Hooks;
use super::in_place::InPlace;
use super::labels::{self, Given};
use super::manifest::{Facts, FileEntry, Manifest, ModalityEntry, PairsEntry, Provenance, VERSION};
use super::npy::{Dtype, NpyWriter, Written};
use super::pairs::Links;
use crate::error::{Error, Result};

/// Rows between two looks at the hooks.
const BLOCK: u64 = 64;
/// What no name may have in it: names are kept one a line.
const LINE_BREAKS: [char; 2] = ['\n', '\r'];
/// Bytes of `cells.csv` that are put together before they are written.
const CSV_BLOCK: usize = 1 << 20;

/// A DATASET being written.
pub struct Builder {
    dir: AtomicDir,
    modalities: Vec<ModalityEntry>,
    extra: Vec<FileEntry>,
    in_place: bool,
}

/// What is known of a modality once its rows are stored.
pub struct Stored {
    /// Cells.
    pub cells: usize,
    /// The file's own cell ids.
    pub ids: Option<Vec<String>>,
    /// Feature names that occur more than once.
    pub repeated_features: usize,
    /// Labels that came with the file.
    pub labels: Option<Table>,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// Who is who, once all rows are stored.
pub struct Identities<'a> {
    /// For each modality, the id of each row and where the ids came from.
    pub ids: Vec<(Vec<String>, &'static str)>,
    /// Which rows are the same cell.
    pub links: Links,
    /// The rule that made the links, for `dataset.json`.
    pub rule: String,
    /// Tables of labels.
    pub labels: &'a [Given],
    /// The label column meant when none is named; none: the first.
    pub default_label: Option<String>,
}

impl Builder {
    /// Begins a dataset at `out`, which must not exist.
    pub fn create(out: &Path) -> Result<Builder> {
        Ok(Builder { dir: AtomicDir::create(out)?, modalities: Vec::new(), extra: Vec::new(), in_place: false })
    }

    /// Leaves dense matrices, where they can be mapped, in the files that they come in.
    pub fn leave_in_place(&mut self) {
        self.in_place = true;
    }

    /// A directory for temporary files; it goes when the dataset is finished.
    pub fn scratch(&self) -> Result<PathBuf> {
        let path = self.dir.path().join(".scratch");
        std::fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(path)
    }

    /// Streams a modality's rows to disk.
    pub fn add(&mut self, name: &str, mut source: Source, from: Provenance, hooks: &mut Hooks) -> Result<Stored> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder).map_err(|e| Error::io("create", &folder, e))?;
        let file = PathBuf::from(&from.file);
        let total = source.head.cells;
        source.rows.prepare(name, hooks)?;
        hooks.tick(name, 0, total)?;
        let mut notes = Vec::new();
        let place = match source.rows.in_place() {
            Ok(place) if self.in_place => Some(place),
            Err(why) if self.in_place => {
                notes.push(format!("copied, not used in place: {why}"));
                None
            }
            _ => None,
        };
        let mut sink = if place.is_some() { Sink::None } else { Sink::create(&folder, &source)? };
        let (mut row, mut facts, mut cells, mut ids) = (Row::default(), Facts::new(), 0u64, Vec::new());
        while source.rows.next_row(&mut row)? {
            facts.add(&row.values);
            if [facts.min, facts.max].into_iter().flatten().any(f64::is_infinite) {
                let message = "values that were added up are too large for a 32-bit float: scale them down in the file";
                return Err(Error::input(&file, source.rows.place(cells as usize), message));
            }
            sink.write(&row)?;
            ids.extend(row.id.take());
            cells += 1;
            if cells % BLOCK == 0 {
                hooks.tick(name, cells, total)?;
            }
        }
        hooks.tick(name, cells, total)?;
        if cells == 0 || cells > i32::MAX as u64 {
            let message = if cells == 0 { "there are no cells in it" } else { "more than 2147483647 cells are not read" };
            return Err(Error::input(&file, "", message));
        }
        let ids = if ids.is_empty() { source.head.cell_ids.take() } else { Some(ids) };
        if let Some((a, b)) = ids.as_ref().and_then(|ids| first_repeat(ids)) {
            let id = ids.as_ref().map_or("", |ids| &ids[a]);
            let message =
                format!("the cell id \"{id}\" stands on {} and on {}: ids must be unique", source.rows.place(a), source.rows.place(b));
            return Err(Error::input(&file, "", message));
        }
        for (row, id) in ids.iter().flatten().enumerate() {
            if id.trim().is_empty() || id.contains(LINE_BREAKS) {
                let what = if id.trim().is_empty() { "is empty".to_string() } else { format!("{id:?} has a line break in it") };
                return Err(Error::input(&file, source.rows.place(row), format!("the cell id {what}: give the cell another one")));
            }
        }
        if let Some(at) = source.head.features.iter().flatten().position(|name| name.contains(LINE_BREAKS)) {
            return Err(Error::input(&file, format!("feature {at}"), "its name has a line break in it: give it another one"));
        }
        let features = source.head.features.take().unwrap_or_else(|| (0..source.head.width()).map(|f| f.to_string()).collect());
        let (layout, dtype) = match source.head.layout {
            Layout::Dense(dtype) => ("dense", dtype),
            Layout::Sparse => ("sparse", Dtype::F32),
        };
        let (mut files, indptr) = sink.finish()?;
        let in_place = place.map(|p| InPlace::describe(&p, cells, &source.head.shape, name, hooks)).transpose()?;
        facts.add_zeros(if layout == "sparse" {
            (cells * features.len() as u64).saturating_sub(facts.nonzeros + facts.missing)
        } else {
            0
        });
        files.push(write_lines(&folder, "features.txt", &features)?);
        let distinct: HashSet<&str> = features.iter().map(String::as_str).collect();
        let repeated_features = features.len() - distinct.len();
        self.modalities.push(ModalityEntry {
            name: name.to_string(),
            cells,
            features: features.len() as u64,
            shape: source.head.shape.iter().map(|&d| d as u64).collect(),
            layout: layout.to_string(),
            dtype: dtype.name().to_string(),
            indptr,
            facts,
            ids: String::new(),
            source: from,
            in_place,
            files,
        });
        notes.extend(source.rows.notes());
        Ok(Stored { cells: cells as usize, ids, repeated_features, labels: source.rows.labels(), notes })
    }

    /// Adds a small file of the dataset's own, such as `train.toml`.
    pub fn add_file(&mut self, name: &str, content: &str) -> Result<()> {
        self.extra.push(write_text(self.dir.path(), name, content)?);
        Ok(())
    }

    /// Writes ids, cells, labels, pairs and the description, and gives the directory its name. Returns sentences for the user.
    pub fn finish(mut self, who: Identities) -> Result<Vec<String>> {
        let dir = self.dir.path().to_path_buf();
        let default_label = who.default_label.clone();
        let (lines, cells) = lines_of_cells(&who);
        let names: Vec<String> = self.modalities.iter().map(|m| m.name.clone()).collect();
        for ((entry, (ids, from)), lines) in self.modalities.iter_mut().zip(&who.ids).zip(&lines) {
            let folder = dir.join(&entry.name);
            entry.ids = from.to_string();
            entry.files.push(write_lines(&folder, "cells.txt", ids)?);
            entry.files.push(write_array(&folder, "lines.npy", Dtype::I32, &[], lines)?);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let joined = labels::join(who.labels, &names, &cells)?;
        self.extra.push(write_cells(&dir, &cells, &joined)?);
        self.extra.push(write_array(&dir, "pairs.npy", Dtype::I32, &[names.len()], who.links.table())?);
        if let Some(confidence) = who.links.confidences() {
            self.extra.push(write_array(&dir, "pairs_confidence.npy", Dtype::F32, &[], confidence)?);
        }
        let default_label = default_label.or_else(|| joined.columns.first().map(|c| c.name.clone()));
        let manifest = Manifest {
            format: "couplet dataset".into(),
            version: VERSION,
            made_by: concat!("couplet ", env!("CARGO_PKG_VERSION")).into(),
            modalities: self.modalities,
            labels: joined.columns,
            default_label,
            cells: cells.len() as u64,
            pairs: PairsEntry { rule: who.rule.clone(), units: who.links.len() as u64, weighted: who.links.weighted() },
            files: self.extra,
        };
        let scratch = dir.join(".scratch");
        if scratch.exists() {
            std::fs::remove_dir_all(&scratch).map_err(|e| Error::io("write", &scratch, e))?;
        }
        super::atomic::write_file(&dir.join("dataset.json"), manifest.to_json()?.as_bytes())?;
        self.dir.commit()?;
        Ok(joined.notes)
    }
}

/// For each modality the line of each row, and for each line its rows' (modality, id), first modality first.
type Lines<'a> = (Vec<Vec<i32>>, Vec<Vec<(usize, &'a str)>>);

fn lines_of_cells<'a>(who: &'a Identities) -> Lines<'a> {
    let mut unit_of: Vec<Vec<Option<usize>>> = who.ids.iter().map(|(ids, _)| vec![None; ids.len()]).collect();
    for unit in 0..who.links.len() {
        for (m, units) in unit_of.iter_mut().enumerate() {
            if let Some(slot) = who.links.row(unit, m).and_then(|row| units.get_mut(row as usize)) {
                *slot = Some(unit);
            }
        }
    }
    let mut line_of_unit: Vec<Option<i32>> = vec![None; who.links.len()];
    let (mut lines, mut cells): Lines = (Vec::new(), Vec::new());
    for (m, (ids, _)) in who.ids.iter().enumerate() {
        let mut own = Vec::with_capacity(ids.len());
        for (row, id) in ids.iter().enumerate() {
            let unit = unit_of[m][row];
            let line = unit.and_then(|u| line_of_unit[u]).unwrap_or_else(|| {
                cells.push(Vec::new());
                cells.len() as i32 - 1
            });
            if let Some(u) = unit {
                line_of_unit[u] = Some(line);
            }
            cells[line as usize].push((m, id.as_str()));
            own.push(line);
        }
        lines.push(own);
    }
    (lines, cells)
}

fn write_cells(dir: &Path, cells: &[Vec<(usize, &str)>], joined: &labels::Joined) -> Result<FileEntry> {
    let mut out = Checked::create(dir, "cells.csv")?;
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut record = csv::StringRecord::new();
    let mut write = |record: &mut csv::StringRecord, last: bool| -> Result<()> {
        let internal = |e: csv::Error| Error::Internal(format!("cells.csv: {e}"));
        csv.write_record(&*record).map_err(internal)?;
        record.clear();
        // Block by block: a table of a million cells is not held in memory.
        if last || csv.get_ref().len() >= CSV_BLOCK {
            let full = std::mem::replace(&mut csv, csv::Writer::from_writer(Vec::new()));
            out.write(&full.into_inner().map_err(|e| Error::Internal(format!("cells.csv: {e}")))?)?;
        }
        Ok(())
    };
    record.push_field("cell");
    joined.columns.iter().for_each(|c| record.push_field(&c.name));
    write(&mut record, cells.is_empty())?;
    for (line, rows) in cells.iter().enumerate() {
        record.push_field(rows.first().map_or("", |r| r.1));
        for column in 0..joined.columns.len() {
            // A carriage return would look like the end of a line to other programs, quoted or not.
            record.push_field(&joined.text(column, line).replace('\r', " "));
        }
        write(&mut record, line + 1 == cells.len())?;
    }
    out.finish()
}

/// A file whose checksum is taken as it is written.
struct Checked {
    file: AtomicFile,
    name: String,
    crc: Crc,
    bytes: u64,
}

impl Checked {
    fn create(dir: &Path, name: &str) -> Result<Checked> {
        Ok(Checked { file: AtomicFile::create(&dir.join(name))?, name: name.to_string(), crc: Crc::new(), bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        AtomicFile::write(&mut self.file, bytes)
    }

    fn finish(self) -> Result<FileEntry> {
        self.file.commit()?;
        Ok(FileEntry::new(&self.name, self.bytes, self.crc.sum()))
    }
}

fn write_text(dir: &Path, name: &str, content: &str) -> Result<FileEntry> {
    let mut out = Checked::create(dir, name)?;
    out.write(content.as_bytes())?;
    out.finish()
}

fn write_lines(dir: &Path, name: &str, lines: &[String]) -> Result<FileEntry> {
    let mut out = Checked::create(dir, name)?;
    for line in lines {
        if line.contains(LINE_BREAKS) {
            return Err(Error::input(
                dir.join(name),
                "",
                format!("the name {line:?} has a line break in it: rename it in the file that is imported"),
            ));
        }
        out.write(line.as_bytes())?;
        out.write(b"\n")?;
    }
    out.finish()
}

fn write_array<T: bytemuck::Pod>(dir: &Path, name: &str, dtype: Dtype, row: &[usize], elements: &[T]) -> Result<FileEntry> {
    let mut writer = NpyWriter::create(&dir.join(name), dtype, row)?;
    writer.write(elements)?;
    Ok(entry(name, writer.finish()?))
}

fn entry(name: &str, written: Written) -> FileEntry {
    FileEntry::new(name, written.bytes, written.crc32)
}

/// The arrays of one modality, open for writing.
enum Sink {
    /// The values stay where they are.
    None,
    Dense {
        values: NpyWriter,
        dtype: Dtype,
        bytes: Vec<u8>,
    },
    Sparse {
        folder: PathBuf,
        indices: NpyWriter,
        data: NpyWriter,
        indptr: Vec<i64>,
        width: usize,
    },
}

impl Sink {
    fn create(folder: &Path, source: &Source) -> Result<Sink> {
        Ok(match source.head.layout {
            Layout::Dense(dtype) => {
                Sink::Dense { values: NpyWriter::create(&folder.join("values.npy"), dtype, &source.head.shape)?, dtype, bytes: Vec::new() }
            }
            Layout::Sparse => Sink::Sparse {
                folder: folder.to_path_buf(),
                indices: NpyWriter::create(&folder.join("indices.npy"), Dtype::I32, &[])?,
                data: NpyWriter::create(&folder.join("data.npy"), Dtype::F32, &[])?,
                indptr: vec![0],
                width: source.head.width(),
            },
        })
    }

    fn write(&mut self, row: &Row) -> Result<()> {
        match self {
            Sink::None => Ok(()),
            Sink::Dense { values, dtype: Dtype::U8, bytes } => {
                bytes.clear();
                bytes.extend(row.values.iter().map(|&v| v as u8));
                values.write_bytes(bytes)
            }
            Sink::Dense { values, dtype: Dtype::U16, bytes } => {
                bytes.clear();
                bytes.extend(row.values.iter().flat_map(|&v| (v as u16).to_le_bytes()));
                values.write_bytes(bytes)
            }
            Sink::Dense { values, .. } => values.write(&row.values),
            Sink::Sparse { indices, data, indptr, width, .. } => {
                debug_assert!(row.indices.is_sorted_by(|a, b| a < b) && row.indices.last().is_none_or(|&i| (i as usize) < *width));
                indices.write(&row.indices)?;
                data.write(&row.values)?;
                indptr.push(indptr[indptr.len() - 1] + row.indices.len() as i64);
                Ok(())
            }
        }
    }

    /// The files, and the type of indptr.
    fn finish(self) -> Result<(Vec<FileEntry>, Option<String>)> {
        match self {
            Sink::None => Ok((Vec::new(), None)),
            Sink::Dense { values, .. } => Ok((vec![entry("values.npy", values.finish()?)], None)),
            Sink::Sparse { folder, indices, data, indptr, .. } => {
                let small = *indptr.last().unwrap_or(&0) < 1 << 31;
                let (dtype, pointers) = if small {
                    let narrow: Vec<i32> = indptr.iter().map(|&p| p as i32).collect();
                    (Dtype::I32, write_array(&folder, "indptr.npy", Dtype::I32, &[], &narrow)?)
                } else {
                    (Dtype::I64, write_array(&folder, "indptr.npy", Dtype::I64, &[], &indptr)?)
                };
                let files = vec![pointers, entry("indices.npy", indices.finish()?), entry("data.npy", data.finish()?)];
                Ok((files, Some(dtype.name().to_string())))
            }
        }
    }
}
