// centres.cu                                             math and shapes: src/engine/ops/centres.rs
// centre_rows   bytes 4*B*(2*D+C), a block a row; its class by one thread, as there are few
// centre_bwd    bytes 12*B*D, one thread an element     centre_sum   bytes 4*B*C*D at most, one thread an element, its rows in their order
// any size, no alignment required. A row that is not counted has class -1. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void centre_rows(float* partial, float* class_of, const float* h, const float* u, const float* c, int rows, int cols,
                                       int classes, float sure) {
    const int r = blockIdx.x;
    if (r >= rows) return;
    __shared__ int best;
    __shared__ int counted;
    if (threadIdx.x == 0) {
        const float* logits = u + static_cast<size_t>(r) * classes;
        int at = 0;
        for (int k = 1; k < classes; ++k)
            if (logits[k] > logits[at]) at = k;
        float whole = 0.0f;
        for (int k = 0; k < classes; ++k) whole += expf(logits[k] - logits[at]);
        best = at;
        counted = 1.0f / whole > sure ? 1 : 0;
        class_of[r] = counted ? static_cast<float>(at) : -1.0f;
    }
    __syncthreads();
    const float* row = h + static_cast<size_t>(r) * cols;
    const float* centre = c + static_cast<size_t>(best) * cols;
    const float square = block_sum_of<float>(cols, [=](int i) { return (row[i] - centre[i]) * (row[i] - centre[i]); });
    if (threadIdx.x == 0) {
        partial[2 * r] = counted ? square : 0.0f;
        partial[2 * r + 1] = counted ? 1.0f : 0.0f;
    }
}

__device__ __forceinline__ float centre_scale(const float* totals, const float* dl) {
    return totals[1] > 0.0f ? 2.0f * dl[0] / totals[1] : 0.0f;
}

extern "C" __global__ void centre_bwd(float* dh, const float* h, const float* c, const float* class_of, const float* totals, const float* dl,
                                      int rows, int cols, int add) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const float k = class_of[i / cols];
    const float g = k < 0.0f ? 0.0f : centre_scale(totals, dl) * (h[i] - c[static_cast<size_t>(k) * cols + i % cols]);
    dh[i] = add ? dh[i] + g : g;
}

extern "C" __global__ void centre_sum(float* dc, const float* h, const float* c, const float* class_of, const float* totals, const float* dl,
                                      int rows, int cols, int classes, int add) {
    const int i = global_index();
    if (i >= classes * cols) return;
    const int k = i / cols, column = i % cols;
    const float scale = centre_scale(totals, dl);
    float sum = add ? dc[i] : 0.0f;
    for (int r = 0; r < rows; ++r)
        if (class_of[r] == static_cast<float>(k)) sum -= scale * (h[static_cast<size_t>(r) * cols + column] - c[i]);
    dc[i] = sum;
}
