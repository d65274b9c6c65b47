//! Data frames as AnnData writes them: the names of cells (`obs`) and features (`var`), and the columns beside them, as texts.
//!
//!   group    attribute `_index` names the array of names, `column-order` the columns. A column is an array; or a group that its
//!            attribute `encoding-type` calls `categorical` (`codes`, -1 where missing, into `categories`) or `nullable-...` (`values`,
//!            true in `mask` where missing). Version 0.7 has categories apart, in `__categories/COLUMN`
//!   table    before version 0.7: one array of records; the field `index` has the names, codes go into the list `uns/COLUMN_categories`
//!   source   anndata's on-disk format 0.1.0 and 0.2.0, and for tables its `anndata/readwrite/h5ad.py` of version 0.6

use super::array::{Array, Element, Field, FieldKind};
use super::file::{H5, Kind};
use crate::data::texts::Texts;
use crate::error::Result;

/// Where a frame lies, and how.
pub(super) enum Frame<'a> {
    Group { h5: &'a H5, path: String, index: String },
    Table { h5: &'a H5, records: Box<Array>, fields: Vec<Field>, index: usize },
}

/// A column: its name, and a text a row, empty where missing.
pub(super) struct Column {
    pub name: String,
    pub texts: Texts,
}

impl Frame<'_> {
    /// Opens the frame under a path such as `obs`.
    pub fn open<'a>(h5: &'a H5, path: &str) -> Result<Frame<'a>> {
        match h5.kind(path)? {
            None => Err(h5.bad(path, "it is not in the file: AnnData always has it, so the file is damaged or of another kind")),
            Some(Kind::Array) => {
                let records = h5.array(path)?;
                let Element::Record(fields) = records.element().clone() else {
                    return Err(h5.bad(path, "a data frame is wanted, it is an array"));
                };
                let named = ["index", "_index"].iter().find_map(|n| fields.iter().position(|f| f.name == *n));
                let first = fields.iter().position(|f| !matches!(f.kind, FieldKind::Number { .. }));
                let index = named.or(first).ok_or_else(|| h5.bad(path, "the table has no field of names"))?;
                Ok(Frame::Table { h5, records: Box::new(records), fields, index })
            }
            Some(Kind::Group) => {
                let index = match h5.text(path, "_index")? {
                    Some(index) => index,
                    None => ["_index", "index"]
                        .into_iter()
                        .find(|n| matches!(h5.kind(&inside(path, n)), Ok(Some(_))))
                        .unwrap_or("_index")
                        .into(),
                };
                Ok(Frame::Group { h5, path: path.to_string(), index })
            }
        }
    }

    /// The names of the rows.
    pub fn names(&self) -> Result<Vec<String>> {
        match self {
            Frame::Group { h5, path, index } => {
                let at = inside(path, index);
                match column_texts(h5, path, index)? {
                    Some(texts) => Ok(texts.iter().map(str::to_string).collect()),
                    None => Err(
                        h5.bad(at, "it holds the names but is of a kind that is not read: write the file again with names that are texts")
                    ),
                }
            }
            Frame::Table { records, fields, index, .. } => Ok(records.field_texts(&fields[*index])?.iter().map(str::to_string).collect()),
        }
    }

    /// The columns that can be read, in their order, and the names of the others; `rows` is how many there must be.
    pub fn columns(&self, rows: usize) -> Result<(Vec<Column>, Vec<String>)> {
        let (mut columns, mut others) = (Vec::new(), Vec::new());
        match self {
            Frame::Group { h5, path, index } => {
                for name in order(h5, path, index)? {
                    match column_texts(h5, path, &name)? {
                        Some(texts) if texts.len() == rows => columns.push(Column { name, texts }),
                        Some(texts) => return Err(h5.bad(inside(path, &name), format!("it has {} rows, there are {rows}", texts.len()))),
                        None => others.push(name),
                    }
                }
            }
            Frame::Table { h5, records, fields, index } => {
                for (_, field) in fields.iter().enumerate().filter(|(i, _)| i != index) {
                    let mut texts = records.field_texts(field)?;
                    let listed = format!("uns/{}_categories", field.name);
                    if matches!(field.kind, FieldKind::Number { .. }) && h5.is_array(&listed)? {
                        texts = decode(h5, records.name(), &texts, h5.array(&listed)?.texts()?)?;
                    }
                    columns.push(Column { name: field.name.clone(), texts });
                }
            }
        }
        Ok((columns, others))
    }
}

/// `path/name`, or the name alone at the root.
pub(super) fn inside(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") }
}

/// The names of the columns: as `column-order` says, else by name.
fn order(h5: &H5, path: &str, index: &str) -> Result<Vec<String>> {
    let there: Vec<String> = h5.members(path)?.into_iter().filter(|n| n != index && n != "__categories").collect();
    match h5.texts(path, "column-order")? {
        Some(order) => Ok(order.into_iter().filter(|n| there.contains(n)).collect()),
        None => Ok(there),
    }
}

/// A column as texts; none if it is of a kind that is not read.
fn column_texts(h5: &H5, frame: &str, name: &str) -> Result<Option<Texts>> {
    let path = inside(frame, name);
    if h5.is_group(&path)? && h5.text(&path, "encoding-type")?.as_deref() == Some("categorical") {
        let Some(categories) = plain_texts(h5, &inside(&path, "categories"))? else { return Ok(None) };
        let categories = categories.iter().map(str::to_string).collect();
        return decode_codes(h5, &h5.array(&inside(&path, "codes"))?, categories).map(Some);
    }
    let categories = inside(&inside(frame, "__categories"), name);
    if h5.is_array(&path)? && h5.is_array(&categories)? {
        return decode_codes(h5, &h5.array(&path)?, h5.array(&categories)?.texts()?).map(Some);
    }
    plain_texts(h5, &path)
}

/// The same of an array, or of values with a mask.
fn plain_texts(h5: &H5, path: &str) -> Result<Option<Texts>> {
    match h5.kind(path)? {
        None => Err(h5.bad(path, "it is not in the file, although the data frame has it: the file is damaged")),
        Some(Kind::Array) => {
            let array = h5.array(path)?;
            if array.shape().len() != 1 || matches!(array.element(), Element::Record(_)) {
                return Ok(None);
            }
            array.column().map(Some)
        }
        Some(Kind::Group) if h5.text(path, "encoding-type")?.is_some_and(|kind| kind.starts_with("nullable-")) => {
            let texts = h5.array(&inside(path, "values"))?.column()?;
            let mask = h5.array(&inside(path, "mask"))?;
            let missing = mask.column()?;
            if missing.len() != texts.len() {
                return Err(mask.bad(format!("it has {} rows, the values have {}", missing.len(), texts.len())));
            }
            let known = |(text, missing)| if matches!(missing, "True" | "1") { "" } else { text };
            Ok(Some(texts.iter().zip(missing.iter()).map(known).collect()))
        }
        Some(Kind::Group) => Ok(None),
    }
}

/// The category of each code, the empty text for -1.
fn decode_codes(h5: &H5, codes: &Array, categories: Vec<String>) -> Result<Texts> {
    coded(h5, codes.name(), &codes.integers()?, categories)
}

/// The same of codes that were read as texts.
fn decode(h5: &H5, place: &str, codes: &Texts, categories: Vec<String>) -> Result<Texts> {
    let codes: Vec<i64> = codes.iter().map(|code| code.parse().unwrap_or(i64::MIN)).collect();
    coded(h5, place, &codes, categories)
}

fn coded(h5: &H5, place: &str, codes: &[i64], categories: Vec<String>) -> Result<Texts> {
    if let Some(row) = codes.iter().position(|&c| c < -1 || c >= categories.len() as i64) {
        let message = format!("the code is {}, but there are {} categories: the file is damaged", codes[row], categories.len());
        return Err(h5.bad(format!("{place}, row {row}"), message));
    }
    Ok(Texts::coded(categories, codes.iter().map(|&c| u32::try_from(c).ok())))
}
