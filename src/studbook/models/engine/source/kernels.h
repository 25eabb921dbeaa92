/* The product everything is made of. */
#ifndef SB_KERNELS_H
#define SB_KERNELS_H

#include "maths.h"

/* Most tokens of one product: what goes through the layers together. Any split gives the same bits. */
enum { BLOCK = 32 };

/* Room for products over up to n elements; 0, or a refusal that leaves nothing changed. */
i32 kernels_prepare(u32 n);
void kernels_close(void);

/* out[t][r] = sum over i of w[r][i] * x[t][i], w of (rows, n), up to BLOCK tokens; out and x have strides of their own, in
 * elements. One token at a time and many at once give the same bits. */
void product(f32 *out, u32 out_stride, const f32 *w, u32 rows, u32 n, const f32 *x, u32 x_stride, u32 tokens);

#endif
