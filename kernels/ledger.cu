// ledger.cu                                              math: src/engine/ops/ledger.rs
// ledger_add   one thread: one loss term into its sum (a double, kept as two floats) or, if it is not finite, into `stop`
#include "common.cuh"

extern "C" __global__ void ledger_add(float* sums, unsigned* stop, const float* term, const unsigned* clock, int k) {
    if (stop[0]) return;
    float value = term[0];
    if (value - value == 0.0f) {
        double sum = (double)sums[2 * k] + (double)sums[2 * k + 1] + (double)value;
        float high = (float)sum;
        sums[2 * k] = high;
        sums[2 * k + 1] = (float)(sum - (double)high);
    } else {
        stop[0] = clock[0];
        stop[1] = k;
    }
}
