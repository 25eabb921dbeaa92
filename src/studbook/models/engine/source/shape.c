/* What a model is before it has weights: models/shape.py, rule for rule. */
#include "readers.h"

static const char *const PARTS[9] = {"attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w3", "w2"};

static i32 positive(f32 value) { return is_finite(value) && value > 0; }

i32 shape_check(const sb_shape *s, u32 special) {
    const char *why = s->vocab < FIRST_WORD                       ? SLM_VOCAB
                      : special != 4                              ? SLM_SPECIAL_TOKENS
                      : !s->hidden                                ? SLM_HIDDEN
                      : !s->layers                                ? SLM_LAYERS
                      : !s->heads                                 ? SLM_HEADS
                      : !s->kv_heads                              ? SLM_KV_HEADS
                      : !s->head_dim                              ? SLM_HEAD_DIM
                      : !s->ffn                                   ? SLM_FFN
                      : !s->max_context                           ? SLM_CONTEXT
                      : s->kv_heads > s->heads                    ? SLM_KV_HEADS_MANY
                      : s->heads % s->kv_heads                    ? SLM_KV_HEADS_DIVIDE
                      : s->head_dim % 2                           ? SLM_HEAD_DIM_ODD
                      : (u64)s->heads * s->head_dim != s->hidden  ? SLM_HEAD_PRODUCT
                      : !positive(s->theta)                       ? SLM_ROPE_THETA
                      : !positive(s->eps)                         ? SLM_EPSILON
                                                                  : 0;
    return why ? sb_refuse(why, NOWHERE) : 0;
}

u64 shape_tensors(const sb_shape *s) { return 9 * (u64)s->layers + (s->tied ? 2 : 3); }

static u64 hash_text(u64 state, const char *text) {
    u32 bytes = 0;
    while (text[bytes]) bytes++;
    return fnv1a64(state, text, bytes);
}

static u64 hash_number(u64 state, u32 number) {
    char digits[10];
    u32 at = sizeof digits;
    do digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    return fnv1a64(state, digits + at, sizeof digits - at);
}

static void layer_spec(const sb_shape *s, u32 layer, u32 part, slm_spec *out) {
    const u32 shared = s->kv_heads * s->head_dim, hidden = s->hidden, ffn = s->ffn;
    const u32 rows[9] = {hidden, hidden, shared, shared, hidden, hidden, ffn, ffn, hidden};
    u64 name = hash_number(hash_text(FNV_START, "layers."), layer);
    out->name_hash = hash_text(hash_text(hash_text(name, "."), PARTS[part]), ".weight");
    out->rank = part == 0 || part == 5 ? 1 : 2;
    out->dims[0] = rows[part];
    out->dims[1] = out->rank == 1 ? 0 : part == 8 ? ffn : hidden;
}

void shape_spec(const sb_shape *s, u32 place, slm_spec *out) {
    u64 norm = 9 * (u64)s->layers + 1;
    out->dims[2] = out->dims[3] = 0;
    if (place && place < norm) {
        layer_spec(s, (place - 1) / 9, (place - 1) % 9, out);
        return;
    }
    out->name_hash = hash_text(FNV_START, !place ? "tok_embeddings.weight" : place == norm ? "norm.weight" : OUTPUT_NAME);
    out->rank = place == norm ? 1 : 2;
    out->dims[0] = place == norm ? s->hidden : s->vocab;
    out->dims[1] = place == norm ? 0 : s->hidden;
}

/* Identity of names and shapes: u64 name hash, u32 rank, four u32 dims of every tensor. */
void shape_layout(const sb_shape *s, u8 out[32]) {
    sb_hash state;
    sha256_begin(&state);
    for (u32 place = 0; place < s->tensor_count; place++) {
        slm_spec spec;
        shape_spec(s, place, &spec);
        sha256_update(&state, &spec.name_hash, 8);
        sha256_update(&state, &spec.rank, 4);
        sha256_update(&state, spec.dims, 16);
    }
    sha256_end(&state, out);
}
