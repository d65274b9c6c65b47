// tiles.cuh: a tile of C = A·B by one block, for every kernel that is a matrix product: gemm.cu, conv.cu.
//
// Sizes, addresses and what happens to a sum are the kernel's: it gives `read_a(staged, k0)` and `read_b(staged, k0)`, which bring the
// part of an operand that begins at k0 into the registers of a Staged, and `store(row, col, sum)`, both counted from the tile's corner.
// k runs from `first` to `last`; what lies behind `last` is read as zero. A sum is one chain of multiply-adds in order of k.
#pragma once

#include "common.cuh"

// Part of an operand, TILE along x (rows of C for A, columns for B) by DEPTH along k, on its way from global memory to shared:
// read() takes it to registers, one element a thread at a time, while the last part is still computed with.
template <int TILE, int DEPTH, int THREADS, bool ALONG_K>
struct Staged {
    static constexpr int COUNT = TILE * DEPTH / THREADS;
    static_assert(TILE * DEPTH % THREADS == 0 && THREADS % (ALONG_K ? DEPTH : TILE) == 0, "every thread carries as much, along one k or one x");
    float value[COUNT];

    // Element i of this thread.
    static __device__ __forceinline__ int x(int i) {
        const int t = static_cast<int>(threadIdx.x);
        return ALONG_K ? t / DEPTH + i * (THREADS / DEPTH) : t % TILE;
    }
    static __device__ __forceinline__ int k(int i) {
        const int t = static_cast<int>(threadIdx.x);
        return ALONG_K ? t % DEPTH : t / TILE + i * (THREADS / TILE);
    }
    // From x0 and k0 on; zero from x_end and k_end on. `stride` lies between rows in memory.
    __device__ __forceinline__ void read(const float* __restrict__ from, int x0, int x_end, int k0, int k_end, int stride) {
        // One pointer that walks: an address an element would take two registers an element.
        const float* at = from + (ALONG_K ? static_cast<long long>(x0 + x(0)) * stride + k0 + k(0) : static_cast<long long>(k0 + k(0)) * stride + x0 + x(0));
        const long long walk = static_cast<long long>(ALONG_K ? THREADS / DEPTH : THREADS / TILE) * stride;
#pragma unroll
        for (int i = 0; i < COUNT; i++, at += walk) value[i] = x0 + x(i) < x_end && k0 + k(i) < k_end ? *at : 0.0f;
    }
    // From wherever `at(x, k)` says, both counted from the corner of this part.
    template <class At>
    __device__ __forceinline__ void fill(const At at) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) value[i] = at(x(i), k(i));
    }
};

// ---- f32: every thread a square of C, in registers -------------------------------------------------

// Shared memory holds DEPTH rows of TILE values, k by x, twice: one is computed with while the other is filled. A row is four words
// longer than TILE, so that threads which store neighbouring k of one x do not all meet in one bank, and float4 stay aligned.
template <bool A_ALONG_K, bool B_ALONG_K, int TILE, int DEPTH, int SIDE, class ReadA, class ReadB, class Store>
__device__ __forceinline__ void product_f32(int first, int last, const ReadA read_a, const ReadB read_b, const Store store) {
    constexpr int THREADS = (TILE / SIDE) * (TILE / SIDE), ROW = TILE + 4;
    static_assert(SIDE % 4 == 0, "a thread's square is made of float4");
    __shared__ __align__(16) float tile_a[2][DEPTH][ROW];
    __shared__ __align__(16) float tile_b[2][DEPTH][ROW];
    // Of a thread's SIDE rows, four lie together, the next four TILE/(SIDE/4) further: a warp's float4 reads then cover all banks evenly.
    constexpr int GROUPS = SIDE / 4, STEP = TILE / GROUPS;
    const int t = static_cast<int>(threadIdx.x);
    const int my_row = t / (TILE / SIDE) * 4, my_col = t % (TILE / SIDE) * 4;
    float sum[SIDE][SIDE] = {};
    Staged<TILE, DEPTH, THREADS, A_ALONG_K> a;
    Staged<TILE, DEPTH, THREADS, B_ALONG_K> b;
    const auto read = [&](int k0) {
        read_a(a, k0);
        read_b(b, k0);
    };
    const auto put = [&](int side) {
#pragma unroll
        for (int i = 0; i < a.COUNT; i++) tile_a[side][a.k(i)][a.x(i)] = a.value[i];
#pragma unroll
        for (int i = 0; i < b.COUNT; i++) tile_b[side][b.k(i)][b.x(i)] = b.value[i];
    };
    int side = 0;
    read(first);
    put(side);
    __syncthreads();
    for (int k0 = first; k0 < last; k0 += DEPTH) {
        const bool more = k0 + DEPTH < last;
        if (more) read(k0 + DEPTH);
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            float x[SIDE], y[SIDE];
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                const float4 u = *reinterpret_cast<const float4*>(&tile_a[side][d][my_row + g * STEP]);
                const float4 v = *reinterpret_cast<const float4*>(&tile_b[side][d][my_col + g * STEP]);
                x[4 * g] = u.x, x[4 * g + 1] = u.y, x[4 * g + 2] = u.z, x[4 * g + 3] = u.w;
                y[4 * g] = v.x, y[4 * g + 1] = v.y, y[4 * g + 2] = v.z, y[4 * g + 3] = v.w;
            }
#pragma unroll
            for (int i = 0; i < SIDE; i++)
#pragma unroll
                for (int j = 0; j < SIDE; j++) sum[i][j] = mad(x[i], y[j], sum[i][j]);
        }
        side ^= 1;
        if (more) put(side);  // nobody reads this side: all passed the last barrier after computing with it
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < SIDE; i++) {
        const int row = my_row + i / 4 * STEP + i % 4;
#pragma unroll
        for (int j = 0; j < SIDE; j++) store(row, my_col + j / 4 * STEP + j % 4, sum[i][j]);
    }
}

// ---- tf32 and bf16: every warp a square of C, by mma ---------------------------------------------------

// What a format puts into a 32-bit word of a fragment: WORD values along k. In words, the fragments of both mma are the same.
struct Tf32 {
    static constexpr int WORD = 1;
    static __device__ __forceinline__ unsigned pack(const float* v) { return to_tf32(v[0]); }
    static __device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_m16n8k8_tf32(c, a, b); }
};
struct Bf16 {
    static constexpr int WORD = 2;
    static __device__ __forceinline__ unsigned pack(const float* v) { return pack_bf16(v[0], v[1]); }
    static __device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_m16n8k16_bf16(c, a, b); }
};

// As Staged, in words of WORD values along k; and where a word lies in shared memory: x by word where memory runs along k, word by x where it
// runs along x. Rows are padded so that the 32 words of a fragment, (lane / 4, lane % 4), lie in 32 banks: 20·g + t and 8·t + g all differ.
template <class F, int TILE, int WORDS, int THREADS, bool ALONG_K>
struct StagedWords {
    static constexpr int COUNT = TILE * WORDS / THREADS, ROW = ALONG_K ? WORDS + 4 : TILE + 8;
    static constexpr int ROOM = ALONG_K ? TILE * ROW : WORDS * ROW;
    static_assert(TILE * WORDS % THREADS == 0 && THREADS % (ALONG_K ? WORDS : TILE) == 0 && WORDS % 16 == 0 && TILE % 32 == 0, "no bank conflicts");
    float value[COUNT][F::WORD];

    static __device__ __forceinline__ int at(int x, int w) { return ALONG_K ? x * ROW + w : w * ROW + x; }
    static __device__ __forceinline__ int x(int i) {
        const int t = static_cast<int>(threadIdx.x);
        return ALONG_K ? t / WORDS + i * (THREADS / WORDS) : t % TILE;
    }
    static __device__ __forceinline__ int w(int i) {
        const int t = static_cast<int>(threadIdx.x);
        return ALONG_K ? t % WORDS : t / TILE + i * (THREADS / TILE);
    }
    __device__ __forceinline__ void read(const float* __restrict__ from, int x0, int x_end, int k0, int k_end, int stride) {
        const int my_x = x0 + x(0), my_k = k0 + w(0) * F::WORD;
        const float* at = from + (ALONG_K ? static_cast<long long>(my_x) * stride + my_k : static_cast<long long>(my_k) * stride + my_x);
        const long long walk = static_cast<long long>(ALONG_K ? THREADS / WORDS : THREADS / TILE * F::WORD) * stride;
        const int next = ALONG_K ? 1 : stride;  // along k
#pragma unroll
        for (int i = 0; i < COUNT; i++, at += walk) {
#pragma unroll
            for (int j = 0; j < F::WORD; j++) value[i][j] = x0 + x(i) < x_end && k0 + w(i) * F::WORD + j < k_end ? at[j * next] : 0.0f;
        }
    }
    template <class At>
    __device__ __forceinline__ void fill(const At at) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
#pragma unroll
            for (int j = 0; j < F::WORD; j++) value[i][j] = at(x(i), w(i) * F::WORD + j);
    }
    // Rounds here and not in read(), which must not wait for its loads.
    __device__ __forceinline__ void put(unsigned* shared) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) shared[at(x(i), w(i))] = F::pack(value[i]);
    }
};

// 64x64 of C by four warps of 32x32 each: 2 by 4 mma of 16x8, eight words of k at a time.
template <class F, bool A_ALONG_K, bool B_ALONG_K, class ReadA, class ReadB, class Store>
__device__ __forceinline__ void product_mma(int first, int last, const ReadA read_a, const ReadB read_b, const Store store) {
    constexpr int TILE = 64, WORDS = 16, THREADS = 128, DEPTH = WORDS * F::WORD, DOWN = 2, ACROSS = 4;
    using A = StagedWords<F, TILE, WORDS, THREADS, A_ALONG_K>;
    using B = StagedWords<F, TILE, WORDS, THREADS, B_ALONG_K>;
    __shared__ unsigned tile_a[2][A::ROOM];
    __shared__ unsigned tile_b[2][B::ROOM];
    const int g = lane_number() >> 2, t = lane_number() & 3;
    const int my_row = warp_number() / 2 * 32, my_col = warp_number() % 2 * 32;
    float sum[DOWN][ACROSS][4] = {};
    A a;
    B b;
    const auto read = [&](int k0) {
        read_a(a, k0);
        read_b(b, k0);
    };
    int side = 0;
    read(first);
    a.put(tile_a[side]);
    b.put(tile_b[side]);
    __syncthreads();
    for (int k0 = first; k0 < last; k0 += DEPTH) {
        const bool more = k0 + DEPTH < last;
        if (more) read(k0 + DEPTH);
#pragma unroll
        for (int w = 0; w < WORDS; w += 8) {
            unsigned x[DOWN][4], y[ACROSS][2];
#pragma unroll
            for (int i = 0; i < DOWN; i++)
#pragma unroll
                for (int q = 0; q < 4; q++) x[i][q] = tile_a[side][A::at(my_row + 16 * i + g + 8 * (q % 2), w + t + 4 * (q / 2))];
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
#pragma unroll
                for (int q = 0; q < 2; q++) y[j][q] = tile_b[side][B::at(my_col + 8 * j + g, w + t + 4 * q)];
#pragma unroll
            for (int i = 0; i < DOWN; i++)
#pragma unroll
                for (int j = 0; j < ACROSS; j++) F::mma(sum[i][j], x[i], y[j]);
        }
        side ^= 1;
        if (more) {
            a.put(tile_a[side]);
            b.put(tile_b[side]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int j = 0; j < ACROSS; j++)
#pragma unroll
            for (int q = 0; q < 4; q++) store(my_row + 16 * i + g + 8 * (q / 2), my_col + 8 * j + 2 * t + q % 2, sum[i][j][q]);
}
