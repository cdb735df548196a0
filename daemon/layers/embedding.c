/* SPDX-License-Identifier: Apache-2.0 */
/* embedding: y[b, t] = wte[x[b, t]] + wpe[t]. Tokens have no gradient, so backward-input is empty
 * and all of backward is the scatter of dy into the rows that were read. */
#include "daemon/layers/layer_table.h"

static void embedding_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                              mr_tensor *y) {
    call->device->ops->embedding_forward(call->device, x, mr_layer_parameter(layer, "wte.weight"),
                                         mr_layer_parameter(layer, "wpe.weight"), y);
}

static void embedding_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                     const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)layer;
    (void)call;
    (void)x;
    (void)dy;
    MR_ASSERT(dx == NULL);
}

static void embedding_backward_weight(const mr_layer *layer, const mr_layer_call *call,
                                      const mr_tensor *x, const mr_tensor *dy) {
    call->device->ops->embedding_backward(call->device, x, dy,
                                          mr_layer_gradient(layer, "wte.weight"),
                                          mr_layer_gradient(layer, "wpe.weight"));
}

const mr_layer_functions mr_layer_embedding = {
    .forward = embedding_forward,
    .backward_input = embedding_backward_input,
    .backward_weight = embedding_backward_weight,
};
