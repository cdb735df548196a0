/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/pass.h"

static size_t pass_slot(const mr_pass *pass) {
    return pass->micro_batch % mr_activations_slots(pass->activations);
}

static mr_layer_call pass_call(const mr_pass *pass, size_t layer) {
    return (mr_layer_call){
        .device = pass->device,
        .training = !pass->assignment->inference,
        .seed = pass->assignment->job->seed,
        .step = pass->step,
        .micro_batch = pass->assignment->replica * pass->assignment->job->micro_batches +
                       pass->micro_batch,
        .saved = mr_activations_saved(pass->activations, pass_slot(pass), layer),
        .retained = mr_activations_retained(pass->activations),
        .scratch = mr_activations_scratch(pass->activations),
        .model = pass->model,
    };
}

/* What entered a layer: the stage's input, or what the layer before gave. */
static mr_tensor pass_input(const mr_pass *pass, const mr_tensor *x, size_t layer) {
    return layer == 0 ? *x : mr_activations_output(pass->activations, pass_slot(pass), layer - 1);
}

mr_tensor mr_pass_forward(const mr_pass *pass, const mr_tensor *x) {
    size_t layer_count = mr_parameters_layer_count(pass->parameters);
    mr_tensor output = *x;
    for (size_t i = 0; i < layer_count; i++) {
        mr_layer_call call = pass_call(pass, i);
        mr_tensor input = output;
        output = mr_activations_output(pass->activations, pass_slot(pass), i);
        mr_layer_forward(mr_parameters_layer(pass->parameters, i), &call, &input, &output);
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
        mr_layer_call call = pass_call(pass, i);
        mr_tensor input = pass_input(pass, x, i);
        mr_tensor output = mr_activations_output_again(pass->activations, pass_slot(pass), i);
        mr_layer_forward(mr_parameters_layer(pass->parameters, i), &call, &input, &output);
    }
}

/* Layers from last to first; the gradient moves between two buffers by turns, so that a layer reads
 * one and writes the other. */
void mr_pass_backward(const mr_pass *pass, const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    mr_tensor gradient = *dy;
    for (size_t i = mr_parameters_layer_count(pass->parameters); i-- > 0;) {
        const mr_layer *layer = mr_parameters_layer(pass->parameters, i);
        if (mr_activations_layer(pass->activations, i)->run_end == i + 1)
            pass_run_again(pass, x, i);
        mr_layer_call call = pass_call(pass, i);
        mr_tensor input = pass_input(pass, x, i);
        mr_tensor input_gradient = mr_activations_gradient(pass->activations, i, i);
        mr_tensor *target = i > 0 ? &input_gradient : dx;
        mr_layer_backward_input(layer, &call, &input, &gradient, target);
        mr_layer_backward_weight(layer, &call, &input, &gradient);
        if (pass->layer_done != NULL)
            pass->layer_done(pass->done_context, i);
        gradient = input_gradient;
    }
}
