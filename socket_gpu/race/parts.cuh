// Numbers as sums of bfloat16 parts, matrices of them in shared memory, and their products on tensor cores.
//
// A number of one part is rounded to 8 bits. Of two parts, x ~ hi + lo, it keeps 16, and a product leaves out lo * lo: its
// relative error is some 2^-16. Elements of bfloat16 are exact in one part, of float16 in two and of float32 in three: what is
// projected on planes is taken whole, since a steep beta makes a large error of a small one there.
#pragma once
#include "common.cuh"
#include "mma.cuh"

template <typename T> constexpr int PARTS_OF = 2;
template <> constexpr int PARTS_OF<__nv_bfloat16> = 1;
template <typename T> constexpr int VECTOR_PARTS = sizeof(T) == 4 ? 3 : PARTS_OF<T>;

__device__ __forceinline__ float lower(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float upper(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ u32 rounded(float x, float y) {
    union { __nv_bfloat16 each[2]; u32 pair; } made;
    made.each[0] = Element<__nv_bfloat16>::down(x), made.each[1] = Element<__nv_bfloat16>::down(y);
    return made.pair;
}
template <int PARTS> __device__ __forceinline__ void split(u32 (&parts)[PARTS], float x, float y) {
    parts[0] = rounded(x, y);
    if constexpr (PARTS > 1) parts[1] = rounded(x - lower(parts[0]), y - upper(parts[0]));
    if constexpr (PARTS > 2) parts[2] = rounded(x - lower(parts[0]) - lower(parts[1]), y - upper(parts[0]) - upper(parts[1]));
}

// Rows of PITCH elements, 16 bytes a chunk, from an address that 128 divides. Chunks are swapped within 128 bytes, by a row's
// last three bits, so that a column of chunks of eight rows lies in all banks. A chunk that is known to the compiler changes
// an address by an exclusive or and a constant, whatever the lane.
template <int PITCH, int ROWS> struct Matrix {
    static constexpr int ROW_BYTES = 2 * PITCH, BYTES = ROW_BYTES * ROWS;
    static_assert(PITCH % 64 == 0, "chunks are swapped within 128 bytes of a row");
    char* base;
    __device__ __forceinline__ char* chunk(int row, int number) const { return base + row * ROW_BYTES + (((number & 7) ^ (row & 7)) << 4) + (number >> 3 << 7); }
    __device__ __forceinline__ u32& pair(int row, int column) const { return *reinterpret_cast<u32*>(chunk(row, column >> 3) + (column & 7) * 2); }

    // The lane's two elements, as a product's columns are spread, of rows `row` to row + 7 and one chunk.
    __device__ __forceinline__ u32& lane_pair(int row, int number) const {
        const int lane = threadIdx.x % 32, own = lane / 4 * ROW_BYTES + (lane / 4 << 4) + lane % 4 * 4;
        return *reinterpret_cast<u32*>(base + row * ROW_BYTES + (own ^ (number & 7) << 4) + (number >> 3 << 7));
    }
    // The address of the row that a lane gives for four matrices, one below the other first or side by side first.
    __device__ __forceinline__ u32 below_first(int row, int number) const {
        const int lane = threadIdx.x % 32, own = lane % 16 * ROW_BYTES + ((lane / 16 ^ lane % 8) << 4);
        return shared_address(base) + row * ROW_BYTES + (own ^ (number & 7) << 4) + (number >> 3 << 7);
    }
    __device__ __forceinline__ u32 beside_first(int row, int number) const {
        const int lane = threadIdx.x % 32, own = (lane % 8 + lane / 16 * 8) * ROW_BYTES + ((lane / 8 % 2 ^ lane % 8) << 4);
        return shared_address(base) + row * ROW_BYTES + (own ^ (number & 7) << 4) + (number >> 3 << 7);
    }
};

// Fragments of 16 by 16 elements, from a row and an even chunk on: of a left matrix, and of two right ones side by side. The
// second of each reads a matrix that is stored with its rows and columns swapped.
template <class M> __device__ __forceinline__ void load_left(u32 (&a)[4], M m, int row, int chunk) { load_matrices(a, m.below_first(row, chunk)); }
template <class M> __device__ __forceinline__ void load_left_swapped(u32 (&a)[4], M m, int row, int chunk) { load_swapped_matrices(a, m.beside_first(row, chunk)); }
template <class M> __device__ __forceinline__ void load_right(u32 (&b)[4], M m, int row, int chunk) { load_matrices(b, m.beside_first(row, chunk)); }
template <class M> __device__ __forceinline__ void load_right_swapped(u32 (&b)[4], M m, int row, int chunk) { load_swapped_matrices(b, m.below_first(row, chunk)); }

// c += a b, for columns 8 `half` to 8 `half` + 7 of b.
template <int PA, int PB> __device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[PA][4], const u32 (&b)[PB][4], int half) {
    typedef Mma<__nv_bfloat16> M;
#pragma unroll
    for (int p = 0; p < PA; ++p) M::multiply(c, a[p][0], a[p][1], a[p][2], a[p][3], b[0][2 * half], b[0][2 * half + 1]);
    if constexpr (PB == 2) M::multiply(c, a[0][0], a[0][1], a[0][2], a[0][3], b[1][2 * half], b[1][2 * half + 1]);
}

// The sums of two products' 16 by 8 columns as a left fragment.
template <int PARTS> __device__ __forceinline__ void as_left(u32 (&a)[PARTS][4], const float (&c)[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        u32 parts[PARTS];
        split(parts, c[i / 2][i % 2 * 2], c[i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int p = 0; p < PARTS; ++p) a[p][i] = parts[p];
    }
}

template <int N> __device__ __forceinline__ void clear(float (&c)[N][4]) {
#pragma unroll
    for (int i = 0; i < 4 * N; ++i) c[i / 4][i % 4] = 0;
}
