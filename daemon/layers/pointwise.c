/* SPDX-License-Identifier: Apache-2.0 */
/* relu, gelu (tanh form) and silu: y = f(x), dx = dy f'(x). Backward needs the input only. */
#include "daemon/layers/layer_table.h"

static mr_pointwise pointwise_kind(const mr_layer *layer) {
    if (layer->spec->type == MR_LAYER_TYPE_RELU)
        return MR_POINTWISE_RELU;
    if (layer->spec->type == MR_LAYER_TYPE_GELU)
        return MR_POINTWISE_GELU_TANH;
    MR_ASSERT(layer->spec->type == MR_LAYER_TYPE_SILU);
    return MR_POINTWISE_SILU;
}

static void pointwise_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                              mr_tensor *y) {
    call->device->ops->pointwise_forward(call->device, pointwise_kind(layer), x, y);
}

static void pointwise_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                     const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    if (dx != NULL)
        call->device->ops->pointwise_backward(call->device, pointwise_kind(layer), x, dy, dx);
}

const mr_layer_functions mr_layer_pointwise = {
    .forward = pointwise_forward,
    .backward_input = pointwise_backward_input,
    .backward_weight = mr_layer_no_weight,
};
