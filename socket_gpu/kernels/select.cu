// Exact top-M of every row under the selection order, forced tokens included, as ascending lists.
//
// Three steps, none of which sorts: a histogram of the order of unforced scores (score.cu fills it on the fly,
// count_scores does it for scores that came from elsewhere); find_threshold locates the bin of the last kept token,
// and the block that finishes a row last resolves the tokens of that bin exactly, by radix on (score, slot);
// write_kept writes the tokens at or above the threshold. Order of arrival cannot change the result.
//
// Rows: query heads, or KV heads for group="shared"; `rows_per_sequence` of them share a span. Segments of SEGMENT
// slots; blocks of 256 threads; warp w of a block covers slots [512 w, 512 w + 512) of its segment.
// Between steps: counts of candidates and tickets are left at zero, and so is the histogram, for the next replay.
#include "common.cuh"

#define SEGMENT 4096
#define SELECT_THREADS 256
#define WARP_SLOTS 512
#define CAPACITY 8192

struct Row {
    Span span;
    int kept, wanted;  // all kept tokens; those to choose among unforced ones
};

__device__ __forceinline__ Row load_row(const i64* spans, int sequence, int slots, int sink, int window, i64 tokens,
                                        double fraction) {
    Row row;
    row.span = load_span(spans, sequence, slots, sink, window);
    const int length = row.span.end - row.span.start;
    if (tokens >= 0)
        row.kept = (int)min((i64)length, tokens);
    else
        row.kept = max(min(length, max(1, (int)floor(fraction * length + 0.5))), row.span.num_forced());
    row.wanted = row.kept - row.span.num_forced();
    return row;
}

__device__ __forceinline__ int find_bin(float score, int base) {
    return min(NUM_BINS - 1, max(0, (int)(order_score(score) >> BIN_SHIFT) - base));
}

// Largest index whose suffix sum reaches `wanted`; `above` is the sum behind it. SIZE values, one block.
template <int SIZE> __device__ void find_suffix(const u32* counts, int wanted, int& place, int& above) {
    __shared__ u32 warp_sums[SELECT_THREADS / 32];
    __shared__ int found[2];
    const int EACH = SIZE / SELECT_THREADS;
    const int thread = SELECT_THREADS - 1 - (int)threadIdx.x, lane = threadIdx.x % 32;
    u32 own[EACH], sum = 0;
#pragma unroll
    for (int i = EACH - 1; i >= 0; --i) sum += own[i] = counts[thread * EACH + i];
    u32 inclusive = sum;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const u32 other = __shfl_up_sync(~0u, inclusive, step);
        if (lane >= step) inclusive += other;
    }
    if (lane == 31) warp_sums[threadIdx.x / 32] = inclusive;
    if (threadIdx.x == 0) found[0] = 0, found[1] = 0;
    __syncthreads();
    for (int w = 0; w < (int)threadIdx.x / 32; ++w) inclusive += warp_sums[w];
    u32 before = inclusive - sum;
    if ((int)before < wanted && (int)inclusive >= wanted)
#pragma unroll
        for (int i = EACH - 1; i >= 0; --i) {
            if ((int)before < wanted && (int)(before + own[i]) >= wanted) found[0] = thread * EACH + i, found[1] = (int)before;
            before += own[i];
        }
    __syncthreads();
    place = found[0], above = found[1];
    __syncthreads();
}

extern "C" __global__ void count_scores(const float* __restrict__ scores, const i64* __restrict__ spans,
                                        u32* __restrict__ histogram, const int* __restrict__ bin_base, int slots,
                                        int rows_per_sequence, int sink, int window) {
    __shared__ u32 counts[NUM_BINS];
    const int row = blockIdx.y;
    for (int i = threadIdx.x; i < NUM_BINS; i += blockDim.x) counts[i] = 0;
    __syncthreads();
    const Span span = load_span(spans, row / rows_per_sequence, slots, sink, window);
    const int stop = min(span.window_start, ((int)blockIdx.x + 1) * SEGMENT);
    for (int slot = max(span.sink_end, (int)blockIdx.x * SEGMENT) + threadIdx.x; slot < stop; slot += blockDim.x)
        atomicAdd(counts + find_bin(scores[(i64)row * slots + slot], bin_base[row]), 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < NUM_BINS; i += blockDim.x)
        if (counts[i]) atomicAdd(histogram + (i64)row * NUM_BINS + i, counts[i]);
}

// The smallest key kept: the `wanted`-th largest of the keys that `visit` calls back with, which agree above `shift`.
template <typename Visit> __device__ u64 find_key(Visit visit, int wanted, int shift, u64 prefix) {
    __shared__ u32 digits[256];
    while (shift > 0) {
        const int width = min(8, shift);
        shift -= width;
        digits[threadIdx.x] = 0;
        __syncthreads();
        visit([&](u64 key) {
            if (shift + width >= 64 || key >> (shift + width) == prefix) atomicAdd(digits + (key >> shift & ((1u << width) - 1)), 1u);
        });
        __syncthreads();
        int digit, above;
        find_suffix<256>(digits, wanted, digit, above);
        const u32 inside = digits[digit];
        __syncthreads();
        wanted -= above;
        prefix = prefix << width | digit;
        if ((int)inside == wanted) break;
    }
    return prefix << shift;
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    find_threshold(const float* __restrict__ scores, const i64* __restrict__ spans, u32* __restrict__ histogram,
                   const int* __restrict__ bin_base, u64* __restrict__ candidates, u32* __restrict__ progress,
                   u32* __restrict__ segment_offsets, u64* __restrict__ thresholds, int slots, int rows_per_sequence,
                   int sink, int window, i64 tokens, double fraction) {
    __shared__ u64 local[SEGMENT];
    __shared__ u32 local_count, base, segment_count;
    __shared__ bool last;
    const int row = blockIdx.y, segments = gridDim.x, thread = threadIdx.x;
    const Row kept = load_row(spans, row / rows_per_sequence, slots, sink, window, tokens, fraction);
    const Span span = kept.span;
    const float* own = scores + (i64)row * slots;
    u32* counts = histogram + (i64)row * NUM_BINS;
    u64* list = candidates + (i64)row * CAPACITY;
    u32 *total = progress + 2 * row, *ticket = total + 1;
    u32* offsets = segment_offsets + (i64)row * segments;

    if (thread == 0) local_count = 0, segment_count = 0;
    __syncthreads();
    int bin = NUM_BINS, above = 0;
    if (kept.wanted > 0) find_suffix<NUM_BINS>(counts, kept.wanted, bin, above);
    const int begin = (int)blockIdx.x * SEGMENT, stop = min(span.end, begin + SEGMENT);
    u32 definite = 0;
    for (int slot = max(span.start, begin) + thread; slot < stop; slot += SELECT_THREADS) {
        if (span.forced(slot)) {
            ++definite;
            continue;
        }
        const float score = own[slot];
        const int at = find_bin(score, bin_base[row]);
        definite += at > bin;
        if (at == bin) local[atomicAdd(&local_count, 1u)] = order_token(score, slot);
    }
    for (int step = 16; step; step /= 2) definite += __shfl_xor_sync(~0u, definite, step);
    if (thread % 32 == 0 && definite) atomicAdd(&segment_count, definite);
    __syncthreads();
    if (thread == 0) {
        base = local_count ? atomicAdd(total, local_count) : 0;
        offsets[blockIdx.x] = segment_count;
    }
    __syncthreads();
    for (u32 i = thread; i < local_count; i += SELECT_THREADS)
        if (base + i < CAPACITY) list[base + i] = local[i];
    __threadfence();
    __syncthreads();
    if (thread == 0) last = atomicAdd(ticket, 1u) == (u32)segments - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();

    const u32 found = *(volatile u32*)total;
    u64 threshold = ~0ull;
    if (kept.wanted > 0) {
        const bool clamped = bin == 0 || bin == NUM_BINS - 1;
        const int shift = clamped ? 64 : 32 + BIN_SHIFT;
        const u64 prefix = clamped ? 0 : (u64)(bin + bin_base[row]);
        auto from_list = [&](auto use) {
            for (u32 i = thread; i < found; i += SELECT_THREADS) use(*(volatile u64*)(list + i));
        };
        auto from_scores = [&](auto use) {
            for (int slot = span.sink_end + thread; slot < span.window_start; slot += SELECT_THREADS)
                if (find_bin(own[slot], bin_base[row]) == bin) use(order_token(own[slot], slot));
        };
        auto count_segment = [&](u64 key) {
            if (key >= threshold) atomicAdd(offsets + (u32)key / SEGMENT, 1u);
        };
        threshold = found <= CAPACITY ? find_key(from_list, kept.wanted - above, shift, prefix)
                                      : find_key(from_scores, kept.wanted - above, shift, prefix);
        found <= CAPACITY ? from_list(count_segment) : from_scores(count_segment);
        // The threshold also passes every token of a higher bin: their order is larger.
    }
    __threadfence();
    __syncthreads();
    if (thread == 0) thresholds[row] = threshold, *total = 0, *ticket = 0, base = 0;
    for (int i = thread; i < NUM_BINS; i += SELECT_THREADS) counts[i] = 0;
    __syncthreads();
    for (int first = 0; first < segments; first += SELECT_THREADS) {
        const u32 mine = first + thread < segments ? *(volatile u32*)(offsets + first + thread) : 0;
        u32 inclusive = mine;
        u32* sums = reinterpret_cast<u32*>(local);
        for (int step = 1; step < 32; step *= 2) {
            const u32 other = __shfl_up_sync(~0u, inclusive, step);
            if (thread % 32 >= step) inclusive += other;
        }
        if (thread % 32 == 31) sums[thread / 32] = inclusive;
        __syncthreads();
        for (int w = 0; w < thread / 32; ++w) inclusive += sums[w];
        if (first + thread < segments) offsets[first + thread] = base + inclusive - mine;
        __syncthreads();
        if (thread == SELECT_THREADS - 1) base += inclusive;
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
    write_kept(const float* __restrict__ scores, const i64* __restrict__ spans, const u32* __restrict__ segment_offsets,
               const u64* __restrict__ thresholds, int* __restrict__ indices, int* __restrict__ lengths, int slots,
               int rows_per_sequence, int max_kept, int sink, int window, i64 tokens, double fraction) {
    __shared__ u32 warp_counts[SELECT_THREADS / 32];
    const int row = blockIdx.y, segments = gridDim.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Row kept = load_row(spans, row / rows_per_sequence, slots, sink, window, tokens, fraction);
    const Span span = kept.span;
    const u64 threshold = thresholds[row];
    int* out = indices + (i64)row * max_kept;
    const int first = (int)blockIdx.x * SEGMENT + warp * WARP_SLOTS + lane;
    u32 mine = 0, count = 0;
#pragma unroll
    for (int i = 0; i < WARP_SLOTS / 32; ++i) {
        const int slot = first + 32 * i;
        bool keep = false;
        if (slot >= span.start && slot < span.end)
            keep = span.forced(slot) || order_token(scores[(i64)row * slots + slot], slot) >= threshold;
        mine |= (u32)keep << i;
        count += __popc(__ballot_sync(~0u, keep));
    }
    if (lane == 0) warp_counts[warp] = count;
    __syncthreads();
    u32 at = segment_offsets[(i64)row * segments + blockIdx.x];
    for (int w = 0; w < warp; ++w) at += warp_counts[w];
#pragma unroll
    for (int i = 0; i < WARP_SLOTS / 32; ++i) {
        const u32 keepers = __ballot_sync(~0u, mine >> i & 1);
        if (mine >> i & 1) {
            const u32 place = at + __popc(keepers & ((1u << lane) - 1));
            if (place < (u32)max_kept) out[place] = first + 32 * i;
        }
        at += __popc(keepers);
    }
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) lengths[row] = min(kept.kept, max_kept);
        for (int i = kept.kept + threadIdx.x; i < max_kept; i += SELECT_THREADS) out[i] = -1;
    }
}

// group="shared": the scores of a KV head's query heads, added in head order.
extern "C" __global__ void sum_group(const float* __restrict__ scores, float* __restrict__ total, i64 slots, int group) {
    const i64 slot = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (slot >= slots) return;
    float sum = scores[row * group * slots + slot];
    for (int g = 1; g < group; ++g) sum += scores[(row * group + g) * slots + slot];
    total[row * slots + slot] = sum;
}
