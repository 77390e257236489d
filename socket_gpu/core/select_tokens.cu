// Exact top-M of every row under the selection order, forced tokens included, as ascending lists. Nothing is sorted.
//
// score.cu passes on the tokens whose score reaches a floor just below the last step's threshold, 1.5 to 2 a wanted one.
// The wanted-th largest of their keys (score, slot) is found by histograms, mostly one, kept tokens are marked in a
// bitmap in shared memory, and the bitmap is written out in order. If the survivors are too few, too many for their
// list, or were never made (scores from elsewhere), the same search runs over all scores instead: the floor decides
// the time, never the result, and order of arrival cannot change either.
//
// Rows: query heads, or KV heads for per="kv_head"; `rows_per_sequence` of them share a span. gridDim.x blocks a row: each
// finds the threshold and writes its part of the slots, so that few rows keep more of the chip busy.
// Status bit 2, if asked for: no score of a row is a normal float.
// survivors [rows, capacity] of keys, the first per_thread a thread in its registers and the rest read again by every
// pass; counts [3, rows] of survivors and of blocks that have read them, zero on exit, and of searches over all scores.
// floors [rows, 2]: the next floor and its distance from the threshold, in units of the order of scores.
//
// 32 rows of 131072 on an H100: v1, histogram and two launches over all scores, 29 us; v2, clusters that read each
// other's lists, 46 us; v3, clusters that push, 45 us (two waves of clusters); v4, survivors, 24 us with a warp a word
// written out, 17-19 us with a thread a word; v5, survivors in registers and four blocks a row, 17 us; v6, histograms
// over the range that scores have in place of radix digits, 13-14 us; v7, fewer survivors, the list read again where
// registers end, 13 us and 85 more where all rows search all scores; v8, histograms that begin where the last step's
// threshold lay, ties and marks in one pass, the search over all scores a function of its own: 11-12 us, and 56 more.
// Instructions are fetched anew in every step: what is not taken must lie apart, and loops are unrolled little.
//
// Reference: socket_theory/core/selection.py
// Launcher: socket_gpu/core/select_tokens.py
// Tests: tests/core/test_select_tokens_on_cpu.py, tests/gpu/test_selection.py
#include "common.cuh"

#define SELECT_THREADS 1024
#define WINDOW_WORDS 4096  // slots marked at a time, over 32
#define FEW 64
#define FIRST_MARGIN (1u << 20)  // an eighth of an octave
#define GOAL (1.5f * wanted + FEW)         // survivors: floors settle a little lower

struct SelectTokensConfig {
    int per_thread;   // survivors of a thread in its registers
    int blocks_a_sm;
    int width;        // scores of neighbouring slots in a read: 4 where rows begin at multiples of 16 bytes, else 1
};

struct SelectTokensParams {
    const float* scores;  // [rows, slots]
    const i64* spans;
    const u64* survivors;
    u32 *counts, *floors, *status;
    int *indices, *lengths;  // [rows, max_kept], [rows]
    int slots, rows_per_sequence, capacity, max_kept, sink, window;
    i64 tokens;
    double fraction;
};

template <int WIDTH> struct __align__(4 * WIDTH) Neighbours {
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

// The bits of a word from `low` up to `high`.
__device__ __forceinline__ u32 range_bits(int low, int high) {
    low = max(low, 0), high = min(high, 32);
    return low < high ? (~0u >> (32 - (high - low))) << low : 0;
}

// A row, and the slots of it that a block writes.
struct Part {
    Span span;
    int start, stop;
    u32 wanted;
    int *out, max_kept;
    u32* status;
};

struct Search {
    u32 bins[SELECT_THREADS], found[3], gathered, prior;
    u64 few[FEW], cut;
};
__shared__ Search search;
__shared__ u32 marks[WINDOW_WORDS], places[WINDOW_WORDS];

__device__ __forceinline__ void mark_forced(const Part& part, int first) {
    for (int word = threadIdx.x; word < WINDOW_WORDS && first + 32 * word < part.stop; word += SELECT_THREADS) {
        const int low = first + 32 * word;
        marks[word] = range_bits(part.span.start - low, part.span.sink_end - low) | range_bits(part.span.window_start - low, part.span.end - low);
    }
}

// Keys, (order, slot), in which the wanted-th largest lies: of them `left` are kept, and all that are larger.
struct Range {
    u64 first, last;
    u32 left;
    bool all;  // of the range are kept
};

// A histogram of 1024 bins from order `low` on, `1 << shift` wide, then one over the bin that holds the wanted-th, until
// that holds FEW or is wanted whole; equal orders are told apart by slots. The last bin of a guess is open.
template <typename Each> __device__ __forceinline__ Range narrow(const Each& each, const Part& part, u32 low, int shift) {
    const u32 bin = SELECT_THREADS - 1 - threadIdx.x;  // so that sums over the threads before count the larger ones
    u32 left = part.wanted, tie = 0, last = ~0u;
    bool open = true, by_slot = false;
    search.bins[threadIdx.x] = 0;
    while (true) {
        if (threadIdx.x == 0) search.found[2] = 0, search.gathered = 0;
        __syncthreads();
        each(0, part.span.end, [&](u32 order, u32 slot) {
            const u32 value = by_slot ? slot : order;
            if (value >= low && value <= last && (!by_slot || order == tie)) atomicAdd(search.bins + min((value - low) >> shift, SELECT_THREADS - 1), 1u);
        });
        __syncthreads();
        const u32 count = search.bins[bin];
        u32 total;
        const u32 larger = exclusive_sum(count, total);
        if (larger < left && larger + count >= left) search.found[0] = bin, search.found[1] = larger, search.found[2] = count;
        search.bins[bin] = 0;
        __syncthreads();
        const u32 found = search.found[0], held = search.found[2];
        if (held == 0 || (open && found == SELECT_THREADS - 1)) {  // beyond the guess
            if (held) low += found << shift;
            else low = 0;
            last = ~0u, shift = max(0, 22 - __clz(~0u - low)), open = false;
            __syncthreads();
            continue;
        }
        low += found << shift, left -= search.found[1], open = false;
        last = low + min(~0u - low, (1u << shift) - 1);
        const bool repeated = by_slot && shift == 0;  // one slot, listed by a graph that only scores
        if (held == left || held <= FEW || repeated) {
            if (by_slot) return {(u64)tie << 32 | low, (u64)tie << 32 | last, left, held == left || repeated};
            return {(u64)low << 32, (u64)last << 32 | ~0u, left, held == left};
        }
        if (shift == 0) by_slot = true, tie = low, low = 0, last = ~0u, shift = max(0, 22 - __clz(part.span.end));
        else shift = max(0, shift - 10);
        __syncthreads();
    }
}

// Write a part's kept slots; about the order of the last score that is kept. `each(from, to, use)` passes on (order,
// slot) of the unforced tokens with slots from `from` up to `to`, and perhaps of others.
template <typename Each> __device__ __forceinline__ u32 select_from(const Each& each, const Part& part, u32 low, int shift) {
    const int thread = threadIdx.x;
    mark_forced(part, part.start);
    if (thread == 0) search.prior = 0, search.cut = ~0ull;
    Range range = {};
    if (part.wanted > 0) range = narrow(each, part, low, shift);
    __syncthreads();
    u32 at = 0, before = 0;
    for (int first = part.start; first < part.stop; first += 32 * WINDOW_WORDS) {
        const int stop = min(part.stop, first + 32 * WINDOW_WORDS), words = (stop - first + 31) / 32;
        auto keep = [&](u32 slot) {
            if ((int)slot >= first && (int)slot < stop) atomicOr(marks + (slot - first) / 32, 1u << (slot % 32));
            before += (int)slot < part.start;
        };
        if (first == part.start) {
            if (part.wanted > 0) {
                each(0, part.span.end, [&](u32 order, u32 slot) {
                    const u64 key = (u64)order << 32 | slot;
                    if (key > range.last || (range.all && key >= range.first)) keep(slot);
                    else if (key >= range.first) search.few[atomicAdd(&search.gathered, 1u)] = key;
                });
                if (range.all && thread == 0) search.cut = range.first;
                __syncthreads();
                if (!range.all && thread < search.gathered) {
                    const u64 own = search.few[thread];
                    u32 larger = 0;
#pragma unroll 8
                    for (u32 i = 0; i < search.gathered; ++i) larger += search.few[i] > own;
                    if (larger < range.left) keep((u32)own);
                    if (larger == range.left - 1) search.cut = own;
                }
            }
            before = __reduce_add_sync(~0u, before);
            if (thread % 32 == 0 && before) atomicAdd(&search.prior, before);
        } else if (part.wanted > 0) {
            each(first, stop, [&](u32 order, u32 slot) { if (((u64)order << 32 | slot) >= search.cut) keep(slot); });
        }
        __syncthreads();
        if (first == part.start) at = search.prior + part.span.num_forced_before(first);
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
                if (index < (u32)part.max_kept) part.out[index] = first + 32 * word + __ffs(rest) - 1;
        }
        at += total;
        __syncthreads();
        if (stop == part.stop) break;
        mark_forced(part, stop);
        __syncthreads();
    }
    const u32 last_order = (u32)(search.cut >> 32), normal = order_score(1.17549435e-38f);
    if (part.status && part.wanted > 0 && last_order < normal) {
        bool any = false;
        each(0, part.span.end, [&](u32 order, u32) { any |= order >= normal; });
        if (!__syncthreads_or(any) && thread == 0) atomicOr(part.status, 4u);
    }
    return last_order;
}

template <int PER_THREAD> struct EachSurvivor {
    u64 keys[PER_THREAD];
    const u64* list;
    u32 found;
    template <typename Use> __device__ __forceinline__ void operator()(int, int, Use use) const {
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            if ((u32)(i * SELECT_THREADS) >= found) break;
            if (i * SELECT_THREADS + threadIdx.x < found) use((u32)(keys[i] >> 32), (u32)keys[i]);
        }
#pragma unroll 2
        for (u32 i = PER_THREAD * SELECT_THREADS + threadIdx.x; i < found; i += SELECT_THREADS) use((u32)(list[i] >> 32), (u32)list[i]);
    }
};

// AT_ONCE reads of a thread before it uses the first: none moves past an atomic.
template <int WIDTH, int AT_ONCE> struct EachScore {
    const float* scores;
    Span span;
    template <typename Use> __device__ __forceinline__ void operator()(int from, int to, Use use) const {
        const int start = max(from, span.sink_end), stop = min(to, span.window_start);
        for (int first = start / WIDTH + threadIdx.x; first * WIDTH < stop; first += AT_ONCE * SELECT_THREADS) {
            Neighbours<WIDTH> read[AT_ONCE] = {};
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i)
                if ((first + i * SELECT_THREADS) * WIDTH < stop) read[i] = reinterpret_cast<const Neighbours<WIDTH>*>(scores)[first + i * SELECT_THREADS];
#pragma unroll
            for (int i = 0; i < AT_ONCE * WIDTH; ++i) {
                const int slot = (first + i / WIDTH * SELECT_THREADS) * WIDTH + i % WIDTH;
                if (slot >= start && slot < stop) use(order_score(read[i / WIDTH].at[i % WIDTH]), (u32)slot);
            }
        }
    }
};

// Apart, so that a step that does not need it does not fetch its instructions.
template <typename Each> __device__ __noinline__ u32 select_from_scores(Each each, Part part, u32 low, int shift) {
    return select_from(each, part, low, shift);
}

template <SelectTokensConfig C>
__global__ void __launch_bounds__(SELECT_THREADS, C.blocks_a_sm) select_tokens(const __grid_constant__ SelectTokensParams p) {
    const int row = blockIdx.y, part = blockIdx.x, parts = gridDim.x, thread = threadIdx.x;
    constexpr int PER_THREAD = C.per_thread;
    EachSurvivor<PER_THREAD> listed;
    listed.list = p.survivors + (i64)row * p.capacity;
    // The first half is read before the count is known: it is nearly always full.
#pragma unroll
    for (int i = 0; i < PER_THREAD / 2; ++i) listed.keys[i] = p.floors ? __ldcs(listed.list + i * SELECT_THREADS + thread) : 0;
    const u32 found = p.floors ? p.counts[row] : 0;
    listed.found = found;
    const Span span = load_span(p.spans, row / p.rows_per_sequence, p.slots, p.sink, p.window);
#pragma unroll
    for (int i = PER_THREAD / 2; i < PER_THREAD; ++i)
        listed.keys[i] = i * SELECT_THREADS + thread < min(found, (u32)p.capacity) ? __ldcs(listed.list + i * SELECT_THREADS + thread) : 0;
    const int length = span.end - span.start, num_forced = span.num_forced();
    int kept = (int)min((i64)length, p.tokens);
    if (p.tokens < 0) kept = max(min(length, max(1, (int)floor(__dadd_rn(__dmul_rn(p.fraction, length), 0.5)))), num_forced);
    const u32 wanted = (u32)(kept - num_forced);
    const bool few = found >= wanted && found <= (u32)p.capacity;

    const int share = (span.end / 32 + 1 - span.start / 32 + parts - 1) / parts * 32, start = span.start / 32 * 32 + part * share;
    int* out = p.indices + (i64)row * p.max_kept;
    const Part own = {span, start, min(span.end, start + share), wanted, out, p.max_kept, p.status};
    // Survivors begin at the floor, and the threshold lay `margin` above it; without them, look two octaves around it. A
    // guess: another part may have written the next one already.
    const u32 floor = p.floors ? p.floors[2 * row] : 0, margin = p.floors ? max(1u, p.floors[2 * row + 1]) : 1;
    u32 last_order;
    if (few)
        last_order = select_from(listed, own, floor, max(0, 25 - __clz(margin)));
    else
        last_order = select_from_scores(EachScore<C.width, (C.blocks_a_sm > 1 ? 1 : 4)>{p.scores + (i64)row * p.slots, span}, own, margin > 1 ? floor + margin - (1u << 24) : 0, margin > 1 ? 15 : 22);
    __syncthreads();
    if (thread == 0 && p.floors && atomicAdd(p.counts + gridDim.y + row, 1u) == (u32)parts - 1)
        p.counts[row] = 0, p.counts[gridDim.y + row] = 0;
    if (part > 0) return;
    if (thread == 0 && p.floors && !few) atomicAdd(p.counts + 2 * gridDim.y + row, 1u);
    if (thread == 0 && p.floors) {
        // Survivors grow about exponentially with the floor's distance. A miss costs most, so the floor goes down at once
        // and comes up by 1% a step, except after the first one and when the list was too short.
        const float least = margin == FIRST_MARGIN ? 0.05f : found > (u32)p.capacity ? 0.5f : 0.99f;
        float next = margin * fminf(fmaxf(logf(GOAL / wanted) / logf((float)max(found, wanted + 1) / wanted), least), 1.5f);
        if (found < wanted) next = fmaxf(2 * margin, found ? 0 : (float)FIRST_MARGIN);
        next = fminf(next, (float)(1u << 28));
        if (wanted > 0) {
            p.floors[2 * row + 1] = (u32)next;
            p.floors[2 * row] = last_order > (u32)next ? last_order - (u32)next : 0;
        }
    }
    if (thread == 0) p.lengths[row] = min(kept, p.max_kept);
    for (int i = kept + thread; i < p.max_kept; i += SELECT_THREADS) out[i] = -1;
}

// per="kv_head": the scores of a KV head's query heads, added in head order.
struct SumGroupParams {
    const float* scores;  // [B, Hq, slots]
    float* total;         // [B, Hkv, slots]
    i64 slots;
    int group;
};

__global__ void sum_group(const SumGroupParams p) {
    const i64 slot = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (slot >= p.slots) return;
    float sum = p.scores[row * p.group * p.slots + slot];
    for (int g = 1; g < p.group; ++g)  // not by +, which flushes subnormals
        asm("add.rn.f32 %0, %0, %1;" : "+f"(sum) : "f"(p.scores[(row * p.group + g) * p.slots + slot]));
    p.total[row * p.slots + slot] = sum;
}
