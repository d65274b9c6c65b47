// linear.cu                                              math and shapes: src/engine/ops/linear.rs
// activation_bwd   du = dy * f'(u), the derivative read off y = f(u)
//                  bytes 12*N; one thread an element; any N. measured: not yet on a GPU
#include "common.cuh"
#include "activation.cuh"

extern "C" __global__ void activation_bwd(float* du, const float* y, const float* dy, int n, int code, float parameter) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) du[i] = dy[i] * activation_slope(code, parameter, y[i]);
}
