//! Philox4x32-10 (Salmon et al. 2011), counter-based: the same number on every device, whatever the order of drawing.

/// Four random words for a counter and a key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53u64 * counter[0] as u64, 0xCD9E_8D57u64 * counter[2] as u64);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Uniform on [0, 1) in steps of 2⁻²⁴: element `element` of (seed, stream, step).
pub fn uniform(seed: u64, stream: u32, step: u32, element: u32) -> f32 {
    let words = philox([element / 4, 0, step, stream], [seed as u32, (seed >> 32) as u32]);
    (words[element as usize % 4] >> 8) as f32 * (1.0 / 16_777_216.0)
}
