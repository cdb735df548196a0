/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/connections.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"

enum { CONNECTIONS_GRADIENT_SLOTS = 2, CONNECTIONS_GROUP_ID_BYTES = 96 };

/* The rank s stages further down the same pipeline; data and model axes keep their place. */
static uint32_t neighbour_rank(const mr_assignment *assignment, int offset) {
    size_t coordinates[MR_AXES_MAX];
    uint32_t rank = 0;
    const mr_topology *topology = &assignment->plan->topology;
    mr_status status = mr_topology_coordinates(topology, assignment->rank, coordinates);
    MR_ASSERT(mr_status_is_ok(status));
    coordinates[0] = (size_t)((int64_t)coordinates[0] + offset);
    status = mr_topology_rank(topology, coordinates, &rank);
    MR_ASSERT(mr_status_is_ok(status));
    return rank;
}

static mr_link_options link_options(const mr_assignment *assignment, uint32_t from, uint32_t to,
                                    mr_link_kind kind, size_t boundary_layer, size_t slots) {
    return (mr_link_options){
        .job_id = assignment->job_id,
        .epoch = assignment->epoch,
        .from_rank = from,
        .to_rank = to,
        .kind = kind,
        .slots = slots,
        .message_bytes_max = mr_assignment_message_bytes(assignment, boundary_layer),
    };
}

/* Slots of the activation edge that ends at stage: what it holds at once, and one on its way. */
static size_t activation_slots(const mr_assignment *assignment, size_t stage) {
    return assignment->plan->stages[stage].peak_in_flight + 1;
}

static mr_link_options activation_options(const mr_assignment *assignment, size_t to_stage,
                                          uint32_t from, uint32_t to) {
    return link_options(assignment, from, to, MR_LINK_ACTIVATION,
                        assignment->plan->stages[to_stage].layer_first,
                        activation_slots(assignment, to_stage));
}

/* The gradient of the input of stage from_stage, on its way to the stage before. */
static mr_link_options gradient_options(const mr_assignment *assignment, size_t from_stage,
                                        uint32_t from, uint32_t to) {
    return link_options(assignment, from, to, MR_LINK_GRADIENT,
                        assignment->plan->stages[from_stage].layer_first,
                        CONNECTIONS_GRADIENT_SLOTS);
}

static bool has_previous(const mr_assignment *assignment) {
    return assignment->stage > 0;
}

static bool has_next(const mr_assignment *assignment) {
    return assignment->stage + 1 < assignment->plan->stage_count;
}

static bool group_has(const mr_group_plan *group, uint32_t rank) {
    for (size_t i = 0; i < group->rank_count; i++)
        if (group->ranks[i] == rank)
            return true;
    return false;
}

/* Largest tied parameter of a key, in bytes. */
static size_t tied_bytes(const mr_assignment *assignment, const char *key) {
    const mr_job *job = assignment->job;
    for (size_t l = 0; l < job->layer_count; l++) {
        const mr_layer_description *layer = &assignment->plan->layers[l];
        if (strcmp(job->layers[l].tie, key) != 0)
            continue;
        for (size_t i = 0; i < layer->parameter_count; i++) {
            size_t bytes = 0;
            if (layer->parameters[i].tied) {
                MR_ASSERT(mr_shape_bytes(&layer->parameters[i].shape, &bytes));
                return bytes;
            }
        }
    }
    return 0;
}

/* Largest parameter of this stage, in bytes: what replicas sum at once. */
static size_t largest_parameter_bytes(const mr_assignment *assignment) {
    const mr_stage_plan *stage = mr_assignment_stage(assignment);
    size_t largest = 0;
    for (size_t l = stage->layer_first; l < stage->layer_end; l++) {
        const mr_layer_description *layer = &assignment->plan->layers[l];
        for (size_t i = 0; i < layer->parameter_count; i++) {
            size_t bytes = 0;
            MR_ASSERT(mr_shape_bytes(&layer->parameters[i].shape, &bytes));
            largest = bytes > largest ? bytes : largest;
        }
    }
    return largest;
}

static mr_group_options group_options(const mr_assignment *assignment, const mr_group_plan *group,
                                      size_t bytes_max, char id[CONNECTIONS_GROUP_ID_BYTES]) {
    static const char *const kinds[MR_GROUP_KIND_COUNT] = {
        [MR_GROUP_TIED] = "tied",
        [MR_GROUP_DATA] = "data",
        [MR_GROUP_MODEL] = "model",
        [MR_GROUP_PIPE] = "pipe",
    };
    (void)snprintf(id, CONNECTIONS_GROUP_ID_BYTES, "%s/%s/%u", kinds[group->kind], group->key,
                   group->ranks[0]);
    return (mr_group_options){
        .job_id = assignment->job_id,
        .epoch = assignment->epoch,
        .group_id = id,
        .ranks = group->ranks,
        .rank_count = group->rank_count,
        .rank = assignment->rank,
        .bytes_max = bytes_max,
        .parts_max = assignment->job->layer_count,
    };
}

/* Opens this rank's end of a group: a first member while listening, another one while opening. */
static mr_status connections_group(const mr_assignment *assignment, const mr_transport *transport,
                                   const mr_group_plan *group, size_t bytes_max, bool listening,
                                   mr_group **group_slot) {
    char id[CONNECTIONS_GROUP_ID_BYTES];
    mr_group_options options = group_options(assignment, group, bytes_max, id);
    bool first = group->ranks[0] == assignment->rank;
    if (listening && group->rank_count == 1)
        return mr_group_alone(&options, group_slot);
    if (listening && first)
        return mr_group_grpc_first(transport->groups, &options, group_slot);
    if (!listening && !first)
        return mr_group_grpc_member(assignment->addresses[group->ranks[0]], transport->credentials,
                                    &options, MR_CONNECT_TIMEOUT_MS, group_slot);
    return MR_OK;
}

/* One pass over the plan's groups, in its order. */
static mr_status connections_groups(mr_connections *connections, const mr_assignment *assignment,
                                    const mr_transport *transport, size_t gather_bytes,
                                    bool listening) {
    size_t tied = 0;
    for (size_t i = 0; i < assignment->plan->group_count; i++) {
        const mr_group_plan *group = &assignment->plan->groups[i];
        if (!group_has(group, assignment->rank))
            continue;
        if (group->kind == MR_GROUP_PIPE) {
            MR_TRY(connections_group(assignment, transport, group, gather_bytes, listening,
                                     &connections->pipe));
        } else if (group->kind == MR_GROUP_TIED) {
            mr_tied_group *slot = &connections->tied[tied++];
            slot->plan = group;
            MR_TRY(connections_group(assignment, transport, group,
                                     tied_bytes(assignment, group->key), listening, &slot->group));
        } else if (group->kind == MR_GROUP_DATA) {
            size_t bytes = largest_parameter_bytes(assignment);
            MR_TRY(connections_group(assignment, transport, group,
                                     bytes > gather_bytes ? bytes : gather_bytes, listening,
                                     &connections->data));
        }
    }
    connections->tied_count = tied;
    return MR_OK;
}

mr_status mr_connections_listen(mr_connections *connections, const mr_assignment *assignment,
                                const mr_transport *transport, size_t gather_bytes) {
    *connections = (mr_connections){0};
    connections->tied =
        mr_alloc_array(assignment->plan->group_count + 1, sizeof(*connections->tied));
    if (connections->tied == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu groups",
                        assignment->plan->group_count);
    if (has_previous(assignment)) {
        mr_link_options options = activation_options(assignment, assignment->stage,
                                                     neighbour_rank(assignment, -1),
                                                     assignment->rank);
        MR_TRY(mr_link_grpc_receiver(transport->links, &options, &connections->activation_in));
    }
    if (has_next(assignment) && !assignment->inference) {
        mr_link_options options = gradient_options(assignment, assignment->stage + 1u,
                                                   neighbour_rank(assignment, 1), assignment->rank);
        MR_TRY(mr_link_grpc_receiver(transport->links, &options, &connections->gradient_in));
    }
    return connections_groups(connections, assignment, transport, gather_bytes, true);
}

static mr_status connections_sender(const mr_assignment *assignment, const mr_transport *transport,
                                    const mr_link_options *options, mr_link **link_slot) {
    mr_status status =
        mr_link_grpc_sender(assignment->addresses[options->to_rank], transport->credentials,
                            options, MR_CONNECT_TIMEOUT_MS, link_slot);
    return mr_status_is_ok(status) ? status
                                   : mr_status_prefix(status, "link to rank %u at %s",
                                                      options->to_rank,
                                                      assignment->addresses[options->to_rank]);
}

mr_status mr_connections_open(mr_connections *connections, const mr_assignment *assignment,
                              const mr_transport *transport, size_t gather_bytes) {
    if (has_next(assignment)) {
        mr_link_options options = activation_options(assignment, assignment->stage + 1u,
                                                     assignment->rank,
                                                     neighbour_rank(assignment, 1));
        MR_TRY(connections_sender(assignment, transport, &options, &connections->activation_out));
    }
    if (has_previous(assignment) && !assignment->inference) {
        mr_link_options options = gradient_options(assignment, assignment->stage, assignment->rank,
                                                   neighbour_rank(assignment, -1));
        MR_TRY(connections_sender(assignment, transport, &options, &connections->gradient_out));
    }
    return connections_groups(connections, assignment, transport, gather_bytes, false);
}

/* The four links in one list, for what is done to all of them. */
static void connections_links(const mr_connections *connections, mr_link *links[4]) {
    links[0] = connections->activation_out;
    links[1] = connections->gradient_out;
    links[2] = connections->activation_in;
    links[3] = connections->gradient_in;
}

void mr_connections_interrupt(mr_connections *connections, const char *reason) {
    mr_link *links[4];
    connections_links(connections, links);
    for (size_t i = 0; i < 4; i++)
        if (links[i] != NULL)
            mr_link_interrupt(links[i], reason);
    if (connections->pipe != NULL)
        mr_group_interrupt(connections->pipe, reason);
    if (connections->data != NULL)
        mr_group_interrupt(connections->data, reason);
    for (size_t i = 0; i < connections->tied_count; i++)
        if (connections->tied[i].group != NULL)
            mr_group_interrupt(connections->tied[i].group, reason);
}

void mr_connections_close(mr_connections *connections) {
    mr_link *links[4];
    connections_links(connections, links);
    for (size_t i = 0; i < 4; i++)
        mr_link_close(links[i]);
    mr_group_close(connections->pipe);
    mr_group_close(connections->data);
    for (size_t i = 0; i < connections->tied_count; i++)
        mr_group_close(connections->tied[i].group);
    mr_free(connections->tied);
    *connections = (mr_connections){0};
}

uint64_t mr_connections_bytes_sent(const mr_connections *connections) {
    uint64_t bytes = 0;
    if (connections->activation_out != NULL)
        bytes += mr_link_bytes(connections->activation_out);
    if (connections->gradient_out != NULL)
        bytes += mr_link_bytes(connections->gradient_out);
    return bytes;
}
