// Exact scores of every valid token with the query heads of its KV head, and the softmax state of every tile (N9).
//
// A warp takes `run` tokens, tiles of `tile`, 16 at a time by tensor cores: keys are the rows of a product, heads its
// columns. A sum over dims does not care for their order, so a lane reads 16 bytes of a row and takes them as matrix fragments
// of dims that it names itself, and the query is read the same way. Keys are read once and marked so; what stays in the
// L2 cache are the scores. Rows are asked for 16 tokens ahead; of pages, the block table is read 16 further ahead.
//
// spans [B, 2]. scores [B * Hq, tiles * tile] in units of log 2, counted from the span's start; states [B * Hq, tiles] of
// (m, d): the largest score and the sum of 2^(score - m).
//
// Cost: 2 * head_dim bytes a token and KV head from memory, 4 bytes a token and query head to the L2 cache. 131072 tokens,
// 32/8 heads of 128, on an H100, where a plain read of the keys takes 87 us: v1, blocks of 256 threads, a warp 256 tokens,
// 94 us; v2, blocks of 64, a warp 128 tokens, 92. Left: plain loads in place of read-once ones, 102; three blocks of 256 a
// processor, which spill, 106. Without writing the scores it would be 93 in place of 94.
//
// Reference: socket_theory/core/attention.py
// Launcher: socket_gpu/santa/draw.py
// Tests: tests/santa/test_gpu_steps_on_cpu.py, tests/gpu/test_santa.py
#include "common.cuh"
#include "mma.cuh"
#include "rows.cuh"
#include "state.cuh"

struct ScoreTilesConfig {
    int head_dim, page;  // 0 for rows without pages
    int group, tile, run, threads;
};

template <typename KV, ScoreTilesConfig C> struct ScoreTilesParams {
    const KV* query;  // [B * Hq, head_dim]
    Rows<KV, C.page> keys;
    BlockTable<C.page> table;
    const i64* spans;
    float* scores;
    float2* states;
    int slots, tiles, num_kv_heads;
    float scale;
};

template <typename KV, ScoreTilesConfig C>
__global__ void __launch_bounds__(C.threads, 8) score_tiles(const __grid_constant__ ScoreTilesParams<KV, C> p) {
    constexpr int GROUP = C.group, TILE = C.tile, WARPS = C.threads / 32;
    constexpr int CHUNKS = C.head_dim / 32;  // of 8 elements, that a lane reads of a row
    const int pair = blockIdx.y, lane = threadIdx.x % 32, own_row = lane / 4, part = lane % 4;
    const int sequence = pair / p.num_kv_heads;
    const Span span = load_span(p.spans, sequence, p.slots, 0, 0);
    const int begin = (blockIdx.x * WARPS + threadIdx.x / 32) * C.run, length = span.end - span.start, stop = min(length, begin + C.run);
    if (begin >= length) return;

    u32 q[CHUNKS][4] = {};
    const u32* words = reinterpret_cast<const u32*>(p.query + ((i64)pair * GROUP + own_row) * C.head_dim);
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
        for (int w = 0; w < 4; ++w)
            if (own_row < GROUP) q[c][w] = words[(c * 4 + part) * 4 + w];

    // Slots are counted from the span's start, which takes fewer registers, but for pages.
    HeadRows<KV, C.page> keys = p.keys.of(sequence, pair % p.num_kv_heads);
    if constexpr (C.page == 0) keys.base += (i64)span.start * keys.slot_stride;
    const int origin = C.page ? span.start : 0;
    auto slot_of = [&](int first, int half) { return origin + min(first + half * 8 + own_row, length - 1); };
    int block[2];
    auto look_up = [&](int first) {
#pragma unroll
        for (int half = 0; half < 2; ++half) block[half] = p.table.block_of(sequence, slot_of(first, half));
    };
    uint4 next[2][CHUNKS];
    auto load = [&](int first) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4* row = reinterpret_cast<const uint4*>(keys.at(block[half], slot_of(first, half)));
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) next[half][c] = __ldcs(row + c * 4 + part);
        }
        look_up(first + 16);
    };
    State<Binary, 0> state[2];
    look_up(begin);
    load(begin);
#pragma unroll 1
    for (int first = begin; first < stop; first += 16) {
        uint4 k[2][CHUNKS];
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) k[half][c] = next[half][c];
        if (first + 16 < stop) load(first + 16);
        float sum[4] = {};
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            Mma<KV>::multiply(sum, k[0][c].x, k[1][c].x, k[0][c].y, k[1][c].y, q[c][0], q[c][1]);
            Mma<KV>::multiply(sum, k[0][c].z, k[1][c].z, k[0][c].w, k[1][c].w, q[c][2], q[c][3]);
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float s[2] = {sum[h] * p.scale, sum[2 + h] * p.scale};
            const int head = part * 2 + h;
            float larger = state[h].m;
#pragma unroll
            for (int half = 0; half < 2; ++half)
                if (first + half * 8 + own_row < length) {
                    larger = fmaxf(larger, s[half]);
                    if (head < GROUP) p.scores[((i64)pair * GROUP + head) * p.tiles * TILE + first + half * 8 + own_row] = s[half];
                }
            state[h].raise(larger);
#pragma unroll
            for (int half = 0; half < 2; ++half)
                if (first + half * 8 + own_row < length) state[h].add(s[half]);
        }
        if ((first + 16) % TILE && first + 16 < stop) continue;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
            for (int step = 4; step < 32; step *= 2) state[h].merge_lane(step);
            const int head = part * 2 + h;
            if (own_row == 0 && head < GROUP) p.states[((i64)pair * GROUP + head) * p.tiles + first / TILE] = make_float2(state[h].m, state[h].d);
            state[h] = {};
        }
    }
}
