/* A resident model with packages on it, in order: adapters/fit.py and adapters/stack.py. All are put on or none; the file's
 * own bytes are never written to, and taking the packages off leaves no trace. */
#include "readers.h"

typedef struct {
    const u8 *file;
    u32 bytes;
} pair;

/* A change under way: what is to be in force if nothing is refused. */
typedef struct {
    sb_model *model;
    u32 count, tensors;
    sb_adapter *adapters;
    u64 *keys;     /* name hashes of the model, sorted */
    u32 *with;     /* and the place of each */
    f32 **fused;   /* a new buffer for every tensor that is touched, or 0 */
    u8 (*digests)[32];
    sb_fused *named;
} change;

static sb_stack standing;
static u8 (*applied)[32];
static sb_fused *named;

static void name_state(const sb_model *m) {
    sb_hash state;
    sha256_begin(&state);
    sha256_update(&state, m->sha, 32);
    sha256_update(&state, applied, 32 * (u64)standing.applied);
    sha256_end(&state, standing.state);
    standing.digests = (const u8 (*)[32])applied;
    standing.tensors = named;
}

static i32 check_head(const sb_adapter *a, const sb_model *m, i32 place) {
    if (a->flags != m->shape.tied) return sb_refuse(ADAPTER_MODEL_FLAGS, place);
    if (a->tensors != m->shape.tensor_count) return sb_refuse(ADAPTER_MODEL_TENSORS, place);
    if (a->parameters != m->shape.parameters) return sb_refuse(ADAPTER_MODEL_PARAMETERS, place);
    if (memcmp(a->layout, m->layout_sha, 32)) return sb_refuse(ADAPTER_MODEL_LAYOUT, place);
    if (memcmp(a->tokenizer, m->tokenizer_sha, 32)) return sb_refuse(ADAPTER_MODEL_TOKENIZER, place);
    if (!memcmp(a->meta.base, m->sha, 32)) return 0;
    if (m->has_accepted && !memcmp(a->meta.base, m->accepted, 32)) return 0;
    return sb_refuse(ADAPTER_MODEL_BASE, place);
}

/* Identity first, then name, order and shape of every tensor. */
static i32 check_fit(const change *c, const sb_adapter *a, i32 place) {
    u32 next = 0;
    if (check_head(a, c->model, place) < 0) return -1;
    for (u32 i = 0; i < a->entries; i++) {
        adapter_entry e;
        adapter_entry_get(a, i, &e);
        u32 found = find_key(c->keys, c->tensors, e.name_hash);
        if (found == c->tensors) return sb_refuse(ADAPTER_TENSOR_UNKNOWN, place);
        const sb_tensor *t = c->model->tensors + c->with[found];
        if (c->with[found] < next) return sb_refuse(ADAPTER_TENSOR_ORDER, place);
        if (e.rank != t->rank || memcmp(e.dims, t->dims, sizeof e.dims)) return sb_refuse(ADAPTER_TENSOR_SHAPE, place);
        next = c->with[found];
    }
    return 0;
}

static i32 fuse_all(const change *c, const sb_adapter *a, i32 place) {
    for (u32 i = 0; i < a->entries; i++) {
        adapter_entry e;
        adapter_entry_get(a, i, &e);
        u32 at = c->with[find_key(c->keys, c->tensors, e.name_hash)];
        const sb_tensor *t = c->model->tensors + at;
        const f32 *resident = c->fused[at] ? c->fused[at] : t->fused;
        if (!c->fused[at] && !(c->fused[at] = sb_take(4 * t->elements))) return sb_refuse(ENGINE_MEMORY, place);
        if (!fuse(a, &e, t, resident, c->fused[at])) return sb_refuse(ADAPTER_FUSED_NON_FINITE, place);
    }
    return 0;
}

static void *take_zeros(u64 bytes) {
    void *room = sb_take(bytes);
    if (room) memset(room, 0, (unsigned long)bytes);
    return room;
}

static i32 begin(change *c, const pair *pairs) {
    c->tensors = c->model->shape.tensor_count;
    c->adapters = sb_take(c->count * (u64)sizeof(sb_adapter));
    c->keys = sb_take(8 * (u64)c->tensors);
    c->with = sb_take(4 * (u64)c->tensors);
    c->fused = take_zeros(4 * (u64)c->tensors);
    c->digests = sb_take(32 * ((u64)standing.applied + c->count));
    if (!c->adapters || !c->keys || !c->with || !c->fused || !c->digests) return sb_refuse(ENGINE_MEMORY, -1);
    for (u32 i = 0; i < c->tensors; i++) c->keys[i] = c->model->tensors[i].name_hash, c->with[i] = i;
    if (sort_keys(c->keys, c->with, c->tensors) < 0) return -1;
    for (u32 i = 0; i < c->count; i++)
        if (adapter_read(pairs[i].file, pairs[i].bytes, c->adapters + i) < 0) return sb_refuse(sb_reason(), (i32)i);
    for (u32 i = 0; i < c->count; i++)
        if (check_fit(c, c->adapters + i, (i32)i) < 0 || fuse_all(c, c->adapters + i, (i32)i) < 0) return -1;
    return 0;
}

static void end(change *c) {
    for (u32 i = 0; c->fused && i < c->tensors; i++) sb_give(c->fused[i]);
    sb_give(c->adapters);
    sb_give(c->keys);
    sb_give(c->with);
    sb_give(c->fused);
    sb_give(c->digests);
    sb_give(c->named);
}

/* The last thing that can fail: room for the names of what will be fused. */
static i32 take_names(change *c) {
    u64 count = 0;
    for (u32 i = 0; i < c->tensors; i++) count += c->fused[i] || c->model->tensors[i].fused;
    c->named = sb_take(count * sizeof(sb_fused));
    return c->named ? 0 : sb_refuse(ENGINE_MEMORY, -1);
}

/* From here on nothing is refused: new buffers take the place of old ones, which `end` gives back. */
static void swap(change *c) {
    u32 count = 0;
    for (u32 i = 0; i < c->tensors; i++) {
        sb_tensor *t = c->model->tensors + i;
        if (c->fused[i]) {
            f32 *old = t->fused;
            t->fused = c->fused[i];
            c->fused[i] = old;
            sha256(t->fused, 4 * t->elements, t->fused_sha);
        }
        if (!t->fused) continue;
        c->named[count].name_hash = t->name_hash;
        memcpy(c->named[count++].sha, t->fused_sha, 32);
    }
    memcpy(c->digests, applied, 32 * (unsigned long)standing.applied);
    for (u32 i = 0; i < c->count; i++) memcpy(c->digests[standing.applied + i], c->adapters[i].sha, 32);
    u8 (*old_digests)[32] = applied;
    sb_fused *old_named = named;
    applied = c->digests, c->digests = old_digests;
    named = c->named, c->named = old_named;
    standing.applied += c->count;
    standing.fused = count;
    standing.generation++;
    name_state(c->model);
    sessions_invalidate();
}

/* All packages are read before the first is held against the model; the place of a refusal is the package's number. */
i32 SB_EXPORT(sb_stack_apply)(const pair *pairs, u32 count) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, NOWHERE);
    change c = {.model = sb_current, .count = count};
    i32 status = begin(&c, pairs) < 0 || take_names(&c) < 0 ? -1 : 0;
    if (!status) swap(&c);
    end(&c);
    return status;
}

static void drop(void) {
    for (u32 i = 0; i < sb_current->shape.tensor_count; i++) {
        sb_give(sb_current->tensors[i].fused);
        sb_current->tensors[i].fused = 0;
    }
    sb_give(applied);
    sb_give(named);
    applied = 0, named = 0;
    standing.applied = standing.fused = 0;
}

i32 SB_EXPORT(sb_stack_detach)(void) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, NOWHERE);
    drop();
    standing.generation++;
    sessions_invalidate();
    return 0;
}

const sb_stack *SB_EXPORT(sb_stack_info)(void) {
    if (!sb_current) return 0;
    name_state(sb_current);
    return &standing;
}

void stack_clear(void) {
    drop();
    standing.generation = 0;
}
