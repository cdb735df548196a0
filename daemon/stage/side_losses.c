/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/side_losses.h"

#include "daemon/base/alloc.h"

/* A sum for each layer of the stage, and one that nobody reads. */
struct mr_side_losses {
    mr_device *device;
    const mr_assignment *assignment;
    size_t layer_count;
    mr_device_memory sums; /* [layer_count + 1] */
};

size_t mr_side_losses_count(const mr_plan *plan, size_t stage) {
    size_t count = 0;
    for (size_t l = plan->stages[stage].layer_first; l < plan->stages[stage].layer_end; l++)
        count += mr_layer_description_has_side(&plan->shards[l]);
    return count;
}

mr_status mr_side_losses_create(mr_device *device, const mr_assignment *assignment,
                                mr_side_losses **out_losses) {
    const mr_stage_plan *stage = mr_assignment_stage(assignment);
    mr_side_losses *losses = mr_alloc(sizeof(*losses));
    if (losses == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for side losses");
    losses->device = device;
    losses->assignment = assignment;
    losses->layer_count = stage->layer_end - stage->layer_first;
    mr_status status = device->ops->memory_create(
        device, (losses->layer_count + 1) * sizeof(double), &losses->sums);
    if (!mr_status_is_ok(status)) {
        mr_side_losses_destroy(losses);
        return status;
    }
    *out_losses = losses;
    return MR_OK;
}

void mr_side_losses_destroy(mr_side_losses *losses) {
    if (losses == NULL)
        return;
    if (losses->sums.base != NULL)
        losses->device->ops->memory_destroy(losses->device, &losses->sums);
    mr_free(losses);
}

void mr_side_losses_begin(mr_side_losses *losses) {
    losses->device->ops->zero(losses->device, losses->sums.base,
                              (losses->layer_count + 1) * sizeof(double));
}

double *mr_side_losses_at(const mr_side_losses *losses, size_t layer, bool again) {
    MR_ASSERT(layer < losses->layer_count);
    return (double *)losses->sums.base + (again ? losses->layer_count : layer);
}

void mr_side_losses_read(const mr_side_losses *losses, double *out_sums) {
    const mr_plan *plan = losses->assignment->plan;
    size_t first = mr_assignment_stage(losses->assignment)->layer_first;
    for (size_t i = 0; i < losses->layer_count; i++)
        if (mr_layer_description_has_side(&plan->shards[first + i]))
            losses->device->ops->copy_out(losses->device, out_sums++,
                                          (const double *)losses->sums.base + i, sizeof(double));
}

void mr_side_values_add(mr_side_values *values, const mr_plan *plan, size_t stage,
                        const double *sums, double parts) {
    values->names = plan->side_losses;
    for (size_t l = plan->stages[stage].layer_first; l < plan->stages[stage].layer_end; l++) {
        const mr_side_loss *side = &plan->shards[l].side;
        if (!mr_layer_description_has_side(&plan->shards[l]))
            continue;
        size_t name = mr_side_loss_find(&plan->side_losses, side->name);
        MR_ASSERT(name < values->names.count); /* the plan found all */
        values->values[name] += side->weight * *sums++ / (side->terms * parts);
    }
}

double mr_side_values_total(const mr_side_values *values) {
    double total = 0;
    for (size_t i = 0; i < values->names.count; i++)
        total += values->values[i];
    return total;
}
