//! Texts on the file's global heap, for the one place where the HDF5 crate gives no access to them: fields of records.
//!
//! A reference is a length (u32), the address of a collection (u64) and an index in it (u32). A collection is `GCOL`, version 1, three
//! bytes, its size (u64), then objects: index (u16), count of references (u16), four bytes, size (u64), the bytes, padded to a
//! multiple of 8; index 0 is what is free. Source: HDF5 file format specification, III.E. Files with a user block, whose addresses
//! do not count from byte 0, and addresses of other lengths are not read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::data::mapped::open_regular;
use crate::error::Result;

/// A collection is as large as the texts written together; h5py's are 4 KiB and more.
const LARGEST: u64 = 1 << 28;

pub(super) struct Heap {
    file: File,
    /// The collection read last: its address, its bytes, and where each object lies in them.
    address: u64,
    bytes: Vec<u8>,
    objects: BTreeMap<u16, (usize, usize)>,
}

impl Heap {
    pub fn open(path: &Path) -> Result<Heap> {
        Ok(Heap { file: open_regular(path)?, address: u64::MAX, bytes: Vec::new(), objects: BTreeMap::new() })
    }

    /// The text that the 16 bytes of a reference name; the error is the end of a sentence.
    pub fn text(&mut self, reference: &[u8]) -> Result<String, String> {
        let (Some(length), Some(address), Some(index)) = (u32_at(reference, 0), u64_at(reference, 4), u32_at(reference, 12)) else {
            return Err("a reference to a text is cut off: the file is damaged".into());
        };
        if length == 0 {
            return Ok(String::new());
        }
        if address != self.address {
            self.load(address).ok_or("a text is not where its reference says: the file is damaged, copy it again")?;
        }
        let found = u16::try_from(index).ok().and_then(|i| self.objects.get(&i));
        let bytes = found.and_then(|&(start, size)| self.bytes.get(start..start + size.min(length as usize)));
        let bytes = bytes.ok_or("a text is not where its reference says: the file is damaged, copy it again")?;
        let bytes = bytes.split(|&b| b == 0).next().unwrap_or(&[]);
        std::str::from_utf8(bytes).map(str::to_string).map_err(|_| "a text is not UTF-8: write the file again with UTF-8 names".into())
    }

    /// Reads a collection and notes its objects.
    fn load(&mut self, address: u64) -> Option<()> {
        self.address = u64::MAX;
        self.objects.clear();
        let mut head = [0; 16];
        self.file.seek(SeekFrom::Start(address)).ok()?;
        self.file.read_exact(&mut head).ok()?;
        let size = u64_at(&head, 8).filter(|&s| head.starts_with(b"GCOL") && (16..=LARGEST).contains(&s))?;
        self.bytes.clear();
        (&self.file).take(size - 16).read_to_end(&mut self.bytes).ok().filter(|&n| n as u64 == size - 16)?;
        let mut at = 0;
        while let (Some(index), Some(size)) = (self.bytes.get(at..at + 2), u64_at(&self.bytes, at + 8)) {
            let index = u16::from_le_bytes([index[0], index[1]]);
            let size = usize::try_from(size).ok()?;
            if index == 0 {
                break;
            }
            self.objects.insert(index, (at + 16, size.min(self.bytes.len())));
            // What lies beyond the end has no next one.
            let Some(next) = size.checked_next_multiple_of(8).and_then(|size| size.checked_add(at + 16)) else { break };
            at = next.min(self.bytes.len());
        }
        self.address = address;
        Some(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}
