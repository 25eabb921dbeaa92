/* What the readers of containers, tokenizer sections and packages share. Offsets and lengths are u64 and their sums and
 * products end at the largest u64 instead of wrapping round; no number from a file sizes anything before it has been held
 * against the length of the file. */
#ifndef SB_READERS_H
#define SB_READERS_H

#include "engine.h"

enum { ALIGNMENT = 64, MAX_FILE_BYTES = 134217728, FIRST_WORD = 260, NOWHERE = -1 };
#define TOO_MUCH 0xFFFFFFFFFFFFFFFFull

static inline u32 u32_at(const u8 *p) {
    u32 value;
    memcpy(&value, p, 4);
    return value;
}

static inline u64 u64_at(const u8 *p) {
    u64 value;
    memcpy(&value, p, 8);
    return value;
}

static inline f32 f32_at(const u8 *p) {
    f32 value;
    memcpy(&value, p, 4);
    return value;
}

static inline u64 plus(u64 a, u64 b) { return a > TOO_MUCH - b ? TOO_MUCH : a + b; }
/* 0 where no u64 holds the product, which is then the largest. */
static inline i32 multiply(u64 *a, u32 by) {
    u64 low = (*a & 0xFFFFFFFF) * by, high = (*a >> 32) * by + (low >> 32);
    *a = high >> 32 ? TOO_MUCH : high << 32 | (low & 0xFFFFFFFF);
    return !(high >> 32);
}
static inline i32 multiply_all(u64 *product, const u32 *dims, u32 rank) {
    *product = 1;
    for (u32 d = 0; d < rank; d++)
        if (!multiply(product, dims[d])) return 0;
    return 1;
}
/* The next multiple of 64; of numbers that were held against the length of a file. */
static inline u64 align_up(u64 offset) { return (offset + ALIGNMENT - 1) & ~(u64)(ALIGNMENT - 1); }
static inline int is_finite(f32 value) { return __builtin_fabsf(value) <= 3.4028234663852886e38f; }
/* exports.c: why the last refusal was made */
const char *sb_reason(void);

/* checksum.c */
u64 checksum64(const u8 *file, u64 bytes, u64 zero_at);
u64 fnv1a64(u64 state, const void *text, u32 bytes);
#define FNV_START 0xCBF29CE484222325ull

/* sort.c: keys ascending, equal ones as they stood; `with` goes with them, or is 0. -1 without memory. */
i32 sort_keys(u64 *keys, u32 *with, u32 count);
/* First place at which `key` stands among sorted keys, or `count`. */
u32 find_key(const u64 *keys, u32 count, u64 key);
/* The smallest of `with` that repeats an earlier one's key, or `count`; keys that stood with 0, 1, 2, ... and were sorted. */
u32 first_twice(const u64 *keys, const u32 *with, u32 count);
/* Ranges of a file as (first byte << 32 | byte after the last): none overlap, the gaps are zero, nothing comes after. */
static inline u64 span(u64 start, u64 stop) { return start << 32 | stop; }
typedef struct {
    const char *overlap, *padding, *trailing;
} span_reasons;
i32 check_spans(const u8 *file, u64 bytes, u64 *spans, u32 count, const span_reasons *why);

/* utf8.c: one byte after the other */
typedef struct {
    u8 missing, low, high, bad;
} utf8;
#define UTF8_START ((utf8){0, 0x80, 0xBF, 0})
void utf8_feed(utf8 *state, const u8 *text, u64 bytes);
static inline i32 utf8_whole(const utf8 *state) { return !state->bad && !state->missing; }

/* slm_layout.c */
typedef struct {
    sb_shape shape;
    u32 length;
    u64 tokenizer_at, tokenizer_end, directory_at, directory_end, data_at;
} slm_header;
typedef struct {
    u64 name_hash, elements, at, bytes, scale_at, scale_bytes;
    u32 dtype, rank, dims[4], block;
} slm_entry;
i32 slm_header_read(const u8 *file, u32 bytes, slm_header *out);
i32 slm_entry_read(const u8 *file, u32 bytes, const slm_header *header, u32 index, slm_entry *out);
i32 slm_spans_check(const u8 *file, u32 bytes, const slm_header *header);

/* shape.c: tensor `place` of a shape, in canonical order */
typedef struct {
    u64 name_hash;
    u32 rank, dims[4];
} slm_spec;
i32 shape_check(const sb_shape *shape, u32 special);
u64 shape_tensors(const sb_shape *shape);
void shape_spec(const sb_shape *shape, u32 place, slm_spec *out);
void shape_layout(const sb_shape *shape, u8 out[32]);
#define OUTPUT_NAME "output.weight"

/* stored.c: one tensor as it lies in a container */
i32 stored_check(const sb_tensor *tensor, i32 place);
void stored_decode(const sb_tensor *tensor, f32 *out);
void stored_wide(const sb_tensor *tensor, u64 start, u32 count, f64 *out);

/* tokenizer.c: a section that was checked; it points into the file */
typedef struct {
    const u8 *section;
    u32 *words;        /* offset and length of every word from id 260 on */
    u32 word_count, merge_count;
    const u8 *merges;  /* 16 bytes each: left, right, output, rank */
    u64 *pairs;        /* left << 32 | right, ascending */
    u32 *which;        /* the merge of each */
} sb_tokenizer;
i32 tokenizer_open(const u8 *section, u32 bytes, sb_tokenizer **out);
void tokenizer_close(sb_tokenizer *tokenizer);
/* Number of bytes of a byte's or a word's id, and where they stand; `one` lends the place of a byte. */
u32 tokenizer_word(const sb_tokenizer *tokenizer, u32 id, u8 *one, const u8 **out);

/* json.c: whether text is canonical JSON (RFC 8785) without fractions, nested 32 deep at most; then walking over it */
i32 json_canonical(const u8 *text, u32 bytes);
typedef struct {
    const u8 *at;
    u32 bytes;
} json;
/* Members of an object one by one; `object` moves on, 0 when there is none left. Text keeps its quotation marks. */
i32 json_member(json *object, json *key, json *value);

/* meta.c */
typedef struct {
    u8 base[32], mask[32];
    json retention; /* without quotation marks */
} adapter_meta;
i32 meta_read(const u8 *text, u32 bytes, i32 sparse, adapter_meta *out);

/* adapter_layout.c and adapter.c */
enum { DENSE = 1, SPARSE = 2, LOW_RANK = 3 };
typedef struct {
    const u8 *file, *layout, *tokenizer;
    u32 bytes, code, flags, tensors, entries;
    u64 parameters, meta_end, directory_at, directory_end, data_at;
    adapter_meta meta;
    u8 sha[32];
} sb_adapter;
typedef struct {
    u64 name_hash, at, bytes;
    u32 code, rank, dims[4], count;
    f32 alpha;
} adapter_entry;
i32 adapter_head_read(const u8 *file, u32 bytes, sb_adapter *out);
i32 adapter_directory_check(const sb_adapter *adapter);
void adapter_entry_get(const sb_adapter *adapter, u32 index, adapter_entry *out);
i32 adapter_spans_check(const sb_adapter *adapter);
i32 adapter_read(const u8 *file, u32 bytes, sb_adapter *out);

/* fusion.c: what an entry makes of a tensor; from `resident` values, or from storage where it is 0. Not finite: 0. */
i32 fuse(const sb_adapter *adapter, const adapter_entry *entry, const sb_tensor *tensor, const f32 *resident, f32 *out);

#endif
