//! couplet pairs the views that different instruments give of the same cells. It trains published multi-modal single-cell
//! autoencoders on matrices that are mapped instead of loaded, on hand-written CUDA and CPU kernels and a small reverse-mode tape.
//!
//! # The map of the code
//!
//! | room | what is in it | reads first |
//! | --- | --- | --- |
//! | [`error`] | the one error type, and which exit status it means | |
//! | [`device`] | memory, launches, the processor's loops; `cuda`, the GPU's driver; `emulated`, the same kernels on the CPU | `device/mod.rs` |
//! | [`engine`] | the [`Step`](engine::Step) (device, arena, tape), parameters, sparse minibatches, layers, optimisers | `engine/step.rs`, `engine/tape.rs` |
//! | [`engine::ops`] | operations: one file each with mathematics, CPU arm, launch, gradient and proofs; its kernels in `kernels/` under the same name | `engine/ops/linear.rs` |
//! | `data` | files in, the mapped dataset, pairs, labels, held-out cells, preprocessing, simulation | `data/mod.rs` |
//! | `models` | one file a paper: options, layers, loss terms | `models/coupled.rs` |
//! | `train` | the one loop that drives every model; a finished run that embeds and translates | `train/mod.rs` |
//! | `metrics` | what the field measures, and the baselines | `metrics/mod.rs` |
//! | `correspondence` | distances within a modality, the soft correspondence between two inferred from them, one-to-one pairs | `correspondence/mod.rs` |
//! | `plot` | figures as SVG and PNG, with a font inside | `plot/mod.rs` |
//! | `explain` | which features a trained model uses: ablation, Shapley values; what the axes of its latent spaces mean | `explain/mod.rs` |
//! | `run` | the RUN directory: configuration, history, checkpoint, weights, embeddings | `run.rs` |
//! | `bench` | what `couplet bench` and `benches/` measure, beside the machine's limits | `bench/mod.rs` |
//! | `cli` (in the binary) | one file a command | `cli/mod.rs` |
//!
//! A room uses the rooms above it and none below. The first two need no feature; `plot` is the feature `plots`, the rest is `models`;
//! the binary adds `cli`.
//!
//! To follow one number through: `cli/train.rs` reads the command, `train/prepare.rs` fits preprocessing and builds the model,
//! `train/stepper.rs` makes one step of it, `models/coupled.rs` writes the loss, `engine/ops/linear.rs` multiplies, and
//! `kernels/gemm.cu` is what a GPU runs.
//!
//! # The engine alone
//!
//! With `default-features = false` this crate is devices, tape, operations, layers and optimisers, and brings two crates besides.
//! `examples/small_network.rs` is the first lesson; `examples/pair_views.rs` trains a whole model from another program.
//!
//! # Three promises
//!
//! - The same seed on the same device gives the same bits, whatever the number of threads, stopped and resumed or not.
//! - A warm training step allocates nothing.
//! - Edges return [`Error`](error::Error)s that name file, row or key; a shape mismatch in a model is a bug and panics at its line.

#![warn(missing_docs)]

pub mod device;
pub mod engine;
pub mod error;

#[cfg(feature = "models")]
pub mod bench;
#[cfg(feature = "models")]
pub mod correspondence;
#[cfg(feature = "models")]
pub mod data;
#[cfg(feature = "models")]
pub mod explain;
#[cfg(feature = "models")]
pub mod metrics;
#[cfg(feature = "models")]
pub mod models;
#[cfg(feature = "plots")]
pub mod plot;
#[cfg(feature = "models")]
pub mod run;
#[cfg(feature = "models")]
pub mod train;
