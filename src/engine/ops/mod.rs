//! Operations: one room each, `src/engine/ops/<room>.rs` with `kernels/<room>.cu`.

pub mod noise;
