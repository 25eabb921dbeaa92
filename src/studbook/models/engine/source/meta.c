/* The meta block of a package: adapters/meta.py, rule for rule. */
#include "readers.h"

enum { MAX_DIGESTS = 16, NAMES = 5 };

static i32 is_text(json j, const char *wanted) {
    u32 bytes = 0;
    while (wanted[bytes]) bytes++;
    return j.bytes == bytes && !memcmp(j.at, wanted, bytes);
}

/* What stands between quotation marks; empty for what is no text, and no pattern here takes the empty text. */
static json inside(json j) {
    return j.bytes >= 2 && *j.at == '"' ? (json){j.at + 1, j.bytes - 2} : (json){j.at, 0};
}

static i32 small(u8 c) { return c >= 'a' && c <= 'z'; }
static i32 digit(u8 c) { return c >= '0' && c <= '9'; }
static i32 letter(u8 c) { return small(c) || (c >= 'A' && c <= 'Z'); }

static u32 hex(u8 c) { return digit(c) ? (u32)(c - '0') : c >= 'a' && c <= 'f' ? (u32)(c - 'a' + 10) : 16; }

/* 64 lowercase hexadecimal digits; `out` may be 0. */
static i32 digest(json j, u8 *out) {
    json t = inside(j);
    if (t.bytes != 64) return 0;
    for (u32 i = 0; i < 32; i++) {
        u32 high = hex(t.at[2 * i]), low = hex(t.at[2 * i + 1]);
        if (high > 15 || low > 15) return 0;
        if (out) out[i] = (u8)(16 * high + low);
    }
    return 1;
}

static i32 licence(json j) {
    json t = inside(j);
    if (!t.bytes || t.bytes > 120 || !(letter(*t.at) || digit(*t.at))) return 0;
    for (u32 i = 1; i < t.bytes; i++) {
        u8 c = t.at[i];
        if (!letter(c) && !digit(c) && c != '.' && c != '+' && c != '-') return 0;
    }
    return 1;
}

static i32 digest_name(json j) {
    json t = inside(j);
    if (!t.bytes || t.bytes > 40) return 0;
    for (u32 i = 0; i < t.bytes; i++)
        if (!small(t.at[i]) && !digit(t.at[i]) && t.at[i] != '_') return 0;
    return 1;
}

static i32 rule(json j) {
    json t = inside(j);
    if (!t.bytes || t.bytes > 64 || !(small(*t.at) || digit(*t.at))) return 0;
    for (u32 i = 1; i < t.bytes; i++) {
        u8 c = t.at[i];
        if (!small(c) && !digit(c) && c != '.' && c != '/' && c != '-') return 0;
    }
    return 1;
}

/* 0, 1, or 0. and up to nine digits of which the last is not 0. */
static i32 retention(json t) {
    if (t.bytes == 1) return *t.at == '0' || *t.at == '1';
    if (t.bytes < 3 || t.bytes > 11 || t.at[0] != '0' || t.at[1] != '.' || t.at[t.bytes - 1] == '0') return 0;
    for (u32 i = 2; i < t.bytes; i++)
        if (!digit(t.at[i])) return 0;
    return 1;
}

static i32 source_kind(json j) { return is_text(j, "\"task-delta\"") || is_text(j, "\"trained\"") || is_text(j, "\"peft\""); }

static i32 source(json j) {
    json key, value;
    u32 digests = 0, kinds = 0;
    if (*j.at != '{') return 0;
    while (json_member(&j, &key, &value)) {
        i32 kind = is_text(key, "\"kind\"");
        if (kind ? !source_kind(value) : !digest_name(key) || !digest(value, 0)) return 0;
        if (kind) kinds++;
        else digests++;
    }
    return kinds == 1 && digests >= 1 && digests <= MAX_DIGESTS;
}

/* Fills `found` with the values of exactly these keys, in their canonical order; 0 if any is missing or unknown. */
static i32 exactly(json object, const char *const *names, u32 count, json *found) {
    json key, value;
    u32 seen = 0;
    if (*object.at != '{') return 0;
    while (json_member(&object, &key, &value)) {
        if (seen == count || !is_text(key, names[seen])) return 0;
        found[seen++] = value;
    }
    return seen == count;
}

static i32 mask(json j, u8 *out) {
    static const char *const names[] = {"\"rule\"", "\"seed\"", "\"sha256\""};
    json found[3];
    if (!exactly(j, names, 3, found) || !rule(found[0]) || !digest(found[2], out)) return 0;
    return is_text(found[1], "null") || digit(*found[1].at);
}

i32 meta_read(const u8 *text, u32 bytes, i32 sparse, adapter_meta *out) {
    static const char *const dense_names[] = {"\"base_sha256\"", "\"licence\"", "\"source\""};
    static const char *const sparse_names[] = {"\"base_sha256\"", "\"licence\"", "\"mask\"", "\"retention\"", "\"source\""};
    json found[NAMES], whole = {text, bytes};
    if (!json_canonical(text, bytes)) return sb_refuse(ADAPTER_META_JSON, NOWHERE);
    if (!exactly(whole, sparse ? sparse_names : dense_names, sparse ? 5 : 3, found)) return sb_refuse(ADAPTER_META_KEYS, NOWHERE);
    if (!digest(found[0], out->base)) return sb_refuse(ADAPTER_META_BASE, NOWHERE);
    if (!licence(found[1])) return sb_refuse(ADAPTER_META_LICENCE, NOWHERE);
    if (!source(found[sparse ? 4 : 2])) return sb_refuse(ADAPTER_META_SOURCE, NOWHERE);
    if (!sparse) return 0;
    out->retention = inside(found[3]);
    if (!retention(out->retention)) return sb_refuse(ADAPTER_META_RETENTION, NOWHERE);
    return mask(found[2], out->mask) ? 0 : sb_refuse(ADAPTER_META_MASK, NOWHERE);
}
