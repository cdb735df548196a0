/* SPDX-License-Identifier: Apache-2.0 */
/* stage_metrics.h: what a stage counts, by the names of observe/metrics.def.h.
 * Owner: stage. Thread: LOOP. */
#ifndef MR_STAGE_STAGE_METRICS_H
#define MR_STAGE_STAGE_METRICS_H

#include "daemon/observe/metrics.h"
#include "daemon/stage/assignment.h"
#include "daemon/stage/executor.h"

typedef struct mr_stage_metrics mr_stage_metrics;

/* RESOURCE_EXHAUSTED: no memory. Owner destroys it. */
MR_MUST_CHECK mr_status mr_stage_metrics_create(mr_stage_metrics **out_metrics);
/* NULL is fine. */
void mr_stage_metrics_destroy(mr_stage_metrics *metrics);
/* The table behind it, for the status server. */
mr_metrics *mr_stage_metrics_table(mr_stage_metrics *metrics);
/* A job has begun on this stage: its series appear. */
void mr_stage_metrics_assign(mr_stage_metrics *metrics, const mr_assignment *assignment);
/* The job is gone: its stage's gauges go back to zero. */
void mr_stage_metrics_release(mr_stage_metrics *metrics);
/* One optimizer step was applied (rank 0 knows its result). */
void mr_stage_metrics_step(mr_stage_metrics *metrics, const mr_step_result *result);

#endif
