//! AVX-512 and AVX2: how many columns and rows a tile has there, and its vectors.

use super::*;
use std::arch::x86_64::*;

pub struct Avx512;
pub struct Avx2;

impl Machine for Avx512 {
    const WIDE: usize = 32;
    const NARROW: usize = 8;
    const ROWS: usize = 8;
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    unsafe fn tile(t: Tile) {
        unsafe {
            match t.cols.div_ceil(8) {
                1 => tile_of_rows::<__m256, 1>(t),
                2 => tile_of_rows::<__m512, 1>(t),
                3 => tile_of_rows::<__m256, 3>(t),
                _ => tile_of_rows::<__m512, 2>(t),
            }
        }
    }
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    unsafe fn copy(to: *mut f32, width: usize, from: *const f32, step: usize, k: usize, cols: usize) {
        unsafe { if width == 32 { copy_whole(to, from, step, k, cols) } else { copy_by::<__m256>(to, width, from, step, k, cols) } }
    }
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    unsafe fn transpose(to: *mut f32, width: usize, from: *const f32, col: usize, k: usize, cols: usize) {
        unsafe { transpose_by_eight(to, width, from, col, k, cols) }
    }
}

/// `Machine::copy` of a whole panel. A row of B lies a page or more behind the one before, and what is read of it is two cache lines: no
/// processor sees that coming, so the next panel's are asked for here.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn copy_whole(to: *mut f32, from: *const f32, step: usize, k: usize, cols: usize) {
    for p in 0..k {
        let from = from.wrapping_add(p * step);
        // SAFETY: a hint touches nothing, wherever it points.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(32).cast());
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(48).cast());
            copy_by::<__m512>(to.add(p * 32), 32, from, step, 1, cols);
        }
    }
}

impl Machine for Avx2 {
    const WIDE: usize = 16;
    const NARROW: usize = 8;
    const ROWS: usize = 6; // 12 sums, 2 columns, 1 splat of 16 registers
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile(t: Tile) {
        unsafe { if t.cols > 8 { tile_of_rows::<__m256, 2>(t) } else { tile_of_rows::<__m256, 1>(t) } }
    }
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn copy(to: *mut f32, width: usize, from: *const f32, step: usize, k: usize, cols: usize) {
        unsafe { copy_by::<__m256>(to, width, from, step, k, cols) }
    }
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn transpose(to: *mut f32, width: usize, from: *const f32, col: usize, k: usize, cols: usize) {
        unsafe { transpose_by_eight(to, width, from, col, k, cols) }
    }
}

/// `Machine::transpose` by squares of eight.
#[inline(always)]
unsafe fn transpose_by_eight(to: *mut f32, width: usize, from: *const f32, col: usize, k: usize, cols: usize) {
    let (k8, cols8) = (k / 8 * 8, cols / 8 * 8);
    unsafe {
        clear(to, width, k, cols);
        for j in (0..cols8).step_by(8) {
            for p in (0..k8).step_by(8) {
                square(to.add(p * width + j), width, from.add(j * col + p), col);
            }
        }
        transpose_part(to, width, from, col, k8..k, 0..cols8);
        transpose_part(to, width, from, col, 0..k, cols8..cols);
    }
}

#[inline(always)]
unsafe fn square(to: *mut f32, to_row: usize, from: *const f32, from_row: usize) {
    unsafe {
        let r: [__m256; 8] = std::array::from_fn(|i| _mm256_loadu_ps(from.add(i * from_row)));
        // Pairs of rows, then fours within each half, then the halves.
        let pairs: [__m256; 8] = std::array::from_fn(|i| {
            let (x, y) = (r[i / 2 * 2], r[i / 2 * 2 + 1]);
            if i % 2 == 0 { _mm256_unpacklo_ps(x, y) } else { _mm256_unpackhi_ps(x, y) }
        });
        let fours: [__m256; 8] = std::array::from_fn(|i| {
            let (x, y) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + i % 4 / 2 + 2]);
            if i % 2 == 0 { _mm256_shuffle_ps::<0x44>(x, y) } else { _mm256_shuffle_ps::<0xee>(x, y) }
        });
        for i in 0..4 {
            _mm256_storeu_ps(to.add(i * to_row), _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]));
            _mm256_storeu_ps(to.add((i + 4) * to_row), _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]));
        }
    }
}

macro_rules! vector {
    ($t:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $load_part:expr, $store_part:expr) => {
        impl Vector for $t {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self {
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32) {
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn load_part(p: *const f32, n: usize) -> Self {
                unsafe { $load_part(p, n) }
            }
            #[inline(always)]
            unsafe fn store_part(self, p: *mut f32, n: usize) {
                unsafe { $store_part(p, n, self) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                unsafe { $fma(self, b, c) }
            }
        }
    };
}
/// All bits set in the first n of eight lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}
vector!(
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    |p, n| _mm256_maskload_ps(p, first(n)),
    |p, n, v| _mm256_maskstore_ps(p, first(n), v)
);
vector!(
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    |p, n| _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p),
    |p, n, v| _mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as u16, v)
);
