// logistic.cu                                            math and shapes: src/engine/ops/logistic.rs
// logistic_fwd   bytes 4*n, one block, its sum in f64 in a fixed tree     logistic_bwd   bytes 8*n (+ 4*n where it adds)
// any n: logits of a minibatch, one a cell. measured: not yet on a GPU
#include "common.cuh"

__device__ __forceinline__ float sigmoid(float d) { return 1.0f / (1.0f + expf(-d)); }

extern "C" __global__ void logistic_fwd(float* loss, const float* d, int n, float label, int plain) {
    const double sum = block_sum_of<double>(n, [=](int i) {
        const float v = d[i];
        // Not fmaxf, which loses a NaN.
        return static_cast<double>(plain ? sigmoid(v) : (v < 0.0f ? 0.0f : v) - label * v + log1pf(expf(-fabsf(v))));
    });
    if (threadIdx.x == 0) loss[0] = n > 0 ? static_cast<float>(sum / n) : 0.0f;
}

extern "C" __global__ void logistic_bwd(float* dd, const float* d, const float* dl, int n, float label, int plain, int add) {
    const int i = global_index();
    if (i >= n) return;
    const float p = sigmoid(d[i]);
    const float g = dl[0] / n * (plain ? p * (1.0f - p) : p - label);
    dd[i] = add ? dd[i] + g : g;
}
