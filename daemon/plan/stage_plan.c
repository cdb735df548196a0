/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of one rank of a stage, in bytes, from descriptions alone (law 6):
 *   weights      4 for each element that the stage holds, a tied parameter once; in bf16 and f16 2
 *                more for each element of a matrix: the copy that layers compute with
 *   gradients    4 for each element of each use: every use of a tied parameter has an accumulator
 *   optimizer    4 for each state tensor of the optimizer (none to two) and each element that the
 *                stage holds; with zero_stage 1 the bytes of the replica's share (state_share.h)
 *   activations  what activation_layout.h lays out: the very bytes that the stage asks its device
 *                for. What lies in the slots of links and of the feed is not among them
 * A frozen parameter has weights alone; the frozen vectors of layers that train others share one
 * scrap accumulator on a stage (stage/parameters.h).
 * In inference gradients and optimizer are 0. Of a layer that the model axis cuts a rank's shard
 * counts. */
#include "daemon/plan/stage_plan.h"

#include "daemon/base/alloc.h"
#include "daemon/model/slices.h"
#include "daemon/plan/activation_layout.h"
#include "daemon/plan/state_share.h"

enum { STAGE_ELEMENT_BYTES = 4 };

/* A sum of sizes that remembers whether it ever overflowed. */
typedef struct stage_sum {
    size_t total;
    bool overflow;
} stage_sum;

static void sum_add(stage_sum *sum, size_t value, size_t times) {
    size_t product = 0;
    if (!mr_size_mul(value, times, &product) || !mr_size_add(sum->total, product, &sum->total))
        sum->overflow = true;
}

static stage_sum shape_sum(const mr_shape *shape) {
    stage_sum sum = {0};
    sum.overflow = !mr_shape_bytes(shape, &sum.total);
    return sum;
}

/* Bytes of what enters a layer; of what leaves the last one for layer == layer_count. */
static stage_sum layer_input(const mr_plan *plan, size_t layer) {
    if (layer > 0)
        return shape_sum(&plan->shards[layer - 1].output);
    mr_shape input = mr_job_input_shape(plan->job);
    return shape_sum(&input);
}

static stage_sum stage_activations(const mr_plan *plan, const mr_stage_plan *stage) {
    mr_activation_layout layout;
    mr_activation_layout_make(plan, stage, plan->job->checkpoint_interval, &layout, NULL);
    return (stage_sum){.total = layout.bytes, .overflow = layout.bytes == SIZE_MAX};
}

static size_t shape_elements(const mr_shape *shape) {
    size_t elements = 0;
    return mr_shape_elements(shape, &elements) ? elements : SIZE_MAX;
}

/* Elements of one stage: all, each tied parameter once; the share of one rank; that share with
 * every use of a tied parameter. */
typedef struct stage_elements {
    stage_sum whole;
    stage_sum share;
    stage_sum uses;
    stage_sum trained; /* of share: what is not frozen */
    size_t scrap;      /* largest frozen vector beside trained parameters */
    stage_sum compute; /* bytes: copies that layers compute with */
    mr_slices states;  /* the layout of one state tensor of the optimizer */
} stage_elements;

static void elements_add_layer(const mr_plan *plan, size_t layer, bool tied_is_there,
                               stage_elements *elements) {
    const mr_layer_description *description = &plan->shards[layer];
    for (size_t i = 0; i < description->parameter_count; i++) {
        const mr_parameter *parameter = &description->parameters[i];
        size_t share = shape_elements(&parameter->shape);
        bool scraps = parameter->frozen && parameter->shape.dim_count < 2 &&
                      mr_layer_description_trains(description);
        sum_add(&elements->uses, parameter->frozen ? 0 : share, 1);
        if (scraps && share > elements->scrap)
            elements->scrap = share;
        if (parameter->tied && tied_is_there)
            continue;
        sum_add(&elements->whole, shape_elements(&parameter->whole), 1);
        sum_add(&elements->share, share, 1);
        sum_add(&elements->trained, parameter->frozen ? 0 : share, 1);
        if (!parameter->frozen)
            (void)mr_slices_take(&elements->states, MR_DTYPE_F32, share, 1);
        mr_dtype compute = mr_parameter_compute_dtype(parameter, plan->job->precision);
        if (compute != MR_DTYPE_F32)
            sum_add(&elements->compute, share, mr_dtype_bytes(compute));
    }
}

static size_t plan_state_count(const mr_plan *plan) {
    return mr_optimizer_states_of(plan->job->optimizer, plan->job->momentum).count;
}

static bool plan_splits_state(const mr_plan *plan) {
    return plan->job->zero_stage > 0 && plan->job->data > 1 && !plan->inference;
}

/* Bytes that do not overflow, since the whole state's do not. */
size_t mr_plan_optimizer_bytes(const mr_plan *plan, size_t stage, size_t replica) {
    const mr_stage_plan *one = &plan->stages[stage];
    if (!plan_splits_state(plan))
        return one->optimizer_bytes;
    mr_state_share share = mr_state_share_of(one->state_bytes, plan->job->data, replica);
    return plan_state_count(plan) * (share.end - share.first);
}

mr_memory_bytes mr_plan_memory(const mr_plan *plan, size_t stage, size_t replica) {
    const mr_stage_plan *one = &plan->stages[stage];
    return (mr_memory_bytes){
        .weights = one->weights_bytes,
        .gradients = one->gradients_bytes,
        .optimizer = mr_plan_optimizer_bytes(plan, stage, replica),
        .activations = one->activations_bytes,
    };
}

/* optimizer: of the whole state. The first replica's share is the largest. */
static void stage_fill_state(mr_plan *plan, size_t index, size_t optimizer, size_t state_bytes) {
    mr_stage_plan *stage = &plan->stages[index];
    stage->state_bytes = plan->inference ? 0 : state_bytes;
    stage->optimizer_bytes = optimizer;
    if (!plan_splits_state(plan))
        return;
    size_t share = mr_plan_optimizer_bytes(plan, index, 0);
    stage->optimizer_bytes = share;
    stage->zero_saved_bytes = optimizer > share ? optimizer - share : 0;
}

/* repeated[layer]: a layer before it on the same stage has the same tie. */
static mr_status stage_fill(mr_plan *plan, size_t index, const bool *repeated) {
    mr_stage_plan *stage = &plan->stages[index];
    stage->layer_first = plan->bounds[index];
    stage->layer_end = plan->bounds[index + 1];
    stage->flops = 0;
    stage_elements elements = {0};
    for (size_t layer = stage->layer_first; layer < stage->layer_end; layer++) {
        const mr_layer_description *description = &plan->layers[layer];
        elements_add_layer(plan, layer, repeated[layer], &elements);
        double flops = description->flops_forward;
        if (!plan->inference)
            flops += description->flops_backward_input + description->flops_backward_weight;
        stage->flops += flops * (double)plan->job->micro_batches;
    }
    stage_sum weights = {0};
    stage_sum gradients = {0};
    stage_sum optimizer = {0};
    sum_add(&weights, elements.share.total, STAGE_ELEMENT_BYTES);
    sum_add(&weights, elements.compute.total, 1);
    sum_add(&gradients, plan->inference ? 0 : elements.uses.total, STAGE_ELEMENT_BYTES);
    sum_add(&gradients, plan->inference ? 0 : elements.scrap, STAGE_ELEMENT_BYTES);
    sum_add(&optimizer, plan->inference ? 0 : elements.trained.total,
            plan_state_count(plan) * STAGE_ELEMENT_BYTES);
    stage_sum activations = stage_activations(plan, stage);
    if (elements.whole.overflow || elements.share.overflow || elements.uses.overflow ||
        elements.compute.overflow || elements.states.overflowed || weights.overflow ||
        gradients.overflow || optimizer.overflow || activations.overflow)
        return MR_ERROR(INVALID_ARGUMENT,
                        "stage %zu, layers %zu to %zu, needs more than %zu bytes of memory", index,
                        stage->layer_first, stage->layer_end - 1, SIZE_MAX);
    stage->parameters = elements.whole.total;
    stage->weights_bytes = weights.total;
    stage->gradients_bytes = gradients.total;
    stage_fill_state(plan, index, optimizer.total, elements.states.bytes);
    stage->activations_bytes = activations.total;
    return MR_OK;
}

static size_t stage_of_layer(const mr_plan *plan, size_t layer) {
    size_t low = 0;
    size_t high = plan->stage_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (plan->bounds[middle] <= layer)
            low = middle;
        else
            high = middle;
    }
    return low;
}

mr_status mr_stage_plan_fill(mr_plan *plan) {
    mr_tie *ties = NULL;
    size_t tie_count = 0;
    bool *repeated = mr_alloc_array(plan->job->layer_count, sizeof(*repeated));
    if (repeated == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to plan %zu layers", plan->job->layer_count);
    mr_status status = mr_job_ties(plan->job, &ties, &tie_count);
    if (!mr_status_is_ok(status))
        goto out;
    for (size_t tie = 0; tie < tie_count; tie++)
        for (size_t i = 1; i < ties[tie].layer_count; i++)
            repeated[ties[tie].layers[i]] = stage_of_layer(plan, ties[tie].layers[i]) ==
                                            stage_of_layer(plan, ties[tie].layers[i - 1]);
    for (size_t stage = 0; stage < plan->stage_count; stage++)
        MR_TRY_GOTO(status, stage_fill(plan, stage, repeated), out);
out:
    mr_job_ties_free(ties, tie_count);
    mr_free(repeated);
    return status;
}

void mr_stage_plan_costs(const mr_plan *plan, mr_stage_cost *out_costs) {
    for (size_t stage = 0; stage < plan->stage_count; stage++) {
        mr_stage_cost cost = {0};
        for (size_t layer = plan->bounds[stage]; layer < plan->bounds[stage + 1]; layer++) {
            cost.forward += plan->shards[layer].flops_forward;
            cost.backward_input += plan->shards[layer].flops_backward_input;
            cost.backward_weight += plan->shards[layer].flops_backward_weight;
        }
        cost.send_activation =
            (double)layer_input(plan, plan->bounds[stage + 1]).total * MR_STAGE_FLOPS_PER_LINK_BYTE;
        cost.send_gradient =
            (double)layer_input(plan, plan->bounds[stage]).total * MR_STAGE_FLOPS_PER_LINK_BYTE;
        out_costs[stage] = cost;
    }
}
