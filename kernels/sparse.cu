// sparse.cu                                              math and shapes: src/engine/ops/sparse.rs
// sparse_dense        bytes 4*B*D + 8*n; a block a row: base or zeros, then the row's entries, whose columns differ
// sparse_linear_fwd   2*n*H operations; bytes 4*D*H a tile of 32 rows + 8*n a tile of 128 outputs. A block a tile, two outputs and eight rows a
//                     thread: 64 columns of W pass through shared memory, transposed, and every row walks on to where they end
// sparse_linear_bwd   2*n*H operations; bytes 4*D*H + a row of dy a run of entries. A block 64 columns by 128 outputs, an output a thread: the rows'
//                     runs of entries within the columns are found by bisection, 128 rows at a time, and added one row after the other
// sparse_dropped      bytes 16*n + 4*B*B/2 of row starts, cached; a Philox call an entry. A block a row: where its entries go is a sum over the
//                     rows before it, of which each block makes its own
// n entries in the minibatch's rows, which are order[clock[1] + b], or b where there is no order; columns ascend in a row. Sums go by columns
// or by rows in their order, times clock[knob] (knob >= 0), or 1 minus that. any size, no alignment required. measured: not yet on a GPU
#include "activation.cuh"
#include "common.cuh"
#include "random.cuh"

namespace sparse {

constexpr int COLS = 64, OUTS = 128, ROWS = 8;

__device__ __forceinline__ float scale_of(const unsigned* clock, int knob, int rest) {
    if (knob < 0) return 1.0f;
    const float v = float_of(clock[knob]);
    return rest ? 1.0f - v : v;
}

__device__ __forceinline__ unsigned row_of(const unsigned* order, const unsigned* clock, int b) {
    return order ? order[clock[1] + static_cast<unsigned>(b)] : static_cast<unsigned>(b);
}

// The first entry from e on whose column is at least `least`.
__device__ __forceinline__ unsigned lower_bound(const unsigned* columns, unsigned e, unsigned end, unsigned least) {
    while (e < end) {
        const unsigned middle = e + (end - e) / 2;
        if (columns[middle] < least)
            e = middle + 1;
        else
            end = middle;
    }
    return e;
}

}  // namespace sparse

extern "C" __global__ void sparse_dense(float* y, const unsigned* starts, const unsigned* columns, const float* values, const unsigned* order,
                                        const unsigned* clock, const float* base, int rows, int cols, int knob, int rest, int add) {
    const int b = static_cast<int>(blockIdx.x);
    const bool inside = b < rows;
    float* to = y + static_cast<size_t>(inside ? b : 0) * static_cast<size_t>(cols);
    if (inside && !add)
        for (int c = static_cast<int>(threadIdx.x); c < cols; c += static_cast<int>(blockDim.x)) to[c] = base ? base[c] : 0.0f;
    __syncthreads();
    if (!inside) return;
    const unsigned row = sparse::row_of(order, clock, b);
    const float scale = sparse::scale_of(clock, knob, rest);
    for (unsigned e = starts[row] + threadIdx.x; e < starts[row + 1]; e += blockDim.x) to[columns[e]] += scale * values[e];
}

// The rows, one after the other, with a row's entry at column c dropped by the element's number of (stream, step): zero, or times `scale`.
extern "C" __global__ void sparse_dropped(unsigned* to_starts, unsigned* to_columns, float* to_values, const unsigned* starts,
                                          const unsigned* columns, const float* values, const unsigned* order, const unsigned* clock, int rows,
                                          int cols, float p, float scale, unsigned stream, unsigned seed_low, unsigned seed_high) {
    const int b = static_cast<int>(blockIdx.x);
    const bool inside = b < rows;
    // Exact: numbers of entries.
    const unsigned before = static_cast<unsigned>(block_sum_of<double>(inside ? b : 0, [=](int i) {
        const unsigned row = sparse::row_of(order, clock, i);
        return static_cast<double>(starts[row + 1] - starts[row]);
    }));
    if (!inside) return;
    const unsigned row = sparse::row_of(order, clock, b), begin = starts[row], entries = starts[row + 1] - begin;
    if (threadIdx.x == 0) {
        to_starts[b] = before;
        if (b == rows - 1) to_starts[rows] = before + entries;
    }
    const RandomKey key = {seed_low, seed_high, stream, clock[0]};
    for (unsigned i = threadIdx.x; i < entries; i += blockDim.x) {
        const unsigned c = columns[begin + i], element = static_cast<unsigned>(b) * static_cast<unsigned>(cols) + c;
        float u[4];
        uniforms(key, element / 4, u);
        const float low = element & 1 ? u[1] : u[0], high = element & 1 ? u[3] : u[2];
        to_columns[before + i] = c;
        to_values[before + i] = (element & 2 ? high : low) >= p ? values[begin + i] * scale : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    sparse_linear_fwd(float* y, const unsigned* starts, const unsigned* columns, const float* values, const unsigned* order,
                      const unsigned* clock, const float* w, const float* bias, const float* offset, int rows, int cols, int outs, int knob,
                      int rest, int add, int finish, int code, float parameter) {
    using namespace sparse;
    __shared__ float panel[COLS * (OUTS + 1)];
    const int thread = thread_number(), lane = thread % 64;
    const int first = static_cast<int>(blockIdx.y) * 4 * ROWS + thread / 64 * ROWS, out = static_cast<int>(blockIdx.x) * OUTS;
    unsigned e[ROWS], end[ROWS];
    float sums[ROWS][2];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const bool inside = first + r < rows;
        const unsigned row = inside ? row_of(order, clock, first + r) : 0;
        e[r] = inside ? starts[row] : 0;
        end[r] = inside ? starts[row + 1] : 0;
        sums[r][0] = sums[r][1] = 0.0f;
    }
    for (int c = 0; c < cols; c += COLS) {
        __syncthreads();
        for (int i = thread; i < OUTS * COLS; i += 256) {
            const int o = i / COLS, k = i % COLS;
            const bool inside = out + o < outs && c + k < cols;
            panel[k * (OUTS + 1) + o] = inside ? w[static_cast<size_t>(out + o) * static_cast<size_t>(cols) + static_cast<size_t>(c + k)] : 0.0f;
        }
        __syncthreads();
        const unsigned from = static_cast<unsigned>(c);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            while (e[r] < end[r]) {
                const unsigned k = columns[e[r]] - from;
                if (k >= COLS) break;
                const float v = values[e[r]];
                const float* at = panel + k * (OUTS + 1) + lane;
                sums[r][0] = mad(v, at[0], sums[r][0]);
                sums[r][1] = mad(v, at[64], sums[r][1]);
                ++e[r];
            }
        }
    }
    const float scale = scale_of(clock, knob, rest);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int h = out + lane + 64 * half;
            if (first + r >= rows || h >= outs) continue;
            const size_t to = static_cast<size_t>(first + r) * static_cast<size_t>(outs) + static_cast<size_t>(h);
            float u = scale * sums[r][half];
            if (add) u += y[to];
            if (finish) {
                if (offset) u += offset[h];
                if (bias) u += bias[h];
                u = activation(code, parameter, u);
            }
            y[to] = u;
        }
    }
}

extern "C" __global__ void __launch_bounds__(128)
    sparse_linear_bwd(float* dw, const unsigned* starts, const unsigned* columns, const float* values, const unsigned* order,
                      const unsigned* clock, const float* dy, const float* base, const float* totals, int rows, int cols, int outs, int knob,
                      int rest, int add) {
    using namespace sparse;
    __shared__ float tile[COLS * (OUTS + 1)];
    __shared__ unsigned begin[OUTS], until[OUTS];
    const int thread = thread_number(), c = static_cast<int>(blockIdx.x) * COLS, out = static_cast<int>(blockIdx.y) * OUTS;
    const unsigned from = static_cast<unsigned>(c);
    for (int k = 0; k < COLS; ++k) tile[k * (OUTS + 1) + thread] = 0.0f;
    for (int b = 0; b < rows; b += OUTS) {
        __syncthreads();
        begin[thread] = until[thread] = 0;
        if (b + thread < rows) {
            const unsigned row = row_of(order, clock, b + thread), end = starts[row + 1];
            begin[thread] = lower_bound(columns, starts[row], end, from);
            until[thread] = lower_bound(columns, begin[thread], end, from + COLS);
        }
        __syncthreads();
        for (int i = 0; i < min(OUTS, rows - b); ++i) {
            if (begin[i] == until[i]) continue;
            const float d = out + thread < outs ? dy[static_cast<size_t>(b + i) * static_cast<size_t>(outs) + static_cast<size_t>(out + thread)] : 0.0f;
            for (unsigned e = begin[i]; e < until[i]; ++e) {
                float* to = tile + (columns[e] - from) * (OUTS + 1) + thread;
                *to = mad(values[e], d, *to);
            }
        }
    }
    __syncthreads();
    const float scale = scale_of(clock, knob, rest);
    for (int i = thread; i < OUTS * COLS; i += 128) {
        const int h = out + i / COLS, k = i % COLS;
        if (h >= outs || c + k >= cols) continue;
        float g = scale * tile[k * (OUTS + 1) + i / COLS];
        if (base) g += totals[h] * base[c + k];
        float* to = dw + static_cast<size_t>(h) * static_cast<size_t>(cols) + static_cast<size_t>(c + k);
        *to = add ? *to + g : g;
    }
}
