/* SPDX-License-Identifier: Apache-2.0 */
/* dropout: y = x with a mask, dx = dy with the same mask, which is drawn again and never stored. */
#include "daemon/layers/layer_table.h"
#include "daemon/model/shard.h"

/* A share of an activation has the mask that it has in the whole. */
static mr_dropout dropout_mask(const mr_layer *layer, const mr_layer_call *call) {
    const mr_layer_spec *spec = layer->spec;
    mr_dropout mask = mr_layer_mask(layer, call, MR_DROPOUT_SITE_LAYER);
    if (layer->input.cut_from == 0)
        return mask;
    mr_shard_range range =
        mr_shard_range_of(layer->input.cut_from, spec->model_rank, spec->model_width);
    mask.run = range.count;
    mask.stride = layer->input.cut_from;
    mask.first = range.first;
    return mask;
}

static void dropout_forward(const mr_layer *layer, const mr_layer_call *call, const mr_tensor *x,
                            mr_tensor *y) {
    mr_dropout mask = dropout_mask(layer, call);
    call->device->ops->dropout(call->device, &mask, x, y);
}

static void dropout_backward_input(const mr_layer *layer, const mr_layer_call *call,
                                   const mr_tensor *x, const mr_tensor *dy, mr_tensor *dx) {
    (void)x;
    if (dx == NULL)
        return;
    mr_dropout mask = dropout_mask(layer, call);
    call->device->ops->dropout(call->device, &mask, dy, dx);
}

const mr_layer_functions mr_layer_dropout = {
    .forward = dropout_forward,
    .backward_input = dropout_backward_input,
    .backward_weight = mr_layer_no_weight,
};
