/* Arithmetic that every host computes alike: no library, no fused multiply-add, sums in a stated order.
 *
 * A sum of products over n elements has 16 lanes: element i goes to lane i mod 16, in ascending order; elements beyond n
 * count as zero. Vectors of four lanes are added as (0 + 2) + (1 + 3), then their lanes likewise. A sum over positions has four lanes. */
#ifndef SB_MATHS_H
#define SB_MATHS_H

#include "engine.h"

#define INLINE static inline __attribute__((always_inline))

typedef f32 v4 __attribute__((vector_size(16)));
typedef i32 v4i __attribute__((vector_size(16)));
typedef f64 v2 __attribute__((vector_size(16)));
typedef long long v2i __attribute__((vector_size(16)));

INLINE v4 load(const f32 *p) {
    v4 v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
INLINE void save(f32 *p, v4 v) { __builtin_memcpy(p, &v, sizeof v); }
/* The first `count` (1 to 3) of four elements, then zeros: nothing beyond them is read. */
INLINE v4 load_part(const f32 *p, u32 count) {
    v4 v = {p[0], count > 1 ? p[1] : 0, count > 2 ? p[2] : 0, 0};
    return v;
}
INLINE f32 lanes(v4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }
INLINE f32 root(f32 x) { return __builtin_sqrtf(x); }
INLINE u32 padded(u32 n) { return (n + 3) & ~3u; }

/* f64 -> f64; see maths.c */
f64 exp64(f64 x);
v2 exp_negative(v2 x); /* of numbers <= 0; below -708 the result is 0 */
f64 log64(f64 x);
void turn64(f64 angle, f64 *sine, f64 *cosine);

/* e^x for four f32, about one unit in the last place: x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, Cody and
 * Waite 1980), Taylor's polynomial of degree 7 in r, then two exact powers of two. Below -87.33654 the result is 0, above
 * 88.72283 infinity, of NaN it is NaN. */
INLINE v4 exp4(v4 x) {
    const v4 n = __builtin_elementwise_roundeven(x * 1.44269504f);
    const v4 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    v4 p = r * (1 / 5040.0f) + 1 / 720.0f;
    p = p * r + 1 / 120.0f;
    p = p * r + 1 / 24.0f;
    p = p * r + 1 / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const v4i low = x < -87.33654f, high = x > 88.72283f, known = x == x;
    const v4i whole = __builtin_convertvector((v4)((v4i)n & ~low & ~high & known), v4i);
    const v4i half = whole >> 1;
    const v4 e = p * (v4)((half + 127) << 23) * (v4)((whole - half + 127) << 23);
    const v4 infinite = (v4)((v4i){} + 0x7F800000);
    return (v4)(((v4i)e & ~low & ~high) | ((v4i)infinite & high));
}

#endif
