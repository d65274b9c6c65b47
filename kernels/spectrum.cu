// spectrum.cu                                            math and shapes: src/engine/ops/spectrum.rs
// smallest_fwd   one block of 256 a matrix: covariance in f64, then by `method`
//                  0  power iteration on the inverse (Cholesky in shared memory), Rayleigh-quotient steps, certified by the
//                     pivots of C - (rho - delta) I; Jacobi where that fails
//                  1  Jacobi
//                  2  power iteration on c I - C, for comparison
//                3 p*p doubles of dynamic shared memory (96 KiB at p = 64)
// smallest_bwd   one thread a cell; flops 4*n*p
// bytes 4*n*p forward, 8*n*p backward; p <= 64, n >= 2. A training code has p = 3: latency counts. measured: not yet on a GPU
#include "small.cuh"

enum { POWER = 0, JACOBI = 1, SHIFTED = 2 };
enum { INVERSE_STEPS = 4, RAYLEIGH_STEPS = 6, SHIFTED_STEPS = 2000 };  // as in small.rs

// y = (c - shift I) v for all threads, and the block's sum of y.w
__device__ inline void block_apply(double* y, const double* c, const double* v, int p) {
    for (int i = threadIdx.x; i < p; i += blockDim.x) {
        double sum = 0.0;
        for (int j = 0; j < p; ++j) sum += c[i * p + j] * v[j];
        y[i] = sum;
    }
    __syncthreads();
}

// x.y, the same in every thread
__device__ inline double block_dot(const double* x, const double* y, int p) {
    double sum = 0.0;
    for (int i = 0; i < p; ++i) sum += x[i] * y[i];
    return sum;
}

// Scales v to unit length; false, in every thread, if that cannot be done.
__device__ inline bool block_normalise(double* v, int p) {
    double length = sqrt(block_dot(v, v, p));
    __syncthreads();
    bool fine = length > 0.0 && length < 1e300;
    if (fine)
        for (int i = threadIdx.x; i < p; i += blockDim.x) v[i] /= length;
    __syncthreads();
    return fine;
}

// In-place Cholesky of a's lower triangle; false, in every thread, at a pivot that is not positive.
__device__ inline bool block_cholesky(double* a, int p) {
    for (int k = 0; k < p; ++k) {
        double pivot = a[k * p + k];
        __syncthreads();
        if (!(pivot > 0.0)) return false;
        double root = sqrt(pivot);
        for (int i = k + threadIdx.x; i < p; i += blockDim.x) a[i * p + k] = i == k ? root : a[i * p + k] / root;
        __syncthreads();
        for (int e = threadIdx.x; e < (p - k - 1) * (p - k - 1); e += blockDim.x) {
            int i = k + 1 + e / (p - k - 1), j = k + 1 + e % (p - k - 1);
            if (j <= i) a[i * p + j] -= a[i * p + k] * a[j * p + k];
        }
        __syncthreads();
    }
    return true;
}

// v becomes the solution of L Lt x = v.
__device__ inline void block_cholesky_solve(const double* l, double* v, int p) {
    for (int k = 0; k < p; ++k) {
        double x = v[k] / l[k * p + k];
        __syncthreads();
        for (int i = k + threadIdx.x; i < p; i += blockDim.x) v[i] = i == k ? x : v[i] - l[i * p + k] * x;
        __syncthreads();
    }
    for (int k = p - 1; k >= 0; --k) {
        double x = v[k] / l[k * p + k];
        __syncthreads();
        for (int i = threadIdx.x; i <= k; i += blockDim.x) v[i] = i == k ? x : v[i] - l[k * p + i] * x;
        __syncthreads();
    }
}

// a x = v by elimination with row pivots (a destroyed); false, in every thread, when a pivot vanishes.
__device__ inline bool block_solve_pivoted(double* a, double* v, int p) {
    for (int k = 0; k < p; ++k) {
        int row = k;
        for (int i = k + 1; i < p; ++i)
            if (fabs(a[i * p + k]) > fabs(a[row * p + k])) row = i;
        double pivot = a[row * p + k];
        __syncthreads();
        if (pivot == 0.0 || !(fabs(pivot) < 1e300)) return false;
        if (row != k) {
            for (int j = threadIdx.x; j < p; j += blockDim.x) {
                double x = a[k * p + j];
                a[k * p + j] = a[row * p + j];
                a[row * p + j] = x;
            }
            if (threadIdx.x == 0) {
                double x = v[k];
                v[k] = v[row];
                v[row] = x;
            }
        }
        __syncthreads();
        for (int i = k + 1 + threadIdx.x; i < p; i += blockDim.x) {
            double f = a[i * p + k] / pivot;
            for (int j = k + 1; j < p; ++j) a[i * p + j] -= f * a[k * p + j];
            v[i] -= f * v[k];
        }
        __syncthreads();
    }
    for (int k = p - 1; k >= 0; --k) {
        double x = v[k] / a[k * p + k];
        __syncthreads();
        for (int i = threadIdx.x; i <= k; i += blockDim.x) v[i] = i == k ? x : v[i] - a[i * p + k] * x;
        __syncthreads();
    }
    return true;
}

// |C v - rho v|, the same in every thread; y is scratch.
__device__ inline double block_residual(const double* c, const double* v, double rho, double* y, int p) {
    block_apply(y, c, v, p);
    double sum = 0.0;
    for (int i = 0; i < p; ++i) sum += (y[i] - rho * v[i]) * (y[i] - rho * v[i]);
    __syncthreads();
    return sqrt(sum);
}

__device__ inline double block_quotient(const double* c, const double* v, double* y, int p) {
    block_apply(y, c, v, p);
    double rho = block_dot(v, y, p);
    __syncthreads();
    return rho;
}

// The certified smallest eigenvalue in *rho with v its vector; false where Jacobi must do it.
__device__ inline bool block_power(const double* c, double* work, double* v, double* w, double* y, int p, double* rho_out) {
    double size = 0.0;
    for (int i = 0; i < p; ++i) size += c[i * p + i];
    size /= p;
    if (!(size > 0.0 && size < 1e300)) return false;
    for (int i = threadIdx.x; i < p * p; i += blockDim.x) work[i] = c[i] + (i / p == i % p ? 1e-12 * size : 0.0);
    __syncthreads();
    if (!block_cholesky(work, p)) return false;
    for (int k = 0; k < INVERSE_STEPS; ++k) {
        block_cholesky_solve(work, v, p);
        if (!block_normalise(v, p)) return false;
    }
    double rho = block_quotient(c, v, y, p);
    for (int k = 0; k < RAYLEIGH_STEPS; ++k) {
        if (block_residual(c, v, rho, y, p) <= 1e-11 * size) break;
        for (int i = threadIdx.x; i < p * p; i += blockDim.x) work[i] = c[i] - (i / p == i % p ? rho : 0.0);
        for (int i = threadIdx.x; i < p; i += blockDim.x) w[i] = v[i];
        __syncthreads();
        if (!block_solve_pivoted(work, w, p) || !block_normalise(w, p)) break;
        for (int i = threadIdx.x; i < p; i += blockDim.x) v[i] = w[i];
        __syncthreads();
        rho = block_quotient(c, v, y, p);
    }
    if (block_residual(c, v, rho, y, p) > 1e-8 * size) return false;
    double delta = 1e-9 * size;
    for (int i = threadIdx.x; i < p * p; i += blockDim.x) work[i] = c[i] - (i / p == i % p ? rho - delta : 0.0);
    __syncthreads();
    *rho_out = rho;
    return block_cholesky(work, p);  // positive pivots: nothing smaller exists
}

extern "C" __global__ void smallest_fwd(float* l, float* saved, float* warm, const float* z, int n, int p, int method) {
    DYNAMIC_SHARED(double, memory);
    double *c = memory, *work = c + p * p, *q = work + p * p;
    double *mean = q + p * p, *v = mean + MAX_LATENT, *w = v + MAX_LATENT, *y = w + MAX_LATENT;
    block_covariance(z, n, p, mean, c);
    bool finite = true;
    for (int i = 0; i < p; ++i) finite = finite && fabsf(warm[i]) < 1e30f;
    for (int i = threadIdx.x; i < p; i += blockDim.x) v[i] = finite ? (double)warm[i] : 0.0;
    __syncthreads();
    if (!block_normalise(v, p)) {
        for (int i = threadIdx.x; i < p; i += blockDim.x) {
            double turn = i * 0.618033988749895;
            v[i] = 0.5 + turn - floor(turn);
        }
        __syncthreads();
        block_normalise(v, p);
    }
    double rho = 0.0;
    bool found = false;
    if (method == POWER) found = block_power(c, work, v, w, y, p, &rho);
    if (method == SHIFTED) {
        double shift = 0.0;
        for (int i = 0; i < p; ++i) {
            double sum = 0.0;
            for (int j = 0; j < p; ++j) sum += fabs(c[i * p + j]);
            shift = sum > shift ? sum : shift;
        }
        rho = block_quotient(c, v, y, p);
        for (int k = 0; k < SHIFTED_STEPS; ++k) {
            block_apply(y, c, v, p);
            for (int i = threadIdx.x; i < p; i += blockDim.x) w[i] = shift * v[i] - y[i];
            __syncthreads();
            if (!block_normalise(w, p)) break;
            for (int i = threadIdx.x; i < p; i += blockDim.x) v[i] = w[i];
            __syncthreads();
            double next = block_quotient(c, v, y, p);
            bool done = fabs(next - rho) <= 1e-8 * fabs(next);
            rho = next;
            if (done) break;
        }
        found = true;
    }
    __syncthreads();
    if (!found) {
        for (int i = threadIdx.x; i < p * p; i += blockDim.x) work[i] = c[i];
        __syncthreads();
        block_jacobi(work, q, p);
        int at = 0;
        for (int i = 1; i < p; ++i)
            if (work[i * p + i] < work[at * p + at]) at = i;
        rho = work[at * p + at];
        __syncthreads();
        for (int i = threadIdx.x; i < p; i += blockDim.x) v[i] = q[i * p + at];
        __syncthreads();
    }
    if (threadIdx.x == 0) l[0] = (float)rho;
    for (int i = threadIdx.x; i < p; i += blockDim.x) {
        saved[i] = (float)mean[i];
        saved[p + i] = (float)v[i];
        warm[i] = (float)v[i];
    }
}

extern "C" __global__ void smallest_bwd(float* dz, const float* z, const float* saved, const float* dl, int n, int p, int add) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= n) return;
    const float *mean = saved, *v = saved + p;
    double along = 0.0;
    for (int j = 0; j < p; ++j) along += (double)(z[r * p + j] - mean[j]) * v[j];
    double k = 2.0 * dl[0] / (n - 1);
    for (int j = 0; j < p; ++j) {
        float d = (float)(k * along * v[j]);
        dz[r * p + j] = add ? dz[r * p + j] + d : d;
    }
}
