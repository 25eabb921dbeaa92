/* Stands in until the real reader is here: trusts every byte of a canonical f32 or q8_0 or q4_0 file. */
#include "engine.h"
static u32 u32_at(const u8 *p) { u32 v; memcpy(&v, p, 4); return v; }
static u64 u64_at(const u8 *p) { u64 v; memcpy(&v, p, 8); return v; }
i32 slm_check(const u8 *file, u32 bytes) { (void)file; return bytes < 108 ? sb_refuse("slm.short", -1) : 0; }
i32 slm_open(u8 *file, u32 bytes, sb_model **out) {
    if (slm_check(file, bytes) < 0) return -1;
    sb_model *m = sb_take(sizeof *m);
    if (!m) return sb_refuse("engine.memory", -1);
    memset(m, 0, sizeof *m);
    sb_shape *s = &m->shape;
    s->tied = u32_at(file + 16) & 1; s->vocab = u32_at(file + 20); s->hidden = u32_at(file + 28); s->layers = u32_at(file + 32);
    s->heads = u32_at(file + 36); s->kv_heads = u32_at(file + 40); s->head_dim = u32_at(file + 44); s->ffn = u32_at(file + 48);
    s->max_context = u32_at(file + 52); memcpy(&s->theta, file + 56, 4); memcpy(&s->eps, file + 60, 4);
    s->tensor_count = u32_at(file + 88);
    m->file = file; m->file_len = bytes;
    m->tensors = sb_take(s->tensor_count * sizeof(sb_tensor));
    memset(m->tensors, 0, s->tensor_count * sizeof(sb_tensor));
    for (u32 i = 0; i < s->tensor_count; i++) {
        const u8 *e = file + u64_at(file + 80) + 64 * i;
        sb_tensor *t = m->tensors + i;
        t->name_hash = u64_at(e); t->dtype = u32_at(e + 8); t->rank = u32_at(e + 12);
        t->elements = 1;
        for (u32 d = 0; d < t->rank; d++) t->dims[d] = u32_at(e + 16 + 4 * d), t->elements *= t->dims[d];
        t->payload = file + u64_at(e + 32); t->scales = (const f32 *)(file + u64_at(e + 48)); t->block = u32_at(e + 56);
        s->parameters += t->elements;
        if (t->dtype == 1) { t->base = (const f32 *)t->payload; continue; }
        f32 *w = sb_take(4 * t->elements);
        for (u64 k = 0; k < t->elements; k++) {
            i32 q = t->dtype == 2 ? ((const i8 *)t->payload)[k] : (((i32)(t->payload[k / 2] >> 4 * (k & 1)) & 15) ^ 8) - 8;
            w[k] = (f32)q * t->scales[k / t->block];
        }
        t->base = t->owned = w;
    }
    *out = m;
    return 0;
}
void slm_close(sb_model *m) {
    for (u32 i = 0; i < m->shape.tensor_count; i++) sb_give(m->tensors[i].owned);
    sb_give(m->tensors); sb_give(m->file); sb_give(m);
}
void stack_clear(void) {}
