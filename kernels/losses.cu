// losses.cu                                              math and shapes: src/engine/ops/losses.rs
// error_rows    a block a row: its weighted squares (or absolute values) and weighted count. bytes 8*B*D; 256 threads
// error_total   one block: the rows' sums added in a fixed tree in f64, the loss, and the two totals for backward
// error_bwd     bytes 12*B*D; one thread an element
// square_from_fwd   bytes 4*N, one block, its sum in f64 in a fixed tree     square_from_bwd   bytes 8*N
// any size, no alignment required. A missing target is NaN. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void error_rows(float* partial, const float* y, const float* t, const float* w, int rows, int cols, int all,
                                      int absolute) {
    int r = blockIdx.x;
    if (r >= rows) return;
    float sum = 0.0f, seen = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        size_t i = (size_t)r * cols + c;
        float target = t[i];
        if (target == target) {
            float d = y[i] - target;
            sum += absolute ? fabsf(d) : d * d;
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

extern "C" __global__ void error_total(float* loss, float* totals, const float* partial, int rows) {
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

extern "C" __global__ void error_bwd(float* dy, const float* y, const float* t, const float* w, const float* totals, const float* dl, int rows,
                                     int cols, int absolute, int add) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * cols) return;
    float scale = totals[1] > 0.0f ? (absolute ? 1.0f : 2.0f) * dl[0] / totals[1] : 0.0f;
    if (w) scale *= w[i / cols];
    float d = t[i] == t[i] ? y[i] - t[i] : 0.0f;
    if (absolute) d = d > 0.0f ? 1.0f : (d < 0.0f ? -1.0f : 0.0f);
    float e = scale * d;
    dy[i] = add ? dy[i] + e : e;
}

extern "C" __global__ void square_from_fwd(float* loss, const float* x, int n, float c) {
    const double sum = block_sum_of<double>(n, [=](int i) { return static_cast<double>(x[i] - c) * (x[i] - c); });
    if (threadIdx.x == 0) loss[0] = n > 0 ? static_cast<float>(sum / n) : 0.0f;
}

extern "C" __global__ void square_from_bwd(float* dx, const float* x, const float* dl, int n, float c, int add) {
    const int i = global_index();
    if (i < n) dx[i] = (add ? dx[i] : 0.0f) + 2.0f * dl[0] / n * (x[i] - c);
}
