// Gradients of queries from the gradient g of their outputs, and of beta through them (R8): with the sums A, B over the keys
// that query i sees,
//
//     Den = sum_r phi_r A_r,  <g, O> = sum_r phi_r (B g)_r / Den,  dphi_r = ((B g)_r - <g, O> A_r) / Den,
//
// then through the features. It leaves 1 / Den and -<g, O> of every query for `key_gradient`. So <g, O> comes from the sums and
// not from outputs that were rounded.
//
// Blocks walk as in read.cu; what a chunk's queries see of its own keys is (g v^T, masked) times the keys' features.
//
// Cost in bfloat16: 6 head_dim bytes a token and head, causal 10; 4 F head_dim operations, causal 8 F head_dim
// + 80 (5 F + head_dim).
//
// 4 heads of 128 with 2^22 tokens, P = L = 4, bfloat16, on an H200, causal and not (21.5 GB, 5.1 ms; 12.9 GB, 3.1 ms at
// 4.2 TB/s): v1 12.8 and 5.8 ms; v2, chunks asked for once their place is free, and three blocks a processor if not causal, 11.6
// and 5.0; v3, addresses by an exclusive or (parts.cuh), which leaves no spills, 10.1 and 4.7. Left: the next chunk fetched
// ahead into the L2 cache, 12.7 and 5.3.
//
// Reference: socket_theory/race/gradient.py, socket_theory/race/feature_gradient.py
// Launcher: socket_gpu/race/query_gradient.py
// Tests: tests/race/test_gpu_sequences.py
#include "race/walk.cuh"

struct QueryGradientConfig {
    int head_dim, planes, tables, free, own, groups, parts;  // of features and sums
    bool causal;
};

template <typename T, QueryGradientConfig C> struct QueryGradientParams {
    Heads<const T> query, keys, values, above;
    Heads<T> d_query;
    const float *planes, *beta;
    Sums sums;       // [KV heads, tiles + 1, groups]
    float2* rows;    // [heads, tokens]: 1 / Den and -<g, O>
    float* of_beta;  // [heads, tiles]
    int tokens, tile, tiles, num_heads, heads_each;
};

template <typename T, QueryGradientConfig C>
__global__ void __launch_bounds__(THREADS, C.causal ? 2 : 3) query_gradient(const __grid_constant__ QueryGradientParams<T, C> p) {
    typedef Buckets<C> B;
    constexpr int PARTS = PARTS_OF<T>, DIM = C.head_dim, SIXTEENS = CHUNK / 16;
    extern __shared__ __align__(16) char memory[];
    Walk<T, C> walk(memory);
    Matrix<DIM, CHUNK> query[VECTOR_PARTS<T>], values[PARTS], above[PARTS];
    walk.arena.take(query), walk.arena.take(above);
    if constexpr (C.causal) walk.arena.take(values);
    float* beta_sums = walk.arena.floats(THREADS / 32);
    const int tile = blockIdx.x, head = blockIdx.y, pair = head / p.heads_each, num_kv_heads = p.num_heads / p.heads_each;
    const int begin = tile * p.tile, end = min(p.tokens, begin + p.tile), lane = threadIdx.x % 32;
    const T *q = p.query.of(head, p.num_heads), *g = p.above.of(head, p.num_heads);
    const i64 state = ((i64)pair * (p.tiles + 1) + (C.causal ? tile : p.tiles)) * C.groups;
    const float beta = *p.beta;
    float of_beta = 0;
    GroupSums<C> sums;
    if constexpr (C.groups == 1) {
        B::load_weights(walk.weights, p.planes, 0);
        sums.read(p.sums, state);
        sums.put(walk.operand, walk.masses);
    }
    load_chunk<DIM>(query, q, p.query.token, begin, end);
#pragma unroll 1
    for (int first = begin; first < end; first += CHUNK) {
        if (C.groups > 1 && first > begin) load_chunk<DIM>(query, q, p.query.token, first, end);
        if constexpr (C.causal) load_chunk<DIM>(walk.vectors, p.keys.of(pair, num_kv_heads), p.keys.token, first, end);
        commit_copies();
        load_chunk<DIM>(above, g, p.above.token, first, end);
        if constexpr (C.causal) load_chunk<DIM>(values, p.values.of(pair, num_kv_heads), p.values.token, first, end);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        const int own = walk.own_rows(first), sixteen = own / 16, row = first + own + lane / 4;
        const float there[2] = {row < end ? 1.0f : 0.0f, row + 8 < end ? 1.0f : 0.0f};

        // (B g)_r and A_r of the lane's features of one group; all warps take part.
        B buckets;
        float f[2][B::LIST], towards[2 * B::STEPS][4], masses[2 * B::STEPS][4];
        auto measure = [&](int group) {
            if constexpr (C.groups > 1) {
                __syncthreads();
                B::load_weights(walk.weights, p.planes, group);
                sums.read(p.sums, state + group);
                sums.put(walk.operand, walk.masses);
                __syncthreads();
            }
            if constexpr (C.causal) walk.store_features(buckets, f, own, group, beta, there);
            buckets.project(query, own, walk.weights);
            buckets.features(f, group, beta, there);
            wait_for_copies<0>();
            __syncthreads();
            if (C.groups == 1 && first + CHUNK < end) load_chunk<DIM>(query, q, p.query.token, first + CHUNK, end);
#pragma unroll
            for (int n = 0; n < 2 * B::STEPS; ++n) {
                const float2 mass = *reinterpret_cast<const float2*>(walk.masses + 8 * n + lane % 4 * 2);
#pragma unroll
                for (int i = 0; i < 4; ++i) towards[n][i] = 0, masses[n][i] = i % 2 ? mass.y : mass.x;
            }
#pragma unroll
            for (int k = 0; k < DIM / 16; ++k) {
                u32 a[PARTS][4];
#pragma unroll
                for (int part = 0; part < PARTS; ++part) load_left(a[part], above[part], own, 2 * k);
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
                for (int j = 0; j <= sixteen; ++j) {
                    float along[2][4] = {}, seen[2][4];
#pragma unroll
                    for (int k = 0; k < DIM / 16; ++k) {
                        u32 a[PARTS][4], b[PARTS][4];
#pragma unroll
                        for (int part = 0; part < PARTS; ++part) load_left(a[part], above[part], own, 2 * k), load_right(b[part], values[part], 16 * j, 2 * k);
                        multiply(along[0], a, b, 0), multiply(along[1], a, b, 1);
                    }
#pragma unroll
                    for (int i = 0; i < 8; ++i) seen[i / 4][i % 4] = 1;
                    if (j == sixteen) keep_lower(along), keep_lower(seen);
                    u32 a[2][4], ones[1][4];
                    as_left(a, along), as_left(ones, seen);
#pragma unroll
                    for (int s = 0; s < B::STEPS; ++s) {
                        u32 b[2][4];
#pragma unroll
                        for (int part = 0; part < 2; ++part) load_right_swapped(b[part], walk.features, 16 * j, 2 * s + part * B::CHUNKS);
#pragma unroll
                        for (int n = 0; n < 2; ++n) multiply(towards[2 * s + n], a, b, n), multiply(masses[2 * s + n], ones, b, n);
                    }
                }
            }
        };
        // Element m of the lane's list for one of its vectors, of products' columns.
        auto listed = [](const float(&c)[2 * B::STEPS][4], int vector, int m) { return c[m / 2][2 * vector + m % 2]; };

        float total[2] = {}, along[2] = {};
#pragma unroll(C.groups == 1 ? 2 : 1)
        for (int group = 0; group < C.groups; ++group) {
            measure(group);
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int m = 0; m < B::LIST; ++m) total[i] += f[i][m] * listed(masses, i, m), along[i] += f[i][m] * listed(towards, i, m);
        }
        float inverse[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float sum = sum_of_quad(total[i]);
            inverse[i] = sum > 0 ? 1 / sum : 0;
            along[i] = sum_of_quad(along[i]) * inverse[i];
            if (lane % 4 == 0 && row + 8 * i < end) p.rows[(i64)head * p.tokens + row + 8 * i] = make_float2(inverse[i], -along[i]);
        }
        float gradient[DIM / 8][4];
#pragma unroll(C.groups == 1 ? 2 : 1)
        for (int group = 0; group < C.groups; ++group) {
            if constexpr (C.groups > 1) measure(group);
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int m = 0; m < B::LIST; ++m) f[i][m] *= (listed(towards, i, m) - along[i] * listed(masses, i, m)) * inverse[i];
            buckets.through(f, group, beta, of_beta);
            if (group == 0) clear(gradient);
#pragma unroll
            for (int n = 0; n < DIM / 16; ++n) buckets.to_vectors(gradient[2 * n], gradient[2 * n + 1], walk.weights, n);
        }
        T* to = p.d_query.of(head, p.num_heads) + (i64)row * p.d_query.token;
        store_rows<DIM>(to, p.d_query.token, gradient, end - row);
        if constexpr (C.causal && C.groups == 1) {
            sums.template add<2>(walk.features, values, walk.ones);
            __syncthreads();
            sums.put(walk.operand, walk.masses);
        } else {
            __syncthreads();
        }
    }
    write_block_sum(p.of_beta + (i64)head * gridDim.x + tile, of_beta, beta_sums);
}
