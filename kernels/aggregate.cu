// aggregate.cu                                           math and shapes: src/engine/ops/aggregate.rs
// aggregate_fwd    bytes 12*B*L      aggregate_bwd   bytes 12*B*L (+ 8*B*L where it adds)      one thread an element
// aggregate_sums   bytes 16*B*L, one block: both weights' gradients, their sums in f64 in a fixed tree
// any size, no alignment required; w null: every slot is a pair. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void aggregate_fwd(float* c, const float* own, const float* other, const float* s_own, const float* s_other,
                                         const float* w, int rows, int cols) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const float there = s_other[0] * (w ? w[i / cols] : 1.0f);
    // From the own code, so that a cell without a partner keeps it to the bit.
    c[i] = own[i] + there * (other[i] - own[i]) / (s_own[0] + there);
}

extern "C" __global__ void aggregate_bwd(float* d_own, float* d_other, const float* dc, const float* s_own, const float* s_other,
                                         const float* w, int rows, int cols, int add_own, int add_other) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const float there = s_other[0] * (w ? w[i / cols] : 1.0f);
    const float g = dc[i] / (s_own[0] + there);
    if (d_own) d_own[i] = (add_own ? d_own[i] : 0.0f) + s_own[0] * g;
    if (d_other) d_other[i] = (add_other ? d_other[i] : 0.0f) + there * g;
}

extern "C" __global__ void aggregate_sums(float* d_s_own, float* d_s_other, const float* dc, const float* c, const float* own,
                                          const float* other, const float* s_own, const float* s_other, const float* w, int rows, int cols,
                                          int add_own, int add_other) {
    double here = 0.0, there = 0.0;
    for (int i = threadIdx.x; i < rows * cols; i += blockDim.x) {
        const float weight = w ? w[i / cols] : 1.0f;
        const float g = dc[i] / (s_own[0] + s_other[0] * weight);
        here += g * (own[i] - c[i]);
        there += weight * g * (other[i] - c[i]);
    }
    here = block_sum(here);
    there = block_sum(there);
    if (threadIdx.x == 0) {
        if (d_s_own) d_s_own[0] = (add_own ? d_s_own[0] : 0.0f) + static_cast<float>(here);
        if (d_s_other) d_s_other[0] = (add_other ? d_s_other[0] : 0.0f) + static_cast<float>(there);
    }
}
