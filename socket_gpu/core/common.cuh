// Shared by every kernel: integer names, element types and 16-byte rows, the total order of scores.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define INFINITE __int_as_float(0x7f800000)

template <typename T> struct Element;
template <> struct Element<__half> {
    typedef float Sum;
    static __device__ __forceinline__ float up(__half x) { return __half2float(x); }
    static __device__ __forceinline__ __half down(float x) { return __float2half_rn(x); }
};
template <> struct Element<__nv_bfloat16> {
    typedef float Sum;
    static __device__ __forceinline__ float up(__nv_bfloat16 x) { return __bfloat162float(x); }
    static __device__ __forceinline__ __nv_bfloat16 down(float x) { return __float2bfloat16_rn(x); }
};
template <> struct Element<float> {
    typedef float Sum;
    static __device__ __forceinline__ float up(float x) { return x; }
    static __device__ __forceinline__ float down(float x) { return x; }
};
template <> struct Element<double> {
    typedef double Sum;
    static __device__ __forceinline__ double up(double x) { return x; }
    static __device__ __forceinline__ double down(double x) { return x; }
};

// Sixteen bytes of a row.
template <typename T> struct __align__(16) Pack {
    static const int SIZE = 16 / sizeof(T);
    T at[SIZE];
    static __device__ __forceinline__ Pack of(uint4 words) {
        union { uint4 words; Pack pack; } held = {words};
        return held.pack;
    }
};

// Larger for larger scores; -0.0 counts as 0.0. On the bits, as float arithmetic may flush subnormals.
__device__ __forceinline__ u32 order_score(float score) {
    const u32 bits = __float_as_uint(score) == 0x80000000u ? 0 : __float_as_uint(score);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// A valid span of slots and its forced ends, clamped to what the cache holds.
struct Span {
    int start, end, sink_end, window_start;
    __device__ __forceinline__ bool forced(int slot) const { return slot < sink_end || slot >= window_start; }
    __device__ __forceinline__ int num_forced_before(int slot) const {
        if (window_start <= sink_end) return max(0, slot - start);
        return max(0, min(slot, sink_end) - start) + max(0, slot - window_start);
    }
    __device__ __forceinline__ int num_forced() const {
        return window_start > sink_end ? end - start - (window_start - sink_end) : end - start;
    }
};

__device__ __forceinline__ Span load_span(const i64* spans, int sequence, int slots, int sink, int window) {
    Span span;
    span.start = (int)min((i64)slots, max((i64)0, spans[2 * sequence]));
    span.end = (int)min((i64)slots, max((i64)span.start, spans[2 * sequence] + spans[2 * sequence + 1]));
    span.sink_end = min(span.end, span.start + sink);
    span.window_start = max(span.start, span.end - window);
    return span;
}
