/* SPDX-License-Identifier: Apache-2.0 */
/* schedule_shelf.h: this rank's instruction lists for steps with fewer microbatches than the job's.
 * A list is generated with those of all other stages and proved with them (law 2), between two
 * steps, the first time that its count comes; a bounded number is kept, the oldest makes room.
 * Every rank makes the same lists, since counts come with the boundary record.
 * Owner: stage/executor. Thread: EXEC. Limits: MR_STEP_SCHEDULES_MAX. */
#ifndef MR_STAGE_SCHEDULE_SHELF_H
#define MR_STAGE_SCHEDULE_SHELF_H

#include "daemon/stage/assignment.h"

typedef struct mr_schedule_shelf mr_schedule_shelf;

typedef struct mr_step_schedule {
    size_t micro_batches;
    const mr_schedule *list;
    size_t last_backward; /* index in the list, see plan/readiness.h */
} mr_step_schedule;

/* Holds the job's own list. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_schedule_shelf_create(const mr_assignment *assignment,
                                                 mr_schedule_shelf **out_shelf);
/* NULL is fine. */
void mr_schedule_shelf_destroy(mr_schedule_shelf *shelf);
/* The list of a step with so many microbatches; there until the next call. OUT_OF_RANGE: not 1 to
 * the job's; INTERNAL: it would hold more activations than the job's; else as mr_verify. */
MR_MUST_CHECK mr_status mr_schedule_shelf_get(mr_schedule_shelf *shelf, size_t micro_batches,
                                              mr_step_schedule *out_schedule);

#endif
