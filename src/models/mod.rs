//! Models

pub mod options;
pub mod settings;
