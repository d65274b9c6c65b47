//! `.h5ad` out: cells with their ids and labels, and one matrix of theirs, as scanpy goes on from.
//!
//!   embed      obsm/X_couplet [cells, latent]
//!   translate  X or a layer [cells, features], the imputed values, with the features' names in var; sparse ones as CSR (csr_matrix 0.1.0)
//!   both       obs/predicted_label and predicted_probability, where the run's model has a head for classes
//!   obs        a categorical a label column, numbers where a column holds many of them; with several modalities also `cell` and `modality`
//!   memory     ids and labels are in memory, the matrix goes row by row to the end of the file; so do the entries of a sparse one, of
//!              which memory holds where each row begins
//!   source     anndata's on-disk format 0.1.0 (data frames 0.2.0, categoricals 0.2.0, arrays 0.2.0)

mod tail;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use hdf5_pure::{AttrValue, DatasetBuilder, FileBuilder, FinishedGroup, GroupBuilder};

use crate::data::Dataset;
use crate::data::atomic::AtomicFile;
use crate::data::formats::Table;
use crate::data::texts::TextsBuilder;
use crate::error::{Error, Result};
use crate::run::Run;
use tail::Tail;

/// A column with more different numbers than this is written as numbers, not as categories.
const MOST_CLASSES_OF_NUMBERS: usize = 100;

/// The cells of a file: what is known of each beside the matrix.
pub struct Cells {
    ids: Vec<String>,
    columns: Vec<(String, Column)>,
}

/// A column of `obs`.
pub enum Column {
    /// Classes, and each cell's; none where it is missing.
    Classes(Vec<String>, Vec<Option<u32>>),
    /// A number a cell, NaN where it is missing.
    Numbers(Vec<f64>),
}

/// The one matrix of a file.
pub enum Matrix<'a> {
    /// X, with the names of its features.
    X(&'a [String]),
    /// A layer of this name in place of X, with the names of its features.
    Layer(&'a str, &'a [String]),
    /// An array in obsm: its name and its width.
    Obsm(&'a str, usize),
}

impl Matrix<'_> {
    /// Columns.
    pub fn width(&self) -> usize {
        match self {
            Matrix::X(features) | Matrix::Layer(_, features) => features.len(),
            Matrix::Obsm(_, width) => *width,
        }
    }

    /// The names of the features, where the columns are features.
    fn features(&self) -> &[String] {
        match self {
            Matrix::X(features) | Matrix::Layer(_, features) => features,
            Matrix::Obsm(..) => &[],
        }
    }

    /// The group that it is in, and its name there.
    fn place(&self) -> (&str, &str) {
        match self {
            Matrix::X(_) => ("", "X"),
            Matrix::Layer(name, _) => ("layers", name),
            Matrix::Obsm(name, _) => ("obsm", name),
        }
    }
}

impl Cells {
    /// The cells of some modalities of a dataset, one modality after another, with their labels. With several the ids are made
    /// different, where they are not, by the name of the modality at their end.
    pub fn of(dataset: &Dataset, modalities: &[usize]) -> Result<Cells> {
        let all = || modalities.iter().map(|&m| dataset.modality(m));
        let plain: Vec<String> = all().flat_map(|m| m.cell_ids().iter().cloned()).collect();
        let repeated = plain.iter().collect::<HashSet<_>>().len() < plain.len();
        let ids =
            if repeated { all().flat_map(|m| m.cell_ids().iter().map(|id| format!("{id}-{}", m.name()))).collect() } else { plain.clone() };
        let mut cells = Cells { ids, columns: Vec::new() };
        if modalities.len() > 1 {
            let names = all().map(|m| m.name().to_string()).collect();
            let codes = all().enumerate().flat_map(|(i, m)| std::iter::repeat_n(Some(i as u32), m.cells())).collect();
            cells.add("modality", Column::Classes(names, codes));
            let mut classes: Vec<String> = plain.clone();
            classes.sort();
            classes.dedup();
            let codes = plain.iter().map(|id| classes.binary_search(id).ok().map(|i| i as u32)).collect();
            cells.add("cell", Column::Classes(classes, codes));
        }
        for labels in dataset.labels()? {
            let codes: Vec<Option<u32>> = modalities.iter().flat_map(|&m| labels.rows[m].iter().copied()).collect();
            let numbers: Vec<Option<f64>> = labels.classes.iter().map(|c| c.parse().ok().filter(|x: &f64| x.is_finite())).collect();
            let column = if labels.classes.len() > MOST_CLASSES_OF_NUMBERS && numbers.iter().all(Option::is_some) {
                Column::Numbers(codes.iter().map(|c| c.and_then(|c| numbers[c as usize]).unwrap_or(f64::NAN)).collect())
            } else {
                Column::Classes(labels.classes, codes)
            };
            cells.add(&labels.column, column);
        }
        Ok(cells)
    }

    /// Adds what the head of a run's model said of the cells, where it has one and left `predicted.NAME.csv`: the class that is most likely
    /// and its probability, by the ids of the cells.
    pub fn add_predictions(&mut self, run: &Path, dataset: &Dataset, modalities: &[usize]) -> Result<()> {
        let (mut labels, mut probabilities) = (TextsBuilder::default(), Vec::new());
        for m in modalities.iter().map(|&m| dataset.modality(m)) {
            let file = Run::predictions_in(run, m.name());
            if !file.exists() {
                (0..m.cells()).for_each(|_| labels.push(""));
                probabilities.resize(probabilities.len() + m.cells(), f64::NAN);
                continue;
            }
            let table = Table::read(&file)?;
            let column = |name: &str| {
                let at = table.columns.iter().position(|c| c == name);
                at.map(|at| &table.values[at])
                    .ok_or_else(|| Error::input(&file, "line 1", format!("there is no column \"{name}\": train again")))
            };
            let (label, probability) = (column("label")?, column("probability")?);
            let rows: HashMap<&str, usize> = table.ids.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
            for row in m.cell_ids().iter().map(|id| rows.get(id.as_str())) {
                labels.push(row.map_or("", |&row| label.get(row)));
                probabilities.push(row.and_then(|&row| probability.get(row).parse().ok()).unwrap_or(f64::NAN));
            }
        }
        let labels = labels.finish();
        let (classes, codes) = labels.classes();
        if !classes.is_empty() {
            self.add("predicted_label", Column::Classes(classes.into_iter().map(str::to_string).collect(), codes));
            self.add("predicted_probability", Column::Numbers(probabilities));
        }
        Ok(())
    }

    /// Adds a column; one whose name is taken (or is that of the index) is called after it with a number.
    pub fn add(&mut self, name: &str, column: Column) {
        // A name with a slash would be a group in a group.
        let name = name.replace('/', "_");
        let taken = |n: &str| n == "_index" || n.is_empty() || self.columns.iter().any(|(have, _)| have == n);
        let free = if taken(&name) { (2..).map(|i| format!("{name}_{i}")).find(|n| !taken(n)).unwrap_or_default() } else { name };
        self.columns.push((free, column));
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A file on its way: everything but the matrix is written, its rows follow.
pub struct H5adWriter {
    file: AtomicFile,
}

impl H5adWriter {
    /// Begins a file; every cell's row must follow.
    pub fn create(path: &Path, cells: &Cells, matrix: &Matrix) -> Result<H5adWriter> {
        let width = matrix.width();
        let image = image(path, cells, matrix, &mut |room, name| one_row(room.dataset(name), width))?;
        let (group, name) = matrix.place();
        let at = if group.is_empty() { name.to_string() } else { format!("{group}/{name}") };
        let image = tail::make_room(image, &[Tail { path: &at, rows: cells.len() as u64, row_bytes: 4 * width as u64 }])?;
        let mut file = AtomicFile::create(path)?;
        AtomicFile::write(&mut file, &image)?;
        Ok(H5adWriter { file })
    }

    /// Begins a file whose matrix is sparse, compressed rows: row r has the entries `indptr[r]..indptr[r + 1]`. All values must follow, then,
    /// after [`H5adWriter::between`], all columns.
    pub fn create_sparse(path: &Path, cells: &Cells, matrix: &Matrix, indptr: &[i64]) -> Result<H5adWriter> {
        let entries = indptr.last().copied().unwrap_or(0);
        let image = image(path, cells, matrix, &mut |room, name| {
            let mut group = room.group(name);
            encode(&mut |name, value| group.set_attr(name, value), "csr_matrix", "0.1.0");
            group.set_attr("shape", AttrValue::I64Array(vec![cells.len() as i64, matrix.width() as i64]));
            // As narrow as SciPy would choose: it copies arrays of other types.
            let pointers = group.create_dataset("indptr");
            match i32::try_from(entries) {
                Ok(_) => pointers.with_i32_data(&indptr.iter().map(|&p| p as i32).collect::<Vec<_>>()),
                Err(_) => pointers.with_i64_data(indptr),
            };
            encode_array(pointers, "array");
            encode_array(group.create_dataset("data").with_f32_data(&[0.0]).with_shape(&[1]), "array");
            encode_array(group.create_dataset("indices").with_i32_data(&[0]).with_shape(&[1]), "array");
            room.add(group.finish());
        })?;
        let (group, name) = matrix.place();
        let group = if group.is_empty() { name.to_string() } else { format!("{group}/{name}") };
        let [data, indices] = ["data", "indices"].map(|part| format!("{group}/{part}"));
        let tails = [&data, &indices].map(|path| Tail { path, rows: entries as u64, row_bytes: 4 });
        let image = tail::make_room(image, &tails)?;
        let mut file = AtomicFile::create(path)?;
        AtomicFile::write(&mut file, &image)?;
        Ok(H5adWriter { file })
    }

    /// What stands between the values and the columns of a sparse matrix with so many entries.
    pub fn between(&mut self, entries: u64) -> Result<()> {
        let padding = Tail { path: "", rows: entries, row_bytes: 4 }.padding();
        AtomicFile::write(&mut self.file, &vec![0; padding as usize])
    }

    /// More of a sparse matrix's values or columns, little-endian.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        AtomicFile::write(&mut self.file, bytes)
    }

    /// The next row of the matrix.
    pub fn row(&mut self, values: &[f32]) -> Result<()> {
        AtomicFile::write(&mut self.file, bytemuck::cast_slice(values))
    }

    /// Gives the file its name.
    pub fn commit(self) -> Result<()> {
        self.file.commit()
    }
}

/// Where a matrix is made: the file or a group of it.
enum Room<'a> {
    File(&'a mut FileBuilder),
    Group(&'a mut GroupBuilder),
}

impl Room<'_> {
    fn dataset(&mut self, name: &str) -> &mut DatasetBuilder {
        match self {
            Room::File(file) => file.create_dataset(name),
            Room::Group(group) => group.create_dataset(name),
        }
    }

    fn group(&mut self, name: &str) -> GroupBuilder {
        match self {
            Room::File(file) => file.create_group(name),
            Room::Group(group) => group.create_group(name),
        }
    }

    fn add(&mut self, group: FinishedGroup) {
        match self {
            Room::File(file) => file.add_group(group),
            Room::Group(room) => room.add_group(group),
        };
    }
}

/// The file in memory, but for the rows of its matrix, of which `make` makes what stands for them.
fn image(path: &Path, cells: &Cells, matrix: &Matrix, make: &mut dyn FnMut(&mut Room, &str)) -> Result<Vec<u8>> {
    let mut file = FileBuilder::new();
    encode(&mut |name, value| file.set_attr(name, value), "anndata", "0.1.0");
    let (place, name) = matrix.place();
    if place.is_empty() {
        make(&mut Room::File(&mut file), name);
    }
    let mut obs = file.create_group("obs");
    frame(&mut obs, &cells.ids, &cells.columns)?;
    file.add_group(obs.finish());
    let mut var = file.create_group("var");
    frame(&mut var, matrix.features(), &[])?;
    file.add_group(var.finish());
    for group_name in ["layers", "obsm", "obsp", "uns", "varm", "varp"] {
        let mut group = file.create_group(group_name);
        encode(&mut |name, value| group.set_attr(name, value), "dict", "0.1.0");
        if group_name == place {
            make(&mut Room::Group(&mut group), name);
        }
        file.add_group(group.finish());
    }
    file.finish().map_err(|e| Error::Internal(format!("{}: {e}", path.display())))
}

/// The attributes by which anndata knows what a thing is.
fn encode(set: &mut dyn FnMut(&str, AttrValue), kind: &str, version: &str) {
    set("encoding-type", AttrValue::VarLenString(kind.into()));
    set("encoding-version", AttrValue::VarLenString(version.into()));
}

fn encode_array(array: &mut DatasetBuilder, kind: &str) {
    encode(
        &mut |name, value| {
            array.set_attr(name, value);
        },
        kind,
        "0.2.0",
    );
}

/// A matrix of one row, which [`tail`] gives its other rows.
fn one_row(array: &mut DatasetBuilder, width: usize) {
    array.with_f32_data(&vec![0.0; width]).with_shape(&[1, width as u64]);
    encode_array(array, "array");
}

fn texts(array: &mut DatasetBuilder, texts: &[String]) {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    array.with_vlen_strings(&texts);
    encode_array(array, "string-array");
}

fn frame(group: &mut GroupBuilder, names: &[String], columns: &[(String, Column)]) -> Result<()> {
    encode(&mut |name, value| group.set_attr(name, value), "dataframe", "0.2.0");
    group.set_attr("_index", AttrValue::VarLenString("_index".into()));
    let order: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    // anndata itself writes the empty list as one of floats.
    group.set_attr("column-order", if order.is_empty() { AttrValue::F64Array(Vec::new()) } else { AttrValue::VarLenStringArray(order) });
    texts(group.create_dataset("_index"), names);
    for (name, column) in columns {
        match column {
            Column::Numbers(numbers) => {
                encode_array(group.create_dataset(name).with_f64_data(numbers), "array");
            }
            Column::Classes(classes, codes) => {
                let mut column = group.create_group(name);
                encode(&mut |name, value| column.set_attr(name, value), "categorical", "0.2.0");
                column.set_attr("ordered", AttrValue::U8(0));
                texts(column.create_dataset("categories"), classes);
                let code = |c: &Option<u32>| c.map_or(-1, |c| c as i32);
                let array = column.create_dataset("codes");
                match classes.len() {
                    0..=127 => array.with_i8_data(&codes.iter().map(|c| code(c) as i8).collect::<Vec<_>>()),
                    128..=32767 => array.with_i16_data(&codes.iter().map(|c| code(c) as i16).collect::<Vec<_>>()),
                    _ => array.with_i32_data(&codes.iter().map(code).collect::<Vec<_>>()),
                };
                encode_array(array, "array");
                group.add_group(column.finish());
            }
        }
    }
    Ok(())
}
