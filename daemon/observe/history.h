/* SPDX-License-Identifier: Apache-2.0 */
/* history.h: the newest steps of each job, for curves and for whoever asks a little later. A ring
 * per job; beyond MR_HISTORY_JOBS_MAX the job that was heard of longest ago is forgotten.
 * Owner: the role's root object. Thread: any; a lock is held for a copy or a rendering only.
 * Limits: MR_HISTORY_*.
 * Not here: what is kept across restarts (the coordinator's store), gauges (metrics.h). */
#ifndef MR_OBSERVE_HISTORY_H
#define MR_OBSERVE_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

/* One finished optimizer step. */
typedef struct mr_history_step {
    uint64_t step; /* counts from 1 */
    int64_t at_ms; /* wall clock */
    double loss;
    double gradient_norm;
    double learning_rate;
    uint64_t tokens;
    double tokens_per_second;
    double bubble;
    double step_seconds;
} mr_history_step;

typedef struct mr_history mr_history;

/* Without a step. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_history_create(mr_history **out_history);
/* NULL is fine. */
void mr_history_destroy(mr_history *history);
/* Adds a job's newest step. One that is not above the newest known begins there anew: the job was
 * taken back to a checkpoint. RESOURCE_EXHAUSTED: no memory for one more job; nothing is added. */
MR_MUST_CHECK mr_status mr_history_add(mr_history *history, const char *job,
                                       const mr_history_step *step);
/* A copy of the steps after since, oldest first; *out_steps: mr_free. An unknown job has none. */
MR_MUST_CHECK mr_status mr_history_read(mr_history *history, const char *job, uint64_t since,
                                        mr_history_step **out_steps, size_t *out_count);
/* The same as {"schema":"millrace.history/v1",...}; a number that JSON has no form of is null.
 * *out_text: mr_free. */
MR_MUST_CHECK mr_status mr_history_render(mr_history *history, const char *job, uint64_t since,
                                          char **out_text, size_t *out_bytes);

#endif
