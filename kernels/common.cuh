// common.cuh: sums and maxima of a warp, of a block, of a range by one block. No op.
//
// Every sum is a tree of a shape that depends on the block's size alone, and every thread gets the same bits of it. Blocks have a
// multiple of 32 threads; the block functions are called by all of them. T is float or double (maxima: int too).
#pragma once

#include "arch.cuh"

// Of this thread in the grid, and the grid's threads, along x.
__device__ __forceinline__ int global_index() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ __forceinline__ int global_count() { return static_cast<int>(gridDim.x * blockDim.x); }

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v += shfl_xor(v, mask);
    return v;
}

template <class T>
__device__ __forceinline__ T larger(T a, T b) {
    return a > b || a != a ? a : b;  // a NaN wins: it must not disappear in a maximum
}

template <class T>
__device__ __forceinline__ T warp_max(T v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v = larger(v, shfl_xor(v, mask));
    return v;
}

// Σ of v over the block, in every thread.
template <class T>
__device__ T block_sum(T v) {
    __shared__ T of_warp[32];
    v = warp_sum(v);
    if (lane_number() == 0) of_warp[warp_number()] = v;
    __syncthreads();
    v = warp_sum(lane_number() < thread_count() / 32 ? of_warp[lane_number()] : T(0));
    __syncthreads();  // of_warp may be written again at once
    return v;
}

// Maximum of v over the block, in every thread.
template <class T>
__device__ T block_max(T v) {
    __shared__ T of_warp[32];
    v = warp_max(v);
    if (lane_number() == 0) of_warp[warp_number()] = v;
    __syncthreads();
    v = warp_max(of_warp[lane_number() < thread_count() / 32 ? lane_number() : 0]);
    __syncthreads();
    return v;
}

// Σ over i < n of term(i) in every thread of the block, term(i) by thread i mod its size, accumulated in T. `term` is any callable.
template <class T, class F>
__device__ __forceinline__ T block_sum_of(int n, F term) {
    T sum = T(0);
    for (int i = thread_number(); i < n; i += thread_count()) sum += static_cast<T>(term(i));
    return block_sum(sum);
}

// Σ over i < n of x[i·stride], in every thread of the block.
template <class T>
__device__ __forceinline__ T block_sum_strided(const float* __restrict__ x, int n, int stride) {
    return block_sum_of<T>(n, [=](int i) { return x[static_cast<long long>(i) * stride]; });
}
