// Kernels that test the emulated device itself: what it must do, and what it must refuse. Not embedded, not for a GPU.
#include "common.cuh"

// y[i] = a·x[i] + y[i]; checks every kind of argument.
extern "C" __global__ void selftest_axpy(float* y, const float* x, int n, unsigned blocks, float a) {
    const int i = global_index();
    if (blocks == gridDim.x && i < n) y[i] += a * x[i];
}

// y reversed within each block, through shared memory; without the barrier (`wait` = 0) it must not come out right.
extern "C" __global__ void selftest_reverse(float* y, const float* x, int wait) {
    __shared__ float line[256];
    const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
    line[t] = x[blockIdx.x * blockDim.x + threadIdx.x];
    if (wait) __syncthreads();
    y[blockIdx.x * blockDim.x + threadIdx.x] = line[n - 1 - t];
}

// Every order of addition that common.cuh offers: sum, f64 sum, maximum, strided sum, ballot of one block.
extern "C" __global__ void selftest_sums(float* y, const float* x, int n) {
    const float sum = block_sum_of<float>(n, [=](int i) { return x[i]; });
    const double exact = block_sum_of<double>(n, [=](int i) { return x[i]; });
    const float top = block_max(thread_number() < n ? x[thread_number()] : -1e30f);
    const float every_third = block_sum_strided<float>(x, n / 3, 3);
    const unsigned odd = warp_ballot(lane_number() & 1);
    const float next = shfl_down(static_cast<float>(lane_number()), 1), first = shfl_idx(static_cast<float>(lane_number() + 5), 0);
    if (thread_number() == 37) {
        y[0] = sum;
        y[1] = static_cast<float>(exact);
        y[2] = top;
        y[3] = every_third;
        y[4] = odd == 0xaaaaaaaau ? 1.0f : 0.0f;
        y[5] = next;
        y[6] = first;
    }
}

// One 16x8x8 product in tf32 and one 16x8x16 in bf16: c[0..128] and c[128..256], by one warp.
extern "C" __global__ void selftest_mma(float* c, const float* a, const float* b) {
    const int g = lane_number() >> 2, t = lane_number() & 3;
    float x[4] = {}, z[4] = {};
    const unsigned a8[4] = {to_tf32(a[g * 16 + t]), to_tf32(a[(g + 8) * 16 + t]), to_tf32(a[g * 16 + t + 4]), to_tf32(a[(g + 8) * 16 + t + 4])};
    const unsigned b8[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
    mma_m16n8k8_tf32(x, a8, b8);
    const auto pair_a = [=](int row, int k) { return pack_bf16(a[row * 16 + k], a[row * 16 + k + 1]); };
    const auto pair_b = [=](int k) { return pack_bf16(b[k * 8 + g], b[(k + 1) * 8 + g]); };
    const unsigned a16[4] = {pair_a(g, 2 * t), pair_a(g + 8, 2 * t), pair_a(g, 2 * t + 8), pair_a(g + 8, 2 * t + 8)};
    const unsigned b16[2] = {pair_b(2 * t), pair_b(2 * t + 8)};
    mma_m16n8k16_bf16(z, a16, b16);
    for (int i = 0; i < 4; i++) {
        c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = x[i];
        c[128 + (g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = z[i];
    }
}

// y = x through dynamic shared memory by asynchronous copies; without waiting for them (`wait` = 0) y must not be x.
extern "C" __global__ void selftest_copy(float* y, const float* x, int n, int wait) {
    DYNAMIC_SHARED(float, line);
    const int t = thread_number();
    copy_async<4>(line + t, x + (t < n ? t : 0), t < n);
    copy_async_commit();
    if (wait) copy_async_wait<0>();
    __syncthreads();
    y[t] = line[thread_count() - 1 - t];
}

// Shared memory that was never written: NaN in every block, also after a block that wrote it.
extern "C" __global__ void selftest_stale(float* y) {
    __shared__ float cell;
    DYNAMIC_SHARED(float, line);
    y[blockIdx.x] = cell + line[0];
    cell = 1.0f;
    line[0] = 1.0f;
}

// Thread 3 returns, or half of the block meets another function: hangs on a GPU, an error here.
extern "C" __global__ void selftest_early_return(float* y) {
    if (threadIdx.x == 3) return;
    __syncthreads();
    y[threadIdx.x] = 1.0f;
}
extern "C" __global__ void selftest_divergence(float* y) {
    if (threadIdx.x < 7) sync_warp();
    __syncthreads();
    y[threadIdx.x] = 1.0f;
}
extern "C" __global__ void selftest_mixed_warp(float* y) {
    float v = 1.0f;
    if (threadIdx.x & 1) {
        v = shfl_xor(v, 1);
    } else {
        sync_warp();
    }
    y[threadIdx.x] = v;
}

// Writes one value too many.
extern "C" __global__ void selftest_overrun(float* y, int n) {
    if (threadIdx.x == 0) y[n] = 1.0f;
}
