// Exact top-M of every row under the selection order, forced tokens included, as ascending lists. Nothing is sorted.
//
// score.cu passes on the tokens whose score reaches a floor just below the last step's threshold, half as many again as
// are wanted. The wanted-th largest of their keys (score, slot) is found by histograms, kept tokens are marked in a
// bitmap in shared memory, and the bitmap is written out in order. If the survivors are too few, too many for their
// list, or were never made (scores from elsewhere), the same search runs over all scores instead: the floor decides
// the time, never the result, and order of arrival cannot change either.
//
// Rows: query heads, or KV heads for group="shared"; `rows_per_sequence` of them share a span. PARTS blocks a row: each
// finds the threshold and writes its part of the slots, so that few rows keep more of the chip busy.
// Status bit 2, if asked for: no score of a row is a normal float.
// survivors [rows, capacity] of keys, the first PER_THREAD a thread in its registers and the rest read again by every
// pass; counts [3, rows] of survivors and of blocks that have read them, zero on exit, and of searches over all scores.
// floors [rows, 2]: the next floor and its distance from the threshold, in units of the order of scores.
//
// 32 rows of 131072 on an H100: v1, histogram and two launches over all scores, 29 us; v2, clusters that read each
// other's lists, 46 us; v3, clusters that push, 45 us (two waves of clusters); v4, survivors, 24 us with a warp a word
// written out, 17-19 us with a thread a word; v5, survivors in registers and four blocks a row, 17 us; v6, histograms over the range that scores have in place of radix digits, 13-14 us; v7, a quarter fewer
// survivors, the list read again where registers end, 12-13 us. Code that is not taken costs too: it is fetched anew in
// every step, and loops unrolled twice as far made all steps 1-2 us slower. One row's search over all scores takes 52 us
// longer, that of all 32 rows 90.
#include "common.cuh"

#define SELECT_THREADS 1024
#define WINDOW_WORDS 4096  // slots marked at a time, over 32
#define FEW 64
#define FIRST_MARGIN (1u << 20)  // an eighth of an octave
#define AT_ONCE (BLOCKS_A_SM > 1 ? 1 : 2)  // reads of a thread before it uses the first: none moves past an atomic
#define GOAL (1.25f * wanted + FEW)        // survivors: floors settle a little lower

// WIDTH scores of neighbouring slots: 4 where rows begin at multiples of 16 bytes, else 1.
struct __align__(4 * WIDTH) Neighbours {
    float at[WIDTH];
};

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

// The wanted-th largest of the values that `visit` passes to a function; how many of the equal ones are `wanted`, and
// whether that is all of them. A histogram of 1024 bins narrows the range, again while a bin holds more than FEW values;
// the last ones are ranked against each other.
struct Search {
    u32 bins[SELECT_THREADS], bounds[2][32], found[3], gathered, few[FEW], answer[3], most, prior;
};
template <typename Visit> __device__ u32 find_largest(Search& shared, Visit visit, u32& wanted, bool& all) {
    u32 *bins = shared.bins, *found = shared.found, *few = shared.few, *answer = shared.answer, &gathered = shared.gathered;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 low = ~0u, high = 0;
    visit([&](u32 value) { low = min(low, value), high = max(high, value); });
    low = __reduce_min_sync(~0u, low), high = __reduce_max_sync(~0u, high);
    __syncthreads();
    if (lane == 0) shared.bounds[0][warp] = low, shared.bounds[1][warp] = high;
    bins[threadIdx.x] = 0;
    __syncthreads();
    low = __reduce_min_sync(~0u, shared.bounds[0][lane]), high = __reduce_max_sync(~0u, shared.bounds[1][lane]);
    shared.most = high;
    while (true) {
        const int shift = max(0, 22 - __clz(high - low));
        visit([&](u32 value) {
            if (value >= low && value <= high) atomicAdd(bins + ((value - low) >> shift), 1u);
        });
        __syncthreads();
        // Thread t holds bin 1023 - t, so sums before a thread count the larger ones.
        const u32 bin = SELECT_THREADS - 1 - threadIdx.x, count = bins[bin];
        u32 total;
        const u32 larger = exclusive_sum(count, total);
        if (larger < wanted && larger + count >= wanted) found[0] = bin, found[1] = larger, found[2] = count, gathered = 0;
        bins[bin] = 0;
        __syncthreads();
        wanted -= found[1];
        const u32 left = found[2];
        low += found[0] << shift, high = low + min(high - low, (1u << shift) - 1);
        all = left == wanted;
        if (all || low == high) return low;
        if (left <= FEW) break;
    }
    visit([&](u32 value) {
        if (value >= low && value <= high) few[atomicAdd(&gathered, 1u)] = value;
    });
    __syncthreads();
    if (threadIdx.x < gathered) {
        u32 larger = 0, equal = 0;
#pragma unroll 8
        for (u32 i = 0; i < gathered; ++i) larger += few[i] > few[threadIdx.x], equal += few[i] == few[threadIdx.x];
        if (larger < wanted && larger + equal >= wanted)
            answer[0] = few[threadIdx.x], answer[1] = wanted - larger, answer[2] = larger + equal == wanted;
    }
    __syncthreads();
    wanted = answer[1], all = answer[2];
    return answer[0];
}

// The bits of a word from `low` up to `high`.
__device__ __forceinline__ u32 range_bits(int low, int high) {
    low = max(low, 0), high = min(high, 32);
    return low < high ? (~0u >> (32 - (high - low))) << low : 0;
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS, BLOCKS_A_SM)
    select_tokens(const float* __restrict__ scores, const i64* __restrict__ spans, const u64* __restrict__ survivors,
                  u32* __restrict__ counts, u32* __restrict__ floors, u32* __restrict__ status,
                  int* __restrict__ indices, int* __restrict__ lengths, int slots, int rows_per_sequence, int capacity, int max_kept, int sink,
                  int window, i64 tokens, double fraction) {
    __shared__ u32 marks[WINDOW_WORDS], places[WINDOW_WORDS];
    __shared__ Search search;
    const int row = blockIdx.y, part = blockIdx.x, parts = gridDim.x, thread = threadIdx.x;
    const u64* list = survivors + (i64)row * capacity;
    const float* own = scores + (i64)row * slots;
    int* out = indices + (i64)row * max_kept;
    // The first half is read before the count is known: it is nearly always full.
    u64 keys[PER_THREAD];
#pragma unroll
    for (int i = 0; i < PER_THREAD / 2; ++i) keys[i] = floors ? __ldcs(list + i * SELECT_THREADS + thread) : 0;
    const u32 found = floors ? counts[row] : 0;
    const Span span = load_span(spans, row / rows_per_sequence, slots, sink, window);
#pragma unroll
    for (int i = PER_THREAD / 2; i < PER_THREAD; ++i)
        keys[i] = i * SELECT_THREADS + thread < min(found, (u32)capacity) ? __ldcs(list + i * SELECT_THREADS + thread) : 0;
    const int length = span.end - span.start, num_forced = span.num_forced();
    int kept = (int)min((i64)length, tokens);
    if (tokens < 0) kept = max(min(length, max(1, (int)floor(__dadd_rn(__dmul_rn(fraction, length), 0.5)))), num_forced);
    const u32 wanted = (u32)(kept - num_forced);
    const bool few = found >= wanted && found <= (u32)capacity;

    // Both pass on the unforced tokens with slots from `from` up to `to`, and perhaps others.
    auto each_survivor = [&](int, int, auto use) {
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            if ((u32)(i * SELECT_THREADS) >= found) break;
            if (i * SELECT_THREADS + thread < found) use((u32)(keys[i] >> 32), (u32)keys[i]);
        }
#pragma unroll 2
        for (u32 i = PER_THREAD * SELECT_THREADS + thread; i < found; i += SELECT_THREADS) use((u32)(list[i] >> 32), (u32)list[i]);
    };
    auto each_score = [&](int from, int to, auto use) {
        const int start = max(from, span.sink_end), stop = min(to, span.window_start);
        for (int first = start / WIDTH + thread; first * WIDTH < stop; first += AT_ONCE * SELECT_THREADS) {
            Neighbours read[AT_ONCE] = {};
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i)
                if ((first + i * SELECT_THREADS) * WIDTH < stop) read[i] = reinterpret_cast<const Neighbours*>(own)[first + i * SELECT_THREADS];
#pragma unroll
            for (int i = 0; i < AT_ONCE * WIDTH; ++i) {
                const int slot = (first + i / WIDTH * SELECT_THREADS) * WIDTH + i % WIDTH;
                if (slot >= start && slot < stop) use(order_score(read[i / WIDTH].at[i % WIDTH]), (u32)slot);
            }
        }
    };
    const int share = (span.end / 32 + 1 - span.start / 32 + parts - 1) / parts * 32;
    const int part_start = span.start / 32 * 32 + part * share, part_stop = min(span.end, part_start + share);
    auto mark_forced = [&](int first) {
        for (int word = thread; word < WINDOW_WORDS && first + 32 * word < part_stop; word += SELECT_THREADS) {
            const int low = first + 32 * word;
            marks[word] = range_bits(span.start - low, span.sink_end - low) | range_bits(span.window_start - low, span.end - low);
        }
    };
    mark_forced(part_start);
    if (thread == 0) search.prior = 0;
    // The last score that is kept, and the first slot that is kept with it.
    u32 last_order = ~0u;
    auto select = [&](auto each) {
        u32 first_slot = ~0u;
        if (wanted > 0) {
            u32 left = wanted;
            bool all;
            last_order = find_largest(search, [&](auto use) { each(0, slots, [&](u32 order, u32) { use(order); }); }, left, all);
            first_slot = 0;
            if (status && thread == 0 && search.most < order_score(1.17549435e-38f)) atomicOr(status, 4u);
            if (!all) first_slot = find_largest(search, [&](auto use) { each(0, slots, [&](u32 order, u32 slot) { if (order == last_order) use(slot); }); }, left, all);
        }
        __syncthreads();
        u32 at = 0, before = 0;
        for (int first = part_start; first < part_stop; first += 32 * WINDOW_WORDS) {
            const int stop = min(part_stop, first + 32 * WINDOW_WORDS), words = (stop - first + 31) / 32;
            auto mark_kept = [&](u32 order, u32 slot) {
                if (order < last_order || (order == last_order && slot < first_slot) || (int)slot >= stop) return;
                if ((int)slot >= first) atomicOr(marks + (slot - first) / 32, 1u << (slot % 32));
                before += (int)slot < part_start;
            };
            if (wanted > 0) each(first == part_start ? 0 : first, stop, mark_kept);
            if (first == part_start) {
                before = __reduce_add_sync(~0u, before);
                if (thread % 32 == 0 && before) atomicAdd(&search.prior, before);
            }
            __syncthreads();
            if (first == part_start) at = search.prior + span.num_forced_before(first);
            // Where each word's tokens go; then neighbouring threads write neighbouring words, so that dense runs spread.
            const int run = (words + SELECT_THREADS - 1) / SELECT_THREADS;
            u32 count = 0, total;
            for (int word = thread * run; word < min(words, (thread + 1) * run); ++word) count += __popc(marks[word]);
            u32 place = at + exclusive_sum(count, total);
            for (int word = thread * run; word < min(words, (thread + 1) * run); ++word) {
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
            if (stop == part_stop) break;
            mark_forced(stop);
            __syncthreads();
        }
    };
    if (few)
        select(each_survivor);
    else
        select(each_score);
    if (thread == 0 && floors && atomicAdd(counts + gridDim.y + row, 1u) == (u32)parts - 1)
        counts[row] = 0, counts[gridDim.y + row] = 0;
    if (part > 0) return;
    if (thread == 0 && floors && !few) atomicAdd(counts + 2 * gridDim.y + row, 1u);
    if (thread == 0 && floors) {
        // Survivors grow about exponentially with the floor's distance. A miss costs most, so the floor goes down at once
        // and comes up by 1% a step, except after the first one and when the list was too short.
        const float margin = (float)max(1u, floors[2 * row + 1]), least = margin == FIRST_MARGIN ? 0.05f : found > (u32)capacity ? 0.5f : 0.99f;
        float next = margin * fminf(fmaxf(logf(GOAL / wanted) / logf((float)max(found, wanted + 1) / wanted), least), 1.5f);
        if (found < wanted) next = fmaxf(2 * margin, found ? 0 : (float)FIRST_MARGIN);
        next = fminf(next, (float)(1u << 28));
        if (wanted > 0) {
            floors[2 * row + 1] = (u32)next;
            floors[2 * row] = last_order > (u32)next ? last_order - (u32)next : 0;
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
    for (int g = 1; g < group; ++g)  // not by +, which flushes subnormals
        asm("add.rn.f32 %0, %0, %1;" : "+f"(sum) : "f"(scores[(row * group + g) * slots + slot]));
    total[row * slots + slot] = sum;
}
