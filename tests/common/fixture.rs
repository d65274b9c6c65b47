//! Values that PyTorch computed in float64, as a folder of `tests/golden` keeps them: a file a case, whose header holds the configuration.

#[path = "cases.rs"]
mod cases;
#[path = "devices.rs"]
mod devices;
#[path = "folder.rs"]
mod folder;
#[path = "tensors.rs"]
mod tensors;

pub use cases::{all_are_used, norm};
use couplet::device::Device;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A case, and the device that it is checked on.
pub struct Fixture {
    /// Of both, for a person.
    pub label: String,
    pub config: Json,
    pub tensors: BTreeMap<String, Vec<f64>>,
}

impl Fixture {
    pub fn values(&self, key: &str) -> &[f64] {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no tensor {key}", self.label))
    }

    pub fn floats(&self, key: &str) -> Vec<f32> {
        self.values(key).iter().map(|&v| v as f32).collect()
    }

    /// Names after the prefix, ascending, and values.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [f64])> {
        self.tensors.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_slice())))
    }

    pub fn number(&self, key: &str) -> usize {
        self.config[key].as_u64().expect("a number") as usize
    }

    pub fn seed(&self) -> u64 {
        self.config["seed"].as_u64().expect("a seed")
    }

    pub fn list<'a, T>(&'a self, key: &str, of: impl Fn(&'a Json) -> Option<T>) -> Vec<T> {
        self.config[key].as_array().expect("a list").iter().map(|v| of(v).expect("an element of its kind")).collect()
    }

    /// The length of the difference is at most this.
    #[track_caller]
    pub fn close(&self, what: &str, got: &[f32], expected: &[f64], allowed: f64) {
        cases::close(&format!("{}: {what}", self.label), got, expected, allowed);
    }
}

/// Checks a case of a folder on every device that answers.
pub fn on_every_device(of: &str, case: &str, check: impl Fn(Fixture, Device)) {
    for (name, device) in devices::devices() {
        let (tensors, config) = tensors::read(of, case);
        let tensors = tensors.into_iter().map(|(name, (_, values))| (name, values)).collect();
        check(Fixture { label: format!("{case} on {name}"), config, tensors }, device);
    }
}
