// contrast.cu                                            math and shapes: src/engine/ops/contrast.rs
// unit_rows_fwd   bytes 8*B*D, a block a row          unit_rows_bwd   bytes 12*B*D (+ 4*B*D where it adds), a block a row
// contrast_rows   bytes 16*n*n, a block a row: products become shares in place; the row stays in the second-level cache between its passes
// contrast_bwd    bytes 12*n*D (+ 4*n*D where it adds), one thread an element
// any size, no alignment required. Row i's cell is row i ± n/2's. measured: not yet on a GPU
#include "common.cuh"

__device__ __forceinline__ int other_view(int i, int n) { return i < n / 2 ? i + n / 2 : i - n / 2; }

extern "C" __global__ void unit_rows_fwd(float* y, float* inverse, const float* x, int rows, int cols) {
    const int r = blockIdx.x;
    if (r >= rows) return;
    const float* from = x + static_cast<size_t>(r) * cols;
    const double square = block_sum_of<double>(cols, [=](int c) { return static_cast<double>(from[c]) * from[c]; });
    const float length = static_cast<float>(sqrt(square)), floor = 1e-12f;
    if (threadIdx.x == 0) inverse[r] = length < floor ? 0.0f : 1.0f / length;
    for (int c = thread_number(); c < cols; c += thread_count()) y[static_cast<size_t>(r) * cols + c] = from[c] / (length < floor ? floor : length);
}

extern "C" __global__ void unit_rows_bwd(float* dx, const float* y, const float* inverse, const float* dy, int rows, int cols, int add) {
    const int r = blockIdx.x;
    if (r >= rows) return;
    const size_t first = static_cast<size_t>(r) * cols;
    const float along =
        static_cast<float>(block_sum_of<double>(cols, [=](int c) { return static_cast<double>(y[first + c]) * dy[first + c]; }));
    for (int c = thread_number(); c < cols; c += thread_count()) {
        const size_t i = first + c;
        const float g = (dy[i] - y[i] * along) * inverse[r];
        dx[i] = add ? dx[i] + g : g;
    }
}

extern "C" __global__ void contrast_rows(float* partial, float* p, int n, float inverse_tau) {
    const int i = blockIdx.x;
    if (i >= n) return;
    float* row = p + static_cast<size_t>(i) * n;
    const float wanted = row[other_view(i, n)];
    float top = -3.0e38f;
    for (int k = thread_number(); k < n; k += thread_count())
        if (k != i) top = larger(top, row[k]);
    top = block_max(top);
    float sum = 0.0f;
    for (int k = thread_number(); k < n; k += thread_count()) {
        row[k] = k == i ? 0.0f : expf((row[k] - top) * inverse_tau);
        sum += row[k];
    }
    sum = block_sum(sum);
    // A thread scales what it wrote itself.
    for (int k = thread_number(); k < n; k += thread_count()) row[k] /= sum;
    if (threadIdx.x == 0) {
        partial[2 * i] = logf(sum) - (wanted - top) * inverse_tau;
        partial[2 * i + 1] = 1.0f;
    }
}

extern "C" __global__ void contrast_bwd(float* du, const float* pulled, const float* u, const float* dl, int n, int cols, float scale, int add) {
    const int e = global_index();
    if (e >= n * cols) return;
    const int i = e / cols, c = e % cols;
    const float g = dl[0] * scale * (pulled[e] - 2.0f * u[static_cast<size_t>(other_view(i, n)) * cols + c]);
    du[e] = add ? du[e] + g : g;
}
