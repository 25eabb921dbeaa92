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

/* x = n ln 2 + r, |r| <= ln 2 / 2; terms to r^13 / 13!, what follows is below 2^-57. */
f64 exp64(f64 x) {
    if (x != x) return x;
    if (x > 709.782712893384) return __builtin_inf();
    if (x < -745.1332191019412) return 0;
    const f64 n = __builtin_roundeven(x * 1.4426950408889634);
    const f64 r = (x - n * LN2_HIGH) - n * LN2_LOW;
    f64 p = 1 / 6227020800.0;
    static const f64 inverse[] = {1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0, 1 / 5040.0,
                                  1 / 720.0,       1 / 120.0,      1 / 24.0,      1 / 6.0,      0.5};
    for (u32 i = 0; i < sizeof inverse / sizeof *inverse; i++) p = p * r + inverse[i];
    p = p * (r * r) + r + 1;
    const i32 whole = (i32)n, half = whole / 2;
    return p * power_of_two(half) * power_of_two(whole - half);
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

/* Angle >= 0. Below 2^30 it is reduced by multiples of pi/2 in three parts (Cody and Waite), exact in the first two; no rope_theta >= 1
 * gives a greater one before position 2^30. Beyond, where neither the angle nor its reduction means anything, the remainder
 * by the f64 next to 2 pi is taken so that every host gets the same number. */
void turn64(f64 angle, f64 *sine, f64 *cosine) {
    const f64 circle = 6.283185307179586;
    for (i32 e = 1000; angle >= 0x1p30 && e >= 0; e--) {
        const f64 step = circle * power_of_two(e);
        if (angle >= step) angle -= step;
    }
    const f64 n = __builtin_roundeven(angle * 0.6366197723675814);
    const f64 r = ((angle - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69;
    const f64 q = r * r;
    f64 s = 0, c = 0;
    for (i32 k = 19; k >= 3; k -= 2) s = -(s + 1) * q / (k * (k - 1.0));
    for (i32 k = 20; k >= 2; k -= 2) c = -(c + 1) * q / (k * (k - 1.0));
    s = r + r * s;
    c = 1 + c;
    const u32 quarter = (u32)(u64)n & 3;
    *sine = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
    *cosine = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
}
