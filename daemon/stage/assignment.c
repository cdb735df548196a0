/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/assignment.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"

/* Room for what rides along with the activations: labels or a position, each padded. */
enum { ASSIGNMENT_RIDER_BYTES = 256 };

static mr_status assignment_take_text(const char *field, const char *text, char *out,
                                      size_t capacity) {
    size_t bytes = strlen(text) + 1;
    if (bytes > capacity)
        return MR_ERROR(INVALID_ARGUMENT, "prepare.%s has %zu bytes; at most %zu fit", field,
                        bytes - 1, capacity - 1);
    memcpy(out, text, bytes);
    return MR_OK;
}

static mr_status assignment_take_peers(mr_assignment *assignment,
                                       const Millrace__V1__Prepare *order) {
    if (order->n_peers != assignment->rank_count)
        return MR_ERROR(INVALID_ARGUMENT, "prepare.peers has %zu entries; the plan has %zu ranks",
                        order->n_peers, assignment->rank_count);
    assignment->addresses = mr_alloc_array(order->n_peers, sizeof(*assignment->addresses));
    if (assignment->addresses == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu peers", order->n_peers);
    for (size_t i = 0; i < order->n_peers; i++) {
        const Millrace__V1__Peer *peer = order->peers[i];
        if (peer->rank >= assignment->rank_count)
            return MR_ERROR(INVALID_ARGUMENT, "prepare.peers names rank %u of %zu", peer->rank,
                            assignment->rank_count);
        MR_TRY(assignment_take_text("peers.address", peer->address,
                                    assignment->addresses[peer->rank], MR_ADDRESS_BYTES));
    }
    return MR_OK;
}

/* The cut of a profiled job. */
static mr_status assignment_take_bounds(mr_job *job, const Millrace__V1__Prepare *order) {
    size_t *bounds = mr_alloc_array(order->n_bounds, sizeof(*bounds));
    if (bounds == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bounds", order->n_bounds);
    for (size_t i = 0; i < order->n_bounds; i++)
        bounds[i] = order->bounds[i];
    mr_status status = mr_job_set_bounds(job, bounds, order->n_bounds);
    mr_free(bounds);
    return status;
}

static mr_status assignment_take_plan(mr_assignment *assignment,
                                      const Millrace__V1__Prepare *order) {
    MR_TRY(mr_job_parse(order->job_file, strlen(order->job_file), &assignment->job, NULL));
    mr_job_become(assignment->job, assignment->mode);
    if (order->n_bounds > 0)
        MR_TRY(assignment_take_bounds(assignment->job, order));
    MR_TRY(mr_plan_make(assignment->job, assignment->inference, &assignment->plan));
    assignment->rank_count = assignment->plan->topology.world_size;
    if (order->rank >= assignment->rank_count)
        return MR_ERROR(INVALID_ARGUMENT, "prepare.rank is %u; the plan has %zu ranks", order->rank,
                        assignment->rank_count);
    if (strcmp(order->schedule_hash, assignment->plan->schedule_hash) != 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "the schedule's hash is %.16s here and %.16s at the coordinator: different "
                        "versions of millrace?",
                        assignment->plan->schedule_hash, order->schedule_hash);
    size_t coordinates[MR_AXES_MAX];
    MR_TRY(mr_topology_coordinates(&assignment->plan->topology, order->rank, coordinates));
    assignment->stage = (uint32_t)coordinates[0]; /* axes are pipe, data, model */
    assignment->replica = (uint32_t)coordinates[1];
    assignment->model_rank = (uint32_t)coordinates[2];
    if (assignment->job->model == 1)
        return MR_OK;
    mr_job_become_shard(assignment->job, assignment->model_rank);
    return mr_job_describe(assignment->job, assignment->plan->shards);
}

static mr_status assignment_take_paths(mr_assignment *assignment,
                                       const Millrace__V1__Prepare *order) {
    assignment->weights_only = order->weights_only;
    if (assignment->job->checkpoint_dir[0] != 0)
        MR_TRY(mr_job_resolve_path(order->base_directory, assignment->job->checkpoint_dir,
                                   assignment->checkpoint_dir));
    if (assignment->job->load_path[0] != 0)
        MR_TRY(mr_job_resolve_path(order->base_directory, assignment->job->load_path,
                                   assignment->load_path));
    return assignment_take_text("checkpoint_path", order->checkpoint_path,
                                assignment->checkpoint_path, sizeof(assignment->checkpoint_path));
}

static mr_status assignment_fill(mr_assignment *assignment, const Millrace__V1__Prepare *order) {
    assignment->epoch = order->epoch;
    assignment->rank = order->rank;
    if ((unsigned)order->mode >= MR_JOB_MODE_COUNT)
        return MR_ERROR(INVALID_ARGUMENT, "prepare.mode is %d; it must be 0 to %d",
                        (int)order->mode, MR_JOB_MODE_COUNT - 1);
    assignment->mode = (mr_job_mode)order->mode;
    assignment->inference = !mr_job_mode_trains(assignment->mode);
    MR_TRY(assignment_take_text("job_id", order->job_id, assignment->job_id, MR_JOB_ID_BYTES));
    MR_TRY(assignment_take_plan(assignment, order));
    MR_TRY(assignment_take_peers(assignment, order));
    return assignment_take_paths(assignment, order);
}

mr_status mr_assignment_make(const Millrace__V1__Prepare *order, mr_assignment **out_assignment) {
    mr_assignment *assignment = mr_alloc(sizeof(*assignment));
    if (assignment == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an assignment");
    mr_status status = assignment_fill(assignment, order);
    if (!mr_status_is_ok(status)) {
        mr_assignment_destroy(assignment);
        return status;
    }
    *out_assignment = assignment;
    return MR_OK;
}

void mr_assignment_destroy(mr_assignment *assignment) {
    if (assignment == NULL)
        return;
    mr_plan_destroy(assignment->plan);
    mr_job_destroy(assignment->job);
    mr_free(assignment->addresses);
    mr_free(assignment);
}

bool mr_assignment_is_fed(const mr_assignment *assignment) {
    return assignment->stage == 0 && assignment->model_rank == 0;
}

const mr_stage_plan *mr_assignment_stage(const mr_assignment *assignment) {
    return &assignment->plan->stages[assignment->stage];
}

mr_shape mr_assignment_boundary(const mr_assignment *assignment, size_t layer) {
    return layer == 0 ? mr_job_input_shape(assignment->job)
                      : assignment->plan->shards[layer - 1].output;
}

/* Bytes of what is put before layer and taken from it on, each padded. */
static size_t assignment_aside_bytes(const mr_assignment *assignment, size_t layer) {
    const mr_plan *plan = assignment->plan;
    size_t all = 0;
    for (size_t i = 0; i < plan->aside_count; i++) {
        mr_shape shape = mr_assignment_boundary(assignment, plan->asides[i].put + 1);
        size_t bytes = 0;
        if (!mr_aside_crosses(&plan->asides[i], layer))
            continue;
        MR_ASSERT(mr_shape_bytes(&shape, &bytes));
        all += bytes + ASSIGNMENT_RIDER_BYTES;
    }
    return all;
}

size_t mr_assignment_message_bytes(const mr_assignment *assignment, size_t layer) {
    mr_shape boundary = mr_assignment_boundary(assignment, layer);
    mr_shape labels = {0};
    size_t bytes = 0;
    size_t label_bytes = 0;
    /* The plan computed these products before; they cannot overflow now. */
    MR_ASSERT(mr_shape_bytes(&boundary, &bytes));
    if (mr_status_is_ok(mr_job_label_shape(assignment->job, &labels)))
        MR_ASSERT(mr_shape_bytes(&labels, &label_bytes));
    return bytes + label_bytes + assignment_aside_bytes(assignment, layer) +
           ASSIGNMENT_RIDER_BYTES;
}
