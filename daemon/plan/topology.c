/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks are numbers in a mixed-radix system whose digits are the coordinates: rank =
 * ((c0 * d1 + c1) * d2 + c2)..., so the last axis is the lowest digit. Every question below is
 * answered from the digits, without a table of ranks.
 *
 * A rank's distance to its neighbour on an axis (the axis's stride) is the product of the
 * dimensions after it. The ranks that differ in one axis only are first, first + stride, first + 2
 * strides, ...; the lists of mr_topology_comm_list are counted by their first rank, which is found
 * by reading the list's index as a number over the other axes. */
#include "daemon/plan/topology.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/limits.h"

static mr_status axis_name_check(const char *const *axes, size_t index) {
    const char *name = axes[index];
    if (name == NULL || name[0] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "topology axis %zu has no name", index);
    if (strlen(name) >= MR_AXIS_NAME_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "topology axis %zu has a name of %zu bytes; at most %d",
                        index, strlen(name), MR_AXIS_NAME_BYTES - 1);
    for (size_t before = 0; before < index; before++)
        if (strcmp(axes[before], name) == 0)
            return MR_ERROR(INVALID_ARGUMENT, "topology axis '%s' is named twice", name);
    return MR_OK;
}

mr_status mr_topology_make(const char *const *axes, const size_t *dims, size_t axis_count,
                           mr_topology *out_topology) {
    if (axis_count == 0 || axis_count > MR_AXES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a topology of %zu axes; it must have 1 to %d",
                        axis_count, MR_AXES_MAX);
    mr_topology topology = {.axis_count = axis_count, .world_size = 1};
    for (size_t axis = 0; axis < axis_count; axis++) {
        MR_TRY(axis_name_check(axes, axis));
        if (dims[axis] == 0)
            return MR_ERROR(INVALID_ARGUMENT, "topology axis '%s' has size 0; at least 1",
                            axes[axis]);
        if (dims[axis] > MR_RANKS_MAX / topology.world_size)
            return MR_ERROR(INVALID_ARGUMENT,
                            "topology axis '%s' of size %zu makes more than %d ranks", axes[axis],
                            dims[axis], MR_RANKS_MAX);
        topology.dims[axis] = dims[axis];
        topology.world_size *= dims[axis];
        memcpy(topology.axes[axis], axes[axis], strlen(axes[axis]) + 1);
    }
    *out_topology = topology;
    return MR_OK;
}

/* Position of an axis; axis_count when there is none of that name. */
static size_t axis_find(const mr_topology *topology, const char *axis) {
    size_t index = 0;
    while (index < topology->axis_count && strcmp(topology->axes[index], axis) != 0)
        index++;
    return index;
}

/* Distance between the ranks of two neighbours on an axis. */
static size_t axis_stride(const mr_topology *topology, size_t axis) {
    size_t stride = 1;
    for (size_t after = axis + 1; after < topology->axis_count; after++)
        stride *= topology->dims[after];
    return stride;
}

size_t mr_topology_dim(const mr_topology *topology, const char *axis) {
    size_t index = axis_find(topology, axis);
    return index < topology->axis_count ? topology->dims[index] : 0;
}

mr_status mr_topology_rank(const mr_topology *topology, const size_t *coordinates,
                           uint32_t *out_rank) {
    size_t rank = 0;
    for (size_t axis = 0; axis < topology->axis_count; axis++) {
        if (coordinates[axis] >= topology->dims[axis])
            return MR_ERROR(OUT_OF_RANGE, "coordinate %zu of axis '%s'; it must be below %zu",
                            coordinates[axis], topology->axes[axis], topology->dims[axis]);
        rank = rank * topology->dims[axis] + coordinates[axis];
    }
    *out_rank = (uint32_t)rank;
    return MR_OK;
}

static mr_status rank_check(const mr_topology *topology, uint32_t rank) {
    if (rank >= topology->world_size)
        return MR_ERROR(OUT_OF_RANGE, "rank %u; it must be below the world size %zu", rank,
                        topology->world_size);
    return MR_OK;
}

mr_status mr_topology_coordinates(const mr_topology *topology, uint32_t rank,
                                  size_t *out_coordinates) {
    MR_TRY(rank_check(topology, rank));
    size_t rest = rank;
    for (size_t axis = topology->axis_count; axis-- > 0;) {
        out_coordinates[axis] = rest % topology->dims[axis];
        rest /= topology->dims[axis];
    }
    return MR_OK;
}

mr_status mr_topology_rank_of(const mr_topology *topology, const mr_topology_match *matches,
                              size_t match_count, uint32_t *out_rank) {
    if (match_count != topology->axis_count)
        return MR_ERROR(INVALID_ARGUMENT, "%zu coordinates for a topology of %zu axes", match_count,
                        topology->axis_count);
    size_t coordinates[MR_AXES_MAX] = {0};
    bool given[MR_AXES_MAX] = {false};
    for (size_t i = 0; i < match_count; i++) {
        size_t axis = axis_find(topology, matches[i].axis);
        if (axis == topology->axis_count)
            return MR_ERROR(NOT_FOUND, "the topology has no axis '%s'", matches[i].axis);
        if (given[axis])
            return MR_ERROR(INVALID_ARGUMENT, "axis '%s' is given twice", matches[i].axis);
        given[axis] = true;
        coordinates[axis] = matches[i].value;
    }
    return mr_topology_rank(topology, coordinates, out_rank);
}

mr_status mr_topology_filter(const mr_topology *topology, const mr_topology_match *matches,
                             size_t match_count, uint32_t *out_ranks, size_t *out_count) {
    for (size_t i = 0; i < match_count; i++)
        if (axis_find(topology, matches[i].axis) == topology->axis_count)
            return MR_ERROR(NOT_FOUND, "the topology has no axis '%s'", matches[i].axis);
    size_t count = 0;
    for (size_t rank = 0; rank < topology->world_size; rank++) {
        bool meets = true;
        for (size_t i = 0; i < match_count && meets; i++) {
            size_t axis = axis_find(topology, matches[i].axis);
            size_t value = rank / axis_stride(topology, axis) % topology->dims[axis];
            meets = value == matches[i].value;
        }
        if (meets)
            out_ranks[count++] = (uint32_t)rank;
    }
    *out_count = count;
    return MR_OK;
}

mr_status mr_topology_axis_list(const mr_topology *topology, const char *axis, size_t value,
                                uint32_t *out_ranks, size_t *out_count) {
    mr_topology_match match = {.axis = axis, .value = value};
    return mr_topology_filter(topology, &match, 1, out_ranks, out_count);
}

size_t mr_topology_comm_list_count(const mr_topology *topology, const char *axis) {
    size_t dim = mr_topology_dim(topology, axis);
    return dim == 0 ? 0 : topology->world_size / dim;
}

void mr_topology_comm_list(const mr_topology *topology, const char *axis, size_t index,
                           uint32_t *out_ranks) {
    MR_ASSERT(index < mr_topology_comm_list_count(topology, axis));
    size_t position = axis_find(topology, axis);
    size_t stride = axis_stride(topology, position);
    size_t dim = topology->dims[position];
    /* index counts the ranks with coordinate 0 here: stride of them, then the next dim * stride. */
    size_t first = index / stride * stride * dim + index % stride;
    for (size_t value = 0; value < dim; value++)
        out_ranks[value] = (uint32_t)(first + value * stride);
}

mr_status mr_topology_rank_text(const mr_topology *topology, uint32_t rank, const char *const *omit,
                                size_t omit_count, const char *inner, const char *outer,
                                char out_text[MR_RANK_TEXT_BYTES]) {
    MR_TRY(rank_check(topology, rank));
    char text[MR_RANK_TEXT_BYTES] = "";
    size_t used = 0;
    for (size_t axis = 0; axis < topology->axis_count; axis++) {
        bool omitted = false;
        for (size_t i = 0; i < omit_count; i++)
            omitted = omitted || strcmp(omit[i], topology->axes[axis]) == 0;
        if (omitted)
            continue;
        int length = snprintf(text + used, sizeof(text) - used, "%s%s%s%02zu",
                              used == 0 ? "" : outer, topology->axes[axis], inner,
                              rank / axis_stride(topology, axis) % topology->dims[axis]);
        if (length < 0 || (size_t)length >= sizeof(text) - used)
            return MR_ERROR(INVALID_ARGUMENT, "the text of rank %u is longer than %d bytes", rank,
                            MR_RANK_TEXT_BYTES - 1);
        used += (size_t)length;
    }
    memcpy(out_text, text, sizeof(text));
    return MR_OK;
}
