// aggregate.cu                                           math and shapes: src/engine/ops/aggregate.rs
// aggregate_fwd    bytes 12*B*L + 8*B     aggregate_more   bytes 12*B*L + 12*B, another modality folded into c     one thread an element
// aggregate_bwd    bytes 12*B*L + 12*B (+ 8*B*L where it adds); one thread an element, two codes
// aggregate_sums   bytes 16*B*L + 12*B, one block: two weights' gradients, their sums in f64 in a fixed tree
// any size, no alignment required; w null: every slot is a pair; b and what is of it null: there is one code. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void aggregate_fwd(float* c, float* mass, const float* own, const float* other, const float* s_own, const float* s_other,
                                         const float* w, int rows, int cols) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const float there = s_other[0] * (w ? w[i / cols] : 1.0f);
    const float all = s_own[0] + there;
    // From the own code, so that a cell without a partner keeps it to the bit.
    c[i] = own[i] + there * (other[i] - own[i]) / all;
    if (i % cols == 0) mass[i / cols] = all;
}

extern "C" __global__ void aggregate_more(float* c, float* all, const float* mass, const float* z, const float* sigma, const float* w,
                                          int rows, int cols) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const float there = sigma[0] * (w ? w[i / cols] : 1.0f);
    const float sum = mass[i / cols] + there;
    c[i] += there * (z[i] - c[i]) / sum;
    if (i % cols == 0) all[i / cols] = sum;
}

extern "C" __global__ void aggregate_bwd(float* d_a, float* d_b, const float* dc, const float* mass, const float* s_a, const float* s_b,
                                         const float* w_a, const float* w_b, int rows, int cols, int add_a, int add_b) {
    const int i = global_index();
    if (i >= rows * cols) return;
    const int r = i / cols;
    const float g = dc[i] / mass[r];
    if (d_a) d_a[i] = (add_a ? d_a[i] : 0.0f) + s_a[0] * (w_a ? w_a[r] : 1.0f) * g;
    if (d_b) d_b[i] = (add_b ? d_b[i] : 0.0f) + s_b[0] * (w_b ? w_b[r] : 1.0f) * g;
}

extern "C" __global__ void aggregate_sums(float* d_s_a, float* d_s_b, const float* dc, const float* c, const float* mass, const float* a,
                                          const float* b, const float* w_a, const float* w_b, int rows, int cols, int add_a, int add_b) {
    double of_a = 0.0, of_b = 0.0;
    for (int i = threadIdx.x; i < rows * cols; i += blockDim.x) {
        const int r = i / cols;
        const float g = dc[i] / mass[r];
        of_a += (w_a ? w_a[r] : 1.0f) * g * (a[i] - c[i]);
        if (b) of_b += (w_b ? w_b[r] : 1.0f) * g * (b[i] - c[i]);
    }
    of_a = block_sum(of_a);
    of_b = block_sum(of_b);
    if (threadIdx.x == 0) {
        if (d_s_a) d_s_a[0] = (add_a ? d_s_a[0] : 0.0f) + static_cast<float>(of_a);
        if (d_s_b) d_s_b[0] = (add_b ? d_s_b[0] : 0.0f) + static_cast<float>(of_b);
    }
}
