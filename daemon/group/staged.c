/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/group/staged.h"

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"

typedef struct staged_group {
    mr_group group; /* first: what users hold */
    mr_group *inner;
    mr_device *device;
    size_t bytes_max;
    size_t parts_max;
    size_t stride;       /* of parts in the arena */
    mr_arena arena;      /* [parts_max] of stride bytes */
    const float **parts; /* [parts_max], of a sum */
} staged_group;

static mr_status staged_check(const staged_group *self, size_t bytes, size_t parts) {
    if (bytes > self->bytes_max || parts > self->parts_max)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%zu vectors of %zu bytes are more than the group's %zu of %zu", parts,
                        bytes, self->parts_max, self->bytes_max);
    return MR_OK;
}

static void staged_out(staged_group *self, void *host, const void *from, size_t bytes) {
    if (bytes > 0)
        self->device->ops->copy_out(self->device, host, from, bytes);
}

static void staged_in(staged_group *self, void *to, const void *host, size_t bytes) {
    if (bytes > 0)
        self->device->ops->copy_in(self->device, to, host, bytes);
}

static mr_status staged_sum(mr_group *group, const float *const *parts, size_t part_count,
                            float *out, size_t n, int64_t timeout_ms) {
    staged_group *self = (staged_group *)group;
    size_t bytes = n * sizeof(float);
    float *sum = (float *)(void *)self->arena.base;
    MR_TRY(staged_check(self, bytes, part_count));
    for (size_t i = 0; i < part_count; i++) {
        unsigned char *host = self->arena.base + i * self->stride;
        staged_out(self, host, parts[i], bytes);
        self->parts[i] = (const float *)(const void *)host;
    }
    MR_TRY(mr_group_sum(self->inner, self->parts, part_count, sum, n, timeout_ms));
    staged_in(self, out, sum, bytes);
    return MR_OK;
}

static mr_status staged_broadcast(mr_group *group, void *data, size_t bytes, size_t root_index,
                                  int64_t timeout_ms) {
    staged_group *self = (staged_group *)group;
    bool root = group->member_index == root_index;
    MR_TRY(staged_check(self, bytes, 1));
    if (root)
        staged_out(self, self->arena.base, data, bytes);
    MR_TRY(mr_group_broadcast(self->inner, self->arena.base, bytes, root_index, timeout_ms));
    if (!root)
        staged_in(self, data, self->arena.base, bytes);
    return MR_OK;
}

static mr_status staged_gather(mr_group *group, const void *mine, const size_t *bytes, void *all,
                               int64_t timeout_ms) {
    staged_group *self = (staged_group *)group;
    size_t total = 0;
    size_t own = 0;
    for (size_t i = 0; i < group->member_count; i++) {
        own = i == group->member_index ? total : own;
        total += bytes[i];
    }
    MR_TRY(staged_check(self, total, 1));
    unsigned char *place = self->arena.base + own;
    staged_out(self, place, mine, bytes[group->member_index]);
    MR_TRY(mr_group_gather(self->inner, place, bytes, self->arena.base, timeout_ms));
    staged_in(self, all, self->arena.base, total);
    return MR_OK;
}

static void staged_interrupt(mr_group *group, const char *reason) {
    mr_group_interrupt(((staged_group *)group)->inner, reason);
}

static void staged_close(mr_group *group) {
    staged_group *self = (staged_group *)group;
    mr_group_close(self->inner);
    mr_arena_deinit(&self->arena);
    mr_free(self->parts);
    mr_free(self);
}

static const mr_group_ops staged_ops = {
    .name = "staged",
    .any_thread = false,
    .sum = staged_sum,
    .broadcast = staged_broadcast,
    .gather = staged_gather,
    .interrupt = staged_interrupt,
    .close = staged_close,
};

static mr_status staged_fill(staged_group *self) {
    size_t all = 0;
    self->stride = mr_arena_rounded(self->bytes_max);
    if (!mr_size_mul(self->stride, self->parts_max, &all))
        return MR_ERROR(RESOURCE_EXHAUSTED, "%zu vectors of %zu bytes are no possible size",
                        self->parts_max, self->bytes_max);
    self->parts = mr_alloc_array(self->parts_max, sizeof(self->parts[0]));
    if (self->parts == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group");
    return mr_arena_init(&self->arena, all);
}

mr_status mr_group_staged(mr_device *device, size_t bytes_max, size_t parts_max,
                          mr_group *owned_inner, mr_group **out_group) {
    MR_ASSERT(bytes_max > 0);
    MR_ASSERT(parts_max > 0);
    staged_group *self = mr_alloc(sizeof(*self));
    if (self == NULL) {
        mr_group_close(owned_inner);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group");
    }
    *self = (staged_group){
        .group = {.ops = &staged_ops,
                  .member_count = owned_inner->member_count,
                  .member_index = owned_inner->member_index},
        .inner = owned_inner,
        .device = device,
        .bytes_max = bytes_max,
        .parts_max = parts_max,
    };
    mr_status status = staged_fill(self);
    if (!mr_status_is_ok(status)) {
        staged_close(&self->group);
        return status;
    }
    *out_group = &self->group;
    return MR_OK;
}
