// tables.cu                                              math: src/engine/ops/tables.rs
// table_rows    bytes 16*B*d + 4*B, and 12 operations an element and missed step (at most `most`); a block a row of the minibatch
// table_step    bytes 28*B*d; the same block, and afterwards the row's step is now
// table_taken   one thread: a step more has been taken
// table_settle  bytes 24*N*d: a block a row of the table
// clock[1] is the minibatch's first row in the epoch's order; nothing moves once `stop` is set. any size, no alignment required.
// measured: not yet on a GPU
#include "common.cuh"

struct Pace {
    float rate, b1, b2, ln1, ln2, epsilon;
    int most, dense;
};

__device__ inline void move(float& z, float m, float v, float t, const Pace& p) {
    // 1 - b^t without cancellation while t is small.
    z -= p.rate / -expm1f(t * p.ln1) * m / (sqrtf(v) / sqrtf(-expm1f(t * p.ln2)) + p.epsilon);
}

// The steps that a row missed between the last one that moved it and the newest.
__device__ inline void make_up(float& z, float& m, float& v, float last, float taken, const Pace& p) {
    const int missed = (int)(taken - last);
    if (last == 0.0f || missed == 0 || !p.dense) return;
    const int single = min(missed, p.most);
    for (int j = 1; j <= single; j++) {
        m *= p.b1;
        v *= p.b2;
        move(z, m, v, last + j, p);
    }
    if (missed > single) {
        m *= expf((missed - single) * p.ln1);
        v *= expf((missed - single) * p.ln2);
    }
}

extern "C" __global__ void table_rows(float* z, const float* values, const float* m, const float* v, const float* last, const float* taken,
                                      const unsigned* order, const unsigned* clock, int d, float rate, float b1, float b2, float ln1,
                                      float ln2, float epsilon, int most, int dense) {
    const Pace p = {rate, b1, b2, ln1, ln2, epsilon, most, dense};
    const unsigned row = order[clock[1] + blockIdx.x];
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        const size_t i = (size_t)row * d + c;
        float here = values[i], first = m[i], second = v[i];
        make_up(here, first, second, last[row], taken[0], p);
        z[(size_t)blockIdx.x * d + c] = here;
    }
}

extern "C" __global__ void table_step(float* values, float* m, float* v, float* last, const float* taken, const float* g,
                                      const unsigned* order, const unsigned* clock, const unsigned* stop, int d, float rate, float b1,
                                      float b2, float ln1, float ln2, float epsilon, int most, int dense, float c1, float c2) {
    const Pace p = {rate, b1, b2, ln1, ln2, epsilon, most, dense};
    const unsigned row = order[clock[1] + blockIdx.x];
    if (!stop[0]) {
        for (int c = threadIdx.x; c < d; c += blockDim.x) {
            const size_t i = (size_t)row * d + c;
            const float slope = g[(size_t)blockIdx.x * d + c];
            float here = values[i], first = m[i], second = v[i];
            make_up(here, first, second, last[row], taken[0], p);
            first = b1 * first + c1 * slope;
            second = b2 * second + c2 * (slope * slope);
            move(here, first, second, taken[0] + 1.0f, p);
            values[i] = here;
            m[i] = first;
            v[i] = second;
        }
    }
    // Every thread has read it.
    __syncthreads();
    if (threadIdx.x == 0 && !stop[0]) last[row] = taken[0] + 1.0f;
}

extern "C" __global__ void table_taken(float* taken, const unsigned* stop) {
    if (global_index() == 0 && !stop[0]) taken[0] += 1.0f;
}

extern "C" __global__ void table_settle(float* values, float* m, float* v, float* last, const float* taken, int cells, int d, float rate,
                                        float b1, float b2, float ln1, float ln2, float epsilon, int most, int dense) {
    const Pace p = {rate, b1, b2, ln1, ln2, epsilon, most, dense};
    const int row = blockIdx.x;
    if (row < cells) {
        for (int c = threadIdx.x; c < d; c += blockDim.x) {
            const size_t i = (size_t)row * d + c;
            make_up(values[i], m[i], v[i], last[row], taken[0], p);
        }
    }
    __syncthreads();
    if (row < cells && threadIdx.x == 0 && dense && last[row] > 0.0f) last[row] = taken[0];
}
