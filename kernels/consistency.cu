// consistency.cu                                         math and shapes: src/engine/ops/consistency.rs
// mix_fwd            bytes 12*n; one thread an element
// consistency_rows   bytes 20*B*C + 8*B; one thread a row: classes are few, and a row's sum has one order
// consistency_bwd    bytes 12*B*C (+ 4*B*C where it adds); one thread a row
// any size, no alignment required. clock[lambda] is the share of the first end. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void mix_fwd(float* y, const float* a, const float* b, const float* clock, int n, int lambda) {
    const int i = global_index();
    if (i >= n) return;
    const float share = clock[lambda];
    y[i] = share * a[i] + (1.0f - share) * b[i];
}

__device__ __forceinline__ float row_top(const float* u, int classes) {
    float top = u[0];
    for (int c = 1; c < classes; ++c) top = larger(top, u[c]);
    return top;
}

// Σ exp(u - top): what each exponential is divided by.
__device__ __forceinline__ float row_sum(const float* u, int classes, float top) {
    float sum = 0.0f;
    for (int c = 0; c < classes; ++c) sum += expf(u[c] - top);
    return sum;
}

extern "C" __global__ void consistency_rows(float* partial, float* p, float* off, const float* u, const float* v, const float* w,
                                            const float* clock, int rows, int classes, int lambda) {
    const int r = global_index();
    if (r >= rows) return;
    const size_t first = static_cast<size_t>(r) * classes;
    const float share = clock[lambda];
    const float top_u = row_top(u + first, classes), sum_u = row_sum(u + first, classes, top_u);
    const float top_v = row_top(v + first, classes), sum_v = row_sum(v + first, classes, top_v);
    const float top_w = row_top(w + first, classes), sum_w = row_sum(w + first, classes, top_w);
    float sum = 0.0f;
    for (int c = 0; c < classes; ++c) {
        const size_t i = first + c;
        const float said = expf(u[i] - top_u) / sum_u;
        const float target = share * (expf(v[i] - top_v) / sum_v) + (1.0f - share) * (expf(w[i] - top_w) / sum_w);
        p[i] = said;
        off[i] = said - target;
        sum += off[i] * off[i];
    }
    partial[2 * r] = sum;
    partial[2 * r + 1] = 1.0f;
}

extern "C" __global__ void consistency_bwd(float* du, const float* p, const float* off, const float* dl, int rows, int classes, int add) {
    const int r = global_index();
    if (r >= rows) return;
    const size_t first = static_cast<size_t>(r) * classes;
    const float scale = 2.0f * dl[0] / rows;
    float dot = 0.0f;
    for (int c = 0; c < classes; ++c) dot += p[first + c] * off[first + c];
    for (int c = 0; c < classes; ++c) {
        const size_t i = first + c;
        const float g = scale * p[i] * (off[i] - dot);
        du[i] = add ? du[i] + g : g;
    }
}
