/* Order: the sums of a hostile file's work stay n log n, whatever its keys are (a table of hashes would not promise that). */
#include "readers.h"

static i32 above(const u64 *keys, const u32 *with, u32 a, u32 b) {
    return keys[a] > keys[b] || (keys[a] == keys[b] && with && with[a] > with[b]);
}

static void swap(u64 *keys, u32 *with, u32 a, u32 b) {
    u64 key = keys[a];
    keys[a] = keys[b], keys[b] = key;
    if (!with) return;
    u32 other = with[a];
    with[a] = with[b], with[b] = other;
}

static void sift(u64 *keys, u32 *with, u32 root, u32 count) {
    for (u32 child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && above(keys, with, child + 1, child)) child++;
        if (!above(keys, with, child, root)) return;
        swap(keys, with, root, child);
    }
}

/* Heapsort (Williams, 1964), after a look whether there is anything to do. */
void sort_keys(u64 *keys, u32 *with, u32 count) {
    u32 sorted = 1;
    while (sorted < count && !above(keys, with, sorted - 1, sorted)) sorted++;
    if (sorted >= count) return;
    for (u32 root = count / 2; root--;) sift(keys, with, root, count);
    for (u32 last = count; --last;) {
        swap(keys, with, 0, last);
        sift(keys, with, 0, last);
    }
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
    sort_keys(spans, 0, count);
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
