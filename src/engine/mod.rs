//! The engine: one mutable [`Step`] (device, arena, tape), operations as rooms of their own, parameters,
//! layers and optimisers. It knows nothing of cells.

mod arena;
pub mod average;
pub mod linalg;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod params;
pub mod rng;
pub mod sparse;
pub mod step;
pub mod tape;
mod transfer;

pub use crate::device::launch::GraphId;
pub use params::init;
pub use sparse::SparseRows;
pub use step::{Knob, Precision, Step, Var};
pub use tape::Weight;
