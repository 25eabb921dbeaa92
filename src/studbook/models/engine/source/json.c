/* Canonical JSON (RFC 8785), read strictly: one spelling of every value, so text that passes can be compared as bytes.
 * Numbers are whole and below 2^53, and nothing is nested more than 32 deep. */
#include "readers.h"

enum { DEEPEST = 32 };

typedef struct {
    const u8 *at, *stop;
} cursor;

static i32 next_is(cursor *c, u8 byte) {
    if (c->at == c->stop || *c->at != byte) return 0;
    c->at++;
    return 1;
}

/* The character of an escape that has no shorter spelling: quotation mark, backslash, or below U+0020; 0x80 for any other. */
static u32 escaped(cursor *c) {
    static const char LETTERS[] = "\"\\bfnrt", MEANT[] = "\"\\\b\f\n\r\t";
    for (u32 i = 0; LETTERS[i]; i++)
        if (next_is(c, (u8)LETTERS[i])) return (u8)MEANT[i];
    if (c->stop - c->at < 5 || memcmp(c->at, "u00", 3)) return 0x80;
    u8 high = c->at[3], low = c->at[4];
    if ((high != '0' && high != '1') || !((low >= '0' && low <= '9') || (low >= 'a' && low <= 'f'))) return 0x80;
    u32 value = (u32)(high - '0') * 16 + (u32)(low <= '9' ? low - '0' : low - 'a' + 10);
    c->at += 5;
    return value == 8 || value == 9 || value == 10 || value == 12 || value == 13 ? 0x80 : value;
}

static i32 text(cursor *c) {
    if (!next_is(c, '"')) return 0;
    while (c->at < c->stop) {
        u8 byte = *c->at++;
        if (byte == '"') return 1;
        if (byte < 0x20 || (byte == '\\' && escaped(c) == 0x80)) return 0;
    }
    return 0;
}

/* One character of text that passed, as a number that orders as its UTF-16 code units do: what needs two of them stands
 * before U+E000. 0 at the end, which no key's character is below. */
static u32 unit(cursor *c) {
    if (*c->at == '"') return 0;
    u8 byte = *c->at++;
    if (byte == '\\') return 1 + escaped(c);
    u32 more = byte < 0x80 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3, value = more ? byte & (0x3Fu >> more) : byte;
    for (; more; more--) value = value << 6 | (*c->at++ & 0x3F);
    return 1 + (value >= 0xE000 && value <= 0xFFFF ? value + 0x200000 : value);
}

static i32 rises(cursor a, cursor b) {
    u32 x, y;
    a.at++, b.at++;
    do x = unit(&a), y = unit(&b);
    while (x && x == y);
    return x < y;
}

static i32 number(cursor *c) {
    u64 value = 0;
    i32 minus = next_is(c, '-');
    const u8 *first = c->at;
    for (; c->at < c->stop && *c->at >= '0' && *c->at <= '9' && c->at - first < 17; c->at++) value = 10 * value + (*c->at - '0');
    if (c->at == first || value > 0x1FFFFFFFFFFFFF) return 0;
    return value ? *first != '0' : !minus && c->at == first + 1;
}

static i32 word(cursor *c, const char *wanted, u32 bytes) {
    if ((u64)(c->stop - c->at) < bytes || memcmp(c->at, wanted, bytes)) return 0;
    c->at += bytes;
    return 1;
}

static i32 value(cursor *c, u32 depth);

static i32 members(cursor *c, u32 depth) {
    cursor last = {0, 0};
    if (next_is(c, '}')) return 1;
    do {
        cursor key = *c;
        if (!text(c) || !next_is(c, ':') || !value(c, depth)) return 0;
        if (last.at && !rises(last, key)) return 0;
        last = key;
    } while (next_is(c, ','));
    return next_is(c, '}');
}

static i32 elements(cursor *c, u32 depth) {
    if (next_is(c, ']')) return 1;
    do {
        if (!value(c, depth)) return 0;
    } while (next_is(c, ','));
    return next_is(c, ']');
}

static i32 value(cursor *c, u32 depth) {
    if (c->at == c->stop) return 0;
    switch (*c->at) {
    case '{': return c->at++, depth < DEEPEST && members(c, depth + 1);
    case '[': return c->at++, depth < DEEPEST && elements(c, depth + 1);
    case '"': return text(c);
    case 't': return word(c, "true", 4);
    case 'f': return word(c, "false", 5);
    case 'n': return word(c, "null", 4);
    default: return number(c);
    }
}

i32 json_canonical(const u8 *data, u32 bytes) {
    cursor c = {data, data + bytes};
    utf8 state = UTF8_START;
    utf8_feed(&state, data, bytes);
    return utf8_whole(&state) && value(&c, 0) && c.at == c.stop;
}

static json piece(const u8 *from, const u8 *to) { return (json){from, (u32)(to - from)}; }

i32 json_member(json *object, json *key, json *out) {
    cursor c = {object->at + 1, object->at + object->bytes};
    if (*c.at == '}') return 0;
    const u8 *start = c.at;
    text(&c);
    *key = piece(start, c.at);
    start = ++c.at;
    value(&c, 0);
    *out = piece(start, c.at);
    /* What is left begins at the comma, which stands for the opening brace, or is the closing one alone. */
    const u8 *rest = *c.at == ',' ? c.at : c.at - 1;
    *object = piece(rest, c.stop);
    return 1;
}
