// norms.cu                                               math and shapes: src/engine/ops/norms.rs
// norm_rows   bytes 4*B*d: a block a row, its length (or the square) in f64 in a fixed tree, and the width; 128 threads
// norm_bwd    bytes 8*B*d; one thread an element
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void norm_rows(float* partial, const float* z, int rows, int cols, int squared) {
    const int r = blockIdx.x;
    if (r >= rows) return;
    double sum = 0.0;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) sum += (double)z[(size_t)r * cols + c] * z[(size_t)r * cols + c];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partial[2 * r] = (float)(squared ? sum : sqrt(sum));
        partial[2 * r + 1] = (float)cols;
    }
}

extern "C" __global__ void norm_bwd(float* dz, const float* z, const float* partial, const float* dl, int rows, int cols, int squared,
                                    int add) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const float over = dl[0] / (rows * cols), length = partial[2 * (i / cols)];
    const float scale = squared ? 2.0f * over : (length == 0.0f ? 0.0f : over / length);
    dz[i] = (add ? dz[i] : 0.0f) + scale * z[i];
}
