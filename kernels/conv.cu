// conv.cu                                                   math, shapes, choice of kernel: src/engine/ops/conv.rs
// conv_{gather,scatter,weight}[_k4s2p1]_{f32,tf32,bf16}
//                  implicit products of 64x64 tiles (tiles.cuh): patches are addressed, never written out
//                  gather   S = W·patches(L)         m = OC, n = B·OH·OW, k = C·taps
//                  scatter  L by phases of the stride: the pixels (y mod s, x mod s) = z are a product of their own, to which
//                           (k/s)² taps contribute: m = C, n = B·(H/s)·(W/s), k = OC·(k/s)²
//                  weight   dW = S·patches(L)ᵀ       m = OC, n = C·taps, k = B·OH·OW
//                  flops    2·B·OH·OW·OC·C·taps each
//                  bytes    at least 4·(B·C·H·W + B·OC·OH·OW + OC·C·taps); each operand is read once a tile of the other axis, a patch
//                           (k/s)² times more often than its image, of which the caches save most; scatter reads of a weight's 64
//                           bytes (k = 4) a quarter a phase
//                  grid     (⌈n/64⌉, ⌈m/64⌉, phases·parts); block f32 256 threads, tf32 and bf16 128
//                  sizes    any, no alignment; images of one operand below 2³¹ words. Kernel, stride and padding any, or 4, 2, 1 known to
//                           the compiler, where taps are shifts and masks and not divisions
//                  parts    where tiles are few, blocks share k; each part goes to an output of its own
// conv_parts_sum   y = f(Σ over parts, in order, + bias), or y += Σ; bytes 4·size·(parts + 1); a thread an element
// channel_sum      bytes 4·B·C·P; a block a channel, in f64
// measured         not yet on a GPU; checked in the emulator
#include "activation.cuh"
#include "tiles.cuh"

constexpr int TILE = 64;

// Kernel, stride, padding: known, or not.
struct K4s2p1 {
    static constexpr bool KNOWN = true;
    static constexpr int kernel = 4, stride = 2, padding = 1;
    __device__ __forceinline__ K4s2p1(int, int, int) {}
};
struct Any {
    static constexpr bool KNOWN = false;
    const int kernel, stride, padding;
    __device__ __forceinline__ Any(int kernel_, int stride_, int padding_) : kernel(kernel_), stride(stride_), padding(padding_) {}
};

struct Sizes {
    int batch, c, h, w, oc, oh, ow;
};

// What all three know: a tile, a share of k, how to store.
struct Output {
    float* to;
    const float* bias;
    int row, col;     // of the tile
    int first, last;  // of k
    int accumulate, code;
    float parameter;

    __device__ __forceinline__ void put(long long at, int channel, float sum) const {
        if (accumulate) {
            to[at] += sum;
        } else {
            to[at] = activation(code, parameter, bias ? sum + bias[channel] : sum);
        }
    }
};

// `size` words an output: a part goes into its own, plainly, and conv_parts_sum finishes it.
__device__ __forceinline__ Output output(float* to, const float* bias, long long size, int k, int share, int part, int parts, int accumulate, int code, float parameter) {
    Output o;
    o.to = to + share * size;
    o.bias = parts > 1 ? nullptr : bias;
    o.row = static_cast<int>(blockIdx.y) * TILE;
    o.col = static_cast<int>(blockIdx.x) * TILE;
    o.first = share * part;
    o.last = min(k, o.first + part);
    o.accumulate = parts > 1 ? 0 : accumulate;
    o.code = parts > 1 ? 0 : code;
    o.parameter = parameter;
    return o;
}

// The column that this thread carries of an operand whose columns are neighbours: x of Staged and StagedWords.
__device__ __forceinline__ int carried() { return static_cast<int>(threadIdx.x) % TILE; }

struct F32 {
    template <bool A_ALONG_K, bool B_ALONG_K, class ReadA, class ReadB, class Store>
    static __device__ __forceinline__ void product(const Output& o, const ReadA a, const ReadB b, const Store store) {
        product_f32<A_ALONG_K, B_ALONG_K, TILE, 16, 4>(o.first, o.last, a, b, store);
    }
};
template <class Format>
struct Mma {
    template <bool A_ALONG_K, bool B_ALONG_K, class ReadA, class ReadB, class Store>
    static __device__ __forceinline__ void product(const Output& o, const ReadA a, const ReadB b, const Store store) {
        product_mma<Format, A_ALONG_K, B_ALONG_K>(o.first, o.last, a, b, store);
    }
};

// ---- the small image: a column is a pixel of it, k runs over channels and taps of the large one ---------

template <class Format, class K>
__device__ __forceinline__ void gather(float* to, const float* __restrict__ weights, const float* __restrict__ large, const float* bias, const Sizes s, const K g,
                                       int part, int parts, int accumulate, int code, float parameter) {
    const int taps = g.kernel * g.kernel, depth = s.c * taps, pixels = s.oh * s.ow, n = s.batch * pixels;
    const Output o = output(to, bias, static_cast<long long>(n) * s.oc, depth, static_cast<int>(blockIdx.z), part, parts, accumulate, code, parameter);
    const int mine = o.col + carried(), pixel = mine % pixels;
    const bool inside = mine < n;
    const float* image = large + static_cast<long long>(mine / pixels) * s.c * s.h * s.w;
    const int y0 = pixel / s.ow * g.stride - g.padding, x0 = pixel % s.ow * g.stride - g.padding;

    const auto read_a = [&](auto& staged, int k0) { staged.read(weights, o.row, s.oc, k0, o.last, depth); };
    const auto read_b = [&](auto& staged, int k0) {
        staged.fill([&](int, int k) {
            const int kk = k0 + k, tap = kk % taps;
            const int y = y0 + tap / g.kernel, x = x0 + tap % g.kernel;
            const bool there = inside && kk < o.last && y >= 0 && y < s.h && x >= 0 && x < s.w;
            return there ? image[(kk / taps * s.h + y) * s.w + x] : 0.0f;
        });
    };
    Format::template product<true, false>(o, read_a, read_b, [&](int row, int col, float sum) {
        const int channel = o.row + row, at = o.col + col;
        if (channel < s.oc && at < n) o.put((static_cast<long long>(at / pixels) * s.oc + channel) * pixels + at % pixels, channel, sum);
    });
}

// ---- the large image: a column is a pixel of one phase, k runs over channels of the small one and the phase's taps --------

// Along one axis of the large image: its pixels s·i + phase get the taps first + s·t of the pixels from + i - t.
struct Phase {
    int phase, count, first, taps, from;
};

template <class K>
__device__ __forceinline__ Phase phase_of(int phase, int size, const K g) {
    Phase p;
    p.phase = phase;
    p.count = (size - phase + g.stride - 1) / g.stride;  // no pixels where the image is smaller than the stride: count 0
    p.first = (phase + g.padding) % g.stride;
    p.taps = K::KNOWN ? 2 : max(0, (g.kernel - p.first + g.stride - 1) / g.stride);
    p.from = (phase + g.padding) / g.stride;
    return p;
}

template <class Format, class K>
__device__ __forceinline__ void scatter(float* to, const float* __restrict__ weights, const float* __restrict__ small, const float* bias, const Sizes s, const K g,
                                        int part, int parts, int accumulate, int code, float parameter) {
    const int which = static_cast<int>(blockIdx.z) / parts, share = static_cast<int>(blockIdx.z) % parts;
    const Phase py = phase_of(which / g.stride, s.h, g), px = phase_of(which % g.stride, s.w, g);
    const int all = g.kernel * g.kernel, taps = K::KNOWN ? 4 : py.taps * px.taps, tap_columns = K::KNOWN ? 2 : px.taps;
    const int pixels = py.count * px.count, n = s.batch * pixels;
    const Output o = output(to, bias, static_cast<long long>(s.batch) * s.c * s.h * s.w, s.oc * taps, share, part, parts, accumulate, code, parameter);
    if (o.col >= n) return;  // the grid is as wide as the widest phase
    const int mine = o.col + carried(), pixel = mine % pixels;
    const bool inside = mine < n;
    const float* image = small + static_cast<long long>(mine / pixels) * s.oc * s.oh * s.ow;
    const int y0 = py.from + pixel / px.count, x0 = px.from + pixel % px.count;

    const auto read_a = [&](auto& staged, int k0) {
        staged.fill([&](int x, int k) {
            const int kk = k0 + k, channel = o.row + x;
            if (kk >= o.last || channel >= s.c) return 0.0f;
            const int tap = kk % taps, ky = py.first + g.stride * (tap / tap_columns), kx = px.first + g.stride * (tap % tap_columns);
            return weights[(static_cast<long long>(kk / taps) * s.c + channel) * all + ky * g.kernel + kx];
        });
    };
    const auto read_b = [&](auto& staged, int k0) {
        staged.fill([&](int, int k) {
            const int kk = k0 + k;
            if (kk >= o.last || !inside) return 0.0f;
            const int tap = kk % taps, y = y0 - tap / tap_columns, x = x0 - tap % tap_columns;
            return y >= 0 && y < s.oh && x >= 0 && x < s.ow ? image[(kk / taps * s.oh + y) * s.ow + x] : 0.0f;
        });
    };
    Format::template product<true, false>(o, read_a, read_b, [&](int row, int col, float sum) {
        const int channel = o.row + row, at = o.col + col;
        if (channel >= s.c || at >= n) return;
        const int cell = at / pixels, pixel_ = at % pixels, y = pixel_ / px.count * g.stride + py.phase, x = pixel_ % px.count * g.stride + px.phase;
        o.put(((static_cast<long long>(cell) * s.c + channel) * s.h + y) * s.w + x, channel, sum);
    });
}

// ---- the weights: a column is a tap, k runs over the pixels of the small images ---------------------------

template <class Format, class K>
__device__ __forceinline__ void weight(float* to, const float* __restrict__ small, const float* __restrict__ large, const float*, const Sizes s, const K g, int part,
                                       int parts, int accumulate, int code, float parameter) {
    const int taps = g.kernel * g.kernel, n = s.c * taps, pixels = s.oh * s.ow;
    const Output o = output(to, nullptr, static_cast<long long>(s.oc) * n, s.batch * pixels, static_cast<int>(blockIdx.z), part, parts, accumulate, code, parameter);

    const auto read_a = [&](auto& staged, int k0) {
        staged.fill([&](int x, int k) {
            const int kk = k0 + k, channel = o.row + x;
            if (kk >= o.last || channel >= s.oc) return 0.0f;
            return small[(static_cast<long long>(kk / pixels) * s.oc + channel) * pixels + kk % pixels];
        });
    };
    const auto read_b = [&](auto& staged, int k0) {
        staged.fill([&](int x, int k) {
            const int kk = k0 + k, col = o.col + x;
            if (kk >= o.last || col >= n) return 0.0f;
            const int pixel = kk % pixels, tap = col % taps;
            const int y = pixel / s.ow * g.stride - g.padding + tap / g.kernel, x_ = pixel % s.ow * g.stride - g.padding + tap % g.kernel;
            if (y < 0 || y >= s.h || x_ < 0 || x_ >= s.w) return 0.0f;
            return large[((static_cast<long long>(kk / pixels) * s.c + col / taps) * s.h + y) * s.w + x_];
        });
    };
    Format::template product<true, true>(o, read_a, read_b, [&](int row, int col, float sum) {
        const int channel = o.row + row, tap = o.col + col;
        if (channel < s.oc && tap < n) o.put(static_cast<long long>(channel) * n + tap, channel, sum);
    });
}

// ---- the kernels -----------------------------------------------------------------------------------

using Tensor32 = Mma<Tf32>;
using Tensor16 = Mma<Bf16>;

#define ARGUMENTS \
    float *to, const float *a, const float *b, const float *bias, int batch, int c, int h, int w, int oc, int oh, int ow, int kernel, int stride, \
        int padding, int part, int parts, int accumulate, int code, float parameter
#define CALL(K) to, a, b, bias, Sizes{batch, c, h, w, oc, oh, ow}, K(kernel, stride, padding), part, parts, accumulate, code, parameter

extern "C" __global__ void __launch_bounds__(256) conv_gather_f32(ARGUMENTS) { gather<F32, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(256) conv_gather_k4s2p1_f32(ARGUMENTS) { gather<F32, K4s2p1>(CALL(K4s2p1)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_gather_tf32(ARGUMENTS) { gather<Tensor32, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_gather_k4s2p1_tf32(ARGUMENTS) { gather<Tensor32, K4s2p1>(CALL(K4s2p1)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_gather_bf16(ARGUMENTS) { gather<Tensor16, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_gather_k4s2p1_bf16(ARGUMENTS) { gather<Tensor16, K4s2p1>(CALL(K4s2p1)); }

extern "C" __global__ void __launch_bounds__(256) conv_scatter_f32(ARGUMENTS) { scatter<F32, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(256) conv_scatter_k4s2p1_f32(ARGUMENTS) { scatter<F32, K4s2p1>(CALL(K4s2p1)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_scatter_tf32(ARGUMENTS) { scatter<Tensor32, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_scatter_k4s2p1_tf32(ARGUMENTS) { scatter<Tensor32, K4s2p1>(CALL(K4s2p1)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_scatter_bf16(ARGUMENTS) { scatter<Tensor16, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_scatter_k4s2p1_bf16(ARGUMENTS) { scatter<Tensor16, K4s2p1>(CALL(K4s2p1)); }

extern "C" __global__ void __launch_bounds__(256) conv_weight_f32(ARGUMENTS) { weight<F32, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(256) conv_weight_k4s2p1_f32(ARGUMENTS) { weight<F32, K4s2p1>(CALL(K4s2p1)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_weight_tf32(ARGUMENTS) { weight<Tensor32, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_weight_k4s2p1_tf32(ARGUMENTS) { weight<Tensor32, K4s2p1>(CALL(K4s2p1)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_weight_bf16(ARGUMENTS) { weight<Tensor16, Any>(CALL(Any)); }
extern "C" __global__ void __launch_bounds__(128, 3) conv_weight_k4s2p1_bf16(ARGUMENTS) { weight<Tensor16, K4s2p1>(CALL(K4s2p1)); }

extern "C" __global__ void __launch_bounds__(256)
conv_parts_sum(float* y, const float* of_part, const float* bias, int size, int channels, int pixels, int parts, int accumulate, int code, float parameter) {
    const int i = global_index();
    if (i >= size) return;
    float sum = 0.0f;
    for (int p = 0; p < parts; p++) sum += of_part[static_cast<long long>(p) * size + i];
    Output o = {};
    o.to = y, o.bias = bias, o.accumulate = accumulate, o.code = code, o.parameter = parameter;
    o.put(i, i / pixels % channels, sum);
}

extern "C" __global__ void __launch_bounds__(256) channel_sum(float* s, const float* x, int rows, int channels, int pixels, int add) {
    const int channel = static_cast<int>(blockIdx.x);
    const double sum = block_sum_of<double>(rows * pixels, [=](int i) {
        return x[(static_cast<long long>(i / pixels) * channels + channel) * pixels + i % pixels];
    });
    if (thread_number() == 0) s[channel] = (add ? s[channel] : 0.0f) + static_cast<float>(sum);
}
