// optim.cu                                               math: src/engine/optim.rs
// adam   bytes 28*N (theta, m, v read and written, g read); one thread a parameter, all parameters of a group in one launch
// c1 = 1-b1, c2 = 1-b2. clock words `rate`, `root`, `decay` hold eta/(1-b1^t), 1/sqrt(1-b2^t), eta*lambda. Nothing moves once `stop` is set.
// any N. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void adam(float* theta, float* m, float* v, const float* g, const float* clock, const unsigned* stop, int n, int rate,
                                int root, int decay, float b1, float b2, float c1, float c2, float epsilon) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || stop[0]) return;
    float gradient = g[i];
    float first = b1 * m[i] + c1 * gradient;
    float second = b2 * v[i] + c2 * (gradient * gradient);
    m[i] = first;
    v[i] = second;
    theta[i] -= clock[rate] * first / (sqrtf(second) * clock[root] + epsilon) + clock[decay] * theta[i];
}
