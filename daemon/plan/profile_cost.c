/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan/profile_cost.h"

#include <math.h>
#include <string.h>

#include "daemon/base/alloc.h"

enum { COST_ELEMENT_BYTES = 4 }; /* gradients are f32 on every wire */

/* ---- what is the same for every cut ---------------------------------------------------------- */

/* That are trained: a frozen parameter has no part in what comes around a list. */
static double elements_of(const mr_parameter *parameter) {
    size_t elements = 0;
    if (parameter->frozen)
        return 0.0;
    return mr_shape_elements(&parameter->shape, &elements) ? (double)elements : 0.0;
}

static double shape_bytes(const mr_shape *shape) {
    size_t bytes = 0;
    return mr_shape_bytes(shape, &bytes) ? (double)bytes : 0.0;
}

static void costs_take_tie(mr_profile_costs *costs, uint32_t index, const mr_tie *tie) {
    mr_profile_tie *out = &costs->ties[index];
    *out = (mr_profile_tie){
        .layer_first = tie->layers[0],
        .layer_last = tie->layers[tie->layer_count - 1],
        .use_count = (double)tie->layer_count,
    };
    const mr_layer_description *layer = &costs->plan->layers[tie->layers[0]];
    for (size_t i = 0; i < layer->parameter_count; i++)
        if (layer->parameters[i].tied)
            out->elements += elements_of(&layer->parameters[i]);
    for (size_t i = 0; i < tie->layer_count; i++) {
        costs->layer_tie[tie->layers[i]] = index;
        costs->tie_previous[tie->layers[i]] = i == 0 ? SIZE_MAX : tie->layers[i - 1];
    }
}

static mr_status costs_take_ties(mr_profile_costs *costs) {
    mr_tie *ties = NULL;
    MR_TRY(mr_job_ties(costs->plan->job, &ties, &costs->tie_count));
    costs->ties = mr_alloc_array(costs->tie_count, sizeof(*costs->ties));
    for (size_t i = 0; costs->ties != NULL && i < costs->tie_count; i++)
        costs_take_tie(costs, (uint32_t)i, &ties[i]);
    mr_job_ties_free(ties, costs->tie_count);
    return costs->ties == NULL ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the ties") : MR_OK;
}

mr_status mr_profile_costs_init(mr_profile_costs *costs, const mr_plan *plan,
                                const mr_profile *profile) {
    const mr_job *job = plan->job;
    size_t layers = job->layer_count;
    *costs = (mr_profile_costs){
        .plan = plan,
        .profile = profile,
        .ranks_per_stage = plan->topology.world_size / plan->stage_count,
        .layer_tie = mr_alloc_array(layers, sizeof(*costs->layer_tie)),
        .tie_previous = mr_alloc_array(layers, sizeof(*costs->tie_previous)),
        .own_elements = mr_alloc_array(layers, sizeof(*costs->own_elements)),
        .again = mr_alloc_array(layers, sizeof(*costs->again)),
    };
    if (costs->layer_tie == NULL || costs->tie_previous == NULL || costs->own_elements == NULL ||
        costs->again == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut %zu layers", layers);
    mr_shape labels = {0};
    if (mr_status_is_ok(mr_job_label_shape(job, &labels)))
        costs->label_bytes = shape_bytes(&labels);
    for (size_t layer = 0; layer < layers; layer++) {
        const mr_layer_description *description = &plan->layers[layer];
        costs->layer_tie[layer] = UINT32_MAX;
        for (size_t i = 0; i < description->parameter_count; i++)
            if (!description->parameters[i].tied || job->layers[layer].tie[0] == '\0')
                costs->own_elements[layer] += elements_of(&description->parameters[i]);
    }
    return costs_take_ties(costs);
}

void mr_profile_costs_deinit(mr_profile_costs *costs) {
    mr_free(costs->again);
    mr_free(costs->ties);
    mr_free(costs->own_elements);
    mr_free(costs->tie_previous);
    mr_free(costs->layer_tie);
    *costs = (mr_profile_costs){0};
}

/* ---- one stage ------------------------------------------------------------------------------- */

/* A stage with its layers, and what follows from them alone. */
typedef struct cost_stage {
    size_t index;
    size_t first;
    size_t end;
    bool again;           /* costs->again is filled: which layers are computed again */
    double held;          /* elements that it holds: a tied parameter once */
    double owned;         /* of these, those that count in its norm */
    double accumulated;   /* elements of all its accumulators */
    double tied_bytes;    /* that the sums over ties move, for each rank of them */
    double tied_elements; /* that they add */
    double tied_count;    /* sums with other stages */
    double parameters;    /* tensors that it holds */
} cost_stage;

static void stage_add_tie(const mr_profile_costs *costs, size_t layer, cost_stage *stage) {
    const mr_profile_tie *tie = &costs->ties[costs->layer_tie[layer]];
    stage->accumulated += tie->elements;
    if (costs->tie_previous[layer] != SIZE_MAX && costs->tie_previous[layer] >= stage->first)
        return;
    stage->held += tie->elements;
    stage->parameters++;
    if (costs->tie_previous[layer] == SIZE_MAX)
        stage->owned += tie->elements;
    stage->tied_elements += tie->use_count * tie->elements;
    if (tie->layer_first >= stage->first && tie->layer_last < stage->end)
        return;
    stage->tied_count++;
    stage->tied_bytes += tie->use_count * tie->elements * COST_ELEMENT_BYTES;
}

static cost_stage stage_of(const mr_profile_costs *costs, size_t index, size_t first, size_t end) {
    const mr_plan *plan = costs->plan;
    cost_stage stage = {.index = index, .first = first, .end = end};
    for (size_t layer = first; layer < end; layer++) {
        stage.held += costs->own_elements[layer];
        stage.owned += costs->own_elements[layer];
        stage.accumulated += costs->own_elements[layer];
        stage.parameters += (double)plan->layers[layer].parameter_count;
        if (costs->layer_tie[layer] == UINT32_MAX)
            continue;
        stage.parameters--; /* the tied one */
        stage_add_tie(costs, layer, &stage);
    }
    stage.again = plan->job->checkpoint_interval > 0 && !plan->inference;
    if (stage.again) {
        mr_activation_layout layout;
        mr_stage_plan range = {.layer_first = first,
                               .layer_end = end,
                               .peak_in_flight = plan->stages[index].peak_in_flight};
        mr_activation_layout_make(plan, &range, plan->job->checkpoint_interval, &layout,
                                  costs->again);
    }
    return stage;
}

static mr_stage_cost device_cost(const mr_profile_costs *costs, const cost_stage *stage,
                                 const mr_profile_device *device) {
    const mr_plan *plan = costs->plan;
    mr_stage_cost cost = {0};
    for (size_t layer = stage->first; layer < stage->end; layer++) {
        const mr_profile_cost *one = &device->costs[costs->profile->layer_class[layer]];
        cost.forward += one->forward;
        cost.backward_input += one->backward_input;
        cost.backward_weight += one->backward_weight;
        if (stage->again && costs->again[layer - stage->first].again)
            cost.backward_input += one->forward;
    }
    if (stage->index + 1 == plan->stage_count)
        cost.forward += device->loss;
    if (stage->index + 1 < plan->stage_count)
        cost.send_activation =
            device->link + device->link_byte * (shape_bytes(&plan->layers[stage->end - 1].output) +
                                                costs->label_bytes);
    if (stage->index > 0)
        cost.send_gradient =
            device->link + device->link_byte * shape_bytes(&plan->layers[stage->first - 1].output);
    return cost;
}

static mr_stage_margin device_margin(const mr_profile_costs *costs, const cost_stage *stage,
                                     const mr_profile_device *device) {
    const mr_job *job = costs->plan->job;
    double replicas = (double)(job->data - 1);
    mr_stage_margin margin = {0};
    if (costs->plan->inference)
        return margin;
    double updated = job->zero_stage == 0 ? stage->held : stage->held / (double)job->data;
    margin.before = device->optimizer * updated + device->zero * stage->accumulated;
    margin.after = 2 * device->link * stage->tied_count + device->link_byte * stage->tied_bytes +
                   device->norm * stage->tied_elements;
    if (job->data > 1)
        margin.after += 2 * device->link * stage->parameters +
                        2 * replicas * device->link_byte * stage->held * COST_ELEMENT_BYTES;
    margin.after += device->norm * stage->owned;
    if (costs->plan->topology.world_size > 1)
        margin.after += 2 * device->link;
    return margin;
}

static void cost_keep_largest(mr_stage_cost *cost, const mr_stage_cost *other) {
    cost->forward = fmax(cost->forward, other->forward);
    cost->backward_input = fmax(cost->backward_input, other->backward_input);
    cost->backward_weight = fmax(cost->backward_weight, other->backward_weight);
    cost->send_activation = fmax(cost->send_activation, other->send_activation);
    cost->send_gradient = fmax(cost->send_gradient, other->send_gradient);
}

void mr_profile_costs_stage(const mr_profile_costs *costs, size_t stage, size_t first, size_t end,
                            mr_stage_cost *out_cost, mr_stage_margin *out_margin) {
    MR_ASSERT(first < end);
    cost_stage range = stage_of(costs, stage, first, end);
    const mr_profile_device *before = NULL;
    *out_cost = (mr_stage_cost){0};
    *out_margin = (mr_stage_margin){0};
    for (size_t i = 0; i < costs->ranks_per_stage; i++) {
        const mr_profile_device *device =
            mr_profile_of_rank(costs->profile, stage * costs->ranks_per_stage + i);
        if (device == before)
            continue;
        mr_stage_cost cost = device_cost(costs, &range, device);
        mr_stage_margin margin = device_margin(costs, &range, device);
        cost_keep_largest(out_cost, &cost);
        out_margin->before = fmax(out_margin->before, margin.before);
        out_margin->after = fmax(out_margin->after, margin.after);
        before = device;
    }
}

size_t mr_profile_costs_capacity(const mr_profile_costs *costs, size_t stage) {
    size_t capacity = SIZE_MAX;
    for (size_t i = 0; i < costs->ranks_per_stage; i++) {
        uint64_t bytes =
            mr_profile_of_rank(costs->profile, stage * costs->ranks_per_stage + i)->memory_bytes;
        if (bytes > 0 && bytes < capacity)
            capacity = (size_t)bytes;
    }
    return capacity;
}

double mr_profile_costs_layer(const mr_profile_costs *costs, size_t stage, size_t layer) {
    double slowest = 0.0;
    for (size_t i = 0; i < costs->ranks_per_stage; i++) {
        const mr_profile_device *device =
            mr_profile_of_rank(costs->profile, stage * costs->ranks_per_stage + i);
        const mr_profile_cost *cost = &device->costs[costs->profile->layer_class[layer]];
        slowest = fmax(slowest, cost->forward + cost->backward_input + cost->backward_weight);
    }
    return slowest;
}
