/* Where things lie in a package: adapters/layout.py, rule for rule and in its order. */
#include "readers.h"

enum { HEADER = 128, CHECKSUM_AT = 120, ENTRY = 64, MAX_META_BYTES = 65536 };

static i32 check_length(u32 bytes) {
    if (bytes > MAX_FILE_BYTES) return sb_refuse(ADAPTER_SIZE, NOWHERE);
    if (bytes < HEADER) return sb_refuse(ADAPTER_SHORT, NOWHERE);
    return bytes % ALIGNMENT ? sb_refuse(ADAPTER_FILE_ALIGNMENT, NOWHERE) : 0;
}

static u32 kind_of(const u8 *magic) {
    return !memcmp(magic, "ADP1", 4) ? DENSE : !memcmp(magic, "ASP1", 4) ? SPARSE : !memcmp(magic, "ALR1", 4) ? LOW_RANK : 0;
}

static i32 check_places(const sb_adapter *a, u32 meta_bytes) {
    if (meta_bytes > MAX_META_BYTES || a->meta_end > a->bytes) return sb_refuse(ADAPTER_META_LENGTH, NOWHERE);
    if (a->directory_at != align_up(a->meta_end)) return sb_refuse(ADAPTER_DIRECTORY_OFFSET, NOWHERE);
    if (a->data_at != align_up(a->directory_end)) return sb_refuse(ADAPTER_DATA_OFFSET, NOWHERE);
    return a->directory_end > a->bytes ? sb_refuse(ADAPTER_DIRECTORY_RANGE, NOWHERE) : 0;
}

static i32 check_checksum(const sb_adapter *a) {
    u64 stated = u64_at(a->file + CHECKSUM_AT);
    if (!stated) return sb_refuse(ADAPTER_CHECKSUM_ZERO, NOWHERE);
    return stated != checksum64(a->file, a->bytes, CHECKSUM_AT) ? sb_refuse(ADAPTER_CHECKSUM, NOWHERE) : 0;
}

i32 adapter_head_read(const u8 *file, u32 bytes, sb_adapter *a) {
    a->file = file;
    a->bytes = bytes;
    if (check_length(bytes) < 0) return -1;
    a->code = kind_of(file);
    if (!a->code) return sb_refuse(ADAPTER_MAGIC, NOWHERE);
    if (u32_at(file + 4) != 1) return sb_refuse(ADAPTER_VERSION, NOWHERE);
    if (u32_at(file + 8) != HEADER) return sb_refuse(ADAPTER_HEADER_LENGTH, NOWHERE);
    a->flags = u32_at(file + 12);
    if (a->flags > 1) return sb_refuse(ADAPTER_FLAGS, NOWHERE);
    a->tensors = u32_at(file + 16);
    a->entries = u32_at(file + 20);
    if (!a->entries || a->entries > a->tensors) return sb_refuse(ADAPTER_ENTRY_COUNT, NOWHERE);
    a->parameters = u64_at(file + 24);
    if (!a->parameters) return sb_refuse(ADAPTER_PARAMETER_COUNT, NOWHERE);
    if (u32_at(file + 100)) return sb_refuse(ADAPTER_RESERVED, NOWHERE);
    a->layout = file + 32;
    a->tokenizer = file + 64;
    a->meta_end = HEADER + (u64)u32_at(file + 96);
    a->directory_at = u64_at(file + 104);
    a->directory_end = plus(a->directory_at, ENTRY * (u64)a->entries);
    a->data_at = u64_at(file + 112);
    if (check_places(a, u32_at(file + 96)) < 0) return -1;
    return check_checksum(a);
}

void adapter_entry_get(const sb_adapter *a, u32 index, adapter_entry *e) {
    const u8 *p = a->file + a->directory_at + ENTRY * (u64)index;
    e->name_hash = u64_at(p);
    e->code = u32_at(p + 8);
    e->rank = u32_at(p + 12);
    memcpy(e->dims, p + 16, 16);
    e->at = u64_at(p + 32);
    e->bytes = u64_at(p + 40);
    e->count = u32_at(p + 48);
    e->alpha = f32_at(p + 52);
}

static i32 check_dims(const adapter_entry *e, i32 place) {
    if (e->rank < 1 || e->rank > 4) return sb_refuse(ADAPTER_RANK, place);
    for (u32 d = 0; d < e->rank; d++)
        if (!e->dims[d]) return sb_refuse(ADAPTER_DIMS_ZERO, place);
    for (u32 d = e->rank; d < 4; d++)
        if (e->dims[d]) return sb_refuse(ADAPTER_DIMS_UNUSED, place);
    return 0;
}

static i32 check_numbers(const adapter_entry *e, i32 place) {
    u64 most = 0;
    if (e->code == SPARSE) multiply_all(&most, e->dims, e->rank);
    if (e->code == LOW_RANK) {
        if (e->rank != 2) return sb_refuse(ADAPTER_MATRIX, place);
        most = e->dims[0] < e->dims[1] ? e->dims[0] : e->dims[1];
    }
    if (e->count > most || (e->code != DENSE && !e->count)) return sb_refuse(ADAPTER_COUNT, place);
    u32 bits;
    memcpy(&bits, &e->alpha, 4);
    return (e->code == LOW_RANK ? !is_finite(e->alpha) : bits) ? sb_refuse(ADAPTER_ALPHA, place) : 0;
}

/* Bytes of payload that kind, dimensions and count imply; the largest u64, which is no multiple of 4, for what none holds. */
static u64 payload_bytes(const adapter_entry *e) {
    u64 a = 4 * (u64)e->count, b = a;
    if (e->code == SPARSE) return 2 * a;
    if (e->code == LOW_RANK) return multiply(&a, e->dims[0]) && multiply(&b, e->dims[1]) ? plus(a, b) : TOO_MUCH;
    multiply_all(&a, e->dims, e->rank);
    multiply(&a, 4);
    return a;
}

static i32 check_range(const sb_adapter *a, const adapter_entry *e, i32 place) {
    u64 wanted = payload_bytes(e);
    if (e->bytes != wanted || wanted == TOO_MUCH) return sb_refuse(ADAPTER_LENGTH, place);
    if (e->at % ALIGNMENT) return sb_refuse(ADAPTER_ALIGNMENT, place);
    if (plus(e->at, e->bytes) > a->bytes) return sb_refuse(ADAPTER_RANGE, place);
    return e->at < a->data_at ? sb_refuse(ADAPTER_BEFORE_DATA, place) : 0;
}

static i32 check_entry(const sb_adapter *a, u32 index, i32 twice) {
    adapter_entry e;
    i32 place = (i32)index;
    adapter_entry_get(a, index, &e);
    if (e.code != a->code) return sb_refuse(ADAPTER_KIND, place);
    if (check_dims(&e, place) < 0) return -1;
    if (u64_at(a->file + a->directory_at + ENTRY * (u64)index + 56)) return sb_refuse(ADAPTER_ENTRY_RESERVED, place);
    if (check_numbers(&e, place) < 0) return -1;
    if (twice) return sb_refuse(ADAPTER_DUPLICATE, place);
    return check_range(a, &e, place);
}

i32 adapter_directory_check(const sb_adapter *a) {
    u64 *keys = sb_take(8 * (u64)a->entries);
    u32 *with = sb_take(4 * (u64)a->entries), twice = 0;
    i32 status = keys && with ? 0 : sb_refuse(ENGINE_MEMORY, NOWHERE);
    if (!status) {
        for (u32 i = 0; i < a->entries; i++) keys[i] = u64_at(a->file + a->directory_at + ENTRY * (u64)i), with[i] = i;
        status = sort_keys(keys, with, a->entries);
        twice = first_twice(keys, with, a->entries);
    }
    for (u32 i = 0; !status && i < a->entries; i++) status = check_entry(a, i, i == twice);
    sb_give(keys);
    sb_give(with);
    return status;
}

/* After every entry was read by itself. */
i32 adapter_spans_check(const sb_adapter *a) {
    static const span_reasons why = {ADAPTER_OVERLAP, ADAPTER_PADDING, ADAPTER_TRAILING};
    u64 *spans = sb_take(8 * (2 + (u64)a->entries));
    if (!spans) return sb_refuse(ENGINE_MEMORY, NOWHERE);
    spans[0] = span(0, a->meta_end);
    spans[1] = span(a->directory_at, a->directory_end);
    for (u32 i = 0; i < a->entries; i++) {
        adapter_entry e;
        adapter_entry_get(a, i, &e);
        spans[2 + i] = span(e.at, e.at + e.bytes);
    }
    i32 status = check_spans(a->file, a->bytes, spans, 2 + a->entries, &why);
    sb_give(spans);
    return status;
}
