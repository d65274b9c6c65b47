// transport.cu                                           math and shapes: src/engine/ops/transport.rs
// gather_block       bytes 8*B*B + 8*B; a block a row, its row of the whole read at scattered columns
// inverse_row_sums   bytes 4*B*B; a block a row, fixed tree     inverses   bytes 8*B
// scale_rows         bytes 8*B*L; one thread an element; y may be x
// blend_fwd          bytes 12*B*L + 20*B     blend_bwd   bytes 8*B*L (+ 4*B*L where it adds)     one thread an element
// any size, no alignment required. clock[1] is the minibatch's first place in the epoch's order. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void gather_block(float* block, const float* whole, const unsigned* rows, const unsigned* columns,
                                        const unsigned* clock, int n, int size) {
    const int r = static_cast<int>(blockIdx.x);
    const float* from = whole + static_cast<size_t>(rows[clock[1] + r]) * n;
    for (int c = thread_number(); c < size; c += thread_count()) block[static_cast<size_t>(r) * size + c] = from[columns[clock[1] + c]];
}

extern "C" __global__ void inverse_row_sums(float* u, const float* block, int rows, int cols) {
    const int r = static_cast<int>(blockIdx.x);
    const float sum = block_sum_strided<float>(block + static_cast<size_t>(r) * cols, cols, 1);
    if (thread_number() == 0 && r < rows) u[r] = sum > 0.0f ? 1.0f / sum : 0.0f;
}

extern "C" __global__ void inverses(float* v, const float* sums, int n) {
    const int i = global_index();
    if (i < n) v[i] = sums[i] > 0.0f ? 1.0f / sums[i] : 0.0f;
}

extern "C" __global__ void scale_rows(float* y, const float* x, const float* w, int rows, int cols) {
    const int i = global_index();
    if (i < rows * cols) y[i] = w[i / cols] * x[i];
}

extern "C" __global__ void blend_fwd(float* y, float* w, float* part, const float* z, const float* t, const float* p, const float* u,
                                     float share, int rows, int cols) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const int r = i / cols;
    const float known = share * (p ? p[r] : 1.0f), carried = u[r] > 0.0f ? 1.0f - share : 0.0f;
    const float all = known + carried, over = all > 0.0f ? 1.0f / all : 0.0f;
    y[i] = known * over * z[i] + carried * over * t[i];
    if (i == r * cols) {
        w[r] = all;
        part[2 * r] = known * over;
        part[2 * r + 1] = carried * over;
    }
}

extern "C" __global__ void blend_bwd(float* d, const float* dy, const float* part, int which, int rows, int cols, int add) {
    const int i = global_index();
    if (i < rows * cols) d[i] = (add ? d[i] : 0.0f) + part[2 * (i / cols) + which] * dy[i];
}
