/* SPDX-License-Identifier: Apache-2.0 */
/* topology.h: rank <-> coordinate, row-major, the last axis fastest (reference: deepspeed.md 54-61).
 * Owner: plan. Pure, any thread. */
#ifndef MR_PLAN_TOPOLOGY_H
#define MR_PLAN_TOPOLOGY_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

enum { MR_AXES_MAX = 6, MR_AXIS_NAME_BYTES = 24, MR_RANK_TEXT_BYTES = 192 };

typedef struct mr_topology {
    size_t axis_count;
    char axes[MR_AXES_MAX][MR_AXIS_NAME_BYTES];
    size_t dims[MR_AXES_MAX];
    size_t world_size;
} mr_topology;

/* INVALID_ARGUMENT: a dimension of 0, a name twice or none, more than MR_AXES_MAX axes, more than
 * MR_RANKS_MAX ranks. */
MR_MUST_CHECK mr_status mr_topology_make(const char *const *axes, const size_t *dims,
                                         size_t axis_count, mr_topology *out_topology);
/* Size of an axis; 0 when there is none of that name. */
size_t mr_topology_dim(const mr_topology *topology, const char *axis);
/* coordinates: axis_count values. OUT_OF_RANGE names the axis, the value and the bound. */
MR_MUST_CHECK mr_status mr_topology_rank(const mr_topology *topology, const size_t *coordinates,
                                         uint32_t *out_rank);
MR_MUST_CHECK mr_status mr_topology_coordinates(const mr_topology *topology, uint32_t rank,
                                                size_t *out_coordinates);

#endif
