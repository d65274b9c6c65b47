// activation.cuh                                             table and derivatives: src/engine/ops/activation.rs
// y = f(u) and f'(u) read off y, by the code and parameter of `Activation`.
#pragma once

#include "arch.cuh"

__device__ __forceinline__ float activation(int code, float parameter, float u) {
    switch (code) {
        case 1: return u < 0.0f ? 0.0f : u;  // not fmaxf, which loses a NaN
        case 2: return u < 0.0f ? parameter * u : u;
        case 3: return u > 0.0f ? u : expm1f(u);
        case 4: return 1.0f / (1.0f + expf(-u));
        case 5: return tanhf(u);
        default: return u;
    }
}

__device__ __forceinline__ float activation_slope(int code, float parameter, float y) {
    switch (code) {
        case 1: return y > 0.0f ? 1.0f : 0.0f;
        case 2: return y > 0.0f ? 1.0f : parameter;
        case 3: return y > 0.0f ? 1.0f : y + 1.0f;
        case 4: return y * (1.0f - y);
        case 5: return 1.0f - y * y;
        default: return 1.0f;
    }
}
