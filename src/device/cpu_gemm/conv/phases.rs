//! A channel of a large image cut into the phases of the stride, padding included, and put together again.

use super::Geometry;

/// A channel of L into its phases, with zeros for the padding.
#[inline(always)]
pub(super) unsafe fn split(g: &Geometry, to: *mut f32, from: *const f32) {
    let ([h, w], [_, height, width], s, p) = (g.phase(), g.large, g.stride, g.padding);
    let mut to = to;
    for py in 0..g.phases() {
        for px in 0..g.phases() {
            let [lo, hi] = inside(px, w, width, s, p);
            for i in 0..h {
                let y = (s * i + py).wrapping_sub(p);
                unsafe {
                    if y >= height || lo >= hi {
                        std::ptr::write_bytes(to, 0, w);
                    } else {
                        let row = from.add(y * width + s * lo + px - p);
                        (0..lo).for_each(|j| *to.add(j) = 0.0);
                        match s {
                            1 => strided::<1>(to.add(lo), row, hi - lo),
                            2 => strided::<2>(to.add(lo), row, hi - lo),
                            _ => (0..hi - lo).for_each(|j| *to.add(lo + j) = *row.add(j * s)),
                        }
                        (hi..w).for_each(|j| *to.add(j) = 0.0);
                    }
                    to = to.add(w);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn strided<const S: usize>(to: *mut f32, from: *const f32, count: usize) {
    for j in 0..count {
        unsafe { *to.add(j) = *from.add(j * S) };
    }
}

/// Which columns j < `w` of phase `px` lie inside an image `width` wide: s·j + px - p in 0..width. An empty range has lo ≥ hi.
#[inline(always)]
fn inside(px: usize, w: usize, width: usize, s: usize, p: usize) -> [usize; 2] {
    let lo = p.saturating_sub(px).div_ceil(s);
    let hi = (width + p).saturating_sub(px).div_ceil(s).min(w);
    [lo, hi]
}

/// A channel of L from its phases; what no tap reaches is zero.
#[inline(always)]
pub(super) unsafe fn join(g: &Geometry, to: &mut [f32], plane: *const f32, add: bool) {
    let ([h, w], [_, height, width], s, p) = (g.phase(), g.large, g.stride, g.padding);
    if !add {
        to.fill(0.0);
    }
    if s == 2 && g.phases() == 2 && !add {
        // Both phases of a row at once: neighbours are written together.
        for y in 0..height {
            let (py, i) = ((y + p) % 2, (y + p) / 2);
            if i < h {
                let even = unsafe { plane.add((2 * py * h + i) * w) };
                unsafe { zip_two(&mut to[y * width..(y + 1) * width], even, even.add(h * w), w, p) };
            }
        }
        return;
    }
    for py in 0..g.phases() {
        for px in 0..g.phases() {
            let [lo, hi] = inside(px, w, width, s, p);
            for i in 0..h {
                let y = (s * i + py).wrapping_sub(p);
                if y < height && lo < hi {
                    let from = unsafe { plane.add(((py * g.phases() + px) * h + i) * w) };
                    let row = &mut to[y * width..(y + 1) * width];
                    for j in lo..hi {
                        let (y, v) = (&mut row[s * j + px - p], unsafe { *from.add(j) });
                        *y = if add { *y + v } else { v };
                    }
                }
            }
        }
    }
}

/// to[x] = the value of phase (x + p) mod 2 at (x + p)/2, for two phases of w values; zero behind them.
#[inline(always)]
unsafe fn zip_two(to: &mut [f32], even: *const f32, odd: *const f32, w: usize, p: usize) {
    let n = to.len().min(2 * w - p.min(2 * w));
    // From the first x with x + p even.
    let first = p % 2;
    if first == 1 && n > 0 {
        to[0] = unsafe { *odd.add(p / 2) };
    }
    let pairs = n.saturating_sub(first) / 2;
    let at = (first + p) / 2;
    for (j, pair) in to[first.min(n)..].chunks_exact_mut(2).take(pairs).enumerate() {
        unsafe { (pair[0], pair[1]) = (*even.add(at + j), *odd.add(at + j)) };
    }
    if first + 2 * pairs < n {
        to[n - 1] = unsafe { *even.add(at + pairs) };
    }
}
