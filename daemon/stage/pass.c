/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/pass.h"

static size_t pass_slot(const mr_pass *pass) {
    return pass->micro_batch % mr_activations_slots(pass->activations);
}

/* again: the layer is computed again for its backward. */
static mr_layer_call pass_call(const mr_pass *pass, size_t layer, bool again) {
    const mr_job *job = pass->assignment->job;
    uint64_t micro_batch = pass->assignment->replica * pass->micro_batches + pass->micro_batch;
    uint64_t number = mr_seed_call(pass->step, job->data * job->micro_batches, micro_batch);
    const mr_layer *one = mr_parameters_layer(pass->parameters, layer);
    const mr_side_loss *side = &one->description->side;
    return (mr_layer_call){
        .device = pass->device,
        .training = !pass->assignment->inference,
        .seed = mr_job_forward_seed(job, one->index, number),
        .step = pass->step,
        .micro_batch = micro_batch,
        .saved = mr_activations_saved(pass->activations, pass_slot(pass), layer),
        .retained = mr_activations_retained(pass->activations),
        .scratch = mr_activations_scratch(pass->activations),
        .model = pass->model,
        .side_sum =
            pass->sides == NULL ? NULL : mr_side_losses_at(pass->sides, layer, again),
        .side_scale = mr_layer_description_has_side(one->description)
                          ? (float)(side->weight * pass->side_scale / side->terms)
                          : 0,
    };
}

/* ---- what is put aside ---- */

static const mr_stage_plan *pass_stage(const mr_pass *pass) {
    return mr_assignment_stage(pass->assignment);
}

/* What a layer of the stage, by its index here, takes: put by a layer here, or come from an earlier
 * stage. False: it takes nothing. */
static bool pass_taken(const mr_pass *pass, size_t layer, size_t *out_index,
                       mr_tensor *out_taken) {
    const mr_plan *plan = pass->assignment->plan;
    size_t first = pass_stage(pass)->layer_first;
    const char *name = mr_parameters_layer(pass->parameters, layer)->spec->take;
    if (name[0] == '\0')
        return false;
    *out_index = mr_aside_find(plan->asides, plan->aside_count, name);
    MR_ASSERT(*out_index < plan->aside_count); /* the job was checked */
    size_t put = plan->asides[*out_index].put;
    if (put >= first) {
        *out_taken = mr_activations_output(pass->activations, pass_slot(pass), put - first);
        return true;
    }
    MR_ASSERT(pass->asides != NULL && pass->asides[*out_index].data != NULL);
    *out_taken = pass->asides[*out_index];
    return true;
}

/* The gradients of asides begin with what later stages have added, or with nothing. */
static void pass_begin_asides(const mr_pass *pass) {
    const mr_plan *plan = pass->assignment->plan;
    const mr_device_ops *ops = pass->device->ops;
    for (size_t i = 0; i < plan->aside_count; i++) {
        size_t bytes = 0;
        if (!mr_activation_has_aside(plan, pass_stage(pass), i))
            continue;
        mr_tensor gradient = mr_activations_aside(pass->activations, pass->turn, i);
        MR_ASSERT(mr_shape_bytes(&gradient.shape, &bytes));
        if (plan->asides[i].last_take < pass_stage(pass)->layer_end)
            ops->zero(pass->device, gradient.data, bytes);
        else
            ops->copy(pass->device, gradient.data, pass->aside_gradients[i].data, bytes);
    }
}

/* The layer's output gradient gets what those that took the output have added. */
static void pass_add_aside(const mr_pass *pass, size_t layer, mr_tensor *gradient) {
    const mr_dropout none = {.probability = 0};
    const mr_plan *plan = pass->assignment->plan;
    for (size_t i = 0; i < plan->aside_count; i++) {
        if (plan->asides[i].put != pass_stage(pass)->layer_first + layer ||
            !mr_activation_has_aside(plan, pass_stage(pass), i))
            continue;
        mr_tensor added = mr_activations_aside(pass->activations, pass->turn, i);
        pass->device->ops->add(pass->device, gradient, &added, &none, gradient);
    }
}

static void pass_layer_forward(const mr_pass *pass, size_t layer, bool again,
                               const mr_tensor *input, mr_tensor *output) {
    mr_layer_call call = pass_call(pass, layer, again);
    mr_tensor taken;
    size_t index = 0;
    if (pass_taken(pass, layer, &index, &taken))
        call.taken = &taken;
    mr_layer_forward(mr_parameters_layer(pass->parameters, layer), &call, input, output);
}

static void pass_layer_backward(const mr_pass *pass, size_t layer, const mr_tensor *input,
                                const mr_tensor *dy, mr_tensor *dx) {
    const mr_layer *one = mr_parameters_layer(pass->parameters, layer);
    mr_layer_call call = pass_call(pass, layer, true);
    mr_tensor taken;
    mr_tensor d_taken;
    size_t index = 0;
    if (pass_taken(pass, layer, &index, &taken)) {
        call.taken = &taken;
        if (mr_activation_has_aside(pass->assignment->plan, pass_stage(pass), index)) {
            d_taken = mr_activations_aside(pass->activations, pass->turn, index);
            call.d_taken = &d_taken;
        }
    }
    mr_layer_backward_input(one, &call, input, dy, dx);
    mr_layer_backward_weight(one, &call, input, dy);
}

/* ---- passes ---- */

/* What entered a layer: the stage's input, or what the layer before gave. */
static mr_tensor pass_input(const mr_pass *pass, const mr_tensor *x, size_t layer) {
    return layer == 0 ? *x : mr_activations_output(pass->activations, pass_slot(pass), layer - 1);
}

mr_tensor mr_pass_forward(const mr_pass *pass, const mr_tensor *x) {
    size_t layer_count = mr_parameters_layer_count(pass->parameters);
    mr_tensor output = *x;
    for (size_t i = 0; i < layer_count; i++) {
        mr_tensor input = output;
        output = mr_activations_output(pass->activations, pass_slot(pass), i);
        pass_layer_forward(pass, i, false, &input, &output);
    }
    return output;
}

/* Computes the outputs and saved bytes of layer's run again, with the same random numbers, from the
 * run's input. Nothing is done for a run that kept everything. */
static void pass_run_again(const mr_pass *pass, const mr_tensor *x, size_t layer) {
    const mr_activation_layer *run = mr_activations_layer(pass->activations, layer);
    for (size_t i = run->run_first; i < run->run_end; i++) {
        if (!mr_activations_layer(pass->activations, i)->again)
            continue;
        mr_tensor input = pass_input(pass, x, i);
        mr_tensor output = mr_activations_output_again(pass->activations, pass_slot(pass), i);
        pass_layer_forward(pass, i, true, &input, &output);
    }
}

/* Layers from last to first; the gradient moves between two buffers by turns, so that a layer reads
 * one and writes the other. */
void mr_pass_backward(const mr_pass *pass, const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    mr_tensor gradient = *dy;
    pass_begin_asides(pass);
    for (size_t i = mr_parameters_layer_count(pass->parameters); i-- > 0;) {
        const mr_layer *layer = mr_parameters_layer(pass->parameters, i);
        if (!layer->description->output.needs_gradient)
            break; /* neither it nor any layer before it is trained */
        if (mr_activations_layer(pass->activations, i)->run_end == i + 1)
            pass_run_again(pass, x, i);
        pass_add_aside(pass, i, &gradient);
        mr_tensor input = pass_input(pass, x, i);
        mr_tensor input_gradient = mr_activations_gradient(pass->activations, i, i);
        mr_tensor *target = i > 0 ? &input_gradient : dx;
        if (!layer->input.needs_gradient)
            target = NULL;
        pass_layer_backward(pass, i, &input, &gradient, target);
        if (pass->layer_done != NULL)
            pass->layer_done(pass->done_context, i);
        gradient = input_gradient;
    }
}
