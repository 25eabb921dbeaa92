/* What the files of the engine share. C11, freestanding, wasm32 with 128-bit SIMD; all numbers little-endian.
 *
 * Who does what: memory.c the allocator; sha256.c, checksum.c digests; slm.c, tokenizer.c, json.c, adapter.c every rule of
 * the files; maths.c, forward.c, session.c, score.c, sampler.c the arithmetic; exports.c the door. A refusal records a reason and a
 * place and changes nothing else. */
#ifndef SB_ENGINE_H
#define SB_ENGINE_H

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef float f32;
typedef double f64;

#include "reasons.h"

#define SB_ABI 1
#define SB_EXPORT(name) __attribute__((visibility("default"), export_name(#name))) name

typedef struct {
    u32 vocab, hidden, layers, heads, kv_heads, head_dim, ffn, max_context;
    f32 theta, eps;
    u32 tied, tensor_count;
    u64 parameters;
} sb_shape;

typedef struct {
    u64 name_hash;
    u32 rank, dims[4], dtype /* 1 f32, 2 q8_0, 3 q4_0 */, block;
    const u8 *payload;
    const f32 *scales;
    u64 elements;
    const f32 *base; /* resident f32: in the file, or decoded */
    f32 *owned;      /* decoded buffer to free, or 0 */
    f32 *fused;      /* what the stack made of it, or 0 */
    u8 fused_sha[32];
} sb_tensor;

typedef struct {
    sb_shape shape;
    u8 *file;
    u32 file_len;
    u8 sha[32], tokenizer_sha[32], layout_sha[32];
    u32 tokenizer_at, tokenizer_len;
    sb_tensor *tensors; /* canonical order: embedding, nine a layer, norm, output unless tied */
    void *tokenizer;    /* tokenizer.c's own tables */
    u8 accepted[32];
    u32 has_accepted;
} sb_model;

/* What sb_model_info points to. */
typedef struct {
    sb_shape shape;   /* 56 bytes */
    u64 decoded_bytes; /* of all tensors in f32 */
    u32 file_len, has_accepted;
    u8 sha[32], tokenizer_sha[32], layout_sha[32], accepted[32];
} sb_info;

/* What sb_stack_info points to. */
typedef struct {
    u64 name_hash;
    u8 sha[32];
} sb_fused;
typedef struct {
    u32 applied, fused, generation, reserved;
    u8 state[32];
    const u8 (*digests)[32];  /* of the packages, in order */
    const sb_fused *tensors; /* every fused tensor, in canonical order */
} sb_stack;

extern sb_model *sb_current; /* 0 if none */
static inline const f32 *sb_values(const sb_tensor *t) { return t->fused ? t->fused : t->base; }

/* exports.c */
i32 sb_refuse(const char *reason, i32 place); /* records both, returns -1 */

/* memory.c: 64-aligned blocks; 0 where the memory may not grow */
void *sb_take(u64 bytes);
void sb_give(void *block);
void *memcpy(void *to, const void *from, unsigned long bytes);
void *memmove(void *to, const void *from, unsigned long bytes);
void *memset(void *to, int value, unsigned long bytes);
int memcmp(const void *a, const void *b, unsigned long bytes);

i32 all_finite(const f32 *values, u64 count); /* sort.c */

/* sha256.c */
void sha256(const void *data, u64 bytes, u8 out[32]);
typedef struct {
    u32 h[8];
    u64 bytes;
    u8 block[64];
} sb_hash;
void sha256_begin(sb_hash *state);
void sha256_update(sb_hash *state, const void *data, u64 bytes);
void sha256_end(sb_hash *state, u8 out[32]);

/* slm.c: open checks every rule, decodes, and owns `file` from then on; a refusal leaves `file` to the caller */
i32 slm_check(const u8 *file, u32 bytes);
i32 slm_open(u8 *file, u32 bytes, sb_model **out);
void slm_close(sb_model *model);

/* adapter.c: forget the stack of a model that goes */
void stack_clear(void);

/* session.c: every cache of keys and values is void; the sessions stay open, empty */
void sessions_invalidate(void);
/* Close all, as their sizes are those of a model that goes. */
void sessions_close(void);

#endif
