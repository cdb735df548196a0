/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/activations.h"

#include "daemon/base/alloc.h"

struct mr_activations {
    mr_device *device;
    const mr_assignment *assignment;
    mr_device_memory memory;
    mr_activation_layout layout;
    mr_activation_layer *layers; /* [layout.layer_count] */
};

static mr_status activations_fill(mr_activations *activations, size_t interval) {
    const mr_stage_plan *stage = mr_assignment_stage(activations->assignment);
    size_t layer_count = stage->layer_end - stage->layer_first;
    activations->layers = mr_alloc_array(layer_count, sizeof(*activations->layers));
    if (activations->layers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the layout of %zu layers", layer_count);
    mr_activation_layout_make(activations->assignment->plan, stage, interval,
                              &activations->layout, activations->layers);
    return activations->device->ops->memory_create(
        activations->device, activations->layout.bytes, &activations->memory);
}

mr_status mr_activations_create(mr_device *device, const mr_assignment *assignment,
                                size_t interval, mr_activations **out_activations) {
    mr_activations *activations = mr_alloc(sizeof(*activations));
    if (activations == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for activations");
    activations->device = device;
    activations->assignment = assignment;
    mr_status status = activations_fill(activations, interval);
    if (!mr_status_is_ok(status)) {
        status =
            mr_status_prefix(status, "activations of %zu slots", activations->layout.slot_count);
        mr_activations_destroy(activations);
        return status;
    }
    *out_activations = activations;
    return MR_OK;
}

void mr_activations_destroy(mr_activations *activations) {
    if (activations == NULL)
        return;
    if (activations->memory.base != NULL)
        activations->device->ops->memory_destroy(activations->device, &activations->memory);
    mr_free(activations->layers);
    mr_free(activations);
}

static void *activations_at(const mr_activations *activations, size_t offset) {
    return (unsigned char *)activations->memory.base + offset;
}

static void *activations_place(const mr_activations *activations, size_t slot,
                               mr_activation_place place) {
    const mr_activation_layout *layout = &activations->layout;
    MR_ASSERT(slot < layout->slot_count);
    size_t area = place.in_slot ? slot * layout->slot_bytes : layout->again;
    return activations_at(activations, area + place.offset);
}

size_t mr_activations_slots(const mr_activations *activations) {
    return activations->layout.slot_count;
}

/* The shape that enters a layer of the stage; layer_count: that leaves its last one. */
static mr_shape activations_shape(const mr_activations *activations, size_t layer) {
    const mr_stage_plan *stage = mr_assignment_stage(activations->assignment);
    return mr_assignment_boundary(activations->assignment, stage->layer_first + layer);
}

const mr_activation_layer *mr_activations_layer(const mr_activations *activations, size_t layer) {
    MR_ASSERT(layer < activations->layout.layer_count);
    return &activations->layers[layer];
}

mr_tensor mr_activations_output(const mr_activations *activations, size_t slot, size_t layer) {
    return (mr_tensor){
        .data = activations_place(activations, slot,
                                  mr_activations_layer(activations, layer)->output),
        .shape = activations_shape(activations, layer + 1),
    };
}

mr_tensor mr_activations_output_again(const mr_activations *activations, size_t slot,
                                      size_t layer) {
    return (mr_tensor){
        .data = activations_place(activations, slot,
                                  mr_activations_layer(activations, layer)->output_again),
        .shape = activations_shape(activations, layer + 1),
    };
}

void *mr_activations_saved(const mr_activations *activations, size_t slot, size_t layer) {
    return activations_place(activations, slot, mr_activations_layer(activations, layer)->saved);
}

void *mr_activations_retained(const mr_activations *activations) {
    return activations_at(activations, activations->layout.retained);
}

void *mr_activations_scratch(const mr_activations *activations) {
    return activations_at(activations, activations->layout.scratch);
}

mr_tensor mr_activations_gradient(const mr_activations *activations, size_t turn, size_t layer) {
    size_t offset = activations->layout.gradient[turn % MR_ACTIVATION_GRADIENT_BUFFERS];
    return (mr_tensor){
        .data = activations_at(activations, offset),
        .shape = activations_shape(activations, layer),
    };
}

mr_tensor mr_activations_outgoing(const mr_activations *activations, size_t turn) {
    size_t offset = activations->layout.outgoing[turn % MR_ACTIVATION_GRADIENT_BUFFERS];
    return (mr_tensor){
        .data = activations_at(activations, offset),
        .shape = activations_shape(activations, 0),
    };
}

mr_tensor mr_activations_aside(const mr_activations *activations, size_t turn, size_t index) {
    const mr_activation_layout *layout = &activations->layout;
    const mr_plan *plan = activations->assignment->plan;
    MR_ASSERT(mr_activation_has_aside(plan, mr_assignment_stage(activations->assignment), index));
    size_t offset = layout->aside[turn % MR_ACTIVATION_GRADIENT_BUFFERS] + layout->aside_at[index];
    return (mr_tensor){
        .data = activations_at(activations, offset),
        .shape = mr_assignment_boundary(activations->assignment, plan->asides[index].put + 1),
    };
}

size_t mr_activations_bytes_predicted(const mr_activations *activations) {
    return activations->layout.bytes;
}

size_t mr_activations_bytes(const mr_activations *activations) {
    return activations->memory.bytes;
}
