// Packed sign codes of keys, by tensor-core projections that never leave the registers; norms of values.
//
// Planes hold bfloat16 values, and a key is split exactly into `splits` bfloat16 terms (1 for bf16, 2 for f16, 3 for
// f32, f64 and centred keys), so a projection is `splits` bf16 products with float accumulation, the largest term last.
// A block hashes `tile` tokens of one KV head against all planes, 32 columns (one packed word) at a time; warp w
// owns rows 32 w .. 32 w + 31. Rows beyond the count are zero, so a key has the same bits alone or among others.
//
// The rows of planes are in column order: column 32 w + 8 t + c is bit 32 w + 8 t + 4 (c & 1) + c / 2 of a
// token's tables laid end to end, the order in which two ballots over an 8-column accumulator deliver bits.
// Of codes, token n is lane n % 32 of block n / 32. A ring is 32 fields of `planes` bits, and field s of lane j is table
// s ^ j of the ring (see score.cu); fields of tables that do not exist are 0.
// Cost a token: splits * 32 * words * head_dim multiply-adds, its key once, 4 * rings * planes bytes written.
//
// Reference: socket_theory/core/hashing.py
// Launcher: socket_gpu/socket_lsh/hash_keys.py
// Tests: tests/socket_lsh/test_gpu_steps_on_cpu.py, tests/gpu/test_scores.py
#include "common.cuh"
#include "mma.cuh"

typedef __nv_bfloat16 bf16;

struct HashKeysConfig {
    int head_dim, splits;
    bool centred;
    int tile, tables, planes;  // a thread for every token of a tile
};

template <typename KV> struct HashKeysParams {
    const KV* keys;
    const bf16* planes;    // [words * 32 columns, head_dim padded to 16]
    const double* center;  // [B*Hkv, head_dim] if centred
    u32* codes;            // [B*Hkv, slot_blocks, rings, planes, 32 lanes]
    const i64* spans;
    int num_kv_heads, slot_blocks;
    i64 key_slots, capacity;
    int append;
};

template <typename KV, HashKeysConfig C>
__global__ void __launch_bounds__(C.tile) hash_keys(const __grid_constant__ HashKeysParams<KV> p) {
    constexpr int HEAD_DIM = C.head_dim, SPLITS = C.splits, TILE = C.tile, TABLES = C.tables, PLANES = C.planes;
    constexpr int WORDS = (TABLES * PLANES + 31) / 32, RINGS = (TABLES + 31) / 32;
    constexpr int DIM16 = (HEAD_DIM + 15) / 16 * 16, WIDTH = DIM16 + 8;  // rows start 16 bytes apart modulo 128
    extern __shared__ __align__(16) bf16 shared[];
    bf16* rows = shared;                           // [SPLITS][TILE][WIDTH]
    bf16* slab = shared + SPLITS * TILE * WIDTH;   // [2][32][WIDTH]
    u32* straight = reinterpret_cast<u32*>(slab + 64 * WIDTH) + threadIdx.x;  // [PLANES + 1][TILE], a ring not turned
    const int pair = blockIdx.y, thread = threadIdx.x, lane = thread % 32, warp = thread / 32;

    // With `append`, row r of `keys` goes behind the span, as far as `capacity`; else slots are rows and those outside the span are left alone.
    const i64 start = p.spans[2 * (pair / p.num_kv_heads)], length = p.spans[2 * (pair / p.num_kv_heads) + 1];
    const i64 first = p.append ? (i64)blockIdx.x * TILE : start + (i64)blockIdx.x * TILE;
    const i64 stop = p.append ? p.key_slots : min(p.key_slots, start + length);
    const i64 shift = p.append ? start + length : 0;
    if (first >= stop) return;
    const KV* own = p.keys + (i64)pair * p.key_slots * HEAD_DIM;

    auto fetch = [&](int word) {
        bf16* to = slab + (word & 1) * 32 * WIDTH;
        for (int i = thread; i < 32 * (DIM16 / 8); i += TILE) {
            const int column = i / (DIM16 / 8), d = i % (DIM16 / 8) * 8;
            copy_async(to + column * WIDTH + d, p.planes + ((i64)word * 32 + column) * DIM16 + d);
        }
        commit_copies();
    };
    fetch(0);

    const bool whole = SPLITS == 1 && HEAD_DIM == DIM16;
    for (int i = thread; whole && i < TILE * (DIM16 / 8); i += TILE) {
        const int row = i / (DIM16 / 8), d = i % (DIM16 / 8) * 8;
        uint4 pack = make_uint4(0, 0, 0, 0);
        if (first + row < stop) pack = __ldcs(reinterpret_cast<const uint4*>(own + (first + row) * HEAD_DIM + d));
        *reinterpret_cast<uint4*>(rows + row * WIDTH + d) = pack;
    }
    for (int i = thread; !whole && i < TILE * DIM16; i += TILE) {
        const int row = i / DIM16, d = i % DIM16;
        const bool valid = first + row < stop && d < HEAD_DIM;
        double rest = valid ? (double)Element<KV>::up(own[(first + row) * HEAD_DIM + d]) : 0.0;
        if (C.centred && valid) rest -= p.center[(i64)pair * HEAD_DIM + d];
#pragma unroll
        for (int s = 0; s < SPLITS; ++s) {
            const bf16 part = __float2bfloat16_rn((float)rest);
            rows[(s * TILE + row) * WIDTH + d] = part;
            rest -= (double)__bfloat162float(part);
        }
    }

    const i64 out = first + warp * 32 + lane + shift;
    const bool mine = first + warp * 32 + lane < stop && out < p.capacity;
    u32* to = p.codes + ((i64)pair * p.slot_blocks + out / 32) * RINGS * PLANES * 32 + out % 32;
    const int a_row = warp * 32 + lane % 16, a_column = lane / 16 * 8;
    const int b_row = lane % 8 + lane / 16 * 8, b_column = lane / 8 % 2 * 8;
    // One term's fragments of this warp's rows stay in registers; more terms are read again for every word.
    u32 held[2][DIM16 / 16][4];
    if (SPLITS == 1) {
        __syncthreads();
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int k = 0; k < DIM16; k += 16) load_matrices(held[m][k / 16], rows + (a_row + 16 * m) * WIDTH + k + a_column);
    }
    for (int word = 0; word < WORDS; ++word) {
        if (word + 1 < WORDS) {
            fetch(word + 1);
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        __syncthreads();
        const bf16* b = slab + (word & 1) * 32 * WIDTH;
        float sum[2][4][4];
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int t = 0; t < 4; ++t)
#pragma unroll
                for (int c = 0; c < 4; ++c) sum[m][t][c] = 0;
#pragma unroll
        for (int s = SPLITS - 1; s >= 0; --s)
#pragma unroll
            for (int k = 0; k < DIM16; k += 16) {
                u32 left[2][4], right[2][4];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    if (SPLITS == 1) {
#pragma unroll
                        for (int i = 0; i < 4; ++i) left[m][i] = held[m][k / 16][i];
                    } else {
                        load_matrices(left[m], rows + (s * TILE + a_row + 16 * m) * WIDTH + k + a_column);
                    }
                }
#pragma unroll
                for (int n = 0; n < 2; ++n) load_matrices(right[n], b + (b_row + 16 * n) * WIDTH + k + b_column);
#pragma unroll
                for (int m = 0; m < 2; ++m)
#pragma unroll
                    for (int t = 0; t < 4; ++t) {
                        const u32(&l)[4] = left[m], (&r)[4] = right[t / 2];
                        Mma<bf16>::multiply(sum[m][t], l[0], l[1], l[2], l[3], r[t % 2 * 2], r[t % 2 * 2 + 1]);
                    }
            }
        // Ballot bit 4 r + c of an accumulator is row r, columns 2 c (even) or 2 c + 1 (odd).
        u32 packed = 0;
        const int row = lane % 8, quarter = lane / 8;
#pragma unroll
        for (int t = 0; t < 4; ++t)
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const u32 even = __ballot_sync(~0u, sum[m][t][2 * half] >= 0);
                    const u32 odd = __ballot_sync(~0u, sum[m][t][2 * half + 1] >= 0);
                    const u32 byte = (even >> (4 * row) & 15) | (odd >> (4 * row) & 15) << 4;
                    if (quarter == 2 * m + half) packed |= byte << (8 * t);
                }
        straight[word % PLANES * TILE] = packed;
        if (mine && (word % PLANES == PLANES - 1 || word == WORDS - 1)) {
            const int ring = word / PLANES;
            u32 turned[PLANES + 1] = {};
#pragma unroll
            for (int field = 0; field < 32; ++field) {
                const int table = field ^ (int)(out % 32), from = table * PLANES;
                const u32 low = straight[from / 32 * TILE], high = straight[(from / 32 + 1) * TILE];
                u32 code = __funnelshift_r(low, high, from % 32) & ((1u << PLANES) - 1);
                if (ring * 32 + table >= TABLES) code = 0;
                turned[field * PLANES / 32] |= code << (field * PLANES % 32);
                if (field * PLANES % 32 + PLANES > 32) turned[field * PLANES / 32 + 1] |= code >> (32 - field * PLANES % 32);
            }
#pragma unroll
            for (int w = 0; w < PLANES; ++w) to[(ring * PLANES + w) * 32] = turned[w];
        }
        __syncthreads();
    }
}

struct ValueNormsConfig {
    int head_dim;
};

template <typename KV> struct ValueNormsParams {
    const KV* values;
    bf16* norms;
    const i64* spans;
    int num_kv_heads;
    i64 value_slots, norm_slots;
    int append;
};

// |v| in bfloat16: the square root of a float64 sum, so that it rounds as the reference does.
template <typename KV, ValueNormsConfig C> __global__ void value_norms(const __grid_constant__ ValueNormsParams<KV> p) {
    const int pair = blockIdx.y, lane = threadIdx.x % 8;
    const i64 start = p.spans[2 * (pair / p.num_kv_heads)], length = p.spans[2 * (pair / p.num_kv_heads) + 1];
    const i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 8 + (p.append ? 0 : start);
    const bool valid = row < (p.append ? p.value_slots : min(p.value_slots, start + length));
    const KV* own = p.values + ((i64)pair * p.value_slots + row) * C.head_dim;
    double sum = 0;
    if (valid)
        for (int d = lane; d < C.head_dim / Pack<KV>::SIZE; d += 8) {
            const Pack<KV> pack = reinterpret_cast<const Pack<KV>*>(own)[d];
#pragma unroll
            for (int i = 0; i < Pack<KV>::SIZE; ++i) {
                const double x = (double)Element<KV>::up(pack.at[i]);
                sum += x * x;
            }
        }
#pragma unroll
    for (int step = 4; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    const i64 slot = row + (p.append ? start + length : 0);
    if (valid && lane == 0 && slot < p.norm_slots)
        p.norms[(i64)pair * p.norm_slots + slot] = __double2bfloat16(sqrt(sum));
}
