//! What several of the test programs share.

pub mod golden;
