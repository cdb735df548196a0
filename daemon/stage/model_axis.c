/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/model_axis.h"

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/model/shard.h"

struct mr_model_axis {
    mr_reducer reducer; /* first member: what layers see */
    mr_group *group;
    size_t *bytes; /* [member_count], of a gather */
    mr_status error;
};

static void axis_keep(mr_model_axis *axis, mr_status status) {
    if (!mr_status_is_ok(status))
        axis->error = mr_status_prefix(status, "sum over the model axis");
}

static void axis_sum(mr_reducer *reducer, float *values, size_t n) {
    mr_model_axis *axis = (mr_model_axis *)reducer;
    const float *part = values;
    if (mr_status_is_ok(axis->error))
        axis_keep(axis,
                  mr_group_sum(axis->group, &part, 1, values, n, MR_STEP_WAIT_TIMEOUT_MS));
}

static void axis_gather(mr_reducer *reducer, const void *mine, size_t count, size_t unit,
                        void *all) {
    mr_model_axis *axis = (mr_model_axis *)reducer;
    if (!mr_status_is_ok(axis->error))
        return;
    for (size_t i = 0; i < reducer->width; i++)
        axis->bytes[i] = mr_shard_range_of(count, i, reducer->width).count * unit;
    axis_keep(axis,
              mr_group_gather(axis->group, mine, axis->bytes, all, MR_STEP_WAIT_TIMEOUT_MS));
}

mr_status mr_model_axis_create(mr_group *group, mr_model_axis **out_axis) {
    MR_ASSERT(group->member_count > 1);
    mr_model_axis *axis = mr_alloc(sizeof(*axis));
    if (axis == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a model axis");
    *axis = (mr_model_axis){
        .reducer = {.rank = group->member_index,
                    .width = group->member_count,
                    .sum = axis_sum,
                    .gather = axis_gather},
        .group = group,
        .bytes = mr_alloc_array(group->member_count, sizeof(size_t)),
        .error = MR_OK,
    };
    if (axis->bytes == NULL) {
        mr_model_axis_destroy(axis);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a model axis of %zu ranks",
                        group->member_count);
    }
    *out_axis = axis;
    return MR_OK;
}

void mr_model_axis_destroy(mr_model_axis *axis) {
    if (axis == NULL)
        return;
    mr_free(axis->bytes);
    mr_free(axis);
}

mr_reducer *mr_model_axis_reducer(mr_model_axis *axis) {
    return axis == NULL ? NULL : &axis->reducer;
}

mr_status mr_model_axis_check(const mr_model_axis *axis) {
    return axis == NULL ? MR_OK : axis->error;
}
