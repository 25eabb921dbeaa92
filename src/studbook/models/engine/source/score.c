/* Scoring a known answer by feeding it: log p and the quadratic score in f64, and whether greedy decoding would write it. */
#include "maths.h"
#include "session.h"

typedef struct {
    f64 loglik, brier;
    u32 exact, finite;
} sb_score_result;

/* Rows of logits judged at a time. */
enum { ROWS = 8 };

/* Adds one row. Brier 1950: 1 - 2 p_y + sum of p_k^2. */
static void judge(const f32 *logits, u32 vocab, u32 answer, sb_score_result *sum) {
    const u32 best = greedy(logits, vocab);
    const f64 most = logits[best];
    v2 totals = {0}, squared = {0}; /* even ids and odd ids */
    for (u32 i = 0; i < vocab; i += 2) {
        const v2 mass = exp_negative((v2){logits[i] - most, i + 1 < vocab ? logits[i + 1] - most : -1000});
        totals += mass;
        squared += mass * mass;
    }
    const f64 total = totals[0] + totals[1], squares = squared[0] + squared[1];
    const f64 loglik = (logits[answer] - most) - log64(total);
    sum->loglik += loglik;
    sum->brier += 1 - 2 * exp64(loglik) + squares / (total * total);
    sum->exact &= best == answer;
}

static sb_cache kept; /* of the longest sequence so far, so that most take nothing */

void score_close(void) {
    cache_close(&kept);
    kept.positions = 0;
}

static f32 *prepare(u32 positions) {
    if (!kept.stored || kept.positions < positions) {
        score_close();
        if (cache_open(&kept, positions) < 0) return 0;
    }
    kept.length = 0;
    f32 *logits = sb_take(4ull * ROWS * sb_current->shape.vocab);
    if (!logits) sb_refuse(ENGINE_MEMORY, -1);
    return logits;
}

/* The last `answer` of `count` ids are the answer; the very last is not fed. Not finite anywhere in the answer: minus
 * infinity, 2, 0, 0. */
i32 SB_EXPORT(sb_score)(const u32 *ids, u32 count, u32 answer, sb_score_result *out) {
    if (!sb_current) return sb_refuse(ENGINE_NO_MODEL, -1);
    if (!answer || count <= answer) return sb_refuse(ENGINE_CONTEXT, -1);
    const u32 vocab = sb_current->shape.vocab, fed = count - 1, from = fed - answer;
    if (ids_check(ids, fed, sb_current->shape.max_context) < 0) return -1;
    if (ids[fed] >= vocab) return sb_refuse(ENGINE_ID, (i32)fed);
    f32 *logits = prepare(fed);
    if (!logits) return -1;
    sb_score_result sum = {0, 0, 1, 1};
    for (u32 at = 0; at < fed; at += BLOCK) {
        const u32 some = fed - at < BLOCK ? fed - at : BLOCK;
        const u32 first = from > at ? (from - at < some ? from - at : some) : 0;
        const f32 *x = forward_run(&kept, ids + at, some, first);
        for (u32 t = first; t < some; t += ROWS) {
            const u32 rows = some - t < ROWS ? some - t : ROWS;
            forward_logits(x + (t - first) * hidden_stride(), rows, logits);
            sum.finite &= (u32)all_finite(logits, (u64)rows * vocab);
            for (u32 r = 0; r < rows && sum.finite; r++) judge(logits + r * vocab, vocab, ids[at + t + r + 1], &sum);
        }
    }
    sb_give(logits);
    sum.brier /= answer;
    const sb_score_result broken = {-__builtin_inf(), 2, 0, 0};
    *out = sum.finite ? sum : broken;
    return 0;
}
