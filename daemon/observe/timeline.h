/* SPDX-License-Identifier: Apache-2.0 */
/* timeline.h: what every stage of a job did in one of its newest steps: one span for each
 * instruction, all of the same step, so that they can be laid under each other. The step before is
 * kept until every stage has told of the new one.
 * Owner: the role's root object. Thread: any; a lock is held for a copy or a rendering only.
 * Limits: MR_TIMELINE_*.
 * Not here: all steps (trace.h, on the stage itself). */
#ifndef MR_OBSERVE_TIMELINE_H
#define MR_OBSERVE_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/observe/trace.h"

typedef struct mr_timeline_span {
    char name[MR_TRACE_NAME_BYTES]; /* an instruction's text: "F0" */
    int64_t start_ns;               /* wall clock, of the stage's own machine */
    int64_t end_ns;
} mr_timeline_span;

/* What a device holds for the job. */
typedef struct mr_timeline_memory {
    uint64_t weights;
    uint64_t gradients;
    uint64_t optimizer;
    uint64_t activations;
} mr_timeline_memory;

typedef struct mr_timeline_stage {
    uint32_t stage;
    uint32_t rank;
    mr_timeline_memory memory;
    bool whole; /* no span of the step was lost or left out */
    size_t span_count;
    mr_timeline_span *spans; /* owned; ascending starts */
} mr_timeline_stage;

/* A copy of one step. */
typedef struct mr_timeline_step {
    uint64_t step; /* counts from 1; 0: none is known */
    size_t stage_count;
    mr_timeline_stage *stages; /* owned; ascending stages */
} mr_timeline_step;

typedef struct mr_timeline mr_timeline;

/* Without a step. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_timeline_create(mr_timeline **out_timeline);
/* NULL is fine. */
void mr_timeline_destroy(mr_timeline *timeline);
/* Waits for stage_count stages to tell of this step of a job; what is still missing of an earlier
 * step is not waited for any more. RESOURCE_EXHAUSTED: no memory; INVALID_ARGUMENT: more than
 * MR_TIMELINE_STAGES_MAX or none. */
MR_MUST_CHECK mr_status mr_timeline_expect(mr_timeline *timeline, const char *job, uint64_t step,
                                           size_t stage_count);
/* One stage's spans; owned_spans is consumed in every outcome. NOT_FOUND: nobody waits for it. */
MR_MUST_CHECK mr_status mr_timeline_add(mr_timeline *timeline, const char *job, uint64_t step,
                                        const mr_timeline_stage *stage,
                                        mr_timeline_span *owned_spans);
/* The newest whole step of a job, as a copy for mr_timeline_step_deinit; step 0 where there is
 * none. */
MR_MUST_CHECK mr_status mr_timeline_read(mr_timeline *timeline, const char *job,
                                         mr_timeline_step *out_step);
void mr_timeline_step_deinit(mr_timeline_step *step);
/* The same as {"schema":"millrace.timeline/v1",...}: microseconds since the step's first span.
 * *out_text: mr_free. */
MR_MUST_CHECK mr_status mr_timeline_render(mr_timeline *timeline, const char *job, char **out_text,
                                           size_t *out_bytes);

#endif
