/* Order. By digits, so that the work grows with a hostile file's length alone, whatever its keys are; a table of hashes would
 * not promise that. */
#include "readers.h"

static i32 in_order(const u64 *keys, u32 count) {
    u32 i = 1;
    while (i < count && keys[i - 1] <= keys[i]) i++;
    return i >= count;
}

/* One pass over a byte of all keys; 0 if it is the same in all of them. */
static i32 spread(const u64 *keys, const u32 *with, u32 count, u32 shift, u64 *out, u32 *out_with) {
    u32 start[257] = {0};
    for (u32 i = 0; i < count; i++) start[(keys[i] >> shift & 255) + 1]++;
    if (start[(keys[0] >> shift & 255) + 1] == count) return 0;
    for (u32 digit = 0; digit < 256; digit++) start[digit + 1] += start[digit];
    for (u32 i = 0; i < count; i++) {
        u32 at = start[keys[i] >> shift & 255]++;
        out[at] = keys[i];
        if (with) out_with[at] = with[i];
    }
    return 1;
}

/* Least significant byte first; every pass leaves equal keys in the order they had. */
i32 sort_keys(u64 *keys, u32 *with, u32 count) {
    if (in_order(keys, count)) return 0;
    u64 *room = sb_take(12 * (u64)count), *from = keys, *to = room;
    if (!room) return sb_refuse(ENGINE_MEMORY, NOWHERE);
    u32 *from_with = with, *to_with = (u32 *)(room + count);
    for (u32 shift = 0; shift < 64; shift += 8) {
        if (!spread(from, from_with, count, shift, to, to_with)) continue;
        u64 *keys_before = from;
        u32 *with_before = from_with;
        from = to, to = keys_before;
        from_with = to_with, to_with = with_before;
    }
    if (from != keys) {
        memcpy(keys, from, 8 * (unsigned long)count);
        if (with) memcpy(with, from_with, 4 * (unsigned long)count);
    }
    sb_give(room);
    return 0;
}

u32 find_key(const u64 *keys, u32 count, u64 key) {
    u32 low = 0, high = count;
    while (low < high) {
        u32 middle = low + (high - low) / 2;
        if (keys[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low < count && keys[low] == key ? low : count;
}

u32 first_twice(const u64 *keys, const u32 *with, u32 count) {
    u32 first = count;
    for (u32 i = 1; i < count; i++)
        if (keys[i] == keys[i - 1] && with[i] < first) first = with[i];
    return first;
}

static i32 zeros(const u8 *file, u64 start, u64 stop) {
    u8 any = 0;
    for (u64 i = start; i < stop; i++) any |= file[i];
    return !any;
}

i32 check_spans(const u8 *file, u64 bytes, u64 *spans, u32 count, const span_reasons *why) {
    u64 end = 0;
    if (sort_keys(spans, 0, count) < 0) return -1;
    for (u32 i = 0; i < count; i++) {
        u64 start = spans[i] >> 32;
        if (start < end) return sb_refuse(why->overlap, NOWHERE);
        if (!zeros(file, end, start)) return sb_refuse(why->padding, NOWHERE);
        end = spans[i] & 0xFFFFFFFF;
    }
    u64 last = align_up(end);
    if (!zeros(file, end, last < bytes ? last : bytes)) return sb_refuse(why->padding, NOWHERE);
    return bytes > last ? sb_refuse(why->trailing, NOWHERE) : 0;
}

i32 all_finite(const f32 *values, u64 count) {
    u32 bad = 0;
    for (u64 i = 0; i < count; i++) bad |= !is_finite(values[i]);
    return !bad;
}
