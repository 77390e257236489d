// bfloat16 for cuda.h: the upper half of a float.
#pragma once
struct __nv_bfloat16 { unsigned short bits; };
static float __bfloat162float(__nv_bfloat16 x) { return __int_as_float((int)x.bits << 16); }
static __nv_bfloat16 __float2bfloat16_rn(float x) {
    const unsigned bits = __float_as_uint(x);
    if (x != x) return {0x7fff};
    return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
// One rounding: a float that is odd in its last bit stands for what is cut off.
static __nv_bfloat16 __double2bfloat16(double x) {
    float cut = (float)x;
    if (cut != x && fabs((double)cut) > fabs(x)) cut = nextafterf(cut, 0.0f);
    return __float2bfloat16_rn(__int_as_float((int)(__float_as_uint(cut) | (cut != x))));
}
