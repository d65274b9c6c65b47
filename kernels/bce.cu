// bce.cu                                                 math and shapes: src/engine/ops/bce.rs
// bce_rows    bytes 12*B*F: a block a row, its logits and targets read once, the gradient in place of the logits; 256 threads
// bce_scale   bytes 8*N, none where the upstream gradient is 1; one thread an element
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void bce_rows(float* partial, float* x, const float* y, int rows, int cols, float weight, float over, int gradient) {
    const int r = blockIdx.x;
    if (r >= rows) return;
    double sum = 0.0;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        const size_t i = (size_t)r * cols + c;
        const float logit = x[i], target = y[i];
        const float e = expf(-fabsf(logit));
        const float inverse = 1.0f / (1.0f + e);
        const float count = 1.0f + (weight - 1.0f) * target;
        // The last term is 0, but not for a logit that is no finite number.
        sum += (1.0f - target) * logit + count * (fmaxf(-logit, 0.0f) + log1pf(e)) + (logit - logit);
        if (gradient) x[i] = over * ((logit < 0.0f ? e * inverse : inverse) * count - weight * target);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partial[2 * r] = (float)sum;
        partial[2 * r + 1] = (float)cols;
    }
}

extern "C" __global__ void bce_scale(float* dx, const float* dl, int n) {
    const int i = global_index();
    if (i < n && dl[0] != 1.0f) dx[i] *= dl[0];
}
