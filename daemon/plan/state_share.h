/* SPDX-License-Identifier: Apache-2.0 */
/* state_share.h: which part of a stage's optimizer state each replica holds with
 * pipeline.zero_stage 1. The state is laid out as slices (model/slices.h), one for each parameter
 * that the optimizer changes, in the order in which the stage holds them. The replicas take
 * contiguous parts of that layout, in their order, cut at multiples of MR_SLICE_ALIGN, of sizes
 * that differ by at most one such unit: whatever a parameter's size, all hold equally much.
 * Owner: plan. Pure, any thread. */
#ifndef MR_PLAN_STATE_SHARE_H
#define MR_PLAN_STATE_SHARE_H

#include <stddef.h>

/* Bytes [first, end) of the layout of one state tensor. */
typedef struct mr_state_share {
    size_t first;
    size_t end;
} mr_state_share;

/* The share of replica index of width (at least 1); the first ones get the remainder. bytes: of the
 * whole layout, a multiple of MR_SLICE_ALIGN. */
mr_state_share mr_state_share_of(size_t bytes, size_t width, size_t index);

#endif
