//! The DATASET directory, mapped: modalities, labels and links, read where they lie.
//!
//! Opening reads `dataset.json`, names, `indptr` and pairs, and checks every array's header against the description; values are
//! checked where they are used, so that a damaged file gives an error and never a panic or a read out of bounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Crc;

use super::hooks::Hooks;
use super::labels::{self, Labels};
use super::manifest::{Facts, FileEntry, LabelColumn, Manifest, ModalityEntry};
use super::mapped::{MappedArray, open_regular};
use super::npy::Dtype;
use super::pairs::Links;
use super::texts::Texts;
use crate::error::{Error, Result, nearest};

/// An open DATASET.
pub struct Dataset {
    dir: PathBuf,
    manifest: Manifest,
    modalities: Vec<Modality>,
    label_columns: Vec<String>,
    links: Links,
}

/// One modality of an open DATASET: cells x features, dense or sparse. A copy maps and names the same, for a thread of its own.
#[derive(Clone)]
pub struct Modality {
    name: String,
    entry: ModalityEntry,
    shape: Vec<usize>,
    cell_ids: Arc<Vec<String>>,
    feature_names: Arc<Vec<String>>,
    lines: MappedArray,
    values: Values,
}

#[derive(Clone)]
enum Values {
    Dense { array: MappedArray, dtype: Dtype },
    Sparse { indptr: MappedArray, wide: bool, indices: MappedArray, data: MappedArray },
}

impl Dataset {
    /// Opens the dataset in `dir`.
    pub fn open(dir: &Path) -> Result<Dataset> {
        let manifest = Manifest::read(dir)?;
        let described = dir.join("dataset.json");
        if manifest.modalities.is_empty() {
            return Err(Error::input(&described, "", "there are no modalities in it: import the dataset again"));
        }
        let mut modalities = Vec::new();
        for entry in &manifest.modalities {
            super::formats::check_name(&entry.name).map_err(|e| Error::input(&described, "", e.to_string()))?;
            modalities.push(Modality::open(&dir.join(&entry.name), entry, &described, manifest.cells)?);
        }
        let links = open_links(dir, &manifest, &modalities)?;
        let label_columns = manifest.labels.iter().map(|l| l.name.clone()).collect();
        Ok(Dataset { dir: dir.to_path_buf(), manifest, modalities, label_columns, links })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `dataset.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The modalities in the order typed at import.
    pub fn modalities(&self) -> &[Modality] {
        &self.modalities
    }

    /// A modality by its place.
    #[track_caller]
    pub fn modality(&self, index: usize) -> &Modality {
        &self.modalities[index]
    }

    /// The place of a modality; the error lists the names there are.
    pub fn position(&self, name: &str) -> Result<usize> {
        self.modalities.iter().position(|m| m.name == name).ok_or_else(|| {
            let names = self.modalities.iter().map(|m| m.name.as_str());
            let hint = nearest(name, names.clone()).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
            let list: Vec<&str> = names.collect();
            Error::usage(format!("{} has no modality \"{name}\"{hint}; there are: {}", self.dir.display(), list.join(", ")))
        })
    }

    /// Names of the label columns.
    pub fn label_columns(&self) -> &[String] {
        &self.label_columns
    }

    /// The column meant when none is named.
    pub fn default_label(&self) -> Option<&str> {
        self.manifest.default_label.as_deref()
    }

    /// A label column by name; the error lists the columns, the nearest first.
    pub fn label(&self, column: &str) -> Result<Labels> {
        let file = self.dir.join("cells.csv");
        let Some(at) = self.label_columns.iter().position(|c| c == column) else {
            if self.label_columns.is_empty() {
                return Err(Error::input(
                    &file,
                    "",
                    format!("there is no column \"{column}\", nor any other: import the data with --labels FILE"),
                ));
            }
            let near = nearest(column, self.label_columns.iter().map(String::as_str));
            let mut list: Vec<&str> = near.into_iter().collect();
            list.extend(self.label_columns.iter().map(String::as_str).filter(|c| Some(*c) != near));
            return Err(Error::input(&file, "", format!("there is no column \"{column}\"; there are: {}", list.join(", "))));
        };
        let texts = labels::read_columns(&file, &[at + 1], self.manifest.cells)?;
        Ok(self.labels_of(at, &texts[0]))
    }

    /// All label columns, in one pass over `cells.csv`.
    pub fn labels(&self) -> Result<impl Iterator<Item = Labels>> {
        let all: Vec<usize> = (1..=self.label_columns.len()).collect();
        let texts = labels::read_columns(&self.dir.join("cells.csv"), &all, self.manifest.cells)?;
        Ok(texts.into_iter().enumerate().map(|(at, texts)| self.labels_of(at, &texts)))
    }

    fn labels_of(&self, at: usize, texts: &Texts) -> Labels {
        let lines: Vec<&[i32]> = self.modalities.iter().map(|m| m.lines()).collect();
        let LabelColumn { modalities: scope, .. } = &self.manifest.labels[at];
        let scope: Vec<bool> = self.modalities.iter().map(|m| scope.as_ref().is_none_or(|s| s.contains(&m.name))).collect();
        Labels::new(&self.label_columns[at], texts, &lines, &scope)
    }

    /// Which rows are the same cell.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Number of distinct cells: lines of `cells.csv`.
    pub fn cells(&self) -> usize {
        self.manifest.cells as usize
    }

    /// Reads every file and compares its size and checksum with the description.
    pub fn verify(&self, hooks: &mut Hooks) -> Result<()> {
        for file in &self.manifest.files {
            verify_file(&self.dir, file, hooks)?;
        }
        for m in &self.modalities {
            for file in &m.entry.files {
                verify_file(&self.dir.join(&m.name), file, hooks)?;
            }
            if let (Some(place), Values::Dense { array, .. }) = (&m.entry.in_place, &m.values) {
                place.verify(array, hooks)?;
            }
        }
        Ok(())
    }
}

fn verify_file(dir: &Path, expected: &FileEntry, hooks: &mut Hooks) -> Result<()> {
    use std::io::Read;
    let path = dir.join(&expected.name);
    let mut file = open_regular(&path)?;
    let (mut crc, mut bytes, mut buffer) = (Crc::new(), 0u64, vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer).map_err(|e| Error::io("read", &path, e))?;
        if n == 0 {
            break;
        }
        crc.update(&buffer[..n]);
        bytes += n as u64;
        hooks.tick(&expected.name, bytes, Some(expected.bytes))?;
    }
    let found = FileEntry::new(&expected.name, bytes, crc.sum());
    if found != *expected {
        let message = format!(
            "it has {} bytes with checksum {}, dataset.json says {} with {}: the file is damaged, import the dataset again",
            found.bytes, found.crc32, expected.bytes, expected.crc32
        );
        return Err(Error::input(&path, "", message));
    }
    Ok(())
}

fn open_links(dir: &Path, manifest: &Manifest, modalities: &[Modality]) -> Result<Links> {
    let path = dir.join("pairs.npy");
    let units = manifest.pairs.units as usize;
    let table = MappedArray::open(&path)?;
    table.check(Dtype::I32, &[units, modalities.len()])?;
    let confidence = if manifest.pairs.weighted {
        let array = MappedArray::open(&dir.join("pairs_confidence.npy"))?;
        array.check(Dtype::F32, &[units])?;
        Some(array.elements::<f32>().to_vec())
    } else {
        None
    };
    let cells: Vec<usize> = modalities.iter().map(Modality::cells).collect();
    Links::new(modalities.len(), table.elements::<i32>().to_vec(), confidence, &cells, &path)
}

fn read_names(path: &Path, wanted: u64) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::input(path, "", "not UTF-8 text: import the dataset again"))?;
    let names: Vec<String> = text.lines().map(str::to_string).collect();
    if names.len() as u64 != wanted {
        return Err(Error::input(path, "", format!("it has {} lines, dataset.json says {wanted}: import the dataset again", names.len())));
    }
    Ok(names)
}

impl Modality {
    fn open(folder: &Path, entry: &ModalityEntry, described: &Path, lines_of_cells: u64) -> Result<Modality> {
        let bad = |message: String| Error::input(described, format!("modality \"{}\"", entry.name), message);
        let shape: Vec<usize> = entry.shape.iter().map(|&d| d as usize).collect();
        let product = entry.shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d));
        let (cells, limit) = (entry.cells, i32::MAX as u64);
        if product != Some(entry.features) || entry.features == 0 || entry.features > limit || cells == 0 || cells > limit {
            return Err(bad(format!("{cells} cells of shape {shape:?} with {} features cannot be", entry.features)));
        }
        let mut whole = vec![cells as usize];
        let open = |name: &str, dtype: Dtype, shape: &[usize]| {
            let array = MappedArray::open(&folder.join(name))?;
            array.check(dtype, shape)?;
            Ok::<_, Error>(array)
        };
        let values = match entry.layout.as_str() {
            "dense" => {
                let dtype = Dtype::from_name(&entry.dtype).filter(|d| matches!(d, Dtype::F32 | Dtype::U8 | Dtype::U16));
                let dtype = dtype.ok_or_else(|| bad(format!("the dtype \"{}\" is none of f32, u8, u16", entry.dtype)))?;
                whole.extend_from_slice(&shape);
                let array = match &entry.in_place {
                    Some(place) => place.open(dtype, cells, &shape)?,
                    None => open("values.npy", dtype, &whole)?,
                };
                Values::Dense { array, dtype }
            }
            "sparse" => {
                let wide = entry.indptr.as_deref() == Some("i64");
                let indptr = open("indptr.npy", if wide { Dtype::I64 } else { Dtype::I32 }, &[cells as usize + 1])?;
                let data = MappedArray::open(&folder.join("data.npy"))?;
                let stored = data.header().shape.first().copied().unwrap_or(0);
                data.check(Dtype::F32, &[stored])?;
                check_pointers(&indptr, wide, stored)?;
                Values::Sparse { indptr, wide, indices: open("indices.npy", Dtype::I32, &[stored])?, data }
            }
            other => return Err(bad(format!("the layout \"{other}\" is neither dense nor sparse"))),
        };
        let lines = open("lines.npy", Dtype::I32, &[cells as usize])?;
        if let Some(row) = lines.elements::<i32>().iter().position(|&l| l < 0 || l as u64 >= lines_of_cells) {
            return Err(Error::input(lines.file(), format!("row {row}"), format!("cells.csv has only {lines_of_cells} lines")));
        }
        Ok(Modality {
            name: entry.name.clone(),
            entry: entry.clone(),
            shape,
            cell_ids: Arc::new(read_names(&folder.join("cells.txt"), cells)?),
            feature_names: Arc::new(read_names(&folder.join("features.txt"), entry.features)?),
            lines,
            values,
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Rows.
    pub fn cells(&self) -> usize {
        self.entry.cells as usize
    }

    /// Columns.
    pub fn features(&self) -> usize {
        self.entry.features as usize
    }

    /// Shape of one cell: `[features]`, or `[channels, height, width]` for images.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether a cell is an image.
    pub fn is_image(&self) -> bool {
        self.shape.len() == 3
    }

    /// Channels, height and width of a cell, if it is an image.
    pub fn image(&self) -> Option<[usize; 3]> {
        <[usize; 3]>::try_from(self.shape.as_slice()).ok()
    }

    /// The id of every row.
    pub fn cell_ids(&self) -> &[String] {
        &self.cell_ids
    }

    /// The id of a row.
    #[track_caller]
    pub fn cell_id(&self, row: usize) -> &str {
        &self.cell_ids[row]
    }

    /// The name of every column.
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// The line of `cells.csv` of every row, from 0 after the header.
    pub fn lines(&self) -> &[i32] {
        self.lines.elements()
    }

    /// Whether only non-zeros are stored.
    pub fn is_sparse(&self) -> bool {
        matches!(self.values, Values::Sparse { .. })
    }

    /// Label-free facts of the whole matrix.
    pub fn facts(&self) -> &Facts {
        &self.entry.facts
    }

    /// What `dataset.json` says of it.
    pub fn entry(&self) -> &ModalityEntry {
        &self.entry
    }

    /// Bytes of the stored values.
    pub fn stored_bytes(&self) -> u64 {
        match &self.values {
            Values::Dense { array, .. } => array.bytes().len() as u64,
            Values::Sparse { indptr, indices, data, .. } => [indptr, indices, data].iter().map(|a| a.bytes().len() as u64).sum(),
        }
    }

    /// A row as it is stored: its values, or the columns and the values of a sparse one. `None` past the end of the file.
    pub fn stored_row(&self, row: usize) -> Option<[&[u8]; 2]> {
        match &self.values {
            Values::Dense { array, .. } => {
                let width = array.bytes().len() / self.cells().max(1);
                Some([array.bytes().get(row * width..(row + 1) * width)?, &[]])
            }
            Values::Sparse { indptr, wide, indices, data } => {
                let at = |row: usize| pointer(indptr, *wide, row)?.checked_mul(4);
                let range = at(row)?..at(row + 1)?;
                Some([indices.bytes().get(range.clone())?, data.bytes().get(range)?])
            }
        }
    }

    /// Brings the beginnings of rows that are read next, [`FETCHED`] of them at most, near the processor, which finds the rest by itself:
    /// what is far is then waited for once, not at every row's turn. Twice the cells a second of an atlas in random order. Rows that are
    /// not there are no error here.
    pub fn fetch(&self, rows: &[u32]) {
        let mut ends = [[&[][..]; 2]; FETCHED];
        let known = rows.iter().filter_map(|&row| self.stored_row(row as usize));
        ends.iter_mut().zip(known).for_each(|(to, parts)| *to = parts);
        let lines = ends.iter().flatten().flat_map(|part| part.iter().take(4096).step_by(64));
        std::hint::black_box(lines.fold(0, |all, first| all ^ first));
    }

    /// Writes a row's raw values to `out` `[features]`, missing ones as NaN.
    #[track_caller]
    pub fn row_into(&self, row: usize, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), self.features(), "row_into: a row of \"{}\" has {} features", self.name, self.features());
        assert!(row < self.cells(), "row_into: \"{}\" has {} cells, there is no row {row}", self.name, self.cells());
        let range = row * out.len()..(row + 1) * out.len();
        match &self.values {
            Values::Dense { array, dtype } => {
                let short = || Error::input(array.file(), format!("row {row}"), "the file is shorter than it was when opened");
                match dtype {
                    Dtype::U8 => copy(out, array.elements::<u8>().get(range).ok_or_else(short)?),
                    Dtype::U16 => copy(out, array.elements::<u16>().get(range).ok_or_else(short)?),
                    _ => out.copy_from_slice(array.elements::<f32>().get(range).ok_or_else(short)?),
                }
            }
            Values::Sparse { .. } => {
                out.fill(0.0);
                if let Some((indices, values)) = self.sparse_row(row)? {
                    for (&i, &v) in indices.iter().zip(values) {
                        out[i as usize] = v;
                    }
                }
            }
        }
        Ok(())
    }

    /// The non-zeros of a row, indices ascending and inside the features; none for a dense modality.
    #[track_caller]
    pub fn sparse_row(&self, row: usize) -> Result<Option<(&[i32], &[f32])>> {
        let Values::Sparse { indptr, wide, indices, data } = &self.values else { return Ok(None) };
        assert!(row < self.cells(), "sparse_row: \"{}\" has {} cells, there is no row {row}", self.name, self.cells());
        let (start, end) = (pointer(indptr, *wide, row), pointer(indptr, *wide, row + 1));
        let slices = start.zip(end).and_then(|(s, e)| Some((indices.elements::<i32>().get(s..e)?, data.elements::<f32>().get(s..e)?)));
        let Some((columns, values)) = slices else {
            return Err(Error::input(indptr.file(), format!("element {row}"), "it does not point into the data: import the dataset again"));
        };
        // Ascending and the ends inside means all inside; SciPy's canonical form, which import writes.
        let inside = columns.first().is_none_or(|&i| i >= 0) && columns.last().is_none_or(|&i| (i as usize) < self.features());
        // To the end in any case: without a way out of the loop it is vectorised.
        let ascending = columns.iter().zip(columns.get(1..).unwrap_or(&[])).fold(true, |so_far, (a, b)| so_far & (a < b));
        if !inside || !ascending {
            return Err(Error::input(
                indices.file(),
                format!("row {row}"),
                format!("its indices are not ascending numbers below {}: import the dataset again", self.features()),
            ));
        }
        Ok(Some((columns, values)))
    }
}

/// Rows whose beginnings a processor's nearest memory holds.
pub const FETCHED: usize = 16;

fn copy<T: Copy + Into<f32>>(out: &mut [f32], from: &[T]) {
    for (o, &x) in out.iter_mut().zip(from) {
        *o = x.into();
    }
}

fn pointer(indptr: &MappedArray, wide: bool, at: usize) -> Option<usize> {
    let value = if wide { *indptr.elements::<i64>().get(at)? } else { *indptr.elements::<i32>().get(at)? as i64 };
    usize::try_from(value).ok()
}

/// indptr must begin at 0, never fall and end at the number of stored values.
fn check_pointers(indptr: &MappedArray, wide: bool, stored: usize) -> Result<()> {
    let length = indptr.header().shape.first().copied().unwrap_or(0);
    let mut last = 0;
    for at in 0..length {
        let found = pointer(indptr, wide, at).unwrap_or(usize::MAX);
        let right = if at == 0 { found == 0 } else { found >= last && found <= stored };
        if !right || (at + 1 == length && found != stored) {
            return Err(Error::input(
                indptr.file(),
                format!("element {at}"),
                format!("indptr must begin at 0, never fall and end at {stored}: import the dataset again"),
            ));
        }
        last = found;
    }
    Ok(())
}
