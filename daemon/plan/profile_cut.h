/* SPDX-License-Identifier: Apache-2.0 */
/* profile_cut.h: the bounds with the smallest predicted step time, and the prediction itself.
 * Owner: plan; internal to this folder. Pure; bounded work. */
#ifndef MR_PLAN_PROFILE_CUT_H
#define MR_PLAN_PROFILE_CUT_H

#include "daemon/plan/plan.h"
#include "daemon/plan/profile.h"

/* Fills plan->bounds, from its topology, layers and schedules: no stage empty, every stage within
 * the memory of its devices where that is known. Exact where all cuts can be tried (any model of
 * some dozens of layers), else no worse than uniform and parameters and a local optimum.
 * FAILED_PRECONDITION: the profile is of another key; RESOURCE_EXHAUSTED: no cut fits the memory,
 * with stage and bytes, or no memory here. Overwrites plan->stages' memory. */
MR_MUST_CHECK mr_status mr_profile_cut(mr_plan *plan, const mr_profile *profile);

/* Fills plan->step_seconds, bubble_predicted and the stages' busy_seconds for plan->bounds. */
MR_MUST_CHECK mr_status mr_profile_predict(mr_plan *plan, const mr_profile *profile);

#endif
