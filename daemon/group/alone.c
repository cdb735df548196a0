/* SPDX-License-Identifier: Apache-2.0 */
/* A group of one: sums its own parts in order, and everything else is there already. */
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/group/combine.h"
#include "daemon/group/group.h"

static mr_status alone_sum(mr_group *group, const float *const *parts, size_t part_count,
                           float *out, size_t n, int64_t timeout_ms) {
    (void)group;
    (void)timeout_ms;
    mr_group_combine combine = {.out = out, .n = n};
    for (size_t i = 0; i < part_count; i++)
        mr_group_combine_part(&combine, parts[i], 0, n);
    mr_group_combine_end(&combine);
    return MR_OK;
}

static mr_status alone_broadcast(mr_group *group, void *data, size_t bytes, size_t root_index,
                                 int64_t timeout_ms) {
    (void)group;
    (void)data;
    (void)bytes;
    (void)timeout_ms;
    MR_ASSERT(root_index == 0);
    return MR_OK;
}

static mr_status alone_gather(mr_group *group, const void *mine, const size_t *bytes, void *all,
                              int64_t timeout_ms) {
    (void)group;
    (void)timeout_ms;
    memmove(all, mine, bytes[0]);
    return MR_OK;
}

/* Nothing here waits. */
static void alone_interrupt(mr_group *group, const char *reason) {
    (void)group;
    (void)reason;
}

static void alone_close(mr_group *group) {
    mr_free(group);
}

static const mr_group_ops alone_ops = {
    .name = "alone",
    .any_thread = true,
    .sum = alone_sum,
    .broadcast = alone_broadcast,
    .gather = alone_gather,
    .interrupt = alone_interrupt,
    .close = alone_close,
};

mr_status mr_group_alone(const mr_group_options *options, mr_group **out_group) {
    if (options->rank_count != 1)
        return MR_ERROR(INVALID_ARGUMENT, "group %s has %zu ranks; alone is for one",
                        options->group_id, options->rank_count);
    mr_group *group = mr_alloc(sizeof(*group));
    if (group == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group");
    *group = (mr_group){.ops = &alone_ops, .member_count = 1, .member_index = 0};
    *out_group = group;
    return MR_OK;
}
