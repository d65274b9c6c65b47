// gromov.cu                                              math and shapes: src/engine/ops/gromov.rs
// gromov_row_products   bytes 4*m*n for A = B, 8*m*n else, 3 operations an element. One block a row, summed in f64
// gromov_cost           bytes 8*m*n, in place, 4 operations an element. One thread an element
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

// `weights` may be none: 1.
extern "C" __global__ void __launch_bounds__(256)
    gromov_row_products(float* y, const float* a, const float* b, const float* weights, int cols) {
    const long long first = static_cast<long long>(blockIdx.x) * cols;
    const double sum = block_sum_of<double>(cols, [=](int j) {
        const float product = a[first + j] * b[first + j];
        return static_cast<double>(weights ? product * weights[j] : product);
    });
    if (threadIdx.x == 0) y[blockIdx.x] = static_cast<float>(sum);
}

extern "C" __global__ void gromov_cost(float* c, const float* u, const float* v, int rows, int cols, float scale, float shift) {
    const int count = rows * cols;
    for (int e = global_index(); e < count; e += global_count()) {
        const float terms = u[e / cols] + (scale * scale) * v[e % cols];
        c[e] = shift + 2.0f * (terms - (2.0f * scale) * c[e]);
    }
}
