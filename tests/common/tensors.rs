//! Files of `tests/golden`: numbers that PyTorch computed, and what is said of them.

use super::folder::golden;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Shapes and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

/// A case of a folder: its tensors, and what the one key of its header says, null where there is none.
pub fn read(folder: &str, case: &str) -> (Tensors, Json) {
    let path = golden(folder).join(format!("{case}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
    let text = header.metadata().as_ref().and_then(|m| m.values().next());
    let said = text.map_or(Json::Null, |text| serde_json::from_str(text).expect("JSON in the header"));
    let values = |t: &TensorView<'_>| match t.dtype() {
        Dtype::F32 => t.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::F64 => t.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        other => panic!("a tensor of {other:?}"),
    };
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    (file.tensors().into_iter().map(|(name, t)| (name, (t.shape().to_vec(), values(&t)))).collect(), said)
}
