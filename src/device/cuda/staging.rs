//! Uploads through pinned memory: a ring of slots that the copy engine reads while the host goes on.
//!
//! An upload is cut into slots; each slot is filled, its copy queued on the stream, and an event behind it says when
//! the slot may be filled again. A clock of a few words, written every step, so costs no wait: the host is never a
//! whole ring ahead of the device without noticing.

use cudarc::driver::DriverError;
use cudarc::driver::result::{event, free_host, malloc_host};
use cudarc::driver::sys;
use std::ptr;

const SLOT: usize = 256 << 10;
const SLOTS: usize = 16;

/// The ring. Made, used and dropped with the context current.
pub struct Staging {
    base: *mut u8,
    /// Signalled when the copy out of the slot is done.
    consumed: Vec<sys::CUevent>,
    next: usize,
}

impl Staging {
    /// Needs the context to be current.
    pub fn new() -> Result<Staging, DriverError> {
        // SAFETY: plain page-locked memory; a successful call gives `SLOT * SLOTS` bytes that `drop` frees.
        let base = unsafe { malloc_host(SLOT * SLOTS, 0) }?.cast();
        let mut staging = Staging { base, consumed: Vec::with_capacity(SLOTS), next: 0 };
        for _ in 0..SLOTS {
            staging.consumed.push(event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?);
        }
        Ok(staging)
    }

    /// Queues the copy of `src` to `dst` on the stream; `src` may change as soon as this returns.
    ///
    /// # Safety
    /// The context is current, `stream` is its live stream and not capturing, and `dst` has room for `src`.
    pub unsafe fn upload(&mut self, stream: sys::CUstream, dst: u64, src: &[u8]) -> Result<(), DriverError> {
        for (i, piece) in src.chunks(SLOT).enumerate() {
            let slot = self.next;
            self.next = (slot + 1) % SLOTS;
            // SAFETY: the event is live (one that was never recorded counts as done), so nothing reads the slot once the wait is
            // over; a piece fits in a slot, and the slot stays as it is until its event has been waited for again.
            unsafe {
                event::synchronize(self.consumed[slot])?;
                let at = self.base.add(slot * SLOT);
                ptr::copy_nonoverlapping(piece.as_ptr(), at, piece.len());
                sys::cuMemcpyHtoDAsync_v2(dst + (i * SLOT) as u64, at.cast(), piece.len(), stream).result()?;
                event::record(self.consumed[slot], stream)?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: all of it was made by `new` and is given back once; the owner has waited for the stream, so no copy is under way.
        unsafe {
            for e in self.consumed.drain(..) {
                let _ = event::destroy(e);
            }
            let _ = free_host(self.base.cast());
        }
    }
}
