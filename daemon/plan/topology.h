/* SPDX-License-Identifier: Apache-2.0 */
/* topology.h: rank <-> coordinate, row-major, the last axis fastest
 * (reference: deepspeed.md 54-61).
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

/* One wish about a rank's coordinates: the axis of this name has this value. */
typedef struct mr_topology_match {
    const char *axis;
    size_t value;
} mr_topology_match;

/* The rank whose coordinates are named one by one, in any order. INVALID_ARGUMENT: not exactly one
 * value per axis; NOT_FOUND: no axis of that name; OUT_OF_RANGE: axis, value and bound. */
MR_MUST_CHECK mr_status mr_topology_rank_of(const mr_topology *topology,
                                            const mr_topology_match *matches, size_t match_count,
                                            uint32_t *out_rank);
/* Ascending ranks that meet every wish; all ranks when there is none, no rank when a value is out
 * of range. out_ranks: room for world_size. NOT_FOUND: no axis of that name. */
MR_MUST_CHECK mr_status mr_topology_filter(const mr_topology *topology,
                                           const mr_topology_match *matches, size_t match_count,
                                           uint32_t *out_ranks, size_t *out_count);
/* Ascending ranks with coordinate value on one axis; as mr_topology_filter with one wish. */
MR_MUST_CHECK mr_status mr_topology_axis_list(const mr_topology *topology, const char *axis,
                                              size_t value, uint32_t *out_ranks, size_t *out_count);
/* How many lists of ranks differ in this axis alone; 0 when there is no axis of that name. */
size_t mr_topology_comm_list_count(const mr_topology *topology, const char *axis);
/* List number index of them: mr_topology_dim(axis) ranks in order of the axis. The lists are in
 * row-major order of the other axes. index must be below mr_topology_comm_list_count. */
void mr_topology_comm_list(const mr_topology *topology, const char *axis, size_t index,
                           uint32_t *out_ranks);
/* "pipe_00-model_01": the axes of a rank that are not in omit, in order, each as name, inner,
 * coordinate in at least two digits, joined by outer; "" when no axis is left.
 * OUT_OF_RANGE: no such rank; INVALID_ARGUMENT: longer than MR_RANK_TEXT_BYTES. */
MR_MUST_CHECK mr_status mr_topology_rank_text(const mr_topology *topology, uint32_t rank,
                                              const char *const *omit, size_t omit_count,
                                              const char *inner, const char *outer,
                                              char out_text[MR_RANK_TEXT_BYTES]);

#endif
