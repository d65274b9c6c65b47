// sinkhorn.cu                                            math and shapes: src/engine/ops/sinkhorn.rs
// An exponential is the largest term so far and the sum of the others beside it: (max, sum), one expf an element, met in a fixed order.
// sinkhorn_rows         bytes 4*m*n (reads C once), 5 operations and an expf an element. One block a row, thread t the columns t mod 256
// sinkhorn_cols_parts   bytes 4*m*n (reads C once, no transposed copy), the same arithmetic. A block takes 64 rows x 128 columns, a warp a
//                       row at a time, so that reads coalesce; (max, sum) run down eight rows apart and meet in shared memory
// sinkhorn_cols         one thread a column: meets the blocks' pairs in order, then moves the potential
// sinkhorn_plan         bytes 12*m*n (reads C and the old P, writes P). One block a row, sums of rows in f64
// any size, no alignment required. measured: not yet on a GPU
#include "common.cuh"

constexpr int TILE_ROWS = 64, TILE_COLS = 128;
constexpr float LOWEST = -3.0e38f;

// One more term x.
__device__ __forceinline__ void take(float& top, float& sum, float x) {
    const float over = x - top, e = expf(-fabsf(over));
    sum = over > 0.0f ? sum * e + 1.0f : sum + e;
    top = larger(x, top);
}

// Two such sums become one.
__device__ __forceinline__ void meet(float& top, float& sum, float other_top, float other_sum) {
    const float over = other_top - top, e = expf(-fabsf(over));
    sum = over > 0.0f ? sum * e + other_sum : sum + other_sum * e;
    top = larger(other_top, top);
}

// The potential that the logarithm of a sum asks for, and the mass that this moves.
__device__ __forceinline__ void move_potential(float* potential, float* moved, float log_sum, float log_mass, float epsilon, float damp,
                                               int capped) {
    const float old = potential[0];
    float now = epsilon * log_mass - damp * (epsilon * log_sum);
    if (capped && now > 0.0f) now = 0.0f;
    moved[0] = fabsf(expf(div_rn(now, epsilon) + log_sum) - expf(div_rn(old, epsilon) + log_sum));
    potential[0] = now;
}

extern "C" __global__ void __launch_bounds__(256) sinkhorn_rows(float* f, float* moved, const float* c, const float* g, const float* log_a,
                                                                int cols, float epsilon, float damp, int capped) {
    const int row = static_cast<int>(blockIdx.x);
    const float* of_row = c + static_cast<long long>(row) * cols;
    const float by = div_rn(1.0f, epsilon);
    float top = LOWEST, sum = 0.0f;
    for (int j = thread_number(); j < cols; j += thread_count()) take(top, sum, (g[j] - of_row[j]) * by);
    const float highest = block_max(top);
    sum = block_sum(sum * expf(top - highest));
    if (threadIdx.x == 0) move_potential(f + row, moved + row, highest + logf(sum), log_a[row], epsilon, damp, capped);
}

extern "C" __global__ void __launch_bounds__(256)
    sinkhorn_cols_parts(float* part_tops, float* part_sums, const float* c, const float* f, int rows, int cols, float epsilon) {
    __shared__ float tops[8][TILE_COLS], sums[8][TILE_COLS];
    const int lane = lane_number(), warp = warp_number();
    const int tile_row = static_cast<int>(blockIdx.y), first_col = static_cast<int>(blockIdx.x) * TILE_COLS;
    const int end = min(rows, (tile_row + 1) * TILE_ROWS);
    const float by = div_rn(1.0f, epsilon);
    float top[4], sum[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        top[j] = LOWEST;
        sum[j] = 0.0f;
    }
    for (int r = tile_row * TILE_ROWS + warp; r < end; r += 8) {
        const float of_row = f[r];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int col = first_col + 32 * j + lane;
            if (col < cols) take(top[j], sum[j], (of_row - c[static_cast<long long>(r) * cols + col]) * by);
        }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        tops[warp][32 * j + lane] = top[j];
        sums[warp][32 * j + lane] = sum[j];
    }
    __syncthreads();
    const int t = thread_number();
    if (t < TILE_COLS && first_col + t < cols) {
        float all_top = tops[0][t], all_sum = sums[0][t];
        for (int k = 1; k < 8; ++k) meet(all_top, all_sum, tops[k][t], sums[k][t]);
        part_tops[static_cast<long long>(tile_row) * cols + first_col + t] = all_top;
        part_sums[static_cast<long long>(tile_row) * cols + first_col + t] = all_sum;
    }
}

extern "C" __global__ void sinkhorn_cols(float* g, float* moved, const float* part_tops, const float* part_sums, const float* log_b, int cols,
                                         int tiles, float epsilon, float damp, int capped) {
    const int j = global_index();
    if (j < cols) {
        float top = part_tops[j], sum = part_sums[j];
        for (int t = 1; t < tiles; ++t) {
            const long long e = static_cast<long long>(t) * cols + j;
            meet(top, sum, part_tops[e], part_sums[e]);
        }
        move_potential(g + j, moved + j, top + logf(sum), log_b[j], epsilon, damp, capped);
    }
}

extern "C" __global__ void __launch_bounds__(256)
    sinkhorn_plan(float* p, float* row_sums, float* changes, float* entropies, const float* c, const float* f, const float* g,
                  const float* log_a, const float* log_b, int cols, float epsilon) {
    const int row = static_cast<int>(blockIdx.x);
    const long long first = static_cast<long long>(row) * cols;
    const float by = div_rn(1.0f, epsilon), of_row = f[row], log_mass = log_a[row];
    double sum = 0.0, change = 0.0, entropy = 0.0;
    for (int j = thread_number(); j < cols; j += thread_count()) {
        const float log_p = ((of_row + g[j]) - c[first + j]) * by, now = expf(log_p);
        change += static_cast<double>(fabsf(now - p[first + j]));
        sum += static_cast<double>(now);
        entropy += static_cast<double>(now > 0.0f ? now * ((log_p - log_mass) - log_b[j]) : 0.0f);
        p[first + j] = now;
    }
    sum = block_sum(sum);
    change = block_sum(change);
    entropy = block_sum(entropy);
    if (threadIdx.x == 0) {
        row_sums[row] = static_cast<float>(sum);
        changes[row] = static_cast<float>(change);
        entropies[row] = static_cast<float>(entropy);
    }
}
