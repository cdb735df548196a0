/* SPDX-License-Identifier: Apache-2.0 */
/* profile_cost.h: what a stage that owns some layers costs, from a profile: the numbers that the
 * simulator replays a schedule with. For layers [a, b) on the devices of stage s, in seconds:
 *
 *   F            sum of the layers' forward; on the last stage the loss too, where the stage runs
 *                it (session_step.c)
 *   I, W         sums of the layers' two halves of backward; I also the forward of every layer that
 *                is computed again (activation_layout.h)
 *   transfers    link + link_byte (bytes of the boundary; activations carry the labels along)
 *   before       from the barrier of the last step's norm: optimizer x elements that the stage
 *                holds (zero_stage 1: that this replica updates), then zero x elements of its
 *                accumulators
 *   after        to the barrier of this step's norm: sums over a tie's stages, 2 link + link_byte x
 *                bytes x uses, for what the others' accumulators and the result weigh; over D
 *                replicas, 2 link a parameter + 2 (D - 1) link_byte x bytes; then norm x elements,
 *                and the gather itself, 2 link
 *
 * A stage of several ranks (replicas) costs what its slowest rank costs, component by component.
 * The step is then the makespan between two barriers (simulate.h; schedules.md 2.0, the barrier
 * metric), which is what rank 0 measures as step_seconds.
 * Owner: plan; internal to this folder. Pure. */
#ifndef MR_PLAN_PROFILE_COST_H
#define MR_PLAN_PROFILE_COST_H

#include "daemon/plan/activation_layout.h"
#include "daemon/plan/plan.h"
#include "daemon/plan/profile.h"
#include "daemon/plan/simulate.h"

/* Of one tie: its layers and the elements of its parameter. */
typedef struct mr_profile_tie {
    size_t layer_first;
    size_t layer_last;
    double use_count;
    double elements;
} mr_profile_tie;

typedef struct mr_profile_costs {
    const mr_plan *plan; /* its topology, layers and schedules; not its bounds */
    const mr_profile *profile;
    size_t ranks_per_stage;
    double label_bytes;
    uint32_t *layer_tie;    /* [layer_count]; UINT32_MAX: none */
    size_t *tie_previous;   /* [layer_count]: the layer before of the same tie; SIZE_MAX: none */
    double *own_elements;   /* [layer_count]: of parameters without a tie */
    mr_profile_tie *ties;
    size_t tie_count;
    mr_activation_layer *again; /* [layer_count]: room for one stage's; NULL: keeps all */
} mr_profile_costs;

/* RESOURCE_EXHAUSTED: no memory. Deinit in either case. */
MR_MUST_CHECK mr_status mr_profile_costs_init(mr_profile_costs *costs, const mr_plan *plan,
                                              const mr_profile *profile);
void mr_profile_costs_deinit(mr_profile_costs *costs);

/* Of stage with layers [first, end). O(end - first). */
void mr_profile_costs_stage(const mr_profile_costs *costs, size_t stage, size_t first, size_t end,
                            mr_stage_cost *out_cost, mr_stage_margin *out_margin);
/* Bytes that every rank of the stage may use; SIZE_MAX where they are not known. */
size_t mr_profile_costs_capacity(const mr_profile_costs *costs, size_t stage);
/* F + I + W of one layer on the stage's slowest rank. */
double mr_profile_costs_layer(const mr_profile_costs *costs, size_t stage, size_t layer);

#endif
