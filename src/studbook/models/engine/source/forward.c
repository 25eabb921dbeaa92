/* Pre-norm decoder: RMSNorm (Zhang and Sennrich 1910.07467), rotary positions on adjacent pairs (Su et al. 2104.09864),
 * grouped-query attention (Ainslie et al. 2305.13245), SwiGLU (Shazeer 2002.05202). All in f32, sums in the order of maths.h. */
#include "forward.h"

enum { EMBEDDING = 0, ATTN_NORM = 0, WQ, WK, WV, WO, FFN_NORM, W1, W3, W2, PARTS };

/* Room for one block. Rows are padded to whole vectors. */
static struct {
    f32 *x, *normed, *q, *k, *v, *mixed, *gate, *up, *query, *scores;
    f32 *all;         /* the one block of memory they lie in */
    u32 positions;    /* that `scores` has room for */
    f32 *turns;       /* (position, pair, 2): cosine and sine */
    u32 turned;       /* positions in it */
} work;

static const f32 *part(u32 layer, u32 index) { return sb_values(sb_current->tensors + 1 + PARTS * layer + index); }
static const f32 *final_norm(void) { return sb_values(sb_current->tensors + 1 + PARTS * sb_current->shape.layers); }
static const f32 *output(void) {
    const u32 at = sb_current->shape.tied ? EMBEDDING : 2 + PARTS * sb_current->shape.layers;
    return sb_values(sb_current->tensors + at);
}
u32 hidden_stride(void) { return padded(sb_current->shape.hidden); }
static u32 width(void) { return padded(sb_current->shape.head_dim); }

static f32 *cached(const sb_cache *c, u32 layer, u32 values, u32 head) {
    const sb_shape *s = &sb_current->shape;
    return c->stored + (((u64)layer * 2 + values) * s->kv_heads + head) * c->positions * width();
}

/* Angles position * theta^(-2i / head_dim), in f64; cosine and sine rounded once. */
static i32 prepare_turns(u32 positions) {
    const sb_shape *s = &sb_current->shape;
    if (positions <= work.turned) return 0;
    f32 *turns = sb_take((u64)positions * s->head_dim * 4);
    if (!turns) return sb_refuse(ENGINE_MEMORY, -1);
    for (u32 i = 0; i < s->head_dim / 2; i++) {
        const f64 rate = exp64(-2.0 * i / s->head_dim * log64(s->theta));
        for (u32 p = 0; p < positions; p++) {
            f64 sine, cosine;
            turn64(p * rate, &sine, &cosine);
            turns[p * s->head_dim + 2 * i] = (f32)cosine;
            turns[p * s->head_dim + 2 * i + 1] = (f32)sine;
        }
    }
    sb_give(work.turns);
    work.turns = turns;
    work.turned = positions;
    return 0;
}

static i32 prepare_work(u32 positions) {
    const sb_shape *s = &sb_current->shape;
    if (work.all && positions <= work.positions) return 0;
    const u64 hidden = hidden_stride(), kv = padded(s->kv_heads * s->head_dim), ffn = padded(s->ffn);
    const u64 group = s->heads / s->kv_heads, seen = padded(positions);
    const u64 floats = BLOCK * (4 * hidden + 2 * kv + 2 * ffn) + (u64)s->heads * width() + group * seen + 4;
    if (kernels_prepare(s->ffn > s->hidden ? s->ffn : s->hidden) < 0) return -1;
    f32 *all = sb_take(4 * floats);
    if (!all) return sb_refuse(ENGINE_MEMORY, -1);
    sb_give(work.all);
    f32 *at = work.all = all;
    work.x = at, at += BLOCK * hidden;
    work.normed = at, at += BLOCK * hidden;
    work.q = at, at += BLOCK * hidden;
    work.k = at, at += BLOCK * kv;
    work.v = at, at += BLOCK * kv;
    work.gate = at, at += BLOCK * ffn;
    work.up = at, at += BLOCK * ffn;
    work.query = at, at += s->heads * width();
    work.scores = at, at += group * seen;
    work.mixed = at; /* last: its last vector may reach beyond the last head */
    work.positions = positions;
    return 0;
}

i32 cache_open(sb_cache *cache, u32 positions) {
    const sb_shape *s = &sb_current->shape;
    const u64 each = (u64)s->layers * 2 * s->kv_heads * width() * 4; /* no overflow: the file holds wk of as many rows */
    cache->stored = 0;
    if (positions > 0xFFFFFFFFull / each) return sb_refuse(ENGINE_MEMORY, -1);
    if (prepare_work(positions) < 0 || prepare_turns(positions) < 0) return -1;
    cache->stored = sb_take(each * positions);
    if (!cache->stored) return sb_refuse(ENGINE_MEMORY, -1);
    memset(cache->stored, 0, each * positions);
    cache->positions = positions;
    cache->length = 0;
    return 0;
}

void cache_close(sb_cache *cache) {
    sb_give(cache->stored);
    cache->stored = 0;
}

void forward_close(void) {
    sb_give(work.all);
    sb_give(work.turns);
    kernels_close();
    memset(&work, 0, sizeof work);
}

/* x / sqrt(mean(x^2) + eps) * gain */
static void norm(f32 *out, const f32 *x, const f32 *gain, u32 rows) {
    const u32 n = sb_current->shape.hidden, stride = hidden_stride();
    for (u32 t = 0; t < rows; t++, x += stride, out += stride) {
        f32 squares;
        product(&squares, 1, x, 1, n, x, n, 1);
        const f32 scale = 1 / root(squares * (1 / (f32)n) + sb_current->shape.eps);
        for (u32 i = 0; i < n; i++) out[i] = x[i] * scale * gain[i];
    }
}

static void add(f32 *x, const f32 *y, u32 count) {
    for (u32 i = 0; i < count; i += 4) save(x + i, load(x + i) + load(y + i));
}

/* Turns each adjacent pair of each head by its position's angles and lays heads out padded; padding is zero. */
static void rotate(f32 *out, u32 out_stride, const f32 *x, u32 heads, u32 position, f32 scale) {
    const u32 n = sb_current->shape.head_dim;
    const f32 *turns = work.turns + (u64)position * n;
    for (u32 h = 0; h < heads; h++, x += n, out += out_stride) {
        for (u32 i = 0; i < n; i += 2) {
            const f32 a = x[i] * scale, b = x[i + 1] * scale, c = turns[i], s = turns[i + 1];
            out[i] = a * c - b * s;
            out[i + 1] = a * s + b * c;
        }
        for (u32 i = n; i < width(); i++) out[i] = 0;
    }
}

static void remember(const sb_cache *c, u32 layer, u32 position, const f32 *k, const f32 *v) {
    const sb_shape *s = &sb_current->shape;
    rotate(cached(c, layer, 0, 0) + (u64)position * width(), c->positions * width(), k, s->kv_heads, position, 1);
    for (u32 h = 0; h < s->kv_heads; h++)
        memcpy(cached(c, layer, 1, h) + (u64)position * width(), v + h * s->head_dim, 4 * s->head_dim);
}

/* Max-shifted, not yet divided: returns one over the sum. Positions from n to the next whole vector become zero. */
static f32 soften(f32 *scores, u32 n) {
    f32 most = -__builtin_inff();
    for (u32 i = 0; i < n; i++) most = scores[i] > most ? scores[i] : most;
    for (u32 i = n; i < padded(n); i++) scores[i] = -__builtin_inff();
    v4 sum = {0};
    for (u32 i = 0; i < n; i += 4) {
        const v4 e = exp4(load(scores + i) - most);
        save(scores + i, e);
        sum += e;
    }
    return 1 / lanes(sum);
}

/* out = scale * sum over positions of weight * value, positions ascending. */
INLINE void blend(u32 vectors, f32 *out, const f32 *weights, const f32 *values, u32 n, f32 scale) {
    v4 sums[4] = {0};
    for (u32 p = 0; p < n; p++, values += width())
        for (u32 k = 0; k < vectors; k++) sums[k] += weights[p] * load(values + 4 * k);
    for (u32 k = 0; k < vectors; k++) save(out + 4 * k, sums[k] * scale);
}

/* One token's heads over all positions up to its own. A head's last vector may reach into the next head, written later. */
static void attend(const sb_cache *c, u32 layer, u32 position, const f32 *q, f32 *mixed) {
    const sb_shape *s = &sb_current->shape;
    const u32 wide = width(), seen = position + 1, stride = padded(seen), group = s->heads / s->kv_heads;
    rotate(work.query, wide, q, s->heads, position, 1 / root((f32)s->head_dim));
    for (u32 g = 0; g < s->kv_heads; g++) {
        product(work.scores, stride, cached(c, layer, 0, g), seen, wide, work.query + g * group * wide, wide, group);
        for (u32 h = 0; h < group; h++) {
            f32 *scores = work.scores + h * stride, *out = mixed + (g * group + h) * s->head_dim;
            const f32 *values = cached(c, layer, 1, g), scale = soften(scores, seen);
            u32 i = 0;
            for (; i + 16 <= wide; i += 16) blend(4, out + i, scores, values + i, seen, scale);
            for (; i < wide; i += 4) blend(1, out + i, scores, values + i, seen, scale);
        }
    }
}

/* silu(gate) * up, in place of gate */
static void gated(f32 *gate, const f32 *up, u32 count) {
    for (u32 i = 0; i < count; i += 4) {
        const v4 g = load(gate + i);
        save(gate + i, g / (exp4(-g) + 1) * load(up + i));
    }
}

static void feed_forward(u32 layer, f32 *x, u32 rows) {
    const sb_shape *s = &sb_current->shape;
    const u32 hidden = hidden_stride(), ffn = padded(s->ffn);
    norm(work.normed, x, part(layer, FFN_NORM), rows);
    product(work.gate, ffn, part(layer, W1), s->ffn, s->hidden, work.normed, hidden, rows);
    product(work.up, ffn, part(layer, W3), s->ffn, s->hidden, work.normed, hidden, rows);
    gated(work.gate, work.up, rows * ffn);
    product(work.normed, hidden, part(layer, W2), s->hidden, s->ffn, work.gate, ffn, rows);
    add(x, work.normed, rows * hidden);
}

/* Keys and values of all tokens; what the tokens from `first` on make of them is added to x. */
static void attention(const sb_spot *places, u32 layer, u32 count, u32 first) {
    const sb_shape *s = &sb_current->shape;
    const u32 hidden = hidden_stride(), kv = s->kv_heads * s->head_dim, kv_stride = padded(kv);
    norm(work.normed, work.x, part(layer, ATTN_NORM), count);
    product(work.k, kv_stride, part(layer, WK), kv, s->hidden, work.normed, hidden, count);
    product(work.v, kv_stride, part(layer, WV), kv, s->hidden, work.normed, hidden, count);
    product(work.q, hidden, part(layer, WQ), s->hidden, s->hidden, work.normed + first * hidden, hidden, count - first);
    for (u32 t = 0; t < count; t++)
        remember(places[t].cache, layer, places[t].position, work.k + t * kv_stride, work.v + t * kv_stride);
    for (u32 t = first; t < count; t++) {
        const u64 at = (u64)(t - first) * hidden;
        attend(places[t].cache, layer, places[t].position, work.q + at, work.mixed + at);
    }
    product(work.normed, hidden, part(layer, WO), s->hidden, s->hidden, work.mixed, hidden, count - first);
    add(work.x + first * hidden, work.normed, (count - first) * hidden);
}

static const f32 *run(const sb_spot *places, const u32 *ids, u32 count, u32 first) {
    const sb_shape *s = &sb_current->shape;
    const u32 hidden = hidden_stride();
    const f32 *table = sb_values(sb_current->tensors + EMBEDDING);
    for (u32 t = 0; t < count; t++) memcpy(work.x + t * hidden, table + (u64)ids[t] * s->hidden, 4 * s->hidden);
    for (u32 layer = 0; layer < s->layers; layer++) {
        const u32 from = layer + 1 < s->layers ? 0 : first; /* after the last attention positions no longer mix */
        attention(places, layer, count, from);
        feed_forward(layer, work.x + from * hidden, count - from);
    }
    for (u32 t = 0; t < count; t++) places[t].cache->length++;
    return work.x + first * hidden;
}

const f32 *forward_run(sb_cache *cache, const u32 *ids, u32 count, u32 first) {
    sb_spot places[BLOCK];
    for (u32 t = 0; t < count; t++) places[t] = (sb_spot){cache, cache->length + t};
    return run(places, ids, count, first);
}

const f32 *forward_step(sb_cache *const *caches, const u32 *ids, u32 count) {
    sb_spot places[BLOCK];
    for (u32 t = 0; t < count; t++) places[t] = (sb_spot){caches[t], caches[t]->length};
    return run(places, ids, count, 0);
}

void forward_logits(const f32 *x, u32 rows, f32 *out) {
    const sb_shape *s = &sb_current->shape;
    norm(work.normed, x, final_norm(), rows);
    product(out, s->vocab, output(), s->vocab, s->hidden, work.normed, hidden_stride(), rows);
}
