// Soft buckets of 16 vectors a warp, in the registers that tensor cores take them from (R1), and their derivatives (R8).
//
// A piece is a table, or the buckets of one that agree in the planes from `free` on: 2^free <= 16 buckets. Of group g lane l
// has the pieces 4 (own g + i) + l % 4, i < own, for vectors l / 4 and l / 4 + 8. So the columns that a lane
// holds of a product z = x W are the planes of its own pieces, and the features that it makes of them are the elements that it
// holds of a left fragment: nothing moves between lanes. A plane that several lanes need stands in several columns of W. A
// group has `WIDTH` features; pieces beyond the last are there and vanish.
//
// With t = tanh z: up = sigma(2 beta t), down = sigma(-2 beta t), slope = 1 - t^2.
#pragma once
#include "race/parts.cuh"

struct Bit { float up, down, t, slope; };
__device__ __forceinline__ Bit soft_bit(float z, float beta) {
    const float e = __expf(-2 * fabsf(z)), whole = __fdividef(1.0f, 1 + e);
    const float t = (1 - e) * whole;
    const float f = __expf(-2 * beta * t), large = __fdividef(1.0f, 1 + f), small = f * large;
    return z < 0 ? Bit{small, large, -t, 4 * e * whole * whole} : Bit{large, small, t, 4 * e * whole * whole};
}

template <auto C> struct Buckets {
    static constexpr int PIECE = 1 << C.free, FIXED = C.planes - C.free, PIECES = C.tables << FIXED;
    static constexpr int LIST = C.own * PIECE;                  // features of a lane and vector
    static constexpr int STEPS = LIST / 4, WIDTH = 4 * LIST;    // of 16 features, and features of a group
    static constexpr int PLANES = (C.own * C.planes + 3) / 4 * 4, COLUMNS = 4 * PLANES;
    static constexpr int CHUNKS = WIDTH / 8;
    typedef Matrix<C.head_dim, COLUMNS> Weights;  // of a group
    // Of rows that hold vectors first and their features later.
    template <int PARTS> static constexpr int PITCH = WIDTH * PARTS > C.head_dim ? (WIDTH * PARTS + 63) / 64 * 64 : C.head_dim;

    // Column of a lane's plane m, and of its feature m, within 16 columns a step.
    static __device__ __forceinline__ int column(int part, int m) { return m / 4 * 16 + m % 4 / 2 * 8 + part * 2 + m % 2; }
    static __device__ __forceinline__ int piece(int group, int own, int part) { return (group * C.own + own) * 4 + part; }

    static __device__ void load_weights(const Weights (&weights)[2], const float* planes, int group) {
        for (int i = threadIdx.x; i < COLUMNS * C.head_dim / 2; i += blockDim.x) {
            const int row = i / (C.head_dim / 2), d = i % (C.head_dim / 2) * 2;
            const int part = row % 8 / 2, m = row / 16 * 4 + row % 16 / 8 * 2 + row % 2;
            const int number = piece(group, m / C.planes, part);
            float x[2] = {};
            if (m < C.own * C.planes && number < PIECES)
                for (int e = 0; e < 2; ++e) x[e] = planes[((number >> FIXED) * C.planes + m % C.planes) * C.head_dim + d + e];
            u32 parts[2];
            split(parts, x[0], x[1]);
            weights[0].pair(row, d) = parts[0], weights[1].pair(row, d) = parts[1];
        }
    }

    float z[2][PLANES];

    // Of 16 vectors in rows of one or two parts.
    template <int PARTS, class M> __device__ __forceinline__ void project(const M (&x)[PARTS], int row, const Weights (&weights)[2]) {
#pragma unroll
        for (int s = 0; s < PLANES / 4; ++s) {
            float sum[2][4] = {};
#pragma unroll
            for (int k = 0; k < C.head_dim / 16; ++k) {
                u32 a[PARTS][4], b[2][4];
#pragma unroll
                for (int p = 0; p < PARTS; ++p) load_left(a[p], x[p], row, 2 * k);
#pragma unroll
                for (int p = 0; p < 2; ++p) load_right(b[p], weights[p], 16 * s, 2 * k);
                multiply(sum[0], a, b, 0), multiply(sum[1], a, b, 1);
            }
#pragma unroll
            for (int i = 0; i < 8; ++i) z[i / 2 % 2][4 * s + i / 4 * 2 + i % 2] = sum[i / 4][i % 4];
        }
    }

    // Features of the lane's two vectors times `size`, 0 for a vector that is not there.
    __device__ __forceinline__ void features(float (&f)[2][LIST], int group, float beta, const float (&size)[2]) const {
        const int part = threadIdx.x % 4;
#pragma unroll
        for (int row = 0; row < 2; ++row)
#pragma unroll
            for (int own = 0; own < C.own; ++own) {
                const int number = piece(group, own, part);
                const int at = own * PIECE;
                f[row][at] = number < PIECES ? size[row] : 0;
#pragma unroll
                for (int p = C.free; p < C.planes; ++p) {
                    const Bit bit = soft_bit(z[row][own * C.planes + p], beta);
                    f[row][at] *= number >> (p - C.free) & 1 ? bit.up : bit.down;
                }
#pragma unroll
                for (int p = 0; p < C.free; ++p) {
                    const Bit bit = soft_bit(z[row][own * C.planes + p], beta);
#pragma unroll
                    for (int r = 0; r < PIECE / 2; ++r)
                        if (r < 1 << p) f[row][at + r + (1 << p)] = f[row][at + r] * bit.up, f[row][at + r] *= bit.down;
                }
            }
    }

    // From dphi_r phi_r, which it uses up, to the derivatives by z, in its place; the one by beta is added to `of_beta`.
    __device__ __forceinline__ void through(float (&weighted)[2][LIST], int group, float beta, float& of_beta) {
        const int part = threadIdx.x % 4;
#pragma unroll
        for (int row = 0; row < 2; ++row) {
#pragma unroll
            for (int own = 0; own < C.own; ++own) {
                const int at = own * PIECE;
                auto put = [&](int p, float above, float below) {
                    float& place = z[row][own * C.planes + p];
                    forget(place);
                    const Bit bit = soft_bit(place, beta);
                    const float steeper = 2 * (bit.down * above - bit.up * below);
                    of_beta += bit.t * steeper;
                    place = beta * bit.slope * steeper;
                };
#pragma unroll
                for (int p = C.free - 1; p >= 0; --p) {
                    float above = 0, below = 0;
#pragma unroll
                    for (int r = 0; r < PIECE / 2; ++r)
                        if (r < 1 << p) {
                            above += weighted[row][at + r + (1 << p)], below += weighted[row][at + r];
                            weighted[row][at + r] += weighted[row][at + r + (1 << p)];
                        }
                    put(p, above, below);
                }
                const int number = piece(group, own, part);
#pragma unroll
                for (int p = C.free; p < C.planes; ++p) {
                    const bool high = number >> (p - C.free) & 1;
                    put(p, high ? weighted[row][at] : 0, high ? 0 : weighted[row][at]);
                }
            }
#pragma unroll
            for (int m = C.own * C.planes; m < PLANES; ++m) z[row][m] = 0;
        }
    }

    // Sixteen columns of the vectors' gradients z W, of z that `through` left.
    __device__ __forceinline__ void to_vectors(float (&left_half)[4], float (&right_half)[4], const Weights (&weights)[2], int sixteenth) const {
#pragma unroll
        for (int s = 0; s < PLANES / 4; ++s) {
            u32 a[2][4], b[2][4];
            left(a, z, s);
#pragma unroll
            for (int p = 0; p < 2; ++p) load_right_swapped(b[p], weights[p], 16 * s, 2 * sixteenth);
            multiply(left_half, a, b, 0), multiply(right_half, a, b, 1);
        }
    }

    // Elements 4 s to 4 s + 3 of a lane's lists as its words of a left fragment.
    template <int PARTS, int N> static __device__ __forceinline__ void left(u32 (&a)[PARTS][4], const float (&list)[2][N], int s) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            u32 parts[PARTS];
            split(parts, list[i % 2][4 * s + i / 2 * 2], list[i % 2][4 * s + i / 2 * 2 + 1]);
#pragma unroll
            for (int p = 0; p < PARTS; ++p) a[p][i] = parts[p];
        }
    }

    // Features that `store` put there.
    template <int PARTS, class M> static __device__ __forceinline__ void load(M m, int row, float (&f)[2][LIST]) {
#pragma unroll
        for (int i = 0; i < LIST; ++i)
#pragma unroll
            for (int p = 0; p < PARTS; ++p) {
                const u32 pair = m.lane_pair(row + i % 2 * 8, p * CHUNKS + i / 2);
                float &x = f[i % 2][i / 2 * 2], &y = f[i % 2][i / 2 * 2 + 1];
                x = p ? x + lower(pair) : lower(pair), y = p ? y + upper(pair) : upper(pair);
            }
    }

    // Features of a warp's 16 vectors into rows of a matrix, part p CHUNKS * p chunks further on.
    template <int PARTS, class M> static __device__ __forceinline__ void store(M m, int row, const float (&f)[2][LIST]) {
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            u32 a[PARTS][4];
            left(a, f, s);
#pragma unroll
            for (int p = 0; p < PARTS; ++p)
#pragma unroll
                for (int i = 0; i < 4; ++i) m.lane_pair(row + i % 2 * 8, p * CHUNKS + 2 * s + i / 2) = a[p][i];
        }
    }
};
