/* The container: every rule in the order of models/slm.py, then decoded and installed, or nothing. */
#include "readers.h"

static i32 no_memory(void) { return sb_refuse(ENGINE_MEMORY, NOWHERE); }

static void close_tensors(sb_model *m) {
    for (u32 i = 0; m->tensors && i < m->shape.tensor_count; i++) sb_give(m->tensors[i].owned);
    sb_give(m->tensors);
}

void slm_close(sb_model *m) {
    close_tensors(m);
    tokenizer_close(m->tokenizer);
    sb_give(m->file);
    sb_give(m);
}

/* Places of the tensors of a shape by hash: sorted keys and the place of each. */
static i32 index_names(const sb_shape *s, u64 *keys, u32 *with) {
    slm_spec spec;
    for (u32 place = 0; place < s->tensor_count; place++) {
        shape_spec(s, place, &spec);
        keys[place] = spec.name_hash;
        with[place] = place;
    }
    return sort_keys(keys, with, s->tensor_count);
}

static void place_entry(const u8 *file, const slm_entry *e, sb_tensor *t) {
    t->name_hash = e->name_hash;
    t->rank = e->rank;
    memcpy(t->dims, e->dims, sizeof t->dims);
    t->dtype = e->dtype;
    t->block = e->block;
    t->payload = file + e->at;
    t->scales = e->scale_bytes ? (const f32 *)(file + e->scale_at) : 0;
    t->elements = e->elements;
}

/* Puts every entry in its canonical place. Known hashes and the right count leave one way to miss a tensor: an output
 * projection, which has a name, beside a tied embedding, which has no room for it. */
static i32 by_name(const u8 *file, u32 bytes, const slm_header *h, sb_tensor *tensors, const u64 *keys, const u32 *with) {
    const u64 output = fnv1a64(FNV_START, OUTPUT_NAME, sizeof OUTPUT_NAME - 1);
    u32 count = h->shape.tensor_count, outputs = 0;
    for (u32 i = 0; i < count; i++) {
        slm_entry e;
        slm_entry_read(file, bytes, h, i, &e);
        u32 found = find_key(keys, count, e.name_hash);
        if (found == count) {
            if (e.name_hash != output) return sb_refuse(SLM_TENSOR_UNKNOWN, (i32)i);
            if (outputs++) return sb_refuse(SLM_TENSOR_DUPLICATE, (i32)i);
            continue;
        }
        sb_tensor *t = tensors + with[found];
        if (t->payload) return sb_refuse(SLM_TENSOR_DUPLICATE, (i32)i);
        place_entry(file, &e, t);
    }
    return outputs ? sb_refuse(SLM_TENSOR_MISSING, NOWHERE) : 0;
}

static i32 take_tensors(const u8 *file, u32 bytes, const slm_header *h, sb_model *m) {
    u64 count = h->shape.tensor_count, *keys = sb_take(8 * count);
    u32 *with = sb_take(4 * count);
    m->tensors = sb_take(count * sizeof(sb_tensor));
    i32 status = keys && with && m->tensors ? 0 : no_memory();
    if (m->tensors) memset(m->tensors, 0, count * sizeof(sb_tensor));
    if (!status) {
        status = index_names(&h->shape, keys, with);
        if (!status) status = by_name(file, bytes, h, m->tensors, keys, with);
    }
    sb_give(keys);
    sb_give(with);
    return status;
}

static i32 check_tensors(sb_model *m) {
    for (u32 i = 0; i < m->shape.tensor_count; i++) {
        slm_spec spec;
        shape_spec(&m->shape, i, &spec);
        sb_tensor *t = m->tensors + i;
        if (t->rank != spec.rank || memcmp(t->dims, spec.dims, sizeof spec.dims)) return sb_refuse(SLM_TENSOR_SHAPE, (i32)i);
    }
    for (u32 i = 0; i < m->shape.tensor_count; i++) {
        if (stored_check(m->tensors + i, (i32)i) < 0) return -1;
        m->shape.parameters += m->tensors[i].elements;
    }
    return 0;
}

static i32 fill(const u8 *file, u32 bytes, const slm_header *h, sb_model *m) {
    m->shape = h->shape;
    m->tokenizer_at = (u32)h->tokenizer_at;
    m->tokenizer_len = (u32)(h->tokenizer_end - h->tokenizer_at);
    sb_tokenizer *tokenizer = 0;
    if (tokenizer_open(file + m->tokenizer_at, m->tokenizer_len, &tokenizer) < 0) return -1;
    m->tokenizer = tokenizer;
    if (FIRST_WORD + tokenizer->word_count != m->shape.vocab) return sb_refuse(SLM_VOCAB_TOKENIZER, NOWHERE);
    return take_tensors(file, bytes, h, m) < 0 ? -1 : check_tensors(m);
}

/* Every rule; what comes out points into the file and holds no decoded values yet. */
static sb_model *read(const u8 *file, u32 bytes) {
    slm_header h;
    if (slm_header_read(file, bytes, &h) < 0) return 0;
    for (u32 i = 0; i < h.shape.tensor_count; i++) {
        slm_entry e;
        if (slm_entry_read(file, bytes, &h, i, &e) < 0) return 0;
    }
    if (slm_spans_check(file, bytes, &h) < 0) return 0;
    sb_model *m = sb_take(sizeof *m);
    if (!m) {
        no_memory();
        return 0;
    }
    memset(m, 0, sizeof *m);
    if (fill(file, bytes, &h, m) == 0) return m;
    slm_close(m);
    return 0;
}

static i32 decode(sb_model *m) {
    for (u32 i = 0; i < m->shape.tensor_count; i++) {
        sb_tensor *t = m->tensors + i;
        t->base = (const f32 *)t->payload;
        if (t->dtype == 1) continue;
        t->base = t->owned = sb_take(4 * t->elements);
        if (!t->owned) return no_memory();
        stored_decode(t, t->owned);
    }
    return 0;
}

i32 slm_check(const u8 *file, u32 bytes) {
    sb_model *m = read(file, bytes);
    if (!m) return -1;
    slm_close(m);
    return 0;
}

i32 slm_open(u8 *file, u32 bytes, sb_model **out) {
    sb_model *m = read(file, bytes);
    if (!m) return -1;
    if (decode(m) < 0) {
        slm_close(m);
        return -1;
    }
    m->file = file;
    m->file_len = bytes;
    sha256(file, bytes, m->sha);
    sha256(file + m->tokenizer_at, m->tokenizer_len, m->tokenizer_sha);
    shape_layout(&m->shape, m->layout_sha);
    *out = m;
    return 0;
}
