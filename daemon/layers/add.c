/* SPDX-License-Identifier: Apache-2.0 */
/* add: y = x + what an earlier layer put aside; both get dy as their gradient. A residual
 * connection over any layers, within a stage or across stages. */
#include "daemon/layers/layer_table.h"

static const mr_dropout add_no_dropout = {.probability = 0};

static void add_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                        mr_tensor *y) {
    (void)layer;
    MR_ASSERT(call->taken != NULL);
    call->device->ops->add(call->device, x, call->taken, &add_no_dropout, y);
}

static void add_backward_input(const mr_layer *layer, const mr_layer_call *call,
                               const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)layer;
    (void)x;
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&dy->shape, &bytes));
    if (call->d_taken != NULL)
        call->device->ops->add(call->device, call->d_taken, dy, &add_no_dropout, call->d_taken);
    if (dx != NULL)
        call->device->ops->copy(call->device, dx->data, dy->data, bytes);
}

const mr_layer_functions mr_layer_add = {
    .forward = add_forward,
    .backward_input = add_backward_input,
    .backward_weight = mr_layer_no_weight,
};
