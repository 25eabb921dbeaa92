/* Sessions: up to 64 caches of keys and values over the current model. */
#include "session.h"

enum { SESSIONS = 64 };

static struct {
    sb_cache cache;
    u32 open;
} sessions[SESSIONS];

static sb_cache *find(i32 handle) {
    if (handle < 1 || handle > SESSIONS || !sessions[handle - 1].open) {
        sb_refuse(ENGINE_SESSION, -1);
        return 0;
    }
    return &sessions[handle - 1].cache;
}

i32 SB_EXPORT(sb_session_open)(u32 positions) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    if (positions < 1 || positions > sb_current->shape.max_context) return sb_refuse(ENGINE_CONTEXT, -1);
    i32 free = 0;
    while (free < SESSIONS && sessions[free].open) free++;
    if (free == SESSIONS) return sb_refuse(ENGINE_SESSION, -1);
    if (cache_open(&sessions[free].cache, positions) < 0) return -1;
    sessions[free].open = 1;
    return free + 1;
}

i32 SB_EXPORT(sb_session_reset)(i32 handle) {
    sb_cache *cache = find(handle);
    if (!cache) return -1;
    cache->length = 0;
    return 0;
}

i32 SB_EXPORT(sb_session_close)(i32 handle) {
    sb_cache *cache = find(handle);
    if (!cache) return -1;
    cache_close(cache);
    sessions[handle - 1].open = 0;
    return 0;
}

u32 SB_EXPORT(sb_session_length)(i32 handle) {
    const sb_cache *cache = find(handle);
    return cache ? cache->length : 0;
}

void sessions_invalidate(void) {
    for (u32 i = 0; i < SESSIONS; i++) sessions[i].cache.length = 0;
}

void sessions_close(void) {
    for (u32 i = 0; i < SESSIONS; i++) {
        if (sessions[i].open) cache_close(&sessions[i].cache);
        sessions[i].open = 0;
    }
    score_close();
    forward_close();
}

i32 ids_check(const u32 *ids, u32 count, u32 room) {
    if (!count || count > room) return sb_refuse(ENGINE_CONTEXT, -1);
    for (u32 i = 0; i < count; i++)
        if (ids[i] >= sb_current->shape.vocab) return sb_refuse(ENGINE_ID, (i32)i);
    return 0;
}

u32 feed(sb_cache *cache, const u32 *ids, u32 count, u32 from, f32 *out) {
    const u32 vocab = sb_current->shape.vocab;
    u32 finite = 1;
    for (u32 at = 0; at < count; at += BLOCK) {
        const u32 some = count - at < BLOCK ? count - at : BLOCK;
        const u32 first = from > at ? from - at : 0; /* may lie beyond this block: then nothing of it is wanted */
        const f32 *x = forward_run(cache, ids + at, some, first < some ? first : some);
        if (first >= some) continue;
        forward_logits(x, some - first, out);
        finite &= (u32)all_finite(out, (u64)(some - first) * vocab);
        out += (u64)(some - first) * vocab;
    }
    return finite;
}

/* 0; or 1 if the tokens were fed and their logits written, but some are not finite (the reason then says so). */
i32 SB_EXPORT(sb_feed)(i32 handle, const u32 *ids, u32 count, f32 *out, u32 all) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    sb_cache *cache = find(handle);
    if (!cache || ids_check(ids, count, cache->positions - cache->length) < 0) return -1;
    if (feed(cache, ids, count, all ? 0 : count - 1, out)) return 0;
    sb_refuse(ENGINE_NON_FINITE, -1);
    return 1;
}

/* Feeds ids and picks the next token, up to `most` times or until `stop`; the token picked last is not fed. Writes the new
 * tokens to `out` and returns how many. *finite becomes 0 if logits on the way were not finite and is left alone otherwise. */
i32 SB_EXPORT(sb_generate)(i32 handle, const u32 *ids, u32 count, u32 most, u32 stop, f64 temperature, u32 top_k, f64 top_p,
                           u64 *state, u32 *out, u32 *finite) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    sb_cache *cache = find(handle);
    if (!cache || sampling_check(temperature, top_k, top_p) < 0) return -1;
    if (ids_check(ids, count, cache->positions - cache->length) < 0) return -1;
    if (!most || most - 1 > cache->positions - cache->length - count) return sb_refuse(ENGINE_CONTEXT, -1);
    f32 *logits = sb_take(4ull * sb_current->shape.vocab);
    if (!logits) return sb_refuse(ENGINE_MEMORY, -1);
    const u32 before = cache->length;
    i32 written = 0;
    for (; (u32)written < most; written++) {
        if (!(written ? feed(cache, out + written - 1, 1, 0, logits) : feed(cache, ids, count, count - 1, logits))) *finite = 0;
        const i32 next = pick(logits, temperature, top_k, top_p, state);
        if (next < 0) {
            cache->length = before;
            sb_give(logits);
            return -1;
        }
        out[written] = (u32)next;
        if (out[written] == stop) {
            written++;
            break;
        }
    }
    sb_give(logits);
    return written;
}

/* One of several texts that are written side by side: its last token goes in, the next one comes out. */
typedef struct {
    i32 session;
    u32 token, top_k, finite; /* `finite` becomes 0 if the logits were not finite, and is left alone otherwise */
    f64 temperature, top_p;
    u64 state;
} sb_line;

/* All of a step is checked before any of it is done. */
static i32 lines_check(const sb_line *lines, u32 count, sb_cache **caches) {
    for (u32 i = 0; i < count; i++) {
        caches[i] = find(lines[i].session);
        if (!caches[i] || sampling_check(lines[i].temperature, lines[i].top_k, lines[i].top_p) < 0) return -1;
        for (u32 k = 0; k < i; k++)
            if (caches[k] == caches[i]) return sb_refuse(ENGINE_SESSION, (i32)i);
        if (ids_check(&lines[i].token, 1, caches[i]->positions - caches[i]->length) < 0) return -1;
    }
    return 0;
}

/* Feeds each line's token to its session and picks the next one in its place, up to BLOCK lines at once: each gets what
 * sb_generate would give it alone. */
i32 SB_EXPORT(sb_step)(sb_line *lines, u32 count) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    if (!count || count > BLOCK) return sb_refuse(ENGINE_CONTEXT, -1);
    const u32 vocab = sb_current->shape.vocab;
    sb_cache *caches[BLOCK];
    u32 ids[BLOCK];
    if (lines_check(lines, count, caches) < 0) return -1;
    f32 *logits = sb_take(4ull * count * vocab);
    if (!logits) return sb_refuse(ENGINE_MEMORY, -1);
    for (u32 i = 0; i < count; i++) ids[i] = lines[i].token;
    forward_logits(forward_step(caches, ids, count), count, logits);
    i32 status = 0;
    for (u32 i = 0; i < count && status >= 0; i++) {
        sb_line *line = lines + i;
        const f32 *own = logits + (u64)i * vocab;
        if (!all_finite(own, vocab)) line->finite = 0;
        status = pick(own, line->temperature, line->top_k, line->top_p, &line->state);
        if (status >= 0) line->token = (u32)status;
    }
    for (u32 i = 0; i < count && status < 0; i++) caches[i]->length--;
    sb_give(logits);
    return status < 0 ? -1 : 0;
}

/* Tokens (state >> 11) mod vocabulary of successive states from seed 1; the digest covers the logits of all positions in
 * order, f32, little-endian. */
i32 SB_EXPORT(sb_logit_digest)(u32 positions, u8 *out) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    const u32 vocab = sb_current->shape.vocab, most = sb_current->shape.max_context;
    if (!positions) positions = most > 1 ? most - 1 : 1;
    if (positions > most) return sb_refuse(ENGINE_CONTEXT, -1);
    sb_cache cache;
    if (cache_open(&cache, positions) < 0) return -1;
    f32 *logits = sb_take(4ull * BLOCK * vocab);
    if (!logits) {
        cache_close(&cache);
        return sb_refuse(ENGINE_MEMORY, -1);
    }
    sb_hash hash;
    sha256_begin(&hash);
    u64 state = 1;
    u32 finite = 1;
    for (u32 at = 0; at < positions && finite; at += BLOCK) {
        const u32 some = positions - at < BLOCK ? positions - at : BLOCK;
        u32 ids[BLOCK];
        for (u32 i = 0; i < some; i++) ids[i] = (u32)(((state = next_state(state)) >> 11) % vocab);
        finite = feed(&cache, ids, some, 0, logits);
        sha256_update(&hash, logits, 4ull * some * vocab);
    }
    sha256_end(&hash, out);
    sb_give(logits);
    cache_close(&cache);
    return finite ? 0 : sb_refuse(ENGINE_NON_FINITE, -1);
}
