// gemm.cu                                                   math, shapes, choice of kernel: src/engine/ops/gemm.rs
// gemm_{nn,nt,tn}_{f32,tf32,bf16}, gemm_{nn,nt,tn}_f32_wide
//                  c = f(op(a)·op(b) + bias), or c += op(a)·op(b); 2·m·n·k flops
//                  bytes   4·(m·k·⌈n/TILE⌉ + k·n·⌈m/TILE⌉ + m·n), of which the caches save what tiles share
//                  grid    (⌈n/TILE⌉, ⌈m/TILE⌉, batch·parts), TILE 64, or 128 for _wide
//                  block   f32 and f32_wide 256 threads, tf32 and bf16 128
//                  sizes   any, also 0; no alignment. Neighbouring threads read neighbouring words, one word at a time: a row of 1,253 genes
//                          is aligned to nothing, and a thread of f32_wide does 64 multiply-adds for each word it loads
//                  parts   where tiles are few, block z computes k from part·z to part·(z+1), into its own matrix of c
// gemm_parts_sum   c = f(Σ over parts, in order, + bias), or c += Σ; bytes 4·m·n·(parts + 1); a thread an element
// registers        at most 168 (tf32, bf16: three blocks a multiprocessor) and 161 (f32_wide); no spills for sm_80, sm_90a, sm_100. Without
//                  the second number of its launch bounds the compiler aimed at 80 to 96 for the tensor-core kernels and spilled
// measured         not yet on a GPU; checked in the emulator
#include "activation.cuh"
#include "common.cuh"

enum Layout { NN, NT, TN };

// Where a block works: its tile of C, its matrices, its share of k.
struct Place {
    float* c;
    const float *a, *b;
    int row, col;      // of the tile in C
    int first, last;   // of k
};

template <int TILE>
__device__ __forceinline__ Place place(float* c, const float* a, const float* b, int m, int n, int k, int part, int parts) {
    const int batch = static_cast<int>(blockIdx.z) / parts, share = static_cast<int>(blockIdx.z) % parts;
    const long long product = batch;
    Place p;
    p.c = c + (product * parts + share) * m * n;
    p.a = a + product * m * k;
    p.b = b + product * k * n;
    p.row = static_cast<int>(blockIdx.y) * TILE;
    p.col = static_cast<int>(blockIdx.x) * TILE;
    p.first = share * part;
    p.last = min(k, p.first + part);
    return p;
}

// How a block stores its tile.
struct Epilogue {
    const float* bias;  // or null
    int accumulate, code;
    float parameter;
};

// Only where k is not shared; a part of k is stored as it is, and gemm_parts_sum finishes it.
__device__ __forceinline__ void store(float* c, float sum, int col, const Epilogue& e) {
    if (e.accumulate) {
        *c += sum;
    } else {
        *c = activation(e.code, e.parameter, e.bias ? sum + e.bias[col] : sum);
    }
}

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
};

// ---- f32: every thread a square of C, in registers -------------------------------------------------

// Shared memory holds DEPTH rows of TILE values, k by x, twice: one is computed with while the other is filled. A row is four words
// longer than TILE, so that threads which store neighbouring k of one x do not all meet in one bank, and float4 stay aligned.
template <Layout L, int TILE, int DEPTH, int SIDE>
__device__ __forceinline__ void product_f32(const Place p, int m, int n, int k, const Epilogue e) {
    constexpr int THREADS = (TILE / SIDE) * (TILE / SIDE), ROW = TILE + 4;
    static_assert(SIDE % 4 == 0, "a thread's square is made of float4");
    __shared__ __align__(16) float tile_a[2][DEPTH][ROW];
    __shared__ __align__(16) float tile_b[2][DEPTH][ROW];
    // Of a thread's SIDE rows, four lie together, the next four TILE/(SIDE/4) further: a warp's float4 reads then cover all banks evenly.
    constexpr int GROUPS = SIDE / 4, STEP = TILE / GROUPS;
    const int t = static_cast<int>(threadIdx.x);
    const int my_row = t / (TILE / SIDE) * 4, my_col = t % (TILE / SIDE) * 4;
    float sum[SIDE][SIDE] = {};
    Staged<TILE, DEPTH, THREADS, L != TN> a;
    Staged<TILE, DEPTH, THREADS, L == NT> b;
    const int stride_a = L == TN ? m : k, stride_b = L == NT ? k : n;

    const auto read = [&](int k0) {
        a.read(p.a, p.row, m, k0, p.last, stride_a);
        b.read(p.b, p.col, n, k0, p.last, stride_b);
    };
    const auto put = [&](int side) {
#pragma unroll
        for (int i = 0; i < a.COUNT; i++) tile_a[side][a.k(i)][a.x(i)] = a.value[i];
#pragma unroll
        for (int i = 0; i < b.COUNT; i++) tile_b[side][b.k(i)][b.x(i)] = b.value[i];
    };
    int side = 0;
    read(p.first);
    put(side);
    __syncthreads();
    for (int k0 = p.first; k0 < p.last; k0 += DEPTH) {
        const bool more = k0 + DEPTH < p.last;
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
        const int row = p.row + my_row + i / 4 * STEP + i % 4;
#pragma unroll
        for (int j = 0; j < SIDE; j++) {
            const int col = p.col + my_col + j / 4 * STEP + j % 4;
            if (row < m && col < n) store(p.c + static_cast<long long>(row) * n + col, sum[i][j], col, e);
        }
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
    // Rounds here and not in read(), which must not wait for its loads.
    __device__ __forceinline__ void put(unsigned* shared) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) shared[at(x(i), w(i))] = F::pack(value[i]);
    }
};

// 64x64 of C by four warps of 32x32 each: 2 by 4 mma of 16x8, eight words of k at a time.
template <class F, Layout L>
__device__ __forceinline__ void product_mma(const Place p, int m, int n, int k, const Epilogue e) {
    constexpr int TILE = 64, WORDS = 16, THREADS = 128, DEPTH = WORDS * F::WORD, DOWN = 2, ACROSS = 4;
    using A = StagedWords<F, TILE, WORDS, THREADS, L != TN>;
    using B = StagedWords<F, TILE, WORDS, THREADS, L == NT>;
    __shared__ unsigned tile_a[2][A::ROOM];
    __shared__ unsigned tile_b[2][B::ROOM];
    const int g = lane_number() >> 2, t = lane_number() & 3;
    const int my_row = warp_number() / 2 * 32, my_col = warp_number() % 2 * 32;
    float sum[DOWN][ACROSS][4] = {};
    A a;
    B b;
    const int stride_a = L == TN ? m : k, stride_b = L == NT ? k : n;

    const auto read = [&](int k0) {
        a.read(p.a, p.row, m, k0, p.last, stride_a);
        b.read(p.b, p.col, n, k0, p.last, stride_b);
    };
    int side = 0;
    read(p.first);
    a.put(tile_a[side]);
    b.put(tile_b[side]);
    __syncthreads();
    for (int k0 = p.first; k0 < p.last; k0 += DEPTH) {
        const bool more = k0 + DEPTH < p.last;
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
            for (int q = 0; q < 4; q++) {
                const int row = p.row + my_row + 16 * i + g + 8 * (q / 2), col = p.col + my_col + 8 * j + 2 * t + q % 2;
                if (row < m && col < n) store(p.c + static_cast<long long>(row) * n + col, sum[i][j][q], col, e);
            }
}

// ---- the kernels -----------------------------------------------------------------------------------

// A part of k is stored plainly into its own matrix.
__device__ __forceinline__ Epilogue epilogue(const float* bias, int parts, int accumulate, int code, float parameter) {
    Epilogue e;
    e.bias = parts > 1 ? nullptr : bias;
    e.accumulate = parts > 1 ? 0 : accumulate;
    e.code = parts > 1 ? 0 : code;
    e.parameter = parameter;
    return e;
}

#define ARGUMENTS float *c, const float *a, const float *b, const float *bias, int m, int n, int k, int part, int parts, int accumulate, int code, float parameter
#define PLACE(TILE) place<TILE>(c, a, b, m, n, k, part, parts), m, n, k, epilogue(bias, parts, accumulate, code, parameter)

extern "C" __global__ void __launch_bounds__(256) gemm_nn_f32(ARGUMENTS) { product_f32<NN, 64, 16, 4>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(256) gemm_nt_f32(ARGUMENTS) { product_f32<NT, 64, 16, 4>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(256) gemm_tn_f32(ARGUMENTS) { product_f32<TN, 64, 16, 4>(PLACE(64)); }

extern "C" __global__ void __launch_bounds__(256, 1) gemm_nn_f32_wide(ARGUMENTS) { product_f32<NN, 128, 8, 8>(PLACE(128)); }
extern "C" __global__ void __launch_bounds__(256, 1) gemm_nt_f32_wide(ARGUMENTS) { product_f32<NT, 128, 8, 8>(PLACE(128)); }
extern "C" __global__ void __launch_bounds__(256, 1) gemm_tn_f32_wide(ARGUMENTS) { product_f32<TN, 128, 8, 8>(PLACE(128)); }

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nn_tf32(ARGUMENTS) { product_mma<Tf32, NN>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_nt_tf32(ARGUMENTS) { product_mma<Tf32, NT>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_tn_tf32(ARGUMENTS) { product_mma<Tf32, TN>(PLACE(64)); }

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nn_bf16(ARGUMENTS) { product_mma<Bf16, NN>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_nt_bf16(ARGUMENTS) { product_mma<Bf16, NT>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_tn_bf16(ARGUMENTS) { product_mma<Bf16, TN>(PLACE(64)); }

extern "C" __global__ void __launch_bounds__(256)
gemm_parts_sum(float* c, const float* of_part, const float* bias, int m, int n, int parts, int accumulate, int code, float parameter) {
    const int i = global_index();
    if (i >= m * n) return;
    float sum = 0.0f;
    for (int p = 0; p < parts; p++) sum += of_part[static_cast<long long>(p) * m * n + i];
    Epilogue e = {bias, accumulate, code, parameter};
    store(c + i, sum, i % n, e);
}
