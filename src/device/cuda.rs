//! Device by CUDA driver.
