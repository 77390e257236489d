// Sums over the buckets of tiles of tokens: A = sum_j phi(k_j), B = sum_j phi(k_j) v_j, of keys (R7), or of queries (R8),
// with phi(q_i) / Den_i in the place of phi(k_j), the gradient g_i of their output in that of v_j, and A weighted by
// -<g_i, O_i>.
//
// A block adds up one tile for one group of features; the tokens of a KV head's query heads are added together. `add_tiles`
// then replaces the tiles' sums by those of all tiles before, or behind, and leaves the sum of all in one more place.
//
// Cost: 4 head_dim bytes a token in bfloat16; 2 F head_dim operations of features.
//
// Reference: socket_theory/race/sums.py, socket_theory/race/gradient.py
// Launcher: socket_gpu/race/bucket_sums.py
// Tests: tests/race/test_gpu_sequences.py
#include "race/walk.cuh"

struct BucketSumsConfig {
    int head_dim, planes, tables, free, own, groups, parts;  // of features
};

template <typename T, BucketSumsConfig C> struct BucketSumsParams {
    Heads<const T> vectors, values;
    const float *planes, *beta;
    const float2* rows;  // of queries [heads, tokens]: 1 / Den and -<g, O>; null for keys
    Sums sums;           // [KV heads, tiles + 1, groups]
    int tokens, tile, tiles, num_kv_heads, heads_each;
};

template <typename T, BucketSumsConfig C>
__global__ void __launch_bounds__(THREADS, 3) bucket_sums(const __grid_constant__ BucketSumsParams<T, C> p) {
    typedef Buckets<C> B;
    constexpr int PARTS = PARTS_OF<T>, DIM = C.head_dim;
    extern __shared__ __align__(16) char memory[];
    Arena arena{memory};
    typename B::Weights weights[2];
    Matrix<B::template PITCH<C.parts>, CHUNK> vectors[PARTS], next_vectors[PARTS];
    Matrix<DIM, CHUNK> values[PARTS], next_values[PARTS];
    arena.take(weights), arena.take(vectors), arena.take(values), arena.take(next_vectors), arena.take(next_values);
    float* sizes = arena.floats(CHUNK);
    const int tile = blockIdx.x / C.groups, group = blockIdx.x % C.groups, pair = blockIdx.y;
    const int end = min(p.tokens, (tile + 1) * p.tile), own = threadIdx.x / 32 * 16, row = own + threadIdx.x % 32 / 4;
    const float beta = *p.beta;
    B::load_weights(weights, p.planes);
    GroupSums<C> sums;
    sums.clear();
    // The chunks of a head, head by head.
    const int begin = tile * p.tile, chunks = (end - begin + CHUNK - 1) / CHUNK, count = chunks * p.heads_each;
    auto load = [&](const auto& x, const auto& y, int i) {
        const int number = pair * p.heads_each + i / chunks, num_heads = p.num_kv_heads * p.heads_each, first = begin + i % chunks * CHUNK;
        load_chunk<DIM>(x, p.vectors.of(number, num_heads), p.vectors.token, first, end);
        load_chunk<DIM>(y, p.values.of(number, num_heads), p.values.token, first, end);
    };
    load(vectors, values, 0);
    commit_copies();
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
        if (i + 1 < count) load(next_vectors, next_values, i + 1);
        commit_copies();
        float size[2];
        for (int half = 0; half < 2; ++half) {
            const int at = begin + i % chunks * CHUNK + row + 8 * half;
            const i64 number = pair * p.heads_each + i / chunks;
            const float2 of_row = p.rows && at < end ? p.rows[number * p.tokens + at] : make_float2(1, 1);
            size[half] = at < end ? of_row.x : 0;
            if (threadIdx.x % 4 == 0) sizes[row + 8 * half] = of_row.y;
        }
        wait_for_copies<1>();
        __syncthreads();
        B buckets;
        float f[2][B::LIST];
        buckets.project(vectors, own, weights, group);
        buckets.features(f, group, beta, size);
        __syncwarp();
        B::template store<C.parts>(vectors[0], own, f);
        __syncthreads();
        sums.template add<C.parts>(vectors[0], values, sizes);
        __syncthreads();
        exchange(vectors, next_vectors), exchange(values, next_values);
    }
    sums.write(p.sums, ((i64)pair * (p.tiles + 1) + tile) * C.groups + group);
}

struct AddTilesParams {
    float* sums;  // [heads, tiles + 1, elements]
    int tiles, elements;
    bool behind;
};

__global__ void add_tiles(const __grid_constant__ AddTilesParams p) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= p.elements) return;
    float* column = p.sums + (i64)blockIdx.y * (p.tiles + 1) * p.elements + at;
    double sum = 0;
    // Read some before any is written: else each read would wait for the write before it.
    constexpr int AT_ONCE = 16;
    for (int first = 0; first < p.tiles; first += AT_ONCE) {
        float own[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i)
            if (first + i < p.tiles) own[i] = column[(i64)(p.behind ? p.tiles - 1 - first - i : first + i) * p.elements];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i)
            if (first + i < p.tiles) {
                column[(i64)(p.behind ? p.tiles - 1 - first - i : first + i) * p.elements] = (float)sum;
                sum += own[i];
            }
    }
    column[(i64)p.tiles * p.elements] = (float)sum;
}
