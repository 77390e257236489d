// Exact top-M of every row under the selection order, forced tokens included, as ascending lists. Nothing is sorted.
//
// score.cu passes on the tokens whose score reaches a floor just below the last step's threshold, a few times as many
// as are wanted. The wanted-th largest of their keys (score, slot) is found by radix, kept tokens are marked in a
// bitmap in shared memory, and the bitmap is written out in order. If the survivors are too few, too many for their
// list, or were never made (scores from elsewhere), the same radix runs over all scores instead: the floor decides
// the time, never the result, and order of arrival cannot change either.
//
// Rows: query heads, or KV heads for group="shared"; `rows_per_sequence` of them share a span. One block a row.
// survivors [rows, capacity] of keys, held in shared memory; num_survivors [rows]: zero on exit. floors [rows, 2]: the next floor and its
// distance from the threshold, in units of the order of scores.
//
// 32 rows of 131072 on an H100: v1, histogram and two launches over all scores, 29 us; v2, clusters that read each
// other's lists, 46 us; v3, clusters that push, 45 us (two waves of clusters); v4, survivors, 24 us with a warp a word
// written out, 17 us with a thread a word.
#include "common.cuh"

#define SELECT_THREADS 1024
#define WINDOW_WORDS 4096  // slots marked at a time, over 32
#define FIRST_MARGIN (1u << 20)  // an eighth of an octave

// Sum over the threads before this one, and over all: one value a thread.
__device__ u32 exclusive_sum(u32 value, u32& total) {
    __shared__ u32 sums[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 inclusive = value;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const u32 other = __shfl_up_sync(~0u, inclusive, step);
        if (lane >= step) inclusive += other;
    }
    __syncthreads();
    if (lane == 31) sums[warp] = inclusive;
    __syncthreads();
    u32 warp_sum = sums[lane];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const u32 other = __shfl_up_sync(~0u, warp_sum, step);
        if (lane >= step) warp_sum += other;
    }
    total = __shfl_sync(~0u, warp_sum, 31);
    const u32 before = __shfl_sync(~0u, warp_sum, max(0, warp - 1));
    return inclusive - value + (warp ? before : 0);
}

// The largest value no greater than the `wanted`-th largest key, such that no other key lies between. Ten bits a round,
// a bin a thread, from the highest bit in which keys differ. `visit` passes every key to a
// function; `any` is one of them.
template <typename Visit> __device__ u64 find_key(Visit visit, u64 any, u32 wanted) {
    __shared__ u32 digits[SELECT_THREADS];
    __shared__ u64 differing;
    __shared__ u32 found[3];
    if (threadIdx.x == 0) differing = 0;
    __syncthreads();
    u64 mine = 0;
    visit([&](u64 key) { mine |= key ^ any; });
    const u32 high = __reduce_or_sync(~0u, (u32)(mine >> 32)), low = __reduce_or_sync(~0u, (u32)mine);
    if (threadIdx.x % 32 == 0) atomicOr(&differing, (u64)high << 32 | low);
    __syncthreads();
    int shift = 64 - __clzll((i64)differing);
    u64 prefix = shift < 64 ? any >> shift : 0;
    while (shift > 0) {
        const int width = min(10, shift);
        shift -= width;
        digits[threadIdx.x] = 0;
        __syncthreads();
        visit([&](u64 key) {
            if (shift + width >= 64 || key >> (shift + width) == prefix)
                atomicAdd(digits + (key >> shift & ((1u << width) - 1)), 1u);
        });
        __syncthreads();
        // Thread t holds digit 1023 - t, so sums before a thread count the larger ones.
        const u32 digit = SELECT_THREADS - 1 - threadIdx.x, count = digits[digit];
        u32 total;
        const u32 larger = exclusive_sum(count, total);
        if (larger < wanted && larger + count >= wanted) found[0] = digit, found[1] = larger, found[2] = count;
        __syncthreads();
        wanted -= found[1];
        prefix = prefix << width | found[0];
        if (found[2] == wanted) break;
    }
    return prefix << shift;
}

// The bits of a word from `low` up to `high`.
__device__ __forceinline__ u32 range_bits(int low, int high) {
    low = max(low, 0), high = min(high, 32);
    return low < high ? (~0u >> (32 - (high - low))) << low : 0;
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS, 2)
    select_tokens(const float* __restrict__ scores, const i64* __restrict__ spans, const u64* __restrict__ survivors,
                  u32* __restrict__ num_survivors, u32* __restrict__ floors, int* __restrict__ indices,
                  int* __restrict__ lengths, int slots, int rows_per_sequence, int capacity, int max_kept, int sink,
                  int window, i64 tokens, double fraction) {
    extern __shared__ u64 held[];
    __shared__ u32 marks[WINDOW_WORDS], places[WINDOW_WORDS];
    const int row = blockIdx.x, thread = threadIdx.x;
    const Span span = load_span(spans, row / rows_per_sequence, slots, sink, window);
    const int length = span.end - span.start, num_forced = span.num_forced();
    int kept = (int)min((i64)length, tokens);
    if (tokens < 0) kept = max(min(length, max(1, (int)floor(fraction * length + 0.5))), num_forced);
    const u32 wanted = (u32)(kept - num_forced), found = floors ? num_survivors[row] : 0;
    const bool few = found >= wanted && found <= (u32)capacity;
    const float* own = scores + (i64)row * slots;
    const u64* list = survivors + (i64)row * capacity;

    if (few)
#pragma unroll 4
        for (u32 i = thread; i < found; i += SELECT_THREADS) held[i] = __ldcs(list + i);
    auto from_list = [&](auto use) {
#pragma unroll 1
        for (u32 i = thread; i < found; i += SELECT_THREADS) use(held[i]);
    };
    auto from_scores = [&](auto use) {
#pragma unroll 8
        for (int slot = span.sink_end + thread; slot < span.window_start; slot += SELECT_THREADS)
            use(order_token(own[slot], slot));
    };
    u64 threshold = ~0ull;
    if (wanted > 0)
        threshold = few ? find_key(from_list, list[0], wanted)
                        : find_key(from_scores, order_token(own[span.sink_end], span.sink_end), wanted);
    __syncthreads();
    int* out = indices + (i64)row * max_kept;
    u32 at = 0;
    for (int first = span.start / 32 * 32; first < span.end; first += 32 * WINDOW_WORDS) {
        const int stop = min(span.end, first + 32 * WINDOW_WORDS), words = (stop - first + 31) / 32;
        for (int word = thread; word < words; word += SELECT_THREADS) {
            const int low = first + 32 * word;
            marks[word] = range_bits(span.start - low, span.sink_end - low) | range_bits(span.window_start - low, span.end - low);
        }
        __syncthreads();
        auto mark_kept = [&](u64 key) {
            const int slot = (int)(u32)key;
            if (key >= threshold && slot >= first && slot < stop) atomicOr(marks + (slot - first) / 32, 1u << (slot % 32));
        };
        if (wanted > 0) {
            if (few)
                from_list(mark_kept);
            else
                from_scores(mark_kept);
        }
        __syncthreads();
        // Where each word's tokens go; then neighbouring threads write neighbouring words, so that dense runs spread.
        const int each = (words + SELECT_THREADS - 1) / SELECT_THREADS;
        u32 count = 0, total;
        for (int word = thread * each; word < min(words, (thread + 1) * each); ++word) count += __popc(marks[word]);
        u32 place = at + exclusive_sum(count, total);
        for (int word = thread * each; word < min(words, (thread + 1) * each); ++word) {
            places[word] = place;
            place += __popc(marks[word]);
        }
        __syncthreads();
        for (int word = thread; word < words; word += SELECT_THREADS) {
            u32 index = places[word];
            for (u32 rest = marks[word]; rest; rest &= rest - 1, ++index)
                if (index < (u32)max_kept) out[index] = first + 32 * word + __ffs(rest) - 1;
        }
        at += total;
        __syncthreads();
    }
    if (thread == 0 && floors) {
        num_survivors[row] = 0;
        // Aim at two survivors a wanted token; after a miss, at a floor twice as far below.
        const u32 margin = max(1u, floors[2 * row + 1]), order = (u32)(threshold >> 32);
        float next = found == 0 ? (float)max(margin, FIRST_MARGIN) : margin * sqrtf(2.0f * wanted / found);
        next = fminf(found < wanted ? fmaxf(2.0f * margin, next) : next, (float)(1u << 28));
        if (wanted > 0) {
            floors[2 * row + 1] = (u32)next;
            floors[2 * row] = order > (u32)next ? order - (u32)next : 0;
        }
    }
    if (thread == 0) lengths[row] = min(kept, max_kept);
    for (int i = kept + thread; i < max_kept; i += SELECT_THREADS) out[i] = -1;
}

// group="shared": the scores of a KV head's query heads, added in head order.
extern "C" __global__ void sum_group(const float* __restrict__ scores, float* __restrict__ total, i64 slots, int group) {
    const i64 slot = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (slot >= slots) return;
    float sum = scores[row * group * slots + slot];
    for (int g = 1; g < group; ++g) sum += scores[(row * group + g) * slots + slot];
    total[row * slots + slot] = sum;
}
