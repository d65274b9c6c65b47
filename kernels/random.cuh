// random.cuh: Philox4x32-10 and the normal transform. Twin of src/device/random.rs, with its reasons; the two agree to the bit.
//
// Every operation here is an integer one, a single IEEE operation or an explicit fma: sources that include this file are compiled
// without contraction. Element e of (seed, stream, step) is word e mod 4 of the counter [e div 4, 0, step, stream].
#pragma once

#include "arch.cuh"

// What a number depends on besides its element.
struct RandomKey {
    unsigned seed_low, seed_high, stream, step;
};

struct RandomWords {
    unsigned w[4];
};

// Four random words for a counter and a key (Salmon et al. 2011).
__device__ __forceinline__ RandomWords philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned a_high = mul_hi(0xD2511F53u, c0), a_low = 0xD2511F53u * c0;
        const unsigned b_high = mul_hi(0xCD9E8D57u, c2), b_low = 0xCD9E8D57u * c2;
        c0 = b_high ^ c1 ^ k0;
        c1 = b_low;
        c2 = a_high ^ c3 ^ k1;
        c3 = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The words of elements 4·quad .. 4·quad + 3.
__device__ __forceinline__ RandomWords random_words(const RandomKey& key, unsigned quad) {
    return philox(quad, 0u, key.step, key.stream, key.seed_low, key.seed_high);
}

// Uniform on [0, 1) in steps of 2^-24.
__device__ __forceinline__ float to_uniform(unsigned word) { return static_cast<float>(static_cast<int>(word >> 8)) * 5.9604644775390625e-8f; }

// ln((2·floor(word/4) + 1) / 2^31), the argument rounded to float first.
__device__ __forceinline__ float ln_midpoint(unsigned word) {
    const int bits = static_cast<int>(bits_of(static_cast<float>(static_cast<int>((word >> 1) | 1u))));
    const int e = (bits - 0x3F3504F3) >> 23;
    const float f = float_of(static_cast<unsigned>(bits - e * (1 << 23))) - 1.0f;
    float p = -0.078596175f;
    p = fma_rn(p, f, 0.1288165f);
    p = fma_rn(p, f, -0.13128753f);
    p = fma_rn(p, f, 0.14181192f);
    p = fma_rn(p, f, -0.16624554f);
    p = fma_rn(p, f, 0.20002286f);
    p = fma_rn(p, f, -0.2500081f);
    p = fma_rn(p, f, 0.33333316f);
    const float ln_m = f + (f * f) * fma_rn(p, f, -0.5f);
    return fma_rn(static_cast<float>(e - 31), 0.693147180559945f, ln_m);
}

// Two independent standard normal numbers from two words.
__device__ __forceinline__ void to_normals(unsigned radius, unsigned angle, float& even, float& odd) {
    const float r = sqrt_rn(-2.0f * ln_midpoint(radius));
    // The nearest quarter turn, and what is left of it in turns, in [-1/8, 1/8).
    const unsigned quarter = (angle + (1u << 29)) >> 30;
    const float t = static_cast<float>(static_cast<int>(angle - (quarter << 30))) * 2.3283064365386963e-10f;
    const float s = t * t;
    float p = -75.4534f;
    p = fma_rn(p, s, 81.59394f);
    p = fma_rn(p, s, -41.341675f);
    const float sine = fma_rn(t, 6.283185307179586f, t * fma_rn(p, s, -1.7484555e-7f));
    p = 59.245964f;
    p = fma_rn(p, s, -85.44374f);
    p = fma_rn(p, s, 64.93932f);
    p = fma_rn(p, s, -19.739208f);
    const float cosine = fma_rn(p, s, 1.0f);
    const bool swap = quarter & 1u;
    const unsigned cos_sign = ((quarter + 1u) & 2u) << 30, sin_sign = (quarter & 2u) << 30;
    even = r * float_of(bits_of(swap ? sine : cosine) ^ cos_sign);
    odd = r * float_of(bits_of(swap ? cosine : sine) ^ sin_sign);
}

// Uniform numbers of elements 4·quad .. 4·quad + 3.
__device__ __forceinline__ void uniforms(const RandomKey& key, unsigned quad, float (&u)[4]) {
    const RandomWords r = random_words(key, quad);
#pragma unroll
    for (int i = 0; i < 4; i++) u[i] = to_uniform(r.w[i]);
}

// Standard normal numbers of elements 4·quad .. 4·quad + 3.
__device__ __forceinline__ void normals(const RandomKey& key, unsigned quad, float (&z)[4]) {
    const RandomWords r = random_words(key, quad);
    to_normals(r.w[0], r.w[1], z[0], z[1]);
    to_normals(r.w[2], r.w[3], z[2], z[3]);
}
