// batch_norm.cu                                          math and shapes: src/engine/ops/batch_norm.rs
// batch_norm_fwd   bytes 16*B*D (x read for the mean, again about it, again to normalise; y written once)
// batch_norm_bwd   bytes 20*B*D (du and x read twice, dx written once)
//                  grid ceil(D/32), block (32,8): x walks features so that reads coalesce, y walks cells; the eight
//                  partial sums of a feature are added in order, in f64
// any B >= 2 in training, any D, no alignment required. measured: not yet on a GPU
#include "common.cuh"
#include "activation.cuh"

// The sum over y of one value a thread, the same for every y of a column: in order of y.
__device__ inline double column_total(double (*part)[32], double value) {
    __syncthreads();
    part[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    double sum = 0.0;
    for (int k = 0; k < 8; ++k) sum += part[k][threadIdx.x];
    return sum;
}

extern "C" __global__ void batch_norm_fwd(float* y, float* saved, float* running_mean, float* running_variance, const float* x,
                                          const float* scale, const float* shift, int rows, int cols, float epsilon, float keep, float take,
                                          float unbiased, int training, int code, float parameter) {
    __shared__ double part[8][32];
    int c = blockIdx.x * 32 + threadIdx.x;
    bool inside = c < cols;
    float mean, inv;
    if (training) {
        double sum = 0.0;
        if (inside)
            for (int r = threadIdx.y; r < rows; r += 8) sum += x[(size_t)r * cols + c];
        double mu = column_total(part, sum) / rows;
        sum = 0.0;
        if (inside)
            for (int r = threadIdx.y; r < rows; r += 8) {
                double d = x[(size_t)r * cols + c] - mu;
                sum += d * d;
            }
        double variance = column_total(part, sum) / rows;
        mean = (float)mu;
        inv = (float)(1.0 / sqrt(variance + (double)epsilon));
        if (inside && threadIdx.y == 0) {
            running_mean[c] = keep * running_mean[c] + take * mean;
            running_variance[c] = keep * running_variance[c] + take * ((float)variance * unbiased);
        }
    } else {
        mean = inside ? running_mean[c] : 0.0f;
        inv = inside ? 1.0f / sqrtf(running_variance[c] + epsilon) : 0.0f;
    }
    if (!inside) return;
    if (threadIdx.y == 0) {
        saved[c] = mean;
        saved[cols + c] = inv;
    }
    float g = scale ? scale[c] : 1.0f, b = shift ? shift[c] : 0.0f;
    for (int r = threadIdx.y; r < rows; r += 8) {
        size_t i = (size_t)r * cols + c;
        y[i] = activation(code, parameter, (x[i] - mean) * inv * g + b);
    }
}

extern "C" __global__ void batch_norm_bwd(float* dx, float* d_scale, float* d_shift, const float* du, const float* x, const float* saved,
                                          const float* scale, int rows, int cols, int training, int add, int add_scale, int add_shift) {
    __shared__ double part[8][32];
    int c = blockIdx.x * 32 + threadIdx.x;
    bool inside = c < cols;
    float mean = inside ? saved[c] : 0.0f, inv = inside ? saved[cols + c] : 0.0f;
    double sum = 0.0, dot = 0.0;
    if (inside)
        for (int r = threadIdx.y; r < rows; r += 8) {
            size_t i = (size_t)r * cols + c;
            sum += du[i];
            dot += du[i] * ((x[i] - mean) * inv);
        }
    sum = column_total(part, sum);
    dot = column_total(part, dot);
    if (!inside) return;
    if (threadIdx.y == 0) {
        if (d_shift) d_shift[c] = (add_shift ? d_shift[c] : 0.0f) + (float)sum;
        if (d_scale) d_scale[c] = (add_scale ? d_scale[c] : 0.0f) + (float)dot;
    }
    if (!dx) return;
    float g = inv * (scale ? scale[c] : 1.0f);
    float mean_du = training ? (float)(sum / rows) : 0.0f, mean_dot = training ? (float)(dot / rows) : 0.0f;
    for (int r = threadIdx.y; r < rows; r += 8) {
        size_t i = (size_t)r * cols + c;
        float d = g * (du[i] - mean_du - (x[i] - mean) * inv * mean_dot);
        dx[i] = add ? dx[i] + d : d;
    }
}
