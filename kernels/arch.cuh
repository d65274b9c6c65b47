// arch.cuh: what the kernels need of the machine, one function an instruction. No algorithm.
//
// A kernel source includes this file (through common.cuh or by itself) and no header of CUDA or C++: nvcc, NVRTC and, for the
// emulated device, a host C++ compiler all take it. A warp function is called by all lanes of a warp that have not returned.
// Products and sums are not contracted (--fmad=false, -ffp-contract=off): what may be one fma says `mad`, what must be says `fma_rn`.
// expf, logf, log1pf, expm1f, tanhf, erff ... are called by their C names; their last bits differ from device to device.
#pragma once

#ifdef COUPLET_EMULATED
#include "runtime.h"
#define DYNAMIC_SHARED(TYPE, NAME) TYPE* const NAME = static_cast<TYPE*>(couplet::dynamic_shared())
#else
// Declares NAME, a pointer to the dynamic shared memory that the launch asked for, aligned to 16 bytes.
#define DYNAMIC_SHARED(TYPE, NAME)                                       \
    extern __shared__ __align__(16) unsigned char couplet_dynamic_shared[]; \
    TYPE* const NAME = reinterpret_cast<TYPE*>(couplet_dynamic_shared)
#endif

// Whether asynchronous copies and tensor cores on tf32 and bf16 exist. `Launch::has_tensor_cores` asks the same on the host.
#if defined(COUPLET_EMULATED) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define COUPLET_SM80 1
#else
#define COUPLET_SM80 0
#endif

// ---- who am I -------------------------------------------------------------------------------------

// Of this thread in its block, x fastest.
__device__ __forceinline__ int thread_number() {
    return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
// Threads of a block.
__device__ __forceinline__ int thread_count() { return static_cast<int>(blockDim.x * blockDim.y * blockDim.z); }
// Of this thread in its warp.
__device__ __forceinline__ int lane_number() { return thread_number() & 31; }
// Of this warp in its block.
__device__ __forceinline__ int warp_number() { return thread_number() >> 5; }

// ---- within a warp --------------------------------------------------------------------------------

#ifdef COUPLET_EMULATED
// The value that lane (this lane ^ mask) brought.
template <class T>
__device__ __forceinline__ T shfl_xor(T value, int mask) {
    return couplet::shuffle("shfl_xor", value, lane_number() ^ mask);
}
// The value that lane (this lane + delta) brought; one's own where there is no such lane.
template <class T>
__device__ __forceinline__ T shfl_down(T value, int delta) {
    return couplet::shuffle("shfl_down", value, lane_number() + delta < 32 ? lane_number() + delta : lane_number());
}
// The value that lane `from` brought.
template <class T>
__device__ __forceinline__ T shfl_idx(T value, int from) {
    return couplet::shuffle("shfl_idx", value, from);
}
// Bit l: whether lane l said yes.
__device__ __forceinline__ unsigned warp_ballot(bool yes) {
    const unsigned mine = yes;
    const couplet::Shown shown = couplet::warp_exchange("warp_ballot", &mine, sizeof mine);
    unsigned bits = 0;
    for (int l = 0; l < 32; l++) bits |= (shown.present >> l & 1u) && couplet::shown_by<unsigned>(shown, l) ? 1u << l : 0u;
    return bits;
}
// Lanes wait for one another; what they wrote to memory before is seen by all.
__device__ __forceinline__ void sync_warp() { couplet::warp_exchange("sync_warp", nullptr, 0); }
#else
template <class T>
__device__ __forceinline__ T shfl_xor(T value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class T>
__device__ __forceinline__ T shfl_down(T value, int delta) {
    return __shfl_down_sync(0xffffffffu, value, delta);
}
template <class T>
__device__ __forceinline__ T shfl_idx(T value, int from) {
    return __shfl_sync(0xffffffffu, value, from);
}
__device__ __forceinline__ unsigned warp_ballot(bool yes) { return __ballot_sync(0xffffffffu, yes); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }
#endif

// ---- arithmetic with a stated rounding --------------------------------------------------------------

#ifdef COUPLET_EMULATED
__device__ __forceinline__ float fma_rn(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fma_rn(double a, double b, double c) { return fma(a, b, c); }
// a·b + c, rounded once or twice, whichever is faster.
__device__ __forceinline__ float mad(float a, float b, float c) { return a * b + c; }
__device__ __forceinline__ float sqrt_rn(float x) { return sqrtf(x); }
__device__ __forceinline__ float div_rn(float a, float b) { return a / b; }
__device__ __forceinline__ unsigned mul_hi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
__device__ __forceinline__ unsigned bits_of(float x) {
    unsigned u;
    memcpy(&u, &x, sizeof u);
    return u;
}
__device__ __forceinline__ float float_of(unsigned u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
#else
__device__ __forceinline__ float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double fma_rn(double a, double b, double c) { return __fma_rn(a, b, c); }
__device__ __forceinline__ float mad(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float sqrt_rn(float x) { return __fsqrt_rn(x); }
__device__ __forceinline__ float div_rn(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ unsigned mul_hi(unsigned a, unsigned b) { return __umulhi(a, b); }
__device__ __forceinline__ unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float float_of(unsigned u) { return __uint_as_float(u); }
#endif
// 1/√x with two correctly rounded steps: the same bits on every device.
__device__ __forceinline__ float rsqrt_rn(float x) { return div_rn(1.0f, sqrt_rn(x)); }

// ---- conversions ------------------------------------------------------------------------------------

// To tf32 (10 bits of fraction), ties away from zero; the bits of a float.
__device__ __forceinline__ unsigned to_tf32(float x) {
#ifdef COUPLET_EMULATED
    const unsigned u = bits_of(x);
    return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & ~0x1fffu;
#elif COUPLET_SM80
    unsigned u;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(x));
    return u;
#else
    return bits_of(x);
#endif
}

// Two floats to bf16 (7 bits of fraction), ties to even; `low` in the low half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifdef COUPLET_EMULATED
    const auto round = [](float x) {
        const unsigned u = bits_of(x);
        if (x != x) return 0x7fffu;
        return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    };
    return round(low) | round(high) << 16;
#elif COUPLET_SM80
    unsigned u;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
    return u;
#else
    return 0u;
#endif
}

// ---- tensor cores: c += a·b, f32 accumulation. g = lane / 4, t = lane % 4 --------------------------------

// 16x8 += 16x8 · 8x8 in tf32. a: (g,t) (g+8,t) (g,t+4) (g+8,t+4); b: (t,g) (t+4,g); c: (g,2t) (g,2t+1) (g+8,2t) (g+8,2t+1).
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef COUPLET_EMULATED
    const unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const couplet::Shown all = couplet::warp_exchange("mma_m16n8k8_tf32", mine, sizeof mine);
    const auto word = [&](int lane, int w) { return all.present >> lane & 1u ? all.slots[lane].words[w] : 0xffffffffu; };
    const int g = lane_number() >> 2, t = lane_number() & 3;
    for (int i = 0; i < 4; i++) {
        const int row = i / 2, col = 2 * t + i % 2;
        double sum = static_cast<double>(c[i]);
        for (int k = 0; k < 8; k++) {
            const float x = float_of(word(4 * g + k % 4, row + 2 * (k / 4)) & ~0x1fffu);
            const float y = float_of(word(4 * col + k % 4, 4 + k / 4) & ~0x1fffu);
            sum += static_cast<double>(x) * static_cast<double>(y);
        }
        c[i] = static_cast<float>(sum);
    }
#elif COUPLET_SM80
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// 16x8 += 16x16 · 16x8 in bf16, two of the summed axis in a word: a: rows g, g+8, words t (twice: k and k + 8); b: words t, t+4 of column g.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef COUPLET_EMULATED
    const unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const couplet::Shown all = couplet::warp_exchange("mma_m16n8k16_bf16", mine, sizeof mine);
    const auto half = [&](int lane, int w, int k) {
        const unsigned word = all.present >> lane & 1u ? all.slots[lane].words[w] : 0xffffffffu;
        return static_cast<double>(float_of(k % 2 ? word & 0xffff0000u : word << 16));
    };
    const int g = lane_number() >> 2, t = lane_number() & 3;
    for (int i = 0; i < 4; i++) {
        const int row = i / 2, col = 2 * t + i % 2;
        double sum = static_cast<double>(c[i]);
        for (int k = 0; k < 16; k++) {
            sum += half(4 * g + k % 8 / 2, row + 2 * (k / 8), k) * half(4 * col + k % 8 / 2, 4 + k / 8, k);
        }
        c[i] = static_cast<float>(sum);
    }
#elif COUPLET_SM80
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// ---- asynchronous copies from global to shared memory ------------------------------------------------

// BYTES (4 or 16, both addresses aligned to as much) to `shared`, seen there after copy_async_wait and a barrier. If not
// `inside`, zeros instead, and `global` is not read.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool inside) {
    static_assert(BYTES == 4 || BYTES == 16, "copies of one float or four");
#ifdef COUPLET_EMULATED
    couplet::copy_later(shared, global, inside ? BYTES : 0, inside ? 0 : BYTES);
#elif COUPLET_SM80
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    const int size = inside ? BYTES : 0;
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
    }
#else
    for (int i = 0; i < BYTES / 4; i++) static_cast<float*>(shared)[i] = inside ? static_cast<const float*>(global)[i] : 0.0f;
#endif
}

// Ends a group of copies.
__device__ __forceinline__ void copy_async_commit() {
#ifdef COUPLET_EMULATED
    couplet::copy_commit();
#elif COUPLET_SM80
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the last GROUPS groups of this thread are under way; the other threads' copies need a barrier as well.
template <int GROUPS>
__device__ __forceinline__ void copy_async_wait() {
#ifdef COUPLET_EMULATED
    couplet::copy_wait(GROUPS);
#elif COUPLET_SM80
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}
