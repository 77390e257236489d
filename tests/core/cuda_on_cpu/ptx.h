// The inline assembly of the kernels for cuda.h: instructions are told apart by their operands.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"

static size_t __cvta_generic_to_shared(const void* address) { return (const char*)address - dynamic_shared; }

// cp.async.commit_group and wait_group: a copy happens when it is waited for, so that a wait too few is seen.
static void ptx(const char* commit_group) { fiber->copies.push_back({}); }

static void ptx(const char* wait_group, int open) {
    Copies& groups = fiber->copies;
    for (; (int)groups.size() > open + 1; groups.erase(groups.begin()))
        for (Copy copy : groups.front()) memcpy(copy.to, copy.from, 16);
}

static void ptx(const char* prefetch, const void* address) {}

static void ptx(const char* forget, float& x) {}

static void ptx(const char* copy_async, unsigned to, const void* from) { fiber->copies.back().push_back({dynamic_shared + to, from}); }

static void ptx(const char* add, float& sum, float term) { sum += term; }

// ldmatrix: lane 8 m + r names row r of matrix m, and lane l gets words l % 4 of rows l / 4; with .trans elements l / 4 of
// rows 2 (l % 4) and 1 more.
static void ptx(const char* load_matrices, unsigned& r0, unsigned& r1, unsigned& r2, unsigned& r3, unsigned row) {
    unsigned* r[4] = {&r0, &r1, &r2, &r3};
    const bool swapped = strstr(load_matrices, ".trans.");
    of_lanes(row, [&](unsigned* rows, int lane) {
        for (int m = 0; m < 4; ++m)
            if (swapped) {
                for (int i = 0; i < 2; ++i) memcpy((char*)r[m] + 2 * i, dynamic_shared + rows[8 * m + lane % 4 * 2 + i] + lane / 4 * 2, 2);
            } else {
                memcpy(r[m], dynamic_shared + rows[8 * m + lane / 4] + lane % 4 * 4, 4);
            }
        return 0;
    });
}

// mma.m16n8k16: a lane's words hold rows lane / 4 and 8 more of the left matrix, columns lane / 4 of the right one, in
// places 2 (lane % 4) and 8 more. Products are exact and added in double, then rounded to float.
static void ptx(const char* multiply, float& c0, float& c1, float& c2, float& c3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    struct Words { unsigned a[4], b[2]; };
    const bool brain = strstr(multiply, ".bf16.");
    auto half = [&](unsigned word, int i) {
        const unsigned short bits = word >> 16 * i;
        return brain ? (double)__bfloat162float({bits}) : (double)__half2float({bits});
    };
    float* c[4] = {&c0, &c1, &c2, &c3};
    of_lanes(Words{{a0, a1, a2, a3}, {b0, b1}}, [&](Words* all, int lane) {
        for (int i = 0; i < 4; ++i) {
            double sum = *c[i];
            for (int part = 0; part < 4; ++part)
                for (int eight = 0; eight < 2; ++eight)
                    for (int k = 0; k < 2; ++k)
                        sum += half(all[lane / 4 * 4 + part].a[i / 2 + 2 * eight], k) * half(all[(lane % 4 * 2 + i % 2) * 4 + part].b[eight], k);
            *c[i] = (float)sum;
        }
        return 0;
    });
}
