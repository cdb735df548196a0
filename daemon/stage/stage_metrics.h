/* SPDX-License-Identifier: Apache-2.0 */
/* stage_metrics.h: what a stage counts, by the names of observe/metrics.h.
 * Owner: stage. Thread: LOOP. Limits: MR_SERIES_AFTER_MS. */
#ifndef MR_STAGE_STAGE_METRICS_H
#define MR_STAGE_STAGE_METRICS_H

#include "daemon/observe/metrics.h"
#include "daemon/stage/assignment.h"
#include "daemon/stage/executor.h"
#include "daemon/stage/stage_meter.h"

typedef struct mr_stage_metrics mr_stage_metrics;

/* RESOURCE_EXHAUSTED: no memory. Owner destroys it. */
MR_MUST_CHECK mr_status mr_stage_metrics_create(mr_stage_metrics **out_metrics);
/* NULL is fine. */
void mr_stage_metrics_destroy(mr_stage_metrics *metrics);
/* The table behind it, for the status server. */
mr_metrics *mr_stage_metrics_table(mr_stage_metrics *metrics);
/* What EXEC counts with; ours. */
mr_stage_meter *mr_stage_metrics_meter(mr_stage_metrics *metrics);
/* A job has begun on this stage: its series appear. EXEC has no other one. */
void mr_stage_metrics_assign(mr_stage_metrics *metrics, const mr_assignment *assignment);
/* The job is gone: its stage's gauges go back to zero, and its own series are dropped one scrape
 * interval later, by a tick, so that the last values are seen. */
void mr_stage_metrics_release(mr_stage_metrics *metrics);
/* About once a second. */
void mr_stage_metrics_tick(mr_stage_metrics *metrics, int64_t now_ms);
/* One optimizer step is done (rank 0 knows its result); step counts from 1. */
void mr_stage_metrics_step(mr_stage_metrics *metrics, uint64_t step, const mr_step_result *result);
/* The memory that the stage really holds, once it is prepared. */
void mr_stage_metrics_memory(mr_stage_metrics *metrics, const mr_memory_held *held);

#endif
