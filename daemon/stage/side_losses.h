/* SPDX-License-Identifier: Apache-2.0 */
/* side_losses.h: the sums that a stage's layers add to their side losses (model/side_loss.h) in one
 * step, and what all ranks make of all stages' sums.
 * Each layer has a sum of its own, in f64, which its forward adds to in ascending microbatch order;
 * a name's value is added up over its layers in layer order: the same bits for any cut (law 1).
 * Owner: stage/executor. Thread: EXEC. */
#ifndef MR_STAGE_SIDE_LOSSES_H
#define MR_STAGE_SIDE_LOSSES_H

#include "daemon/device/device.h"
#include "daemon/stage/assignment.h"

typedef struct mr_side_losses mr_side_losses;

/* The values of a step, by the plan's names. */
typedef struct mr_side_values {
    mr_side_loss_names names;
    double values[MR_SIDE_LOSSES_MAX];
} mr_side_values;

/* How many layers of a stage have one. */
size_t mr_side_losses_count(const mr_plan *plan, size_t stage);

/* RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_side_losses_create(mr_device *device, const mr_assignment *assignment,
                                              mr_side_losses **out_losses);
/* NULL is fine. */
void mr_side_losses_destroy(mr_side_losses *losses);
/* A step begins: every sum is 0. */
void mr_side_losses_begin(mr_side_losses *losses);
/* Where layer (its index within the stage) adds its sum; again: it is computed again for its
 * backward and has added before, so what it adds is dropped. */
double *mr_side_losses_at(const mr_side_losses *losses, size_t layer, bool again);
/* The sums of the layers that have one, mr_side_losses_count of them, in layer order. */
void mr_side_losses_read(const mr_side_losses *losses, double *out_sums);

/* Adds the sums of a stage to values; stages in ascending order. parts: microbatches of all
 * replicas that the step had. */
void mr_side_values_add(mr_side_values *values, const mr_plan *plan, size_t stage,
                        const double *sums, double parts);
/* Of all names. */
double mr_side_values_total(const mr_side_values *values);

#endif
