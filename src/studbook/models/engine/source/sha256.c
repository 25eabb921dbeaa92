/* SHA-256 (FIPS 180-4): 64-byte blocks, big-endian words. */
#include "engine.h"

static const u32 K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const u32 START[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static u32 turn(u32 x, u32 by) { return x >> by | x << (32 - by); }

static u32 big_endian(const u8 *p) {
    u32 word;
    memcpy(&word, p, 4);
    return __builtin_bswap32(word);
}

static void mix(u32 h[8], const u8 *block) {
    u32 w[64], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], k = h[7];
    for (u32 i = 0; i < 16; i++) w[i] = big_endian(block + 4 * i);
    for (u32 i = 16; i < 64; i++) {
        u32 x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3) + w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
    }
    for (u32 i = 0; i < 64; i++) {
        u32 one = k + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
        u32 two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        k = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += k;
}

void sha256_begin(sb_hash *state) {
    memcpy(state->h, START, sizeof START);
    state->bytes = 0;
}

void sha256_update(sb_hash *state, const void *data, u64 bytes) {
    const u8 *at = data, *stop = at + bytes;
    u32 held = state->bytes & 63;
    state->bytes += bytes;
    if (held && held + bytes >= 64) {
        memcpy(state->block + held, at, 64 - held);
        mix(state->h, state->block);
        at += 64 - held;
        held = 0;
    }
    if (!held)
        for (; stop - at >= 64; at += 64) mix(state->h, at);
    memcpy(state->block + held, at, (unsigned long)(stop - at));
}

void sha256_end(sb_hash *state, u8 out[32]) {
    static const u8 padding[64] = {0x80};
    u64 bits = __builtin_bswap64(8 * state->bytes);
    u32 held = state->bytes & 63;
    sha256_update(state, padding, held < 56 ? 56 - held : 120 - held);
    sha256_update(state, &bits, 8);
    for (u32 i = 0; i < 8; i++) {
        u32 word = __builtin_bswap32(state->h[i]);
        memcpy(out + 4 * i, &word, 4);
    }
}

void sha256(const void *data, u64 bytes, u8 out[32]) {
    sb_hash state;
    sha256_begin(&state);
    sha256_update(&state, data, bytes);
    sha256_end(&state, out);
}

i32 SB_EXPORT(sb_sha256)(const u8 *data, u32 bytes, u8 *out) {
    sha256(data, bytes, out);
    return 0;
}
/* For streams; the state takes 104 bytes of memory, aligned to 8. */
void SB_EXPORT(sb_sha256_begin)(sb_hash *state) { sha256_begin(state); }
void SB_EXPORT(sb_sha256_update)(sb_hash *state, const u8 *data, u32 bytes) { sha256_update(state, data, bytes); }
void SB_EXPORT(sb_sha256_end)(sb_hash *state, u8 *out) { sha256_end(state, out); }
