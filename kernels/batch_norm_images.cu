// batch_norm_images.cu                                   math and shapes: src/engine/ops/batch_norm_images.rs
// batch_norm_images_fwd   bytes 16*B*C*P (x read for the mean, again about it, again to normalise; y written once)
// batch_norm_images_bwd   bytes 20*B*C*P (du and x read twice, dx written once)
//                         a block of 256 threads a channel, which the caches keep between its passes; neighbouring threads read
//                         neighbouring pixels; sums in f64, their tree fixed by the block
// any B*P >= 2 in training, any C, no alignment required. measured: not yet on a GPU
#include "activation.cuh"
#include "common.cuh"

// Where element i < B*P of this block's channel lies.
__device__ __forceinline__ long long element(int i, int channels, int pixels) {
    return (static_cast<long long>(i / pixels) * channels + static_cast<int>(blockIdx.x)) * pixels + i % pixels;
}

extern "C" __global__ void __launch_bounds__(256)
batch_norm_images_fwd(float* y, float* saved, float* running_mean, float* running_variance, const float* x, const float* scale, const float* shift,
                      int rows, int channels, int pixels, float epsilon, float keep, float take, float unbiased, int training, int code, float parameter) {
    const int c = static_cast<int>(blockIdx.x), n = rows * pixels;
    float mean, inv;
    if (training) {
        const double mu = block_sum_of<double>(n, [=](int i) { return x[element(i, channels, pixels)]; }) / n;
        const double variance = block_sum_of<double>(n, [=](int i) {
            const double d = x[element(i, channels, pixels)] - mu;
            return d * d;
        }) / n;
        mean = static_cast<float>(mu);
        inv = static_cast<float>(1.0 / sqrt(variance + static_cast<double>(epsilon)));
        if (thread_number() == 0) {
            running_mean[c] = keep * running_mean[c] + take * mean;
            running_variance[c] = keep * running_variance[c] + take * (static_cast<float>(variance) * unbiased);
        }
    } else {
        mean = running_mean[c];
        inv = 1.0f / sqrtf(running_variance[c] + epsilon);
    }
    if (thread_number() == 0) {
        saved[c] = mean;
        saved[channels + c] = inv;
    }
    const float g = scale ? scale[c] : 1.0f, b = shift ? shift[c] : 0.0f;
    for (int i = thread_number(); i < n; i += thread_count()) {
        const long long at = element(i, channels, pixels);
        y[at] = activation(code, parameter, (x[at] - mean) * inv * g + b);
    }
}

extern "C" __global__ void __launch_bounds__(256)
batch_norm_images_bwd(float* dx, float* d_scale, float* d_shift, const float* du, const float* x, const float* saved, const float* scale, int rows,
                      int channels, int pixels, int training, int add, int add_scale, int add_shift) {
    const int c = static_cast<int>(blockIdx.x), n = rows * pixels;
    const float mean = saved[c], inv = saved[channels + c];
    const double sum = block_sum_of<double>(n, [=](int i) { return du[element(i, channels, pixels)]; });
    const double dot = block_sum_of<double>(n, [=](int i) {
        const long long at = element(i, channels, pixels);
        return du[at] * ((x[at] - mean) * inv);
    });
    if (thread_number() == 0) {
        if (d_shift) d_shift[c] = (add_shift ? d_shift[c] : 0.0f) + static_cast<float>(sum);
        if (d_scale) d_scale[c] = (add_scale ? d_scale[c] : 0.0f) + static_cast<float>(dot);
    }
    if (!dx) return;
    const float g = inv * (scale ? scale[c] : 1.0f);
    const float mean_du = training ? static_cast<float>(sum / n) : 0.0f, mean_dot = training ? static_cast<float>(dot / n) : 0.0f;
    for (int i = thread_number(); i < n; i += thread_count()) {
        const long long at = element(i, channels, pixels);
        const float d = g * (du[at] - mean_du - (x[at] - mean) * inv * mean_dot);
        dx[at] = add ? dx[at] + d : d;
    }
}
