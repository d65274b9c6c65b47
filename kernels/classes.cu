// classes.cu                                             math and shapes: src/engine/ops/classes.rs
// class_rows   bytes 8*B*C + 12*B; one thread a row: classes are few, and a row's sum has one order
// class_bwd    bytes 8*B*C (+ 4*B*C where it adds); one thread an element     one_hot   bytes 4*B*R*C; one thread an element
// softmax_fwd  bytes 8*B*C; one thread a row    softmax_bwd  bytes 12*B*C (+ 4*B*C where it adds); one thread a row
// any size, no alignment required. A row without a class has NaN, or a number outside 0..C. measured: not yet on a GPU
#include "common.cuh"

__device__ __forceinline__ int class_of(const float* labels, int row, int classes, int fixed) {
    if (!labels) return fixed;
    const float y = labels[row];
    return y >= 0.0f && y < static_cast<float>(classes) ? static_cast<int>(y) : -1;
}

extern "C" __global__ void class_rows(float* partial, float* p, const float* u, const float* labels, const float* w, int rows, int classes,
                                      int fixed) {
    const int r = global_index();
    if (r >= rows) return;
    const float* logits = u + static_cast<size_t>(r) * classes;
    float* out = p + static_cast<size_t>(r) * classes;
    float top = logits[0];
    for (int c = 1; c < classes; ++c) top = fmaxf(top, logits[c]);
    float sum = 0.0f;
    for (int c = 0; c < classes; ++c) sum += out[c] = expf(logits[c] - top);
    for (int c = 0; c < classes; ++c) out[c] /= sum;
    const int y = class_of(labels, r, classes, fixed);
    const float weight = y < 0 ? 0.0f : (w ? w[y] : 1.0f);
    partial[2 * r] = y < 0 ? 0.0f : weight * (top + logf(sum) - logits[y]);
    partial[2 * r + 1] = weight;
}

extern "C" __global__ void class_bwd(float* du, const float* p, const float* labels, const float* partial, const float* totals,
                                     const float* dl, int rows, int classes, int fixed, int add) {
    const int i = global_index();
    if (i >= rows * classes) return;
    const int r = i / classes;
    const float scale = totals[1] > 0.0f ? dl[0] / totals[1] : 0.0f;
    const float hit = class_of(labels, r, classes, fixed) == i % classes ? 1.0f : 0.0f;
    const float g = scale * partial[2 * r + 1] * (p[i] - hit);
    du[i] = add ? du[i] + g : g;
}

extern "C" __global__ void one_hot(float* h, const float* labels, int rows, int classes, int cols) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const float y = labels[i / cols];
    if (classes == 1)
        h[i] = y == y ? y : 0.0f;
    else
        h[i] = class_of(labels, i / cols, classes, -1) == i % cols % classes ? 1.0f : 0.0f;
}

extern "C" __global__ void softmax_fwd(float* p, const float* u, int rows, int classes) {
    const int r = global_index();
    if (r >= rows) return;
    const float* logits = u + static_cast<size_t>(r) * classes;
    float* out = p + static_cast<size_t>(r) * classes;
    float top = logits[0];
    for (int c = 1; c < classes; ++c) top = larger(top, logits[c]);
    float sum = 0.0f;
    for (int c = 0; c < classes; ++c) sum += out[c] = expf(logits[c] - top);
    for (int c = 0; c < classes; ++c) out[c] /= sum;
}

extern "C" __global__ void softmax_bwd(float* du, const float* p, const float* dp, int rows, int classes, int add) {
    const int r = global_index();
    if (r >= rows) return;
    const size_t first = static_cast<size_t>(r) * classes;
    float dot = 0.0f;
    for (int c = 0; c < classes; ++c) dot += p[first + c] * dp[first + c];
    for (int c = 0; c < classes; ++c) {
        const float g = p[first + c] * (dp[first + c] - dot);
        du[first + c] = add ? du[first + c] + g : g;
    }
}
