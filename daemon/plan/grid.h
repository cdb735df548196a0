/* SPDX-License-Identifier: Apache-2.0 */
/* grid.h: the topology of a number of ranks where a job leaves axes open
 * (reference: deepspeed.md 7, 62, 63).
 * Owner: plan. Pure, any thread.
 * Not here: ranks and coordinates (topology.h). */
#ifndef MR_PLAN_GRID_H
#define MR_PLAN_GRID_H

#include <stddef.h>

#include "daemon/base/status.h"

/* Sizes of the axes; 0: open. model is never open. */
typedef struct mr_grid {
    size_t pipe;
    size_t data;
    size_t model;
} mr_grid;

/* Closes what is open so that the product is world. One open axis: what is left. Both: the prime
 * factors of what is left, ascending, by turns to pipe and to data.
 * INVALID_ARGUMENT: world outside 1 to MR_RANKS_MAX, or no multiple of the given axes, or, with
 * none open, not their product; grid is unchanged then. */
MR_MUST_CHECK mr_status mr_grid_fit(size_t world, mr_grid *grid);

#endif
