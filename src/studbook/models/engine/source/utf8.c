/* UTF-8 as RFC 3629 has it: nothing longer than it need be, no halves of surrogate pairs, nothing above U+10FFFF. */
#include "readers.h"

static void lead(utf8 *s, u8 byte) {
    if (byte < 0x80) return;
    s->missing = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
    s->bad |= byte < 0xC2 || byte > 0xF4;
    if (byte == 0xE0) s->low = 0xA0;
    if (byte == 0xED) s->high = 0x9F;
    if (byte == 0xF0) s->low = 0x90;
    if (byte == 0xF4) s->high = 0x8F;
}

void utf8_feed(utf8 *s, const u8 *text, u64 bytes) {
    for (u64 i = 0; i < bytes && !s->bad; i++) {
        if (!s->missing) {
            lead(s, text[i]);
            continue;
        }
        s->bad = text[i] < s->low || text[i] > s->high;
        s->low = 0x80, s->high = 0xBF;
        s->missing--;
    }
}
