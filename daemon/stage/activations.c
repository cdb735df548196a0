/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/activations.h"

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"

/* Offsets from the memory's base. Outputs and saved bytes repeat for each slot. */
struct mr_activations {
    mr_device *device;
    const mr_assignment *assignment;
    mr_device_memory memory;
    size_t layer_count;
    size_t slot_count;
    size_t slot_bytes;
    size_t *output; /* [layer_count] within a slot */
    size_t *saved;  /* [layer_count] within a slot */
    size_t retained;
    size_t scratch;
    size_t gradient[MR_ACTIVATIONS_GRADIENT_BUFFERS];
    size_t outgoing[MR_ACTIVATIONS_GRADIENT_BUFFERS];
    size_t bytes;
};

/* Adds a piece of memory to the plan of it; *sum saturates, and a saturated sum is refused once. */
static size_t sum_take(size_t *sum, size_t bytes) {
    size_t at = *sum;
    size_t rounded = mr_arena_rounded(bytes);
    if (rounded < bytes || !mr_size_add(at, rounded, sum))
        *sum = SIZE_MAX;
    return at;
}

static size_t shape_bytes(const mr_shape *shape) {
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(shape, &bytes)); /* the plan computed it before */
    return bytes;
}

static size_t size_max(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Lays out one slot: the outputs and saved bytes of every layer of the stage. */
static void activations_lay_slot(mr_activations *activations) {
    const mr_stage_plan *stage = mr_assignment_stage(activations->assignment);
    for (size_t i = 0; i < activations->layer_count; i++) {
        const mr_layer_description *layer =
            &activations->assignment->plan->layers[stage->layer_first + i];
        activations->output[i] = sum_take(&activations->slot_bytes, shape_bytes(&layer->output));
        activations->saved[i] = sum_take(&activations->slot_bytes, layer->saved_bytes);
    }
}

/* Lays out what all slots share, behind them. */
static void activations_lay_shared(mr_activations *activations) {
    const mr_stage_plan *stage = mr_assignment_stage(activations->assignment);
    size_t retained = 0;
    size_t scratch = 0;
    size_t gradient = 0;
    mr_shape input = mr_assignment_boundary(activations->assignment, stage->layer_first);
    for (size_t i = 0; i < activations->layer_count; i++) {
        const mr_layer_description *layer =
            &activations->assignment->plan->layers[stage->layer_first + i];
        retained = size_max(retained, layer->retained_bytes);
        scratch = size_max(scratch, layer->scratch_bytes);
        if (i + 1 < activations->layer_count)
            gradient = size_max(gradient, shape_bytes(&layer->output));
    }
    activations->retained = sum_take(&activations->bytes, retained);
    activations->scratch = sum_take(&activations->bytes, scratch);
    for (size_t i = 0; i < MR_ACTIVATIONS_GRADIENT_BUFFERS; i++) {
        activations->gradient[i] = sum_take(&activations->bytes, gradient);
        activations->outgoing[i] =
            sum_take(&activations->bytes, stage->layer_first > 0 ? shape_bytes(&input) : 0);
    }
}

static mr_status activations_fill(mr_activations *activations) {
    const mr_stage_plan *stage = mr_assignment_stage(activations->assignment);
    activations->layer_count = stage->layer_end - stage->layer_first;
    activations->slot_count = size_max(stage->peak_in_flight, 1);
    activations->output = mr_alloc_array(activations->layer_count, sizeof(size_t));
    activations->saved = mr_alloc_array(activations->layer_count, sizeof(size_t));
    if (activations->output == NULL || activations->saved == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the layout of %zu layers",
                        activations->layer_count);
    activations_lay_slot(activations);
    if (!mr_size_mul(activations->slot_bytes, activations->slot_count, &activations->bytes))
        activations->bytes = SIZE_MAX;
    activations_lay_shared(activations);
    return activations->device->ops->memory_create(activations->device, activations->bytes,
                                                   &activations->memory);
}

mr_status mr_activations_create(mr_device *device, const mr_assignment *assignment,
                                mr_activations **out_activations) {
    mr_activations *activations = mr_alloc(sizeof(*activations));
    if (activations == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for activations");
    activations->device = device;
    activations->assignment = assignment;
    mr_status status = activations_fill(activations);
    if (!mr_status_is_ok(status)) {
        status = mr_status_prefix(status, "activations of %zu slots", activations->slot_count);
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
    mr_free(activations->saved);
    mr_free(activations->output);
    mr_free(activations);
}

static void *activations_at(const mr_activations *activations, size_t offset) {
    return (unsigned char *)activations->memory.base + offset;
}

static size_t slot_offset(const mr_activations *activations, size_t slot) {
    MR_ASSERT(slot < activations->slot_count);
    return slot * activations->slot_bytes;
}

size_t mr_activations_slots(const mr_activations *activations) {
    return activations->slot_count;
}

/* The shape that enters a layer of the stage; layer_count: that leaves its last one. */
static mr_shape activations_shape(const mr_activations *activations, size_t layer) {
    const mr_stage_plan *stage = mr_assignment_stage(activations->assignment);
    return mr_assignment_boundary(activations->assignment, stage->layer_first + layer);
}

mr_tensor mr_activations_output(const mr_activations *activations, size_t slot, size_t layer) {
    return (mr_tensor){
        .data = activations_at(activations,
                               slot_offset(activations, slot) + activations->output[layer]),
        .shape = activations_shape(activations, layer + 1),
    };
}

void *mr_activations_saved(const mr_activations *activations, size_t slot, size_t layer) {
    return activations_at(activations, slot_offset(activations, slot) + activations->saved[layer]);
}

void *mr_activations_retained(const mr_activations *activations) {
    return activations_at(activations, activations->retained);
}

void *mr_activations_scratch(const mr_activations *activations) {
    return activations_at(activations, activations->scratch);
}

mr_tensor mr_activations_gradient(const mr_activations *activations, size_t turn, size_t layer) {
    size_t offset = activations->gradient[turn % MR_ACTIVATIONS_GRADIENT_BUFFERS];
    return (mr_tensor){
        .data = activations_at(activations, offset),
        .shape = activations_shape(activations, layer),
    };
}

mr_tensor mr_activations_outgoing(const mr_activations *activations, size_t turn) {
    size_t offset = activations->outgoing[turn % MR_ACTIVATIONS_GRADIENT_BUFFERS];
    return (mr_tensor){
        .data = activations_at(activations, offset),
        .shape = activations_shape(activations, 0),
    };
}

size_t mr_activations_bytes(const mr_activations *activations) {
    return activations->bytes;
}
