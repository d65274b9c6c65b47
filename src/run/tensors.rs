//! Named matrices and a record of counters in one safetensors file, which other tools open too.
//!
//! The record is JSON under one metadata key, so that the same content is always the same bytes; a checksum of the numbers
//! stands with it, since safetensors has none.

use crate::data::atomic::AtomicFile;
use crate::data::mapped::MappedArray;
use crate::data::npy;
use crate::error::{Error, Result};
use flate2::Crc;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A name, the dimensions `[rows, cols]`, and the values row by row.
pub type Tensor = (String, [usize; 2], Vec<f32>);

const KEY: &str = "couplet";

#[derive(Serialize, Deserialize)]
struct Record {
    crc32: u32,
    record: serde_json::Value,
}

/// What [`load_tensors`] found in a file.
#[derive(Debug)]
pub struct Saved {
    file: PathBuf,
    tensors: BTreeMap<String, ([usize; 2], Vec<f32>)>,
    record: serde_json::Value,
}

impl Saved {
    /// The matrix of that name.
    pub fn get(&self, name: &str) -> Option<([usize; 2], &[f32])> {
        self.tensors.get(name).map(|(d, v)| (*d, v.as_slice()))
    }

    /// The matrix of that name, which must be there.
    pub fn need(&self, name: &str) -> Result<([usize; 2], &[f32])> {
        self.get(name).ok_or_else(|| Error::input(&self.file, "", format!("there is no tensor {name:?}: it belongs to another model")))
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The error for a file whose content makes no sense; `why` is a clause.
    pub fn damaged(&self, why: &str) -> Error {
        damaged(&self.file, why)
    }

    /// The record, as the type it was written from.
    pub fn record<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.record.clone())
            .map_err(|e| Error::input(&self.file, "", format!("it was written by another version of couplet or for another use ({e})")))
    }
}

/// Writes matrices and a record into `path`, whole or not at all.
pub fn save_tensors(path: &Path, tensors: &[Tensor], record: &impl Serialize) -> Result<()> {
    let named: Vec<_> = tensors.iter().map(|(name, dims, _)| (name.as_str(), *dims)).collect();
    save_each(path, &named, record, |i| Ok(Cow::Borrowed(&tensors[i].2)))
}

/// As [`save_tensors`], of matrices whose `values` are asked for one after the other by their place in the list, so that no two need to be
/// in memory at once.
pub fn save_each<'a>(
    path: &Path,
    named: &[(&str, [usize; 2])],
    record: &impl Serialize,
    mut values: impl FnMut(usize) -> Result<Cow<'a, [f32]>>,
) -> Result<()> {
    let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("{}: {e}", path.display()));
    let record = serde_json::to_value(record).map_err(|e| internal(&e))?;
    let mut order: Vec<usize> = (0..named.len()).collect();
    order.sort_by_key(|&i| named[i].0);
    let mut at = 0;
    let infos = order.iter().map(|&i| {
        let (name, dims) = named[i];
        let from = at;
        at += 4 * dims[0] * dims[1];
        (name.to_string(), TensorInfo { dtype: Dtype::F32, shape: dims.to_vec(), data_offsets: (from, at) })
    });
    let infos: Vec<(String, TensorInfo)> = infos.collect();
    // Its length, spaces to a multiple of 8 bytes, the header: as for the checksum with most digits, which is known at the end.
    let header = |crc32: u32, length: Option<usize>| -> Result<Vec<u8>> {
        let record = serde_json::to_string(&Record { crc32, record: record.clone() }).map_err(|e| internal(&e))?;
        let metadata = Metadata::new(Some(HashMap::from([(KEY.to_string(), record)])), infos.clone()).map_err(|e| internal(&e))?;
        let mut text = serde_json::to_vec(&metadata).map_err(|e| internal(&e))?;
        text.resize(length.unwrap_or(text.len().next_multiple_of(8)), b' ');
        Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
    };
    let room = header(u32::MAX, None)?;
    let mut file = AtomicFile::create(path)?;
    file.write(&room)?;
    let mut crc = Crc::new();
    for &i in &order {
        let (name, dims) = named[i];
        let values = values(i)?;
        assert_eq!(values.len(), dims[0] * dims[1], "{name}: the values of {dims:?}");
        let bytes = bytemuck::cast_slice(&values);
        crc.update(name.as_bytes());
        crc.update(bytes);
        file.write(bytes)?;
    }
    file.overwrite_start(&header(crc.sum(), Some(room.len() - 8))?)?;
    file.commit()
}

/// Reads what [`save_tensors`] wrote. A truncated or damaged file is an input error of one sentence.
pub fn load_tensors(path: &Path) -> Result<Saved> {
    let length = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?.len();
    let map = MappedArray::part(path, 0, npy::Dtype::U8, &[length as usize])?;
    let bytes = map.bytes();
    let damaged = |why: &str| damaged(path, why);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e.to_string()))?;
    let text =
        header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| {
            Error::input(path, "", "this safetensors file was not written by couplet: its metadata has no entry \"couplet\"")
        })?;
    let Record { crc32, record } = serde_json::from_str(text).map_err(|e| damaged(&e.to_string()))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e.to_string()))?;
    let mut views = file.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    if checksum(views.iter().map(|(name, v)| (name.as_str(), v.data()))) != crc32 {
        return Err(damaged("its checksum is wrong"));
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        let (Dtype::F32, &[rows, cols]) = (view.dtype(), view.shape()) else {
            return Err(damaged(&format!("tensor {name:?} is not a matrix of f32")));
        };
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        tensors.insert(name, ([rows, cols], values));
    }
    Ok(Saved { file: path.to_path_buf(), tensors, record })
}

fn damaged(file: &Path, why: &str) -> Error {
    Error::input(file, "", format!("the file is damaged or cut short ({why})"))
}

fn checksum<'a>(parts: impl Iterator<Item = (&'a str, &'a [u8])>) -> u32 {
    let mut crc = Crc::new();
    for (name, bytes) in parts {
        crc.update(name.as_bytes());
        crc.update(bytes);
    }
    crc.sum()
}

/// An f64 of a record, kept to the bit: JSON has no infinity and its readers round. Use as `#[serde(with = "bits")]`.
pub mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    /// As the bits of the number.
    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(x.to_bits())
    }

    /// From the bits of the number.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        u64::deserialize(d).map(f64::from_bits)
    }
}

/// A list of f64 of a record, kept to the bit. Use as `#[serde(with = "bits_list")]`.
pub mod bits_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// As the bits of the numbers.
    pub fn serialize<S: Serializer>(x: &[f64], s: S) -> Result<S::Ok, S::Error> {
        x.iter().map(|v| v.to_bits()).collect::<Vec<u64>>().serialize(s)
    }

    /// From the bits of the numbers.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
        Vec::<u64>::deserialize(d).map(|v| v.into_iter().map(f64::from_bits).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Counters {
        epoch: usize,
        #[serde(with = "bits")]
        best: f64,
        #[serde(with = "bits_list")]
        sums: Vec<f64>,
    }

    fn example() -> (Vec<Tensor>, Counters) {
        let tensors = vec![("b".into(), [1, 3], vec![1.0, f32::MIN_POSITIVE, -0.0]), ("a".into(), [0, 4], vec![])];
        (tensors, Counters { epoch: 3, best: f64::INFINITY, sums: vec![0.1 + 0.2, -1e-300] })
    }

    #[test]
    fn what_is_saved_is_loaded_to_the_bit_and_the_same_content_is_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, again) = (dir.path().join("a.safetensors"), dir.path().join("b.safetensors"));
        let (tensors, counters) = example();
        save_tensors(&path, &tensors, &counters).unwrap();
        let saved = load_tensors(&path).unwrap();
        assert_eq!(saved.record::<Counters>().unwrap(), counters);
        let (dims, values) = saved.need("b").unwrap();
        assert_eq!(dims, [1, 3]);
        assert_eq!(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), tensors[0].2.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        assert_eq!(saved.names().collect::<Vec<_>>(), ["a", "b"]);
        save_tensors(&again, &tensors, &counters).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_input_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let (tensors, counters) = example();
        save_tensors(&path, &tensors, &counters).unwrap();
        let good = std::fs::read(&path).unwrap();
        for n in 0..good.len() {
            std::fs::write(&path, &good[..n]).unwrap();
            assert_eq!(load_tensors(&path).unwrap_err().exit_code(), 2, "cut to {n} bytes");
            let mut bad = good.clone();
            bad[n] ^= 0x15;
            std::fs::write(&path, &bad).unwrap();
            // Padding and spelling of the header may change without a change of content.
            if let Ok(saved) = load_tensors(&path) {
                assert_eq!(saved.get("b").map(|(d, _)| d), Some([1, 3]), "byte {n}");
            }
        }
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(load_tensors(&path).unwrap_err().to_string().contains("checksum"));
    }
}
