// CUDA C++ for one block at a time on a CPU: threads are fibers, which take turns at barriers and warp operations. Enough
// of the language for kernels that synchronise whole blocks and whole warps; asynchronous copies and matrices are not
// here. A launch whose threads take turns too often without an end is given up.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(bytes) alignas(bytes)
#define asm(...) ((void)0)
#define threadIdx (fiber->index)
#define __syncthreads block_barrier

struct Index { int x, y, z; };
struct Fiber { ucontext_t context; Index index; bool done; void* stack; };
static const int MOST_THREADS = 1024, STACK = 1 << 17, MOST_TURNS = 20000;
static Fiber fibers[MOST_THREADS], *fiber;
static ucontext_t scheduler;
static Index blockIdx, gridDim, blockDim;
static int alive;
static std::function<void()> body;

struct Barrier {
    int arrived, passed;
    void wait(int threads) {
        const int own = passed;
        if (++arrived == threads) arrived = 0, ++passed;
        while (passed == own) swapcontext(&fiber->context, &scheduler);
    }
};
static Barrier of_block, of_warp[MOST_THREADS / 32];
static void block_barrier() { of_block.wait(alive); }

static void fiber_main() {
    body();
    fiber->done = true, --alive;
}

// Whether every block of the grid ended.
static bool launch(int grid_x, int grid_y, int threads, std::function<void()> kernel) {
    body = kernel, gridDim = {grid_x, grid_y, 1}, blockDim = {threads, 1, 1};
    for (int block = 0; block < grid_x * grid_y; ++block) {
        blockIdx = {block % grid_x, block / grid_x, 0}, alive = threads, of_block = {};
        std::fill(of_warp, of_warp + MOST_THREADS / 32, Barrier());
        for (int i = 0; i < threads; ++i) {
            Fiber& made = fibers[i];
            if (!made.stack) made.stack = malloc(STACK);
            getcontext(&made.context);
            made.index = {i, 0, 0}, made.done = false, made.context.uc_link = &scheduler;
            made.context.uc_stack.ss_sp = made.stack, made.context.uc_stack.ss_size = STACK;
            makecontext(&made.context, fiber_main, 0);
        }
        for (int turns = 0; alive; ++turns) {
            if (turns == MOST_TURNS) return false;
            for (int i = 0; i < threads; ++i)
                if (!fibers[i].done) fiber = fibers + i, swapcontext(&scheduler, &fiber->context);
        }
    }
    return true;
}

static unsigned long long exchanged[MOST_THREADS];
// What `take` makes of the values of a warp's 32 lanes.
template <typename T, typename Take> auto of_lanes(T value, Take take) {
    T all[32];
    const int lane = threadIdx.x % 32, first = threadIdx.x - lane;
    memcpy(exchanged + threadIdx.x, &value, sizeof(T));
    of_warp[first / 32].wait(32);
    for (int i = 0; i < 32; ++i) memcpy(all + i, exchanged + first + i, sizeof(T));
    of_warp[first / 32].wait(32);
    return take(all, lane);
}
template <typename T> T __shfl_sync(unsigned, T value, int from) { return of_lanes(value, [&](T* all, int) { return all[from % 32]; }); }
template <typename T> T __shfl_xor_sync(unsigned, T value, int mask) { return of_lanes(value, [&](T* all, int lane) { return all[lane ^ mask]; }); }
template <typename T> T __shfl_up_sync(unsigned, T value, int by) { return of_lanes(value, [&](T* all, int lane) { return all[lane < by ? lane : lane - by]; }); }
template <typename T> T __reduce_add_sync(unsigned, T value) { return of_lanes(value, [](T* all, int) { T sum = 0; for (int i = 0; i < 32; ++i) sum += all[i]; return sum; }); }
static unsigned __ballot_sync(unsigned, bool value) { return of_lanes(value, [](bool* all, int) { unsigned bits = 0; for (int i = 0; i < 32; ++i) bits |= (unsigned)all[i] << i; return bits; }); }
static int __syncthreads_or(int value) {
    static int any;
    block_barrier();
    any = 0;
    block_barrier();
    any |= value != 0;
    block_barrier();
    return any;
}
template <typename T, typename U> T atomicAdd(T* at, U value) { const T old = *at; *at += value; return old; }
template <typename T, typename U> T atomicOr(T* at, U value) { const T old = *at; *at |= value; return old; }
static void __threadfence() {}
template <typename T> T __ldg(const T* at) { return *at; }
template <typename T> T __ldcs(const T* at) { return *at; }
template <typename T> T __ldcg(const T* at) { return *at; }

template <typename T, typename U> auto min(T a, U b) { typedef std::common_type_t<T, U> C; return (C)a < (C)b ? (C)a : (C)b; }
template <typename T, typename U> auto max(T a, U b) { typedef std::common_type_t<T, U> C; return (C)a > (C)b ? (C)a : (C)b; }
static int __popc(unsigned x) { return __builtin_popcount(x); }
static int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
static int __ffs(unsigned x) { return __builtin_ffs(x); }
static unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
static float __int_as_float(int bits) { float x; memcpy(&x, &bits, 4); return x; }
static double __dadd_rn(double a, double b) { return a + b; }
static double __dmul_rn(double a, double b) { return a * b; }
static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint4 { unsigned x, y, z, w; };
