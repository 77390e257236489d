// RACE's decode step: a query reads the sums over buckets, and new tokens are added to them in place.
//
// Of F = L 2^P buckets, mass A [F] is the sum of phi(k) over the tokens seen, weighted B [F, E] that of phi(k) v; a query
// gives (phi(q) B) / (phi(q) A) and log(phi(q) A / L), or 0 and -inf where no token was seen. All is computed in double:
// sums of millions of tokens still take a small one in. Nothing here depends on how many tokens there are.
//
// Grid: (slices of 32 of E, B * Hq) for read_sums, with Hkv for add_tokens. Every block computes the features that it needs:
// a team of 8 lanes a plane, then a thread a bucket; then warps share out the buckets, and lanes are the slice.
// add_tokens takes `tile` tokens at a time and adds the sum of a tile; a sequence whose tokens would pass the last slot stays
// as it was. Status bit 1: an output is not finite.
//
// Bytes of a KV head: 8 F (E + 1) read by a step, its query heads through the L2 cache, and as many read and written by an
// append: 66 KB at F = 64, E = 128. Eight KV heads take .1 us at the 4.8 TB/s of an H200, less than any launch does: what a
// step takes is a launch and the latencies of one block, and bytes count from about a hundred KV heads in the batch.
//
// Reference: socket_theory/race/passes.py, socket_theory/race/features.py
// Launcher: socket_gpu/race/step.py
// Tests: tests/race/test_gpu_steps_on_cpu.py, tests/gpu/test_race_step.py, tests/contracts/test_plans.py
#include "common.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32, LANES = 8, TEAMS = THREADS / LANES;

struct Hash {
    const double* planes;  // [L, P, head_dim]
    double beta;
    int num_tables, num_planes, head_dim;
};

// The features [count, F] of vectors [count, head_dim]; `sides` [count, L, P, 2] are sigma(-2 beta tanh z), sigma(2 beta tanh z).
template <typename T> __device__ __forceinline__ void find_features(double* features, double* sides, const T* vectors, int count, const Hash& hash) {
    const int planes = hash.num_tables * hash.num_planes, lane = threadIdx.x % LANES;
    for (int first = 0; first < count * planes; first += TEAMS) {
        const int item = first + threadIdx.x / LANES;
        double z = 0;
        if (item < count * planes) {
            const T* vector = vectors + (i64)(item / planes) * hash.head_dim;
            const double* plane = hash.planes + item % planes * hash.head_dim;
            for (int d = lane; d < hash.head_dim; d += LANES) z += Element<T>::up(vector[d]) * plane[d];
        }
        for (int step = LANES / 2; step; step /= 2) z += __shfl_xor_sync(~0u, z, step);
        // The tanh of infinity is finite; z - z is not, and says in the output that the vector was none.
        const double steep = 2 * hash.beta * (tanh(z) + (z - z));
        if (item < count * planes && lane < 2) sides[2 * item + lane] = 1 / (1 + exp(lane ? -steep : steep));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * hash.num_tables << hash.num_planes; i += THREADS) {
        const double* own = sides + 2 * hash.num_planes * (i >> hash.num_planes);
        double share = 1;
        for (int p = 0; p < hash.num_planes; ++p) share *= own[2 * p + (i >> p & 1)];
        features[i] = share;
    }
    __syncthreads();
}

template <typename Query, typename Out> struct ReadSumsParams {
    const Query* query;  // [B, Hq, head_dim]
    Hash hash;
    const double *mass, *weighted;  // [B, Hkv, F], [B, Hkv, F, E]
    Out* value;                     // [B, Hq, E]
    typename Element<Query>::Sum* lse;
    u32* status;
    int group, value_dim;
};

template <typename Query, typename Out>
__global__ void __launch_bounds__(THREADS) read_sums(const __grid_constant__ ReadSumsParams<Query, Out> p) {
    extern __shared__ double features[];
    __shared__ double sums[WARPS][32], totals[WARPS];
    const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, dim = blockIdx.x * 32 + lane;
    const int buckets = p.hash.num_tables << p.hash.num_planes;
    const double* mass = p.mass + (i64)(head / p.group) * buckets;
    const double* weighted = p.weighted + (i64)(head / p.group) * buckets * p.value_dim;
    find_features(features, features + buckets, p.query + (i64)head * p.hash.head_dim, 1, p.hash);
    double sum = 0, total = 0;
#pragma unroll 8
    for (int f = warp; f < buckets; f += WARPS) {
        total += features[f] * mass[f];
        if (dim < p.value_dim) sum += features[f] * weighted[f * p.value_dim + dim];
    }
    sums[warp][lane] = sum;
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    if (warp > 0 || dim >= p.value_dim) return;
    for (int w = 1; w < WARPS; ++w) sum += sums[w][lane], total += totals[w];
    const Out stored = Element<Out>::down(total == 0 ? 0 : sum / total);
    p.value[(i64)head * p.value_dim + dim] = stored;
    if (dim == 0) p.lse[head] = total == 0 ? -INFINITE : log(total / p.hash.num_tables);
    const auto seen = Element<Out>::up(stored);
    if (!(seen - seen == 0)) atomicOr(p.status, 2u);
}

template <typename Key, typename Value> struct AddTokensParams {
    const Key* keys;      // [B, Hkv, T, head_dim]
    const Value* values;  // [B, Hkv, T, E]
    Hash hash;
    double *mass, *weighted;  // [B, Hkv, F], [B, Hkv, F, E]
    const i64* spans;
    int num_kv_heads, value_dim, tile;
    i64 tokens, num_slots;
};

template <typename Key, typename Value>
__global__ void __launch_bounds__(THREADS) add_tokens(const __grid_constant__ AddTokensParams<Key, Value> p) {
    extern __shared__ double features[];
    const int pair = blockIdx.y, sequence = pair / p.num_kv_heads;
    const int warp = threadIdx.x / 32, dim = blockIdx.x * 32 + threadIdx.x % 32;
    if (p.spans[2 * sequence] + p.spans[2 * sequence + 1] > p.num_slots - p.tokens) return;
    const int buckets = p.hash.num_tables << p.hash.num_planes;
    double* mass = p.mass + (i64)pair * buckets;
    double* weighted = p.weighted + (i64)pair * buckets * p.value_dim;
    for (i64 first = 0; first < p.tokens; first += p.tile) {
        const int count = (int)min((i64)p.tile, p.tokens - first);
        const i64 token = pair * p.tokens + first;
        find_features(features, features + p.tile * buckets, p.keys + token * p.hash.head_dim, count, p.hash);
        for (int f = warp; dim < p.value_dim && f < buckets; f += WARPS) {
            const Value* value = p.values + token * p.value_dim + dim;
            double sum = 0, total = 0;
            for (int t = 0; t < count; ++t, value += p.value_dim) {
                total += features[t * buckets + f];
                sum += features[t * buckets + f] * Element<Value>::up(*value);
            }
            weighted[f * p.value_dim + dim] += sum;
            if (dim == 0) mass[f] += total;
        }
        __syncthreads();
    }
}
