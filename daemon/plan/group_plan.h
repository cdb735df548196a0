/* SPDX-License-Identifier: Apache-2.0 */
/* group_plan.h: which ranks sum or broadcast together.
 * Owner: plan; only plan.c includes it. Pure. */
#ifndef MR_PLAN_GROUP_PLAN_H
#define MR_PLAN_GROUP_PLAN_H

#include "daemon/plan/plan.h"

/* Fills plan->groups and group_count from the topology, the bounds and the job's ties.
 * RESOURCE_EXHAUSTED: no memory; INVALID_ARGUMENT: more than MR_PLAN_GROUPS_MAX groups. What was
 * filled before an error belongs to the plan. */
MR_MUST_CHECK mr_status mr_group_plan_fill(mr_plan *plan);
/* Frees plan->groups; nothing there is fine. */
void mr_group_plan_free(mr_plan *plan);
/* "tied", "data", "model" or "pipe". */
const char *mr_group_kind_name(mr_group_kind kind);

#endif
