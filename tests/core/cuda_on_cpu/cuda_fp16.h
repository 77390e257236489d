// float16 for cuda.h: the compiler's own.
#pragma once
struct __half { unsigned short bits; };
static float __half2float(__half x) { _Float16 made; memcpy(&made, &x, 2); return (float)made; }
static __half __float2half_rn(float x) { const _Float16 made = (_Float16)x; __half stored; memcpy(&stored, &made, 2); return stored; }
