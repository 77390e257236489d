// What the walks along a sequence share: 64 tokens at a time in shared memory, and the sums over buckets in registers.
//
// A block has four warps. Each owns 16 of the 64 tokens, whose features it makes, and a quarter of the columns of the sums.
#pragma once
#include "race/buckets.cuh"

constexpr int CHUNK = 64, THREADS = 128;

// Vectors of all heads of all sequences, whose elements alone lie side by side.
template <typename T> struct Heads {
    T* base;
    i64 sequence, head, token;
    __device__ __forceinline__ T* of(int number, int num_heads) const { return base + number / num_heads * sequence + number % num_heads * head; }
};

// Sums over the features of all groups: mass [sums, F], weighted [sums, F, head_dim].
struct Sums { float *mass, *weighted; };

__device__ __forceinline__ float sum_of_quad(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Rows `first` to first + 63 of a head, from `end` on the row before it again. With one part they arrive later.
template <int DIM, class M, int PARTS, typename T>
__device__ __forceinline__ void load_chunk(const M (&to)[PARTS], const T* head, i64 stride, int first, int end) {
    constexpr int CHUNKS = DIM / 8, STEP = THREADS / CHUNKS;  // of rows
    const int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const T* from = head + (i64)(first + row) * stride + chunk * 8;
    const bool whole = first + CHUNK <= end;
#pragma unroll
    for (int i = 0; i < CHUNK / STEP; ++i) {
        if (!whole) from = head + (i64)min(first + row + i * STEP, end - 1) * stride + chunk * 8;
        if constexpr (PARTS == 1) {
            copy_async(to[0].chunk(row, chunk) + i * STEP * M::ROW_BYTES, from);
        } else {
            u32 pairs[4][PARTS];
            Pack<T> packs[sizeof(T) / 2];
#pragma unroll
            for (int j = 0; j < (int)sizeof(T) / 2; ++j) packs[j] = Pack<T>::of(reinterpret_cast<const uint4*>(from)[j]);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int at = 2 * j % Pack<T>::SIZE;
                split(pairs[j], Element<T>::up(packs[2 * j / Pack<T>::SIZE].at[at]), Element<T>::up(packs[2 * j / Pack<T>::SIZE].at[at + 1]));
            }
#pragma unroll
            for (int p = 0; p < PARTS; ++p)
                *reinterpret_cast<uint4*>(to[p].chunk(row, chunk) + i * STEP * M::ROW_BYTES) = make_uint4(pairs[0][p], pairs[1][p], pairs[2][p], pairs[3][p]);
        }
        from += STEP * stride;
    }
}

// Shared memory, given out piece by piece.
struct Arena {
    char* at;
    template <class M, int PARTS> __device__ __forceinline__ void take(M (&made)[PARTS]) {
        for (int p = 0; p < PARTS; ++p) made[p].base = at, at += M::BYTES;
    }
    __device__ __forceinline__ float* floats(int count) {
        float* made = reinterpret_cast<float*>(at);
        at += (count + 31) / 32 * 128;
        return made;
    }
};

// Two elements of a row of the output.
template <typename T> __device__ __forceinline__ void store_pair(T* to, float x, float y) {
    union { T each[2]; u32 pair; u64 pairs; } made;
    made.each[0] = Element<T>::down(x), made.each[1] = Element<T>::down(y);
    if constexpr (sizeof(T) == 2) *reinterpret_cast<u32*>(to) = made.pair;
    else *reinterpret_cast<u64*>(to) = made.pairs;
}

// A lane's two rows of 16 by DIM columns, `there` of which and on are not there.
template <int DIM, typename T> __device__ __forceinline__ void store_rows(T* to, i64 stride, const float (&c)[DIM / 8][4], int there) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i)
        if (8 * i < there)
#pragma unroll
            for (int n = 0; n < DIM / 8; ++n) store_pair(to + 8 * i * stride + 8 * n + column, c[n][2 * i], c[n][2 * i + 1]);
}

// The sum over a block, which all threads call, in an order of its own.
__device__ __forceinline__ void write_block_sum(float* to, float x, float* of_warps) {
#pragma unroll
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0) *to = (of_warps[0] + of_warps[1]) + (of_warps[2] + of_warps[3]);
}

// The sums of one group: rows are its features, a warp's columns DIM / 4 of the values. The masses of rows 16 w to 16 w + 15
// are with the first lane of each quad of warp w.
template <auto C> struct GroupSums {
    typedef Buckets<C> B;
    static constexpr int DIM = C.head_dim, ROWS = B::WIDTH / 16, PAIRS = DIM / 64;
    typedef Matrix<DIM, B::WIDTH> Operand;
    float weighted[ROWS][2 * PAIRS][4], mass[4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < ROWS * 2 * PAIRS * 4; ++i) weighted[i / (8 * PAIRS)][i / 4 % (2 * PAIRS)][i % 4] = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) mass[i] = 0;
    }

    // f(row of the group without the lane's, chunk of columns, the lane's two sums there)
    template <class F> __device__ __forceinline__ void each(F f) {
        const int warp = threadIdx.x / 32;
#pragma unroll
        for (int m = 0; m < ROWS; ++m)
#pragma unroll
            for (int n = 0; n < 2 * PAIRS; ++n)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    f(16 * m + 8 * half, warp * (DIM / 32) + n, weighted[m][n][2 * half], weighted[m][n][2 * half + 1]);
    }
    template <class F> __device__ __forceinline__ void each_mass(F f) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        if (warp < ROWS && lane % 4 == 0) f(16 * warp + lane / 4, mass[0]), f(16 * warp + 8 + lane / 4, mass[2]);
    }

    static __device__ __forceinline__ float2* place(float* weighted, i64 number, int row, int chunk) {
        const int lane = threadIdx.x % 32;
        return reinterpret_cast<float2*>(weighted + (number * B::WIDTH + lane / 4) * DIM + lane % 4 * 2 + row * DIM + chunk * 8);
    }
    // `number` of [sums, groups].
    __device__ __forceinline__ void read(Sums from, i64 number) {
        each([&](int row, int chunk, float& x, float& y) {
            const float2 two = *place(from.weighted, number, row, chunk);
            x = two.x, y = two.y;
        });
        each_mass([&](int row, float& x) { x = from.mass[number * B::WIDTH + row]; });
    }
    __device__ __forceinline__ void write(Sums to, i64 number) {
        each([&](int row, int chunk, float x, float y) { *place(to.weighted, number, row, chunk) = make_float2(x, y); });
        each_mass([&](int row, float x) { to.mass[number * B::WIDTH + row] = x; });
    }
    template <int PARTS> __device__ __forceinline__ void put(const Operand (&to)[PARTS], float* masses) {
        each([&](int row, int chunk, float x, float y) {
            u32 parts[PARTS];
            split(parts, x, y);
#pragma unroll
            for (int p = 0; p < PARTS; ++p) to[p].lane_pair(row, chunk) = parts[p];
        });
        each_mass([&](int row, float x) { masses[row] = x; });
    }

    // Add features^T values, and features^T sizes to the masses, of 64 tokens.
    template <int PF, int PV, class MF, class MV> __device__ __forceinline__ void add(MF features, const MV (&values)[PV], const float* sizes) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
        for (int k = 0; k < CHUNK / 16; ++k) {
            u32 b[PAIRS][PV][4], ones[2][4] = {};
#pragma unroll
            for (int n = 0; n < PAIRS; ++n)
#pragma unroll
                for (int p = 0; p < PV; ++p) load_right_swapped(b[n][p], values[p], 16 * k, warp * (DIM / 32) + 2 * n);
            if (lane < 4) {
                const int at = 16 * k + 2 * lane;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    u32 parts[2];
                    split(parts, sizes[at + 8 * i], sizes[at + 8 * i + 1]);
                    ones[0][i] = parts[0], ones[1][i] = parts[1];
                }
            }
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                u32 a[PF][4];
#pragma unroll
                for (int p = 0; p < PF; ++p) load_left_swapped(a[p], features, 16 * k, 2 * m + p * B::CHUNKS);
#pragma unroll
                for (int n = 0; n < 2 * PAIRS; ++n) multiply(weighted[m][n], a, b[n / 2], n % 2);
                if (m == warp) multiply(mass, a, ones, 0);
            }
        }
    }
};

// Of 16 by 16 pairs of tokens those whose column is not behind their row, or not before it.
__device__ __forceinline__ void keep_lower(float (&c)[2][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 > lane / 4 + i / 2 % 2 * 8) c[i / 4][i % 4] = 0;
}
__device__ __forceinline__ void keep_upper(float (&c)[2][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 < lane / 4 + i / 2 % 2 * 8) c[i / 4][i % 4] = 0;
}

// Shared memory of a walk: a group's planes, its sums as an operand and, causal, the features of the tokens that are added to
// them, which take the place of the vectors they are made of unless these are read again for the next group.
template <typename T, auto C, bool SEPARATE = (C.groups > 1)> struct Walk {
    typedef Buckets<C> B;
    typedef Matrix<B::template PITCH<C.parts>, CHUNK> Vectors;
    Arena arena;
    typename B::Weights weights[2];
    typename GroupSums<C>::Operand operand[C.parts];
    Vectors vectors[VECTOR_PARTS<T>], features;
    float *masses, *ones;

    __device__ __forceinline__ explicit Walk(char* memory) : arena{memory} {
        arena.take(weights), arena.take(operand);
        masses = arena.floats(B::WIDTH), ones = arena.floats(CHUNK);
        if (threadIdx.x < CHUNK) ones[threadIdx.x] = 1;
        if constexpr (C.causal) {
            arena.take(vectors);
            features = vectors[0];
            if constexpr (SEPARATE) {
                Vectors own[1];
                arena.take(own);
                features = own[0];
            }
        }
    }

    // The first of a warp's rows; warps change places, as later rows see more of a chunk.
    __device__ __forceinline__ int own_rows(int first) const {
        const int warp = threadIdx.x / 32;
        return 16 * (first / CHUNK % 2 ? 3 - warp : warp);
    }

    __device__ __forceinline__ void store_features(B& buckets, float (&f)[2][B::LIST], int own, int group, float beta, const float (&size)[2]) {
        buckets.project(vectors, own, weights);
        buckets.features(f, group, beta, size);
        __syncwarp();
        B::template store<C.parts>(features, own, f);
    }

    // sum_r phi_r A_r over 16 features of a lane's two vectors.
    template <int PA> __device__ __forceinline__ void add_masses(float (&total)[2], const u32 (&a)[PA][4], int step) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 mass = *reinterpret_cast<const float2*>(masses + 16 * step + i / 2 * 8 + threadIdx.x % 4 * 2);
#pragma unroll
            for (int p = 0; p < PA; ++p) total[i % 2] += lower(a[p][i]) * mass.x + upper(a[p][i]) * mass.y;
        }
    }
};
