/* The door: what a host may call besides digests, packages, text and sessions, which export themselves. */
#include "engine.h"

sb_model *sb_current;
static const char *reason = "";
static i32 place = -1;

i32 sb_refuse(const char *why, i32 where) {
    reason = why;
    place = where;
    return -1;
}

u32 SB_EXPORT(sb_abi)(void) { return SB_ABI; }
const char *SB_EXPORT(sb_reason)(void) { return reason; }
i32 SB_EXPORT(sb_place)(void) { return place; }

void *SB_EXPORT(sb_alloc)(u32 bytes) {
    void *block = sb_take(bytes);
    if (!block) sb_refuse(ENGINE_MEMORY, -1);
    return block;
}
void SB_EXPORT(sb_free)(void *block) { sb_give(block); }

i32 SB_EXPORT(sb_model_check)(const u8 *file, u32 bytes) { return slm_check(file, bytes); }

static void forget(void) {
    if (!sb_current) return;
    stack_clear();
    sessions_close();
    slm_close(sb_current);
    sb_current = 0;
}

/* Both models are resident until the new one stands: a refusal costs memory, never the model before. */
i32 SB_EXPORT(sb_model_load)(u8 *file, u32 bytes) {
    sb_model *model = 0;
    if (slm_open(file, bytes, &model) < 0) {
        sb_give(file);
        return -1;
    }
    forget();
    sb_current = model;
    return 0;
}

void SB_EXPORT(sb_model_free)(void) { forget(); }

const sb_info *SB_EXPORT(sb_model_info)(void) {
    static sb_info info;
    const sb_model *m = sb_current;
    if (!m) return 0;
    info.shape = m->shape;
    info.decoded_bytes = 4 * m->shape.parameters;
    info.file_len = m->file_len;
    info.has_accepted = m->has_accepted;
    memcpy(info.sha, m->sha, 32);
    memcpy(info.tokenizer_sha, m->tokenizer_sha, 32);
    memcpy(info.layout_sha, m->layout_sha, 32);
    memcpy(info.accepted, m->accepted, 32);
    return &info;
}

i32 SB_EXPORT(sb_accept)(const u8 *base) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    memcpy(sb_current->accepted, base, 32);
    sb_current->has_accepted = 1;
    return 0;
}
