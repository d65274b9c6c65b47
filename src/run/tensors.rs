//! Named matrices and a record of counters in one safetensors file, which other tools open too.
//!
//! The record is JSON under one metadata key, so that the same content is always the same bytes; a checksum of the numbers
//! stands with it, since safetensors has none.

use crate::data::atomic;
use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
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
    let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("{}: {e}", path.display()));
    let mut views = Vec::with_capacity(tensors.len());
    for (name, dims, values) in tensors {
        let bytes = bytemuck::cast_slice(values);
        views.push((name.as_str(), TensorView::new(Dtype::F32, dims.to_vec(), bytes).map_err(|e| internal(&e))?));
    }
    views.sort_by_key(|(name, _)| *name);
    let crc32 = checksum(views.iter().map(|(name, v)| (*name, v.data())));
    let record = serde_json::to_value(record).map_err(|e| internal(&e))?;
    let text = serde_json::to_string(&Record { crc32, record }).map_err(|e| internal(&e))?;
    let bytes = serialize(views, Some(HashMap::from([(KEY.to_string(), text)]))).map_err(|e| internal(&e))?;
    atomic::write_file(path, &bytes)
}

/// Reads what [`save_tensors`] wrote. A truncated or damaged file is an input error of one sentence.
pub fn load_tensors(path: &Path) -> Result<Saved> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let damaged = |why: &str| damaged(path, why);
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e.to_string()))?;
    let text =
        header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| {
            Error::input(path, "", "this safetensors file was not written by couplet: its metadata has no entry \"couplet\"")
        })?;
    let Record { crc32, record } = serde_json::from_str(text).map_err(|e| damaged(&e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e.to_string()))?;
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
    let mut crc = flate2::Crc::new();
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
