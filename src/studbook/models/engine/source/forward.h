/* The decoder: blocks of tokens against a cache of keys and values. */
#ifndef SB_FORWARD_H
#define SB_FORWARD_H

#include "kernels.h"

/* Keys and values of the positions fed so far: (layer, 2, kv head, position, padded head width), f32. */
typedef struct {
    u32 positions, length;
    f32 *stored;
} sb_cache;

/* Where a token goes: its cache, and the position it takes there. */
typedef struct {
    sb_cache *cache;
    u32 position;
} sb_spot;

/* Makes an empty cache of that many positions for the current model and room to work; 0, or a refusal that leaves nothing. */
i32 cache_open(sb_cache *cache, u32 positions);
void cache_close(sb_cache *cache);

/* Feeds `count` <= BLOCK ids that are in the vocabulary and fit the cache. The residual stream of tokens `first`.. before the
 * final norm lies at the result until the next call, rows of `hidden_stride()`. */
const f32 *forward_run(sb_cache *cache, const u32 *ids, u32 count, u32 first);

/* Feeds one such id to each of `count` <= BLOCK caches, none twice; the residual stream likewise. */
const f32 *forward_step(sb_cache *const *caches, const u32 *ids, u32 count);

/* Logits (rows, vocabulary) of residual rows. */
void forward_logits(const f32 *x, u32 rows, f32 *out);
u32 hidden_stride(void);

/* Gives back what was taken for the model that goes. */
void forward_close(void);

#endif
