//! The memory of a step: taken from the start, given back all at once, so that a warm step sees the same addresses each time.

use crate::device::{Device, Mem};
use crate::error::{Error, Result};

/// Memory that a step takes from the start and gives back all at once.
#[derive(Default)]
pub(super) struct Arena {
    pub(super) chunks: Vec<Mem>,
    chunk: usize,
    used: usize,
    /// Why a chunk could not be had: device and message. From then on nothing is launched, until the arena is reset.
    pub(super) failed: Option<(String, String)>,
}

impl Arena {
    const ALIGN: usize = 64; // words: 256 bytes, a cache line of any device we know and more
    const FIRST: usize = 1 << 18;

    pub(super) fn reset(&mut self) {
        (self.chunk, self.used) = (0, 0);
        self.failed = None;
    }

    pub(super) fn check(&self) -> Result<()> {
        let refused =
            |(device, message): &(String, String)| Error::Device { device: device.clone(), message: message.clone(), asked: false };
        self.failed.as_ref().map_or(Ok(()), |f| Err(refused(f)))
    }

    pub(super) fn alloc(&mut self, device: &mut Device, words: usize) -> Mem {
        let need = words.next_multiple_of(Arena::ALIGN);
        while self.chunk < self.chunks.len() {
            let chunk = self.chunks[self.chunk];
            if self.used + need <= chunk.len() {
                self.used += need;
                return chunk.part(self.used - need, words);
            }
            (self.chunk, self.used) = (self.chunk + 1, 0);
        }
        let grown = self.chunks.last().map_or(Arena::FIRST, |c| c.len()).max(need);
        match device.alloc(grown) {
            Ok(mem) => {
                self.chunks.push(mem);
                self.used = need;
                mem.part(0, words)
            }
            // The Rust arms would write to this memory at once.
            Err(e) if matches!(device, Device::Cpu(_)) => panic!("{e}"),
            Err(e) => {
                let reason = match e {
                    Error::Device { device, message, .. } => (device, message),
                    other => ("the device".into(), other.to_string()),
                };
                self.failed.get_or_insert(reason);
                Mem { addr: Mem::EMPTY.addr, len: words }
            }
        }
    }
}
