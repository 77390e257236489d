// Exact scores of every valid token with the query heads of its KV head, and the softmax state of every tile (N9).
//
// A warp takes RUN tokens, tiles of TILE, 16 at a time by tensor cores: keys are the rows of a product, heads its columns.
// A sum over dims does not care for their order, so a lane reads 16 bytes of a row and takes them as matrix fragments
// of dims that it names itself, and the query is read the same way. Keys are read once and marked so; what stays in the
// L2 cache are the scores.
//
// query [B, Hq, HEAD_DIM]; keys [B, Hkv, slots, HEAD_DIM]; spans [B, 2]. scores [B * Hq, tiles * TILE] in units of log 2,
// counted from the span's start; states [B * Hq, tiles] of (largest score, sum of 2^(score - largest)).
//
// Cost: 2 * HEAD_DIM bytes a token and KV head from memory, 4 bytes a token and query head to the L2 cache. 131072 tokens,
// 32/8 heads of 128, on an H100, where a plain read of the keys takes 87 us: v1, blocks of 256 threads, a warp 256 tokens,
// 94 us; v2, blocks of 64, a warp 128 tokens, 92. Left: plain loads in place of read-once ones, 102; three blocks of 256 a
// processor, which spill, 106. Without writing the scores it would be 93 in place of 94.
//
// Reference: socket_theory/core/attention.py
// Launcher: socket_gpu/santa/draw.py
// Tests: tests/santa/test_gpu_steps_on_cpu.py, tests/gpu/test_santa.py
#include "common.cuh"

#define WARPS (THREADS / 32)
#define CHUNKS (HEAD_DIM / 32)  // of 8 elements, that a lane reads of a row

__device__ __forceinline__ void multiply(float (&sum)[4], const u32* a, const u32* low, const u32* b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." MMA_T "." MMA_T ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(low[0]), "r"(a[1]), "r"(low[1]), "r"(b[0]), "r"(b[1]));
}

extern "C" __global__ void __launch_bounds__(THREADS, 8)
    score_tiles(const KV_T* __restrict__ query, const KV_T* __restrict__ keys, const i64* __restrict__ spans,
                float* __restrict__ scores, float2* __restrict__ states, i64 slots, int tiles, int num_kv_heads, float scale) {
    const int pair = blockIdx.y, lane = threadIdx.x % 32, own_row = lane / 4, part = lane % 4;
    const Span span = load_span(spans, pair / num_kv_heads, slots, 0, 0);
    const int begin = (blockIdx.x * WARPS + threadIdx.x / 32) * RUN, length = span.end - span.start, stop = min(length, begin + RUN);
    if (begin >= length) return;

    u32 asked[CHUNKS][4] = {};
    const u32* words = reinterpret_cast<const u32*>(query + ((i64)pair * GROUP + own_row) * HEAD_DIM);
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
        for (int w = 0; w < 4; ++w)
            if (own_row < GROUP) asked[c][w] = words[(c * 4 + part) * 4 + w];

    const uint4* rows = reinterpret_cast<const uint4*>(keys + ((i64)pair * slots + span.start) * HEAD_DIM);
    uint4 next[2][CHUNKS];
    auto load = [&](int first) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c)
                next[half][c] = __ldcs(rows + (i64)min(first + half * 8 + own_row, length - 1) * (HEAD_DIM / 8) + c * 4 + part);
    };
    float top[2] = {-INFINITE, -INFINITE}, mass[2] = {0, 0};
    load(begin);
#pragma unroll 1
    for (int first = begin; first < stop; first += 16) {
        uint4 now[2][CHUNKS];
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) now[half][c] = next[half][c];
        if (first + 16 < stop) load(first + 16);
        float sum[4] = {};
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            const u32 *high = &now[0][c].x, *low = &now[1][c].x;
            multiply(sum, high, low, asked[c]);
            multiply(sum, high + 2, low + 2, asked[c] + 2);
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float s[2] = {sum[h] * scale, sum[2 + h] * scale};
            const int head = part * 2 + h;
            float above = top[h];
#pragma unroll
            for (int half = 0; half < 2; ++half)
                if (first + half * 8 + own_row < length) {
                    above = fmaxf(above, s[half]);
                    if (head < GROUP) scores[((i64)pair * GROUP + head) * tiles * TILE + first + half * 8 + own_row] = s[half];
                }
            mass[h] *= top[h] == above ? 1.0f : exp2f(top[h] - above);
#pragma unroll
            for (int half = 0; half < 2; ++half)
                if (first + half * 8 + own_row < length) mass[h] += exp2f(s[half] - above);
            top[h] = above;
        }
        if ((first + 16) % TILE && first + 16 < stop) continue;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
            for (int step = 4; step < 32; step *= 2) {
                const float other = __shfl_xor_sync(~0u, top[h], step), above = fmaxf(top[h], other);
                mass[h] *= top[h] == above ? 1.0f : exp2f(top[h] - above);
                top[h] = above;
                mass[h] += __shfl_xor_sync(~0u, mass[h], step);
            }
            const int head = part * 2 + h;
            if (own_row == 0 && head < GROUP) states[((i64)pair * GROUP + head) * tiles + first / TILE] = make_float2(top[h], mass[h]);
            top[h] = -INFINITE, mass[h] = 0;
        }
    }
}
