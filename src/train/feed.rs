//! How a modality's rows reach the device in training: the whole modality once, if it fits, else each minibatch's rows as it comes.
//!
//! Both give the same numbers; the first leaves nothing to do for the host in a step but to say where the minibatch begins.

use super::input::Input;
use crate::data::dataset::Dataset;
use crate::data::plan::Plan;
use crate::device::Device;
use crate::engine::{Step, Var};
use crate::error::Result;

/// One modality's way to the device.
pub struct Feed {
    modality: usize,
    features: usize,
    source: Source,
}

enum Source {
    /// All rows [cells, features], and the epoch's order.
    Resident { x: Var, order: Var },
    /// A minibatch [B, features].
    Staged { buffer: Var, host: Vec<f32> },
}

impl Feed {
    /// Puts the modality on the device, or makes room for a minibatch of it. `slots` is the longest epoch, `batch` the largest minibatch.
    pub fn new(
        s: &mut Step,
        dataset: &Dataset,
        modality: usize,
        input: &mut Input,
        slots: usize,
        batch: usize,
        resident: bool,
    ) -> Result<Feed> {
        let m = dataset.modality(modality);
        let (cells, features) = (m.cells(), input.width());
        s.end();
        if !resident {
            let buffer = s.resident([batch, features])?;
            return Ok(Feed { modality, features, source: Source::Staged { buffer, host: vec![0.0; batch * features] } });
        }
        let (x, order) = (s.resident([cells, features])?, s.resident([1, slots])?);
        const ROWS: usize = 256;
        let mut host = vec![0.0f32; ROWS * features];
        for first in (0..cells).step_by(ROWS) {
            let rows: Vec<u32> = (first as u32..cells.min(first + ROWS) as u32).collect();
            let host = &mut host[..rows.len() * features];
            input.rows(m, &rows, host)?;
            s.upload_at(x, first * features, host)?;
        }
        Ok(Feed { modality, features, source: Source::Resident { x, order } })
    }

    /// A modality of these values [cells, features], whole on the device: for measurements and for data that no file holds.
    pub fn of_values(s: &mut Step, modality: usize, features: usize, values: &[f32], slots: usize) -> Result<Feed> {
        s.end();
        let (x, order) = (s.resident([values.len() / features.max(1), features])?, s.resident([1, slots])?);
        s.upload(x, values)?;
        Ok(Feed { modality, features, source: Source::Resident { x, order } })
    }

    /// Takes over an epoch's order.
    pub fn set_order(&mut self, s: &mut Step, plan: &Plan) -> Result<()> {
        match &self.source {
            Source::Resident { order, .. } => s.upload(*order, plan.order(self.modality)),
            Source::Staged { .. } => Ok(()),
        }
    }

    /// What the host has to do before a step on slots `start .. start + rows`: nothing for a resident modality.
    pub fn stage(&mut self, s: &mut Step, dataset: &Dataset, input: &mut Input, plan: &Plan, start: usize, rows: usize) -> Result<()> {
        if let Source::Staged { buffer, host } = &mut self.source {
            let host = &mut host[..rows * self.features];
            input.rows(dataset.modality(self.modality), &plan.order(self.modality)[start..start + rows], host)?;
            s.upload(*buffer, host)?;
        }
        Ok(())
    }

    /// The minibatch [rows, features] of the step under way.
    pub fn minibatch(&self, s: &mut Step, rows: usize) -> Var {
        match &self.source {
            Source::Resident { x, order } => s.gather(*x, *order, rows, Var::NONE, Var::NONE),
            Source::Staged { buffer, .. } if s.dims(*buffer)[0] == rows => *buffer,
            Source::Staged { buffer, .. } => {
                let part = s.part(*buffer, 0, rows * self.features);
                s.reshaped(part, [rows, self.features])
            }
        }
    }
}

/// How many bytes data may take on a device: half of its free memory, or a quarter of the host's.
pub fn room(device: &Device) -> usize {
    device.free_memory().map_or_else(|| available_memory() / 4, |free| free / 2)
}

/// Which modalities may lie on the device whole: in their order, while there is room, of which their bytes are taken off.
pub fn resident(room: &mut usize, dataset: &Dataset, inputs: &[Input]) -> Vec<bool> {
    let mut fits = |bytes: usize| {
        let yes = bytes <= *room;
        *room -= if yes { bytes } else { 0 };
        yes
    };
    dataset.modalities().iter().zip(inputs).map(|(m, input)| fits(4 * m.cells() * input.width())).collect()
}

/// Bytes that programs may still take on this machine; 4 GiB where the system does not say.
fn available_memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<usize>().ok());
    kib.map_or(4 << 30, |k| k * 1024)
}
