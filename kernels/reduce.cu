// reduce.cu                                              math and shapes: src/engine/ops/reduce.rs
// column_sum   bytes 4*R*C + 4*C; grid ceil(C/32), block (32,8): x walks columns so that reads coalesce,
//              y walks rows; the eight partial sums of a column are added in order
// total_sum    bytes 4*N; one block of 1024: for the small tensors that losses are
// spread       bytes 4*N (8*N when adding)
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void column_sum(float* s, const float* x, int rows, int cols, int add) {
    __shared__ float part[8][33];
    int c = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    if (c < cols)
        for (int r = threadIdx.y; r < rows; r += 8) sum += x[(size_t)r * cols + c];
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < cols) {
        for (int k = 1; k < 8; ++k) sum += part[k][threadIdx.x];
        s[c] = add ? s[c] + sum : sum;
    }
}

extern "C" __global__ void total_sum(float* y, const float* x, int n, float scale) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) y[0] = sum * scale;
}

extern "C" __global__ void spread(float* dx, const float* dy, int n, float scale, int add) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dx[i] = (add ? dx[i] : 0.0f) + dy[0] * scale;
}
