/* exp, log, sine and cosine in f64, each within two units in the last place on the ranges used. The polynomials are Taylor's:
 * long enough that what is left out lies below half a unit. */
#include "maths.h"

static const f64 LN2_HIGH = 0x1.62e42fee00000p-1, LN2_LOW = 0x1.a39ef35793c76p-33;

static f64 power_of_two(i32 n) {
    const u64 bits = (u64)(n + 1023) << 52;
    f64 x;
    __builtin_memcpy(&x, &bits, 8);
    return x;
}

/* e^r for |r| <= ln 2 / 2: terms to r^13 / 13!, what follows is below 2^-57. */
#define EXP_SERIES(r, p)                                                                                             \
    ((((((((((((p * r + 1 / 479001600.0) * r + 1 / 39916800.0) * r + 1 / 3628800.0) * r + 1 / 362880.0) * r +       \
            1 / 40320.0) * r + 1 / 5040.0) * r + 1 / 720.0) * r + 1 / 120.0) * r + 1 / 24.0) * r + 1 / 6.0) * r +  \
      0.5) * (r * r) + r + 1)
#define EXP_LAST (1 / 6227020800.0)

/* x = n ln 2 + r */
f64 exp64(f64 x) {
    if (x != x) return x;
    if (x > 709.782712893384) return __builtin_inf();
    if (x < -745.1332191019412) return 0;
    const f64 n = __builtin_roundeven(x * 1.4426950408889634);
    const f64 r = (x - n * LN2_HIGH) - n * LN2_LOW;
    const i32 whole = (i32)n, half = whole / 2;
    return EXP_SERIES(r, EXP_LAST) * power_of_two(half) * power_of_two(whole - half);
}

v2 exp_negative(v2 x) {
    const v2 n = __builtin_elementwise_roundeven(x * 1.4426950408889634);
    const v2 r = (x - n * LN2_HIGH) - n * LN2_LOW;
    /* 2^52 + 2^51 puts the whole number into the lowest bits. */
    const v2i scale = ((v2i)(n + 0x1.8p52) + 1023) << 52;
    return (v2)((v2i)(EXP_SERIES(r, EXP_LAST) * (v2)scale) & (x >= -708.0));
}

/* x = m 2^e with m in [sqrt(1/2), sqrt 2); log m = 2 atanh(s), s = (m - 1) / (m + 1); terms to s^23 / 23. */
f64 log64(f64 x) {
    u64 bits;
    __builtin_memcpy(&bits, &x, 8);
    if (x != x || x < 0) return __builtin_nan("");
    if (x == 0) return -__builtin_inf();
    if (bits == 0x7FF0000000000000ull) return x;
    i32 e = 0;
    if (x < 0x1p-1022) x *= 0x1p54, e = -54, __builtin_memcpy(&bits, &x, 8);
    e += (i32)(bits >> 52) - 1022;
    bits = (bits & 0xFFFFFFFFFFFFFull) | 0x3FE0000000000000ull;
    f64 m;
    __builtin_memcpy(&m, &bits, 8);
    if (m < 0.7071067811865476) m *= 2, e -= 1;
    const f64 s = (m - 1) / (m + 1), q = s * s;
    f64 p = 0;
    for (i32 k = 23; k >= 3; k -= 2) p = (p + 1.0 / k) * q;
    return e * LN2_HIGH + (2 * (s + s * p) + e * LN2_LOW);
}

/* Angle >= 0. Below 2^30 multiples of pi / 2 are taken off in three parts (Cody and Waite 1980); what that loses is no more
 * than the angle itself was rounded by. No rope_theta >= 1 gives a greater angle before position 2^30. Beyond, the remainder by
 * the f64 next to 2 pi is taken: no longer an angle that means anything, but the same one on every host. */
void turn64(f64 angle, f64 *sine, f64 *cosine) {
    const f64 circle = 6.283185307179586;
    for (i32 e = 200; angle >= 0x1p30 && e >= 0; e--) {
        const f64 step = circle * power_of_two(e);
        if (angle >= step) angle -= step;
    }
    const f64 n = __builtin_roundeven(angle * 0.6366197723675814);
    const f64 r = ((angle - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69;
    const f64 q = r * r;
    f64 s = -1 / 121645100408832000.0, c = 1 / 2432902008176640000.0; /* to r^19 / 19! and r^20 / 20! */
    static const f64 sines[] = {1 / 355687428096000.0, -1 / 1307674368000.0, 1 / 6227020800.0, -1 / 39916800.0,
                                1 / 362880.0,          -1 / 5040.0,          1 / 120.0,        -1 / 6.0};
    static const f64 cosines[] = {-1 / 6402373705728000.0, 1 / 20922789888000.0, -1 / 87178291200.0, 1 / 479001600.0, -1 / 3628800.0,
                                  1 / 40320.0,             -1 / 720.0,           1 / 24.0,           -0.5};
    for (u32 i = 0; i < 8; i++) s = s * q + sines[i];
    for (u32 i = 0; i < 9; i++) c = c * q + cosines[i];
    s = r + r * (q * s);
    c = 1 + q * c;
    const u32 quarter = (u32)(u64)n & 3;
    *sine = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
    *cosine = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
}
