/* SPDX-License-Identifier: Apache-2.0 */
/* dropout: y = x with a mask, dx = dy with the same mask, which is drawn again and never stored. */
#include "daemon/layers/layer_table.h"

static void dropout_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                            mr_tensor *y) {
    mr_dropout mask = mr_layer_mask(layer, call, MR_DROPOUT_SITE_LAYER);
    call->device->ops->dropout(call->device, &mask, x, y);
}

static void dropout_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)x;
    if (dx == NULL)
        return;
    mr_dropout mask = mr_layer_mask(layer, call, MR_DROPOUT_SITE_LAYER);
    call->device->ops->dropout(call->device, &mask, dy, dx);
}

const mr_layer_functions mr_layer_dropout = {
    .forward = dropout_forward,
    .backward_input = dropout_backward_input,
    .backward_weight = mr_layer_no_weight,
};
