// prime_dual.cu                                          math and shapes: src/engine/ops/prime_dual.rs
// prime_dual_move       bytes 28*m*n (reads T, F, M1, M2, writes the last three), about 20 operations and a root an element.
//                       A block takes 64 rows x 128 columns, a warp a row at a time, so that reads coalesce; row sums are trees of
//                       a warp, column sums run down eight rows apart and meet in shared memory: the order depends on the shape alone
// prime_dual_duals      one thread a row or column: adds the blocks' sums in order, then moves its dual variables
// prime_dual_inner      bytes 8*N; a block sums 16384 products in f64
// prime_dual_residual   bytes 12*N; the same of squares, while W becomes W - aK
// prime_dual_total      one block adds what those two leave: N/16384 numbers
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

constexpr int TILE_ROWS = 64, TILE_COLS = 128, SLICE = 16384;

extern "C" __global__ void __launch_bounds__(256)
    prime_dual_move(float* f, float* m1, float* m2, float* row_parts, float* col_parts, const float* products, const float* row_term,
                    const float* col_term, int rows, int cols, float correct1, float correct2, float step) {
    __shared__ float sums[8][TILE_COLS];
    const int lane = lane_number(), warp = warp_number();
    const int tile_row = static_cast<int>(blockIdx.y), tile_col = static_cast<int>(blockIdx.x);
    const int first_row = tile_row * TILE_ROWS, first_col = tile_col * TILE_COLS;
    float of_col[4], col_sum[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const int c = first_col + 32 * j + lane;
        of_col[j] = c < cols ? col_term[c] : 0.0f;
        col_sum[j] = 0.0f;
    }
    for (int r = first_row + warp; r < first_row + TILE_ROWS; r += 8) {
        float row_sum = 0.0f;
        if (r < rows) {
            const float of_row = row_term[r];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int c = first_col + 32 * j + lane;
                if (c < cols) {
                    const long long e = static_cast<long long>(r) * cols + c;
                    const float g = 4.0f * products[e] + (of_row + of_col[j]);
                    const float mean = 0.9f * m1[e] + 0.1f * g, square = 0.999f * m2[e] + 0.001f * (g * g);
                    const float u = div_rn(mean * correct1, sqrt_rn(square * correct2) + 1e-7f), old = f[e];
                    const float moved = (1.0f - step) * old + step * fmaxf(old - u, 0.0f);
                    m1[e] = mean;
                    m2[e] = square;
                    f[e] = moved;
                    row_sum += moved;
                    col_sum[j] += moved;
                }
            }
        }
        row_sum = warp_sum(row_sum);
        if (lane == 0 && r < rows) row_parts[static_cast<long long>(tile_col) * rows + r] = row_sum;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[warp][32 * j + lane] = col_sum[j];
    __syncthreads();
    const int t = thread_number();
    if (t < TILE_COLS && first_col + t < cols) {
        float sum = sums[0][t];
        for (int k = 1; k < 8; ++k) sum += sums[k][t];
        col_parts[static_cast<long long>(tile_row) * cols + first_col + t] = sum;
    }
}

extern "C" __global__ void prime_dual_duals(float* mu, float* h, float* row_term, float* lambda, float* slack, float* c, float* col_term,
                                            const float* row_parts, const float* col_parts, int rows, int cols, int row_tiles, int col_tiles,
                                            float rho, float step) {
    const int i = global_index(), j = i - rows;
    if (i < rows) {
        float sum = 0.0f;
        for (int t = 0; t < row_tiles; ++t) sum += row_parts[static_cast<long long>(t) * rows + i];
        const float dual = mu[i] + step * (sum - 1.0f);
        h[i] = sum;
        mu[i] = dual;
        row_term[i] = dual + rho * (sum - 1.0f);
    } else if (j < cols) {
        float sum = 0.0f;
        for (int t = 0; t < col_tiles; ++t) sum += col_parts[static_cast<long long>(t) * cols + j];
        const float over = sum - 1.0f, old = slack[j];
        const float s = (1.0f - step) * old + step * fmaxf(old - (lambda[j] + rho * (over + old)), 0.0f);
        const float dual = lambda[j] + step * (over + s);
        c[j] = sum;
        slack[j] = s;
        lambda[j] = dual;
        col_term[j] = dual + rho * (over + s);
    }
}

extern "C" __global__ void prime_dual_inner(float* parts, const float* a, const float* b, int n) {
    const int first = static_cast<int>(blockIdx.x) * SLICE;
    const double sum =
        block_sum_of<double>(min(SLICE, n - first), [=](int i) { return static_cast<double>(a[first + i]) * static_cast<double>(b[first + i]); });
    if (threadIdx.x == 0) parts[blockIdx.x] = static_cast<float>(sum);
}

extern "C" __global__ void prime_dual_residual(float* w, float* parts, const float* k, const float* scale, int n) {
    const int first = static_cast<int>(blockIdx.x) * SLICE;
    const float a = scale[0];
    const double sum = block_sum_of<double>(min(SLICE, n - first), [=](int i) {
        const float d = w[first + i] - a * k[first + i];
        w[first + i] = d;
        return static_cast<double>(d) * static_cast<double>(d);
    });
    if (threadIdx.x == 0) parts[blockIdx.x] = static_cast<float>(sum);
}

// A divisor of 0 (a table of zeros has no scale) leaves y as it is.
extern "C" __global__ void prime_dual_total(float* y, const float* parts, const float* by, int n) {
    const double sum = block_sum_of<double>(n, [=](int i) { return parts[i]; });
    if (threadIdx.x == 0) {
        if (!by)
            y[0] = static_cast<float>(sum);
        else if (by[0] > 0.0f)
            y[0] = static_cast<float>(sum / static_cast<double>(by[0]));
    }
}
