// Packed sign codes of keys, by tensor-core projections that never leave the registers; norms of values.
//
// Planes hold bfloat16 values, and a key is split exactly into SPLITS bfloat16 terms (1 for bf16, 2 for f16, 3 for
// f32, f64 and centred keys), so a projection is SPLITS bf16 products with float accumulation, the largest term last.
// A block hashes TILE tokens of one KV head against all planes, 32 columns (one packed word) at a time; warp w
// owns rows 32 w .. 32 w + 31. Rows beyond the count are zero, so a key has the same bits alone or among others.
//
// planes [columns, HEAD_DIM] bf16 in column order: column 32 w + 8 t + c is bit 32 w + 8 t + 4 (c & 1) + c / 2 of a
// token's tables laid end to end, the order in which two ballots over an 8-column accumulator deliver bits.
// codes [B*Hkv, slot blocks, RINGS, PLANES, 32 lanes] of words; token n is lane n % 32 of block n / 32. A ring is 32
// fields of PLANES bits, and field s of lane j is table s ^ j of the ring (see score.cu); tables beyond TABLES are 0.
// Cost a token: SPLITS * 32 * WORDS * HEAD_DIM multiply-adds, its key once, 4 * RINGS * PLANES bytes written.
//
// Reference: socket_theory/core/hashing.py
// Launcher: socket_gpu/socket_lsh/hash_keys.py
// Tests: tests/socket_lsh/test_gpu_steps_on_cpu.py, tests/gpu/test_scores.py
#include "common.cuh"

#define HASH_THREADS TILE
#define WIDTH (DIM16 + 8)  // padded row, in elements: rows start 16 bytes apart modulo 128

typedef __nv_bfloat16 bf16;

__device__ __forceinline__ void load_matrices(u32 (&r)[4], const bf16* address) {
    const u32 at = (u32)__cvta_generic_to_shared(address);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void copy_async(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from));
}

extern "C" __global__ void __launch_bounds__(HASH_THREADS)
    hash_keys(const KV_T* __restrict__ keys, const bf16* __restrict__ planes, const double* __restrict__ center,
              u32* __restrict__ codes, const i64* __restrict__ spans, int num_kv_heads, i64 key_slots, int slot_blocks,
              i64 capacity, int append) {
    extern __shared__ __align__(16) bf16 shared[];
    bf16* rows = shared;                           // [SPLITS][TILE][WIDTH]
    bf16* slab = shared + SPLITS * TILE * WIDTH;   // [2][32][WIDTH]
    u32* straight = reinterpret_cast<u32*>(slab + 64 * WIDTH) + threadIdx.x;  // [PLANES + 1][TILE], a ring not turned
    const int pair = blockIdx.y, thread = threadIdx.x, lane = thread % 32, warp = thread / 32;

    // With append, row r of `keys` goes behind the span, as far as `capacity`; else slots are rows and those outside the span are left alone.
    const i64 start = spans[2 * (pair / num_kv_heads)], length = spans[2 * (pair / num_kv_heads) + 1];
    const i64 first = append ? (i64)blockIdx.x * TILE : start + (i64)blockIdx.x * TILE;
    const i64 stop = append ? key_slots : min(key_slots, start + length);
    const i64 shift = append ? start + length : 0;
    if (first >= stop) return;
    const KV_T* own = keys + (i64)pair * key_slots * HEAD_DIM;

    auto fetch = [&](int word) {
        bf16* to = slab + (word & 1) * 32 * WIDTH;
        for (int i = thread; i < 32 * (DIM16 / 8); i += HASH_THREADS) {
            const int column = i / (DIM16 / 8), d = i % (DIM16 / 8) * 8;
            copy_async(to + column * WIDTH + d, planes + ((i64)word * 32 + column) * DIM16 + d);
        }
        asm volatile("cp.async.commit_group;");
    };
    fetch(0);

    const bool whole = SPLITS == 1 && HEAD_DIM == DIM16;
    for (int i = thread; whole && i < TILE * (DIM16 / 8); i += HASH_THREADS) {
        const int row = i / (DIM16 / 8), d = i % (DIM16 / 8) * 8;
        uint4 pack = make_uint4(0, 0, 0, 0);
        if (first + row < stop) pack = __ldcs(reinterpret_cast<const uint4*>(own + (first + row) * HEAD_DIM + d));
        *reinterpret_cast<uint4*>(rows + row * WIDTH + d) = pack;
    }
    for (int i = thread; !whole && i < TILE * DIM16; i += HASH_THREADS) {
        const int row = i / DIM16, d = i % DIM16;
        const bool valid = first + row < stop && d < HEAD_DIM;
        double rest = valid ? (double)Element<KV_T>::up(own[(first + row) * HEAD_DIM + d]) : 0.0;
        if (center && valid) rest -= center[(i64)pair * HEAD_DIM + d];
#pragma unroll
        for (int s = 0; s < SPLITS; ++s) {
            const bf16 part = __float2bfloat16_rn((float)rest);
            rows[(s * TILE + row) * WIDTH + d] = part;
            rest -= (double)__bfloat162float(part);
        }
    }

    const i64 out = first + warp * 32 + lane + shift;
    const bool mine = first + warp * 32 + lane < stop && out < capacity;
    u32* to = codes + ((i64)pair * slot_blocks + out / 32) * RINGS * PLANES * 32 + out % 32;
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
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
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
                    for (int t = 0; t < 4; ++t) multiply(sum[m][t], left[m], right[t / 2][t % 2 * 2], right[t / 2][t % 2 * 2 + 1]);
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

// |v| in bfloat16: the square root of a float64 sum, so that it rounds as the reference does.
extern "C" __global__ void value_norms(const KV_T* __restrict__ values, bf16* __restrict__ norms,
                                       const i64* __restrict__ spans, int num_kv_heads, i64 value_slots,
                                       i64 norm_slots, int append) {
    const int pair = blockIdx.y, lane = threadIdx.x % 8;
    const i64 start = spans[2 * (pair / num_kv_heads)], length = spans[2 * (pair / num_kv_heads) + 1];
    const i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 8 + (append ? 0 : start);
    const bool valid = row < (append ? value_slots : min(value_slots, start + length));
    const KV_T* own = values + ((i64)pair * value_slots + row) * HEAD_DIM;
    double sum = 0;
    if (valid)
        for (int d = lane; d < HEAD_DIM / Pack<KV_T>::SIZE; d += 8) {
            const Pack<KV_T> pack = reinterpret_cast<const Pack<KV_T>*>(own)[d];
#pragma unroll
            for (int i = 0; i < Pack<KV_T>::SIZE; ++i) {
                const double x = (double)Element<KV_T>::up(pack.at[i]);
                sum += x * x;
            }
        }
#pragma unroll
    for (int step = 4; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    const i64 slot = row + (append ? start + length : 0);
    if (valid && lane == 0 && slot < norm_slots)
        norms[(i64)pair * norm_slots + slot] = __double2bfloat16(sqrt(sum));
}
