//! Between host and device: writing and reading variables, and small variables from values.

use super::step::{Step, Var};
use crate::error::Result;

impl Step {
    /// Writes the start of `v`.
    pub fn upload<T: bytemuck::Pod>(&mut self, v: Var, values: &[T]) -> Result<()> {
        self.upload_at(v, 0, values)
    }

    /// Writes `values` into `v` from word `offset` on.
    pub fn upload_at<T: bytemuck::Pod>(&mut self, v: Var, offset: usize, values: &[T]) -> Result<()> {
        assert!(!self.capturing, "an upload cannot be recorded: it would not be repeated with the step");
        self.arena.check()?;
        let mem = self.mem(v);
        self.device.upload(mem.part(offset, mem.len() - offset), values)
    }

    /// Reads all of `v`.
    pub fn download(&mut self, v: Var) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.size(v)];
        self.download_into(v, &mut out)?;
        Ok(out)
    }

    /// Reads the start of `v`.
    pub fn download_into<T: bytemuck::Pod>(&mut self, v: Var, out: &mut [T]) -> Result<()> {
        self.arena.check()?;
        let mem = self.mem(v);
        self.device.download(out, mem)
    }

    /// Sets `v` to zero.
    pub fn zero(&mut self, v: Var) {
        let mem = self.mem(v);
        if self.arena.failed.is_none() {
            self.device.zero(mem);
        }
    }

    /// Copies `src` into `dst`, of the same size.
    pub fn copy(&mut self, dst: Var, src: Var) {
        let (d, s) = (self.mem(dst), self.mem(src));
        if self.arena.failed.is_none() {
            self.device.copy(d, s);
        }
    }

    /// A variable of this step with these values; for tests and small constants.
    pub fn constant(&mut self, dims: [usize; 2], values: &[f32]) -> Var {
        assert_eq!(values.len(), dims[0] * dims[1], "constant: {} values for {dims:?}", values.len());
        let v = self.alloc(dims);
        self.upload(v, values).expect("an upload into the arena");
        v
    }

    /// A variable of this step with these values whose gradient is wanted; for tests.
    pub fn leaf(&mut self, dims: [usize; 2], values: &[f32]) -> Var {
        let v = self.constant(dims, values);
        self.set_wants(v);
        v
    }

    /// Waits for the device and reports its first error.
    pub fn finish(&mut self) -> Result<()> {
        self.arena.check()?;
        self.device.finish()
    }
}
