// distance.cu                                            math and shapes: src/engine/ops/distance.rs
// pair_distance_fwd   bytes 8*B*L + 4*B (+ 4*B of lengths); one block: codes are small. Sums in f64 in a fixed tree
// pair_distance_bwd   bytes 16*B*L; one thread an element
// over_smallest_*     one thread: five numbers
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void pair_distance_fwd(float* m, float* total, float* length, const float* a, const float* b, const float* w,
                                             int rows, int cols) {
    double sum = 0.0, seen = 0.0;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        double weight = w ? w[r] : 1.0f, row = 0.0;
        for (int c = 0; c < cols; ++c) {
            double d = a[(size_t)r * cols + c] - b[(size_t)r * cols + c];
            row += d * d;
        }
        if (length) {
            row = sqrt(row);
            length[r] = (float)row;
        }
        sum += weight * row;
        seen += weight;
    }
    sum = block_sum(sum);
    seen = block_sum(seen);
    if (threadIdx.x == 0) {
        total[0] = (float)seen;
        m[0] = seen > 0.0 ? (float)(sum / seen) : 0.0f;
    }
}

extern "C" __global__ void pair_distance_bwd(float* da, float* db, const float* a, const float* b, const float* w, const float* total,
                                             const float* length, const float* dm, int rows, int cols, int add_a, int add_b) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * cols) return;
    float g = total[0] > 0.0f ? dm[0] / total[0] : 0.0f;
    // Where two rows meet their length has no slope.
    g *= !length ? 2.0f : length[i / cols] > 0.0f ? 1.0f / length[i / cols] : 0.0f;
    if (w) g *= w[i / cols];
    g *= a[i] - b[i];
    if (da) da[i] = add_a ? da[i] + g : g;
    if (db) db[i] = add_b ? db[i] - g : -g;
}

extern "C" __global__ void over_smallest_fwd(float* c, const float* m, const float* l_a, const float* l_b, float floor) {
    c[0] = m[0] / fmaxf(fminf(l_a[0], l_b[0]), floor);
}

extern "C" __global__ void over_smallest_bwd(float* dm, float* d_a, float* d_b, const float* m, const float* l_a, const float* l_b,
                                             const float* dc, float floor, int add_m, int add_a, int add_b) {
    float smaller = fminf(l_a[0], l_b[0]), by = fmaxf(smaller, floor);
    float dl = smaller > floor ? -dc[0] * m[0] / (by * by) : 0.0f;
    bool first = l_a[0] <= l_b[0];
    if (dm) dm[0] = (add_m ? dm[0] : 0.0f) + dc[0] / by;
    if (d_a) d_a[0] = (add_a ? d_a[0] : 0.0f) + (first ? dl : 0.0f);
    if (d_b) d_b[0] = (add_b ? d_b[0] : 0.0f) + (first ? 0.0f : dl);
}
