// bce.cu                                                 math and shapes: src/engine/ops/bce.rs
// bce_rows    bytes 12*B*F: a block a row, its logits and targets read once, the gradient in place of the logits; 256 threads
// bce_sparse  bytes 8*B*F + 16*n: the same with targets that are zero but for n entries, whose slopes wait in `slopes` [B, most] until the
//             block has seen every logit of its row
// bce_scale   bytes 8*N, none where the upstream gradient is 1; one thread an element
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void bce_rows(float* partial, float* x, const float* y, int rows, int cols, float weight, float over, int gradient) {
    const int r = blockIdx.x;
    if (r >= rows) return;
    double sum = 0.0;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        const size_t i = (size_t)r * cols + c;
        const float logit = x[i], target = y[i];
        const float e = expf(-fabsf(logit));
        const float inverse = 1.0f / (1.0f + e);
        const float count = 1.0f + (weight - 1.0f) * target;
        // The last term is 0, but not for a logit that is no finite number.
        sum += (1.0f - target) * logit + count * (fmaxf(-logit, 0.0f) + log1pf(e)) + (logit - logit);
        if (gradient) x[i] = over * ((logit < 0.0f ? e * inverse : inverse) * count - weight * target);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partial[2 * r] = (float)sum;
        partial[2 * r + 1] = (float)cols;
    }
}

extern "C" __global__ void bce_sparse(float* partial, float* x, float* slopes, const unsigned* starts, const unsigned* columns,
                                      const float* values, const unsigned* order, const unsigned* clock, int rows, int cols, int most,
                                      float weight, float over, int gradient) {
    const int b = static_cast<int>(blockIdx.x);
    if (b >= rows) return;
    const unsigned row = order ? order[clock[1] + static_cast<unsigned>(b)] : static_cast<unsigned>(b);
    const int first = static_cast<int>(starts[row]), count = static_cast<int>(starts[row + 1]) - first;
    float* logits = x + static_cast<size_t>(b) * cols;
    float* wait = slopes + static_cast<size_t>(b) * most;
    double sum = 0.0;
    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const float logit = logits[columns[first + k]], target = values[first + k];
        const float e = expf(-fabsf(logit)), inverse = 1.0f / (1.0f + e), count_of = 1.0f + (weight - 1.0f) * target;
        const float below = fmaxf(-logit, 0.0f) + log1pf(e);
        // What the entry adds to the loss of a zero in its place; a logit that is no number is seen below.
        if (logit - logit == 0.0f) sum += (double)((1.0f - target) * logit + count_of * below) - (double)(logit + below);
        wait[k] = over * ((logit < 0.0f ? e * inverse : inverse) * count_of - weight * target);
    }
    __syncthreads();
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        const float logit = logits[c], e = expf(-fabsf(logit)), inverse = 1.0f / (1.0f + e);
        sum += fmaxf(logit, 0.0f) + log1pf(e) + (logit - logit);
        if (gradient) logits[c] = over * (logit < 0.0f ? e * inverse : inverse);
    }
    __syncthreads();
    if (gradient)
        for (int k = threadIdx.x; k < count; k += blockDim.x) logits[columns[first + k]] = wait[k];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partial[2 * b] = (float)sum;
        partial[2 * b + 1] = (float)cols;
    }
}

extern "C" __global__ void bce_scale(float* dx, const float* dl, int n) {
    const int i = global_index();
    if (i < n && dl[0] != 1.0f) dx[i] *= dl[0];
}
