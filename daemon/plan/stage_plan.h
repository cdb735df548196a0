/* SPDX-License-Identifier: Apache-2.0 */
/* stage_plan.h: what each stage of a plan holds and computes, from the descriptions of its layers.
 * Owner: plan; only plan.c includes it. Pure. */
#ifndef MR_PLAN_STAGE_PLAN_H
#define MR_PLAN_STAGE_PLAN_H

#include "daemon/plan/plan.h"
#include "daemon/plan/simulate.h"

/* Fills plan->stages from job, bounds, layers and the stages' peak_in_flight, for any bounds anew.
 * INVALID_ARGUMENT: a stage needs more bytes than a size can count. */
MR_MUST_CHECK mr_status mr_stage_plan_fill(mr_plan *plan);

/* Costs of one microbatch on each stage for the predicted bubble, in floating point operations: a
 * byte on a link counts as MR_STAGE_FLOPS_PER_LINK_BYTE of them. out_costs: stage_count. */
void mr_stage_plan_costs(const mr_plan *plan, mr_stage_cost *out_costs);

/* One core with oneDNN does 50 to 100 GFLOP/s while loopback gRPC moves about 1 GB/s, and an
 * accelerator's rate exceeds its link's by a like or larger factor; so a rounded, fixed ratio tells
 * a plan that waits for its links from one that does not. Measured costs take its place when the
 * stages report them. */
enum { MR_STAGE_FLOPS_PER_LINK_BYTE = 64 };

#endif
