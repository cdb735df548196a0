/* SPDX-License-Identifier: Apache-2.0 */
/* partition.h: how layers are cut into stages: bounds[0] = 0 <= ... <= bounds[parts] = items, and
 * part s owns the items [bounds[s], bounds[s + 1]).
 * Owner: plan. Pure, any thread.
 * Not here: what a layer weighs (plan.c asks its description). */
#ifndef MR_PLAN_PARTITION_H
#define MR_PLAN_PARTITION_H

#include <stddef.h>

#include "daemon/base/status.h"

/* items / parts each, the remainder one each to the first parts; with fewer items than parts the
 * first parts get one item and the rest none (reference: deepspeed.md 43, 44). parts: at least 1.
 * out_bounds: parts + 1 values. */
void mr_partition_uniform(size_t items, size_t parts, size_t *out_bounds);
/* The same, one bound alone: the first item of part; part may be parts, whose start is the end. */
size_t mr_partition_start(size_t items, size_t parts, size_t part);

/* The exact optimum: no part empty; among those the smallest possible largest load; among those the
 * smallest range (largest less smallest load); among those the earliest parts take the most items
 * (the largest bounds, compared from the first on). A load is the difference of two sums of weights
 * taken from the left in double, so whole-number weights are exact while their total is below 2^53.
 * With fewer items than parts: as mr_partition_uniform.
 * O(64 * items) time. out_bounds: parts + 1 values.
 * INVALID_ARGUMENT: a weight that is negative or not finite, by index; a total that is not finite;
 * no parts. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_partition_balanced(const double *weights, size_t items, size_t parts,
                                              size_t *out_bounds);

/* Do given bounds cut items into parts non-empty parts? INVALID_ARGUMENT names the entry, its value
 * and what it must be, as pipeline.partition of a job file. */
MR_MUST_CHECK mr_status mr_partition_check(const size_t *bounds, size_t bound_count, size_t items,
                                           size_t parts);

#endif
