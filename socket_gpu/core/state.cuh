// The state (m, d, o) of softmax attention over a set of tokens: m the largest logit, d the sum of exp(logit - m), o that
// of exp(logit - m) times the value. The states of two sets make that of their union (C1). An empty set has m = -inf.
#pragma once
#include "common.cuh"

// Logits in natural units, or in units of log 2.
template <typename T> struct Natural {
    typedef T Sum;
    static __device__ __forceinline__ T exp(T x) { return sizeof(T) == 4 ? (T)__expf((float)x) : (T)::exp((double)x); }
};
struct Binary {
    typedef float Sum;
    static __device__ __forceinline__ float exp(float x) { return exp2f(x); }
};

template <typename Unit, int DIM> struct State {
    typedef typename Unit::Sum Sum;
    Sum m = -INFINITE, d = 0, o[DIM ? DIM : 1] = {};

    // The same state relative to a larger m.
    __device__ __forceinline__ void raise(Sum larger) {
        const Sum fade = m == larger ? (Sum)1 : Unit::exp(m - larger);
        m = larger, d *= fade;
#pragma unroll
        for (int i = 0; i < DIM; ++i) o[i] *= fade;
    }

    // A token's logit, at most m; its weight, for o.
    __device__ __forceinline__ Sum add(Sum logit) {
        const Sum weight = Unit::exp(logit - m);
        d += weight;
        return weight;
    }

    // With the state of the lane whose number differs in bit `step`.
    __device__ __forceinline__ void merge_lane(int step) {
        raise(max(m, __shfl_xor_sync(~0u, m, step)));
        d += __shfl_xor_sync(~0u, d, step);
#pragma unroll
        for (int i = 0; i < DIM; ++i) o[i] += __shfl_xor_sync(~0u, o[i], step);
    }
};

// One dim of the merge of `count` states in memory, `stride` apart: each is o[DIM], m, d, and `read` reads a number.
template <typename Unit, int DIM, typename Read>
__device__ __forceinline__ State<Unit, 1> merge_stored(const typename Unit::Sum* states, int count, int stride, int dim, Read read) {
    State<Unit, 1> merged;
#pragma unroll 4
    for (int s = 0; s < count; ++s) merged.m = max(merged.m, read(states + s * stride + DIM));
#pragma unroll 4
    for (int s = 0; s < count; ++s) {
        const typename Unit::Sum m = read(states + s * stride + DIM), fade = m == merged.m ? 1 : Unit::exp(m - merged.m);
        merged.o[0] += fade * read(states + s * stride + dim);
        merged.d += fade * read(states + s * stride + DIM + 1);
    }
    return merged;
}
