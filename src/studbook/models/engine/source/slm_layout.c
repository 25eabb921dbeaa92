/* Where things lie in a container: models/slm_layout.py, rule for rule and in its order. */
#include "readers.h"

enum { HEADER = 108, CHECKSUM_AT = 100, ENTRY = 64, F32 = 1, Q8_0 = 2, Q4_0 = 3 };

static i32 check_length(u32 bytes) {
    if (bytes > MAX_FILE_BYTES) return sb_refuse(SLM_SIZE, NOWHERE);
    if (bytes < HEADER) return sb_refuse(SLM_SHORT, NOWHERE);
    return bytes % ALIGNMENT ? sb_refuse(SLM_FILE_ALIGNMENT, NOWHERE) : 0;
}

static void take_shape(const u8 *file, sb_shape *s) {
    s->tied = u32_at(file + 16);
    s->vocab = u32_at(file + 20);
    s->hidden = u32_at(file + 28);
    s->layers = u32_at(file + 32);
    s->heads = u32_at(file + 36);
    s->kv_heads = u32_at(file + 40);
    s->head_dim = u32_at(file + 44);
    s->ffn = u32_at(file + 48);
    s->max_context = u32_at(file + 52);
    s->theta = f32_at(file + 56);
    s->eps = f32_at(file + 60);
    s->tensor_count = u32_at(file + 88);
    s->parameters = 0; /* counted once every tensor was seen */
}

static i32 check_order(const slm_header *h) {
    const u64 from[4] = {0, h->tokenizer_at, h->directory_at, h->data_at};
    const u64 to[4] = {h->length, h->tokenizer_end, h->directory_end, h->data_at + 1};
    for (u32 i = 1; i < 4; i++) {
        if (from[i] >= to[i - 1]) continue;
        return sb_refuse(to[i] > from[i - 1] ? SLM_OVERLAP : SLM_ORDER, NOWHERE);
    }
    return 0;
}

static i32 check_sections(const slm_header *h, u32 bytes) {
    if (h->tokenizer_end > bytes) return sb_refuse(SLM_TOKENIZER_RANGE, NOWHERE);
    if (h->directory_at % ALIGNMENT) return sb_refuse(SLM_DIRECTORY_ALIGNMENT, NOWHERE);
    if (h->directory_end > bytes) return sb_refuse(SLM_DIRECTORY_RANGE, NOWHERE);
    if (h->data_at % ALIGNMENT) return sb_refuse(SLM_DATA_ALIGNMENT, NOWHERE);
    if (h->data_at > bytes) return sb_refuse(SLM_DATA_RANGE, NOWHERE);
    if (h->shape.tensor_count != shape_tensors(&h->shape)) return sb_refuse(SLM_TENSOR_COUNT, NOWHERE);
    return check_order(h);
}

i32 slm_header_read(const u8 *file, u32 bytes, slm_header *h) {
    if (check_length(bytes) < 0) return -1;
    if (memcmp(file, "SLM1", 4)) return sb_refuse(SLM_MAGIC, NOWHERE);
    if (u32_at(file + 4) != 1) return sb_refuse(SLM_VERSION, NOWHERE);
    h->length = u32_at(file + 8);
    if (h->length < HEADER || h->length > bytes) return sb_refuse(SLM_HEADER_LENGTH, NOWHERE);
    if (u32_at(file + 12) != 1) return sb_refuse(SLM_MODEL_TYPE, NOWHERE);
    take_shape(file, &h->shape);
    if (h->shape.tied > 1) return sb_refuse(SLM_FLAGS, NOWHERE);
    if (shape_check(&h->shape, u32_at(file + 24)) < 0) return -1;
    h->tokenizer_at = u64_at(file + 64);
    h->tokenizer_end = plus(h->tokenizer_at, u64_at(file + 72));
    h->directory_at = u64_at(file + 80);
    h->directory_end = plus(h->directory_at, ENTRY * (u64)h->shape.tensor_count);
    h->data_at = u64_at(file + 92);
    if (check_sections(h, bytes) < 0) return -1;
    u64 stated = u64_at(file + CHECKSUM_AT);
    if (!stated) return sb_refuse(SLM_CHECKSUM_ZERO, NOWHERE);
    return stated != checksum64(file, bytes, CHECKSUM_AT) ? sb_refuse(SLM_CHECKSUM, NOWHERE) : 0;
}

static i32 check_dims(const slm_entry *e, u32 reserved, i32 place) {
    if (e->dtype < F32 || e->dtype > Q4_0) return sb_refuse(SLM_DTYPE, place);
    if (e->rank < 1 || e->rank > 4) return sb_refuse(SLM_RANK, place);
    for (u32 d = 0; d < e->rank; d++)
        if (!e->dims[d]) return sb_refuse(SLM_DIMS_ZERO, place);
    for (u32 d = e->rank; d < 4; d++)
        if (e->dims[d]) return sb_refuse(SLM_DIMS_UNUSED, place);
    return reserved ? sb_refuse(SLM_RESERVED, place) : 0;
}

static i32 check_block(const slm_entry *e, i32 place) {
    u32 columns = e->dims[e->rank - 1], block = e->block;
    if (e->dtype == F32) {
        if (block) return sb_refuse(SLM_BLOCK_F32, place);
        return e->scale_at ? sb_refuse(SLM_SCALE_OFFSET_F32, place) : 0;
    }
    if (e->dtype == Q8_0) return block != columns ? sb_refuse(SLM_BLOCK_Q8, place) : 0;
    if (!block || block % 2) return sb_refuse(SLM_BLOCK_Q4_ODD, place);
    return columns % block ? sb_refuse(SLM_BLOCK_Q4_DIVIDE, place) : 0;
}

/* A payload has the length that dtype and shape imply; a product that no u64 holds is the length of nothing. */
static i32 check_payload(slm_entry *e, i32 place) {
    i32 holds = multiply_all(&e->elements, e->dims, e->rank);
    u64 wanted = e->dtype == Q4_0 ? e->elements / 2 : e->elements;
    if (e->dtype == F32) holds &= multiply(&wanted, 4);
    if (!holds || e->bytes != wanted) return sb_refuse(SLM_PAYLOAD_LENGTH, place);
    e->scale_bytes = e->dtype == F32 ? 0 : e->elements / e->block;
    multiply(&e->scale_bytes, 4);
    return 0;
}

static i32 check_ranges(const slm_entry *e, u64 data_at, u32 bytes, i32 place) {
    if (e->at % ALIGNMENT) return sb_refuse(SLM_PAYLOAD_ALIGNMENT, place);
    if (plus(e->at, e->bytes) > bytes) return sb_refuse(SLM_PAYLOAD_RANGE, place);
    if (e->at < data_at) return sb_refuse(SLM_PAYLOAD_BEFORE_DATA, place);
    if (e->dtype == F32) return 0;
    if (e->scale_at % ALIGNMENT) return sb_refuse(SLM_SCALE_ALIGNMENT, place);
    if (plus(e->scale_at, e->scale_bytes) > bytes) return sb_refuse(SLM_SCALE_RANGE, place);
    return e->scale_at < data_at ? sb_refuse(SLM_SCALE_BEFORE_DATA, place) : 0;
}

i32 slm_entry_read(const u8 *file, u32 bytes, const slm_header *h, u32 index, slm_entry *e) {
    const u8 *p = file + h->directory_at + ENTRY * (u64)index;
    e->name_hash = u64_at(p);
    e->dtype = u32_at(p + 8);
    e->rank = u32_at(p + 12);
    memcpy(e->dims, p + 16, 16);
    e->at = u64_at(p + 32);
    e->bytes = u64_at(p + 40);
    e->scale_at = u64_at(p + 48);
    e->block = u32_at(p + 56);
    if (check_dims(e, u32_at(p + 60), (i32)index) < 0 || check_block(e, (i32)index) < 0) return -1;
    if (check_payload(e, (i32)index) < 0) return -1;
    return check_ranges(e, h->data_at, bytes, (i32)index);
}

/* After every entry was read by itself. */
i32 slm_spans_check(const u8 *file, u32 bytes, const slm_header *h) {
    static const span_reasons why = {SLM_OVERLAP, SLM_PADDING, SLM_TRAILING};
    u64 *spans = sb_take(8 * (3 + 2 * (u64)h->shape.tensor_count));
    u32 count = 3;
    if (!spans) return sb_refuse(ENGINE_MEMORY, NOWHERE);
    spans[0] = span(0, h->length);
    spans[1] = span(h->tokenizer_at, h->tokenizer_end);
    spans[2] = span(h->directory_at, h->directory_end);
    for (u32 i = 0; i < h->shape.tensor_count; i++) {
        slm_entry e;
        slm_entry_read(file, bytes, h, i, &e);
        spans[count++] = span(e.at, e.at + e.bytes);
        if (e.scale_bytes) spans[count++] = span(e.scale_at, e.scale_at + e.scale_bytes);
    }
    i32 status = check_spans(file, bytes, spans, count, &why);
    sb_give(spans);
    return status;
}
