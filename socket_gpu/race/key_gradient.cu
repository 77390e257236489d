// Gradients of keys and values, and of beta through the keys (R8): with the sums dA = -sum_i phi(q_i) <g_i, O_i> / Den_i and
// dB = sum_i phi(q_i) g_i / Den_i over the queries i that see key j,
//
//     dv = sum_r phi_r dB_r,  dphi_r = <dB_r, v> + dA_r,
//
// then through the features. Causal, sums over the queries behind are added up from the last token to the first, and a chunk's
// own queries enter by the products of features, masked, and by (v g^T - <g, O>, masked) times the queries' features.
//
// A block takes a tile of one KV head with all its query heads, whose contributions are added together.
//
// Cost in bfloat16: 8 head_dim bytes a token and KV head, causal 4 more of every query head; 10 F head_dim operations, causal
// 14 F head_dim + 80 (6 F + 3 head_dim).
//
// 4 heads of 128 with 2^22 tokens, P = L = 4, bfloat16, on an H200, causal and not (25.8 GB, 6.1 ms; 17.2 GB, 4.1 ms at
// 4.2 TB/s): v1, 600 bytes of spills, 24.2 and 10.2 ms; v2, features kept in the place of keys in shared memory, and gradients of
// values stored first if not causal, 21.0 and 8.4; v3, a chunk's queries asked for together with its keys, 20.3; v4, addresses by
// an exclusive or (parts.cuh), 100 bytes of spills, 16.2, and with three blocks a processor if not causal 7.5.
//
// Reference: socket_theory/race/gradient.py, socket_theory/race/feature_gradient.py
// Launcher: socket_gpu/race/key_gradient.py
// Tests: tests/race/test_gpu_sequences.py
#include "race/walk.cuh"

struct KeyGradientConfig {
    int head_dim, planes, tables, free, own, groups, parts;  // of features and sums
    bool causal;
};

template <typename T, KeyGradientConfig C> struct KeyGradientParams {
    Heads<const T> query, keys, values, above;
    Heads<T> d_keys, d_values;
    const float *planes, *beta;
    Sums sums;           // of queries [KV heads, tiles + 1, groups]
    const float2* rows;  // [heads, tokens]: 1 / Den and -<g, O>
    float* of_beta;      // [KV heads, tiles]
    int tokens, tile, tiles, num_kv_heads, heads_each;
};

template <typename T, KeyGradientConfig C>
__global__ void __launch_bounds__(THREADS, C.causal ? 2 : 3) key_gradient(const __grid_constant__ KeyGradientParams<T, C> p) {
    typedef Buckets<C> B;
    constexpr int PARTS = PARTS_OF<T>, DIM = C.head_dim, SIXTEENS = CHUNK / 16;
    extern __shared__ __align__(16) char memory[];
    Walk<T, C, false> walk(memory);
    typename Walk<T, C>::Vectors keys[VECTOR_PARTS<T>];
    Matrix<DIM, CHUNK> values[PARTS], above[PARTS];
    walk.arena.take(keys), walk.arena.take(values);
    const auto held = keys[0];  // their features
    if constexpr (C.causal) walk.arena.take(above);
    float *along = walk.arena.floats(CHUNK), *beta_sums = walk.arena.floats(THREADS / 32);
    const int tile = blockIdx.x, pair = blockIdx.y, num_heads = p.num_kv_heads * p.heads_each;
    const int begin = tile * p.tile, end = min(p.tokens, begin + p.tile), lane = threadIdx.x % 32;
    const T *k = p.keys.of(pair, p.num_kv_heads), *v = p.values.of(pair, p.num_kv_heads);
    T *const d_keys = p.d_keys.of(pair, p.num_kv_heads), *const d_values = p.d_values.of(pair, p.num_kv_heads);
    const i64 state = ((i64)pair * (p.tiles + 1) + (C.causal ? tile : p.tiles)) * C.groups;
    const float beta = *p.beta;
    float of_beta = 0;
    GroupSums<C> sums;
    if constexpr (C.groups == 1) {
        B::load_weights(walk.weights, p.planes, 0);
        sums.read(p.sums, state);
        if constexpr (!C.causal) sums.put(walk.operand, walk.masses);
    }
#pragma unroll 1
    for (int first = begin + (end - begin - 1) / CHUNK * CHUNK; first >= begin; first -= CHUNK) {
        __syncthreads();
        load_chunk<DIM>(keys, k, p.keys.token, first, end);
        load_chunk<DIM>(values, v, p.values.token, first, end);
        commit_copies();
        auto load_queries = [&](int number) {
            load_chunk<DIM>(walk.vectors, p.query.of(number, num_heads), p.query.token, first, end);
            load_chunk<DIM>(above, p.above.of(number, num_heads), p.above.token, first, end);
        };
        if constexpr (C.causal) load_queries(pair * p.heads_each);
        commit_copies();
        const int own = walk.own_rows(first), sixteen = own / 16, row = first + own + lane / 4;
        const float there[2] = {row < end ? 1.0f : 0.0f, row + 8 < end ? 1.0f : 0.0f};
        float of_keys[DIM / 8][4], of_values[DIM / 8][4];
#pragma unroll(C.groups == 1 ? 2 : 1)
        for (int group = 0; group < C.groups; ++group) {
            if constexpr (C.groups > 1) {
                if (group > 0) {
                    __syncthreads();
                    load_chunk<DIM>(keys, k, p.keys.token, first, end);
                    commit_copies();
                    wait_for_copies<0>();
                }
                B::load_weights(walk.weights, p.planes, group);
                sums.read(p.sums, state + group);
            }
            if constexpr (C.causal || C.groups > 1) sums.put(walk.operand, walk.masses);
            wait_for_copies<1>();
            __syncthreads();
            B buckets;
            float f[2][B::LIST], towards[2 * B::STEPS][4];  // of the products' columns, the lane's list
            buckets.project(keys, own, walk.weights);
            buckets.features(f, group, beta, there);
            __syncwarp();
            B::template store<2>(held, own, f);
            __syncwarp();
            if (group == 0) clear(of_values);
#pragma unroll
            for (int s = 0; s < B::STEPS; ++s) {
                u32 a[2][4];
#pragma unroll
                for (int part = 0; part < 2; ++part) load_left(a[part], held, own, 2 * s + part * B::CHUNKS);
#pragma unroll
                for (int n = 0; n < DIM / 16; ++n) {
                    u32 b[2][4];
#pragma unroll
                    for (int part = 0; part < 2; ++part) load_right_swapped(b[part], walk.operand[part], 16 * s, 2 * n);
                    multiply(of_values[2 * n], a, b, 0), multiply(of_values[2 * n + 1], a, b, 1);
                }
            }
            if (!C.causal && group == C.groups - 1) store_rows<DIM>(d_values + (i64)row * p.d_values.token, p.d_values.token, of_values, end - row);
#pragma unroll
            for (int n = 0; n < 2 * B::STEPS; ++n) {
                const float2 mass = *reinterpret_cast<const float2*>(walk.masses + 8 * n + lane % 4 * 2);
#pragma unroll
                for (int i = 0; i < 4; ++i) towards[n][i] = i % 2 ? mass.y : mass.x;
            }
#pragma unroll
            for (int k = 0; k < DIM / 16; ++k) {
                u32 a[PARTS][4];
#pragma unroll
                for (int part = 0; part < PARTS; ++part) load_left(a[part], values[part], own, 2 * k);
#pragma unroll
                for (int s = 0; s < B::STEPS; ++s) {
                    u32 b[2][4];
#pragma unroll
                    for (int part = 0; part < 2; ++part) load_right(b[part], walk.operand[part], 16 * s, 2 * k);
                    multiply(towards[2 * s], a, b, 0), multiply(towards[2 * s + 1], a, b, 1);
                }
            }
            if constexpr (C.causal) {
#pragma unroll 1
                for (int number = pair * p.heads_each; number < (pair + 1) * p.heads_each; ++number) {
                    if (number > pair * p.heads_each || group > 0) {
                        __syncthreads();
                        load_queries(number);
                        commit_copies();
                    }
                    float size[2];
                    for (int i = 0; i < 2; ++i) {
                        const float2 of_row = row + 8 * i < end ? p.rows[(i64)number * p.tokens + row + 8 * i] : make_float2(0, 0);
                        size[i] = of_row.x;
                        if (lane % 4 == 0) along[own + lane / 4 + 8 * i] = of_row.y;
                    }
                    wait_for_copies<0>();
                    __syncthreads();
                    {
                        B asked;
                        float share[2][B::LIST];
                        walk.store_features(asked, share, own, group, beta, size);
                    }
                    __syncthreads();
#pragma unroll 1
                    for (int i = sixteen; i < SIXTEENS; ++i) {
                        float pairs[2][4], among[2][4] = {};
#pragma unroll
                        for (int n = 0; n < 2; ++n) {
                            const float2 two = *reinterpret_cast<const float2*>(along + 16 * i + 8 * n + lane % 4 * 2);
                            pairs[n][0] = pairs[n][2] = two.x, pairs[n][1] = pairs[n][3] = two.y;
                        }
#pragma unroll
                        for (int n = 0; n < DIM / 16; ++n) {
                            u32 a[PARTS][4], b[PARTS][4];
#pragma unroll
                            for (int part = 0; part < PARTS; ++part) load_left(a[part], values[part], own, 2 * n), load_right(b[part], above[part], 16 * i, 2 * n);
                            multiply(pairs[0], a, b, 0), multiply(pairs[1], a, b, 1);
                        }
#pragma unroll
                        for (int s = 0; s < B::STEPS; ++s) {
                            u32 a[2][4], b[2][4];
#pragma unroll
                            for (int part = 0; part < 2; ++part) {
                                load_left(a[part], held, own, 2 * s + part * B::CHUNKS);
                                load_right(b[part], walk.features, 16 * i, 2 * s + part * B::CHUNKS);
                            }
                            multiply(among[0], a, b, 0), multiply(among[1], a, b, 1);
                        }
                        if (i == sixteen) keep_upper(pairs), keep_upper(among);
                        u32 a[2][4];
                        as_left(a, pairs);
#pragma unroll
                        for (int s = 0; s < B::STEPS; ++s) {
                            u32 b[2][4];
#pragma unroll
                            for (int part = 0; part < 2; ++part) load_right_swapped(b[part], walk.features, 16 * i, 2 * s + part * B::CHUNKS);
                            multiply(towards[2 * s], a, b, 0), multiply(towards[2 * s + 1], a, b, 1);
                        }
                        as_left(a, among);
#pragma unroll
                        for (int n = 0; n < DIM / 16; ++n) {
                            u32 b[PARTS][4];
#pragma unroll
                            for (int part = 0; part < PARTS; ++part) load_right_swapped(b[part], above[part], 16 * i, 2 * n);
                            multiply(of_values[2 * n], a, b, 0), multiply(of_values[2 * n + 1], a, b, 1);
                        }
                    }
                    if constexpr (C.groups == 1) sums.template add<2>(walk.features, above, along);
                }
            }
            if (C.causal && group == C.groups - 1) store_rows<DIM>(d_values + (i64)row * p.d_values.token, p.d_values.token, of_values, end - row);
            B::template load<2>(held, own, f);
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int m = 0; m < B::LIST; ++m) f[i][m] *= towards[m / 2][2 * i + m % 2];
            buckets.through(f, group, beta, of_beta);
            if (group == 0) clear(of_keys);
#pragma unroll
            for (int n = 0; n < DIM / 16; ++n) buckets.to_vectors(of_keys[2 * n], of_keys[2 * n + 1], walk.weights, n);
        }
        store_rows<DIM>(d_keys + (i64)row * p.d_keys.token, p.d_keys.token, of_keys, end - row);
    }
    write_block_sum(p.of_beta + (i64)pair * gridDim.x + tile, of_beta, beta_sums);
}
