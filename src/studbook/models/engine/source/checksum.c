/* The checksum of containers and packages, and the FNV-1a hash of tensor names (Fowler, Noll, Vo): models/checksum.py. */
#include "readers.h"

#define PRIME 0x100000001B3ull

static u64 mix(u64 state, const u8 *file, u64 start, u64 stop) {
    for (u64 i = start; i < stop; i++) {
        state ^= (file ? file[i] : 0) ^ (i & 255) << 8;
        state = (state << 5 | state >> 59) * PRIME;
    }
    return state;
}

/* Of a whole file of at least zero_at + 8 bytes, whose own field reads as zero. */
u64 checksum64(const u8 *file, u64 bytes, u64 zero_at) {
    u64 state = mix(FNV_START, file, 0, zero_at);
    state = mix(state, 0, zero_at, zero_at + 8);
    state = mix(state, file, zero_at + 8, bytes);
    return state ? state : 1;
}

u64 fnv1a64(u64 state, const void *text, u32 bytes) {
    const u8 *p = text;
    for (u32 i = 0; i < bytes; i++) state = (state ^ p[i]) * PRIME;
    return state;
}
