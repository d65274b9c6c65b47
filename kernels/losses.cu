// losses.cu                                              math and shapes: src/engine/ops/losses.rs
// mse_rows    a block a row: its weighted squares and weighted count. bytes 8*B*D; 256 threads
// mse_total   one block: the rows' sums added in a fixed tree in f64, the loss, and the two totals for backward
// mse_bwd     bytes 12*B*D; one thread an element
// any size, no alignment required. A missing target is NaN. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void mse_rows(float* partial, const float* y, const float* t, const float* w, int rows, int cols, int all) {
    int r = blockIdx.x;
    if (r >= rows) return;
    float sum = 0.0f, seen = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        size_t i = (size_t)r * cols + c;
        float target = t[i];
        if (target == target) {
            float d = y[i] - target;
            sum += d * d;
            seen += 1.0f;
        }
    }
    sum = block_sum(sum);
    seen = block_sum(seen);
    if (threadIdx.x == 0) {
        float weight = w ? w[r] : 1.0f;
        partial[2 * r] = weight * sum;
        partial[2 * r + 1] = weight * (all ? (float)cols : seen);
    }
}

extern "C" __global__ void mse_total(float* loss, float* totals, const float* partial, int rows) {
    double sum = 0.0, n = 0.0;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        sum += partial[2 * r];
        n += partial[2 * r + 1];
    }
    sum = block_sum(sum);
    n = block_sum(n);
    if (threadIdx.x == 0) {
        totals[0] = (float)sum;
        totals[1] = (float)n;
        loss[0] = n > 0.0 ? (float)(sum / n) : 0.0f;
    }
}

extern "C" __global__ void mse_bwd(float* dy, const float* y, const float* t, const float* w, const float* totals, const float* dl, int rows,
                                   int cols, int add) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * cols) return;
    float scale = totals[1] > 0.0f ? 2.0f * dl[0] / totals[1] : 0.0f;
    if (w) scale *= w[i / cols];
    float e = t[i] == t[i] ? scale * (y[i] - t[i]) : 0.0f;
    dy[i] = add ? dy[i] + e : e;
}
