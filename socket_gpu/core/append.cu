// New tokens behind every sequence's span, in place, and the span that then includes them.
//
// copy_rows: rows [B*Hkv, T, D] of 16-byte packs into slots [B*Hkv, N, D]. read_rows: the other way round, tokens that an
// owner has written behind the spans of its rows into rows [B*Hkv, T, D]. Neither touches a sequence whose tokens would
// pass the last slot. advance_spans: kv_len += T where it fits, else status bit 0 and the span stays as it was.
//
// Reference: socket_theory/core/rows.py, socket_theory/core/owned_elsewhere.py
// Launcher: socket_gpu/core/append.py
// Tests: tests/socket_lsh/test_gpu_steps_on_cpu.py, tests/gpu/test_decode.py, tests/contracts/test_plans.py
#include "common.cuh"
#include "rows.cuh"

struct CopyRowsParams {
    const uint4* rows;
    uint4* slots;
    const i64* spans;
    int num_kv_heads, packs;
    i64 tokens, num_slots;
};

__global__ void copy_rows(const CopyRowsParams p) {
    const i64 item = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const int pair = blockIdx.y;
    if (item >= p.tokens * p.packs) return;
    const i64 end = p.spans[2 * (pair / p.num_kv_heads)] + p.spans[2 * (pair / p.num_kv_heads) + 1];
    if (end > p.num_slots - p.tokens) return;
    p.slots[((i64)pair * p.num_slots + end) * p.packs + item] = p.rows[(i64)pair * p.tokens * p.packs + item];
}

struct ReadRowsConfig {
    int page;
};
template <ReadRowsConfig C> struct ReadRowsParams {
    Rows<uint4, C.page> slots;
    BlockTable<C.page> table;
    uint4* rows;
    const i64* spans;
    int num_kv_heads, packs;
    i64 tokens, num_slots;
};

template <ReadRowsConfig C> __global__ void read_rows(const ReadRowsParams<C> p) {
    const i64 item = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const int pair = blockIdx.y, sequence = pair / p.num_kv_heads;
    if (item >= p.tokens * p.packs) return;
    const i64 end = p.spans[2 * sequence] + p.spans[2 * sequence + 1];
    if (end + p.tokens > p.num_slots) return;
    const int slot = (int)(end + item / p.packs);
    const uint4* row = p.slots.of(sequence, pair % p.num_kv_heads).at(p.table.block_of(sequence, slot), slot);
    p.rows[(i64)pair * p.tokens * p.packs + item] = row[item % p.packs];
}

struct AdvanceSpansParams {
    i64* spans;
    u32* status;
    int sequences;
    i64 tokens, num_slots;
};

__global__ void advance_spans(const AdvanceSpansParams p) {
    const int sequence = blockIdx.x * blockDim.x + threadIdx.x;
    if (sequence >= p.sequences) return;
    const i64 length = p.spans[2 * sequence + 1] + p.tokens;
    if (p.spans[2 * sequence] + length <= p.num_slots)
        p.spans[2 * sequence + 1] = length;
    else
        atomicOr(p.status, 1u);
}
