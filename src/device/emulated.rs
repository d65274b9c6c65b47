//! Emulated device.
