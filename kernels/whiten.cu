// whiten.cu                                              math and shapes: src/engine/ops/whiten.rs
// inverse_power      one block of 256: covariance, Jacobi, and a power of the spectrum; 2 p*p doubles of dynamic shared memory
// whiten_matrix      one block of 256: mean of G and the p x p matrix P of the whitening's gradient; 2 p*p doubles
// two_products       one thread an element: y = (a - mean_a) S + k (b - mean_b) P; flops 4*n*p*p
// mahalanobis_fwd    one block of 256; p*p doubles
// mahalanobis_bwd    one block of 256: codes are small; 2 p*p doubles
// p <= 64, n > p. Everything inside is f64: at p = 3 and n = 100 it is latency, not arithmetic, that counts. measured: not yet on a GPU
#include "small.cuh"

// saved: mean [p], eigenvalues of C + eps I [p], (C + eps I)^exponent [p, p], eigenvectors [p, p]
extern "C" __global__ void inverse_power(float* saved, const float* z, int n, int p, float epsilon, float exponent) {
    DYNAMIC_SHARED(double, memory);
    double *a = memory, *q = a + p * p, *mean = q + p * p;
    block_covariance(z, n, p, mean, a);
    for (int i = threadIdx.x; i < p; i += blockDim.x) a[i * p + i] += (double)epsilon;
    __syncthreads();
    block_jacobi(a, q, p);
    for (int i = threadIdx.x; i < p; i += blockDim.x) {
        saved[i] = (float)mean[i];
        saved[p + i] = (float)a[i * p + i];
    }
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int k = 0; k < p; ++k) {
            double w = a[k * p + k], power = exponent == -1.0f ? 1.0 / w : 1.0 / sqrt(w);
            sum += q[i * p + k] * power * q[j * p + k];
        }
        saved[2 * p + e] = (float)sum;
        saved[2 * p + p * p + e] = (float)q[e];
    }
}

extern "C" __global__ void two_products(float* y, const float* a, const float* mean_a, const float* s, const float* b, const float* mean_b,
                                        const float* m, float k, int n, int p, int add) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * p) return;
    int r = i / p, j = i % p;
    double sum = 0.0, other = 0.0;
    for (int c = 0; c < p; ++c) sum += (double)(a[r * p + c] - mean_a[c]) * s[c * p + j];
    if (b)
        for (int c = 0; c < p; ++c) other += (double)(b[r * p + c] - mean_b[c]) * m[c * p + j];
    float v = (float)(sum + k * other);
    y[i] = add ? y[i] + v : v;
}

// matrix: mean of G [p], then P [p, p]
extern "C" __global__ void whiten_matrix(float* matrix, const float* z, const float* g, const float* saved, int n, int p) {
    DYNAMIC_SHARED(double, memory);
    double *m = memory, *t = m + p * p;
    const float *mean = saved, *w = saved + p, *q = saved + 2 * p + p * p;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    for (int k = warp; k < p; k += warps) {
        double sum = 0.0;
        for (int r = lane; r < n; r += 32) sum += g[r * p + k];
        sum = warp_sum(sum);
        if (lane == 0) matrix[k] = (float)(sum / n);
    }
    for (int e = warp; e < p * p; e += warps) {
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int r = lane; r < n; r += 32) sum += (double)(z[r * p + i] - mean[i]) * g[r * p + j];
        sum = warp_sum(sum);
        if (lane == 0) m[e] = sum;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {  // t = sym(m) q
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int k = 0; k < p; ++k) sum += 0.5 * (m[i * p + k] + m[k * p + i]) * q[k * p + j];
        t[e] = sum;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {  // m = K o (qt t)
        int i = e / p, j = e % p;
        double sum = 0.0, ri = sqrt((double)w[i]), rj = sqrt((double)w[j]);
        for (int k = 0; k < p; ++k) sum += q[k * p + i] * t[k * p + j];
        m[e] = -sum / (ri * rj * (ri + rj));
    }
    __syncthreads();
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {  // t = m qt
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int k = 0; k < p; ++k) sum += m[i * p + k] * q[j * p + k];
        t[e] = sum;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {  // P = q t
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int k = 0; k < p; ++k) sum += q[i * p + k] * t[k * p + j];
        matrix[p + e] = (float)sum;
    }
}

// scatter: sum of w dt d [p, p], then the sum of w
extern "C" __global__ void mahalanobis_fwd(float* l, float* scatter, const float* a, const float* b, const float* w, const float* saved_a,
                                           const float* saved_b, int n, int p) {
    DYNAMIC_SHARED(double, e_sum);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    for (int e = warp; e < p * p; e += warps) {
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int r = lane; r < n; r += 32)
            sum += (double)(w ? w[r] : 1.0f) * (double)(a[r * p + i] - b[r * p + i]) * (double)(a[r * p + j] - b[r * p + j]);
        sum = warp_sum(sum);
        if (lane == 0) e_sum[e] = sum;
    }
    __syncthreads();
    double sum = 0.0, total = 0.0;
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {
        sum += ((double)saved_a[2 * p + e] + saved_b[2 * p + e]) * e_sum[e];
        scatter[e] = (float)e_sum[e];
    }
    for (int r = threadIdx.x; r < n; r += blockDim.x) total += w ? w[r] : 1.0f;
    sum = block_sum(sum);
    total = block_sum(total);
    if (threadIdx.x == 0) {
        scatter[p * p] = (float)total;
        l[0] = total > 0.0 ? (float)(0.5 * sum / total) : 0.0f;
    }
}

extern "C" __global__ void mahalanobis_bwd(float* d_own, const float* own, const float* other, const float* w, const float* saved_own,
                                           const float* saved_other, const float* scatter, const float* dl, int n, int p, int add) {
    DYNAMIC_SHARED(double, memory);
    double *t = memory, *spread = t + p * p;
    const float *mean = saved_own, *inv = saved_own + 2 * p, *inv_other = saved_other + 2 * p;
    double total = scatter[p * p], g = total > 0.0 ? dl[0] / total : 0.0;
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int k = 0; k < p; ++k) sum += (double)scatter[i * p + k] * inv[k * p + j];
        t[e] = sum;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {
        int i = e / p, j = e % p;
        double sum = 0.0;
        for (int k = 0; k < p; ++k) sum += inv[i * p + k] * t[k * p + j];
        spread[e] = -0.5 * g * sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n * p; i += blockDim.x) {
        int r = i / p, j = i % p;
        double near = 0.0, far = 0.0;
        for (int k = 0; k < p; ++k) {
            near += (double)(own[r * p + k] - other[r * p + k]) * ((double)inv[k * p + j] + inv_other[k * p + j]);
            far += (double)(own[r * p + k] - mean[k]) * spread[k * p + j];
        }
        float d = (float)(g * (w ? w[r] : 1.0f) * near + 2.0 / (n - 1) * far);
        d_own[i] = add ? d_own[i] + d : d;
    }
}
