// optim.cu                                               math: src/engine/optim.rs
// adam   bytes 28*N (theta, m, v read and written, g read); one thread a parameter, all parameters of a group in one launch
// c1 = 1-b1, c2 = 1-b2. clock words `rate`, `root`, `decay` hold eta/(1-b1^t), 1/sqrt(1-b2^t), eta*lambda. Nothing moves once `stop` is set.
// any N. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void adam(float* theta, float* m, float* v, const float* g, const float* clock, const unsigned* stop, int n, int rate,
                                int root, int decay, float b1, float b2, float c1, float c2, float epsilon, float l2) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || stop[0]) return;
    float gradient = g[i] + l2 * theta[i];
    float first = b1 * m[i] + c1 * gradient;
    float second = b2 * v[i] + c2 * (gradient * gradient);
    m[i] = first;
    v[i] = second;
    theta[i] -= clock[rate] * first / (sqrtf(second) * clock[root] + epsilon) + clock[decay] * theta[i];
}

// square_parts   bytes 4*N: a block's share of the sum of squares, in f64 in a fixed tree; 256 threads, any number of blocks
extern "C" __global__ void square_parts(double* parts, const float* g, int n) {
    double sum = 0.0;
    for (int i = global_index(); i < n; i += global_count()) sum += (double)g[i] * g[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// clip_scale     bytes 8*N: every thread adds the parts up in their order, then shortens its element
extern "C" __global__ void clip_scale(float* g, const double* parts, int count, int n, float longest) {
    const int i = global_index();
    if (i >= n) return;
    double sum = 0.0;
    for (int p = 0; p < count; p++) sum += parts[p];
    const double scale = longest / (sqrt(sum) + 1e-6);
    if (!(scale >= 1.0)) g[i] = (float)(g[i] * scale);
}

// clamp_min      x = max(x, least), but not once `stop` is set
extern "C" __global__ void clamp_min(float* x, const unsigned* stop, int n, float least) {
    const int i = global_index();
    if (i < n && !stop[0]) x[i] = fmaxf(x[i], least);
}

// sgd_nesterov   bytes 20*N (theta, v read and written, g read); clock word `rate` holds eta; nothing moves once `stop` is set
extern "C" __global__ void sgd_nesterov(float* theta, float* v, const float* g, const float* clock, const unsigned* stop, int n, int rate,
                                        float momentum, float l2) {
    const int i = global_index();
    if (i >= n || stop[0]) return;
    const float gradient = g[i] + l2 * theta[i];
    const float velocity = momentum * v[i] + gradient;
    v[i] = velocity;
    theta[i] -= clock[rate] * (gradient + momentum * velocity);
}

// average_towards   bytes 12*N: a = keep*a + take*theta, unless `stop` is set                 math: src/engine/average.rs
extern "C" __global__ void average_towards(float* a, const float* theta, const unsigned* stop, int n, float keep, float take) {
    const int i = global_index();
    if (i < n && !stop[0]) a[i] = keep * a[i] + take * theta[i];
}
