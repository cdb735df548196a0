/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes saturate: a sum that was ever too large stays SIZE_MAX; who asked refuses it once. */
#include "daemon/plan/activation_layout.h"

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"

/* Takes bytes from an area that is *sum long, and says where they start. */
static size_t area_take(size_t *sum, size_t bytes) {
    size_t at = *sum;
    size_t rounded = mr_arena_rounded(bytes);
    if (rounded < bytes || !mr_size_add(at, rounded, sum))
        *sum = SIZE_MAX;
    return at;
}

static size_t shape_bytes(const mr_shape *shape) {
    size_t bytes = 0;
    return mr_shape_bytes(shape, &bytes) ? bytes : SIZE_MAX;
}

static size_t size_max(size_t a, size_t b) {
    return a > b ? a : b;
}

/* May all layers [first, end) be computed again? */
static bool run_is_checkpointable(const mr_plan *plan, size_t first, size_t end) {
    if (plan->inference)
        return false;
    for (size_t layer = first; layer < end; layer++)
        if (!mr_job_layer_is_checkpointable(plan->job, layer))
            return false;
    return true;
}

/* One area of the memory for each kind of place. */
typedef struct layout_areas {
    size_t slot;
    size_t again;
} layout_areas;

static mr_activation_place areas_take(layout_areas *areas, bool in_slot, size_t bytes) {
    return (mr_activation_place){
        .offset = area_take(in_slot ? &areas->slot : &areas->again, bytes),
        .in_slot = in_slot,
    };
}

/* The run of layers [first, end), global indices; out_layers is of the stage's first layer. */
static void layout_run(const mr_plan *plan, const mr_stage_plan *stage, bool keeps, size_t first,
                       size_t end, layout_areas *areas, mr_activation_layer *out_layers) {
    areas->again = 0; /* every run has the shared area for itself */
    for (size_t i = first; i < end; i++) {
        const mr_layer_description *layer = &plan->shards[i];
        bool last = i + 1 == end;
        size_t output = shape_bytes(&layer->output);
        mr_activation_layer laid = {
            .run_first = first - stage->layer_first,
            .run_end = end - stage->layer_first,
            .again = !keeps && !(last && layer->saved_bytes == 0),
        };
        laid.output = areas_take(areas, keeps || last || layer->puts, output);
        laid.saved = areas_take(areas, keeps, layer->saved_bytes);
        laid.output_again = laid.output;
        if (laid.again && i + 1 == stage->layer_end)
            laid.output_again = areas_take(areas, false, output);
        if (out_layers != NULL)
            out_layers[i - stage->layer_first] = laid;
    }
}

/* All runs of the stage; returns the bytes of the shared area. */
static size_t layout_runs(const mr_plan *plan, const mr_stage_plan *stage, size_t interval,
                          size_t *out_slot_bytes, mr_activation_layer *out_layers) {
    layout_areas areas = {0};
    size_t again = 0;
    for (size_t first = stage->layer_first; first < stage->layer_end;) {
        size_t left = stage->layer_end - first;
        size_t end = first + (interval > 0 && interval < left ? interval : left);
        bool keeps = interval == 0 || !run_is_checkpointable(plan, first, end);
        layout_run(plan, stage, keeps, first, end, &areas, out_layers);
        again = size_max(again, areas.again);
        first = end;
    }
    *out_slot_bytes = areas.slot;
    return again;
}

/* What is there once for all microbatches, besides the area of runs. */
static void layout_shared(const mr_plan *plan, const mr_stage_plan *stage,
                          mr_activation_layout *layout) {
    size_t retained = 0;
    size_t scratch = 0;
    size_t gradient = 0;
    for (size_t i = stage->layer_first; i < stage->layer_end; i++) {
        retained = size_max(retained, plan->shards[i].retained_bytes);
        scratch = size_max(scratch, plan->shards[i].scratch_bytes);
        if (i + 1 < stage->layer_end)
            gradient = size_max(gradient, shape_bytes(&plan->shards[i].output));
    }
    size_t outgoing = 0;
    if (stage->layer_first > 0)
        outgoing = shape_bytes(&plan->shards[stage->layer_first - 1].output);
    layout->retained = area_take(&layout->bytes, plan->inference ? 0 : retained);
    layout->scratch = area_take(&layout->bytes, scratch);
    for (size_t i = 0; i < MR_ACTIVATION_GRADIENT_BUFFERS; i++) {
        layout->gradient[i] = area_take(&layout->bytes, plan->inference ? 0 : gradient);
        layout->outgoing[i] = area_take(&layout->bytes, plan->inference ? 0 : outgoing);
    }
}

bool mr_activation_has_aside(const mr_plan *plan, const mr_stage_plan *stage, size_t index) {
    const mr_aside *aside = &plan->asides[index];
    return !plan->inference && aside->put < stage->layer_end &&
           aside->last_take >= stage->layer_first &&
           plan->shards[aside->put].output.needs_gradient;
}

/* Gradients of what is put aside, two by turns as for what goes to the previous stage. */
static void layout_asides(const mr_plan *plan, const mr_stage_plan *stage,
                          mr_activation_layout *layout) {
    size_t bytes = 0;
    for (size_t i = 0; i < plan->aside_count; i++)
        if (mr_activation_has_aside(plan, stage, i))
            layout->aside_at[i] =
                area_take(&bytes, shape_bytes(&plan->shards[plan->asides[i].put].output));
    for (size_t i = 0; i < MR_ACTIVATION_GRADIENT_BUFFERS; i++)
        layout->aside[i] = area_take(&layout->bytes, bytes);
}

void mr_activation_layout_make(const mr_plan *plan, const mr_stage_plan *stage, size_t interval,
                               mr_activation_layout *out_layout, mr_activation_layer *out_layers) {
    mr_activation_layout layout = {
        .layer_count = stage->layer_end - stage->layer_first,
        .slot_count = size_max(stage->peak_in_flight, 1),
    };
    size_t again = layout_runs(plan, stage, interval, &layout.slot_bytes, out_layers);
    if (!mr_size_mul(layout.slot_bytes, layout.slot_count, &layout.bytes))
        layout.bytes = SIZE_MAX;
    layout.again = area_take(&layout.bytes, again);
    layout_shared(plan, stage, &layout);
    layout_asides(plan, stage, &layout);
    *out_layout = layout;
}
