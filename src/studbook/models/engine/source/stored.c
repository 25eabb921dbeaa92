/* One tensor as it lies in a container: models/stored.py. A scale stands for `block` elements one after the other, as a
 * block divides the row (q4_0) or is the row (q8_0). */
#include "readers.h"

enum { F32 = 1, Q8_0 = 2 };

/* Low nibble first, 8..15 mean -8..-1. */
static i32 code(const sb_tensor *t, u64 i) {
    if (t->dtype == Q8_0) return (i8)t->payload[i];
    return (i32)((t->payload[i / 2] >> 4 * (i & 1) & 15) ^ 8) - 8;
}

/* Whether a group's codes times its scale are finite; most groups are seen to be from the scale alone. */
static i32 finite_group(const sb_tensor *t, u64 group) {
    f32 scale = t->scales[group];
    if (is_finite(scale * (t->dtype == Q8_0 ? 128 : 8))) return 1;
    for (u64 i = group * t->block; i < (group + 1) * t->block; i++)
        if (!is_finite((f32)code(t, i) * scale)) return 0;
    return 1;
}

i32 stored_check(const sb_tensor *t, i32 place) {
    if (t->dtype == F32)
        return all_finite((const f32 *)t->payload, t->elements) ? 0 : sb_refuse(SLM_PAYLOAD_NON_FINITE, place);
    u64 groups = t->elements / t->block;
    if (!all_finite(t->scales, groups)) return sb_refuse(SLM_SCALE_NON_FINITE, place);
    for (u64 g = 0; g < groups; g++)
        if (!(t->scales[g] > 0)) return sb_refuse(SLM_SCALE_NON_POSITIVE, place);
    for (u64 g = 0; g < groups; g++)
        if (!finite_group(t, g)) return sb_refuse(SLM_PRODUCT_NON_FINITE, place);
    return 0;
}

/* All values of a quantised tensor: q * scale in f32. */
void stored_decode(const sb_tensor *t, f32 *out) {
    u64 groups = t->elements / t->block, i = 0;
    for (u64 g = 0; g < groups; g++) {
        f32 scale = t->scales[g];
        for (u32 k = 0; k < t->block; k++, i++) out[i] = (f32)code(t, i) * scale;
    }
}

/* Elements start..start+count-1 before any rounding: the value, or code times scale in f64. */
void stored_wide(const sb_tensor *t, u64 start, u32 count, f64 *out) {
    if (t->dtype == F32) {
        const f32 *values = (const f32 *)t->payload + start;
        for (u32 k = 0; k < count; k++) out[k] = values[k];
        return;
    }
    u64 group = start / t->block;
    u32 left = t->block - (u32)(start % t->block);
    for (u32 k = 0; k < count; k++) {
        out[k] = (f64)code(t, start + k) * (f64)t->scales[group];
        if (!--left) group++, left = t->block;
    }
}
