/* SPDX-License-Identifier: Apache-2.0 */
/* model_axis.h: the ranks of one model group as layers see them: a reducer over the group. A layer
 * cannot return the error of a wait, so the first one is kept here, all later calls do nothing, and
 * whoever ran the layers asks with mr_model_axis_check before it believes what they gave (law 4:
 * the error is the group's and names the rank awaited).
 * Owner: stage/session. Thread: EXEC. No allocation after create.
 * Not here: the group itself (stage/connections). */
#ifndef MR_STAGE_MODEL_AXIS_H
#define MR_STAGE_MODEL_AXIS_H

#include "daemon/base/status.h"
#include "daemon/group/group.h"
#include "daemon/layers/reducer.h"

typedef struct mr_model_axis mr_model_axis;

/* group: of at least two, borrowed until destroy. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_model_axis_create(mr_group *group, mr_model_axis **out_axis);
/* NULL is fine. */
void mr_model_axis_destroy(mr_model_axis *axis);
/* For layer calls; NULL for no axis. */
mr_reducer *mr_model_axis_reducer(mr_model_axis *axis);
/* The first error of any call so far; OK for no axis. */
MR_MUST_CHECK mr_status mr_model_axis_check(const mr_model_axis *axis);

#endif
