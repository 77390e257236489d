// The query's side of the soft collision (S1): projections, the query map, and per chunk of bits a table of products.
//
// w_l = 2^-P prod_p (1 + s_p tanh(h_p / tau)) splits over chunks of at most 5 bits; a table holds the 32 products
// of one chunk, so that a look-up by 32 lanes touches 32 different banks. Entries are 1 + s tanh, written
// 2 / (1 + exp(-2 s h / tau)), which is exact at both ends. 2^P entries never exist.
//
// Grid: (table groups, B * Hkv). Block: one KV head's GROUP query heads and TABLES_PER_BLOCK tables.
// tables [B*Hkv, L, CHUNKS, ENTRY_WORDS, 32] of 4-byte words: half2 of two heads, or one float a head.
// buckets [B*Hkv, GROUP, L]: the query's own code, for hard collisions.
#include "common.cuh"

#define HEADS2 (GROUP > 4 ? 8 : GROUP > 2 ? 4 : GROUP)

// QUERY_MAP: 0 tanh_scaled, 1 tanh, 2 linear. MODE: 0 half2 products, 1 float products.
__device__ __forceinline__ float map_query(float z) {
    if (QUERY_MAP == 0) return tanhf(z) * rsqrtf((float)HEAD_DIM);
    if (QUERY_MAP == 1) return tanhf(z);
    return z;
}

__device__ __forceinline__ float factor(float h, int bit, float inverse_temperature) {
    const float x = 2.0f * (bit ? h : -h) * inverse_temperature;
    return 2.0f / (1.0f + expf(-x));
}

extern "C" __global__ void query_tables(const QUERY_T* __restrict__ query, const __nv_bfloat16* __restrict__ planes,
                                        u32* __restrict__ tables, u32* __restrict__ buckets,
                                        float inverse_temperature) {
    __shared__ float z[GROUP][TABLES_PER_BLOCK * PLANES], factors[GROUP][TABLES_PER_BLOCK * PLANES][2];
    const int pair = blockIdx.y, first = blockIdx.x * TABLES_PER_BLOCK;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int count = min(TABLES_PER_BLOCK, TABLES - first) * PLANES;

    const int OWN = (HEAD_DIM + 31) / 32;
    float q[GROUP][OWN];
#pragma unroll
    for (int g = 0; g < GROUP; ++g)
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const int d = lane + 32 * i;
            q[g][i] = d < HEAD_DIM ? (float)Element<QUERY_T>::up(query[((i64)pair * GROUP + g) * HEAD_DIM + d]) : 0.0f;
        }
#pragma unroll 5
    for (int item = warp; item < count; item += warps) {
        float w[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const int d = lane + 32 * i;
            w[i] = d < HEAD_DIM ? __bfloat162float(planes[(i64)(first * PLANES + item) * HEAD_DIM + d]) : 0.0f;
        }
        // Heads are halved between lanes at every exchange, so a plane takes about as many exchanges as one head would.
        float sum[HEADS2];
#pragma unroll
        for (int g = 0; g < HEADS2; ++g) {
            sum[g] = 0;
#pragma unroll
            for (int i = 0; g < GROUP && i < OWN; ++i) sum[g] += w[i] * q[min(g, GROUP - 1)][i];
        }
        int step = 16, head = 0;
#pragma unroll
        for (int half = HEADS2 / 2; half; half /= 2, step /= 2) {
            const bool upper = lane & step;
            head += upper ? half : 0;
#pragma unroll
            for (int g = 0; g < half; ++g) {
                const float other = __shfl_xor_sync(~0u, upper ? sum[g] : sum[g + half], step);
                sum[g] = (upper ? sum[g + half] : sum[g]) + other;
            }
        }
#pragma unroll
        for (int left = 32 / HEADS2 / 2; left; left /= 2) sum[0] += __shfl_xor_sync(~0u, sum[0], left);
        if (lane % (32 / HEADS2) == 0 && head < GROUP) z[head][item] = sum[0];
    }
    __syncthreads();
    for (int item = threadIdx.x; item < GROUP * count * 2; item += blockDim.x) {
        const int bit = item % 2, plane = item / 2 % count, g = item / 2 / count;
        factors[g][plane][bit] = factor(map_query(z[g][plane]), bit, inverse_temperature);
    }
    __syncthreads();

    const int entries = (count / PLANES) * CHUNKS * ENTRY_WORDS * 32;
    for (int item = threadIdx.x; item < entries; item += blockDim.x) {
        const int index = item % 32, word = item / 32 % ENTRY_WORDS, chunk = item / 32 / ENTRY_WORDS % CHUNKS;
        const int table = item / 32 / ENTRY_WORDS / CHUNKS, low = chunk * CHUNK_BITS;
        float product[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int g = min(GROUP - 1, MODE == 0 ? 2 * word + half : word);
            product[half] = 1.0f;
            for (int p = low; p < min(PLANES, low + CHUNK_BITS); ++p) {
                product[half] *= factors[g][table * PLANES + p][index >> (p - low) & 1];
            }
        }
        const __half2 packed = __floats2half2_rn(product[0], product[1]);
        tables[((i64)pair * TABLES + first) * CHUNKS * ENTRY_WORDS * 32 + item] =
            MODE == 0 ? *reinterpret_cast<const u32*>(&packed) : __float_as_uint(product[0]);
    }
    for (int item = threadIdx.x; item < GROUP * (count / PLANES); item += blockDim.x) {
        const int g = item % GROUP, table = item / GROUP;
        u32 bucket = 0;
        for (int p = 0; p < PLANES; ++p) bucket |= (u32)(z[g][table * PLANES + p] >= 0) << p;
        buckets[((i64)pair * GROUP + g) * TABLES + first + table] = bucket;
    }
}
