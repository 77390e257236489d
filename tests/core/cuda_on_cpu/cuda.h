// CUDA C++ for one block at a time on a CPU: threads are fibers, which take turns at barriers and warp operations. Enough
// of the language for kernels that synchronise whole blocks and whole warps; `ptx` is what cupy_on_cpu.py makes of inline
// assembly. A launch whose threads take turns too often without an end is given up, and so is one that writes beyond
// its dynamic shared memory.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(bytes) alignas(bytes)
#define threadIdx (fiber->index)
#define __syncthreads block_barrier

struct Index { int x, y, z; };
// Copies that a thread has asked for, in groups; the last group is open.
struct Copy { void* to; const void* from; };
typedef std::vector<std::vector<Copy>> Copies;
struct Fiber { ucontext_t context; jmp_buf point; Index index; bool begun, done; void* stack; Copies copies; };
static const int MOST_THREADS = 1024, STACK = 1 << 17, MOST_TURNS = 200000;
static Fiber fibers[MOST_THREADS], *fiber;
static jmp_buf scheduler_point;
static Index blockIdx, gridDim, blockDim;
static int alive;
static std::function<void()> body;
alignas(16) static char dynamic_shared[1 << 18];
static const int GUARD = 256;

// A context is entered once; from then on jumps take turns, which ask nothing of the system.
static void yield() { if (!_setjmp(fiber->point)) _longjmp(scheduler_point, 1); }
static void resume() {
    if (_setjmp(scheduler_point)) return;
    if (fiber->begun) _longjmp(fiber->point, 1);
    fiber->begun = true;
    setcontext(&fiber->context);
}

struct Barrier {
    int arrived, passed;
    void wait(int threads) {
        const int own = passed;
        if (++arrived == threads) arrived = 0, ++passed;
        while (passed == own) yield();
    }
};
static Barrier of_block, of_warp[MOST_THREADS / 32];
static void block_barrier() { of_block.wait(alive); }

static void fiber_main() {
    body();
    fiber->done = true, --alive;
    _longjmp(scheduler_point, 1);
}

// What went wrong in a block of the grid, or null.
static const char* launch(int grid_x, int grid_y, int threads, int shared_bytes, std::function<void()> kernel) {
    if (shared_bytes + GUARD > (int)sizeof dynamic_shared) return "asks for more shared memory than there is";
    body = kernel, gridDim = {grid_x, grid_y, 1}, blockDim = {threads, 1, 1};
    for (int block = 0; block < grid_x * grid_y; ++block) {
        blockIdx = {block % grid_x, block / grid_x, 0}, alive = threads, of_block = {};
        std::fill(of_warp, of_warp + MOST_THREADS / 32, Barrier());
        memset(dynamic_shared, 0xff, shared_bytes + GUARD);
        for (int i = 0; i < threads; ++i) {
            Fiber& made = fibers[i];
            if (!made.stack) made.stack = malloc(STACK);
            getcontext(&made.context);
            made.index = {i, 0, 0}, made.begun = made.done = false, made.copies.assign(1, {}), made.context.uc_link = nullptr;
            made.context.uc_stack.ss_sp = made.stack, made.context.uc_stack.ss_size = STACK;
            makecontext(&made.context, fiber_main, 0);
        }
        for (int turns = 0; alive; ++turns) {
            if (turns == MOST_TURNS) return "does not end";
            for (int i = 0; i < threads; ++i)
                if (!fibers[i].done) fiber = fibers + i, resume();
        }
        for (int i = 0; i < GUARD; ++i)
            if (dynamic_shared[shared_bytes + i] != (char)0xff) return "writes beyond the shared memory that it is given";
    }
    return nullptr;
}

// As the driver does: `arguments` point to a kernel's own.
template <typename... P, size_t... I>
const char* launch_with(void (*kernel)(P...), int grid_x, int grid_y, int threads, int shared_bytes, void** arguments, std::index_sequence<I...>) {
    return launch(grid_x, grid_y, threads, shared_bytes, [=] { kernel(*(std::remove_const_t<P>*)arguments[I]...); });
}
template <typename... P> const char* launch_with(void (*kernel)(P...), int grid_x, int grid_y, int threads, int shared_bytes, void** arguments) {
    return launch_with(kernel, grid_x, grid_y, threads, shared_bytes, arguments, std::index_sequence_for<P...>());
}

static struct alignas(8) { char bytes[32]; } exchanged[MOST_THREADS];
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
template <typename T> T __shfl_xor_sync(unsigned, T value, int mask, int = 32) { return of_lanes(value, [&](T* all, int lane) { return all[lane ^ mask]; }); }
template <typename T> T __shfl_up_sync(unsigned, T value, int by) { return of_lanes(value, [&](T* all, int lane) { return all[lane < by ? lane : lane - by]; }); }
template <typename T> T __reduce_add_sync(unsigned, T value) { return of_lanes(value, [](T* all, int) { T sum = 0; for (int i = 0; i < 32; ++i) sum += all[i]; return sum; }); }
static unsigned __ballot_sync(unsigned, bool value) { return of_lanes(value, [](bool* all, int) { unsigned bits = 0; for (int i = 0; i < 32; ++i) bits |= (unsigned)all[i] << i; return bits; }); }
static void __syncwarp() { of_lanes(0, [](int*, int) { return 0; }); }
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
static float __fmul_rn(float a, float b) { return a * b; }
static float __fdividef(float a, float b) { return a / b; }
#define __expf expf
static float rsqrtf(float x) { return 1 / sqrtf(x); }
static int __float_as_int(float x) { int bits; memcpy(&bits, &x, 4); return bits; }
static float __uint_as_float(unsigned bits) { return __int_as_float((int)bits); }
static unsigned __funnelshift_r(unsigned low, unsigned high, int by) { return ((unsigned long long)high << 32 | low) >> (by & 31); }
static unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned made = 0;
    for (int i = 0; i < 4; ++i) made |= (unsigned)(((unsigned long long)b << 32 | a) >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return made;
}
static unsigned __dp2a_lo(unsigned a, unsigned b, unsigned c) { return c + (a & 0xffff) * (b & 255) + (a >> 16) * (b >> 8 & 255); }
static unsigned __dp2a_hi(unsigned a, unsigned b, unsigned c) { return __dp2a_lo(a, b >> 16, c); }
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint4 { unsigned x, y, z, w; };
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
#include "ptx.h"
