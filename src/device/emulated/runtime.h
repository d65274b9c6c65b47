// The emulated device as a kernel sees it: the words of CUDA C++ as plain C++.
//
// Included (by kernels/arch.cuh, under COUPLET_EMULATED) before a kernel source that a host compiler builds. A block's threads are
// fibers of one operating-system thread; they give way to one another only in the calls below, so plain loads and stores need no care.
#pragma once

#include <math.h>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__ __attribute__((unused))
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// A unit's static shared arrays lie side by side in a section of their own, so that the runtime can poison them between blocks.
// Blocks run one after the other and a unit is locked while one of its kernels runs: one copy is enough.
#ifdef __ELF__
#define __shared__ static __attribute__((section(COUPLET_SHARED_SECTION)))
#else
#define __shared__ static
#endif

namespace couplet {

struct Index {
    unsigned x, y, z;
};

struct Thread;

// Who is running: set by the scheduler at every change of fiber, of block, of launch.
extern __thread Thread* running;
extern __thread Index thread_index, block_index, block_size, grid_size;

// Words that one lane shows to the others: the fragments of an mma are the largest.
constexpr int SLOT_WORDS = 8;
struct Slot {
    unsigned words[SLOT_WORDS];
};

// What the lanes of a warp have shown one another.
struct Shown {
    const Slot* slots;
    unsigned present;  // bit l: lane l took part
    int lane;          // of the calling thread
};

// Waits for every thread of the block; a thread that has returned is an error.
void block_barrier();
// Waits for every lane of the warp that has not returned, all in a call of this name, and shows each what the others brought.
Shown warp_exchange(const char* name, const void* words, size_t bytes);
// The launch's dynamic shared memory.
void* dynamic_shared();
// Copies that happen at copy_wait and no sooner: a kernel that forgets to wait reads what was there before.
void copy_later(void* dst, const void* src, unsigned bytes, unsigned zeros);
void copy_commit();
void copy_wait(int groups_left);

// A value of type T that lane `from` showed; NaN (all bits set) if that lane took no part, where a GPU's answer is undefined.
template <class T>
T shown_by(const Shown& shown, int from) {
    T value;
    if (shown.present >> from & 1u) {
        std::memcpy(&value, shown.slots[from].words, sizeof(T));
    } else {
        std::memset(&value, 0xff, sizeof(T));
    }
    return value;
}

template <class T>
T shuffle(const char* name, T value, int from) {
    static_assert(sizeof(T) <= sizeof(Slot), "a shuffled value fits a slot");
    return shown_by<T>(warp_exchange(name, &value, sizeof(T)), from & 31);
}

}  // namespace couplet

#define threadIdx (couplet::thread_index)
#define blockIdx (couplet::block_index)
#define blockDim (couplet::block_size)
#define gridDim (couplet::grid_size)
#define __syncthreads() couplet::block_barrier()

struct float2 {
    float x, y;
} __align__(8);
struct float4 {
    float x, y, z, w;
} __align__(16);
struct int2 {
    int x, y;
} __align__(8);
struct int4 {
    int x, y, z, w;
} __align__(16);
struct uint2 {
    unsigned x, y;
} __align__(8);
struct uint4 {
    unsigned x, y, z, w;
} __align__(16);

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
