//! couplet pairs the views that different instruments give of the same cells.

#[cfg(feature = "models")]
pub mod bench;
pub mod device;
pub mod engine;
pub mod error;

#[cfg(feature = "models")]
pub mod data;
#[cfg(feature = "models")]
pub mod metrics;
#[cfg(feature = "models")]
pub mod models;
#[cfg(feature = "models")]
pub mod run;
#[cfg(feature = "models")]
pub mod train;
