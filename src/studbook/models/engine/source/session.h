/* Feeding a cache in blocks, with the ids checked. */
#ifndef SB_SESSION_H
#define SB_SESSION_H

#include "forward.h"

/* 0, or a refusal: an id outside the vocabulary (place: which one), no token, or more than the cache has room for. */
i32 ids_check(const u32 *ids, u32 count, u32 room);

/* Feeds checked ids; the logits of tokens `from`.. go to `out` (from == count - 1: the last alone). True if all are finite. */
u32 feed(sb_cache *cache, const u32 *ids, u32 count, u32 from, f32 *out);

/* XorShift64 with shifts 13, 7, 17 (Marsaglia 2003); a state is never 0. */
static inline u64 next_state(u64 s) {
    s ^= s << 13;
    s ^= s >> 7;
    return s ^ s << 17;
}

/* score.c: gives back what was taken for the model that goes. */
void score_close(void);

/* sampler.c: id of the largest, ties to the lowest; or of a draw with checked settings, or a refusal for want of memory. */
u32 greedy(const f32 *logits, u32 count);
i32 sampling_check(f64 temperature, u32 top_k, f64 top_p);
i32 pick(const f32 *logits, f64 temperature, u32 top_k, f64 top_p, u64 *state);

#endif
