// Exact top-M of every row under the selection order, forced tokens included, as ascending lists.
//
// Nothing is sorted. A histogram of the order of unforced scores (score.cu fills it on the fly, count_scores does it
// for scores from elsewhere) gives the bin of the last kept token; the tokens of that bin are gathered in shared
// memory and resolved by radix on (score, slot); then the tokens at or above that key are written in order. Exact for
// any bins: they decide only how many tokens the radix sees. Order of arrival cannot change the result.
//
// Rows: query heads, or KV heads for group="shared"; `rows_per_sequence` of them share a span. CLUSTER blocks take a
// row, each a contiguous part of its span, and share counts through distributed shared memory (1 before sm_90).
// On exit the histogram is zero and bin_base follows this step's threshold, for the next replay.
//
// v1: 4096-slot blocks, a ticket for the last block of a row to resolve the threshold, a second launch to write
// (29 us for 32 rows of 131072 on an H100). v2: one launch of clusters, the first block reading the others' lists
// (46 us: remote loads in sequence). v3: every block pushes its few tokens of the bin to the first.
#include "common.cuh"

#define SELECT_THREADS 1024
#define CAPACITY 4096

// All blocks of the cluster; and the same shared variable of another of them.
__device__ __forceinline__ void meet() {
#if CLUSTER > 1
    asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
}

template <typename T> __device__ __forceinline__ T* remote(T* local, int of) {
#if CLUSTER > 1
    u64 address;
    asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(local), "r"(of));
    return reinterpret_cast<T*>(address);
#else
    return local;
#endif
}

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

// The largest of SELECT_THREADS bins whose suffix sum reaches `wanted`, else 0, which need not be counted; `above` is
// the sum behind it and `inside` its count. Thread t holds bin SELECT_THREADS - 1 - t.
__device__ void find_suffix(u32 count, int wanted, int& place, int& above, int& inside) {
    __shared__ int found[3];
    u32 total;
    const int bin = SELECT_THREADS - 1 - threadIdx.x, before = (int)exclusive_sum(count, total);
    if ((before < wanted && before + (int)count >= wanted) || (bin == 0 && before + (int)count < wanted))
        found[0] = bin, found[1] = before, found[2] = (int)count;
    __syncthreads();
    place = found[0], above = found[1], inside = found[2];
}

extern "C" __global__ void count_scores(const float* __restrict__ scores, const i64* __restrict__ spans,
                                        u32* __restrict__ histogram, const int* __restrict__ bin_base, int slots,
                                        int rows_per_sequence, int sink, int window) {
    __shared__ u32 counts[NUM_BINS];
    const int row = blockIdx.y, share = (slots + gridDim.x - 1) / gridDim.x, first = (int)blockIdx.x * share;
    for (int i = threadIdx.x; i < NUM_BINS; i += blockDim.x) counts[i] = 0;
    __syncthreads();
    const Span span = load_span(spans, row / rows_per_sequence, slots, sink, window);
    const int stop = min(span.window_start, first + share);
    for (int slot = max(span.sink_end, first) + threadIdx.x; slot < stop; slot += blockDim.x)
        if (const int bin = find_bin(scores[(i64)row * slots + slot], bin_base[row])) atomicAdd(counts + bin, 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < NUM_BINS; i += blockDim.x)
        if (counts[i]) atomicAdd(histogram + (i64)row * NUM_BINS + i, counts[i]);
}

// The `wanted`-th largest of the keys that `visit` passes on, or a smaller value that no other key lies between. The
// keys agree above `shift`, where they read `prefix`. Ten bits a round: a bin a thread.
template <typename Visit> __device__ u64 find_key(Visit visit, int wanted, int shift, u64 prefix) {
    __shared__ u32 digits[SELECT_THREADS];
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
        int digit, above, inside;
        find_suffix(digits[SELECT_THREADS - 1 - threadIdx.x], wanted, digit, above, inside);
        wanted -= above;
        prefix = prefix << width | digit;
        if (inside == wanted) break;
    }
    return prefix << shift;
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS)
#if CLUSTER > 1
    __cluster_dims__(CLUSTER, 1, 1)
#endif
    select_tokens(const float* __restrict__ scores, const i64* __restrict__ spans, u32* __restrict__ histogram,
                  int* __restrict__ bin_base, int* __restrict__ indices, int* __restrict__ lengths, int slots,
                  int rows_per_sequence, int max_kept, int sink, int window, i64 tokens, double fraction) {
    // In the first block of a cluster: the tokens of the threshold's bin, and where every block's kept tokens start.
    __shared__ u64 candidates[CAPACITY];
    __shared__ u32 num_candidates, starts[CLUSTER], certain;
    __shared__ u64 shared_threshold;
    const int row = blockIdx.y, rank = blockIdx.x, thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const Row kept = load_row(spans, row / rows_per_sequence, slots, sink, window, tokens, fraction);
    const Span span = kept.span;
    const float* own = scores + (i64)row * slots;
    u32* counts = histogram + (i64)row * NUM_BINS;
    const int base = bin_base[row];
    const int share = max(32, ((span.end - span.start + CLUSTER - 1) / CLUSTER + 31) / 32 * 32);
    const int begin = min(span.end, span.start + rank * share), stop = min(span.end, begin + share);

    if (thread == 0) num_candidates = 0, certain = 0;
    int bin = NUM_BINS, above = 0, inside;
    if (kept.wanted > 0) find_suffix(counts[SELECT_THREADS - 1 - thread], kept.wanted, bin, above, inside);
    meet();
    u64* list = remote(candidates, 0);
    u32* length = remote(&num_candidates, 0);
    u32 definite = 0;
    for (int tile = begin; tile < stop; tile += 8 * SELECT_THREADS) {
        float score[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int slot = tile + thread + i * SELECT_THREADS;
            score[i] = slot < stop ? own[slot] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int slot = tile + thread + i * SELECT_THREADS;
            if (slot >= stop) continue;
            const int at = find_bin(score[i], base);
            const bool forced = span.forced(slot);
            definite += forced || at > bin;
            if (!forced && at == bin) {
                const u32 place = atomicAdd(length, 1u);
                if (place < CAPACITY) list[place] = order_token(score[i], slot);
            }
        }
    }
    definite = __reduce_add_sync(~0u, definite);
    if (lane == 0 && definite) atomicAdd(&certain, definite);
    __syncthreads();
    if (thread == 0) remote(starts, 0)[rank] = certain;
    meet();
    if (rank == 0) {
        // Too many tokens share the bin: the scores are read again instead.
        const bool gathered = num_candidates <= CAPACITY;
        const int wanted = kept.wanted - above;
        auto from_list = [&](auto use) {
            for (u32 i = thread; i < num_candidates; i += SELECT_THREADS) use(candidates[i]);
        };
        auto from_scores = [&](auto use) {
            for (int slot = span.sink_end + thread; slot < span.window_start; slot += SELECT_THREADS)
                if (find_bin(own[slot], base) == bin) use(order_token(own[slot], slot));
        };
        if (thread == 0) shared_threshold = ~0ull;
        __syncthreads();
        if (kept.wanted > 0 && num_candidates <= SELECT_THREADS) {
            // The key with wanted - 1 larger ones. A bin that is kept whole has it as its smallest.
            if (thread < num_candidates) {
                int larger = 0;
                for (u32 i = 0; i < num_candidates; ++i) larger += candidates[i] > candidates[thread];
                if (larger == wanted - 1) shared_threshold = candidates[thread];
            }
        } else if (kept.wanted > 0) {
            const bool clamped = bin == 0 || bin == NUM_BINS - 1;
            const int shift = clamped ? 64 : 32 + BIN_SHIFT;
            const u64 prefix = clamped ? 0 : (u64)(bin + base);
            const u64 key = gathered ? find_key(from_list, wanted, shift, prefix) : find_key(from_scores, wanted, shift, prefix);
            if (thread == 0) shared_threshold = key;
        }
        __syncthreads();
        const u64 threshold = shared_threshold;
        auto count_kept = [&](u64 key) {
            if (key >= threshold) atomicAdd(starts + ((u32)key - span.start) / share, 1u);
        };
        if (kept.wanted > 0) gathered ? from_list(count_kept) : from_scores(count_kept);
        __syncthreads();
        if (thread == 0) {
            u32 before = 0;
            for (int of = 0; of < CLUSTER; ++of) {
                const u32 count = starts[of];
                starts[of] = before, before += count;
            }
            // The next step's threshold is expected near this one: a quarter of the bins below it, the rest above.
            if (kept.wanted > 0) bin_base[row] = max(0, (int)(threshold >> (32 + BIN_SHIFT)) - NUM_BINS / 4);
        }
        counts[thread] = 0;
    }
    meet();
    const u64 threshold = *remote(&shared_threshold, 0);
    u32 at = remote(starts, 0)[rank];

    // A warp writes 1024 slots in a row: 32 a lane, kept ones marked in a word.
    int* out = indices + (i64)row * max_kept;
    for (int tile = begin; tile < stop; tile += 32 * SELECT_THREADS) {
        const int each = min(32, (stop - tile + SELECT_THREADS - 1) / SELECT_THREADS);
        const int first = tile + warp * each * 32 + lane;
        u32 marks = 0, count = 0, total;
#pragma unroll 8
        for (int i = 0; i < each; ++i) {
            const int slot = first + 32 * i;
            const bool keep = slot < stop && (order_token(own[slot], slot) >= threshold || span.forced(slot));
            marks |= (u32)keep << i;
            count += keep;
        }
        const u32 warp_total = __reduce_add_sync(~0u, count);
        u32 place = at + exclusive_sum(lane == 0 ? warp_total : 0, total);
        place = __shfl_sync(~0u, place, 0);
        for (int i = 0; i < each; ++i) {
            const u32 keepers = __ballot_sync(~0u, marks >> i & 1);
            const u32 index = place + __popc(keepers & ((1u << lane) - 1));
            if ((marks >> i & 1) && index < (u32)max_kept) out[index] = first + 32 * i;
            place += __popc(keepers);
        }
        at += total;
    }
    if (rank == 0) {
        if (thread == 0) lengths[row] = min(kept.kept, max_kept);
        for (int i = kept.kept + thread; i < max_kept; i += SELECT_THREADS) out[i] = -1;
    }
    meet();
}

// group="shared": the scores of a KV head's query heads, added in head order.
extern "C" __global__ void sum_group(const float* __restrict__ scores, float* __restrict__ total, i64 slots, int group) {
    const i64 slot = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (slot >= slots) return;
    float sum = scores[row * group * slots + slot];
    for (int g = 1; g < group; ++g) sum += scores[(row * group + g) * slots + slot];
    total[row * slots + slot] = sum;
}
