/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/connections.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/group/staged.h"
#include "daemon/link/staged.h"
#include "daemon/model/slices.h"

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
    size_t layer = 0;
    size_t largest = 0;
    while (layer < job->layer_count && strcmp(job->layers[layer].tie, key) != 0)
        layer++;
    MR_ASSERT(layer < job->layer_count);
    for (size_t slot = 0; slot < assignment->plan->shards[layer].tied_count; slot++) {
        const mr_parameter *tied =
            mr_layer_description_tied(&assignment->plan->shards[layer], slot);
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&tied->shape, &bytes));
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* Bytes of one layer's parameters as they lie in a stage's memory. */
static size_t layer_bytes(const mr_layer_description *layer) {
    mr_slices slices = {0};
    for (size_t i = 0; i < layer->parameter_count; i++) {
        size_t elements = 0;
        MR_ASSERT(mr_shape_elements(&layer->parameters[i].shape, &elements));
        (void)mr_slices_take(&slices, MR_DTYPE_F32, elements, 1);
    }
    MR_ASSERT(!slices.overflowed); /* the plan has counted them */
    return slices.bytes;
}

/* Of this stage's largest layer: what replicas sum, or save, at once. */
static size_t largest_layer_bytes(const mr_assignment *assignment) {
    const mr_stage_plan *stage = mr_assignment_stage(assignment);
    size_t largest = 0;
    for (size_t l = stage->layer_first; l < stage->layer_end; l++) {
        size_t bytes = layer_bytes(&assignment->plan->shards[l]);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static size_t size_max(size_t a, size_t b) {
    return a > b ? a : b;
}

/* What the ranks of a model axis exchange at once: a sum of any activation in f32, the shares of
 * one, a microbatch of the feed, statistics of logits, or their squares. */
static size_t model_bytes(const mr_assignment *assignment, size_t gather_bytes) {
    const mr_stage_plan *stage = mr_assignment_stage(assignment);
    size_t width = assignment->job->model;
    size_t largest = size_max(mr_assignment_message_bytes(assignment, 0), sizeof(mr_message));
    for (size_t l = stage->layer_first; l <= stage->layer_end; l++) {
        mr_shape shape = mr_assignment_boundary(assignment, l);
        size_t elements = 0;
        size_t *last = &shape.dims[shape.dim_count - 1];
        size_t rows = 1;
        for (size_t i = 0; i + 1 < shape.dim_count; i++)
            rows *= shape.dims[i];
        *last = shape.cut_from > 0 ? shape.cut_from : *last;
        MR_ASSERT(mr_shape_elements(&shape, &elements)); /* the plan has counted the whole layer */
        largest = size_max(largest, elements * sizeof(float));
        largest = size_max(largest, width * MR_LOGIT_STATISTIC_COUNT * rows * sizeof(float));
    }
    return size_max(largest, width * gather_bytes);
}

/* Of all of this stage's weights, at most: a tie's count for each use. What replicas with split
 * state bring together at once. */
static size_t weights_bytes(const mr_assignment *assignment) {
    const mr_stage_plan *stage = mr_assignment_stage(assignment);
    size_t bytes = 0;
    for (size_t l = stage->layer_first; l < stage->layer_end; l++)
        bytes += layer_bytes(&assignment->plan->shards[l]); /* the plan has added them up */
    return bytes;
}

/* kind: the first word of the group's id. */
static mr_group_options group_options(const mr_assignment *assignment, const char *kind,
                                      const mr_group_plan *group, size_t bytes_max,
                                      char id[CONNECTIONS_GROUP_ID_BYTES]) {
    (void)snprintf(id, CONNECTIONS_GROUP_ID_BYTES, "%s/%s/%u", kind, group->key, group->ranks[0]);
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

/* ---- what travels by the fabric ---- */

/* Bytes of an address before its port. */
static size_t host_bytes(const char *address) {
    const char *colon = strrchr(address, ':');
    return colon == NULL ? strlen(address) : (size_t)(colon - address);
}

/* Are both ranks on one machine? By their addresses, which both ends know from the plan. */
static bool ranks_are_near(const mr_assignment *assignment, uint32_t a, uint32_t b) {
    const char *one = assignment->addresses[a];
    const char *other = assignment->addresses[b];
    size_t bytes = host_bytes(one);
    return bytes == host_bytes(other) && strncmp(one, other, bytes) == 0;
}

static bool link_is_near(const mr_assignment *assignment, const mr_link_options *options) {
    return ranks_are_near(assignment, options->from_rank, options->to_rank);
}

static void link_key(const mr_link_options *options, char out_key[MR_GROUP_KEY_BYTES]) {
    (void)snprintf(out_key, MR_GROUP_KEY_BYTES, "link/%u-%u/%s", options->from_rank,
                   options->to_rank,
                   options->kind == MR_LINK_ACTIVATION ? "activation" : "gradient");
}

static mr_status connections_make_id(mr_connections *connections, const mr_transport *transport,
                                     const char *key) {
    unsigned char id[MR_GROUP_ID_BYTES];
    size_t bytes = 0;
    MR_TRY(transport->fabric->id_make(transport->fabric, id, &bytes));
    return mr_group_ids_add(&connections->made, key, id, bytes);
}

static mr_status id_find(const mr_group_ids *ids, const char *key, const mr_group_id **out_id) {
    *out_id = mr_group_ids_find(ids, key);
    if (*out_id == NULL)
        return MR_ERROR(FAILED_PRECONDITION, "connect.group_ids has no id for %s", key);
    return MR_OK;
}

/* ---- groups ---- */

/* One pass over the plan's groups. ids: NULL while listening. */
typedef struct group_pass {
    mr_connections *connections;
    const mr_assignment *assignment;
    const mr_transport *transport;
    const mr_group_ids *ids;
    size_t gather_bytes;
} group_pass;

/* In host memory: a first member stands before Prepared, the others join it at Connect. */
static mr_status group_on_host(const group_pass *pass, const char *kind,
                               const mr_group_plan *group, size_t bytes_max,
                               mr_group **group_slot) {
    char key[CONNECTIONS_GROUP_ID_BYTES];
    mr_group_options options = group_options(pass->assignment, kind, group, bytes_max, key);
    const mr_transport *transport = pass->transport;
    bool first = group->ranks[0] == pass->assignment->rank;
    bool listening = pass->ids == NULL;
    if (listening && group->rank_count == 1)
        return mr_group_alone(&options, group_slot);
    if (listening && first)
        return mr_group_grpc_first(transport->groups, &options, group_slot);
    if (!listening && !first)
        return mr_group_grpc_member(pass->assignment->addresses[group->ranks[0]],
                                    transport->credentials, &options, MR_CONNECT_TIMEOUT_MS,
                                    group_slot);
    return MR_OK;
}

/* By the fabric: the first member makes the id before Prepared, and all join at Connect. */
static mr_status group_on_fabric(const group_pass *pass, const char *kind,
                                 const mr_group_plan *group, size_t bytes_max,
                                 mr_group **group_slot) {
    char key[CONNECTIONS_GROUP_ID_BYTES];
    const mr_group_id *id = NULL;
    mr_fabric *fabric = pass->transport->fabric;
    mr_group_options options = group_options(pass->assignment, kind, group, bytes_max, key);
    if (pass->ids == NULL && group->ranks[0] == pass->assignment->rank)
        return connections_make_id(pass->connections, pass->transport, key);
    if (pass->ids == NULL)
        return MR_OK;
    MR_TRY(id_find(pass->ids, key, &id));
    return fabric->group_open(fabric, id, &options, MR_CONNECT_TIMEOUT_MS, group_slot);
}

/* Of tensors: by the fabric, or on the host; there through copies where they are not in its memory.
 * parts_max: vectors that this rank adds to one sum. A group of one has nothing to carry. */
static mr_status group_of_tensors(const group_pass *pass, const char *kind,
                                  const mr_group_plan *group, size_t bytes_max, size_t parts_max,
                                  mr_group **group_slot) {
    mr_device *device = pass->transport->device;
    const mr_fabric *fabric = pass->transport->fabric;
    if (fabric != NULL && fabric->group_open != NULL && group->rank_count > 1)
        return group_on_fabric(pass, kind, group, bytes_max, group_slot);
    mr_group *before = *group_slot;
    MR_TRY(group_on_host(pass, kind, group, bytes_max, group_slot));
    if (device == NULL || group->rank_count == 1 || *group_slot == before)
        return MR_OK;
    mr_group *inner = *group_slot;
    *group_slot = NULL;
    return mr_group_staged(device, bytes_max, parts_max, inner, group_slot);
}

/* Layers of this stage that use the tie. */
static size_t tied_uses(const mr_assignment *assignment, const char *key) {
    const mr_stage_plan *stage = mr_assignment_stage(assignment);
    size_t uses = 0;
    for (size_t l = stage->layer_first; l < stage->layer_end; l++)
        uses += strcmp(assignment->job->layers[l].tie, key) == 0;
    return uses;
}

static mr_status group_tied(const group_pass *pass, const mr_group_plan *group, size_t index) {
    mr_tied_group *slot = &pass->connections->tied[index];
    slot->plan = group;
    return group_of_tensors(pass, "tied", group, tied_bytes(pass->assignment, group->key),
                            size_max(tied_uses(pass->assignment, group->key), 1), &slot->group);
}

/* Replicas: losses, records and what is saved go by the host on EXEC; gradients with the tensors,
 * in a group of their own, since another thread sums them while EXEC goes on. */
static mr_status group_data(const group_pass *pass, const mr_group_plan *group) {
    mr_connections *connections = pass->connections;
    const mr_job *job = pass->assignment->job;
    size_t largest = largest_layer_bytes(pass->assignment);
    size_t host = largest < pass->gather_bytes ? pass->gather_bytes : largest;
    size_t tensors = job->zero_stage > 0 ? weights_bytes(pass->assignment) : largest;
    MR_TRY(group_on_host(pass, "data", group, host, &connections->data));
    if (pass->assignment->inference)
        return MR_OK;
    return group_of_tensors(pass, "gradients", group, tensors, 1, &connections->gradients);
}

/* In the plan's order, which is one for all ranks. The pipe group stays on the host: it carries
 * records and norms, and waits between steps, which would keep a kernel of the fabric turning. */
static mr_status connections_groups(const group_pass *pass) {
    size_t tied = 0;
    for (size_t i = 0; i < pass->assignment->plan->group_count; i++) {
        const mr_group_plan *group = &pass->assignment->plan->groups[i];
        if (!group_has(group, pass->assignment->rank))
            continue;
        if (group->kind == MR_GROUP_PIPE)
            MR_TRY(group_on_host(pass, "pipe", group, pass->gather_bytes,
                                 &pass->connections->pipe));
        else if (group->kind == MR_GROUP_TIED)
            MR_TRY(group_tied(pass, group, tied++));
        else if (group->kind == MR_GROUP_DATA)
            MR_TRY(group_data(pass, group));
        else if (group->kind == MR_GROUP_MODEL)
            MR_TRY(group_on_host(pass, "model", group,
                                 model_bytes(pass->assignment, pass->gather_bytes),
                                 &pass->connections->model));
    }
    pass->connections->tied_count = tied;
    return MR_OK;
}

/* ---- links ---- */

static mr_link_options activation_in(const mr_assignment *assignment) {
    return activation_options(assignment, assignment->stage, neighbour_rank(assignment, -1),
                              assignment->rank);
}

static mr_link_options activation_out(const mr_assignment *assignment) {
    return activation_options(assignment, assignment->stage + 1u, assignment->rank,
                              neighbour_rank(assignment, 1));
}

static mr_link_options gradient_in(const mr_assignment *assignment) {
    return gradient_options(assignment, assignment->stage + 1u, neighbour_rank(assignment, 1),
                            assignment->rank);
}

static mr_link_options gradient_out(const mr_assignment *assignment) {
    return gradient_options(assignment, assignment->stage, assignment->rank,
                            neighbour_rank(assignment, -1));
}

static mr_status connections_receiver(const mr_assignment *assignment,
                                      const mr_transport *transport, mr_link_options options,
                                      mr_link **link_slot) {
    mr_fabric *fabric = transport->fabric;
    mr_link *host = NULL;
    if (fabric != NULL)
        return fabric->link_receiver(fabric, transport->links, &options,
                                     link_is_near(assignment, &options), link_slot);
    if (transport->device == NULL)
        return mr_link_grpc_receiver(transport->links, &options, link_slot);
    MR_TRY(mr_link_grpc_receiver(transport->links, &options, &host));
    return mr_link_staged_receiver(transport->device, &options, host, link_slot);
}

/* The sending end of an edge between machines makes the edge's id. */
static mr_status connections_link_id(mr_connections *connections, const mr_assignment *assignment,
                                     const mr_transport *transport, mr_link_options options) {
    char key[MR_GROUP_KEY_BYTES];
    if (transport->fabric == NULL || link_is_near(assignment, &options))
        return MR_OK;
    link_key(&options, key);
    return connections_make_id(connections, transport, key);
}

mr_status mr_connections_listen(mr_connections *connections, const mr_assignment *assignment,
                                const mr_transport *transport, size_t gather_bytes) {
    *connections = (mr_connections){0};
    connections->tied =
        mr_alloc_array(assignment->plan->group_count + 1, sizeof(*connections->tied));
    if (connections->tied == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu groups",
                        assignment->plan->group_count);
    bool trains = !assignment->inference;
    if (has_previous(assignment)) {
        MR_TRY(connections_receiver(assignment, transport, activation_in(assignment),
                                    &connections->activation_in));
        if (trains)
            MR_TRY(connections_link_id(connections, assignment, transport,
                                       gradient_out(assignment)));
    }
    if (has_next(assignment)) {
        if (trains)
            MR_TRY(connections_receiver(assignment, transport, gradient_in(assignment),
                                        &connections->gradient_in));
        MR_TRY(connections_link_id(connections, assignment, transport,
                                   activation_out(assignment)));
    }
    const group_pass pass = {.connections = connections,
                             .assignment = assignment,
                             .transport = transport,
                             .gather_bytes = gather_bytes};
    return connections_groups(&pass);
}

/* Messages that this stage lets be on their way at once: an activation from each of its slots. */
static size_t sender_buffers(const mr_assignment *assignment, mr_link_kind kind) {
    return kind == MR_LINK_ACTIVATION ? activation_slots(assignment, assignment->stage)
                                      : CONNECTIONS_GRADIENT_SLOTS;
}

static mr_status sender_on_host(const mr_assignment *assignment, const mr_transport *transport,
                                const mr_link_options *options, mr_link **link_slot) {
    const char *address = assignment->addresses[options->to_rank];
    mr_link *host = NULL;
    MR_TRY(mr_link_grpc_sender(address, transport->credentials, options, MR_CONNECT_TIMEOUT_MS,
                               &host));
    if (transport->device != NULL)
        return mr_link_staged_sender(transport->device, options,
                                     sender_buffers(assignment, options->kind), host, link_slot);
    *link_slot = host;
    return MR_OK;
}

static mr_status connections_sender(const mr_assignment *assignment, const mr_transport *transport,
                                    mr_link_options options, mr_link **link_slot) {
    const char *address = assignment->addresses[options.to_rank];
    mr_fabric *fabric = transport->fabric;
    mr_status status =
        fabric == NULL ? sender_on_host(assignment, transport, &options, link_slot)
                       : fabric->link_sender(fabric, address, transport->credentials, &options,
                                             link_is_near(assignment, &options),
                                             MR_CONNECT_TIMEOUT_MS, link_slot);
    return mr_status_is_ok(status)
               ? status
               : mr_status_prefix(status, "link to rank %u at %s", options.to_rank, address);
}

static mr_status connections_join(const mr_assignment *assignment, const mr_transport *transport,
                                  const mr_group_ids *ids, mr_link_options options,
                                  mr_link *link) {
    char key[MR_GROUP_KEY_BYTES];
    const mr_group_id *id = NULL;
    bool near = link_is_near(assignment, &options);
    link_key(&options, key);
    if (!near)
        MR_TRY(id_find(ids, key, &id));
    mr_status status = transport->fabric->link_join(transport->fabric, link, id, near,
                                                    MR_CONNECT_TIMEOUT_MS);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "%s", key);
}

/* Each edge in the order of the pipeline, down before up: one order for all ranks, so that no two
 * wait for each other. */
static mr_status connections_join_all(const mr_connections *connections,
                                      const mr_assignment *assignment,
                                      const mr_transport *transport, const mr_group_ids *ids) {
    bool trains = !assignment->inference;
    if (transport->fabric == NULL)
        return MR_OK;
    if (has_previous(assignment)) {
        MR_TRY(connections_join(assignment, transport, ids, activation_in(assignment),
                                connections->activation_in));
        if (trains)
            MR_TRY(connections_join(assignment, transport, ids, gradient_out(assignment),
                                    connections->gradient_out));
    }
    if (has_next(assignment)) {
        MR_TRY(connections_join(assignment, transport, ids, activation_out(assignment),
                                connections->activation_out));
        if (trains)
            MR_TRY(connections_join(assignment, transport, ids, gradient_in(assignment),
                                    connections->gradient_in));
    }
    return MR_OK;
}

mr_status mr_connections_open(mr_connections *connections, const mr_assignment *assignment,
                              const mr_transport *transport, const mr_group_ids *ids,
                              size_t gather_bytes) {
    if (has_next(assignment))
        MR_TRY(connections_sender(assignment, transport, activation_out(assignment),
                                  &connections->activation_out));
    if (has_previous(assignment) && !assignment->inference)
        MR_TRY(connections_sender(assignment, transport, gradient_out(assignment),
                                  &connections->gradient_out));
    MR_TRY(connections_join_all(connections, assignment, transport, ids));
    const group_pass pass = {.connections = connections,
                             .assignment = assignment,
                             .transport = transport,
                             .ids = ids,
                             .gather_bytes = gather_bytes};
    return connections_groups(&pass);
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
    if (connections->gradients != NULL)
        mr_group_interrupt(connections->gradients, reason);
    if (connections->model != NULL)
        mr_group_interrupt(connections->model, reason);
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
    mr_group_close(connections->gradients);
    mr_group_close(connections->model);
    for (size_t i = 0; i < connections->tied_count; i++)
        mr_group_close(connections->tied[i].group);
    mr_free(connections->tied);
    mr_group_ids_deinit(&connections->made);
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
