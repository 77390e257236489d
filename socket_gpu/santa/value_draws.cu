// Values drawn by the softmax law of scores that are there already, and their average (N1, N7, N9).
//
// Phase carried: draw i of a head is the first token j at which S F_j reaches i + 1 - a, with one offset a and F the
// distribution function, whose value at a tile's border ends one tile and begins the next. Flash: every tile draws
// max(1, S / tiles) tokens at its own offset, and has its mass shared among them.
//
// Every block of a head adds up the tiles' masses by itself; a warp finds a draw's tile there, then the token in the
// tile's scores, then, of pages, the token's page in the block table, then adds its value row. Blocks are merged by the
// one that finishes a head last. All sums over masses are double, in one order, so the draws do not depend on how they
// are split.
//
// Offsets are philox(key, (head << 32 | tile, step, 0, 0)), as in socket_theory/core/rng.py; `steps` [B * Hq] count a head's
// launches on the device, so that a captured graph draws anew. scores, states: tile_scores.cu. draws [B * Hq, max_draws] of
// slots, -1 for none, as in a flash tile without mass; partial [B * Hq, splits, head_dim]; tickets [B * Hq], zero on
// exit. Status bit 1: an output is not finite.
//
// After the scores of 131072 tokens and 32 heads on an H100, S = 128 and S = 1024: v1, a draw at a time, sums in double,
// 11 and 23 us; v2, two or four draws at a time, 13-14 and 27; v3, sums of a tile in float, a search by all lanes, 12 and
// 22; v4, scores asked for a draw ahead and rows added a draw later, 11 and 22; v5, edges spread over the banks, no
// division a draw, one offset a block and not a thread, 9 and 19. Tiles of 32 are too many to add up, 21 and 33.
//
// Reference: socket_theory/santa/samplers.py, socket_theory/santa/tiles.py
// Launcher: socket_gpu/santa/draw.py
// Tests: tests/santa/test_draws_on_cpu.py, tests/santa/test_gpu_steps_on_cpu.py, tests/gpu/test_santa.py
#include "common.cuh"
#include "last_block.cuh"
#include "rows.cuh"

struct DrawValuesConfig {
    int head_dim, page;  // 0 for rows without pages
    int group, tile, threads;
    bool flash;
};

template <typename KV, typename Out, DrawValuesConfig C> struct DrawValuesParams {
    const float* scores;
    const float2* states;
    Rows<KV, C.page> values;
    BlockTable<C.page> table;
    const i64* spans;
    u64* steps;
    int* draws;
    float* partial;
    u32 *tickets, *status;
    Out* output;  // [B * Hq, head_dim]
    float* lse;   // [B * Hq]
    u64 key_low, key_high;
    int slots, tiles, num_qo_heads, num_samples, max_draws;
};

// A lane's part of a tile.
template <int EACH> struct __align__(EACH % 4 == 0 ? 16 : EACH % 2 == 0 ? 8 : 4) Scores {
    float at[EACH];
};
// A lane's part of a value row, in words until it is used: taken apart when it is read, it would be waited for there.
template <typename KV, int OWN> struct __align__(2 * OWN) Row {
    u32 words[OWN / 2];
    __device__ __forceinline__ KV at(int i) const {
        union { u32 word; KV pair[2]; } held = {words[i / 2]};
        return held.pair[i % 2];
    }
};

// The first word of Philox4x64-10 at counter (index, step, 0, 0), as a uniform on [0, 1) of 53 bits.
__device__ double uniform(u64 k0, u64 k1, u64 index, u64 step) {
    u64 c[4] = {index, step, 0, 0};
    for (int round = 0; round < 10; ++round) {
        const u64 low0 = c[0] * 0xD2E7470EE14C6C93ull, high0 = __umul64hi(c[0], 0xD2E7470EE14C6C93ull);
        const u64 low1 = c[2] * 0xCA5A826395121157ull, high1 = __umul64hi(c[2], 0xCA5A826395121157ull);
        c[0] = high1 ^ c[1] ^ k0, c[1] = low1, c[2] = high0 ^ c[3] ^ k1, c[3] = low0;
        k0 += 0x9E3779B97F4A7C15ull, k1 += 0xBB67AE8584CAA73Bull;
    }
    return (double)(c[0] >> 11) * 0x1p-53;
}

template <typename T> __device__ __forceinline__ T inclusive_sum(T value) {
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const T other = __shfl_up_sync(~0u, value, step);
        if (threadIdx.x % 32 >= step) value += other;
    }
    return value;
}

// Where an edge lies: a warp that reads every 32nd meets no bank twice.
__device__ __forceinline__ int spread(int edge) { return edge + edge / 32; }

// The first of ascending tiles whose end, the next one's edge, reaches the target, else the last: 32 are tried at a time.
__device__ __forceinline__ int find_tile(const double* edges, int tiles, double target) {
    int first = 0;
    for (int left = tiles; left > 1;) {
        const int stride = (left + 31) / 32, end = min(left, (threadIdx.x % 32 + 1) * stride);
        const u32 reached = __ballot_sync(~0u, edges[spread(first + end)] >= target);
        const int pieces = reached ? __ffs(reached) - 1 : (left - 1) / stride;
        first += pieces * stride, left = min(stride, left - pieces * stride);
    }
    return first;
}

template <typename KV, typename Out, DrawValuesConfig C>
__global__ void __launch_bounds__(C.threads, 2) draw_values(const __grid_constant__ DrawValuesParams<KV, Out, C> p) {
    constexpr int DIM = C.head_dim, TILE = C.tile, THREADS = C.threads, WARPS = THREADS / 32;
    constexpr int EACH = TILE / 32, OWN = DIM / 32;
    constexpr bool FLASH = C.flash;
    extern __shared__ double edges[];  // [tiles + 1], spread: draws, for flash the share of all mass, before a tile
    __shared__ double sums[WARPS], shared_offset;
    __shared__ float largest[WARPS], own[WARPS][DIM];
    const int row = blockIdx.y, splits = gridDim.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int sequence = row / p.num_qo_heads;
    const Span span = load_span(p.spans, sequence, p.slots, 0, 0);
    const int length = span.end - span.start, own_tiles = (length + TILE - 1) / TILE;
    const u64 step = p.steps[row];
    const float2* states = p.states + (i64)row * p.tiles;
    const HeadRows<KV, C.page> values = p.values.of(sequence, row % p.num_qo_heads / C.group);

    const int a_tile = max(1, p.num_samples / max(1, own_tiles)), num_draws = FLASH ? a_tile * own_tiles : length > 0 ? p.num_samples : 0;
    if (!FLASH && warp == 0) shared_offset = uniform(p.key_low, p.key_high, (u64)row << 32, step);

    // Masses before each tile, relative to the largest score: sums in one order and in double, which no merge of states is.
    const int run = (own_tiles + THREADS - 1) / THREADS, begin = min(own_tiles, (int)threadIdx.x * run), end = min(own_tiles, begin + run);
    float m = -INFINITE;
    for (int t = begin; t < end; ++t) m = fmaxf(m, __ldg(&states[t].x));
#pragma unroll
    for (int reach = 16; reach; reach /= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, reach));
    if (lane == 0) largest[warp] = m;
    __syncthreads();
    for (int w = 0; w < WARPS; ++w) m = fmaxf(m, largest[w]);
    double mass = 0;
    for (int t = begin; t < end; ++t) mass += edges[spread(t)] = exp2((double)__ldg(&states[t].x) - (double)m) * (double)__ldg(&states[t].y);
    double before = inclusive_sum(mass);
    if (lane == 31) sums[warp] = before;
    __syncthreads();
    before -= mass;
    double d = 0;
    for (int w = 0; w < WARPS; ++w) before += w < warp ? sums[w] : 0, d += sums[w];
    const double unit = (FLASH ? 1 : p.num_samples) / d;
    for (int t = begin; t < end; ++t) {
        const double next = before + edges[spread(t)];
        edges[spread(t)] = before * unit;
        before = next;
    }
    if (threadIdx.x == 0) edges[spread(own_tiles)] = FLASH ? 1 : p.num_samples;
    __syncthreads();

    const int workers = splits * WARPS, share = (num_draws + workers - 1) / workers, first = ((int)blockIdx.x * WARPS + warp) * share;
    const int stop = min(num_draws, first + share);
    const double offset = FLASH ? 0 : shared_offset;
    float o[OWN] = {};
    // A draw waits for its tile's scores and then for its value row: the scores are asked for a draw ahead, and the row is
    // added a draw later.
    auto tile_of = [&](int i) { return FLASH ? i / a_tile : find_tile(edges, own_tiles, i + (1 - offset)); };
    Scores<EACH> coming = {};
    float peak = 0;
    auto ask = [&](int tile) {
        coming = reinterpret_cast<const Scores<EACH>*>(p.scores + ((i64)row * p.tiles + tile) * TILE)[lane];
        peak = __ldg(&states[tile].x);
    };
    float held[EACH], reached = 0, all = 0, weight = 1, late_weight = 0;
    double low = 0, width = 0, per_width = 0, tile_offset = 0;
    Row<KV, OWN> late = {};
    auto add_late = [&] {
        if (late_weight > 0)
#pragma unroll
            for (int i = 0; i < OWN; ++i) o[i] += late_weight * Element<KV>::up(late.at(i));
    };
    int tile = -1, valid = 0, next = 0;
    if (first < stop) ask(next = tile_of(first));
#pragma unroll 1
    for (int i = first; i < stop; ++i) {
        if (next != tile) {
            tile = next, valid = min(TILE, length - tile * TILE), low = edges[spread(tile)], width = edges[spread(tile + 1)] - low, per_width = 1 / width;
            float sum_here = 0;
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                if (lane * EACH + e < valid) sum_here += exp2f(coming.at[e] - peak);
                held[e] = sum_here;
            }
            reached = inclusive_sum(sum_here) - sum_here;
            all = __shfl_sync(~0u, reached + sum_here, 31);
            if (FLASH) tile_offset = uniform(p.key_low, p.key_high, (u64)row << 32 | (u64)tile, step), weight = (float)(width / a_tile);
        }
        if (i + 1 < stop) next = tile_of(i + 1);
        if (next != tile) ask(next);
        const double inside = FLASH ? (i % a_tile + (1 - tile_offset)) / a_tile : (i + (1 - offset) - low) * per_width;
        // The first token whose running sum reaches the goal; the goal is at most the last one's, bit for bit.
        const float goal = (float)fmin(inside, 1.0) * all;
        int smaller = 0;
#pragma unroll
        for (int e = 0; e < EACH; ++e) smaller += reached + held[e] < goal;
        const int token = tile * TILE + min(__reduce_add_sync(~0u, smaller), valid - 1);
        const int slot = span.start + token, block = p.table.block_of(sequence, slot);
        const bool drawn = width > 0;  // not where a tile has no mass, or NaN
        if (lane == 0) p.draws[(i64)row * p.max_draws + i] = drawn ? slot : -1;
        add_late();
        late = reinterpret_cast<const Row<KV, OWN>*>(values.at(block, slot))[lane];
        late_weight = drawn ? weight : 0;
    }
    add_late();
    for (int i = num_draws + blockIdx.x * THREADS + threadIdx.x; i < p.max_draws; i += splits * THREADS) p.draws[(i64)row * p.max_draws + i] = -1;

#pragma unroll
    for (int i = 0; i < OWN; ++i) own[warp][lane * OWN + i] = o[i];
    __syncthreads();
    for (int dim = threadIdx.x; dim < DIM; dim += THREADS) {
        float added = 0;
        for (int w = 0; w < WARPS; ++w) added += own[w][dim];
        p.partial[((i64)row * splits + blockIdx.x) * DIM + dim] = added;
    }
    if (!last_block(p.tickets + row, splits)) return;
    if (threadIdx.x == 0) {
        p.steps[row] = step + 1;
        p.lse[row] = length > 0 ? (float)(0.693147180559945309 * ((double)m + log2(d))) : -INFINITE;
    }
    for (int dim = threadIdx.x; dim < DIM; dim += THREADS) {
        float added = 0;
        for (int s = 0; s < splits; ++s) added += __ldcg(p.partial + ((i64)row * splits + s) * DIM + dim);
        const float mean = FLASH ? added : added / (float)p.num_samples;
        const Out stored = Element<Out>::down(mean);
        p.output[(i64)row * DIM + dim] = stored;
        const float seen = Element<Out>::up(stored);
        if (p.status && !(seen - seen == 0 && d - d == 0)) atomicOr(p.status, 2u);
    }
}
