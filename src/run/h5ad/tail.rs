//! Arrays that are written after their file: the HDF5 crate makes the file with one row of each in memory, and here such an array
//! is given all its rows and a place at the end of the file, where its rows, and the arrays, then follow one another.
//!
//!   found     the object header (`OHDR`, version 2) whose layout message has the address that the crate tells
//!   changed   dataspace: rows; layout: address and size; superblock: end of the file; the checksums of both (lookup3)
//!   checked   each checksum before it is changed, so that a crate that writes otherwise is an error here and no broken file
//!   source    HDF5 file format specification 3.0: II.A (superblock 2 and 3), IV.A.1.b, IV.A.2.b (dataspace), IV.A.2.i (layout);
//!             B. Jenkins: lookup3.c, hashlittle

use hdf5_pure::Layout;

use crate::error::{Error, Result};

/// Where the array begins in the file: a multiple of this, so that it can be mapped.
const ALIGNMENT: u64 = 64;

/// An array that goes to the end of the file.
pub(super) struct Tail<'a> {
    /// Where it is in the file.
    pub path: &'a str,
    /// Length of its first axis.
    pub rows: u64,
    /// Bytes of a row, which the image has one of.
    pub row_bytes: u64,
}

impl Tail<'_> {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.rows * self.row_bytes
    }

    /// Bytes between its end and the beginning of the next.
    pub fn padding(&self) -> u64 {
        self.bytes().next_multiple_of(ALIGNMENT) - self.bytes()
    }
}

/// The file's beginning, up to where row 0 of the first of these arrays goes. The others follow, each after the padding of the one before.
pub(super) fn make_room(mut image: Vec<u8>, tails: &[Tail]) -> Result<Vec<u8>> {
    let start = (image.len() as u64).next_multiple_of(ALIGNMENT);
    let (mut at, mut end) = (start, start);
    for tail in tails {
        let layout = hdf5_pure::File::from_bytes(image.clone()).and_then(|file| file.dataset(tail.path)?.layout());
        let Ok(Layout::Contiguous { address: Some(address), size }) = layout else {
            return Err(Error::Internal(format!("{} was not made in one piece: {layout:?}", tail.path)));
        };
        // What has no bytes has no place either: the HDF5 library calls one at the file's end damaged.
        let new = [if tail.bytes() > 0 { at } else { u64::MAX }, tail.bytes()];
        let changed = (size == tail.row_bytes).then(|| move_array(&mut image, [address, size], new, tail.rows)).flatten();
        changed.ok_or_else(|| Error::Internal(format!("{} was made in a way that is not known", tail.path)))?;
        end = at + tail.bytes();
        at = end + tail.padding();
    }
    image.resize(start as usize, 0);
    set_end(&mut image, end).ok_or_else(|| Error::Internal("the file was begun in a way that is not known".into()))?;
    Ok(image)
}

/// Changes the one header that has an array of one row at `old` (address, size).
fn move_array(image: &mut [u8], old: [u64; 2], new: [u64; 2], rows: u64) -> Option<()> {
    let mut at = 0;
    while let Some(found) = image.get(at..)?.windows(4).position(|w| w == b"OHDR") {
        at += found;
        if let Some(header) = Header::parse(image, at)
            && let (Some(space), Some(layout)) = (header.dataspace, header.layout)
            && image.get(layout + 1) == Some(&1)
            && u64_at(image, layout + 2) == Some(old[0])
            && u64_at(image, layout + 10) == Some(old[1])
        {
            let dims = space + if image.get(space)? == &2 { 4 } else { 8 };
            let axes = usize::from(*image.get(space + 1)?);
            (u64_at(image, dims)? == 1 && (1..=2).contains(&axes)).then_some(())?;
            put(image, dims, rows)?;
            // The largest sizes, where there are any, follow the sizes.
            if image.get(space + 2)? & 1 == 1 {
                put(image, dims + 8 * axes, rows)?;
            }
            put(image, layout + 2, new[0])?;
            put(image, layout + 10, new[1])?;
            return seal(image, at, header.end);
        }
        at += 4;
    }
    None
}

/// A version-2 object header without continuation: where its messages lie, and where its checksum.
struct Header {
    dataspace: Option<usize>,
    layout: Option<usize>,
    end: usize,
}

impl Header {
    fn parse(image: &[u8], start: usize) -> Option<Header> {
        let (version, flags) = (*image.get(start + 4)?, *image.get(start + 5)?);
        (version == 2).then_some(())?;
        let mut at = start + 6 + if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 };
        let width = 1usize << (flags & 3);
        let mut size = [0; 8];
        size[..width].copy_from_slice(image.get(at..at + width)?);
        at += width;
        let end = at.checked_add(usize::try_from(u64::from_le_bytes(size)).ok()?)?;
        (stored_checksum(image, end)? == lookup3(image.get(start..end)?)).then_some(())?;
        let mut header = Header { dataspace: None, layout: None, end };
        let head = 4 + if flags & 4 != 0 { 2 } else { 0 };
        while at + head <= end {
            let length = u16::from_le_bytes([*image.get(at + 1)?, *image.get(at + 2)?]) as usize;
            match image.get(at)? {
                1 => header.dataspace = Some(at + head),
                8 => header.layout = Some(at + head),
                0x10 => return None,
                _ => {}
            }
            at += head + length;
        }
        Some(header)
    }
}

/// Sets the end of the file in a superblock of version 2 or 3 with addresses of 8 bytes.
fn set_end(image: &mut [u8], end: u64) -> Option<()> {
    let known = image.starts_with(b"\x89HDF\r\n\x1a\n") && matches!(image.get(8..11)?, [2 | 3, 8, 8]);
    (known && stored_checksum(image, 44)? == lookup3(image.get(..44)?)).then_some(())?;
    put(image, 28, end)?;
    seal(image, 0, 44)
}

fn seal(image: &mut [u8], start: usize, end: usize) -> Option<()> {
    let sum = lookup3(image.get(start..end)?);
    image.get_mut(end..end + 4)?.copy_from_slice(&sum.to_le_bytes());
    Some(())
}

fn stored_checksum(image: &[u8], at: usize) -> Option<u32> {
    image.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(image: &[u8], at: usize) -> Option<u64> {
    image.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn put(image: &mut [u8], at: usize, value: u64) -> Option<()> {
    image.get_mut(at..at + 8)?.copy_from_slice(&value.to_le_bytes());
    Some(())
}

/// The checksum of HDF5's metadata.
fn lookup3(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let mut s = [start; 3];
    let mut rest = bytes;
    let add = |s: &mut [u32; 3], block: &[u8]| {
        for (word, b) in s.iter_mut().zip(block.chunks(4)) {
            let mut four = [0; 4];
            four[..b.len()].copy_from_slice(b);
            *word = word.wrapping_add(u32::from_le_bytes(four));
        }
    };
    while rest.len() > 12 {
        add(&mut s, &rest[..12]);
        for (x, y, z, by) in [(0, 1, 2, 4), (1, 2, 0, 6), (2, 0, 1, 8), (0, 1, 2, 16), (1, 2, 0, 19), (2, 0, 1, 4)] {
            s[x] = s[x].wrapping_sub(s[z]) ^ s[z].rotate_left(by);
            s[z] = s[z].wrapping_add(s[y]);
        }
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return s[2];
    }
    add(&mut s, rest);
    for (x, y, by) in [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)] {
        s[x] = (s[x] ^ s[y]).wrapping_sub(s[y].rotate_left(by));
    }
    s[2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdf5_pure::{File, FileBuilder};

    #[test]
    fn the_checksum_is_jenkins() {
        // The values that lookup3.c prints of itself.
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
    }

    #[test]
    fn an_array_of_one_row_gets_all_its_rows_at_the_end() {
        for rows in [1u64, 3, 1000] {
            let mut file = FileBuilder::new();
            file.create_dataset("before").with_i32_data(&[7, 8]);
            let mut group = file.create_group("in");
            group.create_dataset("matrix").with_f32_data(&[9.0, 9.0]).with_shape(&[1, 2]);
            file.add_group(group.finish());
            file.create_dataset("list").with_i32_data(&[0]).with_shape(&[1]);
            let tails = [("in/matrix", rows, 8), ("list", rows / 3, 4)].map(|(path, rows, row_bytes)| Tail { path, rows, row_bytes });
            let mut image = make_room(file.finish().unwrap(), &tails).unwrap();
            assert_eq!(image.len() as u64 % ALIGNMENT, 0);
            let numbers: Vec<f32> = (0..rows * 2).map(|i| i as f32).collect();
            image.extend_from_slice(bytemuck::cast_slice(&numbers));
            image.resize(image.len() + tails[0].padding() as usize, 0);
            let list: Vec<i32> = (0..rows as i32 / 3).collect();
            image.extend_from_slice(bytemuck::cast_slice(&list));
            let file = File::from_bytes(image).unwrap();
            assert_eq!(file.dataset("in/matrix").unwrap().shape().unwrap(), [rows, 2]);
            assert_eq!(file.dataset("in/matrix").unwrap().read_f32().unwrap(), numbers);
            assert_eq!(file.dataset("list").unwrap().read_i32().unwrap(), list);
            assert_eq!(file.dataset("before").unwrap().read_i32().unwrap(), [7, 8]);
        }
    }

    #[test]
    fn a_chunked_array_is_an_error() {
        let mut file = FileBuilder::new();
        file.create_dataset("m").with_f32_data(&[9.0, 9.0]).with_shape(&[1, 2]).with_chunks(&[1, 1]);
        assert!(make_room(file.finish().unwrap(), &[Tail { path: "m", rows: 3, row_bytes: 8 }]).is_err());
    }
}
