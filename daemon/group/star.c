/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/group/star.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/group/combine.h"

static_assert(MR_LINK_CHUNK_BYTES_MAX % sizeof(float) == 0, "a frame holds whole elements");

static const char *const operation_names[] = {"join", "sum", "broadcast", "gather"};

/* One operation as both ends see it. */
typedef struct star_operation {
    Millrace__V1__GroupOperation kind;
    uint64_t sequence;
    int64_t deadline;
} star_operation;

static mr_group_star *star_of(mr_group *group) {
    return (mr_group_star *)group; /* its first member */
}

static bool star_is_first(const mr_group_star *star) {
    return star->group.member_index == 0;
}

static star_operation star_begin(mr_group_star *star, Millrace__V1__GroupOperation kind,
                                 int64_t timeout_ms) {
    return (star_operation){
        .kind = kind,
        .sequence = ++star->sequence,
        .deadline = mr_monitor_deadline(timeout_ms),
    };
}

void mr_group_star_frame(const mr_group_star *star, Millrace__V1__GroupFrame *out_frame) {
    millrace__v1__group_frame__init(out_frame);
    out_frame->job_id = (char *)(uintptr_t)star->job_id; /* packed before the send returns */
    out_frame->group_id = (char *)(uintptr_t)star->group_id;
    out_frame->epoch = star->epoch;
    out_frame->rank = star->rank;
}

/* ---- vectors over a wire ---- */

/* Sends one part, cut into frames; part_count 0: a single frame that says so. */
static mr_status star_send(mr_group_star *star, const star_operation *operation,
                           mr_group_wire *wire, const void *data, size_t bytes, size_t part,
                           size_t part_count) {
    Millrace__V1__GroupFrame frame;
    mr_group_star_frame(star, &frame);
    frame.operation = operation->kind;
    frame.sequence = operation->sequence;
    frame.part = (uint32_t)part;
    frame.part_count = (uint32_t)part_count;
    frame.bytes_total = bytes;
    size_t offset = 0;
    do {
        size_t left = bytes - offset;
        size_t piece = left < MR_LINK_CHUNK_BYTES_MAX ? left : MR_LINK_CHUNK_BYTES_MAX;
        frame.offset = offset;
        MR_TRY(mr_group_wire_send(wire, &frame, (const unsigned char *)data + offset, piece,
                                  operation->deadline));
        offset += piece;
    } while (offset < bytes);
    return MR_OK;
}

static const char *operation_name(Millrace__V1__GroupOperation kind) {
    size_t index = (size_t)kind;
    return index < sizeof(operation_names) / sizeof(operation_names[0]) ? operation_names[index]
                                                                        : "unknown";
}

/* Takes the next frame, which must continue this operation's part at offset. */
static mr_status star_take(const mr_group_star *star, const star_operation *operation,
                           mr_group_wire *wire, size_t bytes, size_t part, size_t offset,
                           const Millrace__V1__GroupFrame **out_frame,
                           const mr_rpc_tail **out_tail) {
    const Millrace__V1__GroupFrame *frame = NULL;
    const mr_rpc_tail *tail = NULL;
    MR_TRY(mr_group_wire_take(wire, operation->deadline, &frame, &tail));
    if (frame->operation != operation->kind || frame->sequence != operation->sequence)
        return MR_ERROR(ABORTED,
                        "this rank does %s number %" PRIu64 " and rank %u does %s number %" PRIu64,
                        operation_name(operation->kind), operation->sequence,
                        mr_group_wire_peer(wire), operation_name(frame->operation),
                        frame->sequence);
    if (frame->epoch != star->epoch)
        return MR_ERROR(ABORTED,
                        "rank %u sends a frame of epoch %" PRIu64 "; this is epoch %" PRIu64,
                        mr_group_wire_peer(wire), frame->epoch, star->epoch);
    size_t piece = mr_rpc_tail_bytes(tail);
    if (piece > MR_LINK_CHUNK_BYTES_MAX) /* gRPC would take more than the staging holds */
        return MR_ERROR(ABORTED, "rank %u sends a frame of %zu bytes; the limit is %d",
                        mr_group_wire_peer(wire), piece, MR_LINK_CHUNK_BYTES_MAX);
    bool empty = frame->part_count == 0 && piece == 0;
    if (!empty && (frame->bytes_total != bytes || frame->part != part || frame->offset != offset ||
                   piece > bytes - offset || (piece == 0 && bytes > 0)))
        return MR_ERROR(ABORTED,
                        "rank %u gives part %u of %" PRIu64 " bytes at %" PRIu64
                        "; this rank expects part %zu of %zu bytes at %zu",
                        mr_group_wire_peer(wire), frame->part, frame->bytes_total, frame->offset,
                        part, bytes, offset);
    *out_frame = frame;
    *out_tail = tail;
    return MR_OK;
}

/* Receives one whole vector into memory. */
static mr_status star_receive(const mr_group_star *star, const star_operation *operation,
                              mr_group_wire *wire, void *memory, size_t bytes) {
    size_t offset = 0;
    do {
        const Millrace__V1__GroupFrame *frame = NULL;
        const mr_rpc_tail *tail = NULL;
        MR_TRY(star_take(star, operation, wire, bytes, 0, offset, &frame, &tail));
        size_t piece = mr_rpc_tail_bytes(tail);
        if (piece > 0)
            MR_TRY(mr_rpc_tail_copy(tail, 0, piece, (unsigned char *)memory + offset));
        offset += piece;
    } while (offset < bytes);
    return MR_OK;
}

/* First member: the same vector to every member but skip. */
static mr_status star_distribute(mr_group_star *star, const star_operation *operation,
                                 const void *data, size_t bytes, size_t skip) {
    mr_status status = MR_OK;
    for (size_t i = 0; i < star->wire_count && mr_status_is_ok(status); i++)
        if (i != skip)
            status = star_send(star, operation, star->wires[i], data, bytes, 0, 1);
    for (size_t i = 0; i < star->wire_count; i++) {
        mr_status flushed = mr_group_wire_flush(star->wires[i], operation->deadline);
        if (mr_status_is_ok(status))
            status = flushed;
    }
    return status;
}

/* ---- sum ---- */

/* First member: all parts of one member, added as they come. */
static mr_status star_add_member(mr_group_star *star, const star_operation *operation,
                                 mr_group_wire *wire, mr_group_combine *combine) {
    size_t bytes = combine->n * sizeof(float);
    size_t part = 0;
    size_t part_count = 1;
    while (part < part_count) {
        size_t offset = 0;
        do {
            const Millrace__V1__GroupFrame *frame = NULL;
            const mr_rpc_tail *tail = NULL;
            MR_TRY(star_take(star, operation, wire, bytes, part, offset, &frame, &tail));
            size_t piece = mr_rpc_tail_bytes(tail);
            part_count = frame->part_count;
            if (part_count == 0)
                return MR_OK;
            if (piece % sizeof(float) != 0)
                return MR_ERROR(ABORTED, "rank %u gives %zu bytes: not whole elements",
                                mr_group_wire_peer(wire), piece);
            MR_TRY(mr_rpc_tail_copy(tail, 0, piece, star->staging));
            mr_group_combine_part(combine, (const float *)(const void *)star->staging,
                                  offset / sizeof(float), piece / sizeof(float));
            offset += piece;
        } while (offset < bytes);
        part++;
    }
    return MR_OK;
}

static mr_status star_sum_first(mr_group_star *star, const star_operation *operation,
                                const float *const *parts, size_t part_count, float *out,
                                size_t n) {
    mr_group_combine combine = {.out = out, .n = n};
    for (size_t i = 0; i < part_count; i++)
        mr_group_combine_part(&combine, parts[i], 0, n);
    for (size_t i = 0; i < star->wire_count; i++)
        MR_TRY(star_add_member(star, operation, star->wires[i], &combine));
    mr_group_combine_end(&combine);
    return star_distribute(star, operation, out, n * sizeof(float), SIZE_MAX);
}

static mr_status star_sum_member(mr_group_star *star, const star_operation *operation,
                                 const float *const *parts, size_t part_count, float *out,
                                 size_t n) {
    size_t bytes = n * sizeof(float);
    mr_status status = MR_OK;
    if (part_count == 0)
        status = star_send(star, operation, star->wires[0], NULL, 0, 0, 0);
    for (size_t i = 0; i < part_count && mr_status_is_ok(status); i++)
        status = star_send(star, operation, star->wires[0], parts[i], bytes, i, part_count);
    mr_status flushed = mr_group_wire_flush(star->wires[0], operation->deadline);
    MR_TRY(status);
    MR_TRY(flushed);
    return star_receive(star, operation, star->wires[0], out, bytes);
}

static mr_status star_check_size(const mr_group_star *star, size_t bytes) {
    if (bytes > star->bytes_max)
        return MR_ERROR(RESOURCE_EXHAUSTED, "group %s was made for %zu bytes; %zu are asked of it",
                        star->group_id, star->bytes_max, bytes);
    return MR_OK;
}

static mr_status star_sum(mr_group *group, const float *const *parts, size_t part_count, float *out,
                          size_t n, int64_t timeout_ms) {
    mr_group_star *star = star_of(group);
    MR_TRY(star_check_size(star, n * sizeof(float)));
    star_operation operation =
        star_begin(star, MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_SUM, timeout_ms);
    return star_is_first(star) ? star_sum_first(star, &operation, parts, part_count, out, n)
                               : star_sum_member(star, &operation, parts, part_count, out, n);
}

/* ---- broadcast and gather ---- */

static mr_status star_to_first(mr_group_star *star, const star_operation *operation,
                               const void *data, size_t bytes) {
    mr_status status = star_send(star, operation, star->wires[0], data, bytes, 0, 1);
    mr_status flushed = mr_group_wire_flush(star->wires[0], operation->deadline);
    return mr_status_is_ok(status) ? flushed : status;
}

static mr_status star_broadcast(mr_group *group, void *data, size_t bytes, size_t root_index,
                                int64_t timeout_ms) {
    mr_group_star *star = star_of(group);
    MR_ASSERT(root_index < group->member_count);
    MR_TRY(star_check_size(star, bytes));
    star_operation operation =
        star_begin(star, MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_BROADCAST, timeout_ms);
    if (!star_is_first(star))
        return group->member_index == root_index
                   ? star_to_first(star, &operation, data, bytes)
                   : star_receive(star, &operation, star->wires[0], data, bytes);
    if (root_index > 0)
        MR_TRY(star_receive(star, &operation, star->wires[root_index - 1], data, bytes));
    return star_distribute(star, &operation, data, bytes,
                           root_index > 0 ? root_index - 1 : SIZE_MAX);
}

static mr_status star_gather(mr_group *group, const void *mine, const size_t *bytes, void *all,
                             int64_t timeout_ms) {
    mr_group_star *star = star_of(group);
    size_t total = 0;
    for (size_t i = 0; i < group->member_count; i++)
        total += bytes[i];
    MR_TRY(star_check_size(star, total));
    star_operation operation =
        star_begin(star, MILLRACE__V1__GROUP_OPERATION__GROUP_OPERATION_GATHER, timeout_ms);
    if (!star_is_first(star)) {
        MR_TRY(star_to_first(star, &operation, mine, bytes[group->member_index]));
        return star_receive(star, &operation, star->wires[0], all, total);
    }
    memmove(all, mine, bytes[0]);
    size_t offset = bytes[0];
    for (size_t i = 0; i < star->wire_count; i++) {
        MR_TRY(star_receive(star, &operation, star->wires[i], (unsigned char *)all + offset,
                            bytes[i + 1]));
        offset += bytes[i + 1];
    }
    return star_distribute(star, &operation, all, total, SIZE_MAX);
}

/* ---- life ---- */

static void star_interrupt(mr_group *group, const char *reason) {
    mr_group_star *star = star_of(group);
    for (size_t i = 0; i < star->wire_count; i++)
        mr_group_wire_interrupt(star->wires[i], reason);
}

static void star_close(mr_group *group) {
    mr_group_star *star = star_of(group);
    void (*closed)(mr_group_star *) = star->closed;
    if (star->closing != NULL)
        star->closing(star);
    for (size_t i = 0; i < star->wire_count; i++)
        if (star->wires[i] != NULL)
            mr_group_wire_close(star->wires[i]);
    if (closed != NULL)
        closed(star);
    mr_free(star->wires);
    mr_free(star->staging);
    mr_free(star);
}

static const mr_group_ops star_ops = {
    .name = "star",
    .any_thread = true,
    .sum = star_sum,
    .broadcast = star_broadcast,
    .gather = star_gather,
    .interrupt = star_interrupt,
    .close = star_close,
};

static mr_status star_take_options(mr_group_star *star, const mr_group_options *options) {
    int job = snprintf(star->job_id, sizeof(star->job_id), "%s", options->job_id);
    int id = snprintf(star->group_id, sizeof(star->group_id), "%s", options->group_id);
    if (job < 0 || (size_t)job >= sizeof(star->job_id) || id < 0 ||
        (size_t)id >= sizeof(star->group_id))
        return MR_ERROR(INVALID_ARGUMENT, "job %.64s or group %.96s: the name is too long",
                        options->job_id, options->group_id);
    star->epoch = options->epoch;
    star->rank = options->rank;
    star->bytes_max = options->bytes_max;
    star->group = (mr_group){.ops = &star_ops, .member_count = options->rank_count};
    while (star->group.member_index < options->rank_count &&
           options->ranks[star->group.member_index] != options->rank)
        star->group.member_index++;
    if (options->rank_count < 2 || star->group.member_index == options->rank_count)
        return MR_ERROR(INVALID_ARGUMENT, "rank %u is not among the %zu of group %s", options->rank,
                        options->rank_count, options->group_id);
    return MR_OK;
}

static mr_status star_make_wires(mr_group_star *star, const mr_group_options *options) {
    size_t count = star_is_first(star) ? options->rank_count - 1 : 1;
    size_t staging = star->bytes_max < MR_LINK_CHUNK_BYTES_MAX ? star->bytes_max
                                                               : MR_LINK_CHUNK_BYTES_MAX;
    star->wires = mr_alloc_array(count, sizeof(mr_group_wire *));
    star->staging = star_is_first(star) ? mr_alloc(staging) : NULL;
    if (star->wires == NULL || (star_is_first(star) && star->staging == NULL))
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for group %s", options->group_id);
    star->wire_count = count;
    for (size_t i = 0; i < count; i++)
        MR_TRY(mr_group_wire_create(options->ranks[star_is_first(star) ? i + 1 : 0],
                                    &star->wires[i]));
    return MR_OK;
}

mr_status mr_group_star_create(const mr_group_options *options, mr_group_star **out_star) {
    mr_group_star *star = mr_alloc(sizeof(*star));
    if (star == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for group %s", options->group_id);
    mr_status status = star_take_options(star, options);
    if (mr_status_is_ok(status))
        status = star_make_wires(star, options);
    if (!mr_status_is_ok(status)) {
        star_close(&star->group);
        return status;
    }
    *out_star = star;
    return MR_OK;
}
