/* Fusion: adapters/fusion.py. An element starts as w = f64(value), or f64(code) * f64(scale), not rounded in between. Dense:
 * w + f64(delta). Sparse: the same for the listed elements, all others are w. Low-rank: acc = B[:, 0] A[0, :], further
 * ranks added in ascending order, then w + (f64(alpha) / r) * acc. One rounding to f32 at the end; nothing is contracted. */
#include "readers.h"

enum { CHUNK = 512 };

typedef struct {
    const adapter_entry *entry;
    const u8 *payload;
    u32 next; /* of a sparse change: the first index not yet met */
} change;

static void add_dense(change *c, u64 start, u32 count, const f64 *wide, f32 *out) {
    const f32 *delta = (const f32 *)c->payload + start;
    for (u32 i = 0; i < count; i++) out[i] = (f32)(wide[i] + (f64)delta[i]);
}

static void add_sparse(change *c, u64 start, u32 count, const f64 *wide, f32 *out) {
    const u32 *indices = (const u32 *)c->payload, listed = c->entry->count;
    const f32 *values = (const f32 *)indices + listed;
    for (u32 i = 0; i < count; i++) out[i] = (f32)wide[i];
    for (; c->next < listed && indices[c->next] < start + count; c->next++) {
        u32 at = (u32)(indices[c->next] - start);
        out[at] = (f32)(wide[at] + (f64)values[c->next]);
    }
}

/* Elements of one row of B @ A, from a column on. */
static void product(const f32 *a, const f32 *b, u32 rank, u32 columns, u32 count, f64 *acc) {
    f64 factor = b[0];
    for (u32 i = 0; i < count; i++) acc[i] = factor * (f64)a[i];
    for (u32 k = 1; k < rank; k++) {
        const f32 *line = a + (u64)k * columns;
        factor = b[k];
        for (u32 i = 0; i < count; i++) acc[i] = acc[i] + factor * (f64)line[i];
    }
}

static void add_low_rank(change *c, u64 start, u32 count, const f64 *wide, f32 *out) {
    u32 rank = c->entry->count, columns = c->entry->dims[1];
    const f32 *a = (const f32 *)c->payload, *b = a + (u64)rank * columns;
    f64 acc[CHUNK], scale = (f64)c->entry->alpha / (f64)rank;
    for (u32 done = 0, some; done < count; done += some) {
        u32 column = (u32)((start + done) % columns);
        some = columns - column < count - done ? columns - column : count - done;
        product(a + column, b + (start + done) / columns * rank, rank, columns, some, acc + done);
    }
    for (u32 i = 0; i < count; i++) out[i] = (f32)(wide[i] + scale * acc[i]);
}

i32 fuse(const sb_adapter *a, const adapter_entry *entry, const sb_tensor *t, const f32 *resident, f32 *out) {
    change c = {entry, a->file + entry->at, 0};
    f64 wide[CHUNK];
    for (u64 start = 0; start < t->elements; start += CHUNK) {
        u32 count = t->elements - start < CHUNK ? (u32)(t->elements - start) : CHUNK;
        if (!resident) stored_wide(t, start, count, wide);
        else
            for (u32 i = 0; i < count; i++) wide[i] = resident[start + i];
        if (entry->code == DENSE) add_dense(&c, start, count, wide, out + start);
        else if (entry->code == SPARSE) add_sparse(&c, start, count, wide, out + start);
        else add_low_rank(&c, start, count, wide, out + start);
        if (!all_finite(out + start, count)) return 0;
    }
    return 1;
}
