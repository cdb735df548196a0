/* SPDX-License-Identifier: Apache-2.0 */
/* sdpa.h: cuDNN's attention: a plan for a shape (graph, engine, compiled kernel) and its run.
 * Building a plan compiles a kernel, 0.25 to 1 s on a processor, so plans are kept, at most
 * MR_SDPA_PLANS_MAX; a shape that no engine takes is kept as such, too.
 * The same search runs without a card: engines and their workspaces follow from a description of a
 * card in JSON, and only loading the compiled kernel needs a driver.
 * Owner: device/cuda. Thread: EXEC.
 * Not here: which calls go to cuDNN (attention.c), the graphs (sdpa_graph.h). */
#ifndef MR_DEVICE_CUDA_SDPA_H
#define MR_DEVICE_CUDA_SDPA_H

#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/device/cuda/kernels/kernels.h"
#include "daemon/device/cuda/sdpa_graph.h"

enum { MR_SDPA_PLANS_MAX = 64 };

typedef struct mr_sdpa mr_sdpa;
typedef struct mr_sdpa_plan mr_sdpa_plan;

/* UNAVAILABLE: cuDNN does not start. */
MR_MUST_CHECK mr_status mr_sdpa_create(mr_cuda_stream stream, mr_sdpa **out_sdpa);
/* NULL is fine. */
void mr_sdpa_destroy(mr_sdpa *sdpa);
/* Valid until MR_SDPA_PLANS_MAX - 1 others were asked for. UNIMPLEMENTED: no engine takes it. */
MR_MUST_CHECK mr_status mr_sdpa_plan_get(mr_sdpa *sdpa, const mr_sdpa_shape *shape,
                                         const mr_sdpa_plan **out_plan);
/* Bytes of workspace, of which the sum of dQ, where there is one, takes the first. */
size_t mr_sdpa_plan_workspace(const mr_sdpa_plan *plan);
/* memory: by mr_sdpa_uid; NULL for what the plan does not have, and for what this fills in itself
 * (the sum of dQ and what is by value). INTERNAL: cuDNN refuses. */
MR_MUST_CHECK mr_status mr_sdpa_run(mr_sdpa *sdpa, const mr_sdpa_plan *plan,
                                    void *const memory[MR_SDPA_UID_COUNT], void *workspace);

/* What a card of the given description would be served with. */
typedef struct mr_sdpa_support {
    int64_t operations;
    int64_t engine;          /* the first whose kernel was compiled */
    int64_t workspace_bytes; /* its own, without the sum of dQ */
} mr_sdpa_support;

/* properties: JSON as cuDNN's device properties have it. Needs no card: where libcuda.so.1 is the
 * toolkit's stub, a kernel counts as compiled when all that failed is loading it (34, "stub
 * library"). UNIMPLEMENTED: no engine. INVALID_ARGUMENT: properties that cuDNN does not take. */
MR_MUST_CHECK mr_status mr_sdpa_support_query(const mr_sdpa_shape *shape, const char *properties,
                                              mr_sdpa_support *out_support);

#endif
