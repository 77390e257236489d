// Exact softmax attention over index lists: split over the list, merged by the block that finishes a row last.
//
// HEADS query heads share a list: 1, or the whole GQA group for per="kv_head", where a row is read once for all.
// A row of K or V takes LANES lanes of 16 bytes times PACKS; 32 / LANES tokens per warp and UNROLL of those at once keep
// enough bytes in flight. Online softmax per lane group in the accumulator type; partial states are merged by
// (m, l, sum), the algebra of C1. An empty split contributes m = -inf, l = 0. Status bit 1: an output is not finite.
//
// Grid: (splits, B * rows a sequence). partial [rows, splits, HEADS, HEAD_DIM + 2]; tickets are left at zero.
// Cost a kept token: 2 * HEAD_DIM elements a list. In a step of 32/8 heads at 131072 tokens on an H100: v1, plain loads,
// 35 us, of which 5 went to writing back the scorer's scores; v2, rows marked as read once, 30 us.
//
// Reference: socket_theory/core/attention.py
// Launcher: socket_gpu/core/attend.py
// Tests: tests/socket_lsh/test_gpu_steps_on_cpu.py, tests/gpu/test_shapes.py
#include "common.cuh"

typedef Element<KV_T>::Sum Sum;

__device__ __forceinline__ Sum warp_exp(Sum x) { return sizeof(Sum) == 4 ? (Sum)__expf((float)x) : (Sum)exp((double)x); }

// Rows are read once: what stays in the L2 cache are the scores, written anew by the next step and not to memory.
__device__ __forceinline__ Pack<KV_T> read_once(const KV_T* row) {
    union { uint4 words; Pack<KV_T> pack; } read;
    read.words = __ldcs(reinterpret_cast<const uint4*>(row));
    return read.pack;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_A_SM)
    attend(const QUERY_T* __restrict__ query, const KV_T* __restrict__ keys, const KV_T* __restrict__ values,
           const int* __restrict__ indices, const int* __restrict__ lengths, Sum* __restrict__ partial,
           u32* __restrict__ tickets, u32* __restrict__ status, OUT* __restrict__ output, Sum* __restrict__ lse, i64 slots, int max_kept,
           int lists_a_pair, Sum sm_scale) {
    const int SIZE = Pack<KV_T>::SIZE, OWN = PACKS * SIZE, GROUPS = THREADS / LANES;
    __shared__ Sum states[THREADS / 32][HEADS][HEAD_DIM + 2];
    __shared__ bool last;
    const int row = blockIdx.y, splits = gridDim.x, lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const int pair = row / lists_a_pair;  // sequence and KV head
    const int length = min(max_kept, max(0, lengths[row]));
    const int share = (length + splits - 1) / splits;
    const int begin = min(length, (int)blockIdx.x * share), end = min(length, begin + share);
    const KV_T *own_keys = keys + (i64)pair * slots * HEAD_DIM, *own_values = values + (i64)pair * slots * HEAD_DIM;

    Sum q[HEADS][OWN], sum[HEADS][OWN], top[HEADS], mass[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        top[h] = -INFINITE, mass[h] = 0;
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const int d = (i / SIZE * LANES + lane) * SIZE + i % SIZE;
            q[h][i] = (Sum)Element<QUERY_T>::up(query[((i64)row * HEADS + h) * HEAD_DIM + d]) * sm_scale;
            sum[h][i] = 0;
        }
    }

    // The list is read a tile ahead of the rows it names.
    const int* list = indices + (i64)row * max_kept;
    int following[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) following[u] = begin + group + u * GROUPS < end ? list[begin + group + u * GROUPS] : 0;
    for (int tile = begin; tile < end; tile += GROUPS * UNROLL) {
        const int first = tile + group;
        int slots_now[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int next = first + (UNROLL + u) * GROUPS;
            slots_now[u] = following[u];
            following[u] = next < end ? list[next] : 0;
        }
        Pack<KV_T> k[UNROLL][PACKS], v[UNROLL][PACKS];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int at = first + u * GROUPS;
            const i64 slot = min((i64)max(slots_now[u], 0), slots - 1);
#pragma unroll
            for (int p = 0; p < PACKS; ++p)
                if (at < end) {
                    const i64 place = slot * HEAD_DIM + (p * LANES + lane) * SIZE;
                    k[u][p] = read_once(own_keys + place);
                    v[u][p] = read_once(own_values + place);
                }
        }
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            Sum logit[UNROLL], above = top[h];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                Sum dot = 0;
#pragma unroll
                for (int i = 0; i < OWN; ++i) dot += q[h][i] * Element<KV_T>::up(k[u][i / SIZE].at[i % SIZE]);
#pragma unroll
                for (int step = LANES / 2; step; step /= 2) dot += __shfl_xor_sync(~0u, dot, step, LANES);
                logit[u] = first + u * GROUPS < end ? dot : -INFINITE;
                above = max(above, logit[u]);
            }
            const Sum fade = top[h] == above ? (Sum)1 : warp_exp(top[h] - above);
            mass[h] *= fade, top[h] = above;
#pragma unroll
            for (int i = 0; i < OWN; ++i) sum[h][i] *= fade;
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                if (first + u * GROUPS >= end) continue;
                const Sum weight = warp_exp(logit[u] - above);
                mass[h] += weight;
#pragma unroll
                for (int i = 0; i < OWN; ++i) sum[h][i] += weight * Element<KV_T>::up(v[u][i / SIZE].at[i % SIZE]);
            }
        }
    }

    // Lane groups of a warp, then warps, then splits.
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
#pragma unroll
        for (int step = LANES; step < 32; step *= 2) {
            const Sum other = __shfl_xor_sync(~0u, top[h], step), above = max(top[h], other);
            const Sum fade = top[h] == -INFINITE ? (Sum)0 : warp_exp(top[h] - above);
            mass[h] *= fade, top[h] = above;
            mass[h] += __shfl_xor_sync(~0u, mass[h], step);
#pragma unroll
            for (int i = 0; i < OWN; ++i) {
                sum[h][i] *= fade;
                sum[h][i] += __shfl_xor_sync(~0u, sum[h][i], step);
            }
        }
        Sum* state = states[threadIdx.x / 32][h];
        if (threadIdx.x % 32 < LANES) {
#pragma unroll
            for (int i = 0; i < OWN; ++i) state[(i / SIZE * LANES + lane) * SIZE + i % SIZE] = sum[h][i];
            if (lane == 0) state[HEAD_DIM] = top[h], state[HEAD_DIM + 1] = mass[h];
        }
    }
    __syncthreads();
    Sum* own_partial = partial + ((i64)row * splits + blockIdx.x) * HEADS * (HEAD_DIM + 2);
    for (int item = threadIdx.x; item < HEADS * HEAD_DIM; item += THREADS) {
        const int h = item / HEAD_DIM, d = item % HEAD_DIM;
        Sum above = -INFINITE, total = 0, weights = 0;
        for (int w = 0; w < THREADS / 32; ++w) above = max(above, states[w][h][HEAD_DIM]);
        for (int w = 0; w < THREADS / 32; ++w) {
            const Sum fade = states[w][h][HEAD_DIM] == -INFINITE ? (Sum)0 : warp_exp(states[w][h][HEAD_DIM] - above);
            total += fade * states[w][h][d];
            weights += fade * states[w][h][HEAD_DIM + 1];
        }
        own_partial[h * (HEAD_DIM + 2) + d] = total;
        if (d == 0) own_partial[h * (HEAD_DIM + 2) + HEAD_DIM] = above, own_partial[h * (HEAD_DIM + 2) + HEAD_DIM + 1] = weights;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(tickets + row, 1u) == (u32)splits - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    if (threadIdx.x == 0) tickets[row] = 0;
    const Sum* all = partial + (i64)row * splits * HEADS * (HEAD_DIM + 2);
    for (int item = threadIdx.x; item < HEADS * HEAD_DIM; item += THREADS) {
        const int h = item / HEAD_DIM, d = item % HEAD_DIM;
        Sum above = -INFINITE, total = 0, weights = 0;
#pragma unroll 4
        for (int s = 0; s < splits; ++s) above = max(above, __ldcg(all + (s * HEADS + h) * (HEAD_DIM + 2) + HEAD_DIM));
#pragma unroll 4
        for (int s = 0; s < splits; ++s) {
            const Sum* state = all + (s * HEADS + h) * (HEAD_DIM + 2);
            const Sum peak = __ldcg(state + HEAD_DIM), fade = peak == -INFINITE ? (Sum)0 : warp_exp(peak - above);
            total += fade * __ldcg(state + d);
            weights += fade * __ldcg(state + HEAD_DIM + 1);
        }
        const i64 head = (i64)row * HEADS + h;
        const OUT stored = Element<OUT>::down(weights > 0 ? total / weights : (Sum)0);
        output[head * HEAD_DIM + d] = stored;
        if (d == 0) lse[head] = weights > 0 ? above + (Sum)log((double)weights) : (Sum)-INFINITE;
        const Sum seen = Element<OUT>::up(stored);
        if (status && !(weights > 0 && seen - seen == 0)) atomicOr(status, 2u);
    }
}
