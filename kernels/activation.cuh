#pragma once
#include "common.cuh"
__device__ inline float activation(int code, float a, float u) {
    switch (code) {
        case 1: return fmaxf(u, 0.0f);
        case 2: return u > 0.0f ? u : a * u;
        case 3: return u > 0.0f ? u : expm1f(u);
        case 4: return 1.0f / (1.0f + expf(-u));
        case 5: return tanhf(u);
        default: return u;
    }
}
__device__ inline float activation_slope(int code, float a, float y) {
    switch (code) {
        case 1: return y > 0.0f ? 1.0f : 0.0f;
        case 2: return y > 0.0f ? 1.0f : a;
        case 3: return y > 0.0f ? 1.0f : y + 1.0f;
        case 4: return y * (1.0f - y);
        case 5: return 1.0f - y * y;
        default: return 1.0f;
    }
}
