// Mean collision weight of every valid token with the query heads of its KV head (S1), from queries to scores.
//
// 1. Projections of the queries on all planes, by tensor cores: planes are bfloat16, a query, as float, is split
//    exactly into `splits` bfloat16 terms. A plane gives a key on either of its sides a factor: 2 sigma(+-2h/tau) for soft
//    collisions, written 2 / (1 + exp(-+2h/tau)), which is exact at both ends; 1 or 0 for hard ones.
// 2. Look-up tables with the products of all 2^planes codes (of both halves of a code beyond `low_bits`). 32 tables lie
//    side by side, entry i of table t in word [i][t]: table t is bank t. One ring of 32 is held at a time.
// 3. A lane owns a token, and field s of lane j is table s ^ j (codes.py): at every step 32 lanes read 32 banks,
//    whatever their codes are. Sums over other rings wait in shared memory, `tile` blocks of 32 tokens.
//
// With `bytes` an entry is 4 bytes, a head each, floor((w - lowest) / step + t / 32): the dither t / 32 of table t
//   keeps equal products of many tables from being rounded alike. Integers are summed, so no order of sums matters.
//   Errors are told by byte_table_error (score.py), more for queries so short that all products are within 2%. Beyond
//   `low_bits` only for hard collisions, whose halves are combined by AND.
// Else an entry is one head's float; a group takes a pass a head.
//
// A `shared` score is the sum over the group in head order. More tables than a launch takes need further launches with
// `accumulate`; norms, if any, come with the last.
// With survivors != null, unforced tokens whose score reaches their row's floor are also listed for select_tokens.cu,
// warp by warp in shared memory, then in survivors, whose counts may pass the capacity.
//
// Cost a token and KV head: 4 * rings * planes bytes, and a look-up, a shift, a mask and two dot products a table.
// 32/8 heads, 131072 tokens, P=10, L=60, on an H100, with the query's side: v1, two tables of 2^5 half2 entries,
// multiplied (240 look-ups a token where 64 are made now), tables by a launch of their own: 54 + 6 us; v2, byte tables,
// sums by permutes and additions: 53 + 7 us, bound by the integer pipe; v3, sums by dot products: 49 + 7 us; v4, the
// query's side in this launch, read before the codes are asked for: 49. Tried and left: 640 threads, words reloaded as
// they are used up, lists of a block for lists of a warp, a launch that begins before the one before it ends (each
// within 2 us, none better). Half of the time all four warps of a scheduler wait or only one can issue.
//
// Reference: socket_theory/socket_lsh/collisions.py
// Launcher: socket_gpu/socket_lsh/score.py
// Tests: tests/socket_lsh/test_gpu_steps_on_cpu.py, tests/gpu/test_scores.py
#include "common.cuh"
#include "mma.cuh"

#define MAGIC 49152.0f  // 1.5 * 2^15: bits 8 and up of a float near it are its integer
#define AHEAD 4         // blocks a warp asks the L2 cache for before it reads them

enum QueryMap { map_tanh_scaled, map_tanh, map_linear, map_hard };

struct ScoreConfig {
    QueryMap query_map;
    int head_dim, splits;
    int planes, tables, all_rings;  // tables of this launch, rings of all
    int low_bits, group;
    bool bytes, shared;
    int threads, listed;            // survivors of a row that a warp has room for
};

template <typename Query> struct ScoreParams {
    const Query* query;           // [B, Hq, head_dim]
    const uint4* planes;          // [row tiles, head_dim / 16, 32 lanes] of matrix fragments, row l * planes + p (hash_keys.py)
    const u32* codes;             // [B*Hkv, slot_blocks, all_rings, planes, 32 lanes]
    const __nv_bfloat16* norms;   // [B*Hkv, slots]
    const i64* spans;
    float* scores;                // [B, Hq, slots], or [B, Hkv, slots] if shared
    u64* survivors;               // [rows, capacity]
    u32* num_survivors;           // [rows]
    const u32* floors;            // [rows, 2]
    int capacity, num_kv_heads, slots, slot_blocks, first_ring, accumulate, tile, sink, window;
    float inverse_temperature, mean;
};

// The query's side: factors of planes, and look-up tables of their products.
template <ScoreConfig C> struct ScoreTables {
    static constexpr bool HARD = C.query_map == map_hard;
    static constexpr int PLANES = C.planes, WARPS = C.threads / 32;
    static constexpr int HEADS = C.bytes ? 4 : 1, OWN = C.group < HEADS ? C.group : HEADS;  // of an entry, and of them those in use
    static constexpr int SIDES = C.bytes ? 1 : 2;  // of a plane that are kept: with bytes one gives the other

    // Fast functions: errors of some 1e-6 in a factor, exact at both ends.
    static __device__ __forceinline__ float factor_of(float z, int side, float inverse_temperature) {
        if (HARD) return (z >= 0) == side ? 1.0f : 0.0f;
        const float tangent = 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * z));
        const float h = C.query_map == map_tanh_scaled ? tangent * rsqrtf((float)C.head_dim) : C.query_map == map_tanh ? tangent : z;
        return __fdividef(2.0f, 1.0f + __expf((side ? -2.0f : 2.0f) * h * inverse_temperature));
    }

    // Where the factor of a ring's table is kept: [PLANES][SIDES][OWN][32 tables].
    static __device__ __forceinline__ int factor_at(int plane, int side, int head) {
        return ((plane * SIDES + side) * OWN + head) * 32;
    }

    // Bits `bit` .. `bit + size` of a ring as a byte offset into a look-up table, at a lane's bank.
    static __device__ __forceinline__ u32 place(const u32 (&words)[PLANES + 1], int bit, int size, u32 bank) {
        const int word = bit / 32, at = bit % 32;
        u32 shifted = at >= 7 ? words[word] >> (at - 7) : words[word] << (7 - at);
        if (at + size > 32) shifted = __funnelshift_r(words[word], words[word + 1], at - 7);
        return (shifted & (((1u << size) - 1) << 7)) | bank;
    }

    // Products over BITS planes from FIRST on, for every side of each: 2^BITS rows of 32 tables. A warp takes the rows
    // whose middle bits are its own number.
    template <int FIRST, int BITS>
    static __device__ __forceinline__ void fill(u32* table, const float* factors, bool real, const float (&scale)[OWN], const float (&offset)[OWN]) {
        const int LOW = BITS < 3 ? BITS : 3, MIDDLE = BITS - LOW < 4 ? BITS - LOW : 4, HIGH = BITS - LOW - MIDDLE;
        static_assert(WARPS >= 16, "a warp for each value of four middle bits");
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        if (warp >= 1 << MIDDLE) return;
        auto factor = [&](int bit, int side, int h) {
            if (SIDES == 2) return factors[factor_at(FIRST + bit, side, h)];
            const float up = factors[factor_at(FIRST + bit, 0, h)];
            return side ? up : (HARD ? 1.0f : 2.0f) - up;
        };
        auto spread = [&](auto& products, int bits, int first, int h) {
#pragma unroll
            for (int b = 0; b < bits; ++b) {
                const float up = factor(first + b, 1, h), down = factor(first + b, 0, h);
#pragma unroll
                for (int i = 0; i < 1 << b; ++i) {
                    products[i | 1 << b][h] = products[i][h] * up;
                    products[i][h] *= down;
                }
            }
        };
        float low[1 << LOW][OWN], rest[1 << HIGH][OWN], from[OWN];
#pragma unroll
        for (int h = 0; h < OWN; ++h) {
            low[0][h] = real ? scale[h] : 0.0f, rest[0][h] = 1.0f;
#pragma unroll
            for (int b = 0; b < MIDDLE; ++b) low[0][h] *= factor(LOW + b, warp >> b & 1, h);
            from[h] = real ? offset[h] : MAGIC;  // the entries of a table that does not exist are 0
            spread(low, LOW, 0, h);
            spread(rest, HIGH, LOW + MIDDLE, h);
        }
#pragma unroll
        for (int high = 0; high < 1 << HIGH; ++high) {
            u32* row = table + ((high << (LOW + MIDDLE) | warp << LOW) * 32 + lane);
#pragma unroll
            for (int i = 0; i < 1 << LOW; ++i) {
                if (C.bytes) {
                    u32 whole[4] = {};
#pragma unroll
                    for (int h = 0; h < OWN; ++h) whole[h] = __float_as_uint(fmaf(low[i][h], rest[high][h], from[h]));
                    row[i * 32] = __byte_perm(__byte_perm(whole[0], whole[1], 0x0051), __byte_perm(whole[2], whole[3], 0x0051), 0x5410);
                } else {
                    row[i * 32] = __float_as_uint(low[i][0] * rest[high][0]);
                }
            }
        }
    }
};

template <typename Query, ScoreConfig C>
__global__ void __launch_bounds__(C.threads, 1) score(const __grid_constant__ ScoreParams<Query> params) {
    typedef ScoreTables<C> S;
    const ScoreParams<Query> p = params;  // lambdas that capture a copy stay in registers, those of a parameter do not
    constexpr bool BYTES = C.bytes, SHARED = C.shared, HARD = S::HARD;
    constexpr int HEAD_DIM = C.head_dim, SPLITS = C.splits, PLANES = C.planes, TABLES = C.tables, RINGS = (TABLES + 31) / 32;
    constexpr int LOW_BITS = C.low_bits, HIGH_BITS = PLANES - LOW_BITS, GROUP = C.group, THREADS = C.threads, LISTED = C.listed;
    constexpr int HEADS = S::HEADS, OWN = S::OWN, SIDES = S::SIDES, WARPS = S::WARPS, ROWS = SHARED ? 1 : OWN;
    constexpr int PASSES = (GROUP + HEADS - 1) / HEADS, PARTS = BYTES ? 2 : 1;
    constexpr int K16 = (HEAD_DIM + 15) / 16, WIDTH = K16 * 16 + 8;
    extern __shared__ __align__(16) u32 table[];  // [2^LOW_BITS (+ 2^HIGH_BITS)][32]
    const int ENTRIES = (1 << LOW_BITS) + (HIGH_BITS ? 1 << HIGH_BITS : 0);
    u32* waiting = table + ENTRIES * 32;                                                          // [tile][PARTS][32]
    u64* listed = reinterpret_cast<u64*>(waiting + (RINGS > 1 ? p.tile * PARTS * 32 : 0));        // [WARPS][ROWS][LISTED]
    float* factors = reinterpret_cast<float*>(listed + WARPS * ROWS * LISTED);                    // [RINGS][factor_at]
    __nv_bfloat16* terms = reinterpret_cast<__nv_bfloat16*>(table);                               // [SPLITS][8][WIDTH], at first
    __shared__ float extremes[2][RINGS][OWN];
    __shared__ float4 code[OWN];  // of a head's bytes: scale, MAGIC minus the lowest; of its scores: step, base
    const int pair = blockIdx.y, head0 = blockIdx.x % PASSES * HEADS, heads = min(OWN, GROUP - head0);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int Q_ITEMS = (8 * K16 * 16 + THREADS - 1) / THREADS, ROW_TILES = RINGS * 2 * PLANES;
    const int AT_ONCE = K16 > 12 ? 1 : K16 > 8 ? 2 : 3;

    // What all else waits for is asked for at once and alone: a first read takes a microsecond, more behind other reads.
    float own_query[Q_ITEMS];
#pragma unroll
    for (int i = 0; i < Q_ITEMS; ++i) {
        const int item = threadIdx.x + i * THREADS, h = item / (K16 * 16), d = item % (K16 * 16);
        const bool real = h < heads && d < HEAD_DIM;
        own_query[i] = real ? (float)Element<Query>::up(p.query[((i64)pair * GROUP + head0 + h) * HEAD_DIM + d]) : 0.0f;
    }
    uint4 rows[AT_ONCE][K16];
    auto load_rows = [&](int part) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i)
#pragma unroll
            for (int k = 0; k < K16; ++k)
                rows[i][k] = (part + i * WARPS) * 16 < TABLES * PLANES
                                 ? p.planes[((i64)(p.first_ring * 2 * PLANES + part + i * WARPS) * K16 + k) * 32 + lane]
                                 : make_uint4(0, 0, 0, 0);
    };
    load_rows(warp);
    const i64 row0 = SHARED ? pair : (i64)pair * GROUP + head0;
    int floor_bits[ROWS];  // of a score, which is never negative
#pragma unroll
    for (int r = 0; r < ROWS; ++r) floor_bits[r] = p.survivors && r < heads ? (int)(p.floors[2 * (row0 + r)] ^ 0x80000000u) : 0;

    const Span span = load_span(p.spans, pair / p.num_kv_heads, p.slots, p.sink, p.window);
    const int shares = gridDim.x / PASSES, first_block = span.start / 32, end_block = (span.end + 31) / 32;
    const int share = (end_block - first_block + shares - 1) / shares;
    const int begin = first_block + share * (blockIdx.x / PASSES), stop = min(end_block, begin + share);
    if (begin >= stop) return;

    auto block_codes = [&](int block, int ring) {
        return p.codes + (((i64)pair * p.slot_blocks + block) * C.all_rings + p.first_ring + ring) * PLANES * 32;
    };
    auto prefetch = [&](const u32* at) {
        if (lane < PLANES) asm volatile("prefetch.global.L2 [%0];" ::"l"(at + lane * 32));
    };
    u32 next[PLANES];
    auto load = [&](const u32* at) {
#pragma unroll
        for (int w = 0; w < PLANES; ++w) next[w] = __ldcs(at + w * 32 + lane);
    };

#pragma unroll
    for (int i = 0; i < Q_ITEMS; ++i) {
        const int item = threadIdx.x + i * THREADS, h = item / (K16 * 16), d = item % (K16 * 16);
#pragma unroll
        for (int s = 0; s < SPLITS && h < 8; ++s) {
            const __nv_bfloat16 term = __float2bfloat16_rn(own_query[i]);
            terms[(s * 8 + h) * WIDTH + d] = term;
            own_query[i] -= __bfloat162float(term);
        }
    }
    __syncthreads();
#pragma unroll 1
    for (int part = warp; part < ROW_TILES; part += AT_ONCE * WARPS) {
        float z[AT_ONCE][4] = {};
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i)
#pragma unroll
            for (int k = 0; k < K16; ++k)
#pragma unroll
                for (int s = SPLITS - 1; s >= 0; --s) {
                    const u32* b = reinterpret_cast<const u32*>(terms + (s * 8 + lane / 4) * WIDTH + k * 16 + lane % 4 * 2);
                    const uint4 a = rows[i][k];
                    Mma<__nv_bfloat16>::multiply(z[i], a.x, a.y, a.z, a.w, b[0], b[4]);
                }
        if (part == warp)
            for (int block = begin + warp, i = 0; block < stop && i < 2 * AHEAD; block += WARPS, ++i) prefetch(block_codes(block, 0));
        load_rows(part + AT_ONCE * WARPS);
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i)
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int row = (part + i * WARPS) * 16 + c / 2 * 8 + lane / 4, h = lane % 4 * 2 + c % 2, at = row / PLANES;
                if (row >= RINGS * 32 * PLANES || h >= OWN) continue;
                float* to = factors + at / 32 * PLANES * SIDES * OWN * 32 + at % 32;
#pragma unroll
                for (int side = 0; side < SIDES; ++side)
                    to[S::factor_at(row % PLANES, side, h)] = S::factor_of(z[i][c], BYTES ? 1 : side, p.inverse_temperature);
            }
    }
    __syncthreads();

    // The lowest product of any table is byte 0 or 1, the highest 253 to 255: room for rounding on both sides.
    for (int item = warp; BYTES && item < RINGS * OWN; item += WARPS) {
        const bool real = item / OWN * 32 + lane < TABLES;
        float most = 1, least = 1;
#pragma unroll
        for (int plane = 0; plane < PLANES; ++plane) {
            const float up = factors[item / OWN * PLANES * OWN * 32 + S::factor_at(plane, 0, item % OWN) + lane];
            const float down = (HARD ? 1.0f : 2.0f) - up;
            most *= fmaxf(up, down), least *= fminf(up, down);
        }
        if (!real) most = 0, least = INFINITE;
#pragma unroll
        for (int reach = 16; reach; reach /= 2) {
            most = fmaxf(most, __shfl_xor_sync(~0u, most, reach));
            least = fminf(least, __shfl_xor_sync(~0u, least, reach));
        }
        if (lane == 0) extremes[0][item / OWN][item % OWN] = least, extremes[1][item / OWN][item % OWN] = most;
    }
    __syncthreads();
    if (BYTES && threadIdx.x < OWN) {
        float least = INFINITE, most = 0;
#pragma unroll
        for (int r = 0; r < RINGS; ++r)
            least = fminf(least, extremes[0][r][threadIdx.x]), most = fmaxf(most, extremes[1][r][threadIdx.x]);
        // A range below 2^-6 of its own height would not leave the integer room in MAGIC.
        const float scale = 253.0f / fmaxf(most - least, most * 0x1p-6f), step = p.mean / scale;
        const float lowest = HARD ? 0.0f : floorf(least * scale - 0x1p-5f);
        // Rounding down takes half a step from a table, and dithers of a ring add up to 0, 1, ..., 31 of 32 parts.
        const float last = TABLES % 32, dithers = (TABLES / 32 * 496 + last * (last - 1) / 2) / 32;
        code[threadIdx.x] = make_float4(scale, MAGIC - lowest, step, (TABLES * lowest + (HARD ? 0.0f : 0.5f * TABLES - dithers)) * step);
    }
    __syncthreads();
    float scale[OWN], offset[OWN], base[OWN], step[OWN];
#pragma unroll
    for (int h = 0; h < OWN; ++h) {
        scale[h] = 1, offset[h] = 0, base[h] = 0, step[h] = p.mean;
        if (BYTES) scale[h] = code[h].x, offset[h] = code[h].y + (HARD ? 0.0f : lane / 32.0f), step[h] = code[h].z, base[h] = code[h].w;
    }

    u32 num_listed[ROWS];
    u64* mine = listed + warp * ROWS * LISTED;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) num_listed[r] = 0;
    // All rows at once: their places are asked for by different lanes in one round trip.
    auto flush = [&] {
        __syncwarp();
        u32 count = 0;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) count = lane == r ? num_listed[r] : count;
        const u32 start = count ? atomicAdd(p.num_survivors + row0 + lane, count) : 0;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const u32 to = __shfl_sync(~0u, start, r);
#pragma unroll 1
            for (u32 i = lane; i < num_listed[r]; i += 32)
                if (to + i < (u32)p.capacity) p.survivors[(row0 + r) * p.capacity + to + i] = mine[r * LISTED + i];
            num_listed[r] = 0;
        }
        __syncwarp();
    };
    auto finish = [&](int block, const u32 (&pairs)[2], float sum, float norm) {
        const int slot = block * 32 + lane;
        const bool valid = slot >= span.start && slot < span.end, choose = p.survivors && valid && !span.forced(slot);
        const float counts[4] = {BYTES ? (float)(pairs[0] & 0xFFFF) : sum, (float)(pairs[0] >> 16), (float)(pairs[1] & 0xFFFF), (float)(pairs[1] >> 16)};
        float* to = p.scores + row0 * p.slots + slot;
        float total = 0;
        bool full = false;
#pragma unroll
        for (int h = 0; h < OWN; ++h) {
            if (GROUP % HEADS && h >= heads) continue;
            float out = fmaf(counts[h], step[h], base[h]);
            if (p.accumulate && valid) out += *to;
            out = __fmul_rn(out, norm);  // not contracted with the sum, so that it adds up as sum_group does
            if (SHARED) out = total += out;
            if (SHARED && h < OWN - 1) continue;
            const int r = SHARED ? 0 : h;
            if (valid) *to = out;
            to += p.slots;
            const bool passes = choose && __float_as_int(out) >= floor_bits[r];
            const u32 passing = __ballot_sync(~0u, passes);
            if (passes)
                mine[r * LISTED + num_listed[r] + __popc(passing & ((1u << lane) - 1))] = (u64)(__float_as_uint(out) | 0x80000000u) << 32 | (u32)slot;
            num_listed[r] += __popc(passing);
            full |= num_listed[r] > LISTED - 32;
        }
        if (full) flush();
    };

    const char* low = reinterpret_cast<const char*>(table);
    const char* high = low + (128 << LOW_BITS);
    int filled = -1;
    bool upwards = true;  // rings of one tile in order, of the next in reverse: the last one filled is used twice
    for (int first = begin; first < stop; first += p.tile, upwards = !upwards) {
        const int end = min(stop, first + p.tile);
        for (int turn = 0; turn < RINGS; ++turn) {
            const bool final = turn == RINGS - 1;
            const int ring = upwards ? turn : RINGS - 1 - turn;
            const u32* at = block_codes(first + warp, ring);
            if (first + warp < end) load(at);
            if (ring != filled) {
                if (turn)
                    for (int block = first + warp, i = 0; block < end && i < AHEAD; block += WARPS, ++i) prefetch(block_codes(block, ring));
                __syncthreads();
                const bool real = ring * 32 + lane < TABLES;
                const float* from = factors + ring * PLANES * SIDES * OWN * 32 + lane;
                S::template fill<0, LOW_BITS>(table, from, real, scale, offset);
                if constexpr (HIGH_BITS > 0) S::template fill<LOW_BITS, HIGH_BITS>(table + (32 << LOW_BITS), from, real, scale, offset);
                __syncthreads();
                filled = ring;
            }
            u32 banks[32];  // by shuffles, so that they stay in registers: a computed one would be computed in every step
#pragma unroll
            for (int s = 0; s < 32; ++s) banks[s] = __shfl_xor_sync(~0u, lane << 2, s);
            u32* held = waiting + warp * PARTS * 32 + lane;
            for (int block = first + warp; block < end; block += WARPS, held += WARPS * PARTS * 32) {
                u32 words[PLANES + 1];
#pragma unroll
                for (int w = 0; w < PLANES; ++w) words[w] = next[w];
                words[PLANES] = 0;
                at += WARPS * C.all_rings * PLANES * 32;
                if (block + WARPS < end) load(at);
                if (block + AHEAD * WARPS < end) prefetch(at + (AHEAD - 1) * WARPS * C.all_rings * PLANES * 32);
                const int slot = block * 32 + lane;
                const float norm = final && p.norms && slot < span.end ? __bfloat162float(p.norms[(i64)pair * p.slots + slot]) : 1.0f;
                // A sum of 32 bytes stays below 2^15: two of them share a word, one weighed by 1 and one by 2^15.
                u32 pairs[2] = {0, 0};
                float sum = 0;
#pragma unroll
                for (int s = 0; s < 32; ++s) {
                    u32 entry = *reinterpret_cast<const u32*>(low + S::place(words, s * PLANES, LOW_BITS, banks[s]));
                    u32 other = 0;
                    if (HIGH_BITS) other = *reinterpret_cast<const u32*>(high + S::place(words, s * PLANES + LOW_BITS, HIGH_BITS, banks[s]));
                    if (BYTES) {
                        if (HIGH_BITS) entry &= other;
                        pairs[0] = __dp2a_lo(0x80000001u, entry, pairs[0]);
                        pairs[1] = __dp2a_hi(0x80000001u, entry, pairs[1]);
                    } else {
                        sum += HIGH_BITS ? __uint_as_float(entry) * __uint_as_float(other) : __uint_as_float(entry);
                    }
                }
#pragma unroll
                for (int i = 0; i < PARTS; ++i) {
                    pairs[i] = (pairs[i] & 0x7FFF) | pairs[i] >> 15 << 16;
                    if (turn && BYTES) pairs[i] += held[i * 32];
                    if (turn && !BYTES) sum += __uint_as_float(held[i * 32]);
                    if (!final) held[i * 32] = BYTES ? pairs[i] : __float_as_uint(sum);
                }
                if (final) finish(block, pairs, sum, norm);
            }
        }
    }
    if (p.survivors) flush();
}
