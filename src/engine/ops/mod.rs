//! Operations: one room each, `src/engine/ops/<room>.rs` with `kernels/<room>.cu`.
//!
//! How to add one: a file here with the shape check, the CPU arm, the launch, the backward pass and the three proofs
//! ([`testing`] does them: value, gradient, every device against both); a kernel file of the same stem; a line below. Methods go
//! on [`Step`](super::Step), so nothing else changes. A test lists the kernels that no test has launched.

pub mod activation;
pub mod batch_norm;
pub mod distance;
pub mod gemm;
pub mod ledger;
pub mod linear;
pub mod losses;
pub mod noise;
pub mod reduce;
pub mod rows;
pub mod small;
pub mod spectrum;
#[cfg(test)]
pub(crate) mod testing;
pub mod whiten;
