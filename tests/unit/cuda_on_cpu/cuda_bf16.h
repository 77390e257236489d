// bfloat16 for cuda.h: the upper half of a float.
#pragma once
struct __nv_bfloat16 { unsigned short bits; };
static float __bfloat162float(__nv_bfloat16 x) { return __int_as_float((int)x.bits << 16); }
static __nv_bfloat16 __float2bfloat16_rn(float x) {
    const unsigned bits = __float_as_uint(x);
    return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
