/* SPDX-License-Identifier: Apache-2.0 */
/* pipeline.h: the lists of all stages of one pipeline, made for a test.
 * Owner: tests. */
#ifndef MR_TESTS_UNIT_PLAN_PIPELINE_H
#define MR_TESTS_UNIT_PLAN_PIPELINE_H

#include "daemon/plan/verify.h"

enum { PIPELINE_STAGES_MAX = 16 };

typedef struct pipeline {
    mr_verify_shape shape;
    mr_schedule lists[PIPELINE_STAGES_MAX];
} pipeline;

/* Generated lists; any flaw ends the test. */
void pipeline_init(pipeline *line, mr_schedule_kind kind, size_t stages, size_t micro_batches);
/* Lists read from texts as mr_schedule_text writes them, one per stage. */
void pipeline_init_texts(pipeline *line, mr_verify_shape shape, const char *const *texts);
void pipeline_deinit(pipeline *line);
mr_status pipeline_verify(const pipeline *line);

#endif
