// Outputs O_i = sum_r phi_r(q_i) B_r / sum_r phi_r(q_i) A_r of queries (R7).
//
// A block takes a tile of one query head, 64 tokens at a time. All see all keys: A and B are the sums of all tiles. Causal,
// the sums start with those of the tiles before and are added to behind every 64 tokens, which see one another by the products
// of their features, masked. Of more than 64 features, sums cannot stay in registers: they are read a group of features at a
// time, and a tile is 64 tokens if causal.
//
// Cost in bfloat16: 4 head_dim bytes a token and head, causal 8; 6 F head_dim operations, causal 10 F head_dim
// + 80 (3 F + 2 head_dim).
//
// 4 heads of 128 with 2^22 tokens, P = L = 4, bfloat16, on an H200, causal and not (17.2 GB, 4.1 ms; 8.6 GB, 2.1 ms at
// 4.2 TB/s): v1 8.1 and 3.9 ms; v2, the next queries asked for once their place is free, and three blocks a processor if not
// causal, 7.9 and 3.3; v3, addresses by an exclusive or (parts.cuh), 7.0 and 3.1; v4, features and sums of two parts in place of
// one, without which an output can be off by 2.6 times its rounding, 9.6 and 3.9. Left: three blocks if causal, which spill.
//
// Reference: socket_theory/race/passes.py
// Launcher: socket_gpu/race/read.py
// Tests: tests/race/test_gpu_sequences.py
#include "race/walk.cuh"

struct ReadConfig {
    int head_dim, planes, tables, free, own, groups, parts;  // of features and sums
    bool causal;
};

template <typename T, ReadConfig C> struct ReadParams {
    Heads<const T> query, keys, values;
    Heads<T> value;
    const float *planes, *beta;
    Sums sums;  // [KV heads, tiles + 1, groups]
    int tokens, tile, tiles, num_heads, heads_each;
};

template <typename T, ReadConfig C>
__global__ void __launch_bounds__(THREADS, C.causal ? 2 : 3) read(const __grid_constant__ ReadParams<T, C> p) {
    typedef Buckets<C> B;
    constexpr int PARTS = PARTS_OF<T>, DIM = C.head_dim, SIXTEENS = CHUNK / 16;
    extern __shared__ __align__(16) char memory[];
    Walk<T, C> walk(memory);
    Matrix<DIM, CHUNK> query[VECTOR_PARTS<T>], values[PARTS];
    walk.arena.take(query);
    if constexpr (C.causal) walk.arena.take(values);
    const int tile = blockIdx.x, head = blockIdx.y, pair = head / p.heads_each, num_kv_heads = p.num_heads / p.heads_each;
    const int begin = tile * p.tile, end = min(p.tokens, begin + p.tile), lane = threadIdx.x % 32;
    const T* q = p.query.of(head, p.num_heads);
    const i64 state = ((i64)pair * (p.tiles + 1) + (C.causal ? tile : p.tiles)) * C.groups;
    const float beta = *p.beta;
    GroupSums<C> sums;
    if constexpr (C.groups == 1) {
        B::load_weights(walk.weights, p.planes, 0);
        sums.read(p.sums, state);
        sums.put(walk.operand, walk.masses);
    }
    load_chunk<DIM>(query, q, p.query.token, begin, end);
#pragma unroll 1
    for (int first = begin; first < end; first += CHUNK) {
        if constexpr (C.causal) load_chunk<DIM>(walk.vectors, p.keys.of(pair, num_kv_heads), p.keys.token, first, end);
        commit_copies();
        if constexpr (C.causal) load_chunk<DIM>(values, p.values.of(pair, num_kv_heads), p.values.token, first, end);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        const int own = walk.own_rows(first), sixteen = own / 16, row = first + own + lane / 4;
        const float there[2] = {row < end ? 1.0f : 0.0f, row + 8 < end ? 1.0f : 0.0f};
        float total[2] = {}, value[DIM / 8][4] = {}, among[SIXTEENS][2][4] = {};
#pragma unroll(C.groups == 1 ? 2 : 1)
        for (int group = 0; group < C.groups; ++group) {
            if constexpr (C.groups > 1) {
                B::load_weights(walk.weights, p.planes, group);
                sums.read(p.sums, state + group);
                sums.put(walk.operand, walk.masses);
                __syncthreads();
            }
            B buckets;
            float f[2][B::LIST];
            if constexpr (C.causal) walk.store_features(buckets, f, own, group, beta, there);
            buckets.project(query, own, walk.weights);
            buckets.features(f, group, beta, there);
            wait_for_copies<0>();
            __syncthreads();
            if (group == C.groups - 1 && first + CHUNK < end) load_chunk<DIM>(query, q, p.query.token, first + CHUNK, end);
            u32 asked[B::STEPS][C.parts][4];
#pragma unroll
            for (int s = 0; s < B::STEPS; ++s) {
                B::left(asked[s], f, s);
                walk.add_masses(total, asked[s], s);
#pragma unroll
                for (int n = 0; n < DIM / 16; ++n) {
                    u32 b[C.parts][4];
#pragma unroll
                    for (int part = 0; part < C.parts; ++part) load_right_swapped(b[part], walk.operand[part], 16 * s, 2 * n);
                    multiply(value[2 * n], asked[s], b, 0), multiply(value[2 * n + 1], asked[s], b, 1);
                }
                if constexpr (C.causal) {
#pragma unroll
                    for (int j = 0; j < SIXTEENS; ++j)
                        if (j <= sixteen) {
                            u32 b[C.parts][4];
#pragma unroll
                            for (int part = 0; part < C.parts; ++part) load_right(b[part], walk.features, 16 * j, 2 * s + part * B::CHUNKS);
                            multiply(among[j][0], asked[s], b, 0), multiply(among[j][1], asked[s], b, 1);
                        }
                }
            }
            if constexpr (C.groups > 1) __syncthreads();
        }
        if constexpr (C.causal) {
#pragma unroll
            for (int j = 0; j < SIXTEENS; ++j)
                if (j <= sixteen) {
                    if (j == sixteen) keep_lower(among[j]);
                    u32 a[C.parts][4];
                    as_left(a, among[j]);
#pragma unroll
                    for (int i = 0; i < 4; ++i)
#pragma unroll
                        for (int part = 0; part < C.parts; ++part) total[i % 2] += lower(a[part][i]) + upper(a[part][i]);
#pragma unroll
                    for (int n = 0; n < DIM / 16; ++n) {
                        u32 b[PARTS][4];
#pragma unroll
                        for (int part = 0; part < PARTS; ++part) load_right_swapped(b[part], values[part], 16 * j, 2 * n);
                        multiply(value[2 * n], a, b, 0), multiply(value[2 * n + 1], a, b, 1);
                    }
                }
            if constexpr (C.groups == 1) sums.template add<C.parts>(walk.features, values, walk.ones);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float inverse = __fdividef(1.0f, sum_of_quad(total[i]));
#pragma unroll
            for (int n = 0; n < DIM / 8; ++n) value[n][2 * i] *= inverse, value[n][2 * i + 1] *= inverse;
        }
        store_rows<DIM>(p.value.of(head, p.num_heads) + (i64)row * p.value.token, p.value.token, value, end - row);
        __syncthreads();
        if constexpr (C.causal && C.groups == 1) sums.put(walk.operand, walk.masses);
    }
}
