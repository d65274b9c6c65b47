// turns.cu                                               math and shapes: src/engine/ops/turns.rs
// turn_images   bytes 8*B*C*n*n; a block an image, its threads walk the pixels of y in order: y is written coalesced, x read along
//               columns where the image is transposed. any size, no alignment
// The step number is word 0 of the clock: a replayed step draws anew. measured: not yet on a GPU
#include "common.cuh"
#include "random.cuh"

extern "C" __global__ void turn_images(float* __restrict__ y, const float* __restrict__ x, const unsigned* __restrict__ clock, int rows,
                                       int channels, int n, unsigned stream, unsigned seed_low, unsigned seed_high) {
    const int r = static_cast<int>(blockIdx.x);
    if (r >= rows) return;
    const unsigned element = static_cast<unsigned>(r);
    const unsigned turn = random_words({seed_low, seed_high, stream, clock[0]}, element / 4).w[element % 4] >> 29;
    const int pixels = n * n, size = channels * pixels;
    const float* from = x + static_cast<size_t>(r) * size;
    float* to = y + static_cast<size_t>(r) * size;
    for (int e = thread_number(); e < size; e += thread_count()) {
        const int p = e % pixels, row = p / n, col = p % n;
        const int i = turn & 2 ? n - 1 - row : row, j = turn & 1 ? n - 1 - col : col;
        to[e] = from[e - p + (turn & 4 ? j * n + i : i * n + j)];
    }
}
