/* SPDX-License-Identifier: Apache-2.0 */
/* lm_head: logits = x w^T, a linear layer without bias. Its only parameter is its own "weight", or,
 * tied, the embedding's "wte.weight"; either way the first of its description. A shard has some of
 * the vocabulary's rows and gives their logits; dx is a sum over the ranks. */
#include "daemon/layers/layer_table.h"

static void lm_head_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                            mr_tensor *y) {
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor y_rows = mr_layer_rows(y);
    MR_ASSERT(layer->description->parameter_count == 1);
    call->device->ops->linear_forward(call->device, &x_rows, &layer->parameters[0], NULL, &y_rows);
}

static void lm_head_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)x;
    if (dx == NULL)
        return;
    mr_tensor dy_rows = mr_layer_rows(dy);
    mr_tensor dx_rows = mr_layer_rows(dx);
    mr_tensor part = mr_layer_sum_begin(layer, call, &dx_rows);
    call->device->ops->linear_backward_input(call->device, &dy_rows, &layer->parameters[0], &part);
    mr_layer_sum_end(layer, call, &part, &dx_rows);
}

static void lm_head_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                    const mr_tensor *x, const mr_tensor *dy) {
    mr_tensor x_rows = mr_layer_rows(x);
    mr_tensor dy_rows = mr_layer_rows(dy);
    call->device->ops->linear_backward_weight(call->device, &dy_rows, &x_rows,
                                              &layer->gradients[0], NULL);
}

const mr_layer_functions mr_layer_lm_head = {
    .forward = lm_head_forward,
    .backward_input = lm_head_backward_input,
    .backward_weight = lm_head_backward_weight,
};
