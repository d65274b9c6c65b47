// small.cuh: one block and one p x p matrix of doubles in shared memory, p <= 64.          math: src/engine/ops/small.rs
// Every function is called by all threads of the block, and begins and ends with the matrices visible to all of them.
#pragma once
#include "common.cuh"

#define MAX_LATENT 64

// Column means (mean[p], shared) and covariance (c[p*p], shared, divided by n - 1) of z [n, p], by warps: a warp a column, then
// a warp an entry of the upper triangle, lanes over the cells, sums in a fixed tree.
__device__ inline void block_covariance(const float* z, int n, int p, double* mean, double* c) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    for (int k = warp; k < p; k += warps) {
        double sum = 0.0;
        for (int r = lane; r < n; r += 32) sum += z[r * p + k];
        sum = warp_sum(sum);
        if (lane == 0) mean[k] = sum / n;
    }
    __syncthreads();
    for (int e = warp; e < p * p; e += warps) {
        int a = e / p, b = e % p;
        if (a > b) continue;
        double sum = 0.0, ma = mean[a], mb = mean[b];
        for (int r = lane; r < n; r += 32) sum += (z[r * p + a] - ma) * (z[r * p + b] - mb);
        sum = warp_sum(sum);
        if (lane == 0) c[a * p + b] = c[b * p + a] = sum / (n > 1 ? n - 1 : 1);
    }
    __syncthreads();
}

// Jacobi on a (destroyed): on return a's diagonal holds the eigenvalues, q's columns the eigenvectors. The p/2 rotations of a
// round touch disjoint rows and columns (round-robin pairing), so that the block does them at once.
__device__ inline void block_jacobi(double* a, double* q, int p) {
    __shared__ double cosine[MAX_LATENT / 2], sine[MAX_LATENT / 2];
    __shared__ int first[MAX_LATENT / 2], second[MAX_LATENT / 2];
    __shared__ double off_total, all_total;
    int t = threadIdx.x, players = p + (p & 1), pairs = players / 2;
    for (int i = t; i < p * p; i += blockDim.x) q[i] = i / p == i % p ? 1.0 : 0.0;
    __syncthreads();
    for (int sweep = 0; sweep < 40; ++sweep) {
        double off = 0.0, all = 0.0;
        for (int i = t; i < p * p; i += blockDim.x) {
            double v = a[i] * a[i];
            all += v;
            if (i / p != i % p) off += v;
        }
        off = block_sum(off);
        all = block_sum(all);
        if (t == 0) {
            off_total = off;
            all_total = all;
        }
        __syncthreads();
        bool done = !(off_total > 1e-24 * all_total);
        __syncthreads();
        if (done) break;
        for (int round = 0; round < players - 1; ++round) {
            if (t < pairs) {
                // Player players-1 stays, the others turn.
                int u = t == 0 ? players - 1 : (round + t) % (players - 1);
                int v = t == 0 ? round : (round + players - 1 - t) % (players - 1);
                int i = u < v ? u : v, j = u < v ? v : u;
                double c = 1.0, s = 0.0;
                if (j < p && a[i * p + j] != 0.0) {
                    double theta = (a[j * p + j] - a[i * p + i]) / (2.0 * a[i * p + j]);
                    double tangent = (theta >= 0.0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(theta * theta + 1.0));
                    c = 1.0 / sqrt(tangent * tangent + 1.0);
                    s = tangent * c;
                }
                first[t] = i;
                second[t] = j;
                cosine[t] = c;
                sine[t] = s;
            }
            __syncthreads();
            for (int e = t; e < pairs * p; e += blockDim.x) {  // columns: a = a J, q = q J
                int k = e / p, r = e % p, i = first[k], j = second[k];
                if (j >= p) continue;
                double x = a[r * p + i], y = a[r * p + j];
                a[r * p + i] = cosine[k] * x - sine[k] * y;
                a[r * p + j] = sine[k] * x + cosine[k] * y;
                x = q[r * p + i];
                y = q[r * p + j];
                q[r * p + i] = cosine[k] * x - sine[k] * y;
                q[r * p + j] = sine[k] * x + cosine[k] * y;
            }
            __syncthreads();
            for (int e = t; e < pairs * p; e += blockDim.x) {  // rows: a = Jt a
                int k = e / p, r = e % p, i = first[k], j = second[k];
                if (j >= p) continue;
                double x = a[i * p + r], y = a[j * p + r];
                a[i * p + r] = cosine[k] * x - sine[k] * y;
                a[j * p + r] = sine[k] * x + cosine[k] * y;
            }
            __syncthreads();
        }
    }
}
