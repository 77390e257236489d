// Named by common.cuh; no kernel that runs on the CPU takes float16.
#pragma once
struct __half { unsigned short bits; };
static float __half2float(__half) { abort(); }
static __half __float2half_rn(float) { abort(); }
