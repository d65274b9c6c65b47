// reverse.cu                                             math and shapes: src/engine/ops/reverse.rs
// reverse_bwd   bytes 8*n (+ 4*n where it adds): dx (+)= -clock[word]*dy; one thread an element. measured: not yet on a GPU
#include "common.cuh"

extern "C" __global__ void reverse_bwd(float* dx, const float* dy, const float* clock, int n, int word, int add) {
    const int i = global_index();
    if (i < n) dx[i] = (add ? dx[i] : 0.0f) - clock[word] * dy[i];
}
