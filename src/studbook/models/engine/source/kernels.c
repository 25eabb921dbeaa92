/* One token: every row in turn, so that the weights are one stream. Several: panels of 4 rows and of 2 tokens are laid out in
 * the order in which they are read; what is loaded is used several times, and eight sums run side by side. */
#include "kernels.h"

enum { ROWS = 4, TOKENS = 2, WORTH = 4 /* tokens from which laying out pays */ };

static struct {
    f32 *rows, *tokens; /* one panel of rows; all panels of a block's tokens */
    u32 widest;
} panels;

static u64 stepped(u32 n) { return ((u64)n + 15) / 16 * 16; }

i32 kernels_prepare(u32 n) {
    if (panels.rows && n <= panels.widest) return 0;
    f32 *fresh = sb_take(4 * (ROWS + BLOCK) * stepped(n));
    if (!fresh) return sb_refuse(ENGINE_MEMORY, -1);
    sb_give(panels.rows);
    panels.rows = fresh;
    panels.tokens = fresh + ROWS * stepped(n);
    panels.widest = n;
    return 0;
}

void kernels_close(void) {
    sb_give(panels.rows);
    panels.rows = 0;
}

INLINE v4 load_from(const f32 *p, u32 i, u32 n) { return i + 4 <= n ? load(p + i) : i < n ? load_part(p + i, n - i) : (v4){0}; }
INLINE f32 total(v4 a, v4 b, v4 c, v4 d) { return lanes((a + c) + (b + d)); }

static f32 dot(const f32 *w, const f32 *x, u32 n) {
    v4 sums[4] = {0};
    u32 i = 0;
    for (; i + 16 <= n; i += 16)
        for (u32 k = 0; k < 4; k++) sums[k] += load(w + i + 4 * k) * load(x + i + 4 * k);
    if (i < n)
        for (u32 k = 0; k < 4; k++) sums[k] += load_from(w, i + 4 * k, n) * load_from(x, i + 4 * k, n);
    return total(sums[0], sums[1], sums[2], sums[3]);
}

/* (quarter, step, row, 4): a quarter holds every fourth vector of each row, padded with zeros. */
INLINE void lay_out(u32 rows, f32 *panel, const f32 *from, u32 stride, u32 n) {
    const u32 end = (u32)stepped(n);
    for (u32 quarter = 0; quarter < 16; quarter += 4)
        for (u32 i = quarter; i < end; i += 16)
            for (u32 r = 0; r < rows; r++, panel += 4) save(panel, load_from(from + r * stride, i, n));
}

/* One quarter of the sums of a tile. */
INLINE void accumulate(v4 *out, const f32 *rows, const f32 *tokens, u32 steps) {
    v4 sums[TOKENS * ROWS] = {0};
#pragma clang loop unroll_count(2)
    for (u32 step = 0; step < steps; step++, rows += 4 * ROWS, tokens += 4 * TOKENS)
        for (u32 t = 0; t < TOKENS; t++)
            for (u32 r = 0; r < ROWS; r++) sums[t * ROWS + r] += load(rows + 4 * r) * load(tokens + 4 * t);
    for (u32 k = 0; k < TOKENS * ROWS; k++) out[k] = sums[k];
}

static void tile(f32 *out, u32 out_stride, const f32 *tokens, u32 steps) {
    v4 sums[4][TOKENS * ROWS];
    for (u32 k = 0; k < 4; k++)
        accumulate(sums[k], panels.rows + 4 * ROWS * steps * k, tokens + 4 * TOKENS * steps * k, steps);
    for (u32 t = 0; t < TOKENS; t++)
        for (u32 r = 0; r < ROWS; r++) {
            const u32 k = t * ROWS + r;
            out[t * out_stride + r] = total(sums[0][k], sums[1][k], sums[2][k], sums[3][k]);
        }
}

void product(f32 *out, u32 out_stride, const f32 *w, u32 rows, u32 n, const f32 *x, u32 x_stride, u32 tokens) {
    const u32 wide = (u32)stepped(n), paired = tokens < WORTH ? 0 : tokens - tokens % TOKENS;
    const u32 tiled = paired ? rows - rows % ROWS : 0;
    for (u32 t = 0; t < paired; t += TOKENS) lay_out(TOKENS, panels.tokens + t * wide, x + t * x_stride, x_stride, n);
    for (u32 r = 0; r < tiled; r += ROWS) {
        lay_out(ROWS, panels.rows, w + (u64)r * n, n, n);
        for (u32 t = 0; t < paired; t += TOKENS) tile(out + t * out_stride + r, out_stride, panels.tokens + t * wide, wide / 16);
    }
    for (u32 t = 0; t < tokens; t++)
        for (u32 r = t < paired ? tiled : 0; r < rows; r++) out[t * out_stride + r] = dot(w + (u64)r * n, x + t * x_stride, n);
}
