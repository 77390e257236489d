// New tokens behind every sequence's span, in place, and the span that then includes them.
//
// copy_rows: rows [B*Hkv, T, D] of 16-byte packs into slots [B*Hkv, N, D]; none is written
// where they would pass the last slot. advance_spans: kv_len += T where it fits, else status bit 0 and the span stays as it was.
//
// Reference: socket_theory/core/rows.py
// Launcher: socket_gpu/core/append.py
// Tests: tests/socket_lsh/test_gpu_steps_on_cpu.py, tests/gpu/test_decode.py
#include "common.cuh"

extern "C" __global__ void copy_rows(const uint4* __restrict__ rows, uint4* __restrict__ slots,
                                     const i64* __restrict__ spans, int num_kv_heads, i64 tokens, i64 num_slots,
                                     int packs) {
    const i64 item = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const int pair = blockIdx.y;
    if (item >= tokens * packs) return;
    const i64 end = spans[2 * (pair / num_kv_heads)] + spans[2 * (pair / num_kv_heads) + 1];
    if (end + tokens > num_slots) return;
    slots[((i64)pair * num_slots + end) * packs + item] = rows[(i64)pair * tokens * packs + item];
}

extern "C" __global__ void advance_spans(i64* __restrict__ spans, u32* __restrict__ status, int sequences, i64 tokens,
                                         i64 num_slots) {
    const int sequence = blockIdx.x * blockDim.x + threadIdx.x;
    if (sequence >= sequences) return;
    const i64 length = spans[2 * sequence + 1] + tokens;
    if (spans[2 * sequence] + length <= num_slots)
        spans[2 * sequence + 1] = length;
    else
        atomicOr(status, 1u);
}
