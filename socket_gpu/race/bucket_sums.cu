// Sums over the buckets of tiles of tokens: A = sum_j phi(k_j), B = sum_j phi(k_j) v_j, of keys (R7), or of queries (R8),
// with phi(q_i) / Den_i in the place of phi(k_j), the gradient g_i of their output in that of v_j, and A weighted by
// -<g_i, O_i>.
//
// A block adds up one tile for one group of features; the tokens of a KV head's query heads are added together. `add_tiles`
// then replaces the tiles' sums by those of all tiles before, or behind, and leaves the sum of all in one more place.
//
// Cost: 4 head_dim bytes a token and head in bfloat16; 4 F head_dim operations for features of two parts.
//
// 4 heads of 128 with 2^22 tokens, P = L = 4, bfloat16, on an H200 (8.6 GB, 2.1 ms at 4.2 TB/s): v1, three blocks a processor
// and generic addresses, 3.65 ms; v2, addresses by an exclusive or (parts.cuh), 3.3; v3, four blocks a processor, 2.9. Left: the
// next chunk fetched ahead into the L2 cache, 3.9, or into a second place in shared memory, 3.7 (float32: 5.5 in place of 2.1 at
// 2^20 tokens): instructions are what is short, not bytes in flight. `add_tiles`: a read behind each write 1.6 ms, 16 reads
// before 16 writes .26.
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
__global__ void __launch_bounds__(THREADS, 4) bucket_sums(const __grid_constant__ BucketSumsParams<T, C> p) {
    typedef Buckets<C> B;
    constexpr int PARTS = PARTS_OF<T>, DIM = C.head_dim;
    extern __shared__ __align__(16) char memory[];
    Arena arena{memory};
    typename B::Weights weights[2];
    Matrix<B::template PITCH<C.parts>, CHUNK> vectors[VECTOR_PARTS<T>];
    Matrix<DIM, CHUNK> values[PARTS];
    arena.take(weights), arena.take(vectors), arena.take(values);
    float* sizes = arena.floats(CHUNK);
    const int tile = blockIdx.x / C.groups, group = blockIdx.x % C.groups, pair = blockIdx.y;
    const int end = min(p.tokens, (tile + 1) * p.tile), own = threadIdx.x / 32 * 16, row = own + threadIdx.x % 32 / 4;
    const float beta = *p.beta;
    B::load_weights(weights, p.planes, group);
    GroupSums<C> sums;
    sums.clear();
#pragma unroll 1
    for (int number = pair * p.heads_each; number < (pair + 1) * p.heads_each; ++number) {
        const int num_heads = p.num_kv_heads * p.heads_each;
        const T *x = p.vectors.of(number, num_heads), *y = p.values.of(number, num_heads);
#pragma unroll 1
        for (int first = tile * p.tile; first < end; first += CHUNK) {
            __syncthreads();
            load_chunk<DIM>(vectors, x, p.vectors.token, first, end);
            load_chunk<DIM>(values, y, p.values.token, first, end);
            commit_copies();
            float size[2];
            for (int i = 0; i < 2; ++i) {
                const int at = first + row + 8 * i;
                const float2 of_row = p.rows && at < end ? p.rows[(i64)number * p.tokens + at] : make_float2(1, 1);
                size[i] = at < end ? of_row.x : 0;
                if (threadIdx.x % 4 == 0) sizes[row + 8 * i] = of_row.y;
            }
            wait_for_copies<0>();
            __syncthreads();
            B buckets;
            float f[2][B::LIST];
            buckets.project(vectors, own, weights);
            buckets.features(f, group, beta, size);
            __syncwarp();
            B::template store<C.parts>(vectors[0], own, f);
            __syncthreads();
            sums.template add<C.parts>(vectors[0], values, sizes);
        }
    }
    sums.write(p.sums, ((i64)pair * (p.tiles + 1) + tile) * C.groups + group);
}

struct AddTilesParams {
    float* sums;  // [heads, tiles + 1, elements]
    int tiles, elements;
    int behind;
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
