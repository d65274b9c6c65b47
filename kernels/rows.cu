// rows.cu                                                math and shapes: src/engine/ops/rows.rs
// gather_rows   bytes 8*B*D + 4*B (+ 8*D when standardising); a block a row, threads walk features so that reads coalesce
// window_rows   bytes 8*B*D; one thread an element
// clock[1] is the minibatch's first row in the epoch's order. any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void gather_rows(float* y, const float* x, const unsigned* order, const unsigned* clock, const float* mean,
                                       const float* scale, int rows, int cols) {
    int r = blockIdx.x;
    if (r >= rows) return;
    const float* from = x + (size_t)order[clock[1] + r] * cols;
    float* to = y + (size_t)r * cols;
    if (scale)
        for (int c = threadIdx.x; c < cols; c += blockDim.x) to[c] = (from[c] - mean[c]) * scale[c];
    else
        for (int c = threadIdx.x; c < cols; c += blockDim.x) to[c] = from[c];
}

extern "C" __global__ void window_rows(float* y, const float* x, const unsigned* clock, int rows, int cols) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < (size_t)rows * cols) y[i] = x[(size_t)clock[1] * cols + i];
}
