// Rows of keys or values, whoever owns them: an array of any strides, or pages.
//
// Blocks [num_blocks, Hkv, slots of a block, D] hold them. Without pages (PAGE = 0) a sequence is a block; with pages of
// PAGE slots, slot n of sequence b lies in block table[b, n / PAGE], at n % PAGE. A row is D neighbouring elements, and
// begins at a multiple of 16 bytes. Strides count bytes.
#pragma once
#include "common.cuh"

template <int PAGE> struct BlockTable {
    const int* entries;
    int blocks, num_pages;  // of a sequence, in all
    __device__ __forceinline__ int block_of(int sequence, int slot) const {
        if constexpr (PAGE == 0) return sequence;
        else return min(max(__ldg(entries + (i64)sequence * blocks + slot / PAGE), 0), num_pages - 1);
    }
};

// Those of one KV head, of one sequence too where a sequence is a block.
template <typename T, int PAGE> struct HeadRows {
    const char* base;
    i64 block_stride;
    int slot_stride;
    __device__ __forceinline__ const T* at(int block, int slot) const {
        if constexpr (PAGE == 0) return reinterpret_cast<const T*>(base + (i64)slot * slot_stride);
        else return reinterpret_cast<const T*>(base + block * block_stride + (i64)(slot % PAGE) * slot_stride);
    }
};

template <typename T, int PAGE> struct Rows {
    const T* base;
    i64 block_stride, head_stride;
    int slot_stride;
    __device__ __forceinline__ HeadRows<T, PAGE> of(int sequence, int head) const {
        const char* first = reinterpret_cast<const char*>(base) + head * head_stride + (PAGE ? 0 : sequence * block_stride);
        return {first, block_stride, slot_stride};
    }
};
