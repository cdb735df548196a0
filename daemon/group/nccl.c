/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/group/nccl.h"

#include "daemon/base/alloc.h"

typedef struct nccl_group {
    mr_group group; /* first: what users hold */
    mr_communicator *communicator;
    mr_device *device;
    size_t bytes_max;
} nccl_group;

static mr_status group_fits(const nccl_group *self, size_t bytes) {
    if (bytes > self->bytes_max)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the group was made for %zu bytes; %zu are asked of it",
                        self->bytes_max, bytes);
    return MR_OK;
}

static mr_tensor vector(const float *data, size_t n) {
    return (mr_tensor){
        .data = (void *)(uintptr_t)data, /* only out is written */
        .shape = {.dtype = MR_DTYPE_F32, .dim_count = 1, .dims = {n}},
    };
}

/* out = part 0 + part 1 + ..., in that order; zero without parts. */
static void group_sum_own(nccl_group *self, const float *const *parts, size_t part_count,
                          float *out, size_t n) {
    const mr_device_ops *ops = self->device->ops;
    mr_tensor sum = vector(out, n);
    if (part_count == 0)
        ops->zero(self->device, out, n * sizeof(float));
    else if (parts[0] != out)
        ops->copy(self->device, out, parts[0], n * sizeof(float));
    for (size_t i = 1; i < part_count; i++) {
        mr_tensor part = vector(parts[i], n);
        ops->accumulate(self->device, &sum, &part);
    }
}

static mr_status group_sum(mr_group *group, const float *const *parts, size_t part_count,
                           float *out, size_t n, int64_t timeout_ms) {
    nccl_group *self = (nccl_group *)group;
    MR_TRY(group_fits(self, n * sizeof(float)));
    if (n == 0)
        return MR_OK;
    group_sum_own(self, parts, part_count, out, n);
    MR_TRY(mr_communicator_enter(self->communicator));
    MR_TRY(mr_communicator_sum(self->communicator, out, out, n));
    MR_TRY(mr_communicator_leave(self->communicator));
    return mr_communicator_wait(self->communicator, timeout_ms);
}

static mr_status group_broadcast(mr_group *group, void *data, size_t bytes, size_t root_index,
                                 int64_t timeout_ms) {
    nccl_group *self = (nccl_group *)group;
    MR_ASSERT(root_index < group->member_count);
    MR_TRY(group_fits(self, bytes));
    if (bytes == 0)
        return MR_OK;
    MR_TRY(mr_communicator_enter(self->communicator));
    MR_TRY(mr_communicator_broadcast(self->communicator, data, data, bytes, root_index));
    MR_TRY(mr_communicator_leave(self->communicator));
    return mr_communicator_wait(self->communicator, timeout_ms);
}

/* Every member's part, broadcast to its place, as one operation. */
static mr_status group_gather_parts(nccl_group *self, const void *mine, const size_t *bytes,
                                    unsigned char *all) {
    MR_TRY(mr_communicator_group_begin(self->communicator));
    mr_status status = MR_OK;
    size_t offset = 0;
    for (size_t i = 0; i < self->group.member_count && mr_status_is_ok(status); i++) {
        const void *from = i == self->group.member_index ? mine : all + offset;
        if (bytes[i] > 0)
            status = mr_communicator_broadcast(self->communicator, from, all + offset, bytes[i], i);
        offset += bytes[i];
    }
    mr_status ended = mr_communicator_group_end(self->communicator);
    return mr_status_is_ok(status) ? ended : status;
}

static mr_status group_gather(mr_group *group, const void *mine, const size_t *bytes, void *all,
                              int64_t timeout_ms) {
    nccl_group *self = (nccl_group *)group;
    size_t total = 0;
    for (size_t i = 0; i < group->member_count; i++)
        if (!mr_size_add(total, bytes[i], &total))
            return MR_ERROR(INVALID_ARGUMENT, "a gather's sizes have no possible sum");
    MR_TRY(group_fits(self, total));
    if (total == 0)
        return MR_OK;
    MR_TRY(mr_communicator_enter(self->communicator));
    MR_TRY(group_gather_parts(self, mine, bytes, all));
    MR_TRY(mr_communicator_leave(self->communicator));
    return mr_communicator_wait(self->communicator, timeout_ms);
}

static void group_interrupt(mr_group *group, const char *reason) {
    mr_communicator_interrupt(((nccl_group *)group)->communicator, reason);
}

static void group_close(mr_group *group) {
    nccl_group *self = (nccl_group *)group;
    mr_communicator_close(self->communicator);
    mr_free(self);
}

static const mr_group_ops group_ops = {
    .name = "nccl",
    .sum = group_sum,
    .broadcast = group_broadcast,
    .gather = group_gather,
    .interrupt = group_interrupt,
    .close = group_close,
};

static mr_status group_fill(nccl_group *self, const mr_nccl_place *place,
                            const unsigned char id[MR_NCCL_ID_BYTES],
                            const mr_group_options *options, int64_t timeout_ms) {
    size_t index = 0;
    while (index < options->rank_count && options->ranks[index] != options->rank)
        index++;
    if (index == options->rank_count)
        return MR_ERROR(INVALID_ARGUMENT, "rank %u is not in group %s", options->rank,
                        options->group_id);
    self->group = (mr_group){
        .ops = &group_ops, .member_count = options->rank_count, .member_index = index};
    self->bytes_max = options->bytes_max;
    const mr_communicator_options communicator = {
        .place = *place,
        .id = id,
        .job_id = options->job_id,
        .epoch = options->epoch,
        .name = options->group_id,
        .ranks = options->ranks,
        .rank_count = options->rank_count,
        .rank_index = index,
    };
    return mr_communicator_open(&communicator, timeout_ms, &self->communicator);
}

mr_status mr_group_nccl_open(const mr_nccl_place *place, mr_device *device,
                             const unsigned char id[MR_NCCL_ID_BYTES],
                             const mr_group_options *options, int64_t timeout_ms,
                             mr_group **out_group) {
    nccl_group *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group");
    self->device = device;
    mr_status status = group_fill(self, place, id, options, timeout_ms);
    if (!mr_status_is_ok(status)) {
        mr_free(self);
        return status;
    }
    *out_group = &self->group;
    return MR_OK;
}
