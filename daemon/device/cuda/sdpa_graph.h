/* SPDX-License-Identifier: Apache-2.0 */
/* sdpa_graph.h: causal attention on bf16 as cuDNN's backend wants to see it: a graph of primitive
 * operations that its engines recognise by pattern. cuDNN 9.19 has single-operation nodes for
 * attention, too, but those have no mask; the pattern has.
 * Forward, 14 operations: S = Q K^T, scaled, masked by row >= column, softmax written out as
 * max, subtract, exp, sum, log (max + log sum is the statistic that backward reads), divide, P V.
 * Backward, 22 operations (24 where several query heads share a key head; 21 and 23 when
 * deterministic): the row sums of dO O, P again from the statistic, and the five products.
 * One operation looks useless, and is not: multiplying the row sums by 1. Without it another
 * pattern matches, which spills two matrices of T x T (a test watches the workspace's size).
 * Owner: device/cuda. Thread: EXEC.
 * Not here: choosing an engine and running it (sdpa.h). */
#ifndef MR_DEVICE_CUDA_SDPA_GRAPH_H
#define MR_DEVICE_CUDA_SDPA_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/base/status.h"

struct cudnnContext; /* what a cudnnHandle_t points to */

/* Q, K and V lie in one array of rows: token t of sequence b begins at row_stride (b T + t), with
 * H heads of Q, then HK of K, then HK of V, D numbers each; so do dQ, dK and dV. O and dO are
 * [B, T, H D], the statistic [B, H, T]. */
typedef struct mr_sdpa_shape {
    int64_t B;
    int64_t H;
    int64_t HK; /* divides H */
    int64_t T;
    int64_t D;
    bool backward;
    bool deterministic; /* of backward: dQ is summed in a fixed order; costs B H T T 2 bytes */
} mr_sdpa_shape;

/* Numbers by which a graph's tensors are given their memory. */
typedef enum mr_sdpa_uid {
    MR_SDPA_Q = 1,
    MR_SDPA_K,
    MR_SDPA_V,
    MR_SDPA_O,
    MR_SDPA_STATISTIC,
    MR_SDPA_DO,
    MR_SDPA_DQ,
    MR_SDPA_DK,
    MR_SDPA_DV,
    MR_SDPA_DQ_SUM, /* f32 [B, H, T, D], backward unless deterministic */
    MR_SDPA_SCALE,  /* by value, like the next two: f32 on the host */
    MR_SDPA_LOWEST, /* minus infinity: what the mask writes */
    MR_SDPA_ONE,
    MR_SDPA_UID_COUNT
} mr_sdpa_uid;

typedef struct mr_sdpa_graph mr_sdpa_graph;

/* handle: cuDNN's, or NULL for a graph that is only asked for support (no card). INTERNAL: cuDNN
 * refuses a descriptor, named with its own text. RESOURCE_EXHAUSTED. */
MR_MUST_CHECK mr_status mr_sdpa_graph_create(struct cudnnContext *handle,
                                             const mr_sdpa_shape *shape,
                                             mr_sdpa_graph **out_graph);
/* NULL is fine. */
void mr_sdpa_graph_destroy(mr_sdpa_graph *graph);
/* cuDNN's descriptor of the operation graph; borrowed. */
void *mr_sdpa_graph_descriptor(const mr_sdpa_graph *graph);
/* How many operations it has. */
int64_t mr_sdpa_graph_operations(const mr_sdpa_graph *graph);

#endif
