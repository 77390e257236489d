// Exact softmax attention over index lists: split over the list, merged by the block that finishes a row last.
//
// `heads` query heads share a list: 1, or the whole GQA group for per="kv_head", where a row is read once for all.
// A row of K or V takes `lanes` lanes of 16 bytes times `packs`; 32 / lanes tokens per warp and UNROLL of those at once keep
// enough bytes in flight. Online softmax per lane group in the accumulator type; partial states are merged by
// (m, d, o), the algebra of C1. Of pages, the block table is read a tile ahead of the rows, while rows are under way.
// Status bit 1: an output is not finite.
//
// Grid: (splits, B * rows a sequence). partial [rows, splits, heads, head_dim + 2]; tickets are left at zero.
// Cost a kept token: 2 * head_dim elements a list. In a step of 32/8 heads at 131072 tokens on an H100: v1, plain loads,
// 35 us, of which 5 went to writing back the scorer's scores; v2, rows marked as read once, 30 us.
//
// Reference: socket_theory/core/attention.py
// Launcher: socket_gpu/core/attend.py
// Tests: tests/socket_lsh/test_gpu_steps_on_cpu.py, tests/gpu/test_shapes.py, tests/contracts/test_plans.py
#include "common.cuh"
#include "last_block.cuh"
#include "rows.cuh"
#include "state.cuh"

#define UNROLL 2

struct AttendConfig {
    int head_dim, page;  // 0 for rows without pages
    int heads, lanes, packs, threads, blocks_a_sm;
};

template <typename KV, typename Query, typename Out, AttendConfig C> struct AttendParams {
    typedef typename Element<KV>::Sum Sum;
    const Query* query;  // [rows, heads, head_dim]
    Rows<KV, C.page> keys, values;
    BlockTable<C.page> table;
    const int *indices, *lengths;  // [rows, max_kept], [rows]
    Sum* partial;
    u32 *tickets, *status;
    Out* output;  // as the query
    Sum* lse;     // [rows, heads]
    int slots, max_kept, num_kv_heads, lists_a_pair;
    Sum sm_scale;
};

// Rows are read once: what stays in the L2 cache are the scores, written anew by the next step and not to memory.
template <typename KV> __device__ __forceinline__ uint4 read_once(const KV* row) { return __ldcs(reinterpret_cast<const uint4*>(row)); }

template <typename KV, typename Query, typename Out, AttendConfig C>
__global__ void __launch_bounds__(C.threads, C.blocks_a_sm) attend(const __grid_constant__ AttendParams<KV, Query, Out, C> p) {
    typedef typename Element<KV>::Sum Sum;
    typedef Natural<Sum> Unit;
    constexpr int DIM = C.head_dim, HEADS = C.heads, LANES = C.lanes, THREADS = C.threads;
    constexpr int SIZE = Pack<KV>::SIZE, OWN = C.packs * SIZE, GROUPS = THREADS / LANES, STATE = DIM + 2;
    __shared__ Sum states[THREADS / 32][HEADS * STATE];
    const int row = blockIdx.y, splits = gridDim.x, lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const int pair = row / p.lists_a_pair, sequence = pair / p.num_kv_heads, kv_head = pair % p.num_kv_heads;
    const int length = min(p.max_kept, max(0, p.lengths[row]));
    const int share = (length + splits - 1) / splits;
    const int begin = min(length, (int)blockIdx.x * share), end = min(length, begin + share);
    const HeadRows<KV, C.page> keys = p.keys.of(sequence, kv_head), values = p.values.of(sequence, kv_head);
    auto dim_of = [&](int i) { return (i / SIZE * LANES + lane) * SIZE + i % SIZE; };

    Sum q[HEADS][OWN];
    State<Unit, OWN> state[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; ++h)
#pragma unroll
        for (int i = 0; i < OWN; ++i) q[h][i] = (Sum)Element<Query>::up(p.query[((i64)row * HEADS + h) * DIM + dim_of(i)]) * p.sm_scale;

    // The list is read a tile ahead of the rows it names.
    const int* list = p.indices + (i64)row * p.max_kept;
    auto listed = [&](int at) { return at < end ? min(max(list[at], 0), p.slots - 1) : 0; };
    int coming[UNROLL], coming_block[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) coming[u] = listed(begin + group + u * GROUPS);
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) coming_block[u] = p.table.block_of(sequence, coming[u]);
    for (int tile = begin; tile < end; tile += GROUPS * UNROLL) {
        const int first = tile + group;
        int slot[UNROLL], block[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            slot[u] = coming[u], block[u] = coming_block[u];
            coming[u] = listed(first + (UNROLL + u) * GROUPS);
        }
        uint4 k[UNROLL][C.packs], v[UNROLL][C.packs];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
#pragma unroll
            for (int i = 0; i < C.packs; ++i)
                if (first + u * GROUPS < end) {
                    k[u][i] = read_once(keys.at(block[u], slot[u]) + (i * LANES + lane) * SIZE);
                    v[u][i] = read_once(values.at(block[u], slot[u]) + (i * LANES + lane) * SIZE);
                }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) coming_block[u] = p.table.block_of(sequence, coming[u]);
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            Sum logit[UNROLL], larger = state[h].m;
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                Sum dot = 0;
#pragma unroll
                for (int i = 0; i < OWN; ++i) dot += q[h][i] * Element<KV>::up(Pack<KV>::of(k[u][i / SIZE]).at[i % SIZE]);
#pragma unroll
                for (int step = LANES / 2; step; step /= 2) dot += __shfl_xor_sync(~0u, dot, step, LANES);
                logit[u] = first + u * GROUPS < end ? dot : -INFINITE;
                larger = max(larger, logit[u]);
            }
            state[h].raise(larger);
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                if (first + u * GROUPS >= end) continue;
                const Sum weight = state[h].add(logit[u]);
#pragma unroll
                for (int i = 0; i < OWN; ++i) state[h].o[i] += weight * Element<KV>::up(Pack<KV>::of(v[u][i / SIZE]).at[i % SIZE]);
            }
        }
    }

    // Lane groups of a warp, then warps, then splits.
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
#pragma unroll
        for (int step = LANES; step < 32; step *= 2) state[h].merge_lane(step);
        Sum* stored = states[threadIdx.x / 32] + h * STATE;
        if (threadIdx.x % 32 < LANES) {
#pragma unroll
            for (int i = 0; i < OWN; ++i) stored[dim_of(i)] = state[h].o[i];
            if (lane == 0) stored[DIM] = state[h].m, stored[DIM + 1] = state[h].d;
        }
    }
    __syncthreads();
    Sum* own = p.partial + ((i64)row * splits + blockIdx.x) * HEADS * STATE;
    for (int item = threadIdx.x; item < HEADS * DIM; item += THREADS) {
        const int h = item / DIM, dim = item % DIM;
        const State<Unit, 1> merged = merge_stored<Unit, DIM>(states[0] + h * STATE, THREADS / 32, HEADS * STATE, dim, [](const Sum* at) { return *at; });
        own[h * STATE + dim] = merged.o[0];
        if (dim == 0) own[h * STATE + DIM] = merged.m, own[h * STATE + DIM + 1] = merged.d;
    }
    if (!last_block(p.tickets + row, splits)) return;
    const Sum* all = p.partial + (i64)row * splits * HEADS * STATE;
    for (int item = threadIdx.x; item < HEADS * DIM; item += THREADS) {
        const int h = item / DIM, dim = item % DIM;
        const State<Unit, 1> merged = merge_stored<Unit, DIM>(all + h * STATE, splits, HEADS * STATE, dim, [](const Sum* at) { return __ldcg(at); });
        const i64 head = (i64)row * HEADS + h;
        const Out stored = Element<Out>::down(merged.d > 0 ? merged.o[0] / merged.d : (Sum)0);
        p.output[head * DIM + dim] = stored;
        if (dim == 0) p.lse[head] = merged.d > 0 ? merged.m + (Sum)log((double)merged.d) : (Sum)-INFINITE;
        const Sum seen = Element<Out>::up(stored);
        if (p.status && !(merged.d > 0 && seen - seen == 0)) atomicOr(p.status, 2u);
    }
}
