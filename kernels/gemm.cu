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
//                  the second number of its launch bounds the compiler aimed at 80 to 96 for the tensor-core kernels, at 64 for f32, and spilled
// measured         not yet on a GPU; checked in the emulator
#include "activation.cuh"
#include "tiles.cuh"

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

// How both kinds of tile read and store.
template <Layout L>
struct Rows {
    const Place p;
    const int m, n, k;
    const Epilogue e;

    template <class S>
    __device__ __forceinline__ void a(S& staged, int k0) const {
        staged.read(p.a, p.row, m, k0, p.last, L == TN ? m : k);
    }
    template <class S>
    __device__ __forceinline__ void b(S& staged, int k0) const {
        staged.read(p.b, p.col, n, k0, p.last, L == NT ? k : n);
    }
    __device__ __forceinline__ void c(int row, int col, float sum) const {
        if (p.row + row < m && p.col + col < n) store(p.c + static_cast<long long>(p.row + row) * n + p.col + col, sum, p.col + col, e);
    }
};

template <Layout L, int TILE, int DEPTH, int SIDE>
__device__ __forceinline__ void rows_f32(const Place p, int m, int n, int k, const Epilogue e) {
    const Rows<L> r = {p, m, n, k, e};
    product_f32<L != TN, L == NT, TILE, DEPTH, SIDE>(
        p.first, p.last, [&](auto& s, int k0) { r.a(s, k0); }, [&](auto& s, int k0) { r.b(s, k0); },
        [&](int row, int col, float sum) { r.c(row, col, sum); });
}

template <class F, Layout L>
__device__ __forceinline__ void rows_mma(const Place p, int m, int n, int k, const Epilogue e) {
    const Rows<L> r = {p, m, n, k, e};
    product_mma<F, L != TN, L == NT>(
        p.first, p.last, [&](auto& s, int k0) { r.a(s, k0); }, [&](auto& s, int k0) { r.b(s, k0); },
        [&](int row, int col, float sum) { r.c(row, col, sum); });
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

extern "C" __global__ void __launch_bounds__(256, 3) gemm_nn_f32(ARGUMENTS) { rows_f32<NN, 64, 16, 4>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(256, 3) gemm_nt_f32(ARGUMENTS) { rows_f32<NT, 64, 16, 4>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(256, 3) gemm_tn_f32(ARGUMENTS) { rows_f32<TN, 64, 16, 4>(PLACE(64)); }

extern "C" __global__ void __launch_bounds__(256, 1) gemm_nn_f32_wide(ARGUMENTS) { rows_f32<NN, 128, 8, 8>(PLACE(128)); }
extern "C" __global__ void __launch_bounds__(256, 1) gemm_nt_f32_wide(ARGUMENTS) { rows_f32<NT, 128, 8, 8>(PLACE(128)); }
extern "C" __global__ void __launch_bounds__(256, 1) gemm_tn_f32_wide(ARGUMENTS) { rows_f32<TN, 128, 8, 8>(PLACE(128)); }

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nn_tf32(ARGUMENTS) { rows_mma<Tf32, NN>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_nt_tf32(ARGUMENTS) { rows_mma<Tf32, NT>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_tn_tf32(ARGUMENTS) { rows_mma<Tf32, TN>(PLACE(64)); }

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nn_bf16(ARGUMENTS) { rows_mma<Bf16, NN>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_nt_bf16(ARGUMENTS) { rows_mma<Bf16, NT>(PLACE(64)); }
extern "C" __global__ void __launch_bounds__(128, 3) gemm_tn_bf16(ARGUMENTS) { rows_mma<Bf16, TN>(PLACE(64)); }

extern "C" __global__ void __launch_bounds__(256)
gemm_parts_sum(float* c, const float* of_part, const float* bias, int m, int n, int parts, int accumulate, int code, float parameter) {
    const int i = global_index();
    if (i >= m * n) return;
    float sum = 0.0f;
    for (int p = 0; p < parts; p++) sum += of_part[static_cast<long long>(p) * m * n + i];
    Epilogue e = {bias, accumulate, code, parameter};
    store(c + i, sum, i % n, e);
}
