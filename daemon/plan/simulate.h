/* SPDX-License-Identifier: Apache-2.0 */
/* simulate.h: how long a step would take: the lists replayed on a clock.
 * Owner: plan. Pure, any thread.
 * Not here: whether the lists are right (verify.h); what things cost (plan.c). */
#ifndef MR_PLAN_SIMULATE_H
#define MR_PLAN_SIMULATE_H

#include "daemon/base/status.h"
#include "daemon/plan/verify.h"

/* What one microbatch costs on one stage; any unit of time, the same for all. B costs I + W. */
typedef struct mr_stage_cost {
    double forward;
    double backward_input;
    double backward_weight;
    double send_activation; /* transfer to the next part */
    double send_gradient;   /* transfer to the part before */
} mr_stage_cost;

/* What a stage does alone around its list, once a step: from the barrier that ended the step before
 * until it begins, and from the end of its list until it comes to the next barrier. */
typedef struct mr_stage_margin {
    double before;
    double after;
} mr_stage_margin;

typedef struct mr_simulation {
    double makespan; /* from the start of the step until every stage is ready for the optimizer */
    double work;     /* mean over stages of the time spent computing */
    double bubble;   /* barrier metric: (makespan - work) / makespan; 0 for an empty step */
} mr_simulation;

/* Replays lists that mr_verify accepts. A stage runs its list in order; a send starts the transfer
 * and goes on; transfers of one directed edge and kind follow each other; a receive waits for the
 * end of its transfer. Loads and the step's end cost nothing. With chunks above 1 a stage's costs
 * are those of each of its chunks. costs: stage_count. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_simulate(const mr_schedule *schedules, const mr_verify_shape *shape,
                                    const mr_stage_cost *costs, mr_simulation *out_simulation);
/* The same from barrier to barrier, in the steady state of many steps: makespan is the time of a
 * whole step. margins: stage_count. */
MR_MUST_CHECK mr_status mr_simulate_step(const mr_schedule *schedules, const mr_verify_shape *shape,
                                         const mr_stage_cost *costs,
                                         const mr_stage_margin *margins,
                                         mr_simulation *out_simulation);

#endif
