/* Reading a package: adapters/reader.py and the checks of adapters/changes.py. Size, header and places, checksum, meta
 * block, directory and ranges, spans and padding, values, mask. Whether it fits a model is the business of stack.c. */
#include "readers.h"

#define UNITS 1000000000u

static i32 check_sparse(const u32 *indices, const adapter_entry *e, i32 place) {
    u64 elements;
    multiply_all(&elements, e->dims, e->rank);
    for (u32 i = 1; i < e->count; i++)
        if (indices[i] <= indices[i - 1]) return sb_refuse(ADAPTER_INDEX_ORDER, place);
    if (indices[e->count - 1] >= elements) return sb_refuse(ADAPTER_INDEX_RANGE, place);
    return all_finite((const f32 *)indices + e->count, e->count) ? 0 : sb_refuse(ADAPTER_NON_FINITE, place);
}

static i32 check_values(const sb_adapter *a) {
    for (u32 i = 0; i < a->entries; i++) {
        adapter_entry e;
        adapter_entry_get(a, i, &e);
        const u8 *payload = a->file + e.at;
        if (e.code == SPARSE) {
            if (check_sparse((const u32 *)payload, &e, (i32)i) < 0) return -1;
        } else if (!all_finite((const f32 *)payload, e.bytes / 4)) {
            return sb_refuse(ADAPTER_NON_FINITE, (i32)i);
        }
    }
    return 0;
}

/* Share kept / parameters as text: rounded to nine places, ties to even, without trailing zeros. Returns its bytes.
 * Payloads do not overlap, so `kept` is below 2^25. */
static u32 retention_text(u64 kept, u64 parameters, u8 out[11]) {
    u64 units = kept * UNITS / parameters, rest = kept * UNITS % parameters, other = parameters - rest;
    if (rest > other || (rest == other && units % 2)) units++;
    out[0] = (u8)('0' + units / UNITS);
    out[1] = '.';
    units %= UNITS;
    for (u32 i = 10; i > 1; i--, units /= 10) out[i] = (u8)('0' + units % 10);
    u32 bytes = 11;
    while (out[bytes - 1] == '0' && bytes > 2) bytes--;
    return bytes == 2 ? 1 : bytes;
}

static i32 check_mask(const sb_adapter *a) {
    u64 kept = 0;
    u8 found[32], share[11];
    sb_hash state;
    sha256_begin(&state);
    for (u32 i = 0; i < a->entries; i++) {
        adapter_entry e;
        adapter_entry_get(a, i, &e);
        kept += e.count;
        sha256_update(&state, a->file + e.at, 4 * (u64)e.count);
    }
    sha256_end(&state, found);
    u32 bytes = kept > a->parameters ? 0 : retention_text(kept, a->parameters, share);
    if (bytes != a->meta.retention.bytes || memcmp(share, a->meta.retention.at, bytes))
        return sb_refuse(ADAPTER_RETENTION, NOWHERE);
    return memcmp(found, a->meta.mask, 32) ? sb_refuse(ADAPTER_MASK, NOWHERE) : 0;
}

/* What comes out points into the file. */
i32 adapter_read(const u8 *file, u32 bytes, sb_adapter *a) {
    if (adapter_head_read(file, bytes, a) < 0) return -1;
    if (meta_read(file + 128, (u32)a->meta_end - 128, a->code == SPARSE, &a->meta) < 0) return -1;
    if (adapter_directory_check(a) < 0 || adapter_spans_check(a) < 0 || check_values(a) < 0) return -1;
    if (a->code == SPARSE && check_mask(a) < 0) return -1;
    sha256(file, bytes, a->sha);
    return 0;
}

i32 SB_EXPORT(sb_adapter_check)(const u8 *file, u32 bytes) {
    sb_adapter adapter;
    return adapter_read(file, bytes, &adapter);
}
