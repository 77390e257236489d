// The block that comes last continues with what all have written.
#pragma once
#include "common.cuh"

// Whether this block is the last of `blocks` to call this; it sees what the others wrote before. Whole blocks call it, once
// a launch. The ticket, zero at first, is zero again after the last.
__device__ __forceinline__ bool last_block(u32* ticket, int blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == (u32)blocks - 1;
    __syncthreads();
    if (!last) return false;
    __threadfence();
    if (threadIdx.x == 0) *ticket = 0;
    return true;
}
