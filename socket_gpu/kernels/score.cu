// Mean soft collision weight of every valid token with each query head of its KV head (S1), by table look-ups.
//
// Codes are read once a KV head. A word of 32 bits holds PER_WORD codes of PLANES bits; a lane owns one token, and
// 16-byte loads bring four words: codes [B*Hkv, slot blocks, WORDS4, 32 lanes] of uint4. Tables as in query_tables.cu
// lie in shared memory; entry i of a table is in bank i, so look-ups never conflict. GROUP heads share every index.
//
// Cost a token and KV head: 4 * 4 * WORDS4 bytes, and L * CHUNKS * ENTRY_WORDS look-ups of 4 bytes.
// Half products are summed in half over FLUSH tables, then in float.
//
// Tables beyond one slab (STRIDE4 > WORDS4) take further launches with `accumulate`; norms, if any, come with the last.
//
// With survivors != null, unforced tokens whose score reaches their row's floor are also listed for select.cu, warp by
// warp in shared memory, then in survivors [rows, capacity], whose counts may pass the capacity.
// SHARED: the heads' scores are added in head order and one row a KV head is written.
#include "common.cuh"

#define FLUSH 10
#define ROWS (SHARED ? 1 : GROUP)
#define LISTED (ROWS > 4 ? 64 : ROWS > 2 ? 128 : 256)  // a warp's list of a row

// MODE: 0 half2 products, 1 float products, 2 hard matches.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_A_SM)
    score(const uint4* __restrict__ codes, const u32* __restrict__ tables, const float* __restrict__ norms,
          const i64* __restrict__ spans, float* __restrict__ scores, u64* __restrict__ survivors,
          u32* __restrict__ num_survivors, const u32* __restrict__ floors, int capacity, int num_kv_heads, int slots, int slot_blocks, int first4, int accumulate,
          int sink, int window, float scale) {
    extern __shared__ __align__(16) u32 shared[];
    const int TABLE_WORDS = MODE == 2 ? GROUP * TABLES : TABLES * CHUNKS * ENTRY_WORDS * 32;
    u64* listed = reinterpret_cast<u64*>(shared + (TABLE_WORDS + 1) / 2 * 2);  // [warps][ROWS][LISTED]
    const int pair = blockIdx.y;
    const int first_table = first4 * 4 * PER_WORD;
    const u32* own_tables = tables + ((i64)pair * ALL_TABLES + first_table) * CHUNKS * ENTRY_WORDS * 32;
    if (MODE == 2)
        for (int i = threadIdx.x; i < TABLE_WORDS; i += THREADS)
            shared[i] = tables[((i64)pair * GROUP + i / TABLES) * ALL_TABLES + first_table + i % TABLES];
    else
#pragma unroll 4
        for (int i = threadIdx.x; i < TABLE_WORDS / 4; i += THREADS)
            reinterpret_cast<uint4*>(shared)[i] = reinterpret_cast<const uint4*>(own_tables)[i];
    __syncthreads();

    const Span span = load_span(spans, pair / num_kv_heads, slots, sink, window);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first_block = span.start / 32, last_block = (span.end + 31) / 32;
    const int share = (last_block - first_block + gridDim.x - 1) / gridDim.x;
    const int stop = min(last_block, first_block + share * ((int)blockIdx.x + 1));
    const uint4* source = codes + ((i64)pair * slot_blocks * STRIDE4 + first4) * 32 + lane;
    const char* lookup = reinterpret_cast<const char*>(shared);

    u64* mine = listed + warp * ROWS * LISTED;
    int least[ROWS];  // floors as bits of a score, which is never negative
    u32 num_listed[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) least[r] = survivors ? (int)(floors[2 * (pair * ROWS + r)] ^ 0x80000000u) : 0, num_listed[r] = 0;
    // All rows at once: their places are asked for by different lanes in one round trip.
    auto flush = [&] {
        __syncwarp();
        u32 count = 0;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) count = lane == r ? num_listed[r] : count;
        const u32 start = count ? atomicAdd(num_survivors + pair * ROWS + lane, count) : 0;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const u32 to = __shfl_sync(~0u, start, r);
            for (u32 i = lane; i < num_listed[r]; i += 32)
                if (to + i < (u32)capacity) survivors[((i64)pair * ROWS + r) * capacity + to + i] = mine[r * LISTED + i];
            num_listed[r] = 0;
        }
        __syncwarp();
    };

    // Four words are loaded again for the next block as soon as they are used: one block of latency is hidden without
    // a second set of registers.
    uint4 held[WORDS4];
    int block = first_block + share * blockIdx.x + warp;
#pragma unroll
    for (int i = 0; i < WORDS4; ++i)
        if (block < stop) held[i] = __ldcs(source + ((i64)block * STRIDE4 + i) * 32);

    auto load_norm = [&](int at) {
        const int slot = at * 32 + lane;
        return norms && at < stop && slot < span.end ? norms[(i64)pair * slots + slot] : 1.0f;
    };
    float next_norm = load_norm(block);
    for (; block < stop; block += THREADS / 32) {
        const float norm = next_norm;
        next_norm = load_norm(block + THREADS / 32);
        const bool more = block + THREADS / 32 < stop;
        const uint4* following = source + (i64)(block + THREADS / 32) * STRIDE4 * 32;
        float sum[GROUP];
        __half2 partial[(GROUP + 1) / 2];
#pragma unroll
        for (int g = 0; g < GROUP; ++g) sum[g] = 0;
#pragma unroll
        for (int e = 0; e < (GROUP + 1) / 2; ++e) partial[e] = __float2half2_rn(0.0f);

#pragma unroll
        for (int t = 0; t < TABLES; ++t) {
            const int word = t / PER_WORD;
            const u32 bits = word % 4 == 0 ? held[word / 4].x : word % 4 == 1 ? held[word / 4].y : word % 4 == 2 ? held[word / 4].z : held[word / 4].w;
            const int at = t % PER_WORD * PLANES;
            if (MODE == 2)
#pragma unroll
                for (int g = 0; g < GROUP; ++g)
                    sum[g] += (bits >> at & ((1u << PLANES) - 1)) == shared[g * TABLES + t] ? 1.0f : 0.0f;
            u32 offset[CHUNKS];
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) {
                const int shift = at + c * CHUNK_BITS - 2, size = min(CHUNK_BITS, PLANES - c * CHUNK_BITS);
                offset[c] = (shift >= 0 ? bits >> shift : bits << -shift) & (((1u << size) - 1) << 2);
            }
#pragma unroll
            for (int e = 0; MODE != 2 && e < ENTRY_WORDS; ++e) {
                u32 entry[CHUNKS];
#pragma unroll
                for (int c = 0; c < CHUNKS; ++c)
                    entry[c] = *reinterpret_cast<const u32*>(lookup + offset[c] + ((t * CHUNKS + c) * ENTRY_WORDS + e) * 128);
                if (MODE == 0) {
                    __half2 product = *reinterpret_cast<__half2*>(&entry[0]);
#pragma unroll
                    for (int c = 1; c < CHUNKS - 1; ++c) product = __hmul2(product, *reinterpret_cast<__half2*>(&entry[c]));
                    partial[e] = CHUNKS == 1 ? __hadd2(partial[e], product)
                                             : __hfma2(product, *reinterpret_cast<__half2*>(&entry[CHUNKS - 1]), partial[e]);
                } else {
                    float product = __uint_as_float(entry[0]);
#pragma unroll
                    for (int c = 1; c < CHUNKS; ++c) product *= __uint_as_float(entry[c]);
                    sum[e] += product;
                }
            }
            if (MODE == 0 && (t % FLUSH == FLUSH - 1 || t == TABLES - 1)) {
#pragma unroll
                for (int e = 0; e < ENTRY_WORDS; ++e) {
                    const float2 pairsum = __half22float2(partial[e]);
                    sum[2 * e] += pairsum.x;
                    if (2 * e + 1 < GROUP) sum[2 * e + 1] += pairsum.y;
                    partial[e] = __float2half2_rn(0.0f);
                }
            }
            if (more && (t == TABLES - 1 || (t + 1) % (4 * PER_WORD) == 0)) held[word / 4] = __ldcs(following + word / 4 * 32);
        }

        const int slot = block * 32 + lane;
        const bool valid = slot >= span.start && slot < span.end, choose = survivors && valid && !span.forced(slot);
        float total = 0;
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            float value = sum[g] * scale;
            if (accumulate && valid) value += scores[((i64)pair * GROUP + g) * slots + slot];
            if (norms) value *= norm;
            total = g ? total + value : value;
            if (SHARED && g < GROUP - 1) continue;
            const float out = SHARED ? total : value;
            const int r = SHARED ? 0 : g;
            if (valid) scores[((i64)pair * ROWS + r) * slots + slot] = out;
            const bool passes = choose && __float_as_int(out) >= least[r];
            const u32 passing = __ballot_sync(~0u, passes);
            if (passes) mine[r * LISTED + num_listed[r] + __popc(passing & ((1u << lane) - 1))] = order_token(out, slot);
            num_listed[r] += __popc(passing);
            if (num_listed[r] > LISTED - 32) flush();
        }
    }
    if (survivors) flush();
}
