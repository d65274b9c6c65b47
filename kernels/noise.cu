// noise.cu                                               math and shapes: src/engine/ops/noise.rs
// corrupt_fwd   bytes 8*n (+ 4*cols)      one or two Philox calls for four elements
// dropout_fwd   bytes 8*n                 one Philox call for four elements
// dropout_bwd   bytes 8*n (+ 4*n if it adds, + 4*n if entries may be missing)
//               all: a thread for four elements that follow one another, blocks of 256; any n below 2^31, no alignment
// The step number is word 0 of the clock: a replayed step draws anew.
#include "common.cuh"
#include "random.cuh"

// Elements of a thread.
static const int QUAD = 4;

__device__ __forceinline__ bool is_missing(float v) { return v != v; }

// y = dropout(x + sd·z); missing entries give 0. sd is null for no noise, p is 0 for no dropout.
extern "C" __global__ void corrupt_fwd(float* __restrict__ y, const float* __restrict__ x, const float* __restrict__ sd,
                                       const unsigned* __restrict__ clock, int n, int cols, float p, float scale, unsigned noise_stream,
                                       unsigned mask_stream, unsigned seed_low, unsigned seed_high) {
    const unsigned quad = static_cast<unsigned>(global_index()), first = QUAD * quad, end = static_cast<unsigned>(n);
    if (first >= end) return;
    const unsigned step = clock[0];
    float z[QUAD] = {}, u[QUAD] = {};
    if (sd) normals({seed_low, seed_high, noise_stream, step}, quad, z);
    if (p > 0.0f) uniforms({seed_low, seed_high, mask_stream, step}, quad, u);
#pragma unroll
    for (int i = 0; i < QUAD; i++) {
        const unsigned e = first + i;
        if (e >= end) return;
        float v = x[e];
        if (is_missing(v)) {
            v = 0.0f;
        } else if (sd) {
            v = v + sd[e % static_cast<unsigned>(cols)] * z[i];
        }
        if (p > 0.0f) v = u[i] >= p ? v * scale : 0.0f;
        y[e] = v;
    }
}

// The mask of (stream, step) times `scale`, times x: what dropout does to values and to gradients.
template <class Put>
__device__ __forceinline__ void drop(const float* __restrict__ x, const unsigned* __restrict__ clock, int n, float p, float scale,
                                     unsigned stream, unsigned seed_low, unsigned seed_high, Put put) {
    const unsigned quad = static_cast<unsigned>(global_index()), first = QUAD * quad, end = static_cast<unsigned>(n);
    if (first >= end) return;
    float u[QUAD] = {};
    if (p > 0.0f) uniforms({seed_low, seed_high, stream, clock[0]}, quad, u);
#pragma unroll
    for (int i = 0; i < QUAD; i++) {
        const unsigned e = first + i;
        if (e < end) put(e, u[i] >= p ? x[e] * scale : 0.0f);
    }
}

// y = mask·scale·x
extern "C" __global__ void dropout_fwd(float* __restrict__ y, const float* __restrict__ x, const unsigned* __restrict__ clock, int n, float p,
                                       float scale, unsigned stream, unsigned seed_low, unsigned seed_high) {
    drop(x, clock, n, p, scale, stream, seed_low, seed_high, [=](unsigned e, float v) { y[e] = v; });
}

// dx (+)= mask·scale·dy; of corrupt_fwd also, whose input x may be missing in places (null: it is not): nothing goes there.
extern "C" __global__ void dropout_bwd(float* __restrict__ dx, const float* __restrict__ dy, const float* __restrict__ x,
                                       const unsigned* __restrict__ clock, int n, float p, float scale, unsigned stream, unsigned seed_low,
                                       unsigned seed_high, int add) {
    drop(dy, clock, n, p, scale, stream, seed_low, seed_high, [=](unsigned e, float v) {
        if (x && is_missing(x[e])) v = 0.0f;
        dx[e] = add ? dx[e] + v : v;
    });
}
