// shape.cu                                               math and shapes: src/engine/ops/shape.rs
// add_to       bytes 12*n       beside_fwd   bytes 8*B*(p+q)       take_columns   bytes 8*B*D (+ 4*B*D where it adds)
// transpose    bytes 8*n (+ 4*n where it adds); of narrow matrices, whose columns a cache line holds several of
// scale_to     bytes 8*n (+ 4*n where it adds)
// one thread an element, any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void add_to(float* y, const float* x, int n) {
    const int i = global_index();
    if (i < n) y[i] += x[i];
}

extern "C" __global__ void beside_fwd(float* y, const float* a, const float* b, int rows, int p, int q) {
    const int i = global_index();
    if (i >= rows * (p + q)) return;
    const int r = i / (p + q), c = i % (p + q);
    y[i] = c < p ? a[r * p + c] : b[r * q + c - p];
}

extern "C" __global__ void take_columns(float* y, const float* x, int rows, int cols, int first, int all, int add) {
    const int i = global_index();
    if (i < rows * cols) y[i] = (add ? y[i] : 0.0f) + x[static_cast<size_t>(i / cols) * all + first + i % cols];
}

extern "C" __global__ void transpose(float* y, const float* x, int rows, int cols, int add) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const int r = i % rows, c = i / rows;
    y[i] = (add ? y[i] : 0.0f) + x[static_cast<size_t>(r) * cols + c];
}

// columns_bwd  bytes 12*B*cols: dx has been set to zero, or holds a gradient already
extern "C" __global__ void columns_bwd(float* dx, const float* dy, int rows, int cols, int first, int all) {
    const int i = global_index();
    if (i < rows * cols) dx[static_cast<size_t>(i / cols) * all + first + i % cols] += dy[i];
}

extern "C" __global__ void scale_to(float* y, const float* x, int n, float c, int add) {
    const int i = global_index();
    if (i < n) y[i] = (add ? y[i] : 0.0f) + c * x[i];
}
