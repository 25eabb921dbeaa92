/* Blocks of memory: one list of free ones in order of address, first fit, neighbours joined when they are given back. */
#include "engine.h"

typedef struct block {
    u64 size; /* header included, a multiple of 64 */
    struct block *next;
    u32 used; /* USED in a block that was taken: giving back anything else is ignored */
    u32 rest[12];
} block;
_Static_assert(sizeof(block) == 64, "a header is one line");

enum { LINE = 64, PAGE = 65536, USED = 0x5BB10C4B };

extern u8 __heap_base;
static block *free_blocks;
static u64 end; /* first byte that belongs to no block; 0 before the first call */

static u64 line_up(u64 bytes) { return (bytes + LINE - 1) & ~(u64)(LINE - 1); }

/* Adds fresh memory of at least `size` bytes at the end; the block is not on the list. */
static block *extend(u64 size) {
    if (!end) end = line_up((u64)(unsigned long)&__heap_base);
    u64 have = (u64)__builtin_wasm_memory_size(0) * PAGE;
    if (end + size > (u64)PAGE * 65536) return 0;
    if (end + size > have) {
        u64 pages = (end + size - have + PAGE - 1) / PAGE;
        if (__builtin_wasm_memory_grow(0, (unsigned long)pages) == (unsigned long)-1) return 0;
    }
    block *fresh = (block *)(unsigned long)end;
    fresh->size = size;
    end += size;
    return fresh;
}

static block *last_free(block **before) {
    block *b = free_blocks, *previous = 0;
    while (b && b->next) previous = b, b = b->next;
    *before = previous;
    return b;
}

/* The last free block, where it touches the end, is lengthened rather than left behind. */
static block *extend_last(u64 size) {
    block *before, *last = last_free(&before);
    if (!last || (u64)(unsigned long)last + last->size != end) return extend(size);
    if (!extend(size - last->size)) return 0;
    last->size = size;
    if (before) before->next = 0;
    else free_blocks = 0;
    return last;
}

void *sb_take(u64 bytes) {
    if (bytes > 0xFFFFFFFFull - 2 * LINE) return 0;
    u64 size = line_up(bytes ? bytes : 1) + sizeof(block);
    block **link = &free_blocks, *b = free_blocks;
    while (b && b->size < size) link = &b->next, b = b->next;
    if (b && b->size >= size + 2 * LINE) { /* the rest stays on the list */
        block *rest = (block *)((u8 *)b + size);
        rest->size = b->size - size;
        rest->next = b->next;
        rest->used = 0;
        *link = rest;
        b->size = size;
    } else if (b) {
        *link = b->next;
    } else if (!(b = extend_last(size))) {
        return 0;
    }
    b->used = USED;
    b->next = 0;
    return b + 1;
}

void sb_give(void *taken) {
    if (!taken || (unsigned long)taken % LINE || (u64)(unsigned long)taken < sizeof(block)) return;
    block *b = (block *)taken - 1, *previous = 0, *next = free_blocks;
    if ((u64)(unsigned long)taken > end || b->used != USED) return;
    b->used = 0;
    while (next && next < b) previous = next, next = next->next;
    b->next = next;
    if (next && (u8 *)b + b->size == (u8 *)next) b->size += next->size, b->next = next->next;
    if (!previous) free_blocks = b;
    else if ((u8 *)previous + previous->size == (u8 *)b) previous->size += b->size, previous->next = b->next;
    else previous->next = b;
}

/* One instruction each: the compiler is told that the machine can copy and fill. */
void *memcpy(void *to, const void *from, unsigned long bytes) { return __builtin_memcpy(to, from, bytes); }
void *memmove(void *to, const void *from, unsigned long bytes) { return __builtin_memmove(to, from, bytes); }
void *memset(void *to, int value, unsigned long bytes) { return __builtin_memset(to, value, bytes); }

int memcmp(const void *a, const void *b, unsigned long bytes) {
    const u8 *x = a, *y = b;
    for (unsigned long i = 0; i < bytes; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}
