//! Dense matrices that stay in the file they came in (`import --in-place`): mapped there, not copied.
//!
//! What can: little-endian f32, u8 or u16, rows of cells one after another, uncompressed and in one piece - an `.npy`, the X or a layer of
//! an uncompressed `.h5ad`. `dataset.json` keeps the file's name, where in it the values lie, and their CRC-32. A dataset opens without
//! reading them as long as the file has the length and the time of its last change that it had; otherwise the checksum decides, and
//! a file whose values changed is named.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::hooks::Hooks;
use super::mapped::MappedArray;
use super::npy::Dtype;
use crate::error::{Error, Result};

/// Bytes between two looks at the hooks.
const BLOCK: usize = 8 << 20;

/// Where rows lie as a dataset would keep them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The first byte of the values.
    pub offset: u64,
    /// Their type.
    pub dtype: Dtype,
}

/// Values outside the dataset, in `dataset.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InPlace {
    /// The file, as an absolute path.
    pub file: String,
    /// The first byte of the values.
    pub offset: u64,
    /// How many bytes there are.
    pub bytes: u64,
    /// CRC-32 of the values, in hexadecimal.
    pub crc32: String,
    /// The file's length at import.
    pub length: u64,
    /// Its last change then, in nanoseconds since 1970.
    pub modified: u64,
}

/// Length and last change of a file.
fn stamp(file: &Path) -> Result<(u64, u64)> {
    let data = std::fs::metadata(file).map_err(|e| Error::io("read", file, e))?;
    let modified = data.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos() as u64);
    Ok((data.len(), modified))
}

impl InPlace {
    /// Describes the values of `cells` rows of shape `shape`, reading them once.
    pub fn describe(place: &Place, cells: u64, shape: &[usize], name: &str, hooks: &mut Hooks) -> Result<InPlace> {
        let file = std::fs::canonicalize(&place.file).map_err(|e| Error::io("read", &place.file, e))?;
        let text = file
            .to_str()
            .ok_or_else(|| Error::input(&file, "", "a name that is not UTF-8 cannot be kept: leave --in-place out, or rename it"))?;
        // Before the values, so that a change during the reading is noticed later.
        let (length, modified) = stamp(&file)?;
        let mut entry = InPlace { file: text.to_string(), offset: place.offset, bytes: 0, crc32: String::new(), length, modified };
        let array = entry.map(place.dtype, cells, shape)?;
        entry.bytes = array.bytes().len() as u64;
        entry.crc32 = checksum(&array, name, hooks)?;
        if place.dtype == Dtype::F32
            && let Some(at) = array.elements::<f32>().iter().position(|x| x.is_infinite())
        {
            let message = "the value is infinite: mend the file, or leave --in-place out to count such values as missing";
            return Err(Error::input(&file, format!("value {at} of the matrix"), message));
        }
        Ok(entry)
    }

    /// Maps the values.
    fn map(&self, dtype: Dtype, cells: u64, shape: &[usize]) -> Result<MappedArray> {
        let whole: Vec<usize> = std::iter::once(cells as usize).chain(shape.iter().copied()).collect();
        MappedArray::part(Path::new(&self.file), self.offset, dtype, &whole)
    }

    /// Maps the values after a look at whether the file is the one it was.
    pub fn open(&self, dtype: Dtype, cells: u64, shape: &[usize]) -> Result<MappedArray> {
        let file = Path::new(&self.file);
        if !file.exists() {
            return Err(Error::input(file, "", "the dataset uses its values in place, and it is gone: put it back, or import again"));
        }
        let array = self.map(dtype, cells, shape)?;
        if stamp(file)? != (self.length, self.modified) {
            self.verify(&array, &mut Hooks::default())?;
        }
        Ok(array)
    }

    /// Reads all values and compares their checksum.
    pub fn verify(&self, array: &MappedArray, hooks: &mut Hooks) -> Result<()> {
        let found = checksum(array, &self.file, hooks)?;
        if found == self.crc32 {
            return Ok(());
        }
        let message = format!("its values changed since it was imported in place (checksum {found}, {} then): import it again", self.crc32);
        Err(Error::input(&self.file, "", message))
    }
}

fn checksum(array: &MappedArray, name: &str, hooks: &mut Hooks) -> Result<String> {
    let (mut crc, mut done) = (Crc::new(), 0);
    let total = array.bytes().len() as u64;
    let stage = format!("{name}: checksum");
    for block in array.bytes().chunks(BLOCK) {
        crc.update(block);
        done += block.len() as u64;
        hooks.tick(&stage, done, Some(total))?;
    }
    Ok(format!("{:08x}", crc.sum()))
}
