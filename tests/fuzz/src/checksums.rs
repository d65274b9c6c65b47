//! Checksums that would stop a mutation at the door are made right before an edge reads the bytes, in the input, not skipped in the library.
//!
//!   HDF5         newer files have a checksum behind each block of metadata: lookup3 (Jenkins 2006), seed 0. Where blocks lie is found once,
//!                in the file that a corpus starts with, and stands behind the file: (start, end of what is summed) as u32, and their number
//!   safetensors  the record of a run has the CRC-32 of names and values

use flate2::Crc;

/// Blocks of metadata with a checksum begin so.
const SIGNATURES: [&[u8]; 14] = [
    b"OHDR",
    b"OCHK",
    b"FRHP",
    b"FHDB",
    b"FHIB",
    b"BTHD",
    b"BTIN",
    b"BTLF",
    b"FAHD",
    b"FADB",
    b"EAHD",
    b"EAIB",
    b"EADB",
    b"\x89HDF\r\n\x1a\n",
];
/// Longer blocks are left as they are.
const LONGEST: usize = 1 << 13;

/// An HDF5 file with the table of its checksums behind it.
pub fn with_table(mut file: Vec<u8>) -> Vec<u8> {
    let mut blocks: Vec<[u32; 2]> = Vec::new();
    for start in 0..file.len() {
        if SIGNATURES.iter().any(|s| file[start..].starts_with(s)) {
            let ends = start + 8..(start + LONGEST).min(file.len().saturating_sub(3));
            blocks.extend(
                ends.into_iter().find(|&end| stored(&file, end) == lookup3(&file[start..end])).map(|end| [start as u32, end as u32]),
            );
        }
    }
    for value in blocks.iter().flatten() {
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    file
}

/// The file of an input made by [`with_table`], its checksums made right. Inner blocks stand before outer ones nowhere: each is its own.
pub fn without_table(input: &[u8]) -> Vec<u8> {
    let number = input.len().checked_sub(4).map_or(0, |at| stored(input, at) as usize);
    let Some(length) = number.checked_mul(8).and_then(|n| input.len().checked_sub(n + 4)).filter(|_| number < 1000) else {
        return input.to_vec();
    };
    let (mut file, table) = (input[..length].to_vec(), &input[length..]);
    for block in table.chunks_exact(8) {
        let (start, end) = (stored(block, 0) as usize, stored(block, 4) as usize);
        if start < end && end - start <= LONGEST && end + 4 <= length {
            let sum = lookup3(&file[start..end]);
            file[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }
    file
}

fn stored(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Bob Jenkins' lookup3, `hashlittle` with seed 0.
fn lookup3(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let mut s = [start; 3];
    if bytes.is_empty() {
        return start;
    }
    let whole = (bytes.len() - 1) / 12;
    let word = |block: &[u8], i: usize| (0..4).fold(0, |w, k| w | u32::from(block.get(4 * i + k).copied().unwrap_or(0)) << (8 * k));
    for block in bytes[..12 * whole].chunks_exact(12) {
        (0..3).for_each(|i| s[i] = s[i].wrapping_add(word(block, i)));
        for (x, y, z, turn) in [(0, 2, 1, 4), (1, 0, 2, 6), (2, 1, 0, 8), (0, 2, 1, 16), (1, 0, 2, 19), (2, 1, 0, 4)] {
            s[x] = s[x].wrapping_sub(s[y]) ^ s[y].rotate_left(turn);
            s[y] = s[y].wrapping_add(s[z]);
        }
    }
    (0..3).for_each(|i| s[i] = s[i].wrapping_add(word(&bytes[12 * whole..], i)));
    for (x, y, turn) in [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)] {
        s[x] = (s[x] ^ s[y]).wrapping_sub(s[y].rotate_left(turn));
    }
    s[2]
}

/// A safetensors file with the CRC-32 in its record made right; as it is where it has none.
pub fn resealed(file: &[u8]) -> Vec<u8> {
    resealed_or_none(file).unwrap_or_else(|| file.to_vec())
}

fn resealed_or_none(file: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(file.get(..8)?.try_into().ok()?)).ok()?;
    let (header, body) = (file.get(8..length.checked_add(8)?)?, file.get(8 + length..)?);
    let text = std::str::from_utf8(header).ok()?;
    let parsed: serde_json::Value = serde_json::from_str(text).ok()?;
    let mut crc = Crc::new();
    let tensors: std::collections::BTreeMap<_, _> = parsed.as_object()?.iter().filter(|(name, _)| *name != "__metadata__").collect();
    for (name, tensor) in tensors {
        let offset = |i: usize| tensor.get("data_offsets")?.get(i)?.as_u64();
        crc.update(name.as_bytes());
        crc.update(body.get(offset(0)? as usize..offset(1)? as usize)?);
    }
    // In the header the record is a text inside a text.
    let key = "crc32\\\":";
    let at = text.find(key)? + key.len();
    let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
    let header = format!("{}{}{}", &text[..at], crc.sum(), &text[at + digits..]);
    Some([&(header.len() as u64).to_le_bytes(), header.as_bytes(), body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup3_gives_the_known_answers() {
        // From the comments of Jenkins' lookup3.c.
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
    }
}
