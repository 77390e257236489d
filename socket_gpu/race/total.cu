// The sum of two rows of numbers in double, as one block adds them up in an order of its own: beta's gradient (R8).
//
// Reference: socket_theory/race/feature_gradient.py
// Launcher: socket_gpu/race/sequences.py
// Tests: tests/race/test_gpu_sequences.py
#include "common.cuh"

struct TotalParams {
    const float *first, *second;
    float* total;
    int first_count, second_count;
};

__global__ void total(const __grid_constant__ TotalParams p) {
    __shared__ double sums[32];
    double sum = 0;
    for (int i = threadIdx.x; i < p.first_count; i += blockDim.x) sum += p.first[i];
    for (int i = threadIdx.x; i < p.second_count; i += blockDim.x) sum += p.second[i];
#pragma unroll
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (int warp = 1; warp < (int)blockDim.x / 32; ++warp) sum += sums[warp];
    *p.total = (float)sum;
}
