/* The two tokenizer sections, and ids back to text: models/tokenizers.py and the reading half of models/bpe.py. */
#include "readers.h"

enum {
    BOS = 256, EOS = 257, PAD = 258, UNK = 259,
    BTOK_BYTES = 28, BPE_HEAD = 36, TOKEN_HEAD = 8, MERGE = 16,
    MAX_DECODED_BYTES = 65536, MAX_JOINED_BYTES = 134217728,
};

static i32 check_head(const u8 *section) {
    if (u32_at(section + 4) != 1) return sb_refuse(TOKENIZER_VERSION, NOWHERE);
    if (u32_at(section + 8) < FIRST_WORD) return sb_refuse(TOKENIZER_VOCAB, NOWHERE);
    for (u32 i = 0; i < 4; i++)
        if (u32_at(section + 12 + 4 * i) != BOS + i) return sb_refuse(TOKENIZER_SPECIAL, NOWHERE);
    return 0;
}

static i32 check_bytes_section(const u8 *section, u32 bytes) {
    if (bytes < BTOK_BYTES) return sb_refuse(TOKENIZER_LENGTH, NOWHERE);
    if (bytes > BTOK_BYTES) return sb_refuse(TOKENIZER_TRAILING, NOWHERE);
    if (check_head(section) < 0) return -1;
    return u32_at(section + 8) != FIRST_WORD ? sb_refuse(TOKENIZER_VOCAB, NOWHERE) : 0;
}

/* One token record at `offset`; returns where the next one stands, or -1. */
static i32 read_word(sb_tokenizer *t, u32 bytes, u32 index, u32 offset) {
    if (bytes - offset < TOKEN_HEAD) return sb_refuse(TOKENIZER_TOKEN_LENGTH, (i32)index);
    u32 id = u32_at(t->section + offset), length = u32_at(t->section + offset + 4);
    offset += TOKEN_HEAD;
    if (id < FIRST_WORD || id - FIRST_WORD >= t->word_count) return sb_refuse(TOKENIZER_TOKEN_RANGE, (i32)index);
    u32 *word = t->words + 2 * (id - FIRST_WORD);
    if (!length) return sb_refuse(TOKENIZER_TOKEN_EMPTY, (i32)index);
    if (word[1]) return sb_refuse(TOKENIZER_TOKEN_DUPLICATE, (i32)index);
    if (length > bytes - offset) return sb_refuse(TOKENIZER_TOKEN_LENGTH, (i32)index);
    if (length > MAX_DECODED_BYTES) return sb_refuse(TOKENIZER_TOKEN_LONG, (i32)index);
    word[0] = offset;
    word[1] = length;
    return (i32)(offset + length);
}

u32 tokenizer_word(const sb_tokenizer *t, u32 id, u8 *one, const u8 **out) {
    *out = one;
    *one = (u8)id;
    if (id < BOS) return 1;
    if (id < FIRST_WORD || id - FIRST_WORD >= t->word_count) return 0;
    const u32 *word = t->words + 2 * (id - FIRST_WORD);
    *out = t->section + word[0];
    return word[1];
}

static i32 check_merge(const sb_tokenizer *t, u32 index, u64 *joined_bytes) {
    const u8 *merge = t->merges + MERGE * (u64)index, *left, *right, *joined;
    u8 l, r, j;
    u32 left_bytes = tokenizer_word(t, u32_at(merge), &l, &left);
    u32 right_bytes = tokenizer_word(t, u32_at(merge + 4), &r, &right);
    if (!left_bytes || !right_bytes) return sb_refuse(TOKENIZER_MERGE_RANGE, (i32)index);
    u32 output = u32_at(merge + 8), bytes = output < FIRST_WORD ? 0 : tokenizer_word(t, output, &j, &joined);
    if (!bytes) return sb_refuse(TOKENIZER_MERGE_OUTPUT, (i32)index);
    /* Comparing costs what the outputs are long: a few long words in millions of merges would take minutes. */
    *joined_bytes += bytes;
    if (*joined_bytes > MAX_JOINED_BYTES) return sb_refuse(TOKENIZER_MERGE_LONG, (i32)index);
    if (bytes != left_bytes + right_bytes || memcmp(joined, left, left_bytes) ||
        memcmp(joined + left_bytes, right, right_bytes))
        return sb_refuse(TOKENIZER_MERGE_BYTES, (i32)index);
    return 0;
}

/* Leaves the pairs sorted, for `encode`. */
static i32 check_merges(sb_tokenizer *t) {
    u64 joined_bytes = 0;
    u32 count = t->merge_count;
    for (u32 i = 0; i < count; i++) t->pairs[i] = u32_at(t->merges + MERGE * (u64)i + 12), t->which[i] = i;
    if (sort_keys(t->pairs, t->which, count) < 0) return -1;
    u32 rank_twice = first_twice(t->pairs, t->which, count);
    for (u32 i = 0; i < count; i++) {
        const u8 *merge = t->merges + MERGE * (u64)i;
        t->pairs[i] = (u64)u32_at(merge) << 32 | u32_at(merge + 4);
        t->which[i] = i;
    }
    if (sort_keys(t->pairs, t->which, count) < 0) return -1;
    u32 pair_twice = first_twice(t->pairs, t->which, count);
    for (u32 i = 0; i < count; i++) {
        if (check_merge(t, i, &joined_bytes) < 0) return -1;
        if (i == pair_twice) return sb_refuse(TOKENIZER_MERGE_PAIR, (i32)i);
        if (i == rank_twice) return sb_refuse(TOKENIZER_MERGE_RANK, (i32)i);
    }
    return 0;
}

static i32 take_merges(sb_tokenizer *t, u32 bytes, u32 offset) {
    u64 size = MERGE * (u64)t->merge_count;
    if (size > bytes - offset) return sb_refuse(TOKENIZER_MERGE_LENGTH, NOWHERE);
    if (offset + size != bytes) return sb_refuse(TOKENIZER_TRAILING, NOWHERE);
    t->merges = t->section + offset;
    t->pairs = sb_take(8 * (u64)t->merge_count);
    t->which = sb_take(4 * (u64)t->merge_count);
    if (!t->pairs || !t->which) return sb_refuse(ENGINE_MEMORY, NOWHERE);
    return check_merges(t);
}

static i32 read_pairs_section(sb_tokenizer *t, u32 bytes) {
    const u8 *section = t->section;
    if (bytes < BPE_HEAD) return sb_refuse(TOKENIZER_LENGTH, NOWHERE);
    if (check_head(section) < 0) return -1;
    u32 count = u32_at(section + 28);
    if (count != u32_at(section + 8) - FIRST_WORD) return sb_refuse(TOKENIZER_TOKEN_COUNT, NOWHERE);
    if ((u64)count * (TOKEN_HEAD + 1) > bytes - BPE_HEAD) return sb_refuse(TOKENIZER_LENGTH, NOWHERE);
    t->words = sb_take(8 * (u64)count);
    if (!t->words) return sb_refuse(ENGINE_MEMORY, NOWHERE);
    memset(t->words, 0, 8 * (unsigned long)count);
    t->word_count = count;
    t->merge_count = u32_at(section + 32);
    i32 offset = BPE_HEAD;
    for (u32 i = 0; i < count; i++)
        if ((offset = read_word(t, bytes, i, (u32)offset)) < 0) return -1;
    return take_merges(t, bytes, (u32)offset);
}

i32 tokenizer_open(const u8 *section, u32 bytes, sb_tokenizer **out) {
    i32 pairs = bytes >= 4 && !memcmp(section, "BPE1", 4);
    if (!pairs && (bytes < 4 || memcmp(section, "BTOK", 4))) return sb_refuse(TOKENIZER_MAGIC, NOWHERE);
    sb_tokenizer *t = sb_take(sizeof *t);
    if (!t) return sb_refuse(ENGINE_MEMORY, NOWHERE);
    memset(t, 0, sizeof *t);
    t->section = section;
    if ((pairs ? read_pairs_section(t, bytes) : check_bytes_section(section, bytes)) < 0) {
        tokenizer_close(t);
        return -1;
    }
    *out = t;
    return 0;
}

void tokenizer_close(sb_tokenizer *t) {
    if (!t) return;
    sb_give(t->words);
    sb_give(t->pairs);
    sb_give(t->which);
    sb_give(t);
}

/* Text of ids: begin, end and padding are skipped, unknown becomes `?`. Returns its bytes; only the first `capacity` are
 * written, so a caller that gets more asks again with more room. */
i32 SB_EXPORT(sb_decode)(const u32 *ids, u32 count, u8 *out, u32 capacity) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, NOWHERE);
    utf8 text = UTF8_START;
    u32 bytes = 0;
    for (u32 i = 0; i < count; i++) {
        const u8 *word;
        u8 one;
        if (ids[i] == BOS || ids[i] == EOS || ids[i] == PAD) continue;
        u32 length = tokenizer_word(sb_current->tokenizer, ids[i] == UNK ? '?' : ids[i], &one, &word);
        if (!length) return sb_refuse(TOKENIZER_ID, (i32)i);
        if (length > MAX_DECODED_BYTES - bytes) return sb_refuse(TOKENIZER_LIMIT, (i32)i);
        utf8_feed(&text, word, length);
        if (bytes < capacity) memcpy(out + bytes, word, length < capacity - bytes ? length : capacity - bytes);
        bytes += length;
    }
    return utf8_whole(&text) ? (i32)bytes : sb_refuse(TOKENIZER_UTF8, NOWHERE);
}
