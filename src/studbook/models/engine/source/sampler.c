/* Picking the next token: divide by the temperature, keep the top_k largest (ties to the lowest id), softmax over those in f64,
 * keep the shortest prefix whose probability reaches top_p, take the first whose cumulative mass exceeds the draw. */
#include "maths.h"
#include "session.h"

enum { MOST = 1024 };

/* NaN counts as smallest. */
u32 greedy(const f32 *logits, u32 count) {
    f32 most = -__builtin_inff();
    u32 best = 0;
    for (u32 i = 0; i < count; i++)
        if (logits[i] > most) most = logits[i], best = i;
    return best;
}

typedef struct {
    f64 score;
    u32 id;
} choice;

/* Whether a comes before b: larger score, then lower id. */
static u32 before(choice a, choice b) { return a.score > b.score || (a.score == b.score && a.id < b.id); }

/* Heap with the last of its choices on top. */
static void sink(choice *heap, u32 count, u32 at) {
    const choice moving = heap[at];
    for (u32 child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(heap[child], heap[child + 1])) child++;
        if (!before(moving, heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

/* The first `most` choices in order; how many there are without NaN. */
static u32 keep(const f32 *logits, u32 vocab, f64 temperature, u32 most, choice *heap) {
    u32 kept = 0;
    for (u32 i = 0; i < vocab; i++) {
        const choice c = {logits[i] / temperature, i};
        if (c.score != c.score) continue;
        if (kept < most) {
            heap[kept++] = c;
            if (kept == most)
                for (u32 at = most / 2; at-- > 0;) sink(heap, most, at);
        } else if (before(c, heap[0])) {
            heap[0] = c;
            sink(heap, most, 0);
        }
    }
    if (kept < most) return kept;
    for (u32 left = kept; left > 1; left--) {
        const choice last = heap[0];
        heap[0] = heap[left - 1];
        heap[left - 1] = last;
        sink(heap, left - 1, 0);
    }
    return kept;
}

/* Adds pairwise: up to 8 one by one, up to 128 in eight sums, beyond that in halves; the error grows with log n. */
static f64 total_of(const f64 *x, u32 n) {
    if (n < 8) {
        f64 sum = -0.0;
        for (u32 i = 0; i < n; i++) sum += x[i];
        return sum;
    }
    if (n > 128) {
        const u32 half = n / 2 - n / 2 % 8;
        return total_of(x, half) + total_of(x + half, n - half);
    }
    f64 sums[8];
    u32 i = 8;
    for (u32 k = 0; k < 8; k++) sums[k] = x[k];
    for (; i + 8 <= n; i += 8)
        for (u32 k = 0; k < 8; k++) sums[k] += x[i + k];
    f64 sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < n; i++) sum += x[i];
    return sum;
}

/* False where the mass is zero or not finite; the state has not moved then. */
static u32 draw(const choice *kept, f64 *mass, u32 count, f64 top_p, u64 *state, u32 *chosen) {
    for (u32 i = 0; i < count; i++) mass[i] = exp64(kept[i].score - kept[0].score);
    const f64 total = total_of(mass, count);
    if (!(total > 0 && total < __builtin_inf())) return 0;
    u32 last = count;
    for (u32 i = 0; i < count; i++) {
        mass[i] = i ? mass[i - 1] + mass[i] / total : mass[i] / total;
        if (last == count && mass[i] >= top_p) last = i;
    }
    if (last == count) last--;
    *state = next_state(*state ? *state : 1);
    const f64 threshold = (f64)(*state >> 11) * 0x1p-53 * mass[last];
    u32 at = 0;
    while (at < last && mass[at] <= threshold) at++;
    *chosen = kept[at].id;
    return 1;
}

i32 sampling_check(f64 temperature, u32 top_k, f64 top_p) {
    if (temperature >= 0 && temperature < __builtin_inf() && top_k >= 1 && top_k <= MOST && top_p > 0 && top_p <= 1) return 0;
    return sb_refuse(ENGINE_SAMPLING, -1);
}

i32 pick(const f32 *logits, f64 temperature, u32 top_k, f64 top_p, u64 *state) {
    const u32 vocab = sb_current->shape.vocab, most = top_k < vocab ? top_k : vocab;
    if (temperature == 0) return (i32)greedy(logits, vocab);
    choice *kept = sb_take(MOST * (sizeof(choice) + sizeof(f64)));
    if (!kept) return sb_refuse(ENGINE_MEMORY, -1);
    u32 chosen;
    /* NaN among the largest makes a mass that is not finite. */
    const u32 sound = keep(logits, vocab, temperature, most, kept) == most;
    if (!sound || !draw(kept, (f64 *)(kept + MOST), most, top_p, state, &chosen)) chosen = greedy(logits, vocab);
    sb_give(kept);
    return (i32)chosen;
}

/* state: one u64, moved on by a draw; 0 counts as 1. */
i32 SB_EXPORT(sb_pick)(const f32 *logits, f64 temperature, u32 top_k, f64 top_p, u64 *state) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    return sampling_check(temperature, top_k, top_p) < 0 ? -1 : pick(logits, temperature, top_k, top_p, state);
}
