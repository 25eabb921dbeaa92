/* Text to ids: one merge at a time, lowest rank anywhere first, leftmost on a tie, as models/bpe.py. A heap of candidates
 * over a linked list gives the order of a full rescan after every merge. */
#include "readers.h"

enum { BOS = 256, EOS = 257, MERGE = 16 };
#define NONE 0xFFFFFFFFu

typedef struct {
    const sb_tokenizer *tokenizer;
    u32 *ids, *after, *before; /* NONE for an id that was merged away, and at the ends */
    u64 *heap;                 /* rank << 32 | place */
    u32 waiting;
} work;

static const u8 *merge_of(const sb_tokenizer *t, u32 left, u32 right) {
    u32 at = find_key(t->pairs, t->merge_count, (u64)left << 32 | right);
    return at == t->merge_count ? 0 : t->merges + MERGE * (u64)t->which[at];
}

static const u8 *merge_at(const work *w, u32 place) {
    if (place == NONE || w->after[place] == NONE || w->ids[place] == NONE) return 0;
    return merge_of(w->tokenizer, w->ids[place], w->ids[w->after[place]]);
}

static void offer(work *w, u32 place) {
    const u8 *merge = merge_at(w, place);
    if (!merge) return;
    u32 at = w->waiting++;
    u64 key = (u64)u32_at(merge + 12) << 32 | place;
    for (; at && w->heap[(at - 1) / 2] > key; at = (at - 1) / 2) w->heap[at] = w->heap[(at - 1) / 2];
    w->heap[at] = key;
}

static u64 lowest(work *w) {
    u64 found = w->heap[0], last = w->heap[--w->waiting];
    u32 at = 0;
    for (u32 child; (child = 2 * at + 1) < w->waiting; at = child) {
        if (child + 1 < w->waiting && w->heap[child + 1] < w->heap[child]) child++;
        if (w->heap[child] >= last) break;
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = last;
    return found;
}

static void merge_all(work *w, u32 count) {
    for (u32 i = 0; i < count; i++) w->after[i] = i + 1 < count ? i + 1 : NONE, w->before[i] = i ? i - 1 : NONE;
    for (u32 i = 0; i + 1 < count; i++) offer(w, i);
    while (w->waiting) {
        u64 key = lowest(w);
        u32 place = (u32)key;
        const u8 *merge = merge_at(w, place);
        if (!merge || u32_at(merge + 12) != key >> 32) continue; /* one of the two is gone or has grown */
        u32 gone = w->after[place];
        w->ids[place] = u32_at(merge + 8);
        w->ids[gone] = NONE;
        w->after[place] = w->after[gone];
        if (w->after[place] != NONE) w->before[w->after[place]] = place;
        offer(w, w->before[place]);
        offer(w, place);
    }
}

static u32 put(u32 *out, u32 capacity, u32 at, u32 id) {
    if (at < capacity) out[at] = id;
    return at + 1;
}

/* Begin and end as asked for. Returns the number of ids, at most bytes + 2; only the first `capacity` are written. */
i32 SB_EXPORT(sb_encode)(const u8 *text, u32 bytes, u32 *out, u32 capacity, u32 bos, u32 eos) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, NOWHERE);
    utf8 state = UTF8_START;
    utf8_feed(&state, text, bytes);
    if (!utf8_whole(&state)) return sb_refuse(TOKENIZER_TEXT, NOWHERE);
    work w = {.tokenizer = sb_current->tokenizer};
    /* Every merge takes one id away and offers two pairs. */
    u8 *room = sb_take(36 * (u64)bytes);
    if (!room) return sb_refuse(ENGINE_MEMORY, NOWHERE);
    w.heap = (u64 *)room;
    w.ids = (u32 *)(w.heap + 3 * (u64)bytes);
    w.after = w.ids + bytes;
    w.before = w.after + bytes;
    for (u32 i = 0; i < bytes; i++) w.ids[i] = text[i];
    if (w.tokenizer->merge_count) merge_all(&w, bytes);
    u32 at = bos ? put(out, capacity, 0, BOS) : 0;
    for (u32 i = 0; i < bytes; i++)
        if (w.ids[i] != NONE) at = put(out, capacity, at, w.ids[i]);
    if (eos) at = put(out, capacity, at, EOS);
    sb_give(room);
    return (i32)at;
}
