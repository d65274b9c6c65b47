// latent.cu                                              math and shapes: src/engine/ops/latent.rs
// sample_fwd   bytes 12*n       sample_bwd   bytes 16*n (+ 8*n where it adds)    a thread for four elements, one normal transform for two
// kl_fwd       bytes 8*n, one block, its sum in f64 in a fixed tree             kl_bwd   bytes 16*n
// any n below 2^31, no alignment required. The step number is word 0 of the clock. measured: not yet on a GPU
#include "common.cuh"
#include "random.cuh"

static const int QUAD = 4;

// z = mu + (exp(logvar/2) + 1e-7)·e
extern "C" __global__ void sample_fwd(float* z, const float* mu, const float* logvar, const unsigned* clock, int n, unsigned stream,
                                      unsigned seed_low, unsigned seed_high) {
    const unsigned quad = static_cast<unsigned>(global_index()), first = QUAD * quad, end = static_cast<unsigned>(n);
    if (first >= end) return;
    float e[QUAD] = {};
    normals({seed_low, seed_high, stream, clock[0]}, quad, e);
    for (int i = 0; i < QUAD; i++) {
        const unsigned at = first + i;
        if (at < end) z[at] = mu[at] + (expf(0.5f * logvar[at]) + 1e-7f) * e[i];
    }
}

// dmu (+)= dz, dlogvar (+)= dz·e·exp(logvar/2)/2; either may be null
extern "C" __global__ void sample_bwd(float* dmu, float* dlogvar, const float* dz, const float* logvar, const unsigned* clock, int n,
                                      unsigned stream, unsigned seed_low, unsigned seed_high, int add_mu, int add_logvar) {
    const unsigned quad = static_cast<unsigned>(global_index()), first = QUAD * quad, end = static_cast<unsigned>(n);
    if (first >= end) return;
    float e[QUAD] = {};
    normals({seed_low, seed_high, stream, clock[0]}, quad, e);
    for (int i = 0; i < QUAD; i++) {
        const unsigned at = first + i;
        if (at >= end) return;
        if (dmu) dmu[at] = add_mu ? dmu[at] + dz[at] : dz[at];
        if (dlogvar) {
            const float d = dz[at] * e[i] * (0.5f * expf(0.5f * logvar[at]));
            dlogvar[at] = add_logvar ? dlogvar[at] + d : d;
        }
    }
}

// mean of -1/2 (1 + logvar - mu² - exp(logvar))
extern "C" __global__ void kl_fwd(float* loss, const float* mu, const float* logvar, int n) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += -0.5f * (1.0f + logvar[i] - mu[i] * mu[i] - expf(logvar[i]));
    sum = block_sum(sum);
    if (threadIdx.x == 0) loss[0] = n > 0 ? static_cast<float>(sum / n) : 0.0f;
}

extern "C" __global__ void kl_bwd(float* dmu, float* dlogvar, const float* dl, const float* mu, const float* logvar, int n, int add_mu,
                                  int add_logvar) {
    const int i = global_index();
    if (i >= n) return;
    const float g = dl[0] / static_cast<float>(n);
    if (dmu) dmu[i] = (add_mu ? dmu[i] : 0.0f) + g * mu[i];
    if (dlogvar) dlogvar[i] = (add_logvar ? dlogvar[i] : 0.0f) + g * 0.5f * (expf(logvar[i]) - 1.0f);
}
