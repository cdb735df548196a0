/* SPDX-License-Identifier: Apache-2.0 */
/* onednn.h: matrix products by oneDNN; the only file pair that includes its
 * headers, and where versions 2 and 3 of its interface differ.
 * A plan is one primitive for one shape. Plans are made on first use and kept, at most
 * MR_DEVICE_PLANS_MAX of them (the one unused for longest gives way); each thread of the pool has
 * its own handles on a plan, so all may run it at once. Working memory is the caller's, from one
 * block per thread that grows only while plans are made. oneDNN itself makes a small table of its
 * arguments per call; we allocate nothing.
 * A device makes every primitive for one thread: with more, oneDNN may pick another kernel or cut
 * the sum over k differently, and bits would depend on the number of threads (law 1).
 * Owner: device/cpu. Thread: EXEC unless said.
 * Not here: cutting a product into blocks (linear.c). */
#ifndef MR_DEVICE_CPU_ONEDNN_H
#define MR_DEVICE_CPU_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"

typedef struct mr_onednn mr_onednn;
typedef struct mr_onednn_plan mr_onednn_plan;

/* C [m, n] (+)= A [m, k] B [k, n] (+ bias [n]), rows at the given strides (in elements). A
 * transposed matrix is stored with its sides exchanged: A as [k, m], B as [n, k]. */
typedef struct mr_onednn_shape {
    size_t m;
    size_t n;
    size_t k;
    size_t a_stride;
    size_t b_stride;
    size_t c_stride;
    bool a_transposed;
    bool b_transposed;
    bool bias;
    bool accumulate; /* add into C */
    bool bf16;       /* A and B are bf16, else f32; sums and bias are f32 in any case */
    bool bf16_out;   /* C is bf16, else f32 */
} mr_onednn_shape;

/* Run once by every thread of the pool, EXEC too: keeps oneDNN single-threaded there. */
void mr_onednn_thread_start(void);
/* threads: how many call mr_onednn_run at once. inner_threads: oneDNN's own within one product; 1,
 * but for a benchmark of oneDNN itself. UNAVAILABLE: oneDNN refuses. */
MR_MUST_CHECK mr_status mr_onednn_create(int threads, int inner_threads, mr_onednn **out_onednn);
void mr_onednn_destroy(mr_onednn *onednn);

/* Does this processor multiply bf16 by itself? Where it does not, oneDNN has slow products of it or
 * none, and the caller widens the operands. */
bool mr_onednn_has_bf16(void);

/* The plan for a shape; valid until MR_DEVICE_PLANS_MAX - 1 others were asked for.
 * INTERNAL: oneDNN refuses, with its own name for why. RESOURCE_EXHAUSTED. */
MR_MUST_CHECK mr_status mr_onednn_plan_get(mr_onednn *onednn, const mr_onednn_shape *shape,
                                           mr_onednn_plan **out_plan);
/* Thread: thread of the pool. bias is read only by a plan that has one. Returns NULL, or oneDNN's
 * name for what went wrong. */
const char *mr_onednn_run(mr_onednn_plan *plan, int thread, const void *a, const void *b,
                          const float *bias, void *c);

#endif
