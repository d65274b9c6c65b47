//! Folders of images.

use crate::{Odd, found};
use flate2::Compression;
use std::io::Write;

/// Cut, of another size, too large, of no palette.
pub fn images(odd: &mut Odd) {
    let picture = |side: u32| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&vec![7; (side * side) as usize]).unwrap();
        bytes
    };
    let whole = picture(8);
    let chunks = found(&whole, &[b"IHDR", b"IDAT", b"IEND"]);
    let cut = chunks[..2].iter().flat_map(|&at| [at, at + 4]).chain([0, 7, 8, chunks[1] + 9]);
    let images = cut.map(|at| whole[..at].to_vec()).chain([picture(6), b"no image".to_vec()]);
    for (i, bytes) in images.enumerate() {
        odd.write("images/a.png", picture(8));
        odd.write("images/b.png", bytes);
        odd.refuse_given(if i < 8 { "cut" } else { "shape" }, &odd.path("images"), &[], "b.png");
        std::fs::remove_dir_all(odd.path("images")).unwrap();
    }

    // A few bytes that promise 268 million pixels.
    let mut lie = whole.clone();
    for at in [chunks[0] + 4, chunks[0] + 8] {
        lie[at..at + 4].copy_from_slice(&16384u32.to_be_bytes());
    }
    let mut crc = flate2::Crc::new();
    crc.update(&lie[chunks[0]..chunks[0] + 17]);
    lie[chunks[0] + 17..chunks[0] + 21].copy_from_slice(&crc.sum().to_be_bytes());
    odd.write("images/a.png", lie);
    odd.refuse_given("promise", &odd.path("images"), &[], "more pixels");
    std::fs::remove_dir_all(odd.path("images")).unwrap();

    // Palettes that are none; the checksums are right.
    let chunk = |name: &[u8], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(data);
        [&(data.len() as u32).to_be_bytes(), name, data, &crc.sum().to_be_bytes()].concat()
    };
    let mut rows = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
    rows.write_all(&[0; 20]).unwrap();
    let rows = rows.finish().unwrap();
    for (colours, refused) in [(3, false), (768, false), (4, true), (49, true)] {
        let header = chunk(b"IHDR", &[0, 0, 0, 4, 0, 0, 0, 4, 8, 3, 0, 0, 0]);
        let palette = chunk(b"PLTE", &vec![9; colours]);
        odd.write("images/a.png", [&b"\x89PNG\r\n\x1a\n"[..], &header, &palette, &chunk(b"IDAT", &rows), &chunk(b"IEND", b"")].concat());
        match refused {
            true => odd.refuse_given("palette", &odd.path("images"), &[], "palette"),
            false => odd.accept(&odd.path("images"), &[]),
        }
        std::fs::remove_dir_all(odd.path("images")).unwrap();
    }
}
